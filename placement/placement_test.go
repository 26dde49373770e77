package placement

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloister/lambda"
)

// host is a worker by hand: room for so many environments, each refusing a second event at once.
type host struct {
	room int

	mu   sync.Mutex
	live map[*cell]bool
	made int
}

func (h *host) Create(_ context.Context, spec lambda.EnvironmentSpec) (Environment, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.live) >= h.room {
		return nil, &lambda.Error{Kind: lambda.Capacity, Op: "create"}
	}
	h.made++
	c := &cell{host: h, id: fmt.Sprint(h.made), version: spec.Version.ID, gone: make(chan struct{})}
	h.live[c] = true
	return c, nil
}

func (h *host) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.live)
}

type cell struct {
	host    *host
	id      string
	version lambda.VersionID
	busy    atomic.Bool
	once    sync.Once
	gone    chan struct{}
}

func (c *cell) ID() string            { return c.id }
func (c *cell) Gone() <-chan struct{} { return c.gone }
func (c *cell) Invoke(context.Context, *lambda.Invocation) (*lambda.Result, error) {
	if !c.busy.CompareAndSwap(false, true) {
		panic("two invocations at once in one environment")
	}
	time.Sleep(10 * time.Microsecond)
	c.busy.Store(false)
	return &lambda.Result{ExecutedVersion: c.version.Version}, nil
}
func (c *cell) Destroy(context.Context) error {
	c.once.Do(func() {
		c.host.mu.Lock()
		delete(c.host.live, c)
		c.host.mu.Unlock()
		close(c.gone)
	})
	return nil
}

type provisioner struct{ now func() time.Time }

func (p provisioner) Provision(_ context.Context, v *lambda.Version) (lambda.EnvironmentSpec, error) {
	return lambda.EnvironmentSpec{Version: *v, Credentials: lambda.Credentials{Expiration: p.now().Add(time.Hour)}}, nil
}

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func newPool(t *testing.T, room int) (*Pool, *host, *clock) {
	t.Helper()
	h, c := &host{room: room, live: map[*cell]bool{}}, new(clock)
	p, err := New(Config{Worker: h, Provisioner: provisioner{c.now}, Logger: slog.New(slog.DiscardHandler), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return p, h, c
}

func version(name, configuration string) *lambda.Version {
	return &lambda.Version{ID: lambda.VersionID{AccountID: "1", FunctionName: name, Version: lambda.LatestVersion, Configuration: configuration}, Timeout: 3 * time.Second}
}

func assign(t *testing.T, p *Pool, v *lambda.Version) *Assignment {
	t.Helper()
	a, err := p.Assign(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// eventually waits for what the pool does in the background.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal(what)
}

func TestTheEnvironmentUsedLastIsTakenFirst(t *testing.T) {
	p, _, _ := newPool(t, 10)
	v := version("f", "1")
	a, b := assign(t, p, v), assign(t, p, v)
	p.Release(a)
	p.Release(b)
	if got := assign(t, p, v); got != b {
		t.Errorf("got %s, want %s", got.ID(), b.ID())
	}
}

func TestAnEnvironmentNeverServesAnotherVersionOrConfiguration(t *testing.T) {
	p, _, _ := newPool(t, 10)
	first := assign(t, p, version("f", "1"))
	p.Release(first)
	for _, v := range []*lambda.Version{version("f", "2"), version("g", "1")} {
		if got := assign(t, p, v); got == first || got.version != v.ID {
			t.Errorf("version %v got an environment of %v", v.ID, got.version)
		}
	}
}

func TestOneEnvironmentServesOneInvocationAtATime(t *testing.T) {
	p, h, _ := newPool(t, 16)
	v := version("f", "1")
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 200 {
				a, err := p.Assign(t.Context(), v)
				if err != nil {
					t.Error(err)
					return
				}
				a.Invoke(t.Context(), nil) // panics if it is busy
				p.Release(a)
			}
		})
	}
	all.Wait()
	if h.made > 16 {
		t.Errorf("%d environments were made for 16 callers", h.made)
	}
}

func TestWhenThereIsNoRoomTheLongestIdleMakesWay(t *testing.T) {
	p, h, c := newPool(t, 2)
	old := assign(t, p, version("old", "1"))
	p.Release(old)
	c.advance(time.Second)
	young := assign(t, p, version("young", "1"))
	p.Release(young)
	assign(t, p, version("new", "1"))
	select {
	case <-old.Gone():
	default:
		t.Error("the longest idle environment was kept")
	}
	if h.count() != 2 {
		t.Errorf("%d environments live, want 2", h.count())
	}
	assign(t, p, version("young", "1"))
	if _, err := p.Assign(t.Context(), version("more", "1")); lambda.KindOf(err) != lambda.Throttled {
		t.Errorf("with all environments in use: %v, want throttled", err)
	}
}

func TestIdleAndExpiredEnvironmentsEnd(t *testing.T) {
	p, h, c := newPool(t, 10)
	v := version("f", "1")
	p.Release(assign(t, p, v))
	c.advance(9 * time.Minute)
	p.Sweep()
	p.Release(assign(t, p, v))
	if h.made != 1 {
		t.Fatal("an environment ended before its idle time was over")
	}
	c.advance(11 * time.Minute)
	p.Sweep()
	eventually(t, "an idle environment was kept", func() bool { return h.count() == 0 })

	p.Release(assign(t, p, v))
	c.advance(time.Hour - time.Second) // its credentials end within the timeout of an event
	if assign(t, p, v); h.made != 3 {
		t.Error("an environment took an event that its credentials may not outlive")
	}
}

func TestADeadOrRetiredEnvironmentIsNotUsed(t *testing.T) {
	p, h, _ := newPool(t, 10)
	v := version("f", "1")
	a := assign(t, p, v)
	p.Release(a)
	a.Destroy(t.Context())
	b := assign(t, p, v)
	if b == a {
		t.Fatal("a dead environment was handed out")
	}
	p.Release(b)
	inUse := assign(t, p, v)
	p.Release(assign(t, p, v))
	p.Retire(v.ID)
	eventually(t, "an idle environment of a retired version was kept", func() bool { return h.count() == 1 })
	p.Release(inUse)
	eventually(t, "a retired environment was kept after its last event", func() bool { return h.count() == 0 })
}

func TestAnEnvironmentThatIsStillFinishingIsLeftAlone(t *testing.T) {
	p, h, c := newPool(t, 10)
	v := version("f", "1")
	busy := assign(t, p, v)
	p.Defer(busy)
	other := assign(t, p, v)
	if other == busy || h.made != 2 {
		t.Fatal("a busy environment was handed out at once")
	}
	c.advance(time.Second)
	if got := assign(t, p, v); got != busy || h.made != 2 {
		t.Error("an environment that was busy a second ago was not used again")
	}
}

func TestCloseEndsEverythingIdleAndWhatComesBack(t *testing.T) {
	p, h, _ := newPool(t, 10)
	v := version("f", "1")
	a, b := assign(t, p, v), assign(t, p, v)
	p.Release(a)
	p.Close(t.Context())
	p.Release(b)
	eventually(t, "an environment outlived the pool", func() bool { return h.count() == 0 })
}
