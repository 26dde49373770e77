package control

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// A subject says which resource an operation is about.
type subject uint8

const (
	anything         subject = iota // "*": the operation has no resource, or none before it is done
	someFunction                    // the function FunctionName, without its qualifier
	someVersion                     // the same with its qualifier, if there is one
	someLayer                       // LayerName
	someLayerVersion                // LayerName and VersionNumber
	someMapping                     // UUID, an event source mapping
	someProvider                    // CapacityProviderName
	namedARN                        // the request holds the ARN itself
)

// subjects holds every operation of the API, built or not, with the resource type of AWS's
// service authorization reference.
var subjects = map[string]subject{
	"CreateFunction": someFunction, "GetFunction": someFunction, "GetFunctionConfiguration": someFunction, "ListFunctions": anything,
	"UpdateFunctionCode": someFunction, "UpdateFunctionConfiguration": someFunction, "DeleteFunction": someFunction,
	"PublishVersion": someFunction, "ListVersionsByFunction": someFunction,
	"CreateAlias": someFunction, "GetAlias": someFunction, "UpdateAlias": someFunction, "DeleteAlias": someFunction, "ListAliases": someFunction,
	"Invoke": someVersion, "InvokeAsync": someVersion, "InvokeWithResponseStream": someVersion,
	"ListTags": namedARN, "TagResource": namedARN, "UntagResource": namedARN, "GetAccountSettings": anything,

	"ListLayers": anything, "ListLayerVersions": anything, "PublishLayerVersion": someLayer, "GetLayerVersion": someLayerVersion,
	"GetLayerVersionByArn": namedARN, "DeleteLayerVersion": someLayerVersion, "AddLayerVersionPermission": someLayerVersion,
	"RemoveLayerVersionPermission": someLayerVersion, "GetLayerVersionPolicy": someLayerVersion,

	"CreateEventSourceMapping": anything, "GetEventSourceMapping": someMapping, "UpdateEventSourceMapping": someMapping,
	"DeleteEventSourceMapping": someMapping, "ListEventSourceMappings": anything,

	"CreateFunctionUrlConfig": someFunction, "GetFunctionUrlConfig": someFunction, "UpdateFunctionUrlConfig": someFunction,
	"DeleteFunctionUrlConfig": someFunction, "ListFunctionUrlConfigs": someFunction,

	"PutFunctionConcurrency": someFunction, "GetFunctionConcurrency": someFunction, "DeleteFunctionConcurrency": someFunction,
	"PutProvisionedConcurrencyConfig": someVersion, "GetProvisionedConcurrencyConfig": someVersion,
	"DeleteProvisionedConcurrencyConfig": someVersion, "ListProvisionedConcurrencyConfigs": someFunction,

	"AddPermission": someFunction, "RemovePermission": someFunction, "GetPolicy": someFunction,
	"PutResourcePolicy": namedARN, "GetResourcePolicy": namedARN, "DeleteResourcePolicy": namedARN,

	"CreateCodeSigningConfig": anything, "GetCodeSigningConfig": namedARN, "UpdateCodeSigningConfig": namedARN,
	"DeleteCodeSigningConfig": namedARN, "ListCodeSigningConfigs": anything, "ListFunctionsByCodeSigningConfig": namedARN,
	"PutFunctionCodeSigningConfig": someFunction, "GetFunctionCodeSigningConfig": someFunction, "DeleteFunctionCodeSigningConfig": someFunction,

	"PutFunctionEventInvokeConfig": someFunction, "UpdateFunctionEventInvokeConfig": someFunction, "GetFunctionEventInvokeConfig": someFunction,
	"DeleteFunctionEventInvokeConfig": someFunction, "ListFunctionEventInvokeConfigs": someFunction,
	"PutRuntimeManagementConfig": someFunction, "GetRuntimeManagementConfig": someFunction,
	"PutFunctionRecursionConfig": someFunction, "GetFunctionRecursionConfig": someFunction,

	"CheckpointDurableExecution": namedARN, "GetDurableExecution": namedARN, "GetDurableExecutionHistory": namedARN,
	"GetDurableExecutionState": namedARN, "StopDurableExecution": namedARN, "PauseDurableExecution": namedARN,
	"ResumeDurableExecution": namedARN, "DeleteDurableExecution": namedARN, "ListDurableExecutionsByFunction": someFunction,
	"SendDurableExecutionCallbackSuccess": anything, "SendDurableExecutionCallbackFailure": anything, "SendDurableExecutionCallbackHeartbeat": anything,

	"CreateCapacityProvider": someProvider, "GetCapacityProvider": someProvider, "UpdateCapacityProvider": someProvider,
	"DeleteCapacityProvider": someProvider, "ListCapacityProviders": anything, "ListFunctionVersionsByCapacityProvider": someProvider,
	"PutFunctionScalingConfig": someFunction, "GetFunctionScalingConfig": someFunction,
}

