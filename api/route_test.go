package api_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"cloister/api"
	"cloister/api/lambdaapi"
)

var labels = regexp.MustCompile(`\{[^}]*\}`)

// TestEveryOperationIsRoutedToItself also reaches those that the SDK lacks.
func TestEveryOperationIsRoutedToItself(t *testing.T) {
	const arn = "arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Af%2Fg"
	if n := len(lambdaapi.Service.Operations); n != 91 {
		t.Errorf("Lambda has %d operations, want 91", n)
	}
	for _, op := range lambdaapi.Service.Operations {
		r := httptest.NewRequest(op.Method, labels.ReplaceAllLiteralString(op.URI, arn), nil)
		got, _, err := lambdaapi.Service.Match(r, nil)
		if err != nil || got != op {
			t.Errorf("%s %s: %v, %v, want %s", r.Method, r.URL, got, err, op.Name)
		}
		_, err = op.Call(t.Context(), lambdaapi.Unimplemented{}, op.New())
		refusal, ok := errors.AsType[*api.Error](err)
		if !ok || refusal.Status != http.StatusNotImplemented || !strings.Contains(refusal.Message, "lambda:"+op.Name+" ") {
			t.Errorf("%s was refused with %v", op.Name, err)
		}
	}
}

func TestNoTwoOperationsShareARoute(t *testing.T) {
	seen := map[string]string{}
	for _, op := range lambdaapi.Service.Operations {
		route := op.Method + " " + strings.TrimSuffix(labels.ReplaceAllLiteralString(op.URI, "{}"), "/")
		if other, ok := seen[route]; ok {
			t.Errorf("%s and %s are both %s", other, op.Name, route)
		}
		seen[route] = op.Name
	}
}

func TestAPathNamesAtMostOneOperation(t *testing.T) {
	for _, c := range []struct{ method, target, want string }{
		{"GET", "/2015-03-31/functions", "ListFunctions"},
		{"GET", "/2015-03-31/functions/", "ListFunctions"},
		{"GET", "/2015-03-31/functions/f", "GetFunction"},
		{"GET", "/2015-03-31/functions/f/", "GetFunction"},
		{"GET", "/2015-03-31/functions/configuration", "GetFunction"},
		{"GET", "/2015-03-31/functions/f/configuration", "GetFunctionConfiguration"},
		{"GET", "/2015-03-31/functions/f%2Fconfiguration", "GetFunction"},
		{"GET", "/2018-10-31/layers", "ListLayers"},
		{"GET", "/2018-10-31/layers?find=LayerVersion&Arn=a", "GetLayerVersionByArn"},
		{"GET", "/2018-10-31/layers?find=Other", "ListLayers"},
		{"GET", "/2019-09-30/functions/f/provisioned-concurrency", "GetProvisionedConcurrencyConfig"},
		{"GET", "/2019-09-30/functions/f/provisioned-concurrency?List=ALL", "ListProvisionedConcurrencyConfigs"},
		{"DELETE", "/2015-03-31/functions", ""},
		{"DELETE", "/2015-03-31/functions/", ""},
		{"PATCH", "/2015-03-31/functions/f", ""},
		{"GET", "/2015-03-31//f", ""},
		{"GET", "/2015-03-31/functions//configuration", ""},
		{"GET", "/2015-03-31/functions/f/g/h/i/j/k", ""},
		{"GET", "/2015-03-32/functions/f", ""},
		{"GET", "//2015-03-31/functions", ""},
		{"GET", "/", ""},
		{"GET", "/" + strings.Repeat("functions/", 10000), ""},
	} {
		op, _, err := lambdaapi.Service.Match(httptest.NewRequest(c.method, c.target, nil), nil)
		switch fault, _ := errors.AsType[api.Fault](err); {
		case c.want == "" && (err == nil || fault.ErrorCode() != "UnknownOperationException" || fault.HTTPStatus() != http.StatusNotFound):
			t.Errorf("%s %.80s: %v, %v, want an unknown operation", c.method, c.target, op, err)
		case c.want != "" && (err != nil || op.Name != c.want):
			t.Errorf("%s %s: %v, %v, want %s", c.method, c.target, op, err, c.want)
		}
	}
}

