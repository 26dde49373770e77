package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An emitter writes one service's package.
type emitter struct {
	target target
	model  *model
	rules  map[string]bool // shapes that have a rule, see ruled
}

// generate returns the files of the package by name, without header and
// package clause.
func generate(t target, m *model) (map[string][]byte, error) {
	e := &emitter{target: t, model: m, rules: map[string]bool{}}
	files := map[string][]byte{}
	for name, emit := range map[string]func(*bytes.Buffer) error{
		"service.go": e.service,
		"server.go":  e.server,
		"types.go":   e.types,
		"errors.go":  e.errors,
		"enums.go":   e.enums,
		"rules.go":   e.ruleTable,
	} {
		var b bytes.Buffer
		if err := emit(&b); err != nil {
			return nil, err
		}
		files[name] = b.Bytes()
	}
	return files, nil
}

func packageComment(b *bytes.Buffer, t target) {
	fmt.Fprintf(b, `// Package %[1]sapi holds the shapes, operations, errors and constraints of the
// %[1]s service, version %[2]s. It contains no logic: package api encodes, decodes
// and validates, whoever implements Server answers. The names are the model's own.
//
// Callers are the gateway, for Service, and the packages that answer %[1]s calls.
// What an attacker sent is in the inputs; it has passed the constraints in rules.go
// and nothing else.
`, t.name, t.version)
}

