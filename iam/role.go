package iam

import (
	"context"
	"maps"
	"slices"
	"strings"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/iam/policy"
)

// role returns the role of that name in any case.
func (a *account) role(name *string) (*role, error) {
	if r := a.roles[strings.ToLower(text(name))]; r != nil {
		return r, nil
	}
	return nil, noSuchEntity("The role with name %s cannot be found.", text(name))
}

// changeRole edits a copy of the role and puts it in its place.
func (s *Server) changeRole(ctx context.Context, name *string, edit func(*account, *role) error) error {
	return changeOne(ctx, s.directory, func(a *account) (*role, error) { return a.role(name) }, (*role).copied, edit)
}

// readRole returns the account of the call and the role.
func (s *Server) readRole(ctx context.Context, name *string) (*account, *role, error) {
	return readOne(ctx, s.directory, func(a *account) (*role, error) { return a.role(name) })
}

// setTrust gives the role a trust policy and notes which users and roles it names now: the
// names may be given to others later.
func (r *role) setTrust(s *state, document string) error {
	parsed, err := policy.Parse(document, policy.Trust)
	if err != nil {
		return malformed(err)
	}
	if sizeOf(document) > maxTrustBytes {
		return limitExceeded("Cannot exceed quota for ACLSizePerRole: %d", maxTrustBytes)
	}
	r.Trust, r.Trusted = document, map[string]string{}
	for _, arn := range parsed.Principals() {
		id := s.uniqueID(arn)
		if id == "" {
			return malformed(&policy.MalformedError{Message: `Invalid principal in policy: "AWS":"` + arn + `"`})
		}
		r.Trusted[arn] = id
	}
	return nil
}

// uniqueID returns the id of the user or role with that ARN, or "".
func (s *state) uniqueID(arn string) string {
	a := s.accounts[accountOf(arn)]
	if a == nil {
		return ""
	}
	if r := a.roleOf(arn); r != nil {
		return r.ID
	}
	if u := a.users[nameIn(arn)]; u != nil && u.arn == arn {
		return u.ID
	}
	return ""
}

