package api

import (
	"strings"
	"testing"
)

func TestAPatternMatchesAsInJava(t *testing.T) {
	for _, c := range []struct {
		pattern string
		good    []string
		bad     []string
	}{
		{`a|b`, []string{"a", "b"}, []string{"ab", "xa", "bx", "", "a\n"}},
		{`^[a-z]+$`, []string{"a"}, []string{"a\n", "A"}},
		{`$|x`, []string{"", "x"}, []string{"y", "\n"}},
		{`.*`, []string{"", "abc"}, []string{"a\nb"}},
		{`[a-zA-Z0-9-_]+`, []string{"a-b_c"}, []string{"a.b"}},
		{`\d{2}`, []string{"12"}, []string{"१२", "1"}},
		{`\w+`, []string{"a_1"}, []string{"ü"}},
		{`[\u0020-\u00FF]+`, []string{" ÿ"}, []string{"Ā", "\n"}},
		{`a\sb`, []string{"a b", "a\vb"}, []string{"a\u00a0b"}},
		{`[^\s]+`, []string{"ab"}, []string{"a\vb", "a b"}},
		{`\S+`, []string{"ab"}, []string{"a\vb"}},
		{`[\s\S]*`, []string{"", "a\n\v\u2028"}, nil},
		{`[\p{L}\p{Z}\p{N}_.:/=+\-@]*`, []string{"größe 1", ""}, []string{"!"}},
		{`a\]b[\]c]`, []string{"a]b]", "a]bc"}, []string{"ab"}},

		// Those written by hand.
		{`((?!^\d+$)^[0-9a-zA-Z-_]+$)`, []string{"a", "1a", "a1", "1-", "_"}, []string{"", "1", "12", "a.b", "a\n", "1\n"}},
		{`(?!^[0-9]+$)([a-zA-Z0-9-_]+)`, []string{"a", "1a", "-"}, []string{"", "0", "123", "$LATEST"}},
		{`[0-9A-Za-z\.\-_]*(?<!\.)`, []string{"", "a", "a.b", ".a", "-"}, []string{".", "a.", "a b"}},
		{`(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)`, []string{"system", "systemx", "a.b", "_", "a\nb", "xsystem."}, []string{"system.", "system.a", "", ".a", "a$"}},
		{`(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]{1,64})(:((?!\d+$)[0-9a-zA-Z-_]+))?`,
			[]string{"f", "f:live", "f:1a", "123", "function:123", "123456789012:123", "us-east-1:123", "arn:aws:lambda:us-east-1:123456789012:function:f",
				"arn:aws:lambda:us-east-1:123456789012:function:f:live", strings.Repeat("a", 64)},
			[]string{"f:1", "f:12", "f:$LATEST", "f:", "", "arn:aws:lambda:us-east-1:123456789012:function:f:7", strings.Repeat("a", 65)}},
		{`^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$`, []string{"abc", "a-b", "a-b-c", strings.Repeat("a", 63)},
			[]string{"ab", "-ab", "ab-", "a--b", "a-", "A-b", strings.Repeat("a", 64)}},
		{`[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+`, []string{"{}", "\t\r\n", "ü", "😀"}, []string{"", "\x00", "\x0b", "\ufffe"}},
	} {
		matches, err := CompilePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, s := range c.good {
			if !matches(s) {
				t.Errorf("%s does not match %q", c.pattern, s)
			}
		}
		for _, s := range c.bad {
			if matches(s) {
				t.Errorf("%s matches %q", c.pattern, s)
			}
		}
	}
}

func TestAPatternThatWouldMeanSomethingElseIsRefused(t *testing.T) {
	for _, pattern := range []string{`(?!a)b`, `(?<=a)b`, `(a)\1`, `a++`, `[a-z&&[^b]]`, `[a[b]]`, `\bword`, `[\S]`, `\u12`, `a{1,4000}`, `\h`, `a\`} {
		if _, err := CompilePattern(pattern); err == nil {
			t.Errorf("%s was accepted", pattern)
		}
	}
}
