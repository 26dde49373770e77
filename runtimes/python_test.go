package runtimes

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pythonCommand runs the bootstrap's source with the interpreter that images are made from.
func pythonCommand(t testing.TB) []string {
	t.Helper()
	for minor := 20; minor >= 8; minor-- {
		name := fmt.Sprintf("/usr/bin/python3.%d", minor)
		if _, err := os.Stat(name); err == nil {
			return []string{name, "-u", "-s", "bootstrap/bootstrap.py"}
		}
	}
	name, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("install python3: ", err)
	}
	return []string{name, "-u", "-s", "bootstrap/bootstrap.py"}
}

// absolute makes the bootstrap's path independent of the working directory.
func absolute(t testing.TB, command []string) []string {
	t.Helper()
	directory, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	last := len(command) - 1
	command[last] = directory + "/" + command[last]
	return command
}

func runPython(t *testing.T, fn function) outcome {
	t.Helper()
	return run(t, absolute(t, pythonCommand(t)), fn)
}

const pythonFunctions = `
import collections, datetime, decimal, os, sys
Point = collections.namedtuple("Point", "x y")
calls = 0
def echo(event, context): return event
def fail(event, context): raise ValueError("boom é")
class Odd(Exception): pass
def nested(event, context):
    try:
        {}["missing"]
    except KeyError as error:
        raise Odd("outer") from error
def rich(event, context):
    return {"n": decimal.Decimal("1.50"), "p": Point(1, [Point(2, 3)]), "b": b"x", "big": 2**70, "é": "\u2028", "none": None}
def date(event, context): return {"at": datetime.datetime(2026, 1, 1)}
def circle(event, context):
    d = {}
    d["d"] = d
    return d
def keys(event, context): return {(1, 2): 3}
def raw(event, context): return b"\x00\xff raw"
def surrogate(event, context): return "\ud800"
def leave(event, context): sys.exit(7)
def count(event, context):
    global calls
    calls += 1
    return [calls, context.aws_request_id, os.environ["_X_AMZN_TRACE_ID"]]
def describe(event, context):
    return {"text": repr(context), "positive": context.get_remaining_time_in_millis() > 0, "w3c": context.w3c(),
            "app": context.client_context.client.app_title if context.client_context else None,
            "identity": context.identity.cognito_identity_id}
def length(event, context): return len(event["data"])
def path(event, context): return sys.path
def main_module(event, context): return [sys.argv[0].rsplit("/", 1)[1], os.getcwd()]
`

func TestAPythonHandlersAnswerIsPostedAsAWSsRuntimePostsIt(t *testing.T) {
	for _, c := range []struct {
		name, handler, event, want, contentType string
	}{
		{"an event comes back unchanged", "echo", `{"a":[1,2.5,"é😀",null,true]}`, `{"a": [1, 2.5, "\u00e9\ud83d\ude00", null, true]}`, "application/json"},
		{"decimals are numbers, named tuples objects, bytes text", "rich", `{}`, `{"n": 1.50, "p": {"x": 1, "y": [{"x": 2, "y": 3}]}, "b": "x", "big": 1180591620717411303424, "\u00e9": "\u2028", "none": null}`, "application/json"},
		{"bytes are posted as they are", "raw", `{}`, "\x00\xff raw", "application/unknown"},
		{"half a surrogate pair stays an escape", "surrogate", `{}`, `"\ud800"`, "application/json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := runPython(t, function{files: map[string]string{"app.py": pythonFunctions}, handler: "app." + c.handler, events: []string{c.event}}).one(t)
			if got := p.Body; got != c.want && !sameJSON(got, c.want) {
				t.Errorf("body %s, want %s", got, c.want)
			}
			if p.ContentType != c.contentType || p.Path != "/invocation/"+requestID+"0/response" {
				t.Errorf("posted %s to %s", p.ContentType, p.Path)
			}
		})
	}
}

// sameJSON lets Python 3.12, which does not escape, pass the tables of 3.11.
func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && cmp.Equal(x, y)
}

