package iam

import (
	"context"
	"slices"
	"strings"

	"cloister/api"
	"cloister/api/iamapi"
)

// Policies of users and of roles are the same but for names and quotas, so each operation here is
// one method of entity and two of Server.

func (e *entity) putInline(kind string, name, document *string, quota int) error {
	if e.Inline == nil {
		e.Inline = map[string]string{}
	}
	e.Inline[text(name)] = text(document)
	size := 0
	for _, d := range e.Inline {
		size += sizeOf(d)
	}
	if size > quota {
		return limitExceeded("Maximum policy size of %d bytes exceeded for %s %s", quota, kind, e.Name)
	}
	return nil
}

func (e *entity) inlineDocument(kind string, name *string) (string, error) {
	document, ok := e.Inline[text(name)]
	if !ok {
		return "", noSuchEntity("The %s policy with name %s cannot be found.", kind, text(name))
	}
	return document, nil
}

func (e *entity) deleteInline(kind string, name *string) error {
	_, err := e.inlineDocument(kind, name)
	delete(e.Inline, text(name))
	return err
}

// inlineNames lists the names of the inline policies.
func (e *entity) inlineNames(marker *string, maxItems *int32) (names []string, truncated *bool, next *string, err error) {
	p, err := newPage(marker, maxItems)
	if err != nil {
		return nil, nil, nil, err
	}
	all := make([]string, 0, len(e.Inline))
	for name := range e.Inline {
		all = append(all, name)
	}
	names, truncated, next = list(p, set(all), same)
	return names, truncated, next, nil
}

func (d *Directory) attach(a *account, e *entity, quota string, arn *string) error {
	if err := checkPolicyARN(arn); err != nil {
		return err
	}
	if d.policy(a, *arn) == nil {
		return noSuchEntity("Policy %s does not exist or is not attachable.", *arn)
	}
	if slices.Contains(e.Attached, *arn) {
		return nil
	}
	if len(e.Attached) >= maxAttached {
		return limitExceeded("Cannot exceed quota for %s: %d", quota, maxAttached)
	}
	e.Attached = append(e.Attached, *arn)
	return nil
}

func (e *entity) detach(arn *string) error {
	if err := checkPolicyARN(arn); err != nil {
		return err
	}
	i := slices.Index(e.Attached, *arn)
	if i < 0 {
		return noSuchEntity("Policy %s was not found.", *arn)
	}
	e.Attached = slices.Delete(e.Attached, i, i+1)
	return nil
}

// attached lists the managed policies of the entity below a path.
func (d *Directory) attached(a *account, e *entity, prefix, marker *string, maxItems *int32) (shown []iamapi.AttachedPolicy, truncated *bool, next *string, err error) {
	p, err := newPage(marker, maxItems)
	if err != nil {
		return nil, nil, nil, err
	}
	shown, truncated, next = list(p, set(e.Attached), func(arn string) (iamapi.AttachedPolicy, bool) {
		m := d.policy(a, arn)
		if m == nil || !strings.HasPrefix(m.Path, text(prefix)) {
			return iamapi.AttachedPolicy{}, false
		}
		return iamapi.AttachedPolicy{PolicyName: &m.Name, PolicyArn: &arn}, true
	})
	return shown, truncated, next, nil
}

// checkUnused refuses to delete what still has policies.
func (e *entity) checkUnused() error {
	if len(e.Attached) > 0 {
		return deleteConflict("Cannot delete entity, must detach all policies first.")
	}
	if len(e.Inline) > 0 {
		return deleteConflict("Cannot delete entity, must delete policies first.")
	}
	return nil
}

// PutRolePolicy writes an inline policy of a role.
func (s *Server) PutRolePolicy(ctx context.Context, in *iamapi.PutRolePolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeRole(ctx, in.RoleName, func(_ *account, r *role) error {
		return r.putInline("role", in.PolicyName, in.PolicyDocument, maxInlineBytesOfRole)
	})
}

