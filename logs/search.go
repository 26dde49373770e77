package logs

import (
	"container/heap"
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
)

// A position is a place in the order of a group's events: by time, then by arrival. Going
// backwards, both are mirrored, so that every search runs from lesser to greater positions.
type position struct {
	time     int64
	sequence uint64
}

func (p position) before(o position) bool {
	return p.time < o.time || p.time == o.time && p.sequence < o.sequence
}

// after returns the position that comes next.
func (p position) after() position {
	if p.sequence == math.MaxUint64 {
		return position{p.time + 1, 0}
	}
	return position{p.time, p.sequence + 1}
}

// mirror turns a position of one direction into that of the other. Times are not negative.
func (p position) mirror() position { return position{-p.time, ^p.sequence} }

// A query selects events of a group.
type query struct {
	from       position // inclusive, in the query's direction
	end        int64    // greatest time in the query's direction, inclusive
	backwards  bool
	streams    func(name string) bool // nil: all
	matches    func(message string) bool
	limit      int // events
	maxBytes   int // of their messages with overhead; one event is always given
	scanBudget int64
}

// A page is what a query found, in the query's direction.
type page struct {
	events []event
	next   *position // where the next page begins; nil: there is nothing more now
}

// search reads until the page is full, the budget is spent, or everything was seen. It may
// take a while and waits for its turn.
func (s *Store) search(ctx context.Context, g *group, q query) (page, error) {
	select {
	case s.scans <- struct{}{}:
		defer func() { <-s.scans }()
	case <-ctx.Done():
		return page{}, context.Cause(ctx)
	}
	blocks, fresh, err := g.snapshot(q.streams)
	if err != nil {
		return page{}, err
	}
	c := collector{query: q, ceiling: position{math.MaxInt64, math.MaxUint64}}
	c.add(fresh)
	spans := q.overlapping(blocks)
	var scanned int64
	for i, span := range spans {
		if c.ceiling.time < span.first { // all that is left lies behind what fits
			break
		}
		if scanned > q.scanBudget && q.from.time < span.first {
			c.cut(position{span.first, 0})
			break
		}
		events, err := g.read(span.block)
		if err != nil {
			return page{}, err
		}
		c.add(events)
		scanned += span.block.length
		if i%64 == 0 && ctx.Err() != nil {
			return page{}, context.Cause(ctx)
		}
	}
	return c.page(), nil
}

// snapshot returns what there is at this moment: all blocks on disk, and copies of those events of
// the streams wanted that are only in memory.
func (g *group) snapshot(streams func(string) bool) ([]*block, []event, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deleted {
		return nil, nil, errGroupDeleted
	}
	if err := g.load(); err != nil {
		return nil, nil, err
	}
	var fresh []event
	for _, list := range [][]event{g.writing, g.pending} {
		for i := range list {
			if streams == nil || streams(list[i].stream.name) {
				fresh = append(fresh, list[i])
			}
		}
	}
	return slices.Clone(g.blocks), fresh, nil
}

// has says whether a block has something of the streams wanted.
func (b *block) has(streams func(string) bool) bool {
	if streams == nil {
		return true
	}
	for s := range b.streams {
		if streams(s.name) {
			return true
		}
	}
	return false
}

// read returns the events of a block. A block that was deleted meanwhile has none.
func (g *group) read(b *block) ([]event, error) {
	data, err := readRange(filepath.Join(g.directory, segmentName(b.segment.number)), b.offset, b.length)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	byName := map[string]*stream{}
	for s := range b.streams {
		byName[s.name] = s
	}
	var events []event
	corrupt, _, err := scanFrames(data, b.offset, g.key, g.ID, b.segment.number, func(f foundFrame) {
		found, err := decodeFrame(f.content, func(name string, created int64) *stream {
			if s := byName[name]; s != nil {
				return s
			}
			return &stream{name: name, created: created}
		})
		if err == nil {
			events = append(events, found...)
		}
	})
	if corrupt > 0 {
		g.counters.corrupt.Add(uint64(corrupt))
		g.logger.Error("damaged log frames are passed over", "group", g.Name, "segment", b.segment.number, "places", corrupt)
	}
	return events, err
}

// A span is a block with its times in the query's direction.
type span struct {
	block       *block
	first, last int64
}

// overlapping returns the blocks with times in the query's range, in the order of their first.
func (q *query) overlapping(blocks []*block) []span {
	var spans []span
	for _, b := range blocks {
		sp := span{b, b.first, b.last}
		if q.backwards {
			sp.first, sp.last = -b.last, -b.first
		}
		if sp.last >= q.from.time && sp.first <= q.end && b.has(q.streams) {
			spans = append(spans, sp)
		}
	}
	slices.SortStableFunc(spans, func(a, b span) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	return spans
}

// A collector keeps the first events of a query that fit on a page.
type collector struct {
	query
	kept    eventHeap
	bytes   int
	ceiling position // what is not before it does not fit, or was not looked for
	limited bool
}

// A placed event is one with its position in the query's direction.
type placed struct {
	position
	event
}

func (c *collector) add(events []event) {
	for i := range events {
		e := &events[i]
		at := position{e.time, e.sequence}
		if c.backwards {
			at = at.mirror()
		}
		if at.before(c.from) || at.time > c.end || !at.before(c.ceiling) ||
			c.streams != nil && !c.streams(e.stream.name) || c.matches != nil && !c.matches(e.message) {
			continue
		}
		heap.Push(&c.kept, placed{at, *e})
		c.bytes += len(e.message) + eventOverheadBytes
		for len(c.kept) > c.limit || c.bytes > c.maxBytes && len(c.kept) > 1 {
			c.cut(c.kept[0].position)
		}
	}
}

// cut ends the page before a position.
func (c *collector) cut(at position) {
	c.limited = true
	if at.before(c.ceiling) {
		c.ceiling = at
	}
	for len(c.kept) > 0 && !c.kept[0].before(c.ceiling) {
		gone := heap.Pop(&c.kept).(placed)
		c.bytes -= len(gone.message) + eventOverheadBytes
	}
}

func (c *collector) page() page {
	slices.SortFunc(c.kept, func(a, b placed) int {
		if a.before(b.position) {
			return -1
		}
		return 1
	})
	p := page{events: make([]event, len(c.kept))}
	for i := range c.kept {
		p.events[i] = c.kept[i].event
	}
	if c.limited {
		p.next = &c.ceiling
	}
	return p
}

// An eventHeap has the greatest position on top.
type eventHeap []placed

func (h eventHeap) Len() int           { return len(h) }
func (h eventHeap) Less(i, j int) bool { return h[j].before(h[i].position) }
func (h eventHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)        { *h = append(*h, x.(placed)) }
func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}
