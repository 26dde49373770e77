package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// A peakFile is the file with the memory peak, kept open: it is read after every invocation, and finding it by its
// path takes several times as long as reading it.
type peakFile struct {
	mu     sync.Mutex
	fd     int  // guarded by mu
	open   bool // guarded by mu
	closed bool // guarded by mu
}

// MemoryPeak is the MemoryPeakBytes of Usage.
func (g *Group) MemoryPeak() (int64, error) {
	g.peak.mu.Lock()
	defer g.peak.mu.Unlock()
	path := g.peakPath()
	if !g.peak.open {
		if g.peak.closed {
			return 0, &os.PathError{Op: "read", Path: path, Err: os.ErrClosed}
		}
		fd, err := ignoringInterrupts(func() (int, error) { return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
		if err != nil {
			return 0, &os.PathError{Op: "open", Path: path, Err: err}
		}
		g.peak.fd, g.peak.open = fd, true
	}
	var b [32]byte
	n, err := ignoringInterrupts(func() (int, error) { return syscall.Pread(g.peak.fd, b[:], 0) })
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: path, Err: err}
	}
	peak, err := strconv.ParseInt(string(bytes.TrimSpace(b[:n])), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return peak, nil
}

func (g *Group) peakPath() string {
	if g.hierarchy.inV2[memory] {
		return filepath.Join(g.unified, "memory.peak")
	}
	return filepath.Join(g.v1[memory], "memory.max_usage_in_bytes")
}

func (f *peakFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open {
		syscall.Close(f.fd)
	}
	f.open, f.closed = false, true
}
