package control

import (
	"context"
	"errors"
	"strconv"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// PublishVersion freezes $LATEST under the next number. If neither code nor configuration
// changed since the newest version, that version is the answer.
func (s *Server) PublishVersion(ctx context.Context, in *lambdaapi.PublishVersionRequest) (*lambdaapi.FunctionConfiguration, error) {
	ref, err := s.unqualified(ctx, in.FunctionName)
	if err != nil {
		return nil, err
	}
	if err := refuseUnbuilt("PublishVersion", in, builtInPublish); err != nil {
		return nil, err
	}
	var v *version
	err = s.change(ctx, ref, func(f *function) ([]store.Change, error) {
		if err := f.mayPublish(ref, in); err != nil {
			return nil, err
		}
		var err error
		if v, err = s.newestVersion(ctx, ref, f); err != nil {
			return nil, err
		}
		if v != nil {
			return nil, errUnchanged
		}
		// The runtime is prepared and $LATEST runs on it, so the version is active at once.
		if v, err = s.nextVersion(f, active()); err != nil {
			return nil, err
		}
		if in.Description != nil {
			v.Configuration.Content.Description = *in.Description
		}
		return []store.Change{write(versionKey(ref.AccountID, f.Instance, v.Number), 0, v)}, s.revise(f)
	})
	if err != nil {
		return nil, err
	}
	return v.describe(v.reference(ref)), nil
}

// mayPublish refuses to publish what the caller did not mean, or what does not run.
func (f *function) mayPublish(ref lambda.FunctionReference, in *lambdaapi.PublishVersionRequest) error {
	if err := f.mayUpdate(ref, in.RevisionId); err != nil {
		return err
	}
	if given, current := value(in.CodeSha256), f.Latest.Content.CodeSHA256; given != "" && given != current {
		return invalid("CodeSHA256 (%s) is different from current CodeSHA256 in $LATEST (%s). Please try again with the CodeSHA256 in $LATEST.", given, current)
	}
	if f.State.Status != lambdaapi.StateActive {
		return conflict("%s", inState(f.State.Status))
	}
	if f.Update.Status == lambdaapi.LastUpdateStatusFailed {
		return conflict("The operation cannot be performed at this time. The last update failed for resource: %s", ref.ARN())
	}
	return nil
}

// newestVersion is the version last published if $LATEST still has its content, else nil.
func (s *Server) newestVersion(ctx context.Context, ref lambda.FunctionReference, f *function) (*version, error) {
	if f.Published.Number == 0 || f.Published.Digest != f.Latest.Content.digest() {
		return nil, nil
	}
	v, _, err := load[version](ctx, s.store, versionKey(ref.AccountID, f.Instance, f.Published.Number))
	if errors.Is(err, store.ErrNotFound) || err == nil && v.State.Status == lambdaapi.StateFailed { // deleted since, or of no use
		return nil, nil
	}
	return v, err
}

// nextVersion takes the next number of f for a version of $LATEST. The caller commits both.
func (s *Server) nextVersion(f *function, in state) (*version, error) {
	revision, err := s.uuid()
	if err != nil {
		return nil, err
	}
	f.LastVersion++
	f.Published = published{Number: f.LastVersion, Digest: f.Latest.Content.digest()}
	return &version{Number: f.LastVersion, Instance: f.Instance, RevisionID: revision, Configuration: f.Latest, State: in}, nil
}

func (v *version) qualifier() string { return strconv.FormatInt(v.Number, 10) }

// reference names the version of the function in ref.
func (v *version) reference(ref lambda.FunctionReference) lambda.FunctionReference {
	ref.Qualifier = v.qualifier()
	return ref
}
