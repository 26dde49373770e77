package worker

import (
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloister/internal/channel"
	"cloister/lambda"
	"cloister/sandbox"
)

var echo = serve(func(p *process, id, event string) bool { return p.answer(id, event) })

func TestAnEnvironmentServesInvocationsOneAtATime(t *testing.T) {
	var inside atomic.Int32
	h, _, _ := newHost(t, serve(func(p *process, id, event string) bool {
		if inside.Add(1) != 1 {
			t.Error("two events at once in one environment")
		}
		time.Sleep(time.Millisecond)
		inside.Add(-1)
		return p.answer(id, event)
	}))
	id := createEnvironment(t, h, spec())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				if got := run(t, h, id, `"x"`); string(got.Payload) != `"x"` || got.FunctionError != "" || got.ExecutedVersion != "$LATEST" {
					t.Errorf("result %+v", got)
				}
			}
		})
	}
	all.Wait()
}

func TestTheLogOfAnInvocationHasThePlatformsLines(t *testing.T) {
	h, _, u := newHost(t, serve(func(p *process, id, event string) bool {
		io.WriteString(p.out, "first\nsecond without end")
		return p.answer(id, event)
	}))
	id := createEnvironment(t, h, spec())
	tail := string(run(t, h, id, "1").LogTail)
	want := regexp.MustCompile(`^START RequestId: 8a1b Version: \$LATEST\nfirst\nsecond without end\nEND RequestId: 8a1b\nREPORT RequestId: 8a1b\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: 10 MB\tInit Duration: \d+\.\d\d ms\t\n$`)
	if !want.MatchString(tail) {
		t.Errorf("tail %q", tail)
	}
	if again := string(run(t, h, id, "1").LogTail); strings.Contains(again, "Init Duration") || strings.Count(again, "START") != 1 {
		t.Errorf("tail of a warm invocation %q", again)
	}
	if log := u.log(); !strings.HasPrefix(log, "INIT_START Runtime Version: python:3.11\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:x\n") {
		t.Errorf("log %q", log)
	}
}

func TestTheTailIsTheLastFourKilobytes(t *testing.T) {
	h, _, _ := newHost(t, serve(func(p *process, id, event string) bool {
		io.WriteString(p.out, strings.Repeat("x", 300<<10)+"\n")
		return p.answer(id, event)
	}))
	tail := run(t, h, createEnvironment(t, h, spec()), "1").LogTail
	if len(tail) != lambda.LogTailBytes || !strings.Contains(string(tail), "REPORT RequestId") {
		t.Errorf("%d bytes of tail ending in %q", len(tail), tail[max(0, len(tail)-200):])
	}
}

func TestARuntimeThatFailsIsReplacedAndItsErrorAnswered(t *testing.T) {
	h, _, _ := newHost(t, serve(func(p *process, id, event string) bool {
		switch event {
		case `"exit"`:
			p.exit = sandbox.Exit{Code: 3}
			return false
		case `"memory"`:
			p.exit = sandbox.Exit{Code: -1, Signal: 9, OutOfMemory: true}
			return false
		case `"hang"`:
			<-p.ctx.Done()
			return false
		case `"error"`:
			p.call("POST", "/invocation/"+id+"/error", `{"errorType":"E"}`)
			return true
		}
		return p.answer(id, event)
	}))
	id := createEnvironment(t, h, spec())
	for event, want := range map[string]string{
		`"exit"`:   `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 8a1b Error: Runtime exited with error: exit status 3"}`,
		`"memory"`: `{"errorType":"Runtime.OutOfMemory","errorMessage":"RequestId: 8a1b Error: Runtime exited with error: signal: killed"}`,
		`"hang"`:   `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 8a1b Error: Task timed out after 1.00 seconds"}`,
		`"error"`:  `{"errorType":"E"}`,
	} {
		got := run(t, h, id, event)
		if string(got.Payload) != want || got.FunctionError != "Unhandled" {
			t.Errorf("%s answered %s, %s", event, got.Payload, got.FunctionError)
		}
		if event == `"hang"` && !strings.Contains(string(got.LogTail), "Status: timeout") {
			t.Errorf("log of a timeout %q", got.LogTail)
		}
		if got := run(t, h, id, `"fine"`); string(got.Payload) != `"fine"` {
			t.Errorf("after %s the next invocation answered %s", event, got.Payload)
		}
	}
}

