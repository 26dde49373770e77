package worker

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloister/lambda"
)

// collected returns an output whose events are kept in order.
func collected(t *testing.T) (*output, func() []string) {
	t.Helper()
	var mu sync.Mutex
	var messages []string
	o, err := newOutput(func(events []lambda.LogEvent) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			messages = append(messages, e.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return o, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return messages
	}
}

func TestOutputBelowTheRateIsKeptWholeAndInOrder(t *testing.T) {
	o, messages := collected(t)
	const lines = 30_000 // within the burst
	var block bytes.Buffer
	for n := range lines {
		fmt.Fprintf(&block, "line %d of an ordinary function\n", n)
	}
	if _, err := o.write.Write(block.Bytes()); err != nil {
		t.Fatal(err)
	}
	o.close()
	got := messages()
	if len(got) != lines {
		t.Fatalf("%d lines of %d, the last one %q", len(got), lines, got[len(got)-1])
	}
	for n, m := range got {
		if m != fmt.Sprintf("line %d of an ordinary function\n", n) {
			t.Fatalf("line %d reads %q", n, m)
		}
	}
}

// A flood is read to its end, so that the function goes on, costs little, and says what is missing. That the test
// would see a loss is shown by the lines that are missing; none of the others is torn.
func TestAFloodOfOutputIsReadButNotAllKept(t *testing.T) {
	o, messages := collected(t)
	o.begin(true)
	const lines = 1_000_000
	var block []byte
	began := time.Now()
	for n := range lines {
		block = fmt.Appendf(block, "flood %d\n", n)
		if len(block) > 60<<10 || n == lines-1 {
			if _, err := o.write.Write(block); err != nil {
				t.Fatal(err)
			}
			block = block[:0]
		}
	}
	o.drain()
	took := time.Since(began)
	tail := string(o.tail())
	o.close()

	lost, kept, cost, next := 0, 0, 0, 0
	notice := regexp.MustCompile(`^\[cloister\] (\d+) log lines, \d+ bytes, were dropped here: more than 2097152 bytes a second\n$`)
	for _, m := range messages() {
		if told := notice.FindStringSubmatch(m); told != nil {
			n, _ := strconv.Atoi(told[1])
			lost, next = lost+n, next+n
			continue
		}
		if m != fmt.Sprintf("flood %d\n", next) {
			t.Fatalf("line %d reads %q", next, m)
		}
		kept, next, cost = kept+1, next+1, cost+len(m)+lineCostBytes
	}
	if kept+lost != lines || lost == 0 {
		t.Errorf("%d lines kept and %d told as lost of %d", kept, lost, lines)
	}
	if most := logBurstBytes + int(took.Seconds()*logBytesPerSecond) + lineCostBytes + 20; cost > most {
		t.Errorf("lines worth %d bytes were kept in %s, %d is the most", cost, took, most)
	}
	if !strings.Contains(tail, fmt.Sprintf("flood %d\n", lines-1)) || len(tail) != lambda.LogTailBytes {
		t.Errorf("the end of the log is %q", tail[max(0, len(tail)-100):])
	}
}

func TestAnEndlessLineAndLinesWithoutContentAreBoundedToo(t *testing.T) {
	for name, block := range map[string][]byte{"one line": bytes.Repeat([]byte("x"), 64<<10), "empty lines": bytes.Repeat([]byte("\n"), 64<<10)} {
		o, messages := collected(t)
		began := time.Now()
		for range 500 { // 32 MB
			if _, err := o.write.Write(block); err != nil {
				t.Fatal(err)
			}
		}
		o.drain()
		took := time.Since(began)
		o.close()
		cost, told := 0, false
		for _, m := range messages() {
			cost += len(m) + lineCostBytes
			told = told || strings.HasPrefix(m, "[cloister] ")
		}
		if most := logBurstBytes + int(took.Seconds()*logBytesPerSecond) + maxLineBytes + 10*lineCostBytes; cost > most || !told {
			t.Errorf("%s: lines worth %d bytes were kept in %s, %d is the most; told: %v", name, cost, took, most, told)
		}
	}
}
