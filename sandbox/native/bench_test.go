package native

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"cloister/sandbox"
	"cloister/sandbox/sandboxtest"
)

// BenchmarkColdStart takes a Go program from nothing to its first connection in three ways, in turn:
// plain fork and exec, from a parked sandbox, and with nothing prepared. The ratios of medians
// are the result; the times depend on the machine.
func BenchmarkColdStart(b *testing.B) {
	backend, images := newBackend(b), sandboxtest.Build(b)
	binary := buildProbe(b)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	var plain, attached, parked, unparked, park, restart, destroy []time.Duration
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	ctx := context.Background()
	process := sandbox.Process{Path: "/probe", Args: []string{"/probe", "count", runtimeAPIAddress.String()}, Stdout: null, Stderr: null}
	first := func(l net.Listener) {
		conn, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	backend.images.maxIdle = 1 << 30 // as a worker does
	for b.Loop() {
		begin := time.Now()
		c := exec.Command(binary, "count", listener.Addr().String())
		check(c.Start())
		first(listener)
		plain = append(plain, time.Since(begin))
		c.Process.Kill()
		c.Wait()

		begin = time.Now()
		s, err := backend.Park(ctx, images.Class)
		check(err)
		park = append(park, time.Since(begin))
		time.Sleep(20 * time.Millisecond) // what Park leaves for the kernel to tidy is not part of the start
		begin = time.Now()
		check(s.Attach(ctx, images.Code, sandboxtest.Limits))
		attached = append(attached, time.Since(begin))
		_, err = s.Start(ctx, process)
		check(err)
		first(s.RuntimeAPI())
		parked = append(parked, time.Since(begin))
		check(s.KillAll(ctx))
		begin = time.Now()
		_, err = s.Start(ctx, process)
		check(err)
		first(s.RuntimeAPI())
		restart = append(restart, time.Since(begin))
		begin = time.Now()
		check(s.Destroy(ctx))
		destroy = append(destroy, time.Since(begin))

		begin = time.Now()
		s, err = backend.Park(ctx, images.Class)
		check(err)
		check(s.Attach(ctx, images.Code, sandboxtest.Limits))
		_, err = s.Start(ctx, process)
		check(err)
		first(s.RuntimeAPI())
		unparked = append(unparked, time.Since(begin))
		check(s.Destroy(ctx))
	}
	for name, d := range map[string][]time.Duration{
		"plain": plain, "attach": attached, "parked": parked, "unparked": unparked, "park": park, "restart": restart, "destroy": destroy,
	} {
		b.ReportMetric(milliseconds(median(d)), name+"-ms")
		b.ReportMetric(milliseconds(slices.Min(d)), name+"-min-ms")
	}
	b.ReportMetric(float64(median(parked))/float64(median(plain)), "parked/plain")
	b.ReportMetric(float64(median(unparked))/float64(median(plain)), "unparked/plain")
	b.ReportMetric(0, "ns/op") // the sum of all the above says nothing
}

func median(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// buildProbe builds the probe to be run without a sandbox.
func buildProbe(b *testing.B) string {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "probe")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "cloister/sandbox/sandboxtest/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// BenchmarkParkedMemory reports what one parked sandbox takes of the whole machine's memory.
func BenchmarkParkedMemory(b *testing.B) {
	const many = 200
	backend, images := newBackend(b), sandboxtest.Build(b)
	ctx := context.Background()
	var perSandbox []float64
	for b.Loop() {
		before := available(b)
		var all []sandbox.Sandbox
		for range many {
			s, err := backend.Park(ctx, images.Class)
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, s)
		}
		perSandbox = append(perSandbox, float64(before-available(b))/many)
		for _, s := range all {
			if err := s.Destroy(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(slices.Sorted(slices.Values(perSandbox))[len(perSandbox)/2], "KiB/sandbox")
}

func available(b *testing.B) int {
	b.Helper()
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(info, []byte("MemAvailable:"))
	n, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkFreezeAndThaw is what an idle environment costs around each invocation.
func BenchmarkFreezeAndThaw(b *testing.B) {
	backend, images := newBackend(b), sandboxtest.Build(b)
	c := attachCell(b, backend, images)
	sandboxtest.Start(b, c, "serve").Line(b)
	for b.Loop() {
		if err := c.Freeze(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := c.Thaw(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
