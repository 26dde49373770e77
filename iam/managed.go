package iam

import (
	"context"
	"maps"
	"slices"
	"strings"

	"cloister/api"
	"cloister/api/iamapi"
)

const firstVersion = "v1"

// checkPolicyARN refuses what cannot be the ARN of a managed policy.
func checkPolicyARN(arn *string) error {
	if rest, ok := strings.CutPrefix(text(arn), "arn:aws:iam::"); ok {
		if _, resource, ok := strings.Cut(rest, ":"); ok && strings.HasPrefix(resource, "policy/") {
			return nil
		}
	}
	return invalidInput("ARN %s is not valid.", text(arn))
}

// readPolicy returns the account of the call and a managed policy, of it or of AWS.
func (s *Server) readPolicy(ctx context.Context, arn *string) (*account, *managedPolicy, error) {
	a, err := s.directory.view(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := checkPolicyARN(arn); err != nil {
		return nil, nil, err
	}
	p := s.directory.policy(a, *arn)
	if p == nil {
		return nil, nil, noSuchEntity("Policy %s was not found.", *arn)
	}
	return a, p, nil
}

// attachments counts the users and roles that a policy is attached to.
func (a *account) attachments(arn string) int32 {
	n := int32(0)
	for _, u := range a.users {
		if slices.Contains(u.Attached, arn) {
			n++
		}
	}
	for _, r := range a.roles {
		if slices.Contains(r.Attached, arn) {
			n++
		}
	}
	return n
}

// shape returns the policy as the API shows it. Listings leave out description and tags.
func (p *managedPolicy) shape(a *account, arn string, whole bool) *iamapi.Policy {
	shown := &iamapi.Policy{
		PolicyName: &p.Name, PolicyId: &p.ID, Arn: &arn, Path: &p.Path, DefaultVersionId: new(firstVersion),
		AttachmentCount: new(a.attachments(arn)), PermissionsBoundaryUsageCount: new(int32(0)), IsAttachable: new(true),
		CreateDate: &p.Created, UpdateDate: &p.Created,
	}
	if whole && p.Description != "" {
		shown.Description = &p.Description
	}
	if whole && len(p.Tags) > 0 {
		shown.Tags = showTags(p.Tags)
	}
	return shown
}

// CreatePolicy makes a managed policy of the account. It has one version for good.
func (s *Server) CreatePolicy(ctx context.Context, in *iamapi.CreatePolicyRequest) (*iamapi.CreatePolicyResponse, error) {
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	id, err := s.directory.newID("ANPA", 17)
	if err != nil {
		return nil, err
	}
	p := &managedPolicy{Name: text(in.PolicyName), Path: pathOr(in.Path), ID: id, Description: text(in.Description),
		Document: text(in.PolicyDocument), Created: s.directory.today(), Tags: tags}
	out := &iamapi.CreatePolicyResponse{}
	return out, s.directory.update(ctx, func(a *account) (change, error) {
		for _, other := range a.policies { // the name is unique whatever the path
			if strings.EqualFold(other.Name, p.Name) {
				return change{}, alreadyExists("A policy called %s already exists. Duplicate names are not allowed.", p.Name)
			}
		}
		if len(a.policies) >= maxPolicies {
			return change{}, limitExceeded("Cannot exceed quota for PoliciesPerAccount: %d", maxPolicies)
		}
		if sizeOf(p.Document) > maxManagedPolicyBytes {
			return change{}, limitExceeded("Cannot exceed quota for PolicySize: %d", maxManagedPolicyBytes)
		}
		out.Policy = p.shape(a, p.arn(a.id), true)
		return change{record: p}, nil
	})
}

// GetPolicy describes a managed policy.
func (s *Server) GetPolicy(ctx context.Context, in *iamapi.GetPolicyRequest) (*iamapi.GetPolicyResponse, error) {
	a, p, err := s.readPolicy(ctx, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetPolicyResponse{Policy: p.shape(a, *in.PolicyArn, true)}, nil
}

func (p *managedPolicy) version(document bool) iamapi.PolicyVersion {
	v := iamapi.PolicyVersion{VersionId: new(firstVersion), IsDefaultVersion: new(true), CreateDate: &p.Created}
	if document {
		v.Document = encoded(p.Document)
	}
	return v
}

// GetPolicyVersion returns the document of a managed policy.
func (s *Server) GetPolicyVersion(ctx context.Context, in *iamapi.GetPolicyVersionRequest) (*iamapi.GetPolicyVersionResponse, error) {
	_, p, err := s.readPolicy(ctx, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	if text(in.VersionId) != firstVersion {
		return nil, noSuchEntity("Policy %s version %s does not exist or is not attachable.", *in.PolicyArn, text(in.VersionId))
	}
	return &iamapi.GetPolicyVersionResponse{PolicyVersion: new(p.version(true))}, nil
}

// ListPolicyVersions lists the one version of a managed policy.
func (s *Server) ListPolicyVersions(ctx context.Context, in *iamapi.ListPolicyVersionsRequest) (*iamapi.ListPolicyVersionsResponse, error) {
	_, p, err := s.readPolicy(ctx, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	return &iamapi.ListPolicyVersionsResponse{Versions: []iamapi.PolicyVersion{p.version(false)}, IsTruncated: new(false)}, nil
}

// ListPolicies lists the managed policies of the account, of AWS, or both.
func (s *Server) ListPolicies(ctx context.Context, in *iamapi.ListPoliciesRequest) (*iamapi.ListPoliciesResponse, error) {
	a, p, err := s.listing(ctx, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	if text(in.PolicyUsageFilter) == iamapi.PolicyUsageTypePermissionsBoundary {
		return nil, notBuilt("permissions boundaries")
	}
	arns := map[string]string{}
	if text(in.Scope) != iamapi.PolicyScopeTypeAws {
		maps.Copy(arns, set(slices.Collect(maps.Keys(a.policies))))
	}
	if text(in.Scope) != iamapi.PolicyScopeTypeLocal {
		maps.Copy(arns, set(slices.Collect(maps.Keys(s.directory.managed))))
	}
	out := &iamapi.ListPoliciesResponse{}
	out.Policies, out.IsTruncated, out.Marker = list(p, arns, func(arn string) (iamapi.Policy, bool) {
		m := s.directory.policy(a, arn)
		shown := m.shape(a, arn, false)
		wanted := strings.HasPrefix(m.Path, text(in.PathPrefix)) && (in.OnlyAttached == nil || !*in.OnlyAttached || *shown.AttachmentCount > 0)
		return *shown, wanted
	})
	return out, nil
}

// DeletePolicy deletes a managed policy of the account that is attached to nothing.
func (s *Server) DeletePolicy(ctx context.Context, in *iamapi.DeletePolicyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.directory.update(ctx, func(a *account) (change, error) {
		if err := checkPolicyARN(in.PolicyArn); err != nil {
			return change{}, err
		}
		p := a.policies[*in.PolicyArn]
		if p == nil {
			return change{}, noSuchEntity("Policy %s was not found.", *in.PolicyArn)
		}
		if a.attachments(*in.PolicyArn) > 0 {
			return change{}, deleteConflict("Cannot delete a policy attached to entities.")
		}
		return change{record: p, remove: true}, nil
	})
}
