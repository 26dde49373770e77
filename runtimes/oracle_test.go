package runtimes

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// record names a folder with an installed awslambdaric, AWS's own client, whose posts then
// become the recording: pip install --target FOLDER awslambdaric==4.2.2.
var record = flag.String("record-awslambdaric", "", "folder with awslambdaric: record its posts anew")

const recording = "testdata/awslambdaric-4.2.2.json"

// oracleCases are functions whose posts are compared with those of AWS's client.
var oracleCases = []struct{ Handler, Event string }{
	{"app.echo", `{"a":[1,2.5,"é😀\u2028",null,true,-0.0,1e400,123456789012345678901234567890]}`},
	{"app.rich", `{}`},
	{"app.raw", `{}`},
	{"app.fail", `{}`},
	{"app.nested", `{}`},
	{"app.date", `{}`},
	{"app.circle", `{}`},
	{"app.keys", `{}`},
	{"app.describe", `{}`},
	{"app.echo", `not JSON`},
	{"app.nope", `{}`},
	{"nope.handler", `{}`},
	{"needs.handler", `{}`},
	{"handler", `{}`},
	{"broken.handler", `{}`},
	{"sys.exit", `{}`},
	{"raises.handler", `{}`},
	{"package/inner.handler", `{}`},
	{"package.inner.handler", `{}`},
}

// oraclePost is a post in the form that is compared: without what differs from host to host.
type oraclePost struct {
	Path, ContentType, ErrorType string
	Body, Cause                  any
}

var libraryFrame = regexp.MustCompile(`File "[^"]*/importlib/__init__\.py", line \d+`)

func posted(t *testing.T, o outcome) oraclePost {
	t.Helper()
	p := o.one(t)
	c := oraclePost{Path: p.Path, ContentType: p.ContentType, ErrorType: p.ErrorType}
	if p.Path == "/init/error" {
		c.ContentType = "" // AWS's sends none
	}
	for text, to := range map[string]*any{p.Body: &c.Body, p.Cause: &c.Cause} {
		text = strings.ToValidUTF8(strings.ReplaceAll(text, o.root, "ROOT"), "\ufffd")
		if json.Unmarshal([]byte(text), to) != nil {
			*to = text
		}
		if fields, ok := (*to).(map[string]any); ok {
			if trace, ok := fields["stackTrace"].([]any); ok {
				for i, line := range trace {
					trace[i] = libraryFrame.ReplaceAllString(line.(string), "File LIBRARY")
				}
			}
		}
	}
	return c
}

func TestPostsAreThoseOfAWSsOwnPythonClient(t *testing.T) {
	files := map[string]string{
		"app.py": pythonFunctions, "broken.py": "def handler(:\n", "needs.py": "import no_such_module\n",
		"raises.py": "raise RuntimeError('at import')\n", "package/inner.py": "def handler(e, c): return 'inner'\n",
	}
	var recorded []oraclePost
	if *record == "" {
		if err := json.Unmarshal(read(t, recording), &recorded); err != nil {
			t.Fatal(err)
		}
		if len(recorded) != len(oracleCases) {
			t.Fatalf("%d recorded posts for %d cases: record anew", len(recorded), len(oracleCases))
		}
	}
	for i, c := range oracleCases {
		fn := function{files: files, handler: c.Handler, events: []string{c.Event}, headers: map[string]string{
			"Lambda-Runtime-Client-Context": `{"client":{"app_title":"title"},"custom":{"a":1}}`,
		}}
		if *record != "" {
			aws := fn
			aws.variables = map[string]string{"PYTHONPATH": *record, "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11"}
			recorded = append(recorded, posted(t, run(t, []string{pythonCommand(t)[0], "-m", "awslambdaric", c.Handler}, aws)))
		}
		if diff := cmp.Diff(recorded[i], posted(t, runPython(t, fn))); diff != "" {
			t.Errorf("%s %s: AWS's client (-), ours (+)\n%s", c.Handler, c.Event, diff)
		}
	}
	if *record != "" {
		data, err := json.MarshalIndent(recorded, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(recording), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recording, append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