func TestAFailedInitIsRepeatedByTheFirstInvocation(t *testing.T) {
	var starts atomic.Int32
	h, _, u := newHost(t, func(p *process) {
		if starts.Add(1) == 1 {
			p.call("POST", "/init/error", `{"errorType":"Runtime.ImportModuleError","errorMessage":"no module"}`)
			p.exit = sandbox.Exit{Code: 1}
			return
		}
		echo(p)
	})
	id := createEnvironment(t, h, spec())
	if got := run(t, h, id, "7"); string(got.Payload) != "7" {
		t.Errorf("answered %s", got.Payload)
	}
	if !strings.Contains(u.log(), "Phase: init\tStatus: error\tError Type: Runtime.ImportModuleError") {
		t.Errorf("log %q", u.log())
	}

	h, _, _ = newHost(t, func(p *process) {
		p.call("POST", "/init/error", `{"errorType":"Runtime.ImportModuleError","errorMessage":"no module"}`)
		p.exit = sandbox.Exit{Code: 1}
	})
	got := run(t, h, createEnvironment(t, h, spec()), "7")
	if string(got.Payload) != `{"errorType":"Runtime.ImportModuleError","errorMessage":"no module"}` || got.FunctionError != "Unhandled" {
		t.Errorf("an init that always fails answered %s", got.Payload)
	}
}

func TestAnEnvironmentThatDiesBetweenInvocationsIsBuriedAndTold(t *testing.T) {
	die := make(chan struct{})
	h, b, _ := newHost(t, func(p *process) {
		go func() { <-die; p.kill() }()
		echo(p)
	})
	events, stop := h.watch()
	defer stop()
	id := createEnvironment(t, h, spec())
	run(t, h, id, "1")
	close(die)
	select {
	case e := <-events:
		if e.EnvironmentID != id {
			t.Errorf("told of %s, want %s", e.EnvironmentID, id)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	for range 1000 {
		if b.live.Load() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := h.Invoke(t.Context(), id, &lambda.Invocation{}); lambda.KindOf(err) != lambda.EnvironmentGone || b.live.Load() != 0 {
		t.Errorf("a dead environment: %v, %d sandboxes live", err, b.live.Load())
	}
}

func TestAnIdleEnvironmentIsFrozenAndABusyOneIsNot(t *testing.T) {
	h, _, _ := newHost(t, echo, func(c *Config) { c.FreezeAfter = 20 * time.Millisecond })
	id := createEnvironment(t, h, spec())
	b := h.environments[id].box.(*box)
	frozen := func() (bool, int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.frozen, b.freezes
	}
	for range 20 {
		run(t, h, id, "1")
	}
	if _, freezes := frozen(); freezes > 5 {
		t.Errorf("a busy environment was frozen %d times", freezes)
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) {
		if now, _ := frozen(); now {
			break
		}
	}
	if now, _ := frozen(); !now {
		t.Fatal("an idle environment was not frozen")
	}
	if got := run(t, h, id, "2"); string(got.Payload) != "2" {
		t.Errorf("a frozen environment answered %s", got.Payload)
	}
}

func TestAHostTakesOnlyWhatItHasRoomFor(t *testing.T) {
	h, _, _ := newHost(t, echo, func(c *Config) { c.MemoryMiB = 256 })
	first := createEnvironment(t, h, spec())
	createEnvironment(t, h, spec())
	if _, err := h.Create(t.Context(), spec()); lambda.KindOf(err) != lambda.Capacity {
		t.Errorf("a third environment: %v, want capacity", err)
	}
	if err := h.Destroy(t.Context(), first); err != nil {
		t.Error(err)
	}
	createEnvironment(t, h, spec())
}

func TestCodeOfAnotherAccountIsNotMounted(t *testing.T) {
	h, b, _ := newHost(t, echo)
	s := spec()
	s.Version.Code.Owner = "2"
	if _, err := h.Create(t.Context(), s); lambda.KindOf(err) != lambda.AccessDenied || b.live.Load() != 0 {
		t.Errorf("%v, %d sandboxes live", err, b.live.Load())
	}
	if len(h.images.byKey) != 0 || h.memoryMiB != 0 {
		t.Errorf("%d images and %d MiB are still taken", len(h.images.byKey), h.memoryMiB)
	}
}

func TestEnvironmentsOfOneFunctionShareItsCode(t *testing.T) {
	h, _, u := newHost(t, echo)
	a, b := createEnvironment(t, h, spec()), createEnvironment(t, h, spec())
	h.Destroy(t.Context(), a)
	h.Destroy(t.Context(), b)
	createEnvironment(t, h, spec())
	if n := u.fetches.Load(); n != 1 || len(h.images.byKey) != 1 {
		t.Errorf("%d fetches, %d images for one function", n, len(h.images.byKey))
	}
}

// An order of a front that was killed, or of a caller that left, must not cost the next front's order its code.
func TestAnOrderIsRefusedOnlyForItsOwnGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := make(chan struct{})
		var good atomic.Bool
		c := newImages(&upstream{refuse: func(grant string) error {
			<-begin
			if grant == "good" {
				good.Store(true)
				return nil
			}
			return &lambda.Error{Kind: lambda.AccessDenied, Op: "redeem a grant", Message: "another front gave it"}
		}})
		var refused, served atomic.Int64
		for _, grant := range []string{"stale", "stale", "good", "stale"} { // the first leads, for all have to share its fetch
			go func() {
				switch i, err := c.acquire(t.Context(), "1", lambda.Artifact{ID: "a", Owner: "1"}, grant); {
				case err == nil && good.Load():
					served.Add(1)
					c.release(i)
				case grant == "stale" && lambda.KindOf(err) == lambda.AccessDenied:
					refused.Add(1)
				default:
					t.Errorf("%s grant: %v", grant, err)
				}
			}()
			synctest.Wait()
		}
		close(begin)
		synctest.Wait()
		if served.Load() == 0 || refused.Load() == 0 || served.Load()+refused.Load() != 4 {
			t.Errorf("%d orders served, %d refused", served.Load(), refused.Load())
		}
	})
}

