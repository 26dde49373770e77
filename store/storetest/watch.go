package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"cloister/store"
)

// events follows the log from a revision to another.
func (f fixture) events(after, to uint64, limit int) (all []store.Event) {
	f.Helper()
	for at := after; at < to; at = all[len(all)-1].Revision {
		page, err := f.store.Watch(f.Context(), at, limit)
		if err != nil || len(page) == 0 || len(page) > limit {
			f.Fatalf("Watch after %d gave %d events, %v; want 1 to %d", at, len(page), err, limit)
		}
		all = append(all, page...)
	}
	return all
}

func watcherSeesEveryChange(t testing.TB, open Open) {
	directory := t.TempDir()
	f := fixture{t, open(t, directory)}
	var want []store.Event
	note := func(name string, deleted bool) {
		want = append(want, store.Event{Key: key(name), Revision: uint64(len(want) + 1), Deleted: deleted})
	}
	for i := range 7 {
		f.commit(
			store.Change{Key: key("a"), Expect: store.AnyRevision, Body: []byte("x")},
			store.Change{Key: key("none"), Check: true},
			store.Change{Key: key(fmt.Sprint(i)), Body: []byte("x")})
		note("a", false)
		note(fmt.Sprint(i), false)
		f.conflict(store.Change{Key: key("b")}, store.Change{Key: key("a"), Expect: 0})
		f.commit(store.Change{Key: key("none"), Check: true})
		if i%2 == 0 {
			f.commit(store.Change{Key: key(fmt.Sprint(i)), Expect: store.AnyRevision, Delete: true})
			note(fmt.Sprint(i), true)
		}
	}
	compare := func(f fixture) {
		last := uint64(len(want))
		for _, limit := range []int{1, 2, 5, store.MaxPageLimit} {
			for after := range last {
				if got := f.events(after, last, limit); !slices.Equal(got, want[after:]) {
					t.Fatalf("by %d after %d the events are %v, want %v", limit, after, got, want[after:])
				}
			}
		}
	}
	compare(f)
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f = fixture{t, open(t, directory)}
	defer f.store.Close()
	compare(f)
}

func watcherIsWoken(t testing.TB, open Open) {
	f := fresh(t, open)
	at := f.create("a", "one")
	type result struct {
		events []store.Event
		err    error
	}
	watch := func(ctx context.Context, after uint64) <-chan result {
		done := make(chan result, 1)
		go func() {
			events, err := f.store.Watch(ctx, after, 10)
			done <- result{events, err}
		}()
		return done
	}
	for i := range 20 { // the commit hits the watcher before, while and after it begins to wait
		waiting := watch(t.Context(), at)
		time.Sleep(time.Duration(i) * 100 * time.Microsecond)
		at = f.create(fmt.Sprint(i), "x")
		if got := <-waiting; got.err != nil || len(got.events) != 1 || got.events[0].Revision != at {
			t.Fatalf("the watcher got %v, %v; want the event %d", got.events, got.err, at)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ends := watch(ctx, at)
	cancel()
	if got := <-ends; !errors.Is(got.err, context.Canceled) {
		t.Errorf("cancelled, the watcher got %v, %v", got.events, got.err)
	}
	closes := watch(t.Context(), at)
	if err := f.store.Close(); err != nil {
		t.Error(err)
	}
	if got := <-closes; !errors.Is(got.err, store.ErrClosed) {
		t.Errorf("after Close the watcher got %v, %v", got.events, got.err)
	}
}

func lateWatcherListsAgain(t testing.TB, open Open) {
	f := fresh(t, open)
	tooOld := func(after uint64) {
		t.Helper()
		if events, err := f.store.Watch(t.Context(), after, 1); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("Watch after %d gave %v, %v; want ErrTooOld", after, events, err)
		}
	}
	tooOld(1) // the future
	tooOld(store.AnyRevision)
	write := func(n int) {
		for done := 0; done < n; {
			var changes []store.Change
			for range min(store.MaxCommitChanges, n-done) {
				changes = append(changes, store.Change{Key: key(fmt.Sprint(len(changes))), Expect: store.AnyRevision})
			}
			f.commit(changes...)
			done += len(changes)
		}
	}
	write(store.KeptChanges)
	if got := f.events(0, 1, 1); got[0].Revision != 1 {
		t.Errorf("the first of the last %d changes is %d", store.KeptChanges, got[0].Revision)
	}
	for range store.KeptChanges / store.MaxCommitChanges {
		write(store.MaxCommitChanges)
		f.create(fmt.Sprint("single ", f.present()), "x") // the bounds of transactions do not matter
		last := f.present()
		if got := f.events(last-store.KeptChanges, last, store.MaxPageLimit); len(got) != store.KeptChanges {
			t.Errorf("at %d the log holds %d changes, want at least %d", last, len(got), store.KeptChanges)
		}
	}
	tooOld(0)
	tooOld(f.present() - 2*store.KeptChanges)
	tooOld(f.present() + 1)
	// Listing again, the watcher finds its way.
	last := f.present()
	after := f.create("new", "x")
	if got := f.events(last, after, 10); len(got) != 1 || got[0].Key != key("new") {
		t.Errorf("after listing again the events are %v", got)
	}
}

func (f fixture) present() uint64 {
	f.Helper()
	m, err := f.store.Now(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return m.Revision
}

func watchersAndWriters(t testing.TB, open Open) {
	const writers, rounds, watchers = 4, 50, 4
	f := fresh(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var idle, all sync.WaitGroup
	for range 200 { // watchers that see one event and never come back, and some who wait for ever
		idle.Go(func() { _, _ = f.store.Watch(ctx, 0, 1) })
	}
	for w := range watchers {
		all.Go(func() {
			for at := uint64(0); at < writers*rounds*2; {
				events, err := f.store.Watch(t.Context(), at, 1+w*7)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range events {
					if at++; e.Revision != at {
						t.Errorf("event %d stands where %d should", e.Revision, at)
						return
					}
				}
			}
		})
	}
	for w := range writers {
		all.Go(func() {
			for i := range rounds {
				if _, err := f.store.Commit(t.Context(), store.Change{Key: key(fmt.Sprint(w, " ", i))},
					store.Change{Key: key(fmt.Sprint("of ", w)), Expect: store.AnyRevision}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	cancel()
	idle.Wait()
}
