package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"cloister/store"
)

// registers are the objects that the linearizability test contends for.
const registers = 3

type register struct {
	revision uint64 // 0 = does not exist
	body     string
}

// A sequence is the state of the store when one call happens after the other.
type sequence struct {
	last      uint64
	registers [registers]register
}

// A call is what one client asked; of the fields below it uses what its kind needs.
type call struct {
	list, get bool // otherwise a commit
	index     int
	expect    [registers]uint64 // of a commit: ignored where AnyRevision and not written
	write     [registers]string // "" = only checked
}

type answer struct {
	conflict  bool
	registers [registers]register // of a list, or of a get the one of index
	revisions [registers]uint64   // of a commit
}

// ignored marks the registers that a commit does not name.
const ignored = ^uint64(1)

// step says whether a call in a state can have had this answer, and the state after it.
func step(state, input, output any) (bool, any) {
	s, in, out := state.(sequence), input.(call), output.(answer)
	switch {
	case in.list:
		return out.registers == s.registers, s
	case in.get:
		return out.registers[in.index] == s.registers[in.index], s
	}
	for i, expect := range in.expect {
		if expect != ignored && expect != store.AnyRevision && expect != s.registers[i].revision {
			return out.conflict, s
		}
	}
	if out.conflict {
		return false, s
	}
	for i, body := range in.write {
		if in.expect[i] == ignored || body == "" {
			continue
		}
		s.last++
		if out.revisions[i] != s.last {
			return false, s
		}
		s.registers[i] = register{s.last, body}
	}
	return true, s
}

// callsAreLinearizable lets clients contend for a few objects with reads, listings and commits over several of
// them, and looks for an order of all calls, in agreement with time, that explains every answer.
func callsAreLinearizable(t testing.TB, open Open) {
	const clients, calls = 5, 24
	f := fresh(t, open)
	began, seed := time.Now(), rand.Uint64()
	var mu sync.Mutex
	var history []porcupine.Operation
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			c := contender{fixture: f, id: client, random: rand.New(rand.NewPCG(seed, uint64(client)))}
			for range calls {
				in := c.next()
				from := time.Since(began)
				out, err := c.do(in)
				to := time.Since(began)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: int64(from), Output: out, Return: int64(to)})
				mu.Unlock()
			}
		})
	}
	all.Wait()
	model := porcupine.Model{Init: func() any { return sequence{} }, Step: step}
	switch porcupine.CheckOperationsTimeout(model, history, 20*time.Second) {
	case porcupine.Illegal:
		t.Error("no order of the calls explains their answers")
	case porcupine.Unknown:
		t.Error("too many orders to decide")
	}
}

// A contender is one client; it remembers what it saw last.
type contender struct {
	fixture
	id, done int
	random   *rand.Rand
	seen     [registers]register
}

func (c *contender) next() call {
	in := call{index: c.random.IntN(registers), expect: [registers]uint64{ignored, ignored, ignored}}
	switch c.random.IntN(6) {
	case 0:
		in.list = true
	case 1, 2:
		in.get = true
	default:
		for i := range registers {
			switch c.random.IntN(8) {
			case 0, 1:
				in.expect[i] = c.expected(i) // a check
			case 2, 3, 4:
				in.expect[i], in.write[i] = c.expected(i), c.body()
			case 5:
				in.expect[i], in.write[i] = store.AnyRevision, c.body()
			}
		}
	}
	return in
}

// expected is mostly what the client saw last, so that some commits succeed and some do not.
func (c *contender) expected(i int) uint64 {
	if r := c.seen[i].revision; c.random.IntN(6) > 0 || r == 0 {
		return r
	}
	return uint64(c.random.Int64N(int64(c.seen[i].revision)))
}

func (c *contender) body() string {
	c.done++
	return fmt.Sprint(c.id, " ", c.done)
}

func (c *contender) do(in call) (out answer, err error) {
	switch {
	case in.list:
		objects, err := c.store.List(c.Context(), "thing", "111111111111", "", store.Page{Limit: 10})
		for _, o := range objects {
			out.registers[int(o.Name[0]-'0')] = register{o.Revision, string(o.Body)}
		}
		c.seen = out.registers
		return out, err
	case in.get:
		o, err := c.store.Get(c.Context(), key(fmt.Sprint(in.index)))
		if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		out.registers[in.index] = register{o.Revision, string(o.Body)}
		c.seen[in.index] = out.registers[in.index]
		return out, err
	}
	var changes []store.Change
	var named []int
	for i, expect := range in.expect {
		if expect != ignored {
			changes = append(changes, store.Change{Key: key(fmt.Sprint(i)), Expect: expect, Check: in.write[i] == "", Body: []byte(in.write[i])})
			named = append(named, i)
		}
	}
	revisions, err := c.store.Commit(c.Context(), changes...)
	if errors.Is(err, store.ErrConflict) {
		return answer{conflict: true}, nil
	}
	for j, r := range revisions {
		if i := named[j]; in.write[i] != "" {
			out.revisions[i] = r
			c.seen[i] = register{r, in.write[i]}
		}
	}
	return out, err
}
