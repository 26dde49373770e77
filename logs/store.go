package logs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"cloister/internal/durable"
	"cloister/internal/seal"
	"cloister/lambda"
)

var (
	accountPattern = regexp.MustCompile(`^\d{12}$`)
	groupPattern   = regexp.MustCompile(`^[.\-_/#A-Za-z0-9]+$`)
	streamPattern  = regexp.MustCompile(`^[^:*]+$`)
)

// errGroupDeleted is the answer of a group that was deleted after it was looked up.
var errGroupDeleted = errors.New("logs: the group was deleted meanwhile")

// Store keeps log events. Its methods may be called concurrently.
type Store struct {
	directory string
	key       *seal.Key
	now       func() time.Time
	logger    *slog.Logger
	limits    Limits
	counters  counters

	flushing   sync.Mutex      // held while anything in the directory is written; outermost lock
	unsynced   map[string]bool // guarded by flushing; files and directories to sync
	complained time.Time       // guarded by flushing; when a failing disk was reported

	mu       sync.RWMutex        // held for short look-ups only, and never while waiting
	accounts map[string]*account // guarded by mu
	dirty    map[*group]struct{} // guarded by mu; groups with something to flush

	making sync.Mutex // held while a group is made; between flushing and mu in order

	scans  chan struct{} // holds one value for each read under way
	wake   chan struct{} // asks the flusher not to wait
	stop   chan struct{}
	closed atomic.Bool
	done   sync.WaitGroup
}

// An account holds the groups of one account.
type account struct {
	groups  map[string]*group // guarded by Store.mu
	bytes   atomic.Int64      // on disk
	streams atomic.Int64      // in memory
}

