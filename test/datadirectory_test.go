package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/ncruces/go-sqlite3"

	"cloister/test/service"
)

// A dataDirectory is one that is not in use, and that tests damage.
type dataDirectory struct {
	*testing.T
	path string
}

func (d dataDirectory) state(name string) string {
	return filepath.Join(d.path, "front", "state", name)
}

func (d dataDirectory) done(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// aside is where a file waits to be put back.
func (d dataDirectory) aside() string { return filepath.Join(d.path, "front", "aside") }

// put replaces a file's content and leaves its owner and mode.
func (d dataDirectory) put(path string, content []byte) {
	d.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	d.done(err)
	_, err = f.Write(content)
	d.done(errors.Join(err, f.Close()))
}

func (d dataDirectory) get(path string) []byte {
	d.Helper()
	b, err := os.ReadFile(path)
	d.done(err)
	return b
}

// content is all files with their bytes, but for runtime images, for the index that SQLite makes anew for each log, for logs
// that are empty, and for the number of the host's slot, which differs while others run.
func (d dataDirectory) content() map[string]string {
	d.Helper()
	found := map[string]string{}
	d.done(filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, d.path+"/")
		if err != nil || e.IsDir() || name == "slot" || strings.HasPrefix(name, "worker/") || strings.HasSuffix(name, "-shm") || strings.HasSuffix(name, "/filler") {
			return err
		}
		if b := d.get(path); len(b) > 0 || !strings.HasSuffix(name, "-wal") {
			found[name] = string(b)
		}
		return nil
	}))
	return found
}

// serve starts the program, which must end by itself with an error, and returns what it said about that.
func (d dataDirectory) serve() string {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, binary, "serve", "--data", d.path, "--listen", "127.0.0.1:0", "--isolation", "native")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || len(out) > 0 {
		d.Fatalf("serve gave %q, %v: %s", out, err, said.String())
	}
	return said.String()
}

// fill takes all room of a file system.
func (d dataDirectory) fill(path string) {
	d.Helper()
	f, err := os.Create(path)
	d.done(err)
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.Fatal(err)
	}
}

