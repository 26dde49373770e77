package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// pair returns a Conn and the peer that package net has of it.
func pair(t *testing.T, network string) (*Conn, net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Take(accepted)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		peer.Close()
	})
	return c, peer
}

func TestBytesPassBothWaysWhoeverWaits(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for name, pause := range map[string]time.Duration{"at once": 0, "after a reader was put aside": 10 * hotWait} {
			t.Run(network+" "+name, func(t *testing.T) {
				c, peer := pair(t, network)
				sent := bytes.Repeat([]byte("0123456789abcdef"), 256<<10) // larger than any socket buffer
				var group sync.WaitGroup
				group.Go(func() {
					time.Sleep(pause)
					peer.Write(sent)
				})
				got := make([]byte, len(sent))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("read: %v, equal %v", err, bytes.Equal(got, sent))
				}
				group.Wait()
				group.Go(func() {
					time.Sleep(pause)
					clear(got)
					io.ReadFull(peer, got)
				})
				if n, err := c.Write(sent); n != len(sent) || err != nil {
					t.Errorf("wrote %d, %v", n, err)
				}
				group.Wait()
				if !bytes.Equal(got, sent) {
					t.Error("the peer got other bytes")
				}
			})
		}
	}
}

func TestAReaderSeesTheEnd(t *testing.T) {
	c, peer := pair(t, "tcp")
	if !c.Quiet() {
		t.Error("an idle connection is not quiet")
	}
	time.AfterFunc(5*hotWait, func() { peer.Close() })
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v", err)
	}
	if c.Quiet() {
		t.Error("a connection whose peer has gone is quiet")
	}
}

func TestCloseEndsWhoWaits(t *testing.T) {
	c, _ := pair(t, "tcp")
	time.AfterFunc(5*hotWait, func() { c.Close() })
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	// Whatever is called after Close must not touch a descriptor that may be another's by now.
	other, _ := pair(t, "tcp")
	for range 3 {
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		c.Quiet()
		c.Close()
	}
	if !other.Quiet() {
		t.Error("another connection was closed")
	}
}

func TestADeadlineEndsAWait(t *testing.T) {
	c, _ := pair(t, "tcp")
	began := time.Now()
	c.SetReadDeadline(began.Add(10 * hotWait))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < 9*hotWait {
		t.Errorf("read: %v after %s", err, time.Since(began))
	}
	c.SetReadDeadline(time.Time{})
	time.AfterFunc(5*hotWait, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read that was interrupted: %v", err)
	}
	c.SetDeadline(time.Time{})
	c.SetWriteDeadline(time.Now().Add(5 * hotWait))
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write that nobody takes: %v", err)
	}
}

func TestReadHotDoesNotWaitAside(t *testing.T) {
	c, peer := pair(t, "unix")
	b := make([]byte, 8)
	if n, err := c.ReadHot(b); n != 0 || err != nil {
		t.Errorf("without data: %d, %v", n, err)
	}
	peer.Write([]byte("data"))
	if n, err := c.ReadHot(b); string(b[:n]) != "data" || err != nil {
		t.Errorf("with data: %q, %v", b[:n], err)
	}
}

// Many connections wait at once, more than may block in the kernel.
func TestManyWaitersAreServed(t *testing.T) {
	var group sync.WaitGroup
	for range 64 {
		c, peer := pair(t, "tcp")
		group.Go(func() { io.Copy(c, c) })
		group.Go(func() {
			defer peer.Close()
			b := make([]byte, 1)
			for i := range 100 {
				if _, err := peer.Write([]byte{byte(i)}); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(peer, b); err != nil || b[0] != byte(i) {
					t.Errorf("echo %d: %v, %v", i, b, err)
				}
			}
		})
	}
	group.Wait()
}

func TestWhatIsNoSocketIsLeftAlone(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	if _, err := Take(a); err == nil {
		t.Fatal("a pipe was taken")
	}
	go a.Write([]byte("x"))
	if _, err := b.Read(make([]byte, 1)); err != nil {
		t.Error("the pipe was closed")
	}
}

// A peer that always has one more byte never lets the reader wait.
func TestADeadlineHoldsThoughBytesKeepComing(t *testing.T) {
	c, peer := pair(t, "tcp")
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				peer.Write(make([]byte, 4096))
			}
		}
	}()
	began := time.Now()
	c.SetReadDeadline(began.Add(50 * time.Millisecond))
	var err error
	for b := make([]byte, 16); err == nil && time.Since(began) < 5*time.Second; {
		_, err = c.Read(b)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

func TestOnlyManyShortExchangesAreACrowd(t *testing.T) {
	quiet := func() {
		time.Sleep(3 * crowdedWait)
		if crowded() {
			t.Fatal("crowded without exchanges that have just begun")
		}
	}
	quiet()
	var slow []Exchange
	for range hotReaders + 1 {
		slow = append(slow, Begin())
	}
	if !crowded() {
		t.Error("more exchanges than processors are no crowd")
	}
	quiet() // they go on
	Begin().End()
	if hotReaders > 0 && crowded() {
		t.Error("slow exchanges and a short one are a crowd")
	}
	for _, e := range slow {
		e.End()
	}
	quiet()
	for range 10 * hotReaders {
		Begin().End()
	}
	if crowded() {
		t.Error("exchanges one after the other are a crowd")
	}
}
