package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cloister/internal/durable"
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
	defer s.close()
	if err := s.open(); err != nil {
		return err
	}
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

// publish writes what clients need where everybody may read it.
func (s *supervisor) publish(endpoint string) error {
	return errors.Join(
		durable.WriteFile(s.in.path("ca.pem"), s.ca, 0o644),
		durable.WriteFile(s.in.path("ca.p12"), s.trustStore, 0o644),
		durable.WriteFile(s.in.path("endpoint"), []byte(strings.Join([]string{endpoint, s.command.Region, ""}, "\n")), 0o644),
	)
}
