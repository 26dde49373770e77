package test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cloister/test/service"
)

// app is the function of the README.
var app = map[string][]byte{"app.py": []byte(`
def handler(event, context):
    print("asked by", event["name"])
    return {"greeting": "Hello, " + event["name"]}
`)}

var reportLine = regexp.MustCompile(`REPORT RequestId: [0-9a-f-]{36}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?\n`)

func TestTheFirstFiveMinutesOfTheREADMEWorkWithTheAWSCLI(t *testing.T) {
	s := start(t)
	aws := func(args ...string) string { t.Helper(); return must(t)(s.AWS(t.Context(), args...)) }

	aws("iam", "create-role", "--role-name", "hello", "--assume-role-policy-document", trustLambda)
	role := aws("iam", "get-role", "--role-name", "hello", "--query", "Role.Arn", "--output", "text")
	state := aws("lambda", "create-function", "--function-name", "hello", "--runtime", python(), "--handler", "app.handler",
		"--role", role, "--zip-file", "fileb://"+writeZip(t, app), "--query", "State", "--output", "text")
	if state != "Pending" {
		t.Errorf("a new function is %s, want Pending", state)
	}
	aws("lambda", "wait", "function-active-v2", "--function-name", "hello")

	answer := filepath.Join(t.TempDir(), "answer.json")
	log := aws("lambda", "invoke", "--function-name", "hello",
		"--payload", `{"name":"cloister"}`, "--log-type", "Tail", "--query", "LogResult", "--output", "text", answer)
	if b, err := os.ReadFile(answer); err != nil || string(b) != `{"greeting": "Hello, cloister"}` {
		t.Errorf("answer %s, %v", b, err)
	}
	tail, err := base64.StdEncoding.DecodeString(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"START RequestId: ", " Version: $LATEST\n", "asked by cloister\n", "END RequestId: "} {
		if !strings.Contains(string(tail), want) {
			t.Errorf("the log tail has no %q:\n%s", want, tail)
		}
	}
	if !reportLine.Match(tail) || !strings.Contains(string(tail), "Init Duration") {
		t.Errorf("no REPORT line of a cold start in the log tail:\n%q", tail)
	}
	eventually(t, "the function's log has no line of it", func() bool {
		return strings.Contains(logText(t, s, "/aws/lambda/hello"), "asked by cloister")
	})
	if who := aws("sts", "get-caller-identity", "--query", "Arn", "--output", "text"); !strings.HasSuffix(who, ":user/administrator") {
		t.Errorf("the administrator is %s", who)
	}
}

func TestVersionsArePublishedListedAndDeletedWithTheAWSCLI(t *testing.T) {
	s := start(t)
	aws := func(args ...string) string { t.Helper(); return must(t)(s.AWS(t.Context(), args...)) }
	create(t, s, "f", app)
	if v := aws("lambda", "publish-version", "--function-name", "f", "--query", "Version", "--output", "text"); v != "1" {
		t.Errorf("the first published version is %s", v)
	}
	aws("lambda", "wait", "published-version-active", "--function-name", "f", "--qualifier", "1")
	changed := map[string][]byte{"app.py": []byte("def handler(event, context):\n    return 'changed'\n")}
	aws("lambda", "update-function-code", "--function-name", "f", "--zip-file", "fileb://"+writeZip(t, changed))
	aws("lambda", "wait", "function-updated-v2", "--function-name", "f")
	for qualifier, want := range map[string]string{"1": `{"greeting": "Hello, x"}`, "$LATEST": `"changed"`} {
		if got := invoke(t, s, "f:"+qualifier, `{"name":"x"}`); got != want {
			t.Errorf("f:%s answered %s, want %s", qualifier, got, want)
		}
	}
	if got := aws("lambda", "list-versions-by-function", "--function-name", "f", "--query", "Versions[].Version", "--output", "text"); got != "$LATEST\t1" {
		t.Errorf("versions %q", got)
	}
	aws("lambda", "update-function-configuration", "--function-name", "f", "--description", "new", "--memory-size", "256")
	aws("lambda", "wait", "function-updated-v2", "--function-name", "f")
	if got := aws("lambda", "get-function-configuration", "--function-name", "f", "--query", "[Description,MemorySize]", "--output", "text"); got != "new\t256" {
		t.Errorf("configuration %q", got)
	}
	if got := aws("lambda", "list-functions", "--query", "Functions[].FunctionName", "--output", "text"); got != "f" {
		t.Errorf("functions %q", got)
	}
	aws("lambda", "delete-function", "--function-name", "f")
	_, err := s.AWS(t.Context(), "lambda", "get-function", "--function-name", "f")
	refused(t, err, "ResourceNotFoundException", "Function not found: arn:aws:lambda:us-east-1:")
}

func TestWhatIsNotBuiltSaysSo(t *testing.T) {
	s := start(t)
	create(t, s, "f", app)
	_, err := s.AWS(t.Context(), "lambda", "create-alias", "--function-name", "f", "--name", "live", "--function-version", "1")
	refused(t, err, "NotImplementedException", "CreateAlias")
	_, err = s.AWS(t.Context(), "lambda", "invoke", "--function-name", "f", "--invocation-type", "Event", filepath.Join(t.TempDir(), "out"))
	refused(t, err, "NotImplementedException", "Event")
	must(t)(s.AWS(t.Context(), "lambda", "invoke", "--function-name", "f", "--invocation-type", "DryRun", filepath.Join(t.TempDir(), "out")))
}

// create makes an active function of the host's Python with 128 MB.
func create(t *testing.T, s *service.Service, name string, files map[string][]byte, more ...string) {
	t.Helper()
	role, err := s.AWS(t.Context(), "iam", "get-role", "--role-name", "test", "--query", "Role.Arn", "--output", "text")
	if err != nil {
		role = makeRole(t, s, "test", "")
	}
	args := append([]string{"lambda", "create-function", "--function-name", name, "--runtime", python(), "--handler", "app.handler",
		"--role", strings.TrimSpace(role), "--zip-file", "fileb://" + writeZip(t, files)}, more...)
	must(t)(s.AWS(t.Context(), args...))
	must(t)(s.AWS(t.Context(), "lambda", "wait", "function-active-v2", "--function-name", name))
}

// invoke returns the function's answer.
func invoke(t *testing.T, s *service.Service, name, event string) string {
	t.Helper()
	answer := filepath.Join(t.TempDir(), "answer")
	must(t)(s.AWS(t.Context(), "lambda", "invoke", "--function-name", name, "--payload", event, answer))
	b, err := os.ReadFile(answer)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
