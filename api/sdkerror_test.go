package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"cloister/api"
	"cloister/api/internal/botocore"
)

// A refuser answers every request with an error of a type made at run time, which
// has no methods, or with an ordinary one.
type refuser struct {
	service *api.Service
	shape   botocore.Structure
	value   reflect.Value
	plain   error
}

func (f *refuser) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if f.plain != nil {
		f.service.EncodeError(w, nil, "request-1", f.plain)
		return
	}
	f.service.EncodeErrorShape(w, "request-1", f.shape.Name, f.shape.Code, f.shape.Status, f.value)
}

// TestTheSDKKnowsEveryErrorOfEveryOperation answers each operation with each error
// that its model declares, all members set. The SDK must return its type of that
// name, with the values and the status.
func TestTheSDKKnowsEveryErrorOfEveryOperation(t *testing.T) {
	archive, err := distribution()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range services {
		t.Run(service.Name, func(t *testing.T) {
			text, err := archive.File(botocore.ModelPath(service.Name, service.APIVersion))
			if err != nil {
				t.Fatal(err)
			}
			model, err := buildTypes(text)
			if err != nil {
				t.Fatal(err)
			}
			shapes := map[string]botocore.Structure{}
			for _, s := range model.declared.Structures {
				shapes[s.Name] = s
			}
			f := &refuser{service: model.Service}
			*model.Service = copyOf(service, model.Rules)
			client := newClient(t, service.Name, f)
			for _, name := range model.model.Operations.Names {
				if !client.MethodByName(name).IsValid() {
					continue // newer than the SDK
				}
				for _, r := range model.model.Operations.Values[name].Errors {
					if f.shape = shapes[r.Shape]; slices.Contains(newer, service.Name+"."+f.shape.Name) {
						continue
					}
					f.value = reflect.New(model.typ(f.shape.Name, 0)).Elem()
					filler{}.fill(f.value, f.shape.Name, 0)
					_, _, err := send(t, client, name, filler{})
					sameError(t, name+" "+f.shape.Name, f, err)
				}
			}
		})
	}
}

// copyOf is the service with its own name, protocol and so on, without operations.
func copyOf(s *api.Service, rules map[string]api.Rule) api.Service {
	return api.Service{Name: s.Name, Protocol: s.Protocol, APIVersion: s.APIVersion, PayloadType: s.PayloadType, FaultType: s.FaultType,
		TargetPrefix: s.TargetPrefix, JSONVersion: s.JSONVersion, ErrorNamespace: s.ErrorNamespace, QueryCompatible: s.QueryCompatible,
		Namespace: s.Namespace, ValidationCode: s.ValidationCode, FailureCode: s.FailureCode, Rules: rules}
}

func sameError(t *testing.T, at string, f *refuser, err error) {
	t.Helper()
	refusal, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Errorf("%s: %v", at, err)
		return
	}
	theirs := reflect.ValueOf(refusal)
	if theirs.Kind() != reflect.Pointer || theirs.Elem().Type().Name() != f.shape.Name {
		t.Errorf("%s became %T %v", at, refusal, refusal)
		return
	}
	for i := range f.value.NumField() {
		name := f.value.Type().Field(i).Name
		member := theirs.Elem().FieldByName(name)
		if !member.IsValid() {
			t.Errorf("%s: the SDK has no member %s", at, name)
			continue
		}
		same(t, at+"."+name, f.value.Field(i), member)
	}
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); !ok || response.HTTPStatusCode() != f.shape.Status {
		t.Errorf("%s: not with status %d: %v", at, f.shape.Status, err)
	}
}

func TestTheSDKUnderstandsAnErrorThatNoModelHas(t *testing.T) {
	for _, service := range services {
		f := &refuser{service: service}
		client := newClient(t, service.Name, f)
		for _, c := range []struct {
			err           error
			code, message string
		}{
			{&api.Error{Code: "AccessDeniedException", Status: 403, Message: "no <\"ü&>"}, "AccessDeniedException", "no <\"ü&>"},
			{fmt.Errorf("open: %w", &api.Error{Code: "SignatureDoesNotMatch", Status: 403, Message: "no"}), "SignatureDoesNotMatch", "no"},
			{errors.New("password is hunter2"), service.FailureCode, "Service encountered an internal error."},
			{api.NotImplemented(service.Name, "X"), "NotImplementedException", "Cloister does not implement " + service.Name + ":X yet; docs/STATUS.md lists what works"},
		} {
			f.plain = c.err
			_, _, err := send(t, client, service.Operations[0].Name, filler{})
			if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != c.code || e.ErrorMessage() != c.message {
				t.Errorf("%s: %v, want %s: %s", service.Name, err, c.code, c.message)
			}
		}
	}
}
