package runtimes

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// serve answers a bootstrap over a raw listener with as little as possible: the time that
// is left is the bootstrap's. It returns after n events.
func serve(b *testing.B, l net.Listener, n int) {
	c, err := l.Accept()
	if err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for i := 0; i < 2*n; i++ {
		q, err := http.ReadRequest(r)
		if err != nil {
			b.Error(err)
			return
		}
		io.Copy(io.Discard, q.Body)
		if q.Method == "GET" {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: %s0\r\nLambda-Runtime-Deadline-Ms: 1999999999999\r\nLambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:f\r\nLambda-Runtime-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1\r\nContent-Length: 11\r\n\r\n{\"key\":\"v\"}", requestID)
		} else {
			io.WriteString(c, "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"status\":\"OK\"}\n")
		}
	}
}

func start(b *testing.B, command []string, file, code string) (*exec.Cmd, net.Listener) {
	b.Helper()
	root := b.TempDir()
	if err := os.WriteFile(filepath.Join(root, file), []byte(code), 0o644); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	process := exec.Command(command[0], command[1:]...)
	process.Dir = root
	process.Env = []string{"AWS_LAMBDA_RUNTIME_API=" + l.Addr().String(), "_HANDLER=app.handler", "LAMBDA_TASK_ROOT=" + root, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"}
	if err := process.Start(); err != nil {
		b.Fatal(err)
	}
	return process, l
}

// BenchmarkFirstAnswer is the time from the start of the process to its first answer;
// BenchmarkInvoke that of one event in a warm process.
func BenchmarkFirstAnswer(b *testing.B) { bench(b, false) }
func BenchmarkInvoke(b *testing.B)      { bench(b, true) }

func bench(b *testing.B, warm bool) {
	for _, c := range []struct {
		name       string
		command    []string
		file, code string
	}{
		{"Python", absolute(b, pythonCommand(b)), "app.py", "def handler(event, context): return event\n"},
		{"Node", absolute(b, []string{"node", "bootstrap/bootstrap.js"}), "app.js", "exports.handler = async (event) => event;\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			for i := 0; i < b.N; i++ {
				process, l := start(b, c.command, c.file, c.code)
				if warm {
					serve(b, l, b.N)
					i = b.N
				} else {
					serve(b, l, 1)
				}
				process.Process.Kill()
				process.Wait()
			}
		})
	}
}
