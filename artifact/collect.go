package artifact

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cloister/lambda"
)

// defaultGrace is twice as long as any grant lives.
const defaultGrace = 2 * MaxValidity

// passInterval is between two passes of Run that no file waits for.
const passInterval = 10 * time.Minute

// Names calls keep with the image and the zip of every version that there is, of all accounts. It may run
// while versions are made and deleted, but what is named all the while must be kept. An error means that
// some may be missing.
type Names func(ctx context.Context, keep func(a lambda.Artifact, codeSHA256 string)) error

// garbage knows which files may be removed. The rule: two looks at everything that is named, a grace apart,
// both found the file unnamed, and nobody has stored, found or granted it in between.
type garbage struct {
	now   func() time.Time
	grace time.Duration
	wake  chan struct{} // holds one signal: something may have become garbage

	mu        sync.Mutex           // also held while a file is removed, so that nobody finds it at that moment
	held      map[string]int       // guarded by mu; path → calls that are still running and want it
	condemned map[string]time.Time // guarded by mu; path → since when nobody has named or used it
}

func newGarbage(now func() time.Time, grace time.Duration) garbage {
	return garbage{now: now, grace: grace, wake: make(chan struct{}, 1), held: map[string]int{}, condemned: map[string]time.Time{}}
}

// use says that somebody wants a file.
func (s *Store) use(path string) {
	s.garbage.mu.Lock()
	defer s.garbage.mu.Unlock()
	delete(s.garbage.condemned, path)
}

// hold is use until ctx ends.
func (s *Store) hold(ctx context.Context, path string) {
	g := &s.garbage
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held[path]++
	delete(g.condemned, path)
	context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.held[path]--; g.held[path] == 0 {
			delete(g.held, path)
		}
		g.signal()
	})
}

// Dropped says that a version is gone or has other code, so that Run has reason to look. It never
// blocks.
func (s *Store) Dropped() { s.garbage.signal() }

func (g *garbage) signal() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Run removes, until ctx ends, the files that no version names. It looks when it starts, and again after
// something has changed, every ten minutes at most; an idle store costs nothing.
func (s *Store) Run(ctx context.Context, names Names) {
	for ctx.Err() == nil {
		removed, waiting, err := s.Collect(ctx, names)
		switch {
		case err != nil && ctx.Err() == nil:
			s.logger.ErrorContext(ctx, "unused code is not removed", "error", err)
			s.garbage.signal()
		case removed > 0:
			s.logger.InfoContext(ctx, "unused code removed", "files", removed)
		}
		var due <-chan time.Time
		if waiting > 0 {
			due = time.After(s.garbage.grace)
		}
		select {
		case <-time.After(passInterval):
		case <-ctx.Done():
			return
		}
		select {
		case <-due:
		case <-s.garbage.wake:
		case <-ctx.Done():
		}
	}
}

// Collect is one look: it removes what was condemned a grace ago and condemns what names does not name now.
// It returns how many files it removed and how many are condemned. If names fails nothing happens. It takes
// a few hundred bytes of memory per version and looks at every file's name once. One call at a time.
func (s *Store) Collect(ctx context.Context, names Names) (removed, condemned int, err error) {
	named := map[string]struct{}{}
	began := s.garbage.now()
	err = names(ctx, func(a lambda.Artifact, codeSHA256 string) {
		named[s.path(imageKind, a.Owner, a.ID)] = struct{}{}
		if id, ok := zipID(codeSHA256); ok {
			named[s.path(zipKind, a.Owner, id)] = struct{}{}
		}
	})
	if err != nil {
		return 0, 0, err
	}
	var unnamed []string
	for _, kind := range []string{imageKind, zipKind} {
		err = errors.Join(err, s.eachFile(ctx, kind, func(path string) {
			if _, ok := named[path]; !ok {
				unnamed = append(unnamed, path)
			}
		}))
	}
	if err != nil {
		return 0, 0, err
	}
	removed, err = s.garbage.judge(began, unnamed)
	return removed, len(unnamed) - removed, err
}

// eachFile calls use with the paths of a kind.
func (s *Store) eachFile(ctx context.Context, kind string, use func(path string)) error {
	folders, err := os.ReadDir(filepath.Join(s.directory, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, folder := range folders {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		at := filepath.Join(s.directory, kind, folder.Name())
		files, err := os.ReadDir(at)
		if err != nil {
			return err
		}
		for _, f := range files {
			use(filepath.Join(at, f.Name()))
		}
	}
	return err
}

// judge applies the rule to the files that a look which began then has found unnamed.
func (g *garbage) judge(began time.Time, unnamed []string) (removed int, err error) {
	g.acquit(unnamed)
	for _, path := range unnamed {
		g.mu.Lock()
		since, condemned := g.condemned[path]
		switch {
		case g.held[path] > 0:
		case !condemned:
			g.condemned[path] = g.now() // not when the look began: it may have been used since
		case began.Sub(since) >= g.grace:
			// Not made durable: a file that a power cut brings back goes next time.
			if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
				break
			}
			delete(g.condemned, path)
			removed++
		}
		g.mu.Unlock()
	}
	return removed, err
}

// acquit forgets the condemned files that are named again, or gone.
func (g *garbage) acquit(unnamed []string) {
	still := make(map[string]struct{}, len(unnamed))
	for _, path := range unnamed {
		still[path] = struct{}{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.condemned, func(path string, _ time.Time) bool {
		_, ok := still[path]
		return !ok
	})
}
