package policy

import (
	"fmt"
	"slices"
	"strings"
)

// A condition is one operator with one key: {"StringLike": {"aws:username": ["a*", "b*"]}}.
type condition struct {
	key      string       // in lower case
	values   []pattern    // one of which must match
	arns     [][6]pattern // in their place for the Arn operators
	negated  bool         // holds if no value matches
	null     bool         // holds if the key is missing (values say "true") or not
	ifExists bool         // holds without the key
}

// An operator of conditions. Operators that are not in the table are refused.
type operator struct {
	fold     bool // regardless of case
	wildcard bool // values are patterns
	negated  bool
	null     bool
	boolean  bool
	arn      bool // values are ARNs; wildcards do not reach beyond their field
}

var operators = map[string]operator{
	"StringEquals":              {},
	"StringNotEquals":           {negated: true},
	"StringEqualsIgnoreCase":    {fold: true},
	"StringNotEqualsIgnoreCase": {fold: true, negated: true},
	"StringLike":                {wildcard: true},
	"StringNotLike":             {wildcard: true, negated: true},
	"ArnEquals":                 {arn: true},
	"ArnLike":                   {arn: true},
	"ArnNotEquals":              {arn: true, negated: true},
	"ArnNotLike":                {arn: true, negated: true},
	"Bool":                      {fold: true, boolean: true},
	"Null":                      {fold: true, boolean: true, null: true},
}

// keys are the condition keys that package iam gives a value wherever AWS does, in lower case.
// Others are refused: a Deny on a key that is never there would deny nothing. TestEveryKeyIsGiven
// in package iam holds the two against each other.
var keys = []string{
	"aws:principalaccount", "aws:principalarn", "aws:principaltype", "aws:securetransport", "aws:userid", "aws:username",
	"iam:passedtoservice", "sts:externalid", "sts:rolesessionname",
}

// Keys returns the condition keys that documents may use, in lower case.
func Keys() []string { return slices.Clone(keys) }

func (c *condition) holds(context func(string) []string) bool {
	var given []string
	if context != nil {
		given = context(c.key)
	}
	switch {
	case c.null:
		missing := "false"
		if len(given) == 0 {
			missing = "true"
		}
		return matchesAny(c.values, missing)
	case len(given) == 0:
		return c.negated || c.ifExists
	}
	for _, v := range given {
		if matchesAny(c.values, v) || matchesAnyARN(c.arns, v) {
			return !c.negated
		}
	}
	return c.negated
}

func matchesAnyARN(patterns [][6]pattern, s string) bool {
	if len(patterns) == 0 || strings.Count(s, ":") < 5 {
		return false
	}
	fields := strings.SplitN(s, ":", 6)
	for i := range patterns {
		matches := 0
		for j := range fields {
			if patterns[i][j].matches(fields[j]) {
				matches++
			}
		}
		if matches == len(fields) {
			return true
		}
	}
	return false
}

func parseConditions(n node, variables bool) ([]condition, error) {
	if n.kind != object {
		return nil, syntax("Condition must be an object")
	}
	var conditions []condition
	for _, block := range n.members {
		name, ifExists := strings.CutSuffix(block.name, "IfExists")
		op, ok := operators[name]
		if !ok || ifExists && op.null {
			return nil, malformed(fmt.Sprintf("Cloister does not evaluate the condition operator %q yet, so this policy would not do what it says.", block.name))
		}
		if block.kind != object || len(block.members) == 0 {
			return nil, syntax("a condition operator must hold an object that is not empty")
		}
		for i, m := range block.members {
			if slices.ContainsFunc(block.members[:i], func(other node) bool { return strings.EqualFold(other.name, m.name) }) {
				return nil, syntax(fmt.Sprintf("%q is there twice", m.name))
			}
			c, err := parseCondition(op, m, variables)
			if err != nil {
				return nil, err
			}
			c.ifExists = ifExists
			conditions = append(conditions, c)
		}
	}
	return conditions, nil
}

func parseCondition(op operator, m node, variables bool) (condition, error) {
	key := strings.ToLower(m.name)
	if !strings.Contains(key, ":") {
		return condition{}, malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
	}
	if !slices.Contains(keys, key) {
		return condition{}, malformed(fmt.Sprintf("Cloister does not evaluate the condition key %q yet, so this policy would not do what it says.", m.name))
	}
	values, err := stringsOf(m)
	if err != nil {
		return condition{}, err
	}
	if len(values) == 0 {
		return condition{}, syntax(fmt.Sprintf("%q must have a value", m.name))
	}
	c := condition{key: key, negated: op.negated, null: op.null}
	for _, v := range values {
		if err := checkVariables(v, variables); err != nil {
			return condition{}, err
		}
		if err := c.add(op, v); err != nil {
			return condition{}, err
		}
	}
	return c, nil
}

// add adds a value to the condition.
func (c *condition) add(op operator, v string) error {
	switch {
	case op.boolean && !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false"):
		return syntax("a Bool or Null condition must be true or false")
	case op.arn:
		fields := strings.SplitN(v, ":", 6)
		if len(fields) != 6 {
			return syntax(fmt.Sprintf("%.100q is not an ARN", v))
		}
		var arn [6]pattern
		for i, f := range fields {
			arn[i] = newPattern(f, false)
		}
		c.arns = append(c.arns, arn)
	case op.wildcard:
		c.values = append(c.values, newPattern(v, false))
	case op.fold:
		c.values = append(c.values, pattern{strings.ToLower(v), literal, true})
	default:
		c.values = append(c.values, pattern{v, literal, false})
	}
	return nil
}
