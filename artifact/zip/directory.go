package zip

import (
	"bytes"
	"encoding/binary"
)

// Signatures and fixed lengths of the format (PKWARE APPNOTE 4.3).
const (
	localSignature      = 0x04034b50
	recordSignature     = 0x02014b50
	endSignature        = 0x06054b50
	end64Signature      = 0x06064b50
	locator64Signature  = 0x07064b50
	descriptorSignature = 0x08074b50

	localBytes     = 30
	recordBytes    = 46
	endBytes       = 22
	end64Bytes     = 56
	locator64Bytes = 20

	// In these places of a 16- or 32-bit field stands that the value is in a 64-bit one.
	in64of16 = 0xffff
	in64of32 = 0xffffffff

	extra64ID   = 0x0001
	extraNameID = 0x7075 // Info-ZIP: the name in UTF-8
)

// General purpose flags.
const (
	flagEncrypted       = 1 << 0
	flagDescriptor      = 1 << 3 // checksum and sizes follow the data
	flagStrongEncrypted = 1 << 6
	flagUTF8            = 1 << 11 // the name's character set; otherwise it is that of the machine
	flagMasked          = 1 << 13
	flagsThatMatter     = flagEncrypted | flagDescriptor | flagStrongEncrypted | flagMasked
)

// A directory is where the central directory lies.
type directory struct {
	offset, size, records uint64
	end                   uint64 // the first byte behind it
}

// A record is one entry of the central directory.
type record struct {
	name                    string
	creator                 uint16 // system that made it, in the high byte
	flags, method           uint16
	checksum                uint32
	compressed, size        uint64
	attributes              uint32
	offset                  uint64 // of the local header
	dataOffset, entryEnding uint64 // set by checkLocalHeaders
}

// fields reads little-endian numbers one after the other. Its owner has checked the length.
type fields []byte

func (f *fields) uint16() uint16 {
	v := binary.LittleEndian.Uint16(*f)
	*f = (*f)[2:]
	return v
}

func (f *fields) uint32() uint32 {
	v := binary.LittleEndian.Uint32(*f)
	*f = (*f)[4:]
	return v
}

func (f *fields) uint64() uint64 {
	v := binary.LittleEndian.Uint64(*f)
	*f = (*f)[8:]
	return v
}

// at returns n bytes of data at offset, or nil if they are not all there.
func at(data []byte, offset, n uint64) []byte {
	if size := uint64(len(data)); offset > size || n > size-offset {
		return nil
	}
	return data[offset : offset+n]
}

// findDirectory reads the end record, which must end the file. The directory must end
// right before it, so that no tool finds another one.
func findDirectory(data []byte) (directory, error) {
	where, err := findEnd(data)
	if err != nil {
		return directory{}, err
	}
	end := fields(data[where+4:])
	disk, directoryDisk := end.uint16(), end.uint16()
	here, records := end.uint16(), end.uint16()
	d := directory{records: uint64(records), size: uint64(end.uint32()), end: uint64(where)}
	d.offset = uint64(end.uint32())
	if disk != 0 || directoryDisk != 0 || here != records {
		return directory{}, corrupt("it is split over several files")
	}
	if d, err = readEnd64(data, d); err != nil {
		return directory{}, err
	}
	if d.records > maxFiles {
		return directory{}, refuseWhole("%d entries, at most %d are allowed", d.records, maxFiles)
	}
	if at(data, d.offset, d.size) == nil || d.offset+d.size != d.end || d.size < d.records*recordBytes {
		return directory{}, corrupt("directory of %d entries at %d+%d, end record at %d", d.records, d.offset, d.size, d.end)
	}
	return d, nil
}

