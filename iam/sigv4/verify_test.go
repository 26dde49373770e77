package sigv4

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
)

// invoke is a typical request, with everything in it that a mutation could touch.
var invoke = order{
	method: "POST",
	target: "2015-03-31/functions/my-function/invocations?Qualifier=prod&Tag=a&Tag=b",
	header: http.Header{
		"Content-Type":          {"application/json"},
		"X-Amz-Invocation-Type": {"RequestResponse"},
		"X-Amz-Log-Type":        {"Tail"},
	},
	body: `{"key":"value"}`,
	key:  sessionKey,
}

func edit(name, old, replacement string) func(*http.Request, *[]byte) {
	return func(r *http.Request, _ *[]byte) {
		value := r.Header.Get(name)
		if !strings.Contains(value, old) {
			panic(name + " does not contain " + old)
		}
		r.Header.Set(name, strings.Replace(value, old, replacement, 1))
	}
}

func target(path, query string) func(*http.Request, *[]byte) {
	return func(r *http.Request, _ *[]byte) {
		u, err := url.ParseRequestURI(path + "?" + query)
		if err != nil {
			panic(err)
		}
		r.URL = u
	}
}

const (
	invokePath  = "/2015-03-31/functions/my-function/invocations"
	invokeQuery = "Qualifier=prod&Tag=a&Tag=b"
)

