package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/kmsapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
	"cloister/api/stsapi"
)

var services = []*api.Service{lambdaapi.Service, iamapi.Service, stsapi.Service, logsapi.Service, kmsapi.Service}

// unimplemented returns the refusing server of a service.
func unimplemented(s *api.Service) any {
	return map[string]any{"lambda": lambdaapi.Unimplemented{}, "iam": iamapi.Unimplemented{},
		"sts": stsapi.Unimplemented{}, "logs": logsapi.Unimplemented{}, "kms": kmsapi.Unimplemented{}}[s.Name]
}

// A front answers requests as the gateway does, without signatures and policies
// and, since these tests send values that mean nothing, without validation.
type front struct {
	service *api.Service
	answer  func(op *api.Operation, in any) (any, error)
	op      *api.Operation // of the last request
	in      any
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = f.serve(w, r, body)
	}
	if err != nil {
		f.service.EncodeError(w, f.op, "request-1", err)
	}
}

func (f *front) serve(w http.ResponseWriter, r *http.Request, body []byte) error {
	op, labels, err := f.service.Match(r, body)
	if err != nil {
		return err
	}
	f.op = op
	if f.in, err = f.service.DecodeUnchecked(op, labels, r, body); err != nil {
		return err
	}
	out, err := f.answer(op, f.in)
	if err != nil {
		return err
	}
	f.service.Encode(w, op, "request-1", out)
	return nil
}

// newClient returns the SDK's client for a service that the handler answers.
func newClient(t *testing.T, service string, answer http.Handler) reflect.Value {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	// Some operations have a host name of their own, in front of the endpoint's.
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	config := aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: &server.URL,
		HTTPClient:   &http.Client{Transport: &http.Transport{DialContext: dial}},
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
		}),
	}
	switch service {
	case "lambda":
		return reflect.ValueOf(lambda.NewFromConfig(config))
	case "iam":
		return reflect.ValueOf(iam.NewFromConfig(config))
	case "kms":
		return reflect.ValueOf(kms.NewFromConfig(config))
	case "sts":
		return reflect.ValueOf(sts.NewFromConfig(config))
	default:
		return reflect.ValueOf(cloudwatchlogs.NewFromConfig(config))
	}
}

// send calls an operation with all members of the input set.
func send(t *testing.T, client reflect.Value, operation string, f filler) (in, out reflect.Value, err error) {
	t.Helper()
	method := client.MethodByName(operation)
	if !method.IsValid() {
		t.Fatalf("the SDK has no operation %s", operation)
	}
	in = reflect.New(method.Type().In(1).Elem())
	f.fill(in.Elem(), operation, 0)
	results := method.Call([]reflect.Value{reflect.ValueOf(t.Context()), in})
	err, _ = results[1].Interface().(error)
	return in, results[0], err
}

var moment = time.Date(2026, 11, 5, 4, 3, 2, 0, time.UTC)

// variants are the SDK's types for the members of unions, which are interfaces
// there, in the order of our fields.
var variants = map[reflect.Type][]reflect.Type{
	reflect.TypeFor[logstypes.ResourceConfig](): {reflect.TypeFor[logstypes.ResourceConfigMemberOpenSearchResourceConfig]()},
	reflect.TypeFor[iamtypes.PolicyIdentifier](): {reflect.TypeFor[iamtypes.PolicyIdentifierMemberPolicyType](),
		reflect.TypeFor[iamtypes.PolicyIdentifierMemberPolicyArn](), reflect.TypeFor[iamtypes.PolicyIdentifierMemberInlinePolicyIdentifier]()},
}

// A filler sets everything to values that tell its place. Of a union it sets the
// member of that number, or the last one.
type filler struct{ union int }

func (f filler) fill(v reflect.Value, name string, depth int) {
	switch v.Kind() {
	case reflect.Interface:
		all := variants[v.Type()]
		if len(all) == 0 {
			panic("no variants of " + v.Type().String())
		}
		variant := reflect.New(all[min(f.union, len(all)-1)])
		f.fill(variant.Elem(), name, depth)
		v.Set(variant)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), name, depth)
	case reflect.String:
		v.SetString(name + " <ü/&\">")
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(100 + len(name)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(0.25)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(name))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			f.fill(v.Index(i), name, depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		entry := reflect.New(v.Type().Elem()).Elem()
		f.fill(entry, name, depth+1)
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), entry)
	case reflect.Struct:
		f.fillStructure(v, depth)
	}
}

