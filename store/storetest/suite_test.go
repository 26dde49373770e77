package storetest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloister/store"
)

func TestMain(m *testing.M) {
	flag.Parse()
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.shrinktime": "0s"} { // broken stores are meant to fail
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// models returns an Open whose stores are models that outlive their closing, wrapped by what a test breaks.
func models(wrap func(*model) store.Store) Open {
	var mu sync.Mutex
	known := map[string]*model{}
	return func(t testing.TB, directory string) store.Store {
		mu.Lock()
		defer mu.Unlock()
		m := newModel(0)
		if before := known[directory]; before != nil {
			var err error
			if m, err = before.reopen(); err != nil {
				t.Fatal(err)
			}
		}
		known[directory] = m
		return wrap(m)
	}
}

func TestTheModelKeepsTheContract(t *testing.T) {
	Run(t, models(func(m *model) store.Store { return m }))
}

// A recorder takes the failures of a test of the suite.
type recorder struct {
	testing.TB
	failed atomic.Bool
}

func (r *recorder) Errorf(string, ...any) { r.failed.Store(true) }
func (r *recorder) Error(...any)          { r.failed.Store(true) }
func (r *recorder) Fail()                 { r.failed.Store(true) }
func (r *recorder) Failed() bool          { return r.failed.Load() }
func (r *recorder) Logf(string, ...any)   {}
func (r *recorder) Log(...any)            {}

func (r *recorder) FailNow() {
	r.failed.Store(true)
	runtime.Goexit()
}

func (r *recorder) Fatalf(string, ...any) { r.FailNow() }
func (r *recorder) Fatal(...any)          { r.FailNow() }

// fails reports whether a test of the suite refuses a store, or hangs.
func fails(t *testing.T, test func(testing.TB, Open), open Open) bool {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r, open)
	}()
	select {
	case <-done:
		return r.Failed()
	case <-time.After(3 * time.Second):
		return true
	}
}

// A broken store is a model with some methods replaced.
type broken struct {
	*model
	commit func(context.Context, []store.Change) ([]uint64, error)
	get    func(context.Context, store.Key) (store.Object, error)
	list   func(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error)
	lookup func(ctx context.Context, kind, account string, x store.Index, p store.Page) ([]store.Object, error)
	watch  func(ctx context.Context, after uint64, limit int) ([]store.Event, error)
	now    func(context.Context) (store.Moment, error)
	close  func() error
}

func (b *broken) Commit(ctx context.Context, changes ...store.Change) ([]uint64, error) {
	if b.commit != nil {
		return b.commit(ctx, changes)
	}
	return b.model.Commit(ctx, changes...)
}

func (b *broken) Get(ctx context.Context, k store.Key) (store.Object, error) {
	if b.get != nil {
		return b.get(ctx, k)
	}
	return b.model.Get(ctx, k)
}

func (b *broken) List(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error) {
	if b.list != nil {
		return b.list(ctx, kind, account, prefix, p)
	}
	return b.model.List(ctx, kind, account, prefix, p)
}

func (b *broken) Lookup(ctx context.Context, kind, account string, x store.Index, p store.Page) ([]store.Object, error) {
	if b.lookup != nil {
		return b.lookup(ctx, kind, account, x, p)
	}
	return b.model.Lookup(ctx, kind, account, x, p)
}

func (b *broken) Watch(ctx context.Context, after uint64, limit int) ([]store.Event, error) {
	if b.watch != nil {
		return b.watch(ctx, after, limit)
	}
	return b.model.Watch(ctx, after, limit)
}

func (b *broken) Now(ctx context.Context) (store.Moment, error) {
	if b.now != nil {
		return b.now(ctx)
	}
	return b.model.Now(ctx)
}

func (b *broken) Close() error {
	if b.close != nil {
		return b.close()
	}
	return b.model.Close()
}

// slowGet lets other callers in before its own goes on.
func (b *broken) slowGet(ctx context.Context, k store.Key) (store.Object, error) {
	o, err := b.model.Get(ctx, k)
	time.Sleep(50 * time.Microsecond)
	return o, err
}

