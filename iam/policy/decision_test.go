package policy

import (
	"fmt"
	"strings"
	"testing"
)

func mustParse(t testing.TB, kind Kind, document string) *Policy {
	t.Helper()
	p, err := Parse(document, kind)
	if err != nil {
		t.Fatalf("%v: %s", err, document)
	}
	return p
}

// identity wraps statements into a document of an identity policy.
func identity(t testing.TB, statements ...string) *Policy {
	t.Helper()
	return mustParse(t, Identity, `{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`)
}

const (
	fn    = "arn:aws:lambda:us-east-1:123456789012:function:"
	allow = `{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"*"}`
	deny  = `{"Effect":"Deny","Action":"lambda:InvokeFunction","Resource":"*"}`
	admin = `{"Effect":"Allow","Action":"*","Resource":"*"}`
)

func statement1(effect, action, resource string) string {
	return fmt.Sprintf(`{"Effect":%q,"Action":%q,"Resource":%q}`, effect, action, resource)
}

func TestDecisionsOfIdentityPolicies(t *testing.T) {
	invoke := func(name string) (action, resource string) { return "lambda:InvokeFunction", fn + name }
	action, resource := invoke("f")
	for _, c := range []struct {
		name             string
		statements       []string
		action, resource string
		want             Decision
	}{
		// Effects and their order.
		{"nothing is allowed by nobody", []string{statement1("Allow", "s3:GetObject", "*")}, action, resource, ImplicitDeny},
		{"an allow allows", []string{allow}, action, resource, Allow},
		{"a deny denies", []string{deny}, action, resource, ExplicitDeny},
		{"a deny after an allow", []string{allow, deny}, action, resource, ExplicitDeny},
		{"a deny before an allow", []string{deny, allow}, action, resource, ExplicitDeny},
		{"a deny of everything beats an administrator", []string{admin, statement1("Deny", "*", "*")}, action, resource, ExplicitDeny},
		{"a deny of another action", []string{allow, statement1("Deny", "lambda:GetFunction", "*")}, action, resource, Allow},
		{"a deny of another resource", []string{allow, statement1("Deny", "lambda:InvokeFunction", fn+"g")}, action, resource, Allow},
		{"a narrow deny in a wide allow", []string{admin, statement1("Deny", "lambda:InvokeFunction", fn+"f")}, action, resource, ExplicitDeny},
		{"an administrator", []string{admin}, action, resource, Allow},
		{"an administrator on nothing in particular", []string{admin}, "lambda:ListFunctions", "*", Allow},

		// Actions.
		{"an action regardless of case", []string{statement1("Allow", "LAMBDA:invokefunction", "*")}, action, resource, Allow},
		{"an action that is longer", []string{statement1("Allow", "lambda:InvokeFunction", "*")}, "lambda:InvokeFunctionUrl", resource, ImplicitDeny},
		{"an action that is shorter", []string{statement1("Allow", "lambda:InvokeFunctionUrl", "*")}, action, resource, ImplicitDeny},
		{"all actions of a service", []string{statement1("Allow", "lambda:*", "*")}, action, resource, Allow},
		{"all actions of another service", []string{statement1("Allow", "logs:*", "*")}, action, resource, ImplicitDeny},
		{"all actions of a service with a longer name", []string{statement1("Allow", "lambda:*", "*")}, "lambda-x:Go", resource, ImplicitDeny},
		{"actions with a prefix", []string{statement1("Allow", "lambda:Invoke*", "*")}, action, resource, Allow},
		{"actions with another prefix", []string{statement1("Allow", "lambda:Get*", "*")}, action, resource, ImplicitDeny},
		{"actions with a suffix", []string{statement1("Allow", "lambda:*Function", "*")}, action, resource, Allow},
		{"actions with another suffix", []string{statement1("Allow", "lambda:*Functions", "*")}, action, resource, ImplicitDeny},
		{"actions with a middle", []string{statement1("Allow", "lambda:*ke*", "*")}, action, resource, Allow},
		{"actions with a question mark", []string{statement1("Allow", "lambda:?nvokeFunction", "*")}, action, resource, Allow},
		{"a question mark is not nothing", []string{statement1("Allow", "lambda:InvokeFunction?", "*")}, action, resource, ImplicitDeny},
		{"a question mark is not two", []string{statement1("Allow", "lambda:?vokeFunction", "*")}, action, resource, ImplicitDeny},
		{"a star is nothing too", []string{statement1("Allow", "lambda:InvokeFunction*", "*")}, action, resource, Allow},
		{"stars and question marks", []string{statement1("Allow", "lambda:*?unc*on", "*")}, action, resource, Allow},
		{"one of several actions", []string{`{"Effect":"Allow","Action":["lambda:GetFunction","lambda:InvokeFunction"],"Resource":"*"}`}, action, resource, Allow},
		{"none of several actions", []string{`{"Effect":"Allow","Action":["lambda:GetFunction","lambda:ListFunctions"],"Resource":"*"}`}, action, resource, ImplicitDeny},

		// NotAction.
		{"all but one action", []string{`{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`}, action, resource, Allow},
		{"all but this action", []string{`{"Effect":"Allow","NotAction":"lambda:Invoke*","Resource":"*"}`}, action, resource, ImplicitDeny},
		{"all but several actions", []string{`{"Effect":"Allow","NotAction":["iam:*","lambda:*"],"Resource":"*"}`}, action, resource, ImplicitDeny},
		{"deny all but one action", []string{allow, `{"Effect":"Deny","NotAction":"lambda:InvokeFunction","Resource":"*"}`}, action, resource, Allow},
		{"deny all but another action", []string{allow, `{"Effect":"Deny","NotAction":"lambda:GetFunction","Resource":"*"}`}, action, resource, ExplicitDeny},

		// Resources.
		{"the resource itself", []string{statement1("Allow", "lambda:*", fn+"f")}, action, resource, Allow},
		{"another resource", []string{statement1("Allow", "lambda:*", fn+"g")}, action, resource, ImplicitDeny},
		{"a resource is case-sensitive", []string{statement1("Allow", "lambda:*", fn+"F")}, action, resource, ImplicitDeny},
		{"a resource that is longer", []string{statement1("Allow", "lambda:*", fn+"f")}, action, fn + "ff", ImplicitDeny},
		{"an alias of the resource", []string{statement1("Allow", "lambda:*", fn+"f")}, action, fn + "f:prod", ImplicitDeny},
		{"any alias of the resource", []string{statement1("Allow", "lambda:*", fn+"f:*")}, action, fn + "f:prod", Allow},
		{"any alias does not cover the function", []string{statement1("Allow", "lambda:*", fn+"f:*")}, action, resource, ImplicitDeny},
		{"a prefix of names", []string{statement1("Allow", "lambda:*", fn+"team-*")}, action, fn + "team-a", Allow},
		{"a prefix of names covers aliases", []string{statement1("Allow", "lambda:*", fn+"team-*")}, action, fn + "team-a:prod", Allow},
		{"a prefix of names, another name", []string{statement1("Allow", "lambda:*", fn+"team-*")}, action, fn + "tea", ImplicitDeny},
		{"a question mark in a name", []string{statement1("Allow", "lambda:*", fn+"team-?")}, action, fn + "team-a", Allow},
		{"a question mark for two", []string{statement1("Allow", "lambda:*", fn+"team-?")}, action, fn + "team-ab", ImplicitDeny},
		{"any region", []string{statement1("Allow", "lambda:*", "arn:aws:lambda:*:123456789012:function:f")}, action, resource, Allow},
		{"another region", []string{statement1("Allow", "lambda:*", "arn:aws:lambda:eu-*:123456789012:function:f")}, action, resource, ImplicitDeny},
		{"any account", []string{statement1("Allow", "lambda:*", "arn:aws:lambda:us-east-1:*:function:f")}, action, resource, Allow},
		{"another account", []string{statement1("Allow", "lambda:*", "arn:aws:lambda:us-east-1:999999999999:function:*")}, action, resource, ImplicitDeny},
		{"any partition", []string{statement1("Allow", "lambda:*", "arn:*:lambda:us-east-1:123456789012:function:f")}, action, resource, Allow},
		{"every field a star", []string{statement1("Allow", "lambda:*", "arn:aws:lambda:*:*:*")}, action, resource, Allow},
		{"fewer fields, completed", []string{statement1("Allow", "*", "arn:aws:lambda")}, action, resource, Allow},
		{"fewer fields of another service", []string{statement1("Allow", "*", "arn:aws:logs")}, action, resource, ImplicitDeny},
		{"fewer fields of another region", []string{statement1("Allow", "*", "arn:aws:lambda:eu-west-1")}, action, resource, ImplicitDeny},
		{"a star at the end of a field reaches on", []string{statement1("Allow", "*", "arn:aws:lambda:us-east-1:*")}, action, resource, Allow},
		{"a kind of resource", []string{statement1("Allow", "*", "arn:aws:lambda:us-east-1:123456789012:layer:*")}, action, resource, ImplicitDeny},
		{"a path below", []string{statement1("Allow", "iam:PassRole", "arn:aws:iam::123456789012:role/service/*")}, "iam:PassRole", "arn:aws:iam::123456789012:role/service/deep/r", Allow},
		{"a path beside", []string{statement1("Allow", "iam:PassRole", "arn:aws:iam::123456789012:role/service/*")}, "iam:PassRole", "arn:aws:iam::123456789012:role/r", ImplicitDeny},
		{"a resource for an action on nothing in particular", []string{statement1("Allow", "lambda:ListFunctions", fn+"*")}, "lambda:ListFunctions", "*", ImplicitDeny},
		{"one of several resources", []string{`{"Effect":"Allow","Action":"lambda:*","Resource":["` + fn + `g","` + fn + `f"]}`}, action, resource, Allow},
		{"none of several resources", []string{`{"Effect":"Allow","Action":"lambda:*","Resource":["` + fn + `g","` + fn + `h"]}`}, action, resource, ImplicitDeny},
		{"a star in a request is no wildcard", []string{statement1("Allow", "lambda:*", fn+"f")}, action, fn + "*", ImplicitDeny},

		// NotResource.
		{"all but another resource", []string{`{"Effect":"Allow","Action":"lambda:*","NotResource":"` + fn + `g"}`}, action, resource, Allow},
		{"all but this resource", []string{`{"Effect":"Allow","Action":"lambda:*","NotResource":"` + fn + `f"}`}, action, resource, ImplicitDeny},
		{"deny all but this resource", []string{allow, `{"Effect":"Deny","Action":"lambda:*","NotResource":"` + fn + `f"}`}, action, resource, Allow},
		{"deny all but another resource", []string{allow, `{"Effect":"Deny","Action":"lambda:*","NotResource":"` + fn + `g"}`}, action, resource, ExplicitDeny},
		{"neither action nor resource of a statement", []string{`{"Effect":"Allow","NotAction":"iam:*","NotResource":"` + fn + `secret"}`}, action, resource, Allow},
		{"neither, but the resource is", []string{`{"Effect":"Allow","NotAction":"iam:*","NotResource":"` + fn + `f"}`}, action, resource, ImplicitDeny},

		// Statements do not lend each other their parts.
		{"the action of one and the resource of another", []string{statement1("Allow", "lambda:InvokeFunction", fn+"g"), statement1("Allow", "lambda:GetFunction", fn+"f")}, action, resource, ImplicitDeny},
		{"a single statement that is no array", nil, action, resource, Allow},
	} {
		var p *Policy
		if c.statements == nil {
			p = mustParse(t, Identity, `{"Version":"2012-10-17","Id":"x","Statement":`+allow+`}`)
		} else {
			p = identity(t, c.statements...)
		}
		if got := Evaluate(&Request{Action: c.action, Resource: c.resource}, p); got != c.want {
			t.Errorf("%s: %s on %s is %v, want %v", c.name, c.action, c.resource, got, c.want)
		}
	}
}

