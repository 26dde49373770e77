package api

import (
	"cmp"
	"net/http"
	"reflect"
	"strings"
)

// headerTexts returns the members of a list, or a scalar, in a header that may be
// there several times. Clients put a list into one header with commas between.
func headerTexts(s *shape, values []string) []string {
	if s.kind != kindList || len(values) == 0 {
		return values
	}
	dates := s.element.kind == kindTimestamp && cmp.Or(s.element.time, headerTime) == headerTime
	var texts []string
	for _, value := range values {
		texts = append(texts, splitHeader(value, dates)...)
	}
	return texts
}

// splitHeader splits at commas outside of quotes, within which \ escapes. A date
// has a comma of its own.
func splitHeader(value string, dates bool) []string {
	var texts []string
	for rest, more := value, value != ""; more; {
		var text string
		if strings.HasPrefix(strings.TrimLeft(rest, " \t"), `"`) {
			text, rest = unquote(strings.TrimLeft(rest, " \t"))
			_, rest, more = strings.Cut(rest, ",")
		} else {
			text, rest, more = strings.Cut(rest, ",")
			if dates && more {
				var time string
				time, rest, more = strings.Cut(rest, ",")
				text += "," + time
			}
			text = strings.Trim(text, " \t")
		}
		texts = append(texts, text)
	}
	return texts
}

// unquote returns the text of the quoted string that s begins with, and what
// follows. A quote that is missing at the end is taken to be there.
func unquote(s string) (text, rest string) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return b.String(), ""
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// setHeader writes a member that is in a header; an empty list is not written.
func setHeader(header http.Header, m *member, v reflect.Value) {
	if m.shape.kind != kindList {
		header.Set(m.wire, formatText(m.shape, v, headerTime))
		return
	}
	var texts []string
	for i := range v.Len() {
		text := formatText(m.shape.element, v.Index(i), headerTime)
		if m.shape.element.kind == kindString && (text == "" || strings.ContainsAny(text, `",`) || strings.Trim(text, " \t") != text) {
			text = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
		}
		texts = append(texts, text)
	}
	if len(texts) > 0 {
		header.Set(m.wire, strings.Join(texts, ", "))
	}
}
