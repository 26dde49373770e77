package sigv4

import (
	"net/http"
	"strings"

	"cloister/api"
)

// A dialect is what AWS services do not agree on: how they word refusals, on whose codes clients branch,
// and two details of what is signed.
type dialect struct {
	service string
	query   bool // the query protocol: codes without "Exception", others in part
	denied  int  // status of refusals
	invalid int  // status of an unreadable Authorization header

	// None of the services below has these two; AWS's suite of signed requests does.
	exactPath  bool // empty and dot segments of the path are signed, as for Amazon S3
	tokenApart bool // the session token is added after signing, as for AWS IoT
}

var dialects = map[string]dialect{
	"lambda": {service: "lambda", denied: http.StatusForbidden, invalid: http.StatusForbidden},
	"logs":   {service: "logs", denied: http.StatusBadRequest, invalid: http.StatusBadRequest},
	"kms":    {service: "kms", denied: http.StatusBadRequest, invalid: http.StatusBadRequest},
	"iam":    {service: "iam", query: true, denied: http.StatusForbidden, invalid: http.StatusBadRequest},
	"sts":    {service: "sts", query: true, denied: http.StatusForbidden, invalid: http.StatusBadRequest},
}

// guessDialect chooses the words for a request whose credential scope cannot be read. It
// decides nothing else.
func guessDialect(r *http.Request) dialect {
	contentType := r.Header.Get("Content-Type")
	switch {
	case r.Header.Get("X-Amz-Target") != "":
		return dialects["logs"]
	case strings.HasPrefix(contentType, "application/x-www-form-urlencoded"), r.URL.Path == "/" && r.URL.RawQuery != "":
		return dialects["iam"]
	}
	return dialects["lambda"]
}

func (d dialect) refuse(code, queryCode string, status int, message string) *api.Error {
	if d.query {
		code = queryCode
	}
	return &api.Error{Code: code, Status: status, Message: message}
}

func (d dialect) missingToken() *api.Error {
	message := "Missing Authentication Token"
	if d.query {
		message = "Request is missing Authentication Token"
	}
	return d.refuse("MissingAuthenticationTokenException", "MissingAuthenticationToken", d.denied, message)
}

func (d dialect) incomplete(message string) *api.Error {
	return d.refuse("IncompleteSignatureException", "IncompleteSignature", d.invalid, message)
}

func (d dialect) badSignature(message string) *api.Error {
	return d.refuse("InvalidSignatureException", "SignatureDoesNotMatch", d.denied, message)
}

func (d dialect) unknownKey() *api.Error {
	return d.refuse("UnrecognizedClientException", "InvalidClientTokenId", d.denied, "The security token included in the request is invalid.")
}

func (d dialect) expiredToken() *api.Error {
	return d.refuse("ExpiredTokenException", "ExpiredToken", d.denied, "The security token included in the request is expired")
}

func (d dialect) mismatch() *api.Error {
	return d.badSignature("The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

// badLifetime is worded by Amazon S3, the one service of AWS that tells what is wrong with X-Amz-Expires.
func (d dialect) badLifetime(message string) *api.Error {
	return &api.Error{Code: "AuthorizationQueryParametersError", Status: http.StatusBadRequest, Message: message}
}
