package logs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cloister/internal/seal"
)

// A description is what a group's own sealed file holds.
type description struct {
	ID      string // random; a group that is deleted and made again has another
	Account string
	Name    string
	Created int64 // Unix milliseconds
}

// A stream is what is known of one log stream. Name and created do not change; group.mu guards
// the rest.
type stream struct {
	name    string
	created int64

	limit      bucket
	segments   int   // that hold something of it; a stream with none and nothing pending is forgotten
	first      int64 // times of its earliest and latest event, if events is true
	last       int64
	lastIngest int64
	events     bool
	dropped    uint64    // events, since the last notice
	noticed    time.Time // the last notice
}

// A block is a run of frames next to each other in one segment that are read together. It does
// not change, because readers use it without the lock: to grow it is to replace it.
type block struct {
	segment        *segment
	offset, length int64
	first, last    int64 // least and greatest time of its events
	streams        map[*stream]struct{}
}

// A group is a log group. The segments are read when it is first used.
type group struct {
	description
	directory string
	key       *seal.Key
	account   *account
	limits    *Limits
	counters  *counters
	logger    *slog.Logger

	mu       sync.Mutex
	deleted  bool // guarded by mu, as are all fields below
	loaded   bool
	segments []*segment // ascending; the last one grows
	blocks   []*block   // in the order they were written
	streams  map[string]*stream
	next     uint64 // sequence of the next event
	limit    bucket

	pending      []event // not on disk and not being written
	pendingBytes int64
	created      []*stream // by CreateLogStream, not on disk
	writing      []event   // being written by flush, and not in blocks yet
	losing       map[*stream]struct{}
}

// counters are shared by all groups.
type counters struct {
	dropped, corrupt, evicted atomic.Uint64
	pending                   atomic.Int64 // bytes of events that are not on disk
}

const descriptionName = "group"

// openGroup reads a group's description. The segments are not read yet, only measured.
func openGroup(directory string, g *group, key *seal.Key) error {
	data, err := key.ReadFile(filepath.Join(directory, descriptionName), descriptionName)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &g.description); err != nil {
		return fmt.Errorf("read log group: %w", err)
	}
	g.setUp(directory, key)
	entries, err := os.ReadDir(directory)
	if err != nil {
		return fmt.Errorf("read log group: %w", err)
	}
	for _, e := range entries { // in the order of their names, so of their numbers
		number, ok := parseSegmentName(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("read log group: %w", err)
		}
		g.segments = append(g.segments, &segment{number: number, size: info.Size(), written: info.ModTime().UnixMilli(), streams: map[*stream]struct{}{}})
	}
	return nil
}

func (g *group) setUp(directory string, key *seal.Key) {
	g.directory = directory
	g.key = key.Derive("group " + g.ID)
	g.streams, g.losing = map[string]*stream{}, map[*stream]struct{}{}
}

// size returns the bytes on disk.
func (g *group) size() (n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.segments {
		n += s.size
	}
	return n
}

// load reads all segments, if that has not been done. Preconditions: mu is held.
func (g *group) load() error {
	if g.loaded {
		return nil
	}
	for i, s := range g.segments {
		if err := g.loadSegment(s, i == len(g.segments)-1); err != nil {
			g.unload()
			return fmt.Errorf("load log group: %s: %w", segmentName(s.number), err)
		}
	}
	g.loaded = true
	return nil
}

// unload forgets what a load that failed has gathered. Preconditions: mu is held.
func (g *group) unload() {
	g.account.streams.Add(-int64(len(g.streams)))
	g.streams, g.blocks, g.next = map[string]*stream{}, nil, 0
	for _, s := range g.segments {
		s.streams = map[*stream]struct{}{}
	}
}