func TestIdleCodeIsBoundedAndTheLongestUnusedGoes(t *testing.T) {
	h, _, u := newHost(t, echo)
	use := func(code string) {
		s := spec()
		s.Version.Code.ID, s.Version.Code.Size = code, maxIdleCodeBytes/2
		h.Destroy(t.Context(), createEnvironment(t, h, s))
	}
	for _, code := range []string{"a", "b", "a", "c"} { // c has no room beside a and b
		use(code)
	}
	before := u.fetches.Load()
	use("a")
	if u.fetches.Load() != before {
		t.Error("code that was used lately was fetched again")
	}
	use("b")
	if u.fetches.Load() != before+1 || h.images.idleBytes > maxIdleCodeBytes || len(h.images.idle) != len(h.images.byKey) {
		t.Errorf("%d fetches, %d idle bytes, %d idle images of %d", u.fetches.Load(), h.images.idleBytes, len(h.images.idle), len(h.images.byKey))
	}
}

func TestAFunctionsConnectionReachesTheGateway(t *testing.T) {
	h, _, _ := newHost(t, echo)
	id := createEnvironment(t, h, spec())
	c, err := net.Dial("tcp", h.environments[id].box.ServicesAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "hello")
	got := make([]byte, 5)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAFloodedStreamLosesItsOwnLinesOnly(t *testing.T) {
	authority, err := channel.NewAuthority("one")
	if err != nil {
		t.Fatal(err)
	}
	own, err := authority.Issue(channel.Worker)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFront(nil, own, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	line := []lambda.LogEvent{{Message: strings.Repeat("x", 256<<10)}}
	for range 100 {
		f.Append("1", "group", "flood", line)
	}
	dropped := f.Dropped()
	f.Append("1", "group", "quiet", line)
	if dropped == 0 || f.Dropped() != dropped {
		t.Errorf("%d lines of the flood and %d of the quiet stream were dropped", dropped, f.Dropped()-dropped)
	}
}
