package logs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cloister/api"
	"cloister/api/logsapi"
	"cloister/lambda"
)

// Server answers the operations of the CloudWatch Logs API that Cloister has. Its methods may be
// called concurrently.
type Server struct {
	logsapi.Unimplemented

	store  *Store
	region string
}

// NewServer returns a server of one region on top of a store.
func NewServer(s *Store, region string) *Server { return &Server{store: s, region: region} }

var _ logsapi.Server = (*Server)(nil)

// API returns the operations and wire format of the service.
func (s *Server) API() *api.Service { return logsapi.Service }

// Server returns s, which implements the generated interface.
func (s *Server) Server() any { return s }

func invalid(format string, args ...any) error {
	return &logsapi.InvalidParameterException{Message: new(fmt.Sprintf(format, args...))}
}

func noGroup() error {
	return &logsapi.ResourceNotFoundException{Message: new("The specified log group does not exist.")}
}

func noStream() error {
	return &logsapi.ResourceNotFoundException{Message: new("The specified log stream does not exist.")}
}

// fault turns errors of the store into the service's own, where there is one.
func fault(err error) error {
	switch {
	case errors.Is(err, errGroupDeleted):
		return noGroup()
	case errors.Is(err, errTooManyGroups):
		return &logsapi.LimitExceededException{Message: new("Resource limit exceeded.")}
	}
	return err
}

// groupARN returns a group's ARN without the ":*" that AWS appends to some.
func (s *Server) groupARN(accountID, name string) string {
	return lambda.ARN{Partition: "aws", Service: "logs", Region: s.region, AccountID: accountID, Resource: "log-group:" + name}.String()
}

// groupName reads a group that is named by name or by identifier, which may be an ARN. Groups
// of other accounts are not found.
func (s *Server) groupName(call *api.Call, name, identifier *string) (string, error) {
	switch {
	case name != nil && identifier != nil:
		return "", invalid("LogGroupName and LogGroupIdentifier cannot both be specified")
	case name != nil:
		return *name, nil
	case identifier == nil:
		return "", invalid("Either LogGroupName or LogGroupIdentifier must be specified")
	case !strings.HasPrefix(*identifier, "arn:"):
		return *identifier, nil
	}
	arn, err := lambda.ParseARN(*identifier)
	group, ok := strings.CutPrefix(arn.Resource, "log-group:")
	if err != nil || !ok || arn.Service != "logs" {
		return "", invalid("%.200q is not the ARN of a log group", *identifier)
	}
	if arn.Region != s.region || arn.AccountID != call.AccountID {
		return "", noGroup()
	}
	return strings.TrimSuffix(group, ":*"), nil
}

// group finds a group of the caller's account.
func (s *Server) group(ctx context.Context, name, identifier *string) (*group, error) {
	call := api.CallOf(ctx)
	known, err := s.groupName(call, name, identifier)
	if err != nil {
		return nil, err
	}
	g := s.store.find(call.AccountID, known)
	if g == nil {
		return nil, noGroup()
	}
	return g, nil
}

// groupOf is group for a stream that must be in it.
func (s *Server) groupOf(ctx context.Context, name, identifier *string, stream string) (*group, error) {
	g, err := s.group(ctx, name, identifier)
	if err != nil {
		return nil, err
	}
	switch known, err := g.hasStream(stream); {
	case err != nil:
		return nil, fault(err)
	case !known:
		return nil, noStream()
	}
	return g, nil
}

// CreateLogGroup makes a group. Keys of the caller's, tags and other classes than STANDARD are
// refused: nothing here would honour them.
func (s *Server) CreateLogGroup(ctx context.Context, in *logsapi.CreateLogGroupRequest) (*api.Empty, error) {
	switch {
	case in.KmsKeyId != nil:
		return nil, invalid("Cloister encrypts all logs under the installation's key; kmsKeyId is not supported yet")
	case len(in.Tags) > 0:
		return nil, invalid("Cloister does not keep tags of log groups yet")
	case in.LogGroupClass != nil && *in.LogGroupClass != logsapi.LogGroupClassStandard:
		return nil, invalid("Cloister has log groups of class STANDARD only")
	case in.DeletionProtectionEnabled != nil && *in.DeletionProtectionEnabled:
		return nil, invalid("Cloister does not protect log groups from deletion yet")
	case strings.HasPrefix(*in.LogGroupName, "aws/"):
		return nil, invalid("Log groups starting with AWS/ are reserved for AWS.")
	}
	_, made, err := s.store.make(api.CallOf(ctx).AccountID, *in.LogGroupName)
	if err != nil {
		return nil, fault(err)
	}
	if !made {
		return nil, &logsapi.ResourceAlreadyExistsException{Message: new("The specified log group already exists")}
	}
	return &api.Empty{}, nil
}

// DeleteLogGroup deletes a group and its events.
func (s *Server) DeleteLogGroup(ctx context.Context, in *logsapi.DeleteLogGroupRequest) (*api.Empty, error) {
	found, err := s.store.deleteGroup(api.CallOf(ctx).AccountID, *in.LogGroupName)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, noGroup()
	}
	return &api.Empty{}, nil
}

// CreateLogStream makes a stream without events. It lasts as long as the segment it is written to.
func (s *Server) CreateLogStream(ctx context.Context, in *logsapi.CreateLogStreamRequest) (*api.Empty, error) {
	g, err := s.group(ctx, in.LogGroupName, nil)
	if err != nil {
		return nil, err
	}
	made, err := g.createStream(s.store.now(), *in.LogStreamName)
	if err != nil {
		return nil, fault(err)
	}
	if !made {
		return nil, &logsapi.ResourceAlreadyExistsException{Message: new("The specified log stream already exists")}
	}
	s.store.touch(g)
	return &api.Empty{}, nil
}

// Permissions says what the caller must be allowed to do for an operation, with the resources that
// AWS evaluates. Unknown operations need their own action on everything.
func (s *Server) Permissions(op string, in any, call *api.Call) []api.Permission {
	var name, identifier, stream *string
	switch in := in.(type) {
	case *logsapi.CreateLogGroupRequest:
		name = in.LogGroupName
	case *logsapi.DeleteLogGroupRequest:
		name = in.LogGroupName
	case *logsapi.CreateLogStreamRequest:
		name, stream = in.LogGroupName, in.LogStreamName
	case *logsapi.PutLogEventsRequest:
		name, stream = in.LogGroupName, in.LogStreamName
	case *logsapi.GetLogEventsRequest:
		name, identifier, stream = in.LogGroupName, in.LogGroupIdentifier, in.LogStreamName
	case *logsapi.FilterLogEventsRequest:
		name, identifier = in.LogGroupName, in.LogGroupIdentifier
	case *logsapi.DescribeLogStreamsRequest:
		name, identifier = in.LogGroupName, in.LogGroupIdentifier
	case *logsapi.DescribeLogGroupsRequest:
		name = new("")
	default:
		return []api.Permission{{Action: "logs:" + op, Resource: "*"}}
	}
	group, err := s.groupName(call, name, identifier)
	if err != nil {
		group = "" // the operation will say what is wrong, to callers that may call it at all
	}
	resource := s.groupARN(call.AccountID, group) + ":log-stream:"
	if stream != nil {
		resource += *stream
	}
	return []api.Permission{{Action: "logs:" + op, Resource: resource}}
}