// CreateRole makes a role.
func (s *Server) CreateRole(ctx context.Context, in *iamapi.CreateRoleRequest) (*iamapi.CreateRoleResponse, error) {
	if in.PermissionsBoundary != nil {
		return nil, notBuilt("permissions boundaries")
	}
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	r := &role{Description: text(in.Description), MaxSessionSeconds: defaultMaxSessionSeconds}
	if in.MaxSessionDuration != nil {
		r.MaxSessionSeconds = *in.MaxSessionDuration
	}
	if r.entity, err = s.directory.newEntity("AROA", in.Path, text(in.RoleName), tags); err != nil {
		return nil, err
	}
	err = s.directory.update(ctx, func(a *account) (change, error) {
		if a.roles[strings.ToLower(r.Name)] != nil {
			return change{}, alreadyExists("Role with name %s already exists.", r.Name)
		}
		if len(a.roles) >= maxRoles {
			return change{}, limitExceeded("Cannot exceed quota for RolesPerAccount: %d", maxRoles)
		}
		return change{record: r}, r.setTrust(s.directory.state.Load(), text(in.AssumeRolePolicyDocument))
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateRoleResponse{Role: r.shape(true)}, nil
}

// shape returns the role as the API shows it. Listings leave out the tags.
func (r *role) shape(tags bool) *iamapi.Role {
	shown := &iamapi.Role{
		Path: &r.Path, RoleName: &r.Name, RoleId: &r.ID, Arn: &r.arn, CreateDate: &r.Created,
		AssumeRolePolicyDocument: encoded(r.Trust), MaxSessionDuration: &r.MaxSessionSeconds,
	}
	if r.Description != "" {
		shown.Description = &r.Description
	}
	if tags && len(r.Tags) > 0 {
		shown.Tags = showTags(r.Tags)
	}
	return shown
}

// GetRole describes a role. Its last use is not recorded.
func (s *Server) GetRole(ctx context.Context, in *iamapi.GetRoleRequest) (*iamapi.GetRoleResponse, error) {
	_, r, err := s.readRole(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	shown := r.shape(true)
	shown.RoleLastUsed = &iamapi.RoleLastUsed{}
	return &iamapi.GetRoleResponse{Role: shown}, nil
}

// ListRoles lists the roles below a path.
func (s *Server) ListRoles(ctx context.Context, in *iamapi.ListRolesRequest) (*iamapi.ListRolesResponse, error) {
	a, p, err := s.listing(ctx, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListRolesResponse{}
	out.Roles, out.IsTruncated, out.Marker = list(p, a.roles, func(r *role) (iamapi.Role, bool) {
		return *r.shape(false), strings.HasPrefix(r.Path, text(in.PathPrefix))
	})
	return out, nil
}

// DeleteRole deletes a role that has no policies. Its sessions end with it.
func (s *Server) DeleteRole(ctx context.Context, in *iamapi.DeleteRoleRequest) (*api.Empty, error) {
	return &api.Empty{}, s.directory.update(ctx, func(a *account) (change, error) {
		r, err := a.role(in.RoleName)
		if err != nil {
			return change{}, err
		}
		return change{record: r, remove: true}, r.checkUnused()
	})
}

// UpdateRole changes description and longest session.
func (s *Server) UpdateRole(ctx context.Context, in *iamapi.UpdateRoleRequest) (*iamapi.UpdateRoleResponse, error) {
	return &iamapi.UpdateRoleResponse{}, s.changeRole(ctx, in.RoleName, func(_ *account, r *role) error {
		if in.Description != nil {
			r.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			r.MaxSessionSeconds = *in.MaxSessionDuration
		}
		return nil
	})
}

// UpdateAssumeRolePolicy changes the trust policy.
func (s *Server) UpdateAssumeRolePolicy(ctx context.Context, in *iamapi.UpdateAssumeRolePolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeRole(ctx, in.RoleName, func(_ *account, r *role) error {
		return r.setTrust(s.directory.state.Load(), text(in.PolicyDocument))
	})
}

// ListInstanceProfilesForRole lists none: there are no instances. Terraform asks before it
// deletes a role.
func (s *Server) ListInstanceProfilesForRole(ctx context.Context, in *iamapi.ListInstanceProfilesForRoleRequest) (*iamapi.ListInstanceProfilesForRoleResponse, error) {
	_, _, err := s.readRole(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	return &iamapi.ListInstanceProfilesForRoleResponse{InstanceProfiles: []iamapi.InstanceProfile{}, IsTruncated: new(false)}, nil
}

// TagRole adds tags or changes their values.
func (s *Server) TagRole(ctx context.Context, in *iamapi.TagRoleRequest) (*api.Empty, error) {
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	return &api.Empty{}, s.changeRole(ctx, in.RoleName, func(_ *account, r *role) error {
		r.untag(slices.Collect(maps.Keys(tags)))
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		maps.Copy(r.Tags, tags)
		return checkTags(r.Tags)
	})
}

// UntagRole removes tags.
func (s *Server) UntagRole(ctx context.Context, in *iamapi.UntagRoleRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeRole(ctx, in.RoleName, func(_ *account, r *role) error {
		r.untag(in.TagKeys)
		return nil
	})
}

// untag removes the tags of these keys in any case.
func (e *entity) untag(keys []string) {
	for _, key := range keys {
		maps.DeleteFunc(e.Tags, func(old, _ string) bool { return strings.EqualFold(old, key) })
	}
}

// ListRoleTags lists the tags of a role.
func (s *Server) ListRoleTags(ctx context.Context, in *iamapi.ListRoleTagsRequest) (*iamapi.ListRoleTagsResponse, error) {
	_, r, err := s.readRole(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	p, err := newPage(in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	tags := map[string]iamapi.Tag{}
	for _, t := range showTags(r.Tags) {
		tags[*t.Key] = t
	}
	out := &iamapi.ListRoleTagsResponse{}
	out.Tags, out.IsTruncated, out.Marker = list(p, tags, same)
	return out, nil
}
