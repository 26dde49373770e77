package sigv4

import (
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"sync"
)

// A signingKey is everything that a derived key depends on. The secret is part of it so that
// a key never outlives the secret that it came from.
type signingKey struct {
	accessKeyID, secret, date, region, service string
}

// derive computes the key that signs all requests of one day, region and service.
func (k signingKey) derive() [sha256.Size]byte {
	key := []byte("AWS4" + k.secret)
	for _, part := range []string{k.date, k.region, k.service, terminator} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return [sha256.Size]byte(key)
}

// keyCache remembers derived keys, the least recently used one is forgotten first. Strangers
// cannot fill it: requests with an unknown key all share the decoy's entries.
type keyCache struct {
	limit int

	mu      sync.Mutex
	entries map[signingKey]*list.Element // guarded by mu; values are *cachedKey
	recent  *list.List                   // guarded by mu; most recently used in front
}

type cachedKey struct {
	signingKey
	derived [sha256.Size]byte
}

func newKeyCache(limit int) *keyCache {
	return &keyCache{limit: limit, entries: map[signingKey]*list.Element{}, recent: list.New()}
}

// derive returns k's derived key, from the cache if it is there.
func (c *keyCache) derive(k signingKey) [sha256.Size]byte {
	c.mu.Lock()
	if e, ok := c.entries[k]; ok {
		c.recent.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*cachedKey).derived
	}
	c.mu.Unlock()

	derived := k.derive() // outside the lock; two goroutines may both do it
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[k]; !ok {
		c.entries[k] = c.recent.PushFront(&cachedKey{k, derived})
		if len(c.entries) > c.limit {
			oldest := c.recent.Remove(c.recent.Back()).(*cachedKey)
			delete(c.entries, oldest.signingKey)
		}
	}
	return derived
}
