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

// Client is the front's view of one worker.
type Client struct {
	channel *channel.Client
	logger  *slog.Logger

	mu     sync.Mutex
	remote map[string]*Remote // guarded by mu; environments that the worker has for us
}

// NewClient returns a client that reaches the worker by dial.
func NewClient(dial func(context.Context) (net.Conn, error), own channel.Credential, logger *slog.Logger) (*Client, error) {
	c, err := channel.NewClient(dial, own, channel.Worker)
	if err != nil {
		return nil, err
	}
	return &Client{channel: c, logger: logger, remote: map[string]*Remote{}}, nil
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
	c.mu.Unlock()
	for _, r := range lost {
		close(r.gone)
	}
}

// Create orders an environment; see Host.Create.
func (c *Client) Create(ctx context.Context, spec lambda.EnvironmentSpec) (*Remote, error) {
	var out created
	if _, err := c.channel.Call(ctx, kindCreate, spec, nil, &out); err != nil {
		return nil, local(ctx, "create environment", err)
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
	return out.VersionARN, local(ctx, "check runtime", err)
}

// PrepareRuntime has the worker make the runtime's image if it has none yet, which takes seconds.
func (c *Client) PrepareRuntime(ctx context.Context, identifier string) error {
	_, err := c.channel.Call(ctx, kindPrepareRuntime, runtimeName{identifier}, nil, nil)
	return local(ctx, "prepare runtime", err)
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
		return nil, local(ctx, "invoke", err)
	}
	return &lambda.Result{Payload: payload, FunctionError: out.FunctionError, ExecutedVersion: out.ExecutedVersion, LogTail: out.LogTail}, nil
}

// Destroy ends the environment.
func (r *Remote) Destroy(ctx context.Context) error {
	r.client.lose(r.id)
	_, err := r.client.channel.Call(ctx, kindDestroy, environmentID{r.id}, nil, nil)
	return local(ctx, "destroy environment", err)
}
