package api

import (
	"encoding/base64"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth bounds how deep JSON values may lie in each other.
	maxDepth = 512
	// maxValues bounds the list members and map entries of one request. Three
	// bytes of JSON can make a structure of hundreds.
	maxValues = 1 << 17
)

// A jsonReader decodes one JSON text into typed values, in one pass and without
// copying what needs no copy. It accepts RFC 8259 and nothing more; unlike
// encoding/json it refuses strings that are not valid UTF-8, works on names
// exactly, and reports AWS's errors.
type jsonReader struct {
	text   []byte
	pos    int
	depth  int
	values int // list members and map entries so far
}

// decodeJSON decodes text, an object, into v of shape s, a structure. Unknown
// members are ignored, null counts as absent, of equal names the last wins.
func decodeJSON(text []byte, s *shape, v reflect.Value) error {
	r := jsonReader{text: text}
	if r.peek() == 'n' {
		if err := r.literal("null"); err != nil {
			return err
		}
	} else if err := r.value(s, v); err != nil {
		return err
	}
	return r.end()
}

// end reports what follows the one value that a text is.
func (r *jsonReader) end() error {
	if r.peek() != 0 || r.pos < len(r.text) {
		return r.syntax()
	}
	return nil
}

// syntax is the error for text that is not JSON.
func (r *jsonReader) syntax() error {
	if r.pos >= len(r.text) {
		return malformed("Unexpected end of the JSON text")
	}
	return malformed("The JSON text is not valid at byte %d", r.pos)
}

// peek skips white space and returns the first byte of the next token, 0 at the
// end and for the byte 0, which begins no token.
func (r *jsonReader) peek() byte {
	for ; r.pos < len(r.text); r.pos++ {
		switch c := r.text[r.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (r *jsonReader) literal(word string) error {
	if len(r.text)-r.pos < len(word) || string(r.text[r.pos:r.pos+len(word)]) != word {
		return r.syntax()
	}
	r.pos += len(word)
	return nil
}

// value decodes the next value, not null, into v.
func (r *jsonReader) value(s *shape, v reflect.Value) error {
	switch c := r.peek(); c {
	case '{':
		switch s.kind {
		case kindStructure:
			return r.structure(s, v)
		case kindMap:
			return r.entries(s, v)
		}
		return malformed("Start of structure or map found where not expected.")
	case '[':
		if s.kind != kindList {
			return malformed("Start of list found where not expected.")
		}
		return r.list(s, v)
	case '"':
		return r.stringValue(s, v)
	case 't', 'f':
		return r.boolean(s, v, c == 't')
	default:
		number, err := r.number()
		if err != nil {
			return err
		}
		return r.numeric(s, v, number)
	}
}

func (r *jsonReader) structure(s *shape, v reflect.Value) error {
	return r.object(func(name []byte) error {
		m := s.wire[string(name)]
		if m == nil {
			return r.skip()
		}
		if r.peek() == 'n' {
			v.Field(m.index).SetZero()
			return r.literal("null")
		}
		return r.value(m.shape, m.fresh(v))
	})
}

func (r *jsonReader) entries(s *shape, v reflect.Value) error {
	v.Set(reflect.MakeMap(v.Type()))
	return r.object(func(name []byte) error {
		if err := r.spend(); err != nil {
			return err
		}
		entry := reflect.New(s.element.typ).Elem()
		if err := r.value(s.element, entry); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(string(name)), entry)
		return nil
	})
}

func (r *jsonReader) list(s *shape, v reflect.Value) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	return r.array(func() error {
		if err := r.spend(); err != nil {
			return err
		}
		v.Grow(1)
		v.SetLen(v.Len() + 1)
		return r.value(s.element, v.Index(v.Len()-1))
	})
}

// spend counts a list member or map entry, which must not be null.
func (r *jsonReader) spend() error {
	if r.values++; r.values > maxValues {
		return malformed("The request has more than %d list members and map entries", maxValues)
	}
	if r.peek() == 'n' {
		return malformed("A list or map must not contain null")
	}
	return nil
}

// stringValue decodes a string, which may also be a blob's base64, some forms of
// a timestamp, or a float that has no digits.
func (r *jsonReader) stringValue(s *shape, v reflect.Value) error {
	text, err := r.string()
	if err != nil {
		return err
	}
	switch s.kind {
	case kindString:
		v.SetString(string(text))
		return nil
	case kindBlob:
		decoded := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(decoded, text)
		if err != nil {
			return malformed("A blob is not valid base64")
		}
		v.SetBytes(decoded[:n])
		return nil
	case kindTimestamp:
		if s.time.isText() {
			return parseText(s, v, string(text), s.time)
		}
	case kindFloat, kindDouble:
		if float, ok := notNumbers[string(text)]; ok {
			v.SetFloat(float)
			return nil
		}
	}
	return mismatch("STRING_VALUE", s)
}

func (r *jsonReader) boolean(s *shape, v reflect.Value, value bool) error {
	if err := r.literal(strconv.FormatBool(value)); err != nil {
		return err
	}
	if s.kind != kindBoolean {
		token := "FALSE_VALUE"
		if value {
			token = "TRUE_VALUE"
		}
		return mismatch(token, s)
	}
	v.SetBool(value)
	return nil
}

func (r *jsonReader) numeric(s *shape, v reflect.Value, number []byte) error {
	switch s.kind {
	case kindInteger, kindLong, kindFloat, kindDouble:
		return parseNumber(s, v, string(number), "NUMBER_VALUE")
	case kindTimestamp:
		if t, ok := parseTime(string(number), epochTime); ok && !s.time.isText() {
			v.Set(reflect.ValueOf(t))
			return nil
		}
	}
	return mismatch("NUMBER_VALUE", s)
}

// object calls member with the name of each member of the object at the
// reader's position; member consumes the value.
func (r *jsonReader) object(member func(name []byte) error) error {
	return r.container('}', func() error {
		if r.peek() != '"' {
			return r.syntax()
		}
		name, err := r.string()
		if err != nil {
			return err
		}
		if r.peek() != ':' {
			return r.syntax()
		}
		r.pos++
		return member(name)
	})
}

// array calls element for each element, which it consumes.
func (r *jsonReader) array(element func() error) error { return r.container(']', element) }

func (r *jsonReader) container(end byte, item func() error) error {
	if r.depth++; r.depth > maxDepth {
		return malformed("The JSON text is nested deeper than %d levels", maxDepth)
	}
	r.pos++
	if r.peek() != end {
		for {
			if err := item(); err != nil {
				return err
			}
			if r.peek() != ',' {
				break
			}
			r.pos++
		}
		if r.peek() != end {
			return r.syntax()
		}
	}
	r.pos++
	r.depth--
	return nil
}

// skip consumes a value of any type.
func (r *jsonReader) skip() error {
	switch r.peek() {
	case '{':
		return r.object(func([]byte) error { return r.skip() })
	case '[':
		return r.array(r.skip)
	case '"':
		_, err := r.string()
		return err
	case 't':
		return r.literal("true")
	case 'f':
		return r.literal("false")
	case 'n':
		return r.literal("null")
	default:
		_, err := r.number()
		return err
	}
}

// string consumes a string and returns its value, which aliases the text if
// nothing in it is escaped.
func (r *jsonReader) string() ([]byte, error) {
	start := r.pos + 1
	for i := start; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.pos = i + 1
			if value := r.text[start:i]; utf8.Valid(value) {
				return value, nil
			}
			return nil, malformed("The JSON text is not valid UTF-8")
		case c == '\\':
			return r.escaped(start, i)
		case c < ' ':
			r.pos = i
			return nil, r.syntax()
		}
	}
	r.pos = len(r.text)
	return nil, r.syntax()
}