// GetRolePolicy returns an inline policy of a role.
func (s *Server) GetRolePolicy(ctx context.Context, in *iamapi.GetRolePolicyRequest) (*iamapi.GetRolePolicyResponse, error) {
	_, r, err := s.readRole(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	document, err := r.inlineDocument("role", in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetRolePolicyResponse{RoleName: &r.Name, PolicyName: in.PolicyName, PolicyDocument: encoded(document)}, nil
}

// DeleteRolePolicy deletes an inline policy of a role.
func (s *Server) DeleteRolePolicy(ctx context.Context, in *iamapi.DeleteRolePolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeRole(ctx, in.RoleName, func(_ *account, r *role) error {
		return r.deleteInline("role", in.PolicyName)
	})
}

// ListRolePolicies lists the inline policies of a role.
func (s *Server) ListRolePolicies(ctx context.Context, in *iamapi.ListRolePoliciesRequest) (*iamapi.ListRolePoliciesResponse, error) {
	_, r, err := s.readRole(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListRolePoliciesResponse{}
	out.PolicyNames, out.IsTruncated, out.Marker, err = r.inlineNames(in.Marker, in.MaxItems)
	return out, err
}

// AttachRolePolicy attaches a managed policy to a role.
func (s *Server) AttachRolePolicy(ctx context.Context, in *iamapi.AttachRolePolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeRole(ctx, in.RoleName, func(a *account, r *role) error {
		return s.directory.attach(a, &r.entity, "PoliciesPerRole", in.PolicyArn)
	})
}

// DetachRolePolicy detaches a managed policy from a role.
func (s *Server) DetachRolePolicy(ctx context.Context, in *iamapi.DetachRolePolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeRole(ctx, in.RoleName, func(_ *account, r *role) error { return r.detach(in.PolicyArn) })
}

// ListAttachedRolePolicies lists the managed policies of a role.
func (s *Server) ListAttachedRolePolicies(ctx context.Context, in *iamapi.ListAttachedRolePoliciesRequest) (*iamapi.ListAttachedRolePoliciesResponse, error) {
	a, r, err := s.readRole(ctx, in.RoleName)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListAttachedRolePoliciesResponse{}
	out.AttachedPolicies, out.IsTruncated, out.Marker, err = s.directory.attached(a, &r.entity, in.PathPrefix, in.Marker, in.MaxItems)
	return out, err
}

// PutUserPolicy writes an inline policy of a user.
func (s *Server) PutUserPolicy(ctx context.Context, in *iamapi.PutUserPolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeUser(ctx, in.UserName, func(_ *account, u *user) error {
		return u.putInline("user", in.PolicyName, in.PolicyDocument, maxInlineBytesOfUser)
	})
}

// GetUserPolicy returns an inline policy of a user.
func (s *Server) GetUserPolicy(ctx context.Context, in *iamapi.GetUserPolicyRequest) (*iamapi.GetUserPolicyResponse, error) {
	_, u, err := s.readUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	document, err := u.inlineDocument("user", in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetUserPolicyResponse{UserName: &u.Name, PolicyName: in.PolicyName, PolicyDocument: encoded(document)}, nil
}

// DeleteUserPolicy deletes an inline policy of a user.
func (s *Server) DeleteUserPolicy(ctx context.Context, in *iamapi.DeleteUserPolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeUser(ctx, in.UserName, func(_ *account, u *user) error {
		return u.deleteInline("user", in.PolicyName)
	})
}

// ListUserPolicies lists the inline policies of a user.
func (s *Server) ListUserPolicies(ctx context.Context, in *iamapi.ListUserPoliciesRequest) (*iamapi.ListUserPoliciesResponse, error) {
	_, u, err := s.readUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListUserPoliciesResponse{}
	out.PolicyNames, out.IsTruncated, out.Marker, err = u.inlineNames(in.Marker, in.MaxItems)
	return out, err
}

// AttachUserPolicy attaches a managed policy to a user.
func (s *Server) AttachUserPolicy(ctx context.Context, in *iamapi.AttachUserPolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeUser(ctx, in.UserName, func(a *account, u *user) error {
		return s.directory.attach(a, &u.entity, "PoliciesPerUser", in.PolicyArn)
	})
}

// DetachUserPolicy detaches a managed policy from a user.
func (s *Server) DetachUserPolicy(ctx context.Context, in *iamapi.DetachUserPolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeUser(ctx, in.UserName, func(_ *account, u *user) error { return u.detach(in.PolicyArn) })
}

// ListAttachedUserPolicies lists the managed policies of a user.
func (s *Server) ListAttachedUserPolicies(ctx context.Context, in *iamapi.ListAttachedUserPoliciesRequest) (*iamapi.ListAttachedUserPoliciesResponse, error) {
	a, u, err := s.readUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListAttachedUserPoliciesResponse{}
	out.AttachedPolicies, out.IsTruncated, out.Marker, err = s.directory.attached(a, &u.entity, in.PathPrefix, in.Marker, in.MaxItems)
	return out, err
}
