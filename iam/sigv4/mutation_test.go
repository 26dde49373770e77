package sigv4

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloister/api"
)

// A mutation changes a signed request. It returns false where the request has nothing of the kind.
type mutation func(r *http.Request, body *[]byte) bool

// always is a mutation that every request has something for.
func always(change func(*http.Request)) mutation {
	return func(r *http.Request, _ *[]byte) bool { change(r); return true }
}

// ofAll apply to a request, however it is signed.
var ofAll = map[string]mutation{
	"method":               always(func(r *http.Request) { r.Method = map[string]string{"GET": "POST", "POST": "GET"}[r.Method] }),
	"method PUT":           always(func(r *http.Request) { r.Method = http.MethodPut }),
	"host":                 always(func(r *http.Request) { r.Host = "example.amazonaws.org" }),
	"host with a port":     always(func(r *http.Request) { r.Host += ":443" }),
	"host gone":            always(func(r *http.Request) { r.Host = "" }),
	"path longer":          always(func(r *http.Request) { setPath(r, r.URL.Path+"x") }),
	"path below another":   always(func(r *http.Request) { setPath(r, "/x"+r.URL.Path) }),
	"path encoded":         always(func(r *http.Request) { r.URL.Path, r.URL.RawPath = r.URL.Path+"-", r.URL.EscapedPath()+"%2D" }),
	"parameter added":      always(func(r *http.Request) { r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&Extra=1", "&") }),
	"parameter in front":   always(func(r *http.Request) { r.URL.RawQuery = strings.TrimSuffix("A=&"+r.URL.RawQuery, "&") }),
	"parameter not UTF-8":  always(func(r *http.Request) { r.URL.RawQuery += "&%zz=1" }),
	"body longer":          func(_ *http.Request, b *[]byte) bool { *b = append(*b, ' '); return true },
	"body of another":      func(_ *http.Request, b *[]byte) bool { *b = []byte("Param1=value2"); return true },
	"unsigned amz header":  always(func(r *http.Request) { r.Header.Set("X-Amz-Meta-Extra", "1") }),
	"unsigned amz spelled": always(func(r *http.Request) { r.Header["x-aMZ-extra"] = []string{"1"} }),
	"unsigned token":       always(func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "another token") }),
	"unsigned hash":        always(func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }),
	"content type twice":   always(func(r *http.Request) { r.Header["Content-Type"] = []string{"a/b", "a/b"} }),
	"signed value changed": func(r *http.Request, _ *[]byte) bool {
		return ofSigned(r, func(values []string) []string { return append([]string{values[0] + "x"}, values[1:]...) })
	},
	"signed value added": func(r *http.Request, _ *[]byte) bool {
		return ofSigned(r, func(v []string) []string { return append(v, "x") })
	},
	"signed value dropped": func(r *http.Request, _ *[]byte) bool { return ofSigned(r, func(v []string) []string { return v[1:] }) },
	"query gone": func(r *http.Request, _ *[]byte) bool {
		had := r.URL.RawQuery != ""
		r.URL.RawQuery = ""
		return had
	},
	"query value": func(r *http.Request, _ *[]byte) bool {
		return editQuery(r, 0, func(_, v string) string { return v + "x" })
	},
	"query name": func(r *http.Request, _ *[]byte) bool {
		return editQuery(r, 0, func(n, v string) string { return n + "x=" + v })
	},
	"query twice": func(r *http.Request, _ *[]byte) bool {
		return editQuery(r, 0, func(n, v string) string { return v + "&" + n + "=" + v })
	},
}

func setPath(r *http.Request, path string) { r.URL.Path, r.URL.RawPath = path, "" }

// ofSigned changes the values of a header that is signed and is no part of the signature itself.
func ofSigned(r *http.Request, change func([]string) []string) bool {
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		token := name == "X-Amz-Security-Token" && strings.Contains(r.Header.Get("Authorization"), "x-amz-security-token")
		if strings.HasPrefix(name, "My-") || name == "Content-Type" || token {
			r.Header[name] = change(slices.Clone(r.Header[name]))
			return true
		}
	}
	return false
}

