package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cloister/runtimes"
	"cloister/sandbox"
)

// standardEphemeralMiB is the size of /tmp that sandboxes are parked with.
const standardEphemeralMiB = 512

// refillAfter is how long the pool waits after a take, so that filling it does not compete with
// the cold start that took one.
const refillAfter = 250 * time.Millisecond

// A pool keeps sandboxes ready for the runtimes in use.
type pool struct {
	backend sandbox.Backend
	want    int // per runtime
	logger  *slog.Logger

	mu      sync.Mutex
	parked  map[string][]sandbox.Sandbox // guarded by mu; by runtime key
	filling map[string]bool              // guarded by mu
	closed  bool                         // guarded by mu
	fillers sync.WaitGroup
}

func newPool(b sandbox.Backend, want int, l *slog.Logger) *pool {
	return &pool{backend: b, want: want, logger: l, parked: map[string][]sandbox.Sandbox{}, filling: map[string]bool{}}
}

// take returns a sandbox with the runtime's root: a parked one, or a new one.
func (p *pool) take(ctx context.Context, r runtimes.Runtime, ephemeralMiB int) (sandbox.Sandbox, error) {
	if ephemeralMiB != standardEphemeralMiB {
		return p.park(ctx, r, ephemeralMiB)
	}
	p.mu.Lock()
	var box sandbox.Sandbox
	if boxes := p.parked[r.Key]; len(boxes) > 0 {
		box = boxes[len(boxes)-1]
		p.parked[r.Key] = boxes[:len(boxes)-1]
	}
	fill := !p.filling[r.Key] && !p.closed && p.want > 0
	if fill {
		p.filling[r.Key] = true
		p.fillers.Add(1)
	}
	p.mu.Unlock()
	if fill {
		time.AfterFunc(refillAfter, func() { p.fill(r) })
	}
	if box != nil {
		return box, nil
	}
	return p.park(ctx, r, ephemeralMiB)
}

func (p *pool) park(ctx context.Context, r runtimes.Runtime, ephemeralMiB int) (sandbox.Sandbox, error) {
	root, err := r.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return p.backend.Park(ctx, sandbox.Class{Root: rootImage(r, root), EphemeralMiB: ephemeralMiB})
}

// fill parks sandboxes of one runtime until there are enough.
func (p *pool) fill(r runtimes.Runtime) {
	defer p.fillers.Done()
	for {
		p.mu.Lock()
		enough := p.closed || len(p.parked[r.Key]) >= p.want
		if enough {
			p.filling[r.Key] = false
		}
		p.mu.Unlock()
		if enough {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		box, err := p.park(ctx, r, standardEphemeralMiB)
		cancel()
		p.mu.Lock()
		if err != nil {
			p.filling[r.Key] = false
			p.mu.Unlock()
			p.logger.Error("sandbox not parked", "runtime", r.Identifier, "error", err)
			return // the next take tries again
		}
		p.parked[r.Key] = append(p.parked[r.Key], box)
		p.mu.Unlock()
	}
}

// close destroys what is parked, after the fillers have stopped.
func (p *pool) close(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.fillers.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, boxes := range p.parked {
		for _, box := range boxes {
			if err := box.Destroy(ctx); err != nil {
				p.logger.Error("parked sandbox not removed", "sandbox", box.ID(), "error", err)
			}
		}
	}
	clear(p.parked)
}
