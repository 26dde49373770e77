package api_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"cloister/api"
)

// TestBotocoreUnderstandsEveryAnswerOfItsProtocolCases encodes the result of each
// case and has botocore itself, as boto3 users have it, parse our answer to the
// result again. That is what counts in the end, but it is lenient: its parser takes
// a timestamp in any form, for example. TestOurAnswersAreThoseOfBotocoresProtocolCases
// therefore compares the answers as well.
func TestBotocoreUnderstandsEveryAnswerOfItsProtocolCases(t *testing.T) {
	answers, parsed := answersOf(t), map[string]any{}
	var requests []map[string]any
	var names []string
	for name, a := range answers {
		if a.err != nil {
			continue
		}
		names = append(names, name)
		header := map[string]string{}
		for key := range a.recorder.Header() {
			header[key] = a.recorder.Header().Get(key)
		}
		requests = append(requests, map[string]any{"model": json.RawMessage(a.c.model), "operation": a.c.operation(), "error": a.errorShape,
			"status": a.recorder.Code, "headers": header, "body": append([]byte{}, a.recorder.Body.Bytes()...)})
	}
	for i, result := range askBotocore(t, requests) {
		parsed[names[i]] = result
	}
	judge(t, protocolCases(t, "output"), notParsed, func(c *protocolCase, _ *built) error {
		a := answers[c.name]
		if a.err != nil {
			return a.err
		}
		want := map[string]any{}
		if c.Error != nil {
			want["Error"] = map[string]any{"Code": c.ErrorCode, "Message": c.ErrorMessage}
		}
		for _, text := range [][]byte{c.Result, c.Error} {
			if values, ok := asFloats(decodeAny(t, text)).(map[string]any); ok {
				maps.Copy(want, values)
			}
		}
		got := asFloats(parsed[c.name])
		if object, ok := got.(map[string]any); ok && c.Error != nil {
			if e, ok := object["Error"].(map[string]any); ok { // of XML it has all members there, too
				object["Error"] = map[string]any{"Code": e["Code"], "Message": e["Message"]}
			}
		}
		if difference := gocmp.Diff(any(want), got); difference != "" {
			return fmt.Errorf("(-want +botocore's):\n%s\nof %s", difference, a.recorder.Body)
		}
		return nil
	})
}

// TestWhatBotocoreCannotParseIsKnownToIt checks that faults which exempt a case from
// the test above are in botocore's own list of cases that it does not pass.
func TestWhatBotocoreCannotParseIsKnownToIt(t *testing.T) {
	archive, err := distribution()
	if err != nil {
		t.Fatal(err)
	}
	text, err := archive.File(casesFolder + "protocol-tests-ignore-list.json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Protocols map[string]map[string]struct{ Cases []string }
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for name, reason := range notParsed {
		file, id, _ := strings.Cut(name, " ")
		if reason == knownFaults && !slices.Contains(list.Protocols[filepath.Base(file)]["output"].Cases, id) {
			t.Errorf("%s is not in botocore's list", name)
		}
	}
}

// asFloats makes all numbers comparable.
func asFloats(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, each := range value {
			value[key] = asFloats(each)
		}
	case []any:
		for i, each := range value {
			value[i] = asFloats(each)
		}
	case json.Number:
		f, err := value.Float64()
		if err != nil {
			return err
		}
		return f
	}
	return value
}

// askBotocore has the Python client parse answers.
func askBotocore(t *testing.T, requests []map[string]any) []any {
	t.Helper()
	clients := os.Getenv("CLOISTER_CLIENTS")
	if clients == "" {
		clients = filepath.Join("..", ".cache", "clients")
	}
	text, err := json.Marshal(requests)
	if err != nil {
		t.Fatal(err)
	}
	python := exec.CommandContext(t.Context(), filepath.Join(clients, "bin", "python"), filepath.Join("testdata", "decode.py"))
	python.Stdin = bytes.NewReader(text)
	var problems bytes.Buffer
	python.Stderr = &problems
	out, err := python.Output()
	if err != nil {
		t.Fatalf("\"make test\" installs botocore: %v\n%s", err, &problems)
	}
	results, ok := decodeAny(t, out).([]any)
	if !ok || len(results) != len(requests) {
		t.Fatalf("botocore answered %.200s", out)
	}
	return results
}

// An answer is what we answer with the result of a case.
type answer struct {
	c          *protocolCase
	recorder   *httptest.ResponseRecorder
	errorShape string
	err        error
}

func answersOf(t *testing.T) map[string]answer {
	t.Helper()
	answers := map[string]answer{}
	for _, c := range protocolCases(t, "output") {
		if c.service == nil {
			continue
		}
		a := answer{c: c, recorder: httptest.NewRecorder()}
		a.err = a.encode(t)
		answers[c.name] = a
	}
	return answers
}

