package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cloister/internal/durable"
	"cloister/runtimes"
	"cloister/sandbox"
	"cloister/sandbox/native"
	"cloister/worker"
)

type workerCommand struct{}

// Run is the privileged process: it chooses the isolation, and makes environments for the front
// until it is asked to end.
func (workerCommand) Run(ctx context.Context) error { return runChild(ctx, runWorker) }

func runWorker(ctx context.Context, config workerConfig, report func(any) error) error {
	logger := newLogger(config.Verbose).With("process", "worker")
	backend, err := chooseBackend(ctx, config, logger)
	if err != nil {
		return err
	}
	defer backend.Close()
	catalog, err := runtimes.Open(runtimes.Config{Directory: filepath.Join(config.Directory, "runtimes"), CA: config.CA, Region: config.Region, Logger: logger})
	if err != nil {
		return err
	}
	upstream, err := worker.NewFront(dialer(config.FrontSocket), config.Credential, logger)
	if err != nil {
		return err
	}
	host, err := worker.New(worker.Config{Backend: backend, Runtimes: catalog, Upstream: upstream, Region: config.Region, Logger: logger})
	if err != nil {
		return err
	}
	server, err := worker.NewServer(host, config.Credential, logger)
	if err != nil {
		return err
	}
	l, err := inheritedListener(firstFD)
	if err != nil {
		return err
	}
	if err := report(workerReport{Isolation: backend.Level().String()}); err != nil {
		return fmt.Errorf("report to serve: %w", err)
	}
	// Log events are sent until after the last environment has ended.
	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	var sender sync.WaitGroup
	sender.Go(func() { upstream.Run(sending) })
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), workerPatience)
	defer cancel()
	host.Close(ending)
	stopSending()
	sender.Wait()
	l.Close()
	server.Close()
	return err
}

// idleImageBytes of images stay mounted when no sandbox uses them, in memory only: the next cold start of
// the same function or runtime finds them read already.
const idleImageBytes = 512 << 20

// backends lists the isolation technologies of this build, strongest first.
func backends(config workerConfig, logger *slog.Logger) []candidate {
	return []candidate{
		{sandbox.MicroVM, nil},
		{sandbox.GVisor, nil},
		{sandbox.Native, func() (sandbox.Backend, error) {
			directory := filepath.Join(config.Directory, "native")
			if err := durable.MakeDirectory(directory, 0o700); err != nil {
				return nil, err
			}
			return native.New(native.Config{
				Installation: config.Installation,
				Directory:    directory,
				FirstUID:     config.FirstUID,
				UIDs:         config.UIDs,
				Logger:       logger,

				IdleImageBytes: idleImageBytes,
			})
		}},
	}
}

// candidate is a backend that may be used; make is nil where this build has none.
type candidate struct {
	level sandbox.Level
	make  func() (sandbox.Backend, error)
}

// chooseBackend takes the strongest backend whose self-test really ran a program, and refuses
// anything below the minimum. It never falls back without having been told to.
func chooseBackend(ctx context.Context, config workerConfig, logger *slog.Logger) (sandbox.Backend, error) {
	var reasons []string
	for _, c := range backends(config, logger) {
		if config.Isolation != "auto" && config.Isolation != c.level.String() {
			continue
		}
		backend, err := c.open(ctx)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", c.level, err))
			continue
		}
		if standard := parseLevel(standardMinimum); c.level < standard {
			logger.Warn("isolation is below the standard minimum: environments share this host's kernel", "isolation", c.level.String(), "minimum", standard.String())
		}
		if minimum := parseLevel(config.MinimumIsolation); c.level < minimum {
			backend.Close()
			reasons = append(reasons, fmt.Sprintf("%s: usable, but below the minimum %s; --isolation %s accepts it", c.level, minimum, c.level))
			continue
		}
		return backend, nil
	}
	return nil, fmt.Errorf("no usable isolation of level %s or stronger:\n  %s", config.MinimumIsolation, strings.Join(reasons, "\n  "))
}

// open makes the backend, cleans up after an earlier process, and has it run its self-test.
func (c candidate) open(ctx context.Context) (sandbox.Backend, error) {
	if c.make == nil {
		return nil, errors.New("not part of this version of Cloister (docs/STATUS.md)")
	}
	backend, err := c.make()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err = backend.Sweep(ctx); err == nil {
		err = backend.SelfTest(ctx)
	}
	if err != nil {
		backend.Close()
		return nil, err
	}
	return backend, nil
}

func parseLevel(name string) sandbox.Level {
	for _, l := range []sandbox.Level{sandbox.Native, sandbox.GVisor, sandbox.MicroVM} {
		if l.String() == name {
			return l
		}
	}
	return sandbox.MicroVM // an unknown minimum fails closed
}
