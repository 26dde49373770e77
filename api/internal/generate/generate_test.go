package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tiny is a service with one operation; replacements make it wrong.
const tiny = `{
	"version": "2.0",
	"metadata": {"apiVersion": "2020-01-01", "protocol": "rest-json", "serviceFullName": "Tiny"},
	"operations": {
		"Put": {"name": "Put", "http": {"method": "PUT", "requestUri": "/things/{Name}", "responseCode": 201}, "input": {"shape": "PutRequest"}}
	},
	"shapes": {
		"PutRequest": {"type": "structure", "required": ["Name"], "members": {
			"Name": {"shape": "Name", "location": "uri", "locationName": "Name"},
			"secret": {"shape": "Secret"},
			"Colours": {"shape": "Colours"}
		}},
		"Name": {"type": "string", "min": 1, "max": 8, "pattern": "[a-z]+"},
		"Secret": {"type": "blob", "sensitive": true},
		"Colours": {"type": "list", "member": {"shape": "Colour"}},
		"Colour": {"type": "string", "enum": ["RED", "LIGHT_BLUE"]},
		"GoneException": {"type": "structure", "members": {}, "error": {"code": "Gone", "httpStatusCode": 410}, "exception": true}
	}
}`

func generateTiny(text string) (map[string][]byte, error) {
	var m model
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return generate(target{name: "tiny"}, &m)
}

func TestAModelBecomesTypesRulesAndErrors(t *testing.T) {
	files, err := generateTiny(tiny)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ file, text string }{
		{"service.go", `api.Bind(api.Operation{Name: "Put", Method: "PUT", URI: "/things/{Name}", Status: 201, Sensitive: true}, Server.Put),`},
		{"server.go", `Put(context.Context, *PutRequest) (*api.Empty, error)`},
		{"types.go", "Name *string `aws:\"Name,uri,required\" of:\"Name\"`"},
		{"types.go", "Secret []byte `aws:\"secret,sensitive\"`"},
		{"types.go", "Colours []string `aws:\"Colours\" of:\"Colours\"`"},
		{"rules.go", "\"Name\": {Min: new(int64(1)), Max: new(int64(8)), Pattern: `[a-z]+`},"},
		{"rules.go", `"Colours": {Member: "Colour"},`},
		{"enums.go", `ColourLightBlue = "LIGHT_BLUE"`},
		{"errors.go", `HTTPStatus() int { return 410 }`},
		{"errors.go", `ErrorCode() string { return "Gone" }`},
		{"errors.go", "Message *string `aws:\"message\"`"},
	} {
		if !strings.Contains(string(files[want.file]), want.text) {
			t.Errorf("%s lacks %s:\n%s", want.file, want.text, files[want.file])
		}
	}
}

func TestNothingInAModelIsDroppedUnseen(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"an unknown trait of a shape", `"type": "blob"`, `"type": "blob", "mystery": true`, "mystery"},
		{"an unknown trait of a member", `"shape": "Secret"`, `"shape": "Secret", "xmlAttribute": true`, "xmlAttribute"},
		{"an unknown trait of an operation", `"name": "Put",`, `"name": "Put", "httpChecksum": {},`, "httpChecksum"},
		{"an unknown protocol", `rest-json`, `smoke-signals`, "smoke-signals"},
		{"an unknown location", `"location": "uri"`, `"location": "trailer"`, "trailer"},
		{"headers with a common prefix", `"secret": {"shape": "Secret"}`, `"secret": {"shape": "Secret", "location": "headers"}`, "headers"},
		{"an unknown type", `"type": "blob"`, `"type": "bigdecimal"`, "bigdecimal"},
		{"a shape that is not there", `"shape": "Colour"`, `"shape": "Color"`, "Color"},
		{"a pattern with look-ahead", `[a-z]+`, `(?!x)[a-z]+`, "write a check"},
		{"a pattern that means something else in Go", `[a-z]+`, `[a-z&&[^b]]+`, "write a check"},
		{"a fraction as limit", `"max": 8`, `"max": 8.5`, "8.5"},
		{"two constants of one name", `"LIGHT_BLUE"`, `"LIGHT_BLUE", "LightBlue"`, "ColourLightBlue"},
		{"a label inside a segment", `/things/{Name}`, `/things/x{Name}`, "segments"},
		{"a greedy label that is not the last", `/things/{Name}`, `/things/{Name+}/x`, "segments"},
	} {
		if !strings.Contains(tiny, c.old) {
			t.Fatalf("%s: the model has no %s", c.name, c.old)
		}
		_, err := generateTiny(strings.Replace(tiny, c.old, c.new, 1))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestAWheelThatIsNotThePinnedOneIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "botocore.whl")
	if err := os.WriteFile(path, []byte("PK"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openModels(t.Context(), path); err == nil || !strings.Contains(err.Error(), botocoreSHA256) {
		t.Errorf("error %v, want one that names the expected digest", err)
	}
}

func TestConstantsReadAsGo(t *testing.T) {
	for _, c := range []struct{ enum, value, want string }{
		{"State", "Pending", "StatePending"},
		{"InvocationType", "DryRun", "InvocationTypeDryRun"},
		{"TenantIsolationMode", "PER_TENANT", "TenantIsolationModePerTenant"},
		{"Runtime", "provided.al2023", "RuntimeProvidedAl2023"},
		{"Runtime", "nodejs4.3-edge", "RuntimeNodejs43Edge"},
		{"Architecture", "x86_64", "ArchitectureX8664"},
		{"statusType", "Active", "StatusTypeActive"},
	} {
		if got := constant(c.enum, c.value); got != c.want {
			t.Errorf("constant(%q, %q) = %q, want %q", c.enum, c.value, got, c.want)
		}
	}
}
