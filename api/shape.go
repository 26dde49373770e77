package api

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// A kind is what a value is in AWS's type system.
type kind uint8

const (
	kindString kind = iota
	kindInteger
	kindLong
	kindFloat
	kindDouble
	kindBoolean
	kindTimestamp
	kindBlob
	kindList
	kindMap
	kindStructure
)

// kindNames are the kinds as AWS's parsers call them in errors.
var kindNames = [...]string{"a String", "an Integer", "a Long", "a Float", "a Double", "a Boolean", "a Timestamp", "a Blob",
	"a List", "a Map", "a Structure"}

// A location says which part of a request or response holds a member.
type location uint8

const (
	inBody location = iota
	inPath
	inQuery
	inHeader
	inStatus
	isPayload     // the member is the whole body
	isEventStream // the member is what follows the response's headers
)

var locations = map[string]location{"uri": inPath, "query": inQuery, "header": inHeader, "status": inStatus,
	"payload": isPayload, "eventstream": isEventStream}

// A shape is what codecs and validation need to know of a Go type: its struct tags
// parsed, its rule looked up. It is read-only once built.
type shape struct {
	kind    kind
	typ     reflect.Type // without the pointer of an optional member
	rule    *Rule        // never nil
	matches func() func(string) bool
	element *shape // of a list's members or a map's values
	key     *shape // of a map's keys

	time                           timeFormat // of a timestamp, "" for what is usual where it stands
	flat                           bool       // no element around a list or map in forms and XML
	memberName, keyName, valueName string     // of the parts in forms and XML

	members []*member // of a structure, in the model's order
	wire    map[string]*member
	payload *member
	body    bool // some members are in the body
	query   bool // some members are in the query string
	stream  bool // one member is an event stream
	union   bool // exactly one member is set
}

// A member is one field of a structure.
type member struct {
	index     int    // of the field
	wire      string // its name in JSON, XML, query string or header
	path      string // its name in validation errors
	location  location
	required  bool
	sensitive bool
	shape     *shape
}

// shapeCache holds the shapes of one service.
type shapeCache struct {
	done sync.Map // reflect.Type of a structure to *shape

	mu    sync.Mutex          // held while shapes are built
	known map[shapeKey]*shape // complete ones only; guarded by mu
}

// A shapeKey is all that a shape is made of.
type shapeKey struct {
	typ  reflect.Type
	rule string
	time timeFormat // by the member's tag, which goes before the rule
	flat bool       // by the member's tag
}

// shape returns the shape of a structure, built at its first use. The error names
// what the type lacks; generated types have none, as a test checks.
func (s *Service) shape(t reflect.Type) (*shape, error) {
	if known, ok := s.shapes.done.Load(t); ok {
		return known.(*shape), nil
	}
	s.shapes.mu.Lock()
	defer s.shapes.mu.Unlock()
	b := builder{service: s, fresh: map[shapeKey]*shape{}}
	built, err := b.shape(shapeKey{typ: t})
	if err != nil {
		return nil, err
	}
	if s.shapes.known == nil {
		s.shapes.known = map[shapeKey]*shape{}
	}
	maps.Copy(s.shapes.known, b.fresh)
	s.shapes.done.Store(t, built)
	return built, nil
}

// mustShape is for the types of operations.
func (s *Service) mustShape(t reflect.Type) *shape {
	built, err := s.shape(t)
	if err != nil {
		panic(fmt.Sprintf("api: %s: %v", s.Name, err)) // a generator that writes such types is broken
	}
	return built
}

// A builder makes the shapes that one type refers to. It is used with the
// service's shapes.mu held.
type builder struct {
	service *Service
	fresh   map[shapeKey]*shape // also unfinished ones, for types that contain themselves
}

var (
	timeType = reflect.TypeFor[time.Time]()
	blobType = reflect.TypeFor[[]byte]()
)

var scalarKinds = map[reflect.Kind]kind{reflect.String: kindString, reflect.Int32: kindInteger, reflect.Int64: kindLong,
	reflect.Float32: kindFloat, reflect.Float64: kindDouble, reflect.Bool: kindBoolean}

