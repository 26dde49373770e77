package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cloister/store"
)

// A model is the contract in its plainest form: maps under one lock. It keeps nothing over the end of the
// process and seals nothing. Engines are compared with it, and the suite itself is tried on it.
type model struct {
	mu      sync.Mutex // guards everything below
	objects map[store.Key]entry
	before  uint64        // the revision at which the log begins
	events  []store.Event // all since then
	closed  bool
	rung    chan struct{} // closed by the next commit
}

type entry struct {
	revision uint64
	body     []byte
	indexes  []store.Index
}

// newModel returns an empty store whose last revision is at.
func newModel(at uint64) *model {
	return &model{objects: map[store.Key]entry{}, before: at, rung: make(chan struct{})}
}

var _ store.Store = (*model)(nil)

// begin locks the model; the caller unlocks it if the error is nil.
func (m *model) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return store.ErrClosed
	}
	return nil
}

func (m *model) last() uint64 { return m.before + uint64(len(m.events)) }

// Get implements store.Store.
func (m *model) Get(ctx context.Context, k store.Key) (store.Object, error) {
	if err := m.begin(ctx); err != nil {
		return store.Object{}, err
	}
	defer m.mu.Unlock()
	e, ok := m.objects[k]
	if !ok {
		return store.Object{}, store.ErrNotFound
	}
	return store.Object{Key: k, Revision: e.revision, Body: slices.Clone(e.body)}, nil
}

// List implements store.Store.
func (m *model) List(ctx context.Context, kind, account, prefix string, p store.Page) ([]store.Object, error) {
	return m.find(ctx, kind, account, p, func(k store.Key, _ entry) bool { return strings.HasPrefix(k.Name, prefix) })
}

// Lookup implements store.Store.
func (m *model) Lookup(ctx context.Context, kind, account string, x store.Index, p store.Page) ([]store.Object, error) {
	return m.find(ctx, kind, account, p, func(_ store.Key, e entry) bool { return slices.Contains(e.indexes, x) })
}

func (m *model) find(ctx context.Context, kind, account string, p store.Page, want func(store.Key, entry) bool) ([]store.Object, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var found []store.Object
	for k, e := range m.objects {
		if k.Kind == kind && k.Account == account && k.Name > p.After && want(k, e) {
			found = append(found, store.Object{Key: k, Revision: e.revision, Body: slices.Clone(e.body)})
		}
	}
	slices.SortFunc(found, func(a, b store.Object) int { return strings.Compare(a.Name, b.Name) })
	return found[:min(len(found), p.Limit)], nil
}

// Commit implements store.Store.
func (m *model) Commit(ctx context.Context, changes ...store.Change) ([]uint64, error) {
	if err := store.CheckCommit(changes); err != nil {
		return nil, err
	}
	if err := m.begin(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	for _, c := range changes {
		current := m.objects[c.Key].revision
		if c.Expect != store.AnyRevision && (c.Expect != current || c.Delete && current == 0) {
			return nil, &store.Conflict{Key: c.Key, Expected: c.Expect, Current: current}
		}
	}
	var revisions []uint64
	for _, c := range changes {
		if c.Check {
			revisions = append(revisions, c.Expect)
			continue
		}
		r := m.last() + 1
		revisions = append(revisions, r)
		m.events = append(m.events, store.Event{Key: c.Key, Revision: r, Deleted: c.Delete})
		if c.Delete {
			delete(m.objects, c.Key)
		} else {
			m.objects[c.Key] = entry{r, slices.Clone(c.Body), slices.Clone(c.Indexes)}
		}
	}
	m.ring()
	return revisions, nil
}

func (m *model) ring() {
	close(m.rung)
	m.rung = make(chan struct{})
}

// Now implements store.Store.
func (m *model) Now(ctx context.Context) (store.Moment, error) {
	if err := m.begin(ctx); err != nil {
		return store.Moment{}, err
	}
	defer m.mu.Unlock()
	return store.Moment{Revision: m.last(), Time: time.Now().UTC().Round(0)}, nil
}

// Watch implements store.Store.
func (m *model) Watch(ctx context.Context, after uint64, limit int) ([]store.Event, error) {
	if err := store.CheckLimit(limit); err != nil {
		return nil, err
	}
	for {
		if err := m.begin(ctx); err != nil {
			return nil, err
		}
		oldest, last, rung := max(m.before, m.last()-min(m.last(), store.KeptChanges)), m.last(), m.rung
		events := slices.Clone(m.events)
		m.mu.Unlock()
		if after < oldest || after > last {
			return nil, store.ErrTooOld
		}
		if events = events[after-m.before:]; len(events) > 0 {
			return events[:min(len(events), limit)], nil
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close implements store.Store.
func (m *model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.ring()
	}
	return nil
}

// reopen returns what another process would find.
func (m *model) reopen() (*model, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		return nil, errors.New("the model is still open")
	}
	return &model{objects: maps.Clone(m.objects), before: m.before, events: slices.Clone(m.events), rung: make(chan struct{})}, nil
}
