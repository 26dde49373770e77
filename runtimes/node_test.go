package runtimes

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	timestamp    = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d`)
	milliseconds = regexp.MustCompile(`\.\d\d\dZ`)
)

func runNode(t *testing.T, fn function) outcome {
	t.Helper()
	name := "/usr/bin/node"
	if _, err := os.Stat(name); err != nil {
		if name, err = exec.LookPath("node"); err != nil {
			t.Fatal("install nodejs: ", err)
		}
	}
	return run(t, absolute(t, []string{name, "bootstrap/bootstrap.js"}), fn)
}

const nodeFunctions = `
exports.echo = async (event) => event;
exports.fail = async () => { throw new TypeError('boom é'); };
exports.failNow = () => { throw new RangeError('at once'); };
exports.failString = async () => { throw 'only text'; };
exports.nothing = async () => {};
exports.circle = async () => { const o = {}; o.o = o; return o; };
exports.callback = (event, context, callback) => { setTimeout(() => callback(null, 'called back'), 5); };
exports.callbackError = (event, context, callback) => callback(new Error('called back'));
exports.waitsToo = (event, context, callback) => { const answer = {order: ['callback']}; setTimeout(() => answer.order.push('timer'), 30); callback(null, answer); };
exports.doesNotWait = (event, context, callback) => { context.callbackWaitsForEmptyEventLoop = false; setInterval(() => {}, 1000); callback(null, 'now'); };
exports.forgets = (event, context, callback) => { setTimeout(() => {}, 5); };
exports.never = async () => { await new Promise(() => {}); };
exports.succeeds = (event, context) => { context.succeed({by: 'succeed'}); context.fail(new Error('too late')); };
exports.rejectsElsewhere = async () => { Promise.reject(new Error('nobody caught this')); await new Promise((r) => setTimeout(r, 1000)); };
exports.throwsElsewhere = async () => { setTimeout(() => { throw new Error('thrown in a timer'); }, 1); await new Promise((r) => setTimeout(r, 1000)); };
exports.exits = async () => process.exit(9);
exports.deep = { er: { handler: async () => 'nested' } };
exports.notFunction = 1;
let calls = 0;
exports.count = async (event, context) => [++calls, context.awsRequestId, process.env._X_AMZN_TRACE_ID];
exports.describe = async (event, context) => ({ ...context, remaining: context.getRemainingTimeInMillis() > 0 });
exports.streams = awslambda.streamifyResponse(async () => {});
`

func TestANodeHandlerMayAnswerInEachOfItsWays(t *testing.T) {
	for _, c := range []struct{ handler, event, want string }{
		{"echo", `{"a":[1,2.5,"é😀",null,true]}`, `{"a":[1,2.5,"é😀",null,true]}`},
		{"nothing", `{}`, `null`},
		{"callback", `{}`, `"called back"`},
		{"waitsToo", `{}`, `{"order":["callback","timer"]}`},
		{"doesNotWait", `{}`, `"now"`},
		{"forgets", `{}`, `null`},
		{"succeeds", `{}`, `{"by":"succeed"}`},
		{"deep.er.handler", `{}`, `"nested"`},
	} {
		t.Run(c.handler, func(t *testing.T) {
			out := runNode(t, function{files: map[string]string{"index.js": nodeFunctions}, handler: "index." + c.handler, events: []string{c.event}})
			p := out.one(t)
			if p.Body != c.want || p.Path != "/invocation/"+requestID+"0/response" || p.ContentType != "application/json" || out.exit != -1 {
				t.Errorf("exit %d, %+v, want body %s", out.exit, p, c.want)
			}
		})
	}
}

func TestNodeErrorsHaveTheTypesAndWordsOfAWS(t *testing.T) {
	files := map[string]string{
		"index.js": nodeFunctions, "broken.js": "exports.handler = (", "needs.js": "require('no-such-module');",
		"raises.js": "throw new Error('at load');", "rejects.mjs": "await Promise.reject(new Error('in a module'));", "needs.mjs": "import 'no-such-module';",
	}
	const initialise = "/init/error"
	failed := "/invocation/" + requestID + "0/error"
	for _, c := range []struct {
		handler, path, errorType, message string
		exit                              int
	}{
		{"index.fail", failed, "TypeError", "boom é", -1},
		{"index.failNow", failed, "RangeError", "at once", -1},
		{"index.failString", failed, "string", "only text", -1},
		{"index.callbackError", failed, "Error", "called back", -1},
		{"index.circle", failed, "Error", "Unable to stringify response body", -1},
		{"index.never", failed, "Runtime.NodeJsExit", "The Lambda runtime client detected an unexpected Node.js exit code.", -1},
		{"index.rejectsElsewhere", failed, "Runtime.UnhandledPromiseRejection", "Error: nobody caught this", 128},
		{"index.throwsElsewhere", failed, "Error", "thrown in a timer", 129},
		{"nope.handler", initialise, "Runtime.ImportModuleError", "Error: Cannot find module 'nope'\nRequire stack:", 129},
		{"needs.handler", initialise, "Runtime.ImportModuleError", "Error: Cannot find module 'no-such-module'\nRequire stack:", 129},
		{"index.nope", initialise, "Runtime.HandlerNotFound", "index.nope is undefined or not exported", 129},
		{"index.notFunction", initialise, "Runtime.HandlerNotFound", "index.notFunction is not a function", 129},
		{"index.streams", initialise, "Runtime.MalformedStreamingHandler", "Response streaming is not supported.", 129},
		{"index", initialise, "Runtime.MalformedHandlerName", "Bad handler", 129},
		{"../index.handler", initialise, "Runtime.MalformedHandlerName", "'../index.handler' is not a valid handler name. Use absolute paths when specifying root directories in handler names.", 129},
		{"broken.handler", initialise, "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected end of input", 129},
		{"raises.handler", initialise, "Error", "at load", 129},
		{"rejects.handler", initialise, "Error", "in a module", 129},
	} {
		t.Run(c.handler, func(t *testing.T) {
			out := runNode(t, function{files: files, handler: c.handler, events: []string{`{}`}})
			p := out.one(t)
			var body struct {
				ErrorMessage, ErrorType string
				Trace                   []string
			}
			if err := json.Unmarshal([]byte(p.Body), &body); err != nil {
				t.Fatal(err)
			}
			if p.Path != c.path || body.ErrorType != c.errorType || !strings.HasPrefix(body.ErrorMessage, c.message) {
				t.Errorf("posted to %s: %s", p.Path, p.Body)
			}
			if c.errorType != "string" && (len(body.Trace) == 0 || !strings.HasPrefix(body.Trace[0], c.errorType+": ")) {
				t.Errorf("trace %q", body.Trace)
			}
			if out.exit != c.exit {
				t.Errorf("exit %d, want %d\n%s", out.exit, c.exit, out.output)
			}
			if c.path == initialise && p.ErrorType != c.errorType {
				t.Errorf("error type header %q", p.ErrorType)
			}
			if c.path == failed && !strings.Contains(p.Cause, `"working_directory"`) {
				t.Errorf("cause %q", p.Cause)
			}
			if !strings.Contains(out.output, "\tERROR\t") || strings.Count(out.output, "\n") != 1 {
				t.Errorf("the log shows the error not in one line: %q", out.output)
			}
		})
	}
}

func TestNodeFindsTheModuleThatAHandlerNames(t *testing.T) {
	const common, module = "exports.handler = async () => __filename.split('/').pop();", "export const handler = async () => import.meta.url.split('/').pop();"
	for _, c := range []struct {
		name    string
		files   map[string]string
		handler string
		want    string
	}{
		{"index.js is CommonJS", map[string]string{"index.js": common}, "index.handler", `"index.js"`},
		{"index.mjs is an ES module", map[string]string{"index.mjs": module}, "index.handler", `"index.mjs"`},
		{"index.cjs is CommonJS", map[string]string{"index.cjs": common}, "index.handler", `"index.cjs"`},
		{"package.json makes index.js an ES module", map[string]string{"index.js": module, "package.json": `{"type":"module"}`}, "index.handler", `"index.js"`},
		{"a package.json nearer to the file decides", map[string]string{"src/index.js": common, "src/package.json": `{}`, "package.json": `{"type":"module"}`}, "src/index.handler", `"index.js"`},
		{"a handler in a folder", map[string]string{"src/app/main.js": common}, "src/app/main.handler", `"main.js"`},
		{"a package in node_modules", map[string]string{"node_modules/pkg/index.js": common}, "pkg.handler", `"index.js"`},
		{"a default export that is an object", map[string]string{"index.mjs": "export default { handler: async () => 'default' }"}, "index.default.handler", `"default"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := runNode(t, function{files: c.files, handler: c.handler, events: []string{`{}`}})
			if p := out.one(t); p.Body != c.want {
				t.Errorf("%+v, want %s", p, c.want)
			}
		})
	}
}

