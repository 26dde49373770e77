package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var kept [][]byte // what allocate has taken, so that it is not freed

// allocate takes memory and touches every page.
func allocate(mebibytes int) any {
	for range mebibytes {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		kept = append(kept, block)
	}
	return len(kept)
}

// child runs this program with the arguments and returns how that ended.
func child(a []string) any {
	out, err := exec.Command("/proc/self/exe", a...).CombinedOutput()
	return map[string]string{"Error": text(err), "Output": string(out)}
}

// forks starts processes that wait, until one more is refused, and returns how many there were.
func forks(a []string) any {
	started := 0
	var err error
	for started < number(a[0]) {
		var null *os.File
		if null, err = os.OpenFile("/dev/null", os.O_RDWR, 0); err != nil {
			break
		}
		_, err = os.StartProcess("/proc/self/exe", []string{"probe", "wait"}, &os.ProcAttr{Files: []*os.File{null, null, null}})
		null.Close()
		if err != nil {
			break
		}
		started++
	}
	return map[string]any{"Started": started, "Error": text(err)}
}

// openFiles opens until one more is refused.
func openFiles(a []string) any {
	opened := 0
	var err error
	for opened < number(a[0]) {
		if _, err = syscall.Open("/dev/null", syscall.O_RDONLY, 0); err != nil {
			break
		}
		opened++
	}
	return map[string]any{"Opened": opened, "Error": text(err)}
}

// daemon starts a process in a session of its own that runs the rest of the arguments, and ends.
func daemon(a []string) any {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err == nil {
		_, err = os.StartProcess("/proc/self/exe", append([]string{"probe"}, a...),
			&os.ProcAttr{Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Setsid: true}})
	}
	return text(err)
}

// orphans has many children make a child each and end at once, and returns how many
// zombies there are a moment later.
func orphans(a []string) any {
	for range number(a[0]) {
		if err := exec.Command("/proc/self/exe", "daemon", "exit", "0").Run(); err != nil {
			return text(err)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		zombies := 0
		files, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, f := range files {
			if strings.Contains(content(f), ") Z ") {
				zombies++
			}
		}
		if zombies == 0 || time.Now().After(deadline) {
			return zombies
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// spin uses the CPU for so many milliseconds of real time and returns its CPU milliseconds.
func spin(milliseconds int) any {
	for end := time.Now().Add(time.Duration(milliseconds) * time.Millisecond); time.Now().Before(end); {
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return text(err)
	}
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1e6
}

// shared makes a System V shared memory segment with a fixed key, or says that there is one, and
// shows that the key space is or is not shared with others.
func shared([]string) any {
	const key, create, exclusive = 0x636c6f69, 0o1000, 0o2000
	if _, _, errno := syscall.Syscall(syscall.SYS_SHMGET, key, 4096, create|exclusive|0o666); errno != 0 {
		return fmt.Sprint(errno)
	}
	return ""
}