func TestPythonErrorsHaveTheTypesAndWordsOfAWS(t *testing.T) {
	files := map[string]string{
		"app.py": pythonFunctions, "broken.py": "def handler(:\n", "needs.py": "import no_such_module\n",
		"raises.py": "raise RuntimeError('at import')\n", "package/inner.py": "def handler(e, c): return 'inner'\n",
	}
	const initialise = "/init/error"
	failed := "/invocation/" + requestID + "0/error"
	for _, c := range []struct{ handler, path, errorType, message string }{
		{"app.fail", failed, "ValueError", "boom é"},
		{"app.nested", failed, "Odd", "outer"},
		{"app.date", failed, "Runtime.MarshalError", "Unable to marshal response: Object of type datetime is not JSON serializable"},
		{"app.circle", failed, "Runtime.MarshalError", "Unable to marshal response: Circular reference detected"},
		{"app.keys", failed, "Runtime.MarshalError", "Unable to marshal response: keys must be str, int, float, bool or None, not tuple"},
		{"nope.handler", initialise, "Runtime.ImportModuleError", "Unable to import module 'nope': No module named 'nope'"},
		{"needs.handler", initialise, "Runtime.ImportModuleError", "Unable to import module 'needs': No module named 'no_such_module'"},
		{"app.nope", initialise, "Runtime.HandlerNotFound", "Handler 'nope' missing on module 'app'"},
		{"handler", initialise, "Runtime.MalformedHandlerName", "Bad handler 'handler': not enough values to unpack (expected 2, got 1)"},
		{"broken.handler", initialise, "Runtime.UserCodeSyntaxError", "Syntax error in module 'broken': invalid syntax (broken.py, line 1)"},
		{"sys.exit", initialise, "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"},
		{"raises.handler", initialise, "RuntimeError", "at import"},
	} {
		t.Run(c.handler, func(t *testing.T) {
			out := runPython(t, function{files: files, handler: c.handler, events: []string{`{}`}})
			p := out.one(t)
			var body struct {
				ErrorMessage, ErrorType, RequestID string
				StackTrace                         []string
			}
			if err := json.Unmarshal([]byte(p.Body), &body); err != nil {
				t.Fatal(err)
			}
			if p.Path != c.path || body.ErrorType != c.errorType || body.ErrorMessage != c.message {
				t.Errorf("posted to %s: %s", p.Path, p.Body)
			}
			if strings.Contains(strings.Join(body.StackTrace, ""), "/bootstrap.py") {
				t.Errorf("the trace shows the runtime's own frames: %q", body.StackTrace)
			}
			if !strings.Contains(out.output, "[ERROR] "+c.errorType+": "+c.message+"\rTraceback (most recent call last):") {
				t.Errorf("the log does not show the error: %q", out.output)
			}
			if c.path == initialise && (out.exit != 1 || p.ErrorType != c.errorType) {
				t.Errorf("exit %d, error type header %q", out.exit, p.ErrorType)
			}
			if c.path == failed && (out.exit != -1 || !strings.Contains(p.Cause, `"working_directory"`)) {
				t.Errorf("exit %d, cause %q", out.exit, p.Cause)
			}
		})
	}
}