// editQuery replaces the value of the nth parameter by what change returns; an answer with a name in front, "n=v",
// replaces all of it.
func editQuery(r *http.Request, n int, change func(name, value string) string) bool {
	pairs := strings.Split(r.URL.RawQuery, "&")
	name, value, found := strings.Cut(pairs[n], "=")
	if !found {
		return false
	}
	if changed := change(name, value); strings.HasPrefix(changed, name+"x=") {
		pairs[n] = changed
	} else {
		pairs[n] = name + "=" + changed
	}
	r.URL.RawQuery = strings.Join(pairs, "&")
	return true
}

// authorization replaces in the Authorization header, which every request has that is not pre-signed.
func authorization(change func(string) string) mutation {
	return func(r *http.Request, _ *[]byte) bool {
		old := r.Header.Get("Authorization")
		r.Header.Set("Authorization", change(old))
		return r.Header.Get("Authorization") != old
	}
}

func replaced(old, replacement string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, replacement, 1) }
}

// inSignature changes what follows a marker.
func inSignature(marker string, change func(string) string) func(string) string {
	return func(s string) string {
		head, signature, _ := strings.Cut(s, marker)
		return head + marker + change(signature)
	}
}

func flipped(s string) string {
	return string("123456789abcdef0"[strings.IndexByte("0123456789abcdef", s[0])]) + s[1:]
}

// ofHeaders apply to a request that is signed in its Authorization header.
var ofHeaders = map[string]mutation{
	"signature flipped":       authorization(inSignature("Signature=", flipped)),
	"signature of zeros":      authorization(inSignature("Signature=", func(string) string { return strings.Repeat("0", 64) })),
	"signature cut":           authorization(inSignature("Signature=", func(s string) string { return s[:62] })),
	"signature in capitals":   authorization(inSignature("Signature=", strings.ToUpper)),
	"key":                     authorization(replaced("Credential=A", "Credential=B")),
	"scope date":              authorization(inSignature("Credential=", func(s string) string { return strings.Replace(s, "/20", "/19", 1) })),
	"scope region":            authorization(replaced("/us-east-", "/eu-east-")),
	"scope service":           authorization(func(s string) string { return replaced("/service/", "/lambda/")(replaced("/lambda/", "/service/")(s)) }),
	"scope service of others": authorization(func(s string) string { return replaced("/service/", "/s3/")(replaced("/lambda/", "/s3/")(s)) }),
	"scope end":               authorization(replaced("aws4_request", "aws4_Request")),
	"scope longer":            authorization(replaced("aws4_request", "x/aws4_request")),
	"host not signed":         authorization(replaced("host;", "")),
	"date not signed":         authorization(replaced(";x-amz-date", "")),
	"more signed":             authorization(replaced(";x-amz-date", ";user-agent;x-amz-date")),
	"host signed twice":       authorization(replaced("host;", "host;host;")),
	"other algorithm":         authorization(replaced("HMAC-SHA256", "HMAC-SHA1")),
	"authorization gone":      always(func(r *http.Request) { r.Header.Del("Authorization") }),
	"authorization twice":     always(func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }),
	"one second later": always(func(r *http.Request) {
		at, _ := time.Parse(isoBasic, r.Header.Get("X-Amz-Date"))
		r.Header.Set("X-Amz-Date", at.Add(time.Second).Format(isoBasic))
	}),
	"date twice":        always(func(r *http.Request) { r.Header.Add("X-Amz-Date", r.Header.Get("X-Amz-Date")) }),
	"date gone":         always(func(r *http.Request) { r.Header.Del("X-Amz-Date") }),
	"signed in the URL": always(func(r *http.Request) { r.URL.RawQuery += "&X-Amz-Algorithm=AWS4-HMAC-SHA256" }),
	"another token":     tokenHeader(func(s string) string { return s + "x" }),
	"token gone":        tokenHeader(func(string) string { return "" }),
	"session token added": func(r *http.Request, _ *[]byte) bool {
		return r.Header.Get("X-Amz-Security-Token") == "" && addToken(r)
	},
}

