package api

import (
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// query has form parameters for the request, nested by dots in their names
// (Tags.member.1.Key=...), and XML for the response.
type query struct{}

const (
	// maxNesting bounds the dots in a parameter's name; no service needs as many.
	maxNesting = 32
	// maxNodes bounds the tree: two bytes of a name can make a node of hundreds.
	maxNodes = 1 << 15
)

// parameters are form parameters as a tree, one level for each part of a name.
type parameters struct {
	value    string
	set      bool // there is a value at this node
	children map[string]*parameters
}

func (c query) match(s *Service, r *http.Request, body []byte) (*Operation, Labels, error) {
	form, err := c.form(r, body)
	if err != nil {
		return nil, Labels{}, err
	}
	action, version := form.child("Action"), form.child("Version")
	if action == nil || action.value == "" {
		return nil, Labels{}, &Error{Code: "MissingAction", Status: http.StatusBadRequest, Message: "The request is missing an action."}
	}
	op := s.byName[action.value]
	if op == nil || version != nil && version.value != s.APIVersion {
		return nil, Labels{}, invalidAction(action, version)
	}
	return op, Labels{form: form}, nil
}

func invalidAction(action, version *parameters) error {
	text := "Could not find operation " + clip(action.value)
	if version != nil {
		text += " for version " + clip(version.value)
	}
	return &Error{Code: "InvalidAction", Status: http.StatusBadRequest, Message: text}
}

// form parses the parameters of the query string and, if it is a form, the body.
// Of parameters with equal names the first counts, the body's before the others.
func (query) form(r *http.Request, body []byte) (*parameters, error) {
	texts := []string{r.URL.RawQuery}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		texts = []string{string(body), r.URL.RawQuery}
	}
	root, nodes := &parameters{}, 0
	for _, text := range texts {
		values, err := url.ParseQuery(text)
		if err != nil {
			return nil, &Error{Code: "MalformedQueryString", Status: http.StatusNotFound, Message: "The query string contains a syntax error"}
		}
		for name, all := range values {
			if nodes += strings.Count(name, ".") + 1; nodes > maxNodes {
				return nil, malformedInput("The request has too many parameters")
			}
			if err := root.add(name, all[0]); err != nil {
				return nil, err
			}
		}
	}
	return root, nil
}

func (p *parameters) add(name, value string) error {
	if strings.Count(name, ".") > maxNesting || !utf8.ValidString(name) || !utf8.ValidString(value) {
		return malformedInput("A parameter is nested too deeply or is not valid UTF-8")
	}
	for part := range strings.SplitSeq(name, ".") {
		next := p.children[part]
		if next == nil {
			next = &parameters{}
			if p.children == nil {
				p.children = map[string]*parameters{}
			}
			p.children[part] = next
		}
		p = next
	}
	if !p.set {
		p.value, p.set = value, true
	}
	return nil
}

// child returns the parameters below a part of a name, nil if there are none.
func (p *parameters) child(part string) *parameters { return p.children[part] }

// malformedInput is a SerializationException as this protocol calls it.
func malformedInput(message string) error {
	return &Error{Code: "MalformedInput", Status: http.StatusBadRequest, Message: message}
}

func (c query) decode(s *Service, op *Operation, labels Labels, _ *http.Request, _ []byte, in reflect.Value) error {
	return c.structure(s.mustShape(op.input), in, labels.form)
}

func (c query) structure(s *shape, v reflect.Value, p *parameters) error {
	for _, m := range s.members {
		if given := p.child(m.wire); given != nil {
			if err := c.value(m.shape, m.fresh(v), given); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c query) value(s *shape, v reflect.Value, p *parameters) error {
	switch s.kind {
	case kindStructure:
		return c.structure(s, v, p)
	case kindList:
		if !s.flat {
			p = p.child(s.memberName)
		}
		return c.list(s, v, p)
	case kindMap:
		if !s.flat {
			p = p.child("entry")
		}
		return c.entries(s, v, p)
	}
	if !p.set {
		return malformedInput("A parameter has members where a value is expected")
	}
	if err := parseText(s, v, p.value, isoTime); err != nil {
		return malformedInput(err.(*Error).Message)
	}
	return nil
}

// list decodes the members 1, 2, ... of a list. Without any the list is empty,
// which clients send as a parameter with an empty value.
func (c query) list(s *shape, v reflect.Value, p *parameters) error {
	n, err := p.length()
	if err != nil {
		return err
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range n {
		if err := c.value(s.element, v.Index(i), p.child(strconv.Itoa(i+1))); err != nil {
			return err
		}
	}
	return nil
}

func (c query) entries(s *shape, v reflect.Value, p *parameters) error {
	n, err := p.length()
	if err != nil {
		return err
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), n))
	for i := range n {
		entry := p.child(strconv.Itoa(i + 1))
		key, given := entry.child(s.keyName), entry.child(s.valueName)
		if key == nil || given == nil {
			return malformedInput("A map entry needs a key and a value")
		}
		value := reflect.New(s.element.typ).Elem()
		if err := c.value(s.element, value, given); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(key.value), value)
	}
	return nil
}

// length returns how many members a list has, 0 for none given. They must be
// numbered from 1 without a gap.
func (p *parameters) length() (int, error) {
	if p == nil {
		return 0, nil
	}
	n := len(p.children)
	for i := range n {
		if p.child(strconv.Itoa(i+1)) == nil {
			return 0, malformedInput("The members of a list must be numbered from 1 without a gap")
		}
	}
	return n, nil
}
