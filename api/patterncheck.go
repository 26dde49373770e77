package api

import "strings"

// A handwritten is a pattern said again in Go's syntax: a string matches if
// expression matches all of it and refuse, unless nil, does not return true.
type handwritten struct {
	expression string
	refuse     func(string) bool
}

// handwrittenPatterns holds, by the model's text, the patterns that Go's regexp
// cannot compile as they stand. Nearly all use look-ahead, which matching in
// linear time does not have.
var handwrittenPatterns = map[string]handwritten{
	// Names of aliases: not only digits.
	`((?!^\d+$)^[0-9a-zA-Z-_]+$)`:  {expression: notOnlyDigits},
	`(?!^[0-9]+$)([a-zA-Z0-9-_]+)`: {expression: notOnlyDigits},
	`[0-9A-Za-z\.\-_]*(?<!\.)`:     {expression: `([0-9A-Za-z._-]*[0-9A-Za-z_-])?`}, // no dot at the end
	`(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)`: {
		expression: `[_a-zA-Z0-9][^$]*`,
		refuse:     func(s string) bool { return strings.HasPrefix(s, "system.") },
	},
	// A function, perhaps with an alias, but not with a version.
	`(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]{1,64})(:((?!\d+$)[0-9a-zA-Z-_]+))?`: {
		expression: `(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d:)?(\d{12}:)?(function:)?([a-zA-Z0-9_-]{1,64})(:(` + notOnlyDigits + `))?`,
	},
	// Account aliases: no two hyphens together.
	`^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$`: {
		expression: `[a-z0-9][a-z0-9-]{1,61}[a-z0-9]`,
		refuse:     func(s string) bool { return strings.Contains(s, "--") },
	},
	// The model means code points beyond U+FFFF, but Java (and the model's own
	// checker) reads \u10000 as U+1000 and a zero.
	`[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+`: {
		expression: `[\t\n\r\x20-\x7E\x{85}\x{A0}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]+`,
	},
}

const notOnlyDigits = `[0-9]*[a-zA-Z_-][0-9a-zA-Z_-]*`