var mutations = map[string]func(*http.Request, *[]byte){
	"method":                       func(r *http.Request, _ *[]byte) { r.Method = "PUT" },
	"method in lower case":         func(r *http.Request, _ *[]byte) { r.Method = "post" },
	"host":                         func(r *http.Request, _ *[]byte) { r.Host = "127.0.0.1:9444" },
	"no host":                      func(r *http.Request, _ *[]byte) { r.Host = "" },
	"path":                         target("/2015-03-31/functions/my-functioN/invocations", invokeQuery),
	"path encoded otherwise":       target("/2015-03-31/functions/my%2Dfunction/invocations", invokeQuery),
	"path with a trailing slash":   target(invokePath+"/", invokeQuery),
	"query value":                  target(invokePath, "Qualifier=dev&Tag=a&Tag=b"),
	"query name":                   target(invokePath, "qualifier=prod&Tag=a&Tag=b"),
	"query parameter dropped":      target(invokePath, "Qualifier=prod&Tag=a"),
	"query parameter added":        target(invokePath, invokeQuery+"&Tag=c"),
	"query parameter repeated":     target(invokePath, invokeQuery+"&Tag=b"),
	"empty query parameter":        target(invokePath, invokeQuery+"&"),
	"query not percent-encoding":   target(invokePath, "Qualifier=%zz"),
	"query gone":                   target(invokePath, ""),
	"body changed":                 func(_ *http.Request, b *[]byte) { *b = []byte(`{"key":"valuf"}`) },
	"body cut":                     func(_ *http.Request, b *[]byte) { *b = (*b)[:len(*b)-1] },
	"body gone":                    func(_ *http.Request, b *[]byte) { *b = nil },
	"body longer":                  func(_ *http.Request, b *[]byte) { *b = append(*b, ' ') },
	"content hash of another body": func(r *http.Request, _ *[]byte) { r.Header.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64)) },
	"unsigned payload":             func(r *http.Request, _ *[]byte) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") },
	"signed header changed":        edit("X-Amz-Invocation-Type", "RequestResponse", "Event"),
	"signed header dropped":        func(r *http.Request, _ *[]byte) { r.Header.Del("X-Amz-Log-Type") },
	"signed header split in two":   func(r *http.Request, _ *[]byte) { r.Header["X-Amz-Log-Type"] = []string{"Tail", "Tail"} },
	"content type changed":         edit("Content-Type", "json", "xml"),
	"content type twice":           func(r *http.Request, _ *[]byte) { r.Header.Add("Content-Type", "application/json") },
	"content type dropped":         func(r *http.Request, _ *[]byte) { r.Header.Del("Content-Type") },
	"unsigned x-amz header added":  func(r *http.Request, _ *[]byte) { r.Header.Set("X-Amz-Client-Context", "e30=") },
	"x-amz header in another case": func(r *http.Request, _ *[]byte) { r.Header["x-amz-log-type"] = []string{"None"} },
	"security token changed":       edit("X-Amz-Security-Token", "IQ", "iQ"),
	"security token dropped":       func(r *http.Request, _ *[]byte) { r.Header.Del("X-Amz-Security-Token") },
	"date moved by a second":       edit("X-Amz-Date", "T123600Z", "T123601Z"),
	"date moved by a day":          edit("X-Amz-Date", "20261123", "20261124"),
	"date in another format":       edit("X-Amz-Date", "20261123T123600Z", "2026-11-23T12:36:00Z"),
	"date twice":                   func(r *http.Request, _ *[]byte) { r.Header.Add("X-Amz-Date", "20261123T123600Z") },
	"date gone":                    func(r *http.Request, _ *[]byte) { r.Header.Del("X-Amz-Date") },
	"unsigned Date for X-Amz-Date": func(r *http.Request, _ *[]byte) {
		r.Header.Set("Date", r.Header.Get("X-Amz-Date"))
		r.Header.Del("X-Amz-Date")
	},
	"authorization gone":            func(r *http.Request, _ *[]byte) { r.Header.Del("Authorization") },
	"authorization twice":           func(r *http.Request, _ *[]byte) { r.Header.Add("Authorization", r.Header.Get("Authorization")) },
	"authorization with more":       edit("Authorization", "Credential=", "Realm=x, Credential="),
	"authorization ends in a comma": func(r *http.Request, _ *[]byte) { r.Header.Set("Authorization", r.Header.Get("Authorization")+",") },
	"authorization too long":        edit("Authorization", "Credential=", "Credential="+strings.Repeat("A", 9000)),
	"another algorithm":             edit("Authorization", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
	"no algorithm":                  edit("Authorization", "AWS4-HMAC-SHA256", "Bearer"),
	"signature of zeros":            signature(func(string) string { return strings.Repeat("0", 64) }),
	"signature with a bit flipped": signature(func(s string) string {
		return s[:63] + string("123456789abcdef0"[strings.IndexByte("0123456789abcdef", s[63])])
	}),
	"signature in upper case":        signature(strings.ToUpper),
	"signature cut":                  signature(func(s string) string { return s[:62] }),
	"signature longer":               signature(func(s string) string { return s + "00" }),
	"signature not hexadecimal":      signature(func(s string) string { return s[:63] + "g" }),
	"signature empty":                signature(func(string) string { return "" }),
	"key of somebody else":           edit("Authorization", "Credential=ASIA", "Credential=AKIA"),
	"scope of another day":           edit("Authorization", "/20261123/", "/20261122/"),
	"scope of another region":        edit("Authorization", "/us-west-2/", "/us-east-1/"),
	"scope of another service":       edit("Authorization", "/lambda/", "/logs/"),
	"scope of an unknown service":    edit("Authorization", "/lambda/", "/s3/"),
	"scope with another end":         edit("Authorization", "/aws4_request", "/aws5_request"),
	"scope too long":                 edit("Authorization", "/aws4_request", "/aws4_request/x"),
	"signed headers without host":    edit("Authorization", ";host;", ";"),
	"signed headers with less":       edit("Authorization", ";x-amz-log-type", ""),
	"signed headers with more":       edit("Authorization", ";x-amz-date", ";user-agent;x-amz-date"),
	"signed headers unsorted":        edit("Authorization", "content-type;host", "host;content-type"),
	"signed headers repeated":        edit("Authorization", ";host;", ";host;host;"),
	"signed headers in upper case":   edit("Authorization", ";host;", ";Host;"),
	"signed headers with a gap":      edit("Authorization", ";host;", ";;host;"),
	"signed header not in request":   edit("Authorization", ";host;", ";cookie;host;"),
	"signed headers beyond counting": edit("Authorization", ";host;", ";host;"+strings.Repeat("i;", 200)),
}

func signature(change func(string) string) func(*http.Request, *[]byte) {
	return func(r *http.Request, _ *[]byte) {
		head, s, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
		r.Header.Set("Authorization", head+"Signature="+change(s))
	}
}

func TestEveryMutationOfASignedRequestIsRefused(t *testing.T) {
	verifier := newVerifier(t, time.Second)
	for name, mutate := range mutations {
		r, body := invoke.sign(t)
		if _, err := verifier.Verify(t.Context(), r, body); err != nil {
			t.Fatalf("the request itself: %v", err)
		}
		mutate(r, &body)
		s, err := verifier.Verify(t.Context(), r, body)
		var refusal *api.Error
		if !errors.As(err, &refusal) {
			t.Errorf("%s: got %+v, %v; want a refusal", name, s, err)
		}
		if s != (Signature{}) {
			t.Errorf("%s: a refused request has a signature %+v", name, s)
		}
	}
}

