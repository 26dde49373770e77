package worker

import (
	"testing"

	"github.com/google/go-cmp/cmp"
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
