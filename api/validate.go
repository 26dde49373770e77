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

// A Rule holds what a service's model says of one of its shapes beyond its Go
// type: constraints, and an unusual form on the wire.
type Rule struct {
	Min, Max *int64 // of a number's value, or of a string's, blob's, list's or map's length

	Pattern string   // that a whole string must match, in the model's own syntax
	Enum    []string // the values a string may have

	Member, Key, Value string // names of the rules of a list's members, a map's keys and values

	NotNull bool // errors also say that a list's members or a map's values must not be null

	Time string // form of a timestamp, one of TimeFormats, if not the one that is usual where it stands
	Flat bool   // a list or map has no element around it in forms and XML

	MemberName, KeyName, ValueName string // of those parts in forms and XML: member, key and value if empty
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

// matcher returns a function that compiles the pattern at its first use, nil
// without a pattern.
func (r *Rule) matcher() func() func(string) bool {
	if r.Pattern == "" {
		return nil
	}
	return sync.OnceValue(func() func(string) bool {
		matches, err := CompilePattern(r.Pattern)
		if err != nil { // impossible: the generator compiles every pattern
			return func(string) bool { return false }
		}
		return matches
	})
}

// validate checks an input, a pointer to a structure, and returns AWS's text
// with all that is wrong.
func (s *Service) validate(in reflect.Value) error {
	var v validator
	v.structure(s.mustShape(in.Type().Elem()), in.Elem())
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
	path    []step // of the value that is being checked
	count   int
	texts   []string // of the first maxReported
	matched int      // bytes that patterns were tried on
}

// A step is a member's name, or a place in a list or map.
type step struct {
	name string
	part int // in a list, from 1; -1 for the entry of that name in a map
}

func (s step) String() string {
	switch {
	case s.part > 0:
		return strconv.Itoa(s.part) + ".member"
	case s.part < 0:
		return s.name + ".member"
	}
	return s.name
}

// report adds a violation of what at the path. A value that must not be shown is "".
func (v *validator) report(value, what string) {
	v.count++
	if len(v.texts) >= maxReported {
		return
	}
	var steps []string
	for _, s := range v.path {
		steps = append(steps, clip(s.String()))
	}
	path := clip(strings.Join(steps, "."))
	v.texts = append(v.texts, fmt.Sprintf("Value%s at '%s' failed to satisfy constraint: %s", value, path, what))
}

func (v *validator) structure(s *shape, in reflect.Value) {
	set := 0
	for _, m := range s.members {
		v.path = append(v.path, step{name: m.path})
		if !m.absent(in) {
			set++
			v.value(m.shape, m.get(in), m.sensitive)
		} else if m.required {
			v.report(" null", "Member must not be null")
		}
		v.path = v.path[:len(v.path)-1]
	}
	if s.union && set != 1 && len(v.path) > 0 {
		v.report("", "Exactly one member must be set")
	}
}

// value checks one value and what is in it.
func (v *validator) value(s *shape, in reflect.Value, sensitive bool) {
	for _, broken := range v.broken(s, in) {
		v.report(shown(s, in, sensitive), broken)
	}
	switch s.kind {
	case kindStructure:
		v.structure(s, in)
	case kindList:
		v.list(s, in, sensitive)
	case kindMap:
		v.entries(s, in, sensitive)
	}
}

// part checks one value of a list or map that has a path of its own.
func (v *validator) part(at step, s *shape, in reflect.Value, sensitive bool) {
	v.path = append(v.path, at)
	v.value(s, in, sensitive)
	v.path = v.path[:len(v.path)-1]
}

// list checks the members of a list. Scalars that break their constraint make
// one violation of the list, as AWS reports it; others have a path of their own.
func (v *validator) list(s *shape, in reflect.Value, sensitive bool) {
	for i := range in.Len() {
		if s.element.kind >= kindList {
			v.part(step{part: i + 1}, s.element, in.Index(i), sensitive)
		} else if len(v.broken(s.element, in.Index(i))) > 0 {
			v.report(shown(s, in, sensitive), "Member must satisfy constraint: "+s.element.describe(s.rule.NotNull))
			return
		}
	}
}

// entries checks the keys and values of a map.
func (v *validator) entries(s *shape, in reflect.Value, sensitive bool) {
	badKey, badValue := false, false
	for _, name := range sortedKeys(in) {
		badKey = badKey || len(v.broken(s.key, name)) > 0
		value := in.MapIndex(name)
		if s.element.kind >= kindList {
			v.part(step{name.String(), -1}, s.element, value, sensitive)
		} else {
			badValue = badValue || len(v.broken(s.element, value)) > 0
		}
	}
	if badKey {
		v.report(shown(s, in, sensitive), "Map keys must satisfy constraint: "+s.key.describe(false))
	}
	if badValue {
		v.report(shown(s, in, sensitive), "Map value must satisfy constraint: "+s.element.describe(s.rule.NotNull))
	}
}

// broken returns the constraints, in AWS's words, that the value itself breaks.
func (v *validator) broken(s *shape, in reflect.Value) []string {
	var broken []string
	if s.kind == kindString {
		text := in.String()
		if s.matches != nil {
			v.matched += len(text)
			if v.matched > maxMatched || !s.matches()(text) {
				broken = append(broken, s.patternText())
			}
		}
		if len(s.rule.Enum) > 0 && !slices.Contains(s.rule.Enum, text) {
			broken = append(broken, s.enumText())
		}
	}
	if s.rule.Min != nil && compare(s, in, *s.rule.Min) < 0 {
		broken = append(broken, s.limitText("greater", *s.rule.Min))
	}
	if s.rule.Max != nil && compare(s, in, *s.rule.Max) > 0 {
		broken = append(broken, s.limitText("less", *s.rule.Max))
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

func (s *shape) limitText(than string, limit int64) string {
	format := "Member must have length %s than or equal to %d"
	switch s.kind {
	case kindInteger, kindLong:
		format = "Member must have value %s than or equal to %d"
	case kindFloat, kindDouble:
		format = "Member must have value %s than or equal to %d.0"
	}
	return fmt.Sprintf(format, than, limit)
}

func (s *shape) patternText() string {
	return "Member must satisfy regular expression pattern: " + s.rule.Pattern
}

func (s *shape) enumText() string {
	return "Member must satisfy enum value set: [" + strings.Join(s.rule.Enum, ", ") + "]"
}

// describe lists all constraints of a list's member or a map's key or value.
func (s *shape) describe(notNull bool) string {
	var all []string
	if s.rule.Max != nil {
		all = append(all, s.limitText("less", *s.rule.Max))
	}
	if s.rule.Min != nil {
		all = append(all, s.limitText("greater", *s.rule.Min))
	}
	if s.rule.Pattern != "" {
		all = append(all, s.patternText())
	}
	if len(s.rule.Enum) > 0 {
		all = append(all, s.enumText())
	}
	if notNull {
		all = append(all, "Member must not be null")
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// shown returns a value as an error may repeat it, quoted and with a space
// before it, or "" if it may not: sensitive or binary.
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
	case kindBlob:
		return false
	case kindStructure:
		return showStructure(b, s, in)
	case kindFloat, kindDouble:
		text := formatText(s, in, isoTime)
		if strings.Trim(text, "-0123456789") == "" {
			text += ".0"
		}
		b.WriteString(text)
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

// showStructure writes Name(member=value, other=null).
func showStructure(b *strings.Builder, s *shape, in reflect.Value) bool {
	b.WriteString(s.typ.Name() + "(")
	for i, m := range s.members {
		if b.Len() > maxValue {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.path + "=")
		if m.absent(in) {
			b.WriteString("null")
		} else if m.sensitive || !show(b, m.shape, m.get(in)) {
			return false
		}
	}
	b.WriteByte(')')
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
