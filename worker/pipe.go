package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// servePipes carries the connections that the function makes to the gateway. The worker moves
// bytes only: TLS and signature are between the function and the gateway.
func (e *environment) servePipes() {
	slots := make(chan struct{}, maxPipes)
	var open sync.WaitGroup
	defer open.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for {
		inside, err := e.box.Services().Accept()
		if errors.Is(err, net.ErrClosed) {
			return // by Destroy
		}
		if err != nil { // no descriptors left, for one: it passes
			time.Sleep(50 * time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			inside.Close() // over the bound: refused like a full backlog
			continue
		}
		open.Go(func() {
			defer func() { <-slots }()
			e.pipe(inside, stop)
		})
	}
}

func (e *environment) pipe(inside net.Conn, stop <-chan struct{}) {
	defer inside.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	outside, err := e.host.config.Upstream.Pipe(ctx)
	cancel()
	if err != nil {
		e.host.config.Logger.Warn("function not connected to the gateway", "environment", e.id, "error", err)
		return
	}
	join(inside, outside, stop)
}

// join copies both ways until one side ends or stop is closed.
func join(a, b net.Conn, stop <-chan struct{}) {
	ended := make(chan struct{}, 2)
	var copies sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		copies.Go(func() {
			io.Copy(way[0], way[1])
			ended <- struct{}{}
		})
	}
	select {
	case <-ended:
	case <-stop:
	}
	a.Close()
	b.Close()
	copies.Wait()
}