// addToken adds a token and says that it is signed.
func addToken(r *http.Request) bool {
	r.Header.Set("X-Amz-Security-Token", "token")
	return authorization(replaced(";x-amz-date", ";x-amz-date;x-amz-security-token"))(r, nil)
}

// tokenHeader changes a token that is signed.
func tokenHeader(change func(string) string) mutation {
	return func(r *http.Request, _ *[]byte) bool {
		token := r.Header.Get("X-Amz-Security-Token")
		if token == "" || !strings.Contains(r.Header.Get("Authorization"), "x-amz-security-token") {
			return false
		}
		if r.Header.Set("X-Amz-Security-Token", change(token)); change(token) == "" {
			r.Header.Del("X-Amz-Security-Token")
		}
		return true
	}
}

// parameter changes the decoded value of a parameter of a pre-signed URL.
func parameter(name string, change func(string) string) mutation {
	return func(r *http.Request, _ *[]byte) bool {
		for n, pair := range strings.Split(r.URL.RawQuery, "&") {
			old, ok := strings.CutPrefix(pair, name+"=")
			if !ok {
				continue
			}
			decoded, _ := url.QueryUnescape(old)
			changed := change(decoded)
			return changed != decoded && editQuery(r, n, func(string, string) string { return url.QueryEscape(changed) })
		}
		return false
	}
}

// without removes a parameter.
func without(name string) mutation {
	return func(r *http.Request, _ *[]byte) bool {
		pairs := strings.Split(r.URL.RawQuery, "&")
		kept := slices.DeleteFunc(slices.Clone(pairs), func(s string) bool { return strings.HasPrefix(s, name+"=") })
		r.URL.RawQuery = strings.Join(kept, "&")
		return len(kept) < len(pairs)
	}
}

// repeated adds a parameter again, with another value under the same name or in another spelling of it.
func repeated(name, spelling, value string) mutation {
	return func(r *http.Request, _ *[]byte) bool {
		r.URL.RawQuery += "&" + spelling + "=" + value
		return strings.Contains(r.URL.RawQuery, name+"=")
	}
}

func moved(seconds int) func(string) string {
	return func(s string) string {
		at, _ := time.Parse(isoBasic, s)
		return at.Add(time.Duration(seconds) * time.Second).Format(isoBasic)
	}
}

func longer(seconds int) func(string) string {
	return func(s string) string {
		n, _ := strconv.Atoi(s)
		return strconv.Itoa(n + seconds)
	}
}

