package api

import (
	"cmp"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// A Rule holds the constraints that a service's model puts on one of its shapes.
type Rule struct {
	Min, Max *int64 // of a number's value, or of a string's, blob's, list's or map's length

	Pattern string   // that a whole string must match, in the model's own syntax
	Enum    []string // the values a string may have

	Member, Key, Value string // names of the rules of a list's members, a map's keys and values
}

const (
	// maxReported bounds the violations that an error spells out.
	maxReported = 20
	// maxValue bounds, in bytes, a value repeated in an error.
	maxValue = 4096
	// maxMatched bounds, in bytes, what patterns are tried on in one request: at
	// some ten MB/s a large body could keep a processor busy for seconds. What is
	// beyond counts as no match. The longest string with a pattern has 2 MiB.
	maxMatched = 4 << 20
)

// A check is a Rule made ready.
type check struct {
	Rule
	matches            func() func(string) bool // nil without a pattern; compiles at first use
	member, key, value *check
}

// check returns the check for the named rule, nil for no name.
func (b *builder) check(name string) (*check, error) {
	if name == "" {
		return nil, nil
	}
	if known := b.service.shapes.checks[name]; known != nil {
		return known, nil
	}
	rule, ok := b.service.Rules[name]
	if !ok {
		return nil, fmt.Errorf("there is no rule %q", name)
	}
	c := &check{Rule: rule}
	b.service.shapes.checks[name] = c
	if rule.Pattern != "" {
		c.matches = sync.OnceValue(func() func(string) bool {
			matches, err := CompilePattern(rule.Pattern)
			if err != nil { // impossible: the generator compiles every pattern
				return func(string) bool { return false }
			}
			return matches
		})
	}
	for _, part := range []struct {
		name  string
		check **check
	}{{rule.Member, &c.member}, {rule.Key, &c.key}, {rule.Value, &c.value}} {
		var err error
		if *part.check, err = b.check(part.name); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// validate checks an input, a pointer to a structure, and returns AWS's text
// with all that is wrong.
func (s *Service) validate(in reflect.Value) error {
	var v validator
	v.structure(s.mustShape(in.Type().Elem()), in.Elem(), nil)
	if v.count == 0 {
		return nil
	}
	noun := "errors"
	if v.count == 1 {
		noun = "error"
	}
	return &Error{
		Code: s.ValidationCode, Status: http.StatusBadRequest,
		Message: fmt.Sprintf("%d validation %s detected: %s", v.count, noun, strings.Join(v.texts, "; ")),
	}
}

// A validator collects violations.
type validator struct {
	count   int
	texts   []string // of the first maxReported
	matched int      // bytes that patterns were tried on
}

// A step is one name in the path of a value, such as environment.variables.
type step struct {
	up   *step
	name string
}

func (p *step) String() string {
	if p.up == nil {
		return p.name
	}
	return p.up.String() + "." + p.name
}

// report adds a violation of what at path. A value that must not be shown is "".
func (v *validator) report(path *step, value, what string) {
	v.count++
	if len(v.texts) < maxReported {
		v.texts = append(v.texts, fmt.Sprintf("Value%s at '%s' failed to satisfy constraint: %s", value, clip(path.String()), what))
	}
}

func (v *validator) structure(s *shape, in reflect.Value, path *step) {
	set := 0
	for _, m := range s.members {
		at := &step{path, m.path}
		if !m.absent(in) {
			set++
			v.value(m.shape, m.check, m.get(in), at, m.sensitive)
		} else if m.required {
			v.report(at, " null", "Member must not be null")
		}
	}
	if s.union && set != 1 && path != nil {
		v.report(path, "", "Exactly one member must be set")
	}
}

// value checks one value and what is in it.
func (v *validator) value(s *shape, c *check, in reflect.Value, path *step, sensitive bool) {
	if c != nil {
		for _, broken := range v.broken(s, c, in) {
			v.report(path, shown(s, in, sensitive), broken)
		}
	}
	switch s.kind {
	case kindStructure:
		v.structure(s, in, path)
	case kindList:
		v.list(s, c, in, path, sensitive)
	case kindMap:
		v.entries(s, c, in, path, sensitive)
	}
}

// list checks the members of a list. Scalars that break their constraint make
// one violation of the list, as AWS reports it; others have a path of their own.
func (v *validator) list(s *shape, c *check, in reflect.Value, path *step, sensitive bool) {
	if c == nil {
		c = &check{}
	}
	if s.element.kind >= kindList {
		for i := range in.Len() {
			v.value(s.element, c.member, in.Index(i), &step{path, strconv.Itoa(i+1) + ".member"}, sensitive)
		}
		return
	}
	for i := range in.Len() {
		if c.member != nil && len(v.broken(s.element, c.member, in.Index(i))) > 0 {
			v.report(path, shown(s, in, sensitive), "Member must satisfy constraint: "+c.member.describe(s.element))
			return
		}
	}
}

// entries checks the keys and values of a map.
func (v *validator) entries(s *shape, c *check, in reflect.Value, path *step, sensitive bool) {
	if c == nil {
		c = &check{}
	}
	key := &shape{kind: kindString}
	badKey, badValue := false, false
	for _, name := range sortedKeys(in) {
		badKey = badKey || c.key != nil && len(v.broken(key, c.key, name)) > 0
		value := in.MapIndex(name)
		if s.element.kind >= kindList {
			v.value(s.element, c.value, value, &step{path, name.String() + ".member"}, sensitive)
		} else {
			badValue = badValue || c.value != nil && len(v.broken(s.element, c.value, value)) > 0
		}
	}
	if badKey {
		v.report(path, shown(s, in, sensitive), "Map keys must satisfy constraint: "+c.key.describe(key))
	}
	if badValue {
		v.report(path, shown(s, in, sensitive), "Map value must satisfy constraint: "+c.value.describe(s.element))
	}
}

// broken returns the constraints, in AWS's words, that the value itself breaks.
func (v *validator) broken(s *shape, c *check, in reflect.Value) []string {
	var broken []string
	if s.kind == kindString {
		text := in.String()
		if c.matches != nil {
			v.matched += len(text)
			if v.matched > maxMatched || !c.matches()(text) {
				broken = append(broken, c.patternText())
			}
		}
		if len(c.Enum) > 0 && !slices.Contains(c.Enum, text) {
			broken = append(broken, c.enumText())
		}
	}
	if c.Min != nil && compare(s, in, *c.Min) < 0 {
		broken = append(broken, limitText(s, "greater", *c.Min))
	}
	if c.Max != nil && compare(s, in, *c.Max) > 0 {
		broken = append(broken, limitText(s, "less", *c.Max))
	}
	return broken
}

// compare compares a number, or the length of anything else, with a limit.
func compare(s *shape, in reflect.Value, limit int64) int {
	switch s.kind {
	case kindInteger, kindLong:
		return cmp.Compare(in.Int(), limit)
	case kindFloat, kindDouble:
		return cmp.Compare(in.Float(), float64(limit))
	case kindString:
		return cmp.Compare(int64(utf8.RuneCountInString(in.String())), limit)
	case kindBlob, kindList, kindMap:
		return cmp.Compare(int64(in.Len()), limit)
	default:
		return 0
	}
}

func limitText(s *shape, than string, limit int64) string {
	what := "length"
	if s.kind >= kindInteger && s.kind <= kindDouble {
		what = "value"
	}
	return fmt.Sprintf("Member must have %s %s than or equal to %d", what, than, limit)
}

func (c *check) patternText() string {
	return "Member must satisfy regular expression pattern: " + c.Pattern
}

func (c *check) enumText() string {
	return "Member must satisfy enum value set: [" + strings.Join(c.Enum, ", ") + "]"
}

// describe lists all constraints of a list's member or a map's key or value.
func (c *check) describe(s *shape) string {
	var all []string
	if c.Max != nil {
		all = append(all, limitText(s, "less", *c.Max))
	}
	if c.Min != nil {
		all = append(all, limitText(s, "greater", *c.Min))
	}
	if c.Pattern != "" {
		all = append(all, c.patternText())
	}
	if len(c.Enum) > 0 {
		all = append(all, c.enumText())
	}
	return "[" + strings.Join(append(all, "Member must not be null"), ", ") + "]"
}

// shown returns a value as an error may repeat it, quoted and with a space
// before it, or "" if it may not: sensitive, binary or with structures in it.
func shown(s *shape, in reflect.Value, sensitive bool) string {
	var b strings.Builder
	if sensitive || !show(&b, s, in) {
		return ""
	}
	return " '" + clip(b.String()) + "'"
}

// show writes a value as Java does, a little more than maxValue bytes at most.
func show(b *strings.Builder, s *shape, in reflect.Value) bool {
	switch s.kind {
	case kindBlob, kindStructure:
		return false
	case kindList:
		b.WriteByte('[')
		for i := 0; i < in.Len() && b.Len() <= maxValue; i++ {
			if i > 0 {
				b.WriteString(", ")
			}
			if !show(b, s.element, in.Index(i)) {
				return false
			}
		}
		b.WriteByte(']')
	case kindMap:
		b.WriteByte('{')
		for i, key := range sortedKeys(in) {
			if b.Len() > maxValue {
				break
			}
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(clip(key.String()) + "=")
			if !show(b, s.element, in.MapIndex(key)) {
				return false
			}
		}
		b.WriteByte('}')
	default:
		b.WriteString(clip(formatText(s, in, isoTime)))
	}
	return true
}

// clip cuts s to maxValue bytes, between characters.
func clip(s string) string {
	if len(s) <= maxValue {
		return s
	}
	end := maxValue
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

func sortedKeys(m reflect.Value) []reflect.Value {
	return slices.SortedFunc(slices.Values(m.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
}
