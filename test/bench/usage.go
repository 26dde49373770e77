package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cpuTime is what the processes have used so far, user and system, of all their threads that still live.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				continue // the thread has ended since
			}
			used, _, _ := strings.Cut(string(b), " ")
			n, err := strconv.ParseInt(used, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", task, err)
			}
			sum += time.Duration(n)
		}
	}
	return sum, nil
}

// children returns the processes that pid has started, in the order of their ids.
func children(pid int) ([]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var all []int
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for field := range bytes.FieldsSeq(b) {
			child, err := strconv.Atoi(string(field))
			if err != nil {
				return nil, err
			}
			all = append(all, child)
		}
	}
	slices.Sort(all)
	return all, nil
}

// idleAfter is how long a service is left alone before its memory is measured.
const idleAfter = 5 * time.Second

// idleMemory is what the whole service takes in MiB before it has a function.
func (b *bench) idleMemory() (float64, error) {
	time.Sleep(idleAfter)
	pids, err := children(b.service.PID())
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, pid := range append(pids, b.service.PID()) {
		taken, err := memoryOf(pid)
		if err != nil {
			return 0, err
		}
		sum += taken
	}
	return sum, nil
}
