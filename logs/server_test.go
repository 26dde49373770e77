package logs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/logsapi"
)

const region = "eu-central-1"

func as(t testing.TB, account string) context.Context {
	return api.WithCall(t.Context(), &api.Call{AccountID: account, Region: region})
}

// refusal returns the error code and message of an error.
func refusal(err error) string {
	if f, ok := err.(api.Fault); ok {
		return f.Error()
	}
	return fmt.Sprintf("not a fault: %v", err)
}

func newServer(t testing.TB, c *clock) (*Server, *Store) {
	s := openStore(t, t.TempDir(), c, Limits{})
	return NewServer(s, region), s
}

func messages[E any](events []E, of func(E) *string) []string {
	list := []string{}
	for _, e := range events {
		list = append(list, *of(e))
	}
	return list
}

func filtered(e logsapi.FilteredLogEvent) *string { return e.Message }
func output(e logsapi.OutputLogEvent) *string     { return e.Message }

func TestFilterLogEventsSelectsByTimeStreamAndPattern(t *testing.T) {
	server, s := newServer(t, newClock())
	say(t, s, alice, code, "2026/a", noon, "a0", "a1 ERROR", "a2")
	s.flush()
	say(t, s, alice, code, "2026/b", noon.Add(time.Millisecond), "b1", "b2 ERROR")
	say(t, s, alice, code, "other", noon, "o0")
	at := func(ms int) *int64 { return new(noon.UnixMilli() + int64(ms)) }
	group := new(code)
	for _, c := range []struct {
		name string
		in   logsapi.FilterLogEventsRequest
		want []string
	}{
		{"all, by time and arrival", logsapi.FilterLogEventsRequest{}, []string{"a0", "o0", "a1 ERROR", "b1", "a2", "b2 ERROR"}},
		{"newest first", logsapi.FilterLogEventsRequest{StartFromHead: new(false)}, []string{"b2 ERROR", "a2", "b1", "a1 ERROR", "o0", "a0"}},
		{"both ends are included", logsapi.FilterLogEventsRequest{StartTime: at(1), EndTime: at(1)}, []string{"a1 ERROR", "b1"}},
		{"named streams", logsapi.FilterLogEventsRequest{LogStreamNames: []string{"other", "2026/b", "none"}}, []string{"o0", "b1", "b2 ERROR"}},
		{"streams by prefix", logsapi.FilterLogEventsRequest{LogStreamNamePrefix: new("2026/")}, []string{"a0", "a1 ERROR", "b1", "a2", "b2 ERROR"}},
		{"pattern", logsapi.FilterLogEventsRequest{FilterPattern: new("ERROR -a1")}, []string{"b2 ERROR"}},
		{"nothing", logsapi.FilterLogEventsRequest{StartTime: at(10)}, []string{}},
		{"the group by its ARN", logsapi.FilterLogEventsRequest{LogGroupIdentifier: new("arn:aws:logs:" + region + ":" + alice + ":log-group:" + code + ":*"), Limit: new(int32(1))}, []string{"a0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.in.LogGroupIdentifier == nil {
				c.in.LogGroupName = group
			}
			out, err := server.FilterLogEvents(as(t, alice), &c.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, messages(out.Events, filtered)); diff != "" {
				t.Error(diff)
			}
			if more := c.in.Limit != nil; more != (out.NextToken != nil) {
				t.Errorf("next token %v", out.NextToken)
			}
		})
	}
}

func TestFilterLogEventsPagesWithItsTokensAndIdentifiesEvents(t *testing.T) {
	server, s := newServer(t, newClock())
	var want []string
	for i := range 25 {
		m := fmt.Sprintf("%02d", i)
		say(t, s, alice, code, fmt.Sprint("stream ", i%3), noon.Add(time.Duration(i/4)*time.Millisecond), m)
		want = append(want, m)
		if i%7 == 0 {
			s.flush()
		}
	}
	for _, fromHead := range []bool{true, false} {
		var got, ids []string
		in := &logsapi.FilterLogEventsRequest{LogGroupName: new(code), Limit: new(int32(4)), StartFromHead: new(fromHead)}
		for {
			out, err := server.FilterLogEvents(as(t, alice), in)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, messages(out.Events, filtered)...)
			for _, e := range out.Events {
				ids = append(ids, *e.EventId)
			}
			if out.NextToken == nil {
				break
			}
			in.NextToken, in.StartFromHead = out.NextToken, nil // the token keeps the direction
		}
		if !fromHead {
			slices.Reverse(got)
			slices.Reverse(ids)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("from head %v: %s", fromHead, diff)
		}
		if !slices.IsSorted(ids) || len(slices.Compact(ids)) != len(want) {
			t.Errorf("event ids are not unique and ascending: %q", ids)
		}
	}
}

