package iam

import (
	"reflect"
	"strings"

	"cloister/api"
)

// Permissions returns what the caller must be allowed to do for an operation: the action of the operation's
// name on the role, user or policy that the input names, with its path if it exists, and on
// everything for other operations, built or not. In must be the operation's input.
func (s *Server) Permissions(operation string, in any, call *api.Call) []api.Permission {
	return []api.Permission{{Action: "iam:" + operation, Resource: s.directory.resource(operation, reflect.ValueOf(in), call)}}
}

// ownUser are the operations that are about the caller if they name no user.
var ownUser = map[string]bool{
	"GetUser": true, "CreateAccessKey": true, "UpdateAccessKey": true, "DeleteAccessKey": true, "ListAccessKeys": true,
}

// listings are the operations about all resources of a kind below a path.
var listings = map[string]string{"ListRoles": "role", "ListUsers": "user", "ListPolicies": "policy"}

func (d *Directory) resource(operation string, in reflect.Value, call *api.Call) string {
	arn := "arn:aws:iam::" + call.AccountID + ":"
	a := d.state.Load().accounts[call.AccountID]
	if a == nil {
		a = newAccount(call.AccountID)
	}
	if kind, ok := listings[operation]; ok {
		return arn + kind + "/" + strings.TrimPrefix(member(in, "PathPrefix"), "/")
	}
	path := member(in, "Path")
	if path == "" {
		path = "/"
	}
	if name := member(in, "RoleName"); name != "" {
		if r := a.roles[strings.ToLower(name)]; r != nil && operation != "CreateRole" {
			return r.arn
		}
		return arn + "role" + path + name
	}
	name := member(in, "UserName")
	if name == "" && ownUser[operation] {
		if u := a.usersByID[call.CallerID]; u != nil {
			return u.arn
		}
		return arn + "user/"
	}
	if name != "" {
		if u := a.users[strings.ToLower(name)]; u != nil && operation != "CreateUser" {
			return u.arn
		}
		return arn + "user" + path + name
	}
	if policyARN := member(in, "PolicyArn"); policyARN != "" {
		return policyARN
	}
	if operation == "CreatePolicy" {
		return arn + "policy" + path + member(in, "PolicyName")
	}
	return "*"
}

// member returns the text of a member of an input, or "" if it has no such member.
func member(in reflect.Value, name string) string {
	if in.Kind() != reflect.Pointer || in.Elem().Kind() != reflect.Struct {
		return ""
	}
	field := in.Elem().FieldByName(name)
	if !field.IsValid() {
		return ""
	}
	p, _ := field.Interface().(*string)
	return text(p)
}
