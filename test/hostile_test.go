package test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"cloister/test/service"
)

// A caller invokes through the Go SDK: hundreds of calls would take minutes with the CLI.
type caller struct {
	client *lambda.Client
	role   string
}

func newCaller(t *testing.T, s *service.Service) *caller {
	t.Helper()
	ca, err := os.ReadFile(s.Getenv("AWS_CA_BUNDLE"))
	if err != nil {
		t.Fatal(err)
	}
	settings, err := config.LoadDefaultConfig(t.Context(),
		config.WithRegion(s.Getenv("AWS_REGION")), config.WithBaseEndpoint(s.Endpoint), config.WithCustomCABundle(bytes.NewReader(ca)),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(s.Getenv("AWS_ACCESS_KEY_ID"), s.Getenv("AWS_SECRET_ACCESS_KEY"), "")))
	if err != nil {
		t.Fatal(err)
	}
	return &caller{client: lambda.NewFromConfig(settings), role: makeRole(t, s, "hostile", "")}
}

// deploy makes an active function.
func (c *caller) deploy(t *testing.T, name, runtime string, packed []byte, memory, timeoutSeconds int32, variables map[string]string) {
	t.Helper()
	_, err := c.client.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.Runtime(runtime), Handler: aws.String("app.handler"), Role: &c.role, MemorySize: &memory,
		Timeout: &timeoutSeconds, Code: &types.FunctionCode{ZipFile: packed}, Environment: &types.Environment{Variables: variables},
	})
	if err == nil {
		err = lambda.NewFunctionActiveV2Waiter(c.client).Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &name}, time.Minute)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// oneCPU is the memory size, in MB, at which a function has one CPU.
const oneCPU = 1769

// A reply is what an invocation brought.
type reply struct {
	id            string // of the request
	payload       string
	functionError string
	log           string
}

// call invokes with the end of the log. An error is one of the service's, not of the function's.
func (c *caller) call(ctx context.Context, function, event string) (reply, error) {
	out, err := c.client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &function, Payload: []byte(event), LogType: types.LogTypeTail})
	if err != nil {
		return reply{}, err
	}
	log, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
	id, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
	return reply{id, string(out.Payload), aws.ToString(out.FunctionError), string(log)}, err
}

// must is call without an error.
func (c *caller) must(t *testing.T, function, event string) reply {
	t.Helper()
	r, err := c.call(t.Context(), function, event)
	if err != nil {
		t.Fatalf("%s: %v", event, err)
	}
	return r
}

// An expectation is what AWS answers to one hostile event.
type expectation struct {
	name     string
	function string // "patient" (or "bad") if empty
	event    string
	payload  string // a regular expression for all of it; ID stands for the request's
	bytes    int    // length of the payload, if that says all
	failed   bool   // X-Amz-Function-Error is Unhandled
	log      string // what the function's part of the log matches, if anything does
	status   string // what REPORT ends with
}

