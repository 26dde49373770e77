package control

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// maxResolved bounds how many versions are kept in memory.
const maxResolved = 10_000

// Resolve returns what to run when ref is invoked. It is on the path of every invocation: what
// was resolved before costs no read of the store. The result is shared and must not be changed.
//
// The account in ref must be the caller's (the api.Call in ctx; internal callers have none).
// Errors are of kind lambda.NotFound, lambda.NotReady (Pending or Failed, in AWS's words),
// lambda.AccessDenied, or those of the store.
func (s *Server) Resolve(ctx context.Context, ref lambda.FunctionReference) (*lambda.Version, error) {
	if caller := api.CallOf(ctx).AccountID; ref.AccountID == "" || caller != "" && caller != ref.AccountID {
		return nil, lambda.Errorf(lambda.AccessDenied, "resolve function", "The function belongs to another account.")
	}
	if ref.Region != s.region {
		return nil, lambda.Errorf(lambda.NotFound, "resolve function", "%s", *unreachable(ref.Region, s.region).Message)
	}
	if ref.Qualifier == "" {
		ref.Qualifier = lambda.LatestVersion
	}
	v, generation := s.resolved.get(ref)
	if v != nil {
		return v, nil
	}
	v, err := s.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	s.resolved.put(ref, v, generation)
	return v, nil
}

// resolve reads the version from the store.
func (s *Server) resolve(ctx context.Context, ref lambda.FunctionReference) (*lambda.Version, error) {
	found, in, err := s.find(ctx, ref)
	if errors.Is(err, store.ErrNotFound) {
		return nil, lambda.Errorf(lambda.NotFound, "resolve function", "Function not found: %s", ref.QualifiedARN())
	}
	if err != nil {
		return nil, fmt.Errorf("resolve function: %w", err)
	}
	if in.Status != lambdaapi.StateActive {
		return nil, lambda.Errorf(lambda.NotReady, "resolve function", "%s", inState(in.Status))
	}
	return &found, nil
}

// find returns what ref's qualifier names, and its state. The error is store.ErrNotFound if
// there is no such function or version.
func (s *Server) find(ctx context.Context, ref lambda.FunctionReference) (lambda.Version, state, error) {
	f, _, err := load[function](ctx, s.store, functionKey(ref))
	if err != nil {
		return lambda.Version{}, state{}, err
	}
	if ref.Qualifier == lambda.LatestVersion {
		return f.runnable(ref), f.State, nil
	}
	number, ok := versionNumber(ref.Qualifier)
	if !ok {
		return lambda.Version{}, state{}, store.ErrNotFound
	}
	v, _, err := load[version](ctx, s.store, versionKey(ref.AccountID, f.Instance, number))
	if err != nil {
		return lambda.Version{}, state{}, err
	}
	return v.runnable(ref), v.State, nil
}

// A cache holds resolved versions by function and qualifier. While a commit changes a function, what runs
// is read from the store: whoever has seen the change in the store must not be served what was before.
type cache struct {
	mu         sync.RWMutex
	generation uint64                                  // guarded by mu; counts begins and ends of commits
	size       int                                     // guarded by mu; versions in functions
	functions  map[cacheKey]map[string]*lambda.Version // guarded by mu; the versions are immutable
	changing   map[cacheKey]int                        // guarded by mu; commits under way
}

type cacheKey struct{ account, name string }

// get returns the version or nil, and the generation that put wants back.
func (c *cache) get(ref lambda.FunctionReference) (*lambda.Version, uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.functions[cacheKey{ref.AccountID, ref.Name}][ref.Qualifier], c.generation
}

// put keeps v unless a commit began or ended since generation: what was read then may be outdated.
func (c *cache) put(ref lambda.FunctionReference, v *lambda.Version, generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := cacheKey{ref.AccountID, ref.Name}
	if c.generation != generation || c.changing[key] > 0 {
		return
	}
	if c.functions == nil || c.size >= maxResolved { // starting anew is rare, and cheaper than an order of use
		c.functions, c.size = map[cacheKey]map[string]*lambda.Version{}, 0
	}
	versions := c.functions[key]
	if versions == nil {
		versions = map[string]*lambda.Version{}
		c.functions[key] = versions
	}
	if versions[ref.Qualifier] == nil {
		c.size++
	}
	versions[ref.Qualifier] = v
}

// suspend forgets a function and keeps nothing of it until resume is called.
func (c *cache) suspend(ref lambda.FunctionReference) (resume func()) {
	key := cacheKey{ref.AccountID, ref.Name}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.size -= len(c.functions[key])
	delete(c.functions, key)
	if c.changing == nil {
		c.changing = map[cacheKey]int{}
	}
	c.changing[key]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.generation++
		if c.changing[key]--; c.changing[key] == 0 {
			delete(c.changing, key)
		}
	}
}
