package logs

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloister/api"
	"cloister/api/logsapi"
)

// Kinds of event tokens: the direction in which a page goes on.
const (
	onward   = "f"
	backward = "b"
)

// encodePosition writes a position of the forward order.
func encodePosition(kind string, p position) *string {
	return new(kind + "/" + *encodeToken(kind, strconv.FormatInt(p.time, 10), strconv.FormatUint(p.sequence, 10)))
}

func decodePosition(token string) (kind string, p position, err error) {
	kind, data, _ := strings.Cut(token, "/")
	parts, err := decodeToken(data, kind, 3)
	if err != nil {
		return "", position{}, err
	}
	p.time, err = strconv.ParseInt(parts[1], 10, 64)
	if err == nil {
		p.sequence, err = strconv.ParseUint(parts[2], 10, 64)
	}
	if err != nil || p.time < 0 || kind != onward && kind != backward {
		return "", position{}, invalid("The specified nextToken is invalid.")
	}
	return kind, p, nil
}

// between returns a query for events from start to end, both inclusive, in Unix milliseconds.
func between(start, end int64, backwards bool) query {
	q := query{from: position{start, 0}, end: end, backwards: backwards, maxBytes: maxPageBytes, scanBudget: scanBytes}
	if backwards {
		q.from, q.end = position{-end, 0}, -start
	}
	return q
}

// resume moves a query to a position of the forward order: onward it begins there, backwards
// just before.
func (q *query) resume(p position) {
	at := p
	if q.backwards {
		at = p.mirror().after()
	}
	if q.from.before(at) {
		q.from = at
	}
}