// Endings of REPORT lines, as AWS writes them.
const (
	timedOut    = `Status: timeout`
	timeoutLine = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ID Task timed out after \d+\.\d\d seconds\n\n`
	exited      = `Status: error\tError Type: Runtime\.ExitError`
	outOfMemory = `Status: error\tError Type: Runtime\.OutOfMemory`
)

// platformError is the payload of a failure that the platform words.
func platformError(kind, message string) string {
	return `\{"errorType":"` + regexp.QuoteMeta(kind) + `","errorMessage":"RequestId: ID Error: ` + regexp.QuoteMeta(message) + `"\}`
}

// check compares a reply with what is expected, the whole log included.
func (e *expectation) check(t *testing.T, r reply) {
	t.Helper()
	whole := func(pattern string) *regexp.Regexp {
		return regexp.MustCompile(`(?s)^(?:` + strings.ReplaceAll(pattern, "ID", regexp.QuoteMeta(r.id)) + `)$`)
	}
	if want := whole(e.payload); e.bytes == 0 && !want.MatchString(r.payload) || e.bytes > 0 && len(r.payload) != e.bytes {
		t.Errorf("answered %d bytes, %.300s, want %s or %d bytes", len(r.payload), r.payload, want, e.bytes)
	}
	if want := map[bool]string{true: "Unhandled"}[e.failed]; r.functionError != want {
		t.Errorf("X-Amz-Function-Error %q, want %q", r.functionError, want)
	}
	const line = `REPORT RequestId: ID\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: \d+ MB\tMax Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?`
	late := ""
	if e.status == timedOut {
		late = timeoutLine
	}
	end := late + `END RequestId: ID\n` + line + e.status + "\n"
	log := lossNotice.ReplaceAllString(r.log, "") // of a flood that was a moment ago
	want := whole(`START RequestId: ID Version: \$LATEST\n` + e.log + end)
	if len(r.log) == 4096 { // the beginning is cut off
		want = whole(`.*` + end)
	}
	if !want.MatchString(log) {
		t.Errorf("log %q, want %s", log[max(0, len(log)-600):], want)
	}
}

var lossNotice = regexp.MustCompile(`(?m)^\[cloister\] \d+ log lines, \d+ bytes, were dropped here: .*\n`)

// hostileModes are the ways to misbehave that one invocation shows.
var hostileModes = []expectation{
	{name: "Exits", event: `{"do":"exit","n":3}`, payload: platformError("Runtime.ExitError", "Runtime exited with error: exit status 3"), failed: true, status: exited},
	{name: "ExitsWithoutAReason", event: `{"do":"exit"}`, payload: platformError("Runtime.ExitError", "Runtime exited without providing a reason"), failed: true, status: exited},
	{name: "AnswersAndExits", event: `{"do":"answer and exit"}`, payload: `"answered"`, status: exited},
	{name: "KillsItself", event: `{"do":"kill","n":9}`, payload: platformError("Runtime.ExitError", "Runtime exited with error: signal: killed"), failed: true, status: exited},
	{name: "Hangs", function: "hasty", event: `{"do":"hang"}`, payload: platformError("Sandbox.Timedout", "Task timed out after 1.00 seconds"), failed: true, status: timedOut},

	{name: "ForksWithoutEnd", function: "hasty", event: `{"do":"forks"}`, payload: platformError("Sandbox.Timedout", "Task timed out after 1.00 seconds"), failed: true, status: timedOut},
	{name: "StartsAllProcessesThereMayBe", event: `{"do":"processes","n":2000}`, payload: `\{"error":"fork/exec /proc/self/exe: resource temporarily unavailable","started":\d{2,4}\}|` + platformError("Runtime.ExitError", "Runtime exited with error: exit status 2"), log: `.*`, status: `.*`},
	{name: "EatsMemory", event: `{"do":"memory"}`, payload: platformError("Runtime.OutOfMemory", "Runtime exited with error: signal: killed"), failed: true, status: outOfMemory},
	{name: "OpensAllFilesThereMayBe", event: `{"do":"files","n":1}`, payload: `\{"error":"open /dev/null: too many open files","opened":10[012]\d\}`},
	{name: "AnswersWithoutAFreeDescriptor", event: `{"do":"files"}`, payload: `"closed"`},
	{name: "FillsTmp", event: `{"do":"fill"}`, payload: `\{"error":"write /tmp/large: no space left on device","mebibytes":5[123]\d\}`},
	{name: "EmptiesTmp", event: `{"do":"clean"}`, payload: `"\\u003cnil\\u003e"`},
	{name: "FillsTmpWithEmptyFiles", event: `{"do":"inodes"}`, payload: `\{"error":"no space left on device","files":[67]\d{4}\}`},
	{name: "EmptiesTmpAgain", event: `{"do":"clean"}`, payload: `"\\u003cnil\\u003e"`},
	{name: "SignalsEverybody", event: `{"do":"signals"}`, payload: `\{"all":"(\\u003cnil\\u003e|no such process)","first process":"operation not permitted","parent":"(of another namespace|operation not permitted)","second":"(no such process|operation not permitted)"\}`},
	{name: "ChangesItsOutOfMemoryScore", event: `{"do":"score"}`, payload: `\{"-1":"[^"]*permission denied","-1000":"[^"]*permission denied","0":"[^"]*","1000":"\\u003cnil\\u003e","now":"1000"\}`},

	{name: "LogsAHundredMegabytes", event: `{"do":"bytes","n":1600}`, payload: `104857600`, log: `.*`},
	{name: "LogsAMillionLines", event: `{"do":"lines","n":1000000}`, payload: `7000000`, log: `.*`},
	{name: "LogsAMillionEmptyLines", event: `{"do":"newlines","n":16}`, payload: `1048576`, log: `.*`},
	{name: "LogsOneEndlessLine", event: `{"do":"endless line","n":160}`, payload: `10485760`, log: `.*`},
	{name: "LogsBinary", event: `{"do":"binary","n":160}`, payload: `10485760`, log: `.*`},

	{name: "AnswersSixMegabytes", event: `{"do":"size","n":6291456}`, bytes: 6291456},
	{name: "AnswersTheMost", event: `{"do":"size","n":6291556}`, bytes: 6291556},
	{name: "AnswersTooMuch", event: `{"do":"size","n":6291557}`, payload: regexp.QuoteMeta(tooLarge), failed: true},
	{name: "AnnouncesTooMuch", event: `{"do":"announced"}`, payload: regexp.QuoteMeta(tooLarge), failed: true, log: `(status 413\n)?`},
	{name: "AnswersInEndlessChunks", event: `{"do":"endless chunks"}`, payload: regexp.QuoteMeta(tooLarge), failed: true, log: `(status 413\n)?`},
	{name: "AnswersInTinyChunks", event: `{"do":"tiny chunks"}`, payload: regexp.QuoteMeta(tooLarge), failed: true, log: `(status 413\n)?`},

	{name: "ClosesItsSocket", event: `{"do":"close"}`, payload: `"asked again"`},
	{name: "BreaksItsAnswerOffAndRepeatsIt", event: `{"do":"half"}`, payload: `"whole"`},
	{name: "BreaksItsAnswerOffAndHangs", function: "hasty", event: `{"do":"half and hang"}`, payload: platformError("Sandbox.Timedout", "Task timed out after 1.00 seconds"), failed: true, status: timedOut},
	{name: "DiesInTheMiddleOfItsAnswer", event: `{"do":"half and die"}`, payload: platformError("Runtime.ExitError", "Runtime exited with error: signal: killed"), failed: true, status: exited},
	{name: "SendsGarbage", event: `{"do":"garbage"}`, payload: `\[400,400,400,400,400,400,431,431,414,400,505,404\]`},
	{name: "AnswersOtherEvents", event: `{"do":"ids","value":"00000000-1111-2222-3333-444444444444"}`, payload: `\[400,400,400,400,(400|202),400,40[04],40[04],400,400\]`},
	{name: "AnswersTwice", event: `{"do":"twice"}`, payload: `"response"`, log: `response 202 <nil>\nresponse 40[03] <nil>\nerror 40[03] <nil>\n`},
	{name: "SendsJunkBehindItsAnswer", event: `{"do":"pipelined"}`, payload: `"answered"`, log: `status 202\n(status 400\n)?`},
	{name: "OpensManyConnections", event: `{"do":"connections","n":200}`, payload: `\{"gateway":6\d,"runtime API":12\d\}`},
	{name: "FloodsTheRuntimeAPI", event: `{"do":"hammer","n":4,"milliseconds":300}`, payload: `\d+`},
	{name: "ReconnectsWithoutEnd", event: `{"do":"reconnect","n":4,"milliseconds":300}`, payload: `\d+`},
	{name: "ReconnectsToTheGatewayWithoutEnd", event: `{"do":"dial","n":4,"milliseconds":300}`, payload: `\d+`},
}

