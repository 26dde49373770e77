package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestTheServicesProcessesAreBornIntoItsReserve(t *testing.T) {
	c := Config{Name: testName(t) + "-service"}.withDefaults()
	mounts, err := readFrom(c.MountInfo, parseMounts)
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenReserve(c)
	if err != nil {
		t.Fatal(err)
	}
	born := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		if err := r.Enter(); err != nil {
			t.Error(err)
		}
		b, err := exec.Command("cat", "/proc/self/cgroup").Output()
		if err != nil {
			t.Error(err)
		}
		born <- string(b)
	}()
	if groups := <-born; strings.Contains(groups, "/"+c.Name+"\n") != (mounts.v1[cpu] != "") {
		t.Errorf("a process is born into %s", groups)
	}
	if mounts.v1[cpu] != "" {
		shares, err := number(filepath.Join(r.directory, "cpu.shares"))
		if all := int64(sharesOfCPU * runtime.NumCPU()); shares <= all || err != nil {
			t.Errorf("the service weighs %d, not more than functions that take all CPUs, %d; %v", shares, all, err)
		}
	}
	for range 2 { // another serve may find the group, or find it gone
		if _, err := OpenReserve(c); err != nil {
			t.Error(err)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(r.directory); r.directory != "" && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is left: %v", err)
	}
}

func TestInVersion2NothingIsReserved(t *testing.T) {
	root, config := fakeV2(t, "/")
	r, err := OpenReserve(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Enter(), r.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, config.Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a group was made: %v", err)
	}
}
