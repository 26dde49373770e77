package api

import (
	"fmt"
	"regexp"
	"strings"
)

// CompilePattern returns a function that says whether a whole string matches a
// pattern of a service model. The models are written for Java: the differences
// to Go's syntax are translated, patterns that need look-around have a check
// written by hand below, and anything else is an error, at which the generator
// stops. Matching takes time linear in the string.
func CompilePattern(pattern string) (func(string) bool, error) {
	hand, ok := handwrittenPatterns[pattern]
	if !ok {
		var err error
		if hand.expression, err = translatePattern(pattern); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	expression, err := regexp.Compile(`\A(?:` + hand.expression + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	if hand.refuse == nil {
		return expression.MatchString, nil
	}
	return func(s string) bool { return expression.MatchString(s) && !hand.refuse(s) }, nil
}

// javaSpace is what \s means in Java; in Go it lacks the vertical tab.
const javaSpace = `\s\v`

// translatePattern rewrites Java's syntax where Go's differs in form or meaning.
func translatePattern(pattern string) (string, error) {
	var b strings.Builder
	inClass, space := false, false // within [...]; that class has a \s
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			n, err := translateEscape(&b, pattern[i:], inClass, &space)
			if err != nil {
				return "", err
			}
			i += n - 1
		case c == '[' && inClass:
			return "", fmt.Errorf("nested character class")
		case c == '&' && inClass && strings.HasPrefix(pattern[i:], "&&"):
			return "", fmt.Errorf("intersection of character classes")
		case c == '[':
			inClass, space = true, false
			b.WriteByte(c)
		case c == ']':
			inClass = false
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// translateEscape writes the escape at the start of s and returns its length.
func translateEscape(b *strings.Builder, s string, inClass bool, space *bool) (int, error) {
	switch s[1] {
	case 'u':
		if len(s) < 6 {
			return 0, fmt.Errorf("short \\u escape")
		}
		b.WriteString(`\x{` + s[2:6] + `}`)
		return 6, nil
	case 's':
		*space = true
		if inClass {
			b.WriteString(javaSpace)
		} else {
			b.WriteString(`[` + javaSpace + `]`)
		}
	case 'S':
		switch {
		case !inClass:
			b.WriteString(`[^` + javaSpace + `]`)
		case *space: // [\s\S] is every character
			b.WriteString(`\S`)
		default:
			return 0, fmt.Errorf("\\S in a character class without \\s")
		}
	case 'b', 'B', 'Z', 'z', 'G', 'h', 'H', 'v', 'V', 'R', 'X', 'k', 'Q', 'c', '0':
		return 0, fmt.Errorf("escape \\%c means something else in Go", s[1])
	default:
		b.WriteString(s[:2])
	}
	return 2, nil
}
