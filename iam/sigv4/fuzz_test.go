package sigv4

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"cloister/api"
)

// FuzzVerify gives raw requests to a verifier whose secret nobody knows.
func FuzzVerify(f *testing.F) {
	form := order{method: "POST", service: "iam", body: "Action=GetUser&Version=2010-05-08",
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
	for _, o := range []order{{}, invoke, form, getFunction, identity} {
		r, body := o.sign(f)
		f.Add(asBytes(f, r, body))
		r, body = o.presign(f, time.Hour)
		f.Add(asBytes(f, r, body))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: h\r\nDate: x\r\nAuthorization: AWS4-HMAC-SHA256 Credential=////aws4_request,SignedHeaders=host,Signature=00\r\n\r\n"))
	v, err := New(Config{Region: "us-west-2", Services: []string{"lambda", "iam", "sts"}, Now: func() time.Time { return signedAt },
		Lookup: func(context.Context, string, string) (string, error) { return "a secret of the server only", nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw))))
		if err != nil {
			return
		}
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
		s, err := v.Verify(t.Context(), r, body)
		refusal, ok := errors.AsType[*api.Error](err)
		if !ok || s != (Signature{}) {
			t.Fatalf("got %+v, %v; want a refusal", s, err)
		}
		if len(refusal.Message) > 1000 {
			t.Fatalf("a refusal of %d bytes", len(refusal.Message))
		}
		// What is refused before the body is refused for the same reason with it; what routing reads never panics.
		_, err = v.Check(r)
		if before, ok := errors.AsType[*api.Error](err); ok && before.Code != refusal.Code {
			t.Fatalf("before the body %v, with it %v", before, refusal)
		}
		ClaimedService(r)
		NormalPath(r.URL)
	})
}

func asBytes(t testing.TB, r *http.Request, body []byte) []byte {
	t.Helper()
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return []byte(b.String())
}

// FuzzOneSignatureFitsOneRequest looks for two request lines that are routed or decoded differently and share what is
// signed.
func FuzzOneSignatureFitsOneRequest(f *testing.F) {
	for _, pair := range [][2]string{
		{"/a/b?c=d", "/a/b?c=e"}, {"/a%2Fb", "/a/b"}, {"/a%252Fb", "/a%2Fb"}, {"/a b", "/a%20b"}, {"/é", "/%C3%A9"}, {"/a//b", "/a/b"},
		{"/?a=b+c", "/?a=b%2Bc"}, {"/?a&b", "/?a=&b="}, {"/?a=b&a=c", "/?a=c&a=b"}, {"/?a=b;c=d", "/?a=b&c=d"}, {"/?a=b;c=d", "/?a=b%3Bc%3Dd"}, {"/?a=b%26c=d", "/?a=b&c=d"},
		{"/?a%00=b", "/?a=%00b"}, {"/./a", "/a"}, {"/%2e/a", "/./a"}, {"/?X-Amz-Signature=1&a=b", "/?X-Amz-Signature=2&a=b"}, {"/?", "/"}, {"/?&", "/?="}, {"/?&", "/?&="}, {"/?&=", "/?=&="},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		a, signed, ok := read(first)
		b, alsoSigned, alsoOK := read(second)
		if !ok || !alsoOK || signed != alsoSigned {
			return
		}
		if a.Path != b.Path {
			t.Errorf("one signature for the paths %q and %q", first, second)
		}
		if x, y := a.Query(), b.Query(); !maps.EqualFunc(x, y, sameValues) {
			t.Errorf("one signature for %q, which means %v, and for %q, which means %v", first, x, second, y)
		}
	})
}

// sameValues compares without order: which of several values of a parameter stands first is not signed.
func sameValues(x, y []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
}

// read returns a request target and what of it is signed with a header, if a router takes the target.
func read(target string) (*url.URL, string, bool) {
	u, err := url.ParseRequestURI(target)
	if err != nil || !NormalPath(u) {
		return nil, "", false
	}
	q := &query{}
	signed, ok := q.appendCanonicalQuery(append(q.appendCanonicalPath(nil, u), '?'), u.RawQuery)
	return u, string(signed), ok
}
