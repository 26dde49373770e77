package iam

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/iam/sigv4"
	"cloister/internal/seal"
	"cloister/lambda"
)

func TestAFunctionGetsCredentialsOfItsRole(t *testing.T) {
	h := newHouse(t)
	r := h.role("worker", trustLambda)
	h.putRolePolicy("worker", doc("Allow", "logs:*", "*"))
	c, err := h.RoleCredentials(t.Context(), *r.Arn, "my-function", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.AccessKeyID, "ASIA") || len(c.AccessKeyID) != 20 || len(c.SecretAccessKey) != 40 || !c.Expiration.Equal(h.clock.Add(time.Hour)) {
		t.Errorf("credentials %+v", c)
	}
	secret, err := h.Secret(t.Context(), c.AccessKeyID, c.SessionToken)
	if err != nil || secret != c.SecretAccessKey {
		t.Errorf("secret %q, %v", secret, err)
	}
	caller := h.callerOf(c.AccessKeyID, c.SessionToken)
	want := Caller{h.admin.AccountID, "arn:aws:sts::" + h.admin.AccountID + ":assumed-role/worker/my-function", *r.RoleId + ":my-function"}
	if caller != want {
		t.Errorf("caller %+v, want %+v", caller, want)
	}
	if err := h.Authorize(t.Context(), caller, Permission{Action: "logs:PutLogEvents", Resource: "*"}); err != nil {
		t.Error(err)
	}
	err = h.Authorize(t.Context(), caller, Permission{Action: "lambda:ListFunctions", Resource: "*"})
	wantFault(t, "more than the role may", err, "AccessDeniedException", 403,
		"User: "+want.ARN+" is not authorized to perform: lambda:ListFunctions on resource: * because no identity-based policy allows the lambda:ListFunctions action")
}

func TestASessionEnds(t *testing.T) {
	h := newHouse(t)
	r := h.role("worker", trustLambda)
	c, err := h.RoleCredentials(t.Context(), *r.Arn, "f", 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  error
	}{{0, nil}, {15*time.Minute - time.Nanosecond, nil}, {15 * time.Minute, sigv4.ErrExpiredToken}, {24 * time.Hour, sigv4.ErrExpiredToken}} {
		h.clock = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Add(step.after)
		if _, err := h.Secret(t.Context(), c.AccessKeyID, c.SessionToken); !errors.Is(err, step.want) {
			t.Errorf("after %v: %v, want %v", step.after, err, step.want)
		}
	}
	if _, err := h.Caller(t.Context(), c.AccessKeyID, c.SessionToken); err == nil {
		t.Error("an expired session has a caller")
	}
}

func TestASessionEndsWithItsRole(t *testing.T) {
	h := newHouse(t)
	ctx := as(h.administrator())
	r := h.role("worker", trustLambda)
	c, err := h.RoleCredentials(t.Context(), *r.Arn, "f", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	caller := h.callerOf(c.AccessKeyID, c.SessionToken)
	must[*api.Empty](t)(h.server.DeleteRole(ctx, &iamapi.DeleteRoleRequest{RoleName: new("worker")}))
	check := func(when string) {
		t.Helper()
		if secret, err := h.Secret(t.Context(), c.AccessKeyID, c.SessionToken); !errors.Is(err, sigv4.ErrUnknownKey) || secret != "" {
			t.Errorf("%s: %q, %v", when, secret, err)
		}
		_, err := h.Caller(t.Context(), c.AccessKeyID, c.SessionToken)
		wantFault(t, when, err, "UnrecognizedClientException", 403, "The security token included in the request is invalid.")
		if err := h.Authorize(t.Context(), caller, Permission{Action: "logs:PutLogEvents", Resource: "*"}); err == nil {
			t.Errorf("%s: still allowed", when)
		}
	}
	check("after the role is deleted")
	h.role("worker", trustLambda)
	h.putRolePolicy("worker", doc("Allow", "*", "*"))
	check("after another role took its name")
}

func TestAForgedSessionTokenIsRefused(t *testing.T) {
	h := newHouse(t)
	r := h.role("worker", trustLambda)
	c, err := h.RoleCredentials(t.Context(), *r.Arn, "f", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.RoleCredentials(t.Context(), *r.Arn, "g", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what, id, token string) {
		t.Helper()
		if secret, err := h.Secret(t.Context(), id, token); !errors.Is(err, sigv4.ErrUnknownKey) || secret != "" {
			t.Errorf("%s: %q, %v", what, secret, err)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(c.SessionToken)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] ^= 1
		refused(fmt.Sprintf("bit of byte %d flipped", i), c.AccessKeyID, base64.RawURLEncoding.EncodeToString(raw))
		raw[i] ^= 1
		refused(fmt.Sprintf("cut to %d bytes", i), c.AccessKeyID, base64.RawURLEncoding.EncodeToString(raw[:i]))
	}
	refused("the token of another key", c.AccessKeyID, other.SessionToken)
	refused("no token", c.AccessKeyID, "")
	refused("the key of the administrator", h.admin.AccessKeyID, c.SessionToken)
	refused("an unknown key", "ASIAAAAAAAAAAAAAAAAA", c.SessionToken)
	refused("longer", c.AccessKeyID, c.SessionToken+"AAAA")
	refused("much longer", c.AccessKeyID, strings.Repeat("A", 1<<20))
	refused("not base64", c.AccessKeyID, "not base64!")
	refused("sealed text that is no session", c.AccessKeyID, base64.RawURLEncoding.EncodeToString(
		h.sessionKey.Seal([]byte{tokenVersion}, []byte("no session"), []byte(c.AccessKeyID))))

	foreign := must[*seal.Key](t)(seal.NewKey(seal.NewSecret()))
	s, _, err := h.openSession(c.AccessKeyID, c.SessionToken)
	if err != nil {
		t.Fatal(err)
	}
	refused("a token under another key", c.AccessKeyID, base64.RawURLEncoding.EncodeToString(
		foreign.Seal([]byte{tokenVersion}, s.append(nil), []byte(c.AccessKeyID))))
	s.accountID = "999999999999"
	refused("a session of an account that is not here", c.AccessKeyID, h.sealSession(c.AccessKeyID, s))
}

func TestCredentialsForBadSessionsAreRefused(t *testing.T) {
	h := newHouse(t)
	r := h.role("worker", trustLambda)
	for name, life := range map[string]time.Duration{"": time.Hour, "a/b": time.Hour, "a:b": time.Hour, strings.Repeat("x", 65): time.Hour, "f": 0, "g": -time.Hour, "h": 12*time.Hour + 1} {
		if c, err := h.RoleCredentials(t.Context(), *r.Arn, name, life); lambda.KindOf(err) != lambda.InvalidParameter {
			t.Errorf("%q for %v: %+v, %v", name, life, c, err)
		}
	}
}

func FuzzSessionToken(f *testing.F) {
	s := session{"123456789012", "AROAAAAAAAAAAAAAAAAAA", "function", "secret", time.Unix(1800000000, 0)}
	f.Add(s.append(nil))
	f.Add([]byte{})
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := parseSession(b)
		if !ok {
			return
		}
		if again, ok := parseSession(s.append(nil)); !ok || again != s {
			t.Fatalf("%+v became %+v", s, again)
		}
	})
}
