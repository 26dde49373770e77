package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// self starts this program again, in another role.
const self = "/proc/self/exe"

// child is what a process does that another one has started.
func child(role string) {
	switch role {
	case "sleep":
		forever()
	case "tick":
		for {
			file, err := os.OpenFile("/tmp/ticks", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err == nil {
				file.WriteString(".")
				file.Close()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	os.Exit(9)
}

func killSelf(i *invocation) any {
	syscall.Kill(os.Getpid(), syscall.Signal(i.N))
	return forever()
}

// signals tries to kill everybody else, and answers with what the kernel says.
func signals(*invocation) any {
	said := map[string]string{}
	for name, pid := range map[string]int{"first process": 1, "parent": os.Getppid(), "second": 2} {
		if pid == 0 {
			said[name] = "of another namespace" // 0 would be ourselves
			continue
		}
		said[name] = fmt.Sprint(syscall.Kill(pid, syscall.SIGKILL))
	}
	said["all"] = fmt.Sprint(syscall.Kill(-1, syscall.SIGKILL)) // all but ourselves
	return said
}

// outOfMemoryScore tries to make others the kernel's first choice.
func outOfMemoryScore(*invocation) any {
	said := map[string]string{}
	for _, score := range []string{"-1000", "-1", "0", "1000"} {
		said[score] = fmt.Sprint(os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0))
	}
	now, _ := os.ReadFile("/proc/self/oom_score_adj")
	said["now"] = string(bytes.TrimSpace(now))
	return said
}

// forks is a fork bomb: every process forks until the end of time.
func forks(*invocation) any {
	bomb()
	return silence
}

// bomb never returns, in no process. A child has one thread only and so no Go runtime: it may do
// nothing but this.
//
//go:nosplit
func bomb() {
	for {
		syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	}
}

// processes starts processes until it may not start more, and leaves them.
func processes(i *invocation) any {
	started := 0
	for started < i.N {
		if err := exec.Command(self, "sleep").Start(); err != nil {
			return map[string]any{"started": started, "error": err.Error()}
		}
		started++
	}
	return map[string]any{"started": started}
}

var held [][]byte

// memory takes memory until it is stopped.
func memory(*invocation) any {
	for {
		b := make([]byte, 4<<20)
		for at := 0; at < len(b); at += os.Getpagesize() {
			b[at] = 1
		}
		held = append(held, b)
	}
}

var opened []*os.File

// files opens files until it may not open more, and keeps them until it is asked for none.
func files(i *invocation) any {
	if i.N == 0 {
		for _, f := range opened {
			f.Close()
		}
		opened = nil
		return "closed"
	}
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			return map[string]any{"opened": len(opened), "error": fmt.Sprint(err)}
		}
		opened = append(opened, f)
	}
}

// fill writes to /tmp until it is full.
func fill(*invocation) any {
	file, err := os.Create("/tmp/large")
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	defer file.Close()
	block := bytes.Repeat([]byte("x"), 1<<20)
	written := 0
	for {
		n, err := file.Write(block)
		written += n
		if err != nil {
			return map[string]any{"mebibytes": written >> 20, "error": err.Error()}
		}
	}
}

// inodes makes empty files in /tmp until there can be no more.
func inodes(*invocation) any {
	for made := 0; ; made++ {
		if made%1000 == 0 {
			if err := os.Mkdir("/tmp/d"+strconv.Itoa(made/1000), 0o700); err != nil {
				return map[string]any{"files": made, "error": err.Error()}
			}
		}
		fd, err := syscall.Open("/tmp/d"+strconv.Itoa(made/1000)+"/"+strconv.Itoa(made), syscall.O_CREAT|syscall.O_WRONLY, 0o600)
		if err != nil {
			return map[string]any{"files": made, "error": err.Error()}
		}
		syscall.Close(fd)
	}
}

// clean empties /tmp.
func clean(*invocation) any {
	names, err := filepath.Glob("/tmp/*")
	for _, name := range names {
		if err == nil {
			err = os.RemoveAll(name)
		}
	}
	return fmt.Sprint(err)
}

// churn writes to the disk and takes it back, for so long.
func churn(i *invocation) any {
	written := 0
	for end := time.Now().Add(i.duration()); time.Now().Before(end); {
		file, err := os.Create("/tmp/churn")
		if err != nil {
			return err.Error()
		}
		block := bytes.Repeat([]byte("x"), 1<<20)
		for range 64 {
			n, err := file.Write(block)
			written += n
			if err != nil || time.Now().After(end) {
				break
			}
		}
		file.Sync()
		file.Close()
		os.Remove("/tmp/churn")
	}
	return written >> 20
}

// burn answers at once and then keeps N threads busy for a while before it asks for more.
func burn(i *invocation) any {
	i.answer("answered")
	i.spin()
	return silence
}

// spin keeps N threads busy and answers then.
func spin(i *invocation) any {
	i.spin()
	return "done"
}

func (i *invocation) spin() {
	runtime.GOMAXPROCS(max(i.N, runtime.NumCPU()) + 1)
	end := time.Now().Add(i.duration())
	var all sync.WaitGroup
	for range i.N {
		all.Go(func() {
			for time.Now().Before(end) {
				for x := range 1000 {
					_ = x * x
				}
			}
		})
	}
	all.Wait()
}

// background leaves a process that writes down that it runs.
func background(*invocation) any {
	c := exec.Command(self, "tick")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return fmt.Sprint(c.Start())
}

// ticks counts how often it has run, before and after a moment.
func ticks(i *invocation) any {
	var counts []int
	for range 2 {
		b, _ := os.ReadFile("/tmp/ticks")
		counts = append(counts, len(b))
		time.Sleep(i.duration())
	}
	return slices.Clip(counts)
}