func TestFollowingAGroupShowsEachEventOnce(t *testing.T) {
	c := newClock()
	server, s := newServer(t, c)
	seen, start := map[string]int{}, noon.UnixMilli()
	// As "aws logs tail --follow" does: ask from the newest time on, forget known ids.
	for i := range 20 {
		say(t, s, alice, code, fmt.Sprint("stream ", i%2), c.now(), fmt.Sprint("line ", i))
		if i%3 == 0 {
			s.flush()
		}
		if i%2 == 0 {
			c.pass(time.Millisecond)
		}
		out, err := server.FilterLogEvents(as(t, alice), &logsapi.FilterLogEventsRequest{LogGroupName: new(code), StartTime: &start, Interleaved: new(true)})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range out.Events {
			seen[*e.EventId]++
			start = max(start, *e.Timestamp)
		}
		if len(seen) != i+1 {
			t.Fatalf("after line %d, %d events are seen", i, len(seen))
		}
	}
}

func TestGetLogEventsWalksAStreamInBothDirections(t *testing.T) {
	c := newClock()
	server, s := newServer(t, c)
	var lines []string
	for i := range 10 {
		lines = append(lines, fmt.Sprint(i))
	}
	say(t, s, alice, code, "one", noon, lines[:6]...)
	s.flush()
	say(t, s, alice, code, "two", noon, "not this one")
	say(t, s, alice, code, "one", noon.Add(6*time.Millisecond), lines[6:]...)
	get := func(in logsapi.GetLogEventsRequest) ([]string, string, string) {
		t.Helper()
		in.LogGroupName, in.LogStreamName = new(code), new("one")
		out, err := server.GetLogEvents(as(t, alice), &in)
		if err != nil {
			t.Fatal(err)
		}
		return messages(out.Events, output), *out.NextForwardToken, *out.NextBackwardToken
	}
	expect := func(what string, got, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	four := new(int32(4))
	got, forward, back := get(logsapi.GetLogEventsRequest{Limit: four})
	expect("the newest page", got, lines[6:])
	got, again, _ := get(logsapi.GetLogEventsRequest{Limit: four, NextToken: &forward, StartFromHead: new(true)})
	expect("beyond the end", got, []string{})
	if again != forward {
		t.Errorf("at the end the forward token %q became %q", forward, again)
	}
	got, _, back = get(logsapi.GetLogEventsRequest{Limit: four, NextToken: &back})
	expect("one page back", got, lines[2:6])
	got, onward, back := get(logsapi.GetLogEventsRequest{Limit: four, NextToken: &back})
	expect("two pages back", got, lines[:2])
	got, _, again = get(logsapi.GetLogEventsRequest{Limit: four, NextToken: &back})
	expect("before the beginning", got, []string{})
	if again != back {
		t.Errorf("at the beginning the backward token %q became %q", back, again)
	}
	got, _, _ = get(logsapi.GetLogEventsRequest{Limit: four, NextToken: &onward, StartFromHead: new(true)})
	expect("on again from there", got, lines[2:6])
	say(t, s, alice, code, "one", noon.Add(time.Second), "new")
	got, _, _ = get(logsapi.GetLogEventsRequest{NextToken: &forward, StartFromHead: new(true)})
	expect("what came after the end", got, []string{"new"})
	got, _, _ = get(logsapi.GetLogEventsRequest{StartFromHead: new(true), StartTime: new(noon.UnixMilli() + 1), EndTime: new(noon.UnixMilli() + 3)})
	expect("the end of the range is not included", got, []string{"1", "2"})

	for _, start := range []bool{true, false} {
		in := logsapi.GetLogEventsRequest{Limit: new(int32(3)), StartFromHead: &start}
		var all []string
		for {
			got, forward, back := get(in)
			token := forward
			if !start {
				token = back
				all = append(got, all...)
			} else {
				all = append(all, got...)
			}
			if in.NextToken != nil && *in.NextToken == token {
				break
			}
			in.NextToken = &token
		}
		expect("a whole walk", all, append(slices.Clone(lines), "new"))
	}
}

func TestAnEmptyStreamHasTokensThatFindWhatComes(t *testing.T) {
	server, s := newServer(t, newClock())
	ctx := as(t, alice)
	if _, err := server.CreateLogGroup(ctx, &logsapi.CreateLogGroupRequest{LogGroupName: new(code)}); err != nil {
		t.Fatal(err)
	}
	if _, err := server.CreateLogStream(ctx, &logsapi.CreateLogStreamRequest{LogGroupName: new(code), LogStreamName: new("one")}); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, newClock(), Limits{})
	server = NewServer(s, region)
	in := &logsapi.GetLogEventsRequest{LogGroupName: new(code), LogStreamName: new("one")}
	out, err := server.GetLogEvents(ctx, in)
	if err != nil || len(out.Events) != 0 {
		t.Fatalf("%v, %d events", err, len(out.Events))
	}
	say(t, s, alice, code, "one", noon, "first")
	in.NextToken = out.NextForwardToken
	if out, err = server.GetLogEvents(ctx, in); err != nil || len(out.Events) != 1 {
		t.Errorf("%v, events %v", err, out)
	}
}

