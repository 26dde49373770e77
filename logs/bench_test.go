package logs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cloister/api/logsapi"
	"cloister/lambda"
)

var unlimited = Limits{StreamBytesPerSecond: 1 << 40, StreamBurstBytes: 1 << 40, GroupBytesPerSecond: 1 << 40, GroupBurstBytes: 1 << 40}

// BenchmarkAppend is one invocation's usual three lines, taken into memory and written behind.
func BenchmarkAppend(b *testing.B) {
	s := openStore(b, b.TempDir(), newClock(), unlimited)
	lines := []lambda.LogEvent{
		{Time: noon, Message: "START RequestId: 8f507cfc-0000-4697-b07a-ac58fc914c90 Version: $LATEST\n"},
		{Time: noon, Message: "END RequestId: 8f507cfc-0000-4697-b07a-ac58fc914c90\n"},
		{Time: noon, Message: "REPORT RequestId: 8f507cfc-0000-4697-b07a-ac58fc914c90\tDuration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t\n"},
	}
	for b.Loop() {
		if _, err := s.Append(b.Context(), alice, code, "2026/11/23/[$LATEST]0123456789abcdef", lines); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(s.Counters().Dropped), "dropped")
}

// filled returns a store with 100 MB of 120-byte lines over one day, in 100 streams.
func filled(b *testing.B) *Store {
	b.Helper()
	s := openStore(b, b.TempDir(), newClock(), unlimited)
	text := strings.Repeat("x", 100)
	const lines = 100 << 20 / 120
	for i := 0; i < lines; i += 100 {
		var events []lambda.LogEvent
		for j := range 100 {
			word := "INFO"
			if (i+j)%50_000 == 0 {
				word = "ERROR"
			}
			events = append(events, lambda.LogEvent{Time: noon.Add(time.Duration(i+j) * 100 * time.Millisecond), Message: fmt.Sprintf("%s %012d %s", word, i+j, text)})
		}
		if _, err := s.Append(b.Context(), alice, code, fmt.Sprintf("stream %d", i/10_000), events); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 0 {
			s.flush()
		}
	}
	s.flush()
	return s
}

func BenchmarkFilterLogEvents(b *testing.B) {
	s := filled(b)
	server := NewServer(s, region)
	for _, c := range []struct {
		name string
		in   logsapi.FilterLogEventsRequest
	}{
		{"FirstHundred", logsapi.FilterLogEventsRequest{Limit: new(int32(100))}},
		{"LastMinute", logsapi.FilterLogEventsRequest{StartTime: new(noon.Add(23 * time.Hour).UnixMilli()), EndTime: new(noon.Add(23*time.Hour + time.Minute).UnixMilli())}},
		{"FullPage", logsapi.FilterLogEventsRequest{}},
		{"RareTerm", logsapi.FilterLogEventsRequest{FilterPattern: new("ERROR")}},
		{"OneStream", logsapi.FilterLogEventsRequest{LogStreamNames: []string{"stream 50"}, Limit: new(int32(100))}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				in := c.in
				in.LogGroupName = new(code)
				if _, err := server.FilterLogEvents(as(b, alice), &in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoad is the first use of a group of 100 MB after a start.
func BenchmarkLoad(b *testing.B) {
	s := filled(b)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		s := openStore(b, s.directory, newClock(), unlimited)
		b.StartTimer()
		if _, err := s.find(alice, code).hasStream("none"); err != nil {
			b.Fatal(err)
		}
	}
}
