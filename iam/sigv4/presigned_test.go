package sigv4

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
)

// getFunction is what a URL is typically pre-signed for.
var getFunction = order{target: "2015-03-31/functions/my-function?Qualifier=prod"}

// identity is the call that aws-iam-authenticator signs to prove to a cluster who somebody is.
var identity = order{target: "?Action=GetCallerIdentity&Version=2011-06-15", service: "sts", key: sessionKey,
	header: http.Header{"X-K8s-Aws-Id": {"my-cluster"}}}

func TestAPresignedIdentityIsAcceptedOnlyForItsCluster(t *testing.T) {
	r, body := identity.presign(t, time.Minute)
	if signed := r.URL.Query().Get(signedHeadersParameter); signed != "host;x-k8s-aws-id" {
		t.Fatalf("the SDK signed %s", signed)
	}
	s, err := newVerifier(t, 59*time.Second).Verify(t.Context(), r, body)
	if diff := cmp.Diff(Signature{sessionKey.AccessKeyID, sessionKey.SessionToken, "sts", "us-west-2", signedAt}, s); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	r.Header.Set("X-K8s-Aws-Id", "another-cluster")
	if _, err := newVerifier(t, 0).Verify(t.Context(), r, body); err == nil {
		t.Error("the proof for one cluster is one for another")
	}
}

func TestAPresignedURLHoldsForAsLongAsItSays(t *testing.T) {
	for _, c := range []struct {
		valid, since time.Duration
		message      string
	}{
		{time.Minute, -5*time.Minute - time.Second, "Signature not yet current: 20261123T123600Z is still later than 20261123T123559Z (20261123T123059Z + 5 min.)"},
		{time.Minute, -5 * time.Minute, ""},
		{time.Minute, time.Minute, ""},
		{time.Minute, time.Minute + 999*time.Millisecond, ""},
		{time.Minute, time.Minute + time.Second, "Signature expired: 20261123T123600Z is now earlier than 20261123T123601Z (20261123T123701Z - 60 sec.)"},
		{time.Hour, 59 * time.Minute, ""},
		{time.Hour, time.Hour + time.Second, "Signature expired: 20261123T123600Z is now earlier than 20261123T123601Z (20261123T133601Z - 3600 sec.)"},
		{MaxLifetime, MaxLifetime, ""},
		{MaxLifetime, MaxLifetime + time.Second, "Signature expired: 20261123T123600Z is now earlier than 20261123T123601Z (20261130T123601Z - 604800 sec.)"},
		{0, 5 * time.Minute, ""}, // a URL that does not say is like a header
		{0, 5*time.Minute + time.Second, "Signature expired: 20261123T123600Z is now earlier than 20261123T123601Z (20261123T124101Z - 5 min.)"},
	} {
		r, body := getFunction.presign(t, c.valid)
		_, err := newVerifier(t, c.since).Verify(t.Context(), r, body)
		var want error
		if c.message != "" {
			want = &api.Error{Code: "InvalidSignatureException", Status: 403, Message: c.message}
		}
		if diff := cmp.Diff(want, err); diff != "" {
			t.Errorf("valid %v, %v after signing (-want +got):\n%s", c.valid, c.since, diff)
		}
	}
}