func (f filler) fillStructure(v reflect.Value, depth int) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(moment))
		return
	}
	if isUnion(v.Type()) {
		i := min(1+f.union, v.NumField()-1)
		f.fill(v.Field(i), v.Type().Field(i).Name, depth+1)
		return
	}
	if depth > 6 {
		return
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		switch {
		case !field.IsExported():
		case field.Type == reflect.TypeFor[io.Reader]():
			v.Field(i).Set(reflect.ValueOf(strings.NewReader(field.Name)))
		case strings.HasSuffix(field.Tag.Get("aws"), ",status"):
			v.Field(i).Set(reflect.ValueOf(new(int32(200))))
		default:
			f.fill(v.Field(i), field.Name, depth+1)
		}
	}
}

// isUnion says whether t is one of our unions, which have a field for the tag.
func isUnion(t reflect.Type) bool {
	if t.Kind() != reflect.Struct || t.NumField() == 0 {
		return false
	}
	return strings.HasSuffix(t.Field(0).Tag.Get("aws"), ",union")
}

// same compares one of our structures with the SDK's of the same name: each of
// our members must be there with its value.
func same(t *testing.T, at string, ours, theirs reflect.Value) {
	t.Helper()
	if theirs.Kind() == reflect.Interface {
		theirs = theirs.Elem()
	}
	ours, theirs = reflect.Indirect(ours), reflect.Indirect(theirs)
	if !ours.IsValid() || !theirs.IsValid() {
		zero := func(v reflect.Value) bool { return !v.IsValid() || v.IsZero() }
		if !zero(ours) || !zero(theirs) {
			t.Errorf("%s: one of them is absent: ours %v, theirs %v", at, ours, theirs)
		}
		return
	}
	switch ours.Kind() {
	case reflect.Struct:
		sameStructure(t, at, ours, theirs)
	case reflect.Slice:
		if theirs.Type() == reflect.TypeFor[strings.Reader]() { // all read by now; filled with the member's name
			if name := at[strings.LastIndexByte(at, '.')+1:]; string(ours.Bytes()) != name {
				t.Errorf("%s: ours %q, theirs %q", at, ours.Bytes(), name)
			}
			return
		}
		if ours.Len() != theirs.Len() {
			t.Errorf("%s: we have %d members, they %d", at, ours.Len(), theirs.Len())
			return
		}
		for i := range ours.Len() {
			same(t, at+"[]", ours.Index(i), theirs.Index(i))
		}
	case reflect.Map:
		if ours.Len() != theirs.Len() {
			t.Errorf("%s: we have %d entries, they %d", at, ours.Len(), theirs.Len())
		}
		for entry := ours.MapRange(); entry.Next(); {
			same(t, at+"{}", entry.Value(), theirs.MapIndex(entry.Key().Convert(theirs.Type().Key())))
		}
	default:
		if !ours.Equal(theirs.Convert(ours.Type())) {
			t.Errorf("%s: ours %v, theirs %v", at, ours, theirs)
		}
	}
}

func sameStructure(t *testing.T, at string, ours, theirs reflect.Value) {
	t.Helper()
	if ours.Type() == reflect.TypeFor[time.Time]() {
		if !ours.Interface().(time.Time).Equal(theirs.Interface().(time.Time)) {
			t.Errorf("%s: ours %v, theirs %v", at, ours, theirs)
		}
		return
	}
	union, _, isUnion := strings.Cut(theirs.Type().Name(), "Member")
	isUnion = isUnion && union == ours.Type().Name()
	for i := range ours.NumField() {
		name := ours.Type().Field(i).Name
		counterpart := theirs.FieldByName(name)
		switch {
		case name == "_":
			continue
		case isUnion && theirs.Type().Name() == union+"Member"+name:
			counterpart = theirs.FieldByName("Value")
		case isUnion && ours.Field(i).IsNil():
			continue
		}
		if !counterpart.IsValid() {
			if !slices.Contains(newer, path.Base(ours.Type().PkgPath())+"."+ours.Type().Name()+"."+name) {
				t.Errorf("%s: the SDK has no member %s of %s", at, name, ours.Type())
			}
			continue
		}
		same(t, at+"."+name, ours.Field(i), counterpart)
	}
}

