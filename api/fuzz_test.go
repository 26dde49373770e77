package api_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/kmsapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
	"cloister/api/stsapi"
)

// A bound request has a member of every kind in every place that the REST protocol
// has. The services that are served do not have all of them.
type bound struct {
	Label   *string             `aws:"Label,uri"`
	Number  *int32              `aws:"Number,uri"`
	Rest    *string             `aws:"Rest,uri"`
	Text    *string             `aws:"text,query"`
	Flag    *bool               `aws:"flag,query"`
	Due     *time.Time          `aws:"due,query,unixTimestamp"`
	Doubles []float64           `aws:"doubles,query"`
	All     map[string][]string `aws:",query"`
	Blob    []byte              `aws:"X-Blob,header"`
	Date    *time.Time          `aws:"X-Date,header"`
	Dates   []time.Time         `aws:"X-Dates,header"`
	Words   []string            `aws:"X-Words,header"`
	Longs   []int64             `aws:"X-Longs,header"`
	Sink    *sink               `aws:"sink"`
}

// A nest has what forms and XML can name in their own ways.
type nest struct {
	Sink    *sink             `aws:"sink"`
	Flat    []string          `aws:"flat,flat"`
	FlatMap map[string]int32  `aws:"flatMap,flat" of:"named"`
	Named   map[string]string `aws:"named" of:"named"`
	Items   []nest            `aws:"items" of:"items"`
	Due     *time.Time        `aws:"due,rfc822"`
}

// everything is a service for fuzzing whose operation has such an input, which is
// also its output.
func everything(protocol api.Protocol, input reflect.Type) *api.Service {
	return &api.Service{
		Name: "everything", Protocol: protocol, APIVersion: "2020-01-01", TargetPrefix: "com.amazonaws.everything.V1", JSONVersion: "1.0",
		Namespace: "https://everything.example", ErrorNamespace: "com.amazonaws.everything", QueryCompatible: true,
		ValidationCode: "ValidationException", FailureCode: "InternalFailure",
		Rules: map[string]api.Rule{
			"named": {KeyName: "K", ValueName: "V"},
			"items": {MemberName: "item", Max: new(int64(3))},
		},
		Operations: []*api.Operation{api.BindTypes(api.Operation{
			Name: "Do", Method: "POST", URI: "/{Label}/do/{Number}/{Rest+}?do", Status: 200, Result: "DoResult",
		}, input, input)},
	}
}

// seedSnapshots adds the requests that the SDK's modules keep.
func seedSnapshots(f *testing.F, module string, add func(r *http.Request, body []byte)) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join(moduleFolder(f, module), "request_snapshot", "*.request.snap"))
	if err != nil || len(files) == 0 {
		f.Fatalf("%d fixtures of %s, %v", len(files), module, err)
	}
	for _, file := range files {
		add(readSnapshot(f, file))
	}
}

func FuzzARESTRequestNeverPanics(f *testing.F) {
	f.Add("POST", "/2015-03-31/functions/f/invocations?Qualifier=1", "X-Amz-Log-Type", "Tail", []byte("x"))
	f.Add("POST", "/l/do/7/a/b%2Fc?do&text=t&flag=true&due=1.5&doubles=NaN&doubles=-Infinity&x=1&x=2", "X-Words", `a, "b,c" , "\"`, []byte(`{"sink":{"list":["a"]}}`))
	f.Add("POST", "/l/do/7/a?do", "X-Dates", "Mon, 16 Dec 2019 23:48:18 GMT, Mon, 16 Dec 2019 23:48:18 GMT", []byte(`{"sink":{"date":"Mon, 16 Dec 2019 23:48:18.5 GMT","time":1}}`))
	seedSnapshots(f, "lambda", func(r *http.Request, body []byte) {
		for name := range r.Header {
			f.Add(r.Method, r.URL.RequestURI(), name, r.Header.Get(name), body)
		}
	})
	service := everything(api.RESTJSON, reflect.TypeFor[bound]())
	f.Fuzz(func(t *testing.T, method, target, name, value string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: method, URL: u, Header: http.Header{http.CanonicalHeaderKey(name): {value}}}
		checkDecode(t, lambdaapi.Service, r, body)
		op, in := checkDecode(t, service, r, body)
		checkAnswer(t, service, op, in)
	})
}

