package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Returning memory costs a collection, and the next calls fetch their pages again: it is done once after a busy time.
const (
	quietInterval = 10 * time.Second
	quietBytes    = 1 << 20 // allocated in an interval: some tens of calls
)

// returnMemory gives memory that a busy time has needed back to the host as soon as the process has been quiet for
// an interval. Left to itself Go takes minutes, and collects no garbage before them. It returns when ctx ends.
func returnMemory(ctx context.Context, interval time.Duration) {
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(allocated)
	before, busy := allocated[0].Value.Uint64(), true
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(allocated)
		now := allocated[0].Value.Uint64()
		quiet := now-before < quietBytes
		if quiet && busy {
			debug.FreeOSMemory()
		}
		before, busy = now, !quiet
	}
}
