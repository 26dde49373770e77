package control

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"cloister/api/lambdaapi"
)

// Limits that are narrower than the model's, which allows for managed instances.
const (
	minMemoryMiB       = 128
	maxMemoryMiB       = 10240
	maxTimeoutSeconds  = 900
	minEphemeralMiB    = 512
	maxEphemeralMiB    = 10240
	maxVariablesBytes  = 4 << 10 // of the variables as compact JSON
	maxTags            = 50
	maxFunctionNameLen = 64 // characters
)

// What a request may set. Any other member that asks for something is refused by refuseUnbuilt,
// also one that a later model adds.
var (
	builtInCreate = []string{"FunctionName", "Runtime", "Role", "Handler", "Code.ZipFile", "Description", "Timeout", "MemorySize", "Publish",
		"Environment", "Tags", "Architectures", "EphemeralStorage", "LoggingConfig.LogGroup"}
	builtInUpdateConfiguration = []string{"FunctionName", "Runtime", "Role", "Handler", "Description", "Timeout", "MemorySize",
		"Environment", "EphemeralStorage", "LoggingConfig.LogGroup", "RevisionId"}
	builtInUpdateCode = []string{"FunctionName", "ZipFile", "ImageUri", "Architectures", "Publish", "DryRun", "RevisionId"}
	builtInPublish    = []string{"FunctionName", "CodeSha256", "Description", "RevisionId"}
)

// defaults are the values of unbuilt members that ask for what a function has anyway.
var defaults = map[string]string{
	"PackageType":             lambdaapi.PackageTypeZip,
	"TracingConfig.Mode":      lambdaapi.TracingModePassThrough,
	"SnapStart.ApplyOn":       lambdaapi.SnapStartApplyOnNone,
	"LoggingConfig.LogFormat": lambdaapi.LogFormatText,
}

// partly are the structures that hold something built, or that clients send empty to say "none".
// Any other is refused by its mere presence.
var partly = []string{"Code", "LoggingConfig", "TracingConfig", "SnapStart", "VpcConfig", "DeadLetterConfig", "ImageConfig"}

// refuseUnbuilt refuses a request (a pointer to its structure) that asks for anything but the
// built members. A member that is absent, empty or false asks for nothing.
func refuseUnbuilt(operation string, in any, built []string) error {
	path := unbuiltMember(reflect.ValueOf(in).Elem(), "", built)
	if path == "" {
		return nil
	}
	hint := ""
	if strings.HasPrefix(path, "Code.S3") || strings.HasPrefix(path, "S3") {
		hint = " (send the package itself as ZipFile)"
	}
	return notBuilt("%s of lambda:%s%s", path, operation, hint)
}

// unbuiltMember returns the path of the first member of the structure v that asks for something
// that is not built, or "".
func unbuiltMember(v reflect.Value, prefix string, built []string) string {
	for i := range v.NumField() {
		path, member := prefix+v.Type().Field(i).Name, v.Field(i)
		if slices.Contains(built, path) {
			continue
		}
		if member.Kind() == reflect.Pointer && member.Type().Elem().Kind() == reflect.Struct {
			if member.IsNil() {
				continue
			}
			if !slices.Contains(partly, path) {
				return path
			}
			if found := unbuiltMember(member.Elem(), path+".", built); found != "" {
				return found
			}
			continue
		}
		if asksForSomething(member) && !isDefault(path, member) {
			return path
		}
	}
	return ""
}

func asksForSomething(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return !v.IsNil() && !v.Elem().IsZero()
	case reflect.Slice, reflect.Map:
		return v.Len() > 0
	}
	return !v.IsZero()
}

func isDefault(path string, member reflect.Value) bool {
	value, ok := member.Interface().(*string)
	return ok && value != nil && defaults[path] != "" && *value == defaults[path]
}

// check refuses settings that Lambda or this installation does not allow.
func (s *Server) check(c content) error {
	switch {
	case c.Runtime == "" || c.Handler == "":
		return invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
	case strings.ContainsFunc(c.Handler, unicode.IsControl):
		return invalid("The handler must not contain control characters.") // it becomes an environment variable
	case c.MemoryMiB < minMemoryMiB:
		return invalid("'MemorySize' value failed to satisfy constraint: Member must have value greater than or equal to %d", minMemoryMiB)
	case c.MemoryMiB > maxMemoryMiB:
		return invalid("'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to %d", maxMemoryMiB)
	case c.TimeoutSeconds < 1:
		return outOfRange(c.TimeoutSeconds, "timeout", "greater", 1)
	case c.TimeoutSeconds > maxTimeoutSeconds:
		return outOfRange(c.TimeoutSeconds, "timeout", "less", maxTimeoutSeconds)
	case c.EphemeralMiB < minEphemeralMiB:
		return outOfRange(c.EphemeralMiB, "ephemeralStorage.size", "greater", minEphemeralMiB)
	case c.EphemeralMiB > maxEphemeralMiB:
		return outOfRange(c.EphemeralMiB, "ephemeralStorage.size", "less", maxEphemeralMiB)
	case c.Architecture != s.architecture:
		return invalid("Architecture %s is not available here: the hosts of this installation are %s.", c.Architecture, s.architecture)
	}
	return checkVariables(c.Variables)
}

// reservedVariables belong to the execution environment (developer guide, "Defined runtime
// environment variables", those marked reserved).
var reservedVariables = []string{
	"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
	"AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
	"AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
	"AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_MAX_CONCURRENCY", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
}

func checkVariables(variables map[string]string) error {
	const refusal = "Lambda was unable to configure your environment variables because the environment variables you have provided "
	var reserved []string
	for name, value := range variables {
		if slices.Contains(reservedVariables, name) {
			reserved = append(reserved, name)
		}
		if strings.ContainsRune(name+value, 0) {
			return invalid("Environment variables must not contain the NUL character.") // no process can receive one
		}
	}
	if len(reserved) > 0 {
		slices.Sort(reserved)
		return invalid("%scontains reserved keys that are currently not supported for modification. Reserved keys used in this request: %s",
			refusal, strings.Join(reserved, ", "))
	}
	if measured := compactJSON(variables); len(measured) > maxVariablesBytes {
		return invalid("%sexceeded the 4KB limit. String measured: %s", refusal, measured)
	}
	return nil
}

// compactJSON is the string whose length Lambda limits.
func compactJSON(variables map[string]string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(variables); err != nil {
		panic("control: variables do not encode: " + err.Error()) // strings always do
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// checkTags refuses tags that a function may not have; their form is the wire layer's business.
func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return invalid("Number of tags exceeds resource tag limit.")
	}
	for key := range tags {
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return invalid("aws: prefixed tag key names are not allowed for external use.")
		}
	}
	return nil
}
