package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"cloister/api"
	"cloister/api/internal/botocore"
)

// A built service is made of a model at run time. Everything but the printing of Go
// code is the generator's own: names, tags, rules and what it refuses.
type built struct {
	*api.Service
	model    *botocore.Model
	declared *botocore.Package
	types    map[structureAt]reflect.Type
}

// A structureAt is a structure inside so many others.
type structureAt struct {
	name  string
	depth int
}

// deepest is how deep structures lie in each other. Types made at run time cannot
// contain themselves; the member that would be deeper is left out.
const deepest = 5

// build makes a service with the operations of a model.
func build(text []byte) (*built, error) {
	b, err := buildTypes(text)
	if err != nil {
		return nil, err
	}
	for _, method := range b.declared.Operations {
		op := api.BindTypes(method.Operation, b.typ(method.In, 0), b.typ(method.Out, 0))
		b.Operations = append(b.Operations, op)
		for _, t := range []reflect.Type{op.InputType(), op.OutputType()} {
			if err := b.ShapeError(t); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// buildTypes makes a service without operations, whose types are made when asked for.
func buildTypes(text []byte) (*built, error) {
	model, err := botocore.ParseModel(text)
	if err != nil {
		return nil, err
	}
	declared, err := model.Describe(botocore.Options{})
	if err != nil {
		return nil, err
	}
	meta := model.Metadata
	b := &built{model: model, declared: declared, types: map[structureAt]reflect.Type{}, Service: &api.Service{
		Name: "built", Protocol: declared.Protocol, APIVersion: meta.APIVersion, TargetPrefix: meta.TargetPrefix, JSONVersion: meta.JSONVersion,
		QueryCompatible: meta.QueryCompatible != nil, Namespace: meta.XMLNamespace, ValidationCode: "ValidationException", FailureCode: "InternalFailure",
		Rules: map[string]api.Rule{},
	}}
	if meta.JSONVersion == "1.0" {
		b.ErrorNamespace = "aws.protocoltests.json10"
	}
	for _, rule := range declared.Rules {
		b.Rules[rule.Name] = rule.Rule
	}
	return b, nil
}

// typ returns the type that Go code means, nil for a structure that is too deep.
func (b *built) typ(code string, depth int) reflect.Type {
	scalars := map[string]reflect.Type{"string": reflect.TypeFor[string](), "int32": reflect.TypeFor[int32](), "int64": reflect.TypeFor[int64](),
		"bool": reflect.TypeFor[bool](), "float32": reflect.TypeFor[float32](), "float64": reflect.TypeFor[float64](),
		"time.Time": reflect.TypeFor[time.Time](), "byte": reflect.TypeFor[byte](), "api.Empty": reflect.TypeFor[api.Empty]()}
	if t := scalars[code]; t != nil {
		return t
	}
	for prefix, make := range map[string]func(reflect.Type) reflect.Type{
		"*": reflect.PointerTo, "[]": reflect.SliceOf, "map[string]": func(t reflect.Type) reflect.Type { return reflect.MapOf(scalars["string"], t) },
	} {
		if rest, ok := strings.CutPrefix(code, prefix); ok {
			if part := b.typ(rest, depth); part != nil {
				return make(part)
			}
			return nil
		}
	}
	if depth > deepest {
		return nil
	}
	at := structureAt{code, depth}
	if b.types[at] == nil {
		b.types[at] = b.structure(code, depth)
	}
	return b.types[at]
}

func (b *built) structure(name string, depth int) reflect.Type {
	var fields []reflect.StructField
	for _, s := range b.declared.Structures {
		if s.Name != name {
			continue
		}
		if s.Union {
			fields = append(fields, reflect.StructField{Name: "_", PkgPath: "cloister/api", Type: reflect.TypeFor[struct{}](), Tag: `aws:",union"`})
		}
		for _, f := range s.Fields {
			if t := b.typ(f.Type, depth+1); t != nil {
				fields = append(fields, reflect.StructField{Name: f.Name, Type: t, Tag: reflect.StructTag(f.Tag)})
			}
		}
	}
	return reflect.StructOf(fields)
}

// fill sets v, of the shape of that name, from a value as the cases write them:
// timestamps are seconds, blobs are text, null is nothing. It knows nothing of
// codecs and tags.
func (b *built) fill(v reflect.Value, shape string, value any) error {
	if value == nil {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	s := b.model.Shapes.Values[shape]
	switch value := value.(type) {
	case map[string]any:
		return b.fillObject(v, s, value)
	case []any:
		if v.Kind() != reflect.Slice {
			return fmt.Errorf("a list for a %s", s.Type)
		}
		v.Set(reflect.MakeSlice(v.Type(), len(value), len(value)))
		for i, each := range value {
			if err := b.fill(v.Index(i), s.Member.Shape, each); err != nil {
				return err
			}
		}
		return nil
	case bool:
		v.SetBool(value)
		return nil
	case string:
		switch special := map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}; {
		case v.Kind() == reflect.String:
			v.SetString(value)
		case s.Type == "blob":
			v.SetBytes([]byte(value))
		case v.CanFloat():
			v.SetFloat(special[value])
		default:
			return fmt.Errorf("%q for a %s", value, s.Type)
		}
		return nil
	case json.Number:
		return fillNumber(v, s, value)
	}
	return fmt.Errorf("%T for a %s", value, s.Type)
}

func (b *built) fillObject(v reflect.Value, s *botocore.Shape, value map[string]any) error {
	if s.Type == "map" {
		v.Set(reflect.MakeMap(v.Type()))
		for key, each := range value {
			entry := reflect.New(v.Type().Elem()).Elem()
			if err := b.fill(entry, s.Value.Shape, each); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(key), entry)
		}
		return nil
	}
	for name, each := range value {
		member, ok := s.Members.Values[name]
		if !ok {
			return fmt.Errorf("no member %s", name)
		}
		f := v.FieldByName(botocore.Exported(name))
		if !f.IsValid() {
			return errors.New("too deep")
		}
		if err := b.fill(f, member.Shape, each); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func fillNumber(v reflect.Value, s *botocore.Shape, value json.Number) error {
	f, err := value.Float64()
	if err != nil {
		return err
	}
	switch {
	case s.Type == "timestamp":
		v.Set(reflect.ValueOf(time.UnixMilli(int64(math.Round(f * 1000))).UTC()))
	case v.CanInt():
		v.SetInt(int64(f))
	case v.CanFloat():
		v.SetFloat(f)
	default:
		return fmt.Errorf("%s for a %s", value, s.Type)
	}
	return nil
}

// decodeAny decodes JSON without a type, numbers as they are written.
func decodeAny(t *testing.T, text []byte) (value any) {
	t.Helper()
	if len(text) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return value
}
