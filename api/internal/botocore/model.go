package botocore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// A Model is a service-2.json file. All its fields are declared, also those
// without a use here, because an undeclared one is an error.
type Model struct {
	Version       string             `json:"version"`
	Metadata      Metadata           `json:"metadata"`
	Operations    Ordered[Operation] `json:"operations"`
	Shapes        Ordered[Shape]     `json:"shapes"`
	Documentation string             `json:"documentation"`
}

// Metadata says how a service speaks.
type Metadata struct {
	APIVersion          string    `json:"apiVersion"`
	Auth                []string  `json:"auth"`
	EndpointPrefix      string    `json:"endpointPrefix"`
	GlobalEndpoint      string    `json:"globalEndpoint"`
	JSONVersion         string    `json:"jsonVersion"`
	Protocol            string    `json:"protocol"`
	Protocols           []string  `json:"protocols"`
	QueryCompatible     *struct{} `json:"awsQueryCompatible"`
	ServiceAbbreviation string    `json:"serviceAbbreviation"`
	ServiceFullName     string    `json:"serviceFullName"`
	ServiceID           string    `json:"serviceId"`
	SignatureVersion    string    `json:"signatureVersion"`
	SigningName         string    `json:"signingName"`
	TargetPrefix        string    `json:"targetPrefix"`
	UID                 string    `json:"uid"`
	XMLNamespace        string    `json:"xmlNamespace"`
}

// An Operation is one call of a service.
type Operation struct {
	Name string `json:"name"`
	HTTP struct {
		Method       string `json:"method"`
		RequestURI   string `json:"requestUri"`
		ResponseCode int    `json:"responseCode"`
	} `json:"http"`
	Input  *Reference  `json:"input"`
	Output *Reference  `json:"output"`
	Errors []Reference `json:"errors"` // a client learns them from the answer, none is refused

	// What signs, hosts or describes the operation is of no concern to a server.
	Auth              []string       `json:"auth"`
	AuthType          string         `json:"authtype"`
	Endpoint          map[string]any `json:"endpoint"`
	Idempotent        bool           `json:"idempotent"`
	ReadOnly          bool           `json:"readonly"`
	Deprecated        bool           `json:"deprecated"`
	DeprecatedMessage string         `json:"deprecatedMessage"`
	Documentation     string         `json:"documentation"`
}

// A Reference names a shape, from an operation, a structure's member or a list.
// What it says of the shape goes before what the shape says itself.
type Reference struct {
	Shape           string `json:"shape"`
	Location        string `json:"location"`
	LocationName    string `json:"locationName"`
	ResultWrapper   string `json:"resultWrapper"`
	TimestampFormat string `json:"timestampFormat"`
	Flattened       bool   `json:"flattened"`

	Box              bool `json:"box"`
	EventPayload     bool `json:"eventpayload"`
	XMLNamespace     any  `json:"xmlNamespace"` // no client looks at it
	Error            any  `json:"error"`        // the shape has these, too
	Exception        any  `json:"exception"`
	Fault            any  `json:"fault"`
	HostLabel        bool `json:"hostLabel"`        // it is in the body, too
	IdempotencyToken bool `json:"idempotencyToken"` // clients fill it in
	JSONValue        bool `json:"jsonvalue"`        // a string that clients make of JSON

	Deprecated        bool   `json:"deprecated"`
	DeprecatedMessage string `json:"deprecatedMessage"`
	DeprecatedSince   string `json:"deprecatedSince"`
	Documentation     string `json:"documentation"`
}

// A Shape is a type of the service.
type Shape struct {
	Type     string             `json:"type"`
	Members  Ordered[Reference] `json:"members"`
	Member   *Reference         `json:"member"`
	Key      *Reference         `json:"key"`
	Value    *Reference         `json:"value"`
	Required []string           `json:"required"`
	Payload  string             `json:"payload"`

	Min       *json.Number `json:"min"`
	Max       *json.Number `json:"max"`
	Pattern   string       `json:"pattern"`
	Enum      []string     `json:"enum"`
	Sensitive bool         `json:"sensitive"`

	Exception bool        `json:"exception"`
	Fault     bool        `json:"fault"`
	Error     *ErrorTrait `json:"error"`

	TimestampFormat string `json:"timestampFormat"`
	Flattened       bool   `json:"flattened"`
	Event           bool   `json:"event"`
	EventStream     bool   `json:"eventstream"`
	Streaming       bool   `json:"streaming"`
	Union           bool   `json:"union"`
	Box             bool   `json:"box"` // every scalar is a pointer here
	XMLNamespace    any    `json:"xmlNamespace"`
	LocationName    string `json:"locationName"` // of a document's root in REST XML

	Deprecated        bool   `json:"deprecated"`
	DeprecatedMessage string `json:"deprecatedMessage"`
	Documentation     string `json:"documentation"`
}

// An ErrorTrait says how an error is answered.
type ErrorTrait struct {
	Code           string `json:"code"`
	HTTPStatusCode int    `json:"httpStatusCode"`
	SenderFault    bool   `json:"senderFault"`
}

// Ordered is a JSON object whose order matters: validation reports errors and
// responses list members in the model's order.
type Ordered[T any] struct {
	Names  []string
	Values map[string]*T
}

// UnmarshalJSON decodes an object. Two equal names are an error.
func (o *Ordered[T]) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if first, err := decoder.Token(); err != nil || first != json.Delim('{') {
		return fmt.Errorf("%.20q is no object: %w", text, err)
	}
	o.Names, o.Values = nil, map[string]*T{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		name := key.(string)
		value := new(T)
		if err := decoder.Decode(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name == "" || slices.Contains(o.Names, name) {
			return fmt.Errorf("%q stands there twice or is no name", name)
		}
		o.Names = append(o.Names, name)
		o.Values[name] = value
	}
	return nil
}

// check reports a reference to a shape that is not there.
func (m *Model) check() error {
	for _, name := range m.Operations.Names {
		op := m.Operations.Values[name]
		for _, r := range []*Reference{op.Input, op.Output} {
			if err := m.resolve(name, r); err != nil {
				return err
			}
		}
		for _, r := range op.Errors {
			if err := m.resolve(name, &r); err != nil {
				return err
			}
		}
	}
	for _, name := range m.Shapes.Names {
		for _, r := range m.Shapes.Values[name].parts() {
			if err := m.resolve(name, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Model) resolve(where string, r *Reference) error {
	if r != nil && m.Shapes.Values[r.Shape] == nil {
		return fmt.Errorf("%s refers to unknown shape %q", where, r.Shape)
	}
	return nil
}

// parts returns the references of a shape to other shapes.
func (s *Shape) parts() []*Reference {
	var references []*Reference
	for _, name := range s.Members.Names {
		references = append(references, s.Members.Values[name])
	}
	for _, r := range []*Reference{s.Member, s.Key, s.Value} {
		if r != nil {
			references = append(references, r)
		}
	}
	return references
}
