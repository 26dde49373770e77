package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloister/artifact"
	"cloister/internal/seal"
	"cloister/lambda"
	"cloister/placement"
)

// hands makes environments that end when they are told to, unless it fails.
type hands struct {
	gone chan struct{}
	err  error
	seen func(lambda.EnvironmentSpec) // during Create; may be nil
}

func (h *hands) Create(_ context.Context, spec lambda.EnvironmentSpec) (placement.Environment, error) {
	if h.seen != nil {
		h.seen(spec)
	}
	return h, h.err
}
func (h *hands) ID() string { return "environment" }
func (h *hands) Invoke(context.Context, *lambda.Invocation) (*lambda.Result, error) {
	return nil, errors.New("not invoked here")
}
func (h *hands) Destroy(context.Context) error { return nil }
func (h *hands) Gone() <-chan struct{}         { return h.gone }

// diary counts log events.
type diary struct{ events int }

func (d *diary) Append(_ context.Context, _, _, _ string, events []lambda.LogEvent) (int, error) {
	d.events += len(events)
	return 0, nil
}

func testOrders(t *testing.T, h *hands) (*orders, *diary, *artifact.Store, *bytes.Buffer) {
	t.Helper()
	directory := t.TempDir()
	root, err := seal.LoadOrCreate(filepath.Join(directory, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := artifact.Open(artifact.Config{Directory: filepath.Join(directory, "artifacts"), Root: root})
	if err != nil {
		t.Fatal(err)
	}
	log, d := new(bytes.Buffer), new(diary)
	return newOrders(ordersConfig{workers: h, artifacts: store, logs: d, names: root.Key("log streams"), logger: slog.New(slog.NewTextHandler(log, nil))}), d, store, log
}

func order(o *orders) lambda.EnvironmentSpec {
	v := lambda.Version{ID: lambda.VersionID{AccountID: "111111111111", FunctionName: "f", Version: "$LATEST"}, LogGroup: "/aws/lambda/f"}
	return lambda.EnvironmentSpec{Version: v, LogStream: o.streamName(&v)}
}

// writes tries to append to the order's stream, changed.
func (o *orders) writes(spec lambda.EnvironmentSpec, change func(*logStream)) error {
	s := logStream{spec.Version.ID.AccountID, spec.Version.LogGroup, spec.LogStream}
	change(&s)
	_, err := o.Append(context.Background(), s.accountID, s.group, s.stream, []lambda.LogEvent{{Message: "line"}})
	return err
}

func same(*logStream) {}

func TestAWorkerWritesOnlyTheLogOfEnvironmentsThatItWasOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hands{gone: make(chan struct{})}
		o, d, _, log := testOrders(t, h)
		mine, notYet := order(o), order(o)
		time.Sleep(lateLogs) // no earlier front's environments are left
		h.seen = func(lambda.EnvironmentSpec) {
			if err := o.writes(mine, same); err != nil {
				t.Errorf("while it is made: %v", err)
			}
		}
		if _, err := o.Create(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
		if err := o.writes(mine, same); err != nil || d.events != 2 {
			t.Errorf("its own stream: %v, %d events", err, d.events)
		}
		for name, change := range map[string]func(*logStream){
			"another account's stream": func(s *logStream) { s.accountID = "222222222222" },
			"another group":            func(s *logStream) { s.group = "/aws/lambda/victim" },
			"another stream":           func(s *logStream) { s.stream = notYet.LogStream },
			"a stream of its own":      func(s *logStream) { s.stream = "2026/11/23/[$LATEST]00" },
			"no stream":                func(s *logStream) { s.stream = "" },
		} {
			if err := o.writes(mine, change); lambda.KindOf(err) != lambda.AccessDenied {
				t.Errorf("%s: %v, want AccessDenied", name, err)
			}
		}
		if d.events != 2 {
			t.Errorf("%d events arrived, want 2", d.events)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("five refusals at once were logged %d times", n)
		}
		close(h.gone)
		synctest.Wait()
		time.Sleep(lateLogs - time.Second)
		if err := o.writes(mine, same); err != nil {
			t.Errorf("its last lines: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := o.writes(mine, same); lambda.KindOf(err) != lambda.AccessDenied || len(o.streams) != 0 {
			t.Errorf("long after its end: %v, %d streams", err, len(o.streams))
		}
	})
}

func TestTheLastLinesOfAnEarlierFrontsEnvironmentsArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, d, _, _ := testOrders(t, &hands{gone: make(chan struct{})})
		earlier := order(o) // as if ordered by a front before this one: same root key
		for name, change := range map[string]func(*logStream){
			"another account": func(s *logStream) { s.accountID = "222222222222" },
			"another group":   func(s *logStream) { s.group = "/aws/lambda/victim" },
			"another mark":    func(s *logStream) { s.stream = s.stream[:len(s.stream)-1] + "x" },
			"another name":    func(s *logStream) { s.stream = "1" + s.stream },
			"only a mark":     func(s *logStream) { s.stream = s.stream[len(s.stream)-markDigits:] },
		} {
			if err := o.writes(earlier, change); lambda.KindOf(err) != lambda.AccessDenied {
				t.Errorf("%s: %v, want AccessDenied", name, err)
			}
		}
		if err := o.writes(earlier, same); err != nil || d.events != 1 {
			t.Errorf("last lines: %v, %d events", err, d.events)
		}
		time.Sleep(lateLogs)
		if err := o.writes(earlier, same); lambda.KindOf(err) != lambda.AccessDenied {
			t.Errorf("minutes later: %v, want AccessDenied", err)
		}
	})
}

func TestAGrantEndsWhenItsOrderIsAnswered(t *testing.T) {
	for name, err := range map[string]error{"made": nil, "failed": errors.New("no room")} {
		t.Run(name, func(t *testing.T) {
			h := &hands{gone: make(chan struct{}), err: err}
			defer close(h.gone)
			o, _, store, _ := testOrders(t, h)
			a, _, _, err := store.PutZip(t.Context(), "111111111111", smallZip(t))
			if err != nil {
				t.Fatal(err)
			}
			spec := order(o)
			if spec.Grant, err = store.Grant(a, "worker", time.Minute); err != nil {
				t.Fatal(err)
			}
			if _, got := o.Create(t.Context(), spec); (got == nil) != (h.err == nil) {
				t.Errorf("Create gave %v", got)
			}
			if _, err := store.Redeem(t.Context(), spec.Grant, "worker"); lambda.KindOf(err) != lambda.AccessDenied {
				t.Errorf("redeemed after the answer: %v, want AccessDenied", err)
			}
		})
	}
}

func smallZip(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	if _, err := w.Create("app.py"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