func (b *builder) shape(key shapeKey) (*shape, error) {
	if key.typ.Kind() == reflect.Pointer {
		key.typ = key.typ.Elem()
	}
	if known := cmp.Or(b.fresh[key], b.service.shapes.known[key]); known != nil {
		return known, nil
	}
	rule := &Rule{}
	if key.rule != "" {
		named, ok := b.service.Rules[key.rule]
		if !ok {
			return nil, fmt.Errorf("there is no rule %q", key.rule)
		}
		rule = &named
	}
	t := key.typ
	s := &shape{typ: t, rule: rule, matches: rule.matcher(), flat: key.flat || rule.Flat, time: cmp.Or(key.time, timeFormat(rule.Time)),
		memberName: cmp.Or(rule.MemberName, "member"), keyName: cmp.Or(rule.KeyName, "key"), valueName: cmp.Or(rule.ValueName, "value")}
	b.fresh[key] = s
	scalar, ok := scalarKinds[t.Kind()]
	switch {
	case ok:
		s.kind = scalar
	case t == timeType:
		s.kind = kindTimestamp
	case t == blobType:
		s.kind = kindBlob
	case t.Kind() == reflect.Slice:
		s.kind = kindList
		return s, b.part(&s.element, t.Elem(), rule.Member)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		s.kind = kindMap
		return s, errors.Join(b.part(&s.key, t.Key(), rule.Key), b.part(&s.element, t.Elem(), rule.Value))
	case t.Kind() == reflect.Struct:
		s.kind = kindStructure
		return s, b.members(s)
	default:
		return nil, fmt.Errorf("type %s has no counterpart on the wire", t)
	}
	return s, nil
}

// part sets the shape of a list's members, or of a map's keys or values.
func (b *builder) part(into **shape, t reflect.Type, rule string) (err error) {
	*into, err = b.shape(shapeKey{typ: t, rule: rule})
	return err
}

// members parses the fields of a structure.
func (b *builder) members(s *shape) error {
	s.wire = map[string]*member{}
	for i := range s.typ.NumField() {
		field := s.typ.Field(i)
		tag, ok := field.Tag.Lookup("aws")
		if !ok {
			return fmt.Errorf("%s.%s has no tag", s.typ, field.Name)
		}
		if field.Name == "_" {
			s.union = true
			continue
		}
		name, flags, _ := strings.Cut(tag, ",")
		m := &member{index: i, wire: name, path: strings.ToLower(field.Name[:1]) + field.Name[1:]}
		key := shapeKey{typ: field.Type, rule: field.Tag.Get("of")}
		for flag := range strings.SplitSeq(flags, ",") {
			switch {
			case flag == "":
			case flag == "required":
				m.required = true
			case flag == "sensitive":
				m.sensitive = true
			case flag == "flat":
				key.flat = true
			case slices.Contains(TimeFormats, flag):
				key.time = timeFormat(flag)
			default:
				if m.location, ok = locations[flag]; !ok {
					return fmt.Errorf("%s.%s has unknown flag %q", s.typ, field.Name, flag)
				}
			}
		}
		var err error
		if m.shape, err = b.shape(key); err != nil {
			return err
		}
		s.add(m)
	}
	return nil
}

func (s *shape) add(m *member) {
	s.members = append(s.members, m)
	switch m.location {
	case inBody:
		s.body = true
		s.wire[m.wire] = m
	case inQuery:
		s.query = true
	case inHeader:
		m.wire = http.CanonicalHeaderKey(m.wire)
	case isPayload:
		s.payload = m
	case isEventStream:
		s.stream = true
	}
}

// absent says whether the member is not set in v, a structure.
func (m *member) absent(v reflect.Value) bool {
	switch f := v.Field(m.index); f.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return f.IsNil()
	default:
		return false
	}
}

// get returns the member's value in v, a structure that has it.
func (m *member) get(v reflect.Value) reflect.Value {
	f := v.Field(m.index)
	if f.Kind() == reflect.Pointer {
		return f.Elem()
	}
	return f
}

// fresh sets the member in v, a structure, to a new zero value and returns that.
func (m *member) fresh(v reflect.Value) reflect.Value {
	f := v.Field(m.index)
	if f.Kind() == reflect.Pointer {
		f.Set(reflect.New(m.shape.typ))
		return f.Elem()
	}
	f.SetZero()
	return f
}
