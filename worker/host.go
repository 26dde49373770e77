// Package worker is the privileged process on each host. It keeps execution
// environments from init to shutdown: it takes a closed sandbox, puts runtime and code into it,
// serves the Runtime API, hands it one invocation at a time, freezes it in between,
// and reports what happened as log lines and results.
//
// It does not decide which environment serves a call (package placement), holds no queue and no
// policy, and never sees the root key: code reaches it sealed, with a grant that expires and a key
// that opens this one artifact. The front reaches it only through Client, and it reaches the
// front only through Front (artifacts, logs, and the functions' way back to the gateway).
//
// Invariants: an environment serves one lambda.VersionID for life and one invocation at a
// time; limits are in force before customer code runs; all environments of a front end with
// it. A tenant controls the code, what it writes to its sockets and pipes, and how it ends;
// every one of those is bounded here.
package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"cloister/lambda"
	"cloister/runtimes"
	"cloister/sandbox"
)

// Runtimes finds the managed runtimes of this host. Implemented by runtimes.Catalog.
type Runtimes interface {
	List(ctx context.Context) []runtimes.Offer
	Resolve(ctx context.Context, identifier string) (runtimes.Runtime, error)
}

// Upstream is what a worker needs of the front. Implemented by Front.
type Upstream interface {
	// Fetch writes the plain image to w, every byte authenticated before it is written.
	Fetch(ctx context.Context, grant string, a lambda.Artifact, w io.Writer) error
	// Append keeps log events on their way; it never blocks and counts what it must drop.
	Append(accountID, group, stream string, events []lambda.LogEvent)
	// Flush sends what Append has kept.
	Flush(ctx context.Context)
	// Pipe opens a way to the gateway for a connection that a function made.
	Pipe(ctx context.Context) (net.Conn, error)
}

// Config of a Host.
type Config struct {
	Backend  sandbox.Backend
	Runtimes Runtimes
	Upstream Upstream
	Region   string
	Logger   *slog.Logger

	MaxEnvironments int           // 0 means 1,000
	MemoryMiB       int           // sum of all functions' memory; 0 means no bound but MaxEnvironments
	Parked          int           // sandboxes kept ready per runtime in use; 0 means 2, negative none
	FreezeAfter     time.Duration // idle time until an environment is frozen; 0 means 50 ms
}

// Host is the worker. Its methods may be called concurrently.
type Host struct {
	config Config
	pool   *pool
	images *images

	mu           sync.Mutex
	environments map[string]*environment // guarded by mu; created and not yet destroyed
	memoryMiB    int                     // guarded by mu; promised to environments, those being made included
	promised     int                     // guarded by mu; number of these environments
	watchers     map[chan ended]struct{} // guarded by mu; leases that want to hear of dead environments
	closed       bool                    // guarded by mu
}

// New returns a Host without side effects; the backend must have been swept.
func New(c Config) (*Host, error) {
	c.MaxEnvironments = cmp.Or(c.MaxEnvironments, 1000)
	c.FreezeAfter = cmp.Or(c.FreezeAfter, 50*time.Millisecond)
	c.Parked = max(cmp.Or(c.Parked, 2), 0)
	return &Host{
		config:       c,
		pool:         newPool(c.Backend, c.Parked, c.Logger),
		images:       newImages(c.Upstream),
		environments: map[string]*environment{},
		watchers:     map[chan ended]struct{}{},
	}, nil
}

// CheckRuntime refuses a runtime that new functions may not have, or that this host lacks, and returns
// the version ARN of the image, which it makes if there is none yet.
func (h *Host) CheckRuntime(ctx context.Context, identifier string) (string, error) {
	if err := runtimes.CheckCreate(identifier, time.Now(), h.config.Runtimes.List(ctx)); err != nil {
		return "", err
	}
	r, err := h.config.Runtimes.Resolve(ctx, identifier)
	return r.VersionARN, err
}

