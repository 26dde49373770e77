package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"

	"cloister/api"
	"cloister/iam"
	"cloister/iam/sigv4"
)

// testToken belongs to testKeyID in a house that is opened with withSession.
const testToken = "IQoJb3JpZ2luX2VjE+/the/token=="

// withSession makes testKeyID a temporary key.
func withSession(c *Config) {
	verifier, err := sigv4.New(sigv4.Config{Region: testRegion, Services: []string{"lambda", "logs", "iam", "sts"},
		Lookup: func(_ context.Context, accessKeyID, token string) (string, error) {
			if accessKeyID != testKeyID || token != testToken {
				return "", sigv4.ErrUnknownKey
			}
			return testSecret, nil
		}})
	if err != nil {
		panic(err)
	}
	c.Verifier = verifier
	c.Identity = sessionIdentity{c.Identity.(*fakeIdentity)}
}

// sessionIdentity is a fakeIdentity that checks the token too, as package iam does.
type sessionIdentity struct{ *fakeIdentity }

func (s sessionIdentity) Caller(ctx context.Context, accessKeyID, token string) (iam.Caller, error) {
	if token != testToken {
		return iam.Caller{}, &api.Error{Code: "UnrecognizedClientException", Status: 403, Message: "The security token included in the request is invalid."}
	}
	return s.fakeIdentity.Caller(ctx, accessKeyID, token)
}

// python runs a program of the clients that "make test" installs, as the holder of the temporary key.
func (h *house) python(t *testing.T, program string, arguments ...string) []byte {
	t.Helper()
	clients := os.Getenv("CLOISTER_CLIENTS")
	if clients == "" {
		clients = filepath.Join("..", ".cache", "clients")
	}
	command := exec.CommandContext(t.Context(), filepath.Join(clients, "bin", program), arguments...)
	command.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+testKeyID, "AWS_SECRET_ACCESS_KEY="+testSecret, "AWS_SESSION_TOKEN="+testToken,
		"AWS_ENDPOINT_URL="+h.url(""), "AWS_DEFAULT_REGION="+testRegion, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s of the clients that \"make test\" installs: %v\n%s", program, err, complaint.String())
	}
	return out
}

func TestWhatBoto3PresignsIsAnswered(t *testing.T) {
	h := openHouse(t, withSession)
	want := map[string]int{ // the operations that the house has; the others are refused in its own words, after everything else
		"invoke echo": 200, "invoke echo:1": 200, "invoke arn:aws:lambda:us-east-1:123456789012:function:echo": 200, "invoke of a version": 200,
		"get_function": 501, "list_functions": 501, "list_tags": 501, "untag_resource": 501,
		"get_caller_identity by GET": 200, "get_caller_identity by POST": 200, "list_roles by GET": 501, "list_roles by POST": 501,
	}
	lines := bufio.NewScanner(bytes.NewReader(h.python(t, "python", "testdata/presign.py", h.url(""), testRegion)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var signed struct{ Name, Method, URL string }
		if err := json.Unmarshal(lines.Bytes(), &signed); err != nil {
			t.Fatal(err)
		}
		send := func(change func(string) string) answered {
			r, err := http.NewRequest(signed.Method, change(signed.URL), nil)
			if err != nil {
				t.Fatal(err)
			}
			return h.do(t, r)
		}
		got := send(func(s string) string { return s })
		if got.status != want[signed.Name] || got.closed {
			t.Errorf("%s: status %d, want %d; %s", signed.Name, got.status, want[signed.Name], got.body)
		}
		for name, change := range map[string]func(string) string{
			"signature": func(s string) string { return s[:len(s)-3] + "000" },
			"parameter": func(s string) string { return s + "&Qualifier=2" },
			"path":      func(s string) string { return strings.Replace(s, "?", "x?", 1) },
			"token":     func(s string) string { return strings.Replace(s, "IQoJ", "IQoK", 1) },
		} {
			if got := send(change); got.status != 403 || !got.closed || shape(got) != nil {
				t.Errorf("%s with another %s: status %d, %s", signed.Name, name, got.status, got.body)
			}
		}
		delete(want, signed.Name)
	}
	if len(want) > 0 {
		t.Errorf("boto3 did not pre-sign %v", want)
	}
	h.expectNoSecrets(t)
}

// expectNoSecrets looks for anything of a signature in the log, in which strangers' calls are too.
func (h *house) expectNoSecrets(t *testing.T) {
	t.Helper()
	log := h.log.String()
	if !strings.Contains(log, "msg=call") {
		t.Error("nothing was logged: this shows nothing")
	}
	for _, secret := range []string{"X-Amz", "IQoJ", "the/token", url.QueryEscape(testToken), testSecret, "Signature="} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q:\n%s", secret, log)
		}
	}
}

