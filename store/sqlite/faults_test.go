package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3/vfs"

	"cloister/lambda"
	"cloister/store"
)

// faults is a virtual file system whose disk breaks on demand.
type faults struct {
	disk
	syncs, writes atomic.Int64 // so far

	mu    sync.Mutex
	sync  func(name string) error // both guarded by mu; nil is a good disk
	write func(name string) error
}

func newFaults(c *Config) *faults {
	f := &faults{disk: newSystemDisk()}
	c.disk = f
	return f
}

func (f *faults) set(sync, write func(name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sync, f.write = sync, write
}

func (f *faults) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	file, flags, err := f.disk.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	return &faultyFile{file, f, name.String()}, flags, nil
}

func (f *faults) openPlain(path string) (plainFile, error) {
	file, err := f.disk.openPlain(path)
	return faultyPlain{file, f, path}, err
}

type faultyPlain struct {
	plainFile
	faults *faults
	name   string
}

func (f faultyPlain) WriteAt(p []byte, off int64) (int, error) {
	if err := f.faults.beforeWrite(f.name); err != nil {
		return 0, err
	}
	return f.plainFile.WriteAt(p, off)
}

type faultyFile struct {
	vfs.File
	faults *faults
	name   string
}

func (f *faultyFile) SharedMemory() vfs.SharedMemory {
	return f.File.(vfs.FileSharedMemory).SharedMemory()
}

