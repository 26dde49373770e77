package control

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// pageItems is the default and, as on AWS, the most that a page of a listing holds, even if
// MaxItems asks for more.
const pageItems = 50

// ListFunctions lists the caller's account by name; with FunctionVersion ALL, each function's
// $LATEST and then its versions.
func (s *Server) ListFunctions(ctx context.Context, in *lambdaapi.ListFunctionsRequest) (*lambdaapi.ListFunctionsResponse, error) {
	home, err := s.home(ctx)
	if err != nil {
		return nil, err
	}
	all := value(in.FunctionVersion) == lambdaapi.FunctionVersionAll
	if in.MasterRegion != nil && !all {
		return nil, invalid("MasterRegion is only allowed when FunctionVersion is set to ALL.")
	}
	l := &listing{server: s, limit: pageSize(in.MaxItems), out: []lambdaapi.FunctionConfiguration{}}
	if region := value(in.MasterRegion); region != "" && region != "ALL" {
		return &lambdaapi.ListFunctionsResponse{Functions: l.out}, nil // no function here is a replica of another region's
	}
	name, number, err := parseMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	if all {
		err = l.everyVersion(ctx, home, name, number)
	} else {
		err = l.functions(ctx, home, name, func(ref lambda.FunctionReference, f *function) error {
			return l.add(f.describeLatest(ref), marker(ref, 0))
		})
	}
	if err != nil && !errors.Is(err, errPageFull) {
		return nil, err
	}
	return &lambdaapi.ListFunctionsResponse{Functions: l.out, NextMarker: l.next}, nil
}

// ListVersionsByFunction lists $LATEST and then the versions, oldest first.
func (s *Server) ListVersionsByFunction(ctx context.Context, in *lambdaapi.ListVersionsByFunctionRequest) (*lambdaapi.ListVersionsByFunctionResponse, error) {
	ref, f, err := s.whole(ctx, in.FunctionName)
	if err != nil {
		return nil, err
	}
	name, number, err := parseMarker(in.Marker)
	if err == nil && name != "" && name != ref.Name {
		err = errMarker()
	}
	if err != nil {
		return nil, err
	}
	l := &listing{server: s, limit: pageSize(in.MaxItems), out: []lambdaapi.FunctionConfiguration{}}
	if name == "" {
		err = l.addLatest(ref, f)
	}
	if err == nil {
		err = l.versions(ctx, ref, f.Instance, number)
	}
	if err != nil && !errors.Is(err, errPageFull) {
		return nil, err
	}
	return &lambdaapi.ListVersionsByFunctionResponse{Versions: l.out, NextMarker: l.next}, nil
}

// A listing collects one page of descriptions.
type listing struct {
	server *Server
	limit  int
	out    []lambdaapi.FunctionConfiguration
	last   string  // marker of the newest item of out
	next   *string // marker for the caller, set when an item found no room
}

// errPageFull ends a listing: there is more, and next says where.
var errPageFull = errors.New("page is full")

func (l *listing) add(c *lambdaapi.FunctionConfiguration, marker string) error {
	if len(l.out) == l.limit {
		l.next = new(base64.URLEncoding.EncodeToString([]byte(l.last)))
		return errPageFull
	}
	l.out, l.last = append(l.out, listed(c)), marker
	return nil
}

func (l *listing) addLatest(ref lambda.FunctionReference, f *function) error {
	ref.Qualifier = lambda.LatestVersion
	return l.add(f.describeLatest(ref), marker(ref, 0))
}

// functions visits the functions after the one named, one more than the page can hold.
func (l *listing) functions(ctx context.Context, home lambda.FunctionReference, after string, visit func(lambda.FunctionReference, *function) error) error {
	objects, err := l.server.store.List(ctx, kindFunction, home.AccountID, "", store.Page{After: after, Limit: l.limit + 1})
	if err != nil {
		return storeError("list functions", err)
	}
	for _, object := range objects {
		f, err := decode[function](object)
		if err != nil {
			return err
		}
		ref := home
		ref.Name = f.Name
		if err := visit(ref, f); err != nil {
			return err
		}
	}
	return nil
}

// versions adds the versions of a function after the number.
func (l *listing) versions(ctx context.Context, ref lambda.FunctionReference, instance string, after int64) error {
	page := store.Page{After: versionKey(ref.AccountID, instance, after).Name, Limit: l.limit + 1}
	objects, err := l.server.store.List(ctx, kindVersion, ref.AccountID, versionPrefix(instance), page)
	if err != nil {
		return storeError("list versions", err)
	}
	for _, object := range objects {
		v, err := decode[version](object)
		if err != nil {
			return err
		}
		if err := l.add(v.describe(v.reference(ref)), marker(ref, v.Number)); err != nil {
			return err
		}
	}
	return nil
}

// everyVersion adds the versions after the one given (0: $LATEST) of the function named, if it
// still exists, and then everything of the functions that follow.
func (l *listing) everyVersion(ctx context.Context, home lambda.FunctionReference, name string, after int64) error {
	if name != "" {
		ref := home
		ref.Name = name
		f, _, err := l.server.loadFunction(ctx, ref)
		if err == nil {
			err = l.versions(ctx, ref, f.Instance, after)
		}
		if err != nil && !isNotFound(err) {
			return err
		}
	}
	return l.functions(ctx, home, name, func(ref lambda.FunctionReference, f *function) error {
		if err := l.addLatest(ref, f); err != nil {
			return err
		}
		return l.versions(ctx, ref, f.Instance, 0)
	})
}

// marker names an item of a listing: the function, and the version number or 0 for $LATEST.
func marker(ref lambda.FunctionReference, number int64) string {
	return fmt.Sprintf("%s:%d", ref.Name, number)
}

// parseMarker reads a marker that a client sent: a position, from which no more follows than
// the caller's own listing.
func parseMarker(given *string) (name string, number int64, err error) {
	if value(given) == "" {
		return "", 0, nil
	}
	raw, err := base64.URLEncoding.DecodeString(*given)
	if err != nil {
		return "", 0, errMarker()
	}
	name, digits, versioned := strings.Cut(string(raw), ":")
	ref, err := lambda.ParseFunctionReference(name, "", lambda.FunctionReference{})
	if err != nil || ref.Name != name {
		return "", 0, errMarker()
	}
	if versioned && digits != "0" {
		var ok bool
		if number, ok = versionNumber(digits); !ok {
			return "", 0, errMarker()
		}
	}
	return name, number, nil
}

func pageSize(maxItems *int32) int {
	if maxItems == nil {
		return pageItems
	}
	return min(max(int(*maxItems), 1), pageItems)
}
