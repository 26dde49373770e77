package control

import (
	"context"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// UpdateFunctionCode gives $LATEST other code or another architecture, and with Publish a
// version of it. Invocations use the old code until the new one is prepared. A dry run stores the
// package, which is how it is checked, and changes no function.
func (s *Server) UpdateFunctionCode(ctx context.Context, in *lambdaapi.UpdateFunctionCodeRequest) (*lambdaapi.FunctionConfiguration, error) {
	ref, err := s.unqualified(ctx, in.FunctionName)
	if err != nil {
		return nil, err
	}
	if err := refuseUnbuilt("UpdateFunctionCode", in, builtInUpdateCode); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx) // until then the package is kept, though nothing names it yet
	defer end()
	var code *uploaded
	var out *lambdaapi.FunctionConfiguration
	err = s.change(ctx, ref, func(f *function) ([]store.Change, error) {
		if err := f.mayUpdate(ref, in.RevisionId); err != nil {
			return nil, err
		}
		if code == nil {
			if code, err = s.upload(ctx, ref, in); err != nil {
				return nil, err
			}
		}
		is := f.Latest.Content
		is.Code, is.CodeSHA256, is.CodeSize = code.artifact, code.sha256, code.size
		if len(in.Architectures) > 0 {
			is.Architecture = in.Architectures[0]
		}
		if err := s.check(is); err != nil {
			return nil, err
		}
		if value(in.DryRun) {
			f.Latest.Content = is
			out = f.describeLatest(ref)
			return nil, errUnchanged
		}
		changes, v, err := s.update(ctx, ref, f, is, value(in.Publish))
		if out = f.describeLatest(ref); v != nil {
			out = v.describe(v.reference(ref))
		}
		return changes, err
	})
	if err != nil {
		return nil, err
	}
	s.work.notify()
	return out, nil
}

// uploaded is a package in the artifact store.
type uploaded struct {
	artifact lambda.Artifact
	sha256   string
	size     int64
}

func (s *Server) upload(ctx context.Context, ref lambda.FunctionReference, in *lambdaapi.UpdateFunctionCodeRequest) (*uploaded, error) {
	if in.ImageUri != nil {
		return nil, invalid("Please don't provide ImageUri when updating a function with packageType Zip.")
	}
	if in.ZipFile == nil {
		return nil, errNoCode()
	}
	artifact, sha256, size, err := s.artifacts.PutZip(ctx, ref.AccountID, in.ZipFile)
	if err != nil {
		return nil, err
	}
	return &uploaded{artifact, sha256, size}, nil
}

// UpdateFunctionConfiguration changes the settings of $LATEST that the request names.
func (s *Server) UpdateFunctionConfiguration(ctx context.Context, in *lambdaapi.UpdateFunctionConfigurationRequest) (*lambdaapi.FunctionConfiguration, error) {
	ref, err := s.unqualified(ctx, in.FunctionName)
	if err != nil {
		return nil, err
	}
	if err := refuseUnbuilt("UpdateFunctionConfiguration", in, builtInUpdateConfiguration); err != nil {
		return nil, err
	}
	var out *lambdaapi.FunctionConfiguration
	err = s.change(ctx, ref, func(f *function) ([]store.Change, error) {
		if err := f.mayUpdate(ref, in.RevisionId); err != nil {
			return nil, err
		}
		is, err := s.changedContent(ctx, f.Latest.Content, in)
		if err != nil {
			return nil, err
		}
		changes, _, err := s.update(ctx, ref, f, is, false)
		out = f.describeLatest(ref)
		return changes, err
	})
	if err != nil {
		return nil, err
	}
	s.work.notify()
	return out, nil
}

// changedContent is the content is with the members of the request in place of its own.
func (s *Server) changedContent(ctx context.Context, is content, in *lambdaapi.UpdateFunctionConfigurationRequest) (content, error) {
	was := is
	replace(&is.Runtime, in.Runtime)
	replace(&is.Handler, in.Handler)
	replace(&is.Role, in.Role)
	replace(&is.Description, in.Description)
	is.set(settings{memory: in.MemorySize, timeout: in.Timeout, storage: in.EphemeralStorage, environment: in.Environment, logging: in.LoggingConfig})
	if err := s.check(is); err != nil {
		return content{}, err
	}
	if is.Role != was.Role {
		if err := s.checkRole(ctx, is.Role); err != nil {
			return content{}, err
		}
	}
	if is.Runtime != was.Runtime {
		var err error
		if is.RuntimeVersionARN, err = s.runtimes.Check(ctx, is.Runtime); err != nil {
			return content{}, err
		}
	}
	return is, nil
}

// replace sets *member to what the request gives, if it gives something.
func replace[T any](member, given *T) {
	if given != nil {
		*member = *given
	}
}

// mayUpdate refuses a change while another one is under way, or if the caller saw another revision.
func (f *function) mayUpdate(ref lambda.FunctionReference, revisionID *string) error {
	switch {
	case revisionID != nil && *revisionID != f.RevisionID:
		return &lambdaapi.PreconditionFailedException{Type: new("User"), Message: new("The Revision Id provided does not match the latest Revision Id. " +
			"Call the GetFunction/GetAlias API to retrieve the latest Revision Id")}
	case f.State.Status == lambdaapi.StatePending:
		return conflict("%s", inState(f.State.Status))
	case f.Update.Status == lambdaapi.LastUpdateStatusInProgress:
		return updateInProgress(ref)
	}
	return nil
}

// update makes is the content of $LATEST, in preparation, and with publish a version of it, which
// is nil without. A version that holds the same already is returned instead of a new one.
func (s *Server) update(ctx context.Context, ref lambda.FunctionReference, f *function, is content, publish bool) (changes []store.Change, v *version, err error) {
	if f.State.Status == lambdaapi.StateFailed { // it never ran: there is nothing to run meanwhile
		f.State, f.Update = pending(), state{}
	} else {
		f.Serving = new(*f.serving())
		f.Update = inProgress()
	}
	f.Latest = configuration{Sequence: f.Latest.Sequence + 1, Modified: s.now(), Content: is}
	if err := s.revise(f); err != nil {
		return nil, nil, err
	}
	if !publish {
		return []store.Change{s.orderPreparation(ref, f)}, nil, nil
	}
	if v, err = s.newestVersion(ctx, ref, f); err != nil {
		return nil, nil, err
	}
	if v != nil {
		return []store.Change{s.orderPreparation(ref, f)}, v, nil
	}
	if v, err = s.nextVersion(f, pending()); err != nil {
		return nil, nil, err
	}
	return []store.Change{write(versionKey(ref.AccountID, f.Instance, v.Number), 0, v), s.orderPreparation(ref, f, v.Number)}, v, nil
}