// faults are ways to break the contract, each with the tests that must find it.
var faults = map[string]struct {
	found  []string
	damage func(*broken)
}{
	"expectations are ignored": {[]string{"AStaleExpectationIsAConflict", "ConcurrentWritersLoseNoUpdate", "CallsHappenOneAfterTheOther", "RandomCallsAnswerAsTheModel"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			changes = slices.Clone(changes)
			for i := range changes {
				if !changes[i].Check {
					changes[i].Expect = store.AnyRevision
				}
			}
			return b.model.Commit(ctx, changes...)
		}
		b.get = b.slowGet
	}},
	"checks are ignored": {[]string{"ACheckIsAConditionAndWritesNothing", "WhoHasLostTheLeaseWritesNothing", "AFenceHoldsBackStaleHoldersUnderContention", "CallsHappenOneAfterTheOther"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			var writes []store.Change
			for _, c := range changes {
				if !c.Check {
					writes = append(writes, c)
				}
			}
			revisions, err := b.model.Commit(ctx, writes...)
			for i, c := range changes {
				if c.Check && err == nil {
					revisions = slices.Insert(revisions, i, c.Expect)
				}
			}
			return revisions, err
		}
	}},
	"commits are applied one change at a time": {[]string{"ACommitIsAllOrNothing", "CallsHappenOneAfterTheOther", "RandomCallsAnswerAsTheModel"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) (revisions []uint64, err error) {
			for _, c := range changes {
				r, err := b.model.Commit(ctx, c)
				if err != nil {
					return nil, err
				}
				revisions = append(revisions, r...)
			}
			return revisions, nil
		}
	}},
	"every tenth commit is lost": {[]string{"ConcurrentWritersLoseNoUpdate", "AReadSeesEveryFinishedCommit", "CallsHappenOneAfterTheOther"}, func(b *broken) {
		var n atomic.Int64
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			if n.Add(1)%10 == 0 {
				return make([]uint64, len(changes)), nil
			}
			return b.model.Commit(ctx, changes...)
		}
	}},
	"reads are a little old": {[]string{"CallsHappenOneAfterTheOther", "AReadSeesEveryFinishedCommit"}, func(b *broken) {
		var cache sync.Map
		b.get = func(ctx context.Context, k store.Key) (store.Object, error) {
			now, err := b.model.Get(ctx, k)
			if before, found := cache.Swap(k, now); found && err == nil {
				return before.(store.Object), nil
			}
			return now, err
		}
	}},
	"listings mix two states": {[]string{"CallsHappenOneAfterTheOther"}, func(b *broken) {
		b.list = func(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error) {
			found, err := b.model.List(ctx, kind, account, prefix, p)
			for i := range found {
				time.Sleep(50 * time.Microsecond)
				if o, err := b.model.Get(ctx, found[i].Key); err == nil {
					found[i] = o
				}
			}
			return found, err
		}
	}},
	"conflicts say nothing": {[]string{"AConflictSaysWhatStoodInTheWay", "WhoHasLostTheLeaseWritesNothing"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			revisions, err := b.model.Commit(ctx, changes...)
			if errors.Is(err, store.ErrConflict) {
				err = store.ErrConflict
			}
			return revisions, err
		}
	}},
	"a cancelled commit is applied": {[]string{"ACancelledCallDoesNothing"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			revisions, err := b.model.Commit(context.WithoutCancel(ctx), changes...)
			return revisions, errors.Join(err, ctx.Err())
		}
	}},
	"pages are too long": {[]string{"PagesAreInByteOrderAndComplete", "AnIndexFindsItsObjectsAndNoOthers"}, func(b *broken) {
		b.list = func(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error) {
			p.Limit = min(p.Limit+1, store.MaxPageLimit)
			return b.model.List(ctx, kind, account, prefix, p)
		}
		b.lookup = func(ctx context.Context, kind, account string, x store.Index, p store.Page) ([]store.Object, error) {
			p.Limit = min(p.Limit+1, store.MaxPageLimit)
			return b.model.Lookup(ctx, kind, account, x, p)
		}
	}},
	"order is not that of bytes": {[]string{"PagesAreInByteOrderAndComplete"}, func(b *broken) {
		b.list = func(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error) {
			found, err := b.model.List(ctx, kind, account, prefix, p)
			slices.SortFunc(found, func(a, b store.Object) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
			return found, err
		}
	}},
	"indexes outlive their object": {[]string{"AnIndexFindsItsObjectsAndNoOthers", "RandomCallsAnswerAsTheModel"}, func(b *broken) {
		var dead sync.Map
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			changes = slices.Clone(changes)
			for i, c := range changes {
				if before, ok := dead.LoadAndDelete(c.Key); ok && !c.Delete && !c.Check {
					changes[i].Indexes = append(slices.Clone(c.Indexes), before.([]store.Index)...)
				}
				b.model.mu.Lock()
				if e, ok := b.model.objects[c.Key]; ok && c.Delete {
					dead.Store(c.Key, e.indexes)
				}
				b.model.mu.Unlock()
			}
			return b.model.Commit(ctx, changes...)
		}
	}},
	"bodies are shared": {[]string{"BodiesAreTheCallersOwn"}, func(b *broken) {
		b.get = func(ctx context.Context, k store.Key) (store.Object, error) {
			o, err := b.model.Get(ctx, k)
			o.Body = b.model.objects[k].body
			return o, err
		}
	}},
	"watchers do not hear of deletions": {[]string{"AWatcherSeesEveryChangeInOrder"}, func(b *broken) {
		b.watch = func(ctx context.Context, after uint64, limit int) ([]store.Event, error) {
			events, err := b.model.Watch(ctx, after, limit)
			return slices.DeleteFunc(events, func(e store.Event) bool { return e.Deleted }), err
		}
	}},
	"watchers are not woken": {[]string{"AWatcherIsWokenByACommit"}, func(b *broken) {
		b.watch = func(ctx context.Context, after uint64, limit int) ([]store.Event, error) {
			if m, err := b.model.Now(ctx); err == nil && m.Revision == after {
				<-ctx.Done()
			}
			return b.model.Watch(ctx, after, limit)
		}
	}},
	"the log of changes never ends": {[]string{"AWatcherWhoComesTooLateListsAgain"}, func(b *broken) {
		b.watch = func(ctx context.Context, after uint64, limit int) ([]store.Event, error) {
			m, err := b.model.Now(ctx)
			if err == nil && m.Revision > store.KeptChanges && after < m.Revision-store.KeptChanges {
				return []store.Event{{Key: key("a"), Revision: after + 1}}, nil
			}
			return b.model.Watch(ctx, after, limit)
		}
	}},
	"the log of changes is short": {[]string{"AWatcherWhoComesTooLateListsAgain"}, func(b *broken) {
		b.watch = func(ctx context.Context, after uint64, limit int) ([]store.Event, error) {
			if m, err := b.model.Now(ctx); err == nil && after+store.KeptChanges/2 < m.Revision {
				return nil, store.ErrTooOld
			}
			return b.model.Watch(ctx, after, limit)
		}
	}},
	"the clock runs ahead": {[]string{"ALeaseHasOneHolderAtATime"}, func(b *broken) {
		var ahead atomic.Int64
		b.now = func(ctx context.Context) (store.Moment, error) {
			m, err := b.model.Now(ctx)
			m.Time = m.Time.Add(3 * long * time.Duration(ahead.Add(1)))
			return m, err
		}
	}},
	"the clock stands still": {[]string{"AnExpiredLeaseCanBeTakenByTheStoresClock"}, func(b *broken) {
		b.now = func(ctx context.Context) (store.Moment, error) {
			m, err := b.model.Now(ctx)
			m.Time = time.Unix(0, 0)
			return m, err
		}
	}},
	"closing forgets the last commit": {[]string{"ReopeningFindsEverything"}, func(b *broken) {
		b.close = func() error {
			b.model.mu.Lock()
			if n := len(b.model.events); n > 0 {
				delete(b.model.objects, b.model.events[n-1].Key)
			}
			b.model.mu.Unlock()
			return b.model.Close()
		}
	}},
	"objects come back under another revision": {[]string{"ACommittedObjectIsRead", "RandomCallsAnswerAsTheModel"}, func(b *broken) {
		b.get = func(ctx context.Context, k store.Key) (store.Object, error) {
			o, err := b.model.Get(ctx, k)
			o.Revision++
			return o, err
		}
	}},
	"revisions have gaps": {[]string{"EachWriteTakesTheNextRevision"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			revisions, err := b.model.Commit(ctx, changes...)
			if err == nil {
				_, _ = b.model.Commit(ctx, store.Change{Key: key("not asked for"), Expect: store.AnyRevision})
			}
			return revisions, err
		}
	}},
	"a prefix is a pattern": {[]string{"APrefixLimitsAListing"}, func(b *broken) {
		b.list = func(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error) {
			return b.model.find(ctx, kind, account, p, func(k store.Key, _ entry) bool {
				return prefix == "_" || strings.HasPrefix(strings.ToLower(k.Name), strings.ToLower(prefix))
			})
		}
	}},
	"an account is a prefix": {[]string{"KindsAndAccountsAreSeparate"}, func(b *broken) {
		b.list = func(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error) {
			b.model.mu.Lock()
			defer b.model.mu.Unlock()
			var found []store.Object
			for k, e := range b.model.objects {
				if k.Kind == kind && strings.HasPrefix(k.Account, account) && strings.HasPrefix(k.Name, prefix) && k.Name > p.After {
					found = append(found, store.Object{Key: k, Revision: e.revision, Body: e.body})
				}
			}
			return found, nil
		}
	}},
	"bounds are not checked": {[]string{"NothingOutOfBoundsIsTaken"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			if err := store.CheckCommit(changes); err != nil {
				return make([]uint64, len(changes)), ctx.Err()
			}
			return b.model.Commit(ctx, changes...)
		}
	}},
	"long bodies are cut": {[]string{"BodiesOfEverySizeComeBackUnchanged"}, func(b *broken) {
		b.get = func(ctx context.Context, k store.Key) (store.Object, error) {
			o, err := b.model.Get(ctx, k)
			o.Body = o.Body[:min(len(o.Body), 1<<20)]
			return o, err
		}
	}},
	"a commit that is given up is applied later": {[]string{"ACancelledCommitIsAppliedOrIsNot"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			revisions, err := b.model.Commit(context.WithoutCancel(ctx), changes...)
			if late := context.Cause(ctx); late != nil {
				return nil, late
			}
			return revisions, err
		}
	}},
	"a slow watcher holds up writers": {[]string{"WatchersAndWritersDoNotWaitForEachOther"}, func(b *broken) {
		var watchers sync.RWMutex
		b.watch = func(ctx context.Context, after uint64, limit int) ([]store.Event, error) {
			watchers.RLock()
			defer watchers.RUnlock()
			return b.model.Watch(ctx, after, limit)
		}
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			watchers.Lock()
			defer watchers.Unlock()
			return b.model.Commit(ctx, changes...)
		}
	}},
	"two callers take one number": {[]string{"ACounterHasNoGapsAndNoRepetitions"}, func(b *broken) {
		b.commit = func(ctx context.Context, changes []store.Change) ([]uint64, error) {
			changes = slices.Clone(changes)
			for i := range changes {
				if changes[i].Name == "counter" {
					changes[i].Expect = store.AnyRevision
				}
				if strings.HasPrefix(changes[i].Name, "version ") {
					changes[i].Expect = store.AnyRevision
				}
			}
			return b.model.Commit(ctx, changes...)
		}
		b.get = b.slowGet
	}},
	"reads go on after Close": {[]string{"AfterCloseEverythingIsRefused"}, func(b *broken) { b.close = func() error { return nil } }},
}

// TestTheSuiteFindsBrokenStores is the control of the whole suite: each of its tests finds a broken store.
func TestTheSuiteFindsBrokenStores(t *testing.T) {
	unneeded := maps.Clone(suite)
	for _, f := range faults {
		for _, name := range f.found {
			delete(unneeded, name)
		}
	}
	for name := range unneeded {
		t.Errorf("no broken store shows that %s can fail", name)
	}
	for fault, f := range faults {
		for _, name := range f.found {
			t.Run(fmt.Sprint(fault, "/", name), func(t *testing.T) {
				t.Parallel()
				open := models(func(m *model) store.Store {
					b := &broken{model: m}
					f.damage(b)
					return b
				})
				for began := time.Now(); time.Since(began) < 20*time.Second; { // a race may need many tries
					if fails(t, suite[name], open) {
						return
					}
				}
				t.Error("nothing was found")
			})
		}
	}
}