func TestAnIncompletePresignedURLIsRefusedInAWSsWords(t *testing.T) {
	const (
		must  = "AWS query-string parameters must include "
		again = "Re-examine the query-string parameters."
	)
	incomplete := func(message string) api.Error {
		return api.Error{Code: "IncompleteSignatureException", Status: 403, Message: message}
	}
	lifetime := func(message string) api.Error {
		return api.Error{Code: "AuthorizationQueryParametersError", Status: 400, Message: message}
	}
	for name, c := range map[string]struct {
		change mutation
		want   api.Error
	}{
		"nothing but an algorithm": {always(func(r *http.Request) { r.URL.RawQuery = "X-Amz-Algorithm" }),
			incomplete(must + "'X-Amz-Algorithm'. " + must + "'X-Amz-Credential'. " + must + "'X-Amz-Signature'. " + must + "'X-Amz-SignedHeaders'. " + must + "'X-Amz-Date'. " + again)},
		"no algorithm":      {without(algorithmParameter), incomplete(must + "'X-Amz-Algorithm'. " + again)},
		"no credential":     {without(credentialParameter), incomplete(must + "'X-Amz-Credential'. " + again)},
		"no signature":      {without(signatureParameter), incomplete(must + "'X-Amz-Signature'. " + again)},
		"no signed headers": {without(signedHeadersParameter), incomplete(must + "'X-Amz-SignedHeaders'. " + again)},
		"no date":           {without(dateParameter), incomplete(must + "'X-Amz-Date'. " + again)},
		"other algorithm":   {parameter(algorithmParameter, replaced("256", "1")), incomplete("Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1'.")},
		"short credential": {parameter(credentialParameter, replaced("/lambda", "")),
			incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")},
		"date of HTTP": {parameter(dateParameter, func(string) string { return "Mon, 23 Nov 2026 12:36:00 GMT" }),
			incomplete("Date must be in ISO-8601 'basic format'. Got 'Mon, 23 Nov 2026 12:36:00 GMT'. See http://en.wikipedia.org/wiki/ISO_8601")},
		"signature twice": {repeated(signatureParameter, "X-Amz-Signature", "0"),
			incomplete("AWS query-string parameter 'X-Amz-Signature' must be sent once. " + again)},
		"date twice, once encoded": {repeated(dateParameter, "X-Amz-D%61te", "0"),
			incomplete("AWS query-string parameter 'X-Amz-Date' must be sent once. " + again)},
		"much signed": {parameter(signedHeadersParameter, func(string) string { return strings.Repeat("x", 9000) }),
			incomplete("AWS query-string parameters are too long.")},
		"token in a header too": {func(r *http.Request, _ *[]byte) bool {
			r.Header.Set("X-Amz-Security-Token", "t")
			return parameter(signedHeadersParameter, func(s string) string { return s + ";x-amz-security-token" })(r, nil)
		}, incomplete("'X-Amz-Security-Token' must be a query-string parameter or a header, not both.")},
		"too long valid":     {parameter(expiresParameter, func(string) string { return "604801" }), lifetime("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")},
		"never valid":        {parameter(expiresParameter, func(string) string { return "0" }), lifetime("X-Amz-Expires must be positive")},
		"valid before":       {parameter(expiresParameter, func(string) string { return "-60" }), lifetime("X-Amz-Expires must be positive")},
		"valid for a word":   {parameter(expiresParameter, func(string) string { return "ever" }), lifetime("X-Amz-Expires should be a number")},
		"valid without end":  {parameter(expiresParameter, func(string) string { return "99999999999999999999" }), lifetime("X-Amz-Expires should be a number")},
		"valid for more hex": {parameter(expiresParameter, func(string) string { return "0x10" }), lifetime("X-Amz-Expires should be a number")},
		"header too": {always(func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x") }),
			api.Error{Code: "InvalidSignatureException", Status: 403, Message: "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."}},
	} {
		o := getFunction
		o.key = sessionKey
		r, body := o.presign(t, time.Minute)
		if _, err := newVerifier(t, 0).Verify(t.Context(), r, body); err != nil {
			t.Fatal(err)
		}
		if !c.change(r, &body) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := newVerifier(t, 0).Verify(t.Context(), r, body); cmp.Diff(error(&c.want), err) != "" {
			t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(error(&c.want), err))
		}
		if claim, err := newVerifier(t, 0).Check(r); claim != (Claim{}) || cmp.Diff(error(&c.want), err) != "" {
			t.Errorf("%s, before the body: %+v (-want +got):\n%s", name, claim, cmp.Diff(error(&c.want), err))
		}
	}
}

func TestAPresignedURLOfAKeyThatEndedIsRefused(t *testing.T) {
	for code, key := range map[string]string{"ExpiredToken": expiredKey.AccessKeyID, "InvalidClientTokenId": strangerKey.AccessKeyID} {
		o := identity
		o.key = expiredKey
		o.key.AccessKeyID = key
		r, body := o.presign(t, time.Hour)
		_, err := newVerifier(t, 0).Verify(t.Context(), r, body)
		if fault, ok := err.(*api.Error); !ok || fault.Code != code || fault.Status != 403 {
			t.Errorf("got %v, want %s", err, code)
		}
	}
}

// The hash of the body is part of the signature: what was pre-signed without a body is good for no other one.
func TestAPresignedURLIsForOneBody(t *testing.T) {
	for _, signed := range []string{"", `{"a":1}`} {
		r, _ := order{method: "POST", target: invokePath, body: signed}.presign(t, time.Hour)
		v := newVerifier(t, 0)
		if _, err := v.Verify(t.Context(), r, []byte(signed)); err != nil {
			t.Errorf("%q: %v", signed, err)
		}
		if _, err := v.Verify(t.Context(), r, []byte(`{"a":2}`)); err == nil {
			t.Errorf("signed for %q, accepted with another body", signed)
		}
	}
}

func TestTheClaimOfARequestIsWhatItsSignatureIsCheckedFor(t *testing.T) {
	o := identity
	header, _ := o.sign(t)
	query, _ := o.presign(t, time.Minute)
	spelled, _ := o.presign(t, time.Minute)
	spelled.URL.RawQuery = strings.ReplaceAll(spelled.URL.RawQuery, "%2F", "/")
	for name, r := range map[string]*http.Request{"header": header, "URL": query, "URL with slashes": spelled} {
		claim, err := newVerifier(t, 0).Check(r)
		if want := (Claim{sessionKey.AccessKeyID, sessionKey.SessionToken}); claim != want || err != nil {
			t.Errorf("%s: claim %+v, %v", name, claim, err)
		}
		if service := ClaimedService(r); service != "sts" {
			t.Errorf("%s: claimed service %q", name, service)
		}
	}
	for _, request := range []string{
		"GET /", "GET /?X-Amz-Credential=", "GET /?X-Amz-Credential=a/b/c", "GET /?X-Amz-Credential=a/b/c/sts", "GET /?x-amz-credential=a/b/c/sts/d",
		"GET /?X-Amz-Credential=%zz/b/c/sts/d", "GET /?X%2DAmz-Credential=a/b/c/sts/d", "GET /?a=X-Amz-Credential=a/b/c/sts/d",
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request + " HTTP/1.1\r\nHost: h\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		if service := ClaimedService(r); service != "" {
			t.Errorf("%s: claimed service %q", request, service)
		}
		if _, err := newVerifier(t, 0).Check(r); err == nil {
			t.Errorf("%s: no refusal", request)
		}
	}
}

