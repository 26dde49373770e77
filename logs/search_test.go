package logs

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"cloister/lambda"
)

// reference is what a search must find, made in the simplest way.
func reference(events []event, q query, start, end int64) []string {
	var found []event
	for _, e := range events {
		if e.time >= start && e.time <= end && (q.streams == nil || q.streams(e.stream.name)) && (q.matches == nil || q.matches(e.message)) {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b event) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.sequence, b.sequence)) })
	if q.backwards {
		slices.Reverse(found)
	}
	return shown(found)
}

func shown(events []event) []string {
	list := make([]string, len(events))
	for i, e := range events {
		list[i] = fmt.Sprintf("%d %d %s %s", e.time, e.sequence, e.stream.name, e.message)
	}
	return list
}

// TestPagesTogetherAreTheSearch compares searches of all kinds, page by page, with a plain
// sort of the same events: whatever the order of arrival, the flushes, the limits and the
// direction, no event is missing, given twice, or out of place.
func TestPagesTogetherAreTheSearch(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 1))
		c := newClock()
		s := openStore(t, t.TempDir(), c, Limits{SegmentBytes: int64(500 + random.IntN(20_000))})
		var events []event
		names := []string{"a", "b", "ab", "c"}
		width := []int64{1, 50, 100_000}[random.IntN(3)] // of times: from all equal to all different
		for range 1 + random.IntN(60) {
			name := names[random.IntN(len(names))]
			var batch []lambda.LogEvent
			for range random.IntN(20) {
				e := event{time: noon.UnixMilli() + random.Int64N(width), sequence: uint64(len(events)), stream: &stream{name: name}, message: []string{"ERROR x", "ok", strings.Repeat("long ", 200)}[random.IntN(3)]}
				events = append(events, e)
				batch = append(batch, lambda.LogEvent{Time: time.UnixMilli(e.time), Message: e.message})
			}
			if _, err := s.Append(t.Context(), alice, code, name, batch); err != nil {
				t.Fatal(err)
			}
			switch random.IntN(12) {
			case 0, 1, 2:
				s.flush()
			case 3:
				s = reopen(t, s, c, s.limits)
			}
		}
		if random.IntN(2) == 0 {
			s = reopen(t, s, c, s.limits)
		}
		g := s.find(alice, code)
		for range 20 {
			start := noon.UnixMilli() + random.Int64N(width) - 1
			end := start + random.Int64N(width+2)
			q := between(start, end, random.IntN(2) == 0)
			q.limit = 1 + random.IntN(30)
			q.maxBytes = 1 + random.IntN(3000)
			q.scanBudget = random.Int64N(3000)
			if n := random.IntN(3); n > 0 {
				prefix := names[random.IntN(len(names))]
				q.streams = func(name string) bool { return name == prefix || n == 2 && strings.HasPrefix(name, prefix) }
			}
			if random.IntN(2) == 0 {
				q.matches = func(m string) bool { return strings.Contains(m, "ERROR") }
			}
			want := reference(events, q, start, end)
			got := []string{}
			for pages := 0; ; pages++ {
				if pages > 2*len(events)+1000 {
					t.Fatalf("seed %d: no end after %d pages", seed, pages)
				}
				p, err := s.search(t.Context(), g, q)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.events) > q.limit {
					t.Fatalf("seed %d: %d events on a page of %d", seed, len(p.events), q.limit)
				}
				got = append(got, shown(p.events)...)
				if p.next == nil {
					break
				}
				if !q.from.before(*p.next) {
					t.Fatalf("seed %d: the next page begins at %v, this one at %v", seed, *p.next, q.from)
				}
				q.from = *p.next
			}
			if d := diff.Diff(want, got); d != "" {
				t.Fatalf("seed %d: %s", seed, d)
			}
		}
	}
}

func TestPositionsMirrorBackAndForth(t *testing.T) {
	for _, p := range []position{{0, 0}, {1, 0}, {0, 1}, {5, ^uint64(0)}, {noon.UnixMilli(), 7}} {
		if p.mirror().mirror() != p {
			t.Errorf("%v became %v", p, p.mirror().mirror())
		}
		for _, o := range []position{{0, 0}, {1, 1}, {5, 3}} {
			if p != o && p.before(o) == p.mirror().before(o.mirror()) {
				t.Errorf("%v and %v keep their order in the mirror", p, o)
			}
		}
		if !p.before(p.after()) {
			t.Errorf("%v is not before %v", p, p.after())
		}
	}
}

