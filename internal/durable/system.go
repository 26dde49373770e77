package durable

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// A system is the calls whose order decides what power loss leaves. Tests put a model of a disk
// behind them.
type system interface {
	create(directory, pattern string) (file, error) // a new name, as os.CreateTemp
	rename(from, to string) error
	link(from, to string) error
	remove(path string) error
	mkdir(path string, mode fs.FileMode) error
	syncDirectory(path string) error
}

type file interface {
	io.Writer
	io.WriterAt
	Sync() error
	Close() error
	Chmod(fs.FileMode) error
	Name() string
}

type operatingSystem struct{}

func (operatingSystem) create(directory, pattern string) (file, error) {
	return os.CreateTemp(directory, pattern)
}

func (operatingSystem) rename(from, to string) error { return os.Rename(from, to) }

func (operatingSystem) link(from, to string) error { return os.Link(from, to) }

func (operatingSystem) remove(path string) error { return os.Remove(path) }

func (operatingSystem) mkdir(path string, mode fs.FileMode) error { return os.Mkdir(path, mode) }

func (operatingSystem) syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
