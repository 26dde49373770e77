package native

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxDestroy bounds KillAll and Destroy where their context does not.
const maxDestroy = 30 * time.Second

// KillAll ends every process, but not the sandbox.
func (c *cell) KillAll(ctx context.Context) error {
	end, err := c.begin("kill all", parked, attached)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, maxDestroy)
	defer cancel()
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	processes := append([]*process(nil), c.processes...)
	c.mu.Unlock()
	if err := c.group.Kill(ctx); err != nil {
		return fmt.Errorf("kill all: %w", err)
	}
	if err := awaitAll(ctx, processes); err != nil {
		return fmt.Errorf("kill all: %w", err)
	}
	if waiting != nil {
		return waiting.abandon(ctx)
	}
	return nil
}

// awaitAll waits until the processes have ended and their exits are known.
func awaitAll(ctx context.Context, processes []*process) error {
	for _, p := range processes {
		select {
		case <-p.done:
		case <-ctx.Done():
			return fmt.Errorf("process %d has not ended: %w", p.child.pid, ctx.Err())
		}
	}
	return nil
}

// Destroy ends the sandbox. If it fails, for instance because ctx has ended, it may be called
// again and goes on where it stopped. Until it succeeds the user id is not used again.
func (c *cell) Destroy(ctx context.Context) error {
	c.destruction.Lock()
	defer c.destruction.Unlock()
	if c.gone {
		return nil
	}
	c.mu.Lock()
	c.state = destroyed
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, maxDestroy)
	defer cancel()
	if err := c.destroy(ctx); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", c.id, err)
	}
	c.gone = true
	c.backend.returnUID(c.uid)
	return nil
}

// destroy does every step that it can, also after one has failed, for each one frees something.
// Fields are nil where Park did not get so far.
func (c *cell) destroy(ctx context.Context) error {
	var failed []error
	try := func(err error) { failed = append(failed, err) }
	if c.runtimeAPI != nil {
		c.runtimeAPI.Close()
	}
	if c.services != nil {
		c.services.Close()
	}
	if c.keeper != nil {
		try(c.keeper.kill()) // the kernel then kills everything in its process namespace
	}
	if c.group != nil {
		try(c.group.Kill(ctx))
	}
	c.operations.Wait() // each is bounded, and most have just lost their process
	c.mu.Lock()
	waiting, processes := c.waiting, append([]*process(nil), c.processes...)
	c.mu.Unlock()
	if waiting != nil {
		try(waiting.abandon(ctx))
	}
	try(awaitAll(ctx, processes))
	if c.keeper != nil {
		try(c.keeper.abandon(ctx))
	}
	if c.group != nil {
		try(c.group.Remove(ctx))
	}
	if c.device != nil {
		c.device.Close()
		try(c.device.AwaitFree(ctx)) // it is free when the last mount of /tmp is gone
	}
	for len(c.images) > 0 {
		try(c.backend.images.release(c.images[0]))
		c.images = c.images[1:]
	}
	return errors.Join(failed...)
}
