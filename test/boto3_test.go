package test

import (
	"strings"
	"testing"
)

func TestTheFlowWorksWithBoto3(t *testing.T) {
	s := start(t)
	out := must(t)(s.Client(t.Context(), "python", "testdata/flow.py", python()))
	if !strings.HasSuffix(out, "ok") {
		t.Errorf("the flow printed %q", out)
	}
}

// tail.py asks for events as "aws logs tail --follow" of the second CLI does, which no registry offers
// as a package that could be pinned here.
func TestFollowingALogShowsEachLineOnceAndSoon(t *testing.T) {
	s := start(t)
	create(t, s, "talk", map[string][]byte{"app.py": []byte("def handler(event, context):\n    print('line', event)\n")})
	out := must(t)(s.Client(t.Context(), "python", "testdata/tail.py", "talk"))
	if !strings.HasSuffix(out, "ok") {
		t.Errorf("following printed %q", out)
	}
}