const tooLarge = `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}`

// Every hostile invocation gets AWS's answer and log, the next one works, and a neighbour never notices.
func TestHostileFunctionsGetAWSsErrorsAndHarmNobody(t *testing.T) {
	s := start(t)
	c := newCaller(t, s)
	packed := hostileZip(t)
	c.deploy(t, "patient", "provided.al2023", packed, oneCPU, 30, nil)
	c.deploy(t, "hasty", "provided.al2023", packed, oneCPU, 1, nil)
	c.deploy(t, "never", "provided.al2023", packed, oneCPU, 1, map[string]string{"HOSTILE_INIT": "hang"})
	c.deploy(t, "early", "provided.al2023", packed, oneCPU, 30, map[string]string{"HOSTILE_INIT": "exit"})
	c.deploy(t, "neighbour", "provided.al2023", packed, oneCPU, 30, nil)
	stop := c.visit(t, "neighbour")
	never := make(chan struct{})
	go func() { // its init takes ten seconds, which the others need not wait for
		defer close(never)
		t.Run("NeverPolls", func(t *testing.T) {
			c.failsInInit(t, "never", "timeout", "Sandbox.Timedout", "Task timed out after 1.00 seconds")
		})
	}()
	t.Run("ExitsAtOnce", func(t *testing.T) {
		c.failsInInit(t, "early", `error\tError Type: Runtime\.ExitError`, "Runtime.ExitError", "Runtime exited without providing a reason")
	})
	for _, mode := range hostileModes {
		t.Run(mode.name, func(t *testing.T) {
			mode.function = cmp.Or(mode.function, "patient")
			r := c.must(t, mode.function, mode.event)
			if mode.name == "StartsAllProcessesThereMayBe" {
				mode.failed = r.functionError != ""
			}
			mode.check(t, r)
			c.works(t, mode.function)
		})
	}
	<-never
	if visits := stop(); visits < 50 {
		t.Errorf("the neighbour was visited only %d times: the test shows little", visits)
	}
}