// smallDisk puts a file system of its own below a directory, with what is there.
func (d dataDirectory) smallDisk(path, size string) {
	d.Helper()
	before := path + ".before"
	d.done(os.Rename(path, before))
	d.done(os.Mkdir(path, 0o700))
	d.done(syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=700,size="+size))
	d.Cleanup(func() { d.done(syscall.Unmount(path, syscall.MNT_DETACH)) })
	d.done(exec.CommandContext(d.Context(), "cp", "-a", before+"/.", path).Run())
	d.done(os.RemoveAll(before))
}

// markOf is the file beside a store that says which revision was acknowledged last.
func markOf(revision int) []byte {
	digits := fmt.Appendf(nil, "%020d", revision)
	return fmt.Appendf(digits, " %08x\n", crc32.Checksum(digits, crc32.MakeTable(crc32.Castagnoli)))
}

// A damage is a way in which a data directory can be wrong. mend, unless nil, must make it right; without it all files are put
// back as they were.
type damage struct {
	do   func(d, other dataDirectory)
	mend func(d dataDirectory)
	says []string // of which the last is what to do
}

var damages = map[string]damage{
	"another root key": {do: func(d, _ dataDirectory) {
		key := make([]byte, 32)
		rand.Read(key)
		d.put(d.state("root.key"), key)
	}, says: []string{"meta.db", "made under another root key", "put back the root key"}},
	"the root key of another installation": {do: func(d, other dataDirectory) {
		d.put(d.state("root.key"), d.get(other.state("root.key")))
	}, says: []string{"made under another root key", "put back the root key"}},
	"no root key": {do: func(d, _ dataDirectory) {
		d.done(os.Rename(d.state("root.key"), d.aside()))
	}, mend: func(d dataDirectory) {
		d.done(os.Rename(d.aside(), d.state("root.key")))
	}, says: []string{"root key DIR/front/state/root.key is missing", "put the key back"}},
	"no state at all, as where its disk is not mounted": {do: func(d, _ dataDirectory) {
		d.done(os.Rename(d.state(""), d.aside()))
	}, mend: func(d dataDirectory) {
		d.done(os.Rename(d.aside(), d.state("")))
	}, says: []string{"state of this installation is missing from", "mount or put back what was there, or name a new data directory"}},
	"a root key that others may read": {do: func(d, _ dataDirectory) {
		d.done(os.Chmod(d.state("root.key"), 0o644))
	}, mend: func(d dataDirectory) {
		d.done(os.Chmod(d.state("root.key"), 0o600))
	}, says: []string{"root.key", "its mode is 0644, want 0600", "chmod 600"}},
	"a cut root key": {do: func(d, _ dataDirectory) {
		d.put(d.state("root.key"), d.get(d.state("root.key"))[:20])
	}, says: []string{"root.key", "20 bytes, want 32", "put back the key"}},
	"the store of another installation": {do: func(d, other dataDirectory) {
		d.put(d.state("meta.db"), d.get(other.state("meta.db")))
	}, says: []string{"made under another root key", "put back the root key"}},
	"a store that is none": {do: func(d, _ dataDirectory) {
		d.put(d.state("audit.db"), []byte("Dear reader, this is no database."))
	}, says: []string{"audit.db", "no store of Cloister", "put back a copy"}},
	"a store that is gone": {do: func(d, _ dataDirectory) {
		d.done(os.Rename(d.state("meta.db"), d.aside()))
	}, mend: func(d dataDirectory) {
		d.done(os.Rename(d.aside(), d.state("meta.db")))
	}, says: []string{"meta.db is missing", "put it back"}},
	"a store that holds less than was acknowledged": {do: func(d, _ dataDirectory) {
		d.put(d.state("meta.db-mark"), markOf(999999))
	}, says: []string{"acknowledged", "Put back"}},
	"a store of a newer release": {do: func(d, _ dataDirectory) {
		db, err := sqlite3.Open(d.state("queue.db"))
		d.done(err)
		err = db.Exec("PRAGMA user_version=99")
		d.done(errors.Join(err, db.Close()))
	}, says: []string{"queue.db", "newer release", "use that release or a newer one"}},
	"a newer layout": {do: func(d, _ dataDirectory) {
		d.put(filepath.Join(d.path, "schema"), []byte("99\n"))
	}, says: []string{"has schema 99", "use the version that wrote it"}},
	"a directory of others": {do: func(d, _ dataDirectory) {
		d.done(os.Rename(filepath.Join(d.path, "schema"), filepath.Join(d.path, "letter")))
	}, mend: func(d dataDirectory) {
		d.done(os.Rename(filepath.Join(d.path, "letter"), filepath.Join(d.path, "schema")))
	}, says: []string{"is no Cloister data directory", "name a new or empty directory"}},
	"a full disk": {do: func(d, _ dataDirectory) {
		indexes, _ := filepath.Glob(d.state("*-shm"))
		for _, path := range indexes {
			d.done(os.Remove(path))
		}
		d.fill(filepath.Join(d.path, "front", "filler"))
	}, mend: func(d dataDirectory) {
		d.done(os.Remove(filepath.Join(d.path, "front", "filler")))
	}, says: []string{"no space left on the disk", "make room and start again"}},
}

// TestARefusedDataDirectoryIsUntouchedAndServesAgainWhenMended damages the data directory of a service that was used, in one way
// after the other. Each time the program must refuse it in one sentence that says what to do, change no byte, and serve again
// when the damage is mended: the function, its code, its role and its log.
func TestARefusedDataDirectoryIsUntouchedAndServesAgainWhenMended(t *testing.T) {
	other := dataDirectory{t, filepath.Join(t.TempDir(), "other")}
	if err := start(t, func(c *service.Config) { c.Data = other.path }).Stop(); err != nil {
		t.Fatal(err)
	}
	d := dataDirectory{t, filepath.Join(t.TempDir(), "data")}
	s := start(t, func(c *service.Config) { c.Data = d.path })
	create(t, s, "kept", app)
	invoke(t, s, "kept", `{"name":"before"}`)
	eventually(t, "no log line", func() bool { return strings.Contains(logText(t, s, "/aws/lambda/kept"), "asked by before") })
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	d.smallDisk(filepath.Join(d.path, "front"), "8m")
	for _, name := range slices.Sorted(maps.Keys(damages)) {
		if !t.Run(name, func(t *testing.T) {
			d := dataDirectory{t, d.path}
			d.refuse(damages[name], dataDirectory{t, other.path})
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer func() { d.done(s.Stop()) }()
			out, err := awslambda.NewFromConfig(clientSettings(t, s)).Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("kept"), Payload: []byte(`{"name":"again"}`)})
			if err != nil || string(out.Payload) != `{"greeting": "Hello, again"}` {
				t.Errorf("mended, the function answered %v, %v", out, err)
			}
			found, err := cloudwatchlogs.NewFromConfig(clientSettings(t, s)).FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{
				LogGroupName: new("/aws/lambda/kept"), FilterPattern: new("before"),
			})
			if err != nil || len(found.Events) != 1 {
				t.Errorf("mended, the log gave %v, %v", found, err)
			}
		}) {
			break // the next ones would find the same
		}
	}
}

