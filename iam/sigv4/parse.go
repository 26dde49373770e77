package sigv4

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	isoBasic   = "20060102T150405Z"

	maxAuthorizationBytes = 8 << 10
	maxSignedHeaders      = 100
)

// A query is the question that an Authorization header or a pre-signed URL asks: whether this signature
// belongs to the request. Everything in it is checked for form; nothing in it is proven yet.
type query struct {
	accessKeyID           string
	sessionToken          string
	date, region, service string // the credential scope
	signedHeaders         string // as sent: lower case, sorted, separated by ';'
	signed                []signedHeader
	signature             [sha256.Size]byte
	time                  time.Time
	dialect               dialect // of the service, once that is accepted

	presigned   bool          // the signature is in the URL
	lifetime    time.Duration // of a pre-signed URL; 0 if it does not say
	contentHash string        // of the body, as a pre-signed URL claims; empty if it does not say

	request *http.Request // for words

	// Memory for the computation, kept from one request to the next.
	mac     hash.Hash         // nil before the first
	macKey  [sha256.Size]byte // the derived key in mac
	buffer  []byte
	bodyHex [2 * sha256.Size]byte
	want    [sha256.Size]byte
}

// reset forgets the request but keeps the memory.
func (q *query) reset() {
	clear(q.signed)
	*q = query{signed: q.signed[:0], buffer: q.buffer[:0], mac: q.mac, macKey: q.macKey}
}

// words returns the dialect to refuse the request in.
func (q *query) words() dialect {
	if q.dialect.service != "" {
		return q.dialect
	}
	if d, ok := dialects[q.service]; ok {
		return d
	}
	return guessDialect(q.request)
}

// A signedHeader is one of SignedHeaders, with its values in the request; none for the host.
type signedHeader struct {
	name   string // in lower case
	values []string
}

// parse reads the signature of r and what belongs to it, from the Authorization header or from the URL.
// A service that is not in accepted is refused.
func (q *query) parse(r *http.Request, accepted map[string]dialect) error {
	q.request = r
	values := r.Header["Authorization"]
	q.presigned = presigned(r)
	switch {
	case len(values) == 0 && !q.presigned:
		return q.words().missingToken()
	case len(values) > 0 && q.presigned:
		return q.words().badSignature("Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.")
	case len(values) > 1:
		return q.words().incomplete("Authorization header must be sent once.")
	}
	read := q.parseHeader
	if q.presigned {
		read = q.parseURL
	}
	if err := read(r); err != nil {
		return err
	}
	var ok bool
	if q.dialect, ok = accepted[q.service]; !ok {
		return q.words().badSignature(fmt.Sprintf("Credential should be scoped to correct service: '%s'.", q.words().service))
	}
	return q.readHeaders(r)
}

// parseHeader reads the Authorization header and the others that stand for parameters of a signature.
func (q *query) parseHeader(r *http.Request) error {
	if err := q.parseAuthorization(r, r.Header["Authorization"][0]); err != nil {
		return err
	}
	name, text := "X-Amz-Date", r.Header["X-Amz-Date"]
	if len(text) == 0 {
		name, text = "Date", r.Header["Date"]
	}
	if len(text) != 1 {
		return q.words().incomplete(fmt.Sprintf("Header '%s' must be sent once.", name))
	}
	return q.parseTime(text[0], name == "Date")
}

// parseAuthorization reads
//
//	AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…
//
// with the three parameters in any order, each exactly once and nothing else.
func (q *query) parseAuthorization(r *http.Request, header string) error {
	if len(header) > maxAuthorizationBytes {
		return q.words().incomplete("Authorization header is too long.")
	}
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok && strings.HasPrefix(header, "AWS4-") {
		word, _, _ := strings.Cut(header, " ")
		return q.words().incomplete(fmt.Sprintf("Unsupported AWS 'algorithm': '%s'.", word))
	}
	var credential, signature string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.Trim(part, " "), "=")
		var target *string
		switch name {
		case "Credential":
			target = &credential
		case "SignedHeaders":
			target = &q.signedHeaders
		case "Signature":
			target = &signature
		}
		if target == nil || *target != "" {
			break // reported as what is then missing, or below as a parameter too many
		}
		*target = value
	}
	if err := q.requireParameters(r, header, credential, signature); err != nil {
		return err
	}
	if strings.Count(rest, ",") != 2 {
		return q.words().incomplete("Authorization header must hold 'Credential', 'SignedHeaders' and 'Signature' once each and nothing else.")
	}
	return q.parseClaim(signature, credential)
}

// parseClaim reads a signature and a credential, wherever they were.
func (q *query) parseClaim(signature, credential string) error {
	if n, err := hex.Decode(q.signature[:], lowerHex(signature)); err != nil || n != sha256.Size {
		return q.words().mismatch()
	}
	return q.parseCredential(credential)
}

// lowerHex returns the bytes of a 64-digit signature, or nothing if s has another length or a
// digit in upper case: a signature has one spelling only.
func lowerHex(s string) []byte {
	if len(s) != 2*sha256.Size || strings.ContainsAny(s, "ABCDEF") {
		return nil
	}
	return []byte(s)
}

