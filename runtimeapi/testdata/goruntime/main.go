// Command goruntime is a function on AWS's Go runtime client, for the tests and benchmarks of
// package runtimeapi. What it does depends on the event.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Fail    string          `json:"fail"`  // the text of an error to return
	Panic   string          `json:"panic"` // the text of a panic, which ends the process
	Size    int             `json:"size"`  // of a string to return
	Context bool            `json:"context"`
	Echo    json.RawMessage `json:"echo"`
}

func handle(ctx context.Context, e event) (any, error) {
	switch {
	case e.Fail != "":
		return nil, errors.New(e.Fail)
	case e.Panic != "":
		panic(e.Panic)
	case e.Size > 0:
		return strings.Repeat("x", e.Size-2), nil
	case e.Context:
		known, _ := lambdacontext.FromContext(ctx)
		deadline, _ := ctx.Deadline()
		return map[string]any{"id": known.AwsRequestID, "arn": known.InvokedFunctionArn, "client": known.ClientContext.Custom, "deadline": deadline.UnixMilli()}, nil
	}
	return e.Echo, nil
}

func main() { lambda.Start(handle) }
