package test

import (
	"os"
	"os/exec"
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

var reportLine = regexp.MustCompile(`REPORT RequestId: [0-9a-f-]{36}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: \d+ MB\tInit Duration: \d+\.\d\d ms\t\n`)

// firstFiveMinutes are the README's commands for the second shell, as a script.
func firstFiveMinutes(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "In another shell:")
	text, _, found := strings.Cut(text, "\nAny `aws` CLI")
	if !found {
		t.Fatal("the README has changed its form")
	}
	return regexp.MustCompile(`(?m)^    `).ReplaceAllString(text, "")
}

func TestTheFirstFiveMinutesOfTheREADMEWorkWithTheAWSCLI(t *testing.T) {
	s := start(t)
	script := strings.NewReplacer("sudo bin/cloister", binary, "/var/lib/cloister", s.Data, "python3.11", python()).Replace(firstFiveMinutes(t))
	shell := exec.CommandContext(t.Context(), "sh", "-eu")
	shell.Stdin = strings.NewReader(script)
	shell.Dir = t.TempDir()
	shell.Env = []string{"PATH=" + filepath.Join(clients, "bin") + ":/usr/bin:/bin", "HOME=" + shell.Dir, "AWS_PAGER="}
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`"State": "Pending"`, "START RequestId: ", " Version: $LATEST\n", "asked by cloister\n", "END RequestId: ", `{"greeting": "Hello, cloister"}`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the commands printed no %q:\n%s", want, out)
		}
	}
	if !reportLine.Match(out) {
		t.Errorf("no REPORT line of a cold start:\n%s", out)
	}
	if strings.Count(string(out), "asked by cloister") != 2 {
		t.Errorf("the line is not both in the tail of the call and in the log:\n%s", out)
	}
	if who := must(t)(s.AWS(t.Context(), "sts", "get-caller-identity", "--query", "Arn", "--output", "text")); !strings.HasSuffix(who, ":user/administrator") {
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
