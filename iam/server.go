package iam

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/iam/policy"
)

// A Server answers the IAM API: the operations on roles, users, their access keys, and policies
// that are here, and the typed refusal of iamapi.Unimplemented for the others. The caller's account is
// the one that operations are about; the gateway has asked Authorize before.
type Server struct {
	iamapi.Unimplemented
	directory *Directory
}

var _ iamapi.Server = (*Server)(nil)

// Server returns the IAM API of the directory.
func (d *Directory) Server() *Server { return &Server{directory: d} }

// API returns the generated service.
func (s *Server) API() *api.Service { return iamapi.Service }

// Server returns s itself.
func (s *Server) Server() any { return s }

// Quotas of AWS. Sizes of documents do not count white space.
const (
	maxUsers                 = 5000
	maxRoles                 = 1000
	maxPolicies              = 1500
	maxKeysPerUser           = 2
	maxAttached              = 10
	maxTags                  = 50
	maxTrustBytes            = 2048
	maxManagedPolicyBytes    = 6144
	maxInlineBytesOfUser     = 2048
	maxInlineBytesOfRole     = 10240
	defaultMaxSessionSeconds = 3600
)

// sizeOf returns the bytes of a document that count against quotas.
func sizeOf(document string) int {
	n := 0
	for _, c := range document {
		if !unicode.IsSpace(c) {
			n += len(string(c))
		}
	}
	return n
}

func noSuchEntity(format string, args ...any) error {
	return &iamapi.NoSuchEntityException{Message: new(fmt.Sprintf(format, args...))}
}

func alreadyExists(format string, args ...any) error {
	return &iamapi.EntityAlreadyExistsException{Message: new(fmt.Sprintf(format, args...))}
}

func deleteConflict(message string) error { return &iamapi.DeleteConflictException{Message: &message} }

func limitExceeded(format string, args ...any) error {
	return &iamapi.LimitExceededException{Message: new(fmt.Sprintf(format, args...))}
}

func invalidInput(format string, args ...any) error {
	return &iamapi.InvalidInputException{Message: new(fmt.Sprintf(format, args...))}
}

func validationError(message string) error {
	return &api.Error{Code: "ValidationError", Status: http.StatusBadRequest, Message: message}
}

// notBuilt refuses a part of an operation that is otherwise there.
func notBuilt(what string) error {
	return &api.Error{Code: "NotImplementedException", Status: http.StatusNotImplemented,
		Message: "Cloister does not implement " + what + " yet; docs/STATUS.md lists what works"}
}

// malformed turns the refusal of a document into IAM's error.
func malformed(err error) error {
	if refusal, ok := errors.AsType[*policy.MalformedError](err); ok {
		return &iamapi.MalformedPolicyDocumentException{Message: &refusal.Message}
	}
	return err
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// encoded returns a document as IAM shows it: percent-encoded as RFC 3986 has it.
func encoded(document string) *string {
	return new(strings.ReplaceAll(url.QueryEscape(document), "+", "%20"))
}

// A page is what a listing may return: names after a marker, so many of them.
type page struct {
	after string
	limit int
}

// newPage reads Marker and MaxItems.
func newPage(marker *string, maxItems *int32) (page, error) {
	p := page{limit: 100}
	if maxItems != nil {
		p.limit = int(*maxItems)
	}
	if marker != nil {
		after, err := base64.RawURLEncoding.DecodeString(*marker)
		if err != nil || len(after) == 0 || p.limit < 1 {
			return page{}, validationError("Invalid Marker.")
		}
		p.after = string(after)
	}
	return p, nil
}

// listing returns the account of the call and the page that it asks for.
func (s *Server) listing(ctx context.Context, marker *string, maxItems *int32) (*account, page, error) {
	p, err := newPage(marker, maxItems)
	if err != nil {
		return nil, page{}, err
	}
	a, err := s.directory.view(ctx)
	return a, p, err
}

// list returns the values of m in the page, in the order of their keys, as far as show wants
// them, and the marker of the next page, or nil if this was the last one.
func list[V, Shape any](p page, m map[string]V, show func(V) (Shape, bool)) (shapes []Shape, truncated *bool, marker *string) {
	shapes = []Shape{} // not nil: clients expect the list to be there
	last := ""
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if name <= p.after {
			continue
		}
		shape, ok := show(m[name])
		if !ok {
			continue
		}
		if len(shapes) == p.limit {
			return shapes, new(true), new(base64.RawURLEncoding.EncodeToString([]byte(last)))
		}
		shapes, last = append(shapes, shape), name
	}
	return shapes, new(false), nil
}

// set returns names as the keys of a map, for list.
func set(names []string) map[string]string {
	m := make(map[string]string, len(names))
	for _, n := range names {
		m[n] = n
	}
	return m
}

// same shows a value as itself.
func same[V any](v V) (V, bool) { return v, true }

// readTags reads tags into a map.
func readTags(given []iamapi.Tag) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	tags := make(map[string]string, len(given))
	folded := map[string]bool{}
	for _, t := range given {
		key := text(t.Key)
		if folded[strings.ToLower(key)] {
			return nil, invalidInput("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		folded[strings.ToLower(key)] = true
		tags[key] = text(t.Value)
	}
	return tags, checkTags(tags)
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return limitExceeded("Cannot exceed quota for tags per resource: %d", maxTags)
	}
	for key := range tags {
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return invalidInput("Tag keys that begin with aws: are reserved: %s", key)
		}
	}
	return nil
}

// showTags returns tags in the order of their keys.
func showTags(tags map[string]string) []iamapi.Tag {
	shown := make([]iamapi.Tag, 0, len(tags))
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		shown = append(shown, iamapi.Tag{Key: new(key), Value: new(tags[key])})
	}
	return shown
}
