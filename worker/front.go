package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"cloister/artifact"
	"cloister/internal/channel"
	"cloister/lambda"
)

// Bounds of log events that wait for the front.
const (
	maxPendingLogBytes = 16 << 20
	maxStreamLogBytes  = 2 << 20 // of it for one stream: a flood loses its own lines first
	logInterval        = 50 * time.Millisecond
	maxLogFrameBytes   = 512 << 10
	logEventBytes      = 32 // what an event counts beside its text
	maxFrameEvents     = maxLogFrameBytes/logEventBytes + 1
)

// Front is the worker's view of the front: where it fetches code, sends log events and pipes the
// functions' own calls.
type Front struct {
	channel *channel.Client
	logger  *slog.Logger

	sending sync.Mutex // held while batches move, so that they arrive in order; taken before mu
	mu      sync.Mutex
	pending []logBatch     // guarded by mu; oldest first
	bytes   int            // guarded by mu; of pending
	streams map[string]int // guarded by mu; of pending, by name of the stream, which is unique to an environment
	wake    chan struct{}
	dropped atomic.Int64
}

// NewFront returns a view of the front that is reached by dial. Log events move while Run runs.
func NewFront(dial func(context.Context) (net.Conn, error), own channel.Credential, logger *slog.Logger) (*Front, error) {
	c, err := channel.NewClient(dial, own, channel.Front)
	if err != nil {
		return nil, err
	}
	return &Front{channel: c, logger: logger, streams: map[string]int{}, wake: make(chan struct{}, 1)}, nil
}

// Fetch redeems the grant and writes the plain image to w.
func (f *Front) Fetch(ctx context.Context, grant string, a lambda.Artifact, w io.Writer) error {
	conn, err := f.channel.Open(ctx)
	if err != nil {
		return local(ctx, "fetch artifact", err)
	}
	defer f.channel.Release(conn)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.Send(kindRedeem, redeem{grant}, nil); err != nil {
		return local(ctx, "fetch artifact", err)
	}
	var head redeemed
	if _, _, err := conn.Receive(&head); err != nil {
		return local(ctx, "fetch artifact", err)
	}
	sealed := &frameReader{conn: conn}
	if err := artifact.Unseal(w, sealed, head.Key, a); err != nil {
		conn.Close() // frames may be left on it
		return err
	}
	return nil
}

// broken is why code did not arrive whole. A front that went away says nothing of the code: only what was
// received and does not pass its check is corrupt.
func broken(err error) error {
	if e, ok := errors.AsType[*channel.RemoteError](err); ok {
		return &lambda.Error{Kind: lambda.Kind(e.Code), Op: "fetch artifact", Message: e.Message}
	}
	return &lambda.Error{Kind: lambda.Unavailable, Op: "fetch artifact", Message: "the front is restarting; try again", Err: err}
}

// frameReader reads the Data frames of a stream as plain bytes, up to its Done frame.
type frameReader struct {
	conn *channel.Conn
	rest []byte
	done bool
}

func (r *frameReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.done {
			return 0, io.EOF
		}
		kind, body, err := r.conn.Receive(nil)
		if err != nil {
			return 0, broken(err)
		}
		r.rest, r.done = body, kind == channel.Done
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Pipe opens a stream of bytes to the gateway.
func (f *Front) Pipe(ctx context.Context) (net.Conn, error) {
	conn, err := f.channel.Open(ctx)
	if err != nil {
		return nil, local(ctx, "pipe", err)
	}
	if err := conn.Send(kindPipe, nil, nil); err != nil {
		conn.Close()
		return nil, local(ctx, "pipe", err)
	}
	return conn.Stream(), nil
}

// Append keeps events for the next batch. It never blocks; what exceeds the bound is dropped and
// counted.
func (f *Front) Append(accountID, group, stream string, events []lambda.LogEvent) {
	b := logBatch{AccountID: accountID, Group: group, Stream: stream, Events: events}
	size := 0
	for _, e := range events {
		size += len(e.Message) + logEventBytes
	}
	f.mu.Lock()
	full := f.bytes+size > maxPendingLogBytes || f.streams[stream]+size > maxStreamLogBytes
	if !full {
		f.pending = append(f.pending, b)
		f.bytes += size
		f.streams[stream] += size
	}
	f.mu.Unlock()
	if full {
		f.dropped.Add(int64(len(events)))
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Dropped counts log events that were lost because the front did not take them in time.
func (f *Front) Dropped() int64 { return f.dropped.Load() }

// Run sends log events until ctx ends, and then what is left.
func (f *Front) Run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-f.wake:
		case <-ctx.Done():
		}
		select { // events come in bursts: let one gather
		case <-time.After(logInterval):
		case <-ctx.Done():
		}
		f.Flush(context.WithoutCancel(ctx))
	}
}

// Flush moves all pending batches. What the front does not take is dropped, not kept: the next
// events would only push it out later.
func (f *Front) Flush(ctx context.Context) {
	f.sending.Lock()
	defer f.sending.Unlock()
	f.mu.Lock()
	pending := f.pending
	f.pending, f.bytes = nil, 0
	clear(f.streams)
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, b := range merge(pending) {
		_, err := f.channel.Call(ctx, kindLogs, logBatch{AccountID: b.AccountID, Group: b.Group, Stream: b.Stream}, appendEvents(nil, b.Events), nil)
		if err != nil {
			f.dropped.Add(int64(len(b.Events)))
			f.logger.Warn("log events dropped", "count", len(b.Events), "total", f.Dropped(), "error", err)
		}
	}
}

// merge joins batches of the same stream into frames, in order.
func merge(batches []logBatch) []logBatch {
	var out []logBatch
	type stream struct{ accountID, group, name string }
	open := map[stream]int{} // index in out
	sizes := map[int]int{}
	for _, b := range batches {
		key := stream{b.AccountID, b.Group, b.Stream}
		for _, e := range b.Events {
			i, ok := open[key]
			if !ok || sizes[i]+len(e.Message) > maxLogFrameBytes {
				i = len(out)
				out = append(out, logBatch{AccountID: b.AccountID, Group: b.Group, Stream: b.Stream})
				open[key] = i
			}
			out[i].Events = append(out[i].Events, e)
			sizes[i] += len(e.Message) + logEventBytes
		}
	}
	return out
}
