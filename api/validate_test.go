package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/kmsapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
	"cloister/api/stsapi"
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
		"Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]",
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
	metric := logsapi.MetricTransformation{MetricName: new("m"), MetricNamespace: new("n"), MetricValue: new("1"), DefaultValue: new(2.0)}
	checkText(t, "logs, structures", logsapi.Service, // AWS shows them so, but with the members in an order that the model does not have
		&logsapi.PutMetricFilterRequest{LogGroupName: new("g"), FilterName: new("f"), FilterPattern: new(""), MetricTransformations: []logsapi.MetricTransformation{metric, metric}}, "InvalidParameterException",
		`1 validation error detected: Value '[MetricTransformation(metricName=m, metricNamespace=n, metricValue=1, defaultValue=2.0, dimensions=null, unit=null), MetricTransformation(metricName=m, metricNamespace=n, metricValue=1, defaultValue=2.0, dimensions=null, unit=null)]' at 'metricTransformations' failed to satisfy constraint: Member must have length less than or equal to 1`)
	checkText(t, "kms, structures with secrets", kmsapi.Service,
		&kmsapi.EncryptRequest{KeyId: new(""), Plaintext: []byte("secret")}, "ValidationException",
		`1 validation error detected: Value '' at 'keyId' failed to satisfy constraint: Member must have length greater than or equal to 1`)
	checkText(t, "logs, a union", logsapi.Service,
		&logsapi.PutIntegrationRequest{IntegrationName: new("i"), IntegrationType: new("OPENSEARCH"), ResourceConfig: &logsapi.ResourceConfig{}}, "InvalidParameterException",
		`1 validation error detected: Value at 'resourceConfig' failed to satisfy constraint: Exactly one member must be set`)
	checkText(t, "a weight", lambdaapi.Service, &lambdaapi.CreateAliasRequest{FunctionName: new("f"), Name: new("live"), FunctionVersion: new("1"),
		RoutingConfig: &lambdaapi.AliasRoutingConfiguration{AdditionalVersionWeights: map[string]float64{"2": 1.5}}}, "ValidationException",
		`1 validation error detected: Value '{2=1.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]`)
}

// TestARecordedRefusalIsOursToTheLetter has answers of AWS's own services, of
// November 2025 and later, to inputs that break a constraint which our models have,
// too.
func TestARecordedRefusalIsOursToTheLetter(t *testing.T) {
	alias := func(weights map[string]float64) *lambdaapi.CreateAliasRequest {
		return &lambdaapi.CreateAliasRequest{FunctionName: new("f"), Name: new("live"), FunctionVersion: new("1"),
			RoutingConfig: &lambdaapi.AliasRoutingConfiguration{AdditionalVersionWeights: weights}}
	}
	long := strings.Repeat("a", 129)
	for _, c := range []struct {
		service *api.Service
		in      any
		want    string // after "1 validation error detected: "
	}{
		{lambdaapi.Service, alias(map[string]float64{"2": 2}), "Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: " +
			"[Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]"},
		{lambdaapi.Service, alias(map[string]float64{"2": -1}), "Value '{2=-1.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: " +
			"[Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not be null]"},
		{lambdaapi.Service, alias(map[string]float64{"$LATEST": 0.5}), "Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must satisfy constraint: " +
			"[Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]"},
		{lambdaapi.Service, create(func(in *lambdaapi.CreateFunctionRequest) {
			in.VpcConfig = &lambdaapi.VpcConfig{SubnetIds: []string{"bad"}}
		}), "Value '[bad]' at 'vpcConfig.subnetIds' failed to satisfy constraint: Member must satisfy constraint: " +
			"[Member must have length less than or equal to 1024, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: subnet-[0-9a-z]*]"},
		{lambdaapi.Service, create(func(in *lambdaapi.CreateFunctionRequest) { in.Architectures = []string{"X86_64"} }),
			"Value '[X86_64]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"},
		{lambdaapi.Service, create(func(in *lambdaapi.CreateFunctionRequest) { in.Architectures = []string{"x86_64", "arm64"} }),
			"Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: Member must have length less than or equal to 1"},
		{lambdaapi.Service, create(func(in *lambdaapi.CreateFunctionRequest) { in.Role = new("r1") }),
			"Value 'r1' at 'role' failed to satisfy constraint: Member must satisfy regular expression pattern: " + rolePattern},
		{lambdaapi.Service, create(func(in *lambdaapi.CreateFunctionRequest) {
			in.SnapStart = &lambdaapi.SnapStart{ApplyOn: new("invalidOption")}
		}), "Value 'invalidOption' at 'snapStart.applyOn' failed to satisfy constraint: Member must satisfy enum value set: [PublishedVersions, None]"},
		{lambdaapi.Service, &lambdaapi.PutProvisionedConcurrencyConfigRequest{FunctionName: new("f"), Qualifier: new("1"), ProvisionedConcurrentExecutions: new(int32(0))},
			"Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{lambdaapi.Service, &lambdaapi.CreateAliasRequest{FunctionName: new("f"), Name: new("2024"), FunctionVersion: new("1")},
			"Value '2024' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"},
		{lambdaapi.Service, &lambdaapi.UntagResourceRequest{Resource: new("arn:aws:lambda:us-east-1:123456789012:function:f")},
			"Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"},
		{stsapi.Service, &stsapi.AssumeRoleRequest{RoleArn: new("arn:aws:iam::123456789012:role/r"), RoleSessionName: new("Session1:2")},
			`Value 'Session1:2' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`},
		{kmsapi.Service, &kmsapi.GenerateRandomRequest{NumberOfBytes: new(int32(1025))},
			"Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024"},
		{kmsapi.Service, &kmsapi.EncryptRequest{KeyId: new("k"), Plaintext: make([]byte, 4097)},
			"Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096"},
		{kmsapi.Service, &kmsapi.TagResourceRequest{KeyId: new("k"), Tags: []kmsapi.Tag{{TagKey: &long, TagValue: new("")}}},
			"Value '" + long + "' at 'tags.1.member.tagKey' failed to satisfy constraint: Member must have length less than or equal to 128"},
		{logsapi.Service, &logsapi.FilterLogEventsRequest{LogGroupName: new("g"), Limit: new(int32(10001))},
			"Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000"},
	} {
		err := c.service.Check(c.in)
		if want := c.service.ValidationCode + ": 1 validation error detected: " + c.want; err == nil || err.Error() != want {
			t.Errorf("%T:\ngot  %v\nwant %s", c.in, err, want)
		}
	}
}