func TestAFilterPatternMatchesTerms(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{"", "anything"}, nil},
		{"ERROR", []string{"ERROR", "[ERROR 400] BAD REQUEST"}, []string{"error", "", "ERR OR"}},
		{"ERROR ARGUMENTS", []string{"ERROR in ARGUMENTS", "ARGUMENTS: ERROR"}, []string{"ERROR", "ARGUMENTS"}},
		{`"INTERNAL SERVER ERROR"`, []string{"500 INTERNAL SERVER ERROR"}, []string{"INTERNAL ERROR SERVER"}},
		{"?ERROR ?WARN", []string{"ERROR", "a WARN"}, []string{"INFO"}},
		{"ERROR -EXITING", []string{"ERROR here"}, []string{"ERROR EXITING", "EXITING"}},
		{`-"is fine"`, []string{"all is well"}, []string{"all is fine"}},
		{"ERROR ?WARN", []string{"ERROR"}, []string{"WARN"}},
		{`"a \"quoted\" term"`, []string{`a "quoted" term`}, []string{"a quoted term"}},
		{"  spaced\tout ", []string{"out spaced"}, []string{"spaced"}},
	} {
		p, refused := parseFilterPattern(c.pattern)
		if refused != "" {
			t.Errorf("%q: %s", c.pattern, refused)
			continue
		}
		for _, m := range c.yes {
			if p != nil && !p.matches(m) {
				t.Errorf("%q does not match %q", c.pattern, m)
			}
		}
		for _, m := range c.no {
			if p == nil || p.matches(m) {
				t.Errorf("%q matches %q", c.pattern, m)
			}
		}
	}
	for _, bad := range []string{`{ $.level = "ERROR" }`, "[ip, user]", "%regex%", `"open`, `""`, "-", "? x", strings.Repeat("x ", 65)} {
		if _, refused := parseFilterPattern(bad); !strings.HasPrefix(refused, "Invalid filter pattern: ") {
			t.Errorf("%q is refused with %q", bad, refused)
		}
	}
}

func FuzzFilterPattern(f *testing.F) {
	for _, seed := range []string{"", `ERROR -"a b" ?c`, `"\"`, "-", "{"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, refused := parseFilterPattern(s); refused == "" && p != nil {
			p.matches(s)
		}
	})
}

func FuzzFrame(f *testing.F) {
	one := &stream{name: "one", created: 5}
	f.Add(encodeFrame([]event{{stream: one, sequence: 3, time: 7, ingested: 9, message: "text"}, {stream: one, sequence: 4, time: 6, ingested: 9}}, nil))
	f.Add(encodeFrame(nil, []*stream{one}))
	f.Add([]byte{1, 0, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		streams := map[string]*stream{}
		events, err := decodeFrame(b, func(name string, created int64) *stream {
			s := &stream{name: name, created: created}
			streams[name] = s
			return s
		})
		if err == nil && len(events) > len(b) {
			t.Errorf("%d events from %d bytes", len(events), len(b))
		}
	})
}

func FuzzSegment(f *testing.F) {
	key := testKey(f)
	whole := appendFrame(nil, encodeFrame(nil, nil), key, "group", 1, 0)
	f.Add(whole)
	f.Add(append(append([]byte("junk"), whole...), frameMark...))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := 0
		_, end, err := scanFrames(b, 0, key, "group", 1, func(found foundFrame) { frames++ })
		if err != nil || end < 0 || end > int64(len(b)) {
			t.Errorf("end %d of %d, error %v", end, len(b), err)
		}
		if frames > 1 {
			t.Errorf("%d frames opened at offset 0", frames)
		}
	})
}

func TestAFrameHoldsWhatWasPutIn(t *testing.T) {
	one, two := &stream{name: "one", created: 5}, &stream{name: "two", created: -1}
	events := []event{
		{stream: two, sequence: 10, time: 1000, ingested: 2000, message: "first"},
		{stream: one, sequence: 11, time: 500, ingested: 2000, message: "\x00\xff"},
		{stream: two, sequence: 12, time: 1 << 60, ingested: 0, message: ""},
	}
	byName := map[string]*stream{"one": one, "two": two, "three": {name: "three"}}
	var seen []string
	got, err := decodeFrame(encodeFrame(events, []*stream{byName["three"]}), func(name string, created int64) *stream {
		seen = append(seen, fmt.Sprint(name, created))
		return byName[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff(shown(events), shown(got)); d != "" {
		t.Error(d)
	}
	if d := diff.Diff([]string{"three0", "two-1", "one5"}, seen); d != "" {
		t.Error(d)
	}
}
