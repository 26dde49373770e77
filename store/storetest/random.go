package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cloister/lambda"
	"cloister/store"
)

// randomCallsAnswerAsTheModel makes random calls of an engine and of the model and compares all answers. All runs
// share one store, each in an account of its own.
func randomCallsAnswerAsTheModel(t testing.TB, open Open) {
	directory := t.TempDir()
	engine := open(t, directory)
	defer func() { engine.Close() }()
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		present, err := engine.Now(t.Context())
		if err != nil {
			r.Fatal(err)
		}
		p := &pair{T: r, tb: t, engine: engine, model: newModel(present.Revision), account: fmt.Sprint(run), began: present.Revision}
		r.Repeat(map[string]func(*rapid.T){
			"commit": p.commit,
			"get":    p.get,
			"list":   p.list,
			"lookup": p.lookup,
			"watch":  p.watch,
		})
		if run%20 == 0 {
			if err := engine.Close(); err != nil {
				r.Fatal(err)
			}
			engine = open(t, directory)
		}
	})
}

// A pair is an engine and the model that it is compared with.
type pair struct {
	*rapid.T
	tb      testing.TB
	engine  store.Store
	model   *model
	account string
	began   uint64
}

var (
	randomNames = rapid.SampledFrom([]string{"a", "ab", "b", "b/1", "b/2", "\u00e9"})
	randomIndex = rapid.Custom(func(t *rapid.T) store.Index {
		return store.Index{Name: rapid.SampledFrom([]string{"i", "j"}).Draw(t, "index"), Value: rapid.SampledFrom([]string{"", "v"}).Draw(t, "value")}
	})
	randomBodies = rapid.SliceOfN(rapid.Byte(), 0, 40)
)

func (p *pair) key(t *rapid.T) store.Key {
	return store.Key{Kind: rapid.SampledFrom([]string{"k", "kk"}).Draw(t, "kind"), Account: p.account, Name: randomNames.Draw(t, "name")}
}

func (p *pair) commit(t *rapid.T) {
	var changes []store.Change
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		c := store.Change{Key: p.key(t)}
		current := p.model.objects[c.Key].revision
		c.Expect = rapid.SampledFrom([]uint64{0, current, current, current, current + 1, store.AnyRevision}).Draw(t, "expect")
		switch rapid.SampledFrom([]string{"write", "write", "delete", "check"}).Draw(t, "sort") {
		case "write":
			c.Body = randomBodies.Draw(t, "body")
			c.Indexes = rapid.SliceOfN(randomIndex, 0, 3).Draw(t, "indexes")
		case "delete":
			c.Delete = true
		case "check":
			c.Check = true
		}
		changes = append(changes, c)
	}
	got, err := p.engine.Commit(p.tb.Context(), changes...)
	want, wanted := p.model.Commit(p.tb.Context(), changes...)
	same(t, fmt.Sprintf("Commit %+v", changes), got, err, want, wanted)
}

func (p *pair) get(t *rapid.T) {
	k := p.key(t)
	got, err := p.engine.Get(p.tb.Context(), k)
	want, wanted := p.model.Get(p.tb.Context(), k)
	same(t, fmt.Sprintf("Get %v", k), got, err, want, wanted)
}

func (p *pair) page(t *rapid.T) store.Page {
	return store.Page{After: rapid.SampledFrom([]string{"", "a", "b", "b/1", "zz"}).Draw(t, "after"), Limit: rapid.IntRange(0, 8).Draw(t, "limit")}
}

func (p *pair) list(t *rapid.T) {
	kind, page, prefix := p.key(t).Kind, p.page(t), rapid.SampledFrom([]string{"", "b", "b/", "\u00e9", "x"}).Draw(t, "prefix")
	got, err := p.engine.List(p.tb.Context(), kind, p.account, prefix, page)
	want, wanted := p.model.List(p.tb.Context(), kind, p.account, prefix, page)
	same(t, fmt.Sprintf("List %q %+v", prefix, page), got, err, want, wanted)
}

func (p *pair) lookup(t *rapid.T) {
	kind, page, x := p.key(t).Kind, p.page(t), randomIndex.Draw(t, "index")
	got, err := p.engine.Lookup(p.tb.Context(), kind, p.account, x, page)
	want, wanted := p.model.Lookup(p.tb.Context(), kind, p.account, x, page)
	same(t, fmt.Sprintf("Lookup %v %+v", x, page), got, err, want, wanted)
}

func (p *pair) watch(t *rapid.T) {
	last := p.model.last()
	if last == p.began {
		return // it would wait
	}
	after := rapid.Uint64Range(p.began, last-1).Draw(t, "after")
	limit := rapid.IntRange(0, 20).Draw(t, "limit")
	got, err := p.engine.Watch(p.tb.Context(), after, limit)
	want, wanted := p.model.Watch(p.tb.Context(), after, limit)
	same(t, fmt.Sprintf("Watch after %d", after), got, err, want, wanted)
}

// same compares answers, and errors as far as the contract tells them apart.
func same[V any](t *rapid.T, call string, got V, err error, want V, wanted error) {
	if sort(err) != sort(wanted) || cmp.Diff(want, got, cmp.Comparer(equalBytes)) != "" {
		t.Fatalf("%s gave %v, %v; want %v, %v", call, got, err, want, wanted)
	}
}

func equalBytes(a, b []byte) bool { return string(a) == string(b) }

func sort(err error) string {
	for _, known := range []error{store.ErrNotFound, store.ErrTooOld, store.ErrClosed} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if conflict, ok := errors.AsType[*store.Conflict](err); ok {
		return conflict.Error()
	}
	if err != nil {
		return lambda.KindOf(err).String()
	}
	return ""
}
