// Package policy reads IAM policy documents and decides by them.
//
// It knows no users, roles or stores: package iam collects the policies that apply to a caller,
// calls Evaluate, and words the refusal. It is called on every API call.
//
// Invariants: a document is either understood whole or refused by Parse; no element, operator or
// key is ever skipped, because what is skipped in a Deny grants. Nothing is allowed unless a statement
// allows it, and a statement that denies outweighs all that allow. A parsed Policy never changes.
//
// An attacker may write documents (of at most MaxDocumentBytes) and choose the names of the
// resources that they are held against. Matching takes time proportional to the product of both lengths.
package policy

import "strings"

// Kind says where a document is attached, which decides what may be in it.
type Kind uint8

// The kinds of policies.
const (
	Identity Kind = iota // of a user or role: what it may do. Has resources, no principals
	Trust                // of a role: who may become it. Has principals, no resources
)

// A Policy is a parsed document. It may be used concurrently.
type Policy struct {
	statements []statement
	principals []string
}

type statement struct {
	deny                    bool
	actions, resources      []pattern
	notActions, notResource bool // the patterns say what the statement is not about
	principals              []principal
	conditions              []condition
}

// A Request is a question: may this be done, in these circumstances. Resource and context
// matter to Identity policies; Trust policies are asked with Principal instead of Resource.
type Request struct {
	Action   string // "lambda:InvokeFunction"
	Resource string // an ARN, or "*" for an action on nothing in particular

	// Principal is who wants to assume the role.
	Principal Principal

	// Context returns the values of a condition key, whose name is in lower case, or nothing
	// if the request has no such key. A nil Context has no keys.
	Context func(key string) []string
}

// A Decision is the outcome of an evaluation.
type Decision uint8

// The decisions.
const (
	ImplicitDeny Decision = iota // no statement is about the request
	Delegated                    // Trust only: the account or everybody is trusted, so the caller's own policies must allow it too
	Allow                        // a statement allows it, none denies it
	ExplicitDeny                 // a statement denies it
)

var decisionNames = [...]string{"implicit deny", "delegated", "allow", "explicit deny"}

// String returns the decision in words.
func (d Decision) String() string { return decisionNames[d] }

// Evaluate decides about r by all statements of all policies together. The order of policies
// and statements does not matter.
func Evaluate(r *Request, policies ...*Policy) Decision {
	decision := ImplicitDeny
	for _, p := range policies {
		for i := range p.statements {
			decision = max(decision, p.statements[i].decide(r))
		}
		if decision == ExplicitDeny {
			return decision
		}
	}
	return decision
}

// Principals returns the ARNs of the users and roles that a Trust policy names, each once. A name
// can be given up and taken again by somebody else, so package iam notes whom each of them
// means when the policy is made.
func (p *Policy) Principals() []string { return p.principals }

func (s *statement) decide(r *Request) Decision {
	if matchesAny(s.actions, r.Action) == s.notActions {
		return ImplicitDeny
	}
	if s.resources != nil && matchesAny(s.resources, r.Resource) == s.notResource {
		return ImplicitDeny
	}
	decision := Allow
	if s.principals != nil {
		if decision = s.trust(&r.Principal); decision == ImplicitDeny {
			return ImplicitDeny
		}
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(r.Context) {
			return ImplicitDeny
		}
	}
	if s.deny {
		return ExplicitDeny
	}
	return decision
}

// A pattern is a literal text or one with the wildcards * (any text, also across the colons
// and slashes of an ARN) and ? (any one byte).
type pattern struct {
	text string // in lower case if fold
	form form
	fold bool
}

type form uint8

const (
	literal  form = iota
	anything      // *
	prefix        // text*; text is without the star
	glob
)

func newPattern(text string, fold bool) pattern {
	if fold {
		text = strings.ToLower(text)
	}
	switch n := strings.IndexAny(text, "*?"); {
	case n < 0:
		return pattern{text, literal, fold}
	case text == "*":
		return pattern{text, anything, fold}
	case n == len(text)-1 && text[n] == '*':
		return pattern{text[:n], prefix, fold}
	}
	return pattern{text, glob, fold}
}

func matchesAny(patterns []pattern, s string) bool {
	for i := range patterns {
		if patterns[i].matches(s) {
			return true
		}
	}
	return false
}

func (p *pattern) matches(s string) bool {
	switch p.form {
	case anything:
		return true
	case literal:
		return s == p.text || p.fold && strings.EqualFold(s, p.text)
	case prefix:
		return len(s) >= len(p.text) && p.samePrefix(s)
	}
	return p.matchesGlob(s)
}

// samePrefix says whether s, which is not shorter than p.text, begins with it.
func (p *pattern) samePrefix(s string) bool {
	if !p.fold {
		return s[:len(p.text)] == p.text
	}
	for i := range len(p.text) {
		if lower(s[i]) != p.text[i] {
			return false
		}
	}
	return true
}

// matchesGlob tries each star with as little text as possible and gives only the last one more.
func (p *pattern) matchesGlob(s string) bool {
	i, j := 0, 0          // next bytes of the pattern and of s
	star, resume := -1, 0 // the last star, and where in s the text after it was tried
	for j < len(s) {
		switch {
		case i < len(p.text) && p.text[i] == '*':
			star, resume = i, j
			i++
		case i < len(p.text) && (p.text[i] == '?' || p.text[i] == s[j] || p.fold && p.text[i] == lower(s[j])):
			i++
			j++
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(p.text[i:], "*") == ""
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
