package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A model is a service-2.json file. All its fields are declared, also those
// without a use here, because an undeclared one stops the generator.
type model struct {
	Version       string             `json:"version"`
	Metadata      metadata           `json:"metadata"`
	Operations    ordered[operation] `json:"operations"`
	Shapes        ordered[shape]     `json:"shapes"`
	Documentation string             `json:"documentation"`
}

type metadata struct {
	APIVersion          string   `json:"apiVersion"`
	Auth                []string `json:"auth"`
	EndpointPrefix      string   `json:"endpointPrefix"`
	GlobalEndpoint      string   `json:"globalEndpoint"`
	JSONVersion         string   `json:"jsonVersion"`
	Protocol            string   `json:"protocol"`
	Protocols           []string `json:"protocols"`
	ServiceAbbreviation string   `json:"serviceAbbreviation"`
	ServiceFullName     string   `json:"serviceFullName"`
	ServiceID           string   `json:"serviceId"`
	SignatureVersion    string   `json:"signatureVersion"`
	SigningName         string   `json:"signingName"`
	TargetPrefix        string   `json:"targetPrefix"`
	UID                 string   `json:"uid"`
	XMLNamespace        string   `json:"xmlNamespace"`
}

type operation struct {
	Name string `json:"name"`
	HTTP struct {
		Method       string `json:"method"`
		RequestURI   string `json:"requestUri"`
		ResponseCode int    `json:"responseCode"`
	} `json:"http"`
	Input  *reference  `json:"input"`
	Output *reference  `json:"output"`
	Errors []reference `json:"errors"` // a client learns them from the answer, none is refused

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

// A reference names a shape, from an operation, a structure's member or a list.
type reference struct {
	Shape            string `json:"shape"`
	Location         string `json:"location"`
	LocationName     string `json:"locationName"`
	ResultWrapper    string `json:"resultWrapper"`
	Box              bool   `json:"box"`
	EventPayload     bool   `json:"eventpayload"`
	IdempotencyToken bool   `json:"idempotencyToken"` // clients fill it in

	Deprecated        bool   `json:"deprecated"`
	DeprecatedMessage string `json:"deprecatedMessage"`
	DeprecatedSince   string `json:"deprecatedSince"`
	Documentation     string `json:"documentation"`
}

type shape struct {
	Type     string             `json:"type"`
	Members  ordered[reference] `json:"members"`
	Member   *reference         `json:"member"`
	Key      *reference         `json:"key"`
	Value    *reference         `json:"value"`
	Required []string           `json:"required"`
	Payload  string             `json:"payload"`

	Min       *json.Number `json:"min"`
	Max       *json.Number `json:"max"`
	Pattern   string       `json:"pattern"`
	Enum      []string     `json:"enum"`
	Sensitive bool         `json:"sensitive"`

	Exception bool        `json:"exception"`
	Fault     bool        `json:"fault"`
	Error     *errorTrait `json:"error"`

	Event       bool `json:"event"`
	EventStream bool `json:"eventstream"`
	Streaming   bool `json:"streaming"`
	Union       bool `json:"union"`
	Box         bool `json:"box"` // every scalar is a pointer here

	Deprecated        bool   `json:"deprecated"`
	DeprecatedMessage string `json:"deprecatedMessage"`
	Documentation     string `json:"documentation"`
}

type errorTrait struct {
	Code           string `json:"code"`
	HTTPStatusCode int    `json:"httpStatusCode"`
	SenderFault    bool   `json:"senderFault"`
}

// ordered is a JSON object whose order matters: validation reports errors and
// responses list members in the model's order.
type ordered[T any] struct {
	names  []string
	values map[string]*T
}

func (o *ordered[T]) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if _, err := decoder.Token(); err != nil {
		return err
	}
	o.values = map[string]*T{}
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
		o.names = append(o.names, name)
		o.values[name] = value
	}
	return nil
}

// check reports a reference to a shape that is not there.
func (m *model) check() error {
	resolve := func(where string, r *reference) error {
		if r != nil && m.Shapes.values[r.Shape] == nil {
			return fmt.Errorf("%s refers to unknown shape %q", where, r.Shape)
		}
		return nil
	}
	for _, name := range m.Operations.names {
		op := m.Operations.values[name]
		for _, r := range []*reference{op.Input, op.Output} {
			if err := resolve(name, r); err != nil {
				return err
			}
		}
	}
	for _, name := range m.Shapes.names {
		s := m.Shapes.values[name]
		references := []*reference{s.Member, s.Key, s.Value}
		for _, member := range s.Members.names {
			references = append(references, s.Members.values[member])
		}
		for _, r := range references {
			if err := resolve(name, r); err != nil {
				return err
			}
		}
	}
	return nil
}