// hostileZip packs the hostile function, once for all tests.
var packHostile = sync.OnceValues(func() ([]byte, error) { return service.BuildGo(context.Background(), "./functions/hostile") })

func hostileZip(t *testing.T) []byte {
	t.Helper()
	packed, err := packHostile()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// works shows that the next invocation is served as if nothing had been.
func (c *caller) works(t *testing.T, function string) {
	t.Helper()
	value := fmt.Sprintf(`"%d"`, time.Now().UnixNano())
	next := expectation{payload: regexp.QuoteMeta(value), log: `.*`} // processes that outlive their event may still write
	next.check(t, c.must(t, function, `{"do":"echo","value":`+value+`}`))
}

// failsInInit checks a function whose runtime never asks for an event: AWS repeats its init within the first
// invocation, and answers with why that failed.
func (c *caller) failsInInit(t *testing.T, function, status, kind, message string) {
	r := c.must(t, function, `{"do":"echo"}`)
	report := `Status: ` + status
	late := ""
	if strings.HasPrefix(report, timedOut) {
		late = timeoutLine
	}
	log := `INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: invoke\t` + report + `\nSTART RequestId: ID Version: \$LATEST\n` + late + `END RequestId: ID\n` +
		`REPORT RequestId: ID\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: \d+ MB\tMax Memory Used: \d+ MB\t` + report + `\n`
	if want := regexp.MustCompile(`^` + strings.ReplaceAll(log, "ID", r.id) + `$`); !want.MatchString(strings.ReplaceAll(r.log, "INIT_", "INIT_")) {
		t.Errorf("log %q, want %s", r.log, want)
	}
	if want := regexp.MustCompile(`^` + strings.ReplaceAll(platformError(kind, message), "ID", r.id) + `$`); !want.MatchString(r.payload) || r.functionError != "Unhandled" {
		t.Errorf("answered %s, %s; want %s", r.payload, r.functionError, want)
	}
	// Its correction works.
	_, err := c.client.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &function, Environment: &types.Environment{Variables: map[string]string{"CORRECTED": "yes"}},
	})
	if err == nil {
		err = lambda.NewFunctionUpdatedV2Waiter(c.client).Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: &function}, time.Minute)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.works(t, function)
}

