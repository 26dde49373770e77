package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/api/internal/botocore"
)

func TestThePinnedModelsDoNotDriftFromThemselves(t *testing.T) {
	models := pinned(t)
	if lines, err := drift(models, models); err != nil || len(lines) > 0 {
		t.Errorf("%q, %v", lines, err)
	}
}

// edits are changes to the pinned models and what is to be said about each.
var edits = []struct {
	service, old, new string
	want              []string
}{
	{"lambda", `"operations":{`, `"operations":{"CloneFunction":{"name":"CloneFunction","http":{"method":"POST","requestUri":"/2027-01-01/clones"}},`,
		[]string{"+ operation CloneFunction (POST /2027-01-01/clones)"}},
	{"lambda", `"CreateFunctionRequest":{"type":"structure","required":["FunctionName",`,
		`"CloneList":{"type":"list","member":{"shape":"FunctionName"}},"CreateFunctionRequest":{"type":"structure","required":["Clones","FunctionName",`,
		[]string{"+ shape CloneList (list)", "+ required member of CreateFunctionRequest: Clones"}},
	{"lambda", `"Role","Code"],"members":{"FunctionName":{"shape":"FunctionName",`, `"Role","Code"],"members":{"Clones":{"shape":"CloneList"},"FunctionName":{"shape":"NamespacedFunctionName",`,
		[]string{"+ member CreateFunctionRequest.Clones (CloneList)", "~ member CreateFunctionRequest.FunctionName: shape NamespacedFunctionName, was FunctionName"}},
	{"lambda", `"nodejs4.3",`, `"python4.0",`, []string{"+ value of Runtime: python4.0", "- value of Runtime: nodejs4.3"}},
	{"lambda", `"Timeout":{"type":"integer","box":true,"max":5400,"min":1}`, `"Timeout":{"type":"integer","box":true,"min":2,"max":900}`,
		[]string{"~ shape Timeout: max 900, was 5400", "~ shape Timeout: min 2, was 1"}},
	{"lambda", `"Description":{"type":"string","max":256`, `"Description":{"type":"string","pattern":"[a-z]+","max":128`,
		[]string{"~ shape Description: max 128, was 256", "~ shape Description: pattern [a-z]+, was nothing"}},
	{"lambda", `"http":{"method":"DELETE","requestUri":"/2015-03-31/functions/{FunctionName}"`,
		`"http":{"method":"DELETE","requestUri":"/2027-01-01/functions/{FunctionName}"`,
		[]string{"~ operation DeleteFunction: http.requestUri /2027-01-01/functions/{FunctionName}, was /2015-03-31/functions/{FunctionName}"}},
	{"lambda", `"error":{"httpStatusCode":415,`, `"error":{"httpStatusCode":422,`, []string{"~ shape UnsupportedMediaTypeException: error.httpStatusCode 422, was 415"}},
	{"iam", `"CreateRole":{"name":"CreateRole",`, `"CreateRole":{"mystery":true,"name":"CreateRole",`,
		[]string{`! the generator does not know what it says: CreateRole: json: unknown field "mystery"`}},
	{"iam", `"roleNameType":{"type":"string","max":64`, `"roleNameType":{"type":"string","riddle":1,"max":65`,
		[]string{`! the generator does not know what it says: roleNameType: json: unknown field "riddle"`, "~ shape roleNameType: max 65, was 64"}},
	{"sts", `"pattern":"[\\w+=/:,.@-]*"`, `"pattern":"(?!x)[\\w+=/:,.@-]*"`, nil}, // said below, several shapes have it
}

func TestWhatANewerModelChangesIsNamed(t *testing.T) {
	models := pinned(t)
	texts := map[string]string{}
	want := []string{"kms: - version 2014-11-01 of the API"}
	for _, target := range targets {
		path := botocore.ModelPath(target.directory, target.version)
		text, err := models.File(path)
		if err != nil {
			t.Fatal(err)
		}
		if target.name != "kms" {
			var compact bytes.Buffer
			if err := json.Compact(&compact, text); err != nil {
				t.Fatal(err)
			}
			texts[target.name] = compact.String()
		}
	}
	for _, edit := range edits {
		changed := strings.Replace(texts[edit.service], edit.old, edit.new, 1)
		if changed == texts[edit.service] {
			t.Fatalf("the model of %s has no %s", edit.service, edit.old)
		}
		texts[edit.service] = changed
		for _, line := range edit.want {
			want = append(want, edit.service+": "+line)
		}
	}
	lines := driftOf(t, texts)
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "sts: ! the generator refuses it: ") })
	if i < 0 || !strings.Contains(lines[i], "write a check for it in api/patterncheck.go") {
		t.Fatalf("a pattern that cannot be compiled is not named:\n%s", strings.Join(lines, "\n"))
	}
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "sts: ") })
	slices.Sort(lines)
	slices.Sort(want)
	if difference := cmp.Diff(want, lines); difference != "" {
		t.Errorf("(-want +got):\n%s", difference)
	}
}

// driftOf packs models, by service, as a distribution and returns what printDrift says of it.
func driftOf(t *testing.T, texts map[string]string) []string {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	for _, target := range targets {
		text, ok := texts[target.name]
		if !ok {
			continue
		}
		name := "botocore-9.9.9/" + botocore.ModelPath(target.directory, target.version)
		if err := archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "botocore-9.9.9.tar.gz")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := printDrift(&said, pinned(t), path); err != nil {
		t.Fatal(err)
	}
	heading, lines, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
	if version, _ := botocore.Pin(); !strings.Contains(heading, version) || !strings.Contains(heading, "botocore-9.9.9.tar.gz") {
		t.Errorf("heading %q", heading)
	}
	return strings.Split(lines, "\n")
}

// TestTwoVersionsOfAnAPIDiffer compares two models as AWS really published them.
func TestTwoVersionsOfAnAPIDiffer(t *testing.T) {
	models := pinned(t)
	old, err := models.Model("lambda", "2014-11-11")
	if err != nil {
		t.Fatal(err)
	}
	newer, err := models.Model("lambda", "2015-03-31")
	if err != nil {
		t.Fatal(err)
	}
	lines := botocore.Compare(old, newer)
	for _, want := range []string{
		"+ operation CreateFunction (POST /2015-03-31/functions)",
		"- operation UploadFunction",
		"+ member FunctionConfiguration.KMSKeyArn (KMSKeyArn)",
		"+ value of Runtime: python3.12",
		"+ shape Alias (string)",
		"~ the service: apiVersion 2015-03-31, was 2014-11-11",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not said", want)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(lines, "\n"))
	}
}
