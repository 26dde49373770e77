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

// garbageBytes may gather beside what is in use before it is collected.
const garbageBytes = 24 << 20

// collectLess makes collections of a small heap rarer, as long as what it returns is in use: the collector waits until as
// much is new as it found in use, and a few megabytes are new every few hundred calls. It counts an object that nobody
// ever touches and that so has no memory. A larger percentage would let a heap full of payloads grow as many times.
func collectLess() any {
	untouched := make([]byte, garbageBytes)
	return &untouched
}

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
