package zip

import (
	"bytes"
	"compress/flate"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"cloister/artifact/erofs"
)

// Methods of compression. AWS's tools write no others.
const (
	methodStore   = 0
	methodDeflate = 8
)

// contents opens the data of records.
type contents struct {
	data     []byte
	targets  uint64    // bytes of the symbolic links so far
	inflates sync.Pool // of *inflater: each holds 40 KiB
}

// An inflater decompresses from an in-memory reader, which it does not read ahead.
type inflater struct {
	source bytes.Reader
	flate  io.ReadCloser
}

// entry makes the entry of a record. What nobody will read later, links and empty files, is
// read and checked now.
func (c *contents) entry(r record, path string, mode fs.FileMode) (erofs.Entry, error) {
	e := erofs.Entry{Path: path, Mode: mode}
	var err error
	switch {
	case mode.Type() == fs.ModeSymlink:
		e.Target, err = c.target(r, path)
	case mode.IsRegular() && r.size == 0:
		err = c.check(r)
	case mode.IsRegular():
		e.Size, e.Open = int64(r.size), func() (io.ReadCloser, error) { return c.open(r) }
	}
	return e, err
}

func (c *contents) open(r record) (*content, error) {
	raw := at(c.data, r.dataOffset, r.compressed)
	switch {
	case r.method == methodStore && r.compressed == r.size:
		return &content{record: r, plain: bytes.NewReader(raw), sum: crc32.NewIEEE()}, nil
	case r.method == methodDeflate:
		i, ok := c.inflates.Get().(*inflater)
		if !ok {
			i = new(inflater)
			i.flate = flate.NewReader(&i.source)
		}
		i.source.Reset(raw)
		if err := i.flate.(flate.Resetter).Reset(&i.source, nil); err != nil {
			return nil, corrupt("decompress %q: %w", r.name, err)
		}
		return &content{record: r, plain: i.flate, sum: crc32.NewIEEE(), inflater: i, pool: &c.inflates}, nil
	default:
		return nil, refuse(r.name, "its compression (method %d) is not supported", r.method)
	}
}

// check reads all of a record.
func (c *contents) check(r record) error {
	content, err := c.open(r)
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = io.Copy(io.Discard, content)
	return err
}

// target reads and checks a symbolic link.
func (c *contents) target(r record, path string) (string, error) {
	if c.targets += r.size; r.size > erofs.MaxTargetBytes || c.targets > maxTargetBytes {
		return "", refuse(r.name, "the symbolic links are too long")
	}
	content, err := c.open(r)
	if err != nil {
		return "", err
	}
	defer content.Close()
	var target bytes.Buffer
	target.Grow(int(r.size) + bytes.MinRead)
	if _, err := target.ReadFrom(content); err != nil {
		return "", err
	}
	return target.String(), checkTarget(path, target.String())
}

// A content gives exactly the declared number of bytes and then io.EOF, or an error of
// package lambda. It never gives more, whatever the compressed bytes hold.
type content struct {
	record   record
	plain    io.Reader
	sum      hash32
	read     uint64
	inflater *inflater // nil if stored
	pool     *sync.Pool
}

type hash32 interface {
	io.Writer
	Sum32() uint32
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	// One byte more than declared shows that there is more.
	if rest := c.record.size - c.read; uint64(len(p)) > rest+1 {
		p = p[:rest+1]
	}
	n, err := c.plain.Read(p)
	c.read += uint64(n)
	if c.read > c.record.size {
		return 0, corrupt("%q has more bytes than declared", c.record.name)
	}
	c.sum.Write(p[:n])
	switch {
	case err == io.EOF:
		return n, c.end()
	case err != nil:
		return 0, corrupt("decompress %q: %w", c.record.name, err)
	}
	return n, nil
}

// end returns io.EOF if all is as declared.
func (c *content) end() error {
	switch {
	case c.read != c.record.size:
		return corrupt("%q has %d bytes, declared are %d", c.record.name, c.read, c.record.size)
	case c.sum.Sum32() != c.record.checksum:
		return corrupt("the checksum of %q does not match", c.record.name)
	case c.inflater != nil && c.inflater.source.Len() != 0:
		return corrupt("%q has %d bytes behind its compressed data", c.record.name, c.inflater.source.Len())
	}
	return io.EOF
}

// Close implements io.Closer.
func (c *content) Close() error {
	if c.inflater != nil {
		c.pool.Put(c.inflater)
		c.inflater, c.plain = nil, bytes.NewReader(nil)
	}
	return nil
}