func TestALabelIsDecodedOnce(t *testing.T) {
	for _, c := range []struct{ segment, want string }{
		{"f", "f"},
		{"a%2Fb%3Ac", "a/b:c"},
		{"a%252Fb", "a%2Fb"},
		{"a+b", "a+b"},
		{"..", ".."},
		{"%C3%BC", "ü"},
	} {
		r := httptest.NewRequest("GET", "/2015-03-31/functions/"+c.segment, nil)
		op, labels, err := lambdaapi.Service.Match(r, nil)
		if err != nil {
			t.Errorf("%s: %v", c.segment, err)
			continue
		}
		in, err := lambdaapi.Service.DecodeUnchecked(op, labels, r, nil)
		if err != nil {
			t.Errorf("%s: %v", c.segment, err)
			continue
		}
		if got := *in.(*lambdaapi.GetFunctionRequest).FunctionName; got != c.want {
			t.Errorf("%s was decoded as %q, want %q", c.segment, got, c.want)
		}
	}
}

func TestALabelThatIsNotUTF8IsRefused(t *testing.T) {
	_, _, err := lambdaapi.Service.Match(httptest.NewRequest("GET", "/2015-03-31/functions/%FF", nil), nil)
	if fault, ok := errors.AsType[api.Fault](err); !ok || fault.ErrorCode() != "SerializationException" {
		t.Errorf("error %v, want a SerializationException", err)
	}
}

// TestEveryGeneratedTypeHasAShape is why mustShape may panic.
func TestEveryGeneratedTypeHasAShape(t *testing.T) {
	for _, service := range services {
		for _, op := range service.Operations {
			for _, typ := range []reflect.Type{op.InputType(), op.OutputType()} {
				if err := service.ShapeError(typ); err != nil {
					t.Errorf("%s: %v", op.Name, err)
				}
			}
		}
		for name, rule := range service.Rules {
			if rule.Pattern == "" {
				continue
			}
			if _, err := api.CompilePattern(rule.Pattern); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestEveryPatternWrittenByHandIsInAModel keeps the table of those short: what no
// model has any more must go.
func TestEveryPatternWrittenByHandIsInAModel(t *testing.T) {
	used := map[string]bool{}
	for _, service := range services {
		for _, rule := range service.Rules {
			used[rule.Pattern] = true
		}
	}
	for _, pattern := range api.HandwrittenPatterns() {
		if !used[pattern] {
			t.Errorf("no model has %s", pattern)
		}
	}
}

func TestTheRPCServicesNameTheirOperation(t *testing.T) {
	iam, logs := services[1], services[3]
	for _, c := range []struct {
		name           string
		service        *api.Service
		method, target string
		header         http.Header
		body           string
		want           string // an operation or an error code
	}{
		{"a target", logs, "POST", "/", http.Header{"X-Amz-Target": {"Logs_20140328.PutLogEvents"}}, "{}", "PutLogEvents"},
		{"another service's target", logs, "POST", "/", http.Header{"X-Amz-Target": {"TrentService.PutLogEvents"}}, "{}", "UnknownOperationException"},
		{"an unknown target", logs, "POST", "/", http.Header{"X-Amz-Target": {"Logs_20140328.Put"}}, "{}", "UnknownOperationException"},
		{"no target", logs, "POST", "/", nil, "{}", "UnknownOperationException"},
		{"a form", iam, "POST", "/", form, "Action=GetRole&Version=2010-05-08&RoleName=r", "GetRole"},
		{"a query string", iam, "GET", "/?Action=ListRoles&Version=2010-05-08", nil, "", "ListRoles"},
		{"a body that is no form", iam, "POST", "/", nil, "Action=GetRole", "MissingAction"},
		{"an unknown action", iam, "POST", "/", form, "Action=GetRoll&Version=2010-05-08", "InvalidAction"},
		{"another version", iam, "POST", "/", form, "Action=GetRole&Version=2011-06-15", "InvalidAction"},
		{"no action", iam, "POST", "/", form, "Version=2010-05-08", "MissingAction"},
		{"a broken form", iam, "POST", "/", form, "Action=%zz", "MalformedQueryString"},
		{"deep nesting", iam, "POST", "/", form, strings.Repeat("a.", 40) + "=", "MalformedInput"},
		{"very many parameters", iam, "POST", "/", form, strings.Repeat("a=&", 10001), "MalformedQueryString"},
		{"very many parts", iam, "POST", "/", form, manyParts, "MalformedInput"},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		if c.header != nil {
			r.Header = c.header
		}
		op, _, err := c.service.Match(r, []byte(c.body))
		got := ""
		if fault, ok := errors.AsType[api.Fault](err); ok {
			got = fault.ErrorCode()
		} else if err == nil {
			got = op.Name
		}
		if got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, err, c.want)
		}
	}
}

var form = http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}

var manyParts = func() string {
	var b strings.Builder
	for i := range 5000 {
		b.WriteString("a.b.c.d.e.f.g." + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26) + "=&")
	}
	return b.String()
}()
