package worker

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"cloister/internal/channel"
	"cloister/lambda"
)

// restartPatience is how long the making of an environment waits for the worker to be there. It is well below the
// minute that clients wait for an answer: one that tries three times bridges a restart of a minute.
const restartPatience = 20 * time.Second

// Client is the front's view of one worker.
type Client struct {
	channel *channel.Client
	logger  *slog.Logger

	mu     sync.Mutex
	remote map[string]*Remote // guarded by mu; environments that the worker has for us
	leased chan struct{}      // guarded by mu; closed while the lease is in force, made anew when it is lost
}

// NewClient returns a client that reaches the worker by dial.
func NewClient(dial func(context.Context) (net.Conn, error), own channel.Credential, logger *slog.Logger) (*Client, error) {
	c, err := channel.NewClient(dial, own, channel.Worker)
	if err != nil {
		return nil, err
	}
	return &Client{channel: c, logger: logger, remote: map[string]*Remote{}, leased: make(chan struct{})}, nil
}

// Run keeps the lease on the worker until ctx ends: it learns which environments died, and when
// the worker itself goes away it declares all of them gone and attaches to the next one.
// attached is called each time the lease is in force.
func (c *Client) Run(ctx context.Context, attached func()) {
	for ctx.Err() == nil {
		if err := c.lease(ctx, attached); err != nil && ctx.Err() == nil {
			c.logger.Warn("worker not attached", "error", err)
		}
		c.channel.Forget()
		c.loseAll()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (c *Client) lease(ctx context.Context, attached func()) error {
	conn, err := c.channel.Open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.Send(kindAttach, struct{}{}, nil); err != nil {
		return err
	}
	if _, _, err := conn.Receive(nil); err != nil {
		return err
	}
	c.mu.Lock()
	close(c.leased)
	c.mu.Unlock()
	attached()
	for {
		var e ended
		if _, _, err := conn.Receive(&e); err != nil {
			return err
		}
		c.logger.Info("environment ended", "environment", e.EnvironmentID, "reason", e.Reason)
		c.lose(e.EnvironmentID)
	}
}

func (c *Client) lose(id string) {
	c.mu.Lock()
	r := c.remote[id]
	delete(c.remote, id)
	c.mu.Unlock()
	if r != nil {
		close(r.gone)
	}
}

func (c *Client) loseAll() {
	c.mu.Lock()
	lost := c.remote
	c.remote = map[string]*Remote{}
	select {
	case <-c.leased:
		c.leased = make(chan struct{})
	default: // it was not in force
	}
	c.mu.Unlock()
	for _, r := range lost {
		close(r.gone)
	}
}

// awaitLease waits until there is a worker, which may be starting, to keep a call from using up its attempts meanwhile.
// What it ends with is told by the exchange that follows.
func (c *Client) awaitLease(ctx context.Context) {
	c.mu.Lock()
	leased := c.leased
	c.mu.Unlock()
	patience := time.NewTimer(restartPatience)
	defer patience.Stop()
	select {
	case <-leased:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// Create orders an environment; see Host.Create. While the worker starts it waits.
func (c *Client) Create(ctx context.Context, spec lambda.EnvironmentSpec) (*Remote, error) {
	c.awaitLease(ctx)
	var out created
	if _, err := c.channel.Call(ctx, kindCreate, spec, nil, &out); err != nil {
		return nil, fromWorker(ctx, "create environment", err)
	}
	r := &Remote{client: c, id: out.EnvironmentID, gone: make(chan struct{})}
	c.mu.Lock()
	c.remote[r.id] = r
	c.mu.Unlock()
	return r, nil
}

// CheckRuntime says whether the worker has the runtime, and its version ARN. The error, of kind
// lambda.InvalidParameter, says what to install.
func (c *Client) CheckRuntime(ctx context.Context, identifier string) (string, error) {
	var out runtimeVersion
	_, err := c.channel.Call(ctx, kindCheckRuntime, runtimeName{identifier}, nil, &out)
	return out.VersionARN, fromWorker(ctx, "check runtime", err)
}

// PrepareRuntime has the worker make the runtime's image if it has none yet, which takes seconds.
func (c *Client) PrepareRuntime(ctx context.Context, identifier string) error {
	_, err := c.channel.Call(ctx, kindPrepareRuntime, runtimeName{identifier}, nil, nil)
	return fromWorker(ctx, "prepare runtime", err)
}

// Remote is an environment on the worker.
type Remote struct {
	client *Client
	id     string
	gone   chan struct{} // closed when the environment has ended
}

// ID names the environment.
func (r *Remote) ID() string { return r.id }

// Gone is closed when the environment has ended.
func (r *Remote) Gone() <-chan struct{} { return r.gone }

// Invoke runs the invocation; see Host.Invoke. An error of kind lambda.Unavailable leaves open
// whether the function has seen the event.
func (r *Remote) Invoke(ctx context.Context, inv *lambda.Invocation) (*lambda.Result, error) {
	var out invoked
	payload, err := r.client.channel.Call(ctx, kindInvoke, &invoke{
		EnvironmentID: r.id,
		RequestID:     inv.RequestID,
		FunctionARN:   inv.FunctionARN,
		ClientContext: inv.ClientContext,
		TraceID:       inv.TraceID,
		LogTail:       inv.LogTail,
	}, inv.Payload, &out)
	if err != nil {
		return nil, fromWorker(ctx, "invoke", err)
	}
	return &lambda.Result{Payload: payload, FunctionError: out.FunctionError, ExecutedVersion: out.ExecutedVersion, LogTail: out.LogTail}, nil
}

// Destroy ends the environment.
func (r *Remote) Destroy(ctx context.Context) error {
	r.client.lose(r.id)
	_, err := r.client.channel.Call(ctx, kindDestroy, environmentID{r.id}, nil, nil)
	return fromWorker(ctx, "destroy environment", err)
}
