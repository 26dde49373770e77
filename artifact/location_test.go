package artifact

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"cloister/artifact/zip/ziptest"
)

// get asks for a path; an answer that breaks off is an error.
func get(t *testing.T, server *httptest.Server, method, path string) (status int, body []byte, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

func TestAPackageIsDownloadedByItsAddressForTenMinutes(t *testing.T) {
	f := fresh(t)
	zip := code(1)
	p := f.upload(alice, zip)
	server := httptest.NewServer(f.Store)
	defer server.Close()
	path, err := f.Location(alice, p.sha256)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(path, alice) || strings.Contains(path, p.sha256) {
		t.Errorf("the address %s shows what it is for", path)
	}
	for range 2 { // as often as one likes
		if status, body, err := get(t, server, "GET", path); err != nil || status != 200 || !bytes.Equal(body, zip) {
			t.Errorf("got %d, %d bytes, %v", status, len(body), err)
		}
	}
	foreign, err := f.Location(bob, p.sha256)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what, method, path string, status int, words string) {
		t.Helper()
		if got, body, err := get(t, server, method, path); err != nil || got != status || !strings.Contains(string(body), words) {
			t.Errorf("%s: %d %s %v, want %d with %s", what, got, body, err, status, words)
		}
	}
	refused("another account's", "GET", foreign, 404, "NoSuchKey")
	refused("another method", "DELETE", path, 405, "MethodNotAllowed")
	refused("nothing", "GET", LocationPath, 403, "Access Denied")
	refused("too much", "GET", LocationPath+strings.Repeat("A", 2000), 403, "Access Denied")
	token := strings.TrimPrefix(path, LocationPath)
	for i := range len(token) - 1 { // the last character has bits that say nothing
		changed := []byte(token)
		if changed[i] = 'A'; token[i] == 'A' {
			changed[i] = 'B'
		}
		refused(fmt.Sprint("character ", i, " changed"), "GET", LocationPath+string(changed), 403, "Access Denied")
	}
	f.reopen() // an address outlives the process
	f.now = f.now.Add(LocationValidity - time.Second)
	server.Config.Handler = f.Store
	if status, _, err := get(t, server, "GET", path); err != nil || status != 200 {
		t.Errorf("after a restart: %d, %v", status, err)
	}
	f.now = f.now.Add(time.Second)
	refused("expired", "GET", path, 403, "Request has expired")
}

func TestADamagedPackageIsNotDownloadedAsAWholeOne(t *testing.T) {
	f := fresh(t)
	zip := code(1)
	p := f.upload(alice, zip)
	server := httptest.NewServer(f.Store)
	defer server.Close()
	path, err := f.Location(alice, p.sha256)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range f.files() {
		content[len(content)-1] ^= 1
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if status, body, err := get(t, server, "GET", path); err == nil || !bytes.HasPrefix(zip, body) {
		t.Errorf("got %d, %d bytes and no error", status, len(body))
	}
	if other := f.upload(alice, ziptest.Of("a", "x")); f.whole(other) != nil {
		t.Error("another package is harmed")
	}
}
