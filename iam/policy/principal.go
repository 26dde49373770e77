package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Principal is somebody who wants to assume a role: a user, a session of a role, or a service.
type Principal struct {
	AccountID string // of a user or session
	ARN       string // of the user, or of the role that the session belongs to
	Session   string // ARN of the session: arn:aws:sts::…:assumed-role/role/session
	Service   string // "lambda.amazonaws.com"

	// Named says whether the user or role behind ARN is the one that the policy meant when
	// it was made, and not another one that took its name since.
	Named func(arn string) bool
}

// A principal is an element of a statement's Principal.
type principal struct {
	form principalForm
	text string // account id, ARN or name of the service
}

type principalForm uint8

const (
	everybody principalForm = iota
	account
	userOrRole
	session
	service
)

// trust says how the statement's principals cover p, Deny or not. Where it denies, "*" covers services
// too; where it allows, it does not: a service acts for somebody and must be meant.
func (s *statement) trust(p *Principal) Decision {
	decision := ImplicitDeny
	for _, named := range s.principals {
		covered := ImplicitDeny
		switch named.form {
		case everybody:
			if p.Service == "" || s.deny {
				covered = Delegated
			}
		case account:
			if p.AccountID == named.text {
				covered = Delegated
			}
		case userOrRole:
			if p.ARN == named.text && p.Named != nil && p.Named(p.ARN) {
				covered = Allow
			}
		case session:
			if p.Session == named.text {
				covered = Allow
			}
		case service:
			if p.Service == named.text {
				covered = Allow
			}
		}
		decision = max(decision, covered)
	}
	return decision
}

var (
	accountID    = regexp.MustCompile(`^\d{12}$`)
	principalARN = regexp.MustCompile(`^arn:aws:(?:iam::(\d{12}):(root|(?:user|role)/[\x21-\x29\x2b-\x3e\x40-\x7e]+)|sts::\d{12}:assumed-role/[\w+=,.@-]+/[\w+=,.@-]+)$`)
	serviceName  = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)*\.amazonaws\.com$`)
)

func (s *statement) parsePrincipals(n node, kind Kind) error {
	if kind == Identity {
		return malformed("Policy document should not specify a principal.")
	}
	if n.kind == text && n.text == "*" {
		s.principals = []principal{{form: everybody}}
		return nil
	}
	if n.kind != object {
		return malformed(`Invalid principal in policy: it must be "*" or an object.`)
	}
	for _, m := range n.members {
		names, err := stringsOf(m)
		if err != nil {
			return err
		}
		for _, name := range names {
			p, ok := parsePrincipal(m.name, name)
			if !ok {
				return malformed(fmt.Sprintf(`Invalid principal in policy: "%s":"%s"`, strings.ToUpper(m.name), name))
			}
			s.principals = append(s.principals, p)
		}
	}
	return nil
}

// parsePrincipal reads one principal. Those of federated identity providers and canonical users
// are not ok: there are none.
func parsePrincipal(kind, name string) (_ principal, ok bool) {
	switch {
	case kind == "Service":
		return principal{service, name}, serviceName.MatchString(name)
	case kind != "AWS":
		return principal{}, false
	case name == "*":
		return principal{form: everybody}, true
	case accountID.MatchString(name):
		return principal{account, name}, true
	}
	m := principalARN.FindStringSubmatch(name)
	switch {
	case m == nil:
		return principal{}, false
	case m[2] == "root":
		return principal{account, m[1]}, true
	case m[1] == "":
		return principal{session, name}, true
	}
	return principal{userOrRole, name}, true
}

// named returns the ARNs of users and roles among the principals of all statements.
func named(statements []statement) []string {
	var arns []string
	for _, s := range statements {
		for _, p := range s.principals {
			if p.form == userOrRole && !slices.Contains(arns, p.text) {
				arns = append(arns, p.text)
			}
		}
	}
	return arns
}
