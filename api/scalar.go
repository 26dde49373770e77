package api

import (
	"encoding/base64"
	"math"
	"reflect"
	"strconv"
	"time"
)

// A timeFormat is a layout for package time. JSON bodies have seconds since 1970
// instead.
type timeFormat string

const (
	isoTime    timeFormat = "2006-01-02T15:04:05Z"          // query strings, forms, XML
	headerTime timeFormat = "Mon, 02 Jan 2006 15:04:05 GMT" // headers
)

// parseText sets v, a scalar of shape s, from its form in a path, query string,
// header or form parameter.
func parseText(s *shape, v reflect.Value, text string, format timeFormat) error {
	switch s.kind {
	case kindString:
		v.SetString(text)
		return nil
	case kindBlob:
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return malformed("A blob is not valid base64")
		}
		v.SetBytes(decoded)
		return nil
	case kindBoolean:
		if text != "true" && text != "false" {
			return mismatch("STRING_VALUE", s)
		}
		v.SetBool(text == "true")
		return nil
	case kindTimestamp:
		return parseTime(s, v, text, format)
	case kindInteger, kindLong, kindFloat, kindDouble:
		return parseNumber(s, v, text, "STRING_VALUE")
	default:
		return mismatch("STRING_VALUE", s)
	}
}

// parseTime accepts the format, fractions of a second and other offsets included.
func parseTime(s *shape, v reflect.Value, text string, format timeFormat) error {
	layout := time.RFC3339
	if format == headerTime {
		layout = string(headerTime)
	}
	t, err := time.Parse(layout, text)
	if err != nil {
		return mismatch("STRING_VALUE", s)
	}
	v.Set(reflect.ValueOf(t.UTC()))
	return nil
}

// parseNumber sets v from a decimal number. A whole number may be written as a
// fraction, 1.0 or 1e3. Token is what the text was, for the error.
func parseNumber(s *shape, v reflect.Value, text, token string) error {
	if s.kind == kindInteger || s.kind == kindLong {
		if n, err := strconv.ParseInt(text, 10, s.typ.Bits()); err == nil {
			v.SetInt(n)
			return nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return mismatch(token, s)
	}
	if s.kind == kindFloat || s.kind == kindDouble {
		v.SetFloat(f)
		return nil
	}
	const exact = 1 << 53 // the integers a float64 holds exactly
	if f != math.Trunc(f) || math.Abs(f) > exact || v.OverflowInt(int64(f)) {
		return mismatch(token, s)
	}
	v.SetInt(int64(f))
	return nil
}

// formatText is the inverse of parseText.
func formatText(s *shape, v reflect.Value, format timeFormat) string {
	switch s.kind {
	case kindString:
		return v.String()
	case kindBlob:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case kindBoolean:
		return strconv.FormatBool(v.Bool())
	case kindInteger, kindLong:
		return strconv.FormatInt(v.Int(), 10)
	case kindFloat, kindDouble:
		return strconv.FormatFloat(v.Float(), 'g', -1, s.typ.Bits())
	case kindTimestamp:
		return timeOf(v).UTC().Format(string(format))
	default:
		return ""
	}
}

func timeOf(v reflect.Value) time.Time { return v.Interface().(time.Time) }

// mismatch is AWS's error for a value of the wrong type.
func mismatch(token string, s *shape) error {
	return malformed("%s can not be converted to %s", token, kindNames[s.kind])
}
