// Package placement decides where an invocation runs: in an idle execution
// environment of the same function version, or in a new one on some worker.
//
// It does not start, freeze or stop environments (package worker does), does not count
// concurrency (package invoke has done so before it asks) and reads no policy.
//
// Invariants: an environment is handed to at most one invocation at a time, and never to another
// lambda.VersionID than the one it was made for, so never to two accounts, functions, versions or
// configurations. Nothing here is chosen by the tenant except the function it names.
package placement

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"cloister/lambda"
)

// A Worker makes environments. Implemented over the network by worker.Client.
type Worker interface {
	// Create blocks until the environment is ready or ctx is done. An error of kind
	// lambda.Capacity means "no room here"; any other is final.
	Create(ctx context.Context, spec lambda.EnvironmentSpec) (Environment, error)
}

// An Environment lives on a worker. Implemented by worker.Remote.
type Environment interface {
	ID() string
	Invoke(ctx context.Context, inv *lambda.Invocation) (*lambda.Result, error)
	Destroy(ctx context.Context) error
	// Gone is closed when the environment has ended, on its own or by Destroy.
	Gone() <-chan struct{}
}

// A Provisioner completes the order for an environment: credentials of the execution role and a
// grant for the code, both limited in time.
type Provisioner interface {
	Provision(ctx context.Context, v *lambda.Version) (lambda.EnvironmentSpec, error)
}

// Config of a Pool.
type Config struct {
	Worker      Worker
	Provisioner Provisioner
	Logger      *slog.Logger
	Now         func() time.Time

	IdleTimeout time.Duration // an environment unused for so long is ended; 0 means 10 minutes
	Lifetime    time.Duration // no environment takes events after it; 0 means 2 hours
}

// Pool hands out environments. Its methods may be called concurrently.
type Pool struct {
	config Config

	mu     sync.Mutex                         // never held while waiting for a Worker or an Environment
	idle   map[lambda.VersionID][]*Assignment // guarded by mu; last in, first out, so that the hot stay hot and the cold can end
	closed bool                               // guarded by mu

	retired map[lambda.VersionID]time.Time // guarded by mu; outdated since when, kept for a Lifetime
}

// busyFor is how long an environment that was still finishing is not tried again.
const busyFor = 50 * time.Millisecond

// An Assignment is an environment in the hands of one invocation.
type Assignment struct {
	Environment
	version lambda.VersionID
	expires time.Time // takes no event after it

	// Owned by whoever holds the assignment, or guarded by Pool.mu while idle.
	idledAt   time.Time
	busyUntil time.Time // it was still finishing an event: not taken before
}

// New returns an empty pool.
func New(c Config) (*Pool, error) {
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 10*time.Minute)
	c.Lifetime = cmp.Or(c.Lifetime, 2*time.Hour)
	return &Pool{config: c, idle: map[lambda.VersionID][]*Assignment{}, retired: map[lambda.VersionID]time.Time{}}, nil
}

// Assign returns an environment of exactly this version, which the caller owns until it calls
// Release or Discard. Errors: lambda.Throttled when no worker has room, else what the
// worker or the provisioner answered.
func (p *Pool) Assign(ctx context.Context, v *lambda.Version) (*Assignment, error) {
	if a := p.takeIdle(v); a != nil {
		return a, nil
	}
	return p.create(ctx, v)
}

// takeIdle takes the environment that was used last and is not still finishing.
func (p *Pool) takeIdle(v *lambda.Version) *Assignment {
	now := p.config.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	stack := p.idle[v.ID]
	for i := len(stack) - 1; i >= 0; i-- {
		a := stack[i]
		usable := a.usable(now, v.Timeout)
		if usable && now.Before(a.busyUntil) {
			continue
		}
		stack = slices.Delete(stack, i, i+1)
		p.keep(v.ID, stack)
		if usable {
			return a
		}
		p.end(a, "lifetime over")
	}
	return nil
}

// keep stores what is left of a stack. The caller holds mu.
func (p *Pool) keep(id lambda.VersionID, stack []*Assignment) {
	if len(stack) == 0 {
		delete(p.idle, id)
		return
	}
	p.idle[id] = stack
}

// usable says whether an event that may take timeout can still run to its end.
func (a *Assignment) usable(now time.Time, timeout time.Duration) bool {
	select {
	case <-a.Gone():
		return false
	default:
		return now.Add(timeout).Before(a.expires)
	}
}

// createPatience bounds the making of one environment: its init alone may take lambda.InitTimeout.
const createPatience = time.Minute

