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
	b = q.appendCanonicalPath(b, r.URL)
	b = append(b, '\n')
	b, ok := q.appendCanonicalQuery(b, r.URL.RawQuery)
	if !ok {
		return nil, q.words().badSignature("The query string of the request is malformed.")
	}
	b = append(b, '\n')
	for _, header := range q.signed {
		b = append(b, header.name...)
		b = append(b, ':')
		if b, ok = appendCanonicalHeader(b, r, header); !ok {
			return nil, q.words().badSignature(fmt.Sprintf("'%.100s' is a 'SignedHeader' but is not in the request.", header.name))
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, q.signedHeaders...)
	b = append(b, '\n')
	return append(b, bodyHex...), nil
}

// appendCanonicalPath appends the path as sent, without empty and dot segments, percent-encoded once
// more: so all services but Amazon S3 sign it.
func (q *query) appendCanonicalPath(b []byte, u *url.URL) []byte {
	path := sentPath(u)
	if !q.dialect.exactPath && !normal(path) {
		path = normalize(path)
	}
	return appendEncoded(b, path, '/')
}

// sentPath returns the path of u with the bytes that were sent: net/url keeps them in RawPath where
// they are not what it would write itself, but EscapedPath returns those only that are valid there.
func sentPath(u *url.URL) string {
	path := u.EscapedPath()
	if u.RawPath != "" && path != u.RawPath {
		if decoded, err := url.PathUnescape(u.RawPath); err == nil && decoded == u.Path {
			return u.RawPath
		}
	}
	return path
}

// NormalPath says whether the path of u has no empty and no dot segments. Several paths that differ
// in these share a signature, so whoever routes a verified request must refuse those that do.
func NormalPath(u *url.URL) bool {
	if u.RawPath != "" {
		return normal(u.EscapedPath())
	}
	return normal(u.Path) // what was sent differs in escapes only, and of neither slashes nor dots
}

// normal says whether normalize has nothing to do. It is asked about every request.
func normal(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		return false
	}
	for rest := path; ; {
		i := strings.Index(rest, "/.")
		if i < 0 {
			return true
		}
		rest = rest[i+1:]
		if segment, _, _ := strings.Cut(rest, "/"); segment == "." || segment == ".." {
			return false
		}
	}
}

// normalize removes empty and dot segments as AWS's signers do.
func normalize(path string) string {
	var segments []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			segments = segments[:max(0, len(segments)-1)]
		default:
			segments = append(segments, segment)
		}
	}
	normalized := "/" + strings.Join(segments, "/")
	if len(segments) > 0 && strings.HasSuffix(path, "/") {
		normalized += "/"
	}
	return normalized
}

// appendCanonicalQuery appends the parameters, decoded as net/url does and encoded anew, sorted
// by encoded name, then by encoded value. The signature of a pre-signed URL is not one of them. It is not ok
// where net/url would read less than is signed: it drops empty pairs and those with a semicolon.
func (q *query) appendCanonicalQuery(b []byte, raw string) (_ []byte, ok bool) {
	if raw == "" {
		return b, true
	}
	type parameter struct{ name, value string }
	parameters := make([]parameter, 0, 16)
	if strings.Contains(raw, ";") {
		return b, false
	}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			return b, false
		}
		name, value, _ := strings.Cut(pair, "=")
		name, ok1 := recode(name)
		value, ok2 := recode(value)
		if !ok1 || !ok2 {
			return b, false
		}
		if q.presigned && (name == signatureParameter || name == tokenParameter && q.dialect.tokenApart) {
			continue
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
