package native

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"cloister/internal/cgroup"
	"cloister/internal/loop"
	"cloister/lambda"
	"cloister/sandbox"
)

// A cell is one sandbox.
type cell struct {
	backend              *Backend
	id                   string
	uid                  int
	group                *cgroup.Group
	images               []*image     // to be released; those of Park, then those of Attach. Guarded by mu after Park
	device               *loop.Device // of /tmp
	keeper               *child
	runtimeAPI, services net.Listener

	operations sync.WaitGroup // calls that Destroy must let end

	mu        sync.Mutex
	state     state
	waiting   *child         // guarded by mu; a starter that has not been told what to execute
	processes []*process     // guarded by mu; started and perhaps still running
	limits    sandbox.Limits // guarded by mu; set by Attach

	destruction sync.Mutex // held by the one Destroy at work
	gone        bool       // guarded by destruction
}

type state uint8

const (
	parked state = iota
	attaching
	attached
	unusable // Attach has failed
	destroyed
)

func (s state) String() string {
	return [...]string{"not attached yet", "being attached", "attached already", "unusable, for attach has failed", "destroyed"}[s]
}

var errNoUID = lambda.Errorf(lambda.Capacity, "park sandbox", "all user ids are in use")

// begin registers an operation that is allowed in one of the states only. The caller must call
// end if there is no error; until then Destroy waits.
func (c *cell) begin(op string, allowed ...state) (end func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.register(op, allowed...)
}

// register is begin for callers that hold mu.
func (c *cell) register(op string, allowed ...state) (end func(), err error) {
	if c.state == destroyed {
		return nil, lambda.Errorf(lambda.EnvironmentGone, op, "the sandbox has been destroyed")
	}
	if !slices.Contains(allowed, c.state) {
		return nil, fmt.Errorf("%s: the sandbox is %s", op, c.state)
	}
	c.operations.Add(1)
	return c.operations.Done, nil
}

// ID returns the name of the sandbox.
func (c *cell) ID() string { return c.id }

// RuntimeAPI returns the listener for RuntimeAPIAddress.
func (c *cell) RuntimeAPI() net.Listener { return c.runtimeAPI }

// Services returns the listener for ServicesAddress.
func (c *cell) Services() net.Listener { return c.services }

// RuntimeAPIAddress returns the address inside.
func (c *cell) RuntimeAPIAddress() string { return runtimeAPIAddress.String() }

// ServicesAddress returns the address inside.
func (c *cell) ServicesAddress() string { return servicesAddress.String() }

// maxFreeze bounds Freeze where its context does not. Freezing takes some 40 µs unless a
// process waits for a disk.
const maxFreeze = 10 * time.Second

// Freeze stops everything inside.
func (c *cell) Freeze(ctx context.Context) error {
	end, err := c.begin("freeze", parked, attached)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, maxFreeze)
	defer cancel()
	return c.group.Freeze(ctx)
}

// Thaw lets it go on.
func (c *cell) Thaw(context.Context) error {
	end, err := c.begin("thaw", parked, attached)
	if err != nil {
		return err
	}
	defer end()
	return c.group.Thaw()
}

// MemoryPeak reads the counter of memory.
func (c *cell) MemoryPeak() (int64, error) {
	end, err := c.begin("read memory peak", parked, attached)
	if err != nil {
		return 0, err
	}
	defer end()
	return c.group.MemoryPeak()
}

// Usage reads the counters.
func (c *cell) Usage() (sandbox.Usage, error) {
	end, err := c.begin("read usage", parked, attached)
	if err != nil {
		return sandbox.Usage{}, err
	}
	defer end()
	u, err := c.group.Usage()
	return sandbox.Usage(u), err
}
