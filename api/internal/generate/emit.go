package main

import (
	"bytes"
	"fmt"
	"strings"

	"cloister/api"
	"cloister/api/internal/botocore"
)

// An emitter writes one service's package.
type emitter struct {
	target   target
	model    *botocore.Model
	declared *botocore.Package
}

// generate returns the files of the package by name, without header and
// package clause.
func generate(t target, m *botocore.Model) (map[string][]byte, error) {
	declared, err := m.Describe(botocore.Options{
		Unchecked: func(shape string) bool { return t.unchecked[shape] != "" },
		NotNull:   func(shape string) bool { return t.notNull && t.nullable[shape] == "" },
	})
	if err != nil {
		return nil, err
	}
	e := &emitter{t, m, declared}
	files := map[string][]byte{}
	for name, emit := range map[string]func(*bytes.Buffer){
		"service.go": e.service,
		"server.go":  e.server,
		"types.go":   e.types,
		"errors.go":  e.errors,
		"enums.go":   e.enums,
		"rules.go":   e.rules,
	} {
		var b bytes.Buffer
		emit(&b)
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

var protocols = map[api.Protocol]string{api.RESTJSON: "RESTJSON", api.JSONRPC: "JSONRPC", api.Query: "Query"}

// service writes the Service variable with its table of operations.
func (e *emitter) service(b *bytes.Buffer) {
	meta := e.model.Metadata
	b.WriteString("import \"cloister/api\"\n\n")
	fmt.Fprintf(b, "// Service is %s.\n", meta.ServiceFullName)
	fmt.Fprintf(b, "var Service = &api.Service{\nName: %q,\nProtocol: api.%s,\nAPIVersion: %q,\n",
		e.target.name, protocols[e.declared.Protocol], meta.APIVersion)
	for _, field := range [][2]string{
		{"PayloadType", e.target.payloadType}, {"TargetPrefix", meta.TargetPrefix}, {"JSONVersion", meta.JSONVersion},
		{"ErrorNamespace", e.target.errorNamespace}, {"Namespace", meta.XMLNamespace},
		{"ValidationCode", e.target.validationCode}, {"FailureCode", e.target.failureCode},
	} {
		if field[1] != "" {
			fmt.Fprintf(b, "%s: %q,\n", field[0], field[1])
		}
	}
	if e.target.faultType {
		b.WriteString("FaultType: true,\n")
	}
	if meta.QueryCompatible != nil {
		b.WriteString("QueryCompatible: true,\n")
	}
	b.WriteString("Rules: rules,\nOperations: []*api.Operation{\n")
	for _, m := range e.declared.Operations {
		op := &m.Operation
		fmt.Fprintf(b, "api.Bind(api.Operation{Name: %q, Method: %q, URI: %q, Status: %d", op.Name, op.Method, op.URI, op.Status)
		if op.Result != "" {
			fmt.Fprintf(b, ", Result: %q", op.Result)
		}
		if op.Sensitive {
			b.WriteString(", Sensitive: true")
		}
		fmt.Fprintf(b, "}, Server.%s),\n", op.Name)
	}
	b.WriteString("},\n}\n")
}

// server writes the Server interface and its refusing implementation.
func (e *emitter) server(b *bytes.Buffer) {
	b.WriteString("import (\n\"context\"\n\n\"cloister/api\"\n)\n\n")
	fmt.Fprintf(b, "// A Server answers the %d operations of %s. Inputs are validated and never nil; errors that\n"+
		"// are no api.Fault reach the client as an internal failure.\n", len(e.declared.Operations), e.target.name)
	b.WriteString("type Server interface {\n")
	for _, m := range e.declared.Operations {
		fmt.Fprintf(b, "%s(context.Context, *%s) (*%s, error)\n", m.Operation.Name, m.In, m.Out)
	}
	b.WriteString("}\n\n// Unimplemented refuses every operation with a typed error that names it.\ntype Unimplemented struct{}\n")
	for _, m := range e.declared.Operations {
		name := m.Operation.Name
		fmt.Fprintf(b, "\n// %s answers that the operation is not built.\n", name)
		fmt.Fprintf(b, "func (Unimplemented) %s(context.Context, *%s) (*%s, error) {\nreturn nil, api.NotImplemented(%q, %q)\n}\n",
			name, m.In, m.Out, e.target.name, name)
	}
}

// types writes all structures but the errors.
func (e *emitter) types(b *bytes.Buffer) {
	var body bytes.Buffer
	for _, s := range e.declared.Structures {
		if !s.Error {
			fmt.Fprintf(&body, "\n// %s is %s.\n", s.Name, s.Role)
			structure(&body, s)
		}
	}
	if bytes.Contains(body.Bytes(), []byte("time.Time")) {
		b.WriteString("import \"time\"\n")
	}
	b.Write(body.Bytes())
}

func structure(b *bytes.Buffer, s botocore.Structure) {
	fmt.Fprintf(b, "type %s struct {\n", s.Name)
	if s.Union {
		b.WriteString("_ struct{} `aws:\",union\"`\n")
	}
	for _, f := range s.Fields {
		fmt.Fprintf(b, "%s %s `%s`\n", f.Name, f.Type, f.Tag)
	}
	b.WriteString("}\n")
}

// errors writes the error shapes.
func (e *emitter) errors(b *bytes.Buffer) {
	var body bytes.Buffer
	for _, s := range e.declared.Structures {
		if !s.Error {
			continue
		}
		fmt.Fprintf(&body, "\n// %s is answered with status %d and code %s.\n", s.Name, s.Status, s.Code)
		structure(&body, s)
		receiver := "func (e *" + s.Name + ")"
		fmt.Fprintf(&body, "\n// Error returns code and message.\n%s Error() string { return api.Describe(%q, e.Message) }\n", receiver, s.Code)
		fmt.Fprintf(&body, "\n// ErrorCode returns %s.\n%s ErrorCode() string { return %q }\n", s.Code, receiver, s.Code)
		fmt.Fprintf(&body, "\n// HTTPStatus returns %d.\n%s HTTPStatus() int { return %d }\n", s.Status, receiver, s.Status)
	}
	if body.Len() > 0 {
		b.WriteString("import \"cloister/api\"\n")
	}
	b.Write(body.Bytes())
}

// enums writes a constant for every value of every enum.
func (e *emitter) enums(b *bytes.Buffer) {
	for _, enum := range e.declared.Enums {
		fmt.Fprintf(b, "\n// The values of %s.\nconst (\n", enum.Name)
		for _, c := range enum.Constants {
			fmt.Fprintf(b, "%s = %q\n", c.Name, c.Value)
		}
		b.WriteString(")\n")
	}
}

func (e *emitter) rules(b *bytes.Buffer) {
	b.WriteString("import \"cloister/api\"\n\n// rules are the constraints of the model's shapes.\nvar rules = map[string]api.Rule{\n")
	for _, rule := range e.declared.Rules {
		fmt.Fprintf(b, "%q: {%s},\n", rule.Name, strings.Join(rule.Fields(), ", "))
	}
	b.WriteString("}\n")
}
