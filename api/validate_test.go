package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
)

const (
	functionNamePattern = `(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?`
	rolePattern         = `arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+`
	layerPattern        = `((arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+))`
)

// create returns a request that is valid, changed by change.
func create(change func(*lambdaapi.CreateFunctionRequest)) *lambdaapi.CreateFunctionRequest {
	in := &lambdaapi.CreateFunctionRequest{
		FunctionName: new("f"),
		Role:         new("arn:aws:iam::123456789012:role/r"),
		Code:         &lambdaapi.FunctionCode{ZipFile: []byte("PK")},
	}
	if change != nil {
		change(in)
	}
	return in
}

// violations are CreateFunction requests and what is wrong with them.
var violations = []struct {
	name   string
	change func(*lambdaapi.CreateFunctionRequest)
	want   []string // after "N validation errors detected: "
}{
	{"nothing wrong", nil, nil},
	{"missing members", func(in *lambdaapi.CreateFunctionRequest) { in.Role, in.Code = nil, nil }, []string{
		"Value null at 'role' failed to satisfy constraint: Member must not be null",
		"Value null at 'code' failed to satisfy constraint: Member must not be null",
	}},
	{"patterns", func(in *lambdaapi.CreateFunctionRequest) { in.FunctionName, in.Role = new("a b"), new("r1") }, []string{
		"Value 'a b' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: " + functionNamePattern,
		"Value 'r1' at 'role' failed to satisfy constraint: Member must satisfy regular expression pattern: " + rolePattern,
	}},
	{"an empty string", func(in *lambdaapi.CreateFunctionRequest) { in.FunctionName = new("") }, []string{
		"Value '' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: " + functionNamePattern,
		"Value '' at 'functionName' failed to satisfy constraint: Member must have length greater than or equal to 1",
	}},
	{"a line break at the end", func(in *lambdaapi.CreateFunctionRequest) { in.FunctionName = new("f\n") }, []string{
		"Value 'f\n' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: " + functionNamePattern,
	}},
	{"a long string", func(in *lambdaapi.CreateFunctionRequest) { in.Description = new(strings.Repeat("ü", 257)) }, []string{
		"Value '" + strings.Repeat("ü", 257) + "' at 'description' failed to satisfy constraint: Member must have length less than or equal to 256",
	}},
	{"characters, not bytes", func(in *lambdaapi.CreateFunctionRequest) { in.Description = new(strings.Repeat("ü", 256)) }, nil},
	{"a number below its range", func(in *lambdaapi.CreateFunctionRequest) { in.Timeout = new(int32(0)) }, []string{
		"Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1",
	}},
	{"a number above its range", func(in *lambdaapi.CreateFunctionRequest) { in.MemorySize = new(int32(32769)) }, []string{
		"Value '32769' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 32768",
	}},
	{"an enum", func(in *lambdaapi.CreateFunctionRequest) { in.PackageType = new("zip") }, []string{
		"Value 'zip' at 'packageType' failed to satisfy constraint: Member must satisfy enum value set: [Zip, Image]",
	}},
	{"a runtime, which the service itself checks", func(in *lambdaapi.CreateFunctionRequest) { in.Runtime = new("cobol") }, nil},
	{"members of a list", func(in *lambdaapi.CreateFunctionRequest) { in.Architectures = []string{"mips"} }, []string{
		"Value '[mips]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
	}},
	{"lengths in a list", func(in *lambdaapi.CreateFunctionRequest) { in.Layers = []string{"x", "y"} }, []string{
		"Value '[x, y]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: " + layerPattern + ", Member must not be null]",
	}},
	{"the length of a list", func(in *lambdaapi.CreateFunctionRequest) { in.Architectures = []string{} }, []string{
		"Value '[]' at 'architectures' failed to satisfy constraint: Member must have length greater than or equal to 1",
	}},
	{"a structure in a list", func(in *lambdaapi.CreateFunctionRequest) {
		in.FileSystemConfigs = []lambdaapi.FileSystemConfig{{LocalMountPath: new("/tmp")}}
	}, []string{
		"Value null at 'fileSystemConfigs.1.member.arn' failed to satisfy constraint: Member must not be null",
		"Value '/tmp' at 'fileSystemConfigs.1.member.localMountPath' failed to satisfy constraint: Member must satisfy regular expression pattern: /mnt/[a-zA-Z0-9-_.]+",
	}},
	{"a nested number", func(in *lambdaapi.CreateFunctionRequest) {
		in.EphemeralStorage = &lambdaapi.EphemeralStorage{Size: new(int32(1))}
	}, []string{
		"Value '1' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value greater than or equal to 512",
	}},
	{"a secret", func(in *lambdaapi.CreateFunctionRequest) {
		in.Environment = &lambdaapi.Environment{Variables: map[string]string{"1PASSWORD": "hunter2"}}
	}, []string{
		"Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+, Member must not be null]",
	}},
}

