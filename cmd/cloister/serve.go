package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cloister/internal/channel"
	"cloister/internal/durable"
)

// Patience with processes.
const (
	endPatience    = 10 * time.Second // of a front, after it has drained
	workerPatience = 15 * time.Second // of a worker, which is asked when no call is left
	startPatience  = 2 * time.Minute
)

// standardMinimum is the isolation below which nothing is used unless it was named.
const standardMinimum = "gvisor"

type serveCommand struct {
	Data             string        `required:"" type:"path" placeholder:"DIR" help:"Data directory; made if it does not exist."`
	Listen           string        `default:"127.0.0.1:8443" placeholder:"HOST:PORT" help:"Address for clients; port 0 takes a free one (${default})."`
	Isolation        string        `default:"auto" enum:"auto,microvm,gvisor,native" help:"How environments are closed off: auto, microvm, gvisor or native (${default})."`
	MinimumIsolation string        `name:"minimum-isolation" default:"" enum:",microvm,gvisor,native" help:"Refuse to start below this level; gvisor unless --isolation names a weaker one."`
	Region           string        `default:"us-east-1" help:"Region of the installation (${default})."`
	Drain            time.Duration `default:"60s" help:"How long running calls may take to end after SIGTERM (${default})."`
	Verbose          bool          `help:"Log every call."`
}

// frontOrder is the configuration of the front process.
type frontOrder struct {
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

// workerOrder is the configuration of the worker process.
type workerOrder struct {
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

// Run starts both processes, says when they answer, restarts one that dies, and drains on ctx.
func (c *serveCommand) Run(ctx context.Context, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("serve must run as root: it makes namespaces, cgroups and mounts. Its front drops to an unprivileged user by itself")
	}
	unix.Umask(0o022) // whatever the caller's is: the front must pass through what is made here
	if err := hardenProcess(); err != nil {
		return err
	}
	in, err := openInstallation(c.Data)
	if err != nil {
		return err
	}
	defer in.close()
	s := &supervisor{command: c, in: in, logger: newLogger(c.Verbose).With("process", "serve")}
	if err := s.open(); err != nil {
		return err
	}
	defer s.close()
	if err := s.startBoth(ctx); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(c.Listen)
	endpoint := "https://" + net.JoinHostPort(clientHost(host), fmt.Sprint(s.port))
	if err := s.publish(endpoint); err != nil {
		return err
	}
	fmt.Fprintf(out, "ready %s isolation=%s\n", endpoint, s.isolation)
	return s.supervise(ctx)
}

// clientHost is the name under which a client on this machine reaches a listen host.
func clientHost(listen string) string {
	switch listen {
	case "", "0.0.0.0":
		return "127.0.0.1"
	case "::":
		return "::1"
	}
	return listen
}

// newLogger writes the daemon's own log to standard error.
func newLogger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// supervisor owns what outlives a restart of front or worker: the listeners, so that no client is
// refused meanwhile, and the authority that gives each new process its certificate.
type supervisor struct {
	command   *serveCommand
	in        *installation
	logger    *slog.Logger
	authority *channel.Authority

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
	order := frontOrder{
		Credential:   credential,
		Directory:    visible,
		WorkerSocket: s.in.socket("worker"),
		Host:         clientHost(host),
		Region:       s.command.Region,
		Drain:        s.command.Drain,
		Verbose:      s.command.Verbose,
	}
	id := uint32(s.in.uid)
	front, err := spawn("front", order,
		func() error { return enterFrontView(s.in.state(), visible) },
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

// enterFrontView gives the calling thread a mount namespace in which the state directory appears at a
// path that the front's user can reach, and takes from it every way back to privilege. The data
// directory itself may lie below a home directory of mode 0700.
func enterFrontView(state, visible string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(state, visible, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind state directory: %w", err)
	}
	if err := unix.Mount("", visible, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("bind state directory: %w", err)
	}
	for capability := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err == unix.EINVAL {
			break // the kernel knows no more
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return nil
}

// startWorker returns a worker that has chosen its isolation.
func (s *supervisor) startWorker(ctx context.Context) (*child, error) {
	credential, err := s.authority.Issue(channel.Worker)
	if err != nil {
		return nil, err
	}
	order := workerOrder{
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
	worker, err := spawn("worker", order, nil, &syscall.SysProcAttr{Setpgid: true}, s.fromFront)
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

// minimum is the lowest level that may be used. Whoever names a weaker backend has lowered it.
func (c *serveCommand) minimum() string {
	if c.MinimumIsolation != "" {
		return c.MinimumIsolation
	}
	if c.Isolation == "native" {
		return "native"
	}
	return standardMinimum
}

// receiveReport waits for the next report of a child.
func receiveReport[T any](ctx context.Context, c *child, report *T) error {
	failed := make(chan error, 1)
	go func() {
		var line json.RawMessage
		err := c.reports.Decode(&line)
		if err == nil {
			err = json.Unmarshal(line, report)
		}
		var problem failureReport
		if err == nil && json.Unmarshal(line, &problem) == nil && problem.Error != "" {
			err = errors.New(problem.Error)
		}
		failed <- err
	}()
	select {
	case err := <-failed:
		if errors.Is(err, io.EOF) {
			<-c.exited
			return fmt.Errorf("the %s process ended while starting: %v", c.name, c.state)
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("the %s process did not start: %w", c.name, context.Cause(ctx))
	}
}

// publish writes what clients need where everybody may read it.
func (s *supervisor) publish(endpoint string) error {
	return errors.Join(
		durable.WriteFile(s.in.path("ca.pem"), s.ca, 0o644),
		durable.WriteFile(s.in.path("ca.p12"), s.trustStore, 0o644),
		durable.WriteFile(s.in.path("endpoint"), []byte(strings.Join([]string{endpoint, s.command.Region, ""}, "\n")), 0o644),
	)
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
