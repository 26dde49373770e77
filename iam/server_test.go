package iam

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/iamapi"
)

func TestTheLifeOfARole(t *testing.T) {
	h := newHouse(t)
	ctx := as(h.administrator())
	trust := `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}]}`
	created := must[*iamapi.CreateRoleResponse](t)(h.server.CreateRole(ctx, &iamapi.CreateRoleRequest{
		RoleName: new("worker"), Path: new("/team/"), Description: new("works"), MaxSessionDuration: new(int32(7200)),
		AssumeRolePolicyDocument: &trust, Tags: []iamapi.Tag{{Key: new("owner"), Value: new("me")}},
	})).Role
	want := &iamapi.Role{
		RoleName: new("worker"), Path: new("/team/"), RoleId: created.RoleId, Arn: new("arn:aws:iam::" + h.admin.AccountID + ":role/team/worker"),
		CreateDate: &h.clock, Description: new("works"), MaxSessionDuration: new(int32(7200)),
		AssumeRolePolicyDocument: new(strings.ReplaceAll(url.QueryEscape(trust), "+", "%20")), Tags: []iamapi.Tag{{Key: new("owner"), Value: new("me")}},
	}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(*created.RoleId, "AROA") || len(*created.RoleId) != 21 {
		t.Errorf("id %s", *created.RoleId)
	}
	want.RoleLastUsed = &iamapi.RoleLastUsed{}
	if diff := cmp.Diff(want, must[*iamapi.GetRoleResponse](t)(h.server.GetRole(ctx, &iamapi.GetRoleRequest{RoleName: new("worker")})).Role); diff != "" {
		t.Errorf("got (-want +got):\n%s", diff)
	}
	want.RoleLastUsed, want.Tags = nil, nil
	listed := must[*iamapi.ListRolesResponse](t)(h.server.ListRoles(ctx, &iamapi.ListRolesRequest{PathPrefix: new("/team/")}))
	if diff := cmp.Diff([]iamapi.Role{*want}, listed.Roles); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	if other := must[*iamapi.ListRolesResponse](t)(h.server.ListRoles(ctx, &iamapi.ListRolesRequest{PathPrefix: new("/other/")})); len(other.Roles) != 0 {
		t.Errorf("listed below another path: %+v", other.Roles)
	}
	must[*iamapi.UpdateRoleResponse](t)(h.server.UpdateRole(ctx, &iamapi.UpdateRoleRequest{RoleName: new("worker"), Description: new("rests"), MaxSessionDuration: new(int32(3600))}))
	updated := must[*iamapi.GetRoleResponse](t)(h.server.GetRole(ctx, &iamapi.GetRoleRequest{RoleName: new("worker")})).Role
	if *updated.Description != "rests" || *updated.MaxSessionDuration != 3600 {
		t.Errorf("updated %+v", updated)
	}

	document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"}]}`
	basic := new("arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole")
	h.putRolePolicy("worker", document)
	must[*api.Empty](t)(h.server.AttachRolePolicy(ctx, &iamapi.AttachRolePolicyRequest{RoleName: new("worker"), PolicyArn: basic}))
	must[*api.Empty](t)(h.server.AttachRolePolicy(ctx, &iamapi.AttachRolePolicyRequest{RoleName: new("worker"), PolicyArn: basic})) // twice is once
	inline := must[*iamapi.GetRolePolicyResponse](t)(h.server.GetRolePolicy(ctx, &iamapi.GetRolePolicyRequest{RoleName: new("worker"), PolicyName: new("inline")}))
	if decoded, err := url.PathUnescape(*inline.PolicyDocument); err != nil || decoded != document {
		t.Errorf("inline policy %q, %v", *inline.PolicyDocument, err)
	}
	names := must[*iamapi.ListRolePoliciesResponse](t)(h.server.ListRolePolicies(ctx, &iamapi.ListRolePoliciesRequest{RoleName: new("worker")}))
	if diff := cmp.Diff([]string{"inline"}, names.PolicyNames); diff != "" || *names.IsTruncated {
		t.Error(diff)
	}
	attached := must[*iamapi.ListAttachedRolePoliciesResponse](t)(h.server.ListAttachedRolePolicies(ctx, &iamapi.ListAttachedRolePoliciesRequest{RoleName: new("worker")}))
	if diff := cmp.Diff([]iamapi.AttachedPolicy{{PolicyName: new("AWSLambdaBasicExecutionRole"), PolicyArn: basic}}, attached.AttachedPolicies); diff != "" {
		t.Error(diff)
	}
	profiles := must[*iamapi.ListInstanceProfilesForRoleResponse](t)(h.server.ListInstanceProfilesForRole(ctx, &iamapi.ListInstanceProfilesForRoleRequest{RoleName: new("worker")}))
	if len(profiles.InstanceProfiles) != 0 {
		t.Errorf("instance profiles %+v", profiles)
	}

	_, err := h.server.DeleteRole(ctx, &iamapi.DeleteRoleRequest{RoleName: new("worker")})
	wantFault(t, "delete with an attachment", err, "DeleteConflict", 409, "Cannot delete entity, must detach all policies first.")
	must[*api.Empty](t)(h.server.DetachRolePolicy(ctx, &iamapi.DetachRolePolicyRequest{RoleName: new("worker"), PolicyArn: basic}))
	_, err = h.server.DeleteRole(ctx, &iamapi.DeleteRoleRequest{RoleName: new("worker")})
	wantFault(t, "delete with a policy", err, "DeleteConflict", 409, "Cannot delete entity, must delete policies first.")
	must[*api.Empty](t)(h.server.DeleteRolePolicy(ctx, &iamapi.DeleteRolePolicyRequest{RoleName: new("worker"), PolicyName: new("inline")}))
	must[*api.Empty](t)(h.server.DeleteRole(ctx, &iamapi.DeleteRoleRequest{RoleName: new("worker")}))
	_, err = h.server.GetRole(ctx, &iamapi.GetRoleRequest{RoleName: new("worker")})
	wantFault(t, "get after delete", err, "NoSuchEntity", 404, "The role with name worker cannot be found.")
	h.restart()
	_, err = h.server.GetRole(ctx, &iamapi.GetRoleRequest{RoleName: new("worker")})
	wantFault(t, "get after delete and restart", err, "NoSuchEntity", 404, "The role with name worker cannot be found.")
}

