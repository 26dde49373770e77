package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"

	"cloister/control"
	"cloister/gateway"
	iamservice "cloister/iam"
	"cloister/logs"
	"cloister/test/service"
)

// A tracer gives each field of the API a text of its own, which is looked for on the disk later.
type tracer struct {
	texts map[string]string // field → text
}

func newTracer() *tracer { return &tracer{map[string]string{}} }

// canary is how most texts begin.
const canary = "Canary"

// text is the one of a field: a name that every field takes.
func (c *tracer) text(field string) string {
	if c.texts[field] == "" {
		c.texts[field] = canary + rand.Text()[:18]
	}
	return c.texts[field]
}

// name is text where the API wants a pointer.
func (c *tracer) name(field string) *string { return aws.String(c.text(field)) }

// document is a policy that holds the text of a field.
func (c *tracer) document(field, rest string) *string {
	return aws.String(`{"Version":"2012-10-17","Statement":[{"Sid":"` + c.text(field) + `","Effect":"Allow",` + rest + `}]}`)
}

// A tracedService is one that is used in every way that is built.
type tracedService struct {
	*testing.T
	*tracer
	settings aws.Config
	said     *testLog
	calls    map[string]bool // operations called
	role     string          // ARN
}

func (u *tracedService) done(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

// noteCalls is for the SDK: it notes the name of each operation.
func (u *tracedService) noteCalls(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("note", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		u.calls[awsmiddleware.GetServiceID(ctx)+" "+awsmiddleware.GetOperationName(ctx)] = true
		return next.HandleInitialize(ctx, in)
	}), middleware.After)
}

// bringsTexts reports whether an operation stores what its caller gives.
var bringsTexts = regexp.MustCompile(`^(Create|Put|Update|Tag|Attach|Publish|Add|Set|Register|Import|Upload|Invoke|AssumeRole)`)

// everyWayWasUsed fails for an operation that is built and was not called.
func (u *tracedService) everyWayWasUsed() {
	for id, server := range map[string]gateway.Service{
		"Lambda": gateway.NewLambda(new(control.Server), nil, "us-east-1"), "IAM": new(iamservice.Directory).Server(), "CloudWatch Logs": logs.NewServer(nil, "us-east-1"),
	} {
		for _, op := range server.API().Operations {
			if bringsTexts.MatchString(op.Name) && !notBuilt(server.Server(), op) && !u.calls[id+" "+op.Name] {
				u.Errorf("the operation %s is built and was not used: what it stores is not looked for", op.Name)
			}
		}
	}
}

// useIdentities makes users, roles and policies, and has calls of theirs refused.
func (u *tracedService) useIdentities() {
	c := iam.NewFromConfig(u.settings)
	tags := func(of string) []iamtypes.Tag {
		return []iamtypes.Tag{{Key: u.name(of + " tag key"), Value: u.name(of + " tag value")}}
	}
	path := func(of string) *string { return aws.String("/" + u.text(of+" path") + "/") }
	_, err := c.CreateUser(u.Context(), &iam.CreateUserInput{UserName: u.name("user name"), Path: path("user"), Tags: tags("user")})
	u.done(err)
	_, err = c.PutUserPolicy(u.Context(), &iam.PutUserPolicyInput{UserName: u.name("user name"), PolicyName: u.name("inline policy name"),
		PolicyDocument: u.document("inline policy", `"Action":"sts:AssumeRole","Resource":"*"`)})
	u.done(err)
	role, err := c.CreateRole(u.Context(), &iam.CreateRoleInput{RoleName: u.name("role name"), Path: path("role"), Description: u.name("role description"),
		Tags: tags("role"), AssumeRolePolicyDocument: u.document("trust policy", `"Principal":{"Service":"lambda.amazonaws.com","AWS":"*"},"Action":"sts:AssumeRole"`)})
	u.done(err)
	u.role = *role.Role.Arn
	policy, err := c.CreatePolicy(u.Context(), &iam.CreatePolicyInput{PolicyName: u.name("policy name"), Path: path("policy"), Description: u.name("policy description"),
		Tags: tags("policy"), PolicyDocument: u.document("policy", `"Action":"s3:*","Resource":"`+"arn:aws:s3:::"+strings.ToLower(u.text("policy resource"))+`"`)})
	u.done(err)
	_, err = c.AttachRolePolicy(u.Context(), &iam.AttachRolePolicyInput{RoleName: u.name("role name"), PolicyArn: policy.Policy.Arn})
	u.done(err)
	_, err = c.PutRolePolicy(u.Context(), &iam.PutRolePolicyInput{RoleName: u.name("role name"), PolicyName: u.name("inline policy name of a role"),
		PolicyDocument: u.document("inline policy of a role", `"Action":"s3:*","Resource":"*"`)})
	u.done(err)
	_, err = c.UpdateRole(u.Context(), &iam.UpdateRoleInput{RoleName: u.name("role name"), Description: u.name("new role description")})
	u.done(err)
	_, err = c.UpdateAssumeRolePolicy(u.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: u.name("role name"),
		PolicyDocument: u.document("new trust policy", `"Principal":{"Service":"lambda.amazonaws.com","AWS":"*"},"Action":"sts:AssumeRole"`)})
	u.done(err)
	_, err = c.TagRole(u.Context(), &iam.TagRoleInput{RoleName: u.name("role name"), Tags: tags("tagged role")})
	u.done(err)
	_, err = c.AttachUserPolicy(u.Context(), &iam.AttachUserPolicyInput{UserName: u.name("user name"), PolicyArn: policy.Policy.Arn})
	u.done(err)
	key, err := c.CreateAccessKey(u.Context(), &iam.CreateAccessKeyInput{UserName: u.name("user name")})
	u.done(err)
	u.texts["access key id"], u.texts["secret access key"] = *key.AccessKey.AccessKeyId, *key.AccessKey.SecretAccessKey
	_, err = c.UpdateAccessKey(u.Context(), &iam.UpdateAccessKeyInput{UserName: u.name("user name"), AccessKeyId: key.AccessKey.AccessKeyId, Status: iamtypes.StatusTypeActive})
	u.done(err)
	u.useSessions(key.AccessKey, role.Role.Arn)
}