// visit invokes a function all the time until the function that it returns is called, which says how often.
// The test fails with the first answer that is wrong or takes longer than the timeouts of others.
func (c *caller) visit(t *testing.T, function string) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	var visits atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			n := visits.Add(1)
			began := time.Now()
			r, err := c.call(context.WithoutCancel(ctx), function, fmt.Sprintf(`{"do":"echo","value":%d}`, n))
			if took := time.Since(began); err != nil || r.payload != fmt.Sprint(n) || r.functionError != "" || took > 5*time.Second {
				t.Errorf("the neighbour's visit %d took %s: %q, %v", n, took, r.payload, err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return func() int {
		cancel()
		<-done
		return int(visits.Load())
	}
}

func TestFunctionsThatFailGetTheErrorsOfLambda(t *testing.T) {
	s := start(t)
	c := newCaller(t, s)
	source, err := os.ReadFile("functions/hostile-python/app.py")
	if err != nil {
		t.Fatal(err)
	}
	packed, err := service.Zip(map[string][]byte{"app.py": source, "early.py": []byte("raise RuntimeError('at import')\n")})
	if err != nil {
		t.Fatal(err)
	}
	c.deploy(t, "bad", python(), packed, 256, 30, nil)
	c.deploy(t, "hasty", python(), packed, 256, 1, nil)
	for _, mode := range []expectation{
		{name: "os._exit", payload: platformError("Runtime.ExitError", "Runtime exited with error: exit status 3"), failed: true, status: exited},
		{name: "sys.exit", payload: platformError("Runtime.ExitError", "Runtime exited with error: exit status 7"), failed: true, status: exited},
		{name: "crash", payload: platformError("Runtime.ExitError", "Runtime exited with error: signal: segmentation fault"), failed: true, status: exited},
		{name: "memory", payload: platformError("Runtime.OutOfMemory", "Runtime exited with error: signal: killed"), failed: true, status: outOfMemory},
		{name: "hang", function: "hasty", payload: platformError("Sandbox.Timedout", "Task timed out after 1.00 seconds"), failed: true, status: timedOut},
		{name: "large", payload: regexp.QuoteMeta(tooLarge), failed: true, log: `(Runtime API refused .*)?`},
		{name: "recursion", payload: `\{"errorMessage": "maximum recursion depth exceeded[^"]*", "errorType": "RecursionError".*\}`, failed: true, log: `.*`},
		{name: "close all", payload: platformError("Runtime.ExitError", "Runtime exited with error: exit status 1"), failed: true, log: `.*`, status: exited},
		{name: "no output", payload: "true"},
	} {
		t.Run(mode.name, func(t *testing.T) {
			function := cmp.Or(mode.function, "bad")
			mode.check(t, c.must(t, function, `{"do":"`+mode.name+`"}`))
			if r := c.must(t, function, `{"do":"nothing"}`); r.payload != "true" || r.functionError != "" {
				t.Errorf("the next invocation answered %s", r.payload)
			}
		})
	}
	// /tmp survives the reset. A busy host may give the next invocation another environment: try again then.
	survives := func() bool {
		c.must(t, "bad", `{"do":"write"}`)
		c.must(t, "bad", `{"do":"os._exit"}`)
		return c.must(t, "bad", `{"do":"look"}`).payload == "true"
	}
	survived := false
	for range 3 { // each reset may meet a busy environment, whose place another takes
		survived = survived || survives()
	}
	if !survived {
		t.Error("what was written to /tmp is gone after a reset")
	}
	for handler, want := range map[string]string{"early.handler": "at import", "missing.handler": "Unable to import module 'missing'"} {
		_, err := c.client.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{FunctionName: aws.String("bad"), Handler: &handler})
		if err == nil {
			err = lambda.NewFunctionUpdatedV2Waiter(c.client).Wait(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String("bad")}, time.Minute)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := c.must(t, "bad", `{}`); !strings.Contains(r.payload, `"errorMessage"`) || !strings.Contains(r.payload, want) || r.functionError != "Unhandled" ||
			!strings.Contains(r.log, "Phase: invoke\tStatus: error\tError Type: Runtime.") || strings.Index(r.log, "START") < strings.Index(r.log, "INIT_REPORT") {
			t.Errorf("%s answered %s, log %s", handler, r.payload, r.log)
		}
	}
}

// A child that Python forks and that returns from the handler as well speaks to the Runtime API over the same
// connection. What each answers is the function's own trouble; the service comes out of it.
func TestAForkedHandlerConfusesOnlyItself(t *testing.T) {
	s := start(t)
	c := newCaller(t, s)
	source, err := os.ReadFile("functions/hostile-python/app.py")
	if err != nil {
		t.Fatal(err)
	}
	packed, err := service.Zip(map[string][]byte{"app.py": source})
	if err != nil {
		t.Fatal(err)
	}
	c.deploy(t, "forked", python(), packed, 256, 1, nil)
	c.deploy(t, "neighbour", "provided.al2023", hostileZip(t), oneCPU, 30, nil)
	stop := c.visit(t, "neighbour")
	defer stop()
	c.must(t, "forked", `{"do":"fork"}`)
	eventually(t, "no invocation works after a handler has forked", func() bool {
		r, err := c.call(t.Context(), "forked", `{"do":"look"}`)
		return err == nil && r.payload == "false" && r.functionError == ""
	})
}