func FuzzAnRPCRequestNeverPanics(f *testing.F) {
	f.Add("Logs_20140328.PutLogEvents", []byte(`{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"m"}]}`))
	f.Add("com.amazonaws.everything.V1.Do", []byte(`{"sink":{"double":"NaN","float":"-Infinity","times":{"a":1e9}},"flat":["a"],"items":[{"items":[]}],"due":"Mon, 16 Dec 2019 23:48:18 GMT"}`))
	for _, module := range []string{"cloudwatchlogs", "kms"} {
		seedSnapshots(f, module, func(r *http.Request, body []byte) { f.Add(r.Header.Get("X-Amz-Target"), body) })
	}
	service := everything(api.JSONRPC, reflect.TypeFor[nest]())
	f.Fuzz(func(t *testing.T, target string, body []byte) {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("X-Amz-Target", target)
		checkDecode(t, logsapi.Service, r, body)
		checkDecode(t, kmsapi.Service, r, body)
		op, in := checkDecode(t, service, r, body)
		checkAnswer(t, service, op, in)
	})
}

// FuzzAFormSurvivesItsOwnEncoding also validates whatever was decoded.
func FuzzAFormSurvivesItsOwnEncoding(f *testing.F) {
	f.Add("Action=UntagRole&TagKeys=&TagKeys.member.1=a&a.b.c.d=e")
	f.Add("Action=Do&flat.1=a&flat.2=b&flatMap.1.K=a&flatMap.1.V=7&named.entry.1.K=a&named.entry.1.V=b&items.item.1.flat=&items.item.1.due=Mon%2C%2016%20Dec%202019%2023%3A48%3A18%20GMT&sink.maps.entry.1.key=a&sink.maps.entry.1.value.member.1=1")
	for _, module := range []string{"iam", "sts"} {
		seedSnapshots(f, module, func(_ *http.Request, body []byte) { f.Add(string(body)) })
	}
	everything := everything(api.Query, reflect.TypeFor[nest]())
	f.Fuzz(func(t *testing.T, body string) {
		for _, service := range []*api.Service{iamapi.Service, stsapi.Service, everything} {
			r := httptest.NewRequest("POST", "/", nil)
			r.Header = form
			op, first := checkDecode(t, service, r, []byte(body))
			if first == nil {
				continue
			}
			checkAnswer(t, service, op, first)
			if service == everything {
				continue // flatten does not know its names
			}
			again := url.Values{"Action": {op.Name}}
			flatten(again, "", reflect.ValueOf(first))
			text := again.Encode()
			_, second := checkDecode(t, service, r, []byte(text))
			left, right := url.Values{}, url.Values{}
			flatten(left, "", reflect.ValueOf(first))
			flatten(right, "", reflect.ValueOf(second))
			if difference := cmp.Diff(left, right); difference != "" {
				t.Errorf("%q became %q (-first +second):\n%s", body, text, difference)
			}
		}
	})
}

// checkDecode decodes and validates; whatever goes wrong must be a Fault that
// can be written. The input is nil if it could not be decoded.
func checkDecode(t *testing.T, service *api.Service, r *http.Request, body []byte) (*api.Operation, any) {
	t.Helper()
	op, labels, err := service.Match(r, body)
	var in any
	if err == nil {
		if in, err = service.DecodeUnchecked(op, labels, r, body); err == nil {
			err = service.Check(in)
		} else {
			in = nil
		}
	}
	if err == nil {
		return op, in
	}
	if _, ok := errors.AsType[api.Fault](err); !ok {
		t.Fatalf("error %v is no Fault", err)
	}
	w := httptest.NewRecorder()
	service.EncodeError(w, op, "id", err)
	checkWellFormed(t, service, w)
	return op, in
}

// checkAnswer has an operation answer its own input, and an error with that in it.
func checkAnswer(t *testing.T, service *api.Service, op *api.Operation, in any) {
	t.Helper()
	if in == nil {
		return
	}
	w := httptest.NewRecorder()
	service.EncodeErrorShape(w, "id", "Odd", "Odd\"<", 400, reflect.ValueOf(in).Elem())
	checkWellFormed(t, service, w)
	if op.OutputType() != reflect.TypeOf(in).Elem() {
		return
	}
	w = httptest.NewRecorder()
	service.Encode(w, op, "id", in)
	checkWellFormed(t, service, w)
}