// useSessions has a user assume a role, and calls of both refused.
func (u *tracedService) useSessions(key *iamtypes.AccessKey, role *string) {
	asUser := u.settings.Copy()
	asUser.Credentials = credentials.NewStaticCredentialsProvider(*key.AccessKeyId, *key.SecretAccessKey, "")
	session, err := sts.NewFromConfig(asUser).AssumeRole(u.Context(), &sts.AssumeRoleInput{RoleArn: role, RoleSessionName: u.name("session name")})
	u.done(err)
	u.texts["session token"] = (*session.Credentials.SessionToken)[:64]
	asSession := u.settings.Copy()
	asSession.Credentials = credentials.NewStaticCredentialsProvider(*session.Credentials.AccessKeyId, *session.Credentials.SecretAccessKey, *session.Credentials.SessionToken)
	for _, refused := range []aws.Config{asUser, asSession} {
		if _, err := iam.NewFromConfig(refused).GetRole(u.Context(), &iam.GetRoleInput{RoleName: u.name("name that is asked for")}); err == nil {
			u.Fatal("a call without a permission was served")
		}
	}
	who, err := sts.NewFromConfig(u.settings).GetCallerIdentity(u.Context(), nil)
	u.done(err)
	u.texts["account id"] = *who.Account
}

// code is a function that writes, answers, fails and ends.
func (u *tracedService) code(field string) string {
	return "import os\nX = '" + u.text(field) + "'\ndef handler(event, context):\n    print('" + u.text("output") + "', flush=True)\n" +
		"    f = open('/tmp/" + u.text("name of a file in /tmp") + "', 'w')\n    f.write('" + u.text("content of a file in /tmp") + "')\n    f.flush()\n    os.fsync(f.fileno())\n" +
		"    if event.get('fail'):\n        raise Exception('" + u.text("error of a function") + "')\n    if event.get('end'):\n        os._exit(1)\n    return '" + u.text("answer") + "'\n"
}