func TestPoliciesCountTogether(t *testing.T) {
	a, d, other := identity(t, allow), identity(t, deny), identity(t, statement1("Allow", "s3:*", "*"))
	r := &Request{Action: "lambda:InvokeFunction", Resource: fn + "f"}
	for _, c := range []struct {
		policies []*Policy
		want     Decision
	}{
		{nil, ImplicitDeny},
		{[]*Policy{other}, ImplicitDeny},
		{[]*Policy{other, a}, Allow},
		{[]*Policy{a, other}, Allow},
		{[]*Policy{a, d}, ExplicitDeny},
		{[]*Policy{d, a, other}, ExplicitDeny},
	} {
		if got := Evaluate(r, c.policies...); got != c.want {
			t.Errorf("%d policies: %v, want %v", len(c.policies), got, c.want)
		}
	}
}

// The principals that the decisions about trust are made for.
var (
	alice   = Principal{AccountID: "123456789012", ARN: "arn:aws:iam::123456789012:user/alice", Named: known}
	builder = Principal{AccountID: "123456789012", ARN: "arn:aws:iam::123456789012:role/builder",
		Session: "arn:aws:sts::123456789012:assumed-role/builder/ci", Named: known}
	stranger = Principal{AccountID: "999999999999", ARN: "arn:aws:iam::999999999999:user/alice", Named: known}
	lambda   = Principal{Service: "lambda.amazonaws.com"}
)

