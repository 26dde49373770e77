package policy

import (
	"fmt"
	"regexp"
	"strings"
)

// MaxDocumentBytes bounds a document (the IAM API model's bound for all of them).
const MaxDocumentBytes = 131072

// A MalformedError says why Parse refuses a document, in AWS's words where AWS has some.
type MalformedError struct{ Message string }

// Error returns the message.
func (e *MalformedError) Error() string { return e.Message }

func malformed(message string) error { return &MalformedError{message} }

func syntax(detail string) error { return malformed("Syntax errors in policy. (" + detail + ")") }

// Parse reads a document of the kind. The error is a *MalformedError.
func Parse(document string, kind Kind) (*Policy, error) {
	root, err := parseJSON(document)
	if err != nil {
		return nil, err
	}
	if root.kind != object {
		return nil, syntax("a policy must be an object")
	}
	var list []node
	version := ""
	for _, m := range root.members {
		switch m.name {
		case "Version":
			if version = m.text; m.kind != text || version != "2012-10-17" && version != "2008-10-17" {
				return nil, malformed("The policy must contain a valid version string")
			}
		case "Id":
			if m.kind != text {
				return nil, syntax("Id must be a string")
			}
		case "Statement":
			if list = m.items; m.kind == object {
				list = []node{m}
			}
		default:
			return nil, syntax(fmt.Sprintf("there is no element %q", m.name))
		}
	}
	if kind == Identity && version != "2012-10-17" {
		return nil, malformed("Policy document must be version 2012-10-17 or greater.")
	}
	if len(list) == 0 {
		return nil, syntax("a policy must have statements")
	}
	p := &Policy{statements: make([]statement, len(list))}
	sids := map[string]bool{}
	for i, n := range list {
		sid, err := p.statements[i].parse(n, kind, version == "2012-10-17")
		if err != nil {
			return nil, err
		}
		if sid != "" && sids[sid] {
			return nil, malformed("Statement IDs (SID) in a single policy must be unique.")
		}
		sids[sid] = true
	}
	p.principals = named(p.statements)
	return p, nil
}

// parse reads one statement. Policy variables such as ${aws:username} mean something only if
// variables is set (version 2012-10-17); they are then refused.
func (s *statement) parse(n node, kind Kind, variables bool) (sid string, err error) {
	if n.kind != object {
		return "", syntax("a statement must be an object")
	}
	effect := false
	for _, m := range n.members {
		switch m.name {
		case "Sid":
			if sid = m.text; m.kind != text || !alphanumeric.MatchString(sid) {
				err = malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
			}
		case "Effect":
			effect, s.deny = true, m.text == "Deny"
			if m.kind != text || m.text != "Allow" && m.text != "Deny" {
				err = syntax("Effect must be Allow or Deny")
			}
		case "Action", "NotAction":
			err = s.parseActions(m, kind)
		case "Resource", "NotResource":
			err = s.parseResources(m, kind, variables)
		case "Principal":
			err = s.parsePrincipals(m, kind)
		case "NotPrincipal":
			err = malformed("Policy document should not specify NotPrincipal: it is for resource policies only.")
		case "Condition":
			s.conditions, err = parseConditions(m, variables)
		default:
			err = syntax(fmt.Sprintf("a statement has no element %q", m.name))
		}
		if err != nil {
			return "", err
		}
	}
	return sid, s.complete(kind, effect)
}

// complete refuses a statement that leaves out what its kind needs.
func (s *statement) complete(kind Kind, effect bool) error {
	switch {
	case !effect && kind == Trust:
		return malformed("Missing required field Effect")
	case !effect:
		return syntax("a statement must have an Effect")
	case s.actions == nil && kind == Trust:
		return malformed("Missing required field Action")
	case s.actions == nil:
		return malformed("Policy statement must contain actions.")
	case s.resources == nil && kind == Identity:
		return malformed("Policy statement must contain resources.")
	case s.principals == nil && kind == Trust:
		return malformed("Missing required field Principal")
	}
	return nil
}

var (
	alphanumeric = regexp.MustCompile(`^[0-9A-Za-z]*$`)

	vendor     = regexp.MustCompile(`^[a-zA-Z0-9-]+$`)
	actionName = regexp.MustCompile(`^[a-zA-Z0-9*?]+$`)
)

func (s *statement) parseActions(m node, kind Kind) error {
	if s.actions != nil {
		return syntax("a statement must not have both Action and NotAction")
	}
	names, err := stringsOf(m)
	if err != nil {
		return err
	}
	for _, name := range names {
		service, action, found := strings.Cut(name, ":")
		switch {
		case kind == Trust && !trustAction(name):
			return malformed("AssumeRole policy may only specify STS AssumeRole actions.")
		case name == "*":
		case !found:
			return malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
		case !vendor.MatchString(service):
			return malformed("Vendor " + service + " is not valid")
		case !actionName.MatchString(action):
			return syntax("an action must be letters, digits, * and ?")
		}
		s.actions = append(s.actions, newPattern(name, true))
	}
	s.notActions = m.name == "NotAction"
	return nil
}

// trustAction says whether an action may be in a Trust policy.
func trustAction(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "sts:assumerole") || name == "sts:tagsession" || name == "sts:setsourceidentity" || name == "sts:setcontext"
}

func (s *statement) parseResources(m node, kind Kind, variables bool) error {
	if kind == Trust {
		return malformed("Has prohibited field " + m.name)
	}
	if s.resources != nil {
		return syntax("a statement must not have both Resource and NotResource")
	}
	names, err := stringsOf(m)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := checkVariables(name, variables); err != nil {
			return err
		}
		if name != "*" {
			scheme, rest, _ := strings.Cut(name, ":")
			partition, service, _ := strings.Cut(rest, ":")
			if scheme != "arn" || service == "" {
				return malformed(fmt.Sprintf(`Resource %s must be in ARN format or "*".`, name))
			}
			if partition != "*" && partition != "aws" {
				return malformed(fmt.Sprintf(`Partition "%s" is not valid for resource "%s".`, partition, name))
			}
			// AWS completes an ARN of fewer than six fields with wildcards.
			name += strings.Repeat(":*", max(0, 5-strings.Count(name, ":")))
		}
		s.resources = append(s.resources, newPattern(name, false))
	}
	s.notResource = m.name == "NotResource"
	return nil
}

func checkVariables(s string, variables bool) error {
	if variables && strings.Contains(s, "${") {
		return malformed(fmt.Sprintf("Cloister does not evaluate policy variables yet, so this policy would not do what it says: %s", s))
	}
	return nil
}