// service writes the Service variable with its table of operations.
func (e *emitter) service(b *bytes.Buffer) error {
	meta := e.model.Metadata
	protocol, ok := map[string]string{"rest-json": "RESTJSON", "json": "JSONRPC", "query": "Query"}[meta.Protocol]
	if !ok {
		return fmt.Errorf("unknown protocol %q", meta.Protocol)
	}
	b.WriteString("import \"cloister/api\"\n\n")
	fmt.Fprintf(b, "// Service is %s.\n", meta.ServiceFullName)
	fmt.Fprintf(b, "var Service = &api.Service{\nName: %q,\nProtocol: api.%s,\nAPIVersion: %q,\n", e.target.name, protocol, meta.APIVersion)
	for _, field := range [][2]string{
		{"TargetPrefix", meta.TargetPrefix}, {"JSONVersion", meta.JSONVersion}, {"Namespace", meta.XMLNamespace},
		{"ValidationCode", e.target.validationCode}, {"FailureCode", e.target.failureCode},
	} {
		if field[1] != "" {
			fmt.Fprintf(b, "%s: %q,\n", field[0], field[1])
		}
	}
	b.WriteString("Rules: rules,\nOperations: []*api.Operation{\n")
	for _, name := range e.model.Operations.names {
		if err := e.operation(b, name, e.model.Operations.values[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.WriteString("},\n}\n")
	return nil
}

func (e *emitter) operation(b *bytes.Buffer, name string, op *operation) error {
	if err := checkURI(op.HTTP.RequestURI); err != nil {
		return err
	}
	status := op.HTTP.ResponseCode
	if status == 0 {
		status = http.StatusOK
	}
	fmt.Fprintf(b, "api.Bind(api.Operation{Name: %q, Method: %q, URI: %q, Status: %d", name, op.HTTP.Method, op.HTTP.RequestURI, status)
	if op.Output != nil && op.Output.ResultWrapper != "" {
		fmt.Fprintf(b, ", Result: %q", op.Output.ResultWrapper)
	}
	if op.Input != nil && e.sensitive(op.Input.Shape, nil) {
		b.WriteString(", Sensitive: true")
	}
	fmt.Fprintf(b, "}, Server.%s),\n", name)
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

var label = regexp.MustCompile(`^(/|(/([A-Za-z0-9._-]+|\{[A-Za-z]+\}))+(/\{[A-Za-z]+\+\})?/?)$`)

// server writes the Server interface and its refusing implementation.
func (e *emitter) server(b *bytes.Buffer) error {
	b.WriteString("import (\n\"context\"\n\n\"cloister/api\"\n)\n\n")
	fmt.Fprintf(b, "// A Server answers the %d operations of %s. Inputs are validated and never nil; errors that\n"+
		"// are no api.Fault reach the client as an internal failure.\n", len(e.model.Operations.names), e.target.name)
	b.WriteString("type Server interface {\n")
	for _, name := range e.model.Operations.names {
		in, out := e.signature(name)
		fmt.Fprintf(b, "%s(context.Context, *%s) (*%s, error)\n", name, in, out)
	}
	b.WriteString("}\n\n// Unimplemented refuses every operation with a typed error that names it.\ntype Unimplemented struct{}\n")
	for _, name := range e.model.Operations.names {
		in, out := e.signature(name)
		fmt.Fprintf(b, "\n// %s answers that the operation is not built.\n", name)
		fmt.Fprintf(b, "func (Unimplemented) %s(context.Context, *%s) (*%s, error) {\nreturn nil, api.NotImplemented(%q, %q)\n}\n",
			name, in, out, e.target.name, name)
	}
	return nil
}

func (e *emitter) signature(name string) (in, out string) {
	in, out = "api.Empty", "api.Empty"
	op := e.model.Operations.values[name]
	if op.Input != nil {
		in = exported(op.Input.Shape)
	}
	if op.Output != nil {
		out = exported(op.Output.Shape)
	}
	return in, out
}

// types writes all structures but the errors.
func (e *emitter) types(b *bytes.Buffer) error {
	var body bytes.Buffer
	for _, name := range e.model.Shapes.names {
		s := e.model.Shapes.values[name]
		if s.Type != "structure" || s.Exception {
			continue
		}
		fmt.Fprintf(&body, "\n// %s is %s.\n", exported(name), e.role(name, s))
		if err := e.structure(&body, name, s); err != nil {
			return err
		}
	}
	if bytes.Contains(body.Bytes(), []byte("*time.Time")) {
		b.WriteString("import \"time\"\n")
	}
	b.Write(body.Bytes())
	return nil
}

// role says in words what a structure is for.
func (e *emitter) role(name string, s *shape) string {
	for _, operation := range e.model.Operations.names {
		op := e.model.Operations.values[operation]
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
	case len(s.Members.names) == 0:
		return "a structure without members"
	case len(s.Members.names) == 1:
		return "a structure of one member"
	}
	return "a structure of " + strconv.Itoa(len(s.Members.names)) + " members"
}

func (e *emitter) structure(b *bytes.Buffer, name string, s *shape) error {
	fmt.Fprintf(b, "type %s struct {\n", exported(name))
	if s.Union {
		b.WriteString("_ struct{} `aws:\",union\"`\n")
	}
	for _, member := range s.Members.names {
		if err := e.member(b, s, member); err != nil {
			return fmt.Errorf("%s.%s: %w", name, member, err)
		}
	}
	if _, ok := e.message(s); s.Exception && !ok {
		b.WriteString("Message *string `aws:\"message\"`\n")
	}
	b.WriteString("}\n")
	return nil
}

// member writes one field. Its aws tag is the name on the wire, the location if
// that is not the body, and flags; its of tag names the rule of the shape.
func (e *emitter) member(b *bytes.Buffer, s *shape, name string) error {
	r := s.Members.values[name]
	goType, err := e.goType(r.Shape, true)
	if err != nil {
		return err
	}
	tag := name
	if r.LocationName != "" {
		tag = r.LocationName
	}
	switch {
	case e.model.Shapes.values[r.Shape].EventStream:
		tag += ",eventstream"
	case s.Payload == name:
		tag += ",payload"
	case r.Location == "uri", r.Location == "header":
		tag += "," + r.Location
	case r.Location == "querystring" && e.model.Shapes.values[r.Shape].Type != "map":
		tag += ",query"
	case r.Location == "statusCode":
		tag += ",status"
	case r.Location != "":
		return fmt.Errorf("unknown location %q for this type", r.Location)
	}
	if slices.Contains(s.Required, name) {
		tag += ",required"
	}
	if e.sensitive(r.Shape, nil) {
		tag += ",sensitive"
	}
	fmt.Fprintf(b, "%s %s `aws:%q", exported(name), goType, tag)
	if e.ruled(r.Shape) {
		fmt.Fprintf(b, " of:%q", r.Shape)
	}
	b.WriteString("`\n")
	return nil
}

// goType returns the Go type of a shape. An optional scalar or structure is a
// pointer, so that absent differs from zero; inside lists and maps nothing is absent.
func (e *emitter) goType(name string, optional bool) (string, error) {
	s := e.model.Shapes.values[name]
	star := ""
	if optional {
		star = "*"
	}
	switch s.Type {
	case "list":
		member, err := e.goType(s.Member.Shape, false)
		return "[]" + member, err
	case "map":
		key, err := e.goType(s.Key.Shape, false)
		if err != nil || key != "string" {
			return "", fmt.Errorf("map %s has keys of type %q: %w", name, key, err)
		}
		value, err := e.goType(s.Value.Shape, false)
		return "map[string]" + value, err
	case "structure":
		return star + exported(name), nil
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
func (e *emitter) sensitive(name string, seen []string) bool {
	s := e.model.Shapes.values[name]
	if s.Sensitive {
		return true
	}
	if slices.Contains(seen, name) {
		return false
	}
	seen = append(seen, name)
	for _, r := range e.parts(s) {
		if e.sensitive(r.Shape, seen) {
			return true
		}
	}
	return false
}

// parts returns the references of a shape to other shapes.
func (e *emitter) parts(s *shape) []*reference {
	var references []*reference
	for _, name := range s.Members.names {
		references = append(references, s.Members.values[name])
	}
	for _, r := range []*reference{s.Member, s.Key, s.Value} {
		if r != nil {
			references = append(references, r)
		}
	}
	return references
}

// errors writes the error shapes.
func (e *emitter) errors(b *bytes.Buffer) error {
	b.WriteString("import \"cloister/api\"\n")
	for _, name := range e.model.Shapes.names {
		s := e.model.Shapes.values[name]
		if !s.Exception {
			continue
		}
		code, status := errorTraits(name, s)
		fmt.Fprintf(b, "\n// %s is answered with status %d and code %s.\n", exported(name), status, code)
		if err := e.structure(b, name, s); err != nil {
			return err
		}
		receiver := "func (e *" + exported(name) + ")"
		fmt.Fprintf(b, "\n// Error returns code and message.\n%s Error() string { return api.Describe(%q, e.Message) }\n", receiver, code)
		fmt.Fprintf(b, "\n// ErrorCode returns %s.\n%s ErrorCode() string { return %q }\n", code, receiver, code)
		fmt.Fprintf(b, "\n// HTTPStatus returns %d.\n%s HTTPStatus() int { return %d }\n", status, receiver, status)
	}
	return nil
}

func errorTraits(name string, s *shape) (code string, status int) {
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

// message returns the member that carries an error's text.
func (e *emitter) message(s *shape) (string, bool) {
	for _, name := range s.Members.names {
		if strings.EqualFold(name, "message") {
			return name, true
		}
	}
	return "", false
}

// enums writes a constant for every value of every enum.
func (e *emitter) enums(b *bytes.Buffer) error {
	seen := map[string]string{}
	for _, name := range e.model.Shapes.names {
		s := e.model.Shapes.values[name]
		if len(s.Enum) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n// The values of %s.\nconst (\n", name)
		for _, value := range s.Enum {
			c := constant(name, value)
			if other, ok := seen[c]; ok {
				return fmt.Errorf("values %q and %q of enums would both be %s", other, value, c)
			}
			seen[c] = value
			fmt.Fprintf(b, "%s = %q\n", c, value)
		}
		b.WriteString(")\n")
	}
	for _, name := range e.model.Shapes.names {
		if _, ok := seen[exported(name)]; ok && e.model.Shapes.values[name].Type == "structure" {
			return fmt.Errorf("%s is a structure and a constant", name)
		}
	}
	return nil
}
