package api_test

import (
	"bufio"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/kmsapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
	"cloister/api/stsapi"
)

// modules are the modules of aws-sdk-go-v2 for our services. They keep a request
// for each operation, every member set, as it is on the wire, beside the Go test
// that filled in the members.
var modules = []struct {
	service *api.Service
	name    string
	lacks   int // operations without a request there: newer ones, and some that answer event streams
}{
	{lambdaapi.Service, "lambda", 4},
	{iamapi.Service, "iam", 0},
	{stsapi.Service, "sts", 0},
	{kmsapi.Service, "kms", 0},
	{logsapi.Service, "cloudwatchlogs", 2},
}

// TestEveryRequestSnapshotOfTheSDKIsUnderstood decodes each request, and compares
// with the input in the source of the SDK's test that made it.
func TestEveryRequestSnapshotOfTheSDKIsUnderstood(t *testing.T) {
	for _, module := range modules {
		t.Run(module.name, func(t *testing.T) {
			folder := moduleFolder(t, module.name)
			inputs := snapshotInputs(t, filepath.Join(folder, "request_snapshot_test.go"))
			if n := len(module.service.Operations) - module.lacks; len(inputs) != n {
				t.Errorf("%d inputs, want %d", len(inputs), n)
			}
			for operation, input := range inputs {
				r, body := readSnapshot(t, filepath.Join(folder, "request_snapshot", operation+".request.snap"))
				op, labels, err := module.service.Match(r, body)
				if err != nil || op.Name != operation {
					t.Errorf("%s was routed to %v, %v", operation, op, err)
					continue
				}
				in, err := module.service.DecodeUnchecked(op, labels, r, body)
				if err != nil {
					t.Errorf("%s: %v", operation, err)
					continue
				}
				if difference := cmp.Diff(input, plain(reflect.ValueOf(in))); difference != "" {
					t.Errorf("%s (-sent +understood):\n%s", operation, difference)
				}
			}
		})
	}
}

func moduleFolder(t testing.TB, module string) string {
	t.Helper()
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/"+module).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(folder))
}

// readSnapshot parses a fixture: method and path, headers, body, each after an
// empty line.
func readSnapshot(t testing.TB, file string) (*http.Request, []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	method, target, _ := strings.Cut(first, " ")
	r := httptest.NewRequest(method, target, nil)
	reader := bufio.NewReader(strings.NewReader(strings.TrimPrefix(rest, "\n")))
	header, err := textproto.NewReader(reader).ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("%s: %v", file, err)
	}
	r.Header = http.Header(header)
	body, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return r, body
}

// snapshotInputs reads, from the source of a module's test, what each operation's
// input was filled with. Structures become maps by field name, numbers float64,
// blobs strings, and a union a map with its one member.
func snapshotInputs(t *testing.T, file string) map[string]any {
	t.Helper()
	source, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	inputs := map[string]any{}
	for _, declaration := range source.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok {
			continue
		}
		operation, ok := strings.CutPrefix(function.Name.Name, "TestCheckRequestSnapshot_")
		if !ok {
			continue
		}
		assignment, ok := function.Body.List[0].(*ast.AssignStmt)
		if !ok {
			t.Fatalf("%s does not begin with its input", function.Name.Name)
		}
		if inputs[operation], err = evaluate(assignment.Rhs[0]); err != nil {
			t.Fatalf("%s: %v", operation, err)
		}
	}
	return inputs
}

// evaluate returns the value of an expression as the SDK's generator writes them.
func evaluate(e ast.Expr) (any, error) {
	switch e := e.(type) {
	case *ast.UnaryExpr:
		return evaluate(e.X)
	case *ast.Ident:
		return strconv.ParseBool(e.Name)
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			return strconv.Unquote(e.Value)
		}
		return strconv.ParseFloat(e.Value, 64)
	case *ast.CallExpr: // ptr.String("x"), types.Type("x"), []byte("x"), time.Date(...)
		if len(e.Args) == 1 {
			return evaluate(e.Args[0])
		}
		return evaluateDate(e.Args)
	case *ast.CompositeLit:
		return evaluateLiteral(e)
	}
	return nil, fmt.Errorf("unexpected %T", e)
}

func evaluateDate(args []ast.Expr) (any, error) {
	if len(args) != 8 {
		return nil, fmt.Errorf("unexpected call with %d arguments", len(args))
	}
	var n [7]int
	for i := range n {
		v, err := evaluate(args[i])
		if err != nil {
			return nil, err
		}
		n[i] = int(v.(float64))
	}
	return time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], n[6], time.UTC), nil
}

func evaluateLiteral(literal *ast.CompositeLit) (any, error) {
	_, array := literal.Type.(*ast.ArrayType)
	if len(literal.Elts) > 0 { // inside a map or array the type is left out
		_, pairs := literal.Elts[0].(*ast.KeyValueExpr)
		array = !pairs
	}
	if array {
		list := []any{}
		for _, each := range literal.Elts {
			v, err := evaluate(each)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	object := map[string]any{}
	for _, each := range literal.Elts {
		pair, ok := each.(*ast.KeyValueExpr)
		if !ok {
			return nil, fmt.Errorf("unexpected %T", each)
		}
		name := ""
		if field, ok := pair.Key.(*ast.Ident); ok {
			name = field.Name
		} else if key, err := evaluate(pair.Key); err == nil {
			name = key.(string)
		}
		var err error
		if object[name], err = evaluate(pair.Value); err != nil {
			return nil, err
		}
	}
	if of, ok := literal.Type.(*ast.SelectorExpr); ok && len(object) == 1 && object["Value"] != nil {
		if _, member, union := strings.Cut(of.Sel.Name, "Member"); union {
			return map[string]any{member: object["Value"]}, nil
		}
	}
	return object, nil
}

// plain returns one of our values in the form of snapshotInputs; what is absent is
// left out.
func plain(v reflect.Value) any {
	switch v = reflect.Indirect(v); {
	case v.Type() == reflect.TypeFor[time.Time]():
		return v.Interface()
	case v.Kind() == reflect.Struct:
		object := map[string]any{}
		for i := range v.NumField() {
			if f := v.Field(i); v.Type().Field(i).IsExported() && !f.IsNil() {
				object[v.Type().Field(i).Name] = plain(f)
			}
		}
		return object
	case v.Kind() == reflect.Map:
		object := map[string]any{}
		for entry := v.MapRange(); entry.Next(); {
			object[entry.Key().String()] = plain(entry.Value())
		}
		return object
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		return string(v.Bytes())
	case v.Kind() == reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, plain(v.Index(i)))
		}
		return list
	case v.CanInt():
		return float64(v.Int())
	default:
		return v.Interface()
	}
}
