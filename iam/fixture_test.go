package iam

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/internal/seal"
	"cloister/store"
	"cloister/store/sqlite"
)

// A house is a directory on a real store, with a clock that stands until it is moved.
type house struct {
	*Directory
	t      testing.TB
	server *Server
	path   string
	root   *seal.Key
	store  store.Store
	clock  time.Time
	admin  Administrator
}

func newHouse(t testing.TB) *house {
	t.Helper()
	root, err := seal.NewKey(seal.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, path: filepath.Join(t.TempDir(), "meta.db"), root: root, clock: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	h.open()
	t.Cleanup(func() { h.store.Close() })
	return h
}

// open opens the store and reads the directory from it.
func (h *house) open() {
	h.t.Helper()
	opened, err := sqlite.Open(sqlite.Config{Path: h.path, Key: h.root.Derive("store")})
	if err != nil {
		h.t.Fatal(err)
	}
	h.store = opened
	h.Directory, err = New(Config{Store: h.store, SessionKey: h.root.Derive("session tokens"), Now: func() time.Time { return h.clock }})
	if err != nil {
		h.t.Fatal(err)
	}
	if h.admin, err = h.Bootstrap(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.server = h.Server()
}

// restart closes everything and opens it again.
func (h *house) restart() {
	h.t.Helper()
	if err := h.store.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

// as returns a context of a call by the caller.
func as(c Caller) context.Context {
	return api.WithCall(context.Background(), callOf(c))
}

func callOf(c Caller) *api.Call {
	return &api.Call{AccountID: c.AccountID, CallerARN: c.ARN, CallerID: c.UserID, Region: "us-east-1"}
}

// administrator returns the first user as a caller.
func (h *house) administrator() Caller {
	h.t.Helper()
	return h.callerOf(h.admin.AccessKeyID, "")
}

func (h *house) callerOf(accessKeyID, token string) Caller {
	h.t.Helper()
	c, err := h.Caller(h.t.Context(), accessKeyID, token)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// user makes a user with an access key and, unless it is empty, one inline policy.
func (h *house) user(name, document string) Caller {
	h.t.Helper()
	ctx := as(h.administrator())
	must[*iamapi.CreateUserResponse](h.t)(h.server.CreateUser(ctx, &iamapi.CreateUserRequest{UserName: &name}))
	key := must[*iamapi.CreateAccessKeyResponse](h.t)(h.server.CreateAccessKey(ctx, &iamapi.CreateAccessKeyRequest{UserName: &name}))
	if document != "" {
		h.putUserPolicy(name, document)
	}
	return h.callerOf(*key.AccessKey.AccessKeyId, "")
}

func (h *house) putUserPolicy(name, document string) {
	h.t.Helper()
	must[*api.Empty](h.t)(h.server.PutUserPolicy(as(h.administrator()),
		&iamapi.PutUserPolicyRequest{UserName: &name, PolicyName: new("inline"), PolicyDocument: &document}))
}

// role makes a role with a trust policy whose Principal is given.
func (h *house) role(name, principal string) *iamapi.Role {
	h.t.Helper()
	out := must[*iamapi.CreateRoleResponse](h.t)(h.server.CreateRole(as(h.administrator()),
		&iamapi.CreateRoleRequest{RoleName: &name, AssumeRolePolicyDocument: new(trusting(principal))}))
	return out.Role
}

func (h *house) putRolePolicy(name, document string) {
	h.t.Helper()
	must[*api.Empty](h.t)(h.server.PutRolePolicy(as(h.administrator()),
		&iamapi.PutRolePolicyRequest{RoleName: &name, PolicyName: new("inline"), PolicyDocument: &document}))
}

func trusting(principal string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":` + principal + `}}`
}

const trustLambda = `{"Service":"lambda.amazonaws.com"}`

// doc returns an identity policy with one statement.
func doc(effect, action, resource string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"` + effect + `","Action":"` + action + `","Resource":"` + resource + `"}]}`
}

// wantFault checks code, status and text of an error.
func wantFault(t testing.TB, what string, err error, code string, status int, message string) {
	t.Helper()
	var fault api.Fault
	if !errors.As(err, &fault) {
		t.Errorf("%s: got %v, want %s", what, err, code)
		return
	}
	if fault.ErrorCode() != code || fault.HTTPStatus() != status || fault.Error() != code+": "+message {
		t.Errorf("%s:\n got %d %v\nwant %d %s: %s", what, fault.HTTPStatus(), err, status, code, message)
	}
}

// filesContain says whether a text is in any file of the store.
func (h *house) filesContain(text string) bool {
	h.t.Helper()
	files, err := filepath.Glob(h.path + "*")
	if err != nil || len(files) == 0 {
		h.t.Fatalf("no files of the store: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			return true
		}
	}
	return false
}
