package api

import (
	"cmp"
	"encoding/base64"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// TimeFormats are the forms of a timestamp, as models call them.
var TimeFormats = []string{string(isoTime), string(headerTime), string(epochTime)}

// A timeFormat is one of TimeFormats.
type timeFormat string

const (
	isoTime    timeFormat = "iso8601"       // usual in paths, query strings, forms and XML
	headerTime timeFormat = "rfc822"        // usual in headers
	epochTime  timeFormat = "unixTimestamp" // seconds since 1970, usual in JSON
)

// isText says whether JSON has the format as a string instead of a number.
func (f timeFormat) isText() bool { return f == isoTime || f == headerTime }

const (
	// Milliseconds are what AWS's own services keep; none are written where there are none.
	isoLayout    = "2006-01-02T15:04:05.999Z"
	headerLayout = "Mon, 02 Jan 2006 15:04:05 GMT"
)

// parseText sets v, a scalar of shape s, from its form in a path, query string,
// header, form parameter or, of timestamps, a JSON string.
func parseText(s *shape, v reflect.Value, text string, usual timeFormat) error {
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
		t, ok := parseTime(text, cmp.Or(s.time, usual))
		if !ok {
			return mismatch("STRING_VALUE", s)
		}
		v.Set(reflect.ValueOf(t))
		return nil
	case kindInteger, kindLong, kindFloat, kindDouble:
		if float, ok := notNumbers[text]; ok && s.kind >= kindFloat {
			v.SetFloat(float)
			return nil
		}
		return parseNumber(s, v, text, "STRING_VALUE")
	default:
		return mismatch("STRING_VALUE", s)
	}
}

// notNumbers are the floats that have no digits, as AWS writes them.
var notNumbers = map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}

// parseTime accepts fractions of a second, and other offsets where the format has one.
func parseTime(text string, format timeFormat) (t time.Time, ok bool) {
	layout := time.RFC3339
	switch format {
	case epochTime:
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(math.Abs(seconds) <= 1<<38) { // some thousand years; NaN is no time either
			return t, false
		}
		return time.UnixMilli(int64(math.Round(seconds * 1000))).UTC(), true
	case headerTime:
		layout = headerLayout
	}
	t, err := time.Parse(layout, text)
	return t.UTC(), err == nil
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
	if err != nil || strings.Trim(text, "0123456789.eE+-") != "" { // hexadecimal, inf, nan
		return mismatch(token, s)
	}
	if s.kind == kindFloat || s.kind == kindDouble {
		if v.OverflowFloat(f) {
			return mismatch(token, s)
		}
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
func formatText(s *shape, v reflect.Value, usual timeFormat) string {
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
		return strings.Trim(string(appendFloat(nil, v.Float(), s.typ.Bits())), `"`)
	case kindTimestamp:
		return formatTime(timeOf(v), cmp.Or(s.time, usual))
	default:
		return ""
	}
}

func formatTime(t time.Time, format timeFormat) string {
	switch t = t.UTC(); format {
	case epochTime:
		return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
	case headerTime:
		return t.Format(headerLayout)
	default:
		return t.Format(isoLayout)
	}
}

func timeOf(v reflect.Value) time.Time { return v.Interface().(time.Time) }

// mismatch is AWS's error for a value of the wrong type.
func mismatch(token string, s *shape) error {
	return malformed("%s can not be converted to %s", token, kindNames[s.kind])
}
