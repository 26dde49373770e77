package test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloister/test/service"
)

// deployGo makes a function of provided.al2023.
func deployGo(t *testing.T, s *service.Service, name, pkg, role string) {
	t.Helper()
	b, err := service.BuildGo(t.Context(), pkg)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "function.zip")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t)(s.AWS(t.Context(), "lambda", "create-function", "--function-name", name, "--runtime", "provided.al2023", "--handler", "bootstrap",
		"--role", role, "--zip-file", "fileb://"+path, "--timeout", "20", "--memory-size", "512"))
	must(t)(s.AWS(t.Context(), "lambda", "wait", "function-active-v2", "--function-name", name))
}

func TestAFunctionActsUnderItsRoleAndNoMore(t *testing.T) {
	s := start(t)
	role := makeRole(t, s, "caller", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:GetRole","Resource":"*"}}`)
	deployGo(t, s, "caller", "./functions/caller", role)
	ask := func() map[string]string {
		t.Helper()
		var answers map[string]string
		if out := invoke(t, s, "caller", `{"Role":"caller"}`); json.Unmarshal([]byte(out), &answers) != nil {
			t.Fatalf("the function answered %s", out)
		}
		return answers
	}
	got := ask()
	account := strings.Split(role, ":")[4]
	want := map[string]string{
		"GetCallerIdentity": "arn:aws:sts::" + account + ":assumed-role/caller/caller",
		"GetRole":           "ok",
		"ListFunctions":     "AccessDeniedException",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// A changed policy acts on the next call of an environment that is running already.
	must(t)(s.AWS(t.Context(), "iam", "put-role-policy", "--role-name", "caller", "--policy-name", "inline",
		"--policy-document", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:ListFunctions","Resource":"*"}}`))
	if got := ask(); got["GetRole"] != "AccessDenied" || got["ListFunctions"] != "ok" {
		t.Errorf("after the policy was changed: %v", got)
	}
}

func TestARoleIsRefusedUnlessItTrustsLambdaAndTheCallerMayPassIt(t *testing.T) {
	s := start(t)
	aws := func(args ...string) string { t.Helper(); return must(t)(s.AWS(t.Context(), args...)) }
	good := makeRole(t, s, "good", "")
	other := aws("iam", "create-role", "--role-name", "other", "--query", "Role.Arn", "--output", "text", "--assume-role-policy-document",
		strings.ReplaceAll(trustLambda, "lambda.amazonaws.com", "ec2.amazonaws.com"))
	zip := "fileb://" + writeZip(t, app)
	makeFunction := func(role string) error {
		_, err := s.AWS(t.Context(), "lambda", "create-function", "--function-name", "f", "--runtime", python(), "--handler", "app.handler", "--role", role, "--zip-file", zip)
		return err
	}
	refused(t, makeFunction(other), "InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.")
	refused(t, makeFunction(strings.Replace(good, ":role/good", ":role/missing", 1)), "InvalidParameterValueException")

	// A user who may create functions but not pass roles.
	aws("iam", "create-user", "--user-name", "developer")
	aws("iam", "put-user-policy", "--user-name", "developer", "--policy-name", "p", "--policy-document",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:*","Resource":"*"}}`)
	key := strings.Fields(aws("iam", "create-access-key", "--user-name", "developer", "--query", "AccessKey.[AccessKeyId,SecretAccessKey]", "--output", "text"))
	administrator := s.Environ
	s.Environ = append(slices.Clone(administrator), "AWS_ACCESS_KEY_ID="+key[0], "AWS_SECRET_ACCESS_KEY="+key[1])
	refused(t, makeFunction(good), "AccessDeniedException", "iam:PassRole", good)
	developer := s.Environ
	s.Environ = administrator
	aws("iam", "put-user-policy", "--user-name", "developer", "--policy-name", "pass", "--policy-document",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:PassRole","Resource":"`+good+`"}}`)
	s.Environ = developer
	if err := makeFunction(good); err != nil {
		t.Errorf("with iam:PassRole: %v", err)
	}
	_, err := s.AWS(t.Context(), "iam", "list-roles")
	refused(t, err, "AccessDenied", "is not authorized to perform: iam:ListRoles")
}

func TestAFunctionSeesTheEnvironmentOfLambdaAndNothingOfTheHost(t *testing.T) {
	t.Setenv("HOST_SECRET_CANARY", "must-not-arrive") // of this process, and so of serve
	s := start(t)
	create(t, s, "look", map[string][]byte{"app.py": []byte(`
import os
def handler(event, context):
    return {"variables": dict(os.environ), "root": sorted(os.listdir("/")), "task": sorted(os.listdir("/var/task")),
            "uid": os.getuid(), "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
            "fds": sorted(os.listdir("/proc/self/fd")), "mounts": open("/proc/self/mountinfo").read(),
            "ca": open(os.environ["AWS_CA_BUNDLE"]).read()[:27]}
`)}, "--environment", "Variables={MINE=yes,LANG=C.UTF-8}")
	var got struct {
		Variables map[string]string
		Root      []string
		Task      []string
		UID       int
		PIDs      []int
		FDs       []string
		Mounts    string
		CA        string
	}
	out := invoke(t, s, "look", "{}")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	names := slices.Sorted(maps.Keys(got.Variables))
	for _, want := range []string{"_HANDLER", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY_ID",
		"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "TZ", "LANG", "PATH", "LD_LIBRARY_PATH",
		"AWS_XRAY_CONTEXT_MISSING", "AWS_XRAY_DAEMON_ADDRESS", "_AWS_XRAY_DAEMON_ADDRESS", "_AWS_XRAY_DAEMON_PORT", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "MINE"} {
		if !slices.Contains(names, want) {
			t.Errorf("the variable %s is missing", want)
		}
	}
	for name, want := range map[string]string{"AWS_LAMBDA_RUNTIME_API": "169.254.100.1:9001", "AWS_EXECUTION_ENV": "AWS_Lambda_" + python(), "MINE": "yes", "LANG": "C.UTF-8",
		"AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/look", "LAMBDA_TASK_ROOT": "/var/task", "_HANDLER": "app.handler", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST"} {
		if got.Variables[name] != want {
			t.Errorf("%s=%q, want %q", name, got.Variables[name], want)
		}
	}
	if _, leaked := got.Variables["HOST_SECRET_CANARY"]; leaked {
		t.Error("a variable of the host arrived in the function")
	}
	if want := []string{"bin", "dev", "etc", "lib", "lib64", "opt", "proc", "sbin", "tmp", "usr", "var"}; !slices.Equal(got.Root, want) {
		t.Errorf("the root holds %v, want %v", got.Root, want)
	}
	if !slices.Equal(got.Task, []string{"app.py"}) || got.UID == 0 || got.CA != "-----BEGIN CERTIFICATE-----" {
		t.Errorf("/var/task %v, uid %d, authority %q", got.Task, got.UID, got.CA)
	}
	if len(got.PIDs) > 3 || len(got.FDs) > 6 {
		t.Errorf("processes %v, descriptors %v", got.PIDs, got.FDs)
	}
	for _, host := range []string{s.Data, "/work", "/home", "/root"} {
		if strings.Contains(got.Mounts, host) {
			t.Errorf("mountinfo shows the host's %s:\n%s", host, got.Mounts)
		}
	}
}

func TestAnEnvironmentIsFrozenBetweenInvocations(t *testing.T) {
	s := start(t)
	create(t, s, "tick", map[string][]byte{"app.py": []byte(`
import threading, time
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
def handler(event, context):
    time.sleep(0.2)
    return ticks
`)})
	count := func() (n int) {
		t.Helper()
		if out := invoke(t, s, "tick", "{}"); json.Unmarshal([]byte(out), &n) != nil {
			t.Fatalf("answer %s", out)
		}
		return n
	}
	first := count()
	time.Sleep(2 * time.Second)
	// About 20 ticks belong to the second invocation; a thread that ran on would have made 200 more.
	if second := count(); second <= first || second-first > 80 {
		t.Errorf("%d ticks at the end of one invocation, %d at the end of the next two seconds later", first, second)
	}
}

func TestNodeFunctionsRun(t *testing.T) {
	s := start(t)
	out := must(t)(s.Doctor(t.Context()))
	var runtime string
	for _, word := range strings.Fields(strings.NewReplacer(`"`, " ", ",", " ").Replace(out)) {
		if strings.HasPrefix(word, "nodejs") {
			runtime = word
		}
	}
	if runtime == "" {
		t.Fatalf("doctor lists no Node.js: %s", out)
	}
	source, err := os.ReadFile("functions/node/index.mjs")
	if err != nil {
		t.Fatal(err)
	}
	role := makeRole(t, s, "node", "")
	must(t)(s.AWS(t.Context(), "lambda", "create-function", "--function-name", "node", "--runtime", runtime, "--handler", "index.handler", "--role", role,
		"--memory-size", "256", "--zip-file", "fileb://"+writeZip(t, map[string][]byte{"index.mjs": source})))
	must(t)(s.AWS(t.Context(), "lambda", "wait", "function-active-v2", "--function-name", "node"))
	for _, want := range []string{`"invocation":1`, `"invocation":2`} {
		if got := invoke(t, s, "node", `{"name":"x"}`); !strings.Contains(got, "Hello, x, from Node.js") || !strings.Contains(got, want) {
			t.Errorf("answered %s", got)
		}
	}
	// A version that this host lacks is refused with what to install.
	_, err = s.AWS(t.Context(), "lambda", "create-function", "--function-name", "absent", "--runtime", "python3.14", "--handler", "app.handler", "--role", role, "--zip-file", "fileb://"+writeZip(t, app))
	refused(t, err, "InvalidParameterValueException", "python3.14", "install")
}
