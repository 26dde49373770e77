package sqlite

import (
	"fmt"
	"sync/atomic"
	"testing"

	"cloister/store"
)

// BenchmarkCommit measures durable commits of 1 KB with one index, by number of callers.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers, " callers"), func(b *testing.B) {
			s, err := Open(testConfig(b.TempDir()))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var next atomic.Int64
			body := make([]byte, 1024)
			done := make(chan error)
			b.ResetTimer()
			for range callers {
				go func() {
					for {
						n := next.Add(1)
						if n > int64(b.N) {
							done <- nil
							return
						}
						_, err := s.Commit(b.Context(), store.Change{
							Key:     store.Key{Kind: "thing", Account: "111111111111", Name: fmt.Sprint(n)},
							Body:    body,
							Indexes: []store.Index{{Name: "all", Value: "yes"}},
						})
						if err != nil {
							done <- err
							return
						}
					}
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// BenchmarkGet measures reads of 1 KB objects out of 10,000.
func BenchmarkGet(b *testing.B) {
	const objects = 10_000
	s, err := Open(testConfig(b.TempDir()))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	key := func(n int) store.Key {
		return store.Key{Kind: "thing", Account: "111111111111", Name: fmt.Sprint(n % objects)}
	}
	for n := 0; n < objects; n += store.MaxCommitChanges {
		var changes []store.Change
		for i := range store.MaxCommitChanges {
			changes = append(changes, store.Change{Key: key(n + i), Body: make([]byte, 1024)})
		}
		if _, err := s.Commit(b.Context(), changes...); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for n := range b.N {
		if _, err := s.Get(b.Context(), key(n*7919)); err != nil {
			b.Fatal(err)
		}
	}
}
