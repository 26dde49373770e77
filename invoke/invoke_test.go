package invoke

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"cloister/lambda"
)

var f = lambda.FunctionReference{Region: "us-east-1", AccountID: "123456789012", Name: "f"}

// versions knows one function.
type versions struct{}

func (versions) Resolve(_ context.Context, ref lambda.FunctionReference) (*lambda.Version, error) {
	if ref.Name != "f" {
		return nil, lambda.Errorf(lambda.NotFound, "resolve", "Function not found: %s", ref.ARN())
	}
	return &lambda.Version{ID: lambda.VersionID{AccountID: ref.AccountID, FunctionName: "f"}, Timeout: time.Second}, nil
}

// script answers the events in turn, each with a fresh environment.
type script struct {
	mu        sync.Mutex
	run       []func(context.Context, *lambda.Invocation) (*lambda.Result, error)
	released  int
	deferred  int
	discarded []string
}

func (s *script) Assign(context.Context, *lambda.Version) (Assignment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.run) == 0 {
		return nil, errors.New("no more environments")
	}
	next := s.run[0]
	s.run = s.run[1:]
	return &turn{s, next}, nil
}

type turn struct {
	script *script
	run    func(context.Context, *lambda.Invocation) (*lambda.Result, error)
}

func (t *turn) Invoke(ctx context.Context, inv *lambda.Invocation) (*lambda.Result, error) {
	return t.run(ctx, inv)
}
func (t *turn) Release()         { t.script.released++ }
func (t *turn) Defer()           { t.script.deferred++ }
func (t *turn) Discard(r string) { t.script.discarded = append(t.script.discarded, r) }

func echo(_ context.Context, inv *lambda.Invocation) (*lambda.Result, error) {
	return &lambda.Result{Payload: inv.Payload}, nil
}

func fails(k lambda.Kind) func(context.Context, *lambda.Invocation) (*lambda.Result, error) {
	return func(context.Context, *lambda.Invocation) (*lambda.Result, error) {
		return nil, &lambda.Error{Kind: k, Op: "test"}
	}
}

func newService(t *testing.T, concurrency int, s *script) *Service {
	t.Helper()
	service, err := New(Config{Versions: versions{}, Placement: s, Concurrency: concurrency})
	if err != nil {
		t.Fatal(err)
	}
	return service
}

func TestAnEventGoesToAnotherEnvironmentOnlyIfTheFirstHasNotSeenIt(t *testing.T) {
	s := &script{run: []func(context.Context, *lambda.Invocation) (*lambda.Result, error){fails(lambda.EnvironmentGone), fails(lambda.EnvironmentGone), echo}}
	result, err := newService(t, 1, s).Invoke(t.Context(), f, &lambda.Invocation{Payload: []byte(`1`)})
	if err != nil || string(result.Payload) != "1" || s.released != 1 || len(s.discarded) != 2 {
		t.Errorf("result %v, error %v, %d released, %d discarded", result, err, s.released, len(s.discarded))
	}
	s = &script{run: []func(context.Context, *lambda.Invocation) (*lambda.Result, error){fails(lambda.Busy), echo}}
	if _, err := newService(t, 1, s).Invoke(t.Context(), f, &lambda.Invocation{}); err != nil || s.deferred != 1 || len(s.discarded) != 0 {
		t.Errorf("a busy environment: error %v, %d deferred, %d discarded", err, s.deferred, len(s.discarded))
	}
	s = &script{run: []func(context.Context, *lambda.Invocation) (*lambda.Result, error){fails(lambda.Unavailable), echo}}
	if _, err := newService(t, 1, s).Invoke(t.Context(), f, &lambda.Invocation{}); lambda.KindOf(err) != lambda.Unavailable || len(s.run) != 1 {
		t.Errorf("error %v after %d environments, want Unavailable after one: the function may have seen the event", err, 2-len(s.run))
	}
}

