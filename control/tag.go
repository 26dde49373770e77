package control

import (
	"context"
	"maps"
	"strings"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// ListTags returns a function's tags.
func (s *Server) ListTags(ctx context.Context, in *lambdaapi.ListTagsRequest) (*lambdaapi.ListTagsResponse, error) {
	ref, err := s.tagged(ctx, in.Resource)
	if err != nil {
		return nil, err
	}
	f, _, err := s.loadFunction(ctx, ref)
	if err != nil {
		return nil, err
	}
	if f.Tags == nil {
		f.Tags = map[string]string{} // AWS answers an empty map, not none
	}
	return &lambdaapi.ListTagsResponse{Tags: f.Tags}, nil
}

// TagResource adds tags to a function, or overwrites them.
func (s *Server) TagResource(ctx context.Context, in *lambdaapi.TagResourceRequest) (*api.Empty, error) {
	if len(in.Tags) == 0 {
		return nil, invalid("An error occurred and the request cannot be processed.") // AWS's words for no tags
	}
	return s.changeTags(ctx, in.Resource, func(tags map[string]string) { maps.Copy(tags, in.Tags) })
}

// UntagResource removes tags from a function; those it does not have do not matter.
func (s *Server) UntagResource(ctx context.Context, in *lambdaapi.UntagResourceRequest) (*api.Empty, error) {
	return s.changeTags(ctx, in.Resource, func(tags map[string]string) {
		for _, key := range in.TagKeys {
			delete(tags, key)
		}
	})
}

// changeTags edits the tags of a function. They are no part of its configuration: its revision
// id, versions and environments stay as they are.
func (s *Server) changeTags(ctx context.Context, resource *string, edit func(map[string]string)) (*api.Empty, error) {
	ref, err := s.tagged(ctx, resource)
	if err != nil {
		return nil, err
	}
	err = s.change(ctx, ref, func(f *function) ([]store.Change, error) {
		if f.Tags == nil {
			f.Tags = map[string]string{}
		}
		edit(f.Tags)
		return nil, checkTags(f.Tags)
	})
	if err != nil {
		return nil, err
	}
	return &api.Empty{}, nil
}

// tagged is the function that an ARN names. Of the other resources that may carry tags, none exists.
func (s *Server) tagged(ctx context.Context, resource *string) (lambda.FunctionReference, error) {
	arn, err := lambda.ParseARN(value(resource))
	if err != nil {
		return lambda.FunctionReference{}, err
	}
	switch kind, _, _ := strings.Cut(arn.Resource, ":"); kind {
	case "function":
	case "event-source-mapping":
		return lambda.FunctionReference{}, missing("Event source mapping not found: ", arn)
	case "capacity-provider":
		return lambda.FunctionReference{}, missing("Capacity provider not found: ", arn)
	default:
		return lambda.FunctionReference{}, missing("Resource not found: ", arn)
	}
	ref, err := s.reference(ctx, resource, nil)
	if err != nil {
		return ref, err
	}
	if ref.Qualifier != "" {
		return ref, invalid("Tags on function aliases and versions are not supported. Please specify a function ARN.")
	}
	return ref, nil
}
