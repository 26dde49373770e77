package control

import (
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// lastModifiedLayout is the form of LastModified, which is a string in the API.
const lastModifiedLayout = "2006-01-02T15:04:05.000+0000"

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
