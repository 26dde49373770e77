package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowClients hold connections open by sending next to nothing.
const slowClients = 1000

// A crowd is slow clients at work on a house.
type crowd struct {
	stop    chan struct{}
	done    sync.WaitGroup
	present atomic.Int32 // whose handshake is over and who has begun a request
	dropped atomic.Int32 // whom the house got rid of
}

// gather lets n clients begin a request, half of them a header and half a body, and then send a byte each second for as long
// as they are let.
func (h *house) gather(t testing.TB, n int) *crowd {
	c := &crowd{stop: make(chan struct{})}
	header := "POST " + invocationsPath + " HTTP/1.1\r\nHost: x\r\nX-Slow: "
	body := dump(t, h.request(t, http.MethodPost, invocationsPath, string(zeros(60<<10)), signing{}), fmt.Sprintf("Content-Length: %d\r\n", 60<<10), "")
	for i := range n {
		start := header
		if i%2 == 0 {
			start = body
		}
		c.done.Go(func() { c.bother(h, start) })
	}
	return c
}

// bother is one connection of a slow client.
func (c *crowd) bother(h *house, start string) {
	transport := h.client.Transport.(*http.Transport)
	raw, err := transport.DialContext(context.Background(), "", "")
	if err != nil {
		return
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{RootCAs: transport.TLSClientConfig.RootCAs, ServerName: "127.0.0.1"})
	if _, err := io.WriteString(conn, start); err != nil {
		return
	}
	c.present.Add(1)
	defer c.present.Add(-1)
	go io.Copy(io.Discard, conn) // else the server could not say why it gives up
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(time.Second):
		}
		if _, err := conn.Write([]byte("0")); err != nil {
			c.dropped.Add(1)
			return
		}
	}
}

// measure makes calls, every tenth on a new connection, and returns how long each took, in order.
func (h *house) measure(t testing.TB, calls int, pause time.Duration) []time.Duration {
	t.Helper()
	var took []time.Duration
	for n := range calls {
		if n%10 == 0 {
			h.client.CloseIdleConnections()
		}
		r := h.request(t, http.MethodPost, invocationsPath, `{"n":1}`, signing{})
		start := time.Now()
		if got := h.do(t, r); got.status != http.StatusOK {
			t.Errorf("call %d: status %d, %s", n, got.status, got.body)
		}
		took = append(took, time.Since(start))
		time.Sleep(pause)
	}
	slices.Sort(took)
	return took
}

// All waiting is in fake time here, so a call takes no time unless it waits for a slow client, and the processor does
// not matter: not one call may wait.
func TestAThousandSlowClientsMakeNobodyWait(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		crowd := h.gather(t, slowClients)
		time.Sleep(time.Second)
		if n := crowd.present.Load(); n != slowClients {
			t.Errorf("%d slow clients are there", n)
		}
		took := h.measure(t, 100, 300*time.Millisecond)
		if longest := took[len(took)-1]; longest > 0 {
			t.Errorf("the longest of %d calls took %v", len(took), longest)
		}
		// After 30 seconds each has been dropped, whether it held up a header or a body.
		if n := crowd.dropped.Load(); n != slowClients {
			t.Errorf("%d slow clients were dropped", n)
		}
		close(crowd.stop)
		crowd.done.Wait()
	})
}

// A narrow listener has room for some connections only, as if slow clients could keep theirs.
type narrow struct {
	net.Listener
	room chan struct{}
}

func (n narrow) Accept() (net.Conn, error) {
	n.room <- struct{}{}
	conn, err := n.Listener.Accept()
	return &narrowConn{Conn: conn, leave: sync.OnceFunc(func() { <-n.room })}, err
}

type narrowConn struct {
	net.Conn
	leave func()
}

func (c *narrowConn) Close() error { defer c.leave(); return c.Conn.Close() }

// The control: where slow clients occupy what the others need, the test above would see it.
func TestSlowClientsWouldBeNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 8
		p := pipes{make(chan net.Conn), make(chan struct{})}
		h := openHouseOn(t, narrow{p, make(chan struct{}, room)}, p.dial)
		crowd := h.gather(t, room)
		synctest.Wait()
		if took := h.measure(t, 1, 0); took[0] < time.Second {
			t.Errorf("behind slow clients a call took %v", took[0])
		}
		close(crowd.stop)
		crowd.done.Wait()
		h.client.CloseIdleConnections()
		time.Sleep(time.Second)
	})
}

// BenchmarkInvokeAmongSlowClients is the same over sockets and in real time: milliseconds that calls take alone and among
// the slow clients, a tenth of them on new connections.
func BenchmarkInvokeAmongSlowClients(b *testing.B) {
	h := openHouse(b, quiet)
	h.measure(b, 100, 0) // the first calls pay for what is made once
	for b.Loop() {
		alone := h.measure(b, 1000, 0)
		crowd := h.gather(b, slowClients)
		waitFor(b, "crowd", func() bool { return crowd.present.Load() == slowClients })
		among := h.measure(b, 1000, 0)
		close(crowd.stop)
		crowd.done.Wait()
		for name, took := range map[string][]time.Duration{"alone": alone, "among": among} {
			b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-"+name+"-ms")
			b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-"+name+"-ms")
		}
	}
}
