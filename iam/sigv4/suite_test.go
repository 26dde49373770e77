package sigv4

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"
)

// AWS publishes a suite of signed requests for implementers. It is downloaded, never kept here: the source distribution
// of botocore has an older copy, the Rust crate aws-sigv4 the newest, which signs every request in the URL too.
var suiteFlag = flag.String("suite", "botocore", "copy of AWS's suite of signed requests: botocore, or crate, which needs cargo")

// A suiteCase is one signed request of the suite, as files have it.
type suiteCase struct {
	name      string
	signed    string // the request in HTTP/1.1, a last empty line may be missing
	canonical string // what the signature is over, empty if the suite does not say
	toSign    string // and its digest with date and scope; empty likewise
	presigned bool
	context   suiteContext
}

// suiteContext is how a request was signed. Its zero value is not: see newSuiteContext.
type suiteContext struct {
	Credentials struct {
		AccessKeyID string `json:"access_key_id"`
		Secret      string `json:"secret_access_key"`
		Token       string `json:"token"`
	} `json:"credentials"`
	Normalize bool      `json:"normalize"`
	OmitToken bool      `json:"omit_session_token"`
	Region    string    `json:"region"`
	Service   string    `json:"service"`
	Timestamp time.Time `json:"timestamp"`
}

func newSuiteContext() suiteContext {
	c := suiteContext{Normalize: true, Region: "us-east-1", Service: "service", Timestamp: time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)}
	c.Credentials.AccessKeyID, c.Credentials.Secret = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	return c
}

// loaded keeps the cases, which take seconds to unpack.
var loaded struct {
	sync.Once
	cases []suiteCase
}

// loadSuite returns the cases of the copy that was asked for.
func loadSuite(t testing.TB) []suiteCase {
	t.Helper()
	loaded.Do(func() {
		switch *suiteFlag {
		case "botocore":
			loaded.cases = botocoreSuite(t)
		case "crate":
			loaded.cases = crateSuite(t)
		default:
			t.Fatalf("-suite %q: want botocore or crate", *suiteFlag)
		}
	})
	if len(loaded.cases) == 0 {
		t.Fatal("the suite could not be loaded; the first test that needed it says why")
	}
	return loaded.cases
}

// authorizationEnd is the body that may follow the last header.
var authorizationEnd = regexp.MustCompile(`(?s)\n\r?\n.*`)

// botocoreSuite has requests signed in a header only, and all but one in the default way.
func botocoreSuite(t testing.TB) []suiteCase {
	files := unpackBotocore(t, "tests/unit/auth/aws4_testsuite")
	var cases []suiteCase
	for file, text := range files {
		base, ok := strings.CutSuffix(file, ".sreq")
		if !ok {
			continue
		}
		// One request has the signature of another; what stands in its file of that name is right.
		text = text[:strings.Index(text, "Authorization: ")+len("Authorization: ")] + files[base+".authz"] + authorizationEnd.FindString(text)
		c := suiteCase{name: path.Base(base), signed: text, canonical: files[base+".creq"], toSign: files[base+".sts"], context: newSuiteContext()}
		c.context.OmitToken = c.name == "post-sts-header-after"
		cases = append(cases, c)
	}
	return addPresigned(t, cases)
}

// addPresigned adds each request again, this time signed in its URL by AWS's SDK, where the SDK can:
// it does not normalise paths.
func addPresigned(t testing.TB, cases []suiteCase) []suiteCase {
	for _, c := range cases[:len(cases):len(cases)] {
		r, body := c.request(t)
		if !NormalPath(r.URL) || r.URL.RawPath != "" {
			continue
		}
		r.URL.Host, r.URL.Scheme = r.Host, "https"
		r.URL.RawQuery += "&X-Amz-Expires=3600"
		for _, name := range []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token"} {
			r.Header.Del(name)
		}
		key := aws.Credentials{AccessKeyID: c.context.Credentials.AccessKeyID, SecretAccessKey: c.context.Credentials.Secret}
		hash := sha256.Sum256(body)
		signed, header, err := v4.NewSigner().PresignHTTP(t.Context(), key, r, hex.EncodeToString(hash[:]), c.context.Service, c.context.Region, c.context.Timestamp)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		var wire strings.Builder
		fmt.Fprintf(&wire, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, u.RequestURI(), u.Host)
		header.Del("Host")
		header.Write(&wire)
		cases = append(cases, suiteCase{name: c.name, signed: wire.String() + "\r\n" + string(body), presigned: true, context: c.context})
	}
	return cases
}

// crateSuite has every request signed in both ways, and two of the crate's own in a header only, which do not say how.
func crateSuite(t testing.TB) []suiteCase {
	files := unpackCrate(t, "aws-signing-test-suite/v4")
	var cases []suiteCase
	for file, text := range files {
		folder, ok := strings.CutSuffix(file, "/header-signed-request.txt")
		if !ok {
			continue
		}
		c := suiteCase{name: folder, signed: text, canonical: files[folder+"/header-canonical-request.txt"],
			toSign: files[folder+"/header-string-to-sign.txt"], context: newSuiteContext()}
		switch text := files[folder+"/context.json"]; folder {
		case "double-encode-path":
			c.context.Credentials.AccessKeyID, c.context.Credentials.Secret = "ANOTREAL", "notrealrnrELgWzOk3IfjzDKtFBhDby"
		case "double-url-encode":
			c.context.Region, c.context.Service, c.context.Timestamp = "us-east-2", "lambda", time.Date(2021, 5, 11, 15, 40, 45, 0, time.UTC)
		default:
			if err := json.Unmarshal([]byte(text), &c.context); err != nil {
				t.Fatalf("%s: %v", folder, err)
			}
		}
		cases = append(cases, c)
		if c.signed, ok = files[folder+"/query-signed-request.txt"]; ok {
			c.presigned = true
			c.canonical, c.toSign = files[folder+"/query-canonical-request.txt"], files[folder+"/query-string-to-sign.txt"]
			cases = append(cases, c)
		}
	}
	return cases
}

