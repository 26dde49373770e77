package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cloister/api"
)

// ruled says whether a shape has constraints, itself or in its members. The
// members of structures carry their own.
func (e *emitter) ruled(name string) bool {
	s := e.model.Shapes.values[name]
	if s.Type == "structure" {
		return false
	}
	if s.Min != nil || s.Max != nil || s.Pattern != "" || len(s.Enum) > 0 {
		return e.target.unchecked[name] == ""
	}
	return slices.ContainsFunc(e.parts(s), func(r *reference) bool { return e.ruled(r.Shape) })
}

func (e *emitter) ruleTable(b *bytes.Buffer) error {
	b.WriteString("import \"cloister/api\"\n\n// rules are the constraints of the model's shapes.\nvar rules = map[string]api.Rule{\n")
	for _, name := range e.model.Shapes.names {
		if !e.ruled(name) {
			continue
		}
		if err := e.rule(b, name, e.model.Shapes.values[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.WriteString("}\n")
	return nil
}

func (e *emitter) rule(b *bytes.Buffer, name string, s *shape) error {
	fmt.Fprintf(b, "%q: {", name)
	var fields []string
	if s.Min != nil {
		v, err := bound(s.Min.String())
		if err != nil {
			return err
		}
		fields = append(fields, fmt.Sprintf("Min: new(int64(%d))", v))
	}
	if s.Max != nil {
		v, err := bound(s.Max.String())
		if err != nil {
			return err
		}
		fields = append(fields, fmt.Sprintf("Max: new(int64(%d))", v))
	}
	if s.Pattern != "" {
		if _, err := api.CompilePattern(s.Pattern); err != nil {
			return fmt.Errorf("write a check for it in api/patterncheck.go: %w", err)
		}
		fields = append(fields, "Pattern: "+quote(s.Pattern))
	}
	if len(s.Enum) > 0 {
		fields = append(fields, fmt.Sprintf("Enum: %#v", s.Enum))
	}
	for _, part := range []struct {
		field string
		r     *reference
	}{{"Member", s.Member}, {"Key", s.Key}, {"Value", s.Value}} {
		if part.r != nil && e.ruled(part.r.Shape) {
			fields = append(fields, fmt.Sprintf("%s: %q", part.field, part.r.Shape))
		}
	}
	b.WriteString(strings.Join(fields, ", ") + "},\n")
	return nil
}

// bound parses a limit. The models write some whole numbers as fractions.
func bound(text string) (int64, error) {
	v, err := strconv.ParseInt(strings.TrimSuffix(text, ".0"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("limit %s is no whole number", text)
	}
	return v, nil
}

func quote(s string) string {
	if strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.Quote(s)
}
