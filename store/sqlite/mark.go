package sqlite

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"

	"cloister/internal/durable"
	"cloister/store"
)

// The mark is a small file beside the store that holds the last revision that was acknowledged.
//
// SQLite ends the replay of a log at the first frame that does not pass its checksum: a
// flipped bit in the middle silently drops all commits behind it, as does a log or a file that was
// replaced by an older one. The mark shows that commits are missing. It is written after the fsync
// of a commit and before its caller learns of it, but not fsynced itself: a killed process leaves it
// exact; power loss leaves it exact or up to half a minute old (when the kernel writes it by itself),
// and never newer than what was fsynced. So it never refuses a store that is whole.

// markSuffix is added to the name of the store.
const markSuffix = "-mark"

var markChecksum = crc32.MakeTable(crc32.Castagnoli)

// encodeMark always has the same length, so that one write replaces another.
func encodeMark(revision uint64) []byte {
	digits := fmt.Appendf(nil, "%020d", revision)
	return fmt.Appendf(digits, " %08x\n", crc32.Checksum(digits, markChecksum))
}

// readMark returns 0 for what is no mark: one that power loss tore says nothing.
func readMark(from io.ReaderAt) (uint64, error) {
	b := make([]byte, len(encodeMark(0)))
	if _, err := from.ReadAt(b, 0); errors.Is(err, io.EOF) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("read the mark: %w", err)
	}
	revision, err := strconv.ParseUint(string(b[:20]), 10, 63)
	if err != nil || string(encodeMark(revision)) != string(b) {
		return 0, nil
	}
	return revision, nil
}

// openMark opens the mark and refuses a store that holds less than it says. A mark that is missing is
// made anew: that is how an operator accepts a loss.
func openMark(c Config, held uint64) (plainFile, error) {
	path := c.Path + markSuffix
	m, err := c.disk.openPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFile(path, encodeMark(held), 0o600); err != nil {
			return nil, err
		}
		m, err = c.disk.openPlain(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the mark: %w", err)
	}
	acknowledged, err := readMark(m)
	if err == nil && acknowledged > held {
		err = lost(c.Path, acknowledged, held)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// lost is the refusal of a store that holds less than was acknowledged.
func lost(path string, acknowledged, held uint64) error {
	return fmt.Errorf("%w: revision %d was acknowledged, and the files hold %d. The file or its log %s-wal is damaged, or an older copy is in its place. "+
		"Put back both as they were, or remove %s%s to go on without what is missing", store.ErrLost, acknowledged, held, path, path, markSuffix)
}
