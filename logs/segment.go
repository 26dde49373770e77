package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cloister/internal/seal"
)

// A segment is one file of a group: frames one after the other. A frame on disk is
//
//	mark (4 bytes), length of what is sealed (4), CRC-32C of those eight bytes (4), sealed content
//
// Mark and checksum exist to find the next frame behind a damaged one; they prove nothing.
type segment struct {
	number  uint64
	size    int64 // guarded by group.mu; bytes that are whole frames
	written int64 // guarded by group.mu; Unix milliseconds of the newest frame
	streams map[*stream]struct{}
}

const (
	frameHeaderBytes = 12
	maxSealedBytes   = 4 << 20 // far above what frameBytes and one event can come to
	segmentSuffix    = ".log"
)

var (
	frameMark  = []byte{'c', 'l', 'g', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

// parseSegmentName returns false for files that are not segments.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil && n > 0
}

// place is what a frame's seal is bound to beside the group's key.
func place(group string, segment uint64, offset int64) []byte {
	return seal.Bind("log frame", group, strconv.FormatUint(segment, 10), strconv.FormatInt(offset, 10))
}

// appendFrame appends a frame that is going to be at offset of the segment.
func appendFrame(dst, content []byte, key *seal.Key, group string, segment uint64, offset int64) []byte {
	at := len(dst)
	dst = append(dst, frameMark...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(content)+seal.Overhead))
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
	return key.Seal(dst, content, place(group, segment, offset))
}

// frameLength returns the length of the frame that b begins with, header included, or 0 if it
// does not begin with a frame's header.
func frameLength(b []byte) int64 {
	if len(b) < frameHeaderBytes || !bytes.HasPrefix(b, frameMark) ||
		binary.BigEndian.Uint32(b[8:]) != crc32.Checksum(b[:8], castagnoli) {
		return 0
	}
	sealed := binary.BigEndian.Uint32(b[4:])
	if sealed < seal.Overhead || sealed > maxSealedBytes {
		return 0
	}
	return frameHeaderBytes + int64(sealed)
}

// A foundFrame is one that opened.
type foundFrame struct {
	offset, length int64
	content        []byte // valid until the next call of visit
}

// scanFrames visits the frames in data, which is what a segment holds from offset start on. It
// returns how many damaged places it passed over, and where the last whole frame ends:
// what is behind is half a frame.
func scanFrames(data []byte, start int64, key *seal.Key, group string, segment uint64, visit func(foundFrame)) (corrupt int, end int64, err error) {
	end = start
	var plain []byte
	damaged := false // the bytes before at are
	for at := int64(0); at < int64(len(data)); {
		length := frameLength(data[at:])
		if length == 0 || at+length > int64(len(data)) {
			// Look for the next header; a mark that is only part of some content fails to open.
			damaged = true
			next := bytes.Index(data[at+1:], frameMark)
			if next < 0 {
				break
			}
			at += 1 + int64(next)
			continue
		}
		plain, err = key.Open(plain[:0], data[at+frameHeaderBytes:at+length], place(group, segment, start+at))
		if errors.Is(err, seal.ErrCorrupt) {
			corrupt++
			damaged = false
			end = start + at + length
			at += length
			continue
		}
		if err != nil {
			return corrupt, end, err
		}
		if damaged {
			corrupt++
			damaged = false
		}
		visit(foundFrame{offset: start + at, length: length, content: plain})
		at += length
		end = start + at
	}
	return corrupt, end, nil
}

// readRange reads part of a segment. What the file no longer has is left out.
func readRange(file string, offset, length int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, length)
	n, err := f.ReadAt(data, offset)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read log segment: %w", err)
	}
	return data[:n], nil
}

// writeFrames appends to a segment, whose whole frames end at offset, and cuts what an earlier
// failure may have left behind them.
func writeFrames(directory string, number uint64, offset int64, data []byte) (err error) {
	f, err := os.OpenFile(filepath.Join(directory, segmentName(number)), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(offset); err != nil {
		return err
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		return errors.Join(err, f.Truncate(offset))
	}
	return nil
}

func syncFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
