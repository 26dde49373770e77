package sqlite

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"cloister/internal/powercut"
	"cloister/store"
)

var cuts = flag.Int("powercuts", powerCuts, "how often TestNothingAcknowledgedIsMissingAfterAPowerCut cuts the power")

// fragile is the system's disk, which reports all that SQLite and the engine do to the model. Nothing is really
// synchronised.
type fragile struct {
	disk
	model   *powercut.Disk
	hideLog bool // a control: from the engine, which then cannot rewrite it
}

func (d fragile) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	path := name.String()
	if flags&vfs.OPEN_CREATE == 0 && !d.model.Has(path) {
		return nil, flags, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	inode, err := d.model.Open(path)
	if err != nil {
		return nil, flags, err
	}
	f, opened, err := d.disk.OpenFilename(name, flags)
	if err != nil {
		return nil, opened, err
	}
	// As the module's own file does.
	journal := flags&(vfs.OPEN_MAIN_JOURNAL|vfs.OPEN_SUPER_JOURNAL|vfs.OPEN_WAL) != 0
	return &fragileFile{File: f, disk: d, inode: inode, path: path, syncName: journal && flags&vfs.OPEN_CREATE != 0}, opened, nil
}

func (d fragile) Delete(path string, syncDirectory bool) error {
	if err := d.model.Remove(path); err != nil {
		return err
	}
	if err := d.disk.Delete(path, false); err != nil || !syncDirectory {
		return err
	}
	return d.model.SyncDirectory(filepath.Dir(path))
}

func (d fragile) openPlain(path string) (plainFile, error) {
	if d.hideLog && strings.HasSuffix(path, "-wal") {
		return nil, fs.ErrNotExist
	}
	f, err := d.disk.openPlain(path)
	if err != nil {
		return nil, err
	}
	if !d.model.Has(path) { // made by package durable, so that it is synchronised
		if err := d.model.Load(path); err != nil {
			return nil, err
		}
	}
	inode, err := d.model.Open(path)
	return fragilePlain{f, inode}, err
}

type fragilePlain struct {
	plainFile
	inode *powercut.File
}

func (f fragilePlain) WriteAt(p []byte, off int64) (int, error) {
	if err := f.inode.WriteAt(p, off); err != nil {
		return 0, err
	}
	return f.plainFile.WriteAt(p, off)
}

func (f fragilePlain) Sync() error { return f.inode.Sync() }

type fragileFile struct {
	vfs.File
	disk     fragile
	inode    *powercut.File
	path     string
	syncName bool // with the next Sync
}

func (f *fragileFile) SharedMemory() vfs.SharedMemory {
	return f.File.(vfs.FileSharedMemory).SharedMemory()
}

func (f *fragileFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.inode.WriteAt(p, off); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *fragileFile) Truncate(size int64) error {
	if err := f.inode.Truncate(size); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *fragileFile) Sync(vfs.SyncFlag) error {
	if err := f.inode.Sync(); err != nil || !f.syncName {
		return err
	}
	f.syncName = false
	return f.disk.model.SyncDirectory(filepath.Dir(f.path))
}

// A chain is one store over many power cuts, and what its writers know of it.
type chain struct {
	*testing.T
	random    *rand.Rand
	directory string   // of this life of the machine
	disk      *fragile // of this life
	writers   []chainWriter
	watched   uint64 // the last event that was seen
	lie       func(*fragile)
}

// A chainWriter owns two keys and writes a sequence of states to them, each in one commit. Done is
// the number of the last state that was acknowledged.
type chainWriter struct {
	name string
	done int
}

const chainWriters = 3

func newChain(t *testing.T, seed uint64, lie func(*fragile)) *chain {
	c := &chain{T: t, random: rand.New(rand.NewPCG(seed, 1)), lie: lie}
	c.directory = powercut.MemoryDirectory(c)
	config := testConfig(c.directory)
	s := mustOpen(t, config) // package durable makes the file; its own tests cut the power there
	if err := errors.Join(s.Close(), os.Remove(config.Path+"-wal")); err != nil {
		t.Fatal(err)
	}
	c.restart()
	for w := range chainWriters {
		c.writers = append(c.writers, chainWriter{name: fmt.Sprint(w)})
	}
	return c
}

// state is what a writer's objects hold as its number n: some are deletions, some span many pages.
func (w chainWriter) state(n int) (body string, exists bool) {
	if n == 0 || n%5 == 4 {
		return "", false
	}
	return strings.Repeat(fmt.Sprintf("%s %d ", w.name, n), 1+n*n*37%2000), true
}

func (w chainWriter) keys() [2]store.Key {
	return [2]store.Key{key("left", w.name), key("right", w.name)}
}

func (w chainWriter) commit(s *Store, n int) error {
	body, exists := w.state(n)
	var changes []store.Change
	for _, k := range w.keys() {
		c := store.Change{Key: k, Expect: store.AnyRevision, Delete: !exists}
		if exists {
			c.Body, c.Indexes = []byte(body), []store.Index{byColor}
		}
		changes = append(changes, c)
	}
	_, err := s.Commit(context.Background(), changes...)
	return err
}