// Open reads what groups there are and starts writing in the background. A group that cannot
// be read is counted as corrupt, reported, and left alone.
func Open(c Config) (*Store, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Store{
		directory: c.Directory, key: c.Key, now: c.Now, logger: c.Logger, limits: c.Limits.withDefaults(),
		unsynced: map[string]bool{}, accounts: map[string]*account{}, dirty: map[*group]struct{}{},
		scans: make(chan struct{}, concurrentScans), wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if err := durable.MakeDirectory(c.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	if err := s.readAccounts(); err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	s.done.Go(s.run)
	return s, nil
}

// deletedPrefix begins the name of a group's directory that is being deleted.
const deletedPrefix = ".deleted-"

func (s *Store) readAccounts() error {
	accounts, err := os.ReadDir(s.directory)
	if err != nil {
		return err
	}
	for _, a := range accounts {
		if !accountPattern.MatchString(a.Name()) {
			continue
		}
		held := s.account(a.Name())
		groups, err := os.ReadDir(filepath.Join(s.directory, a.Name()))
		if err != nil {
			return err
		}
		for _, entry := range groups {
			directory := filepath.Join(s.directory, a.Name(), entry.Name())
			if strings.HasPrefix(entry.Name(), deletedPrefix) {
				if err := os.RemoveAll(directory); err != nil {
					return err
				}
				continue
			}
			g := s.newGroup(held)
			err := openGroup(directory, g, s.key)
			if err == nil && (g.Account != a.Name() || s.groupDirectory(g.Account, g.Name) != directory) {
				err = seal.ErrCorrupt // moved here from elsewhere
			}
			if err != nil {
				s.counters.corrupt.Add(1)
				s.logger.Error("log group cannot be read and is left out", "directory", directory, "error", err)
				continue
			}
			held.groups[g.Name] = g
			held.bytes.Add(g.size())
		}
	}
	return nil
}

// account returns an account, which it makes. Preconditions: mu is held, or nobody else has
// the store yet.
func (s *Store) account(id string) *account {
	a := s.accounts[id]
	if a == nil {
		a = &account{groups: map[string]*group{}}
		s.accounts[id] = a
	}
	return a
}

func (s *Store) newGroup(a *account) *group {
	return &group{account: a, limits: &s.limits, counters: &s.counters, logger: s.logger}
}

// groupDirectory returns where a group is: its name is nobody's business who reads the disk.
func (s *Store) groupDirectory(accountID, name string) string {
	sum := s.key.Sum(seal.Bind("log group", accountID, name))
	return filepath.Join(s.directory, accountID, hex.EncodeToString(sum[:16]))
}

// find returns a group, or nil.
func (s *Store) find(accountID, name string) *group {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if a := s.accounts[accountID]; a != nil {
		return a.groups[name]
	}
	return nil
}

// errTooManyGroups is the error of make when the account has no room for another group.
var errTooManyGroups = &lambda.Error{Kind: lambda.TooLarge, Op: "make log group", Message: "the account has as many log groups as it may"}

// make makes a group durably. Made is false if it exists.
func (s *Store) make(accountID, name string) (g *group, made bool, err error) {
	s.making.Lock()
	defer s.making.Unlock()
	if g := s.find(accountID, name); g != nil {
		return g, false, nil
	}
	s.mu.Lock()
	a := s.account(accountID)
	full := len(a.groups) >= s.limits.GroupsPerAccount
	s.mu.Unlock()
	if full {
		return nil, false, errTooManyGroups
	}
	g = s.newGroup(a)
	var id [16]byte
	rand.Read(id[:])
	g.description = description{ID: hex.EncodeToString(id[:]), Account: accountID, Name: name, Created: s.now().UnixMilli()}
	directory := s.groupDirectory(accountID, name)
	g.setUp(directory, s.key)
	g.loaded = true
	data, err := json.Marshal(g.description)
	if err != nil {
		return nil, false, fmt.Errorf("make log group: %w", err)
	}
	if err := durable.MakeDirectory(directory, 0o700); err != nil {
		return nil, false, fmt.Errorf("make log group: %w", err)
	}
	if err := s.key.WriteFile(filepath.Join(directory, descriptionName), descriptionName, data); err != nil {
		return nil, false, fmt.Errorf("make log group: %w", err)
	}
	s.mu.Lock()
	a.groups[name] = g
	s.mu.Unlock()
	return g, true, nil
}

// Append stores events of one stream in the order given; group and stream are made if need
// be. It does not wait for the disk, except to make a group, and owns the events from then on.
// Dropped says how many events were not stored because of a limit; the stream will say so, too.
// Events longer than MaxEventBytes are split. Errors of kind lambda.InvalidParameter mean
// that a name is none; after any error nothing was stored.
func (s *Store) Append(_ context.Context, accountID, groupName, streamName string, events []lambda.LogEvent) (dropped int, err error) {
	if err := checkNames(accountID, groupName, streamName); err != nil {
		return len(events), err
	}
	now := s.now()
	ingested := now.UnixMilli()
	list := make([]event, 0, len(events))
	for _, e := range events {
		at := max(0, e.Time.UnixMilli())
		for part := range split(e.Message) {
			list = append(list, event{time: at, ingested: ingested, message: part})
		}
	}
	return s.add(now, accountID, groupName, streamName, list, false)
}

// add is Append for checked names and events; whole is that of group.append.
func (s *Store) add(now time.Time, accountID, groupName, streamName string, events []event, whole bool) (dropped int, err error) {
	if s.closed.Load() {
		return len(events), lambda.Errorf(lambda.Unavailable, "append log events", "the log store is closed")
	}
	for range 10 { // a group that is deleted in between is made again
		g := s.find(accountID, groupName)
		if g == nil {
			if g, _, err = s.make(accountID, groupName); err != nil {
				s.counters.dropped.Add(uint64(len(events)))
				return len(events), err
			}
		}
		dropped, err = g.append(now, streamName, events, whole)
		if errors.Is(err, errGroupDeleted) {
			continue
		}
		if err != nil {
			s.counters.dropped.Add(uint64(len(events)))
			return len(events), err
		}
		s.touch(g)
		return dropped, nil
	}
	return len(events), lambda.Errorf(lambda.Unavailable, "append log events", "the log group is being deleted")
}

// touch has a group flushed soon, or at once if it has gathered much.
func (s *Store) touch(g *group) {
	s.mu.Lock()
	s.dirty[g] = struct{}{}
	s.mu.Unlock()
	g.mu.Lock()
	much := g.pendingBytes >= flushBytes
	g.mu.Unlock()
	if much {
		select {
		case s.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

func checkNames(accountID, groupName, streamName string) error {
	const op = "append log events"
	switch {
	case !accountPattern.MatchString(accountID):
		return lambda.Errorf(lambda.InvalidParameter, op, "%.20q is not an account id", accountID)
	case len(groupName) > maxGroupName || !groupPattern.MatchString(groupName):
		return lambda.Errorf(lambda.InvalidParameter, op, "%.80q is not the name of a log group", groupName)
	case len(streamName) > maxStreamName || !streamPattern.MatchString(streamName) || !utf8.ValidString(streamName):
		return lambda.Errorf(lambda.InvalidParameter, op, "%.80q is not the name of a log stream", streamName)
	}
	return nil
}

// split yields a message in parts of at most MaxEventBytes, and no character in two parts.
func split(message string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(message) > MaxEventBytes {
			n := MaxEventBytes
			for n > MaxEventBytes-utf8.UTFMax && !utf8.RuneStart(message[n]) {
				n--
			}
			if !yield(message[:n]) {
				return
			}
			message = message[n:]
		}
		yield(message)
	}
}

// deleteGroup deletes a group and all that is in it. It returns false if there is none.
func (s *Store) deleteGroup(accountID, name string) (bool, error) {
	s.flushing.Lock() // no frame of the old group may be written into a new one of its name
	defer s.flushing.Unlock()
	s.making.Lock()
	defer s.making.Unlock()
	s.mu.Lock()
	a := s.accounts[accountID]
	var g *group
	if a != nil {
		g = a.groups[name]
		delete(a.groups, name)
	}
	if g != nil {
		delete(s.dirty, g)
	}
	s.mu.Unlock()
	if g == nil {
		return false, nil
	}
	size := g.size()
	g.mu.Lock()
	g.deleted = true
	g.counters.pending.Add(-g.pendingBytes)
	a.streams.Add(-int64(len(g.streams)))
	g.pending, g.pendingBytes, g.created, g.blocks, g.segments = nil, 0, nil, nil, nil
	g.mu.Unlock()
	a.bytes.Add(-size)

	grave := filepath.Join(filepath.Dir(g.directory), deletedPrefix+g.ID)
	if err := os.Rename(g.directory, grave); err != nil {
		return true, fmt.Errorf("delete log group: %w", err)
	}
	if err := durable.SyncDirectory(filepath.Dir(grave)); err != nil {
		return true, fmt.Errorf("delete log group: %w", err)
	}
	if err := os.RemoveAll(grave); err != nil { // the next start tries again
		s.logger.Warn("deleted log group stays on disk", "error", err)
	}
	return true, nil
}

// A groupView is what DescribeLogGroups shows.
type groupView struct {
	name    string
	created int64
	bytes   int64
}

// listGroups returns the groups of an account whose name passes, in order, after a name.
func (s *Store) listGroups(accountID string, pass func(string) bool, after string, limit int) []groupView {
	s.mu.RLock()
	var groups []*group
	if a := s.accounts[accountID]; a != nil {
		for name, g := range a.groups {
			if name > after && pass(name) {
				groups = append(groups, g)
			}
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(groups, func(a, b *group) int { return strings.Compare(a.Name, b.Name) })
	views := make([]groupView, 0, min(limit, len(groups)))
	for _, g := range groups[:min(limit, len(groups))] {
		views = append(views, groupView{g.Name, g.Created, g.size()})
	}
	return views
}

// Counters returns what was dropped, found damaged and deleted for space since Open.
func (s *Store) Counters() Counters {
	return Counters{Dropped: s.counters.dropped.Load(), Corrupt: s.counters.corrupt.Load(), Evicted: s.counters.evicted.Load()}
}

// Close makes everything durable and stops writing. Appends fail afterwards; reads do not.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	close(s.stop)
	s.done.Wait()
	return s.Sync()
}