func TestWhatIsNotSignedMayChange(t *testing.T) {
	r, body := invoke.sign(t)
	r.Header.Set("X-Amzn-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793")
	r.Header.Set("User-Agent", "proxy")
	r.Header.Add("X-Forwarded-For", "192.0.2.1")
	if _, err := newVerifier(t, 0).Verify(t.Context(), r, body); err != nil {
		t.Error(err)
	}
}

func TestASignatureHoldsForFiveMinutesEitherWay(t *testing.T) {
	for _, c := range []struct {
		since   time.Duration
		message string
	}{
		{-10 * time.Minute, "Signature not yet current: 20261123T123600Z is still later than 20261123T123100Z (20261123T122600Z + 5 min.)"},
		{-5*time.Minute - time.Second, "Signature not yet current: 20261123T123600Z is still later than 20261123T123559Z (20261123T123059Z + 5 min.)"},
		{-5 * time.Minute, ""},
		{0, ""},
		{5*time.Minute + 999*time.Millisecond, ""},
		{5*time.Minute + time.Second, "Signature expired: 20261123T123600Z is now earlier than 20261123T123601Z (20261123T124101Z - 5 min.)"},
		{10 * time.Minute, "Signature expired: 20261123T123600Z is now earlier than 20261123T124100Z (20261123T124600Z - 5 min.)"},
		{24 * time.Hour, "Signature expired: 20261123T123600Z is now earlier than 20261124T123100Z (20261124T123600Z - 5 min.)"},
	} {
		r, body := order{}.sign(t)
		_, err := newVerifier(t, c.since).Verify(t.Context(), r, body)
		var want error
		if c.message != "" {
			want = &api.Error{Code: "InvalidSignatureException", Status: 403, Message: c.message}
		}
		if diff := cmp.Diff(want, err); diff != "" {
			t.Errorf("%v after signing (-want +got):\n%s", c.since, diff)
		}
	}
}

func TestTheDateHeaderStandsInForXAmzDate(t *testing.T) {
	// The SDK always sends X-Amz-Date, so this signature is made by our own key derivation, which
	// the manual's example checks.
	r, err := http.NewRequest("GET", "https://localhost/2015-03-31/functions", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Date", "Mon, 23 Nov 2026 12:36:00 GMT")
	q := &query{date: "20261123", region: "us-west-2", service: "lambda", signedHeaders: "date;host", time: signedAt}
	if err := q.readHeaders(r); err != nil {
		t.Fatal(err)
	}
	key := signingKey{userKey.AccessKeyID, userKey.SecretAccessKey, q.date, q.region, q.service}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+userKey.AccessKeyID+"/20261123/us-west-2/lambda/aws4_request,SignedHeaders=date;host,Signature="+
		signatureOf(t, q, r, key))
	if _, err := newVerifier(t, 0).Verify(t.Context(), r, nil); err != nil {
		t.Error(err)
	}
	r.Header.Set("Date", "Mon, 23 Nov 2026 12:36:01 GMT")
	if _, err := newVerifier(t, 0).Verify(t.Context(), r, nil); err == nil {
		t.Error("a changed Date was accepted")
	}
}

