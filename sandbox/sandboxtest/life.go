package sandboxtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/lambda"
	"cloister/sandbox"
)

func (s *suite) life() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"TheSelfTestPasses":                         s.selfTest,
		"BothListenersServeTheProgramInside":        s.listeners,
		"ASandboxIsAttachedOnce":                    s.attachOnce,
		"NothingStartsBeforeAttach":                 s.startBeforeAttach,
		"AfterDestroyNothingWorksButDestroy":        s.afterDestroy,
		"DestroyEndsWhatIsRunning":                  s.destroyRunning,
		"AFrozenSandboxMakesNoProgress":             s.freeze,
		"KillAllEndsDaemonsAndKeepsTheSandbox":      s.killAll,
		"KillAllThawsAFrozenSandbox":                s.killFrozen,
		"AFailedAttachLeavesASandboxToBeDestroyed":  s.failedAttach,
		"AnEndedContextParksNothing":                s.endedContext,
		"ManyAtOnceDoNotDisturbEachOther":           s.manyAtOnce,
		"DestroyDuringStartNeitherHangsNorSurvives": s.destroyDuringStart,
	}
}

func (s *suite) selfTest(t *testing.T) {
	must(t, s.backend.SelfTest(s.context(t)), "self-test")
}

func (s *suite) listeners(t *testing.T) {
	box := s.attach(t, Limits)
	probe := Start(t, box, "relay", box.RuntimeAPIAddress(), box.ServicesAddress())
	in, err := box.RuntimeAPI().Accept()
	must(t, err, "accept on the runtime API")
	defer in.Close()
	out, err := box.Services().Accept()
	must(t, err, "accept on the services")
	defer out.Close()
	sent := make([]byte, 300<<10)
	rand.Read(sent)
	go func() {
		in.Write(sent)
		in.Close()
	}()
	out.SetDeadline(time.Now().Add(Timeout))
	got, err := io.ReadAll(out)
	must(t, err, "read")
	if !bytes.Equal(got, sent) {
		t.Errorf("of %d bytes %d came back, or others", len(sent), len(got))
	}
	var answer string
	if exit := probe.Answer(t, &answer); exit != (sandbox.Exit{}) || answer != "" {
		t.Errorf("relay ended with %+v %s", exit, answer)
	}
}

func (s *suite) attachOnce(t *testing.T) {
	box := s.attach(t, Limits)
	if err := box.Attach(s.context(t), s.images.Code, Limits); err == nil {
		t.Error("a second time was accepted")
	}
	if got := ask[map[string]string](t, box, "read", "/var/task/code.txt"); got["/var/task/code.txt"] != "the code" {
		t.Errorf("the code is %q", got)
	}
}

func (s *suite) startBeforeAttach(t *testing.T) {
	if _, err := s.park(t).Start(s.context(t), sandbox.Process{Path: "/probe"}); err == nil {
		t.Error("it was accepted")
	}
}

func (s *suite) afterDestroy(t *testing.T) {
	box := s.attach(t, Limits)
	ctx := s.context(t)
	probe := Start(t, box, "exit", "0")
	probe.Exit(t)
	must(t, box.Destroy(ctx), "destroy")
	must(t, box.Destroy(ctx), "destroy again")
	_, startErr := box.Start(ctx, sandbox.Process{Path: "/probe"})
	_, usageErr := box.Usage()
	_, peakErr := box.MemoryPeak()
	_, acceptErr := box.RuntimeAPI().Accept()
	_, servicesErr := box.Services().Accept()
	for name, err := range map[string]error{
		"Start": startErr, "Usage": usageErr, "MemoryPeak": peakErr, "Attach": box.Attach(ctx, nil, Limits), "Freeze": box.Freeze(ctx), "Thaw": box.Thaw(ctx),
		"KillAll": box.KillAll(ctx), "SetCPU": box.SetCPU(1),
	} {
		if lambda.KindOf(err) != lambda.EnvironmentGone {
			t.Errorf("%s: %v is not of kind EnvironmentGone", name, err)
		}
	}
	if acceptErr == nil || servicesErr == nil {
		t.Error("a listener is still open")
	}
	if exit := probe.Wait(); exit != (sandbox.Exit{}) {
		t.Errorf("the exit is now %+v", exit)
	}
}

func (s *suite) destroyRunning(t *testing.T) {
	box := s.attach(t, Limits)
	probe := Start(t, box, "wait")
	must(t, box.Destroy(s.context(t)), "destroy")
	if exit := probe.Exit(t); exit.Signal != 9 || exit.Code != -1 || exit.OutOfMemory {
		t.Errorf("it ended with %+v", exit)
	}
}

