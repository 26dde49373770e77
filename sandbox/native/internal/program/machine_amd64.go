package program

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Supported says whether programs can be made for this machine.
const Supported = true

const elfMachine = 62 // EM_X86_64

// A register is the number that instruction encodings use for it.
type register byte

const (
	rax register = 0
	rdx register = 2
	rsi register = 6
	rdi register = 7
	r8  register = 8
	r9  register = 9
	r10 register = 10
)

// argumentRegisters is the kernel's calling convention; a system call changes rax, rcx and r11.
var argumentRegisters = [...]register{rdi, rsi, rdx, r10, r8, r9}

// load emits what brings an operand into a register.
func (b *Builder) load(r register, o Operand) {
	low, high := byte(r&7), byte(r>>3)
	switch {
	case o.kind == constant && o.value <= 1<<32-1: // mov r32, imm32 (clears the upper half)
		if high == 1 {
			b.emit(0x41)
		}
		b.emit(0xb8 + low)
		b.emit32(uint32(o.value))
	case o.kind == constant: // movabs r64, imm64
		b.emit(0x48|high, 0xb8+low)
		b.code = binary.LittleEndian.AppendUint64(b.code, o.value)
	default: // mov r, [disp32]: ModRM with a SIB byte that names neither base nor index
		rex := 0x40 | high<<2
		if o.kind == quad {
			rex |= 8
		}
		b.emit(rex, 0x8b, low<<3|4, 0x25)
		b.emit32(uint32(o.value))
	}
}

// Store appends: put the 4 bytes v at a, and zero the 4 that follow.
func (b *Builder) Store(a Address, v uint32) {
	if v > 1<<31-1 {
		b.fail("store of %#x would be sign extended", v)
	}
	b.emit(0x48, 0xc7, 0x04, 0x25) // mov qword [disp32], imm32
	b.emit32(uint32(a))
	b.emit32(v)
}

// Keep appends: put the lower 4 bytes of the last call's result at a.
func (b *Builder) Keep(a Address) {
	b.emit(0x89, 0x04, 0x25) // mov [disp32], eax
	b.emit32(uint32(a))
}

func (b *Builder) exit(status int) {
	b.load(rdi, Const(status))
	b.load(rax, Const(unix.SYS_EXIT_GROUP))
	b.emit(0x0f, 0x05)
}

// onFailure emits the check of a call's result: a short jump over the way out.
func (b *Builder) onFailure(f Failure, step int) {
	const jumpIfSign, jumpIfNotSign, jumpIfGreater = 0x78, 0x79, 0x7f
	jump := byte(jumpIfNotSign)
	switch f {
	case Ignore:
		return
	case ExitIfNone:
		jump = jumpIfGreater
	case ExitIfAllowed:
		jump = jumpIfSign
	}
	b.emit(0x48, 0x85, 0xc0, jump, 0) // test rax, rax; jump +0, patched below
	start := len(b.code)
	if f == ReportErrno {
		result := b.Reserve(reportLength)
		b.Keep(result)
		for i, a := range []Operand{Const(ReportTo), Pointer(result), Const(reportLength)} {
			b.load(argumentRegisters[i], a)
		}
		b.load(rax, Const(unix.SYS_WRITE))
		b.emit(0x0f, 0x05)
	}
	b.exit(step)
	if n := len(b.code) - start; n > 127 {
		b.fail("jump over %d bytes", n)
	} else {
		b.code[start-1] = byte(n)
	}
}