func known(string) bool { return true }

func TestDecisionsOfTrustPolicies(t *testing.T) {
	for _, c := range []struct {
		name      string
		principal string // of a statement that allows
		denied    string // of a statement that denies, if any
		who       Principal
		want      Decision
	}{
		{"the service", `{"Service":"lambda.amazonaws.com"}`, "", lambda, Allow},
		{"one of several services", `{"Service":["edge.amazonaws.com","lambda.amazonaws.com"]}`, "", lambda, Allow},
		{"another service", `{"Service":"ec2.amazonaws.com"}`, "", lambda, ImplicitDeny},
		{"everybody is no service", `"*"`, "", lambda, ImplicitDeny},
		{"everybody's account is no service", `{"AWS":"*"}`, "", lambda, ImplicitDeny},
		{"the account is no service", `{"AWS":"123456789012"}`, "", lambda, ImplicitDeny},
		{"a user is no service", `{"Service":"lambda.amazonaws.com"}`, "", alice, ImplicitDeny},
		{"a service denied", `{"Service":"lambda.amazonaws.com"}`, `{"Service":"lambda.amazonaws.com"}`, lambda, ExplicitDeny},
		{"a deny of everybody covers services", `{"Service":"lambda.amazonaws.com"}`, `"*"`, lambda, ExplicitDeny},
		{"a deny of the account spares services", `{"Service":"lambda.amazonaws.com"}`, `{"AWS":"123456789012"}`, lambda, Allow},

		{"the user", `{"AWS":"arn:aws:iam::123456789012:user/alice"}`, "", alice, Allow},
		{"another user", `{"AWS":"arn:aws:iam::123456789012:user/bob"}`, "", alice, ImplicitDeny},
		{"the same name in another account", `{"AWS":"arn:aws:iam::123456789012:user/alice"}`, "", stranger, ImplicitDeny},
		{"the role behind a session", `{"AWS":"arn:aws:iam::123456789012:role/builder"}`, "", builder, Allow},
		{"the session", `{"AWS":"arn:aws:sts::123456789012:assumed-role/builder/ci"}`, "", builder, Allow},
		{"another session of the role", `{"AWS":"arn:aws:sts::123456789012:assumed-role/builder/cd"}`, "", builder, ImplicitDeny},
		{"one of several", `{"AWS":["arn:aws:iam::123456789012:user/bob","arn:aws:iam::123456789012:user/alice"],"Service":"lambda.amazonaws.com"}`, "", alice, Allow},

		{"the account by its root", `{"AWS":"arn:aws:iam::123456789012:root"}`, "", alice, Delegated},
		{"the account by its number", `{"AWS":"123456789012"}`, "", builder, Delegated},
		{"another account", `{"AWS":"arn:aws:iam::999999999999:root"}`, "", alice, ImplicitDeny},
		{"everybody", `"*"`, "", stranger, Delegated},
		{"everybody of AWS", `{"AWS":"*"}`, "", alice, Delegated},
		{"the user as well as the account", `{"AWS":["123456789012","arn:aws:iam::123456789012:user/alice"]}`, "", alice, Allow},

		{"the user denied", `{"AWS":"123456789012"}`, `{"AWS":"arn:aws:iam::123456789012:user/alice"}`, alice, ExplicitDeny},
		{"the role denied denies its sessions", `{"AWS":"arn:aws:sts::123456789012:assumed-role/builder/ci"}`, `{"AWS":"arn:aws:iam::123456789012:role/builder"}`, builder, ExplicitDeny},
		{"the account denied", `{"AWS":"arn:aws:iam::123456789012:user/alice"}`, `{"AWS":"arn:aws:iam::123456789012:root"}`, alice, ExplicitDeny},
		{"another user denied", `{"AWS":"arn:aws:iam::123456789012:user/alice"}`, `{"AWS":"arn:aws:iam::123456789012:user/bob"}`, alice, Allow},
	} {
		document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":` + c.principal + `}`
		if c.denied != "" {
			document += `,{"Effect":"Deny","Action":"sts:AssumeRole","Principal":` + c.denied + `}`
		}
		p := mustParse(t, Trust, document+`]}`)
		if got := Evaluate(&Request{Action: "sts:AssumeRole", Principal: c.who}, p); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestATrustedNameThatSomebodyElseTookIsNotTrusted(t *testing.T) {
	p := mustParse(t, Trust, `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::123456789012:user/alice"}}}`)
	if got := p.Principals(); len(got) != 1 || got[0] != alice.ARN {
		t.Fatalf("principals %q", got)
	}
	impostor := alice
	impostor.Named = func(string) bool { return false }
	if got := Evaluate(&Request{Action: "sts:AssumeRole", Principal: impostor}, p); got != ImplicitDeny {
		t.Errorf("got %v", got)
	}
}

func TestATrustPolicyIsAboutItsActionsOnly(t *testing.T) {
	p := mustParse(t, Trust, `{"Version":"2008-10-17","Statement":{"Effect":"Allow","Action":"sts:TagSession","Principal":{"Service":"lambda.amazonaws.com"}}}`)
	if got := Evaluate(&Request{Action: "sts:AssumeRole", Principal: lambda}, p); got != ImplicitDeny {
		t.Errorf("got %v", got)
	}
}

func TestDecisionsOfConditions(t *testing.T) {
	context := func(key string) []string {
		return map[string][]string{
			"aws:username":        {"Alice"},
			"aws:principalarn":    {"arn:aws:iam::123456789012:user/team/Alice"},
			"aws:securetransport": {"true"},
			"iam:passedtoservice": {"lambda.amazonaws.com"},
		}[key]
	}
	for _, c := range []struct {
		condition string
		want      bool
	}{
		{`{"StringEquals":{"aws:username":"Alice"}}`, true},
		{`{"StringEquals":{"AWS:UserName":"Alice"}}`, true},
		{`{"StringEquals":{"aws:username":"alice"}}`, false},
		{`{"StringEquals":{"aws:username":"Al*"}}`, false},
		{`{"StringEquals":{"aws:username":["Bob","Alice"]}}`, true},
		{`{"StringEquals":{"sts:externalid":"x"}}`, false},
		{`{"StringEqualsIfExists":{"sts:externalid":"x"}}`, true},
		{`{"StringEqualsIfExists":{"aws:username":"Bob"}}`, false},
		{`{"StringNotEquals":{"aws:username":"Alice"}}`, false},
		{`{"StringNotEquals":{"aws:username":["Bob","Alice"]}}`, false},
		{`{"StringNotEquals":{"aws:username":["Bob","Carol"]}}`, true},
		{`{"StringNotEquals":{"sts:externalid":"x"}}`, true},
		{`{"StringEqualsIgnoreCase":{"aws:username":"aLICE"}}`, true},
		{`{"StringNotEqualsIgnoreCase":{"aws:username":"aLICE"}}`, false},
		{`{"StringLike":{"aws:username":"Al?c*"}}`, true},
		{`{"StringLike":{"aws:username":"al*"}}`, false},
		{`{"StringNotLike":{"aws:username":"Al*"}}`, false},
		{`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::123456789012:user/team/*"}}`, true},
		{`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/team/*"}}`, true},
		{`{"ArnLike":{"aws:PrincipalArn":"arn:aws:*::123456789012:*"}}`, true},
		{`{"ArnLike":{"aws:PrincipalArn":"arn:aws:*:*:user/team/Alice:*"}}`, false}, // a star does not reach beyond its field
		{`{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::123456789012:user/team/Bob"}}`, false},
		{`{"ArnEquals":{"aws:username":"arn:aws:iam::*:*"}}`, false}, // the value is no ARN
		{`{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/team/*"}}`, false},
		{`{"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::*:role/*"}}`, true},
		{`{"Bool":{"aws:SecureTransport":"true"}}`, true},
		{`{"Bool":{"aws:SecureTransport":true}}`, true},
		{`{"Bool":{"aws:SecureTransport":"False"}}`, false},
		{`{"Null":{"aws:username":"true"}}`, false},
		{`{"Null":{"aws:username":"false"}}`, true},
		{`{"Null":{"sts:externalid":true}}`, true},
		{`{"StringEquals":{"aws:username":"Alice","iam:PassedToService":"lambda.amazonaws.com"}}`, true},
		{`{"StringEquals":{"aws:username":"Alice","iam:PassedToService":"ec2.amazonaws.com"}}`, false},
		{`{"StringEquals":{"aws:username":"Alice"},"Bool":{"aws:SecureTransport":"false"}}`, false},
	} {
		want := map[bool]Decision{true: Allow, false: ImplicitDeny}[c.want]
		p := identity(t, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+c.condition+`}`)
		if got := Evaluate(&Request{Action: "a:b", Resource: "*", Context: context}, p); got != want {
			t.Errorf("%s: %v, want %v", c.condition, got, want)
		}
		want = map[bool]Decision{true: ExplicitDeny, false: Allow}[c.want]
		p = identity(t, admin, `{"Effect":"Deny","Action":"*","Resource":"*","Condition":`+c.condition+`}`)
		if got := Evaluate(&Request{Action: "a:b", Resource: "*", Context: context}, p); got != want {
			t.Errorf("deny with %s: %v, want %v", c.condition, got, want)
		}
	}
}
