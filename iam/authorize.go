package iam

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"cloister/api"
	"cloister/iam/policy"
	"cloister/lambda"
)

// LambdaService is the service principal that execution roles trust.
const LambdaService = "lambda.amazonaws.com"

// Permission is a question to Authorize.
type Permission = api.Permission

const (
	assumeRole      = "sts:AssumeRole"
	cannotBeAssumed = "The role defined for the function cannot be assumed by Lambda."
)

// A holder is a caller together with what it may do now.
type holder struct {
	account *account
	entity  *entity // of the user, or of the role behind a session
	session string  // ARN of the session, empty for users
	userID  string
}

// holder finds the user or role behind a caller. It is not ok if there is none (any more).
func (s *state) holder(c *Caller) (h holder, ok bool) {
	h.account = s.accounts[c.AccountID]
	if h.account == nil {
		return h, false
	}
	h.userID = c.UserID
	if id, _, isSession := strings.Cut(c.UserID, ":"); isSession {
		r := h.account.rolesByID[id]
		if r == nil {
			return h, false
		}
		h.entity, h.session = &r.entity, c.ARN
		return h, true
	}
	u := h.account.usersByID[c.UserID]
	if u == nil {
		return h, false
	}
	h.entity = &u.entity
	return h, true
}

// Authorize returns nil if the caller's policies, as they are now, allow p, and otherwise an
// *api.Error with the code AccessDeniedException and AWS's words. It does not block.
func (d *Directory) Authorize(_ context.Context, caller Caller, p Permission) error {
	s := d.state.Load()
	h, ok := s.holder(&caller)
	if !ok {
		return denied(&caller, &p, "")
	}
	if p.Action == assumeRole {
		if !d.mayAssume(s, &h, &p) {
			return denied(&caller, &p, "") // the same words for a role that does not exist
		}
		return nil
	}
	// Another account's resources need its consent, by a resource policy; there are none yet.
	if owner := accountOf(p.Resource); owner != "" && owner != caller.AccountID && owner != "aws" {
		return denied(&caller, &p, " because no resource-based policy allows the "+p.Action+" action")
	}
	switch d.evaluate(&h, &p) {
	case policy.Allow:
		return nil
	case policy.ExplicitDeny:
		return denied(&caller, &p, " with an explicit deny in an identity-based policy")
	}
	return denied(&caller, &p, " because no identity-based policy allows the "+p.Action+" action")
}

func denied(c *Caller, p *Permission, why string) error {
	return &api.Error{Code: "AccessDeniedException", Status: http.StatusForbidden,
		Message: fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s%s", c.ARN, p.Action, p.Resource, why)}
}

// accountOf returns the account field of an ARN, which may be empty, or "".
func accountOf(arn string) string {
	for range 4 {
		_, rest, ok := strings.Cut(arn, ":")
		if !ok {
			return ""
		}
		arn = rest
	}
	id, _, ok := strings.Cut(arn, ":")
	if !ok {
		return ""
	}
	return id
}

// evaluate decides by the identity policies of the holder.
func (d *Directory) evaluate(h *holder, p *Permission) policy.Decision {
	var buffer [32]*policy.Policy
	policies := append(buffer[:0], h.entity.inline...)
	for _, arn := range h.entity.Attached {
		attached := d.policy(h.account, arn)
		if attached == nil {
			return policy.ExplicitDeny // DeletePolicy refuses attached ones, so this is damage
		}
		policies = append(policies, attached.parsed)
	}
	r := policy.Request{Action: p.Action, Resource: p.Resource, Context: h.context(p)}
	return policy.Evaluate(&r, policies...)
}

// context returns the condition keys of a request. Every key of policy.Keys is either here or given by
// those who ask, in Permission.Context: iam:PassedToService by PassRole, sts:* by package sts.
func (h *holder) context(p *Permission) func(string) []string {
	return func(key string) []string {
		for name, values := range p.Context {
			if strings.EqualFold(name, key) {
				return values
			}
		}
		switch {
		case key == "aws:securetransport":
			return []string{"true"} // there is no other transport
		case key == "aws:principalaccount":
			return []string{h.account.id}
		case key == "aws:principalarn":
			return []string{h.entity.arn}
		case key == "aws:userid":
			return []string{h.userID}
		case key == "aws:principaltype" && h.session == "":
			return []string{"User"}
		case key == "aws:principaltype":
			return []string{"AssumedRole"}
		case key == "aws:username" && h.session == "":
			return []string{h.entity.Name}
		}
		return nil
	}
}

// mayAssume decides about sts:AssumeRole, which two sides must agree to: the role's trust policy,
// and the caller's own policies unless, in the same account, the trust policy names the caller itself.
func (d *Directory) mayAssume(s *state, h *holder, p *Permission) bool {
	a := s.accounts[accountOf(p.Resource)]
	r := a.roleOf(p.Resource)
	if r == nil {
		return false
	}
	trust := policy.Evaluate(&policy.Request{
		Action: p.Action,
		Principal: policy.Principal{AccountID: h.account.id, ARN: h.entity.arn, Session: h.session,
			Named: func(arn string) bool { return r.Trusted[arn] == h.entity.ID }},
		Context: h.context(p),
	}, r.trust)
	own := d.evaluate(h, p)
	if own == policy.ExplicitDeny {
		return false
	}
	return trust == policy.Allow && (own == policy.Allow || a == h.account) || trust == policy.Delegated && own == policy.Allow
}

// trustsLambda says whether Lambda may assume the role for a function.
func trustsLambda(r *role) bool {
	request := policy.Request{Action: assumeRole, Principal: policy.Principal{Service: LambdaService}}
	return policy.Evaluate(&request, r.trust) == policy.Allow
}

// CheckExecutionRole returns nil if the role exists in the account and trusts Lambda. The error
// is of kind lambda.InvalidParameter, the same for both reasons as on AWS.
func (d *Directory) CheckExecutionRole(_ context.Context, accountID, roleARN string) error {
	a, r := d.findRole(roleARN)
	if r == nil || a.id != accountID || !trustsLambda(r) {
		return lambda.Errorf(lambda.InvalidParameter, "check execution role", cannotBeAssumed)
	}
	return nil
}

// PassRole returns nil if the caller may give the role to a function (iam:PassRole), and otherwise an
// *api.Error in AWS's words. It says nothing about whether the role exists.
func (d *Directory) PassRole(ctx context.Context, call *api.Call, roleARN string) error {
	if owner := accountOf(roleARN); owner != call.AccountID {
		return &api.Error{Code: "AccessDeniedException", Status: http.StatusForbidden, Message: "Cross-account pass role is not allowed."}
	}
	return d.Authorize(ctx, callerOf(call), Permission{
		Action: "iam:PassRole", Resource: roleARN, Context: map[string][]string{"iam:PassedToService": {LambdaService}},
	})
}

// callerOf returns the caller that the gateway has put into a call.
func callerOf(call *api.Call) Caller { return Caller{call.AccountID, call.CallerARN, call.CallerID} }
