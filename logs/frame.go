package logs

import (
	"encoding/binary"
	"errors"
)

// An event is one log event as the store has it.
type event struct {
	stream   *stream
	sequence uint64 // order of arrival in the group; events of equal time are told apart by it
	time     int64  // Unix milliseconds, never negative
	ingested int64
	message  string // any bytes
}

// cost is what an event counts against rates and memory.
func (e *event) cost() int64 { return int64(len(e.message)) + eventOverheadBytes }

// frameVersion begins every frame's plain content.
const frameVersion = 1

// A frame's content, all numbers varints:
//
//	version, first sequence
//	number of streams, for each: length and bytes of its name, when it was created
//	number of events, for each: index of its stream, time and ingestion time as differences
//	to the event before, length and bytes of its message
//
// Events are in the order of their sequence. A stream without events was made by
// CreateLogStream.
func encodeFrame(events []event, created []*stream) []byte {
	index := map[*stream]uint64{}
	var streams []*stream
	size := 64
	note := func(s *stream) {
		if _, ok := index[s]; !ok {
			index[s] = uint64(len(streams))
			streams = append(streams, s)
			size += len(s.name) + 16
		}
	}
	for _, s := range created {
		note(s)
	}
	for i := range events {
		note(events[i].stream)
		size += len(events[i].message) + 24
	}
	b := make([]byte, 0, size)
	b = binary.AppendUvarint(b, frameVersion)
	var first uint64
	if len(events) > 0 {
		first = events[0].sequence
	}
	b = binary.AppendUvarint(b, first)
	b = binary.AppendUvarint(b, uint64(len(streams)))
	for _, s := range streams {
		b = binary.AppendUvarint(b, uint64(len(s.name)))
		b = append(b, s.name...)
		b = binary.AppendVarint(b, s.created)
	}
	b = binary.AppendUvarint(b, uint64(len(events)))
	var time, ingested int64
	for i := range events {
		e := &events[i]
		b = binary.AppendUvarint(b, index[e.stream])
		b = binary.AppendVarint(b, e.time-time)
		b = binary.AppendVarint(b, e.ingested-ingested)
		b = binary.AppendUvarint(b, uint64(len(e.message)))
		b = append(b, e.message...)
		time, ingested = e.time, e.ingested
	}
	return b
}

var errFrame = errors.New("logs: malformed frame")

// decodeFrame reads what encodeFrame wrote. Intern gives the stream of a name; messages are
// copies. The bytes were sealed by this program, but perhaps by another version of it.
func decodeFrame(b []byte, intern func(name string, created int64) *stream) ([]event, error) {
	r := frameReader{rest: b}
	if r.unsigned() != frameVersion {
		return nil, errFrame
	}
	sequence := r.unsigned()
	streams := make([]*stream, 0, r.count(2))
	for range cap(streams) {
		name := r.bytes()
		created := r.signed()
		if r.failed {
			return nil, errFrame
		}
		streams = append(streams, intern(string(name), created))
	}
	events := make([]event, 0, r.count(4))
	var time, ingested int64
	for range cap(events) {
		at := r.unsigned()
		time += r.signed()
		ingested += r.signed()
		message := r.bytes()
		if r.failed || at >= uint64(len(streams)) {
			return nil, errFrame
		}
		events = append(events, event{stream: streams[at], sequence: sequence, time: time, ingested: ingested, message: string(message)})
		sequence++
	}
	if r.failed || len(r.rest) != 0 {
		return nil, errFrame
	}
	return events, nil
}

// A frameReader takes values off the front of a frame. After a failure it gives zeros.
type frameReader struct {
	rest   []byte
	failed bool
}

func (r *frameReader) unsigned() uint64 {
	v, n := binary.Uvarint(r.rest)
	return take(r, v, n)
}

func (r *frameReader) signed() int64 {
	v, n := binary.Varint(r.rest)
	return take(r, v, n)
}

func take[V uint64 | int64](r *frameReader, v V, n int) V {
	if n <= 0 || r.failed {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *frameReader) bytes() []byte {
	n := r.unsigned()
	if n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// count reads how many items follow, each of at least size bytes, so that a wrong number does
// not allocate more than the frame's own length.
func (r *frameReader) count(size int) int {
	n := r.unsigned()
	if n > uint64(len(r.rest)/size) {
		r.failed, r.rest = true, nil
		return 0
	}
	return int(n)
}