// A busy environment is not lost: where all processors are taken, many in turn may need longer than a worker waits.
func TestEnvironmentsThatAreStillBusyUseUpNoAttempt(t *testing.T) {
	for _, c := range []struct {
		name       string
		busy, gone int
		want       lambda.Kind
	}{
		{"more busy ones than attempts", 3 * attempts, attempts - 1, 0},
		{"all are lost", 3, attempts, lambda.Unavailable},
		{"all are busy for good", busyAttempts, 0, lambda.Unavailable},
	} {
		s := &script{}
		for range c.busy {
			s.run = append(s.run, fails(lambda.Busy))
		}
		for range c.gone {
			s.run = append(s.run, fails(lambda.EnvironmentGone))
		}
		s.run = append(s.run, echo)
		_, err := newService(t, 1, s).Invoke(t.Context(), f, &lambda.Invocation{})
		if (err != nil) != (c.want != 0) || err != nil && lambda.KindOf(err) != c.want || s.deferred != c.busy || len(s.discarded) != c.gone {
			t.Errorf("%s: error %v, %d deferred, %d discarded", c.name, err, s.deferred, len(s.discarded))
		}
	}
}

func TestPayloadsAreCheckedBeforeAnythingElse(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		want    lambda.Kind
	}{
		"not JSON":       {"{", lambda.InvalidPayload},
		"two values":     {"1 2", lambda.InvalidPayload},
		"not UTF-8":      {"\"\xff\"", lambda.InvalidPayload},
		"over the limit": {`"` + strings.Repeat("x", lambda.MaxPayloadBytes) + `"`, lambda.TooLarge},
	} {
		s := &script{}
		if _, err := newService(t, 1, s).Invoke(t.Context(), f, &lambda.Invocation{Payload: []byte(c.payload)}); lambda.KindOf(err) != c.want {
			t.Errorf("%s: %v, want kind %s", name, err, c.want)
		}
	}
	s := &script{run: []func(context.Context, *lambda.Invocation) (*lambda.Result, error){echo}}
	result, err := newService(t, 1, s).Invoke(t.Context(), f, &lambda.Invocation{})
	if err != nil || string(result.Payload) != "{}" {
		t.Errorf("an empty payload reached the function as %q, %v", result.Payload, err)
	}
}

func TestConcurrencyIsBoundedPerAccountAndGivenBack(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	blocks := func(ctx context.Context, inv *lambda.Invocation) (*lambda.Result, error) {
		entered <- struct{}{}
		<-leave
		return echo(ctx, inv)
	}
	s := &script{run: []func(context.Context, *lambda.Invocation) (*lambda.Result, error){blocks, echo, echo}}
	service := newService(t, 1, s)
	first := make(chan error)
	go func() {
		_, err := service.Invoke(context.Background(), f, &lambda.Invocation{})
		first <- err
	}()
	<-entered
	if _, err := service.Invoke(t.Context(), f, &lambda.Invocation{}); lambda.KindOf(err) != lambda.Throttled {
		t.Errorf("a second call of the account: %v, want throttled", err)
	}
	other := f
	other.AccountID = "210987654321"
	if _, err := service.Invoke(t.Context(), other, &lambda.Invocation{}); err != nil {
		t.Errorf("a call of another account: %v", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := service.Invoke(t.Context(), f, &lambda.Invocation{}); err != nil {
		t.Errorf("after the first call: %v", err)
	}
}

func TestACallerWhoHangsUpDoesNotEndTheFunction(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	finished := false
	s := &script{run: []func(context.Context, *lambda.Invocation) (*lambda.Result, error){func(run context.Context, inv *lambda.Invocation) (*lambda.Result, error) {
		hangUp()
		finished = run.Err() == nil
		return echo(run, inv)
	}}}
	if _, err := newService(t, 1, s).Invoke(ctx, f, &lambda.Invocation{}); err != nil || !finished {
		t.Errorf("error %v, finished %v", err, finished)
	}
}

func TestDryRunOnlyResolves(t *testing.T) {
	s := &script{}
	service := newService(t, 1, s)
	if err := service.Check(t.Context(), f); err != nil {
		t.Error(err)
	}
	if err := service.Check(t.Context(), lambda.FunctionReference{Name: "g"}); lambda.KindOf(err) != lambda.NotFound {
		t.Errorf("an unknown function: %v", err)
	}
}