func TestTheLifeOfAManagedPolicy(t *testing.T) {
	h := newHouse(t)
	ctx := as(h.administrator())
	document := doc("Allow", "s3:*", "*")
	p := must[*iamapi.CreatePolicyResponse](t)(h.server.CreatePolicy(ctx, &iamapi.CreatePolicyRequest{
		PolicyName: new("own"), Path: new("/team/"), PolicyDocument: &document, Description: new("d"), Tags: []iamapi.Tag{{Key: new("k"), Value: new("v")}}})).Policy
	arn := "arn:aws:iam::" + h.admin.AccountID + ":policy/team/own"
	want := &iamapi.Policy{PolicyName: new("own"), PolicyId: p.PolicyId, Arn: &arn, Path: new("/team/"), DefaultVersionId: new("v1"), AttachmentCount: new(int32(0)),
		PermissionsBoundaryUsageCount: new(int32(0)), IsAttachable: new(true), Description: new("d"), CreateDate: &h.clock, UpdateDate: &h.clock,
		Tags: []iamapi.Tag{{Key: new("k"), Value: new("v")}}}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	version := must[*iamapi.GetPolicyVersionResponse](t)(h.server.GetPolicyVersion(ctx, &iamapi.GetPolicyVersionRequest{PolicyArn: &arn, VersionId: new("v1")})).PolicyVersion
	if decoded, err := url.PathUnescape(*version.Document); err != nil || decoded != document || !*version.IsDefaultVersion {
		t.Errorf("version %+v", version)
	}
	h.role("worker", trustLambda)
	must[*api.Empty](t)(h.server.AttachRolePolicy(ctx, &iamapi.AttachRolePolicyRequest{RoleName: new("worker"), PolicyArn: &arn}))
	must[*api.Empty](t)(h.server.AttachUserPolicy(ctx, &iamapi.AttachUserPolicyRequest{UserName: new("administrator"), PolicyArn: &arn}))
	if got := must[*iamapi.GetPolicyResponse](t)(h.server.GetPolicy(ctx, &iamapi.GetPolicyRequest{PolicyArn: &arn})); *got.Policy.AttachmentCount != 2 {
		t.Errorf("%d attachments", *got.Policy.AttachmentCount)
	}
	for scope, want := range map[string]int{"Local": 1, "AWS": len(awsManaged), "All": len(awsManaged) + 1, "": len(awsManaged) + 1} {
		in := &iamapi.ListPoliciesRequest{}
		if scope != "" {
			in.Scope = &scope
		}
		if got := must[*iamapi.ListPoliciesResponse](t)(h.server.ListPolicies(ctx, in)); len(got.Policies) != want {
			t.Errorf("scope %q: %d policies, want %d", scope, len(got.Policies), want)
		}
	}
	if got := must[*iamapi.ListPoliciesResponse](t)(h.server.ListPolicies(ctx, &iamapi.ListPoliciesRequest{OnlyAttached: new(true)})); len(got.Policies) != 2 {
		t.Errorf("%d attached policies, want this one and the administrator's", len(got.Policies))
	}
	_, err := h.server.DeletePolicy(ctx, &iamapi.DeletePolicyRequest{PolicyArn: &arn})
	wantFault(t, "delete while attached", err, "DeleteConflict", 409, "Cannot delete a policy attached to entities.")
	must[*api.Empty](t)(h.server.DetachUserPolicy(ctx, &iamapi.DetachUserPolicyRequest{UserName: new("administrator"), PolicyArn: &arn}))
	must[*api.Empty](t)(h.server.DetachRolePolicy(ctx, &iamapi.DetachRolePolicyRequest{RoleName: new("worker"), PolicyArn: &arn}))
	must[*api.Empty](t)(h.server.DeletePolicy(ctx, &iamapi.DeletePolicyRequest{PolicyArn: &arn}))
	_, err = h.server.GetPolicy(ctx, &iamapi.GetPolicyRequest{PolicyArn: &arn})
	wantFault(t, "get after delete", err, "NoSuchEntity", 404, "Policy "+arn+" was not found.")
}

