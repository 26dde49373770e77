package botocore

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cloister/api"
)

// A Package is a service as Go declarations, before they are written down.
type Package struct {
	Protocol   api.Protocol
	Operations []Method
	Structures []Structure // in the model's order, errors included
	Enums      []Enum
	Rules      []NamedRule
}

// A Method is an operation and the Go types of its input and output.
type Method struct {
	Operation api.Operation // what does not depend on Go types
	In, Out   string
}

// A Structure is a structure or an error.
type Structure struct {
	Name   string
	Role   string // what it is for, in words
	Union  bool   // exactly one field is set
	Fields []Field

	Error  bool
	Code   string // of an error
	Status int    // of an error
}

// A Field is one member. The aws part of its tag is the name on the wire, the
// location if that is not the body, and flags; the part of names the rule.
type Field struct{ Name, Type, Tag string }

// An Enum is the set of a string's values, with a name for each.
type Enum struct {
	Name      string
	Constants []Constant
}

// A Constant is one value of an Enum.
type Constant struct{ Name, Value string }

// A NamedRule holds the constraints of the shape of that name.
type NamedRule struct {
	Name string
	api.Rule
}

// Options are what a model does not say of a service.
type Options struct {
	Unchecked func(shape string) bool // the service checks the shape's values itself; nil for none
	NotNull   func(shape string) bool // errors say that parts of the list or map must not be null; nil for none
}

// Describe translates a model. What the codecs cannot do and what cannot be checked
// is an error.
func (m *Model) Describe(options Options) (*Package, error) {
	protocol, ok := map[string]api.Protocol{"rest-json": api.RESTJSON, "json": api.JSONRPC, "query": api.Query}[m.Metadata.Protocol]
	if !ok {
		return nil, fmt.Errorf("unknown protocol %q", m.Metadata.Protocol)
	}
	d := describer{model: m, options: options, into: &Package{Protocol: protocol}}
	for _, step := range []func() error{d.methods, d.structures, d.enums, d.rules} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d.into, nil
}

// A describer is one translation.
type describer struct {
	model   *Model
	options Options
	into    *Package
}

func (d *describer) shape(name string) *Shape { return d.model.Shapes.Values[name] }

func (d *describer) methods() error {
	for _, name := range d.model.Operations.Names {
		op := d.model.Operations.Values[name]
		if err := checkURI(op.HTTP.RequestURI); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		method := Method{In: "api.Empty", Out: "api.Empty", Operation: api.Operation{
			Name: name, Method: op.HTTP.Method, URI: op.HTTP.RequestURI, Status: op.HTTP.ResponseCode,
		}}
		if method.Operation.Status == 0 {
			method.Operation.Status = http.StatusOK
		}
		if op.Input != nil {
			method.In = Exported(op.Input.Shape)
			method.Operation.Sensitive = d.sensitive(op.Input.Shape, nil)
		}
		if op.Output != nil {
			method.Out = Exported(op.Output.Shape)
			method.Operation.Result = op.Output.ResultWrapper
		}
		d.into.Operations = append(d.into.Operations, method)
	}
	return nil
}

// checkURI reports what the router has no node for: a label that is a part of a
// segment, and segments behind a greedy label.
func checkURI(uri string) error {
	path, query, _ := strings.Cut(uri, "?")
	if _, err := url.ParseQuery(query); err != nil {
		return fmt.Errorf("URI %s: %w", uri, err)
	}
	if !label.MatchString(path) {
		return fmt.Errorf("URI %s is more than segments that are literals or labels", uri)
	}
	return nil
}

var label = regexp.MustCompile(`^(/|(/([A-Za-z0-9._()+-]+|\{[A-Za-z]+\}))+(/\{[A-Za-z]+\+\})?/?)$`)

func (d *describer) structures() error {
	for _, name := range d.model.Shapes.Names {
		s := d.shape(name)
		if s.Type != "structure" {
			continue
		}
		described := Structure{Name: Exported(name), Role: d.role(name, s), Union: s.Union, Error: s.Exception}
		if s.Exception {
			described.Code, described.Status = errorTraits(name, s)
		}
		for _, member := range s.Members.Names {
			field, err := d.field(s, member)
			if err != nil {
				return fmt.Errorf("%s.%s: %w", name, member, err)
			}
			described.Fields = append(described.Fields, field)
		}
		isMessage := func(f Field) bool { return f.Name == "Message" }
		if s.Exception && !slices.ContainsFunc(described.Fields, isMessage) {
			described.Fields = append(described.Fields, Field{"Message", "*string", `aws:"message"`})
		}
		d.into.Structures = append(d.into.Structures, described)
	}
	return nil
}

// role says in words what a structure is for.
func (d *describer) role(name string, s *Shape) string {
	for _, operation := range d.model.Operations.Names {
		op := d.model.Operations.Values[operation]
		if op.Input != nil && op.Input.Shape == name {
			return "the input of " + operation
		}
		if op.Output != nil && op.Output.Shape == name {
			return "an output, of " + operation + " first of all"
		}
	}
	switch {
	case s.EventStream:
		return "an event stream"
	case s.Union:
		return "a union, of which exactly one member is set"
	case len(s.Members.Names) == 0:
		return "a structure without members"
	case len(s.Members.Names) == 1:
		return "a structure of one member"
	}
	return "a structure of " + strconv.Itoa(len(s.Members.Names)) + " members"
}

func errorTraits(name string, s *Shape) (code string, status int) {
	code, status = name, http.StatusBadRequest
	if s.Fault {
		status = http.StatusInternalServerError
	}
	if s.Error != nil {
		if s.Error.Code != "" {
			code = s.Error.Code
		}
		if s.Error.HTTPStatusCode != 0 {
			status = s.Error.HTTPStatusCode
		}
	}
	return code, status
}

