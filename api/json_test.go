package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
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

// A sink has a member of every kind.
type sink struct {
	String    *string              `aws:"string"`
	Integer   *int32               `aws:"integer"`
	Long      *int64               `aws:"long"`
	Float     *float32             `aws:"float"`
	Double    *float64             `aws:"double"`
	Boolean   *bool                `aws:"boolean"`
	Time      *time.Time           `aws:"time"`
	Date      *time.Time           `aws:"date,rfc822"`
	Blob      []byte               `aws:"blob"`
	List      []string             `aws:"list"`
	Lists     [][]float64          `aws:"lists"`
	Map       map[string]string    `aws:"map"`
	Maps      map[string][]int32   `aws:"maps"`
	Structure *sink                `aws:"structure"`
	Sinks     []sink               `aws:"sinks"`
	ByName    map[string]sink      `aws:"byName"`
	Times     map[string]time.Time `aws:"times"`
}

// suite returns the files of JSONTestSuite, by name. The module of smithy-go
// carries all of them.
func suite(t *testing.T) map[string][]byte {
	t.Helper()
	folder, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/smithy-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(folder)), "transport/http/protocol/internal/json/testdata/test_parsing/*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != 318 {
		t.Fatalf("%d files, want 318", len(paths))
	}
	files := map[string][]byte{}
	for _, path := range paths {
		if files[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// acceptedByUs are the texts that RFC 8259 leaves to the parser (i_) and ours takes:
// numbers of any size, as long as nobody wants them in an integer or float, and
// halves of surrogate pairs, which become U+FFFD. The others are not valid UTF-8 or
// begin with a byte order mark.
var acceptedByUs = regexp.MustCompile(`^i_(number_.*|string_[a-z1].*surrogate.*|object_key_lone_2nd_surrogate|structure_500_nested_arrays)\.json$`)

func TestTheJSONTestSuiteIsAnsweredAsItAsks(t *testing.T) {
	for name, text := range suite(t) {
		err := api.CheckJSON(text)
		want := strings.HasPrefix(name, "y_") || acceptedByUs.MatchString(name)
		if (err == nil) != want {
			t.Errorf("%s: %v, want accepted %v: %.60q", name, err, want, text)
		}
		if fault, ok := errors.AsType[*api.Error](err); err != nil && (!ok || fault.Code != "SerializationException") {
			t.Errorf("%s: %v", name, err)
		}
		if want && !json.Valid(text) {
			t.Errorf("%s: encoding/json refuses it", name)
		}
	}
}

// TestTheJSONTestSuiteInEveryPlaceOfARequest puts each text where a body is expected
// and where a member of each kind is.
func TestTheJSONTestSuiteInEveryPlaceOfARequest(t *testing.T) {
	members := reflect.TypeFor[sink]()
	for name, text := range suite(t) {
		refused := strings.HasPrefix(name, "n_")
		for _, r := range []*http.Request{
			httptest.NewRequest("POST", "/2015-03-31/functions", nil),
			{Method: "POST", URL: &url.URL{Path: "/"}, Header: http.Header{"X-Amz-Target": {"Logs_20140328.PutLogEvents"}}},
		} {
			service := lambdaapi.Service
			if len(r.Header) > 0 {
				service = logsapi.Service
			}
			op, labels, err := service.Match(r, text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := service.DecodeUnchecked(op, labels, r, text); err == nil && refused && len(text) > 0 {
				t.Errorf("%s was accepted as a request of %s", name, service.Name)
			}
		}
		for i := range members.NumField() {
			wire, _, _ := strings.Cut(members.Field(i).Tag.Get("aws"), ",")
			var got sink
			if err := lambdaapi.Service.DecodeJSON(fmt.Appendf(nil, `{"%s":%s}`, wire, text), &got); err == nil && refused {
				t.Errorf("%s was accepted as %s: %.60q", name, wire, text)
			}
		}
	}
}

// TestABombInJSONCostsItsOwnSizeOnly bounds what texts of 8 MiB take that are made to
// take much: memory by their size, and time by that of an honest text.
func TestABombInJSONCostsItsOwnSizeOnly(t *testing.T) {
	const size = 8 << 20
	for _, c := range []struct{ name, start, again, end string }{
		{"an honest text", `{"string":"`, "x", `"}`},
		{"arrays in arrays", `{"x":`, "[", ""},
		{"objects in objects", `{"structure":`, `{"structure":`, ""},
		{"an integer of many digits", `{"integer":1`, "0", "}"},
		{"a long of many digits", `{"long":`, "9", "}"},
		{"a double of many digits", `{"double":0.`, "1", "}"},
		{"a float with many zeros", `{"float":1`, "0", "}"},
		{"an exponent of many digits", `{"double":1e`, "1", "}"},
		{"a time of many digits", `{"time":1.`, "3", "}"},
		{"equal members", `{"integer":1`, `,"integer":1`, "}"},
		{"equal structures", `{"structure":{}`, `,"structure":{}`, "}"},
		{"equal lists", `{"list":[]`, `,"list":[]`, "}"},
		{"equal blobs", `{"blob":""`, `,"blob":"AAAA"`, "}"},
		{"equal entries", `{"map":{"a":""`, `,"a":""`, "}}"},
		{"many structures", `{"sinks":[{}`, ",{}", "]}"},
		{"many lists", `{"lists":[[]`, ",[]", "]}"},
		{"escapes", `{"string":"`, `\u0041`, `"}`},
		{"escaped names", `{"":0`, `,"\u0041":0`, "}"},
		{"white space", "{", " \n", "}"},
	} {
		text := []byte(c.start + strings.Repeat(c.again, size/len(c.again)) + c.end)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		var got sink
		err := lambdaapi.Service.DecodeJSON(text, &got)
		elapsed := time.Since(start)
		runtime.ReadMemStats(&after)
		if _, ok := errors.AsType[*api.Error](err); err != nil && !ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if n := (after.TotalAlloc - before.TotalAlloc) / size; n > 32 {
			t.Errorf("%s: took %d times its size", c.name, n)
		}
		if elapsed > 10*time.Second {
			t.Errorf("%s: took %v", c.name, elapsed)
		}
	}
}
