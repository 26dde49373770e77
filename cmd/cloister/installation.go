package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cloister/internal/durable"
)

// schema is the version of the data directory's layout.
const schema = 1

// Each running installation of a host has one slot, and with it a range of user ids: the first for
// its front, the others for environments.
const (
	slots         = 512
	firstUID      = 2_000_000
	uidsPerSlot   = 2048
	hostDirectory = "/run/cloister"
)

// An installation is a data directory in use by this process.
//
//	DIR/id schema slot lock     this file's
//	DIR/ca.pem ca.p12 endpoint  public: for clients, written when the service answers
//	DIR/front/                  mode 0700, root, so that a user id that another installation has later opens nothing
//	DIR/front/state/            mode 0700, owned by the front's user: root key, state, artifacts, logs
//	DIR/worker/                 mode 0700, root: runtime images and the files behind /tmp
type installation struct {
	directory string
	id        string // 8 hexadecimal digits: every cgroup, mount and loop device carries it
	uid       int    // of the front; environments have uid+1 and so on
	run       string // directory for sockets, gone with the process

	locks []*os.File // held for life
}

// openInstallation creates or opens the data directory and takes it for this process alone.
func openInstallation(directory string) (*installation, error) {
	directory, err := filepath.Abs(directory)
	if err != nil {
		return nil, err
	}
	if err := durable.MakeDirectory(directory, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	in := &installation{directory: directory}
	for _, step := range []func() error{in.checkOurs, in.lock, in.writeSchema, in.readID, in.claimID, in.claimSlot, in.checkState, in.makeDirectories} {
		if err := step(); err != nil {
			in.close()
			return nil, err
		}
	}
	return in, nil
}

func (in *installation) path(name ...string) string {
	return filepath.Join(append([]string{in.directory}, name...)...)
}

// state is the front's directory.
func (in *installation) state() string { return stateOf(in.directory) }

func stateOf(directory string) string { return filepath.Join(directory, "front", "state") }

// tryLock opens and locks a file without waiting.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockPatience is how long a serve that was just killed may take to be gone, on a busy machine.
const lockPatience = 2 * time.Second

func (in *installation) lock() error {
	f, err := tryLock(in.path("lock"))
	for end := time.Now().Add(lockPatience); errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(end); f, err = tryLock(in.path("lock")) {
		time.Sleep(20 * time.Millisecond)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("the data directory %s is in use by another cloister serve", in.directory)
	}
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	in.locks = append(in.locks, f)
	return nil
}

// checkOurs refuses a directory that holds something else, or that a newer version of Cloister has written, before
// anything is written to it.
func (in *installation) checkOurs() error {
	begun, err := in.readSchema()
	if begun || err != nil {
		return err
	}
	entries, err := os.ReadDir(in.directory)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lock" && e.Name() != "lost+found" && !durable.IsTemporary(e.Name()) { // of a first start that was killed
			return fmt.Errorf("%s is not empty and is no Cloister data directory (it holds %s): name a new or empty directory", in.directory, e.Name())
		}
	}
	return nil
}