func TestABackgroundProcessRunsOnlyDuringInvocationsAndEndsWithItsEnvironment(t *testing.T) {
	s := start(t)
	c := newCaller(t, s)
	c.deploy(t, "ticker", "provided.al2023", hostileZip(t), oneCPU, 10, nil)
	c.must(t, "ticker", `{"do":"background"}`)
	count := func() (counts [2]int) {
		t.Helper()
		if r := c.must(t, "ticker", `{"do":"ticks","milliseconds":200}`); json.Unmarshal([]byte(r.payload), &counts) != nil {
			t.Fatalf("answered %s", r.payload)
		}
		return counts
	}
	first := count()
	time.Sleep(time.Second) // frozen: 100 ticks that must not be
	second := count()
	if first[1] <= first[0] || second[1] <= second[0] {
		t.Errorf("the process does not run on during invocations: %v, %v", first, second)
	}
	if between := second[0] - first[1]; between > 50 {
		t.Errorf("%d ticks between two invocations", between)
	}
}

// A footprint is what a service takes of its host. Rounds of hostile invocations must not make it grow.
func TestHostileFunctionsLeaveNothingBehind(t *testing.T) {
	var log io.Writer
	s := start(t, func(c *service.Config) { log = c.Log })
	c := newCaller(t, s)
	packed := hostileZip(t)
	round := func(n int) service.Footprint {
		t.Helper()
		name := fmt.Sprint("hostile-", n)
		c.deploy(t, name, "provided.al2023", packed, oneCPU, 2, nil)
		var all sync.WaitGroup
		for _, event := range []string{
			`{"do":"exit"}`, `{"do":"answer and exit"}`, `{"do":"forks"}`, `{"do":"memory"}`, `{"do":"files","n":1}`, `{"do":"background"}`, `{"do":"burn","n":4,"milliseconds":300}`,
			`{"do":"lines","n":100000}`, `{"do":"endless line","n":100}`, `{"do":"size","n":6291557}`, `{"do":"half and die"}`, `{"do":"half"}`, `{"do":"close"}`, `{"do":"garbage"}`,
			`{"do":"connections","n":200}`, `{"do":"dial","n":4,"milliseconds":200}`, `{"do":"endless chunks"}`, `{"do":"pipelined"}`, `{"do":"signals"}`, `{"do":"inodes"}`,
		} {
			all.Go(func() {
				for range 2 {
					if _, err := c.call(t.Context(), name, event); err != nil {
						t.Errorf("%s: %v", event, err)
					}
				}
			})
		}
		all.Wait()
		if _, err := c.client.DeleteFunction(t.Context(), &lambda.DeleteFunctionInput{FunctionName: &name}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the environments did not end", func() bool { return len(sandboxes(s)) <= 2 }) // parked ones
		f, err := s.Footprint()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	before := round(1) // has warmed caches and pools
	round(2)
	after := round(3)
	t.Logf("before %+v, after %+v", before, after)
	if grown := after.Beyond(before, service.Footprint{Descriptors: 12, Memory: 24 << 20}); len(grown) > 0 {
		t.Errorf("after two more rounds there is more than before:\n%s", strings.Join(grown, "\n"))
	}
	// An environment that lives is seen by the same measure.
	c.deploy(t, "alive", "provided.al2023", packed, oneCPU, 2, nil)
	c.must(t, "alive", `{"do":"background"}`)
	var alive service.Footprint
	eventually(t, "a living environment leaves no trace in the footprint", func() bool {
		var err error
		alive, err = s.Footprint()
		return err == nil && len(alive.Beyond(after, service.Footprint{})) > 4
	})
	t.Logf("with one environment: %s", strings.Join(alive.Beyond(after, service.Footprint{}), ", "))
	defer eventually(t, "front and worker do not serve after their restart", func() bool {
		_, err := c.call(t.Context(), "alive", `{"do":"echo","value":1}`)
		return err == nil
	})
	if counts := goroutines(t, s, log.(*testLog)); counts["front"] > 80 || counts["worker"] > 80 || counts["front"] == 0 || counts["worker"] == 0 {
		t.Errorf("goroutines after all environments have ended: %v", counts)
	}
}

// goroutines counts those of front and worker. It asks each by the signal that makes a Go process print
// them and end.
func goroutines(t *testing.T, s *service.Service, log *testLog) map[string]int {
	t.Helper()
	counts := map[string]int{}
	defer func() { t.Logf("goroutines: %v", counts) }()
	for _, role := range []string{"worker", "front"} {
		before := len(log.text())
		pid := children(t, s)[role]
		if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
		eventually(t, role+" did not end", func() bool { now := children(t, s)[role]; return now != 0 && now != pid })
		counts[role] = strings.Count(log.text()[before:], "\ngoroutine ")
	}
	return counts
}
