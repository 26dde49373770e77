// Package program turns a straight list of system calls into a static executable of a few
// hundred bytes.
//
// The two helpers that live inside every native sandbox, its first process and the one that
// becomes the customer's program, do nothing but system calls in a fixed order: mount /proc,
// give up every privilege, wait for a word from the worker. Written as such a list they need no
// C compiler, no file in the repository that nobody can read, no build step, and 30 times
// less memory than a Go program, of which there would be two for each idle environment. They
// have no loop, no heap, no library and nothing to parse.
//
// It is not an assembler: there are no jumps but "give up here", and no arithmetic. Only
// package native uses it, at start-up. Nothing in a program comes from a tenant; a program of
// this package runs before, and instead of, anything a tenant wrote.
//
// Invariant: a call that must succeed and does not ends the process with the number of the
// step, so nothing after it in the list ever runs.
package program

import (
	"encoding/binary"
	"fmt"
)

// Fixed addresses of the image. The programs are not position independent: they parse nothing
// and are replaced by execve, so there is nothing for a random layout to protect.
const (
	textBase   = 0x400000  // headers, read-only data, code: one segment, readable and executable
	memoryBase = 0x8000000 // writable memory, zero at the start
	pageSize   = 4096
)

// MaxSteps is the number of calls that a program may have: each one owns an exit status.
const MaxSteps = 250

// ExitUnreachable is the exit status of a program whose list has come to its end without
// an exit call.
const ExitUnreachable = 255

// An Operand is an argument of a system call.
type Operand struct {
	kind  operandKind
	value uint64
}

type operandKind uint8

const (
	constant operandKind = iota
	word                 // 4 bytes of memory, zero extended, read when the call is made
	quad                 // 8 bytes of memory
)

// An Address is a place in the program's writable memory. It is the same in every process
// that runs the program.
type Address uint32

// Const is an argument known now.
func Const[T ~int | ~uint | ~int32 | ~uint32 | ~int64 | ~uint64 | ~uintptr](v T) Operand {
	return Operand{constant, uint64(v)}
}

// Value returns what a constant operand passes; for Data it is the address.
func (o Operand) Value() uint64 { return o.value }

// Pointer passes the address itself.
func Pointer(a Address) Operand { return Operand{constant, uint64(a)} }

// Word passes the 4 bytes at a as they are when the call is made.
func Word(a Address) Operand { return Operand{word, uint64(a)} }

// Quad passes the 8 bytes at a as they are when the call is made.
func Quad(a Address) Operand { return Operand{quad, uint64(a)} }

// A Builder collects the list. The zero value is ready.
type Builder struct {
	data   []byte // read-only data: placed before the code, so that its addresses are known at once
	code   []byte
	memory uint32
	steps  []string
	err    error
}

// Data puts bytes into the read-only part and returns a pointer to them, 8-byte aligned.
func (b *Builder) Data(p []byte) Operand {
	for len(b.data)%8 != 0 {
		b.data = append(b.data, 0)
	}
	at := textBase + headerSize + len(b.data)
	b.data = append(b.data, p...)
	return Const(at)
}

// String puts a NUL-terminated string into the read-only part.
func (b *Builder) String(s string) Operand { return b.Data(append([]byte(s), 0)) }

// Reserve sets size bytes of writable memory aside, 16-byte aligned and zero.
func (b *Builder) Reserve(size int) Address {
	at := memoryBase + b.memory
	b.memory += uint32(size+15) &^ 15
	return Address(at)
}

// A Failure says what becomes of the program when a call does not succeed.
type Failure uint8

// What to do about a call that returns an error.
const (
	Ignore        Failure = iota // go on
	Exit                         // end with the number of the step as exit status
	ExitIfNone                   // the same, also if the call returned 0: the other side has closed
	ExitIfAllowed                // the opposite of Exit: the call must fail
	ReportErrno                  // write the negative errno, 4 bytes, to ReportTo, then end
	reportLength  = 4
)

// ReportTo is the descriptor that ReportErrno writes to.
const ReportTo = 3

// Call appends a system call. The name is for StepName.
func (b *Builder) Call(f Failure, name string, number uintptr, arguments ...Operand) {
	if len(arguments) > len(argumentRegisters) {
		b.fail("%s: %d arguments", name, len(arguments))
		return
	}
	b.steps = append(b.steps, name)
	if len(b.steps) > MaxSteps {
		b.fail("more than %d steps", MaxSteps)
		return
	}
	for i, a := range arguments {
		b.load(argumentRegisters[i], a)
	}
	b.load(rax, Const(number))
	b.emit(0x0f, 0x05) // syscall
	b.onFailure(f, len(b.steps))
}

// Exit appends the end of the program.
func (b *Builder) Exit(status int) { b.exit(status) }

// StepName returns the name of the call whose failure ends a program with this exit status.
func (b *Builder) StepName(status int) string {
	if status < 1 || status > len(b.steps) {
		return fmt.Sprintf("exit status %d", status)
	}
	return b.steps[status-1]
}

// Image returns the executable: an ELF file for the machine this program was compiled for.
func (b *Builder) Image() ([]byte, error) {
	b.exit(ExitUnreachable)
	if b.err != nil {
		return nil, fmt.Errorf("assemble program: %w", b.err)
	}
	for len(b.data)%16 != 0 {
		b.data = append(b.data, 0)
	}
	entry := uint64(textBase + headerSize + len(b.data))
	size := uint64(headerSize + len(b.data) + len(b.code))
	memory := uint64(b.memory+pageSize) &^ (pageSize - 1)

	image := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, make([]byte, 9)...)
	le := binary.LittleEndian
	image = le.AppendUint16(image, 2) // ET_EXEC
	image = le.AppendUint16(image, elfMachine)
	image = le.AppendUint32(image, 1)
	image = le.AppendUint64(image, entry)
	image = le.AppendUint64(image, elfHeaderSize) // program headers follow at once
	image = le.AppendUint64(image, 0)
	image = le.AppendUint32(image, 0)
	for _, v := range []uint16{elfHeaderSize, programHeaderSize, programHeaders, 0, 0, 0} {
		image = le.AppendUint16(image, v)
	}
	image = appendSegment(image, segment{kind: 1, flags: 5, address: textBase, fileSize: size, memorySize: size, align: pageSize})
	image = appendSegment(image, segment{kind: 1, flags: 6, address: memoryBase, memorySize: memory, align: pageSize})
	image = appendSegment(image, segment{kind: 0x6474e551, flags: 6, align: 16}) // PT_GNU_STACK: not executable
	image = append(image, b.data...)
	return append(image, b.code...), nil
}

const (
	elfHeaderSize     = 64
	programHeaderSize = 56
	programHeaders    = 3
	headerSize        = elfHeaderSize + programHeaders*programHeaderSize
)

type segment struct {
	kind, flags                          uint32
	address, fileSize, memorySize, align uint64
}

func appendSegment(image []byte, s segment) []byte {
	le := binary.LittleEndian
	image = le.AppendUint32(image, s.kind)
	image = le.AppendUint32(image, s.flags)
	for _, v := range []uint64{0, s.address, s.address, s.fileSize, s.memorySize, s.align} {
		image = le.AppendUint64(image, v)
	}
	return image
}

func (b *Builder) emit(p ...byte) { b.code = append(b.code, p...) }

func (b *Builder) emit32(v uint32) { b.code = binary.LittleEndian.AppendUint32(b.code, v) }

func (b *Builder) fail(format string, arguments ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, arguments...)
	}
}