// readSchema reports whether the directory has a schema number, which must be ours.
func (in *installation) readSchema() (begun bool, err error) {
	b, err := os.ReadFile(in.path("schema"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("read schema number: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return true, fmt.Errorf("%s does not hold a schema number: this is no Cloister data directory, or it is damaged", in.path("schema"))
	}
	if n != schema {
		return true, fmt.Errorf("the data directory has schema %d and this version of Cloister knows %d: use the version that wrote it, or a newer one", n, schema)
	}
	return true, nil
}

func (in *installation) writeSchema() error {
	begun, err := in.readSchema()
	if begun || err != nil {
		return err
	}
	if err := durable.Sweep(in.directory); err != nil {
		return err
	}
	return durable.WriteFile(in.path("schema"), []byte(strconv.Itoa(schema)+"\n"), 0o644)
}

func (in *installation) readID() error {
	b, err := os.ReadFile(in.path("id"))
	if errors.Is(err, fs.ErrNotExist) {
		var random [4]byte
		rand.Read(random[:])
		in.id = hex.EncodeToString(random[:])
		return durable.WriteFile(in.path("id"), []byte(in.id+"\n"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("read installation id: %w", err)
	}
	in.id = strings.TrimSpace(string(b))
	if raw, err := hex.DecodeString(in.id); err != nil || len(raw) != 4 {
		return fmt.Errorf("%s does not hold an installation id: the data directory is damaged", in.path("id"))
	}
	return nil
}

// claimID refuses a second installation with the same id on this host: the copy of a data directory
// whose original runs. Everything on the host is named by the id, so each would end the other's work.
func (in *installation) claimID() error {
	directory := filepath.Join(hostDirectory, "ids")
	if err := makeHostDirectory(directory); err != nil {
		return err
	}
	f, err := tryLock(filepath.Join(directory, in.id))
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("an installation with the id of %s runs on this host already: this is a copy of its data directory. "+
			"Stop the original, or remove %s to make the copy an installation of its own", in.directory, in.path("id"))
	}
	if err != nil {
		return fmt.Errorf("claim installation id: %w", err)
	}
	in.locks = append(in.locks, f)
	in.run = filepath.Join(hostDirectory, in.id)
	return nil
}

// makeHostDirectory makes a directory below hostDirectory that others can pass through.
func makeHostDirectory(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make host directory: %w", err)
	}
	return nil
}

// claimSlot takes a range of user ids that no other installation of this host uses, the one it
// had before if that is free.
func (in *installation) claimSlot() error {
	directory := filepath.Join(hostDirectory, "slots")
	if err := makeHostDirectory(directory); err != nil {
		return err
	}
	before := 0
	if b, err := os.ReadFile(in.path("slot")); err == nil {
		before, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	for i := range slots {
		slot := (before + i + slots) % slots
		f, err := tryLock(filepath.Join(directory, strconv.Itoa(slot)))
		if errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return fmt.Errorf("claim user ids: %w", err)
		}
		in.locks = append(in.locks, f)
		in.uid = firstUID + slot*uidsPerSlot
		return durable.WriteFile(in.path("slot"), []byte(strconv.Itoa(slot)+"\n"), 0o644)
	}
	return fmt.Errorf("claim user ids: %d installations run on this host already", slots)
}

// checkState refuses to begin a second installation in the place of one that has served: where the state of
// that is not there, its disk may not be mounted.
func (in *installation) checkState() error {
	if _, err := os.Lstat(in.path("endpoint")); errors.Is(err, fs.ErrNotExist) {
		return nil // it never served
	}
	if found, err := os.ReadDir(in.state()); err == nil && len(found) > 0 {
		return nil // what is missing of it is told by whoever reads it
	}
	return fmt.Errorf("the state of this installation is missing from %s: mount or put back what was there, or name a new data directory", in.state())
}

func (in *installation) makeDirectories() error {
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{in.run, 0o711}, {filepath.Join(in.run, "front"), 0o755}, {in.path("front"), 0o700}, {in.state(), 0o700}, {in.path("worker"), 0o700}} {
		if err := durable.MakeDirectory(d.path, d.mode); err != nil {
			return fmt.Errorf("make %s: %w", d.path, err)
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return fmt.Errorf("make %s: %w", d.path, err)
		}
	}
	return in.giveToFront()
}

// giveToFront makes the front's user the owner of its state, which it is already unless the slot
// has changed. Links are changed themselves, never followed.
func (in *installation) giveToFront() error {
	state := in.state()
	if info, err := os.Lstat(state); err != nil || info.Sys().(*syscall.Stat_t).Uid == uint32(in.uid) {
		return err
	}
	err := filepath.WalkDir(state, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == state {
			return err
		}
		return os.Lchown(path, in.uid, in.uid)
	})
	if err == nil { // last, so that a change cut short is done again
		err = os.Lchown(state, in.uid, in.uid)
	}
	if err != nil {
		return fmt.Errorf("give state to the front's user: %w", err)
	}
	return nil
}

// close removes the sockets and releases directory and slot.
func (in *installation) close() {
	if in.run != "" {
		os.RemoveAll(in.run)
	}
	for _, f := range in.locks {
		f.Close()
	}
}