// Several paths share a signature; the one that signers produce is told from the others, which routers must refuse.
func TestOnlyOneOfThePathsThatShareASignatureIsNormal(t *testing.T) {
	for path, normal := range map[string]bool{
		invokePath:                            true,
		invokePath + "/":                      true, // another signature
		"/2015-03-31//functions/f":            false,
		"//2015-03-31/functions/f":            false,
		"/2015-03-31/functions/f//":           false,
		"/2015-03-31/./functions/f":           false,
		"/2015-03-31/functions/f/.":           false,
		"/2015-03-31/x/../functions/f":        false,
		"/2015-03-31/functions/f/..":          false,
		"/.":                                  false,
		"/..":                                 false,
		"/..a/.b/c./...":                      true,
		"/":                                   true,
		"*":                                   false,
		"/2015-03-31/functions/%2e%2e/f":      true, // decoded to dots by nobody before the label is checked
		"/2015-03-31/functions/a%2Fb/../f":    false,
		"/2015-03-31/functions/a%2Fb/f":       true,
		"/2015-03-31/functions/é/../f":        false,
		"/2015-03-31/functions/arn:aws:x:f/f": true,
	} {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := NormalPath(u); got != normal {
			t.Errorf("NormalPath(%s) = %v", path, got)
		}
	}
	r, body := getFunction.sign(t)
	for _, path := range []string{"/2015-03-31//functions/my-function", "/x/../2015-03-31/./functions/my-function", "/2015-03-31/functions/my-function"} {
		r.URL.Path = path
		if _, err := newVerifier(t, 0).Verify(t.Context(), r, body); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