// findEnd returns where the end record begins. Its comment may be up to 64 KiB long, and must
// not look like another end record.
func findEnd(data []byte) (int, error) {
	signature := binary.LittleEndian.AppendUint32(nil, endSignature)
	tail := data[max(0, len(data)-endBytes-0xffff):]
	first, last := bytes.Index(tail, signature), bytes.LastIndex(tail, signature)
	// A file's contents may hold the signature too, so look for the one whose comment ends the file.
	for first >= 0 && first < last {
		if endsFile(tail, first) {
			return 0, corrupt("two end records")
		}
		next := bytes.Index(tail[first+1:], signature)
		first += 1 + next
	}
	if last < 0 || !endsFile(tail, last) {
		return 0, corrupt("no end record")
	}
	return len(data) - len(tail) + last, nil
}

func endsFile(tail []byte, where int) bool {
	return where+endBytes <= len(tail) && where+endBytes+int(binary.LittleEndian.Uint16(tail[where+endBytes-2:])) == len(tail)
}

// readEnd64 takes the values of a zip64 end record if there is one. It must lie right
// before the end record, and agree with what that says.
func readEnd64(data []byte, d directory) (directory, error) {
	locator := fields(nil)
	if d.end >= locator64Bytes+end64Bytes {
		locator = fields(data[d.end-locator64Bytes : d.end])
	}
	if locator == nil || locator.uint32() != locator64Signature {
		return d, nil // then the values are meant as they are, also 65,535 entries
	}
	disk, where, disks := locator.uint32(), locator.uint64(), locator.uint32()
	if disk != 0 || disks != 1 || where != d.end-locator64Bytes-end64Bytes {
		return d, corrupt("zip64 end record at %d", where)
	}
	end := fields(data[where:])
	if end.uint32() != end64Signature || end.uint64() != end64Bytes-12 {
		return d, corrupt("bad zip64 end record")
	}
	end = end[4:] // versions
	thisDisk, directoryDisk, here := end.uint32(), end.uint32(), end.uint64()
	d64 := directory{records: end.uint64(), size: end.uint64(), offset: end.uint64(), end: where}
	if thisDisk != 0 || directoryDisk != 0 || here != d64.records ||
		!agree(d.records, in64of16, d64.records) || !agree(d.size, in64of32, d64.size) || !agree(d.offset, in64of32, d64.offset) {
		return d, corrupt("the end records disagree")
	}
	return d64, nil
}

// agree reports whether a short field says the same as the long one, or nothing.
func agree(short, nothing, long uint64) bool { return short == nothing || short == long }

// read returns the records, which must fill the directory.
func (d directory) read(data []byte) ([]record, error) {
	rest := data[d.offset:d.end]
	records := make([]record, 0, d.records)
	for range d.records {
		r, n, err := readRecord(rest)
		if err != nil {
			return nil, err
		}
		rest = rest[n:]
		records = append(records, r)
	}
	if len(rest) != 0 {
		return nil, corrupt("%d bytes behind the last of %d entries", len(rest), d.records)
	}
	return records, nil
}

func readRecord(b []byte) (r record, length int, err error) {
	if len(b) < recordBytes {
		return r, 0, corrupt("the directory ends within an entry")
	}
	f := fields(b)
	if f.uint32() != recordSignature {
		return r, 0, corrupt("no directory entry where one should be")
	}
	r.creator = f.uint16()
	f = f[2:] // version needed
	r.flags, r.method = f.uint16(), f.uint16()
	f = f[4:] // time
	r.checksum = f.uint32()
	r.compressed, r.size = uint64(f.uint32()), uint64(f.uint32())
	nameBytes, extraBytes, commentBytes := int(f.uint16()), int(f.uint16()), int(f.uint16())
	disk := f.uint16()
	f = f[2:] // internal attributes
	r.attributes, r.offset = f.uint32(), uint64(f.uint32())
	length = recordBytes + nameBytes + extraBytes + commentBytes
	if len(b) < length {
		return r, 0, corrupt("the directory ends within an entry")
	}
	r.name = string(f[:nameBytes])
	if disk != 0 {
		return r, 0, corrupt("%q is in another file", r.name)
	}
	if err := checkExtra(f[nameBytes:nameBytes+extraBytes], r.name, &r.size, &r.compressed, &r.offset); err != nil {
		return r, 0, refuse(r.name, "%v", err)
	}
	return r, length, nil
}