func TestAViolationIsReportedInTheWordsOfAWS(t *testing.T) {
	for _, c := range violations {
		want := ""
		switch n := len(c.want); {
		case n == 1:
			want = "1 validation error detected: " + c.want[0]
		case n > 1:
			want = fmt.Sprintf("%d validation errors detected: %s", n, strings.Join(c.want, "; "))
		}
		checkText(t, c.name, lambdaapi.Service, create(c.change), "ValidationException", want)
	}
}

func checkText(t *testing.T, name string, service *api.Service, in any, code, want string) {
	t.Helper()
	err := service.Check(in)
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	fault, ok := errors.AsType[*api.Error](err)
	if !ok || fault.Message != want || fault.Code != code || fault.HTTPStatus() != http.StatusBadRequest {
		t.Errorf("%s:\ngot  %v\nwant %s: %s", name, err, code, want)
	}
}

func TestEachServiceNamesAViolationInItsOwnWay(t *testing.T) {
	checkText(t, "iam", iamapi.Service, &iamapi.GetRoleRequest{RoleName: new("a/b")}, "ValidationError",
		`1 validation error detected: Value 'a/b' at 'roleName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]+`)
	checkText(t, "iam, a list of structures", iamapi.Service,
		&iamapi.TagRoleRequest{RoleName: new("r"), Tags: []iamapi.Tag{{Key: new("k"), Value: new("v")}, {Key: new("k")}}}, "ValidationError",
		`1 validation error detected: Value null at 'tags.2.member.value' failed to satisfy constraint: Member must not be null`)
	checkText(t, "logs", logsapi.Service, &logsapi.CreateLogGroupRequest{LogGroupName: new("a b")}, "InvalidParameterException",
		`1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+`)
	checkText(t, "logs, a union", logsapi.Service,
		&logsapi.PutIntegrationRequest{IntegrationName: new("i"), IntegrationType: new("OPENSEARCH"), ResourceConfig: &logsapi.ResourceConfig{}}, "InvalidParameterException",
		`1 validation error detected: Value at 'resourceConfig' failed to satisfy constraint: Exactly one member must be set`)
	checkText(t, "a weight", lambdaapi.Service, &lambdaapi.CreateAliasRequest{FunctionName: new("f"), Name: new("live"), FunctionVersion: new("1"),
		RoutingConfig: &lambdaapi.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{"2": 1.5}}}, "ValidationException",
		`1 validation error detected: Value '{2=1.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1, Member must have value greater than or equal to 0, Member must not be null]`)
}

func TestAnErrorStaysShortWhateverIsWrong(t *testing.T) {
	in := create(func(in *lambdaapi.CreateFunctionRequest) {
		in.Description = new(strings.Repeat("ü", 1<<20))
		in.Role = new(strings.Repeat("x", 1<<20))
		in.Layers = make([]string, 1<<16)
		in.FileSystemConfigs = make([]lambdaapi.FileSystemConfig, 1000)
	})
	err := lambdaapi.Service.Check(in)
	if err == nil {
		t.Fatal("no error")
	}
	if n := len(err.Error()); n > 32<<10 {
		t.Errorf("the error has %d bytes", n)
	}
	// Two of the role, one each of description, layers and the number of file
	// systems, and of each of those its ARN and path.
	if !strings.HasPrefix(err.Error(), "ValidationException: 2005 validation errors detected: ") {
		t.Errorf("error %.200s, want all violations counted", err)
	}
}

func TestPatternsAreTriedOnABoundedNumberOfBytes(t *testing.T) {
	layer := "arn:aws:lambda:us-east-1:123456789012:layer:" + strings.Repeat("a", 1900) + ":1"
	few := create(func(in *lambdaapi.CreateFunctionRequest) { in.Layers = slices.Repeat([]string{layer}, 1000) })
	if err := lambdaapi.Service.Check(few); err != nil {
		t.Errorf("2 MB: %.200s", err)
	}
	many := create(func(in *lambdaapi.CreateFunctionRequest) { in.Layers = slices.Repeat([]string{layer}, 3000) })
	if err := lambdaapi.Service.Check(many); err == nil {
		t.Error("6 MB were matched")
	}
}

func TestAWrongAliasNameIsRefused(t *testing.T) {
	for name, valid := range map[string]bool{"live": true, "v1": true, "1v": true, "-": true, "1": false, "007": false, "": false, "a.b": false, "$LATEST": false} {
		err := lambdaapi.Service.Check(&lambdaapi.CreateAliasRequest{FunctionName: new("f"), Name: &name, FunctionVersion: new("1")})
		if (err == nil) != valid {
			t.Errorf("alias %q: %v, want valid %v", name, err, valid)
		}
	}
}
