//go:build !amd64

package program

// Supported says whether programs can be made for this machine. Package native refuses to
// start where they cannot.
const Supported = false

const elfMachine = 0

type register byte

const rax register = 0

var argumentRegisters = [6]register{}

func (b *Builder) load(register, Operand) {}

// Store does nothing here.
func (b *Builder) Store(Address, uint32) {}

// Keep does nothing here.
func (b *Builder) Keep(Address) {}

func (b *Builder) exit(int) { b.fail("no instruction encoding for this machine") }

func (b *Builder) onFailure(Failure, int) {}
