// Command probe is the tenant in the tests of sandboxes: it does what its first argument says, as
// a customer's program would, and prints what came of it as one line of JSON.
//
// It is built by package sandboxtest when its tests run, and put into an image. It trusts nothing of
// what it finds and reports errors as text, for the tests to judge.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// commands by name. Each gets the rest of the arguments and returns what is to be printed.
var commands = map[string]func([]string) any{
	"identity": func([]string) any { return identity() },
	"list":     list,
	"write":    writeFile,
	"read":     readFile,
	"fill":     fill,
	"execute":  execute,
	"connect":  connect,
	"relay":    relay,
	"serve":    serve,
	"exit":     func(a []string) any { os.Exit(number(a[0])); return nil },
	"signal":   func(a []string) any { return fmt.Sprint(syscall.Kill(os.Getpid(), syscall.Signal(number(a[0])))) },
	"memory":   func(a []string) any { return allocate(number(a[0])) },
	"child":    child,
	"forks":    forks,
	"open":     openFiles,
	"count":    count,
	"daemon":   daemon,
	"orphans":  orphans,
	"kill":     func(a []string) any { return text(syscall.Kill(number(a[0]), syscall.SIGKILL)) },
	"spin":     func(a []string) any { return spin(number(a[0])) },
	"wait":     func([]string) any { time.Sleep(time.Hour); return nil },
	"refused":  func([]string) any { return refused() },
	"numbers":  numbers,
	"shared":   shared,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: probe COMMAND ARGS...")
		os.Exit(2)
	}
	if result := commands[os.Args[1]](os.Args[2:]); result != nil {
		json.NewEncoder(os.Stdout).Encode(result)
	}
}

// Identity is the answer to "identity".
type Identity struct {
	UID, GID, PID        int
	Groups               []int
	Arguments, Variables []string
	Directory, Host      string
	Descriptors          []string          // open ones, as links
	Status               map[string]string // fields of /proc/self/status
	Limits               string            // /proc/self/limits
	MountInfo, Group     string            // /proc/self/mountinfo and cgroup
}

func identity() Identity {
	host, _ := os.Hostname()
	directory, _ := os.Getwd()
	groups, _ := os.Getgroups()
	i := Identity{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid(), Groups: groups, Host: host, Directory: directory,
		Arguments: os.Args, Variables: os.Environ(), Status: map[string]string{}}
	for line := range strings.Lines(content("/proc/self/status")) {
		key, value, _ := strings.Cut(line, ":")
		i.Status[key] = strings.Join(strings.Fields(value), " ")
	}
	i.Limits, i.MountInfo, i.Group = content("/proc/self/limits"), content("/proc/self/mountinfo"), content("/proc/self/cgroup")
	// Read without opening a descriptor of the runtime's own (epoll) or of a directory.
	for fd := range 64 {
		if target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			i.Descriptors = append(i.Descriptors, strconv.Itoa(fd)+" "+target)
		}
	}
	return i
}

func list(paths []string) any {
	all := map[string]string{}
	for _, p := range paths {
		entries, err := os.ReadDir(p)
		if err != nil {
			all[p] = err.Error()
		}
		for _, e := range entries {
			mode := "?"
			if info, err := e.Info(); err == nil {
				mode = info.Mode().String()
			}
			all[filepath.Join(p, e.Name())] = mode
		}
	}
	return all
}

// writeFile tries to write to each path and returns the errors.
func writeFile(paths []string) any {
	all := map[string]string{}
	for _, p := range paths {
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			_, err = f.WriteString("written by probe")
			f.Close()
		}
		all[p] = text(err)
	}
	return all
}

func readFile(paths []string) any {
	all := map[string]string{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if all[p] = string(b[:min(len(b), 200)]); err != nil {
			all[p] = "error: " + err.Error()
		}
	}
	return all
}

// fill writes a file until it cannot and returns the MiB and the error.
func fill(a []string) any {
	f, err := os.Create(a[0])
	written := 0
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 7)
	}
	for err == nil && written < number(a[1]) {
		if _, err = f.Write(block); err == nil {
			written++
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return map[string]any{"MiB": written, "Error": text(err)}
}

// execute copies this program and runs the copy.
func execute(a []string) any {
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(a[0], self, 0o700)
	}
	if err == nil {
		err = exec.Command(a[0], "exit", "0").Run()
	}
	return text(err)
}

func connect(targets []string) any {
	all := map[string]string{}
	for _, t := range targets {
		network, address, _ := strings.Cut(t, "!")
		c, err := net.DialTimeout(network, address, 2*time.Second)
		if err == nil && network == "udp" { // connecting says nothing: is there a route?
			_, err = c.Write([]byte("x"))
		}
		if err == nil {
			c.Close()
		}
		all[t] = text(err)
	}
	return all
}

// relay copies what the first address sends to the second.
func relay(a []string) any {
	from, err := net.Dial("tcp", a[0])
	if err != nil {
		return text(err)
	}
	to, err := net.Dial("tcp", a[1])
	if err != nil {
		return text(err)
	}
	_, err = io.Copy(to, from)
	to.Close()
	return text(err)
}

// serve listens where it is told, says so on standard output, and waits.
func serve(a []string) any {
	for _, t := range a {
		network, address, _ := strings.Cut(t, "!")
		l, err := net.Listen(network, address)
		if err != nil {
			return text(err)
		}
		go func() {
			for {
				if c, err := l.Accept(); err == nil {
					c.Close()
				}
			}
		}()
	}
	fmt.Println(`"serving"`)
	time.Sleep(time.Hour)
	return nil
}

// count connects and sends a byte each millisecond.
func count(a []string) any {
	c, err := net.Dial("tcp", a[0])
	for err == nil {
		_, err = c.Write([]byte{'.'})
		time.Sleep(time.Millisecond)
	}
	return text(err)
}

func content(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return n
}

// text returns "" for success.
func text(err error) string {
	if err == nil {
		return ""
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
