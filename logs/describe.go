package logs

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"cloister/api"
	"cloister/api/logsapi"
)

// Tokens hold a position and nothing secret. Whoever makes one up only chooses where their own
// listing goes on.
func encodeToken(parts ...string) *string {
	return new(base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, "\x00"))))
}

// decodeToken returns the parts of a token; kind is the first.
func decodeToken(token, kind string, parts int) ([]string, error) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	list := strings.SplitN(string(data), "\x00", parts)
	if err != nil || len(list) != parts || list[0] != kind {
		return nil, invalid("The specified nextToken is invalid.")
	}
	return list, nil
}

// DescribeLogGroups lists the groups of the caller's account by name.
func (s *Server) DescribeLogGroups(ctx context.Context, in *logsapi.DescribeLogGroupsRequest) (*logsapi.DescribeLogGroupsResponse, error) {
	if in.LogGroupNamePrefix != nil && in.LogGroupNamePattern != nil {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	call := api.CallOf(ctx)
	after := ""
	if in.NextToken != nil {
		token, err := decodeToken(*in.NextToken, "groups", 2)
		if err != nil {
			return nil, err
		}
		after = token[1]
	}
	limit := pageLimit(in.Limit, maxDescribeResult)
	if in.LogGroupClass != nil && *in.LogGroupClass != logsapi.LogGroupClassStandard {
		return &logsapi.DescribeLogGroupsResponse{LogGroups: []logsapi.LogGroup{}}, nil
	}
	wanted := map[string]bool{}
	for _, identifier := range in.LogGroupIdentifiers {
		name, err := s.groupName(call, nil, &identifier)
		if err != nil {
			return nil, err
		}
		wanted[name] = true
	}
	pass := func(name string) bool {
		switch {
		case len(wanted) > 0:
			return wanted[name]
		case in.LogGroupNamePattern != nil:
			return strings.Contains(name, *in.LogGroupNamePattern)
		}
		return in.LogGroupNamePrefix == nil || strings.HasPrefix(name, *in.LogGroupNamePrefix)
	}
	views := s.store.listGroups(call.AccountID, pass, after, limit+1)
	out := &logsapi.DescribeLogGroupsResponse{LogGroups: []logsapi.LogGroup{}}
	if len(views) > limit {
		views = views[:limit]
		out.NextToken = encodeToken("groups", views[limit-1].name)
	}
	for _, v := range views {
		arn := s.groupARN(call.AccountID, v.name)
		out.LogGroups = append(out.LogGroups, logsapi.LogGroup{
			LogGroupName: &v.name, CreationTime: &v.created, StoredBytes: &v.bytes, MetricFilterCount: new(int32(0)),
			Arn: new(arn + ":*"), LogGroupArn: &arn, LogGroupClass: new(logsapi.LogGroupClassStandard), DeletionProtectionEnabled: new(false),
		})
	}
	return out, nil
}

func pageLimit(given *int32, most int) int {
	if given == nil {
		return most
	}
	return min(max(1, int(*given)), most)
}

// DescribeLogStreams lists a group's streams by name or by their latest event.
func (s *Server) DescribeLogStreams(ctx context.Context, in *logsapi.DescribeLogStreamsRequest) (*logsapi.DescribeLogStreamsResponse, error) {
	byTime := in.OrderBy != nil && *in.OrderBy == logsapi.OrderByLastEventTime
	prefix := ""
	if in.LogStreamNamePrefix != nil {
		if byTime {
			return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
		}
		prefix = *in.LogStreamNamePrefix
	}
	g, err := s.group(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	views, err := g.listStreams(prefix)
	if err != nil {
		return nil, fault(err)
	}
	order := streamOrder(byTime, in.Descending != nil && *in.Descending)
	slices.SortFunc(views, order)
	if in.NextToken != nil {
		token, err := decodeToken(*in.NextToken, "streams", 3)
		if err != nil {
			return nil, err
		}
		last, err := strconv.ParseInt(token[1], 10, 64)
		if err != nil {
			return nil, invalid("The specified nextToken is invalid.")
		}
		at, found := slices.BinarySearchFunc(views, streamView{name: token[2], last: last}, order)
		if found {
			at++
		}
		views = views[at:]
	}
	limit := pageLimit(in.Limit, maxDescribeResult)
	out := &logsapi.DescribeLogStreamsResponse{LogStreams: []logsapi.LogStream{}}
	if len(views) > limit {
		views = views[:limit]
		end := views[limit-1]
		out.NextToken = encodeToken("streams", strconv.FormatInt(end.last, 10), end.name)
	}
	arn := s.groupARN(g.Account, g.Name) + ":log-stream:"
	for _, v := range views {
		shown := logsapi.LogStream{LogStreamName: &v.name, CreationTime: &v.created, Arn: new(arn + v.name), StoredBytes: new(int64(0))} // AWS: always 0 since 2019
		if v.events {
			shown.FirstEventTimestamp, shown.LastEventTimestamp, shown.LastIngestionTime = &v.first, &v.last, &v.lastIngest
		}
		out.LogStreams = append(out.LogStreams, shown)
	}
	return out, nil
}

func streamOrder(byTime, descending bool) func(a, b streamView) int {
	order := func(a, b streamView) int { return strings.Compare(a.name, b.name) }
	if byTime {
		order = func(a, b streamView) int { return cmp.Or(cmp.Compare(a.last, b.last), strings.Compare(a.name, b.name)) }
	}
	if descending {
		return func(a, b streamView) int { return order(b, a) }
	}
	return order
}
