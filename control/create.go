package control

import (
	"context"
	"errors"
	"maps"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// CreateFunction checks everything about a new function, stores its code, and commits it as
// Pending; with Publish, together with its version 1. Run makes it Active.
func (s *Server) CreateFunction(ctx context.Context, in *lambdaapi.CreateFunctionRequest) (*lambdaapi.FunctionConfiguration, error) {
	ref, err := s.newReference(ctx, in.FunctionName)
	if err != nil {
		return nil, err
	}
	is, err := s.initialContent(ctx, ref, in)
	if err != nil {
		return nil, err
	}
	switch _, _, err := s.loadFunction(ctx, ref); {
	case err == nil:
		return nil, alreadyExists(ref)
	case !isNotFound(err):
		return nil, err
	}
	ctx, end := context.WithCancel(ctx) // until then the package is kept, though nothing names it yet
	defer end()
	is.Code, is.CodeSHA256, is.CodeSize, err = s.artifacts.PutZip(ctx, ref.AccountID, in.Code.ZipFile)
	if err != nil {
		return nil, err
	}
	f := &function{
		Name:   ref.Name,
		Latest: configuration{Sequence: 1, Modified: s.now(), Content: is},
		State:  pending(),
		Tags:   maps.Clone(in.Tags),
	}
	if f.Instance, err = s.uuid(); err != nil {
		return nil, err
	}
	return s.commitNew(ctx, ref, f, value(in.Publish))
}

// commitNew writes the function, the order to prepare it and perhaps its first version at once.
func (s *Server) commitNew(ctx context.Context, ref lambda.FunctionReference, f *function, publish bool) (*lambdaapi.FunctionConfiguration, error) {
	var out *lambdaapi.FunctionConfiguration
	var changes []store.Change
	var versions []int64
	if publish {
		v, err := s.nextVersion(f, pending())
		if err != nil {
			return nil, err
		}
		out, versions = v.describe(ref), []int64{v.Number}
		changes = append(changes, write(versionKey(ref.AccountID, f.Instance, v.Number), 0, v))
	}
	if err := s.revise(f); err != nil {
		return nil, err
	}
	changes = append(changes, s.orderPreparation(ref, f, versions...), write(functionKey(ref), 0, f))
	err := s.commit(ctx, ref, changes...)
	if errors.Is(err, store.ErrConflict) {
		return nil, alreadyExists(ref)
	}
	if err != nil {
		return nil, err
	}
	s.work.notify()
	if out == nil {
		out = f.describeLatest(ref)
	}
	return out, nil
}

// initialContent is the content of a new function but for its code. Everything that can be
// wrong with the request, or forbidden, is found here, before anything is stored.
func (s *Server) initialContent(ctx context.Context, ref lambda.FunctionReference, in *lambdaapi.CreateFunctionRequest) (content, error) {
	if err := refuseUnbuilt("CreateFunction", in, builtInCreate); err != nil {
		return content{}, err
	}
	is := content{
		Runtime: value(in.Runtime), Handler: value(in.Handler), Role: value(in.Role), Description: value(in.Description),
		Architecture: s.architecture, LogGroup: "/aws/lambda/" + ref.Name,
		MemoryMiB: 128, TimeoutSeconds: 3, EphemeralMiB: 512,
	}
	is.set(settings{memory: in.MemorySize, timeout: in.Timeout, storage: in.EphemeralStorage, environment: in.Environment, logging: in.LoggingConfig})
	if len(in.Architectures) > 0 {
		is.Architecture = in.Architectures[0]
	}
	if err := s.check(is); err != nil {
		return content{}, err
	}
	if err := checkTags(in.Tags); err != nil {
		return content{}, err
	}
	if in.Code == nil || in.Code.ZipFile == nil {
		return content{}, errNoCode()
	}
	if err := s.checkRole(ctx, is.Role); err != nil {
		return content{}, err
	}
	var err error
	is.RuntimeVersionARN, err = s.runtimes.Check(ctx, is.Runtime)
	return is, err
}

// checkRole lets iam decide whether the caller may give the role to a function and whether
// Lambda may assume it.
func (s *Server) checkRole(ctx context.Context, role string) error {
	call := api.CallOf(ctx)
	if err := s.roles.PassRole(ctx, call, role); err != nil {
		return err
	}
	return s.roles.CheckExecutionRole(ctx, call.AccountID, role)
}

// settings are the members that creation and update of a configuration share. Nil leaves alone.
type settings struct {
	memory, timeout *int32
	storage         *lambdaapi.EphemeralStorage
	environment     *lambdaapi.Environment
	logging         *lambdaapi.LoggingConfig
}

func (c *content) set(given settings) {
	if given.memory != nil {
		c.MemoryMiB = *given.memory
	}
	if given.timeout != nil {
		c.TimeoutSeconds = *given.timeout
	}
	if given.storage != nil && given.storage.Size != nil {
		c.EphemeralMiB = *given.storage.Size
	}
	if given.environment != nil {
		c.Variables = map[string]string{} // AWS keeps an empty Environment apart from none
		maps.Copy(c.Variables, given.environment.Variables)
	}
	if given.logging != nil && given.logging.LogGroup != nil {
		c.LogGroup = *given.logging.LogGroup
	}
}
