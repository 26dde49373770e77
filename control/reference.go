package control

import (
	"context"
	"strconv"
	"strings"

	"cloister/api"
	"cloister/lambda"
)

// home is the reference of the caller's account, without a function.
func (s *Server) home(ctx context.Context) (lambda.FunctionReference, error) {
	account := api.CallOf(ctx).AccountID
	if account == "" {
		return lambda.FunctionReference{}, denied("The call has no caller.")
	}
	return lambda.FunctionReference{Region: s.region, AccountID: account}, nil
}

// reference reads the function that a request names and refuses what the caller's account and
// this region do not hold. The account of the result is always the caller's own.
func (s *Server) reference(ctx context.Context, name, qualifier *string) (lambda.FunctionReference, error) {
	home, err := s.home(ctx)
	if err != nil {
		return lambda.FunctionReference{}, err
	}
	ref, err := parseReference(value(name), value(qualifier), home)
	if err != nil {
		return lambda.FunctionReference{}, err
	}
	if ref.AccountID != home.AccountID {
		return lambda.FunctionReference{}, denied("The function belongs to another account.")
	}
	if ref.Region != s.region {
		return lambda.FunctionReference{}, unreachable(ref.Region, s.region)
	}
	return ref, nil
}

// unqualified is reference for operations on a function as a whole.
func (s *Server) unqualified(ctx context.Context, name *string) (lambda.FunctionReference, error) {
	ref, err := s.reference(ctx, name, nil)
	if err != nil {
		return ref, err
	}
	if ref.Qualifier != "" && ref.Qualifier != lambda.LatestVersion {
		return ref, invalid("This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. " +
			"Please specify either a function name or an unqualified function ARN.")
	}
	ref.Qualifier = ""
	return ref, nil
}

// whole reads the function that a request names without a qualifier.
func (s *Server) whole(ctx context.Context, name *string) (lambda.FunctionReference, *function, error) {
	ref, err := s.unqualified(ctx, name)
	if err != nil {
		return ref, nil, err
	}
	f, _, err := s.loadFunction(ctx, ref)
	return ref, f, err
}

// newReference is the name of a function to be made: unqualified.
func (s *Server) newReference(ctx context.Context, name *string) (lambda.FunctionReference, error) {
	if plain := value(name); len(plain) > maxFunctionNameLen && !strings.Contains(plain, ":") {
		return lambda.FunctionReference{}, invalid("1 validation error detected: Value '%s' at 'functionName' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d", plain, maxFunctionNameLen)
	}
	ref, err := s.reference(ctx, name, nil)
	if err != nil {
		return ref, err
	}
	if ref.Qualifier != "" {
		return ref, invalid("A function is created without a qualifier: %s", value(name))
	}
	return ref, nil
}

// parseReference reads a function name as lambda.ParseFunctionReference does, but answers as AWS
// where a plain name or a qualifier passed the wire layer and yet cannot exist: not found.
func parseReference(name, qualifier string, home lambda.FunctionReference) (lambda.FunctionReference, error) {
	impossible := strings.Contains(qualifier, "$") && qualifier != lambda.LatestVersion
	given := qualifier
	if impossible {
		given = ""
	}
	ref, err := lambda.ParseFunctionReference(name, given, home)
	if err != nil && !strings.Contains(name, ":") {
		ref, impossible = home, true
		ref.Name = name
	} else if err != nil {
		return lambda.FunctionReference{}, err
	}
	if impossible {
		ref.Qualifier = qualifier
		return lambda.FunctionReference{}, notFound(ref.QualifiedARN())
	}
	return ref, nil
}

// versionNumber reads a qualifier that names a published version.
func versionNumber(qualifier string) (int64, bool) {
	if qualifier == "" || qualifier[0] == '0' || strings.Trim(qualifier, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(qualifier, 10, 64)
	return n, err == nil
}