func TestRefusalsAreInTheWordsOfTheService(t *testing.T) {
	const (
		mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
		invalid  = "The security token included in the request is invalid."
		expired  = "The security token included in the request is expired"
		region   = "Credential should be scoped to a valid region."
	)
	bad := userKey
	bad.SecretAccessKey += "x"
	withoutToken := sessionKey
	withoutToken.SessionToken = ""
	withToken := userKey
	withToken.SessionToken = "a token that no user key has"
	for _, c := range []struct {
		service string
		order   order
		want    api.Error
	}{
		{"lambda", order{key: bad}, api.Error{Code: "InvalidSignatureException", Status: 403, Message: mismatch}},
		{"logs", order{key: bad}, api.Error{Code: "InvalidSignatureException", Status: 400, Message: mismatch}},
		{"iam", order{key: bad}, api.Error{Code: "SignatureDoesNotMatch", Status: 403, Message: mismatch}},
		{"sts", order{key: bad}, api.Error{Code: "SignatureDoesNotMatch", Status: 403, Message: mismatch}},
		{"lambda", order{key: strangerKey}, api.Error{Code: "UnrecognizedClientException", Status: 403, Message: invalid}},
		{"logs", order{key: strangerKey}, api.Error{Code: "UnrecognizedClientException", Status: 400, Message: invalid}},
		{"iam", order{key: strangerKey}, api.Error{Code: "InvalidClientTokenId", Status: 403, Message: invalid}},
		{"sts", order{key: strangerKey}, api.Error{Code: "InvalidClientTokenId", Status: 403, Message: invalid}},
		{"lambda", order{key: withoutToken}, api.Error{Code: "UnrecognizedClientException", Status: 403, Message: invalid}},
		{"lambda", order{key: withToken}, api.Error{Code: "UnrecognizedClientException", Status: 403, Message: invalid}},
		{"lambda", order{key: expiredKey}, api.Error{Code: "ExpiredTokenException", Status: 403, Message: expired}},
		{"logs", order{key: expiredKey}, api.Error{Code: "ExpiredTokenException", Status: 400, Message: expired}},
		{"sts", order{key: expiredKey}, api.Error{Code: "ExpiredToken", Status: 403, Message: expired}},
		{"lambda", order{region: "eu-west-1"}, api.Error{Code: "InvalidSignatureException", Status: 403, Message: region}},
		{"lambda", order{region: "us-east-1"}, api.Error{Code: "InvalidSignatureException", Status: 403, Message: region}},
		{"sts", order{region: "us-east-1"}, api.Error{Code: "SignatureDoesNotMatch", Status: 403, Message: region}},
		{"iam", order{region: "eu-west-1"}, api.Error{Code: "SignatureDoesNotMatch", Status: 403, Message: region}},
	} {
		c.order.service = c.service
		r, body := c.order.sign(t)
		_, err := newVerifier(t, 0).Verify(t.Context(), r, body)
		if diff := cmp.Diff(error(&c.want), err); diff != "" {
			t.Errorf("%s, %s, %s (-want +got):\n%s", c.service, c.order.key.AccessKeyID, c.order.region, diff)
		}
	}
}

func TestAnUnsignedRequestIsRefusedInTheWordsOfItsProtocol(t *testing.T) {
	for _, c := range []struct {
		request string
		want    api.Error
	}{
		{"GET /2015-03-31/functions HTTP/1.1\r\nHost: h\r\n\r\n",
			api.Error{Code: "MissingAuthenticationTokenException", Status: 403, Message: "Missing Authentication Token"}},
		{"POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: Logs_20140328.DescribeLogGroups\r\n\r\n",
			api.Error{Code: "MissingAuthenticationTokenException", Status: 400, Message: "Missing Authentication Token"}},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded; charset=utf-8\r\n\r\n",
			api.Error{Code: "MissingAuthenticationToken", Status: 403, Message: "Request is missing Authentication Token"}},
		{"GET /?Action=GetCallerIdentity&Version=2011-06-15 HTTP/1.1\r\nHost: h\r\n\r\n",
			api.Error{Code: "MissingAuthenticationToken", Status: 403, Message: "Request is missing Authentication Token"}},
		{"GET /2015-03-31/functions HTTP/1.1\r\nHost: h\r\nAuthorization: Basic YTpi\r\n\r\n",
			api.Error{Code: "IncompleteSignatureException", Status: 403, Message: "Authorization header requires 'Credential' parameter. " +
				"Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. " +
				"Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. " +
				"(Hashed with SHA-256 and encoded with Base64) Authorization=O133MeQGsSG8M/c3mxecXZJzUhCDu+9BD3DsZ39/mpI="}},
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(c.request)))
		if err != nil {
			t.Fatal(err)
		}
		verifier := newVerifier(t, 0)
		_, err = verifier.Verify(t.Context(), r, nil)
		if diff := cmp.Diff(error(&c.want), err); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.request, diff)
		}
		_, err = verifier.Check(r)
		if diff := cmp.Diff(error(&c.want), err); diff != "" {
			t.Errorf("%q, before the body (-want +got):\n%s", c.request, diff)
		}
	}
}

