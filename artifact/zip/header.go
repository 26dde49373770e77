package zip

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// checkExtra reads the extra fields of one header: the 64-bit values, see readExtra64, and that no field
// gives the entry another name, which some tools take and others do not.
func checkExtra(extra fields, name string, values ...*uint64) error {
	if err := readExtra64(extra, values...); err != nil {
		return err
	}
	for len(extra) >= 4 {
		id, n := extra.uint16(), int(extra.uint16())
		if n > len(extra) {
			break
		}
		const head = 5 // version and checksum of the name that it replaces
		if id == extraNameID && (n < head || string(extra[head:n]) != name) {
			return errors.New("an extra field gives it another name")
		}
		extra = extra[n:]
	}
	return nil
}

// readExtra64 replaces each value that stands for "in the zip64 field" by the one that is
// there, in this order. A value that is needed and missing is an error, as are two such fields.
func readExtra64(extra fields, values ...*uint64) error {
	var long fields
	for len(extra) >= 4 {
		id, n := extra.uint16(), int(extra.uint16())
		if n > len(extra) {
			break // padding of some tools; what is needed and missing is noticed below
		}
		if id == extra64ID {
			if long != nil {
				return errors.New("two zip64 fields")
			}
			long = append(fields{}, extra[:n]...)
		}
		extra = extra[n:]
	}
	for _, v := range values {
		if *v != in64of32 {
			continue
		}
		if len(long) < 8 {
			return errors.New("a zip64 field is missing")
		}
		*v = long.uint64()
	}
	return nil
}

// checkLocalHeaders compares each entry's local header with the directory, so that tools that
// read one or the other see the same, and finds the data. No two entries may share bytes.
func checkLocalHeaders(data []byte, d directory, records []record) error {
	for i := range records {
		if err := records[i].checkLocalHeader(data); err != nil {
			return err
		}
	}
	byOffset := make([]*record, len(records))
	for i := range records {
		byOffset[i] = &records[i]
	}
	slices.SortFunc(byOffset, func(a, b *record) int { return cmp.Compare(a.offset, b.offset) })
	end := uint64(0)
	for i, r := range byOffset {
		if r.offset < end {
			return refuse(byOffset[i-1].name, "it overlaps another entry")
		}
		if err := checkGap(data[end:r.offset]); err != nil {
			return err
		}
		end = r.entryEnding
	}
	if end > d.offset {
		return refuse(byOffset[len(byOffset)-1].name, "it overlaps the directory")
	}
	return checkGap(data[end:d.offset])
}

// checkGap refuses an entry that the directory does not name: tools that read from front to end would
// find it.
func checkGap(gap []byte) error {
	if bytes.Contains(gap, binary.LittleEndian.AppendUint32(nil, localSignature)) {
		return corrupt("an entry that is not in the directory")
	}
	return nil
}

func (r *record) checkLocalHeader(data []byte) error {
	if r.flags&(flagEncrypted|flagStrongEncrypted|flagMasked) != 0 {
		return refuse(r.name, "it is encrypted")
	}
	f := fields(at(data, r.offset, localBytes))
	if f == nil || f.uint32() != localSignature {
		return corrupt("%q has no local header", r.name)
	}
	f = f[2:] // version needed
	flags, method := f.uint16(), f.uint16()
	f = f[4:] // time
	checksum, compressed, size := f.uint32(), uint64(f.uint32()), uint64(f.uint32())
	nameBytes, extraBytes := uint64(f.uint16()), uint64(f.uint16())
	variable := at(data, r.offset+localBytes, nameBytes+extraBytes)
	if variable == nil || string(variable[:nameBytes]) != r.name {
		return refuse(r.name, "its local header has another name")
	}
	if (flags^r.flags)&flagsThatMatter != 0 || method != r.method {
		return refuse(r.name, "its local header has another form of data")
	}
	if (flags^r.flags)&flagUTF8 != 0 && !isASCII(r.name) {
		return refuse(r.name, "its local header has its name in another character set")
	}
	if err := checkExtra(variable[nameBytes:], r.name, &size, &compressed); err != nil {
		return refuse(r.name, "%v", err)
	}
	described := r.flags&flagDescriptor != 0
	// With a descriptor the local header may leave each of these open.
	same := func(local, central uint64) bool { return local == central || described && local == 0 }
	if !same(uint64(checksum), uint64(r.checksum)) || !same(compressed, r.compressed) || !same(size, r.size) {
		return refuse(r.name, "its local header has another checksum or size")
	}
	r.dataOffset = r.offset + localBytes + nameBytes + extraBytes
	if at(data, r.dataOffset, r.compressed) == nil {
		return corrupt("the data of %q are cut", r.name)
	}
	r.entryEnding = r.dataOffset + r.compressed
	if described {
		n := r.descriptorBytes(data)
		if n == 0 && !r.isDirectory() { // some tools leave it out behind directories
			return refuse(r.name, "the descriptor behind its data does not match")
		}
		r.entryEnding += n
	}
	return nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// descriptorBytes returns the length of the descriptor behind the data, 0 if none matches.
// It comes with or without a signature, with sizes of 4 or 8 bytes, and nothing tells which.
func (r *record) descriptorBytes(data []byte) uint64 {
	for _, signed := range []bool{true, false} {
		for _, long := range []bool{false, true} {
			var want []byte
			if signed {
				want = binary.LittleEndian.AppendUint32(want, descriptorSignature)
			}
			want = binary.LittleEndian.AppendUint32(want, r.checksum)
			for _, n := range []uint64{r.compressed, r.size} {
				if long {
					want = binary.LittleEndian.AppendUint64(want, n)
				} else {
					want = binary.LittleEndian.AppendUint32(want, uint32(n))
				}
			}
			if string(at(data, r.dataOffset+r.compressed, uint64(len(want)))) == string(want) {
				return uint64(len(want))
			}
		}
	}
	return 0
}
