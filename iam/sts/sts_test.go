package sts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/stsapi"
	"cloister/iam"
	"cloister/iam/sigv4"
	"cloister/internal/seal"
	"cloister/store/sqlite"
)

// A house is a directory on a real store with both APIs.
type house struct {
	t         *testing.T
	directory *iam.Directory
	iam       *iam.Server
	sts       *Server
	clock     time.Time
	account   string
	admin     context.Context // of a call by the administrator
}

func newHouse(t *testing.T) *house {
	t.Helper()
	root, err := seal.NewKey(seal.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := sqlite.Open(sqlite.Config{Path: filepath.Join(t.TempDir(), "meta.db"), Key: root.Derive("store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	h := &house{t: t, clock: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	h.directory, err = iam.New(iam.Config{Store: opened, SessionKey: root.Derive("session tokens"), Now: func() time.Time { return h.clock }})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := h.directory.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.account = admin.AccountID
	h.admin = h.as(admin.AccessKeyID, "")
	h.iam, h.sts = h.directory.Server(), New(h.directory)
	return h
}

// as returns the context of a call that was signed with these credentials.
func (h *house) as(accessKeyID, token string) context.Context {
	h.t.Helper()
	c, err := h.directory.Caller(h.t.Context(), accessKeyID, token)
	if err != nil {
		h.t.Fatal(err)
	}
	return api.WithCall(h.t.Context(), &api.Call{AccountID: c.AccountID, CallerARN: c.ARN, CallerID: c.UserID})
}

func (h *house) user(name, document string) (ctx context.Context, arn string) {
	h.t.Helper()
	if _, err := h.iam.CreateUser(h.admin, &iamapi.CreateUserRequest{UserName: &name}); err != nil {
		h.t.Fatal(err)
	}
	if document != "" {
		if _, err := h.iam.PutUserPolicy(h.admin, &iamapi.PutUserPolicyRequest{UserName: &name, PolicyName: new("p"), PolicyDocument: &document}); err != nil {
			h.t.Fatal(err)
		}
	}
	key, err := h.iam.CreateAccessKey(h.admin, &iamapi.CreateAccessKeyRequest{UserName: &name})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.as(*key.AccessKey.AccessKeyId, ""), "arn:aws:iam::" + h.account + ":user/" + name
}

// role makes a role with a trust policy of these statements.
func (h *house) role(name string, seconds int32, statements ...string) (arn string) {
	h.t.Helper()
	out, err := h.iam.CreateRole(h.admin, &iamapi.CreateRoleRequest{RoleName: &name, MaxSessionDuration: &seconds,
		AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`)})
	if err != nil {
		h.t.Fatal(err)
	}
	return *out.Role.Arn
}

func trust(effect, principal string) string {
	return `{"Effect":"` + effect + `","Action":"sts:AssumeRole","Principal":` + principal + `}`
}

func identity(effect, action, resource string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"` + effect + `","Action":"` + action + `","Resource":"` + resource + `"}}`
}

// assume asks for permission as the gateway does, then calls the operation.
func (h *house) assume(ctx context.Context, in *stsapi.AssumeRoleRequest) (*stsapi.AssumeRoleResponse, error) {
	h.t.Helper()
	call := api.CallOf(ctx)
	caller := iam.Caller{AccountID: call.AccountID, ARN: call.CallerARN, UserID: call.CallerID}
	var refused error
	for _, p := range h.sts.Permissions("AssumeRole", in, call) {
		refused = errors.Join(refused, h.directory.Authorize(ctx, caller, p))
	}
	out, err := h.sts.AssumeRole(ctx, in)
	if refused != nil && err == nil {
		h.t.Errorf("the gateway would refuse (%v), the operation does not", refused)
	}
	return out, errors.Join(refused, err)
}

func TestAssumeRoleNeedsTrustAndPermission(t *testing.T) {
	h := newHouse(t)
	everything, everythingARN := h.user("everything", identity("Allow", "*", "*"))
	assuming, assumingARN := h.user("assuming", identity("Allow", "sts:AssumeRole", "arn:aws:iam::"+h.account+":role/a*"))
	nothing, nothingARN := h.user("nothing", "")
	denied, deniedARN := h.user("denied", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"sts:*","Resource":"*"}]}`)
	aws := func(arn string) string { return `{"AWS":"` + arn + `"}` }
	root := aws("arn:aws:iam::" + h.account + ":root")
	for _, c := range []struct {
		name       string
		statements []string
		who        context.Context
		want       bool
	}{
		{"account-trusted-everything", []string{trust("Allow", root)}, everything, true},
		{"account-trusted-assuming", []string{trust("Allow", root)}, assuming, true},
		{"other-role-name", []string{trust("Allow", root)}, assuming, false}, // not a*
		{"account-trusted-nothing", []string{trust("Allow", root)}, nothing, false},
		{"account-trusted-denied", []string{trust("Allow", root)}, denied, false},
		{"a-named-everything", []string{trust("Allow", aws(everythingARN))}, everything, true},
		{"a-named-assuming", []string{trust("Allow", aws(assumingARN))}, assuming, true},
		{"a-named-nothing", []string{trust("Allow", aws(nothingARN))}, nothing, true}, // same account: the name suffices
		{"a-named-denied", []string{trust("Allow", aws(deniedARN))}, denied, false},
		{"a-another-named", []string{trust("Allow", aws(nothingARN))}, everything, false},
		{"a-everybody-everything", []string{trust("Allow", `"*"`)}, everything, true},
		{"a-everybody-nothing", []string{trust("Allow", `"*"`)}, nothing, false},
		{"a-service", []string{trust("Allow", `{"Service":"lambda.amazonaws.com"}`)}, everything, false},
		{"a-denied-by-name", []string{trust("Allow", root), trust("Deny", aws(everythingARN))}, everything, false},
		{"a-another-denied", []string{trust("Allow", root), trust("Deny", aws(nothingARN))}, everything, true},
		{"a-everybody-denied", []string{trust("Allow", aws(everythingARN)), trust("Deny", `"*"`)}, everything, false},
		{"a-another-account", []string{trust("Allow", aws("999999999999"))}, everything, false},
	} {
		arn := h.role(c.name, 3600, c.statements...)
		out, err := h.assume(c.who, &stsapi.AssumeRoleRequest{RoleArn: &arn, RoleSessionName: new("session")})
		if (err == nil) != c.want {
			t.Errorf("%s: %+v, %v", c.name, out, err)
		}
		if err != nil && !strings.Contains(err.Error(), "AccessDeniedException: User: "+api.CallOf(c.who).CallerARN+" is not authorized to perform: sts:AssumeRole on resource: "+arn) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := h.assume(everything, &stsapi.AssumeRoleRequest{RoleArn: new("arn:aws:iam::" + h.account + ":role/missing"), RoleSessionName: new("s2")}); err == nil ||
		!strings.Contains(err.Error(), "is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::"+h.account+":role/missing") {
		t.Errorf("a missing role: %v", err)
	}
}

func TestATrustedUserWhoseNameWasTakenIsNotTrusted(t *testing.T) {
	h := newHouse(t)
	_, arn := h.user("alice", "")
	roleARN := h.role("r", 3600, trust("Allow", `{"AWS":"`+arn+`"}`))
	keys, err := h.iam.ListAccessKeys(h.admin, &iamapi.ListAccessKeysRequest{UserName: new("alice")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.iam.DeleteAccessKey(h.admin, &iamapi.DeleteAccessKeyRequest{UserName: new("alice"), AccessKeyId: keys.AccessKeyMetadata[0].AccessKeyId}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.iam.DeleteUser(h.admin, &iamapi.DeleteUserRequest{UserName: new("alice")}); err != nil {
		t.Fatal(err)
	}
	impostor, _ := h.user("alice", "")
	if out, err := h.assume(impostor, &stsapi.AssumeRoleRequest{RoleArn: &roleARN, RoleSessionName: new("session")}); err == nil {
		t.Errorf("got %+v", out)
	}
}

func TestAnExternalIDIsAsked(t *testing.T) {
	h := newHouse(t)
	arn := h.role("r", 3600, `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"`+h.account+`"},"Condition":{"StringEquals":{"sts:ExternalId":"secret"},"StringLike":{"sts:RoleSessionName":"ci-*"}}}`)
	for _, c := range []struct {
		externalID *string
		session    string
		want       bool
	}{{nil, "ci-1", false}, {new("wrong"), "ci-1", false}, {new("secret"), "ci-1", true}, {new("secret"), "cd-1", false}} {
		_, err := h.assume(h.admin, &stsapi.AssumeRoleRequest{RoleArn: &arn, RoleSessionName: &c.session, ExternalId: c.externalID})
		if (err == nil) != c.want {
			t.Errorf("%v, %s: %v", c.externalID, c.session, err)
		}
	}
}

func TestASessionIsWhoItSaysAndMayWhatItsRoleMay(t *testing.T) {
	h := newHouse(t)
	arn := h.role("worker", 3600, trust("Allow", `{"AWS":"`+h.account+`"}`))
	if _, err := h.iam.PutRolePolicy(h.admin, &iamapi.PutRolePolicyRequest{RoleName: new("worker"), PolicyName: new("p"), PolicyDocument: new(identity("Allow", "logs:*", "*"))}); err != nil {
		t.Fatal(err)
	}
	out, err := h.assume(h.admin, &stsapi.AssumeRoleRequest{RoleArn: &arn, RoleSessionName: new("job")})
	if err != nil {
		t.Fatal(err)
	}
	if want := "arn:aws:sts::" + h.account + ":assumed-role/worker/job"; *out.AssumedRoleUser.Arn != want || !strings.HasSuffix(*out.AssumedRoleUser.AssumedRoleId, ":job") {
		t.Errorf("%s, %s", *out.AssumedRoleUser.Arn, *out.AssumedRoleUser.AssumedRoleId)
	}
	if !out.Credentials.Expiration.Equal(h.clock.Add(time.Hour)) {
		t.Errorf("expires %v", out.Credentials.Expiration)
	}
	session := h.as(*out.Credentials.AccessKeyId, *out.Credentials.SessionToken)
	identity, err := h.sts.GetCallerIdentity(session, &stsapi.GetCallerIdentityRequest{})
	if err != nil || *identity.Arn != *out.AssumedRoleUser.Arn || *identity.UserId != *out.AssumedRoleUser.AssumedRoleId || *identity.Account != h.account {
		t.Errorf("identity %+v, %v", identity, err)
	}
	if p := h.sts.Permissions("GetCallerIdentity", &stsapi.GetCallerIdentityRequest{}, api.CallOf(session)); len(p) != 0 {
		t.Errorf("GetCallerIdentity needs %+v", p)
	}
	caller := iam.Caller{AccountID: h.account, ARN: *identity.Arn, UserID: *identity.UserId}
	for action, want := range map[string]bool{"logs:PutLogEvents": true, "lambda:ListFunctions": false} {
		if err := h.directory.Authorize(t.Context(), caller, iam.Permission{Action: action, Resource: "*"}); (err == nil) != want {
			t.Errorf("%s: %v", action, err)
		}
	}
	if identity, err := h.sts.GetCallerIdentity(h.admin, &stsapi.GetCallerIdentityRequest{}); err != nil || *identity.Arn != "arn:aws:iam::"+h.account+":user/administrator" {
		t.Errorf("identity %+v, %v", identity, err)
	}
}

func TestTheLifeOfASessionIsBounded(t *testing.T) {
	h := newHouse(t)
	short := h.role("short", 3600, trust("Allow", `{"AWS":"`+h.account+`"}`))
	long := h.role("long", 43200, trust("Allow", `{"AWS":"`+h.account+`"}`))
	if _, err := h.iam.AttachRolePolicy(h.admin, &iamapi.AttachRolePolicyRequest{RoleName: new("short"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}); err != nil {
		t.Fatal(err)
	}
	first, err := h.assume(h.admin, &stsapi.AssumeRoleRequest{RoleArn: &short, RoleSessionName: new("session")})
	if err != nil {
		t.Fatal(err)
	}
	chained := h.as(*first.Credentials.AccessKeyId, *first.Credentials.SessionToken)
	for _, c := range []struct {
		who     context.Context
		arn     string
		seconds int32
		message string
	}{
		{h.admin, short, 900, ""},
		{h.admin, short, 899, "1 validation error detected: Value at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},
		{h.admin, short, 3600, ""},
		{h.admin, short, 3601, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		{h.admin, long, 43200, ""},
		{chained, long, 3600, ""},
		{chained, long, 3601, "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."},
	} {
		out, err := h.assume(c.who, &stsapi.AssumeRoleRequest{RoleArn: &c.arn, RoleSessionName: new("session"), DurationSeconds: &c.seconds})
		switch {
		case c.message == "" && err != nil:
			t.Errorf("%s for %d s: %v", c.arn, c.seconds, err)
		case c.message == "" && !out.Credentials.Expiration.Equal(h.clock.Add(time.Duration(c.seconds)*time.Second)):
			t.Errorf("%s for %d s: until %v", c.arn, c.seconds, out.Credentials.Expiration)
		case c.message != "" && (err == nil || err.Error() != "ValidationError: "+c.message):
			t.Errorf("%s for %d s: %v", c.arn, c.seconds, err)
		}
	}
}

func TestWhatWouldNarrowASessionIsNotIgnored(t *testing.T) {
	h := newHouse(t)
	arn := h.role("r", 3600, trust("Allow", `{"AWS":"`+h.account+`"}`))
	for name, in := range map[string]stsapi.AssumeRoleRequest{
		"session policies of sts:AssumeRole":            {Policy: new(identity("Deny", "*", "*"))},
		"session policies of sts:AssumeRole ":           {PolicyArns: []stsapi.PolicyDescriptorType{{Arn: new("arn:aws:iam::aws:policy/AdministratorAccess")}}},
		"session tags of sts:AssumeRole":                {Tags: []stsapi.Tag{{Key: new("a"), Value: new("b")}}},
		"session tags of sts:AssumeRole ":               {TransitiveTagKeys: []string{"a"}},
		"multi-factor authentication of sts:AssumeRole": {TokenCode: new("123456")},
		"SourceIdentity of sts:AssumeRole":              {SourceIdentity: new("me")},
		"ProvidedContexts of sts:AssumeRole":            {ProvidedContexts: []stsapi.ProvidedContext{{}}},
		"MinimumSessionTokenSize of sts:AssumeRole":     {MinimumSessionTokenSize: new(int32(4000))},
	} {
		in.RoleArn, in.RoleSessionName = &arn, new("session")
		_, err := h.assume(h.admin, &in)
		if want := "NotImplementedException: Cloister does not implement " + strings.TrimSpace(name) + " yet; docs/STATUS.md lists what works"; err == nil || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.sts.GetSessionToken(h.admin, &stsapi.GetSessionTokenRequest{})
	if err == nil || !strings.Contains(err.Error(), "sts:GetSessionToken") {
		t.Errorf("an operation that is not built: %v", err)
	}
}

func TestEveryOperationButOneNeedsAPermission(t *testing.T) {
	h := newHouse(t)
	for _, op := range stsapi.Service.Operations {
		got := h.sts.Permissions(op.Name, op.New(), api.CallOf(h.admin))
		if free := op.Name == "GetCallerIdentity"; free != (len(got) == 0) {
			t.Errorf("%s: %+v", op.Name, got)
		}
	}
}

// The verifier, the directory and AWS's own signer together: what sessions are for.
func TestARequestSignedWithASessionIsAccepted(t *testing.T) {
	h := newHouse(t)
	verifier, err := sigv4.New(sigv4.Config{Region: "us-east-1", Services: []string{"lambda"}, Lookup: h.directory.Secret, Now: func() time.Time { return h.clock }})
	if err != nil {
		t.Fatal(err)
	}
	arn := h.role("r", 3600, trust("Allow", `{"AWS":"`+h.account+`"}`))
	out, err := h.assume(h.admin, &stsapi.AssumeRoleRequest{RoleArn: &arn, RoleSessionName: new("session")})
	if err != nil {
		t.Fatal(err)
	}
	c := aws.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken}
	verify := func(c aws.Credentials) error {
		r, err := http.NewRequest("GET", "https://localhost/2015-03-31/functions", nil)
		if err != nil {
			t.Fatal(err)
		}
		empty := sha256.Sum256(nil)
		if err := v4.NewSigner().SignHTTP(t.Context(), c, r, hex.EncodeToString(empty[:]), "lambda", "us-east-1", h.clock); err != nil {
			t.Fatal(err)
		}
		r.Host = r.URL.Host
		_, err = verifier.Verify(t.Context(), r, nil)
		return err
	}
	code := func(err error) string {
		var fault api.Fault
		if errors.As(err, &fault) {
			return fault.ErrorCode()
		}
		return ""
	}
	if err := verify(c); err != nil {
		t.Error(err)
	}
	stripped := c
	stripped.SessionToken = ""
	if got := code(verify(stripped)); got != "UnrecognizedClientException" {
		t.Errorf("without its token: %q", got)
	}
	h.clock = h.clock.Add(2 * time.Hour)
	if got := code(verify(c)); got != "ExpiredTokenException" {
		t.Errorf("after its end: %q", got)
	}
	if _, err := h.iam.DeleteRole(h.admin, &iamapi.DeleteRoleRequest{RoleName: new("r")}); err != nil {
		t.Fatal(err)
	}
	h.clock = h.clock.Add(-2 * time.Hour)
	if got := code(verify(c)); got != "UnrecognizedClientException" {
		t.Errorf("after the end of the role: %q", got)
	}
}