func TestAFaultOfTheLookupIsNoRefusal(t *testing.T) {
	fault := errors.New("the store is closed")
	v, err := New(Config{Region: "us-west-2", Services: []string{"lambda"}, Now: func() time.Time { return signedAt },
		Lookup: func(context.Context, string, string) (string, error) { return "", fault }})
	if err != nil {
		t.Fatal(err)
	}
	r, body := order{}.sign(t)
	_, err = v.Verify(t.Context(), r, body)
	var refusal *api.Error
	if !errors.Is(err, fault) || errors.As(err, &refusal) {
		t.Errorf("got %v, want the fault itself", err)
	}
}

func TestAChangedSecretActsAtOnce(t *testing.T) {
	secret := userKey.SecretAccessKey
	v, err := New(Config{Region: "us-west-2", Services: []string{"lambda"}, Now: func() time.Time { return signedAt },
		Lookup: func(context.Context, string, string) (string, error) { return secret, nil }})
	if err != nil {
		t.Fatal(err)
	}
	r, body := order{}.sign(t)
	if _, err := v.Verify(t.Context(), r, body); err != nil {
		t.Fatal(err)
	}
	secret = "another"
	if _, err := v.Verify(t.Context(), r, body); err == nil {
		t.Error("the old secret still signs")
	}
}

func TestTheKeyCacheIsBounded(t *testing.T) {
	cache := newKeyCache(10)
	first := signingKey{"first", "secret", "20261123", "us-west-2", "lambda"}
	for n := range 100 {
		other := first
		other.accessKeyID = fmt.Sprint("key ", n)
		if cache.derive(other) != other.derive() {
			t.Fatalf("%v: the cache derives another key", other)
		}
		if cache.derive(first) != first.derive() { // used again and again, so it stays
			t.Fatal("the cache derives another key")
		}
		if len(cache.entries) > 10 || cache.recent.Len() != len(cache.entries) {
			t.Fatalf("%d entries, %d in the list", len(cache.entries), cache.recent.Len())
		}
	}
	if _, kept := cache.entries[first]; !kept {
		t.Error("the most used key was forgotten")
	}
}

func TestAKeyIsDerivedOnceForEachDayAndScope(t *testing.T) {
	v := newVerifier(t, 0)
	send := func(o order, derived int) {
		t.Helper()
		for range 3 {
			r, body := o.sign(t)
			if _, err := v.Verify(t.Context(), r, body); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(v.keys.entries); n != derived {
			t.Errorf("%d keys are derived, want %d", n, derived)
		}
	}
	send(order{}, 1)
	send(order{method: "POST", target: invokePath, body: "{}"}, 1)
	send(order{service: "logs"}, 2)
	send(order{key: sessionKey}, 3)
	r, body := order{at: signedAt.Add(-24 * time.Hour)}.presign(t, 48*time.Hour)
	if _, err := v.Verify(t.Context(), r, body); err != nil || len(v.keys.entries) != 4 {
		t.Errorf("%v; %d keys are derived, with one of yesterday", err, len(v.keys.entries))
	}
	for e := v.keys.recent.Front(); e != nil; e = e.Next() {
		e.Value.(*cachedKey).derived[0] ^= 1
	}
	r, body = order{}.sign(t)
	if _, err := v.Verify(t.Context(), r, body); err == nil {
		t.Error("a good signature fits a spoiled key: it was derived again")
	}
}

func TestStrangersDoNotFillTheKeyCache(t *testing.T) {
	v := newVerifier(t, 0)
	for n := range 50 {
		key := strangerKey
		key.AccessKeyID = fmt.Sprintf("AKIASTRANGER%08d", n)
		r, body := order{key: key}.sign(t)
		if _, err := v.Verify(t.Context(), r, body); err == nil {
			t.Fatal("accepted")
		}
	}
	if n := len(v.keys.entries); n != 1 {
		t.Errorf("%d derived keys after 50 strangers, want 1", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	plain := order{method: "POST", target: "2015-03-31/functions/my-function/invocations", body: `{"message":"hello, world"}`}
	rich, large := invoke, plain
	rich.body, large.body = plain.body, strings.Repeat("x", 6<<20)
	for _, c := range []struct {
		name string
		order
	}{{"26 bytes", plain}, {"26 bytes, session, query and 8 headers", rich}, {"6 MiB", large}} {
		b.Run(c.name, func(b *testing.B) {
			r, body := c.sign(b)
			v := newVerifier(b, 0)
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := v.Verify(b.Context(), r, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
