// Package storetest is the suite that every engine of package store must pass.
//
// It is not a benchmark and knows nothing of files: an engine's own tests add what depends on
// its form (killed processes, changed bytes, wrong keys). Tests of engines call Run.
//
// Invariant: each test works on a fresh store, through the contract only, so that what it
// finds is a broken promise of the contract and not a detail of one engine.
package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cloister/lambda"
	"cloister/store"
)

// Open opens the store whose data lies in a directory, or makes it. The suite closes it.
type Open func(t testing.TB, directory string) store.Store

var suite = map[string]func(testing.TB, Open){
	"ACommittedObjectIsRead":                     committedObjectIsRead,
	"AStaleExpectationIsAConflict":               staleExpectationIsAConflict,
	"AConflictSaysWhatStoodInTheWay":             conflictSaysWhatStoodInTheWay,
	"ACheckIsAConditionAndWritesNothing":         checkWritesNothing,
	"ACommitIsAllOrNothing":                      commitIsAllOrNothing,
	"EachWriteTakesTheNextRevision":              revisionsAreDense,
	"PagesAreInByteOrderAndComplete":             pagesAreInOrder,
	"APrefixLimitsAListing":                      prefixLimitsListing,
	"KindsAndAccountsAreSeparate":                kindsAndAccountsAreSeparate,
	"AnIndexFindsItsObjectsAndNoOthers":          indexFindsItsObjects,
	"NothingOutOfBoundsIsTaken":                  nothingOutOfBoundsIsTaken,
	"BodiesAreTheCallersOwn":                     bodiesAreTheCallersOwn,
	"BodiesOfEverySizeComeBackUnchanged":         bodiesOfEverySize,
	"ConcurrentWritersLoseNoUpdate":              concurrentWritersLoseNoUpdate,
	"AReadSeesEveryFinishedCommit":               readSeesEveryFinishedCommit,
	"ReopeningFindsEverything":                   reopeningFindsEverything,
	"ACancelledCallDoesNothing":                  cancelledCallDoesNothing,
	"ACancelledCommitIsAppliedOrIsNot":           cancelledCommitIsAppliedOrIsNot,
	"AfterCloseEverythingIsRefused":              afterCloseEverythingIsRefused,
	"CallsHappenOneAfterTheOther":                callsAreLinearizable,
	"RandomCallsAnswerAsTheModel":                randomCallsAnswerAsTheModel,
	"AWatcherSeesEveryChangeInOrder":             watcherSeesEveryChange,
	"AWatcherIsWokenByACommit":                   watcherIsWoken,
	"AWatcherWhoComesTooLateListsAgain":          lateWatcherListsAgain,
	"WatchersAndWritersDoNotWaitForEachOther":    watchersAndWriters,
	"ACounterHasNoGapsAndNoRepetitions":          counterHasNoGaps,
	"ALeaseHasOneHolderAtATime":                  leaseHasOneHolder,
	"AnExpiredLeaseCanBeTakenByTheStoresClock":   expiredLeaseCanBeTaken,
	"WhoHasLostTheLeaseWritesNothing":            loserWritesNothing,
	"AFenceHoldsBackStaleHoldersUnderContention": fenceUnderContention,
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, test := range suite {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

// fixture is a fresh store and the helpers that stop the test on an error.
type fixture struct {
	testing.TB
	store store.Store
}

func fresh(t testing.TB, open Open) fixture {
	s := open(t, t.TempDir())
	t.Cleanup(func() { s.Close() })
	return fixture{t, s}
}

func key(name string) store.Key { return store.Key{Kind: "thing", Account: "111111111111", Name: name} }

func (f fixture) commit(changes ...store.Change) []uint64 {
	f.Helper()
	revisions, err := f.store.Commit(f.Context(), changes...)
	if err != nil {
		f.Fatalf("Commit: %v", err)
	}
	return revisions
}

func (f fixture) create(name, body string, indexes ...store.Index) uint64 {
	f.Helper()
	return f.commit(store.Change{Key: key(name), Body: []byte(body), Indexes: indexes})[0]
}

func (f fixture) conflict(changes ...store.Change) {
	f.Helper()
	if revisions, err := f.store.Commit(f.Context(), changes...); !errors.Is(err, store.ErrConflict) || revisions != nil {
		f.Errorf("Commit gave %v, %v; want ErrConflict", revisions, err)
	}
}

// has checks body and revision of an object.
func (f fixture) has(k store.Key, body string, revision uint64) {
	f.Helper()
	o, err := f.store.Get(f.Context(), k)
	if err != nil || o.Key != k || o.Revision != revision {
		f.Errorf("Get gave %v at revision %d, %v; want %v at %d", o.Key, o.Revision, err, k, revision)
	} else if string(o.Body) != body { // may be megabytes
		f.Errorf("Get %v gave the body %.50q of %d bytes, want %.50q of %d", k, o.Body, len(o.Body), body, len(body))
	}
}

func (f fixture) hasNot(k store.Key) {
	f.Helper()
	if o, err := f.store.Get(f.Context(), k); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Get %s gave %v, %v; want ErrNotFound", k.Name, o, err)
	}
}

func (f fixture) list(prefix string, p store.Page) []string {
	f.Helper()
	objects, err := f.store.List(f.Context(), "thing", "111111111111", prefix, p)
	if err != nil {
		f.Fatalf("List: %v", err)
	}
	return names(objects)
}

func (f fixture) lookup(name, value string, p store.Page) []string {
	f.Helper()
	objects, err := f.store.Lookup(f.Context(), "thing", "111111111111", store.Index{Name: name, Value: value}, p)
	if err != nil {
		f.Fatalf("Lookup: %v", err)
	}
	return names(objects)
}

func names(objects []store.Object) []string {
	found := make([]string, len(objects))
	for i, o := range objects {
		found[i] = o.Name
	}
	return found
}

func (f fixture) same(what string, want, got []string) {
	f.Helper()
	if !slices.Equal(want, got) {
		f.Errorf("%s gave %q, want %q", what, got, want)
	}
}

func committedObjectIsRead(t testing.TB, open Open) {
	f := fresh(t, open)
	f.hasNot(key("a"))
	r1 := f.create("a", "one")
	f.has(key("a"), "one", r1)
	r2 := f.commit(store.Change{Key: key("a"), Expect: r1, Body: []byte("two")})[0]
	f.has(key("a"), "two", r2)
	r3 := f.commit(store.Change{Key: key("a"), Expect: store.AnyRevision, Body: nil})[0]
	f.has(key("a"), "", r3)
	f.commit(store.Change{Key: key("a"), Expect: r3, Delete: true})
	f.hasNot(key("a"))
	f.commit(store.Change{Key: key("b"), Expect: store.AnyRevision, Body: []byte("new")})
	if got := f.commit(); got != nil {
		t.Errorf("an empty commit gave %v", got)
	}
}

func staleExpectationIsAConflict(t testing.TB, open Open) {
	f := fresh(t, open)
	old := f.create("a", "one")
	now := f.commit(store.Change{Key: key("a"), Expect: old, Body: []byte("two")})[0]
	f.conflict(store.Change{Key: key("a"), Expect: 0, Body: []byte("x")})
	f.conflict(store.Change{Key: key("a"), Expect: old, Body: []byte("x")})
	f.conflict(store.Change{Key: key("a"), Expect: now + 1, Body: []byte("x")})
	f.conflict(store.Change{Key: key("a"), Expect: old, Delete: true})
	f.conflict(store.Change{Key: key("a"), Expect: 0, Delete: true})
	f.conflict(store.Change{Key: key("none"), Expect: now, Body: []byte("x")})
	f.conflict(store.Change{Key: key("none"), Expect: now, Delete: true})
	f.conflict(store.Change{Key: key("none"), Expect: 0, Delete: true})
	f.commit(store.Change{Key: key("none"), Expect: store.AnyRevision, Delete: true})
	f.has(key("a"), "two", now)
	f.hasNot(key("none"))
	f.commit(store.Change{Key: key("a"), Expect: now, Delete: true})
	f.conflict(store.Change{Key: key("a"), Expect: now, Body: []byte("back from the dead")})
	f.create("a", "again")
}

func commitIsAllOrNothing(t testing.TB, open Open) {
	f := fresh(t, open)
	at := f.create("a", "one")
	doomed := f.create("doomed", "here")
	f.conflict(
		store.Change{Key: key("b"), Body: []byte("new"), Indexes: []store.Index{{Name: "color", Value: "red"}}},
		store.Change{Key: key("doomed"), Expect: doomed, Delete: true},
		store.Change{Key: key("a"), Expect: at + 100, Body: []byte("stale")},
	)
	f.hasNot(key("b"))
	f.has(key("a"), "one", at)
	f.has(key("doomed"), "here", doomed)
	f.same("Lookup", nil, f.lookup("color", "red", store.Page{Limit: 10}))

	r := f.commit(
		store.Change{Key: key("b"), Body: []byte("new"), Indexes: []store.Index{{Name: "color", Value: "red"}}},
		store.Change{Key: key("doomed"), Expect: doomed, Delete: true},
		store.Change{Key: key("a"), Expect: at, Body: []byte("two")},
	)
	f.has(key("b"), "new", r[0])
	f.hasNot(key("doomed"))
	f.has(key("a"), "two", r[2])
	f.same("Lookup", []string{"b"}, f.lookup("color", "red", store.Page{Limit: 10}))
}

func revisionsAreDense(t testing.TB, open Open) {
	f := fresh(t, open)
	f.at(0)
	var last uint64
	for i := range 20 {
		for _, r := range f.commit(
			store.Change{Key: key("a"), Expect: store.AnyRevision, Body: []byte("x"), Delete: i%3 == 2},
			store.Change{Key: key("never"), Check: true},
			store.Change{Key: key(fmt.Sprint(i)), Body: []byte("x")},
		) {
			if r != 0 && r != last+1 { // 0 is the check's
				t.Fatalf("revision %d follows %d", r, last)
			}
			last = max(r, last)
		}
		f.conflict(store.Change{Key: key("new"), Body: []byte("x")}, store.Change{Key: key("a"), Expect: last + 7})
		f.at(last)
	}
}

// at checks the revision of the present moment.
func (f fixture) at(revision uint64) store.Moment {
	f.Helper()
	m, err := f.store.Now(f.Context())
	if err != nil || m.Revision != revision {
		f.Fatalf("Now gave revision %d, %v; want %d", m.Revision, err, revision)
	}
	return m
}

func conflictSaysWhatStoodInTheWay(t testing.TB, open Open) {
	f := fresh(t, open)
	at := f.create("a", "one")
	_, err := f.store.Commit(t.Context(),
		store.Change{Key: key("b"), Body: []byte("new")},
		store.Change{Key: key("a"), Expect: at + 1, Body: []byte("x")},
		store.Change{Key: key("c"), Expect: at, Body: []byte("x")})
	want := store.Conflict{Key: key("a"), Expected: at + 1, Current: at}
	if conflict, ok := errors.AsType[*store.Conflict](err); !ok || *conflict != want || !errors.Is(err, store.ErrConflict) {
		t.Errorf("Commit gave %v, want the conflict %v", err, want)
	}
}

func checkWritesNothing(t testing.TB, open Open) {
	f := fresh(t, open)
	at := f.create("a", "one", store.Index{Name: "color", Value: "red"})
	same := store.Change{Key: key("a"), Expect: at, Check: true}
	none := store.Change{Key: key("none"), Check: true}
	if got := f.commit(same, none, store.Change{Key: key("b"), Body: []byte("x")}); !slices.Equal(got, []uint64{at, 0, at + 1}) {
		t.Errorf("the revisions are %v", got)
	}
	f.has(key("a"), "one", at)
	f.hasNot(key("none"))
	f.same("the index", []string{"a"}, f.lookup("color", "red", store.Page{Limit: 10}))
	f.commit(same, none)
	f.at(at + 1)
	f.conflict(store.Change{Key: key("a"), Expect: at + 1, Check: true}, store.Change{Key: key("c")})
	f.conflict(store.Change{Key: key("c")}, store.Change{Key: key("a"), Check: true})
	f.conflict(store.Change{Key: key("none"), Expect: at, Check: true}, store.Change{Key: key("c")})
	f.hasNot(key("c"))
}

// awkward names.
var awkward = []string{
	" ", "!", "$LATEST", "A", "Z", "_", "a", "a/", "a/b", "a/b/c", "a0", "aa", "a\u00e9", "b", "function:name:1",
	"function:name:10", "function:name:2", "percent%", "under_", "z", "\u00e9", "e\u0301" + "!", "\u65e5\u672c", "\U0001F600",
}

func pagesAreInOrder(t testing.TB, open Open) {
	f := fresh(t, open)
	want := slices.Clone(awkward)
	for _, name := range want {
		f.create(name, "body of "+name)
	}
	slices.Sort(want)
	for _, limit := range []int{1, 2, 5, len(want), store.MaxPageLimit} {
		var got []string
		p := store.Page{Limit: limit}
		for {
			page := f.list("", p)
			if len(page) > limit {
				t.Fatalf("a page of %d has %d objects", limit, len(page))
			}
			got = append(got, page...)
			if len(page) < limit {
				break
			}
			p.After = page[len(page)-1]
		}
		f.same(fmt.Sprintf("listing by %d", limit), want, got)
	}
	// A page goes on where it stopped also when that object is gone.
	f.commit(store.Change{Key: key("a0"), Expect: store.AnyRevision, Delete: true})
	f.same("List after a deleted name", []string{"aa"}, f.list("", store.Page{After: "a0", Limit: 1}))
	f.same("List after the last name", nil, f.list("", store.Page{After: want[len(want)-1], Limit: 1}))
}

func prefixLimitsListing(t testing.TB, open Open) {
	f := fresh(t, open)
	all := slices.Clone(awkward)
	for _, name := range all {
		f.create(name, "x")
	}
	slices.Sort(all)
	for _, prefix := range append([]string{"", "none", "percent%", "_", "a/", "\xc3", "function:name:1"}, all...) {
		for _, after := range append([]string{"", "function:", "zzz"}, all...) {
			var want []string
			for _, name := range all {
				if strings.HasPrefix(name, prefix) && name > after {
					want = append(want, name)
				}
			}
			got := f.list(prefix, store.Page{After: after, Limit: 1000})
			f.same(fmt.Sprintf("prefix %q after %q", prefix, after), want, got)
		}
	}
}

func kindsAndAccountsAreSeparate(t testing.TB, open Open) {
	f := fresh(t, open)
	var keys []store.Key
	for _, kind := range []string{"k", "kk", "K"} {
		for _, account := range []string{"", "1", "11", "k"} {
			for _, name := range []string{"n", "1n", "kn"} {
				keys = append(keys, store.Key{Kind: kind, Account: account, Name: name})
			}
		}
	}
	for _, k := range keys {
		f.commit(store.Change{Key: k, Body: []byte(fmt.Sprint(k)), Indexes: []store.Index{{Name: "i", Value: "v"}}})
	}
	for _, k := range keys {
		o, err := f.store.Get(t.Context(), k)
		if err != nil || string(o.Body) != fmt.Sprint(k) {
			t.Errorf("Get %v gave %q, %v", k, o.Body, err)
		}
		listed, err := f.store.List(t.Context(), k.Kind, k.Account, "", store.Page{Limit: 100})
		if err != nil || len(listed) != 3 {
			t.Errorf("List %v gave %d objects, %v; want 3", k, len(listed), err)
		}
		found, err := f.store.Lookup(t.Context(), k.Kind, k.Account, store.Index{Name: "i", Value: "v"}, store.Page{Limit: 100})
		if err != nil || len(found) != 3 {
			t.Errorf("Lookup %v gave %d objects, %v; want 3", k, len(found), err)
		}
	}
}

func indexFindsItsObjects(t testing.TB, open Open) {
	f := fresh(t, open)
	red, round := store.Index{Name: "color", Value: "red"}, store.Index{Name: "shape", Value: "round"}
	f.create("b", "1", red, round)
	f.create("a", "2", red)
	f.create("c", "3", red, red, store.Index{Name: "color", Value: "blue"}, store.Index{Name: "empty", Value: ""})
	f.create("d", "4")
	all := store.Page{Limit: 100}
	f.same("color red", []string{"a", "b", "c"}, f.lookup("color", "red", all))
	f.same("color blue", []string{"c"}, f.lookup("color", "blue", all))
	f.same("color re", nil, f.lookup("color", "re", all))
	f.same("shape red", nil, f.lookup("shape", "red", all))
	f.same("an empty value", []string{"c"}, f.lookup("empty", "", all))
	f.same("the first of color red", []string{"a"}, f.lookup("color", "red", store.Page{Limit: 1}))
	f.same("color red after a", []string{"b", "c"}, f.lookup("color", "red", store.Page{After: "a", Limit: 2}))

	// An update replaces the indexes, a deletion removes them, also from a later object of
	// the same name.
	f.commit(store.Change{Key: key("b"), Expect: store.AnyRevision, Body: []byte("5"), Indexes: []store.Index{round}})
	f.commit(store.Change{Key: key("a"), Expect: store.AnyRevision, Delete: true})
	f.same("color red later", []string{"c"}, f.lookup("color", "red", all))
	f.same("shape round later", []string{"b"}, f.lookup("shape", "round", all))
	f.create("a", "again")
	f.same("color red at the end", []string{"c"}, f.lookup("color", "red", all))
}

func nothingOutOfBoundsIsTaken(t testing.TB, open Open) {
	f := fresh(t, open)
	long := strings.Repeat("x", store.MaxNameBytes+1)
	with := func(change func(*store.Change)) []store.Change {
		c := store.Change{Key: key("a"), Body: []byte("x")}
		change(&c)
		return []store.Change{c}
	}
	index := func(name, value string) []store.Change {
		return with(func(c *store.Change) { c.Indexes = []store.Index{{Name: name, Value: value}} })
	}
	many := make([]store.Change, store.MaxCommitChanges+1)
	heavy := make([]store.Change, store.MaxCommitBytes/store.MaxBodyBytes+1)
	for i := range many {
		many[i] = store.Change{Key: key(fmt.Sprint(i))}
	}
	for i := range heavy {
		heavy[i] = store.Change{Key: key(fmt.Sprint(i)), Body: make([]byte, store.MaxBodyBytes)}
	}
	for name, changes := range map[string][]store.Change{
		"no kind":         with(func(c *store.Change) { c.Kind = "" }),
		"no name":         with(func(c *store.Change) { c.Name = "" }),
		"a long name":     with(func(c *store.Change) { c.Name = long }),
		"a long account":  with(func(c *store.Change) { c.Account = long }),
		"NUL in a name":   with(func(c *store.Change) { c.Name = "a\x00b" }),
		"not UTF-8":       with(func(c *store.Change) { c.Name = "a\xff" }),
		"a huge body":     with(func(c *store.Change) { c.Body = make([]byte, store.MaxBodyBytes+1) }),
		"many indexes":    with(func(c *store.Change) { c.Indexes = make([]store.Index, store.MaxIndexes+1) }),
		"unnamed index":   index("", "v"),
		"long index":      index("i", long),
		"NUL in an index": index("i", "\x00"),
		"a check of any":  with(func(c *store.Change) { c.Check, c.Body, c.Expect = true, nil, store.AnyRevision }),
		"a check, a body": with(func(c *store.Change) { c.Check = true }),
		"a check, gone":   with(func(c *store.Change) { c.Check, c.Body, c.Delete = true, nil, true }),
		"one key twice":   append(with(func(*store.Change) {}), with(func(*store.Change) {})...),
		"many changes":    many,
		"a heavy commit":  heavy,
	} {
		if _, err := f.store.Commit(t.Context(), changes...); lambda.KindOf(err) != lambda.InvalidParameter {
			t.Errorf("%s: Commit gave %v, want an error of kind InvalidParameter", name, err)
		}
	}
	for _, limit := range []int{-1, 0, store.MaxPageLimit + 1} {
		_, err := f.store.List(t.Context(), "thing", "", "", store.Page{Limit: limit})
		_, err2 := f.store.Lookup(t.Context(), "thing", "", store.Index{Name: "i"}, store.Page{Limit: limit})
		_, err3 := f.store.Watch(t.Context(), 0, limit)
		for _, err := range []error{err, err2, err3} {
			if lambda.KindOf(err) != lambda.InvalidParameter {
				t.Errorf("limit %d gave %v", limit, err)
			}
		}
	}
	f.hasNot(key("a"))
	f.commit(many[1:]...) // exactly at the bound
}

func bodiesAreTheCallersOwn(t testing.TB, open Open) {
	f := fresh(t, open)
	body := []byte("original")
	r := f.commit(store.Change{Key: key("a"), Body: body})[0]
	body[0] = 'X'
	o, err := f.store.Get(t.Context(), key("a"))
	if err != nil {
		t.Fatal(err)
	}
	o.Body[0] = 'Y'
	f.has(key("a"), "original", r)
}

func bodiesOfEverySize(t testing.TB, open Open) {
	f := fresh(t, open)
	for _, size := range []int{0, 1, 100, 4000, 4096, 5000, 1 << 20, store.MaxBodyBytes} {
		body := strings.Repeat("body", size/4+1)[:size]
		name := fmt.Sprint("size ", size)
		r := f.create(name, body)
		f.has(key(name), body, r)
	}
}
