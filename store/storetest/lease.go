package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"cloister/store"
)

func counterHasNoGaps(t testing.TB, open Open) {
	const callers, rounds = 6, 20
	f := fresh(t, open)
	var mu sync.Mutex
	var taken []int
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for done := 0; done < rounds; {
				n, take, err := store.NextNumber(t.Context(), f.store, key("counter"))
				if err != nil {
					t.Error(err)
					return
				}
				// As a published version: counter, object and index in one commit.
				_, err = f.store.Commit(t.Context(), take, store.Change{
					Key: key(fmt.Sprintf("version %04d", n)), Indexes: []store.Index{{Name: "of", Value: "function"}},
				})
				if err == nil {
					done++
					mu.Lock()
					taken = append(taken, int(n))
					mu.Unlock()
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	slices.Sort(taken)
	var want []string
	for i, n := range taken {
		if n != i+1 {
			t.Fatalf("the numbers are %v", taken)
		}
		want = append(want, fmt.Sprintf("version %04d", n))
	}
	f.same("the versions", want, f.lookup("of", "function", store.Page{Limit: store.MaxPageLimit}))
}

const long = time.Hour

func (f fixture) acquire(holder string, term time.Duration) store.Lease {
	f.Helper()
	l, err := store.Acquire(f.Context(), f.store, "shard 1", holder, term)
	if err != nil {
		f.Fatal(err)
	}
	return l
}

func leaseHasOneHolder(t testing.TB, open Open) {
	f := fresh(t, open)
	first := f.acquire("first", long)
	for _, holder := range []string{"second", "first"} {
		if l, err := store.Acquire(t.Context(), f.store, "shard 1", holder, long); !errors.Is(err, store.ErrHeld) {
			t.Errorf("while it is held %s got %v, %v; want ErrHeld", holder, l, err)
		}
	}
	if other, err := store.Acquire(t.Context(), f.store, "shard 2", "second", long); err != nil || other.Epoch <= first.Epoch {
		t.Errorf("another lease gave epoch %d, %v; want more than %d", other.Epoch, err, first.Epoch)
	}
	renewed, err := first.Renew(t.Context(), f.store, 2*long)
	if err != nil || renewed.Epoch != first.Epoch || !renewed.Expires.After(first.Expires) {
		t.Errorf("renewed, %v became %v, %v", first, renewed, err)
	}
	if err := renewed.Release(t.Context(), f.store); err != nil {
		t.Fatal(err)
	}
	second := f.acquire("second", long)
	if second.Epoch <= first.Epoch {
		t.Errorf("epoch %d follows %d", second.Epoch, first.Epoch)
	}

	// Of many who try at once one gets it.
	if err := second.Release(t.Context(), f.store); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	got := make(chan store.Lease, 8)
	for i := range 8 {
		all.Go(func() {
			if l, err := store.Acquire(t.Context(), f.store, "shard 1", fmt.Sprint(i), long); err == nil {
				got <- l
			} else if !errors.Is(err, store.ErrHeld) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(got) != 1 {
		t.Errorf("%d holders have the lease", len(got))
	}
}

// awaitLease acquires the lease as soon as that is possible.
func (f fixture) awaitLease(holder string, term time.Duration) store.Lease {
	f.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		l, err := store.Acquire(f.Context(), f.store, "shard 1", holder, term)
		if err == nil {
			return l
		}
		if !errors.Is(err, store.ErrHeld) {
			f.Fatal(err)
		}
	}
	f.Fatal("the lease does not expire")
	return store.Lease{}
}

func expiredLeaseCanBeTaken(t testing.TB, open Open) {
	directory := t.TempDir()
	f := fixture{t, open(t, directory)}
	first := f.acquire("first", 50*time.Millisecond)
	before, err := f.store.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.Time.Before(first.Expires) {
		if _, err := store.Acquire(t.Context(), f.store, "shard 1", "second", long); err == nil {
			if now, _ := f.store.Now(t.Context()); now.Time.Before(first.Expires) {
				t.Error("a lease was taken before it expired")
			}
		}
	}
	second := f.awaitLease("second", 50*time.Millisecond)
	now, err := f.store.Now(t.Context())
	if err != nil || now.Time.Before(first.Expires) {
		t.Errorf("at %v, %v a lease was taken that expires at %v", now.Time, err, first.Expires)
	}
	if _, err := first.Renew(t.Context(), f.store, long); !first.Lost(err) {
		t.Errorf("the first holder renewed: %v", err)
	}
	// It also expires while nobody has the store open, and nobody takes it from a holder who is only late.
	for now.Time.Before(second.Expires) {
		if now, err = f.store.Now(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if second, err = second.Renew(t.Context(), f.store, time.Millisecond); err != nil {
		t.Errorf("a late holder whose lease nobody took: %v", err)
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f = fixture{t, open(t, directory)}
	defer f.store.Close()
	if third := f.awaitLease("third", long); third.Epoch <= second.Epoch {
		t.Errorf("epoch %d follows %d", third.Epoch, second.Epoch)
	}
}

func loserWritesNothing(t testing.TB, open Open) {
	f := fresh(t, open)
	first := f.acquire("first", time.Nanosecond)
	write := func(l store.Lease, body string) error {
		_, err := f.store.Commit(t.Context(), l.Fence(), store.Change{Key: key("queue"), Expect: store.AnyRevision, Body: []byte(body)})
		return err
	}
	if err := write(first, "first"); err != nil {
		t.Fatalf("an expired lease that nobody took: %v", err)
	}
	second := f.awaitLease("second", long)
	if err := write(second, "second"); err != nil {
		t.Fatal(err)
	}
	at := f.present()
	if err := write(first, "stale"); !errors.Is(err, store.ErrConflict) || !first.Lost(err) || second.Lost(err) {
		t.Errorf("the first holder's write gave %v", err)
	}
	if err := first.Release(t.Context(), f.store); !first.Lost(err) {
		t.Errorf("the first holder's release gave %v", err)
	}
	f.at(at)
	// Another conflict is not taken for a loss.
	_, err := f.store.Commit(t.Context(), second.Fence(), store.Change{Key: key("queue"), Body: []byte("x")})
	if !errors.Is(err, store.ErrConflict) || second.Lost(err) {
		t.Errorf("a conflict of another object gave %v", err)
	}
	if err := second.Release(t.Context(), f.store); err != nil {
		t.Fatal(err)
	}
	if err := write(second, "released"); !second.Lost(err) {
		t.Errorf("after its release the holder's write gave %v", err)
	}
}

// Holders with short terms write their epoch and are overtaken in the middle of it. No write may follow one of
// a later holder.
func fenceUnderContention(t testing.TB, open Open) {
	const holders, writes = 6, 300
	f := fresh(t, open)
	type written struct{ revision, epoch uint64 }
	var mu sync.Mutex
	var history []written
	write := func(l store.Lease) error {
		revisions, err := f.store.Commit(t.Context(), l.Fence(),
			store.Change{Key: key("queue"), Expect: store.AnyRevision, Body: strconv.AppendUint(nil, l.Epoch, 10)})
		if err == nil {
			mu.Lock()
			history = append(history, written{revisions[1], l.Epoch})
			mu.Unlock()
		}
		return err
	}
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(history) >= writes
	}
	var all sync.WaitGroup
	for h := range holders {
		all.Go(func() {
			for !enough() {
				l, err := store.Acquire(t.Context(), f.store, "shard 1", fmt.Sprint(h), time.Microsecond)
				for n := 0; err == nil && n < writes/10; n++ {
					err = write(l)
				}
				if err != nil && !errors.Is(err, store.ErrHeld) && !l.Lost(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	slices.SortFunc(history, func(a, b written) int { return cmp.Compare(a.revision, b.revision) })
	changes := 0
	for i := 1; i < len(history); i++ {
		if history[i].epoch < history[i-1].epoch {
			t.Fatalf("revision %d was written under epoch %d after epoch %d", history[i].revision, history[i].epoch, history[i-1].epoch)
		}
		if history[i].epoch != history[i-1].epoch {
			changes++
		}
	}
	if changes < 3 {
		t.Errorf("the lease changed hands %d times in %d writes: the test shows nothing", changes, len(history))
	}
}
