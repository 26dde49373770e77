package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
	"cloister/api/stsapi"
)

// decode does what the gateway does with a request.
func decode(service *api.Service, method, target string, header http.Header, body string) (*api.Operation, any, error) {
	r := httptest.NewRequest(method, target, nil)
	if header != nil {
		r.Header = header
	}
	op, labels, err := service.Match(r, []byte(body))
	if err != nil {
		return nil, nil, err
	}
	in, err := service.Decode(op, labels, r, []byte(body))
	return op, in, err
}

func TestARequestIsDecodedFromAllItsParts(t *testing.T) {
	for _, c := range []struct {
		name           string
		service        *api.Service
		method, target string
		header         http.Header
		body           string
		want           any
	}{
		{
			"an invocation", lambdaapi.Service, "POST", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af/invocations?Qualifier=live&other=1",
			http.Header{"X-Amz-Invocation-Type": {"Event"}, "X-Amz-Log-Type": {"Tail"}, "X-Amz-Client-Context": {"e30="}}, "\x00not json",
			&lambdaapi.InvocationRequest{
				FunctionName: new("arn:aws:lambda:us-east-1:123456789012:function:f"), Qualifier: new("live"), InvocationType: new(lambdaapi.InvocationTypeEvent),
				LogType: new(lambdaapi.LogTypeTail), ClientContext: new("e30="), Payload: []byte("\x00not json"),
			},
		},
		{"an invocation without payload", lambdaapi.Service, "POST", "/2015-03-31/functions/f/invocations", nil, "", &lambdaapi.InvocationRequest{FunctionName: new("f")}},
		{"a list in the query string", lambdaapi.Service, "DELETE", "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af?tagKeys=a&tagKeys=b%2Fc+d", nil, "",
			&lambdaapi.UntagResourceRequest{Resource: new("arn:aws:lambda:us-east-1:123456789012:function:f"), TagKeys: []string{"a", "b/c d"}}},
		{"a number in the path", lambdaapi.Service, "GET", "/2018-10-31/layers/l/versions/12", nil, "", &lambdaapi.GetLayerVersionRequest{LayerName: new("l"), VersionNumber: new(int64(12))}},
		{"a body where none is expected", lambdaapi.Service, "GET", "/2015-03-31/functions/f", nil, "[[[", &lambdaapi.GetFunctionRequest{FunctionName: new("f")}},
		{"no body where one is expected", lambdaapi.Service, "POST", "/2015-03-31/functions/f/versions", nil, "", &lambdaapi.PublishVersionRequest{FunctionName: new("f")}},
		{"a structure as the body", lambdaapi.Service, "POST",
			"/2025-12-01/durable-execution-callbacks/YQ==/fail", nil, `{"ErrorMessage":"m","StackTrace":["a"]}`,
			&lambdaapi.SendDurableExecutionCallbackFailureRequest{CallbackId: new("YQ=="), Error: &lambdaapi.ErrorObject{ErrorMessage: new("m"), StackTrace: []string{"a"}}}},
		{"a form", iamapi.Service, "POST", "/", form, "Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=%7B%7D&MaxSessionDuration=3600&Tags.member.1.Key=a&Tags.member.1.Value=&Tags.member.2.Key=b&Tags.member.2.Value=c",
			&iamapi.CreateRoleRequest{RoleName: new("r"), AssumeRolePolicyDocument: new("{}"), MaxSessionDuration: new(int32(3600)),
				Tags: []iamapi.Tag{{Key: new("a"), Value: new("")}, {Key: new("b"), Value: new("c")}}}},
		{"an empty list in a form", iamapi.Service, "POST", "/", form, "Action=UntagRole&Version=2010-05-08&RoleName=r&TagKeys=", &iamapi.UntagRoleRequest{RoleName: new("r"), TagKeys: []string{}}},
		{"a query string instead of a form", stsapi.Service, "GET", "/?Action=GetCallerIdentity&Version=2011-06-15", nil, "", &stsapi.GetCallerIdentityRequest{}},
		{"equal names in a form, the first counts", iamapi.Service, "POST", "/?RoleName=z", form, "Action=GetRole&Version=2010-05-08&RoleName=a&RoleName=b", &iamapi.GetRoleRequest{RoleName: new("a")}},
		{"a target", logsapi.Service, "POST", "/", http.Header{"X-Amz-Target": {"Logs_20140328.PutLogEvents"}},
			`{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":1762315382000,"message":"m"}]}`,
			&logsapi.PutLogEventsRequest{LogGroupName: new("g"), LogStreamName: new("s"), LogEvents: []logsapi.InputLogEvent{{Timestamp: new(int64(1762315382000)), Message: new("m")}}}},
	} {
		_, in, err := decode(c.service, c.method, c.target, c.header, c.body)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if difference := cmp.Diff(c.want, in); difference != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, difference)
		}
	}
}

