package policy

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// randomStatement writes a statement of an identity policy over a small world of names, so
// that statements often meet.
func randomStatement(source *rand.Rand, effect string) string {
	one := func(words ...string) string { return words[source.IntN(len(words))] }
	actions := one(`"*"`, `"lambda:*"`, `"lambda:Invoke*"`, `"lambda:InvokeFunction"`, `["lambda:GetFunction","s3:Get*"]`, `"s3:?etObject"`)
	resources := one(`"*"`, `"`+fn+`a"`, `"`+fn+`*"`, `["`+fn+`b","arn:aws:s3:::a/*"]`, `"arn:aws:s3"`)
	s := fmt.Sprintf(`{"Effect":%q,%q:%s,%q:%s`, effect, one("Action", "NotAction"), actions, one("Resource", "NotResource"), resources)
	if source.IntN(3) == 0 {
		s += `,"Condition":` + one(`{"StringEquals":{"aws:username":"a"}}`, `{"StringNotLike":{"aws:username":"b*"}}`,
			`{"Null":{"aws:username":"true"}}`, `{"StringLikeIfExists":{"aws:username":"?"}}`)
	}
	return s + "}"
}

func randomRequest(source *rand.Rand) *Request {
	one := func(words ...string) string { return words[source.IntN(len(words))] }
	r := &Request{
		Action:   one("lambda:InvokeFunction", "lambda:GetFunction", "s3:GetObject", "iam:PassRole"),
		Resource: one(fn+"a", fn+"b", fn+"b:1", "arn:aws:s3:::a/b", "*"),
	}
	if name := one("", "a", "b", "bb"); name != "" {
		r.Context = func(key string) []string {
			if key == "aws:username" {
				return []string{name}
			}
			return nil
		}
	}
	return r
}

func effect(source *rand.Rand) string { return []string{"Allow", "Deny"}[source.IntN(2)] }

func TestAddingADenyNeverGrants(t *testing.T) {
	source := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		before, r := identity(t, randomStatement(source, effect(source))), randomRequest(source)
		added := identity(t, randomStatement(source, "Deny"))
		d := Evaluate(r, before)
		if with := Evaluate(r, before, added); with == Allow && d != Allow {
			t.Fatalf("%v became %v for %+v", d, with, r)
		} else if with != Evaluate(r, added, before) {
			t.Fatal("the order of policies matters")
		}
	}
}

func TestAddingAnAllowNeverRevokes(t *testing.T) {
	source := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		before, r := identity(t, randomStatement(source, effect(source))), randomRequest(source)
		added := identity(t, randomStatement(source, "Allow"))
		d := Evaluate(r, before)
		if with := Evaluate(r, before, added); d == Allow && with != Allow || d == ExplicitDeny && with != ExplicitDeny {
			t.Fatalf("%v became %v for %+v", d, with, r)
		}
	}
}

func TestStatementsInOnePolicyOrInManyDecideTheSame(t *testing.T) {
	source := rand.New(rand.NewPCG(7, 8))
	for range 5000 {
		var statements []string
		var policies []*Policy
		for range 1 + source.IntN(4) {
			s := randomStatement(source, effect(source))
			statements, policies = append(statements, s), append(policies, identity(t, s))
		}
		r := randomRequest(source)
		if one, many := Evaluate(r, identity(t, statements...)), Evaluate(r, policies...); one != many {
			t.Fatalf("%v in one policy, %v in %d", one, many, len(policies))
		}
	}
}

func TestWildcardsMatchAsTheirRegularExpression(t *testing.T) {
	source := rand.New(rand.NewPCG(9, 10))
	word := func(letters string, longest int) string {
		b := make([]byte, source.IntN(longest+1))
		for i := range b {
			b[i] = letters[source.IntN(len(letters))]
		}
		return string(b)
	}
	for range 10000 {
		text, fold := word("aAb:*?", 7), source.IntN(2) == 0
		expression := strings.NewReplacer(`\*`, "(?s:.*)", `\?`, "(?s:.)").Replace(regexp.QuoteMeta(text))
		if fold {
			expression = "(?i)" + expression
		}
		p, oracle := newPattern(text, fold), regexp.MustCompile("^(?:"+expression+")$")
		for range 5 {
			if s := word("aAb:", 9); p.matches(s) != oracle.MatchString(s) {
				t.Fatalf("%q matches %q: %v", text, s, p.matches(s))
			}
		}
	}
}

func BenchmarkEvaluateFiftyStatements(b *testing.B) {
	var statements []string
	for n := range 49 {
		statements = append(statements, statement1("Allow", "lambda:InvokeFunction", fmt.Sprintf("%steam-%d-*", fn, n)))
	}
	p := identity(b, append(statements, allow)...)
	r := &Request{Action: "lambda:InvokeFunction", Resource: fn + "team-x-f"}
	b.ReportAllocs()
	for b.Loop() {
		if Evaluate(r, p) != Allow {
			b.Fatal("denied")
		}
	}
}

func BenchmarkEvaluateAdministrator(b *testing.B) {
	p := identity(b, admin)
	r := &Request{Action: "lambda:InvokeFunction", Resource: fn + "f"}
	b.ReportAllocs()
	for b.Loop() {
		if Evaluate(r, p) != Allow {
			b.Fatal("denied")
		}
	}
}
