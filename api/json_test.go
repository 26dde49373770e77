package api_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/lambdaapi"
)

func TestJSONBecomesTheMembersItNames(t *testing.T) {
	type request = lambdaapi.CreateFunctionRequest
	for _, c := range []struct {
		name, text string
		want       request
	}{
		{"nothing", `{}`, request{}},
		{"null for the whole", ` null `, request{}},
		{"a string", ` { "Handler" : "a.b" } `, request{Handler: new("a.b")}},
		{"an empty string", `{"Handler":""}`, request{Handler: new("")}},
		{"escapes", `{"Handler":"\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00"}`, request{Handler: new("\"\\/\b\f\n\r\tü😀")}},
		{"an escape in a name", `{"\u0048andler":"a"}`, request{Handler: new("a")}},
		{"half a surrogate pair", `{"Handler":"\ud83dx\ude00"}`, request{Handler: new("\ufffdx\ufffd")}},
		{"numbers", `{"Timeout":3,"MemorySize":1.28e2}`, request{Timeout: new(int32(3)), MemorySize: new(int32(128))}},
		{"a negative zero", `{"Timeout":-0}`, request{Timeout: new(int32(0))}},
		{"booleans", `{"Publish":true}`, request{Publish: new(true)}},
		{"null members", `{"Handler":null,"Code":null,"Layers":null,"Tags":null,"Timeout":null}`, request{}},
		{"a blob", `{"Code":{"ZipFile":"UEsDBA=="}}`, request{Code: &lambdaapi.FunctionCode{ZipFile: []byte("PK\x03\x04")}}},
		{"an escaped blob", `{"Code":{"ZipFile":"\/\/8="}}`, request{Code: &lambdaapi.FunctionCode{ZipFile: []byte("\xff\xff")}}},
		{"an empty list", `{"Layers":[]}`, request{Layers: []string{}}},
		{"a list", `{"Layers":["a" , "b"]}`, request{Layers: []string{"a", "b"}}},
		{"a map", `{"Tags":{"a":"1","b":"2"}}`, request{Tags: map[string]string{"a": "1", "b": "2"}}},
		{"structures in a list", `{"FileSystemConfigs":[{"Arn":"a"},{}]}`, request{FileSystemConfigs: []lambdaapi.FileSystemConfig{{Arn: new("a")}, {}}}},
		{"the last of equal names", `{"Handler":"a","Layers":["a"],"Handler":"b","Layers":["b"]}`, request{Handler: new("b"), Layers: []string{"b"}}},
		{"null after a value", `{"Handler":"a","Handler":null}`, request{}},
		{"names in another case", `{"handler":"a"}`, request{}},
		{"unknown members", `{"X":{"a":[1,-2.5e-3,"\u0000",true,false,null,{}]},"Handler":"a"}`, request{Handler: new("a")}},
	} {
		var got request
		if err := lambdaapi.Service.DecodeJSON([]byte(c.text), &got); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if difference := cmp.Diff(c.want, got); difference != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, difference)
		}
	}
}

func TestWhatIsNotTheRightJSONIsRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"Handler":1}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"Handler":true}`, "TRUE_VALUE can not be converted to a String"},
		{`{"Timeout":"3"}`, "STRING_VALUE can not be converted to an Integer"},
		{`{"Timeout":false}`, "FALSE_VALUE can not be converted to an Integer"},
		{`{"Timeout":1.5}`, "NUMBER_VALUE can not be converted to an Integer"},
		{`{"Timeout":2147483648}`, "NUMBER_VALUE can not be converted to an Integer"},
		{`{"Timeout":1e999}`, "NUMBER_VALUE can not be converted to an Integer"},
		{`{"Publish":"true"}`, "STRING_VALUE can not be converted to a Boolean"},
		{`{"Publish":1}`, "NUMBER_VALUE can not be converted to a Boolean"},
		{`{"Code":{"ZipFile":1}}`, "NUMBER_VALUE can not be converted to a Blob"},
		{`{"Code":{"ZipFile":"UEs"}}`, "A blob is not valid base64"},
		{`{"Code":"x"}`, "STRING_VALUE can not be converted to a Structure"},
		{`{"Code":[]}`, "Start of list found where not expected."},
		{`{"Handler":{}}`, "Start of structure or map found where not expected."},
		{`{"Layers":{}}`, "Start of structure or map found where not expected."},
		{`{"Layers":"x"}`, "STRING_VALUE can not be converted to a List"},
		{`{"Layers":[null]}`, "A list or map must not contain null"},
		{`{"Tags":{"a":null}}`, "A list or map must not contain null"},
		{`[]`, "Start of list found where not expected."},
		{`"x"`, "STRING_VALUE can not be converted to a Structure"},
		{``, "Unexpected end of the JSON text"},
		{`{`, "Unexpected end of the JSON text"},
		{`{"Handler":"a`, "Unexpected end of the JSON text"},
		{`{"Handler":"a\`, "not valid at byte"},
		{`{"Handler":"a"}x`, "not valid at byte"},
		{`{"Handler":"a"}{}`, "not valid at byte"},
		{"{}\x00", "not valid at byte"},
		{`{"Handler":"a",}`, "not valid at byte"},
		{`{,}`, "not valid at byte"},
		{`{Handler:"a"}`, "not valid at byte"},
		{`{"Handler" "a"}`, "not valid at byte"},
		{"{\"Handler\":\"a\nb\"}", "not valid at byte"},
		{"{\"Handler\":\"\\\"a\nb\"}", "not valid at byte"},
		{`{"Handler":"\x"}`, "not valid at byte"},
		{`{"Handler":"\u12g4"}`, "not valid at byte"},
		{`{"Timeout":01}`, "not valid at byte"},
		{`{"Timeout":1.}`, "not valid at byte"},
		{`{"Timeout":1e}`, "not valid at byte"},
		{`{"Timeout":+1}`, "not valid at byte"},
		{`{"Timeout":NaN}`, "not valid at byte"},
		{`{"Publish":tru}`, "not valid at byte"},
		{`nul`, "not valid at byte"},
		{"{\"Handler\":\"\xff\"}", "not valid UTF-8"},
		{"{\"Handler\":\"\\n\xff\"}", "not valid UTF-8"},
		{`{"X":` + strings.Repeat("[", 512), "nested deeper than 512 levels"},
		{`{"X":` + strings.Repeat(`{"a":`, 1<<20), "nested deeper than 512 levels"},
		{`{"FileSystemConfigs":[` + strings.Repeat("{},", 1<<17) + `{}]}`, "more than 131072 list members"},
	} {
		var got lambdaapi.CreateFunctionRequest
		err := lambdaapi.Service.DecodeJSON([]byte(c.text), &got)
		fault, ok := errors.AsType[*api.Error](err)
		if !ok || fault.Code != "SerializationException" || fault.HTTPStatus() != 400 || !strings.Contains(fault.Message, c.want) {
			t.Errorf("%.60s: %v, want a SerializationException with %q", c.text, err, c.want)
		}
	}
}

func TestNestingUpToTheLimitIsRead(t *testing.T) {
	text := `{"X":` + strings.Repeat("[", 511) + strings.Repeat("]", 511) + `,"Handler":"a"}`
	var got lambdaapi.CreateFunctionRequest
	if err := lambdaapi.Service.DecodeJSON([]byte(text), &got); err != nil || *got.Handler != "a" {
		t.Errorf("%v, %v", got.Handler, err)
	}
}

func TestATimestampIsSecondsWithMilliseconds(t *testing.T) {
	for _, c := range []struct {
		text    string
		want    time.Time
		written string
	}{
		{"1762315382", time.Date(2025, 11, 5, 4, 3, 2, 0, time.UTC), "1762315382"},
		{"1.76231538225E9", time.Date(2025, 11, 5, 4, 3, 2, 250e6, time.UTC), "1762315382.25"},
		{"1762315382.123000000001", time.Date(2025, 11, 5, 4, 3, 2, 123e6, time.UTC), "1762315382.123"},
		{"0", time.Unix(0, 0), "0"},
		{"-0.5", time.Unix(0, -500e6), "-0.5"},
	} {
		var mapping lambdaapi.EventSourceMappingConfiguration
		if err := lambdaapi.Service.DecodeJSON([]byte(`{"LastModified":`+c.text+`}`), &mapping); err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if !mapping.LastModified.Equal(c.want) {
			t.Errorf("%s is %v, want %v", c.text, mapping.LastModified, c.want)
		}
		if got, want := string(lambdaapi.Service.BodyOf(&mapping)), `{"LastModified":`+c.written+`}`; got != want {
			t.Errorf("%s was written as %s, want %s", c.text, got, want)
		}
	}
	for _, text := range []string{"1e300", `"2025-11-05T04:03:02Z"`, "true"} {
		var mapping lambdaapi.EventSourceMappingConfiguration
		if err := lambdaapi.Service.DecodeJSON([]byte(`{"LastModified":`+text+`}`), &mapping); err == nil {
			t.Errorf("%s was accepted as %v", text, mapping.LastModified)
		}
	}
}

// FuzzOurJSONIsTheStandardLibrarys compares the grammar: what encoding/json calls
// valid is accepted unless it nests too deeply or has strings that are not UTF-8.
func FuzzOurJSONIsTheStandardLibrarys(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `{"a":[1,-2.5e-3,"\u00fc\n",true,false,null,{"b":{}}]}`, `{"a":01}`, "{\"a\":\"\xff\"}", ` {"a" : "\ud800" } `, `{"a":1}x`, `{"a":"\`, "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		trimmed := strings.TrimLeft(string(text), " \t\r\n")
		object := strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "null")
		want := json.Valid(text) && utf8.Valid(text) && object
		err := lambdaapi.Service.DecodeJSON(text, new(api.Empty))
		if tooDeep := err != nil && strings.Contains(err.Error(), "deeper"); (err == nil) != want && !tooDeep {
			t.Errorf("%q: %v, encoding/json says valid %v", text, err, want)
		}
	})
}

// FuzzAJSONRequestSurvivesItsOwnEncoding also validates whatever was decoded.
func FuzzAJSONRequestSurvivesItsOwnEncoding(f *testing.F) {
	for _, seed := range []string{
		`{"FunctionName":"f","Role":"r","Code":{"ZipFile":"UEs="},"Environment":{"Variables":{"A":"b"}},"Timeout":3,"Layers":["l"],"Tags":{"k":"v"}}`,
		`{"FileSystemConfigs":[{"Arn":"a"},{}],"Publish":true,"Handler":"\ud83d\ude00\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var first, second lambdaapi.CreateFunctionRequest
		if lambdaapi.Service.DecodeJSON(text, &first) != nil {
			return
		}
		_ = lambdaapi.Service.Check(&first)
		encoded := lambdaapi.Service.BodyOf(&first)
		if !json.Valid(encoded) {
			t.Fatalf("%q was encoded as %q", text, encoded)
		}
		if err := lambdaapi.Service.DecodeJSON(encoded, &second); err != nil {
			t.Fatalf("%q: %v", encoded, err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("(-first +second):\n%s", cmp.Diff(first, second))
		}
	})
}