// Create makes an environment and starts its runtime, for at most lambda.InitTimeout. A runtime
// that fails to start is no error here: the first invocation starts it again, inside the
// function's timeout, and answers with its error (AWS: "suppressed init"). An error of kind
// lambda.Capacity means that another worker should be asked.
func (h *Host) Create(ctx context.Context, spec lambda.EnvironmentSpec) (string, error) {
	if err := h.admit(spec.Version.MemoryMiB); err != nil {
		return "", err
	}
	began := time.Now()
	e, err := h.build(ctx, spec)
	assembled := time.Now()
	if err != nil {
		h.discharge(spec.Version.MemoryMiB)
		return "", err
	}
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.environments[e.id] = e
	}
	h.mu.Unlock()
	if closed {
		e.destroy(context.WithoutCancel(ctx))
		h.discharge(spec.Version.MemoryMiB)
		return "", &lambda.Error{Kind: lambda.Unavailable, Op: "create environment", Message: "the worker is shutting down"}
	}
	e.initialize(ctx)
	h.config.Logger.Info("environment created", "environment", e.id, "function", spec.Version.ID.FunctionName,
		"version", spec.Version.ID.Version, "runtime", spec.Version.Runtime, "assembled", assembled.Sub(began), "took", time.Since(began))
	return e.id, nil
}

// admit reserves room for one more environment.
func (h *Host) admit(memoryMiB int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return &lambda.Error{Kind: lambda.Unavailable, Op: "create environment", Message: "the worker is shutting down"}
	}
	if h.promised >= h.config.MaxEnvironments || h.config.MemoryMiB > 0 && h.memoryMiB+memoryMiB > h.config.MemoryMiB {
		return lambda.Errorf(lambda.Capacity, "create environment", "the worker has no room: %d environments, %d MiB promised", h.promised, h.memoryMiB)
	}
	h.memoryMiB += memoryMiB
	h.promised++
	return nil
}

func (h *Host) discharge(memoryMiB int) {
	h.mu.Lock()
	h.memoryMiB -= memoryMiB
	h.promised--
	h.mu.Unlock()
}

// build assembles sandbox, code and output; the code is fetched while the sandbox is made.
func (h *Host) build(ctx context.Context, spec lambda.EnvironmentSpec) (*environment, error) {
	v := &spec.Version
	runtime, err := h.config.Runtimes.Resolve(ctx, v.Runtime)
	if err != nil {
		return nil, err
	}
	type fetched struct {
		image *image
		err   error
	}
	code := make(chan fetched, 1)
	go func() {
		i, err := h.images.acquire(ctx, v.ID.AccountID, v.Code, spec.Grant)
		code <- fetched{i, err}
	}()
	box, err := h.pool.take(ctx, runtime, v.EphemeralMiB)
	f := <-code
	if err == nil {
		err = f.err
	}
	if err == nil {
		err = box.Attach(ctx, []sandbox.Mount{{Target: "/var/task", Image: f.image.Image}}, limits(v))
	}
	var e *environment
	if err == nil {
		e, err = newEnvironment(h, spec, runtime, box, f.image)
	}
	if err != nil {
		if box != nil {
			box.Destroy(context.WithoutCancel(ctx))
		}
		if f.image != nil {
			h.images.release(f.image)
		}
		return nil, err
	}
	return e, nil
}

// limits are those of Lambda: CPU in proportion to memory, one vCPU at 1,769 MB.
func limits(v *lambda.Version) sandbox.Limits {
	return sandbox.Limits{
		MemoryMiB: v.MemoryMiB,
		CPU:       float64(v.MemoryMiB) / lambda.MemoryPerCPUMiB,
		Processes: lambda.MaxProcesses,
		OpenFiles: lambda.MaxOpenFiles,
	}
}

