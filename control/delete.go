package control

import (
	"context"
	"errors"
	"strings"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// DeleteFunction deletes a function with all its versions, in any state, or with a qualifier
// one version. They are out of reach when it returns; Run sweeps the versions' records, and
// environments end when they are idle.
func (s *Server) DeleteFunction(ctx context.Context, in *lambdaapi.DeleteFunctionRequest) (*lambdaapi.DeleteFunctionResponse, error) {
	ref, err := s.reference(ctx, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	qualifier := ref.Qualifier
	ref.Qualifier = "" // AWS names the function, not the version, in its errors
	number, isNumber := versionNumber(qualifier)
	switch {
	case qualifier == "":
		err = s.deleteFunction(ctx, ref)
	case strings.HasPrefix(qualifier, lambda.LatestVersion):
		err = invalid("$LATEST version cannot be deleted without deleting the function.")
	case !isNumber:
		err = invalid("Deletion of aliases is not currently supported.")
	default:
		err = s.deleteVersion(ctx, ref, number)
	}
	if err != nil {
		return nil, err
	}
	return &lambdaapi.DeleteFunctionResponse{StatusCode: new(int32(204))}, nil
}

func (s *Server) deleteFunction(ctx context.Context, ref lambda.FunctionReference) error {
	for range maxRewrites {
		f, revision, err := s.loadFunction(ctx, ref)
		if err != nil {
			return err
		}
		changes := []store.Change{{Key: functionKey(ref), Expect: revision, Delete: true}}
		if f.LastVersion > 0 {
			sweep := &order{Account: ref.AccountID, Function: ref.Name, Instance: f.Instance, Sweep: true}
			changes = append(changes, write(orderKey(orderName(f.Instance, s.now())+"-sweep"), store.AnyRevision, sweep))
		}
		if f.Preparation != "" {
			changes = append(changes, erase(orderKey(f.Preparation)))
		}
		err = s.commit(ctx, ref, changes...)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		s.work.notify()
		s.retire(ctx, f.runnable(ref).ID)
		return nil
	}
	return updateInProgress(ref)
}

// deleteVersion deletes one version. That it is gone already is success, as on AWS; that the
// function is not there is not.
func (s *Server) deleteVersion(ctx context.Context, ref lambda.FunctionReference, number int64) error {
	for range maxRewrites {
		f, _, err := s.loadFunction(ctx, ref)
		if err != nil {
			return err
		}
		key := versionKey(ref.AccountID, f.Instance, number)
		v, revision, err := load[version](ctx, s.store, key)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.commit(ctx, ref, store.Change{Key: key, Expect: revision, Delete: true})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		s.retire(ctx, v.runnable(ref).ID)
		return nil
	}
	return updateInProgress(ref)
}

// sweepBatch is how many versions are deleted in one commit.
const sweepBatch = store.MaxCommitChanges / 2

// sweep deletes the versions that a deleted function has left behind, and then the order to do so.
func (s *Server) sweep(ctx context.Context, ref lambda.FunctionReference, key store.Key, instance string) error {
	for {
		page, err := s.store.List(ctx, kindVersion, ref.AccountID, versionPrefix(instance), store.Page{Limit: sweepBatch})
		if err != nil {
			return storeError("list versions", err)
		}
		changes := make([]store.Change, 0, len(page)+1)
		retired := make([]lambda.VersionID, 0, len(page))
		for _, object := range page {
			v, err := decode[version](object)
			if err != nil {
				return err
			}
			changes = append(changes, erase(object.Key))
			retired = append(retired, v.runnable(ref).ID)
		}
		done := len(page) < sweepBatch
		if done {
			changes = append(changes, erase(key))
		}
		if err := s.commit(ctx, ref, changes...); err != nil {
			return err
		}
		s.retire(ctx, retired...)
		if done {
			return nil
		}
	}
}

// retire has the environments of outdated versions ended. It follows the commit, so it happens
// even if the caller has gone away.
func (s *Server) retire(ctx context.Context, ids ...lambda.VersionID) {
	for _, id := range ids {
		s.environments.Retire(context.WithoutCancel(ctx), id)
	}
}