// escaped consumes a string that begins at start and has its first escape at i.
func (r *jsonReader) escaped(start, i int) ([]byte, error) {
	value := append(make([]byte, 0, i-start+64), r.text[start:i]...)
	for r.pos = i; r.pos < len(r.text); {
		switch c := r.text[r.pos]; {
		case c == '"':
			r.pos++
			if !utf8.Valid(value) {
				return nil, malformed("The JSON text is not valid UTF-8")
			}
			return value, nil
		case c == '\\':
			char, ok := r.escape()
			if !ok {
				return nil, r.syntax()
			}
			value = utf8.AppendRune(value, char)
		case c < ' ':
			return nil, r.syntax()
		default:
			value = append(value, c)
			r.pos++
		}
	}
	return nil, r.syntax()
}

// escape consumes one escape sequence, or two that are a surrogate pair. Half a
// pair becomes U+FFFD.
func (r *jsonReader) escape() (rune, bool) {
	if r.pos+1 >= len(r.text) {
		return 0, false
	}
	switch c := r.text[r.pos+1]; c {
	case '"', '\\', '/':
		r.pos += 2
		return rune(c), true
	case 'b', 'f', 'n', 'r', 't':
		r.pos += 2
		return rune("\b\f\n\r\t"[strings.IndexByte("bfnrt", c)]), true
	case 'u':
	default:
		return 0, false
	}
	first, ok := r.codeUnit(r.pos)
	if !ok {
		return 0, false
	}
	r.pos += 6
	if !utf16.IsSurrogate(first) {
		return first, true
	}
	if second, ok := r.codeUnit(r.pos); ok {
		if char := utf16.DecodeRune(first, second); char != utf8.RuneError {
			r.pos += 6
			return char, true
		}
	}
	return utf8.RuneError, true
}

// codeUnit returns the value of the \u escape at i, if there is one.
func (r *jsonReader) codeUnit(i int) (rune, bool) {
	if i+6 > len(r.text) || r.text[i] != '\\' || r.text[i+1] != 'u' {
		return 0, false
	}
	var unit rune
	for _, c := range r.text[i+2 : i+6] {
		switch {
		case c >= '0' && c <= '9':
			unit = unit<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			unit = unit<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			unit = unit<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return unit, true
}

// number consumes a number and returns its text.
func (r *jsonReader) number() ([]byte, error) {
	start := r.pos
	r.accept('-')
	if !r.accept('0') && !r.digits() {
		return nil, r.syntax()
	}
	if r.accept('.') && !r.digits() {
		return nil, r.syntax()
	}
	if r.accept('e') || r.accept('E') {
		_ = r.accept('+') || r.accept('-')
		if !r.digits() {
			return nil, r.syntax()
		}
	}
	return r.text[start:r.pos], nil
}

func (r *jsonReader) accept(c byte) bool {
	if r.pos < len(r.text) && r.text[r.pos] == c {
		r.pos++
		return true
	}
	return false
}

func (r *jsonReader) digits() bool {
	start := r.pos
	for r.pos < len(r.text) && r.text[r.pos] >= '0' && r.text[r.pos] <= '9' {
		r.pos++
	}
	return r.pos > start
}
