package logs

import (
	"strings"
	"unicode"
)

// A filterPattern is the part of CloudWatch's filter patterns that is about plain text: terms
// that a message must contain, terms with - that it must not, terms with ? of which one is
// enough. A term is a word, or anything in double quotes. Case matters. Optional terms
// count only when there are no others, as with AWS.
type filterPattern struct {
	required, excluded, optional []string
}

// maxTerms bounds the work per message.
const maxTerms = 64

// parseFilterPattern returns nil for a pattern that matches all. Refused says what is wrong.
func parseFilterPattern(s string) (p *filterPattern, refused string) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, ""
	}
	switch s[0] {
	case '{':
		return nil, "Invalid filter pattern: Cloister does not match JSON properties yet. Use terms, for example: ERROR \"exact phrase\" -debug"
	case '[':
		return nil, "Invalid filter pattern: Cloister does not match space-delimited fields yet. Use terms, for example: ERROR \"exact phrase\" -debug"
	case '%':
		return nil, "Invalid filter pattern: Cloister does not match regular expressions yet. Use terms, for example: ERROR \"exact phrase\" -debug"
	}
	p = &filterPattern{}
	for terms := 0; s != ""; terms++ {
		if terms == maxTerms {
			return nil, "Invalid filter pattern: more than 64 terms"
		}
		list := &p.required
		switch s[0] {
		case '-':
			list, s = &p.excluded, s[1:]
		case '?':
			list, s = &p.optional, s[1:]
		}
		term, rest, ok := cutTerm(s)
		if !ok {
			return nil, "Invalid filter pattern: a term is empty or its quotation mark is not closed"
		}
		*list = append(*list, term)
		s = strings.TrimLeftFunc(rest, unicode.IsSpace)
	}
	if len(p.required)+len(p.excluded) > 0 {
		p.optional = nil
	}
	return p, ""
}

// cutTerm takes a word or a quoted phrase off the front. In quotes a backslash makes the next
// character plain.
func cutTerm(s string) (term, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexFunc(s, unicode.IsSpace)
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], end > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:], b.Len() > 0
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// matches says whether a message passes. It is called for each event of a search.
func (p *filterPattern) matches(message string) bool {
	contains := func(term string) bool { return strings.Contains(message, term) }
	for _, term := range p.required {
		if !contains(term) {
			return false
		}
	}
	for _, term := range p.excluded {
		if contains(term) {
			return false
		}
	}
	for _, term := range p.optional {
		if contains(term) {
			return true
		}
	}
	return len(p.optional) == 0
}
