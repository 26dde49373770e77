package socket

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A parking waits for the sockets whose readers or writers have been put aside. It is an epoll instance of
// its own, from which a socket is taken before a reader waits for it in the kernel, so that what comes then
// wakes nobody else; and it waits in Go's poller itself, so it takes no thread.
type parking struct {
	epoll int
	file  *os.File // of epoll

	mu    sync.Mutex
	conns map[int32]*Conn // guarded by mu; by descriptor, those ever put aside
}

// theParking is the one of this process, which lives as long as it.
var theParking = sync.OnceValues(newParking)

func newParking() (*parking, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // makes os.NewFile use Go's poller
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &parking{epoll: fd, file: os.NewFile(uintptr(fd), "parking"), conns: map[int32]*Conn{}}
	raw, err := p.file.SyscallConn()
	if err != nil {
		p.file.Close()
		return nil, err
	}
	go p.run(raw)
	return p, nil
}

// run tells waiters that their sockets are ready.
func (p *parking) run(raw syscall.RawConn) {
	events := make([]unix.EpollEvent, 128)
	err := raw.Read(func(uintptr) bool {
		for {
			n := p.look(events)
			for _, e := range events[:n] {
				p.mu.Lock()
				c := p.conns[e.Fd]
				p.mu.Unlock()
				if c != nil {
					c.fired(e.Events)
				}
			}
			if n < len(events) {
				return false // until Go's poller says that there is more
			}
		}
	})
	panic(err) // the file is never closed
}

// look takes what is ready now. As transfer does, it does not tell the Go scheduler.
func (p *parking) look(events []unix.EpollEvent) int {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != syscall.EINTR {
			if errno != 0 {
				return 0
			}
			return int(n)
		}
	}
}

func (p *parking) forget(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[int32(c.fd)] == c {
		delete(p.conns, int32(c.fd))
	}
}

// wait blocks until the socket may be ready for event or the deadline is over; 0 is none.
func (c *Conn) wait(event uint32, ready chan struct{}, deadline int64) error {
	var expired <-chan time.Time
	if deadline != 0 {
		left := time.Until(time.Unix(0, deadline))
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		expired = timer.C
	}
	if c.closed.Load() {
		return net.ErrClosed
	}
	if err := c.watch(event); err != nil {
		return err
	}
	select {
	case <-ready:
	case <-expired:
	}
	return nil
}

// watch has the parking look out for event from now on. It tells of everything that comes, once.
func (c *Conn) watch(event uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched&event != 0 {
		return nil
	}
	return c.update(c.watched | event)
}

// unwatch is for a reader that is about to wait itself.
func (c *Conn) unwatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched&unix.EPOLLIN != 0 {
		_ = c.update(c.watched &^ unix.EPOLLIN) // what fails here costs a vain waking
	}
}

// update tells the kernel which events count. It looks at the socket's state at once, too.
// Preconditions: mu is held.
func (c *Conn) update(events uint32) error {
	operation := unix.EPOLL_CTL_MOD
	switch {
	case events == 0:
		operation = unix.EPOLL_CTL_DEL
	case c.watched == 0:
		operation = unix.EPOLL_CTL_ADD
		c.parking.mu.Lock()
		c.parking.conns[int32(c.fd)] = c
		c.parking.mu.Unlock()
	}
	e := unix.EpollEvent{Events: events | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(c.fd)}
	if err := unix.EpollCtl(c.parking.epoll, operation, c.fd, &e); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	c.watched = events
	return nil
}

// fired wakes those who wait for one of the events. An error or the end of the stream is for all.
func (c *Conn) fired(events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0 {
		c.ended.Store(true)
		events |= unix.EPOLLIN | unix.EPOLLOUT
	}
	if events&unix.EPOLLOUT != 0 {
		c.unblock()
	}
	if events&unix.EPOLLIN != 0 {
		notify(c.readable)
	}
}

// unblock wakes the writer, and looks no longer out for room: some sockets tell of every byte that leaves.
func (c *Conn) unblock() {
	if c.use() {
		c.mu.Lock()
		if c.watched&unix.EPOLLOUT != 0 {
			_ = c.update(c.watched &^ unix.EPOLLOUT)
		}
		c.mu.Unlock()
		c.release()
	}
	notify(c.writable)
}

func notify(waiter chan struct{}) {
	select {
	case waiter <- struct{}{}:
	default:
	}
}
