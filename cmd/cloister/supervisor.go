package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cloister/internal/cgroup"
	"cloister/internal/channel"
)

// Patience with processes.
const (
	endPatience    = 10 * time.Second // of a front, after it has drained
	workerPatience = 15 * time.Second // of a worker, which is asked when no call is left
	startPatience  = 2 * time.Minute
)

// frontConfig is the configuration of the front process.
type frontConfig struct {
	Credential   channel.Credential
	Directory    string // of its state, as it is visible to the front
	WorkerSocket string
	Host         string // that clients use, for the certificate
	Region       string
	Drain        time.Duration
	Verbose      bool
}

// frontReport is sent once the front has its keys, and again when it answers.
type frontReport struct {
	CA, TrustStore []byte `json:",omitempty"`
	Ready          bool
}

// workerConfig is the configuration of the worker process.
type workerConfig struct {
	Credential       channel.Credential
	Installation     string
	Directory        string
	FrontSocket      string
	FirstUID, UIDs   int
	Region           string
	CA               []byte
	Isolation        string
	MinimumIsolation string
	Verbose          bool
}

// workerReport is sent once the worker can make environments.
type workerReport struct{ Isolation string }

// supervisor owns what outlives a restart of front or worker: the listeners, so that no client is
// refused meanwhile, and the authority that gives each new process its certificate.
type supervisor struct {
	command   *serveCommand
	in        *installation
	logger    *slog.Logger
	authority *channel.Authority
	reserve   *cgroup.Reserve // of CPU time, for front and worker

	clients, fromWorkers, fromFront *os.File // listening sockets
	port                            int
	front, worker                   *child // each owned by its keeper while supervise runs
	ca, trustStore                  []byte
	isolation                       string
}

func (s *supervisor) open() error {
	err := s.in.awaitOrphans()
	if err != nil {
		return err
	}
	if s.authority, err = channel.NewAuthority(s.in.id); err != nil {
		return err
	}
	if s.reserve, err = cgroup.OpenReserve(cgroup.Config{Name: "cloister-" + s.in.id + "-service"}); err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.command.Listen)
	if err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	defer l.Close()
	s.port = l.Addr().(*net.TCPAddr).Port
	if s.clients, err = l.(*net.TCPListener).File(); err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	if s.fromWorkers, err = s.in.listenUnix("front", 0); err != nil {
		return err
	}
	s.fromFront, err = s.in.listenUnix("worker", s.in.uid)
	return err
}

func (s *supervisor) close() {
	if s.front != nil {
		s.front.stop(s.command.Drain + endPatience)
	}
	if s.worker != nil {
		s.worker.stop(workerPatience)
	}
	if s.reserve != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endPatience)
		defer cancel()
		if err := s.reserve.Close(ctx); err != nil {
			s.logger.Error(err.Error())
		}
	}
	for _, f := range []*os.File{s.clients, s.fromWorkers, s.fromFront} {
		if f != nil {
			f.Close()
		}
	}
}

// startBoth starts the front up to where its keys exist, then the worker, which needs the public
// one, and waits until the front has the worker and answers.
func (s *supervisor) startBoth(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if s.front, err = s.startFront(ctx); err != nil {
		return err
	}
	if s.worker, err = s.startWorker(ctx); err != nil {
		return err
	}
	return receiveReport(ctx, s.front, new(frontReport))
}

// startFront returns a front that has its keys. It answers clients, and says so in another report, when
// it has found the worker.
func (s *supervisor) startFront(ctx context.Context) (*child, error) {
	credential, err := s.authority.Issue(channel.Front)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(s.command.Listen)
	visible := filepath.Join(s.in.run, "front")
	config := frontConfig{
		Credential:   credential,
		Directory:    visible,
		WorkerSocket: s.in.socket("worker"),
		Host:         clientHost(host),
		Region:       s.command.Region,
		Drain:        s.command.Drain,
		Verbose:      s.command.Verbose,
	}
	id := uint32(s.in.uid)
	front, err := spawn("front", config,
		func() error { return errors.Join(s.reserve.Enter(), enterFrontView(s.in.state(), visible)) },
		&syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: id, Gid: id}},
		s.clients, s.fromWorkers)
	if errors.Is(err, syscall.EACCES) {
		return nil, fmt.Errorf("%w: the front's unprivileged user must be able to execute this program: give its file mode 755", err)
	}
	if err != nil {
		return nil, err
	}
	var report frontReport
	if err := receiveReport(ctx, front, &report); err != nil {
		front.stop(0)
		return nil, err
	}
	s.ca, s.trustStore = report.CA, report.TrustStore
	return front, nil
}

