// Package service runs a private Cloister for the demo, the tests and the benchmarks: on a free
// port, with a data directory of its own, through the same binary and the same clients that
// users have.
//
// It is not part of the product and nothing of the product imports it.
package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Config of a Service.
type Config struct {
	Binary    string    // path of cloister
	Data      string    // data directory; empty makes a temporary one that Close removes
	Isolation string    // empty means native
	Clients   string    // folder of the Python environment with aws and boto3; empty if not used
	Log       io.Writer // the daemon's log; nil discards it
	Arguments []string  // more flags for serve
}

// Service is a running Cloister.
type Service struct {
	Endpoint  string // https://HOST:PORT
	Isolation string // level in force
	Data      string
	ID        string   // of the installation: on every host resource
	Environ   []string // environment for clients, without any other AWS setting

	config    Config
	temporary bool
	command   *exec.Cmd
	exited    chan error
}

// Start runs "cloister serve" and waits for its ready line, a minute at most.
func Start(ctx context.Context, c Config) (*Service, error) {
	s := &Service{config: c, Data: c.Data, exited: make(chan error, 1)}
	if s.Data == "" {
		directory, err := os.MkdirTemp("", "cloister-")
		if err != nil {
			return nil, err
		}
		s.Data, s.temporary = directory, true
	}
	if err := s.start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Service) start(ctx context.Context) error {
	isolation := s.config.Isolation
	if isolation == "" {
		isolation = "native"
	}
	args := append([]string{"serve", "--data", s.Data, "--listen", "127.0.0.1:0", "--isolation", isolation}, s.config.Arguments...)
	s.command = exec.Command(s.config.Binary, args...)
	s.command.Stderr = s.config.Log
	out, err := s.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.command.Start(); err != nil {
		s.command = nil
		return err
	}
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		text, _ := r.ReadString('\n')
		line <- text
		io.Copy(io.Discard, r)
		s.exited <- s.command.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	select {
	case text := <-line:
		if err := s.ready(text); err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("cloister serve did not get ready: %w", ctx.Err())
	}
	id, err := os.ReadFile(filepath.Join(s.Data, "id"))
	if err != nil {
		return err
	}
	s.ID = strings.TrimSpace(string(id))
	return s.readEnvironment(ctx)
}

// ready reads "ready https://HOST:PORT isolation=LEVEL".
func (s *Service) ready(line string) error {
	words := strings.Fields(line)
	if len(words) != 3 || words[0] != "ready" {
		return fmt.Errorf("cloister serve printed %q instead of its ready line", line)
	}
	s.Endpoint = words[1]
	s.Isolation = strings.TrimPrefix(words[2], "isolation=")
	return nil
}

// readEnvironment takes the export lines of "cloister env" the way a shell does.
func (s *Service) readEnvironment(ctx context.Context) error {
	exports, err := exec.CommandContext(ctx, s.config.Binary, "env", "--data", s.Data).Output()
	if err != nil {
		return fmt.Errorf("cloister env: %w", err)
	}
	shell := exec.CommandContext(ctx, "sh", "-c", string(exports)+"\nexec env")
	shell.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Data, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_PAGER=", "PYTHONWARNINGS=ignore"}
	out, err := shell.Output()
	if err != nil {
		return fmt.Errorf("evaluate the lines of cloister env: %w", err)
	}
	s.Environ = strings.Split(strings.TrimSpace(string(out)), "\n")
	return nil
}

// Getenv returns a variable of the clients' environment.
func (s *Service) Getenv(name string) string {
	for _, v := range s.Environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// AWS runs the aws CLI and returns what it printed on standard output. An error holds what it
// printed on standard error.
func (s *Service) AWS(ctx context.Context, args ...string) (string, error) {
	return s.Client(ctx, "aws", args...)
}

// Client runs a program of the clients' folder.
func (s *Service) Client(ctx context.Context, program string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, filepath.Join(s.config.Clients, "bin", program), args...)
	c.Env = s.Environ
	var problem strings.Builder
	c.Stderr = &problem
	out, err := c.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return string(out), nil
}

// Stop ends the service with SIGTERM and reports an exit status other than 0.
func (s *Service) Stop() error {
	if s.command == nil {
		return nil
	}
	s.command.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		s.command = nil
		return err
	case <-time.After(time.Minute):
		s.Kill()
		return errors.New("cloister serve did not end within a minute of SIGTERM")
	}
}

// Kill ends the service's first process with SIGKILL, as a crash would.
func (s *Service) Kill() {
	if s.command != nil {
		s.command.Process.Kill()
		<-s.exited
		s.command = nil
	}
}

// PID is that of the service's first process.
func (s *Service) PID() int { return s.command.Process.Pid }

// Restart starts the service again on the same data directory.
func (s *Service) Restart(ctx context.Context) error { return s.start(ctx) }

// Close stops the service and removes a temporary data directory.
func (s *Service) Close() error {
	err := s.Stop()
	if s.temporary {
		err = errors.Join(err, os.RemoveAll(s.Data))
	}
	return err
}

// Doctor returns what "cloister doctor --json" prints.
func (s *Service) Doctor(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, s.config.Binary, "doctor", "--json").Output()
	return string(out), err
}
