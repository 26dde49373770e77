package test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/control"
	"cloister/gateway"
)

// A row of docs/STATUS.md: what, state, the tests that show it.
type row struct{ what, state, tests string }

// tables reads the rows of docs/STATUS.md below each heading.
func tables(t *testing.T) map[string][]row {
	t.Helper()
	b, err := os.ReadFile("../docs/STATUS.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]row{}
	heading := ""
	for line := range strings.Lines(string(b)) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(h)
		}
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 5 || strings.HasPrefix(strings.TrimSpace(cells[1]), "---") {
			continue
		}
		r := row{strings.Trim(cells[1], " `"), strings.TrimSpace(cells[2]), cells[3]}
		if r.state == "state" {
			continue
		}
		found[heading] = append(found[heading], r)
	}
	return found
}

var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")

// tests returns the names of all test functions of the repository.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(b), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestEveryClaimOfTheStatusPageNamesATestThatExists(t *testing.T) {
	exists := tests(t)
	rows := 0
	for heading, table := range tables(t) {
		for _, r := range table {
			rows++
			named := testName.FindAllStringSubmatch(r.tests, -1)
			switch r.state {
			case "works", "partly":
				if len(named) == 0 {
					t.Errorf("%s: %s %s, but no test is named", heading, r.what, r.state)
				}
			case "missing":
			default:
				t.Errorf("%s: %s has the state %q, which is none of works, partly, missing", heading, r.what, r.state)
			}
			for _, n := range named {
				if !exists[n[1]] {
					t.Errorf("%s: %s names the test %s, which does not exist", heading, r.what, n[1])
				}
			}
		}
	}
	if rows < 110 {
		t.Errorf("docs/STATUS.md has only %d rows", rows)
	}
}

func TestEveryTestOfTheSecurityPageExists(t *testing.T) {
	b, err := os.ReadFile("../docs/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	exists, rows := tests(t), 0
	for line := range strings.Lines(string(b)) {
		if !regexp.MustCompile(`^\| \d+ \|`).MatchString(line) {
			continue
		}
		rows++
		named := testName.FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("no test is named in %s", line)
		}
		for _, n := range named {
			if !exists[n[1]] {
				t.Errorf("the test %s does not exist: %s", n[1], line)
			}
		}
	}
	if rows < 25 {
		t.Errorf("only %d threats", rows)
	}
}

// notBuilt says whether the service answers an operation with the typed refusal. The operations get
// no neighbours: one that is built fails in another way, or runs into what is missing.
func notBuilt(server any, op *api.Operation) (refused bool) {
	defer func() { recover() }()
	_, err := op.Call(context.Background(), server, op.New())
	fault, ok := err.(api.Fault)
	return ok && fault.ErrorCode() == "NotImplementedException" && strings.Contains(err.Error(), op.Name)
}

func TestTheStatusPageKnowsEveryLambdaOperationAsItIs(t *testing.T) {
	server := gateway.NewLambda(new(control.Server), nil, "us-east-1")
	listed := map[string]string{}
	for _, r := range tables(t)["The 91 operations of the Lambda API"] {
		listed[r.what] = r.state
	}
	if len(lambdaapi.Service.Operations) != 91 {
		t.Errorf("the model has %d operations", len(lambdaapi.Service.Operations))
	}
	for _, op := range lambdaapi.Service.Operations {
		state, ok := listed[op.Name]
		delete(listed, op.Name)
		if refused := notBuilt(server, op); !ok || refused != (state == "missing") {
			t.Errorf("%s is listed as %q, but the service refuses it as not built: %v", op.Name, state, refused)
		}
	}
	for name := range listed {
		t.Errorf("%s is listed and is no operation", name)
	}
}
