package iam

import (
	"strings"
	"testing"
	"time"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/lambda"
)

func TestDenialsAreInAWSsWords(t *testing.T) {
	h := newHouse(t)
	account := h.admin.AccountID
	alice := h.user("alice", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"lambda:*","Resource":"*"},
		{"Effect":"Deny","Action":"lambda:DeleteFunction","Resource":"*"}]}`)
	fn := "arn:aws:lambda:us-east-1:" + account + ":function:f"
	foreign := "arn:aws:lambda:us-east-1:999999999999:function:f"
	for _, c := range []struct {
		action, resource, want string
	}{
		{"lambda:GetFunction", fn, ""},
		{"lambda:ListFunctions", "*", ""},
		{"logs:PutLogEvents", "*", "User: " + alice.ARN + " is not authorized to perform: logs:PutLogEvents on resource: * because no identity-based policy allows the logs:PutLogEvents action"},
		{"lambda:DeleteFunction", fn, "User: " + alice.ARN + " is not authorized to perform: lambda:DeleteFunction on resource: " + fn + " with an explicit deny in an identity-based policy"},
		{"lambda:GetFunction", foreign, "User: " + alice.ARN + " is not authorized to perform: lambda:GetFunction on resource: " + foreign + " because no resource-based policy allows the lambda:GetFunction action"},
		{"sts:AssumeRole", "arn:aws:iam::" + account + ":role/none", "User: " + alice.ARN + " is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::" + account + ":role/none"},
	} {
		err := h.Authorize(t.Context(), alice, Permission{Action: c.action, Resource: c.resource})
		if c.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wantFault(t, c.action, err, "AccessDeniedException", 403, c.want)
	}
}

func TestAnAdministratorMayNothingInAnotherAccount(t *testing.T) {
	h := newHouse(t)
	for resource, want := range map[string]bool{
		"*": true,
		"arn:aws:lambda:us-east-1:" + h.admin.AccountID + ":function:f": true,
		"arn:aws:lambda:us-east-1:999999999999:function:f":              false,
		"arn:aws:iam::999999999999:role/r":                              false,
		"arn:aws:iam::aws:policy/AdministratorAccess":                   true,
		"arn:aws:s3:::bucket":                                           true,
	} {
		if err := h.Authorize(t.Context(), h.administrator(), Permission{Action: "lambda:GetFunction", Resource: resource}); (err == nil) != want {
			t.Errorf("%s: %v", resource, err)
		}
	}
}

func TestPassRoleNeedsPermissionForTheRoleAndTheService(t *testing.T) {
	h := newHouse(t)
	account := h.admin.AccountID
	roleARN := "arn:aws:iam::" + account + ":role/team/worker"
	passing := func(effect, resource, condition string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"` + effect + `","Action":"iam:PassRole","Resource":"` + resource + `"` + condition + `}]}`
	}
	to := func(service string) string {
		return `,"Condition":{"StringEquals":{"iam:PassedToService":"` + service + `"}}`
	}
	alice := h.user("alice", "")
	refusal := "User: " + alice.ARN + " is not authorized to perform: iam:PassRole on resource: " + roleARN + " because no identity-based policy allows the iam:PassRole action"
	for _, c := range []struct {
		name, document, message string
	}{
		{"another action", doc("Allow", "lambda:*", "*"), refusal},
		{"every role", passing("Allow", "*", ""), ""},
		{"this role", passing("Allow", roleARN, ""), ""},
		{"a role of this name without its path", passing("Allow", "arn:aws:iam::"+account+":role/worker", ""), refusal},
		{"roles below the path", passing("Allow", "arn:aws:iam::"+account+":role/team/*", ""), ""},
		{"another role", passing("Allow", "arn:aws:iam::"+account+":role/other", ""), refusal},
		{"to Lambda", passing("Allow", "*", to("lambda.amazonaws.com")), ""},
		{"to another service", passing("Allow", "*", to("ec2.amazonaws.com")), refusal},
		{"everything", doc("Allow", "*", "*"), ""},
		{"a deny", passing("Deny", "*", ""), strings.ReplaceAll(refusal, " because no identity-based policy allows the iam:PassRole action", " with an explicit deny in an identity-based policy")},
	} {
		h.putUserPolicy("alice", c.document)
		err := h.PassRole(t.Context(), callOf(alice), roleARN)
		if c.message == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		wantFault(t, c.name, err, "AccessDeniedException", 403, c.message)
	}
	err := h.PassRole(t.Context(), callOf(h.administrator()), "arn:aws:iam::999999999999:role/worker")
	wantFault(t, "a role of another account", err, "AccessDeniedException", 403, "Cross-account pass role is not allowed.")
	if err := h.PassRole(t.Context(), &api.Call{}, roleARN); err == nil {
		t.Error("nobody may pass a role")
	}
}