// actions names the actions that are not called as their operation.
var actions = map[string]string{
	"Invoke":                   "lambda:InvokeFunction",
	"InvokeWithResponseStream": "lambda:InvokeFunction",
	"GetLayerVersionByArn":     "lambda:GetLayerVersion",
}

// arnMembers are the members that hold the ARN of a namedARN operation.
var arnMembers = []string{"Resource", "ResourceArn", "Arn", "CodeSigningConfigArn", "DurableExecutionArn"}

// Permissions returns what the caller of an operation must be allowed, of every operation of
// the Lambda API: Invoke, which package invoke answers, and the unbuilt ones too. In is the
// operation's input as decoded. A function that the request names in another region or account
// is named so here; the operation refuses it.
//
// iam:PassRole is not here: whether it is needed depends on the function, and is checked by the
// operation through Roles.
func (s *Server) Permissions(operation string, in any, call *api.Call) []api.Permission {
	home := lambda.FunctionReference{Region: s.region, AccountID: call.AccountID}
	if invocation, ok := in.(*lambdaapi.InvocationRequest); ok { // every invocation comes by here
		return []api.Permission{{Action: "lambda:InvokeFunction", Resource: functionARN(home, value(invocation.FunctionName), value(invocation.Qualifier))}}
	}
	action := actions[operation]
	if action == "" {
		action = "lambda:" + operation
	}
	p := api.Permission{Action: action, Resource: resourceOf(subjects[operation], in, home), Context: tagContext(in)}
	if create, ok := in.(*lambdaapi.CreateFunctionRequest); ok && len(create.Tags) > 0 {
		return []api.Permission{p, {Action: "lambda:TagResource", Resource: p.Resource, Context: p.Context}}
	}
	return []api.Permission{p}
}

// resourceOf is the ARN of the operation's resource. "*" is the answer to a request that names
// none: it is allowed only to those who may do the action to everything.
func resourceOf(of subject, in any, home lambda.FunctionReference) string {
	lambdaARN := func(resource string) string {
		return lambda.ARN{Partition: "aws", Service: "lambda", Region: home.Region, AccountID: home.AccountID, Resource: resource}.String()
	}
	named := func(prefix, member string) string {
		name := stringMember(in, member)
		switch {
		case name == "":
			return "*"
		case strings.HasPrefix(name, "arn:"):
			return name
		}
		return lambdaARN(prefix + name)
	}
	switch of {
	case someFunction:
		return unqualifiedARN(home, stringMember(in, "FunctionName"))
	case someVersion:
		return functionARN(home, stringMember(in, "FunctionName"), stringMember(in, "Qualifier"))
	case someLayer:
		return named("layer:", "LayerName")
	case someLayerVersion:
		if layer := named("layer:", "LayerName"); layer != "*" {
			return layer + ":" + numberMember(in, "VersionNumber")
		}
	case someMapping:
		return named("event-source-mapping:", "UUID")
	case someProvider:
		return named("capacity-provider:", "CapacityProviderName")
	case namedARN:
		for _, member := range arnMembers {
			if arn := stringMember(in, member); arn != "" {
				return arn
			}
		}
	}
	return "*"
}

func functionARN(home lambda.FunctionReference, name, qualifier string) string {
	ref, err := parseReference(name, qualifier, home)
	if err != nil {
		return "*" // the operation finds the same error
	}
	return ref.QualifiedARN()
}

func unqualifiedARN(home lambda.FunctionReference, name string) string {
	ref, err := parseReference(name, "", home)
	if err != nil {
		return "*"
	}
	return ref.ARN()
}

// tagContext holds the condition keys of tags that a request sets or removes.
func tagContext(in any) map[string][]string {
	var tags map[string]string
	var keys []string
	switch in := in.(type) {
	case *lambdaapi.CreateFunctionRequest:
		tags = in.Tags
	case *lambdaapi.TagResourceRequest:
		tags = in.Tags
	case *lambdaapi.UntagResourceRequest:
		keys = in.TagKeys
	}
	if tags != nil {
		keys = slices.Sorted(maps.Keys(tags))
	}
	if len(keys) == 0 {
		return nil
	}
	context := map[string][]string{"aws:TagKeys": keys}
	for key, tag := range tags {
		context["aws:RequestTag/"+key] = []string{tag}
	}
	return context
}

// stringMember is the string member of an input, "" if it has none of that name.
func stringMember(in any, name string) string {
	if member, ok := memberOf(in, name).(*string); ok {
		return value(member)
	}
	return ""
}

func numberMember(in any, name string) string {
	if member, ok := memberOf(in, name).(*int64); ok {
		return strconv.FormatInt(value(member), 10)
	}
	return ""
}

func memberOf(in any, name string) any {
	v := reflect.ValueOf(in)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	if member := v.Elem().FieldByName(name); member.IsValid() {
		return member.Interface()
	}
	return nil
}
