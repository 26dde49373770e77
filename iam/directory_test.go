package iam

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/iam/policy"
	"cloister/iam/sigv4"
	"cloister/store"
)

func TestTheFirstStartMakesAnAdministrator(t *testing.T) {
	h := newHouse(t)
	if !h.admin.Created || !regexp.MustCompile(`^[1-9]\d{11}$`).MatchString(h.admin.AccountID) ||
		!regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(h.admin.AccessKeyID) || len(h.admin.SecretAccessKey) != 40 {
		t.Errorf("administrator %+v", h.admin)
	}
	caller := h.administrator()
	if want := "arn:aws:iam::" + h.admin.AccountID + ":user/administrator"; caller.ARN != want || caller.AccountID != h.admin.AccountID {
		t.Errorf("caller %+v, want ARN %s", caller, want)
	}
	if err := h.Authorize(t.Context(), caller, Permission{Action: "anything:AtAll", Resource: "*"}); err != nil {
		t.Error(err)
	}
	secret, err := h.Secret(t.Context(), h.admin.AccessKeyID, "")
	if err != nil || secret != h.admin.SecretAccessKey {
		t.Errorf("secret %q, %v", secret, err)
	}
}

func TestALaterStartFindsEverything(t *testing.T) {
	h := newHouse(t)
	first := h.admin
	alice := h.user("alice", doc("Allow", "lambda:InvokeFunction", "*"))
	r := h.role("worker", `{"AWS":"`+alice.ARN+`","Service":"lambda.amazonaws.com"}`)
	h.putRolePolicy("worker", doc("Allow", "logs:*", "*"))
	p := must[*iamapi.CreatePolicyResponse](t)(h.server.CreatePolicy(as(h.administrator()),
		&iamapi.CreatePolicyRequest{PolicyName: new("own"), PolicyDocument: new(doc("Allow", "s3:*", "*"))}))
	must[*api.Empty](t)(h.server.AttachRolePolicy(as(h.administrator()), &iamapi.AttachRolePolicyRequest{RoleName: new("worker"), PolicyArn: p.Policy.Arn}))
	credentials, err := h.RoleCredentials(t.Context(), *r.Arn, "function", time.Hour)
	if err != nil {
		t.Fatal(err)
	}

	h.restart()
	if first.Created = false; h.admin != first {
		t.Errorf("got %+v, want %+v", h.admin, first)
	}
	session := h.callerOf(credentials.AccessKeyID, credentials.SessionToken)
	for _, c := range []struct {
		caller Caller
		action string
		want   bool
	}{
		{alice, "lambda:InvokeFunction", true}, {alice, "logs:PutLogEvents", false},
		{session, "logs:PutLogEvents", true}, {session, "s3:GetObject", true}, {session, "lambda:InvokeFunction", false},
	} {
		if err := h.Authorize(t.Context(), c.caller, Permission{Action: c.action, Resource: "*"}); (err == nil) != c.want {
			t.Errorf("%s %s: %v", c.caller.ARN, c.action, err)
		}
	}
	got := must[*iamapi.GetRoleResponse](t)(h.server.GetRole(as(h.administrator()), &iamapi.GetRoleRequest{RoleName: new("WORKER")}))
	if diff := cmp.Diff(r.RoleId, got.Role.RoleId); diff != "" {
		t.Error(diff)
	}
	if err := h.Authorize(t.Context(), alice, Permission{Action: "sts:AssumeRole", Resource: *r.Arn}); err != nil {
		t.Errorf("the trust in a user is lost: %v", err)
	}
}

func TestDeletedKeysOfTheAdministratorAreNotMadeAgain(t *testing.T) {
	h := newHouse(t)
	must[*api.Empty](t)(h.server.DeleteAccessKey(as(h.administrator()), &iamapi.DeleteAccessKeyRequest{AccessKeyId: &h.admin.AccessKeyID}))
	want := Administrator{AccountID: h.admin.AccountID}
	h.restart()
	if h.admin != want {
		t.Errorf("got %+v, want %+v", h.admin, want)
	}
}

func TestNoSecretAndNoDocumentIsInTheClearOnDisk(t *testing.T) {
	h := newHouse(t)
	h.user("alice", doc("Allow", "lambda:InvokeFunction", "arn:aws:lambda:us-east-1:1:function:canary"))
	for _, canary := range []string{h.admin.SecretAccessKey, h.admin.AccessKeyID, "canary", "AdministratorAccess"} {
		if h.filesContain(canary) {
			t.Errorf("%q is on disk", canary)
		}
	}
	if !h.filesContain("alice") { // names are not sealed; this shows that the search finds something
		t.Error("the search finds nothing at all")
	}
}