func TestAnExecutionRoleMustExistHereAndTrustLambda(t *testing.T) {
	h := newHouse(t)
	account := h.admin.AccountID
	good := *h.role("good", trustLambda).Arn
	edge := *h.role("edge", `{"Service":["edgelambda.amazonaws.com","ec2.amazonaws.com"]}`).Arn
	everybody := *h.role("everybody", `"*"`).Arn
	own := *h.role("own", `{"AWS":"`+account+`"}`).Arn
	both := *h.role("both", trustLambda).Arn
	must[*api.Empty](t)(h.server.UpdateAssumeRolePolicy(as(h.administrator()), &iamapi.UpdateAssumeRolePolicyRequest{RoleName: new("both"), PolicyDocument: new(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":` + trustLambda + `},{"Effect":"Deny","Action":"sts:AssumeRole","Principal":"*"}]}`)}))
	for _, c := range []struct {
		account, role string
		want          bool
	}{
		{account, good, true},
		{account, edge, false},
		{account, everybody, false},
		{account, own, false},
		{account, both, false},
		{account, "arn:aws:iam::" + account + ":role/missing", false},
		{account, "arn:aws:iam::" + account + ":role/path/good", false},
		{account, "arn:aws:iam::" + account + ":role/GOOD", false},
		{account, "arn:aws:iam::" + account + ":user/administrator", false},
		{account, "arn:aws:iam::999999999999:role/good", false},
		{account, "good", false},
		{account, "", false},
		{"999999999999", good, false},
	} {
		err := h.CheckExecutionRole(t.Context(), c.account, c.role)
		if c.want {
			if err != nil {
				t.Errorf("%s: %v", c.role, err)
			}
			continue
		}
		if lambda.KindOf(err) != lambda.InvalidParameter || !strings.HasSuffix(err.Error(), "The role defined for the function cannot be assumed by Lambda.") {
			t.Errorf("%s in %s: %v", c.role, c.account, err)
		}
		_, err = h.RoleCredentials(t.Context(), c.role, "function", time.Hour)
		if c.account == account && lambda.KindOf(err) != lambda.AccessDenied {
			t.Errorf("credentials of %s: %v", c.role, err)
		}
	}
}

func TestTrustThatWasTakenBackEndsNewCredentials(t *testing.T) {
	h := newHouse(t)
	r := h.role("worker", trustLambda)
	if _, err := h.RoleCredentials(t.Context(), *r.Arn, "function", time.Hour); err != nil {
		t.Fatal(err)
	}
	must[*api.Empty](t)(h.server.UpdateAssumeRolePolicy(as(h.administrator()), &iamapi.UpdateAssumeRolePolicyRequest{
		RoleName: r.RoleName, PolicyDocument: new(trusting(`{"Service":"ec2.amazonaws.com"}`))}))
	if _, err := h.RoleCredentials(t.Context(), *r.Arn, "function", time.Hour); lambda.KindOf(err) != lambda.AccessDenied {
		t.Errorf("got %v", err)
	}
}

func TestPermissionsNameTheResource(t *testing.T) {
	h := newHouse(t)
	account := "arn:aws:iam::" + h.admin.AccountID + ":"
	admin := h.administrator()
	must[*iamapi.CreateRoleResponse](t)(h.server.CreateRole(as(admin), &iamapi.CreateRoleRequest{
		RoleName: new("Worker"), Path: new("/team/"), AssumeRolePolicyDocument: new(trusting(trustLambda))}))
	must[*iamapi.CreateUserResponse](t)(h.server.CreateUser(as(admin), &iamapi.CreateUserRequest{UserName: new("Alice"), Path: new("/team/")}))
	session := Caller{admin.AccountID, "arn:aws:sts::" + admin.AccountID + ":assumed-role/Worker/s", "AROA1:s"}
	for _, c := range []struct {
		operation string
		in        any
		caller    Caller
		resource  string
	}{
		{"GetRole", &iamapi.GetRoleRequest{RoleName: new("worker")}, admin, account + "role/team/Worker"},
		{"PutRolePolicy", &iamapi.PutRolePolicyRequest{RoleName: new("Worker")}, admin, account + "role/team/Worker"},
		{"AttachRolePolicy", &iamapi.AttachRolePolicyRequest{RoleName: new("Worker"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}, admin, account + "role/team/Worker"},
		{"DeleteRole", &iamapi.DeleteRoleRequest{RoleName: new("missing")}, admin, account + "role/missing"},
		{"CreateRole", &iamapi.CreateRoleRequest{RoleName: new("worker"), Path: new("/other/")}, admin, account + "role/other/worker"},
		{"CreateRole", &iamapi.CreateRoleRequest{RoleName: new("new")}, admin, account + "role/new"},
		{"ListRoles", &iamapi.ListRolesRequest{}, admin, account + "role/"},
		{"ListRoles", &iamapi.ListRolesRequest{PathPrefix: new("/team/")}, admin, account + "role/team/"},
		{"ListUsers", &iamapi.ListUsersRequest{}, admin, account + "user/"},
		{"GetUser", &iamapi.GetUserRequest{UserName: new("alice")}, admin, account + "user/team/Alice"},
		{"GetUser", &iamapi.GetUserRequest{}, admin, account + "user/administrator"},
		{"GetUser", &iamapi.GetUserRequest{}, session, account + "user/"},
		{"CreateAccessKey", &iamapi.CreateAccessKeyRequest{}, admin, account + "user/administrator"},
		{"CreateUser", &iamapi.CreateUserRequest{UserName: new("bob"), Path: new("/x/")}, admin, account + "user/x/bob"},
		{"CreatePolicy", &iamapi.CreatePolicyRequest{PolicyName: new("p"), Path: new("/x/")}, admin, account + "policy/x/p"},
		{"GetPolicy", &iamapi.GetPolicyRequest{PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")}, admin, "arn:aws:iam::aws:policy/AdministratorAccess"},
		{"PutRolePermissionsBoundary", &iamapi.PutRolePermissionsBoundaryRequest{RoleName: new("Worker")}, admin, account + "role/team/Worker"},
		{"GetAccountSummary", &api.Empty{}, admin, "*"},
		{"CreateGroup", &iamapi.CreateGroupRequest{GroupName: new("g")}, admin, "*"},
	} {
		got := h.server.Permissions(c.operation, c.in, callOf(c.caller))
		if len(got) != 1 || got[0].Action != "iam:"+c.operation || got[0].Resource != c.resource {
			t.Errorf("%s: %+v, want %s", c.operation, got, c.resource)
		}
	}
}

func TestEveryOperationHasAPermission(t *testing.T) {
	h := newHouse(t)
	for _, op := range iamapi.Service.Operations {
		if got := h.server.Permissions(op.Name, op.New(), callOf(h.administrator())); len(got) != 1 || got[0].Resource == "" {
			t.Errorf("%s: %+v", op.Name, got)
		}
	}
}