// live opens the store, checks it, and lets the writers write until the process is killed or
// the power goes.
func (c *chain) live() error {
	config := testConfig(c.directory)
	config.disk, config.checkpointPages = c.disk, 1+c.random.IntN(60)
	if c.random.IntN(10) == 0 {
		c.disk.model.CutAfter(c.random.IntN(20)) // while the store is opened
	}
	if c.random.IntN(20) == 0 {
		c.disk.model.FailSync()
	}
	s, err := Open(config)
	if err == nil {
		err = c.check(s)
		c.disk.model.CutAfter(c.random.IntN(500))
		fail := c.random.IntN(4) == 0
		var all sync.WaitGroup
		for i := range c.writers {
			w := &c.writers[i]
			all.Go(func() {
				for w.commit(s, w.done+1) == nil {
					w.done++
					if fail && w.done%5 == 0 {
						c.disk.model.FailSync()
					}
				}
			})
		}
		if err == nil && c.random.IntN(5) == 0 {
			s.Close() // which the cut may hit, too
		}
		all.Wait()
		s.Close()
	} else if c.disk.model.IsBroken() {
		err = nil
	}
	if c.random.IntN(3) == 0 {
		c.disk.model.Revive() // only the process was killed
	} else {
		c.restart()
	}
	return err
}

// restart begins another life of the machine.
func (c *chain) restart() {
	if c.disk != nil {
		next := powercut.MemoryDirectory(c)
		if err := c.disk.model.Restart(c.directory, next); err != nil {
			c.Fatal(err)
		}
		os.RemoveAll(c.directory)
		c.directory = next
	}
	c.disk = &fragile{disk: newSystemDisk(), model: powercut.New(rand.New(rand.NewPCG(c.random.Uint64(), 2)))}
	if err := c.disk.model.Load(c.directory); err != nil {
		c.Fatal(err)
	}
	if c.lie != nil {
		c.lie(c.disk)
		os.Remove(filepath.Join(c.directory, "state", "meta.db"+markSuffix)) // which finds most losses
	}
}

// check returns what is wrong with a store after a cut. A writer's last commit may or may not be
// there, if its outcome is unknown.
func (c *chain) check(s *Store) error {
	var errs []error
	for i := range c.writers {
		w := &c.writers[i]
		found := -1
		for n := w.done; n <= w.done+1 && found < 0; n++ {
			if w.isAt(c.Context(), s, n) {
				found = n
			}
		}
		if found < 0 {
			errs = append(errs, fmt.Errorf("writer %s: state %d, which was acknowledged, is missing", w.name, w.done))
		}
		w.done = max(found, w.done)
	}
	now, err := s.Now(c.Context())
	errs = append(errs, err)
	for err == nil && c.watched < now.Revision {
		var events []store.Event
		if events, err = s.Watch(c.Context(), c.watched, store.MaxPageLimit); err == nil {
			if events[0].Revision != c.watched+1 {
				err = fmt.Errorf("event %d follows %d", events[0].Revision, c.watched)
			}
			c.watched = events[len(events)-1].Revision
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.read(c.Context(), func(r *reader) error {
		verdict, err := single(r.connection, "PRAGMA integrity_check", (*sqlite3.Stmt).ColumnText)
		if err == nil && verdict != "ok" {
			err = errors.New(verdict)
		}
		return err
	}))...)
}

// isAt reports whether both objects of a writer are in its state n.
func (w chainWriter) isAt(ctx context.Context, s *Store, n int) bool {
	body, exists := w.state(n)
	for _, k := range w.keys() {
		o, err := s.Get(ctx, k)
		if exists && (err != nil || string(o.Body) != body) || !exists && !errors.Is(err, store.ErrNotFound) {
			return false
		}
	}
	return true
}

// TestNothingAcknowledgedIsMissingAfterAPowerCut cuts the power at any step of commits, copies of the log, opening and
// closing, again and again on the same store: see package powercut for what is lost then.
func TestNothingAcknowledgedIsMissingAfterAPowerCut(t *testing.T) {
	const chains = 8
	for seed := range uint64(chains) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, seed, nil)
			for cut := range *cuts / chains {
				if err := c.live(); err != nil {
					t.Fatalf("after %d cuts: %v", cut, err)
				}
			}
			acknowledged := 0
			for _, w := range c.writers {
				acknowledged += w.done
			}
			if acknowledged < *cuts/chains { // one for each cut
				t.Errorf("only %d commits were acknowledged: the test shows little", acknowledged)
			}
		})
	}
}

// TestThePowerCutTestFindsLoss is its control: disks that synchronise nothing are caught, and an engine that goes on
// after an fsync that failed as if the log were on the disk.
func TestThePowerCutTestFindsLoss(t *testing.T) {
	for name, lie := range map[string]func(*fragile){
		"no fsync of files":        func(d *fragile) { d.model.IgnoreFileSync = true },
		"no fsync of directories":  func(d *fragile) { d.model.IgnoreDirectorySync = true },
		"the log is not rewritten": func(d *fragile) { d.hideLog = true },
	} {
		t.Run(name, func(t *testing.T) {
			var found error
			for seed := uint64(0); seed < 100 && found == nil; seed++ {
				c := newChain(t, seed, lie)
				for live := 0; live < 20 && found == nil; live++ {
					found = c.live()
				}
			}
			if found == nil {
				t.Error("nothing was lost")
			}
		})
	}
}