func (a *answer) encode(t *testing.T) error {
	t.Helper()
	service := a.c.service
	op := service.Operation(a.c.operation())
	if a.c.Error != nil {
		return a.encodeError(t, service)
	}
	out := reflect.New(op.OutputType())
	if output, ok := a.c.Given["output"].(map[string]any); ok {
		if err := service.fill(out.Elem(), output["shape"].(string), decodeAny(t, a.c.Result)); err != nil {
			return err
		}
	}
	service.Encode(a.recorder, op, "foo-id", out.Interface())
	return nil
}

// encodeError answers the error of the operation that has the code of the case, or
// one that no model declares.
func (a *answer) encodeError(t *testing.T, service *built) error {
	t.Helper()
	for _, declared := range service.declared.Structures {
		if !declared.Error || declared.Code != a.c.ErrorCode && declared.Name != a.c.ErrorCode {
			continue
		}
		value := reflect.New(service.typ(declared.Name, 0)).Elem()
		if err := service.fill(value, declared.Name, decodeAny(t, a.c.Error)); err != nil {
			return err
		}
		if message := value.FieldByName("Message"); message.IsNil() && a.c.ErrorMessage != "" {
			message.Set(reflect.ValueOf(&a.c.ErrorMessage))
		}
		a.errorShape = declared.Name
		service.EncodeErrorShape(a.recorder, "foo-id", declared.Name, declared.Code, declared.Status, value)
		return nil
	}
	service.EncodeError(a.recorder, nil, "foo-id", &api.Error{Code: a.c.ErrorCode, Status: a.c.Response.StatusCode, Message: a.c.ErrorMessage})
	return nil
}

// TestOurAnswersAreThoseOfBotocoresProtocolCases compares status, headers and the
// structure of the body with those that each case says a server sends.
func TestOurAnswersAreThoseOfBotocoresProtocolCases(t *testing.T) {
	answers := answersOf(t)
	judge(t, protocolCases(t, "output"), otherForm, func(c *protocolCase, _ *built) error {
		a := answers[c.name]
		if a.err != nil {
			return a.err
		}
		want := c.Response
		if want.StatusCode == 0 {
			want.StatusCode = http.StatusOK
		}
		if a.recorder.Code != want.StatusCode {
			return fmt.Errorf("status %d, want %d", a.recorder.Code, want.StatusCode)
		}
		for name, value := range want.Headers {
			if got := a.recorder.Header().Get(name); got != value {
				return fmt.Errorf("header %s is %q, want %q", name, got, value)
			}
		}
		if difference := compareBodies(t, []byte(want.Body), a.recorder); difference != "" {
			return fmt.Errorf("body (-want +got):\n%s", difference)
		}
		return nil
	})
}

func compareBodies(t *testing.T, want []byte, w *httptest.ResponseRecorder) string {
	t.Helper()
	got := w.Body.Bytes()
	switch kind := w.Header().Get("Content-Type"); {
	case len(want) == 0: // a case that says nothing of the body
		return ""
	case kind == "text/xml":
		return gocmp.Diff(elements(t, want), elements(t, got))
	case strings.Contains(kind, "json"):
		return gocmp.Diff(withoutNamespace(asFloats(decodeAny(t, want))), withoutNamespace(asFloats(decodeAny(t, got))))
	default:
		return gocmp.Diff(string(want), string(got))
	}
}

// withoutNamespace drops null members, and takes the namespace from an error's name.
func withoutNamespace(value any) any {
	object, ok := value.(map[string]any)
	if !ok {
		return value
	}
	for key, each := range object {
		if each == nil {
			delete(object, key)
		}
		if name, ok := each.(string); ok && key == "__type" {
			_, after, found := strings.Cut(name, "#")
			if found {
				object[key] = after
			}
		}
	}
	return object
}

// An element is one of an XML document. White space around it is dropped, of
// attributes only the namespace of the whole counts, and RequestId may stand where
// it likes.
type element struct {
	Name string
	Text string
	Of   []element
}

// sortKey orders the members of structures, whose order means nothing, by name, and
// the entries of maps by what is in them. The members of a list stay as they are.
func (e element) sortKey() string {
	if slices.Contains([]string{"entry", "myMap", "KVP", "Map"}, e.Name) {
		return fmt.Sprint(e)
	}
	return e.Name
}

func elements(t *testing.T, text []byte) []element {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(text))
	stack := []element{{}}
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return slices.DeleteFunc(stack[0].Of, func(e element) bool { return e.Name == "" })
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		top := &stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			stack = append(stack, element{Name: token.Name.Local})
		case xml.CharData:
			if s := string(token); strings.TrimSpace(s) != "" {
				top.Text += s
			}
		case xml.EndElement:
			done := *top
			stack = stack[:len(stack)-1]
			slices.SortStableFunc(done.Of, func(a, b element) int { return cmp.Compare(a.sortKey(), b.sortKey()) })
			if done.Name != "RequestId" && done.Name != "ResponseMetadata" {
				stack[len(stack)-1].Of = append(stack[len(stack)-1].Of, done)
			}
		}
	}
}
