package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cloister/store"
)

func concurrentWritersLoseNoUpdate(t testing.TB, open Open) {
	const writers, rounds = 8, 50
	f := fresh(t, open)
	f.create("counter", "")
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for done := 0; done < rounds; {
				o, err := f.store.Get(t.Context(), key("counter"))
				if err != nil {
					t.Error(err)
					return
				}
				// A body grows by one byte per update; each update also leaves a trace.
				_, err = f.store.Commit(t.Context(),
					store.Change{Key: o.Key, Expect: o.Revision, Body: append(o.Body, 'x')},
					store.Change{Key: key(fmt.Sprintf("trace %d %d", w, done)), Body: nil})
				if err == nil {
					done++
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	o, err := f.store.Get(t.Context(), key("counter"))
	if err != nil || len(o.Body) != writers*rounds {
		t.Errorf("the counter shows %d updates, %v; want %d", len(o.Body), err, writers*rounds)
	}
	if n := len(f.list("trace ", store.Page{Limit: store.MaxPageLimit})); n != writers*rounds {
		t.Errorf("%d traces, want %d", n, writers*rounds)
	}
}

func readSeesEveryFinishedCommit(t testing.TB, open Open) {
	f := fresh(t, open)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			k, expect := key(fmt.Sprint(w)), uint64(0)
			for i := range 100 {
				body := fmt.Sprint(w, i)
				revisions, err := f.store.Commit(t.Context(), store.Change{Key: k, Expect: expect, Body: []byte(body)})
				if err != nil {
					t.Error(err)
					return
				}
				expect = revisions[0]
				f.has(k, body, expect)
			}
		})
	}
	all.Wait()
}

func reopeningFindsEverything(t testing.TB, open Open) {
	directory := t.TempDir()
	var last uint64
	for i := range 3 {
		f := fixture{t, open(t, directory)}
		for j := range i {
			f.has(key(fmt.Sprint(j)), fmt.Sprint("body ", j), uint64(j+1))
		}
		f.same("the index", f.list("", store.Page{Limit: 10}), f.lookup("all", "yes", store.Page{Limit: 10}))
		r := f.create(fmt.Sprint(i), fmt.Sprint("body ", i), store.Index{Name: "all", Value: "yes"})
		if r != last+1 {
			t.Errorf("revision %d follows %d over a restart", r, last)
		}
		last = r
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func cancelledCallDoesNothing(t testing.TB, open Open) {
	f := fresh(t, open)
	at := f.create("a", "one")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err1 := f.store.Commit(ctx, store.Change{Key: key("a"), Expect: at, Body: []byte("two")})
	_, err2 := f.store.Get(ctx, key("a"))
	_, err3 := f.store.List(ctx, "thing", "", "", store.Page{Limit: 1})
	_, err4 := f.store.Lookup(ctx, "thing", "", store.Index{Name: "i"}, store.Page{Limit: 1})
	_, err5 := f.store.Now(ctx)
	_, err6 := f.store.Watch(ctx, 0, 1)
	_, err7 := f.store.Watch(ctx, at, 1)
	for _, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled call gave %v, want context.Canceled", err)
		}
	}
	f.has(key("a"), "one", at)
}

// The context may end while a commit waits, runs or has just finished. The answer must be
// true in every case.
func cancelledCommitIsAppliedOrIsNot(t testing.TB, open Open) {
	f := fresh(t, open)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 40 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*w)*10*time.Microsecond)
				k := key(fmt.Sprint(w, " ", i))
				revisions, err := f.store.Commit(ctx, store.Change{Key: k, Body: []byte("x")})
				cancel()
				switch {
				case err == nil:
					f.has(k, "x", revisions[0])
				case errors.Is(err, context.DeadlineExceeded):
					f.hasNot(k)
				default:
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func afterCloseEverythingIsRefused(t testing.TB, open Open) {
	f := fresh(t, open)
	f.create("a", "one")
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	_, err1 := f.store.Commit(t.Context(), store.Change{Key: key("b")})
	_, err2 := f.store.Get(t.Context(), key("a"))
	_, err3 := f.store.List(t.Context(), "thing", "", "", store.Page{Limit: 1})
	_, err4 := f.store.Lookup(t.Context(), "thing", "", store.Index{Name: "i"}, store.Page{Limit: 1})
	_, err5 := f.store.Now(t.Context())
	_, err6 := f.store.Watch(t.Context(), 0, 1)
	for _, err := range []error{err1, err2, err3, err4, err5, err6} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("after Close a call gave %v, want ErrClosed", err)
		}
	}
	if err := f.store.Close(); err != nil {
		t.Errorf("a second Close gave %v", err)
	}
}