func TestRefusalsOfTheAPIAreInAWSsWords(t *testing.T) {
	h := newHouse(t)
	ctx, s := as(h.administrator()), h.server
	h.role("worker", trustLambda)
	big := func(n int) *string { return new(doc("Allow", "lambda:"+strings.Repeat("a", n), "*")) }
	must[*iamapi.CreatePolicyResponse](t)(s.CreatePolicy(ctx, &iamapi.CreatePolicyRequest{PolicyName: new("own"), PolicyDocument: new(doc("Allow", "*", "*"))}))
	for _, c := range []struct {
		name    string
		call    func() (any, error)
		code    string
		status  int
		message string
	}{
		{"a role twice", func() (any, error) {
			return s.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: new("Worker"), AssumeRolePolicyDocument: new(trusting(trustLambda))})
		}, "EntityAlreadyExists", 409, "Role with name Worker already exists."},
		{"a role with bad trust", func() (any, error) {
			return s.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: new("r"), AssumeRolePolicyDocument: new("{}")})
		}, "MalformedPolicyDocument", 400, "Syntax errors in policy. (a policy must have statements)"},
		{"trust in nobody we know", func() (any, error) {
			return s.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: new("r"), AssumeRolePolicyDocument: new(trusting(`{"AWS":"arn:aws:iam::` + h.admin.AccountID + `:user/nobody"}`))})
		}, "MalformedPolicyDocument", 400, `Invalid principal in policy: "AWS":"arn:aws:iam::` + h.admin.AccountID + `:user/nobody"`},
		{"trust in a stranger", func() (any, error) {
			return s.UpdateAssumeRolePolicy(ctx, &iamapi.UpdateAssumeRolePolicyRequest{RoleName: new("worker"), PolicyDocument: new(trusting(`{"AWS":"arn:aws:iam::999999999999:role/r"}`))})
		}, "MalformedPolicyDocument", 400, `Invalid principal in policy: "AWS":"arn:aws:iam::999999999999:role/r"`},
		{"trust that is too long", func() (any, error) {
			return s.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: new("r"), AssumeRolePolicyDocument: new(trusting(`{"Service":["` + strings.Repeat("a", 2100) + `.amazonaws.com"]}`))})
		}, "LimitExceeded", 409, "Cannot exceed quota for ACLSizePerRole: 2048"},
		{"a role with a boundary", func() (any, error) {
			return s.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: new("r"), AssumeRolePolicyDocument: new(trusting(trustLambda)), PermissionsBoundary: new("arn:aws:iam::aws:policy/AdministratorAccess")})
		}, "NotImplementedException", 501, "Cloister does not implement permissions boundaries yet; docs/STATUS.md lists what works"},
		{"a tag twice", func() (any, error) {
			return s.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: new("r"), AssumeRolePolicyDocument: new(trusting(trustLambda)), Tags: []iamapi.Tag{{Key: new("a"), Value: new("")}, {Key: new("A"), Value: new("")}}})
		}, "InvalidInput", 400, "Duplicate tag keys found. Please note that Tag keys are case insensitive."},
		{"a reserved tag", func() (any, error) {
			return s.TagRole(ctx, &iamapi.TagRoleRequest{RoleName: new("worker"), Tags: []iamapi.Tag{{Key: new("AWS:x"), Value: new("")}}})
		}, "InvalidInput", 400, "Tag keys that begin with aws: are reserved: AWS:x"},
		{"a missing role", func() (any, error) { return s.DeleteRole(ctx, &iamapi.DeleteRoleRequest{RoleName: new("missing")}) },
			"NoSuchEntity", 404, "The role with name missing cannot be found."},
		{"a policy of a missing role", func() (any, error) {
			return s.PutRolePolicy(ctx, &iamapi.PutRolePolicyRequest{RoleName: new("missing"), PolicyName: new("p"), PolicyDocument: new("{}")})
		}, "NoSuchEntity", 404, "The role with name missing cannot be found."},
		{"a bad policy", func() (any, error) {
			return s.PutRolePolicy(ctx, &iamapi.PutRolePolicyRequest{RoleName: new("worker"), PolicyName: new("p"), PolicyDocument: new(doc("Permit", "*", "*"))})
		}, "MalformedPolicyDocument", 400, "Syntax errors in policy. (Effect must be Allow or Deny)"},
		{"a policy that is too long", func() (any, error) {
			return s.PutRolePolicy(ctx, &iamapi.PutRolePolicyRequest{RoleName: new("worker"), PolicyName: new("p"), PolicyDocument: big(10240)})
		}, "LimitExceeded", 409, "Maximum policy size of 10240 bytes exceeded for role worker"},
		{"a policy of a user that is too long", func() (any, error) {
			return s.PutUserPolicy(ctx, &iamapi.PutUserPolicyRequest{UserName: new("administrator"), PolicyName: new("p"), PolicyDocument: big(2048)})
		}, "LimitExceeded", 409, "Maximum policy size of 2048 bytes exceeded for user administrator"},
		{"a missing inline policy", func() (any, error) {
			return s.GetRolePolicy(ctx, &iamapi.GetRolePolicyRequest{RoleName: new("worker"), PolicyName: new("p")})
		}, "NoSuchEntity", 404, "The role policy with name p cannot be found."},
		{"a missing inline policy of a user", func() (any, error) {
			return s.DeleteUserPolicy(ctx, &iamapi.DeleteUserPolicyRequest{UserName: new("administrator"), PolicyName: new("p")})
		}, "NoSuchEntity", 404, "The user policy with name p cannot be found."},
		{"an unknown policy of AWS", func() (any, error) {
			return s.AttachRolePolicy(ctx, &iamapi.AttachRolePolicyRequest{RoleName: new("worker"), PolicyArn: new("arn:aws:iam::aws:policy/Nothing")})
		}, "NoSuchEntity", 404, "Policy arn:aws:iam::aws:policy/Nothing does not exist or is not attachable."},
		{"what is no policy", func() (any, error) {
			return s.AttachRolePolicy(ctx, &iamapi.AttachRolePolicyRequest{RoleName: new("worker"), PolicyArn: new("arn:aws:iam::aws:role/Nothing-at-all")})
		}, "InvalidInput", 400, "ARN arn:aws:iam::aws:role/Nothing-at-all is not valid."},
		{"detach what is not attached", func() (any, error) {
			return s.DetachRolePolicy(ctx, &iamapi.DetachRolePolicyRequest{RoleName: new("worker"), PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
		}, "NoSuchEntity", 404, "Policy arn:aws:iam::aws:policy/AdministratorAccess was not found."},
		{"a policy of AWS is not ours to delete", func() (any, error) {
			return s.DeletePolicy(ctx, &iamapi.DeletePolicyRequest{PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess")})
		}, "NoSuchEntity", 404, "Policy arn:aws:iam::aws:policy/AdministratorAccess was not found."},
		{"a policy name twice", func() (any, error) {
			return s.CreatePolicy(ctx, &iamapi.CreatePolicyRequest{PolicyName: new("OWN"), Path: new("/x/"), PolicyDocument: new(doc("Allow", "*", "*"))})
		}, "EntityAlreadyExists", 409, "A policy called OWN already exists. Duplicate names are not allowed."},
		{"a managed policy that is too long", func() (any, error) {
			return s.CreatePolicy(ctx, &iamapi.CreatePolicyRequest{PolicyName: new("big"), PolicyDocument: big(6144)})
		}, "LimitExceeded", 409, "Cannot exceed quota for PolicySize: 6144"},
		{"a missing version", func() (any, error) {
			return s.GetPolicyVersion(ctx, &iamapi.GetPolicyVersionRequest{PolicyArn: new("arn:aws:iam::aws:policy/AdministratorAccess"), VersionId: new("v2")})
		}, "NoSuchEntity", 404, "Policy arn:aws:iam::aws:policy/AdministratorAccess version v2 does not exist or is not attachable."},
		{"a user twice", func() (any, error) {
			return s.CreateUser(ctx, &iamapi.CreateUserRequest{UserName: new("Administrator")})
		}, "EntityAlreadyExists", 409, "User with name Administrator already exists."},
		{"a user with keys", func() (any, error) {
			return s.DeleteUser(ctx, &iamapi.DeleteUserRequest{UserName: new("administrator")})
		}, "DeleteConflict", 409, "Cannot delete entity, must delete access keys first."},
		{"a missing user", func() (any, error) { return s.GetUser(ctx, &iamapi.GetUserRequest{UserName: new("nobody")}) },
			"NoSuchEntity", 404, "The user with name nobody cannot be found."},
		{"a missing key", func() (any, error) {
			return s.DeleteAccessKey(ctx, &iamapi.DeleteAccessKeyRequest{AccessKeyId: new("AKIAAAAAAAAAAAAAAAAA")})
		}, "NoSuchEntity", 404, "The Access Key with id AKIAAAAAAAAAAAAAAAAA cannot be found."},
		{"oneself without a user", func() (any, error) {
			return s.GetUser(as(Caller{AccountID: h.admin.AccountID, UserID: "AROA1:s"}), &iamapi.GetUserRequest{})
		}, "ValidationError", 400, "Must specify userName when calling with non-User credentials"},
		{"a bad marker", func() (any, error) { return s.ListRoles(ctx, &iamapi.ListRolesRequest{Marker: new("!")}) },
			"ValidationError", 400, "Invalid Marker."},
		{"an operation that is not built", func() (any, error) { return s.CreateGroup(ctx, &iamapi.CreateGroupRequest{GroupName: new("g")}) },
			"NotImplementedException", 501, "Cloister does not implement iam:CreateGroup yet; docs/STATUS.md lists what works"},
	} {
		_, err := c.call()
		wantFault(t, c.name, err, c.code, c.status, c.message)
	}
	if n := len(h.state.Load().accounts[h.admin.AccountID].roles); n != 1 {
		t.Errorf("%d roles after refusals, want 1", n)
	}
}

func TestQuotasHold(t *testing.T) {
	h := newHouse(t)
	ctx := as(h.administrator())
	h.role("worker", trustLambda)
	for n := range maxAttached + 1 {
		p := must[*iamapi.CreatePolicyResponse](t)(h.server.CreatePolicy(ctx, &iamapi.CreatePolicyRequest{PolicyName: new(fmt.Sprint("p", n)), PolicyDocument: new(doc("Allow", "s3:*", "*"))}))
		_, err := h.server.AttachRolePolicy(ctx, &iamapi.AttachRolePolicyRequest{RoleName: new("worker"), PolicyArn: p.Policy.Arn})
		if n < maxAttached && err != nil {
			t.Fatal(err)
		}
		if n == maxAttached {
			wantFault(t, "one attachment more", err, "LimitExceeded", 409, "Cannot exceed quota for PoliciesPerRole: 10")
		}
	}
	must[*iamapi.CreateAccessKeyResponse](t)(h.server.CreateAccessKey(ctx, &iamapi.CreateAccessKeyRequest{}))
	_, err := h.server.CreateAccessKey(ctx, &iamapi.CreateAccessKeyRequest{})
	wantFault(t, "a third key", err, "LimitExceeded", 409, "Cannot exceed quota for AccessKeysPerUser: 2")
	var tags []iamapi.Tag
	for n := range maxTags {
		tags = append(tags, iamapi.Tag{Key: new(fmt.Sprint("k", n)), Value: new("")})
	}
	must[*api.Empty](t)(h.server.TagRole(ctx, &iamapi.TagRoleRequest{RoleName: new("worker"), Tags: tags}))
	_, err = h.server.TagRole(ctx, &iamapi.TagRoleRequest{RoleName: new("worker"), Tags: []iamapi.Tag{{Key: new("more"), Value: new("")}}})
	wantFault(t, "one tag more", err, "LimitExceeded", 409, "Cannot exceed quota for tags per resource: 50")
}

func TestTagsAreSetAndTaken(t *testing.T) {
	h := newHouse(t)
	ctx := as(h.administrator())
	h.role("worker", trustLambda)
	tag := func(key, value string) iamapi.Tag { return iamapi.Tag{Key: &key, Value: &value} }
	must[*api.Empty](t)(h.server.TagRole(ctx, &iamapi.TagRoleRequest{RoleName: new("worker"), Tags: []iamapi.Tag{tag("a", "1"), tag("b", "2"), tag("c", "3")}}))
	must[*api.Empty](t)(h.server.TagRole(ctx, &iamapi.TagRoleRequest{RoleName: new("worker"), Tags: []iamapi.Tag{tag("A", "4")}}))
	must[*api.Empty](t)(h.server.UntagRole(ctx, &iamapi.UntagRoleRequest{RoleName: new("worker"), TagKeys: []string{"B", "x"}}))
	got := must[*iamapi.ListRoleTagsResponse](t)(h.server.ListRoleTags(ctx, &iamapi.ListRoleTagsRequest{RoleName: new("worker")}))
	if diff := cmp.Diff([]iamapi.Tag{tag("A", "4"), tag("c", "3")}, got.Tags); diff != "" {
		t.Error(diff)
	}
}

func TestListingsGoPageByPage(t *testing.T) {
	h := newHouse(t)
	ctx := as(h.administrator())
	var want []string
	for n := range 7 {
		name := fmt.Sprint("role", n)
		h.role(name, trustLambda)
		want = append(want, name)
	}
	for limit := int32(1); limit <= 8; limit++ {
		var got []string
		in := &iamapi.ListRolesRequest{MaxItems: &limit}
		for {
			out := must[*iamapi.ListRolesResponse](t)(h.server.ListRoles(ctx, in))
			if len(out.Roles) > int(limit) || *out.IsTruncated != (out.Marker != nil) {
				t.Fatalf("limit %d: %d roles, %v, %v", limit, len(out.Roles), *out.IsTruncated, out.Marker)
			}
			for _, r := range out.Roles {
				got = append(got, *r.RoleName)
			}
			if in.Marker = out.Marker; in.Marker == nil {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %d: %s", limit, diff)
		}
	}
}

func TestUsersListTheirOwnKeysWithoutSecrets(t *testing.T) {
	h := newHouse(t)
	alice := h.user("alice", "")
	out := must[*iamapi.ListAccessKeysResponse](t)(h.server.ListAccessKeys(as(alice), &iamapi.ListAccessKeysRequest{}))
	if len(out.AccessKeyMetadata) != 1 || *out.AccessKeyMetadata[0].UserName != "alice" || *out.AccessKeyMetadata[0].Status != "Active" {
		t.Errorf("keys %+v", out)
	}
	u := must[*iamapi.GetUserResponse](t)(h.server.GetUser(as(alice), &iamapi.GetUserRequest{}))
	text, err := json.Marshal([]any{out, u})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range h.state.Load().accounts[alice.AccountID].users["alice"].Keys {
		if strings.Contains(string(text), k.Secret) {
			t.Error("a secret is shown")
		}
	}
	users := must[*iamapi.ListUsersResponse](t)(h.server.ListUsers(as(h.administrator()), &iamapi.ListUsersRequest{}))
	if len(users.Users) != 2 || *users.Users[1].UserName != "alice" {
		t.Errorf("users %+v", users.Users)
	}
}

func TestACallWithoutAnAccountSeesNothing(t *testing.T) {
	h := newHouse(t)
	for _, ctx := range []context.Context{t.Context(), as(Caller{AccountID: "999999999999", UserID: "AIDA1"})} {
		if out, err := h.server.ListUsers(ctx, &iamapi.ListUsersRequest{}); err == nil {
			t.Errorf("got %+v", out)
		}
		if _, err := h.server.CreateUser(ctx, &iamapi.CreateUserRequest{UserName: new("x")}); err == nil {
			t.Error("a user was made")
		}
	}
}
