package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cloister/api/internal/botocore"
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
			"Colours": {"shape": "Colours"},
			"Shade": {"shape": "Shade", "location": "header", "locationName": "X-Shade"},
			"Since": {"shape": "Due", "timestampFormat": "rfc822"}
		}},
		"Name": {"type": "string", "min": 1, "max": 8, "pattern": "[a-z]+"},
		"Secret": {"type": "blob", "sensitive": true},
		"Secrets": {"type": "map", "key": {"shape": "Name"}, "value": {"shape": "Secret"}},
		"Colours": {"type": "list", "member": {"shape": "Colour"}},
		"Colour": {"type": "string", "enum": ["RED", "LIGHT_BLUE"]},
		"Shade": {"type": "string", "enum": ["dark"]},
		"Due": {"type": "timestamp", "timestampFormat": "iso8601"},
		"GoneException": {"type": "structure", "members": {}, "error": {"code": "Gone", "httpStatusCode": 410}, "exception": true}
	}
}`

func generateTiny(text string) (map[string][]byte, error) {
	m, err := botocore.ParseModel([]byte(text))
	if err != nil {
		return nil, err
	}
	return generate(target{name: "tiny", unchecked: map[string]string{"Shade": "the service does"}}, m)
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
		{"types.go", "Shade *string `aws:\"X-Shade,header\"`"},
		{"types.go", "Since *time.Time `aws:\"Since,rfc822\" of:\"Due\"`"},
		{"rules.go", `"Due": {Time: "iso8601"},`},
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
		{"a map in headers", `"secret": {"shape": "Secret"}`, `"secret": {"shape": "Secrets", "location": "header"}`, "header"},
		{"a list in the path", `"Colours": {"shape": "Colours"}`, `"Colours": {"shape": "Colours", "location": "uri"}`, "uri"},
		{"JSON in a header", `"shape": "Shade", `, `"shape": "Shade", "jsonvalue": true, `, "JSON"},
		{"an unknown form of a timestamp", `"timestampFormat": "iso8601"`, `"timestampFormat": "lunar"`, "lunar"},
		{"an unknown form of a member", `"timestampFormat": "rfc822"`, `"timestampFormat": "lunar"`, "lunar"},
		{"an error that is not there", `"responseCode": 201}`, `"responseCode": 201}, "errors": [{"shape": "LostException"}]`, "LostException"},
		{"two shapes of one name", `"Name": {"type"`, `"Shade": {"type": "string"}, "Name": {"type"`, "Shade"},
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

func TestAPatternThatGoCannotCompileNeedsACheckWrittenByHand(t *testing.T) {
	for pattern, registered := range map[string]bool{
		`(?!^[0-9]+$)([a-zA-Z0-9-_]+)`: true, // in api/patterncheck.go
		`(?!^[0-9]*$)([a-zA-Z0-9-_]+)`: false,
		`(?<!x)a`:                      false,
		`(a)\\1`:                       false,
		`a{1,5000}`:                    false,
	} {
		_, err := generateTiny(strings.Replace(tiny, `[a-z]+`, pattern, 1))
		if registered && err != nil || !registered && (err == nil || !strings.Contains(err.Error(), "Name: write a check for it in api/patterncheck.go")) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// TestWhatIsCommittedIsWhatTheModelsSay generates everything again.
func TestWhatIsCommittedIsWhatTheModelsSay(t *testing.T) {
	models := pinned(t)
	for _, target := range targets {
		files, err := target.files(models)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join("..", "..", target.name+"api")
		for name, want := range files {
			got, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				t.Error(err)
				continue
			}
			if string(got) != string(want) {
				t.Errorf("%s/%s is not what \"make generate\" writes:\n%s", folder, name, firstDifference(string(got), string(want)))
			}
		}
		there, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range there {
			if _, ok := files[entry.Name()]; !ok {
				t.Errorf("%s/%s is not generated", folder, entry.Name())
			}
		}
	}
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "has   " + a[i] + "\nwants " + b[i]
		}
	}
	return "one is longer"
}

func pinned(t *testing.T) *botocore.Archive {
	t.Helper()
	archive, err := openOnce()
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// openOnce opens the pinned distribution, which takes a second.
var openOnce = sync.OnceValues(func() (*botocore.Archive, error) {
	return botocore.OpenPinned(func(path string) bool {
		return isModel(path) || path == botocore.ModelPath("lambda", "2014-11-11")
	})
})
