package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"cloister/internal/powercut"
)

// fragile is the operating system, which reports all that the package does to the model of a disk.
type fragile struct {
	disk *powercut.Disk
}

func (s fragile) create(directory, pattern string) (file, error) {
	f, err := os.CreateTemp(directory, pattern)
	if err != nil {
		return nil, err
	}
	inode, err := s.disk.Open(f.Name())
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &fragileFile{File: f, inode: inode}, nil
}

func (s fragile) rename(from, to string) error {
	if err := s.disk.Rename(from, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (s fragile) link(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return fs.ErrExist
	}
	if err := s.disk.Link(from, to); err != nil {
		return err
	}
	return os.Link(from, to)
}

func (s fragile) remove(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	if err := s.disk.Remove(path); err != nil {
		return err
	}
	return os.Remove(path)
}

func (s fragile) mkdir(path string, mode fs.FileMode) error {
	if err := s.disk.MakeDirectory(path); err != nil {
		return err
	}
	return os.Mkdir(path, mode)
}

func (s fragile) syncDirectory(path string) error { return s.disk.SyncDirectory(path) }

type fragileFile struct {
	*os.File
	inode  *powercut.File
	length int64
}

func (f *fragileFile) Write(p []byte) (int, error) {
	if err := f.inode.WriteAt(p, f.length); err != nil {
		return 0, err
	}
	f.length += int64(len(p))
	return f.File.Write(p)
}

func (f *fragileFile) Sync() error { return f.inode.Sync() }

// A life is one machine's directory, and what its program knows of it: for each path the contents that may
// be there. More than one can if the outcome of a call is unknown.
type life struct {
	system    fragile
	directory string
	may       map[string][]string
	random    *rand.Rand
	count     int
}

// absent is the content of a file that does not exist.
const absent = "absent"

func (l *life) path(name string) string { return filepath.Join(l.directory, name) }

// act does one thing to one of a few files, and notes what may be there afterwards.
func (l *life) act() error {
	name := filepath.Join(fmt.Sprint("directory ", l.random.IntN(2)), "below", fmt.Sprint(l.random.IntN(3)))
	path := l.path(name)
	if len(l.may[name]) == 0 {
		l.may[name] = []string{absent}
	}
	if err := makeDirectory(l.system, filepath.Dir(path), 0o700); err != nil {
		return err
	}
	l.count++
	content := fmt.Sprintf("%d %0*d", l.count, l.random.IntN(3000), 0)
	var err error
	switch l.random.IntN(4) {
	case 0:
		content = absent
		err = remove(l.system, path)
	case 1:
		if err = write(l.system, path, []byte(content), 0o600, (*File).CommitNew); errors.Is(err, fs.ErrExist) && !l.system.disk.IsBroken() {
			return nil
		}
	default:
		err = write(l.system, path, []byte(content), 0o600, (*File).Commit)
	}
	if err != nil {
		l.may[name] = append(l.may[name], content)
		return err
	}
	l.may[name] = []string{content}
	return nil
}

// check returns what is not as it may be, and settles what is.
func (l *life) check() (errs error) {
	for name, may := range l.may {
		found := absent
		b, err := os.ReadFile(l.path(name))
		if err == nil {
			found = string(b)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		known := false
		for _, content := range may {
			known = known || content == found
		}
		if !known {
			errs = errors.Join(errs, fmt.Errorf("%s holds %.20q of %d bytes, want one of %.20q", name, found, len(found), may))
		}
	}
	return errs
}

// cut runs actions until the power goes, sometimes after the process was killed, and starts the machine again.
func (l *life) cut(t *testing.T, lie func(*powercut.Disk)) error {
	l.system.disk = powercut.New(rand.New(rand.NewPCG(l.random.Uint64(), 1)))
	if err := l.system.disk.Load(l.directory); err != nil {
		t.Fatal(err)
	}
	lie(l.system.disk)
	for kill := l.random.IntN(3); kill >= 0; kill-- {
		l.system.disk.CutAfter(l.random.IntN(100))
		for l.act() == nil {
		}
		if kill > 0 {
			l.system.disk.Revive()
		}
	}
	next := powercut.MemoryDirectory(t)
	if err := l.system.disk.Restart(l.directory, next); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(l.directory)
	l.directory = next
	err := l.check()
	for name := range l.may { // what is there now is certain
		l.may[name] = []string{absent}
		if b, err := os.ReadFile(l.path(name)); err == nil {
			l.may[name] = []string{string(b)}
		}
	}
	return errors.Join(err, sweepAll(l.directory))
}

// sweepAll is Sweep in all directories.
func sweepAll(directory string) error {
	return filepath.WalkDir(directory, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return Sweep(path)
	})
}

// firstLoss returns what the first of many machines lost over a few cuts each, and how much all did.
func firstLoss(t *testing.T, lie func(*powercut.Disk)) (done int, err error) {
	for seed := uint64(0); seed < 400 && err == nil; seed++ {
		l := &life{directory: powercut.MemoryDirectory(t), may: map[string][]string{}, random: rand.New(rand.NewPCG(seed, 2))}
		for cut := 0; cut < 4 && err == nil; cut++ {
			err = l.cut(t, lie)
		}
		os.RemoveAll(l.directory)
		done += l.count
	}
	return done, err
}

func TestWhatIsDoneSurvivesAPowerCutWholeOrNotAtAll(t *testing.T) {
	done, err := firstLoss(t, func(*powercut.Disk) {})
	if err != nil {
		t.Error(err)
	}
	if done < 10_000 {
		t.Errorf("only %d actions: the test shows little", done)
	}
}

// TestThePowerCutTestFindsLoss is its control.
func TestThePowerCutTestFindsLoss(t *testing.T) {
	for name, lie := range map[string]func(*powercut.Disk){
		"files":       func(d *powercut.Disk) { d.IgnoreFileSync = true },
		"directories": func(d *powercut.Disk) { d.IgnoreDirectorySync = true },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := firstLoss(t, lie); err == nil {
				t.Error("nothing was lost")
			}
		})
	}
}