func (d *describer) field(s *Shape, name string) (Field, error) {
	r := s.Members.Values[name]
	goType, err := d.goType(r.Shape, true)
	if err != nil {
		return Field{}, err
	}
	flags, err := d.location(s, name, r)
	if err != nil {
		return Field{}, err
	}
	if slices.Contains(s.Required, name) {
		flags = append(flags, "required")
	}
	if d.sensitive(r.Shape, nil) {
		flags = append(flags, "sensitive")
	}
	if r.Flattened {
		flags = append(flags, "flat")
	}
	if r.TimestampFormat != "" {
		if !slices.Contains(api.TimeFormats, r.TimestampFormat) {
			return Field{}, fmt.Errorf("unknown format %q of a timestamp", r.TimestampFormat)
		}
		flags = append(flags, r.TimestampFormat)
	}
	tag := fmt.Sprintf("aws:%q", strings.Join(append([]string{d.wireName(name, r)}, flags...), ","))
	if d.ruled(r.Shape) {
		tag += fmt.Sprintf(" of:%q", r.Shape)
	}
	return Field{Exported(name), goType, tag}, nil
}

// location returns the flag for where a member of s is, none for the body.
func (d *describer) location(s *Shape, name string, r *Reference) ([]string, error) {
	of := d.shape(r.Shape)
	switch {
	case of.EventStream:
		return []string{"eventstream"}, nil
	case s.Payload == name:
		return []string{"payload"}, nil
	case r.Location == "":
		return nil, nil
	case r.JSONValue:
		return nil, fmt.Errorf("unknown location %q for JSON in a string", r.Location)
	}
	if flag := places[place{r.Location, d.outline(r.Shape)}]; flag != "" {
		return []string{flag}, nil
	}
	return nil, fmt.Errorf("unknown location %q for a %s", r.Location, d.outline(r.Shape))
}

// A place is a location and the outline of what is there.
type place struct{ location, outline string }

// places are the flags of what the codecs can read from and write to where.
var places = map[place]string{
	{"uri", "scalar"}:                     "uri",
	{"querystring", "scalar"}:             "query",
	{"querystring", "list of scalar"}:     "query",
	{"querystring", "map of string"}:      "query",
	{"querystring", "map of string list"}: "query",
	{"header", "scalar"}:                  "header",
	{"header", "list of scalar"}:          "header",
	{"statusCode", "scalar"}:              "status",
}

// outline says what matters of a shape outside of a body.
func (d *describer) outline(name string) string {
	switch s := d.shape(name); s.Type {
	case "structure":
		return "structure"
	case "list":
		return "list of " + d.outline(s.Member.Shape)
	case "map":
		value := d.shape(s.Value.Shape)
		if value.Type == "list" {
			return "map of " + d.shape(value.Member.Shape).Type + " list"
		}
		return "map of " + value.Type
	}
	return "scalar"
}

// wireName returns a member's name on the wire. Old models name the members of a
// list that has no element around them, instead of the list.
func (d *describer) wireName(name string, r *Reference) string {
	of := d.shape(r.Shape)
	switch {
	case r.LocationName != "":
		return r.LocationName
	case d.into.Protocol == api.Query && of.Member != nil && (of.Flattened || r.Flattened) && of.Member.LocationName != "":
		return of.Member.LocationName
	}
	return name
}

// goType returns the Go type of a shape. An optional scalar or structure is a
// pointer, so that absent differs from zero; inside lists and maps nothing is absent.
func (d *describer) goType(name string, optional bool) (string, error) {
	s := d.shape(name)
	star := ""
	if optional {
		star = "*"
	}
	switch s.Type {
	case "list":
		member, err := d.goType(s.Member.Shape, false)
		return "[]" + member, err
	case "map":
		key, err := d.goType(s.Key.Shape, false)
		if err != nil || key != "string" {
			return "", fmt.Errorf("map %s has keys of type %q: %w", name, key, err)
		}
		value, err := d.goType(s.Value.Shape, false)
		return "map[string]" + value, err
	case "structure":
		return star + Exported(name), nil
	case "blob":
		return "[]byte", nil
	}
	scalar, ok := map[string]string{
		"string": "string", "integer": "int32", "long": "int64", "boolean": "bool",
		"float": "float32", "double": "float64", "timestamp": "time.Time",
	}[s.Type]
	if !ok {
		return "", fmt.Errorf("shape %s has unknown type %q", name, s.Type)
	}
	return star + scalar, nil
}

// sensitive says whether a shape or a part of it must not be shown. Seen holds
// the shapes on the way, for structures that contain themselves.
func (d *describer) sensitive(name string, seen []string) bool {
	s := d.shape(name)
	if s.Sensitive {
		return true
	}
	if slices.Contains(seen, name) {
		return false
	}
	seen = append(seen, name)
	for _, r := range s.parts() {
		if d.sensitive(r.Shape, seen) {
			return true
		}
	}
	return false
}

// enums names every value of every enum.
func (d *describer) enums() error {
	seen := map[string]string{}
	for _, name := range d.model.Shapes.Names {
		enum := Enum{Name: name}
		for _, value := range d.shape(name).Enum {
			c := Constant{constant(name, value), value}
			if other, ok := seen[c.Name]; ok {
				return fmt.Errorf("values %q and %q of enums would both be %s", other, value, c.Name)
			}
			seen[c.Name] = value
			enum.Constants = append(enum.Constants, c)
		}
		if len(enum.Constants) > 0 {
			d.into.Enums = append(d.into.Enums, enum)
		}
	}
	for _, s := range d.into.Structures {
		if _, ok := seen[s.Name]; ok {
			return fmt.Errorf("%s is a structure and a constant", s.Name)
		}
	}
	return nil
}