func (f *faultyFile) Sync(flags vfs.SyncFlag) error {
	f.faults.syncs.Add(1)
	f.faults.mu.Lock()
	fault := f.faults.sync
	f.faults.mu.Unlock()
	if fault != nil {
		if err := fault(f.name); err != nil {
			return err
		}
	}
	return f.File.Sync(flags)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.faults.beforeWrite(f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faults) beforeWrite(name string) error {
	f.writes.Add(1)
	f.mu.Lock()
	fault := f.write
	f.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(name)
}

// on gives err for one of the files of a store.
func on(suffix string, err error) func(string) error {
	return func(name string) error {
		if strings.HasSuffix(name, suffix) {
			return &fs.PathError{Op: "fault", Path: name, Err: err}
		}
		return nil
	}
}

func put(s *Store, ctx context.Context, name string) error {
	_, err := s.Commit(ctx, store.Change{Key: key("1", name), Body: make([]byte, 4000)})
	return err
}

func mustPut(t *testing.T, s *Store, name string) {
	t.Helper()
	if err := put(s, t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func TestAfterAnErrorOfTheDiskNothingIsTriedAgain(t *testing.T) {
	for name, fault := range map[string]func(f *faults){
		"fsync of the log":                func(f *faults) { f.set(on("-wal", syscall.EIO), nil) },
		"fsync of the log, disk full":     func(f *faults) { f.set(on("-wal", syscall.ENOSPC), nil) },
		"writing the log":                 func(f *faults) { f.set(nil, on("-wal", syscall.EIO)) },
		"fsync of the file, in the copy":  func(f *faults) { f.set(on("meta.db", syscall.EIO), nil) },
		"writing the file, in the copy":   func(f *faults) { f.set(nil, on("meta.db", syscall.EIO)) },
		"writing the mark":                func(f *faults) { f.set(nil, on("-mark", syscall.EIO)) },
		"fsync of the file, quota passed": func(f *faults) { f.set(on("meta.db", syscall.EDQUOT), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t.TempDir())
			f := newFaults(&c)
			failed := make(chan error, 2)
			c.Failed = func(err error) { failed <- err }
			s := mustOpen(t, c)
			mustPut(t, s, "before")
			watcher := make(chan error, 1)
			go func() {
				for at := uint64(0); ; {
					events, err := s.Watch(t.Context(), at, store.MaxPageLimit)
					if err != nil {
						watcher <- err
						return
					}
					at = events[len(events)-1].Revision
				}
			}()
			fault(f)
			var err error
			acknowledged := []string{"before"}
			for i := 0; err == nil && i < 3*checkpointPages; i++ { // until the log is copied
				name := fmt.Sprint(i)
				if err = put(s, t.Context(), name); err == nil {
					acknowledged = append(acknowledged, name)
				}
			}
			if !errors.Is(err, store.ErrClosed) {
				t.Fatalf("Commit gave %v, want ErrClosed", err)
			}
			f.set(nil, nil) // the disk seems good again
			if err := <-watcher; !errors.Is(err, store.ErrClosed) {
				t.Errorf("a watcher got %v, want ErrClosed", err)
			}
			if err := <-failed; err == nil || len(failed) > 0 {
				t.Errorf("the owner was told %v, and %d times more", err, len(failed))
			}
			syncs, writes := f.syncs.Load(), f.writes.Load()
			_, err1 := s.Get(t.Context(), key("1", "before"))
			_, err2 := s.List(t.Context(), "thing", "1", "", store.Page{Limit: 1})
			_, err3 := s.Lookup(t.Context(), "thing", "1", byColor, store.Page{Limit: 1})
			_, err4 := s.Now(t.Context())
			for _, err := range []error{put(s, t.Context(), "after"), err1, err2, err3, err4} {
				if !errors.Is(err, store.ErrClosed) {
					t.Errorf("a later call gave %v, want ErrClosed", err)
				}
			}
			s.Close()
			if f.syncs.Load() != syncs || f.writes.Load() != writes {
				t.Error("after the error the disk was written or fsynced again")
			}
			s = mustOpen(t, c)
			for _, name := range acknowledged {
				if _, err := s.Get(t.Context(), key("1", name)); err != nil {
					t.Errorf("after a restart %s: %v", name, err)
				}
			}
		})
	}
}

func TestAFullDiskRefusesAndHarmsNothing(t *testing.T) {
	c := testConfig(t.TempDir())
	f := newFaults(&c)
	s := mustOpen(t, c)
	mustPut(t, s, "before")
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		f.set(nil, on("-wal", full))
		for range 3 {
			if err := put(s, t.Context(), "refused"); lambda.KindOf(err) != lambda.Unavailable {
				t.Errorf("%v: Commit gave %v, want Unavailable", full, err)
			}
		}
		if _, err := s.Get(t.Context(), key("1", "before")); err != nil {
			t.Errorf("%v: Get gave %v", full, err)
		}
		f.set(nil, nil)
		mustPut(t, s, "after "+full.Error())
	}
	f.set(nil, on("-mark", syscall.ENOSPC)) // an older mark is never wrong
	mustPut(t, s, "with an old mark")
	// A full disk also stops the copy of the log; commits go on into the log.
	f.set(nil, on("meta.db", syscall.ENOSPC))
	for i := range checkpointPages + 100 {
		mustPut(t, s, fmt.Sprint("long log ", i))
	}
	f.set(nil, nil)
	mustPut(t, s, "last")
	if _, err := s.Get(t.Context(), key("1", "refused")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a refused commit gave %v, want ErrNotFound", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, c)
	found, err := s.List(t.Context(), "thing", "1", "", store.Page{Limit: store.MaxPageLimit})
	if err != nil || len(found) != checkpointPages+100+5 {
		t.Errorf("after a restart %d objects, %v", len(found), err)
	}
}

// gate holds the writer in fsync until it is opened.
func gate(f *faults) (entered <-chan struct{}, open func()) {
	in, out := make(chan struct{}, 100), make(chan struct{})
	f.set(func(string) error {
		in <- struct{}{}
		<-out
		return nil
	}, nil)
	return in, func() {
		f.set(nil, nil)
		close(out)
	}
}

func TestWaitingCommitsShareOneTransaction(t *testing.T) {
	const waiters = 100
	c := testConfig(t.TempDir())
	f := newFaults(&c)
	s := mustOpen(t, c)
	mustPut(t, s, "there")
	entered, open := gate(f)
	results := make(chan error, waiters+1)
	go func() { results <- put(s, t.Context(), "first") }()
	<-entered
	for i := range waiters {
		go func() {
			name := fmt.Sprint(i)
			if i%10 == 0 {
				name = "there" // a conflict, which must be of this one only
			}
			results <- put(s, t.Context(), name)
		}()
	}
	waitUntil(t, func() bool { return len(s.writer.requests) == waiters })
	before := f.syncs.Load()
	open()
	conflicts := 0
	for range waiters + 1 {
		switch err := <-results; {
		case errors.Is(err, store.ErrConflict):
			conflicts++
		case err != nil:
			t.Error(err)
		}
	}
	if conflicts != waiters/10 {
		t.Errorf("%d conflicts, want %d", conflicts, waiters/10)
	}
	if n := f.syncs.Load() - before; n != 1 {
		t.Errorf("%d waiting commits took %d fsyncs, want 1", waiters, n)
	}
}

func TestAGroupKeepsWithinItsBounds(t *testing.T) {
	for name, c := range map[string]struct{ waiters, changes, bytes, syncs int }{
		"changes": {5, store.MaxCommitChanges, 0, 3},
		"bytes":   {5, 1, 7 << 20, 3},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig(t.TempDir())
			f := newFaults(&config)
			s := mustOpen(t, config)
			entered, open := gate(f)
			results := make(chan error, c.waiters+1)
			go func() { results <- put(s, t.Context(), "first") }()
			<-entered
			for i := range c.waiters {
				var changes []store.Change
				for j := range c.changes {
					changes = append(changes, store.Change{Key: key(fmt.Sprint(i), fmt.Sprint(j)), Body: make([]byte, c.bytes)})
				}
				go func() {
					_, err := s.Commit(t.Context(), changes...)
					results <- err
				}()
			}
			waitUntil(t, func() bool { return len(s.writer.requests) == c.waiters })
			before := f.syncs.Load()
			open()
			for range c.waiters + 1 {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
			if n := f.syncs.Load() - before; n < int64(c.syncs) {
				t.Errorf("%d commits took %d fsyncs, want at least %d", c.waiters, n, c.syncs)
			}
		})
	}
}

func TestAWaitingCommitCanBeWithdrawn(t *testing.T) {
	c := testConfig(t.TempDir())
	f := newFaults(&c)
	s := mustOpen(t, c)
	entered, open := gate(f)
	results := make(chan error, 2)
	taken, cancelTaken := context.WithCancel(t.Context())
	go func() { results <- put(s, taken, "taken") }()
	<-entered
	waiting, cancelWaiting := context.WithCancel(t.Context())
	go func() { results <- put(s, waiting, "withdrawn") }()
	waitUntil(t, func() bool { return len(s.writer.requests) == 1 })
	cancelTaken() // too late: its caller must learn the outcome
	cancelWaiting()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("the waiting commit gave %v, want context.Canceled", err)
	}
	open()
	if err := <-results; err != nil {
		t.Errorf("the commit that was running gave %v", err)
	}
	mustPut(t, s, "next")
	if _, err := s.Get(t.Context(), key("1", "withdrawn")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the withdrawn commit gave %v, want ErrNotFound", err)
	}
	if _, err := s.Get(t.Context(), key("1", "taken")); err != nil {
		t.Error(err)
	}
}

func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

func TestTheLogStaysShort(t *testing.T) {
	c := testConfig(t.TempDir())
	s := mustOpen(t, c)
	for i := range 40 {
		changes := make([]store.Change, checkpointPages/10)
		for j := range changes {
			changes[j] = store.Change{Key: key(fmt.Sprint(i), fmt.Sprint(j)), Body: make([]byte, 4000)}
		}
		if _, err := s.Commit(t.Context(), changes...); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(c.Path + "-wal")
	if err != nil || info.Size() > 3*checkpointPages*4096 {
		t.Errorf("the log has %d bytes, %v", info.Size(), err)
	}
}

// A reader in the middle of a listing holds the log; commits and other reads go on.
func TestReadersAndTheWriterDoNotBlockEachOther(t *testing.T) {
	s := mustOpen(t, testConfig(t.TempDir()))
	for i := range 500 {
		mustPut(t, s, fmt.Sprint(i))
	}
	stop, all := make(chan struct{}), sync.WaitGroup{}
	for range readers + 2 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.List(t.Context(), "thing", "1", "", store.Page{Limit: 500}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 200 {
		mustPut(t, s, fmt.Sprint("during ", i))
	}
	close(stop)
	all.Wait()
}