// FilterLogEvents lists events of a group in the order of time.
func (s *Server) FilterLogEvents(ctx context.Context, in *logsapi.FilterLogEventsRequest) (*logsapi.FilterLogEventsResponse, error) {
	if in.LogStreamNames != nil && in.LogStreamNamePrefix != nil {
		return nil, invalid("Log stream names and log stream name prefix cannot both be specified")
	}
	pattern, refused := parseFilterPattern(value(in.FilterPattern))
	if refused != "" {
		return nil, invalid("%s", refused)
	}
	backwards := in.StartFromHead != nil && !*in.StartFromHead
	var resume *position
	if in.NextToken != nil {
		kind, at, err := decodePosition(*in.NextToken)
		if err != nil {
			return nil, err
		}
		backwards, resume = kind == backward, &at // the token decides, as with AWS
	}
	g, err := s.group(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	q := between(valueOr(in.StartTime, 0), valueOr(in.EndTime, math.MaxInt64-1), backwards)
	if resume != nil {
		q.resume(*resume)
	}
	q.limit = pageLimit(in.Limit, maxPageEvents)
	switch {
	case in.LogStreamNames != nil:
		q.streams = func(name string) bool { return slices.Contains(in.LogStreamNames, name) }
	case in.LogStreamNamePrefix != nil:
		q.streams = func(name string) bool { return strings.HasPrefix(name, *in.LogStreamNamePrefix) }
	}
	if pattern != nil {
		q.matches = pattern.matches
	}
	p, err := s.store.search(ctx, g, q)
	if err != nil {
		return nil, fault(err)
	}
	out := &logsapi.FilterLogEventsResponse{Events: make([]logsapi.FilteredLogEvent, len(p.events)), SearchedLogStreams: []logsapi.SearchedLogStream{}}
	for i := range p.events {
		e := &p.events[i]
		out.Events[i] = logsapi.FilteredLogEvent{
			LogStreamName: &e.stream.name, Timestamp: &e.time, IngestionTime: &e.ingested, Message: new(text(e.message)), EventId: new(eventID(e)),
		}
	}
	if p.next != nil {
		out.NextToken = q.token(*p.next)
	}
	return out, nil
}

// token returns the token for a page that begins at a position in the query's direction.
func (q *query) token(next position) *string {
	if !q.backwards {
		return encodePosition(onward, next)
	}
	return encodePosition(backward, next.mirror().after()) // resume goes on before it
}

// eventID names an event within its group. Longer ones come later, as with AWS's digits.
func eventID(e *event) string { return fmt.Sprintf("%019d%019d", e.time, e.sequence) }

// text makes a message that JSON can carry. Control characters stay: JSON escapes them.
func text(message string) string { return strings.ToValidUTF8(message, "\ufffd") }

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func valueOr(n *int64, other int64) int64 {
	if n == nil {
		return other
	}
	return *n
}

// GetLogEvents lists events of one stream, the newest page first unless told otherwise. Each
// page is in the order of time.
func (s *Server) GetLogEvents(ctx context.Context, in *logsapi.GetLogEventsRequest) (*logsapi.GetLogEventsResponse, error) {
	backwards := in.StartFromHead == nil || !*in.StartFromHead
	var resume *position
	if in.NextToken != nil {
		kind, at, err := decodePosition(*in.NextToken)
		if err != nil {
			return nil, err
		}
		backwards, resume = kind == backward, &at
	}
	g, err := s.groupOf(ctx, in.LogGroupName, in.LogGroupIdentifier, *in.LogStreamName)
	if err != nil {
		return nil, err
	}
	start, end := valueOr(in.StartTime, 0), valueOr(in.EndTime, math.MaxInt64)-1
	q := between(start, max(end, 0), backwards)
	if resume != nil {
		q.resume(*resume)
	}
	q.limit = pageLimit(in.Limit, maxPageEvents)
	q.streams = func(name string) bool { return name == *in.LogStreamName }
	p := page{}
	if start <= end {
		if p, err = s.store.search(ctx, g, q); err != nil {
			return nil, fault(err)
		}
	}
	if backwards {
		slices.Reverse(p.events)
	}
	out := &logsapi.GetLogEventsResponse{Events: make([]logsapi.OutputLogEvent, len(p.events))}
	for i := range p.events {
		e := &p.events[i]
		out.Events[i] = logsapi.OutputLogEvent{Timestamp: &e.time, IngestionTime: &e.ingested, Message: new(text(e.message))}
	}
	out.NextForwardToken, out.NextBackwardToken = bounds(&q, &p, resume)
	return out, nil
}

// bounds returns the tokens on both sides of a page. At an end the token is the one that led
// there: clients stop when it does not change.
func bounds(q *query, p *page, resume *position) (forward, back *string) {
	here := q.from // where an empty page stands, in the forward order
	if q.backwards {
		here = position{max(0, -q.end), 0} // nothing yet: begin with what comes first
	}
	if resume != nil {
		here = *resume
	}
	first, last := here, here
	if n := len(p.events); n > 0 {
		first = position{p.events[0].time, p.events[0].sequence}
		last = position{p.events[n-1].time, p.events[n-1].sequence}.after()
	} else if p.next != nil { // the search stopped early: go on from there
		if q.backwards {
			first = p.next.mirror().after()
		} else {
			last = *p.next
		}
	}
	return encodePosition(onward, last), encodePosition(backward, first)
}

// Bounds of PutLogEvents (API reference).
const (
	maxPutBytes      = 1 << 20
	maxPutEventBytes = 1 << 20
	maxPutSpan       = 24 * time.Hour
	maxPutAge        = 14 * 24 * time.Hour
	maxPutAhead      = 2 * time.Hour
)

// PutLogEvents stores events in a stream that exists. Events over a rate are refused all
// together, so that the caller sends them again.
func (s *Server) PutLogEvents(ctx context.Context, in *logsapi.PutLogEventsRequest) (*logsapi.PutLogEventsResponse, error) {
	if _, err := s.groupOf(ctx, in.LogGroupName, nil, *in.LogStreamName); err != nil {
		return nil, err
	}
	now := s.store.now()
	events, rejected, err := s.accept(in.LogEvents, now)
	if err != nil {
		return nil, err
	}
	if len(events) > 0 {
		dropped, err := s.store.add(now, api.CallOf(ctx).AccountID, *in.LogGroupName, *in.LogStreamName, events, true)
		if err != nil {
			return nil, fault(err)
		}
		if dropped > 0 {
			return nil, &logsapi.ThrottlingException{Message: new("Rate exceeded")}
		}
	}
	return &logsapi.PutLogEventsResponse{RejectedLogEventsInfo: rejected}, nil
}

// accept checks a batch and leaves out what is too old or too new.
func (s *Server) accept(given []logsapi.InputLogEvent, now time.Time) (events []event, rejected *logsapi.RejectedLogEventsInfo, err error) {
	bytes := 0
	oldest, newest := now.Add(-maxPutAge).UnixMilli(), now.Add(maxPutAhead).UnixMilli()
	tooOld, tooNew := -1, -1
	for i, e := range given {
		size := len(*e.Message) + eventOverheadBytes
		if bytes += size; size > maxPutEventBytes || bytes > maxPutBytes {
			return nil, nil, invalid("Upload too large: %d bytes exceeds limit of %d", bytes, maxPutBytes)
		}
		if i > 0 && *e.Timestamp < *given[i-1].Timestamp {
			return nil, nil, invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
		switch {
		case *e.Timestamp < oldest:
			tooOld = i + 1
			continue
		case *e.Timestamp > newest:
			if tooNew < 0 {
				tooNew = i
			}
			continue
		}
		if len(events) > 0 && *e.Timestamp-events[0].time > maxPutSpan.Milliseconds() {
			return nil, nil, invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
		}
		for part := range split(*e.Message) {
			events = append(events, event{time: *e.Timestamp, ingested: now.UnixMilli(), message: part})
		}
	}
	if tooOld >= 0 || tooNew >= 0 {
		rejected = &logsapi.RejectedLogEventsInfo{}
		if tooOld >= 0 {
			rejected.TooOldLogEventEndIndex = new(int32(tooOld))
		}
		if tooNew >= 0 {
			rejected.TooNewLogEventStartIndex = new(int32(tooNew))
		}
	}
	return events, rejected, nil
}
