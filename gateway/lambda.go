package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// Control is the management half of the Lambda API. Implemented by control.Server.
type Control interface {
	lambdaapi.Server
	Permissions(operation string, in any, call *api.Call) []api.Permission
}

// An Invoker is the data plane. Implemented by invoke.Service.
type Invoker interface {
	Invoke(ctx context.Context, ref lambda.FunctionReference, inv *lambda.Invocation) (*lambda.Result, error)
	Check(ctx context.Context, ref lambda.FunctionReference) error
}

// Lambda joins control plane and data plane to the one service that clients know as "lambda". It
// translates Invoke between the wire shapes and package lambda, so that nothing below knows AWS's headers.
type Lambda struct {
	Control
	invoker Invoker
	region  string
}

// NewLambda returns the service of a region.
func NewLambda(c Control, i Invoker, region string) *Lambda { return &Lambda{c, i, region} }

// API returns the generated service.
func (l *Lambda) API() *api.Service { return lambdaapi.Service }

// Server returns l itself, whose Invoke stands before Control's.
func (l *Lambda) Server() any { return l }

// Invoke runs a function and waits for its answer (RequestResponse), or only checks that it could
// (DryRun). Event is refused as long as there is no durable queue: a 202 would be a lie.
func (l *Lambda) Invoke(ctx context.Context, in *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
	call := api.CallOf(ctx)
	home := lambda.FunctionReference{Region: l.region, AccountID: call.AccountID}
	ref, err := lambda.ParseFunctionReference(stringOf(in.FunctionName), stringOf(in.Qualifier), home)
	if err != nil {
		return nil, err
	}
	if ref.Region != l.region {
		return nil, lambda.Errorf(lambda.NotFound, "invoke", "Functions from '%s' are not reachable in this region ('%s')", ref.Region, l.region)
	}
	if in.DurableExecutionName != nil || in.TenantId != nil {
		return nil, notBuilt("lambda:Invoke with a durable execution name or a tenant id")
	}
	switch stringOf(in.InvocationType) {
	case lambdaapi.InvocationTypeEvent:
		return nil, notBuilt("lambda:Invoke with InvocationType Event")
	case lambdaapi.InvocationTypeDryRun:
		if err := l.invoker.Check(ctx, ref); err != nil {
			return nil, err
		}
		return &lambdaapi.InvocationResponse{StatusCode: new(int32(204))}, nil
	}
	inv, err := invocation(call, ref, in)
	if err != nil {
		return nil, err
	}
	result, err := l.invoker.Invoke(ctx, ref, inv)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.InvocationResponse{StatusCode: new(int32(200)), Payload: result.Payload, ExecutedVersion: &result.ExecutedVersion}
	if result.FunctionError != "" {
		out.FunctionError = &result.FunctionError
	}
	if inv.LogTail {
		out.LogResult = new(base64.StdEncoding.EncodeToString(result.LogTail))
	}
	return out, nil
}

// invocation translates a request that is to be run.
func invocation(call *api.Call, ref lambda.FunctionReference, in *lambdaapi.InvocationRequest) (*lambda.Invocation, error) {
	inv := &lambda.Invocation{
		RequestID:   call.RequestID,
		FunctionARN: ref.QualifiedARN(),
		Payload:     in.Payload,
		TraceID:     call.TraceID,
		LogTail:     stringOf(in.LogType) == lambdaapi.LogTypeTail,
	}
	if text := stringOf(in.ClientContext); text != "" {
		if len(text) > lambda.MaxClientContextBytes {
			return nil, lambda.Errorf(lambda.InvalidPayload, "invoke", "Client context must be no more than %d bytes when base64-encoded", lambda.MaxClientContextBytes)
		}
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil || !json.Valid(decoded) {
			return nil, lambda.Errorf(lambda.InvalidPayload, "invoke", "Client context must be a valid Base64-encoded JSON object.")
		}
		inv.ClientContext = string(decoded)
	}
	return inv, nil
}

func notBuilt(what string) error {
	return &api.Error{Code: "NotImplementedException", Status: 501, Message: "Cloister does not implement " + what + " yet; docs/STATUS.md lists what works"}
}

func stringOf(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