func (s *suite) freeze(t *testing.T) {
	box := s.attach(t, Limits)
	Start(t, box, "count", box.RuntimeAPIAddress())
	conn, err := box.RuntimeAPI().Accept()
	must(t, err, "accept")
	defer conn.Close()
	count := func(d time.Duration) (n int) {
		conn.SetReadDeadline(time.Now().Add(d))
		buffer := make([]byte, 4096)
		for {
			k, err := conn.Read(buffer)
			n += k
			if err != nil {
				return n
			}
		}
	}
	for range 3 {
		if n := count(200 * time.Millisecond); n == 0 {
			t.Fatal("it does not run")
		}
		must(t, box.Freeze(s.context(t)), "freeze")
		count(10 * time.Millisecond) // what was under way
		if n := count(100 * time.Millisecond); n != 0 {
			t.Errorf("it made %d steps while frozen", n)
		}
		must(t, box.Thaw(s.context(t)), "thaw")
	}
}

func (s *suite) killAll(t *testing.T) {
	box := s.attach(t, Limits)
	if err := ask[map[string]string](t, box, "write", "/tmp/kept")["/tmp/kept"]; err != "" {
		t.Fatal(err)
	}
	probe := Start(t, box, "wait")
	ask[string](t, box, "daemon", "count", box.RuntimeAPIAddress())
	conn, err := box.RuntimeAPI().Accept()
	must(t, err, "accept")
	defer conn.Close()
	must(t, box.KillAll(s.context(t)), "kill all")
	select {
	case <-probe.Done():
	default:
		t.Error("the process is not done although KillAll has returned")
	}
	if exit := probe.Wait(); exit.Signal != 9 {
		t.Errorf("it ended with %+v", exit)
	}
	conn.SetDeadline(time.Now().Add(Timeout))
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the daemon lives: %v", err)
	}
	for range 2 { // and again: the second time nothing has been made ready
		if got := ask[map[string]string](t, box, "read", "/tmp/kept"); got["/tmp/kept"] != "written by probe" {
			t.Errorf("/tmp holds %q", got)
		}
		must(t, box.KillAll(s.context(t)), "kill all")
	}
}

func (s *suite) killFrozen(t *testing.T) {
	box := s.attach(t, Limits)
	probe := Start(t, box, "wait")
	must(t, box.Freeze(s.context(t)), "freeze")
	must(t, box.KillAll(s.context(t)), "kill all")
	probe.Exit(t)
	ask[Identity](t, box, "identity")
}

func (s *suite) failedAttach(t *testing.T) {
	for name, mounts := range map[string][]sandbox.Mount{
		"no such directory": {{Target: "/nowhere", Image: s.images.Class.Root}},
		"symbolic link":     {{Target: "/link", Image: s.images.Class.Root}},
		"relative path":     {{Target: "var/task", Image: s.images.Class.Root}},
		"no image":          {{Target: "/var/task"}},
		"second of two":     {s.images.Code[0], {Target: "/nowhere", Image: s.images.Class.Root}},
	} {
		box := s.park(t)
		if err := box.Attach(s.context(t), mounts, Limits); err == nil {
			t.Errorf("%s: it was accepted", name)
		}
		if _, err := box.Start(s.context(t), sandbox.Process{Path: "/probe"}); err == nil {
			t.Errorf("%s: a process was started all the same", name)
		}
	}
}

func (s *suite) endedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	box, err := s.backend.Park(ctx, s.images.Class)
	if err == nil {
		box.Destroy(s.context(t))
		t.Fatal("it was parked")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func (s *suite) manyAtOnce(t *testing.T) {
	const many = 8
	var group sync.WaitGroup
	for range many {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*Timeout)
			defer cancel()
			box, err := s.backend.Park(ctx, s.images.Class)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() {
				if err := box.Destroy(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}()
			if err := box.Attach(ctx, s.images.Code, Limits); err != nil {
				t.Error(err)
				return
			}
			running, err := box.Start(ctx, sandbox.Process{Path: "/probe", Args: []string{"/probe", "exit", "3"}, Stdout: devNull(t), Stderr: devNull(t)})
			if err != nil {
				t.Error(err)
				return
			}
			if diff := cmp.Diff(sandbox.Exit{Code: 3}, running.Wait()); diff != "" {
				t.Errorf("exit (-want +got): %s", diff)
			}
		})
	}
	group.Wait()
}

func (s *suite) destroyDuringStart(t *testing.T) {
	for range 5 {
		box := s.attach(t, Limits)
		ctx := s.context(t)
		null := devNull(t)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				running, err := box.Start(ctx, sandbox.Process{Path: "/probe", Args: []string{"/probe", "wait"}, Stdout: null, Stderr: null})
				if err == nil {
					running.Wait()
				}
			})
		}
		must(t, box.Destroy(ctx), "destroy")
		group.Wait()
	}
}