// loadSegment indexes a segment. Half a frame at the end of the last one is cut by the next
// write. Preconditions: mu is held.
func (g *group) loadSegment(s *segment, last bool) error {
	data, err := os.ReadFile(filepath.Join(g.directory, segmentName(s.number)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	malformed := 0
	corrupt, end, err := scanFrames(data, 0, g.key, g.ID, s.number, func(f foundFrame) {
		events, err := decodeFrame(f.content, func(name string, created int64) *stream { return g.register(s, name, created) })
		if err != nil {
			malformed++
			return
		}
		if len(events) > 0 {
			g.next = max(g.next, events[len(events)-1].sequence+1)
		}
		g.index(s, f.offset, f.length, events)
	})
	if err != nil {
		return err
	}
	if corrupt += malformed; corrupt > 0 {
		g.counters.corrupt.Add(uint64(corrupt))
		g.logger.Error("damaged log frames are passed over", "group", g.Name, "segment", s.number, "places", corrupt)
	}
	size := int64(len(data))
	if last && end < size {
		g.logger.Warn("half a log frame is cut", "group", g.Name, "segment", s.number, "bytes", size-end)
		size = end
	}
	g.account.bytes.Add(size - s.size)
	s.size = size
	return nil
}

// register returns a stream by name and notes that the segment holds something of it.
// Preconditions: mu is held.
func (g *group) register(at *segment, name string, created int64) *stream {
	s := g.streams[name]
	if s == nil {
		s = &stream{name: name, created: created}
		g.streams[name] = s
		g.account.streams.Add(1)
	}
	if _, ok := at.streams[s]; !ok {
		at.streams[s] = struct{}{}
		s.segments++
	}
	return s
}

// index makes a frame findable. Preconditions: mu is held.
func (g *group) index(s *segment, offset, length int64, events []event) {
	if len(events) == 0 {
		return
	}
	b := &block{segment: s, offset: offset, length: length, first: events[0].time, last: events[0].time, streams: map[*stream]struct{}{}}
	for i := range events {
		e := &events[i]
		e.stream.note(e)
		b.first, b.last = min(b.first, e.time), max(b.last, e.time)
		b.streams[e.stream] = struct{}{}
		s.written = max(s.written, e.ingested)
	}
	if n := len(g.blocks); n > 0 {
		before := g.blocks[n-1]
		if before.segment == s && before.offset+before.length == offset && before.length+length <= blockBytes {
			b.offset, b.length = before.offset, before.length+length
			b.first, b.last = min(b.first, before.first), max(b.last, before.last)
			maps.Copy(b.streams, before.streams)
			g.blocks[n-1] = b
			return
		}
	}
	g.blocks = append(g.blocks, b)
}

// note makes a stream's times include an event.
func (s *stream) note(e *event) {
	if !s.events {
		s.events, s.first, s.last = true, e.time, e.time
	}
	s.first, s.last = min(s.first, e.time), max(s.last, e.time)
	s.lastIngest = max(s.lastIngest, e.ingested)
}

// append takes events into memory and returns how many it dropped. Times are set, messages
// are not longer than MaxEventBytes. The stream is made if need be. If whole is true, either
// all events fit within the rates or none is taken.
func (g *group) append(now time.Time, name string, events []event, whole bool) (dropped int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deleted {
		return 0, errGroupDeleted
	}
	if err := g.load(); err != nil {
		return 0, err
	}
	s := g.ensureStream(now, name)
	s.limit.fill(now, g.limits.StreamBytesPerSecond, g.limits.StreamBurstBytes)
	g.limit.fill(now, g.limits.GroupBytesPerSecond, g.limits.GroupBurstBytes)
	if whole {
		var total int64
		for i := range events {
			total += events[i].cost()
		}
		if !g.admit(s, total) {
			return len(events), nil
		}
	}
	for i := range events {
		if !whole && !g.admit(s, events[i].cost()) {
			dropped++
			continue
		}
		if s.dropped > 0 {
			g.notice(s, now)
		}
		events[i].stream = s
		g.push(events[i])
	}
	g.drop(s, dropped)
	return dropped, nil
}

// admit takes bytes from the rates of a stream and its group, if they and the memory for
// events allow it. Preconditions: mu is held.
func (g *group) admit(s *stream, bytes int64) bool {
	return g.counters.pending.Load()+bytes <= g.limits.PendingBytes &&
		takeAll(bytes, min(g.limits.StreamBurstBytes, g.limits.GroupBurstBytes), &s.limit, &g.limit)
}

// ensureStream returns the stream, which it makes if need be. Preconditions: mu is held, the
// group is loaded.
func (g *group) ensureStream(now time.Time, name string) *stream {
	s := g.streams[name]
	if s == nil {
		s = &stream{name: name, created: now.UnixMilli()}
		g.streams[name] = s
		g.account.streams.Add(1)
		g.created = append(g.created, s)
	}
	return s
}

// push gives an event its place in the order. Preconditions: mu is held.
func (g *group) push(e event) {
	e.sequence = g.next
	g.next++
	e.stream.note(&e)
	g.pending = append(g.pending, e)
	g.pendingBytes += e.cost()
	g.counters.pending.Add(e.cost())
}

// drop counts events that a stream loses. Preconditions: mu is held.
func (g *group) drop(s *stream, n int) {
	if n == 0 {
		return
	}
	s.dropped += uint64(n)
	g.losing[s] = struct{}{}
	g.counters.dropped.Add(uint64(n))
}

// notice says in a stream what it lost. It does not count against any rate: there is at most
// one per stream and second. Preconditions: mu is held.
func (g *group) notice(s *stream, now time.Time) {
	if s.dropped == 0 || now.Sub(s.noticed) < noticeEvery && now.After(s.noticed) {
		return
	}
	at := now.UnixMilli()
	g.push(event{stream: s, time: at, ingested: at, message: fmt.Sprintf("[cloister] %d log events were dropped here: more than %d bytes a second, or the disk failed\n", s.dropped, g.limits.StreamBytesPerSecond)})
	s.dropped, s.noticed = 0, now
	delete(g.losing, s)
}

// createStream makes a stream without events. It returns false if the stream exists.
func (g *group) createStream(now time.Time, name string) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deleted {
		return false, errGroupDeleted
	}
	if err := g.load(); err != nil {
		return false, err
	}
	if g.streams[name] != nil {
		return false, nil
	}
	g.ensureStream(now, name)
	return true, nil
}

// hasStream says whether a stream exists.
func (g *group) hasStream(name string) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.load()
	return g.streams[name] != nil, err
}

// A streamView is what DescribeLogStreams shows.
type streamView struct {
	name                             string
	created, first, last, lastIngest int64
	events                           bool
}

// listStreams returns the streams with a prefix, in no order.
func (g *group) listStreams(prefix string) ([]streamView, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.load(); err != nil {
		return nil, err
	}
	views := make([]streamView, 0, len(g.streams))
	for name, s := range g.streams {
		if strings.HasPrefix(name, prefix) {
			views = append(views, streamView{name, s.created, s.first, s.last, s.lastIngest, s.events})
		}
	}
	return views, nil
}