// A cluster takes such a token for the proof of who somebody is, and asks STS with it.
func TestATokenForAClusterTellsWhoseItIs(t *testing.T) {
	h := openHouse(t, withSession)
	var credential struct{ Status struct{ Token string } }
	if err := json.Unmarshal(h.python(t, "aws", "eks", "get-token", "--cluster-name", "my-cluster"), &credential); err != nil {
		t.Fatal(err)
	}
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(credential.Status.Token, "k8s-aws-v1."))
	if err != nil {
		t.Fatal(err)
	}
	for cluster, status := range map[string]int{"my-cluster": 200, "another": 403} {
		r, err := http.NewRequest(http.MethodGet, string(decoded), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-K8s-Aws-Id", cluster)
		if got := h.do(t, r); got.status != status || status == 200 && !strings.Contains(got.body, testUserARN) {
			t.Errorf("%s: status %d, %s", cluster, got.status, got.body)
		}
	}
	h.expectNoSecrets(t)
}

// presigned is a request that AWS's SDK for Go has signed in its URL, with testToken if the house is open for it.
func (h *house) presigned(t testing.TB, method, path, body, service string, at time.Time) *http.Request {
	t.Helper()
	r := h.unsigned(t, method, path, body)
	key := aws.Credentials{AccessKeyID: testKeyID, SecretAccessKey: testSecret}
	if _, session := h.config.Identity.(sessionIdentity); session {
		key.SessionToken = testToken
	}
	hash := sha256.Sum256([]byte(body))
	signed, header, err := v4.NewSigner().PresignHTTP(t.Context(), key, r, hex.EncodeToString(hash[:]), service, testRegion, at)
	if err != nil {
		t.Fatal(err)
	}
	r = h.unsigned(t, method, strings.TrimPrefix(signed, h.url("")), body)
	header.Del("Host")
	for name, values := range header {
		r.Header[name] = values
	}
	return r
}

func TestWhatTheGoSDKPresignsIsAnswered(t *testing.T) {
	h := openHouse(t, withSession)
	for _, body := range []string{"", `{"a":1}`, string(zeros(2 << 20))} {
		r := h.presigned(t, http.MethodPost, invocationsPath, body, "lambda", time.Now())
		if got := h.do(t, r); got.status != 200 || got.body != body {
			t.Errorf("%d bytes: status %d, %.200s", len(body), got.status, got.body)
		}
		r = h.presigned(t, http.MethodPost, invocationsPath, body, "lambda", time.Now())
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body+" ")), int64(len(body)+1)
		if got := h.do(t, r); got.status != 403 {
			t.Errorf("%d bytes and one more: status %d, %.200s", len(body), got.status, got.body)
		}
	}
	waitFor(t, "return of the budget", func() bool { return h.held() == 0 })
	h.expectNoSecrets(t)
}