// newer are the operations, errors and members that our model has and the SDK in go.mod
// has not yet.
var newer = []string{
	"lambda.DeleteDurableExecution", "lambda.PauseDurableExecution", "lambda.ResumeDurableExecution",
	"lambdaapi.CreateFunctionRequest.RuntimeConfig", "lambdaapi.CreateFunctionRequest.AcceleratorConfig",
	"lambdaapi.UpdateFunctionConfigurationRequest.RuntimeConfig", "lambdaapi.UpdateFunctionConfigurationRequest.AcceleratorConfig",
	"lambdaapi.FunctionConfiguration.RuntimeConfig", "lambdaapi.FunctionConfiguration.AcceleratorConfig",
	"lambdaapi.Event.ExecutionPausedDetails", "lambdaapi.Event.ExecutionResumedDetails",
	"lambdaapi.GetDurableExecutionResponse.PauseDetails", "lambdaapi.GetDurableExecutionResponse.ExpectedExecutionTimeoutTimestamp",
	"kmsapi.ListKeysRequest.ResourceOwners",
	"lambda.RuntimeVersionDeletedException", "lambda.RuntimeAliasDeletedException",
}

// streams are the operations that answer event streams.
var streams = []string{"InvokeWithResponseStream", "StartLiveTail", "GetLogObject"}

// TestTheSDKAndWeAgreeOnEveryOperation sends every operation with all members of
// its input, and answers it with all members of its output, once for each member of
// the largest union.
func TestTheSDKAndWeAgreeOnEveryOperation(t *testing.T) {
	for _, service := range services {
		t.Run(service.Name, func(t *testing.T) {
			for union := range 3 {
				agree(t, service, filler{union})
			}
		})
	}
}

func agree(t *testing.T, service *api.Service, with filler) {
	t.Helper()
	f := &front{service: service}
	var sent any
	f.answer = func(op *api.Operation, _ any) (any, error) {
		out := reflect.New(op.OutputType())
		with.fill(out.Elem(), op.Name, 0)
		sent = out.Interface()
		return sent, nil
	}
	client := newClient(t, service.Name, f)
	for _, op := range service.Operations {
		if slices.Contains(newer, service.Name+"."+op.Name) {
			continue
		}
		f.op, f.in, sent = nil, nil, nil
		in, out, err := send(t, client, op.Name, with)
		stream := slices.Contains(streams, op.Name) // Encode refuses those
		if (err != nil) != stream {
			t.Errorf("%s: %v", op.Name, err)
			continue
		}
		if f.op != op {
			t.Errorf("%s was routed to %v", op.Name, f.op)
			continue
		}
		same(t, op.Name+" request", reflect.ValueOf(f.in), in)
		if !stream {
			same(t, op.Name+" response", reflect.ValueOf(sent), out)
		}
	}
}

func TestEveryOperationThatIsNotBuiltSaysSo(t *testing.T) {
	for _, service := range services {
		t.Run(service.Name, func(t *testing.T) {
			f := &front{service: service}
			f.answer = func(op *api.Operation, in any) (any, error) {
				return op.Call(t.Context(), unimplemented(service), in)
			}
			client := newClient(t, service.Name, f)
			for _, op := range service.Operations {
				if slices.Contains(newer, service.Name+"."+op.Name) {
					continue
				}
				_, _, err := send(t, client, op.Name, filler{})
				refusal, ok := errors.AsType[smithy.APIError](err)
				if !ok || refusal.ErrorCode() != "NotImplementedException" || !strings.Contains(refusal.ErrorMessage(), service.Name+":"+op.Name+" ") {
					t.Errorf("%s was answered %v", op.Name, err)
				}
				if response, ok := errors.AsType[*smithyhttp.ResponseError](err); !ok || response.HTTPStatusCode() != http.StatusNotImplemented {
					t.Errorf("%s was not answered with 501: %v", op.Name, err)
				}
			}
		})
	}
}
