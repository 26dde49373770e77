package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/artifact"
	"cloister/control"
	"cloister/internal/seal"
	"cloister/lambda"
	"cloister/store/sqlite"
	"cloister/test/service"
)

const accountID = "111111111111"

// An office is control plane, state and artifacts as the front joins them, without processes around it.
type office struct {
	t         testing.TB
	control   *control.Server
	artifacts *artifact.Store

	broken atomic.Bool // whether runtimes cannot be prepared, so that updates fail and the code before goes on

	mu  sync.Mutex
	now time.Time // guarded by mu; the clock of the artifacts, the real one if zero
}

func (o *office) Prepare(context.Context, string) error {
	if o.broken.Load() {
		return lambda.Errorf(lambda.InvalidRuntime, "prepare", "broken")
	}
	return nil
}

// distinct counts the images and the packages that control names.
func (o *office) distinct(t testing.TB) int {
	all := map[string]bool{}
	err := o.names(context.Background(), func(a lambda.Artifact, sha256 string) { all["image "+a.ID], all["zip "+sha256] = true, true })
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func (o *office) CheckExecutionRole(context.Context, string, string) error { return nil }
func (o *office) PassRole(context.Context, *api.Call, string) error        { return nil }
func (o *office) Check(context.Context, string) (string, error) {
	return "arn:aws:lambda:us-east-1::runtime:x", nil
}
func (o *office) Retire(context.Context, lambda.VersionID) { o.artifacts.Dropped() }
func (o *office) names(ctx context.Context, k func(lambda.Artifact, string)) error {
	return o.control.EachCode(ctx, []string{accountID}, k)
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.now.IsZero() {
		return time.Now()
	}
	return o.now
}

func (o *office) pass(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = o.now.Add(d)
}

// openOffice opens it with the control plane's work going on.
func openOffice(t testing.TB, directory string, grace time.Duration, now time.Time) (o *office, stop func()) {
	t.Helper()
	root, err := seal.LoadOrCreate(filepath.Join(directory, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	engine, err := sqlite.Open(sqlite.Config{Path: filepath.Join(directory, "meta.db"), Key: root.Key("store"), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	o = &office{t: t, now: now}
	if o.artifacts, err = artifact.Open(artifact.Config{Directory: filepath.Join(directory, "artifacts"), Root: root, Now: o.clock, Grace: grace, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	o.control, err = control.New(control.Config{Store: engine, Artifacts: o.artifacts, Roles: o, Runtimes: o, Environments: o, Region: "us-east-1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { o.control.Run(ctx) })
	return o, func() {
		cancel()
		running.Wait()
		engine.Close()
	}
}

// call runs one operation in a context that never ends, as the gateway does: control itself must say when code
// is named.
func call[In, Out any](operation func(context.Context, *In) (*Out, error), in *In) (*Out, error) {
	return operation(api.WithCall(context.Background(), &api.Call{AccountID: accountID}), in)
}

func codeZip(t testing.TB, content string) []byte {
	b, err := service.Zip(map[string][]byte{"app.py": []byte(content)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (o *office) create(name, content string, publish bool) error {
	_, err := call(o.control.CreateFunction, &lambdaapi.CreateFunctionRequest{
		FunctionName: &name, Runtime: new("python3.11"), Handler: new("app.handler"), Role: new("arn:aws:iam::" + accountID + ":role/r"),
		Code: &lambdaapi.FunctionCode{ZipFile: codeZip(o.t, content)}, Publish: &publish,
	})
	return err
}

func (o *office) update(name, content string, publish, dry bool) error {
	_, err := call(o.control.UpdateFunctionCode, &lambdaapi.UpdateFunctionCodeRequest{
		FunctionName: &name, ZipFile: codeZip(o.t, content), Publish: &publish, DryRun: &dry,
	})
	return err
}

// settled waits until no function is being prepared.
func (o *office) settled() error {
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(time.Millisecond) {
		list, err := call(o.control.ListFunctions, &lambdaapi.ListFunctionsRequest{})
		if err != nil {
			return err
		}
		busy := false
		for _, f := range list.Functions {
			got, err := call(o.control.GetFunctionConfiguration, &lambdaapi.GetFunctionConfigurationRequest{FunctionName: f.FunctionName})
			busy = busy || err == nil && (*got.State == lambdaapi.StatePending || got.LastUpdateStatus == nil || *got.LastUpdateStatus == lambdaapi.LastUpdateStatusInProgress)
		}
		if !busy {
			return nil
		}
	}
	return errors.New("a function stays in preparation")
}

// whole reads the code of everything that can be invoked or downloaded, as a worker and as an owner would.
func (o *office) whole() error {
	list, err := call(o.control.ListFunctions, &lambdaapi.ListFunctionsRequest{FunctionVersion: new("ALL")})
	if err != nil {
		return err
	}
	for _, f := range list.Functions {
		ref := lambda.FunctionReference{Region: "us-east-1", AccountID: accountID, Name: *f.FunctionName, Qualifier: *f.Version}
		v, err := o.control.Resolve(context.Background(), ref)
		if err == nil {
			err = o.readImage(v.Code)
		}
		if err = errors.Join(err, o.readZip(*f.CodeSha256)); err != nil && lambda.KindOf(err) != lambda.NotReady {
			return fmt.Errorf("%s:%s: %w", *f.FunctionName, *f.Version, err)
		}
	}
	return nil
}

func (o *office) readImage(a lambda.Artifact) error {
	grant, err := o.artifacts.Grant(a, "worker", time.Minute)
	if err != nil {
		return err
	}
	s, err := o.artifacts.Redeem(context.Background(), grant, "worker")
	if err != nil {
		return err
	}
	r, err := s.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return artifact.Unseal(io.Discard, r, s.Key, a)
}

func (o *office) readZip(sha256 string) error {
	z, _, err := o.artifacts.OpenZip(context.Background(), accountID, sha256)
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = io.Copy(io.Discard, z)
	return err
}

// runs reads the code that an invocation gets once the version is active.
func (o *office) runs(name, version string) error {
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(time.Millisecond) {
		is, err := call(o.control.GetFunctionConfiguration, &lambdaapi.GetFunctionConfigurationRequest{FunctionName: &name, Qualifier: &version})
		if err != nil {
			return err
		}
		if *is.State != lambdaapi.StateActive || *is.LastUpdateStatus == lambdaapi.LastUpdateStatusInProgress {
			continue
		}
		v, err := o.control.Resolve(context.Background(), lambda.FunctionReference{Region: "us-east-1", AccountID: accountID, Name: name, Qualifier: version})
		if err != nil {
			return err
		}
		return errors.Join(o.readImage(v.Code), o.readZip(*is.CodeSha256))
	}
	return errors.New("it does not become active")
}

// files counts what lies in the artifact store.
func files(t testing.TB, directory string) int {
	found, err := filepath.Glob(filepath.Join(directory, "artifacts", "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// Any history of deployments, with looks and restarts in between: all code that can be invoked is there, and
// in the end nothing else.
func TestCodeIsKeptAsLongAsAVersionNeedsItAndNoLonger(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		directory, grace := t.TempDir(), time.Hour
		o, stop := openOffice(t, directory, grace, time.Unix(1_800_000_000, 0))
		defer func() { stop() }()
		name := func(r *rapid.T) string { return rapid.SampledFrom([]string{"f", "g", "h"}).Draw(r, "function") }
		content := func(r *rapid.T) string { return rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(r, "content") }
		look := func() {
			if _, _, err := o.artifacts.Collect(context.Background(), o.names); err != nil {
				r.Fatal(err)
			}
		}
		// Operations may be refused, as the function is missing or there, or being prepared.
		steps := map[string]func(*rapid.T){
			"create":  func(r *rapid.T) { o.create(name(r), content(r), rapid.Bool().Draw(r, "publish")) },
			"update":  func(r *rapid.T) { o.update(name(r), content(r), rapid.Bool().Draw(r, "publish"), false) },
			"dry run": func(r *rapid.T) { o.update(name(r), content(r), false, true) },
			"publish": func(r *rapid.T) {
				call(o.control.PublishVersion, &lambdaapi.PublishVersionRequest{FunctionName: new(name(r))})
			},
			"delete": func(r *rapid.T) {
				call(o.control.DeleteFunction, &lambdaapi.DeleteFunctionRequest{FunctionName: new(name(r))})
			},
			"delete version": func(r *rapid.T) {
				call(o.control.DeleteFunction, &lambdaapi.DeleteFunctionRequest{FunctionName: new(name(r)), Qualifier: new(fmt.Sprint(rapid.IntRange(1, 3).Draw(r, "version")))})
			},
			"settle": func(r *rapid.T) {
				if err := o.settled(); err != nil {
					r.Fatal(err)
				}
			},
			"wait": func(r *rapid.T) { o.pass(time.Duration(rapid.IntRange(1, 80).Draw(r, "minutes")) * time.Minute) },
			"look": func(*rapid.T) { look() },
			"look until all is collected": func(*rapid.T) {
				look()
				o.pass(grace)
				look()
			},
			"update that fails": func(r *rapid.T) {
				o.broken.Store(true)
				defer o.broken.Store(false)
				o.update(name(r), content(r), rapid.Bool().Draw(r, "publish"), false)
				if err := o.settled(); err != nil {
					r.Fatal(err)
				}
			},
			"restart": func(*rapid.T) {
				now := o.clock()
				stop()
				o, stop = openOffice(t, directory, grace, now)
			},
		}
		all := slices.Sorted(func(yield func(string) bool) {
			for n := range steps {
				if !yield(n) {
					return
				}
			}
		})
		for range rapid.IntRange(5, 40).Draw(r, "steps") {
			steps[rapid.SampledFrom(all).Draw(r, "step")](r)
			if err := o.whole(); err != nil {
				r.Fatalf("code that can be invoked: %v", err)
			}
		}
		if err := o.settled(); err != nil {
			r.Fatal(err)
		}
		left, want := 0, 0
		for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(time.Millisecond) {
			look()
			o.pass(grace)
			look()
			if left, want = files(t, directory), o.distinct(t); left == want {
				break // versions of a deleted function go a moment after it
			}
		}
		if err := o.whole(); err != nil {
			r.Fatalf("code that can be invoked: %v", err)
		}
		if left != want {
			r.Fatalf("%d files are left, want %d", left, want)
		}
	})
}

// With no grace at all, deployments and looks at the same time: what protects code then is only that its call
// still runs, and the order in which control names it.
func TestDeploymentsAndLooksAtTheSameTimeLoseNoCode(t *testing.T) {
	directory := t.TempDir()
	o, stop := openOffice(t, directory, time.Nanosecond, time.Time{})
	defer stop()
	ctx, end := context.WithCancel(t.Context())
	var looking, deploying sync.WaitGroup
	var removed, deployed atomic.Int64
	looking.Go(func() {
		for ctx.Err() == nil {
			n, _, err := o.artifacts.Collect(t.Context(), o.names)
			if removed.Add(int64(n)); err != nil {
				t.Error(err)
			}
		}
	})
	for worker := range 4 {
		deploying.Go(func() {
			name := fmt.Sprint("f", worker)
			for i := range 12 {
				content := fmt.Sprint((i + worker) % 3) // shared between functions
				err := o.create(name, content, i%2 == 0)
				for began := time.Now(); err == nil && time.Since(began) < 20*time.Second; time.Sleep(time.Millisecond) {
					if err = o.update(name, fmt.Sprint((i+worker+1)%3), true, false); err == nil {
						break
					}
					err = nil // it is being prepared
				}
				if err != nil {
					t.Error(err)
				}
				deployed.Add(1)
				for _, version := range []string{lambda.LatestVersion, "1"} {
					if err := o.runs(name, version); err != nil {
						t.Errorf("%s:%s: %v", name, version, err)
					}
				}
				if _, err := call(o.control.DeleteFunction, &lambdaapi.DeleteFunctionRequest{FunctionName: &name}); err != nil {
					t.Error(err)
				}
			}
			for { // the last one stays
				if err := o.create(name, "kept", false); err == nil {
					return
				}
			}
		})
	}
	deploying.Wait()
	end()
	looking.Wait()
	if err := o.whole(); err != nil || o.distinct(t) == 0 {
		t.Errorf("%d packages: %v", o.distinct(t), err)
	}
	if removed.Load() == 0 || deployed.Load() != 48 {
		t.Errorf("%d files were removed in %d deployments: the test shows nothing", removed.Load(), deployed.Load())
	}
}
