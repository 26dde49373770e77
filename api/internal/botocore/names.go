package botocore

import (
	"strings"
	"unicode"
)

// Exported returns a name of the model with an upper-case first letter.
func Exported(name string) string {
	return strings.ToUpper(name[:1]) + name[1:]
}

// constant returns the name of an enum's value: PER_TENANT of
// TenantIsolationMode is TenantIsolationModePerTenant.
func constant(enum, value string) string {
	words := strings.FieldsFunc(value, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	var b strings.Builder
	b.WriteString(Exported(enum))
	for _, word := range words {
		if word == strings.ToUpper(word) {
			word = strings.ToLower(word)
		}
		b.WriteString(Exported(word))
	}
	return b.String()
}