// startWorker returns a worker that has chosen its isolation.
func (s *supervisor) startWorker(ctx context.Context) (*child, error) {
	credential, err := s.authority.Issue(channel.Worker)
	if err != nil {
		return nil, err
	}
	config := workerConfig{
		Credential:       credential,
		Installation:     s.in.id,
		Directory:        s.in.path("worker"),
		FrontSocket:      s.in.socket("front"),
		FirstUID:         s.in.uid + 1,
		UIDs:             uidsPerSlot - 1,
		Region:           s.command.Region,
		CA:               s.ca,
		Isolation:        s.command.Isolation,
		MinimumIsolation: s.command.minimum(),
		Verbose:          s.command.Verbose,
	}
	worker, err := spawn("worker", config, s.reserve.Enter, &syscall.SysProcAttr{Setpgid: true}, s.fromFront)
	if err != nil {
		return nil, err
	}
	var report workerReport
	if err := receiveReport(ctx, worker, &report); err != nil {
		worker.stop(0)
		return nil, err
	}
	s.isolation = report.Isolation
	return worker, nil
}

// supervise restarts a process that dies, until ctx ends. The two are kept apart: a front that waits for
// a worker must not keep the worker from being started.
func (s *supervisor) supervise(ctx context.Context) error {
	var keepers sync.WaitGroup
	keepers.Go(func() { s.keep(ctx, &s.front, s.startFront) })
	keepers.Go(func() { s.keep(ctx, &s.worker, s.startWorker) })
	<-ctx.Done()
	s.logger.Info("draining", "patience", s.command.Drain)
	s.clients.Close() // the front has its own: when that closes, new clients are refused and not kept waiting
	keepers.Wait()
	return nil // close stops the front, and then the worker, which running calls need
}

// keep restarts one process whenever it has ended, as often as pacing allows.
func (s *supervisor) keep(ctx context.Context, current **child, start func(context.Context) (*child, error)) {
	var restarts pacing
	for {
		c := *current
		go s.logReports(c)
		select {
		case <-ctx.Done():
			return
		case <-c.exited:
		}
		s.logger.Error("process ended, starting another", "name", c.name, "state", c.state.String())
		c.stop(0)
		for *current == c {
			select {
			case <-time.After(restarts.next(time.Now())):
			case <-ctx.Done():
				return
			}
			limit, cancel := context.WithTimeout(ctx, startPatience)
			next, err := start(limit)
			cancel()
			if err == nil {
				*current = next
			} else if ctx.Err() == nil {
				s.logger.Error("process not started", "name", c.name, "error", err)
			}
		}
	}
}

// Bounds of pacing: clients that try again have given up before a pause of seconds is over, so there is
// none until a process has ended again and again.
const (
	restartsAtOnce  = 30
	restartInterval = time.Second // between those that follow
)

// pacing bounds how often a process is started: at once, unless it has just ended many times.
type pacing struct {
	due time.Time // when all starts so far would have been due if each had waited for its interval
}

// next returns how long to wait before the start that is wanted now.
func (p *pacing) next(now time.Time) time.Duration {
	if p.due.Before(now) {
		p.due = now
	}
	pause := max(p.due.Sub(now)-(restartsAtOnce-1)*restartInterval, 0)
	p.due = p.due.Add(restartInterval)
	return pause
}

// logReports logs what a process reports after its start: why it ended.
func (s *supervisor) logReports(c *child) {
	for {
		var report failureReport
		if err := c.reports.Decode(&report); err != nil {
			return
		}
		if report.Error != "" {
			s.logger.Error("process failed", "name", c.name, "error", report.Error)
		}
	}
}