// ofURLs apply to a pre-signed request.
var ofURLs = map[string]mutation{
	"signature flipped":       parameter(signatureParameter, flipped),
	"signature of zeros":      parameter(signatureParameter, func(string) string { return strings.Repeat("0", 64) }),
	"signature cut":           parameter(signatureParameter, func(s string) string { return s[:62] }),
	"signature in capitals":   parameter(signatureParameter, strings.ToUpper),
	"signature gone":          without(signatureParameter),
	"signature twice":         repeated(signatureParameter, "X-Amz-Signature", strings.Repeat("0", 64)),
	"signature spelled":       repeated(signatureParameter, "X-Amz-Signatur%65", strings.Repeat("0", 64)),
	"key":                     parameter(credentialParameter, replaced("A", "B")),
	"scope date":              parameter(credentialParameter, replaced("/20", "/19")),
	"scope region":            parameter(credentialParameter, replaced("/us-east-", "/eu-east-")),
	"scope service":           parameter(credentialParameter, replaced("/service/", "/lambda/")),
	"scope service of others": parameter(credentialParameter, replaced("/service/", "/s3/")),
	"scope end":               parameter(credentialParameter, replaced("aws4_request", "aws4_Request")),
	"credential gone":         without(credentialParameter),
	"credential twice":        repeated(credentialParameter, "%58-Amz-Credential", "A/20150830/us-east-1/service/aws4_request"),
	"other algorithm":         parameter(algorithmParameter, replaced("SHA256", "SHA1")),
	"algorithm gone":          without(algorithmParameter),
	"one second later":        parameter(dateParameter, moved(1)),
	"one day later":           parameter(dateParameter, moved(24*60*60)),
	"date gone":               without(dateParameter),
	"date twice":              repeated(dateParameter, "X-Amz-Date", "20150830T123600Z"),
	"longer valid":            parameter(expiresParameter, longer(1)),
	"valid for too long":      parameter(expiresParameter, longer(604800)),
	"never valid":             parameter(expiresParameter, func(string) string { return "0" }),
	"validity not a number":   parameter(expiresParameter, func(string) string { return "+3600" }),
	"validity gone":           without(expiresParameter),
	"validity twice":          repeated(expiresParameter, "X-Amz-Expires", "604800"),
	"host not signed":         parameter(signedHeadersParameter, func(s string) string { return "content-type" }),
	"more signed":             parameter(signedHeadersParameter, func(s string) string { return s + ";z" }),
	"signed headers gone":     without(signedHeadersParameter),
	"another token":           parameter(tokenParameter, func(s string) string { return s + "x" }),
	"token gone":              without(tokenParameter),
	"token added": func(r *http.Request, b *[]byte) bool {
		return !without(tokenParameter)(r, b) && repeated("", tokenParameter, "t")(r, b)
	},
	"hash added": repeated("", contentHashParameter, "UNSIGNED-PAYLOAD"),
	"header too": always(func(r *http.Request) {
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=A/20150830/us-east-1/service/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64))
	}),
}

// clocks are times since the signature at which it does not hold.
func (c suiteCase) clocks() []time.Duration {
	if c.presigned {
		return []time.Duration{-MaxSkew - time.Second, time.Hour + time.Second, 8 * 24 * time.Hour}
	}
	return []time.Duration{-MaxSkew - time.Second, MaxSkew + time.Second, 24 * time.Hour}
}

func TestEveryMutationOfTheSuiteIsRefused(t *testing.T) {
	refused, fewest := 0, 1000
	for _, c := range loadSuite(t) {
		v := c.verifier(t, 0)
		mutations := []map[string]mutation{ofAll, ofHeaders}
		if c.presigned {
			mutations[1] = ofURLs
		}
		before := refused
		for _, table := range mutations {
			for name, mutate := range table {
				r, body := c.request(t)
				if _, err := v.Verify(t.Context(), r, body); err != nil {
					t.Fatalf("%s as it is: %v", c.name, err) // the control: nothing but the mutation is refused below
				}
				if !mutate(r, &body) || c.context.OmitToken && strings.Contains(name, "token") {
					continue
				}
				if c.refuses(t, v, r, body) {
					refused++
				} else {
					t.Errorf("%s, pre-signed %v, is accepted with another %s: %s %s %v", c.name, c.presigned, name, r.Method, r.URL, r.Header)
				}
			}
		}
		for _, since := range c.clocks() {
			r, body := c.request(t)
			if c.refuses(t, c.verifier(t, since), r, body) {
				refused++
			} else {
				t.Errorf("%s, pre-signed %v, is accepted %v after it was signed", c.name, c.presigned, since)
			}
		}
		fewest = min(fewest, refused-before)
	}
	if refused < 1000 || fewest < 20 {
		t.Errorf("%d mutations were refused, at least %d of each request; want 1,000 and 20", refused, fewest)
	}
	t.Logf("%s: refused %d mutations, at least %d of each request", *suiteFlag, refused, fewest)
}

// refuses says whether v refuses the request in AWS's shape and tells nothing about who sent it.
func (c suiteCase) refuses(t *testing.T, v *Verifier, r *http.Request, body []byte) bool {
	t.Helper()
	s, err := v.Verify(t.Context(), r, body)
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*api.Error](err); !ok || s != (Signature{}) {
		t.Errorf("%s: %+v, %v: not a refusal in AWS's shape", c.name, s, err)
	}
	return true
}
