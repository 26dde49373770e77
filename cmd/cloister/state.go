package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"cloister/internal/durable"
	"cloister/internal/seal"
	"cloister/store/sqlite"
)

// state is the front's root key and the three files that hold all objects. Each has a log and a writer of
// its own, so that the fsyncs of many events never delay a change of a function, and a key of its own, so
// that nothing can be moved from one to another.
type state struct {
	root               *seal.Root
	meta, queue, audit *sqlite.Store

	failed chan error // one element for each file whose disk has failed
}

// openState opens what is in the front's directory, or begins it. Nothing is changed if the error is
// that something does not belong together.
func openState(directory string, logger *slog.Logger) (_ *state, err error) {
	s := &state{failed: make(chan error, 3)}
	defer func() {
		if err != nil {
			s.close()
			err = forOperator(directory, err)
		}
	}()
	if s.root, err = openRootKey(directory); err != nil {
		return nil, err
	}
	if err = durable.Sweep(directory); err != nil {
		return nil, err
	}
	for _, file := range []struct {
		name, purpose string
		store         **sqlite.Store
	}{{"meta.db", "store", &s.meta}, {"queue.db", "store of the queue", &s.queue}, {"audit.db", "store of the audit", &s.audit}} {
		*file.store, err = sqlite.Open(sqlite.Config{
			Path: filepath.Join(directory, file.name), Key: s.root.Key(file.purpose), Logger: logger,
			Failed: func(err error) { s.failed <- err },
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// openRootKey makes a root key only where nothing was ever kept under one: a new key would hide that the old
// one is lost.
func openRootKey(directory string) (*seal.Root, error) {
	path := filepath.Join(directory, "root.key")
	if exists(path) {
		if exists(filepath.Join(directory, administratorFile)) && !exists(filepath.Join(directory, "meta.db")) {
			return nil, fmt.Errorf("%s is missing: put it back with its log, or name a new data directory", filepath.Join(directory, "meta.db"))
		}
		return seal.Load(path)
	}
	for _, name := range []string{"meta.db", administratorFile, "artifacts", "logs", "tls"} {
		if exists(filepath.Join(directory, name)) {
			return nil, fmt.Errorf("the root key %s is missing and what is kept beside it opens with no other: put the key back, or name a new data directory", path)
		}
	}
	return seal.LoadOrCreate(path)
}

// exists errs on the side of what is there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// forOperator names files as they are found from outside: the front sees its state at a path of its own.
func forOperator(directory string, err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), directory+"/", "DIR/front/state/"))
}

// await returns the error of the first file whose disk has failed. The process must end then: a new one finds
// out what is durable, and goes on if it can.
func (s *state) await(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (s *state) close() {
	for _, file := range []*sqlite.Store{s.meta, s.queue, s.audit} {
		if file != nil {
			file.Close()
		}
	}
}