// Invoke hands the invocation to the environment and waits for its answer. An error of kind
// lambda.EnvironmentGone means that the function has not seen the event.
func (h *Host) Invoke(ctx context.Context, id string, inv *lambda.Invocation) (*lambda.Result, error) {
	h.mu.Lock()
	e := h.environments[id]
	h.mu.Unlock()
	if e == nil {
		return nil, gone()
	}
	return e.invoke(ctx, inv)
}

// Acknowledge tells the runtime that its answer was accepted, if Invoke has left that for after the answer was passed
// on. Without it the runtime is told a moment later.
func (h *Host) Acknowledge(id string) {
	h.mu.Lock()
	e := h.environments[id]
	h.mu.Unlock()
	if e != nil {
		e.acknowledge()
	}
}

func gone() error {
	return &lambda.Error{Kind: lambda.EnvironmentGone, Op: "invoke", Message: "the environment has ended"}
}

// Destroy ends the environment; its log lines have reached the front when it returns. It is no error if
// the environment has ended already.
func (h *Host) Destroy(ctx context.Context, id string) error {
	h.mu.Lock()
	e := h.environments[id]
	delete(h.environments, id)
	h.mu.Unlock()
	if e == nil {
		return nil
	}
	err := e.destroy(ctx)
	h.config.Upstream.Flush(ctx)
	if err != nil {
		go h.destroyLater(e)
		return err
	}
	h.discharge(e.spec.Version.MemoryMiB)
	return nil
}

// destroyLater tries again what did not end at once; until then its memory stays promised.
func (h *Host) destroyLater(e *environment) {
	for range 60 {
		time.Sleep(time.Second)
		if err := e.destroy(context.Background()); err == nil {
			h.discharge(e.spec.Version.MemoryMiB)
			return
		}
	}
	h.config.Logger.Error("environment cannot be removed", "environment", e.id)
}

// bury destroys an environment that died on its own and tells the front.
func (h *Host) bury(e *environment, reason string) {
	h.mu.Lock()
	_, known := h.environments[e.id]
	for w := range h.watchers {
		select {
		case w <- ended{e.id, reason}:
		default: // the front learns it when it next invokes the environment
		}
	}
	h.mu.Unlock()
	if !known {
		return
	}
	h.config.Logger.Info("environment ended", "environment", e.id, "reason", reason)
	if err := h.Destroy(context.Background(), e.id); err != nil {
		h.config.Logger.Error("environment not removed", "environment", e.id, "error", err)
	}
}

// watch registers a channel that hears of environments that died on their own.
func (h *Host) watch() (events chan ended, stop func()) {
	events = make(chan ended, 256)
	h.mu.Lock()
	h.watchers[events] = struct{}{}
	h.mu.Unlock()
	return events, func() {
		h.mu.Lock()
		delete(h.watchers, events)
		h.mu.Unlock()
	}
}

// DestroyAll ends every environment: the front that used them is gone.
func (h *Host) DestroyAll(ctx context.Context) {
	h.mu.Lock()
	ids := make([]string, 0, len(h.environments))
	for id := range h.environments {
		ids = append(ids, id)
	}
	h.mu.Unlock()
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() {
			if err := h.Destroy(ctx, id); err != nil {
				h.config.Logger.Error("environment not removed", "environment", id, "error", err)
			}
		})
	}
	all.Wait()
}

// Close ends every environment and every parked sandbox and refuses new ones.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.DestroyAll(ctx)
	h.pool.close(ctx)
	return nil
}

// PrepareRuntime makes the runtime's image if there is none yet.
func (h *Host) PrepareRuntime(ctx context.Context, identifier string) error {
	_, err := h.config.Runtimes.Resolve(ctx, identifier)
	return err
}

// newID returns 128 random bits: environments and log streams are told apart by it.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// rootImage describes a runtime's image to the sandbox.
func rootImage(r runtimes.Runtime, f *os.File) sandbox.Image {
	return sandbox.Image{Key: r.Key, File: f, Size: r.Size}
}
