package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// run flushes and syncs until the store is closed.
func (s *Store) run() {
	flush, sync := time.NewTicker(flushInterval), time.NewTicker(syncInterval)
	defer flush.Stop()
	defer sync.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
			s.flush()
		case <-flush.C:
			s.flush()
		case <-sync.C:
			if err := s.sync(); err != nil {
				s.logger.Error("log segments are not synced", "error", err)
			}
		}
	}
}

// Sync writes what is in memory and returns when it is durable.
func (s *Store) Sync() error {
	s.flush()
	return s.sync()
}

// flush writes the events of all groups to their segments, then deletes what is too much.
func (s *Store) flush() {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = map[*group]struct{}{}
	s.mu.Unlock()
	grown := map[*account]struct{}{}
	for g := range dirty {
		again := s.flushGroup(g)
		grown[g.account] = struct{}{}
		if again { // it has events to tell of that were lost
			s.mu.Lock()
			s.dirty[g] = struct{}{}
			s.mu.Unlock()
		}
	}
	for a := range grown {
		s.evict(a)
	}
}

// flushGroup writes one group's events. It returns true if the group has a notice to give later.
// Preconditions: flushing is held.
func (s *Store) flushGroup(g *group) (again bool) {
	g.mu.Lock()
	for lost := range g.losing {
		g.notice(lost, s.now())
	}
	again = len(g.losing) > 0
	if g.deleted || len(g.pending) == 0 && len(g.created) == 0 {
		g.mu.Unlock()
		return again
	}
	events, created, bytes := g.pending, g.created, g.pendingBytes
	g.writing = events
	g.pending, g.pendingBytes, g.created = nil, 0, nil
	g.mu.Unlock()

	rest := events
	for len(rest) > 0 || len(created) > 0 {
		n := frameful(rest)
		if err := s.writeFrame(g, rest[:n], created); err != nil {
			s.complain(g, len(rest), err)
			g.mu.Lock()
			for i := range rest {
				g.drop(rest[i].stream, 1)
			}
			again = again || len(g.losing) > 0
			g.mu.Unlock()
			break
		}
		rest, created = rest[n:], nil
	}
	g.mu.Lock()
	g.writing = nil
	g.mu.Unlock()
	g.counters.pending.Add(-bytes)
	return again
}

// complaintEvery is how often a disk that fails is reported.
const complaintEvery = 10 * time.Second

// complain reports lost events, but not those of every group four times a second.
// Preconditions: flushing is held.
func (s *Store) complain(g *group, events int, err error) {
	if now := time.Now(); now.Sub(s.complained) > complaintEvery {
		s.complained = now
		s.logger.Error("log events are lost, perhaps of other groups, too", "group", g.Name, "events", events, "error", err)
	}
}

// frameful returns how many events go into the next frame.
func frameful(events []event) int {
	bytes := 0
	for i := range events {
		if bytes += len(events[i].message); bytes > frameBytes && i > 0 {
			return i
		}
	}
	return len(events)
}

// writeFrame appends one frame to the group's newest segment, or to a new one. Its events are
// the first of g.writing.
func (s *Store) writeFrame(g *group, events []event, created []*stream) error {
	g.mu.Lock()
	var at *segment
	if n := len(g.segments); n > 0 {
		at = g.segments[n-1]
	}
	if at == nil || at.size >= g.limits.SegmentBytes {
		number := uint64(1)
		if at != nil {
			number = at.number + 1
		}
		at = &segment{number: number, streams: map[*stream]struct{}{}}
		g.segments = append(g.segments, at)
		s.unsynced[g.directory] = true
	}
	offset := at.size
	g.mu.Unlock()

	frame := appendFrame(nil, encodeFrame(events, created), g.key, g.ID, at.number, offset)
	if err := writeFrames(g.directory, at.number, offset, frame); err != nil {
		return fmt.Errorf("write log segment: %w", err)
	}
	s.unsynced[filepath.Join(g.directory, segmentName(at.number))] = true

	g.mu.Lock()
	defer g.mu.Unlock()
	at.size = offset + int64(len(frame))
	g.account.bytes.Add(int64(len(frame)))
	at.written = max(at.written, s.now().UnixMilli())
	for i := range events {
		g.hold(at, events[i].stream)
	}
	for _, c := range created {
		g.hold(at, c)
	}
	g.index(at, offset, int64(len(frame)), events)
	g.writing = g.writing[len(events):]
	return nil
}

// hold notes that a segment holds something of a stream. Preconditions: mu is held.
func (g *group) hold(at *segment, s *stream) {
	if _, ok := at.streams[s]; !ok {
		at.streams[s] = struct{}{}
		s.segments++
	}
}

// sync makes durable what flush has written.
func (s *Store) sync() error {
	s.flushing.Lock()
	names := s.unsynced
	s.unsynced = map[string]bool{}
	s.flushing.Unlock()
	var failed error
	for name := range names {
		// Without the lock, so that writing goes on; the file may be deleted meanwhile.
		if err := syncFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// evict deletes the segments that were written longest ago until the account and the
// installation are within their bounds. Preconditions: flushing is held.
func (s *Store) evict(a *account) {
	for a.bytes.Load() > s.limits.AccountBytes || a.streams.Load() > int64(s.limits.StreamsPerAccount) {
		if !s.evictOldest(a) {
			break
		}
	}
	for s.totalBytes() > s.limits.TotalBytes {
		if !s.evictOldest(nil) {
			break
		}
	}
}

func (s *Store) totalBytes() (n int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range s.accounts {
		n += a.bytes.Load()
	}
	return n
}

// evictOldest deletes the oldest segment of an account, or of all if a is nil. It returns
// false if there is none.
func (s *Store) evictOldest(a *account) bool {
	s.mu.RLock()
	var groups []*group
	for _, each := range s.accounts {
		if a == nil || a == each {
			for _, g := range each.groups {
				groups = append(groups, g)
			}
		}
	}
	s.mu.RUnlock()
	var oldest *group
	var written int64
	for _, g := range groups {
		g.mu.Lock()
		if len(g.segments) > 0 && g.segments[0].size > 0 && (oldest == nil || g.segments[0].written < written) {
			oldest, written = g, g.segments[0].written
		}
		g.mu.Unlock()
	}
	if oldest == nil {
		return false
	}
	file, size := oldest.removeFirstSegment()
	oldest.account.bytes.Add(-size)
	s.counters.evicted.Add(uint64(size))
	delete(s.unsynced, file)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Error("log segment is not deleted", "file", file, "error", err)
	}
	return true
}

// removeFirstSegment forgets a segment, and streams that only it held.
func (g *group) removeFirstSegment() (file string, size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := g.segments[0]
	g.segments = slices.Clone(g.segments[1:])
	if len(g.segments) == 0 { // an empty one keeps the count: a reader may still look for the old file
		g.segments = append(g.segments, &segment{number: first.number + 1, written: first.written, streams: map[*stream]struct{}{}})
	}
	g.blocks = slices.DeleteFunc(g.blocks, func(b *block) bool { return b.segment == first })
	busy := map[*stream]bool{}
	for _, list := range [][]event{g.pending, g.writing} {
		for i := range list {
			busy[list[i].stream] = true
		}
	}
	for st := range first.streams {
		st.segments--
		if st.segments == 0 && !busy[st] {
			delete(g.streams, st.name)
			delete(g.losing, st)
			g.account.streams.Add(-1)
		}
	}
	return filepath.Join(g.directory, segmentName(first.number)), first.size
}