func TestPythonServesEventAfterEventOnOneConnection(t *testing.T) {
	out := runPython(t, function{files: map[string]string{"app.py": pythonFunctions}, handler: "app.count", events: []string{`{}`, `{}`, `{}`}})
	var got []string
	for _, p := range out.posts {
		got = append(got, p.Body)
	}
	want := []string{}
	for i := range 3 {
		want = append(want, fmt.Sprintf(`[%d, "%s%d", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"]`, i+1, requestID, i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if out.connections != 1 {
		t.Errorf("%d connections, want 1", out.connections)
	}
}

func TestThePythonContextShowsTheInvocation(t *testing.T) {
	out := runPython(t, function{
		files: map[string]string{"app.py": pythonFunctions}, handler: "app.describe", events: []string{`{}`},
		headers: map[string]string{
			"Lambda-Runtime-Client-Context":   `{"client":{"app_title":"títle"},"custom":{"a":1},"w3c":{"traceparent":"00-1","x":"y"}}`,
			"Lambda-Runtime-Cognito-Identity": `{"cognitoIdentityId":"id-1","cognitoIdentityPoolId":"pool"}`,
		},
	})
	var got map[string]any
	if err := json.Unmarshal([]byte(out.one(t).Body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"text": "LambdaContext([aws_request_id=" + requestID + "0,log_group_name=/aws/lambda/f,log_stream_name=2026/11/23/[$LATEST]0," +
			"function_name=f,memory_limit_in_mb=128,function_version=$LATEST,invoked_function_arn=arn:aws:lambda:us-east-1:123456789012:function:f," +
			"client_context=ClientContext([custom={'a': 1},env=None,client=Client([installation_id=None,app_title=títle,app_version_name=None,app_version_code=None,app_package_name=None])])," +
			"identity=CognitoIdentity([cognito_identity_id=id-1,cognito_identity_pool_id=pool]),tenant_id=None])",
		"positive": true, "w3c": map[string]any{"traceparent": "00-1"}, "app": "títle", "identity": "id-1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPythonTakesPayloadsUpToTheLimitInAnyFraming(t *testing.T) {
	for _, framing := range []string{"", "chunked"} {
		headers := map[string]string{}
		if framing != "" {
			headers["Transfer-Encoding"] = framing
		}
		event := `{"data":"` + strings.Repeat("é", 3<<20-8) + `"}`
		p := runPython(t, function{files: map[string]string{"app.py": pythonFunctions}, handler: "app.echo", events: []string{event}, headers: headers}).one(t)
		if !sameJSON(p.Body, event) {
			t.Errorf("framing %q: %d bytes came back for %d", framing, len(p.Body), len(event))
		}
	}
}

func TestAPythonFunctionThatExitsEndsTheProcessWithItsCode(t *testing.T) {
	out := runPython(t, function{files: map[string]string{"app.py": pythonFunctions}, handler: "app.leave", events: []string{`{}`}})
	if out.exit != 7 || len(out.posts) != 0 {
		t.Errorf("exit %d, posts %+v", out.exit, out.posts)
	}
}

func TestPythonSearchesTheTaskThenLayersThenTheRuntime(t *testing.T) {
	out := runPython(t, function{files: map[string]string{"app.py": pythonFunctions}, handler: "app.path", events: []string{`{}`}})
	var got []string
	if err := json.Unmarshal([]byte(out.one(t).Body), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) < 6 || got[0] != out.root || !strings.HasPrefix(got[1], "/opt/python/lib/python3.") || got[2] != "/opt/python" || !strings.HasSuffix(got[3], "/bootstrap") || got[len(got)-1] != "/opt/python" {
		t.Errorf("sys.path = %q", got)
	}
}

func TestPythonLogLinesAreThoseOfAWS(t *testing.T) {
	code := `
import logging, sys
log = logging.getLogger()
log.setLevel(logging.INFO)
log.info("at import")
def handler(event, context):
    print("plain", "print")
    sys.stdout.write("partial")
    print(" line")
    log.info("two\nlines")
    log.debug("not shown")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("caught")
`
	const stamp = "2026-01-02T03:04:05.678Z"
	for _, c := range []struct {
		name      string
		variables map[string]string
		want      []string
	}{
		{"text", nil, []string{
			"[INFO]\t" + stamp + "\t\tat import",
			"plain print", "partial line",
			"[INFO]\t" + stamp + "\t" + requestID + "0\ttwo\rlines",
			"[ERROR]\t" + stamp + "\t" + requestID + "0\tcaught\rTraceback (most recent call last):\r  File \"ROOT/app.py\", line 13, in handler\r    1 / 0\r    ~~^~~\rZeroDivisionError: division by zero",
		}},
		{"JSON", map[string]string{"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "DEBUG"}, []string{
			`{"timestamp": "2026-01-02T03:04:05Z", "level": "INFO", "message": "at import", "logger": "root", "requestId": ""}`,
			"plain print", "partial line",
			`{"timestamp": "2026-01-02T03:04:05Z", "level": "INFO", "message": "two\nlines", "logger": "root", "requestId": "` + requestID + `0"}`,
			`{"timestamp": "2026-01-02T03:04:05Z", "level": "ERROR", "message": "caught", "logger": "root", "stackTrace": ["  File \"ROOT/app.py\", line 13, in handler\n    1 / 0\n    ~~^~~\n"], "errorType": "ZeroDivisionError", "errorMessage": "division by zero", "location": "ROOT/app.py:handler:15", "requestId": "` + requestID + `0"}`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := runPython(t, function{files: map[string]string{"app.py": code}, handler: "app.handler", events: []string{`{}`}, variables: c.variables})
			text := timestamp.ReplaceAllString(strings.ReplaceAll(out.output, out.root, "ROOT"), "2026-01-02T03:04:05")
			text = milliseconds.ReplaceAllString(text, ".678Z")
			if diff := cmp.Diff(c.want, strings.Split(strings.TrimSuffix(text, "\n"), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPythonOutputIsNotHeldBackWhenTheProcessDies(t *testing.T) {
	code := "import os, sys\ndef handler(event, context):\n    sys.stdout.write('no newline')\n    os._exit(3)\n"
	out := runPython(t, function{files: map[string]string{"app.py": code}, handler: "app.handler", events: []string{`{}`}})
	if out.output != "no newline" || out.exit != 3 {
		t.Errorf("exit %d, output %q", out.exit, out.output)
	}
}