// useFunctions deploys a function with every setting, publishes, invokes, changes and deletes.
func (u *tracedService) useFunctions() {
	c := awslambda.NewFromConfig(u.settings)
	zip, err := service.Zip(map[string][]byte{"app.py": []byte(u.code("code")), u.text("name of a file in a package"): nil})
	u.done(err)
	created, err := c.CreateFunction(u.Context(), &awslambda.CreateFunctionInput{
		FunctionName: u.name("function name"), Description: u.name("function description"), Handler: aws.String("app.handler"), Runtime: types.Runtime(python()), Role: &u.role,
		Code: &types.FunctionCode{ZipFile: zip}, Environment: &types.Environment{Variables: map[string]string{u.text("variable name"): u.text("variable value")}},
		Tags:          map[string]string{u.text("function tag key"): u.text("function tag value")},
		LoggingConfig: &types.LoggingConfig{LogGroup: u.name("log group of a function")},
	})
	u.done(err)
	get := &awslambda.GetFunctionInput{FunctionName: u.name("function name")}
	u.done(awslambda.NewFunctionActiveV2Waiter(c).Wait(u.Context(), get, time.Minute))
	client := base64.StdEncoding.EncodeToString([]byte(`{"custom":{"x":"` + u.text("client context") + `"}}`))
	for order, want := range map[string]string{"": u.text("answer"), "fail": u.text("error of a function"), "end": "Runtime.ExitError"} {
		event := fmt.Sprintf(`{%q:%q,%q:true}`, u.text("key of an event"), u.text("value of an event"), order)
		out, err := c.Invoke(u.Context(), &awslambda.InvokeInput{FunctionName: get.FunctionName, Payload: []byte(event), ClientContext: &client})
		u.done(err)
		if !strings.Contains(string(out.Payload), want) {
			u.Fatalf("to %s the function answered %s", event, out.Payload)
		}
	}
	_, err = c.PublishVersion(u.Context(), &awslambda.PublishVersionInput{FunctionName: get.FunctionName, Description: u.name("version description")})
	u.done(err)
	u.changeFunction(c, created.FunctionArn)
	_, err = c.Invoke(u.Context(), &awslambda.InvokeInput{FunctionName: get.FunctionName}) // of an environment that stays
	u.done(err)
	if _, err = c.Invoke(u.Context(), &awslambda.InvokeInput{FunctionName: u.name("function that is not there")}); err == nil {
		u.Fatal("a function that is not there was invoked")
	}
	deleted := u.name("name of a deleted function")
	_, err = c.CreateFunction(u.Context(), &awslambda.CreateFunctionInput{
		FunctionName: deleted, Handler: u.name("handler"), Runtime: types.Runtime(python()), Role: &u.role, Code: &types.FunctionCode{ZipFile: zip},
	})
	u.done(err)
	eventually(u.T, "the function was not prepared", func() bool { return strings.Contains(u.said.text(), *deleted) })
	_, err = c.DeleteFunction(u.Context(), &awslambda.DeleteFunctionInput{FunctionName: deleted})
	u.done(err)
}

// changeFunction gives a function other code, settings and tags.
func (u *tracedService) changeFunction(c *awslambda.Client, arn *string) {
	get := &awslambda.GetFunctionInput{FunctionName: u.name("function name")}
	zip, err := service.Zip(map[string][]byte{"app.py": []byte(u.code("new code"))})
	u.done(err)
	_, err = c.UpdateFunctionCode(u.Context(), &awslambda.UpdateFunctionCodeInput{FunctionName: get.FunctionName, ZipFile: zip})
	u.done(err)
	u.done(awslambda.NewFunctionUpdatedV2Waiter(c).Wait(u.Context(), get, time.Minute))
	_, err = c.UpdateFunctionConfiguration(u.Context(), &awslambda.UpdateFunctionConfigurationInput{
		FunctionName: get.FunctionName, Description: u.name("new function description"),
		Environment: &types.Environment{Variables: map[string]string{u.text("new variable name"): u.text("new variable value")}},
	})
	u.done(err)
	u.done(awslambda.NewFunctionUpdatedV2Waiter(c).Wait(u.Context(), get, time.Minute))
	_, err = c.TagResource(u.Context(), &awslambda.TagResourceInput{Resource: arn, Tags: map[string]string{u.text("new tag key"): u.text("new tag value")}})
	u.done(err)
}

// useLogs makes a group and a stream and writes to it.
func (u *tracedService) useLogs() {
	c := cloudwatchlogs.NewFromConfig(u.settings)
	group, stream := u.name("log group"), u.name("log stream")
	_, err := c.CreateLogGroup(u.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: group})
	u.done(err)
	_, err = c.CreateLogStream(u.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: group, LogStreamName: stream})
	u.done(err)
	_, err = c.PutLogEvents(u.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: group, LogStreamName: stream,
		LogEvents: []logtypes.InputLogEvent{{Message: u.name("log message"), Timestamp: aws.Int64(time.Now().UnixMilli())}}})
	u.done(err)
	_, err = c.FilterLogEvents(u.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: group, FilterPattern: u.name("filter pattern")})
	u.done(err)
	eventually(u.T, "the function's line did not arrive", func() bool {
		found, err := c.FilterLogEvents(u.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: u.name("log group of a function"), FilterPattern: u.name("output")})
		return err == nil && len(found.Events) > 0
	})
}