func TestAChangedPolicyActsOnTheNextCall(t *testing.T) {
	h := newHouse(t)
	alice := h.user("alice", "")
	invoke := Permission{Action: "lambda:InvokeFunction", Resource: "arn:aws:lambda:us-east-1:" + h.admin.AccountID + ":function:f"}
	ctx, name := as(h.administrator()), new("alice")
	allowed := func(want bool, after string) {
		t.Helper()
		if err := h.Authorize(t.Context(), alice, invoke); (err == nil) != want {
			t.Errorf("after %s: %v", after, err)
		}
	}
	allowed(false, "nothing")
	h.putUserPolicy("alice", doc("Allow", "lambda:*", "*"))
	allowed(true, "an allow")
	h.putUserPolicy("alice", doc("Allow", "lambda:Get*", "*"))
	allowed(false, "another allow in its place")
	admin := new("arn:aws:iam::aws:policy/AdministratorAccess")
	must[*api.Empty](t)(h.server.AttachUserPolicy(ctx, &iamapi.AttachUserPolicyRequest{UserName: name, PolicyArn: admin}))
	allowed(true, "an attachment")
	h.putUserPolicy("alice", doc("Deny", "lambda:InvokeFunction", "*"))
	allowed(false, "a deny")
	must[*api.Empty](t)(h.server.DeleteUserPolicy(ctx, &iamapi.DeleteUserPolicyRequest{UserName: name, PolicyName: new("inline")}))
	allowed(true, "the end of the deny")
	must[*api.Empty](t)(h.server.DetachUserPolicy(ctx, &iamapi.DetachUserPolicyRequest{UserName: name, PolicyArn: admin}))
	allowed(false, "a detachment")
}

func TestAnInactiveOrDeletedKeySignsNoMore(t *testing.T) {
	h := newHouse(t)
	ctx, name := as(h.administrator()), new("alice")
	must[*iamapi.CreateUserResponse](t)(h.server.CreateUser(ctx, &iamapi.CreateUserRequest{UserName: name}))
	key := must[*iamapi.CreateAccessKeyResponse](t)(h.server.CreateAccessKey(ctx, &iamapi.CreateAccessKeyRequest{UserName: name})).AccessKey
	works := func(want bool, after string) {
		t.Helper()
		secret, err := h.Secret(t.Context(), *key.AccessKeyId, "")
		if want && (err != nil || secret != *key.SecretAccessKey) || !want && (!errors.Is(err, sigv4.ErrUnknownKey) || secret != "") {
			t.Errorf("after %s: %q, %v", after, secret, err)
		}
		if _, err := h.Caller(t.Context(), *key.AccessKeyId, ""); (err == nil) != want {
			t.Errorf("after %s: %v", after, err)
		}
	}
	works(true, "its creation")
	must[*api.Empty](t)(h.server.UpdateAccessKey(ctx, &iamapi.UpdateAccessKeyRequest{UserName: name, AccessKeyId: key.AccessKeyId, Status: new("Inactive")}))
	works(false, "deactivation")
	must[*api.Empty](t)(h.server.UpdateAccessKey(ctx, &iamapi.UpdateAccessKeyRequest{UserName: name, AccessKeyId: key.AccessKeyId, Status: new("Active")}))
	works(true, "activation")
	must[*api.Empty](t)(h.server.DeleteAccessKey(ctx, &iamapi.DeleteAccessKeyRequest{UserName: name, AccessKeyId: key.AccessKeyId}))
	works(false, "deletion")
	if _, err := h.Secret(t.Context(), h.admin.AccessKeyID, "a token"); !errors.Is(err, sigv4.ErrUnknownKey) {
		t.Errorf("the key of a user with a token: %v", err)
	}
}

