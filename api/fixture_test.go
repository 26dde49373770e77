package api_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// text writes a scalar as a client does in a path, query string or form. It is
// written apart from the codecs, which it checks.
func text(v reflect.Value) string {
	if !v.IsValid() {
		return ""
	}
	switch value := v.Interface().(type) {
	case time.Time:
		return value.Format("2006-01-02T15:04:05Z")
	case []byte:
		return base64.StdEncoding.EncodeToString(value)
	default:
		return fmt.Sprint(value)
	}
}

// flatten adds a value to a form, as the query protocol nests it.
func flatten(form url.Values, name string, v reflect.Value) {
	v = reflect.Indirect(v)
	dot := ""
	if name != "" {
		dot = name + "."
	}
	switch {
	case !v.IsValid():
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]():
		before := len(form)
		for i := range v.NumField() {
			wire, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("aws"), ",")
			if wire != "" {
				flatten(form, dot+wire, v.Field(i))
			}
		}
		if len(form) == before && name != "" {
			form.Set(name, "")
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		for i := range v.Len() {
			flatten(form, dot+"member."+strconv.Itoa(i+1), v.Index(i))
		}
	case v.Kind() == reflect.Slice && v.IsNil():
	case v.Kind() == reflect.Map:
		for i, key := range v.MapKeys() {
			entry := dot + "entry." + strconv.Itoa(i+1)
			form.Set(entry+".key", key.String())
			flatten(form, entry+".value", v.MapIndex(key))
		}
	default:
		form.Set(name, text(v))
	}
}
