package sigv4

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendCanonicalRequest appends the canonical request to b (IAM user guide, "Create a
// signed API request"): method, path, query, headers, their names, hash of the body.
func (q *query) appendCanonicalRequest(b []byte, r *http.Request, bodyHex []byte) ([]byte, error) {
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendCanonicalPath(b, r.URL)
	b = append(b, '\n')
	b, ok := appendCanonicalQuery(b, r.URL.RawQuery)
	if !ok {
		return nil, q.dialect.badSignature("The query string of the request is not valid percent-encoding.")
	}
	b = append(b, '\n')
	for _, header := range q.signed {
		b = append(b, header.name...)
		b = append(b, ':')
		if b, ok = appendCanonicalHeader(b, r, header); !ok {
			return nil, q.dialect.badSignature(fmt.Sprintf("'%.100s' is a 'SignedHeader' but is not in the request.", header.name))
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, q.signedHeaders...)
	b = append(b, '\n')
	return append(b, bodyHex...), nil
}

// appendCanonicalPath appends the path as sent, percent-encoded once more: all services but
// Amazon S3 sign it doubly encoded. It does not resolve empty or dot segments. SDKs disagree on
// that, none of our operations has such a path, and resolving them would let one signature fit several paths.
func appendCanonicalPath(b []byte, u *url.URL) []byte {
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return appendEncoded(b, path, '/')
}

// appendCanonicalQuery appends the parameters, decoded as net/url does and encoded anew, sorted
// by encoded name, then by encoded value.
func appendCanonicalQuery(b []byte, raw string) (_ []byte, ok bool) {
	if raw == "" {
		return b, true
	}
	type parameter struct{ name, value string }
	parameters := make([]parameter, 0, 8)
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, ok1 := recode(name)
		value, ok2 := recode(value)
		if !ok1 || !ok2 {
			return b, false
		}
		parameters = append(parameters, parameter{name, value})
	}
	slices.SortFunc(parameters, func(x, y parameter) int {
		if c := strings.Compare(x.name, y.name); c != 0 {
			return c
		}
		return strings.Compare(x.value, y.value)
	})
	for i, p := range parameters {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p.name...)
		b = append(b, '=')
		b = append(b, p.value...)
	}
	return b, true
}

// recode decodes s as net/url decodes a query and encodes it in the one canonical way.
func recode(s string) (_ string, ok bool) {
	if strings.IndexFunc(s, func(c rune) bool { return c >= utf8.RuneSelf || !unreserved(byte(c)) }) < 0 {
		return s, true
	}
	decoded, err := url.QueryUnescape(s)
	return string(appendEncoded(nil, decoded, 0)), err == nil
}

// unreserved says whether RFC 3986 lets c stand for itself everywhere.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
}

// appendEncoded percent-encodes every byte of s that is neither unreserved (RFC 3986) nor keep.
func appendEncoded(b []byte, s string, keep byte) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; unreserved(c) || c == keep && keep != 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// appendCanonicalHeader appends the values of a header, each without outer spaces and with inner runs
// of spaces folded, separated by commas. It is not ok if the request does not carry the header.
func appendCanonicalHeader(b []byte, r *http.Request, header signedHeader) (_ []byte, ok bool) {
	if header.name == "host" {
		return append(b, r.Host...), true
	}
	if len(header.values) == 0 {
		if header.name != "content-length" || r.ContentLength < 0 {
			return b, false
		}
		return strconv.AppendInt(b, r.ContentLength, 10), true // net/http may keep it apart
	}
	for i, v := range header.values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFolded(b, v)
	}
	return b, true
}

func appendFolded(b []byte, s string) []byte {
	s = strings.Trim(s, " \t")
	if !strings.Contains(s, "  ") {
		return append(b, s...)
	}
	for i := range len(s) {
		if s[i] == ' ' && s[i-1] == ' ' {
			continue // s does not begin with a space, so there is an i-1
		}
		b = append(b, s[i])
	}
	return b
}
