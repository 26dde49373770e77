package sqlite

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"

	"cloister/internal/seal"
	"cloister/lambda"
	"cloister/store"
)

// keyRevisions is how many revisions share one sealing key. A key with random nonces is
// good for 2^32 sealings; a revision may be sealed again after a group was rolled back.
const keyRevisions = 1 << 30

// bodies seals bodies for the file and opens them again.
type bodies struct {
	key  *seal.Key
	keys sync.Map // revision / keyRevisions → *seal.Key
}

func (b *bodies) keyOf(revision uint64) *seal.Key {
	n := revision / keyRevisions
	if k, ok := b.keys.Load(n); ok {
		return k.(*seal.Key)
	}
	k, _ := b.keys.LoadOrStore(n, b.key.Derive("bodies "+strconv.FormatUint(n, 10)))
	return k.(*seal.Key)
}

func (b *bodies) seal(k store.Key, revision uint64, body []byte) []byte {
	return b.keyOf(revision).Seal(make([]byte, 0, len(body)+seal.Overhead), body, place(k, revision))
}

func (b *bodies) open(k store.Key, revision uint64, sealed []byte) ([]byte, error) {
	body, err := b.keyOf(revision).Open(make([]byte, 0, max(len(sealed)-seal.Overhead, 0)), sealed, place(k, revision))
	if err != nil {
		return nil, &lambda.Error{Kind: lambda.Corrupt, Op: fmt.Sprintf("open %s %q of account %q", k.Kind, k.Name, k.Account), Err: err}
	}
	return body, nil
}

// place binds a body to its row and revision.
func place(k store.Key, revision uint64) []byte {
	return binary.BigEndian.AppendUint64(seal.Bind("body", k.Kind, k.Account, k.Name), revision)
}