// verifier accepts what the case was signed for, and is now sinceSigned after it was signed.
func (c suiteCase) verifier(t testing.TB, sinceSigned time.Duration) *Verifier {
	t.Helper()
	v, err := New(Config{
		Region: c.context.Region, Services: []string{"lambda"}, Now: func() time.Time { return c.context.Timestamp.Add(sinceSigned) },
		Lookup: func(_ context.Context, accessKeyID, _ string) (string, error) {
			if accessKeyID != c.context.Credentials.AccessKeyID {
				return "", ErrUnknownKey
			}
			return c.context.Credentials.Secret, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	v.accepts[c.context.Service] = dialect{service: "service", denied: 403, invalid: 400, exactPath: !c.context.Normalize, tokenApart: c.context.OmitToken}
	return v
}

// request returns what a server sees. The parser is net/http's, except for a space in the path, which it refuses: there
// the request is put together by hand as net/http would, had it read on.
func (c suiteCase) request(t testing.TB) (*http.Request, []byte) {
	t.Helper()
	text := strings.ReplaceAll(c.signed, "\r\n", "\n")
	head, body, _ := strings.Cut(text, "\n\n")
	line, rest, _ := strings.Cut(strings.TrimRight(head, "\n"), "\n")
	line = strings.TrimSuffix(line, " HTTP/1.1") // which one of the crate's own lacks
	method, target, _ := strings.Cut(line, " ")
	target, query, _ := strings.Cut(target, "?")
	if !strings.Contains(target, " ") {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\n" + rest + "\n\n")))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		return r, []byte(body)
	}
	header, err := textproto.NewReader(bufio.NewReader(strings.NewReader(rest + "\n\n"))).ReadMIMEHeader()
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	r := &http.Request{Method: method, URL: &url.URL{Path: target, RawPath: target, RawQuery: query}, Header: http.Header(header), Host: header.Get("Host")}
	r.Header.Del("Host")
	return r, []byte(body)
}

func TestEveryRequestOfTheSuiteIsAccepted(t *testing.T) {
	cases := loadSuite(t)
	headers, urls := 0, 0
	for _, c := range cases {
		r, body := c.request(t)
		if _, err := c.verifier(t, 0).Verify(t.Context(), r, body); err != nil {
			t.Errorf("%s, pre-signed %v: %v", c.name, c.presigned, err)
		}
		if c.presigned {
			urls++
		} else {
			headers++
		}
		c.compareTexts(t, r, body)
	}
	want := map[string][2]int{"botocore": {34, 26}, "crate": {40, 38}}[*suiteFlag]
	if got := [2]int{headers, urls}; got != want {
		t.Errorf("%d requests are signed in a header, %d in the URL; the copy of %s has %v", headers, urls, *suiteFlag, want)
	}
	t.Logf("%s: accepted %d requests signed in a header and %d signed in the URL", *suiteFlag, headers, urls)
}

// compareTexts holds our canonical request and the digest over it against those of the suite.
func (c suiteCase) compareTexts(t *testing.T, r *http.Request, body []byte) {
	t.Helper()
	v := c.verifier(t, 0)
	q := v.newQuery()
	if err := v.parse(q, r); err != nil {
		return // told already
	}
	hash := sha256.Sum256(body)
	got, err := q.appendCanonicalRequest(nil, r, hex.AppendEncode(nil, hash[:]))
	if err != nil {
		return
	}
	if c.canonical != "" && c.canonicalIsRight() {
		if diff := cmp.Diff(strings.ReplaceAll(c.canonical, "\r\n", "\n"), string(got)); diff != "" {
			t.Errorf("%s: canonical request (-suite +ours):\n%s", c.name, diff)
		}
	}
	if c.toSign != "" {
		digest := sha256.Sum256(got)
		if want := hex.EncodeToString(digest[:]); !strings.HasSuffix(strings.TrimSpace(c.toSign), want) {
			t.Errorf("%s: string to sign %q, want one with %s", c.name, c.toSign, want)
		}
	}
}

// canonicalIsRight is false for a request of the crate's own, whose files do not belong together: one
// was signed in 2015, the other in 2021.
func (c suiteCase) canonicalIsRight() bool { return c.name != "double-encode-path" }

// A Verifier as cmd makes it has none of the exceptions that single cases need.
func TestTheExceptionsOfTheSuiteAreNotMadeInProduction(t *testing.T) {
	for name, d := range dialects {
		if d.exactPath || d.tokenApart {
			t.Errorf("%s has an exception", name)
		}
	}
	refused := 0
	for _, c := range loadSuite(t) {
		r, body := c.request(t)
		token := len(r.Header["X-Amz-Security-Token"]) > 0 || strings.Contains(r.URL.RawQuery, "X-Amz-Security-Token")
		exceptional := !c.context.Normalize && !NormalPath(r.URL) || c.context.OmitToken && token
		c.context.Normalize, c.context.OmitToken = true, false
		_, err := c.verifier(t, 0).Verify(t.Context(), r, body)
		if (err != nil) != exceptional {
			t.Errorf("%s, pre-signed %v: a verifier without exceptions says %v", c.name, c.presigned, err)
		}
		if err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no case needs an exception: this test shows nothing")
	}
}
