package socket

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A parking waits for the sockets whose readers or writers have been put aside. It is an epoll instance of
// its own, in which a socket is armed only while somebody waits aside, so that a reader in the kernel
// wakes nobody else; and it waits in Go's poller itself, so it takes no thread.
type parking struct {
	epoll int
	file  *os.File // of epoll

	mu    sync.Mutex
	conns map[int32]*Conn // guarded by mu; by descriptor, those armed
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
			n, err := unix.EpollWait(p.epoll, events, 0)
			if err == syscall.EINTR {
				continue
			}
			for _, e := range events[:max(n, 0)] {
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

func (p *parking) forget(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[int32(c.fd)] == c {
		delete(p.conns, int32(c.fd))
	}
}

// wait blocks until the socket is ready for event or its deadline is over.
func (c *Conn) wait(event uint32, ready chan struct{}, deadline *atomic.Int64) error {
	var expired <-chan time.Time
	if at := deadline.Load(); at != 0 {
		left := time.Until(time.Unix(0, at))
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
	if err := c.arm(event); err != nil {
		return err
	}
	select {
	case <-ready:
	case <-expired:
	}
	if at := deadline.Load(); at != 0 && time.Now().UnixNano() >= at {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// arm has the parking wait for event, once.
func (c *Conn) arm(event uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed |= event
	return c.update()
}

// update tells the kernel what is armed.
// Preconditions: mu is held.
func (c *Conn) update() error {
	operation := unix.EPOLL_CTL_MOD
	if !c.known {
		operation = unix.EPOLL_CTL_ADD
		c.parking.mu.Lock()
		c.parking.conns[int32(c.fd)] = c
		c.parking.mu.Unlock()
		c.known = true
	}
	e := unix.EpollEvent{Events: c.armed | unix.EPOLLONESHOT, Fd: int32(c.fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(c.parking.epoll, operation, c.fd, &e))
}

// fired wakes those who waited for one of the events. An error or the end of the stream is for all.
func (c *Conn) fired(events uint32) {
	if !c.use() {
		events = ^uint32(0) // waiters find out that it is closed
	} else {
		defer c.release()
	}
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		events |= unix.EPOLLIN | unix.EPOLLOUT
	}
	c.mu.Lock()
	woken := c.armed & events
	c.armed &^= woken
	if c.armed != 0 && !c.closed.Load() {
		// What stays armed was disarmed by the kernel together with the rest. A failure means that the
		// socket is gone, so its waiter is woken to find out.
		if c.update() != nil {
			woken, c.armed = woken|c.armed, 0
		}
	}
	c.mu.Unlock()
	if woken&unix.EPOLLIN != 0 {
		notify(c.readable)
	}
	if woken&unix.EPOLLOUT != 0 {
		notify(c.writable)
	}
}

func notify(waiter chan struct{}) {
	select {
	case waiter <- struct{}{}:
	default:
	}
}