func TestARequestThatCannotBeDecodedIsRefused(t *testing.T) {
	role := "Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=%7B%7D&"
	for _, c := range []struct {
		name           string
		service        *api.Service
		method, target string
		header         http.Header
		body           string
		code           string
	}{
		{"a word for a number", lambdaapi.Service, "GET", "/2015-03-31/functions?MaxItems=many", nil, "", "SerializationException"},
		{"a broken query string", lambdaapi.Service, "GET", "/2015-03-31/functions?MaxItems=%zz", nil, "", "SerializationException"},
		{"a query string that is not UTF-8", lambdaapi.Service, "GET", "/2015-03-31/functions?Marker=%FF", nil, "", "SerializationException"},
		{"a header that is not UTF-8", lambdaapi.Service, "POST", "/2015-03-31/functions/f/invocations", http.Header{"X-Amz-Client-Context": {"\xff"}}, "", "SerializationException"},
		{"a word for a boolean", lambdaapi.Service, "GET", "/2025-12-01/durable-executions/x?IncludeExecutionData=yes", nil, "", "SerializationException"},
		{"a broken body", lambdaapi.Service, "POST", "/2015-03-31/functions", nil, "{", "SerializationException"},
		{"a broken body over RPC", logsapi.Service, "POST", "/", http.Header{"X-Amz-Target": {"Logs_20140328.PutLogEvents"}}, "{", "SerializationException"},
		{"a gap in a list", iamapi.Service, "POST", "/", form, role + "Tags.member.2.Key=a&Tags.member.2.Value=b", "MalformedInput"},
		{"a list with words for numbers", iamapi.Service, "POST", "/", form, role + "Tags.member.x.Key=a", "MalformedInput"},
		{"a word for a number in a form", iamapi.Service, "POST", "/", form, role + "MaxSessionDuration=long", "MalformedInput"},
		{"members of a scalar", iamapi.Service, "POST", "/", form, role + "MaxSessionDuration.member.1=1", "MalformedInput"},
		{"a form that is not UTF-8", iamapi.Service, "POST", "/", form, role + "Path=%FF", "MalformedInput"},
		{"a violation", iamapi.Service, "POST", "/", form, role + "MaxSessionDuration=1", "ValidationError"},
	} {
		_, _, err := decode(c.service, c.method, c.target, c.header, c.body)
		if fault, ok := errors.AsType[api.Fault](err); !ok || fault.ErrorCode() != c.code || fault.HTTPStatus() != 400 {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
}

func TestAnAnswerHasTheFormOfItsProtocol(t *testing.T) {
	for _, c := range []struct {
		service   *api.Service
		operation string
		out       any
		status    int
		header    map[string]string
		body      string
	}{
		{lambdaapi.Service, "Invoke", &lambdaapi.InvocationResponse{StatusCode: new(int32(202))}, 202, map[string]string{"Content-Length": "0"}, ""},
		{lambdaapi.Service, "Invoke", &lambdaapi.InvocationResponse{StatusCode: new(int32(200)), FunctionError: new("Unhandled"), ExecutedVersion: new("$LATEST"), Payload: []byte(`{"a":1}`)}, 200,
			map[string]string{"X-Amz-Function-Error": "Unhandled", "X-Amz-Executed-Version": "$LATEST", "Content-Type": "application/json"}, `{"a":1}`},
		{lambdaapi.Service, "Invoke", &lambdaapi.InvocationResponse{StatusCode: new(int32(204))}, 204, map[string]string{"Content-Type": "", "Content-Length": ""}, ""},
		{lambdaapi.Service, "Invoke", &lambdaapi.InvocationResponse{StatusCode: new(int32(7))}, 200, nil, ""},
		{lambdaapi.Service, "CreateFunction", &lambdaapi.FunctionConfiguration{FunctionName: new("f"), Timeout: new(int32(3)), Layers: []lambdaapi.Layer{}}, 201,
			map[string]string{"Content-Type": "application/json"}, `{"FunctionName":"f","Timeout":3,"Layers":[]}`},
		{lambdaapi.Service, "CreateFunction", (*lambdaapi.FunctionConfiguration)(nil), 201, nil, `{}`},
		{lambdaapi.Service, "DeleteAlias", &api.Empty{}, 204, map[string]string{"Content-Type": ""}, ""},
		{lambdaapi.Service, "TagResource", nil, 204, nil, ""},
		{lambdaapi.Service, "InvokeWithResponseStream", &lambdaapi.InvokeWithResponseStreamResponse{}, 501, map[string]string{"X-Amzn-Errortype": "NotImplementedException"},
			`{"Type":"Service","message":"Cloister does not implement lambda:InvokeWithResponseStream yet; docs/STATUS.md lists what works"}`},
		{iamapi.Service, "DeleteRole", &api.Empty{}, 200, map[string]string{"Content-Type": "text/xml"},
			`<DeleteRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DeleteRoleResponse>`},
		{iamapi.Service, "ListRoles", &iamapi.ListRolesResponse{Roles: []iamapi.Role{{RoleName: new("a<b\x00")}}, IsTruncated: new(false)}, 200, nil,
			`<ListRolesResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ListRolesResult><Roles><member><RoleName>a&lt;b` + "\ufffd" + `</RoleName></member></Roles><IsTruncated>false</IsTruncated></ListRolesResult><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></ListRolesResponse>`},
		{logsapi.Service, "CreateLogGroup", &api.Empty{}, 200, map[string]string{"Content-Type": "application/x-amz-json-1.1"}, ""},
		{logsapi.Service, "GetLogEvents", &logsapi.GetLogEventsResponse{Events: []logsapi.OutputLogEvent{{Message: new("a\"\\\n\x7f\xff")}}}, 200, nil,
			`{"events":[{"message":"a\"\\\u000a\u007f` + "\ufffd" + `"}]}`},
	} {
		w := httptest.NewRecorder()
		c.service.Encode(w, c.service.Operation(c.operation), "id", c.out)
		checkResponse(t, c.operation, w, c.status, c.header, c.body)
	}
}

func checkResponse(t *testing.T, name string, w *httptest.ResponseRecorder, status int, header map[string]string, body string) {
	t.Helper()
	if w.Code != status || w.Body.String() != body {
		t.Errorf("%s: %d %s\nwant %d %s", name, w.Code, w.Body, status, body)
	}
	if got := w.Header().Get("x-amzn-RequestId"); got != "id" {
		t.Errorf("%s: request id %q", name, got)
	}
	for key, want := range header {
		if got := w.Header().Get(key); got != want {
			t.Errorf("%s: header %s is %q, want %q", name, key, got, want)
		}
	}
}

func TestAnErrorHasTheFormOfItsProtocol(t *testing.T) {
	for _, c := range []struct {
		name    string
		service *api.Service
		err     error
		status  int
		header  map[string]string
		body    string
	}{
		{"a modelled error", lambdaapi.Service, &lambdaapi.ResourceNotFoundException{Message: new("no f")}, 404,
			map[string]string{"X-Amzn-Errortype": "ResourceNotFoundException"}, `{"Type":"User","Message":"no f"}`},
		{"a wrapped error with members in headers", lambdaapi.Service, fmt.Errorf("admit: %w", &lambdaapi.TooManyRequestsException{
			Message: new("Rate Exceeded."), Reason: new(lambdaapi.ThrottleReasonCallerRateLimitExceeded), RetryAfterSeconds: new("1")}), 429,
			map[string]string{"Retry-After": "1"}, `{"Type":"User","message":"Rate Exceeded.","Reason":"CallerRateLimitExceeded"}`},
		{"a Type of its own", lambdaapi.Service, &lambdaapi.ServiceException{Type: new("Mine"), Message: new("m")}, 500, nil, `{"Type":"Mine","Message":"m"}`},
		{"a fault of ours", lambdaapi.Service, &lambdaapi.KMSAccessDeniedException{}, 502, nil, `{"Type":"Service"}`},
		{"an error of no model", lambdaapi.Service, &api.Error{Code: "AccessDeniedException", Status: 403, Message: `"no"`}, 403,
			map[string]string{"X-Amzn-Errortype": "AccessDeniedException"}, `{"Type":"User","message":"\"no\""}`},
		{"an error that says nothing to clients", lambdaapi.Service, errors.New("password is hunter2"), 500,
			map[string]string{"X-Amzn-Errortype": "ServiceException"}, `{"Type":"Service","message":"Service encountered an internal error."}`},
		{"a status that is none", lambdaapi.Service, &api.Error{Code: "Odd", Status: 200}, 500, nil, `{"Type":"Service"}`},
		{"over RPC", logsapi.Service, &logsapi.ResourceNotFoundException{Message: new("no group")}, 400, map[string]string{"Content-Type": "application/x-amz-json-1.1"},
			`{"__type":"ResourceNotFoundException","message":"no group"}`},
		{"in XML", iamapi.Service, &iamapi.NoSuchEntityException{Message: new("no <r>")}, 404, map[string]string{"Content-Type": "text/xml"},
			`<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>no &lt;r&gt;</Message></Error><RequestId>id</RequestId></ErrorResponse>`},
		{"ours in XML", stsapi.Service, errors.New("x"), 500, nil,
			`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Receiver</Type><Code>InternalFailure</Code><Message>Service encountered an internal error.</Message></Error><RequestId>id</RequestId></ErrorResponse>`},
	} {
		w := httptest.NewRecorder()
		c.service.EncodeError(w, nil, "id", c.err)
		checkResponse(t, c.name, w, c.status, c.header, c.body)
	}
}

func TestEachVersionOfJSONNamesAnErrorInItsOwnWay(t *testing.T) {
	first := func(change func(*api.Service)) *api.Service {
		s := &api.Service{Name: "queue", Protocol: api.JSONRPC, TargetPrefix: "Queue", JSONVersion: "1.0",
			ErrorNamespace: "com.amazonaws.queue", ValidationCode: "ValidationException", FailureCode: "InternalFailure"}
		if change != nil {
			change(s)
		}
		return s
	}
	compatible := first(func(s *api.Service) { s.QueryCompatible = true })
	// NoSuchEntityException is any shape whose code in the query protocol, NoSuchEntity, is not its name.
	missing, denied := &iamapi.NoSuchEntityException{Message: new("m")}, &api.Error{Code: "AccessDeniedException", Status: 403, Message: "m"}
	for _, c := range []struct {
		name          string
		service       *api.Service
		err           error
		status        int
		queryError    string
		body, version string
	}{
		{"1.1", logsapi.Service, &logsapi.ResourceNotFoundException{Message: new("m")}, 400, "", `{"__type":"ResourceNotFoundException","message":"m"}`, "1.1"},
		{"1.1, of no model", logsapi.Service, denied, 403, "", `{"__type":"AccessDeniedException","message":"m"}`, "1.1"},
		{"1.0", first(nil), missing, 404, "", `{"__type":"com.amazonaws.queue#NoSuchEntityException","message":"m"}`, "1.0"},
		{"1.0, of no model", first(nil), denied, 403, "", `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"m"}`, "1.0"},
		{"1.0, once query", compatible, missing, 400, "NoSuchEntity;Sender", `{"__type":"com.amazonaws.queue#NoSuchEntityException","message":"m"}`, "1.0"},
		{"1.0, once query, a fault of ours", compatible, errors.New("x"), 500, "", `{"__type":"com.amazon.coral.service#InternalFailure","message":"Service encountered an internal error."}`, "1.0"},
	} {
		w := httptest.NewRecorder()
		c.service.EncodeError(w, nil, "id", c.err)
		checkResponse(t, c.name, w, c.status, map[string]string{"Content-Type": "application/x-amz-json-" + c.version, "x-amzn-query-error": c.queryError}, c.body)
	}
}