func TestAnotherAccountSeesAndTouchesNothing(t *testing.T) {
	server, s := newServer(t, newClock())
	say(t, s, alice, code, "one", noon, "secret of alice")
	ctx := as(t, bob)
	const none = "ResourceNotFoundException: The specified log group does not exist."
	arn := new("arn:aws:logs:" + region + ":" + alice + ":log-group:" + code)
	for what, call := range map[string]func() error{
		"filter": func() error {
			_, err := server.FilterLogEvents(ctx, &logsapi.FilterLogEventsRequest{LogGroupName: new(code)})
			return err
		},
		"filter by ARN": func() error {
			_, err := server.FilterLogEvents(ctx, &logsapi.FilterLogEventsRequest{LogGroupIdentifier: arn})
			return err
		},
		"get": func() error {
			_, err := server.GetLogEvents(ctx, &logsapi.GetLogEventsRequest{LogGroupIdentifier: arn, LogStreamName: new("one")})
			return err
		},
		"streams": func() error {
			_, err := server.DescribeLogStreams(ctx, &logsapi.DescribeLogStreamsRequest{LogGroupName: new(code)})
			return err
		},
		"delete": func() error {
			_, err := server.DeleteLogGroup(ctx, &logsapi.DeleteLogGroupRequest{LogGroupName: new(code)})
			return err
		},
		"put": func() error {
			_, err := server.PutLogEvents(ctx, &logsapi.PutLogEventsRequest{LogGroupName: new(code), LogStreamName: new("one"), LogEvents: []logsapi.InputLogEvent{{Timestamp: new(noon.UnixMilli()), Message: new("x")}}})
			return err
		},
	} {
		if got := refusal(call()); got != none {
			t.Errorf("%s: %s", what, got)
		}
	}
	out, err := server.DescribeLogGroups(ctx, &logsapi.DescribeLogGroupsRequest{})
	if err != nil || len(out.LogGroups) != 0 {
		t.Errorf("groups %v, error %v", out, err)
	}
	if got := all(t, s, alice, code); len(got) != 1 {
		t.Errorf("alice has %q", got)
	}
}

