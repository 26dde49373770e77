package worker

import (
	"maps"
	"slices"
	"strconv"

	"cloister/lambda"
	"cloister/runtimes"
)

// caBundle is where runtime images hold the certificate authority of the installation.
const caBundle = "/etc/cloister/ca.pem"

// variables composes the environment of a runtime process: the customer's variables, the
// runtime's own, and above both what the platform sets (AWS developer guide, "Defined runtime
// environment variables"). Order is fixed so that two starts are alike.
func variables(spec *lambda.EnvironmentSpec, r runtimes.Runtime, region, runtimeAPI, services string) []string {
	v := &spec.Version
	all := map[string]string{
		"LANG": "en_US.UTF-8",
		"TZ":   ":UTC",
	}
	maps.Copy(all, r.Environment)
	maps.Copy(all, v.Variables)
	maps.Copy(all, map[string]string{
		"_HANDLER":                        v.Handler,
		"AWS_REGION":                      region,
		"AWS_DEFAULT_REGION":              region,
		"AWS_LAMBDA_FUNCTION_NAME":        v.ID.FunctionName,
		"AWS_LAMBDA_FUNCTION_VERSION":     v.ID.Version,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(v.MemoryMiB),
		"AWS_LAMBDA_INITIALIZATION_TYPE":  "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME":       v.LogGroup,
		"AWS_LAMBDA_LOG_STREAM_NAME":      spec.LogStream,
		"AWS_ACCESS_KEY_ID":               spec.Credentials.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY":           spec.Credentials.SecretAccessKey,
		"AWS_SESSION_TOKEN":               spec.Credentials.SessionToken,
		"AWS_LAMBDA_RUNTIME_API":          runtimeAPI,
		"LAMBDA_TASK_ROOT":                "/var/task",
		"LAMBDA_RUNTIME_DIR":              "/var/runtime",
		"_AWS_XRAY_DAEMON_ADDRESS":        "169.254.100.1",
		"_AWS_XRAY_DAEMON_PORT":           "2000",
	})
	for name, value := range map[string]string{ // a function may set these itself
		"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
		"AWS_XRAY_DAEMON_ADDRESS":  "169.254.100.1:2000",
		"AWS_ENDPOINT_URL":         "https://" + services,
		"AWS_CA_BUNDLE":            caBundle,
		"NODE_EXTRA_CA_CERTS":      caBundle,
	} {
		if _, set := all[name]; !set {
			all[name] = value
		}
	}
	if r.ExecutionEnvironment != "" {
		all["AWS_EXECUTION_ENV"] = r.ExecutionEnvironment
	}
	list := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, name+"="+all[name])
	}
	return list
}
