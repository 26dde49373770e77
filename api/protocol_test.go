package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cloister/api"
	"cloister/api/internal/botocore"
)

// distribution has botocore's cases for protocols, and the models of our services;
// see botocore.OpenPinned.
var distribution = sync.OnceValues(func() (*botocore.Archive, error) {
	return botocore.OpenPinned(func(path string) bool {
		ours := func(s *api.Service) bool { return path == botocore.ModelPath(s.Name, s.APIVersion) }
		return strings.HasPrefix(path, casesFolder) || slices.ContainsFunc(services, ours)
	})
})

const casesFolder = "tests/unit/protocols/"

// A protocolCase is one of botocore's cases with the model that it is for.
type protocolCase struct {
	name  string // "input/rest-json RestJsonLists"
	model []byte // with the one operation of the case

	service *built // nil if the model is refused
	refusal error

	ID         string
	Given      map[string]any
	Params     json.RawMessage
	Serialized struct {
		Method, URI, Body string
		Headers           map[string]string
	}
	Response struct {
		StatusCode int `json:"status_code"`
		Headers    map[string]string
		Body       string
	}
	Result, Error           json.RawMessage
	ErrorCode, ErrorMessage string
}

// operation is the name of the operation.
func (c *protocolCase) operation() string { return c.Given["name"].(string) }

// protocolCases returns the cases of the protocols that Cloister has; direction is
// input or output. They must not be changed.
func protocolCases(t *testing.T, direction string) []*protocolCase {
	t.Helper()
	cases, err := readCases()
	if err != nil {
		t.Fatal(err)
	}
	return cases[direction]
}

// readCases reads all cases, once: making their types takes seconds.
var readCases = sync.OnceValues(func() (map[string][]*protocolCase, error) {
	all := map[string][]*protocolCase{}
	for _, direction := range []string{"input", "output"} {
		for _, file := range []string{"rest-json", "json", "json_1_0", "json_1_0-query-compatible", "query",
			"legacy/rest-json", "legacy/json", "legacy/query"} {
			path := direction + "/" + file
			if old, ok := strings.CutPrefix(file, "legacy/"); ok {
				path = "legacy/" + direction + "/" + old
			}
			cases, err := readFile(path)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all[direction] = append(all[direction], cases...)
		}
	}
	return all, nil
})

func readFile(path string) ([]*protocolCase, error) {
	archive, err := distribution()
	if err != nil {
		return nil, err
	}
	text, err := archive.File(casesFolder + path + ".json")
	if err != nil {
		return nil, err
	}
	var suites []struct {
		Metadata map[string]any
		Shapes   map[string]any
		Cases    []*protocolCase
	}
	if err := json.Unmarshal(text, &suites); err != nil {
		return nil, err
	}
	var all []*protocolCase
	for i, suite := range suites {
		for j, c := range suite.Cases {
			c.name = path + " " + c.ID
			if c.ID == "" {
				c.name = fmt.Sprintf("%s %d.%d", path, i, j) // old cases have no name: suite and case, from 0
			}
			if err := c.complete(suite.Metadata, suite.Shapes); err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// complete makes the model of the case: what the suite leaves out is what every
// service of that protocol has.
func (c *protocolCase) complete(metadata, shapes map[string]any) error {
	if c.Given["name"] == nil {
		c.Given["name"] = "OperationName"
	}
	call, ok := c.Given["http"].(map[string]any)
	if !ok {
		call = map[string]any{"method": http.MethodPost}
	}
	if call["requestUri"] == nil {
		call["requestUri"] = "/"
	}
	c.Given["http"] = call
	if input, ok := c.Given["input"].(map[string]any); ok && input["payload"] != nil { // where old models had it
		shapes[input["shape"].(string)].(map[string]any)["payload"] = input["payload"]
		delete(input, "payload")
	}
	if output, ok := c.Given["output"].(map[string]any); ok && metadata["protocol"] == "query" {
		output["resultWrapper"] = c.operation() + "Result"
	}
	text, err := json.Marshal(map[string]any{"metadata": metadata, "shapes": shapes, "operations": map[string]any{c.operation(): c.Given}})
	if err != nil {
		return err
	}
	c.model = text
	c.service, c.refusal = build(c.model)
	return nil
}

// judge runs check for each case. It must fail for those in exempt, which say why,
// and for those whose model the generator refuses, and for no other.
func judge(t *testing.T, cases []*protocolCase, exempt map[string]string, check func(*protocolCase, *built) error) {
	t.Helper()
	unseen, refused := maps.Clone(exempt), 0
	for _, c := range cases {
		delete(unseen, c.name)
		if c.service == nil {
			if refused++; exempt[c.name] != "" {
				t.Errorf("%s: stands in the table, but its model is refused", c.name)
			}
			continue
		}
		switch err := check(c, c.service); {
		case err != nil && exempt[c.name] == "":
			t.Errorf("%s: %v", c.name, err)
		case err == nil && exempt[c.name] != "":
			t.Errorf("%s: passes although %s", c.name, exempt[c.name])
		}
	}
	for name := range unseen {
		t.Errorf("there is no case %s", name)
	}
	t.Logf("%d cases: %d pass, %d are exempt, %d have a model that the generator refuses", len(cases), len(cases)-len(exempt)-refused, len(exempt), refused)
}

// TestTheGeneratorRefusesTheTraitsItDoesNotKnow is why judge may leave out cases
// with such a model.
func TestTheGeneratorRefusesTheTraitsItDoesNotKnow(t *testing.T) {
	unseen := maps.Clone(refusedTraits)
	for _, c := range slices.Concat(protocolCases(t, "input"), protocolCases(t, "output")) {
		if c.service != nil {
			continue
		}
		known := false
		for text := range refusedTraits {
			if strings.Contains(c.refusal.Error(), text) {
				known = true
				delete(unseen, text)
			}
		}
		if !known {
			t.Errorf("%s is refused: %v", c.name, c.refusal)
		}
	}
	for text := range unseen {
		t.Errorf("no case is refused with %s", text)
	}
}

// TestWeUnderstandEveryRequestOfBotocoresProtocolCases reads the cases backwards:
// botocore serializes the parameters to the request, we must decode the request to
// the parameters.
func TestWeUnderstandEveryRequestOfBotocoresProtocolCases(t *testing.T) {
	judge(t, protocolCases(t, "input"), notReadBack, func(c *protocolCase, service *built) error {
		r := httptest.NewRequest(orGiven(c.Serialized.Method, c), c.Serialized.URI, nil)
		for name, value := range c.Serialized.Headers {
			r.Header.Set(name, value)
		}
		body := []byte(c.Serialized.Body)
		op, labels, err := service.Match(r, body)
		if err != nil {
			return err
		}
		if op.Name != c.operation() {
			return fmt.Errorf("routed to %s", op.Name)
		}
		in, err := service.DecodeUnchecked(op, labels, r, body)
		if err != nil {
			return err
		}
		want := reflect.New(op.InputType())
		if input, ok := c.Given["input"].(map[string]any); ok {
			if err := service.fill(want.Elem(), input["shape"].(string), decodeAny(t, c.Params)); err != nil {
				return err
			}
		}
		if difference := gocmp.Diff(want.Interface(), in, cmpopts.EquateNaNs()); difference != "" {
			return fmt.Errorf("(-sent +understood):\n%s", difference)
		}
		return nil
	})
}

// orGiven is the method of the request, which old cases leave to the model.
func orGiven(method string, c *protocolCase) string {
	if method == "" {
		method = c.Given["http"].(map[string]any)["method"].(string)
	}
	return method
}
