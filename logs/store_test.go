package logs

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/internal/seal"
	"cloister/lambda"
)

const (
	alice = "111111111111"
	bob   = "222222222222"
	code  = "/aws/lambda/code"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// A clock is moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: noon} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func testKey(t testing.TB) *seal.Key {
	t.Helper()
	key, err := seal.NewKey(bytes.Repeat([]byte{7}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func openStore(t testing.TB, directory string, c *clock, l Limits) *Store {
	t.Helper()
	s, err := Open(Config{Directory: directory, Key: testKey(t), Now: c.now, Logger: slog.New(slog.DiscardHandler), Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// say appends one event per message, a millisecond apart from at on.
func say(t testing.TB, s *Store, account, group, stream string, at time.Time, messages ...string) int {
	t.Helper()
	var events []lambda.LogEvent
	for i, m := range messages {
		events = append(events, lambda.LogEvent{Time: at.Add(time.Duration(i) * time.Millisecond), Message: m})
	}
	dropped, err := s.Append(t.Context(), account, group, stream, events)
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

// all returns every message of a group, as "stream: message".
func all(t testing.TB, s *Store, account, group string) []string {
	t.Helper()
	g := s.find(account, group)
	if g == nil {
		return nil
	}
	q := between(0, 1<<60, false)
	q.limit = 1 << 30
	q.maxBytes = 1 << 40
	q.scanBudget = 1 << 40
	p, err := s.search(t.Context(), g, q)
	if err != nil {
		t.Fatal(err)
	}
	if p.next != nil {
		t.Fatalf("there is more at %v", *p.next)
	}
	var got []string
	for _, e := range p.events {
		got = append(got, e.stream.name+": "+e.message)
	}
	return got
}

func syncStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

func reopen(t testing.TB, s *Store, c *clock, l Limits) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openStore(t, s.directory, c, l)
}

func TestEventsAreReadAtOnceAndStay(t *testing.T) {
	c := newClock()
	s := openStore(t, t.TempDir(), c, Limits{})
	say(t, s, alice, code, "one", noon, "START\n", "line with \x00 \x1b[31m and \xff\n", "")
	say(t, s, alice, code, "two", noon.Add(time.Millisecond), "other stream")
	want := []string{"one: START\n", "one: line with \x00 \x1b[31m and \xff\n", "two: other stream", "one: "}
	check := func(when string, s *Store) {
		t.Helper()
		if diff := cmp.Diff(want, all(t, s, alice, code)); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	check("in memory", s)
	syncStore(t, s)
	check("on disk", s)
	say(t, s, alice, code, "two", noon.Add(time.Second), "later")
	want = append(want, "two: later")
	check("on disk and in memory", s)
	s = reopen(t, s, c, Limits{})
	check("after a restart", s)
	if n := s.Counters(); n != (Counters{}) {
		t.Errorf("counters %+v", n)
	}
}

func TestEventsReachTheDiskWithoutBeingAsked(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory, newClock(), Limits{})
	say(t, s, alice, code, "one", noon, "line")
	deadline := time.Now().Add(5 * time.Second)
	for len(segmentFiles(t, directory)) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("nothing was written within 5 seconds")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func segmentFiles(t testing.TB, directory string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(directory, func(path string, d fs.DirEntry, err error) error {
		if _, ok := parseSegmentName(filepath.Base(path)); ok {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

func TestNothingThatATenantWroteIsPlainOnTheDisk(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory, newClock(), Limits{})
	say(t, s, alice, "/aws/lambda/secretname", "2026/11/23/[$LATEST]streamname", noon, strings.Repeat("password", 100))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(directory, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 && path != directory {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		data := []byte(path)
		if !d.IsDir() {
			files++
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data = append(data, content...)
		}
		for _, secret := range []string{"secretname", "streamname", "password"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
		return nil
	})
	if err != nil || files < 2 {
		t.Errorf("%d files, error %v", files, err)
	}
}

// framed writes messages in frames of one event each and returns the only segment.
func framed(t *testing.T, directory string, c *clock, messages ...string) string {
	t.Helper()
	s := openStore(t, directory, c, Limits{})
	for i, m := range messages {
		say(t, s, alice, code, "one", noon.Add(time.Duration(i)*time.Second), m)
		s.flush()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files := segmentFiles(t, directory)
	if len(files) != 1 {
		t.Fatalf("segments %q", files)
	}
	return files[0]
}

func TestHalfAFrameAtTheEndIsCut(t *testing.T) {
	c := newClock()
	directory := t.TempDir()
	file := framed(t, directory, c, "first", "second", "third")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	frame := int(frameLength(whole))
	last := bytes.LastIndex(whole, frameMark)
	if frame <= 0 || last <= frame {
		t.Fatalf("frames of %d bytes, the last one at %d", frame, last)
	}
	for cut := last; cut < len(whole); cut += 5 {
		if err := os.WriteFile(file, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, directory, c, Limits{})
		want := []string{"one: first", "one: second"}
		if diff := cmp.Diff(want, all(t, s, alice, code)); diff != "" {
			t.Errorf("cut at %d: %s", cut, diff)
		}
		say(t, s, alice, code, "one", noon.Add(time.Minute), "after the cut")
		s = reopen(t, s, c, Limits{})
		if diff := cmp.Diff(append(want, "one: after the cut"), all(t, s, alice, code)); diff != "" {
			t.Errorf("cut at %d, then appended: %s", cut, diff)
		}
		if n := s.Counters(); n.Corrupt != 0 {
			t.Errorf("cut at %d: %d corrupt after the tail was replaced", cut, n.Corrupt)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFlippedByteHidesItsFrameAndNoOther(t *testing.T) {
	c := newClock()
	directory := t.TempDir()
	file := framed(t, directory, c, "first", "second", "third")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := int(frameLength(whole))
	third := second + int(frameLength(whole[second:]))
	for at := second; at < third; at += 3 {
		changed := slices.Clone(whole)
		changed[at] ^= 0x10
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, directory, c, Limits{})
		if diff := cmp.Diff([]string{"one: first", "one: third"}, all(t, s, alice, code)); diff != "" {
			t.Errorf("byte %d: %s", at-second, diff)
		}
		if n := s.Counters().Corrupt; n != 1 {
			t.Errorf("byte %d: %d corrupt, want 1", at-second, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAByteThatFlipsWhileTheStoreRunsIsRefused(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory, newClock(), Limits{})
	say(t, s, alice, code, "one", noon, "message")
	syncStore(t, s)
	file := segmentFiles(t, directory)[0]
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := all(t, s, alice, code); len(got) != 0 || s.Counters().Corrupt != 1 {
		t.Errorf("read %q, counters %+v", got, s.Counters())
	}
}

func TestAFrameOpensOnlyWhereItWasWritten(t *testing.T) {
	c := newClock()
	directory := t.TempDir()
	s := openStore(t, directory, c, Limits{})
	say(t, s, alice, code, "one", noon, "of alice")
	say(t, s, alice, "other", "one", noon, "of another group")
	say(t, s, bob, code, "one", noon, "of bob")
	groups := map[string]string{}
	for _, g := range []*group{s.find(alice, code), s.find(alice, "other"), s.find(bob, code)} {
		groups[g.Account+g.Name] = g.directory
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segment := func(group string) string { return filepath.Join(groups[group], segmentName(1)) }
	data, err := os.ReadFile(segment(alice + code))
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{segment(alice + "other"), segment(bob + code)} {
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	twice := append(slices.Clone(data), data...)
	if err := os.WriteFile(segment(alice+code), twice, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, directory, c, Limits{})
	if got := all(t, s, alice, code); len(got) != 1 {
		t.Errorf("a frame written twice is read as %q", got)
	}
	if got := all(t, s, alice, "other"); len(got) != 0 {
		t.Errorf("another group reads %q", got)
	}
	if got := all(t, s, bob, code); len(got) != 0 {
		t.Errorf("another account reads %q", got)
	}
	if n := s.Counters().Corrupt; n != 3 {
		t.Errorf("%d corrupt, want 3", n)
	}
}

func TestAGroupMovedToAnotherAccountIsLeftOut(t *testing.T) {
	c := newClock()
	directory := t.TempDir()
	s := openStore(t, directory, c, Limits{})
	say(t, s, alice, code, "one", noon, "of alice")
	say(t, s, bob, "bobs", "one", noon, "of bob")
	from := s.find(alice, code).directory
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from, filepath.Join(directory, bob, filepath.Base(from))); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, directory, c, Limits{})
	if got := all(t, s, bob, code); got != nil || s.Counters().Corrupt != 1 {
		t.Errorf("bob reads %q, counters %+v", got, s.Counters())
	}
}

func TestAStreamThatIsTooFastLosesLinesAndSaysSo(t *testing.T) {
	c := newClock()
	s := openStore(t, t.TempDir(), c, Limits{StreamBytesPerSecond: 1000, StreamBurstBytes: 2000, GroupBytesPerSecond: 1500, GroupBurstBytes: 3000})
	line := strings.Repeat("x", 74) // 100 bytes with overhead
	many := func(n int) []string { return slices.Repeat([]string{line}, n) }
	if dropped := say(t, s, alice, code, "fast", noon, many(50)...); dropped != 30 {
		t.Errorf("the burst lost %d lines of 50, want 30", dropped)
	}
	if dropped := say(t, s, alice, code, "other", noon, many(50)...); dropped != 40 {
		t.Errorf("beside it another stream lost %d lines of 50, want 40: the group's burst is spent", dropped)
	}
	if dropped := say(t, s, alice, "elsewhere", "other", noon, many(10)...); dropped != 0 {
		t.Errorf("another group lost %d lines", dropped)
	}
	c.pass(time.Second)
	if dropped := say(t, s, alice, code, "fast", noon, many(20)...); dropped != 10 {
		t.Errorf("after a second it lost %d lines of 20, want 10", dropped)
	}
	if n := s.Counters().Dropped; n != 80 {
		t.Errorf("%d dropped in all, want 80", n)
	}
	notices := func() (n []string) {
		for _, m := range all(t, s, alice, code) {
			if strings.Contains(m, "dropped") {
				n = append(n, m)
			}
		}
		return n
	}
	s.flush()
	c.pass(2 * time.Second)
	s.flush()
	const text = "[cloister] %d log events were dropped here: more than 1000 bytes a second, or the disk failed\n"
	want := []string{"fast: " + fmt.Sprintf(text, 30), "other: " + fmt.Sprintf(text, 40), "fast: " + fmt.Sprintf(text, 10)}
	got := notices()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMemoryForEventsThatTheDiskDoesNotTakeIsBounded(t *testing.T) {
	c := newClock()
	s := openStore(t, t.TempDir(), c, Limits{PendingBytes: 1000, GroupBytesPerSecond: 1 << 30, GroupBurstBytes: 1 << 30, StreamBytesPerSecond: 1 << 30, StreamBurstBytes: 1 << 30})
	s.flushing.Lock() // the disk hangs
	dropped := say(t, s, alice, code, "one", noon, slices.Repeat([]string{strings.Repeat("x", 74)}, 20)...)
	s.flushing.Unlock()
	if dropped != 10 {
		t.Errorf("%d dropped of 20, want 10", dropped)
	}
	syncStore(t, s)
	if n := s.counters.pending.Load(); n != 0 && n > 200 { // a notice may be waiting
		t.Errorf("%d bytes are still counted", n)
	}
	if dropped := say(t, s, alice, code, "one", noon, "again"); dropped != 0 {
		t.Error("an event is dropped although the disk is well again")
	}
}

func TestEventsThatTheDiskRefusesAreCountedAndTheStoreGoesOn(t *testing.T) {
	c := newClock()
	directory := t.TempDir()
	s := openStore(t, directory, c, Limits{})
	say(t, s, alice, code, "one", noon, "lost", "lost, too")
	hidden := directory + "-hidden"
	if err := os.Rename(filepath.Join(directory, alice), hidden); err != nil {
		t.Fatal(err)
	}
	s.flush()
	if err := os.Rename(hidden, filepath.Join(directory, alice)); err != nil {
		t.Fatal(err)
	}
	if n := s.Counters().Dropped; n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
	say(t, s, alice, code, "one", noon, "kept")
	s = reopen(t, s, c, Limits{})
	got := all(t, s, alice, code)
	if len(got) != 2 || !slices.Contains(got, "one: kept") || !strings.Contains(strings.Join(got, ""), "2 log events were dropped here") {
		t.Errorf("%q", got)
	}
}

func diskBytes(t testing.TB, directory string) (n int64) {
	t.Helper()
	for _, f := range segmentFiles(t, directory) {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

func TestTheOldestSegmentsGoWhenAnAccountHasTooMuch(t *testing.T) {
	c := newClock()
	directory := t.TempDir()
	limits := Limits{AccountBytes: 100_000, TotalBytes: 150_000, SegmentBytes: 10_000, StreamBytesPerSecond: 1 << 30, StreamBurstBytes: 1 << 30, GroupBytesPerSecond: 1 << 30, GroupBurstBytes: 1 << 30}
	s := openStore(t, directory, c, limits)
	write := func(account string, from, to int) {
		for i := from; i < to; i++ {
			say(t, s, account, []string{code, "/second"}[i%2], fmt.Sprintf("stream %d", i/100), c.now(), fmt.Sprintf("%d %s", i, strings.Repeat("x", 990)))
			c.pass(time.Second)
			s.flush()
			if held := diskBytes(t, directory); held > 150_000 {
				t.Fatalf("%d bytes on disk", held)
			}
		}
	}
	write(bob, 0, 40)
	write(alice, 0, 300)
	if n := diskBytes(t, filepath.Join(directory, alice)); n > 100_000 || n < 80_000 {
		t.Errorf("alice has %d bytes on disk, want close to 100,000", n)
	}
	got := append(all(t, s, alice, code), all(t, s, alice, "/second")...)
	for _, m := range got {
		var stream, n int
		if _, err := fmt.Sscanf(m, "stream %d: %d", &stream, &n); err != nil || n < 200 {
			t.Errorf("an old event is left: %.30s", m)
		}
	}
	if len(got) < 80 {
		t.Errorf("%d events are left", len(got))
	}
	if n := len(all(t, s, bob, code)); n != 20 {
		t.Errorf("bob has %d events, want 20: he is within his bounds", n)
	}
	write(bob, 40, 80) // bob is not over his own bound, but all together are over theirs
	streams, err := s.find(alice, code).listStreams("")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range streams {
		if v.name == "stream 0" {
			t.Error("a stream without events is listed")
		}
	}
	if s.Counters().Evicted == 0 {
		t.Error("nothing counted as evicted")
	}
	want := all(t, s, bob, code)
	s = reopen(t, s, c, limits)
	if diff := cmp.Diff(want, all(t, s, bob, code)); diff != "" {
		t.Error(diff)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	c := newClock()
	s := openStore(t, t.TempDir(), c, Limits{StreamsPerAccount: 50, SegmentBytes: 1000})
	for i := range 500 {
		say(t, s, alice, code, fmt.Sprintf("stream %03d", i), c.now(), "line")
		c.pass(time.Second)
		if i%10 == 0 {
			s.flush()
		}
	}
	s.flush()
	streams, err := s.find(alice, code).listStreams("")
	if err != nil {
		t.Fatal(err)
	}
	if len(streams) > 50 || len(streams) < 10 {
		t.Errorf("%d streams, want at most 50", len(streams))
	}
	if n := s.find(alice, code).account.streams.Load(); n != int64(len(streams)) {
		t.Errorf("%d streams counted, %d there", n, len(streams))
	}
	if !slices.ContainsFunc(streams, func(v streamView) bool { return v.name == "stream 499" }) {
		t.Error("the newest stream is gone")
	}
}

func TestGroupsAreBounded(t *testing.T) {
	s := openStore(t, t.TempDir(), newClock(), Limits{GroupsPerAccount: 2})
	say(t, s, alice, "a", "one", noon, "line")
	say(t, s, alice, "b", "one", noon, "line")
	dropped, err := s.Append(t.Context(), alice, "c", "one", []lambda.LogEvent{{Time: noon, Message: "line"}})
	if dropped != 1 || lambda.KindOf(err) != lambda.TooLarge {
		t.Errorf("dropped %d, error %v", dropped, err)
	}
	say(t, s, bob, "c", "one", noon, "line")
}

func TestLongEventsAreSplitBetweenCharacters(t *testing.T) {
	s := openStore(t, t.TempDir(), newClock(), Limits{})
	long := "x" + strings.Repeat("é", MaxEventBytes) + "end"
	say(t, s, alice, code, "one", noon, long)
	got := all(t, s, alice, code)
	joined := ""
	for i, m := range got {
		m = strings.TrimPrefix(m, "one: ")
		if len(m) > MaxEventBytes || m != text(m) || i < len(got)-1 && len(m) < MaxEventBytes-4 {
			t.Errorf("part %d has %d bytes", i, len(m))
		}
		joined += m
	}
	if joined != long || len(got) != 3 {
		t.Errorf("%d parts, together %d bytes, want %d", len(got), len(joined), len(long))
	}
}

func TestNamesThatAreNoneAreRefused(t *testing.T) {
	s := openStore(t, t.TempDir(), newClock(), Limits{})
	for _, c := range []struct{ account, group, stream string }{
		{"", code, "one"}, {"../../etc/cron", code, "one"}, {alice, "", "one"}, {alice, "a b", "one"}, {alice, "a\x00", "one"},
		{alice, strings.Repeat("x", 513), "one"}, {alice, code, ""}, {alice, code, "a:b"}, {alice, code, "*"}, {alice, code, "\xff"}, {alice, code, strings.Repeat("x", 513)},
	} {
		if _, err := s.Append(t.Context(), c.account, c.group, c.stream, []lambda.LogEvent{{Time: noon, Message: "x"}}); lambda.KindOf(err) != lambda.InvalidParameter {
			t.Errorf("%q: %v", c, err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.directory, "..", "etc")); err == nil {
		t.Error("a directory was made outside")
	}
}

func TestAClosedStoreRefusesEventsAndIsReadable(t *testing.T) {
	s := openStore(t, t.TempDir(), newClock(), Limits{})
	say(t, s, alice, code, "one", noon, "line")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), alice, code, "one", []lambda.LogEvent{{Time: noon}}); lambda.KindOf(err) != lambda.Unavailable {
		t.Errorf("append: %v", err)
	}
	if got := all(t, s, alice, code); len(got) != 1 {
		t.Errorf("read %q", got)
	}
}

// TestAppendingChild is not a test of its own: it is the process that the next test kills.
func TestAppendingChild(t *testing.T) {
	directory := os.Getenv("CLOISTER_LOGS_CHILD")
	if directory == "" {
		return
	}
	s := openStore(t, directory, newClock(), Limits{StreamBytesPerSecond: 1 << 30, StreamBurstBytes: 1 << 30, GroupBytesPerSecond: 1 << 30, GroupBurstBytes: 1 << 30})
	for i := 0; ; i++ {
		say(t, s, alice, code, fmt.Sprintf("stream %d", i%7), noon.Add(time.Duration(i)*time.Millisecond), fmt.Sprintf("%d %s", i, strings.Repeat("x", i%300)))
		if i%50 == 0 {
			s.flush()
			fmt.Println(i) // what is printed was written before
		}
	}
}

func TestWhatWasFlushedSurvivesKill(t *testing.T) {
	directory := t.TempDir()
	for round := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestAppendingChild$")
		child.Env = append(os.Environ(), "CLOISTER_LOGS_CHILD="+filepath.Join(directory, fmt.Sprint(round)))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		printed := -1
		for lines := 0; lines < 20*(round+1); lines++ {
			if _, err := fmt.Fscanln(out, &printed); err != nil {
				t.Fatal(err)
			}
		}
		child.Process.Kill()
		child.Wait()
		s := openStore(t, filepath.Join(directory, fmt.Sprint(round)), newClock(), Limits{})
		got := all(t, s, alice, code)
		if len(got) <= printed {
			t.Errorf("round %d: %d events are there, %d were written", round, len(got), printed+1)
		}
		for i, m := range got {
			if !strings.HasPrefix(m, fmt.Sprintf("stream %d: %d x", i%7, i)) && i%300 != 0 {
				t.Fatalf("round %d: event %d is %.40q", round, i, m)
			}
		}
		if n := s.Counters().Corrupt; n != 0 {
			t.Errorf("round %d: %d corrupt", round, n)
		}
	}
}

func TestManyMayAppendReadAndDeleteAtOnce(t *testing.T) {
	c := newClock()
	s := openStore(t, t.TempDir(), c, Limits{SegmentBytes: 20_000, AccountBytes: 200_000, StreamBytesPerSecond: 1 << 30, StreamBurstBytes: 1 << 30, GroupBytesPerSecond: 1 << 30, GroupBurstBytes: 1 << 30})
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 300 {
				_, err := s.Append(context.Background(), alice, []string{code, "/b"}[i%2], fmt.Sprintf("stream %d", w), []lambda.LogEvent{{Time: noon.Add(time.Duration(i) * time.Second), Message: strings.Repeat("x", 500)}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Go(func() {
		for range 100 {
			s.flush()
		}
	})
	workers.Go(func() {
		for range 20 {
			if _, err := s.deleteGroup(alice, "/b"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for range 2 {
		workers.Go(func() {
			for range 50 {
				g := s.find(alice, code)
				if g == nil {
					continue
				}
				q := between(0, 1<<50, false)
				q.limit = 100
				p, err := s.search(context.Background(), g, q)
				if err != nil {
					t.Error(err)
				}
				for i := 1; i < len(p.events); i++ {
					if p.events[i].time < p.events[i-1].time {
						t.Error("out of order")
					}
				}
				if _, err := g.listStreams(""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	syncStore(t, s)
	if n := s.counters.pending.Load(); n != 0 {
		t.Errorf("%d bytes pending after all is written", n)
	}
}
