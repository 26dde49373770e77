package sigv4

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// MaxLifetime is the longest that a pre-signed URL may be valid: AWS's seven days.
const MaxLifetime = 7 * 24 * time.Hour

const (
	algorithmParameter     = "X-Amz-Algorithm"
	credentialParameter    = "X-Amz-Credential"
	signatureParameter     = "X-Amz-Signature"
	signedHeadersParameter = "X-Amz-SignedHeaders"
	dateParameter          = "X-Amz-Date"
	expiresParameter       = "X-Amz-Expires"
	tokenParameter         = "X-Amz-Security-Token"
	contentHashParameter   = "X-Amz-Content-Sha256"
)

// presigned says whether the URL of r claims to be signed. A parameter whose name is spelled with percent signs is
// not looked for: no signer writes that, and if nothing else claims a signature the request is refused as unsigned.
func presigned(r *http.Request) bool {
	raw := r.URL.RawQuery
	if !strings.Contains(raw, "X-Amz-") {
		return false // nearly every request ends here
	}
	for pair := range strings.SplitSeq(raw, "&") {
		switch name, _, _ := strings.Cut(pair, "="); name {
		case algorithmParameter, credentialParameter, signatureParameter:
			return true
		}
	}
	return false
}

// ClaimedService returns the service that the credential scope of r names, empty if r names none. It is for
// choosing whose words a refusal is in; nothing about it is checked.
func ClaimedService(r *http.Request) string {
	var credential string
	if values := r.Header["Authorization"]; len(values) > 0 {
		_, credential, _ = strings.Cut(values[0], "Credential=")
	} else if presigned(r) {
		var p urlParameters
		_ = p.read(r.URL.RawQuery) // what is wrong with it is for Verify to tell
		credential = p.credential
	}
	for range 3 { // key id, date, region
		_, credential, _ = strings.Cut(credential, "/")
	}
	service, _, complete := strings.Cut(credential, "/")
	if !complete {
		return ""
	}
	return service
}

// urlParameters are the parameters of a pre-signed URL, decoded.
type urlParameters struct {
	algorithm, credential, signature, signedHeaders, date, expires, token, contentHash string
}

// field returns where the parameter of that name goes, nil if it is none of ours.
func (p *urlParameters) field(name string) *string {
	switch name {
	case algorithmParameter:
		return &p.algorithm
	case credentialParameter:
		return &p.credential
	case signatureParameter:
		return &p.signature
	case signedHeadersParameter:
		return &p.signedHeaders
	case dateParameter:
		return &p.date
	case expiresParameter:
		return &p.expires
	case tokenParameter:
		return &p.token
	case contentHashParameter:
		return &p.contentHash
	}
	return nil
}

// read fills p from a query string. It returns the name of a parameter that is there twice, under whatever spelling:
// of two values one would be signed for and the other one used.
func (p *urlParameters) read(raw string) (repeated string) {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		field := p.field(name)
		if field == nil || err1 != nil || err2 != nil {
			continue // what does not decode is refused with the canonical query
		}
		if seen[name] {
			return name
		}
		seen[name] = true
		*field = value
	}
	return ""
}

// parseURL reads the signature of a pre-signed URL.
func (q *query) parseURL(r *http.Request) error {
	var p urlParameters
	if name := p.read(r.URL.RawQuery); name != "" {
		return q.words().incomplete(fmt.Sprintf("AWS query-string parameter '%s' must be sent once. Re-examine the query-string parameters.", name))
	}
	if err := q.requireURLParameters(&p); err != nil {
		return err
	}
	q.signedHeaders, q.sessionToken, q.contentHash = p.signedHeaders, p.token, p.contentHash
	if err := q.parseClaim(p.signature, p.credential); err != nil {
		return err
	}
	if err := q.parseLifetime(p.expires); err != nil {
		return err
	}
	return q.parseTime(p.date, false)
}

// requireURLParameters refuses a pre-signed URL that leaves something out, in AWS's words.
func (q *query) requireURLParameters(p *urlParameters) error {
	var missing strings.Builder
	for _, name := range [...]string{algorithmParameter, credentialParameter, signatureParameter, signedHeadersParameter, dateParameter} {
		if *p.field(name) == "" {
			fmt.Fprintf(&missing, "AWS query-string parameters must include '%s'. ", name)
		}
	}
	if missing.Len() > 0 {
		return q.words().incomplete(missing.String() + "Re-examine the query-string parameters.")
	}
	if p.algorithm != algorithm {
		return q.words().incomplete(fmt.Sprintf("Unsupported AWS 'algorithm': '%.40s'.", p.algorithm))
	}
	if len(p.credential)+len(p.signedHeaders) > maxAuthorizationBytes {
		return q.words().incomplete("AWS query-string parameters are too long.")
	}
	return nil
}

// parseLifetime reads X-Amz-Expires, in seconds. Signers that leave it out, as some of AWS's do for services other than Amazon
// S3, make a URL that is valid for as long as a signed header.
func (q *query) parseLifetime(text string) error {
	if text == "" {
		return nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || text[0] == '+':
		return q.words().badLifetime("X-Amz-Expires should be a number")
	case seconds < 1:
		return q.words().badLifetime("X-Amz-Expires must be positive")
	case seconds > int64(MaxLifetime/time.Second):
		return q.words().badLifetime("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	q.lifetime = time.Duration(seconds) * time.Second
	return nil
}
