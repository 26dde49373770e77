package native

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"cloister/sandbox"
	"cloister/sandbox/sandboxtest"
)

// workerVariable turns this test binary into a worker that is going to be killed. It holds the
// configuration.
const workerVariable = "CLOISTER_TEST_WORKER"

func TestMain(m *testing.M) {
	if config := os.Getenv(workerVariable); config != "" {
		if err := actAsWorker(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type workerOrder struct {
	Config
	Root, Code string // image files
}

// actAsWorker makes sandboxes in all states and waits for its end.
func actAsWorker(order string) error {
	var o workerOrder
	if err := json.Unmarshal([]byte(order), &o); err != nil {
		return err
	}
	open := func(key, path string) (sandbox.Image, error) {
		f, err := os.Open(path)
		if err != nil {
			return sandbox.Image{}, err
		}
		info, err := f.Stat()
		return sandbox.Image{Key: key, File: f, Size: info.Size()}, err
	}
	root, err := open("root", o.Root)
	if err != nil {
		return err
	}
	code, err := open("code", o.Code)
	if err != nil {
		return err
	}
	b, err := New(o.Config)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := range 4 { // parked, attached, running, frozen
		s, err := b.Park(ctx, sandbox.Class{Root: root, EphemeralMiB: 512})
		if err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		if err := s.Attach(ctx, []sandbox.Mount{{Target: "/var/task", Image: code}}, sandboxtest.Limits); err != nil {
			return err
		}
		if i == 1 {
			continue
		}
		p := sandbox.Process{Path: "/probe", Args: []string{"/probe", "child", "daemon", "wait"}, Stdout: null, Stderr: null}
		running, err := s.Start(ctx, p)
		if err != nil {
			return err
		}
		running.Wait()
		p.Args = []string{"/probe", "forks", "10"}
		if _, err := s.Start(ctx, p); err != nil {
			return err
		}
		if i == 3 {
			if err := s.Freeze(ctx); err != nil {
				return err
			}
		}
	}
	fmt.Println("ready")
	select {}
}

func TestAKilledWorkerTakesItsSandboxesAlongAndSweepRemovesTheRest(t *testing.T) {
	images := sandboxtest.Build(t)
	config := testConfig(t)
	bystander := newBackend(t)
	neighbour := attachCell(t, bystander, images)
	probe := sandboxtest.Start(t, neighbour, "wait")
	before := hostState(t, config)

	worker := startWorker(t, config, images)
	if running := processesOf(t, config); len(running) < 8 {
		t.Errorf("only %d processes run before the crash", len(running))
	}
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	worker.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for len(processesOf(t, config)) > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if left := processesOf(t, config); len(left) > 0 {
		t.Errorf("processes outlive the worker: %v", left)
	}
	awaitNoLoops(t, "cloister-"+config.Installation)

	b, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := b.groups.Groups(); err != nil || len(names) != 4 {
		t.Errorf("before the sweep there are the groups %v, %v", names, err)
	}
	if err := os.WriteFile(config.Directory+"/"+temporaryPrefix+"template-1", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Sweep(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := b.SelfTest(testContext(t)); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	checkNothingLeft(t, config, before)

	// All that was beside a sandbox of another installation, which has not noticed.
	select {
	case <-probe.Done():
		t.Errorf("the neighbour's process ended with %+v", probe.Wait())
	default:
	}
	var i sandboxtest.Identity
	if exit := sandboxtest.Start(t, neighbour, "identity").Answer(t, &i); exit.Code != 0 {
		t.Errorf("the neighbour's next process ended with %+v", exit)
	}
}

func startWorker(t *testing.T, config Config, images sandboxtest.Images) *exec.Cmd {
	t.Helper()
	order, err := json.Marshal(workerOrder{Config: config,
		Root: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), images.Class.Root.File.Fd()),
		Code: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), images.Code[0].Image.File.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	worker := exec.Command("/proc/self/exe")
	worker.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, workerVariable) }), workerVariable+"="+string(order))
	worker.Stderr = os.Stderr
	out, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { worker.Process.Kill(); worker.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the worker says %q, %v", line, err)
	}
	return worker
}
