package sigv4

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

var (
	signedAt    = time.Date(2026, 11, 23, 12, 36, 0, 0, time.UTC)
	userKey     = aws.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
	sessionKey  = aws.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: "aFNXtVqyKx2+/V9x6F3O1mJ0EXAMPLEkeyQ2zL8b", SessionToken: "IQoJb3JpZ2luX2VjE+/token=="}
	expiredKey  = aws.Credentials{AccessKeyID: "ASIAEXPIREDSESSION00", SecretAccessKey: "any", SessionToken: "was genuine once"}
	strangerKey = aws.Credentials{AccessKeyID: "AKIASTRANGERSTRANGER", SecretAccessKey: "any"}
)

// lookup knows userKey and sessionKey, and that expiredKey has ended.
func lookup(_ context.Context, accessKeyID, sessionToken string) (string, error) {
	switch (aws.Credentials{AccessKeyID: accessKeyID, SessionToken: sessionToken}) {
	case aws.Credentials{AccessKeyID: userKey.AccessKeyID}:
		return userKey.SecretAccessKey, nil
	case aws.Credentials{AccessKeyID: sessionKey.AccessKeyID, SessionToken: sessionKey.SessionToken}:
		return sessionKey.SecretAccessKey, nil
	case aws.Credentials{AccessKeyID: expiredKey.AccessKeyID, SessionToken: expiredKey.SessionToken}:
		return "", fmt.Errorf("session: %w", ErrExpiredToken)
	}
	return "", ErrUnknownKey
}