// TestWhatCanBeReadOnTheDiskIsOnTheSecurityPage uses a service in every way that is built, with a text of its own in each
// field, and then reads all files without the root key: while the service runs, after a kill, and after a stop.
func TestWhatCanBeReadOnTheDiskIsOnTheSecurityPage(t *testing.T) {
	page, err := os.ReadFile("../docs/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	l := parseListing(string(page))
	if len(l.rows) < 6 || l.linesOfColumns != 2 {
		t.Fatalf("docs/SECURITY.md lists %d rows and %d lines of columns: it has changed its form", len(l.rows), l.linesOfColumns)
	}
	data := t.TempDir()
	said := &testLog{t: t}
	s := start(t, func(c *service.Config) { c.Data, c.Log = data, said })
	u := &tracedService{T: t, tracer: newTracer(), settings: clientSettings(t, s), said: said, calls: map[string]bool{}}
	u.settings.APIOptions = append(u.settings.APIOptions, u.noteCalls)
	u.texts["administrator's secret key"] = s.Getenv("AWS_SECRET_ACCESS_KEY")
	u.useIdentities()
	u.useFunctions()
	u.useLogs()
	u.everyWayWasUsed()
	r := reading{}
	r.readAll(t, u.tracer, data)
	for _, pid := range children(t, s) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	r.readAll(t, u.tracer, data)
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	r.readAll(t, u.tracer, data)
	r.look(u.tracer, "standard error", []byte(said.text()))
	for _, fault := range l.faults(r) {
		t.Error(fault)
	}
	for _, name := range []string{"meta.db", "queue.db", "audit.db"} {
		for _, fault := range l.columnFaults(t, filepath.Join(data, "front", "state", name)) {
			t.Errorf("%s: %s", name, fault)
		}
	}
	if len(u.texts) < 45 {
		t.Errorf("only %d fields were traced", len(u.texts))
	}
	theTestOfTheListFindsFaults(t, l, r, u.tracer, filepath.Join(data, "front", "state", "meta.db"))
}

// theTestOfTheListFindsFaults is the control: a text in any form, a file, a row, a field or a column too much or too few is found.
func theTestOfTheListFindsFaults(t *testing.T, l listing, r reading, c *tracer, meta string) {
	t.Helper()
	text := c.text("code")
	for form, content := range map[string][]byte{
		"as it is":       []byte("xx" + text + "xx"),
		"in lower case":  []byte(strings.ToLower(text)),
		"in hexadecimal": []byte(hex.EncodeToString([]byte(text))),
		"in base64":      []byte(base64.StdEncoding.EncodeToString([]byte("x" + text + "xx"))),
		"in UTF-16":      bytes.Join(bytes.Split([]byte(text), nil), []byte{0}),
	} {
		found := reading{}
		found.look(c, "front/state/meta.db", content)
		if !slices.Contains(l.faults(found), "front/state/meta.db shows the code, which its row does not list") {
			t.Errorf("control: a text %s is not found", form)
		}
	}
	found := reading{}
	found.look(c, "front/state/logs/"+text, nil)
	if !slices.Contains(l.faults(found), "front/state/logs/"+text+" shows the code, which its row does not list") {
		t.Error("control: a text in the name of a file is not found")
	}
	more := maps.Clone(r)
	more["front/state/cache"] = nil
	if !slices.Contains(l.faults(more), "no row for the file front/state/cache") {
		t.Error("control: a file without a row is not found")
	}
	for i, row := range l.rows {
		short := l
		short.rows = slices.Delete(slices.Clone(l.rows), i, i+1)
		if len(short.faults(r)) == 0 {
			t.Errorf("control: nobody misses the row %q", row.files)
		}
		for field := range row.fields {
			delete(row.fields, field)
			if len(l.faults(r)) == 0 {
				t.Errorf("control: nobody misses the %s in the row %q", field, row.files)
			}
			row.fields[field] = true
		}
	}
	for column, clear := range l.columns {
		delete(l.columns, column)
		if len(l.columnFaults(t, meta)) == 0 {
			t.Errorf("control: nobody misses the column %s", column)
		}
		if l.columns[column] = false; clear && !strings.HasPrefix(column, "idx.") && len(l.columnFaults(t, meta)) == 0 { // idx is empty: nothing is looked up by an index yet
			t.Errorf("control: %s passes as sealed", column)
		}
		l.columns[column] = clear
	}
}

// clientSettings is what the Go SDK needs to be the administrator.
func clientSettings(t *testing.T, s *service.Service) aws.Config {
	t.Helper()
	for _, v := range s.Environ {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value)
		}
	}
	settings, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return settings
}