func TestNodeServesEventAfterEventOnOneConnection(t *testing.T) {
	out := runNode(t, function{files: map[string]string{"index.js": nodeFunctions}, handler: "index.count", events: []string{`{}`, `{}`, `{}`}})
	var got []string
	for _, p := range out.posts {
		got = append(got, p.Body)
	}
	trace := `","Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"]`
	want := []string{`[1,"` + requestID + `0` + trace, `[2,"` + requestID + `1` + trace, `[3,"` + requestID + `2` + trace}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if out.connections != 1 {
		t.Errorf("%d connections, want 1", out.connections)
	}
}

func TestANodeTimerOfOneInvocationRunsInTheNext(t *testing.T) {
	code := `
let ran = 'nothing';
exports.handler = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = false;
  const before = ran;
  setTimeout(() => { ran = 'timer'; }, 1);
  if (event.wait) setTimeout(() => callback(null, ran), 50); else callback(null, before);
};`
	out := runNode(t, function{files: map[string]string{"index.js": code}, handler: "index.handler", events: []string{`{}`, `{"wait":1}`}})
	if len(out.posts) != 2 || out.posts[0].Body != `"nothing"` || out.posts[1].Body != `"timer"` {
		t.Errorf("%+v", out.posts)
	}
}

func TestTheNodeContextShowsTheInvocation(t *testing.T) {
	out := runNode(t, function{
		files: map[string]string{"index.js": nodeFunctions}, handler: "index.describe", events: []string{`{}`},
		headers: map[string]string{
			"Lambda-Runtime-Client-Context":   `{"client":{"app_title":"títle"}}`,
			"Lambda-Runtime-Cognito-Identity": `{"cognitoIdentityId":"id-1"}`,
		},
	})
	var got map[string]any
	if err := json.Unmarshal([]byte(out.one(t).Body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"callbackWaitsForEmptyEventLoop": true, "functionVersion": "$LATEST", "functionName": "f", "memoryLimitInMB": "128",
		"logGroupName": "/aws/lambda/f", "logStreamName": "2026/11/23/[$LATEST]0", "remaining": true,
		"clientContext": map[string]any{"client": map[string]any{"app_title": "títle"}}, "identity": map[string]any{"cognitoIdentityId": "id-1"},
		"invokedFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:f", "awsRequestId": requestID + "0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNodeTakesPayloadsUpToTheLimitInAnyFraming(t *testing.T) {
	for _, framing := range []string{"", "chunked"} {
		headers := map[string]string{}
		if framing != "" {
			headers["Transfer-Encoding"] = framing
		}
		event := `{"data":"` + strings.Repeat("é", 3<<20-8) + `"}`
		p := runNode(t, function{files: map[string]string{"index.js": nodeFunctions}, handler: "index.echo", events: []string{event}, headers: headers}).one(t)
		if p.Body != event {
			t.Errorf("framing %q: %d bytes came back for %d", framing, len(p.Body), len(event))
		}
	}
}

func TestANodeFunctionThatExitsEndsTheProcessWithItsCode(t *testing.T) {
	out := runNode(t, function{files: map[string]string{"index.js": nodeFunctions}, handler: "index.exits", events: []string{`{}`}})
	if out.exit != 9 || len(out.posts) != 0 {
		t.Errorf("exit %d, posts %+v", out.exit, out.posts)
	}
}

func TestNodeLogLinesAreThoseOfAWS(t *testing.T) {
	code := `
console.log('at load');
exports.handler = async () => {
  console.log('%s and %d', 'text', 7, {a: 1});
  console.warn('two\nlines');
  console.debug('detail');
  process.stdout.write('as it is\n');
  throw Object.assign(new Error('boom'), { code: 'E_CODE', extra: 1, stack: 'Error: boom\n    at here' });
};`
	for _, c := range []struct {
		name      string
		variables map[string]string
		want      []string
	}{
		{"text", nil, []string{
			"TIME\tundefined\tINFO\tat load",
			"TIME\tID\tINFO\ttext and 7 { a: 1 }",
			"TIME\tID\tWARN\ttwo\rlines",
			"TIME\tID\tDEBUG\tdetail",
			"as it is",
			"TIME\tID\tERROR\tInvoke Error \t" + `{"errorType":"Error","errorMessage":"boom","code":"E_CODE","extra":1,"stack":["Error: boom","    at here"]}`,
		}},
		{"JSON", map[string]string{"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}, []string{
			`{"timestamp":"TIME","level":"INFO","message":"at load"}`,
			`{"timestamp":"TIME","level":"INFO","requestId":"ID","message":"text and 7 { a: 1 }"}`,
			`{"timestamp":"TIME","level":"WARN","requestId":"ID","message":"two\nlines"}`,
			"as it is",
			`{"timestamp":"TIME","level":"ERROR","requestId":"ID","message":{"errorType":"Error","errorMessage":"boom","stackTrace":["Error: boom","    at here"],"code":"E_CODE","extra":1}}`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := runNode(t, function{files: map[string]string{"index.js": code}, handler: "index.handler", events: []string{`{}`}, variables: c.variables})
			text := milliseconds.ReplaceAllString(timestamp.ReplaceAllString(out.output, "TIME"), "")
			text = strings.ReplaceAll(text, requestID+"0", "ID")
			if diff := cmp.Diff(c.want, strings.Split(strings.TrimSuffix(text, "\n"), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
