package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// released is what the heap has given back to the host.
func released() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestMemoryOfABusyTimeIsReturnedWhenItIsOver(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	const size = 64 << 20
	work := make([]byte, size)
	for i := range work { // a page that was never touched is the host's anyway
		work[i] = 1
	}
	runtime.KeepAlive(work)
	before := released()
	time.Sleep(50 * time.Millisecond)
	if now := released(); now > before+size/2 {
		t.Fatalf("%d bytes came back by themselves: the test shows nothing", now-before)
	}
	go returnMemory(t.Context(), time.Millisecond)
	for began := time.Now(); released() < before+size*3/4; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d bytes of %d were returned", released()-before, size)
		}
	}
}
