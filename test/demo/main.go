// Command demo is "make demo": it starts a private Cloister, deploys Python, Node.js and Go
// functions with the aws CLI, invokes them, shows answers and REPORT lines, and leaves nothing
// behind. It prints every command that it runs for the reader, so that they can repeat it.
//
// It is run by the Makefile as root; it is no part of the product.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cloister/test/service"
)

func main() {
	binary := flag.String("binary", "bin/cloister", "the cloister binary")
	aws := flag.String("aws", ".cache/clients/bin/aws", "the aws CLI")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := run(ctx, *binary, filepath.Dir(filepath.Dir(*aws))); err != nil {
		fmt.Fprintln(os.Stderr, "demo: failed:", err)
		os.Exit(1)
	}
	fmt.Println("demo: ok")
}

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// demo is one run.
type demo struct {
	*service.Service
	folder string // for packages and answers, removed at the end
	role   string // ARN
}

func run(ctx context.Context, binary, clients string) (err error) {
	folder, err := os.MkdirTemp("", "cloister-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	log, err := os.Create(filepath.Join(folder, "serve.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if clients, err = filepath.Abs(clients); err != nil {
		return err
	}
	done := step("Starting a private server (cloister serve --isolation native)")
	s, err := service.Start(ctx, service.Config{Binary: binary, Clients: clients, Log: log})
	if err != nil {
		return errors.Join(err, showLog(log.Name()))
	}
	done()
	fmt.Printf("  %s, isolation level in force: %s\n", s.Endpoint, s.Isolation)
	d := &demo{Service: s, folder: folder}
	err = d.tour(ctx, binary)
	if err != nil {
		err = errors.Join(err, showLog(log.Name()))
	}
	done = step("Stopping it")
	if stopped := s.Close(); stopped != nil {
		return errors.Join(err, stopped)
	}
	done()
	return err
}

// tour shows one feature after the other.
func (d *demo) tour(ctx context.Context, binary string) error {
	functions, err := functionsFor(ctx, binary)
	if err != nil {
		return err
	}
	if err := d.makeRole(ctx); err != nil {
		return err
	}
	for _, f := range functions {
		if err := d.deploy(ctx, f); err != nil {
			return err
		}
	}
	fmt.Println("\nThe same environment again, warm:")
	if err := d.invoke(ctx, functions[0].name, `{"name":"again"}`); err != nil {
		return err
	}
	if err := d.refusal(ctx); err != nil {
		return err
	}
	fmt.Println("\nWhat the first function logged:")
	_, err = d.show(ctx, "logs", "filter-log-events", "--log-group-name", "/aws/lambda/"+functions[0].name, "--query", "events[].message", "--output", "text")
	return err
}

type function struct {
	name, runtime, handler string
	pack                   func(context.Context) ([]byte, error)
}

// functionsFor chooses the runtimes that this host has.
func functionsFor(ctx context.Context, binary string) ([]function, error) {
	out, err := exec.CommandContext(ctx, binary, "doctor", "--json").Output()
	if err != nil {
		return nil, fmt.Errorf("cloister doctor: %w: %s", err, out)
	}
	var doctor struct{ Runtimes []string }
	if err := json.Unmarshal(out, &doctor); err != nil {
		return nil, err
	}
	first := func(prefix string) string {
		for _, r := range doctor.Runtimes {
			if strings.HasPrefix(r, prefix) {
				return r
			}
		}
		return ""
	}
	folder := func(path string) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { return service.ZipFolder(path) }
	}
	all := []function{
		{"hello-python", first("python"), "app.handler", folder("test/functions/python")},
		{"hello-node", first("nodejs"), "index.handler", folder("test/functions/node")},
		{"hello-go", "provided.al2023", "bootstrap", func(ctx context.Context) ([]byte, error) {
			return service.BuildGo(ctx, "./test/functions/golang")
		}},
	}
	for _, f := range all {
		if f.runtime == "" {
			return nil, fmt.Errorf("no runtime for %s on this host: cloister doctor shows which there are", f.name)
		}
	}
	return all, nil
}

func (d *demo) makeRole(ctx context.Context) error {
	fmt.Println("\nAn execution role that Lambda may assume:")
	out, err := d.show(ctx, "iam", "create-role", "--role-name", "demo", "--assume-role-policy-document", trust, "--query", "Role.Arn", "--output", "text")
	d.role = strings.TrimSpace(out)
	return err
}