// refuse does a damage, sees it refused, and mends it.
func (d dataDirectory) refuse(x damage, other dataDirectory) {
	d.Helper()
	before := d.content()
	x.do(d, other)
	damaged := d.content()
	for range 2 {
		said := d.serve()
		if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "cloister: ") {
			d.Errorf("serve did not say one sentence: %s", said)
		}
		for _, want := range x.says {
			if !strings.Contains(said, want) {
				d.Errorf("serve did not say %q: %s", want, said)
			}
		}
		if after := d.content(); !maps.Equal(damaged, after) {
			d.Fatalf("serve changed files: there were %q, there are %q", slices.Sorted(maps.Keys(damaged)), slices.Sorted(maps.Keys(after)))
		}
	}
	if x.mend != nil {
		x.mend(d)
	} else {
		for path, content := range before {
			d.put(filepath.Join(d.path, path), []byte(content))
		}
	}
	if !maps.Equal(before, d.content()) {
		d.Fatal("the damage was not mended as the test meant")
	}
}

// TestAFirstStartOnAFullDiskIsBegunAgainWhenThereIsRoom finds no room for a new data directory.
func TestAFirstStartOnAFullDiskIsBegunAgainWhenThereIsRoom(t *testing.T) {
	d := dataDirectory{t, filepath.Join(t.TempDir(), "data")}
	d.done(os.Mkdir(d.path, 0o700))
	d.smallDisk(d.path, "4m")
	filler := filepath.Join(d.path, "lost+found") // the one name that may be in a new directory
	d.fill(filler)
	for room := 0; room <= 256<<10; room += 64 << 10 { // so that it ends at several steps of making a directory
		d.done(os.Truncate(filler, 4<<20-int64(room)))
		if said := d.serve(); !strings.Contains(strings.ToLower(said), "no space left on") {
			t.Errorf("with room for %d bytes serve said %s", room, said)
		}
	}
	d.done(os.Remove(filler))
	s := start(t, func(c *service.Config) { c.Data = d.path })
	makeRole(t, s, "any", "")
}

// TestTheTestOfRefusedDirectoriesFindsWhatIsWritten is its control: content sees a change of each file that it looks at.
func TestTheTestOfRefusedDirectoriesFindsWhatIsWritten(t *testing.T) {
	d := dataDirectory{t, filepath.Join(t.TempDir(), "data")}
	d.done(start(t, func(c *service.Config) { c.Data = d.path }).Stop())
	before := d.content()
	for _, name := range []string{"schema", "id", "front/state/root.key", "front/state/meta.db", "front/state/queue.db-mark", "front/state/administrator"} {
		path := filepath.Join(d.path, name)
		if before[name] == "" {
			t.Errorf("%s is not looked at", name)
		}
		changed := []byte(before[name])
		changed[len(changed)/2] ^= 1
		d.put(path, changed)
		if maps.Equal(before, d.content()) {
			t.Errorf("a flipped bit in %s is not seen", name)
		}
		d.put(path, []byte(before[name]))
	}
	d.done(os.WriteFile(d.state("new"), nil, 0o600))
	if maps.Equal(before, d.content()) {
		t.Error("a new file is not seen")
	}
}