// requireParameters refuses an Authorization header that leaves something out, in AWS's words.
func (q *query) requireParameters(r *http.Request, header, credential, signature string) error {
	var missing strings.Builder
	for _, p := range [...]struct{ name, value string }{
		{"Credential", credential}, {"Signature", signature}, {"SignedHeaders", q.signedHeaders},
	} {
		if p.value == "" {
			fmt.Fprintf(&missing, "Authorization header requires '%s' parameter. ", p.name)
		}
	}
	if len(r.Header["X-Amz-Date"]) == 0 && len(r.Header["Date"]) == 0 {
		missing.WriteString("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
	}
	if missing.Len() == 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(header)) // the header itself may hold a secret that was put in the wrong place
	fmt.Fprintf(&missing, "(Hashed with SHA-256 and encoded with Base64) Authorization=%s", base64.StdEncoding.EncodeToString(sum[:]))
	return q.words().incomplete(missing.String())
}

// parseCredential reads keyid/date/region/service/aws4_request.
func (q *query) parseCredential(credential string) error {
	if strings.Count(credential, "/") != 4 {
		return q.words().incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	var end string
	for _, element := range []*string{&q.accessKeyID, &q.date, &q.region, &q.service, &end} {
		*element, credential, _ = strings.Cut(credential, "/")
	}
	if end != terminator {
		return q.words().badSignature("Credential should be scoped with a valid terminator: 'aws4_request'.")
	}
	return nil
}

// parseTime reads the time of the signature and holds the credential scope against it. Only the Date
// header may have HTTP's own format.
func (q *query) parseTime(text string, dateHeader bool) error {
	t, err := time.Parse(isoBasic, text)
	if err != nil && dateHeader {
		t, err = http.ParseTime(text)
	}
	if err != nil || t.Nanosecond() != 0 {
		return q.words().incomplete(fmt.Sprintf("Date must be in ISO-8601 'basic format'. Got '%.40s'. See http://en.wikipedia.org/wiki/ISO_8601", text))
	}
	q.time = t.UTC()
	q.buffer = q.time.AppendFormat(q.buffer[:0], "20060102")
	if day := q.buffer; q.date != string(day) {
		return q.words().badSignature(fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.",
			q.date, day, q.time.Format(isoBasic)))
	}
	return nil
}

// readNames splits SignedHeaders. They must be sorted and each there once, as all signers send them.
func (q *query) readNames() error {
	previous := ""
	for name := range strings.SplitSeq(q.signedHeaders, ";") {
		if name <= previous || !lowerToken(name) || len(q.signed) == maxSignedHeaders {
			return q.words().incomplete("'SignedHeaders' must be lower-case header names, sorted, each once and not too many.")
		}
		q.signed = append(q.signed, signedHeader{name: name})
		previous = name
	}
	return nil
}

// readHeaders finds the values of the signed headers and requires that what matters is signed: the host,
// the date that was used and every x-amz-* header, each of which may be sent once only. Content-Type
// is not required: AWS does not insist, and one of its own SDKs leaves it out.
func (q *query) readHeaders(r *http.Request) error {
	if err := q.readNames(); err != nil {
		return err
	}
	for name, values := range r.Header {
		if len(values) == 0 {
			continue
		}
		single := name == "Content-Type" || name == "Date"
		s := q.find(name)
		if len(name) > 6 && strings.EqualFold(name[:6], "x-amz-") {
			single = true
			if s == nil && !(q.dialect.tokenApart && name == "X-Amz-Security-Token") {
				return q.words().badSignature(fmt.Sprintf("'%.100s' must be a 'SignedHeader' in the AWS Authorization.", strings.ToLower(name)))
			}
		}
		// A header whose values are filled already came in another spelling too, which no reader of HTTP lets through.
		if single && len(values) != 1 || s != nil && s.values != nil {
			return q.words().badSignature(fmt.Sprintf("'%.100s' must be sent once.", strings.ToLower(name)))
		}
		if s != nil {
			s.values = values
		}
	}
	if q.find("host") == nil || r.Host == "" {
		return q.words().badSignature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	if !q.presigned && len(r.Header["X-Amz-Date"]) == 0 && q.find("date") == nil {
		return q.words().badSignature("'Date' must be a 'SignedHeader' in the AWS Authorization.")
	}
	return q.readToken(r)
}

// readToken takes the session token from its header, unless the URL had one.
func (q *query) readToken(r *http.Request) error {
	token := r.Header["X-Amz-Security-Token"]
	if len(token) == 0 {
		return nil
	}
	if q.sessionToken != "" {
		return q.words().incomplete("'X-Amz-Security-Token' must be a query-string parameter or a header, not both.")
	}
	q.sessionToken = token[0]
	return nil
}

// find returns the signed header of that name, in any case, or nil. The lengths are compared
// because folding takes some longer letters for ASCII ones.
func (q *query) find(name string) *signedHeader {
	for i := range q.signed {
		if n := q.signed[i].name; len(n) == len(name) && strings.EqualFold(n, name) {
			return &q.signed[i]
		}
	}
	return nil
}

// lowerToken says whether s is a header name as in RFC 9110 without capitals.
func lowerToken(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
