package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// orphanPatience is how long the processes of a serve that was killed may take to end.
const orphanPatience = workerPatience + 5*time.Second

// awaitOrphans waits until front and worker of an earlier serve, which was killed, have ended: they hold the
// state and the sandboxes.
func (in *installation) awaitOrphans() error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		open, err := in.socketIsOpen()
		if err != nil || !open {
			return err
		}
		if time.Since(began) > orphanPatience {
			return fmt.Errorf("\"cloister front\" or \"cloister worker\" of an earlier serve on %s does not end: kill it, then start again", in.directory)
		}
	}
}

// socketIsOpen says whether a process has one of the installation's sockets open. The kernel is asked, and not the
// process, which may have stopped answering.
func (in *installation) socketIsOpen() (bool, error) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false, fmt.Errorf("look for processes of an earlier serve: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if path := fields[len(fields)-1]; path == in.socket("front") || path == in.socket("worker") {
			return true, nil
		}
	}
	return false, nil
}

// listenUnix opens a socket in the installation's run directory.
func (in *installation) listenUnix(name string, uid int) (*os.File, error) {
	path := in.socket(name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		f.Close()
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	// Only root and the front may connect at all; who they are the certificates prove.
	err = errors.Join(os.Chown(path, uid, uid), os.Chmod(path, 0o600), unix.Listen(fd, 512))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	return f, nil
}

func (in *installation) socket(name string) string { return filepath.Join(in.run, name+".sock") }

func dialer(socket string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) }
}

func inheritedListener(fd uintptr) (net.Listener, error) {
	f := os.NewFile(fd, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("use inherited listener: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // serve owns the socket's name
	}
	return l, nil
}

// pipeListener makes the connections that functions make through the worker look like any other
// listener's to the gateway.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give hands a connection to the gateway, or closes it if the gateway is closing.
func (l *pipeListener) give(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	}
}

// Accept waits for the next function's connection.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr names the way in.
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "functions", Net: "unix"} }