// TestEveryConstraintOfAModelIsChecked breaks each constraint of each member of each
// input alone, as far as one value can: null where it is required, and too small,
// too large, not in the set or not of the pattern where it has a rule.
func TestEveryConstraintOfAModelIsChecked(t *testing.T) {
	for _, service := range services {
		broken := 0
		for _, op := range service.Operations {
			members := op.InputType()
			for i := range members.NumField() {
				field := members.Field(i)
				if field.Name == "_" {
					continue
				}
				path := strings.ToLower(field.Name[:1]) + field.Name[1:]
				if strings.Contains(field.Tag.Get("aws"), ",required") {
					broken++
					wantViolation(t, service, op.New(), "Value null at '"+path+"' failed to satisfy constraint: Member must not be null")
				}
				for value, want := range violationsOf(service.Rules[field.Tag.Get("of")], field.Type) {
					broken++
					in := op.New()
					reflect.ValueOf(in).Elem().Field(i).Set(*value)
					wantViolation(t, service, in, "at '"+path+"' failed to satisfy constraint: "+want)
				}
			}
		}
		t.Logf("%s: %d", service.Name, broken)
		if broken < 15 {
			t.Errorf("%s: only %d constraints were broken", service.Name, broken)
		}
	}
}

func wantViolation(t *testing.T, service *api.Service, in any, want string) {
	t.Helper()
	if err := service.Check(in); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s %T: %v, want %s", service.Name, in, err, want)
	}
}

// violationsOf returns values of a type that break a rule, and what is said of each.
func violationsOf(rule api.Rule, typ reflect.Type) map[*reflect.Value]string {
	all := map[*reflect.Value]string{}
	scalar := typ
	if typ.Kind() == reflect.Pointer {
		scalar = typ.Elem()
	}
	add := func(v reflect.Value, want string) {
		if typ.Kind() == reflect.Pointer {
			p := reflect.New(scalar)
			p.Elem().Set(v)
			v = p
		}
		all[&v] = want
	}
	limits := map[string]*int64{"greater": rule.Min, "less": rule.Max}
	for than, limit := range limits {
		if limit == nil || than == "greater" && *limit <= 0 && !reflect.Zero(scalar).CanInt() || than == "less" && *limit > 1<<20 {
			continue
		}
		beyond := *limit + map[string]int64{"greater": -1, "less": 1}[than]
		switch scalar.Kind() {
		case reflect.String:
			add(reflect.ValueOf(strings.Repeat("a", int(beyond))), fmt.Sprintf("Member must have length %s than or equal to %d", than, *limit))
		case reflect.Slice:
			add(reflect.MakeSlice(scalar, int(beyond), int(beyond)), fmt.Sprintf("Member must have length %s than or equal to %d", than, *limit))
		case reflect.Int32, reflect.Int64:
			add(reflect.ValueOf(beyond).Convert(scalar), fmt.Sprintf("Member must have value %s than or equal to %d", than, *limit))
		}
	}
	if len(rule.Enum) > 0 {
		add(reflect.ValueOf("no such value"), "Member must satisfy enum value set: ["+strings.Join(rule.Enum, ", ")+"]")
	}
	if matches, err := api.CompilePattern(rule.Pattern); rule.Pattern != "" && err == nil && !matches("\x01") {
		add(reflect.ValueOf("\x01"), "Member must satisfy regular expression pattern: "+rule.Pattern)
	}
	return all
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
