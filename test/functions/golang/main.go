// Command golang is a function for provided.al2023 that asks, with the credentials of its
// execution role and through its environment's way back, who it is.
package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

type answer struct {
	Greeting string `json:"greeting"`
	Identity string `json:"identity"`
}

func handle(ctx context.Context, event struct {
	Name string `json:"name"`
}) (answer, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return answer{}, err
	}
	who, err := sts.NewFromConfig(settings).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return answer{}, err
	}
	return answer{fmt.Sprintf("Hello, %s, from %s", event.Name, runtime.Version()), *who.Arn}, nil
}

func main() { lambda.Start(handle) }
