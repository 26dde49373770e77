// Command cloister is the one binary of Cloister: the service with its processes, and what an
// operator needs beside it. The aws CLI and every AWS SDK are the clients.
//
// It wires packages together and holds no rules of its own: which neighbour serves which
// interface is decided here and nowhere else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker (make build).
var version = "development"

// program is the command line. Its methods are the commands.
type program struct {
	Serve   serveCommand   `cmd:"" help:"Run the service until SIGTERM."`
	Env     envCommand     `cmd:"" help:"Print export lines with which the aws CLI and the SDKs reach a running service."`
	Doctor  doctorCommand  `cmd:"" help:"Check what this host can do and how to get what it lacks."`
	Version versionCommand `cmd:"" help:"Print the version."`

	Front  frontCommand  `cmd:"" hidden:"" help:"The unprivileged process that serve starts."`
	Worker workerCommand `cmd:"" hidden:"" help:"The privileged process that serve starts."`
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(out io.Writer) error {
	_, err := fmt.Fprintln(out, "cloister", version)
	return err
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the process: exit status 0, 1 for a command that failed, 2 for wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	status := -1
	parser, err := kong.New(new(program),
		kong.Name("cloister"),
		kong.Description("A self-hosted function service that speaks the AWS Lambda API."),
		kong.UsageOnError(),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { status = code }), // --help
	)
	if err != nil {
		fmt.Fprintln(stderr, "cloister:", err)
		return 2
	}
	command, err := parser.Parse(args)
	if status >= 0 {
		return status
	}
	if err != nil {
		fmt.Fprintf(stderr, "cloister: %v\nRun \"cloister --help\" for the commands and their flags.\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command.BindTo(ctx, (*context.Context)(nil))
	command.BindTo(stdout, (*io.Writer)(nil))
	if err := command.Run(); errors.Is(err, errReported) {
		return 1
	} else if err != nil {
		fmt.Fprintln(stderr, "cloister:", err)
		return 1
	}
	return 0
}
