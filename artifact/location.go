package artifact

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloister/internal/seal"
)

// LocationValidity is how long an address of a deployment package is good, as on AWS.
const LocationValidity = 10 * time.Minute

// LocationPath begins the path of every address of a deployment package.
const LocationPath = "/2015-03-31/code/"

// maxLocationBytes bounds what is decoded.
const maxLocationBytes = 1 << 10

// A location is what the sealed text in an address holds.
type location struct {
	Owner, CodeSHA256 string
	NotAfter          time.Time
}

// Location returns the path at which ServeHTTP gives the owner's deployment package to whoever asks, for
// LocationValidity. It shows neither the owner nor the package.
func (s *Store) Location(owner, codeSHA256 string) (string, error) {
	text, err := json.Marshal(location{owner, codeSHA256, s.grants.now().Add(LocationValidity)})
	if err != nil {
		return "", fmt.Errorf("make location: %w", err)
	}
	return LocationPath + base64.RawURLEncoding.EncodeToString(s.locations.Seal(nil, text, seal.Bind("location"))), nil
}

// ServeHTTP answers GET for the paths that Location returns, and refuses everything else in the words of S3.
// No byte is sent that is not what was uploaded: a damaged package ends in a connection that is cut.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		refuseLocation(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
		return
	}
	at, ok := s.openLocation(strings.TrimPrefix(r.URL.Path, LocationPath))
	if !ok {
		refuseLocation(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		return
	}
	if !s.grants.now().Before(at.NotAfter) {
		refuseLocation(w, http.StatusForbidden, "AccessDenied", "Request has expired")
		return
	}
	zip, size, err := s.OpenZip(r.Context(), at.Owner, at.CodeSHA256)
	if err != nil {
		s.logger.ErrorContext(r.Context(), "deployment package not served", "sha256", at.CodeSHA256, "error", err)
		refuseLocation(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	defer zip.Close()
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if _, err := io.Copy(w, zip); err != nil {
		s.logger.ErrorContext(r.Context(), "deployment package not served to its end", "sha256", at.CodeSHA256, "error", err)
		panic(http.ErrAbortHandler) // half a package must not look like a whole one
	}
}

func (s *Store) openLocation(text string) (at location, ok bool) {
	if len(text) > maxLocationBytes {
		return at, false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return at, false
	}
	opened, err := s.locations.Open(nil, sealed, seal.Bind("location"))
	return at, err == nil && json.Unmarshal(opened, &at) == nil
}

func refuseLocation(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}
