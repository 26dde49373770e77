package botocore

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Compare says what a newer model adds (+), removes (-) and changes (~), a line for
// each, in order. Texts of the documentation do not count.
func Compare(old, newer *Model) []string {
	var c comparison
	c.fields("the service", old.Metadata, newer.Metadata)
	each(&c, "operation", old.Operations, newer.Operations, nil)
	each(&c, "shape", old.Shapes, newer.Shapes, func(name string, o, n *Shape) {
		each(&c, "member "+name+".", o.Members, n.Members, nil)
		c.words("value of "+name, o.Enum, n.Enum)
		c.words("required member of "+name, o.Required, n.Required)
	})
	slices.Sort(c.lines)
	return c.lines
}

// A comparison collects differences.
type comparison struct{ lines []string }

func (c *comparison) add(format string, arguments ...any) {
	c.lines = append(c.lines, fmt.Sprintf(format, arguments...))
}

// each compares what has a name. A kind that ends in a dot is followed by the name.
func each[T any](c *comparison, kind string, old, newer Ordered[T], inside func(name string, old, newer *T)) {
	if !strings.HasSuffix(kind, ".") {
		kind += " "
	}
	for _, name := range newer.Names {
		if o, ok := old.Values[name]; !ok {
			c.add("+ %s%s%s", kind, name, c.outline(newer.Values[name]))
		} else {
			c.fields(kind+name, *o, *newer.Values[name])
			if inside != nil {
				inside(name, o, newer.Values[name])
			}
		}
	}
	for _, name := range old.Names {
		if newer.Values[name] == nil {
			c.add("- %s%s", kind, name)
		}
	}
}

// outline says in brackets what is worth to know at once of what is added.
func (c *comparison) outline(added any) string {
	switch added := added.(type) {
	case *Operation:
		return fmt.Sprintf(" (%s %s)", added.HTTP.Method, added.HTTP.RequestURI)
	case *Reference:
		return " (" + added.Shape + ")"
	case *Shape:
		return " (" + added.Type + ")"
	}
	return ""
}

// words compares sets.
func (c *comparison) words(what string, old, newer []string) {
	for _, word := range newer {
		if !slices.Contains(old, word) {
			c.add("+ %s: %s", what, word)
		}
	}
	for _, word := range old {
		if !slices.Contains(newer, word) {
			c.add("- %s: %s", what, word)
		}
	}
}

// apart are the fields that are compared in a way of their own, or not at all.
var apart = []string{"members", "enum", "required", "endpoint", "documentation", "deprecatedMessage", "deprecatedSince"}

// fields compares two structures field by field, by their names in the model.
func (c *comparison) fields(what string, old, newer any) {
	o, n := map[string]string{}, map[string]string{}
	flatten(o, "", reflect.ValueOf(old))
	flatten(n, "", reflect.ValueOf(newer))
	for name := range n {
		o[name] = cmp.Or(o[name], "nothing")
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if now := cmp.Or(n[name], "nothing"); o[name] != now {
			c.add("~ %s: %s %s, was %s", what, name, now, o[name])
		}
	}
}

// flatten puts the fields that are set into texts, those of nested structures by
// names with a dot.
func flatten(texts map[string]string, prefix string, v reflect.Value) {
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		f := reflect.Indirect(v.Field(i))
		switch errors, isErrors := v.Field(i).Interface().([]Reference); {
		case slices.Contains(apart, name), !f.IsValid(), f.IsZero():
		case f.Kind() == reflect.Struct:
			flatten(texts, prefix+name+".", f)
		case isErrors:
			var names []string
			for _, r := range errors {
				names = append(names, r.Shape)
			}
			slices.Sort(names)
			texts[prefix+name] = strings.Join(names, " ")
		default:
			texts[prefix+name] = fmt.Sprint(f)
		}
	}
}
