package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

// restAfter is how long the service rests after the load before its memory is measured.
const restAfter = time.Minute

// memory reports what each process of the service takes of the host after all the load, when no function is left.
// It deletes the functions, so it comes last.
func (b *bench) memory(ctx context.Context, subjects []*subject) error {
	for _, s := range subjects {
		if _, err := s.client.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &s.function}); err != nil {
			return err
		}
	}
	select {
	case <-time.After(restAfter):
	case <-ctx.Done():
		return ctx.Err()
	}
	started, err := children(b.service.PID())
	if err != nil {
		return err
	}
	b.printf("| process, %s after the load, no functions | PSS MiB |\n| --- | --- |\n", restAfter)
	sum := 0.0
	for _, pid := range append([]int{b.service.PID()}, started...) {
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return err
		}
		taken, err := memoryOf(pid)
		if err != nil {
			return err
		}
		b.printf("| %s | %.1f |\n", strings.Split(string(command), "\x00")[1], taken)
		sum += taken
	}
	b.printf("| **all** | **%.1f** |\n\n", sum)
	return nil
}

// memoryOf is a process's share of the host's memory in MiB: what it shares with others counts in part (PSS).
func memoryOf(pid int) (float64, error) {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(rollup), "\nPss:")
	kibibytes := 0
	if _, err := fmt.Sscan(rest, &kibibytes); err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return float64(kibibytes) / 1024, nil
}
