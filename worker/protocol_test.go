package worker

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/lambda"
)

func TestTheHeadersOfAnInvocationSurviveTheChannel(t *testing.T) {
	in := invoke{"environment", "request", "arn", `{"a":"ü"}`, "", true}
	b, err := in.AppendBinary([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	var out invoke
	if err := out.UnmarshalBinary(b[len("before"):]); err != nil || out != in {
		t.Errorf("got %+v, %v", out, err)
	}
	answer := invoked{"Unhandled", "7", []byte("tail")}
	b, _ = answer.AppendBinary(nil)
	var got invoked
	if err := got.UnmarshalBinary(b); err != nil || !cmp.Equal(got, answer) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAMalformedHeaderIsRefused(t *testing.T) {
	whole, _ := (&invoke{EnvironmentID: "e", RequestID: "r"}).AppendBinary(nil)
	for name, b := range map[string][]byte{
		"empty":         nil,
		"cut":           whole[:len(whole)-1],
		"longer":        append(whole[:len(whole):len(whole)], 0),
		"length beyond": {0xff, 0xff, 0xff, 0xff, 0x0f},
		"no length":     {0x80},
	} {
		if err := new(invoke).UnmarshalBinary(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLogEventsSurviveTheChannel(t *testing.T) {
	in := []lambda.LogEvent{{Time: time.UnixMilli(1_790_000_000_123), Message: "a line\n"}, {Time: time.UnixMilli(-1), Message: ""}, {Time: time.UnixMilli(0), Message: "\x00\xff"}}
	b := appendEvents(nil, in)
	if out, err := readEvents(b); err != nil || !cmp.Equal(out, in) {
		t.Errorf("got %+v, %v", out, err)
	}
	for n := range len(b) {
		if out, err := readEvents(b[:n]); err == nil && len(out) == len(in) {
			t.Errorf("all events from %d of %d bytes", n, len(b))
		}
	}
	if out, err := readEvents(make([]byte, 1<<20)); err == nil {
		t.Errorf("%d events of a megabyte were taken", len(out))
	}
}
