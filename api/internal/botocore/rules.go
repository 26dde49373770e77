package botocore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cloister/api"
)

// ruled says whether a shape has constraints, or a form on the wire that its Go
// type does not tell, itself or in its parts. The members of structures carry
// their own.
func (d *describer) ruled(name string) bool {
	s := d.shape(name)
	if s.Type == "structure" {
		return false
	}
	constrained := s.Min != nil || s.Max != nil || s.Pattern != "" || len(s.Enum) > 0
	if constrained && d.options.Unchecked != nil && d.options.Unchecked(name) {
		return false
	}
	return constrained || s.TimestampFormat != "" || s.Flattened ||
		slices.ContainsFunc(s.parts(), func(r *Reference) bool { return d.named(r) || d.ruled(r.Shape) })
}

// named says whether the parts of a list or map have an unusual name in forms and XML.
func (d *describer) named(r *Reference) bool {
	return d.into.Protocol == api.Query && r.LocationName != ""
}

func (d *describer) rules() error {
	for _, name := range d.model.Shapes.Names {
		if !d.ruled(name) {
			continue
		}
		rule, err := d.rule(d.shape(name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		parts := rule.Member != "" || rule.Value != ""
		rule.NotNull = parts && d.options.NotNull != nil && d.options.NotNull(name)
		d.into.Rules = append(d.into.Rules, NamedRule{name, rule})
	}
	return nil
}

func (d *describer) rule(s *Shape) (rule api.Rule, err error) {
	rule = api.Rule{Pattern: s.Pattern, Enum: s.Enum, Time: s.TimestampFormat, Flat: s.Flattened}
	if rule.Time != "" && !slices.Contains(api.TimeFormats, rule.Time) {
		return rule, fmt.Errorf("unknown format %q of a timestamp", rule.Time)
	}
	if s.Min != nil {
		if rule.Min, err = bound(s.Min.String()); err != nil {
			return rule, err
		}
	}
	if s.Max != nil {
		if rule.Max, err = bound(s.Max.String()); err != nil {
			return rule, err
		}
	}
	if s.Pattern != "" {
		if _, err := api.CompilePattern(s.Pattern); err != nil {
			return rule, fmt.Errorf("write a check for it in api/patterncheck.go: %w", err)
		}
	}
	for _, part := range []struct {
		r          *Reference
		rule, name *string
	}{{s.Member, &rule.Member, &rule.MemberName}, {s.Key, &rule.Key, &rule.KeyName}, {s.Value, &rule.Value, &rule.ValueName}} {
		if part.r == nil {
			continue
		}
		if d.ruled(part.r.Shape) {
			*part.rule = part.r.Shape
		}
		if d.named(part.r) {
			*part.name = part.r.LocationName
		}
	}
	return rule, nil
}

// bound parses a limit. The models write some whole numbers as fractions.
func bound(text string) (*int64, error) {
	v, err := strconv.ParseInt(strings.TrimSuffix(text, ".0"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("limit %s is no whole number", text)
	}
	return &v, nil
}

// Fields returns what is set in a rule, as fields of a Go composite literal.
func (r NamedRule) Fields() []string {
	var fields []string
	for _, limit := range []struct {
		name  string
		value *int64
	}{{"Min", r.Min}, {"Max", r.Max}} {
		if limit.value != nil {
			fields = append(fields, fmt.Sprintf("%s: new(int64(%d))", limit.name, *limit.value))
		}
	}
	if r.Pattern != "" {
		fields = append(fields, "Pattern: "+quote(r.Pattern))
	}
	if len(r.Enum) > 0 {
		fields = append(fields, fmt.Sprintf("Enum: %#v", r.Enum))
	}
	for _, text := range [][2]string{
		{"Member", r.Member}, {"Key", r.Key}, {"Value", r.Value}, {"Time", r.Time},
		{"MemberName", r.MemberName}, {"KeyName", r.KeyName}, {"ValueName", r.ValueName},
	} {
		if text[1] != "" {
			fields = append(fields, fmt.Sprintf("%s: %q", text[0], text[1]))
		}
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{{"NotNull", r.NotNull}, {"Flat", r.Flat}} {
		if flag.set {
			fields = append(fields, flag.name+": true")
		}
	}
	return fields
}

func quote(s string) string {
	if strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}
