// Package socket makes stream sockets for the few connections that every warm invocation passes. Their readers wait in
// one of two ways, because what a hand-over costs depends on how many of them there are at once.
//
// Go's poller is made for thousands of connections that rarely speak: a goroutine that waits costs no
// thread, and its waking goes through the scheduler, which wakes further threads to look for more work. A
// warm invocation passes two processes, and on a machine with few cores these wake-ups cost
// several times what the work does (docs/BENCHMARKS.md). A Conn therefore reads with a blocking system
// call for a moment, and is put aside (parking.go) only if nothing comes. Where more exchanges are under way than
// processors can serve it is the other way round: threads that block would only be in each other's way, while
// one look of a poller finds several sockets ready. Then readers wait aside from the start. Who carries
// exchanges says so by Begin and End.
//
// It is used by package internal/channel on both ends, by the gateway and by runtimeapi. It knows nothing of what it
// carries. Invariants: at most hotReaders goroutines of the process block in the kernel, for at most hotWait
// each, so that the rest of the process always finds a processor; a descriptor is closed when nobody uses it any
// more. What arrives is the peer's; how long a reader waits for it is bounded by deadlines.
package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hotWait is how long a reader waits in the kernel. It is longer than a busy client or a short function
// takes, and short enough for Close and deadlines, which a blocked reader notices after it.
const hotWait = 2 * time.Millisecond

// crowdedWait is how long ReadHot waits aside instead, and how long waiting in the kernel is not tried again.
const crowdedWait = 20 * time.Millisecond

// hotReaders leaves one processor free: the Go scheduler takes one away from a blocked
// thread only after some time if there is another idle one.
var hotReaders = int32(max(1, runtime.GOMAXPROCS(0)-1))

var (
	hot          atomic.Int32 // goroutines that block in the kernel now
	crowdedUntil atomic.Int64 // nanoseconds after started
	started      = time.Now()
	recent       exchanges
)

// exchanges counts those that began in this span of crowdedWait or in the one before. One that lasts longer
// waits for a slow function or client and needs no processor.
type exchanges struct {
	mu     sync.Mutex
	span   int64    // guarded by mu; number of this span
	counts [2]int32 // guarded by mu; of this span and the one before
}

// An Exchange is something for whose end a peer waits.
type Exchange struct{ span int64 }

// Begin notes that an exchange begins. Its End must be called once.
func Begin() Exchange {
	now := time.Since(started)
	recent.mu.Lock()
	defer recent.mu.Unlock()
	if passed := int64(now/crowdedWait) - recent.span; passed > 0 {
		recent.counts[0], recent.counts[1] = 0, recent.counts[0]
		if passed > 1 {
			recent.counts[1] = 0
		}
		recent.span += passed
	}
	recent.counts[0]++
	if recent.counts[0]+recent.counts[1] > hotReaders {
		crowdedUntil.Store(int64(now + crowdedWait))
	}
	return Exchange{recent.span}
}

// End notes that the exchange has ended.
func (e Exchange) End() {
	recent.mu.Lock()
	defer recent.mu.Unlock()
	if ago := recent.span - e.span; ago < int64(len(recent.counts)) {
		recent.counts[ago]--
	}
}

// crowded says whether there are, or were a moment ago, more exchanges than processors that could wait for them.
func crowded() bool {
	until := crowdedUntil.Load()
	return until != 0 && int64(time.Since(started)) < until
}

// A Conn is a stream socket. It implements net.Conn; one goroutine at a time may read and one write.
type Conn struct {
	fd            int
	parking       *parking
	patient       atomic.Bool // never waits in the kernel
	local, remote net.Addr

	uses   atomic.Int32 // Close counts as one until it is called; at 0 fd is closed
	closed atomic.Bool

	readDeadline, writeDeadline atomic.Int64 // UnixNano; 0 for none

	readable, writable chan struct{} // capacity 1; filled by parking

	drained bool        // owned by the reader: nothing was left after its last read, and what comes next is told by the parking
	ended   atomic.Bool // the parking has seen the end of the stream, after which it may have nothing more to tell

	mu      sync.Mutex
	watched uint32 // guarded by mu; events that the parking looks out for
}

// Take makes a Conn of a *net.TCPConn or *net.UnixConn, which must not be used any more then. After an error c is
// the caller's to close.
func Take(c net.Conn) (*Conn, error) {
	source, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("socket: not a stream socket of the operating system")
	}
	p, err := theParking()
	if err != nil {
		return nil, err
	}
	file, err := source.File()
	if err != nil {
		return nil, err
	}
	defer file.Close() // it would close its descriptor when it is collected, so a Conn has its own
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	wait := unix.NsecToTimeval(int64(hotWait))
	if err := errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	s := &Conn{fd: fd, parking: p, local: c.LocalAddr(), remote: c.RemoteAddr(), readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
	s.uses.Store(1)
	c.Close() // takes it out of Go's poller; the duplicate lives on
	return s, nil
}

