package iam

import (
	"context"
	"slices"
	"strings"

	"cloister/api"
	"cloister/api/iamapi"
)

// user returns the user of that name in any case.
func (a *account) user(name *string) (*user, error) {
	if u := a.users[strings.ToLower(text(name))]; u != nil {
		return u, nil
	}
	return nil, noSuchEntity("The user with name %s cannot be found.", text(name))
}

// userOrSelf returns the user of that name, or the caller if there is no name.
func (a *account) userOrSelf(ctx context.Context, name *string) (*user, error) {
	if name != nil {
		return a.user(name)
	}
	if u := a.usersByID[api.CallOf(ctx).CallerID]; u != nil {
		return u, nil
	}
	return nil, validationError("Must specify userName when calling with non-User credentials")
}

// changeUser edits a copy of the user, of the caller if name is nil, and puts it in its place.
func (s *Server) changeUser(ctx context.Context, name *string, edit func(*account, *user) error) error {
	return changeOne(ctx, s.directory, func(a *account) (*user, error) { return a.userOrSelf(ctx, name) }, (*user).copied, edit)
}

// readUser returns the account of the call and the user, or the caller if name is nil.
func (s *Server) readUser(ctx context.Context, name *string) (*account, *user, error) {
	return readOne(ctx, s.directory, func(a *account) (*user, error) { return a.userOrSelf(ctx, name) })
}

// CreateUser makes a user without keys or policies.
func (s *Server) CreateUser(ctx context.Context, in *iamapi.CreateUserRequest) (*iamapi.CreateUserResponse, error) {
	if in.PermissionsBoundary != nil {
		return nil, notBuilt("permissions boundaries")
	}
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	u := &user{}
	if u.entity, err = s.directory.newEntity("AIDA", in.Path, text(in.UserName), tags); err != nil {
		return nil, err
	}
	err = s.directory.update(ctx, func(a *account) (change, error) {
		if a.users[strings.ToLower(u.Name)] != nil {
			return change{}, alreadyExists("User with name %s already exists.", u.Name)
		}
		if len(a.users) >= maxUsers {
			return change{}, limitExceeded("Cannot exceed quota for UsersPerAccount: %d", maxUsers)
		}
		return change{record: u}, nil
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateUserResponse{User: u.shape(true)}, nil
}

// shape returns the user as the API shows it. Listings leave out the tags.
func (u *user) shape(tags bool) *iamapi.User {
	shown := &iamapi.User{Path: &u.Path, UserName: &u.Name, UserId: &u.ID, Arn: &u.arn, CreateDate: &u.Created}
	if tags && len(u.Tags) > 0 {
		shown.Tags = showTags(u.Tags)
	}
	return shown
}

// GetUser describes a user, or the caller.
func (s *Server) GetUser(ctx context.Context, in *iamapi.GetUserRequest) (*iamapi.GetUserResponse, error) {
	_, u, err := s.readUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetUserResponse{User: u.shape(true)}, nil
}

// ListUsers lists the users below a path.
func (s *Server) ListUsers(ctx context.Context, in *iamapi.ListUsersRequest) (*iamapi.ListUsersResponse, error) {
	a, p, err := s.listing(ctx, in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListUsersResponse{}
	out.Users, out.IsTruncated, out.Marker = list(p, a.users, func(u *user) (iamapi.User, bool) {
		return *u.shape(false), strings.HasPrefix(u.Path, text(in.PathPrefix))
	})
	return out, nil
}

// DeleteUser deletes a user that has neither keys nor policies.
func (s *Server) DeleteUser(ctx context.Context, in *iamapi.DeleteUserRequest) (*api.Empty, error) {
	return &api.Empty{}, s.directory.update(ctx, func(a *account) (change, error) {
		u, err := a.user(in.UserName)
		if err != nil {
			return change{}, err
		}
		if len(u.Keys) > 0 {
			return change{}, deleteConflict("Cannot delete entity, must delete access keys first.")
		}
		return change{record: u, remove: true}, u.checkUnused()
	})
}

// CreateAccessKey makes a key of a user, or of the caller. Only its answer ever shows the secret.
func (s *Server) CreateAccessKey(ctx context.Context, in *iamapi.CreateAccessKeyRequest) (*iamapi.CreateAccessKeyResponse, error) {
	k, err := s.directory.newKey()
	if err != nil {
		return nil, err
	}
	name := ""
	err = s.changeUser(ctx, in.UserName, func(_ *account, u *user) error {
		if len(u.Keys) >= maxKeysPerUser {
			return limitExceeded("Cannot exceed quota for AccessKeysPerUser: %d", maxKeysPerUser)
		}
		u.Keys, name = append(u.Keys, k), u.Name
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateAccessKeyResponse{AccessKey: &iamapi.AccessKey{
		UserName: &name, AccessKeyId: &k.ID, SecretAccessKey: &k.Secret, Status: k.status(), CreateDate: &k.Created,
	}}, nil
}

func (k *accessKey) status() *string {
	if k.Inactive {
		return new(iamapi.StatusTypeInactive)
	}
	return new(iamapi.StatusTypeActive)
}

// keyIndex returns which of the user's keys has the id.
func (u *user) keyIndex(id *string) (int, error) {
	i := slices.IndexFunc(u.Keys, func(k accessKey) bool { return k.ID == text(id) })
	if i < 0 {
		return 0, noSuchEntity("The Access Key with id %s cannot be found.", text(id))
	}
	return i, nil
}

// UpdateAccessKey makes a key of a user, or of the caller, active or inactive.
func (s *Server) UpdateAccessKey(ctx context.Context, in *iamapi.UpdateAccessKeyRequest) (*api.Empty, error) {
	status := text(in.Status)
	if status != iamapi.StatusTypeActive && status != iamapi.StatusTypeInactive {
		return nil, notBuilt("access keys of status " + status)
	}
	return &api.Empty{}, s.changeUser(ctx, in.UserName, func(_ *account, u *user) error {
		i, err := u.keyIndex(in.AccessKeyId)
		if err != nil {
			return err
		}
		u.Keys[i].Inactive = status == iamapi.StatusTypeInactive
		return nil
	})
}

// DeleteAccessKey deletes a key of a user, or of the caller.
func (s *Server) DeleteAccessKey(ctx context.Context, in *iamapi.DeleteAccessKeyRequest) (*api.Empty, error) {
	return &api.Empty{}, s.changeUser(ctx, in.UserName, func(_ *account, u *user) error {
		i, err := u.keyIndex(in.AccessKeyId)
		if err != nil {
			return err
		}
		u.Keys = slices.Delete(u.Keys, i, i+1)
		return nil
	})
}

// ListAccessKeys lists the keys of a user, or of the caller, without their secrets.
func (s *Server) ListAccessKeys(ctx context.Context, in *iamapi.ListAccessKeysRequest) (*iamapi.ListAccessKeysResponse, error) {
	_, u, err := s.readUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListAccessKeysResponse{AccessKeyMetadata: []iamapi.AccessKeyMetadata{}, IsTruncated: new(false)}
	for _, k := range u.Keys { // two at most: never more than one page
		out.AccessKeyMetadata = append(out.AccessKeyMetadata, iamapi.AccessKeyMetadata{
			UserName: &u.Name, AccessKeyId: new(k.ID), Status: k.status(), CreateDate: new(k.Created)})
	}
	return out, nil
}
