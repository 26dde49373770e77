package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"cloister/internal/seal"
	"cloister/lambda"
	"cloister/store"
)

// trimEvery is after how many changes the log of changes is cut to the last store.KeptChanges.
const trimEvery = store.KeptChanges / 10

// One row of the log holds what one transaction changed, in order and without gaps in the
// revisions: a row per change would cost each commit of a group an insert of its own.

// encodeEvents returns kind, account and name of each event, with lengths, and whether it is a deletion.
func encodeEvents(events []store.Event) []byte {
	var b []byte
	for _, e := range events {
		for _, text := range []string{e.Kind, e.Account, e.Name} {
			b = binary.AppendUvarint(b, uint64(len(text)))
			b = append(b, text...)
		}
		if e.Deleted {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// decodeEvents gives the events their revisions, from first on.
func decodeEvents(b []byte, first uint64) ([]store.Event, error) {
	var events []store.Event
	for len(b) > 0 {
		e := store.Event{Revision: first + uint64(len(events))}
		for _, text := range []*string{&e.Kind, &e.Account, &e.Name} {
			n, size := binary.Uvarint(b)
			if size <= 0 || n > uint64(len(b)-size) {
				return nil, errors.New("it is cut")
			}
			*text = string(b[size : size+int(n)])
			b = b[size+int(n):]
		}
		if len(b) == 0 {
			return nil, errors.New("it is cut")
		}
		e.Deleted = b[0] == 1
		b = b[1:]
		events = append(events, e)
	}
	return events, nil
}

func (b *bodies) sealEvents(first uint64, events []store.Event) []byte {
	last := first + uint64(len(events)) - 1
	return b.keyOf(last).Seal(nil, encodeEvents(events), logPlace(first, last))
}

func (b *bodies) openEvents(first, last uint64, sealed []byte) ([]store.Event, error) {
	plain, err := b.keyOf(last).Open(nil, sealed, logPlace(first, last))
	if err != nil {
		return nil, corruptLog(err)
	}
	events, err := decodeEvents(plain, first)
	if err == nil && uint64(len(events)) != last-first+1 {
		err = errors.New("it is cut")
	}
	if err != nil {
		return nil, corruptLog(err)
	}
	return events, nil
}

func corruptLog(cause error) error {
	return &lambda.Error{Kind: lambda.Corrupt, Op: "read the log of changes", Err: cause}
}

func logPlace(first, last uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(seal.Bind("log"), first), last)
}

// last returns the revision of the last write.
func (r *reader) last() (uint64, error) {
	defer r.lastRevision.Reset()
	if r.lastRevision.Step() {
		return uint64(r.lastRevision.ColumnInt64(0)), nil
	}
	return 0, r.lastRevision.Err()
}

// watch returns events after a revision, none if there are none yet.
func (r *reader) watch(after uint64, limit int) ([]store.Event, error) {
	s := r.logFrom
	defer s.Reset()
	if after > 1<<63-1 {
		return nil, fmt.Errorf("%w: %d", store.ErrTooOld, after)
	}
	if err := s.BindInt64(1, int64(after)); err != nil {
		return nil, err
	}
	var found []store.Event
	for next := after + 1; len(found) < limit && s.Step(); {
		last, first := uint64(s.ColumnInt64(0)), uint64(s.ColumnInt64(1))
		if first > next && len(found) == 0 {
			return nil, fmt.Errorf("%w: after %d it goes on with %d", store.ErrTooOld, after, first)
		}
		if first > next || last < next {
			return nil, corruptLog(fmt.Errorf("%d to %d follow %d", first, last, next-1))
		}
		events, err := r.bodies.openEvents(first, last, s.ColumnRawBlob(2))
		if err != nil {
			return nil, err
		}
		found = append(found, events[next-first:]...)
		next = last + 1
	}
	if err := s.Err(); err != nil || len(found) > 0 {
		return found[:min(len(found), limit)], err
	}
	last, err := r.last()
	if err == nil && after > last {
		err = fmt.Errorf("%w: it ends with %d, before %d", store.ErrTooOld, last, after)
	}
	return nil, err
}

// A bell wakes everybody who waits for a commit. Whoever rings it waits for nobody.
type bell struct {
	mu   sync.Mutex
	rung chan struct{} // guarded by mu; closed by the next ring, nil while nobody listens
}

// next returns what is closed by the next ring.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}