func (d *demo) deploy(ctx context.Context, f function) error {
	fmt.Printf("\n%s:\n", f.runtime)
	done := step("Packing " + f.name)
	b, err := f.pack(ctx)
	if err != nil {
		return err
	}
	done()
	zip := filepath.Join(d.folder, f.name+".zip")
	if err := os.WriteFile(zip, b, 0o600); err != nil {
		return err
	}
	if _, err := d.show(ctx, "lambda", "create-function", "--function-name", f.name, "--runtime", f.runtime, "--handler", f.handler,
		"--role", d.role, "--memory-size", "512", "--timeout", "10", "--zip-file", "fileb://"+zip, "--query", "State", "--output", "text"); err != nil {
		return err
	}
	if _, err := d.show(ctx, "lambda", "wait", "function-active-v2", "--function-name", f.name); err != nil {
		return err
	}
	return d.invoke(ctx, f.name, `{"name":"cloister"}`)
}

// invoke prints the function's answer and the REPORT line of its log.
func (d *demo) invoke(ctx context.Context, name, event string) error {
	answer := filepath.Join(d.folder, "answer.json")
	out, err := d.show(ctx, "lambda", "invoke", "--function-name", name, "--payload", event,
		"--log-type", "Tail", "--query", "[LogResult, FunctionError]", "--output", "text", answer)
	if err != nil {
		return err
	}
	body, err := os.ReadFile(answer)
	if err != nil {
		return err
	}
	fmt.Printf("  %s\n", body)
	fields := strings.Fields(out)
	if len(fields) != 2 || fields[1] != "None" {
		return fmt.Errorf("%s answered with an error: %s", name, out)
	}
	log, err := base64.StdEncoding.DecodeString(fields[0])
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(log)) {
		if strings.HasPrefix(line, "REPORT") {
			fmt.Printf("  %s\n", strings.TrimSpace(strings.ReplaceAll(line, "\t", "  ")))
			return nil
		}
	}
	return fmt.Errorf("no REPORT line in the log of %s: %s", name, log)
}

// refusal shows that security has no off switch: the same call without a valid key.
func (d *demo) refusal(ctx context.Context) error {
	fmt.Println("\nThe same call with a wrong secret key:")
	fmt.Println("  $ AWS_SECRET_ACCESS_KEY=wrong aws lambda list-functions")
	environ := d.Environ
	d.Environ = append(append([]string{}, environ...), "AWS_SECRET_ACCESS_KEY=wrong")
	_, err := d.AWS(ctx, "lambda", "list-functions")
	d.Environ = environ
	if err == nil {
		return errors.New("a call with a wrong key was served")
	}
	_, text, _ := strings.Cut(err.Error(), "An error occurred")
	fmt.Printf("  refused: %s\n", strings.TrimSpace(text))
	return nil
}

// show runs the aws CLI in front of the reader.
func (d *demo) show(ctx context.Context, args ...string) (string, error) {
	quoted := make([]string, len(args))
	for i, a := range args {
		if quoted[i] = a; strings.ContainsAny(a, " {}[]\"$") {
			quoted[i] = "'" + a + "'"
		}
	}
	fmt.Println("  $ aws", strings.Join(quoted, " "))
	done := dots("  ")
	out, err := d.AWS(ctx, args...)
	done()
	if text := strings.TrimSpace(out); text != "" && !strings.Contains(strings.Join(args, " "), "LogResult") {
		fmt.Println("  " + strings.ReplaceAll(text, "\n", "\n  "))
	}
	return out, err
}

// step says what is going on, and goes on saying so if it takes more than a second.
func step(what string) (done func()) {
	fmt.Print(what)
	began, stop := time.Now(), dots(" ")
	return func() {
		stop()
		fmt.Printf(" %.1f s\n", time.Since(began).Seconds())
	}
}

// dots prints one for each second until it is stopped.
func dots(indent string) (stop func()) {
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		printed := false
		for {
			select {
			case <-time.After(time.Second):
				if !printed {
					fmt.Print(indent)
				}
				fmt.Print(".")
				printed = true
			case <-ended:
				if printed && indent != " " {
					fmt.Println()
				}
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-stopped
	}
}

func showLog(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return fmt.Errorf("the server's log:\n%s", b)
}
