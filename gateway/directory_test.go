package gateway

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"cloister/api/lambdaapi"
	"cloister/iam"
	"cloister/iam/sigv4"
	"cloister/iam/sts"
	"cloister/internal/seal"
	"cloister/store/sqlite"
)

// openDirectory opens a house whose identities, keys and policies are real, and returns the configuration of
// its administrator.
func openDirectory(t *testing.T) (*house, aws.Config) {
	t.Helper()
	root, err := seal.NewKey(seal.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(sqlite.Config{Path: filepath.Join(t.TempDir(), "meta.db"), Key: root.Derive("store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	directory, err := iam.New(iam.Config{Store: store, SessionKey: root.Derive("session tokens")})
	if err != nil {
		t.Fatal(err)
	}
	administrator, err := directory.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := openHouse(t, func(c *Config) {
		c.Verifier, err = sigv4.New(sigv4.Config{Region: testRegion, Services: []string{"lambda", "iam", "sts"}, Lookup: directory.Secret})
		if err != nil {
			t.Fatal(err)
		}
		c.Identity = directory
		c.Services = []Service{fakeService{lambdaapi.Service, &fakeLambda{}}, directory.Server(), sts.New(directory)}
	})
	config := h.awsConfig()
	config.Credentials = credentials.NewStaticCredentialsProvider(administrator.AccessKeyID, administrator.SecretAccessKey, "")
	return h, config
}

const trustOfTheAccount = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"*"}}]}`

func TestAChangedPolicyActsOnTheNextCallOfASession(t *testing.T) {
	_, config := openDirectory(t)
	administrator := awsiam.NewFromConfig(config)
	role, err := administrator.CreateRole(t.Context(), &awsiam.CreateRoleInput{RoleName: new("caller"), AssumeRolePolicyDocument: new(trustOfTheAccount)})
	if err != nil {
		t.Fatal(err)
	}
	session, err := awssts.NewFromConfig(config).AssumeRole(t.Context(),
		&awssts.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: new("session")})
	if err != nil {
		t.Fatal(err)
	}
	config.Credentials = credentials.NewStaticCredentialsProvider(
		*session.Credentials.AccessKeyId, *session.Credentials.SecretAccessKey, *session.Credentials.SessionToken)
	invoke := func() string {
		_, err := awslambda.NewFromConfig(config).Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo"), Payload: []byte("{}")})
		if fault, ok := errors.AsType[smithy.APIError](err); ok {
			return fault.ErrorCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return "allowed"
	}

	if got := invoke(); got != "AccessDeniedException" {
		t.Errorf("before there is a policy: %s", got)
	}
	_, err = administrator.PutRolePolicy(t.Context(), &awsiam.PutRolePolicyInput{RoleName: new("caller"), PolicyName: new("invoke"),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"*"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := invoke(); got != "allowed" {
		t.Errorf("with a policy: %s", got)
	}
	if _, err := administrator.DeleteRolePolicy(t.Context(), &awsiam.DeleteRolePolicyInput{RoleName: new("caller"), PolicyName: new("invoke")}); err != nil {
		t.Fatal(err)
	}
	if got := invoke(); got != "AccessDeniedException" {
		t.Errorf("after its removal: %s", got)
	}
	identity, err := awssts.NewFromConfig(config).GetCallerIdentity(t.Context(), nil)
	if err != nil || *identity.Arn != *session.AssumedRoleUser.Arn {
		t.Errorf("identity %+v, %v: it needs no permission", identity, err)
	}
}

func TestQueryServicesNameAForgedTokenAndADenialInTheirWords(t *testing.T) {
	h, config := openDirectory(t)
	code := func(c aws.Config) string {
		_, err := awssts.NewFromConfig(c).GetCallerIdentity(t.Context(), nil)
		fault, ok := errors.AsType[smithy.APIError](err)
		if !ok {
			t.Fatalf("got %v", err)
		}
		return fault.ErrorCode()
	}
	administrator, err := config.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config.Credentials = credentials.NewStaticCredentialsProvider(administrator.AccessKeyID, administrator.SecretAccessKey, "forged")
	if got := code(config); got != "InvalidClientTokenId" {
		t.Errorf("a forged session token: %s", got)
	}
	config.Credentials = h.awsConfig().Credentials
	if got := code(config); got != "InvalidClientTokenId" {
		t.Errorf("an unknown key: %s", got)
	}
}
