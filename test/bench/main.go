// Command bench is "make bench": it measures Cloister (native isolation, TLS, signatures, policies
// and logs on) against the floor in one interleaved run, and prints ratios of the same round. It
// judges nothing: absolute times belong to the machine, ratios are the result.
//
// It is run by the Makefile as root; it is no part of the product.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"cloister/test/service"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == floorCommand {
		if err := serveFloor(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: floor:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == neighbourCommand {
		if err := measureNeighbours(ctx, "bin/cloister", "", os.Args[2:]...); err != nil {
			fmt.Fprintln(os.Stderr, "bench: failed:", err)
			os.Exit(1)
		}
		return
	}
	binary := flag.String("binary", "bin/cloister", "the cloister binary")
	rounds := flag.Int("rounds", 9, "interleaved rounds")
	slice := flag.Duration("slice", 2*time.Second, "load per service and round")
	cold := flag.Int("cold", 20, "cold starts per runtime; 0 for none")
	callers := flag.String("callers", "1,16", "numbers of callers at once, each a table")
	harms := flag.Bool("neighbours", true, "measure what hostile functions do to a quiet one as well")
	write := flag.String("write", "", "file whose tables between the marker comments are replaced")
	flag.Parse()
	b := &bench{rounds: *rounds, slice: *slice, cold: *cold}
	err := json.Unmarshal([]byte("["+*callers+"]"), &b.callers)
	if err == nil {
		err = b.run(ctx, *binary)
	}
	if err == nil && *harms {
		err = measureNeighbours(ctx, *binary, *write)
	}
	if err == nil && *write != "" {
		err = replaceBetween(*write, tablesBegin, tablesEnd, b.report.String())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: failed:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	rounds  int
	slice   time.Duration
	cold    int
	callers []int
	report  bytes.Buffer // the tables

	service *service.Service
	log     *coldLog
	folder  string
}

func (b *bench) printf(format string, args ...any) {
	fmt.Printf(format, args...)
	fmt.Fprintf(&b.report, format, args...)
}

func (b *bench) run(ctx context.Context, binary string) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	if b.folder, err = os.MkdirTemp("", "cloister-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.folder)
	b.log = new(coldLog)
	fmt.Println("starting Cloister and preparing the functions …")
	if b.service, err = service.Start(ctx, service.Config{Binary: binary, Log: b.log}); err != nil {
		return err
	}
	defer b.service.Close()
	idle, err := b.idleMemory()
	if err != nil {
		return err
	}
	subjects, err := b.deploy(ctx)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.log.tail())
	}
	b.printf("Measured %s on %d CPUs with %s: %d rounds of %s each, one after the other in every round; ratios are medians of same-round ratios.\n\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), b.rounds, b.slice)
	b.printf("The idle service, without functions, takes %.1f MiB (PSS of its three processes).\n\n", idle)
	for _, callers := range b.callers {
		if err := b.warm(subjects, callers); err != nil {
			return err
		}
	}
	if b.cold > 0 {
		if err := b.coldStarts(ctx, subjects); err != nil {
			return err
		}
	}
	return b.memory(ctx, subjects)
}

// warm compares answers of warm environments, as many as callers.
func (b *bench) warm(subjects []*subject, callers int) error {
	b.printf("| warm, callers: %d | floor p50 µs | Cloister p50 µs | p50 ratio (min–max) | p99 ratio | calls/s ratio | service CPU µs a call: floor | Cloister | ratio | failed |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", callers)
	for _, s := range subjects {
		f, err := s.startFloor(b.folder, callers)
		if err != nil {
			return err
		}
		rows, err := b.interleave(f.target(), s.target, callers)
		f.close()
		if err != nil {
			return err
		}
		p50 := ratios(rows, func(x sample) float64 { return float64(x.p50) })
		p99 := ratios(rows, func(x sample) float64 { return float64(x.p99) })
		rate := ratios(rows, func(x sample) float64 { return x.rate })
		cpu := ratios(rows, func(x sample) float64 { return float64(x.cpu) })
		failed := 0
		for _, r := range rows {
			failed += r[1].failed
		}
		b.printf("| %s | %d | %d | **%.2f** (%.2f–%.2f) | %.2f | %.2f | %d | %d | %.2f | %d |\n", s.name,
			median(column(rows, 0, p50Of)).Microseconds(), median(column(rows, 1, p50Of)).Microseconds(), middle(p50), p50[0], p50[len(p50)-1], middle(p99), middle(rate),
			median(column(rows, 0, cpuOf)).Microseconds(), median(column(rows, 1, cpuOf)).Microseconds(), middle(cpu), failed)
	}
	b.printf("\n")
	return nil
}

// interleave loads floor and subject in turn.
func (b *bench) interleave(floor, subject *target, callers int) ([][2]sample, error) {
	var rows [][2]sample
	for i := range b.rounds + 1 {
		var row [2]sample
		for j, t := range []*target{floor, subject} {
			var err error
			if row[j], err = t.load(callers, b.slice); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
		}
		if i > 0 { // the first round warms both
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func ratios(rows [][2]sample, of func(sample) float64) []float64 {
	var all []float64
	for _, r := range rows {
		all = append(all, of(r[1])/of(r[0]))
	}
	slices.Sort(all)
	return all
}

func p50Of(s sample) time.Duration { return s.p50 }
func cpuOf(s sample) time.Duration { return s.cpu }

func column(rows [][2]sample, i int, of func(sample) time.Duration) []time.Duration {
	var all []time.Duration
	for _, r := range rows {
		all = append(all, of(r[i]))
	}
	return all
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

func middle(sorted []float64) float64 { return sorted[len(sorted)/2] }

// coldStarts compares making an environment up to the runtime's first poll with plain fork+exec of
// the same runtime up to the same point.
func (b *bench) coldStarts(ctx context.Context, subjects []*subject) error {
	b.printf("| cold start to first poll, parked sandbox | plain fork+exec ms (min/median) | Cloister ms (min/median) | ratio of medians | new code, fetched and unsealed first ms (min/median) |\n| --- | --- | --- | --- | --- |\n")
	for _, s := range subjects {
		var plain, ours, first []time.Duration
		for range b.cold {
			took, err := s.forkExec(b.folder)
			if err != nil {
				return err
			}
			plain = append(plain, took)
			if took, err = b.coldStart(ctx, s, false); err != nil {
				return err
			}
			ours = append(ours, took)
			if took, err = b.coldStart(ctx, s, true); err != nil {
				return err
			}
			first = append(first, took)
		}
		b.printf("| %s | %.1f / %.1f | %.1f / %.1f | **%.2f** | %.1f / %.1f |\n", s.name, ms(slices.Min(plain)), ms(median(plain)), ms(slices.Min(ours)), ms(median(ours)),
			float64(median(ours))/float64(median(plain)), ms(slices.Min(first)), ms(median(first)))
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

const (
	tablesBegin = "<!-- tables: make bench -->"
	tablesEnd   = "<!-- end of tables -->"
)
