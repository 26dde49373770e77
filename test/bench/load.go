package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// A target is a service under load: one request, sent again and again.
type target struct {
	name    string
	address string
	tls     *tls.Config
	request []byte
	event   string // that the answer must repeat
	pids    []int  // the service's own processes, without runtimes
}

// sample is one slice of load.
type sample struct {
	p50, p99 time.Duration
	rate     float64 // good answers per second
	failed   int
	cpu      time.Duration // of the service's processes for each answer
}

// load sends the request from so many callers, each on its own connection, one at a time.
func (t *target) load(callers int, length time.Duration) (sample, error) {
	var (
		mu     sync.Mutex
		all    []time.Duration
		errs   []error
		failed int
		group  sync.WaitGroup
	)
	before, err := cpuTime(t.pids)
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	for range callers {
		group.Go(func() {
			times, bad, err := t.caller(began.Add(length))
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, times...), failed+bad
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return sample{}, err
	}
	if len(all) == 0 {
		return sample{}, fmt.Errorf("%s gave no answer in %s", t.name, length)
	}
	after, err := cpuTime(t.pids)
	if err != nil {
		return sample{}, err
	}
	slices.Sort(all)
	return sample{
		cpu:    (after - before) / time.Duration(len(all)+failed),
		p50:    all[len(all)/2],
		p99:    all[len(all)*99/100],
		rate:   float64(len(all)) / time.Since(began).Seconds(),
		failed: failed,
	}, nil
}

func (t *target) caller(until time.Time) (times []time.Duration, failed int, err error) {
	conn, err := tls.Dial("tcp", t.address, t.tls)
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		sent := time.Now()
		if !sent.Before(until) {
			return times, failed, nil
		}
		if _, err := conn.Write(t.request); err != nil {
			return times, failed, err
		}
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			return times, failed, err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return times, failed, err
		}
		if response.StatusCode != http.StatusOK || string(body) != t.event {
			if failed++; failed == 1 {
				fmt.Fprintf(os.Stderr, "%s answered %s: %.200s\n", t.name, response.Status, body)
			}
			continue
		}
		times = append(times, time.Since(sent))
	}
}
