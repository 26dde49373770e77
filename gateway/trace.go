package gateway

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"
)

// traceHeader carries a call's place in a trace: "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=…;Sampled=1".
const traceHeader = "X-Amzn-Trace-Id"

// maxTraceBytes bounds what of a caller's trace header goes to the function.
const maxTraceBytes = 512

// traceRandomBytes is how many random bytes newTraceID takes: 96 bits of the root and 64 of the parent.
const traceRandomBytes = 12 + 8

// trace gives an invocation the trace id that the caller sent, or a new one that is not sampled, and
// tells it in the answer. Other operations of Lambda are not traced.
func (x *exchange) trace() {
	if x.route.api.Name != "lambda" || !strings.HasPrefix(x.operation.Name, "Invoke") {
		return
	}
	id := x.request.Header.Get(traceHeader)
	if id == "" || len(id) > maxTraceBytes {
		id = newTraceID(x.started, [traceRandomBytes]byte(x.random[16:]))
	}
	x.call.TraceID = id
	x.Header()[traceHeader] = []string{id}
}

func newTraceID(now time.Time, random [traceRandomBytes]byte) string {
	var seconds [4]byte
	binary.BigEndian.PutUint32(seconds[:], uint32(now.Unix()))
	id := make([]byte, 0, 80)
	id = append(id, "Root=1-"...)
	id = hex.AppendEncode(id, seconds[:])
	id = append(id, '-')
	id = hex.AppendEncode(id, random[:12])
	id = append(id, ";Parent="...)
	id = hex.AppendEncode(id, random[12:])
	id = append(id, ";Sampled=0"...)
	return string(id)
}