// newVerifier returns a verifier for us-west-2 that is now sinceSigned after signedAt.
func newVerifier(t testing.TB, sinceSigned time.Duration) *Verifier {
	t.Helper()
	v, err := New(Config{
		Region:   "us-west-2",
		Services: []string{"lambda", "logs", "iam", "sts"},
		Lookup:   lookup,
		Now:      func() time.Time { return signedAt.Add(sinceSigned) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// An order describes a request to sign; its zero value is a GET of / for lambda by userKey.
type order struct {
	method, target string
	header         http.Header
	body           string
	key            aws.Credentials
	service        string
	region         string
	at             time.Time
}

// sign signs with the signer of AWS's own SDK and sends the request through net/http's writer and
// reader, so that it is what a server gets to see.
func (o order) sign(t testing.TB) (*http.Request, []byte) {
	t.Helper()
	if o.method == "" {
		o.method = "GET"
	}
	if o.key.AccessKeyID == "" {
		o.key = userKey
	}
	if o.service == "" {
		o.service = "lambda"
	}
	if o.region == "" {
		o.region = "us-west-2"
	}
	if o.at.IsZero() {
		o.at = signedAt
	}
	r, err := http.NewRequest(o.method, "https://127.0.0.1:9443/"+strings.TrimPrefix(o.target, "/"), strings.NewReader(o.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range o.header {
		r.Header[name] = values
	}
	sum := sha256.Sum256([]byte(o.body))
	if err := v4.NewSigner().SignHTTP(context.Background(), o.key, r, hex.EncodeToString(sum[:]), o.service, o.region, o.at); err != nil {
		t.Fatal(err)
	}
	return overTheWire(t, r)
}

// presign signs in the URL, valid for that long where it is not 0, and sends the request with the headers
// that the signer says the client must send.
func (o order) presign(t testing.TB, valid time.Duration) (*http.Request, []byte) {
	t.Helper()
	r, _ := o.sign(t) // for the defaults
	o.key, o.service = cmp.Or(o.key, userKey), cmp.Or(o.service, "lambda")
	if o.at.IsZero() {
		o.at = signedAt
	}
	r.URL.Scheme, r.URL.Host = "https", r.Host
	for _, name := range []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token"} {
		r.Header.Del(name)
	}
	if valid != 0 {
		values := r.URL.Query()
		values.Set("X-Amz-Expires", fmt.Sprint(int(valid.Seconds())))
		r.URL.RawQuery = values.Encode()
	}
	sum := sha256.Sum256([]byte(o.body))
	signed, header, err := v4.NewSigner().PresignHTTP(t.Context(), o.key, r, hex.EncodeToString(sum[:]), o.service, cmp.Or(o.region, "us-west-2"), o.at)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := http.NewRequest(r.Method, signed, strings.NewReader(o.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		sent.Header[http.CanonicalHeaderKey(name)] = values
	}
	return overTheWire(t, sent)
}

func overTheWire(t testing.TB, r *http.Request) (*http.Request, []byte) {
	t.Helper()
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		t.Fatal(err)
	}
	received, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(received.Body)
	if err != nil {
		t.Fatal(err)
	}
	return received, body
}

func TestWhatTheSDKSignsIsAccepted(t *testing.T) {
	const letters = "abcXYZ019-_.~ :/+&=?%é世!$'()*,;@\"<>[]{}|^`#"
	source := rand.New(rand.NewPCG(1, 2))
	text := func(longest int) string {
		var b strings.Builder
		runes := []rune(letters)
		for range source.IntN(longest + 1) {
			b.WriteRune(runes[source.IntN(len(runes))])
		}
		return b.String()
	}
	verifier := newVerifier(t, time.Minute)
	services := []string{"lambda", "logs", "iam", "sts"}
	for n := range 3000 {
		o := order{
			method:  []string{"GET", "PUT", "POST", "DELETE", "PATCH"}[source.IntN(5)],
			target:  "2015-03-31/functions/f" + url.PathEscape(text(20)) + "/f" + url.PathEscape(text(8)), // "f": see NormalPath
			header:  http.Header{},
			body:    text(60),
			key:     []aws.Credentials{userKey, sessionKey}[source.IntN(2)],
			service: services[source.IntN(4)],
			at:      signedAt.Add(time.Duration(source.IntN(240)-120) * time.Second),
		}
		values := url.Values{}
		for range source.IntN(5) {
			values.Add(text(6), text(12))
		}
		if len(values) > 0 {
			o.target += "?" + values.Encode()
		}
		for range source.IntN(4) {
			o.header.Add("X-"+string(letters[source.IntN(9)]), strings.Trim(strings.ReplaceAll(text(20), "世", "  "), " "))
		}
		if source.IntN(2) == 0 {
			o.header.Set("X-Amz-Client-Context", "e30= "+text(3)+"=")
		}
		r, body := o.sign(t)
		want := Signature{o.key.AccessKeyID, o.key.SessionToken, o.service, "us-west-2", o.at}
		if s, err := verifier.Verify(t.Context(), r, body); err != nil || s != want {
			t.Fatalf("request %d, %+v: %+v, %v", n, o, s, err)
		}
		r, body = o.presign(t, time.Duration(source.IntN(3))*time.Hour)
		if s, err := verifier.Verify(t.Context(), r, body); err != nil || s != want {
			t.Fatalf("request %d, pre-signed, %+v: %+v, %v", n, o, s, err)
		}
	}
}

func TestAFunctionARNInThePathIsAccepted(t *testing.T) {
	for _, target := range []string{
		"2015-03-31/functions/arn:aws:lambda:us-west-2:123456789012:function:my-function:prod/invocations",
		"2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-west-2%3A123456789012%3Afunction%3Af/invocations?Qualifier=a%20b%2Bc",
		"2015-03-31/functions/caf%C3%A9%20a%2Fb?Qualifier=%24LATEST&Marker=a+b",
		"2017-03-31/tags/arn%3Aaws%3Alambda?tagKeys=team%2Fx&tagKeys=team-x&tagKeys=",
	} {
		r, body := order{method: "POST", target: target, body: "{}"}.sign(t)
		if _, err := newVerifier(t, 0).Verify(t.Context(), r, body); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// The example of the AWS general reference, "Signature Version 4 signing process".
func TestTheExampleOfTheManualIsAccepted(t *testing.T) {
	r, err := http.NewRequest("GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{
		"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"},
		"X-Amz-Date":   {"20150830T123600Z"},
		"Authorization": {"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, " +
			"Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"},
	}
	v, err := New(Config{
		Region: "us-east-1", Services: []string{"iam"},
		Lookup: func(context.Context, string, string) (string, error) {
			return "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", nil
		},
		Now: func() time.Time { return time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r, body := overTheWire(t, r)
	if _, err := v.Verify(t.Context(), r, body); err != nil {
		t.Error(err)
	}
	derived := signingKey{"", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam"}.derive()
	if got, want := hex.EncodeToString(derived[:]), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"; got != want {
		t.Errorf("derived key %s, want %s", got, want)
	}
}

// signatureOf computes the signature that matches looks for, for requests that the SDK does not make.
func signatureOf(t testing.TB, q *query, r *http.Request, key signingKey) string {
	t.Helper()
	empty := sha256.Sum256(nil)
	canonical, err := q.appendCanonicalRequest(nil, r, []byte(hex.EncodeToString(empty[:])))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(canonical)
	derived := key.derive()
	mac := hmac.New(sha256.New, derived[:])
	fmt.Fprintf(mac, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%x", q.time.Format(isoBasic), q.date, q.region, q.service, sum)
	return hex.EncodeToString(mac.Sum(nil))
}
