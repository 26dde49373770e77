package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestDocumentsThatAreNotUnderstoodWholeAreRefused(t *testing.T) {
	wrap := func(statement string) string { return `{"Version":"2012-10-17","Statement":[` + statement + `]}` }
	for _, c := range []struct {
		name, document, message string
		kind                    Kind
	}{
		{"not JSON", `not JSON`, "This policy contains invalid Json", Identity},
		{"empty", ``, "This policy contains invalid Json", Identity},
		{"two values", wrap(admin) + `{}`, "This policy contains invalid Json", Identity},
		{"not UTF-8", wrap(`{"Sid":"` + "\xff" + `","Effect":"Allow","Action":"*","Resource":"*"}`), "This policy contains invalid Json", Identity},
		{"an array", `[]`, "Syntax errors in policy. (a policy must be an object)", Identity},
		{"too long", wrap(admin) + strings.Repeat(" ", MaxDocumentBytes), "Syntax errors in policy. (the document is too long)", Identity},
		{"nested deeply", `{"Statement":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + `}`, "Syntax errors in policy. (the document is nested too deeply)", Identity},
		{"an element twice", `{"Version":"2012-10-17","Version":"2012-10-17","Statement":[]}`, `Syntax errors in policy. ("Version" is there twice)`, Identity},
		{"an effect twice", wrap(`{"Effect":"Deny","Effect":"Allow","Action":"*","Resource":"*"}`), `Syntax errors in policy. ("Effect" is there twice)`, Identity},
		{"null", wrap(`null`), "Syntax errors in policy. (null is not allowed)", Identity},

		{"no version", `{"Statement":` + admin + `}`, "Policy document must be version 2012-10-17 or greater.", Identity},
		{"the old version", `{"Version":"2008-10-17","Statement":` + admin + `}`, "Policy document must be version 2012-10-17 or greater.", Identity},
		{"another version", `{"Version":"2012-10-18","Statement":` + admin + `}`, "The policy must contain a valid version string", Identity},
		{"a version that is a number", `{"Version":2012,"Statement":` + admin + `}`, "The policy must contain a valid version string", Identity},
		{"no statements", `{"Version":"2012-10-17"}`, "Syntax errors in policy. (a policy must have statements)", Identity},
		{"an empty list of statements", wrap(``), "Syntax errors in policy. (a policy must have statements)", Identity},
		{"statements in a string", `{"Version":"2012-10-17","Statement":"x"}`, "Syntax errors in policy. (a policy must have statements)", Identity},
		{"a statement that is a string", wrap(`"x"`), "Syntax errors in policy. (a statement must be an object)", Identity},
		{"an unknown element", `{"Version":"2012-10-17","Statements":[]}`, `Syntax errors in policy. (there is no element "Statements")`, Identity},
		{"an element in another case", `{"Version":"2012-10-17","statement":[]}`, `Syntax errors in policy. (there is no element "statement")`, Identity},
		{"an Id that is a number", `{"Version":"2012-10-17","Id":1,"Statement":[]}`, "Syntax errors in policy. (Id must be a string)", Identity},

		{"an unknown effect", wrap(`{"Effect":"Permit","Action":"*","Resource":"*"}`), "Syntax errors in policy. (Effect must be Allow or Deny)", Identity},
		{"an effect in another case", wrap(`{"Effect":"allow","Action":"*","Resource":"*"}`), "Syntax errors in policy. (Effect must be Allow or Deny)", Identity},
		{"no effect", wrap(`{"Action":"*","Resource":"*"}`), "Syntax errors in policy. (a statement must have an Effect)", Identity},
		{"no action", wrap(`{"Effect":"Allow","Resource":"*"}`), "Policy statement must contain actions.", Identity},
		{"no actions in the list", wrap(`{"Effect":"Allow","Action":[],"Resource":"*"}`), "Policy statement must contain actions.", Identity},
		{"Action and NotAction", wrap(`{"Effect":"Allow","Action":"*","NotAction":"iam:*","Resource":"*"}`), "Syntax errors in policy. (a statement must not have both Action and NotAction)", Identity},
		{"an action that is a number", wrap(`{"Effect":"Allow","Action":1,"Resource":"*"}`), `Syntax errors in policy. ("Action" must be a string or an array of strings)`, Identity},
		{"an action in an object", wrap(`{"Effect":"Allow","Action":{"a":"*"},"Resource":"*"}`), `Syntax errors in policy. ("Action" must be a string or an array of strings)`, Identity},
		{"an action without a service", wrap(`{"Effect":"Allow","Action":"Invoke","Resource":"*"}`), "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.", Identity},
		{"an action of any service", wrap(`{"Effect":"Allow","Action":"*:Invoke","Resource":"*"}`), "Vendor * is not valid", Identity},
		{"an action with a space", wrap(`{"Effect":"Allow","Action":"lambda:Invoke Function","Resource":"*"}`), "Syntax errors in policy. (an action must be letters, digits, * and ?)", Identity},
		{"no resource", wrap(`{"Effect":"Allow","Action":"*"}`), "Policy statement must contain resources.", Identity},
		{"no resources in the list", wrap(`{"Effect":"Allow","Action":"*","Resource":[]}`), "Policy statement must contain resources.", Identity},
		{"Resource and NotResource", wrap(`{"Effect":"Allow","Action":"*","Resource":"*","NotResource":"*"}`), "Syntax errors in policy. (a statement must not have both Resource and NotResource)", Identity},
		{"a resource that is no ARN", wrap(`{"Effect":"Allow","Action":"*","Resource":"my-function"}`), `Resource my-function must be in ARN format or "*".`, Identity},
		{"a resource that is hardly an ARN", wrap(`{"Effect":"Allow","Action":"*","Resource":"arn:aws"}`), `Resource arn:aws must be in ARN format or "*".`, Identity},
		{"a resource of another partition", wrap(`{"Effect":"Allow","Action":"*","Resource":"arn:aws-cn:s3:::b"}`), `Partition "aws-cn" is not valid for resource "arn:aws-cn:s3:::b".`, Identity},
		{"a resource with a variable", wrap(`{"Effect":"Deny","Action":"*","Resource":"arn:aws:s3:::${aws:username}"}`), "Cloister does not evaluate policy variables yet, so this policy would not do what it says: arn:aws:s3:::${aws:username}", Identity},
		{"a principal", wrap(`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`), "Policy document should not specify a principal.", Identity},
		{"everybody but a principal", wrap(`{"Effect":"Allow","NotPrincipal":"*","Action":"*","Resource":"*"}`), "Policy document should not specify NotPrincipal: it is for resource policies only.", Identity},
		{"a Sid with a dash", wrap(`{"Sid":"a-b","Effect":"Allow","Action":"*","Resource":"*"}`), "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*", Identity},
		{"a Sid twice", wrap(`{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"}`), "Statement IDs (SID) in a single policy must be unique.", Identity},
		{"an unknown element of a statement", wrap(`{"Effect":"Allow","Action":"*","Resource":"*","Conditions":{}}`), `Syntax errors in policy. (a statement has no element "Conditions")`, Identity},

		{"an unknown operator", conditioned(`{"StringIs":{"aws:username":"a"}}`), `Cloister does not evaluate the condition operator "StringIs" yet, so this policy would not do what it says.`, Identity},
		{"an operator that is not built", conditioned(`{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`), `Cloister does not evaluate the condition operator "IpAddress" yet, so this policy would not do what it says.`, Identity},
		{"a set operator", conditioned(`{"ForAllValues:StringEquals":{"aws:TagKeys":"a"}}`), `Cloister does not evaluate the condition operator "ForAllValues:StringEquals" yet, so this policy would not do what it says.`, Identity},
		{"Null if exists", conditioned(`{"NullIfExists":{"aws:username":"true"}}`), `Cloister does not evaluate the condition operator "NullIfExists" yet, so this policy would not do what it says.`, Identity},
		{"a key that nobody gives", conditioned(`{"StringEquals":{"aws:SourceVpc":"a"}}`), `Cloister does not evaluate the condition key "aws:SourceVpc" yet, so this policy would not do what it says.`, Identity},
		{"a key without a service", conditioned(`{"StringEquals":{"username":"a"}}`), "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.", Identity},
		{"a key in two cases", conditioned(`{"StringEquals":{"aws:username":"a","aws:UserName":"b"}}`), `Syntax errors in policy. ("aws:UserName" is there twice)`, Identity},
		{"a condition without a value", conditioned(`{"StringEquals":{"aws:username":[]}}`), `Syntax errors in policy. ("aws:username" must have a value)`, Identity},
		{"a condition without a key", conditioned(`{"StringEquals":{}}`), "Syntax errors in policy. (a condition operator must hold an object that is not empty)", Identity},
		{"a condition that is a string", conditioned(`"x"`), "Syntax errors in policy. (Condition must be an object)", Identity},
		{"a condition with a variable", conditioned(`{"StringEquals":{"aws:username":"${aws:userid}"}}`), "Cloister does not evaluate policy variables yet, so this policy would not do what it says: ${aws:userid}", Identity},
		{"a Bool that is neither", conditioned(`{"Bool":{"aws:SecureTransport":"yes"}}`), "Syntax errors in policy. (a Bool or Null condition must be true or false)", Identity},
		{"an ArnLike that is no ARN", conditioned(`{"ArnLike":{"aws:PrincipalArn":"*"}}`), `Syntax errors in policy. ("*" is not an ARN)`, Identity},

		{"trust with a resource", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"`), "Has prohibited field Resource", Trust},
		{"trust without a principal", trust(`"Effect":"Allow","Action":"sts:AssumeRole"`), "Missing required field Principal", Trust},
		{"trust without an action", trust(`"Effect":"Allow","Principal":"*"`), "Missing required field Action", Trust},
		{"trust without an effect", trust(`"Action":"sts:AssumeRole","Principal":"*"`), "Missing required field Effect", Trust},
		{"trust of another action", trust(`"Effect":"Allow","Action":"lambda:InvokeFunction","Principal":"*"`), "AssumeRole policy may only specify STS AssumeRole actions.", Trust},
		{"trust of every action", trust(`"Effect":"Allow","Action":"*","Principal":"*"`), "AssumeRole policy may only specify STS AssumeRole actions.", Trust},
		{"trust of nobody", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{}`), "Missing required field Principal", Trust},
		{"trust of an empty list", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":[]}`), "Missing required field Principal", Trust},
		{"trust in a string", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":"123456789012"`), `Invalid principal in policy: it must be "*" or an object.`, Trust},
		{"trust in a name", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"alice"}`), `Invalid principal in policy: "AWS":"alice"`, Trust},
		{"trust in a wildcard", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::123456789012:user/*"}`), `Invalid principal in policy: "AWS":"arn:aws:iam::123456789012:user/*"`, Trust},
		{"trust in a group", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::123456789012:group/g"}`), `Invalid principal in policy: "AWS":"arn:aws:iam::123456789012:group/g"`, Trust},
		{"trust in something that is no service", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"lambda"}`), `Invalid principal in policy: "SERVICE":"lambda"`, Trust},
		{"trust in any service", trust(`"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"*"}`), `Invalid principal in policy: "SERVICE":"*"`, Trust},
		{"trust in an identity provider", trust(`"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity","Principal":{"Federated":"accounts.google.com"}`), `Invalid principal in policy: "FEDERATED":"accounts.google.com"`, Trust},
		{"trust in everybody else", trust(`"Effect":"Deny","Action":"sts:AssumeRole","NotPrincipal":{"AWS":"123456789012"}`), "Policy document should not specify NotPrincipal: it is for resource policies only.", Trust},
	} {
		p, err := Parse(c.document, c.kind)
		var refusal *MalformedError
		if !errors.As(err, &refusal) || p != nil {
			t.Errorf("%s: got %v, %v; want a refusal", c.name, p, err)
		} else if refusal.Message != c.message {
			t.Errorf("%s:\n got %s\nwant %s", c.name, refusal.Message, c.message)
		}
	}
}

func conditioned(c string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":` + c + `}}`
}

func trust(members string) string {
	return `{"Version":"2012-10-17","Statement":[{` + members + `}]}`
}

func TestVariablesAreLiteralInTheOldVersion(t *testing.T) {
	p := mustParse(t, Trust, `{"Version":"2008-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*",
		"Condition":{"StringEquals":{"sts:ExternalId":"${x}"}}}}`)
	r := &Request{Action: "sts:AssumeRole", Principal: alice, Context: func(string) []string { return []string{"${x}"} }}
	if got := Evaluate(r, p); got != Delegated {
		t.Errorf("got %v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, document := range []string{
		`{"Version":"2012-10-17","Statement":[` + allow + `,` + deny + `]}`,
		conditioned(`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/a?"},"Null":{"sts:ExternalId":true}}`),
		trust(`"Effect":"Allow","Action":["sts:AssumeRole"],"Principal":{"AWS":["123456789012","*"],"Service":"lambda.amazonaws.com"}`),
		`{"Version":"2012-10-17","Statement":[[[[[[[[`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","NotAction":"a:*b?*","NotResource":"arn:aws:*"}}`,
	} {
		f.Add(document, "lambda:InvokeFunction", fn+"f")
	}
	f.Fuzz(func(t *testing.T, document, action, resource string) {
		for _, kind := range []Kind{Identity, Trust} {
			p, err := Parse(document, kind)
			var refusal *MalformedError
			if err != nil && (!errors.As(err, &refusal) || p != nil) {
				t.Fatalf("%v, %v", p, err)
			}
			if err == nil && !strings.Contains(document, "Allow") && !strings.Contains(document, `\u`) {
				r := &Request{Action: action, Resource: resource, Principal: alice}
				if d := Evaluate(r, p); d == Allow || d == Delegated {
					t.Fatalf("%v by a document without Allow", d)
				}
			}
		}
	})
}
