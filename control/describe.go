package control

import (
	"context"
	"errors"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// lastModifiedLayout is the form of LastModified, which is a string in the API.
const lastModifiedLayout = "2006-01-02T15:04:05.000+0000"

// GetFunctionConfiguration describes $LATEST or the version that the qualifier names.
func (s *Server) GetFunctionConfiguration(ctx context.Context, in *lambdaapi.GetFunctionConfigurationRequest) (*lambdaapi.FunctionConfiguration, error) {
	_, configuration, err := s.describe(ctx, in.FunctionName, in.Qualifier)
	return configuration, err
}

// GetFunction is GetFunctionConfiguration with the function's tags. Code names the kind of
// repository only: a download location is not built.
func (s *Server) GetFunction(ctx context.Context, in *lambdaapi.GetFunctionRequest) (*lambdaapi.GetFunctionResponse, error) {
	f, configuration, err := s.describe(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	out := &lambdaapi.GetFunctionResponse{Configuration: configuration, Code: &lambdaapi.FunctionCodeLocation{RepositoryType: new("S3")}}
	if len(f.Tags) > 0 {
		out.Tags = f.Tags
	}
	return out, nil
}

// describe reads the function that a request names and describes what the qualifier names of it.
func (s *Server) describe(ctx context.Context, name, qualifier *string) (*function, *lambdaapi.FunctionConfiguration, error) {
	ref, err := s.reference(ctx, name, qualifier)
	if err != nil {
		return nil, nil, err
	}
	f, _, err := s.loadFunction(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	configuration, err := s.describeQualified(ctx, ref, f)
	return f, configuration, err
}

// describeQualified describes what ref's qualifier names of the function f.
func (s *Server) describeQualified(ctx context.Context, ref lambda.FunctionReference, f *function) (*lambdaapi.FunctionConfiguration, error) {
	if ref.Qualifier == "" || ref.Qualifier == lambda.LatestVersion {
		return f.describeLatest(ref), nil
	}
	number, ok := versionNumber(ref.Qualifier)
	if !ok {
		return nil, notFound(ref.QualifiedARN())
	}
	v, _, err := load[version](ctx, s.store, versionKey(ref.AccountID, f.Instance, number))
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound(ref.QualifiedARN())
	}
	if err != nil {
		return nil, err
	}
	return v.describe(ref), nil
}

// GetFunctionConcurrency answers that nothing is reserved, which is so as long as nothing can be.
func (s *Server) GetFunctionConcurrency(ctx context.Context, in *lambdaapi.GetFunctionConcurrencyRequest) (*lambdaapi.GetFunctionConcurrencyResponse, error) {
	return &lambdaapi.GetFunctionConcurrencyResponse{}, s.mustExist(ctx, in.FunctionName)
}

// GetFunctionCodeSigningConfig answers that none is attached, which is so as long as none can be.
func (s *Server) GetFunctionCodeSigningConfig(ctx context.Context, in *lambdaapi.GetFunctionCodeSigningConfigRequest) (*lambdaapi.GetFunctionCodeSigningConfigResponse, error) {
	return &lambdaapi.GetFunctionCodeSigningConfigResponse{}, s.mustExist(ctx, in.FunctionName)
}

func (s *Server) mustExist(ctx context.Context, name *string) error {
	_, _, err := s.whole(ctx, name)
	return err
}

// describeLatest is $LATEST under the ARN by which the caller named it.
func (f *function) describeLatest(ref lambda.FunctionReference) *lambdaapi.FunctionConfiguration {
	out := f.Latest.describe(ref, lambda.LatestVersion, f.RevisionID)
	out.State, out.StateReason, out.StateReasonCode = f.State.members()
	out.LastUpdateStatus, out.LastUpdateStatusReason, out.LastUpdateStatusReasonCode = f.Update.members()
	return out
}

// describe is a published version under the ARN in ref.
func (v *version) describe(ref lambda.FunctionReference) *lambdaapi.FunctionConfiguration {
	out := v.Configuration.describe(ref, v.qualifier(), v.RevisionID)
	out.State, out.StateReason, out.StateReasonCode = v.State.members()
	switch v.State.Status {
	case lambdaapi.StateActive:
		out.LastUpdateStatus = new(lambdaapi.LastUpdateStatusSuccessful)
	case lambdaapi.StateFailed:
		out.LastUpdateStatus, out.LastUpdateStatusReason, out.LastUpdateStatusReasonCode = v.State.members()
	}
	return out
}

// listed reduces a description to what the list operations of AWS return: no states.
func listed(c *lambdaapi.FunctionConfiguration) lambdaapi.FunctionConfiguration {
	c.State, c.StateReason, c.StateReasonCode = nil, nil, nil
	c.LastUpdateStatus, c.LastUpdateStatusReason, c.LastUpdateStatusReasonCode = nil, nil, nil
	c.RuntimeVersionConfig = nil
	return *c
}

func (c *configuration) describe(ref lambda.FunctionReference, version, revisionID string) *lambdaapi.FunctionConfiguration {
	is := c.Content
	out := &lambdaapi.FunctionConfiguration{
		FunctionName:     new(ref.Name),
		FunctionArn:      new(ref.QualifiedARN()),
		Version:          new(version),
		RevisionId:       new(revisionID),
		Runtime:          new(is.Runtime),
		Handler:          new(is.Handler),
		Role:             new(is.Role),
		Description:      new(is.Description),
		MemorySize:       new(is.MemoryMiB),
		Timeout:          new(is.TimeoutSeconds),
		EphemeralStorage: &lambdaapi.EphemeralStorage{Size: new(is.EphemeralMiB)},
		CodeSha256:       new(is.CodeSHA256),
		CodeSize:         new(is.CodeSize),
		LastModified:     new(c.Modified.UTC().Format(lastModifiedLayout)),
		PackageType:      new(lambdaapi.PackageTypeZip),
		Architectures:    []string{is.Architecture},
		TracingConfig:    &lambdaapi.TracingConfigResponse{Mode: new(lambdaapi.TracingModePassThrough)},
		SnapStart: &lambdaapi.SnapStartResponse{
			ApplyOn: new(lambdaapi.SnapStartApplyOnNone), OptimizationStatus: new(lambdaapi.SnapStartOptimizationStatusOff)},
		LoggingConfig: &lambdaapi.LoggingConfig{LogFormat: new(lambdaapi.LogFormatText), LogGroup: new(is.LogGroup)},
	}
	if is.RuntimeVersionARN != "" {
		out.RuntimeVersionConfig = &lambdaapi.RuntimeVersionConfig{RuntimeVersionArn: new(is.RuntimeVersionARN)}
	}
	if is.Variables != nil {
		out.Environment = &lambdaapi.EnvironmentResponse{Variables: is.Variables}
	}
	return out
}

// members returns status, reason and reason code, absent where empty.
func (s state) members() (status, reason, code *string) {
	present := func(v string) *string {
		if v == "" {
			return nil
		}
		return new(v)
	}
	return present(s.Status), present(s.Reason), present(s.Code)
}
