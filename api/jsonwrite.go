package api

import (
	"encoding/base64"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// appendObject appends the body members of v, a structure, that are set. Extra
// is text for the beginning of the object, without braces, or empty.
func appendObject(b []byte, s *shape, v reflect.Value, extra string) []byte {
	b = append(b, '{')
	b = append(b, extra...)
	first := extra == ""
	for _, m := range s.members {
		if m.location != inBody || m.absent(v) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, m.wire)
		b = append(b, ':')
		b = appendJSON(b, m.shape, m.get(v))
	}
	return append(b, '}')
}

// appendJSON appends one value.
func appendJSON(b []byte, s *shape, v reflect.Value) []byte {
	switch s.kind {
	case kindString:
		return appendString(b, v.String())
	case kindBoolean:
		return strconv.AppendBool(b, v.Bool())
	case kindInteger, kindLong:
		return strconv.AppendInt(b, v.Int(), 10)
	case kindFloat, kindDouble:
		return appendFloat(b, v.Float(), s.typ.Bits())
	case kindTimestamp:
		text := formatText(s, v, epochTime)
		if s.time.isText() {
			return appendString(b, text)
		}
		return append(b, text...)
	case kindBlob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"')
	case kindList:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, s.element, v.Index(i))
		}
		return append(b, ']')
	case kindMap:
		b = append(b, '{')
		for i, key := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, key.String())
			b = append(b, ':')
			b = appendJSON(b, s.element, v.MapIndex(key))
		}
		return append(b, '}')
	default:
		return appendObject(b, s, v, "")
	}
}

// appendFloat writes what JSON has no number for as AWS does, as a string.
func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	default:
		return strconv.AppendFloat(b, f, 'g', -1, bits)
	}
}

// appendString appends s as a JSON string. What is not valid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			char, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, char)
			i += size
			continue
		}
		i++
	}
	return append(b, '"')
}