// However long a URL says that it is valid, it is good for nothing once its credentials are not.
func TestAPresignedURLEndsWithItsRole(t *testing.T) {
	h, config := openDirectory(t)
	administrator := awsiam.NewFromConfig(config)
	role, err := administrator.CreateRole(t.Context(), &awsiam.CreateRoleInput{RoleName: new("caller"), AssumeRolePolicyDocument: new(trustOfTheAccount)})
	if err != nil {
		t.Fatal(err)
	}
	session, err := awssts.NewFromConfig(config).AssumeRole(t.Context(),
		&awssts.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: new("session")})
	if err != nil {
		t.Fatal(err)
	}
	config.Credentials = credentials.NewStaticCredentialsProvider(
		*session.Credentials.AccessKeyId, *session.Credentials.SecretAccessKey, *session.Credentials.SessionToken)
	signed, err := awssts.NewPresignClient(awssts.NewFromConfig(config)).PresignGetCallerIdentity(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() answered {
		return h.do(t, h.unsigned(t, signed.Method, strings.TrimPrefix(signed.URL, h.url("")), ""))
	}
	if got := ask(); got.status != 200 || !strings.Contains(got.body, *session.AssumedRoleUser.Arn) {
		t.Errorf("status %d, %s", got.status, got.body)
	}
	if _, err := administrator.DeleteRole(t.Context(), &awsiam.DeleteRoleInput{RoleName: new("caller")}); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got.status != 403 {
		t.Errorf("after the role is gone: status %d, %s", got.status, got.body)
	}
}

func TestALargeBodyIsReadOnlyForAPresignedURLThatCouldBeGood(t *testing.T) {
	h := openHouse(t, withSession)
	h.client.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
	for name, change := range map[string]func(string) string{
		"another token": func(q string) string { return strings.Replace(q, "IQoJ", "IQoK", 1) },
		"another key":   func(q string) string { return strings.Replace(q, testKeyID, "AKIDUNKNOWN", 1) },
		"no signature":  func(q string) string { return strings.Replace(q, "X-Amz-Signature", "X-Other", 1) },
		"long ago":      func(q string) string { return strings.ReplaceAll(q, "="+time.Now().UTC().Format("2006"), "=2020") },
	} {
		r := h.presigned(t, http.MethodPost, invocationsPath, string(zeros(2<<20)), "lambda", time.Now())
		old := r.URL.RawQuery
		if r.URL.RawQuery = change(old); r.URL.RawQuery == old {
			t.Fatalf("%s: nothing changed in %s", name, old)
		}
		sent := 0
		r.Body = io.NopCloser(io.TeeReader(r.Body, writerFunc(func(p []byte) { sent += len(p) })))
		r.Header.Set("Expect", "100-continue")
		if got := h.do(t, r); got.status != http.StatusForbidden || sent != 0 {
			t.Errorf("%s: status %d after %d bytes", name, got.status, sent)
		}
	}
}

// A path with empty or dot segments has the signature of the path without, so it must not be routed.
func TestOnlyThePathThatWasSignedIsRouted(t *testing.T) {
	h := openHouse(t)
	for _, test := range []struct{ service, path, twin string }{
		{"lambda", invocationsPath, strings.Replace(invocationsPath, "/functions", "//functions", 1)},
		{"lambda", invocationsPath, strings.Replace(invocationsPath, "/functions", "/./functions", 1)},
		{"lambda", invocationsPath, strings.Replace(invocationsPath, "/functions", "/x/../functions", 1)},
		{"sts", "/?Action=GetCallerIdentity&Version=2011-06-15", "//?Action=GetCallerIdentity&Version=2011-06-15"},
		{"sts", "/?Action=GetCallerIdentity&Version=2011-06-15", "/x/..?Action=GetCallerIdentity&Version=2011-06-15"},
	} {
		r := h.request(t, http.MethodPost, test.path, "", signing{service: test.service})
		if got := h.do(t, r); got.status != 200 {
			t.Errorf("%s: status %d, %s", test.path, got.status, got.body)
		}
		r = h.request(t, http.MethodPost, test.path, "", signing{service: test.service})
		twin, err := url.ParseRequestURI(test.twin)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Opaque = "//" + r.URL.Host + twin.Path // else net/http sends it cleaned
		got := h.do(t, r)
		if got.status != http.StatusNotFound || !strings.Contains(got.body, "no empty and no dot segments") || shape(got) != nil {
			t.Errorf("%s, signed as %s: status %d, %s", test.twin, test.path, got.status, got.body)
		}
	}
}
