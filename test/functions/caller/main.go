// Command caller is a function that makes the AWS calls that its event names, with its own role
// through its environment's way back, and answers what came of each.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	lambdaclient "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

func handle(ctx context.Context, event struct{ Role string }) (map[string]string, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	answers := map[string]string{}
	record := func(name, good string, err error) {
		if fault, ok := errors.AsType[smithy.APIError](err); ok {
			good = fault.ErrorCode()
		} else if err != nil {
			good = fmt.Sprint("no answer: ", err)
		}
		answers[name] = good
	}
	who, err := sts.NewFromConfig(settings).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err == nil {
		record("GetCallerIdentity", *who.Arn, nil)
	} else {
		record("GetCallerIdentity", "", err)
	}
	_, err = iam.NewFromConfig(settings).GetRole(ctx, &iam.GetRoleInput{RoleName: &event.Role})
	record("GetRole", "ok", err)
	_, err = lambdaclient.NewFromConfig(settings).ListFunctions(ctx, &lambdaclient.ListFunctionsInput{})
	record("ListFunctions", "ok", err)
	return answers, nil
}

func main() { lambda.Start(handle) }
