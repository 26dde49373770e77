package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
	"cloister/api/stsapi"
)

// TestEveryRequestSnapshotOfTheSDKIsUnderstood reads the requests that the
// modules of aws-sdk-go-v2 keep as fixtures, every member set, and checks that
// what we decode says the same as what was sent.
func TestEveryRequestSnapshotOfTheSDKIsUnderstood(t *testing.T) {
	for _, c := range []struct {
		service *api.Service
		module  string
		atLeast int // so that a module without fixtures is noticed
	}{
		{lambdaapi.Service, "lambda", 85},
		{iamapi.Service, "iam", 150},
		{stsapi.Service, "sts", 8},
		{logsapi.Service, "cloudwatchlogs", 100},
	} {
		t.Run(c.service.Name, func(t *testing.T) {
			files := snapshots(t, c.module)
			if len(files) < c.atLeast {
				t.Fatalf("%d fixtures, want %d or more", len(files), c.atLeast)
			}
			for _, file := range files {
				operation, _, _ := strings.Cut(filepath.Base(file), ".")
				r, body := readSnapshot(t, file)
				checkSnapshot(t, c.service, operation, r, body)
			}
		})
	}
}

func snapshots(t *testing.T, module string) []string {
	t.Helper()
	directory, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/"+module).Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(directory)), "request_snapshot", "*.request.snap"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// readSnapshot parses a fixture: method and path, headers, body, each after an
// empty line.
func readSnapshot(t *testing.T, file string) (*http.Request, []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	method, target, _ := strings.Cut(first, " ")
	r := httptest.NewRequest(method, target, nil)
	reader := bufio.NewReader(strings.NewReader(strings.TrimPrefix(rest, "\n")))
	header, err := textproto.NewReader(reader).ReadMIMEHeader()
	if err != nil && err != io.EOF {
		t.Fatalf("%s: %v", file, err)
	}
	r.Header = http.Header(header)
	body, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return r, body
}

func checkSnapshot(t *testing.T, service *api.Service, operation string, r *http.Request, body []byte) {
	t.Helper()
	op, labels, err := service.Match(r, body)
	if err != nil {
		t.Errorf("%s: %v", operation, err)
		return
	}
	if op.Name != operation {
		t.Errorf("%s was routed to %s", operation, op.Name)
		return
	}
	in, err := service.DecodeUnchecked(op, labels, r, body)
	if err != nil {
		t.Errorf("%s: %v", operation, err)
		return
	}
	switch service.Protocol {
	case api.RESTJSON:
		sameREST(t, op, in, r, body)
	case api.JSONRPC:
		sameJSON(t, operation, body, service.BodyOf(in))
	case api.Query:
		want, err := url.ParseQuery(string(body))
		if err != nil {
			t.Fatal(err)
		}
		got := url.Values{"Action": {operation}, "Version": {service.APIVersion}}
		flatten(got, "", reflect.ValueOf(in))
		if difference := cmp.Diff(want, got); difference != "" {
			t.Errorf("%s (-sent +understood):\n%s", operation, difference)
		}
	}
}

// sameREST compares the bound members one by one and the body as JSON.
func sameREST(t *testing.T, op *api.Operation, in any, r *http.Request, body []byte) {
	t.Helper()
	v := reflect.ValueOf(in).Elem()
	_, fixed, _ := strings.Cut(op.URI, "?")
	query, err := url.ParseQuery(fixed)
	if err != nil {
		t.Fatal(err)
	}
	path := strings.Split(op.URI, "?")[0]
	payload := false
	for i := range v.NumField() {
		wire, flags, _ := strings.Cut(v.Type().Field(i).Tag.Get("aws"), ",")
		location, _, _ := strings.Cut(flags, ",")
		switch f := reflect.Indirect(v.Field(i)); location {
		case "uri":
			path = strings.Replace(path, "{"+wire+"}", url.PathEscape(text(f)), 1)
		case "query":
			flattenQuery(query, wire, f)
		case "header":
			if got := text(f); got != r.Header.Get(wire) {
				t.Errorf("%s: header %s is %q, we understood %q", op.Name, wire, r.Header.Get(wire), got)
			}
		case "payload":
			payload = true
			if f.Kind() == reflect.Slice {
				if !bytes.Equal(f.Bytes(), body) {
					t.Errorf("%s: payload %q, we understood %q", op.Name, body, f.Bytes())
				}
				continue
			}
			sameJSON(t, op.Name, body, lambdaapi.Service.BodyOf(in))
		}
	}
	if path != r.URL.EscapedPath() {
		t.Errorf("%s: path %s, we understood %s", op.Name, r.URL.EscapedPath(), path)
	}
	if difference := cmp.Diff(r.URL.Query(), query); difference != "" {
		t.Errorf("%s: query (-sent +understood):\n%s", op.Name, difference)
	}
	if !payload {
		sameJSON(t, op.Name, body, lambdaapi.Service.BodyOf(in))
	}
}

func sameJSON(t *testing.T, operation string, sent, understood []byte) {
	t.Helper()
	var want, got any
	if len(sent) == 0 {
		sent = []byte("{}")
	}
	if err := json.Unmarshal(sent, &want); err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
	if err := json.Unmarshal(understood, &got); err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
	if difference := cmp.Diff(want, got); difference != "" {
		t.Errorf("%s: body (-sent +understood):\n%s", operation, difference)
	}
}