// create orders a new environment; when the worker has no room, idle ones of other versions make
// way, the longest unused first.
func (p *Pool) create(ctx context.Context, v *lambda.Version) (*Assignment, error) {
	ctx, cancel := context.WithTimeout(ctx, createPatience)
	defer cancel()
	for range 16 {
		spec, err := p.config.Provisioner.Provision(ctx, v) // anew each time: a grant is good for one redemption
		if err != nil {
			return nil, err
		}
		e, err := p.config.Worker.Create(ctx, spec)
		if err == nil {
			expires := p.config.Now().Add(p.config.Lifetime)
			if spec.Credentials.Expiration.Before(expires) {
				expires = spec.Credentials.Expiration
			}
			return &Assignment{Environment: e, version: v.ID, expires: expires}, nil
		}
		if lambda.KindOf(err) != lambda.Capacity {
			return nil, err
		}
		victim := p.takeOldest()
		if victim == nil {
			break
		}
		p.destroy(ctx, victim, "room for another")
	}
	return nil, &lambda.Error{Kind: lambda.Throttled, Op: "place", Message: "Rate Exceeded."}
}

// takeOldest removes the environment that has been idle longest.
func (p *Pool) takeOldest() *Assignment {
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest *Assignment
	for _, stack := range p.idle {
		if a := stack[0]; oldest == nil || a.idledAt.Before(oldest.idledAt) {
			oldest = a
		}
	}
	if oldest != nil {
		p.keep(oldest.version, p.idle[oldest.version][1:])
	}
	return oldest
}

// Release gives the environment back for the next invocation of its version.
func (p *Pool) Release(a *Assignment) {
	a.idledAt = p.config.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	_, retired := p.retired[a.version]
	switch {
	case p.closed:
		p.end(a, "shutdown")
	case retired:
		p.end(a, outdated)
	default:
		p.idle[a.version] = append(p.idle[a.version], a)
	}
}

// Defer is Release of an environment that has answered but works on: it is left alone for a moment.
func (p *Pool) Defer(a *Assignment) {
	a.busyUntil = p.config.Now().Add(busyFor)
	p.Release(a)
}

// Discard ends the environment: it failed in a way that leaves its state unknown.
func (p *Pool) Discard(a *Assignment, reason string) { p.end(a, reason) }

// outdated is why the environments of a retired version end.
const outdated = "the function was updated or deleted"

// Retire ends the environments of a version that is no longer current: the idle ones now, those in
// use when they are released.
func (p *Pool) Retire(id lambda.VersionID) {
	p.mu.Lock()
	stack := p.idle[id]
	delete(p.idle, id)
	p.retired[id] = p.config.Now()
	p.mu.Unlock()
	for _, a := range stack {
		p.end(a, outdated)
	}
}

// Run ends environments that have been idle too long, until ctx ends.
func (p *Pool) Run(ctx context.Context) {
	tick := time.NewTicker(min(p.config.IdleTimeout, time.Minute) / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

// Sweep ends environments that were idle for IdleTimeout, are over their lifetime, or gone.
func (p *Pool) Sweep() {
	now := p.config.Now()
	var over []*Assignment
	p.mu.Lock()
	for id, stack := range p.idle {
		live := stack[:0:0]
		for _, a := range stack {
			if a.usable(now, 0) && now.Sub(a.idledAt) < p.config.IdleTimeout {
				live = append(live, a)
			} else {
				over = append(over, a)
			}
		}
		p.keep(id, live)
	}
	maps.DeleteFunc(p.retired, func(_ lambda.VersionID, since time.Time) bool { return now.Sub(since) > p.config.Lifetime })
	p.mu.Unlock()
	for _, a := range over {
		p.end(a, "idle")
	}
}

// Close ends all idle environments and makes Release end the others.
func (p *Pool) Close(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = map[lambda.VersionID][]*Assignment{}
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, stack := range idle {
		for _, a := range stack {
			all.Go(func() { p.destroy(ctx, a, "shutdown") })
		}
	}
	all.Wait()
}

// end destroys in the background, so that no invocation waits for it.
func (p *Pool) end(a *Assignment, reason string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		p.destroy(ctx, a, reason)
	}()
}

func (p *Pool) destroy(ctx context.Context, a *Assignment, reason string) {
	select {
	case <-a.Gone():
		return
	default:
	}
	if err := a.Destroy(ctx); err != nil {
		p.config.Logger.Warn("environment not ended", "environment", a.ID(), "error", err)
		return
	}
	p.config.Logger.Info("environment ended", "environment", a.ID(), "reason", reason)
}
