// Package sts answers the STS API on top of an iam.Directory: who am I, and temporary
// credentials of roles.
//
// It keeps nothing: sessions live in their tokens, which package iam seals and opens. Package gateway
// calls it after it has asked iam.Directory.Authorize; AssumeRole is decided once more
// by the directory itself, on the state that the credentials are made from.
//
// Invariant: whatever of a request is not understood (session policies, tags, MFA) is refused,
// never left out, because it would have made the session narrower.
//
// An attacker chooses every member of the request within the bounds of package api.
package sts

import (
	"context"
	"net/http"
	"time"

	"cloister/api"
	"cloister/api/stsapi"
	"cloister/iam"
)

// Server implements the operations that are built; stsapi.Unimplemented refuses the others.
type Server struct {
	stsapi.Unimplemented
	directory *iam.Directory
}

var _ stsapi.Server = (*Server)(nil)

// New returns the STS API of a directory.
func New(d *iam.Directory) *Server { return &Server{directory: d} }

// API returns the generated service.
func (s *Server) API() *api.Service { return stsapi.Service }

// Server returns s itself.
func (s *Server) Server() any { return s }

// Permissions returns what the caller must be allowed to do: nothing for GetCallerIdentity, as
// on AWS.
func (s *Server) Permissions(operation string, in any, _ *api.Call) []api.Permission {
	switch request := in.(type) {
	case *stsapi.GetCallerIdentityRequest:
		return nil
	case *stsapi.AssumeRoleRequest:
		return []api.Permission{assume(request)}
	}
	return []api.Permission{{Action: "sts:" + operation, Resource: "*"}}
}

// assume is the question whether the caller may assume the role, with the condition keys of the request.
func assume(in *stsapi.AssumeRoleRequest) api.Permission {
	keys := map[string][]string{"sts:RoleSessionName": {text(in.RoleSessionName)}}
	if in.ExternalId != nil {
		keys["sts:ExternalId"] = []string{*in.ExternalId}
	}
	return api.Permission{Action: "sts:AssumeRole", Resource: text(in.RoleArn), Context: keys}
}

// GetCallerIdentity says who the caller is.
func (s *Server) GetCallerIdentity(ctx context.Context, _ *stsapi.GetCallerIdentityRequest) (*stsapi.GetCallerIdentityResponse, error) {
	call := api.CallOf(ctx)
	return &stsapi.GetCallerIdentityResponse{UserId: &call.CallerID, Account: &call.AccountID, Arn: &call.CallerARN}, nil
}

// defaultDuration is how long a session lasts if the caller does not say.
const defaultDuration = time.Hour

// AssumeRole makes temporary credentials of a role.
func (s *Server) AssumeRole(ctx context.Context, in *stsapi.AssumeRoleRequest) (*stsapi.AssumeRoleResponse, error) {
	if missing := notBuilt(in); missing != "" {
		return nil, &api.Error{Code: "NotImplementedException", Status: http.StatusNotImplemented,
			Message: "Cloister does not implement " + missing + " of sts:AssumeRole yet; docs/STATUS.md lists what works"}
	}
	life := defaultDuration
	if in.DurationSeconds != nil {
		life = time.Duration(*in.DurationSeconds) * time.Second
	}
	a, err := s.directory.AssumeRole(ctx, api.CallOf(ctx), assume(in), text(in.RoleSessionName), life)
	if err != nil {
		return nil, err
	}
	return &stsapi.AssumeRoleResponse{
		Credentials: &stsapi.Credentials{AccessKeyId: &a.AccessKeyID, SecretAccessKey: &a.SecretAccessKey,
			SessionToken: &a.SessionToken, Expiration: &a.Expiration},
		AssumedRoleUser: &stsapi.AssumedRoleUser{AssumedRoleId: &a.UserID, Arn: &a.ARN},
	}, nil
}

// notBuilt names the first member of a request that would be without effect.
func notBuilt(in *stsapi.AssumeRoleRequest) string {
	switch {
	case in.Policy != nil, len(in.PolicyArns) > 0:
		return "session policies"
	case len(in.Tags) > 0, len(in.TransitiveTagKeys) > 0:
		return "session tags"
	case in.SerialNumber != nil, in.TokenCode != nil:
		return "multi-factor authentication"
	case in.SourceIdentity != nil:
		return "SourceIdentity"
	case len(in.ProvidedContexts) > 0:
		return "ProvidedContexts"
	case in.MinimumSessionTokenSize != nil:
		return "MinimumSessionTokenSize"
	}
	return ""
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
