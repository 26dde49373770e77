package control

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/internal/seal"
	"cloister/lambda"
	"cloister/store"
	"cloister/store/sqlite"

	"github.com/google/go-cmp/cmp"
)

const (
	account = "111111111111"
	region  = "us-east-1"
	role    = "arn:aws:iam::111111111111:role/runner"
)

// A house is a Server with its neighbours: the real store, the others by hand.
type house struct {
	*Server
	t    *testing.T
	path string
	key  *seal.Key
	stop func() // ends Run and closes the store

	mu       sync.Mutex
	prepare  func(ctx context.Context, runtime string) error // nil: ready at once
	roleErr  error                                           // of CheckExecutionRole
	passErr  error
	passed   []string // roles
	retired  []lambda.VersionID
	packages int // stored
}

// newHouse opens a house in a fresh directory, with Run running.
func newHouse(t *testing.T) *house {
	h := newQuietHouse(t)
	h.run()
	return h
}

// newQuietHouse is newHouse without Run: nothing leaves Pending.
func newQuietHouse(t *testing.T) *house {
	t.Helper()
	key, err := seal.NewKey(seal.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, path: filepath.Join(t.TempDir(), "meta.db"), key: key}
	h.open()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *house) open() {
	h.t.Helper()
	engine, err := sqlite.Open(sqlite.Config{Path: h.path, Key: h.key, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.stop = func() { engine.Close() }
	h.Server, err = New(Config{Store: engine, Artifacts: h, Roles: h, Runtimes: h, Environments: h,
		Region: region, Architecture: "x86_64", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.retry = time.Millisecond
}

func (h *house) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done, closeStore := make(chan struct{}), h.stop
	go func() {
		defer close(done)
		h.Server.Run(ctx)
	}()
	h.stop = func() {
		cancel()
		<-done
		closeStore()
	}
}

// restart closes everything and opens it again on the same file, with Run running.
func (h *house) restart() {
	h.t.Helper()
	h.stop()
	h.open()
	h.run()
}

func (h *house) PutZip(_ context.Context, owner string, data []byte) (lambda.Artifact, string, int64, error) {
	if _, err := zip.NewReader(bytes.NewReader(data), int64(len(data))); err != nil {
		return lambda.Artifact{}, "", 0, lambda.Errorf(lambda.InvalidParameter, "check zip",
			"Could not unzip uploaded file. Please check your file, then try to upload again.")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.packages++
	sum := sha256.Sum256(data)
	return lambda.Artifact{ID: hex.EncodeToString(sum[:]), Size: 4096, Owner: owner}, base64.StdEncoding.EncodeToString(sum[:]), int64(len(data)), nil
}

func (h *house) CheckExecutionRole(_ context.Context, accountID, roleARN string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.roleErr
}

func (h *house) PassRole(_ context.Context, call *api.Call, roleARN string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed = append(h.passed, roleARN)
	return h.passErr
}

func (h *house) Check(_ context.Context, identifier string) (string, error) {
	if !slices.Contains([]string{"python3.11", "nodejs20.x", "provided.al2023"}, identifier) {
		return "", lambda.Errorf(lambda.InvalidParameter, "check runtime", "The runtime parameter of %s is no longer supported for creating or updating "+
			"AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions.", identifier)
	}
	return "arn:aws:lambda:us-east-1::runtime:" + hex.EncodeToString([]byte(identifier)), nil
}

func (h *house) Prepare(ctx context.Context, identifier string) error {
	h.mu.Lock()
	prepare := h.prepare
	h.mu.Unlock()
	if prepare == nil {
		return nil
	}
	return prepare(ctx, identifier)
}

func (h *house) Retire(_ context.Context, id lambda.VersionID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.retired = append(h.retired, id)
}

// preparing sets what Prepare does from now on.
func (h *house) preparing(do func(ctx context.Context, runtime string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.prepare = do
}

func (h *house) retirements() []lambda.VersionID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.retired)
}

// retires waits until exactly these versions were retired. It happens after the commit that others see.
func (h *house) retires(want ...lambda.VersionID) {
	h.t.Helper()
	waitFor(h.t, "retirement", func() bool { return len(h.retirements()) >= len(want) })
	if diff := cmp.Diff(want, h.retirements()); diff != "" {
		h.t.Errorf("retired (-want +got):\n%s", diff)
	}
}

// waitFor polls until the condition holds.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

// as is the context of a call by that account.
func as(accountID string) context.Context {
	return api.WithCall(context.Background(), &api.Call{RequestID: "request-1", Region: region, AccountID: accountID,
		CallerARN: "arn:aws:iam::" + accountID + ":user/test"})
}

// me is the context of the test's own account.
var me = as(account)

// zipOf is a package with one file of that text.
func zipOf(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("index.py")
	if err == nil {
		_, err = f.Write([]byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newFunction is a request that creates name.
func (h *house) newFunction(name string) *lambdaapi.CreateFunctionRequest {
	return &lambdaapi.CreateFunctionRequest{FunctionName: new(name), Runtime: new("python3.11"), Handler: new("index.handler"),
		Role: new(role), Code: &lambdaapi.FunctionCode{ZipFile: zipOf(h.t, "1")}}
}

// create makes a function and waits until it is active.
func (h *house) create(name string) *lambdaapi.FunctionConfiguration {
	h.t.Helper()
	if _, err := h.CreateFunction(me, h.newFunction(name)); err != nil {
		h.t.Fatal(err)
	}
	return h.settled(name)
}

// publish makes the next version of name.
func (h *house) publish(name string) *lambdaapi.FunctionConfiguration {
	h.t.Helper()
	out, err := h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new(name)})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// describe sets the description of name and waits until the update is through.
func (h *house) describe(name, description string) *lambdaapi.FunctionConfiguration {
	h.t.Helper()
	_, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new(name), Description: new(description)})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.settled(name)
}

// get is GetFunctionConfiguration, which must succeed.
func (h *house) get(name, qualifier string) *lambdaapi.FunctionConfiguration {
	h.t.Helper()
	in := &lambdaapi.GetFunctionConfigurationRequest{FunctionName: new(name)}
	if qualifier != "" {
		in.Qualifier = new(qualifier)
	}
	out, err := h.GetFunctionConfiguration(me, in)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// settled waits until name is neither Pending nor InProgress.
func (h *house) settled(name string) *lambdaapi.FunctionConfiguration {
	h.t.Helper()
	var c *lambdaapi.FunctionConfiguration
	waitFor(h.t, name+" to settle", func() bool {
		c = h.get(name, "")
		return *c.State != lambdaapi.StatePending && value(c.LastUpdateStatus) != lambdaapi.LastUpdateStatusInProgress
	})
	return c
}

// runs is what Resolve says of the function in the test's account.
func (h *house) runs(name, qualifier string) (lambda.Version, error) {
	v, err := h.Resolve(me, lambda.FunctionReference{Region: region, AccountID: account, Name: name, Qualifier: qualifier})
	if err != nil {
		return lambda.Version{}, err
	}
	return *v, nil
}

// objects counts what the store holds of a kind.
func (h *house) objects(kind, accountID string) int {
	h.t.Helper()
	found, err := h.store.List(context.Background(), kind, accountID, "", store.Page{Limit: store.MaxPageLimit})
	if err != nil {
		h.t.Fatal(err)
	}
	return len(found)
}

// refusedBelow checks kind and message of an error that a neighbour made, which package gateway words for
// clients.
func refusedBelow(t *testing.T, err error, kind lambda.Kind, message string) {
	t.Helper()
	e, ok := errors.AsType[*lambda.Error](err)
	if _, isFault := errors.AsType[api.Fault](err); isFault || !ok || e.Kind != kind || e.Message != message {
		t.Errorf("got %v, want %s: %s", err, kind, message)
	}
}

// refused checks code, status and message of an error.
func refused(t *testing.T, err error, code string, status int, message string) {
	t.Helper()
	fault, ok := errors.AsType[api.Fault](err)
	if !ok {
		t.Fatalf("got %v, want %s", err, code)
	}
	if fault.ErrorCode() != code || fault.HTTPStatus() != status {
		t.Errorf("got %s %d, want %s %d", fault.ErrorCode(), fault.HTTPStatus(), code, status)
	}
	if got := strings.TrimPrefix(fault.Error(), code+": "); got != message {
		t.Errorf("message\n got %s\nwant %s", got, message)
	}
}