func TestADeletedUserMayDoNothing(t *testing.T) {
	h := newHouse(t)
	admin := h.administrator()
	ctx := as(admin)
	must[*iamapi.CreateUserResponse](t)(h.server.CreateUser(ctx, &iamapi.CreateUserRequest{UserName: new("second")}))
	// The caller was found before the user goes.
	alice := Caller{admin.AccountID, "arn:aws:iam::" + admin.AccountID + ":user/second", h.state.Load().accounts[admin.AccountID].users["second"].ID}
	must[*api.Empty](t)(h.server.DeleteUser(ctx, &iamapi.DeleteUserRequest{UserName: new("second")}))
	must[*iamapi.CreateUserResponse](t)(h.server.CreateUser(ctx, &iamapi.CreateUserRequest{UserName: new("second")}))
	must[*api.Empty](t)(h.server.AttachUserPolicy(ctx, &iamapi.AttachUserPolicyRequest{UserName: new("second"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}))
	if err := h.Authorize(t.Context(), alice, Permission{Action: "lambda:ListFunctions", Resource: "*"}); err == nil {
		t.Error("a deleted user has the rights of another one of its name")
	}
	for _, c := range []Caller{{}, {AccountID: admin.AccountID}, {AccountID: admin.AccountID, UserID: ":"}, {AccountID: "999999999999", UserID: admin.UserID}} {
		if err := h.Authorize(t.Context(), c, Permission{Action: "lambda:ListFunctions", Resource: "*"}); err == nil {
			t.Errorf("%+v is allowed", c)
		}
	}
}

func TestARefusedCommitChangesNothing(t *testing.T) {
	h := newHouse(t)
	alice := h.user("alice", "")
	// Somebody else writes the same object.
	key := store.Key{Kind: kindUser, Account: h.admin.AccountID, Name: "alice"}
	o, err := h.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Commit(t.Context(), store.Change{Key: key, Expect: o.Revision, Body: o.Body}); err != nil {
		t.Fatal(err)
	}
	_, err = h.server.AttachUserPolicy(as(h.administrator()), &iamapi.AttachUserPolicyRequest{UserName: new("alice"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
	wantFault(t, "a conflict", err, "ConcurrentModification", 409, "The request was rejected because multiple requests to change this object were submitted simultaneously.")
	if err := h.Authorize(t.Context(), alice, Permission{Action: "lambda:ListFunctions", Resource: "*"}); err == nil {
		t.Error("a change that is not durable is in force")
	}
}

func TestADamagedDocumentIsNotLeftOut(t *testing.T) {
	h := newHouse(t)
	h.user("alice", doc("Deny", "*", "*"))
	key := store.Key{Kind: kindUser, Account: h.admin.AccountID, Name: "alice"}
	body := []byte(`{"Name":"alice","Path":"/","ID":"AIDA1","Inline":{"inline":"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Deny\",\"Whatever\":1}]}"}}`)
	if _, err := h.store.Commit(t.Context(), store.Change{Key: key, Expect: store.AnyRevision, Body: body}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Store: h.store, SessionKey: h.root}); err == nil {
		t.Error("a directory with a policy that it does not understand was loaded")
	}
}

func TestManyCallersAndOneWriterGetAlong(t *testing.T) {
	h := newHouse(t)
	alice := h.user("alice", "")
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := h.Authorize(context.Background(), alice, Permission{Action: "lambda:GetFunction", Resource: "*"}); err != nil {
					if _, ok := errors.AsType[*api.Error](err); !ok {
						t.Error(err)
						return
					}
				}
				if _, err := h.Secret(context.Background(), h.admin.AccessKeyID, ""); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for n := range 10 {
				name := fmt.Sprintf("role-%d-%d", w, n)
				_, err := h.server.CreateRole(as(h.administrator()), &iamapi.CreateRoleRequest{RoleName: &name, AssumeRolePolicyDocument: new(trusting(trustLambda))})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	out := must[*iamapi.ListRolesResponse](t)(h.server.ListRoles(as(h.administrator()), &iamapi.ListRolesRequest{MaxItems: new(int32(1000))}))
	if len(out.Roles) != 40 {
		t.Errorf("%d roles, want 40", len(out.Roles))
	}
}

func TestEveryConditionKeyIsGiven(t *testing.T) {
	h := newHouse(t)
	alice := h.user("alice", "")
	hold, ok := h.state.Load().holder(&alice)
	if !ok {
		t.Fatal("no holder")
	}
	// What those who ask contribute: PassRole and package sts.
	p := &Permission{Context: map[string][]string{"iam:PassedToService": {LambdaService}, "sts:ExternalId": {"x"}, "sts:RoleSessionName": {"s"}}}
	for _, key := range policy.Keys() {
		if values := hold.context(p)(key); len(values) != 1 || values[0] == "" {
			t.Errorf("%s is %q", key, values)
		}
	}
}

func TestConfigMustBeComplete(t *testing.T) {
	h := newHouse(t)
	for _, c := range []Config{{}, {Store: h.store}, {SessionKey: h.root}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func BenchmarkAuthorize(b *testing.B) {
	h := newHouse(b)
	alice := h.user("alice", doc("Allow", "lambda:InvokeFunction", "arn:aws:lambda:us-east-1:"+h.admin.AccountID+":function:team-*"))
	p := Permission{Action: "lambda:InvokeFunction", Resource: "arn:aws:lambda:us-east-1:" + h.admin.AccountID + ":function:team-a"}
	for name, caller := range map[string]Caller{"administrator": h.administrator(), "inline policy": alice} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := h.Authorize(b.Context(), caller, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSecretAndCaller(b *testing.B) {
	h := newHouse(b)
	r := h.role("worker", trustLambda)
	session, err := h.RoleCredentials(b.Context(), *r.Arn, "function", time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for name, key := range map[string][2]string{"user": {h.admin.AccessKeyID, ""}, "session": {session.AccessKeyID, session.SessionToken}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Secret(b.Context(), key[0], key[1]); err != nil {
					b.Fatal(err)
				}
				if _, err := h.Caller(b.Context(), key[0], key[1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