// checkWellFormed reads the body as a client does, all of it.
func checkWellFormed(t *testing.T, service *api.Service, w *httptest.ResponseRecorder) {
	t.Helper()
	body := w.Body.Bytes()
	if kind := w.Header().Get("Content-Type"); strings.Contains(kind, "json") && len(body) > 0 && service.PayloadType == "" && !json.Valid(body) {
		t.Fatalf("%q is no JSON", body)
	}
	if service.Protocol == api.Query {
		decoder := xml.NewDecoder(bytes.NewReader(body))
		for {
			_, err := decoder.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%q: %v", body, err)
			}
		}
	}
	if !utf8.Valid(body) {
		t.Fatalf("%q is not valid UTF-8", body)
	}
	if strings.ContainsAny(w.Header().Get("x-amzn-ErrorType"), "\r\n") {
		t.Fatal("the error's code breaks its header")
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

// FuzzEveryAnswerSaysWhatItIsGiven encodes values in an answer and reads them there
// with parsers that are not ours.
func FuzzEveryAnswerSaysWhatItIsGiven(f *testing.F) {
	f.Add("a<b>&\"'\x00\ufffd\U0001f600\r\n", int64(-1), 0.1, []byte{0, 255}, int64(1762315382123), "key")
	f.Add("\xff\xfe]]>", int64(1)<<62, -1e300, []byte(nil), int64(-5), "")
	rpc, query := everything(api.JSONRPC, reflect.TypeFor[nest]()), everything(api.Query, reflect.TypeFor[nest]())
	f.Fuzz(func(t *testing.T, text string, number int64, float float64, blob []byte, milliseconds int64, key string) {
		if blob == nil {
			blob = []byte{}
		}
		in := &nest{
			Sink: &sink{String: &text, Long: &number, Double: &float, Blob: blob, Time: new(time.UnixMilli(milliseconds % (1 << 47)).UTC()), Map: map[string]string{key: text}},
			Flat: []string{text, key}, FlatMap: map[string]int32{key: int32(number)}, Items: []nest{{}, {Flat: []string{}}},
		}
		w := httptest.NewRecorder()
		rpc.Encode(w, rpc.Operation("Do"), "id", in)
		checkWellFormed(t, rpc, w)
		var object struct {
			Sink struct {
				String string
				Long   int64
				Double any
				Blob   []byte
				Time   float64
				Map    map[string]string
			}
			Flat []string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &object); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		valid := utf8.ValidString(text) && utf8.ValidString(key)
		if valid && (object.Sink.String != text || object.Flat[0] != text || object.Sink.Map[key] != text) ||
			object.Sink.Long != number || !bytes.Equal(object.Sink.Blob, blob) || object.Sink.Time != float64(in.Sink.Time.UnixMilli())/1000 {
			t.Errorf("%+v became %s", in.Sink, w.Body)
		}
		w = httptest.NewRecorder()
		query.Encode(w, query.Operation("Do"), "id", in)
		checkWellFormed(t, query, w)
		var document struct {
			Sink struct {
				String string `xml:"string"`
				Long   int64  `xml:"long"`
				Time   string `xml:"time"`
			} `xml:"DoResult>sink"`
			Flat []string `xml:"DoResult>flat"`
		}
		if err := xml.Unmarshal(w.Body.Bytes(), &document); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		moment, err := time.Parse(time.RFC3339, document.Sink.Time)
		if err != nil || !moment.Equal(*in.Sink.Time) || document.Sink.Long != number || len(document.Flat) != 2 {
			t.Errorf("%+v became %s", in.Sink, w.Body)
		}
		foreign := func(r rune) bool { return r < ' ' || r >= 0xfffd && r <= 0xffff } // to XML
		if valid && !strings.ContainsFunc(text, foreign) && document.Sink.String != text {
			t.Errorf("%q became %q", text, document.Sink.String)
		}
	})
}

// FuzzAListInAHeaderSurvivesItsOwnEncoding splits any header, and joins and splits
// what came out.
func FuzzAListInAHeaderSurvivesItsOwnEncoding(f *testing.F) {
	for _, seed := range []string{"a, b", `"a,b", "\"c\"" ,d`, `"`, `"\`, `a"b`, ",", " , ", `"a"b,c`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		first := api.SplitHeader(header)
		second := api.SplitHeader(api.JoinHeader(first))
		if difference := cmp.Diff(first, second); difference != "" {
			t.Errorf("%q (-first +second):\n%s", header, difference)
		}
	})
}