// use keeps the descriptor open until release; false after Close.
func (c *Conn) use() bool {
	for !c.closed.Load() {
		n := c.uses.Load()
		if n == 0 {
			return false
		}
		if c.uses.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (c *Conn) release() {
	if c.uses.Add(-1) == 0 {
		c.parking.forget(c)
		unix.Close(c.fd) // ends what the kernel has armed, for there is no duplicate
	}
}

// Patient makes later reads wait aside from the start: the connection now belongs to code that speaks
// rarely, or that interrupts its reads by deadlines.
func (c *Conn) Patient() { c.patient.Store(true) }

// Close ends the connection and whatever waits for it, at the latest after hotWait.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	unix.Shutdown(c.fd, unix.SHUT_RDWR) // wakes readers; an error means that the peer was first
	c.release()
	return nil
}

// Read waits for data in the kernel for a moment and then aside. Errors: io.EOF, os.ErrDeadlineExceeded,
// net.ErrClosed, and those of the socket.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if !c.use() {
		return 0, c.failed("read", net.ErrClosed)
	}
	defer c.release()
	if d := c.readDeadline.Load(); d != 0 && time.Now().UnixNano() >= d { // a peer that never stops sending never makes us wait
		return 0, c.failed("read", os.ErrDeadlineExceeded)
	}
	n, err := c.first(b)
	for err == syscall.EAGAIN {
		if err := c.wait(unix.EPOLLIN, c.readable, c.readDeadline.Load()); err != nil {
			return 0, c.failed("read", err)
		}
		n, err = c.receive(b)
	}
	return c.outcome(n, err)
}

// ReadHot is Read that waits a moment only: if nothing comes it returns 0 and no error.
func (c *Conn) ReadHot(b []byte) (int, error) {
	if !c.use() {
		return 0, c.failed("read", net.ErrClosed)
	}
	defer c.release()
	n, err := c.first(b)
	if err == syscall.EAGAIN && crowded() {
		for end := time.Now().Add(crowdedWait).UnixNano(); err == syscall.EAGAIN; {
			if err = c.wait(unix.EPOLLIN, c.readable, end); err == nil {
				n, err = c.receive(b)
			}
		}
	}
	if err == syscall.EAGAIN || err == os.ErrDeadlineExceeded {
		return 0, nil
	}
	return c.outcome(n, err)
}

// outcome words what a read came to.
func (c *Conn) outcome(n int, err error) (int, error) {
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case n == 0 && c.closed.Load():
		return 0, c.failed("read", net.ErrClosed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// first reads in the kernel, if that is of use now, or looks whether there is something.
func (c *Conn) first(b []byte) (int, error) {
	if c.patient.Load() || crowded() {
		if c.drained && !c.ended.Load() {
			return 0, syscall.EAGAIN
		}
		return c.receive(b)
	}
	defer hot.Add(-1)
	if hot.Add(1) > hotReaders {
		return c.receive(b)
	}
	c.unwatch()
	c.drained = false
	for {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		if err != syscall.EINTR {
			received(c.fd)
			return max(n, 0), err
		}
	}
}

// receive takes what is there, without waiting.
func (c *Conn) receive(b []byte) (int, error) {
	c.mu.Lock()
	told := c.watched&unix.EPOLLIN != 0
	c.mu.Unlock()
	n, err := transfer(unix.SYS_RECVFROM, c.fd, b, unix.MSG_DONTWAIT)
	received(c.fd)
	c.drained = told && (err == syscall.EAGAIN || 0 < n && n < len(b))
	return n, err
}

// transfer is recvfrom or sendto that does not wait. The Go scheduler is not told of it: it would take the processor
// away from a thread whose call takes longer because it wakes its peer, which costs more than the call.
func transfer(call uintptr, fd int, b []byte, flags int) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, syscall.EAGAIN // not through an interface made anew
		}
		return 0, errno
	}
}

// Write sends all of b, waiting aside while the peer takes no more.
func (c *Conn) Write(b []byte) (int, error) {
	if !c.use() {
		return 0, c.failed("write", net.ErrClosed)
	}
	defer c.release()
	sent := 0
	sending(c.fd)
	for {
		n, err := transfer(unix.SYS_SENDTO, c.fd, b[sent:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == nil {
			if sent += n; sent == len(b) {
				return sent, nil
			}
			continue
		}
		if err == syscall.EAGAIN {
			err = c.wait(unix.EPOLLOUT, c.writable, c.writeDeadline.Load())
		}
		if err != nil {
			return sent, c.failed("write", err)
		}
	}
}

// Quiet says whether nothing is to be read, not even the end: the peer of an idle connection is still there.
func (c *Conn) Quiet() bool {
	if !c.use() {
		return false
	}
	defer c.release()
	var b [1]byte
	_, err := transfer(unix.SYS_RECVFROM, c.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == syscall.EAGAIN
}

// WriteNow sends what the socket takes at once, which may be nothing.
func (c *Conn) WriteNow(b []byte) (int, error) {
	if !c.use() {
		return 0, c.failed("write", net.ErrClosed)
	}
	defer c.release()
	sending(c.fd)
	n, err := transfer(unix.SYS_SENDTO, c.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	switch {
	case err == syscall.EAGAIN:
		return 0, nil
	case err != nil:
		return 0, c.failed("write", err)
	}
	return n, nil
}

// CloseWrite tells the peer that nothing more comes.
func (c *Conn) CloseWrite() error {
	if !c.use() {
		return net.ErrClosed
	}
	defer c.release()
	return os.NewSyscallError("shutdown", unix.Shutdown(c.fd, unix.SHUT_WR))
}

// failed words an error as package net does.
func (c *Conn) failed(operation string, err error) error {
	return &net.OpError{Op: operation, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn. A deadline in the past ends a waiting Read or Write at once, or
// after hotWait; one in the future counts from the next wait on.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn; see SetDeadline.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readDeadline, c.readable, t)
}

// SetWriteDeadline implements net.Conn; see SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeDeadline, c.writable, t)
}

func (c *Conn) setDeadline(deadline *atomic.Int64, waiter chan struct{}, t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if t.IsZero() {
		deadline.Store(0)
		return nil
	}
	deadline.Store(t.UnixNano())
	if !t.After(time.Now()) {
		notify(waiter) // who waits looks at the deadline again
	}
	return nil
}