func TestGroupsAreListedInPages(t *testing.T) {
	server, s := newServer(t, newClock())
	for _, name := range []string{"/aws/lambda/b", "/aws/lambda/a", "/own/c", "/aws/lambda/c"} {
		say(t, s, alice, name, "one", noon, "line")
	}
	s.flush()
	list := func(in logsapi.DescribeLogGroupsRequest) (names []string) {
		t.Helper()
		for {
			out, err := server.DescribeLogGroups(as(t, alice), &in)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range out.LogGroups {
				names = append(names, *g.LogGroupName)
				if *g.Arn != "arn:aws:logs:"+region+":"+alice+":log-group:"+*g.LogGroupName+":*" || *g.StoredBytes == 0 || *g.CreationTime != noon.UnixMilli() {
					t.Errorf("%s: %s, %d bytes, created %d", *g.LogGroupName, *g.Arn, *g.StoredBytes, *g.CreationTime)
				}
			}
			if out.NextToken == nil {
				return names
			}
			if len(out.LogGroups) > int(*in.Limit) {
				t.Fatalf("a page of %d", len(out.LogGroups))
			}
			in.NextToken = out.NextToken
		}
	}
	for _, c := range []struct {
		in   logsapi.DescribeLogGroupsRequest
		want string
	}{
		{logsapi.DescribeLogGroupsRequest{}, "[/aws/lambda/a /aws/lambda/b /aws/lambda/c /own/c]"},
		{logsapi.DescribeLogGroupsRequest{Limit: new(int32(1))}, "[/aws/lambda/a /aws/lambda/b /aws/lambda/c /own/c]"},
		{logsapi.DescribeLogGroupsRequest{Limit: new(int32(2)), LogGroupNamePrefix: new("/aws/lambda/")}, "[/aws/lambda/a /aws/lambda/b /aws/lambda/c]"},
		{logsapi.DescribeLogGroupsRequest{LogGroupNamePattern: new("c")}, "[/aws/lambda/c /own/c]"},
		{logsapi.DescribeLogGroupsRequest{LogGroupIdentifiers: []string{"/own/c", "/none"}}, "[/own/c]"},
		{logsapi.DescribeLogGroupsRequest{LogGroupClass: new("INFREQUENT_ACCESS")}, "[]"},
	} {
		if got := fmt.Sprint(list(c.in)); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestStreamsAreListedByNameOrByTheirLatestEvent(t *testing.T) {
	server, s := newServer(t, newClock())
	for i, name := range []string{"c", "a", "d", "b"} {
		say(t, s, alice, code, name, noon.Add(time.Duration(i)*time.Second), "first", "last")
	}
	if _, err := server.CreateLogStream(as(t, alice), &logsapi.CreateLogStreamRequest{LogGroupName: new(code), LogStreamName: new("empty")}); err != nil {
		t.Fatal(err)
	}
	s.flush()
	for _, c := range []struct {
		in   logsapi.DescribeLogStreamsRequest
		want string
	}{
		{logsapi.DescribeLogStreamsRequest{}, "a b c d empty"},
		{logsapi.DescribeLogStreamsRequest{Descending: new(true)}, "empty d c b a"},
		{logsapi.DescribeLogStreamsRequest{OrderBy: new("LastEventTime")}, "empty c a d b"},
		{logsapi.DescribeLogStreamsRequest{OrderBy: new("LastEventTime"), Descending: new(true)}, "b d a c empty"},
		{logsapi.DescribeLogStreamsRequest{LogStreamNamePrefix: new("e")}, "empty"},
	} {
		for _, limit := range []int32{1, 2, 50} {
			in := c.in
			in.LogGroupName, in.Limit = new(code), &limit
			var names []string
			for {
				out, err := server.DescribeLogStreams(as(t, alice), &in)
				if err != nil {
					t.Fatal(err)
				}
				for _, st := range out.LogStreams {
					names = append(names, *st.LogStreamName)
					if empty := *st.LogStreamName == "empty"; empty != (st.LastEventTimestamp == nil) || !empty && *st.LastEventTimestamp != *st.FirstEventTimestamp+1 {
						t.Errorf("%s: first %v, last %v", *st.LogStreamName, st.FirstEventTimestamp, st.LastEventTimestamp)
					}
				}
				if out.NextToken == nil {
					break
				}
				in.NextToken = out.NextToken
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("limit %d: %s, want %s", limit, got, c.want)
			}
		}
	}
}

func TestRefusalsHaveTheWordsOfAWS(t *testing.T) {
	server, s := newServer(t, newClock())
	say(t, s, alice, code, "one", noon, "line")
	ctx := as(t, alice)
	group, stream := new(code), new("one")
	put := func(events ...logsapi.InputLogEvent) error {
		_, err := server.PutLogEvents(ctx, &logsapi.PutLogEventsRequest{LogGroupName: group, LogStreamName: stream, LogEvents: events})
		return err
	}
	event := func(at time.Time, m string) logsapi.InputLogEvent {
		return logsapi.InputLogEvent{Timestamp: new(at.UnixMilli()), Message: &m}
	}
	filter := func(in logsapi.FilterLogEventsRequest) error { _, err := server.FilterLogEvents(ctx, &in); return err }
	get := func(in logsapi.GetLogEventsRequest) error { _, err := server.GetLogEvents(ctx, &in); return err }
	create := func(in logsapi.CreateLogGroupRequest) error { _, err := server.CreateLogGroup(ctx, &in); return err }
	newStream := func(group, stream string) error {
		_, err := server.CreateLogStream(ctx, &logsapi.CreateLogStreamRequest{LogGroupName: &group, LogStreamName: &stream})
		return err
	}
	describe := func(in logsapi.DescribeLogStreamsRequest) error {
		_, err := server.DescribeLogStreams(ctx, &in)
		return err
	}
	groups := func(in logsapi.DescribeLogGroupsRequest) error {
		_, err := server.DescribeLogGroups(ctx, &in)
		return err
	}
	_, deleted := server.DeleteLogGroup(ctx, &logsapi.DeleteLogGroupRequest{LogGroupName: new("none")})
	_, unbuilt := server.PutRetentionPolicy(ctx, &logsapi.PutRetentionPolicyRequest{LogGroupName: group})
	for _, c := range []struct {
		err  error
		want string
	}{
		{filter(logsapi.FilterLogEventsRequest{LogGroupName: new("none")}), "ResourceNotFoundException: The specified log group does not exist."},
		{get(logsapi.GetLogEventsRequest{LogGroupName: group, LogStreamName: new("none")}), "ResourceNotFoundException: The specified log stream does not exist."},
		{get(logsapi.GetLogEventsRequest{LogGroupName: group, LogStreamName: stream, NextToken: new("f/nonsense")}), "InvalidParameterException: The specified nextToken is invalid."},
		{get(logsapi.GetLogEventsRequest{LogGroupName: group, LogStreamName: stream, NextToken: encodeToken("f", "1", "1")}), "InvalidParameterException: The specified nextToken is invalid."},
		{filter(logsapi.FilterLogEventsRequest{LogGroupName: group, NextToken: new("x/eA")}), "InvalidParameterException: The specified nextToken is invalid."},
		{filter(logsapi.FilterLogEventsRequest{LogGroupName: group, NextToken: new("f/" + *encodeToken("f", "-1", "1"))}), "InvalidParameterException: The specified nextToken is invalid."},
		{filter(logsapi.FilterLogEventsRequest{LogGroupName: group, LogStreamNames: []string{"a"}, LogStreamNamePrefix: new("b")}), "InvalidParameterException: Log stream names and log stream name prefix cannot both be specified"},
		{filter(logsapi.FilterLogEventsRequest{LogGroupName: group, FilterPattern: new("{ $.x = 1 }")}), "InvalidParameterException: Invalid filter pattern: Cloister does not match JSON properties yet"},
		{filter(logsapi.FilterLogEventsRequest{}), "InvalidParameterException: Either LogGroupName or LogGroupIdentifier must be specified"},
		{filter(logsapi.FilterLogEventsRequest{LogGroupName: group, LogGroupIdentifier: group}), "InvalidParameterException: LogGroupName and LogGroupIdentifier cannot both be specified"},
		{filter(logsapi.FilterLogEventsRequest{LogGroupIdentifier: new("arn:aws:lambda:x:y:z")}), "InvalidParameterException: \"arn:aws:lambda:x:y:z\" is not the ARN of a log group"},
		{describe(logsapi.DescribeLogStreamsRequest{LogGroupName: group, OrderBy: new("LastEventTime"), LogStreamNamePrefix: new("a")}), "InvalidParameterException: Cannot order by LastEventTime with a logStreamNamePrefix."},
		{describe(logsapi.DescribeLogStreamsRequest{LogGroupName: group, NextToken: new("x")}), "InvalidParameterException: The specified nextToken is invalid."},
		{groups(logsapi.DescribeLogGroupsRequest{NextToken: new("%%")}), "InvalidParameterException: The specified nextToken is invalid."},
		{groups(logsapi.DescribeLogGroupsRequest{LogGroupNamePrefix: group, LogGroupNamePattern: group}), "InvalidParameterException: LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."},
		{create(logsapi.CreateLogGroupRequest{LogGroupName: group}), "ResourceAlreadyExistsException: The specified log group already exists"},
		{create(logsapi.CreateLogGroupRequest{LogGroupName: new("new"), KmsKeyId: new("key")}), "InvalidParameterException: Cloister encrypts all logs"},
		{create(logsapi.CreateLogGroupRequest{LogGroupName: new("new"), Tags: map[string]string{"a": "b"}}), "InvalidParameterException: Cloister does not keep tags"},
		{create(logsapi.CreateLogGroupRequest{LogGroupName: new("new"), LogGroupClass: new("DELIVERY")}), "InvalidParameterException: Cloister has log groups of class STANDARD only"},
		{create(logsapi.CreateLogGroupRequest{LogGroupName: new("aws/x")}), "InvalidParameterException: Log groups starting with AWS/ are reserved for AWS."},
		{newStream("none", "x"), "ResourceNotFoundException: The specified log group does not exist."},
		{newStream(code, "one"), "ResourceAlreadyExistsException: The specified log stream already exists"},
		{deleted, "ResourceNotFoundException: The specified log group does not exist."},
		{put(event(noon, "b"), event(noon.Add(-time.Second), "a")), "InvalidParameterException: Log events in a single PutLogEvents request must be in chronological order."},
		{put(event(noon.Add(-25*time.Hour), "a"), event(noon, "b")), "InvalidParameterException: The batch of log events in a single PutLogEvents request cannot span more than 24 hours."},
		{put(event(noon, strings.Repeat("x", 1<<20))), "InvalidParameterException: Upload too large: 1048602 bytes exceeds limit of 1048576"},
		{unbuilt, "NotImplementedException: Cloister does not implement logs:PutRetentionPolicy yet"},
	} {
		if got := refusal(c.err); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	if got := all(t, s, alice, code); len(got) != 1 {
		t.Errorf("a refused call stored something: %q", got)
	}
}

func TestPutLogEventsStoresWhatIsInTimeAndNamesTheRest(t *testing.T) {
	server, s := newServer(t, newClock())
	say(t, s, alice, code, "one", noon.Add(-time.Hour), "line")
	at := func(d time.Duration, m string) logsapi.InputLogEvent {
		return logsapi.InputLogEvent{Timestamp: new(noon.Add(d).UnixMilli()), Message: &m}
	}
	out, err := server.PutLogEvents(as(t, alice), &logsapi.PutLogEventsRequest{LogGroupName: new(code), LogStreamName: new("one"), LogEvents: []logsapi.InputLogEvent{
		at(-15*24*time.Hour, "too old"), at(-14*24*time.Hour-time.Second, "too old, too"), at(-time.Minute, "kept"), at(time.Hour, "kept, too"), at(3*time.Hour, "too new"), at(4*time.Hour, "too new, too"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := &logsapi.RejectedLogEventsInfo{TooOldLogEventEndIndex: new(int32(2)), TooNewLogEventStartIndex: new(int32(4))}
	if diff := cmp.Diff(want, out.RejectedLogEventsInfo); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"one: line", "one: kept", "one: kept, too"}, all(t, s, alice, code)); diff != "" {
		t.Error(diff)
	}
}

func TestPutLogEventsOverTheRateStoresNothing(t *testing.T) {
	s := openStore(t, t.TempDir(), newClock(), Limits{StreamBytesPerSecond: 100, StreamBurstBytes: 200})
	server := NewServer(s, region)
	say(t, s, alice, code, "one", noon, "line")
	var events []logsapi.InputLogEvent
	for range 5 {
		events = append(events, logsapi.InputLogEvent{Timestamp: new(noon.UnixMilli()), Message: new("message of twenty-five.")})
	}
	_, err := server.PutLogEvents(as(t, alice), &logsapi.PutLogEventsRequest{LogGroupName: new(code), LogStreamName: new("one"), LogEvents: events})
	if got := refusal(err); got != "ThrottlingException: Rate exceeded" {
		t.Error(got)
	}
	if got := all(t, s, alice, code); len(got) != 1 || s.Counters().Dropped != 0 {
		t.Errorf("stored %q, counters %+v", got, s.Counters())
	}
}

func TestADeletedGroupIsGoneAndItsNameIsFree(t *testing.T) {
	c := newClock()
	server, s := newServer(t, c)
	say(t, s, alice, code, "one", noon, "old")
	s.flush()
	say(t, s, alice, code, "one", noon, "old, in memory")
	if _, err := server.DeleteLogGroup(as(t, alice), &logsapi.DeleteLogGroupRequest{LogGroupName: new(code)}); err != nil {
		t.Fatal(err)
	}
	if files := segmentFiles(t, s.directory); len(files) != 0 {
		t.Errorf("files are left: %q", files)
	}
	say(t, s, alice, code, "two", noon, "new")
	s = reopen(t, s, c, Limits{})
	if diff := cmp.Diff([]string{"two: new"}, all(t, s, alice, code)); diff != "" {
		t.Error(diff)
	}
	if n := s.counters.pending.Load(); n != 0 {
		t.Errorf("%d bytes pending", n)
	}
}

func TestBrokenTextIsShownWithReplacements(t *testing.T) {
	server, s := newServer(t, newClock())
	say(t, s, alice, code, "one", noon, "bell \a, half \xe2\x82 and é")
	out, err := server.FilterLogEvents(as(t, alice), &logsapi.FilterLogEventsRequest{LogGroupName: new(code)})
	if err != nil || *out.Events[0].Message != "bell \a, half \ufffd and é" {
		t.Errorf("%v, %q", err, *out.Events[0].Message)
	}
}

func TestPermissionsNameTheResourcesOfAWS(t *testing.T) {
	server, _ := newServer(t, newClock())
	call := &api.Call{AccountID: alice, Region: region}
	prefix := "arn:aws:logs:" + region + ":" + alice + ":log-group:"
	group, stream := new(code), new("2026/[$LATEST]x")
	for _, c := range []struct {
		op   string
		in   any
		want string
	}{
		{"FilterLogEvents", &logsapi.FilterLogEventsRequest{LogGroupName: group}, prefix + code + ":log-stream:"},
		{"FilterLogEvents", &logsapi.FilterLogEventsRequest{LogGroupIdentifier: new(prefix + code + ":*")}, prefix + code + ":log-stream:"},
		{"GetLogEvents", &logsapi.GetLogEventsRequest{LogGroupName: group, LogStreamName: stream}, prefix + code + ":log-stream:2026/[$LATEST]x"},
		{"PutLogEvents", &logsapi.PutLogEventsRequest{LogGroupName: group, LogStreamName: stream}, prefix + code + ":log-stream:2026/[$LATEST]x"},
		{"CreateLogStream", &logsapi.CreateLogStreamRequest{LogGroupName: group, LogStreamName: stream}, prefix + code + ":log-stream:2026/[$LATEST]x"},
		{"CreateLogGroup", &logsapi.CreateLogGroupRequest{LogGroupName: group}, prefix + code + ":log-stream:"},
		{"DeleteLogGroup", &logsapi.DeleteLogGroupRequest{LogGroupName: group}, prefix + code + ":log-stream:"},
		{"DescribeLogStreams", &logsapi.DescribeLogStreamsRequest{LogGroupName: group}, prefix + code + ":log-stream:"},
		{"DescribeLogGroups", &logsapi.DescribeLogGroupsRequest{LogGroupNamePrefix: group}, prefix + ":log-stream:"},
		{"FilterLogEvents", &logsapi.FilterLogEventsRequest{LogGroupIdentifier: new("arn:aws:logs:" + region + ":" + bob + ":log-group:x")}, prefix + ":log-stream:"},
		{"PutRetentionPolicy", &logsapi.PutRetentionPolicyRequest{}, "*"},
	} {
		want := []api.Permission{{Action: "logs:" + c.op, Resource: c.want}}
		if diff := cmp.Diff(want, server.Permissions(c.op, c.in, call)); diff != "" {
			t.Errorf("%s: %s", c.op, diff)
		}
	}
}
