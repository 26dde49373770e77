package sqlite

import (
	"log/slog"
	"path/filepath"
	"testing"

	"cloister/internal/seal"
	"cloister/store"
	"cloister/store/storetest"
)

// testKey is one key for all tests of a run.
var testKey = mustKey(make([]byte, seal.KeySize))

func mustKey(secret []byte) *seal.Key {
	k, err := seal.NewKey(secret)
	if err != nil {
		panic(err)
	}
	return k
}

func testConfig(directory string) Config {
	return Config{Path: filepath.Join(directory, "state", "meta.db"), Key: testKey, Logger: slog.New(slog.DiscardHandler)}
}

func mustOpen(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestTheEngineKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t testing.TB, directory string) store.Store {
		return mustOpen(t, testConfig(directory))
	})
}
