package inside

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func newSet(t testing.TB) *Set {
	t.Helper()
	s, err := Build(99999)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// decode follows the pointers of a command as the kernel will in a starter's memory.
func decode(t testing.TB, s *Set, b []byte) Command {
	t.Helper()
	at := func(address uint64) []byte {
		offset := address - uint64(s.command)
		if address < uint64(s.command) || offset > uint64(len(b)) {
			t.Fatalf("address %#x is outside of the command", address)
		}
		return b[offset:]
	}
	word := func(p []byte) uint64 { return binary.NativeEndian.Uint64(p) }
	text := func(address uint64) string {
		s, _, ok := bytes.Cut(at(address), []byte{0})
		if !ok {
			t.Fatal("a string does not end")
		}
		return string(s)
	}
	list := func(address uint64) (all []string) {
		for p := at(address); word(p) != 0; p = p[8:] {
			all = append(all, text(word(p)))
		}
		return all
	}
	soft, hard := word(b[32:]), word(b[40:])
	if soft != hard {
		t.Errorf("limits %d and %d", soft, hard)
	}
	return Command{Path: text(word(b)), Arguments: list(word(b[8:])), Environment: list(word(b[16:])), Directory: text(word(b[24:])), OpenFiles: int(soft)}
}

func TestACommandArrivesAsItWasGiven(t *testing.T) {
	s := newSet(t)
	for _, want := range []Command{
		{Path: "/a", Directory: "/", OpenFiles: 1024},
		{Path: "/var/task/bootstrap", Arguments: []string{"bootstrap", "", "x y"}, Environment: []string{"A=1", "B="}, Directory: "/var/task", OpenFiles: 8},
		{Path: "", Arguments: []string{"ünïcödé"}, Directory: "", OpenFiles: 0},
	} {
		b, err := s.Command(want)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, decode(t, s, b)); diff != "" {
			t.Errorf("command (-want +got): %s", diff)
		}
	}
}

func TestACommandThatDoesNotFitIsRefused(t *testing.T) {
	s := newSet(t)
	fits := strings.Repeat("x", maxCommandBytes-commandHeader-2*8-8-len("/a\x00/\x00\x00"))
	if b, err := s.Command(Command{Path: "/a", Directory: "/", Arguments: []string{fits}}); err != nil || len(b) != maxCommandBytes {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := s.Command(Command{Path: "/a", Directory: "/", Arguments: []string{fits + "x"}}); !errors.Is(err, unix.E2BIG) {
		t.Errorf("one byte more: %v", err)
	}
	for name, c := range map[string]Command{
		"path": {Path: "a\x00"}, "directory": {Directory: "\x00"}, "argument": {Arguments: []string{"", "a\x00b"}}, "variable": {Environment: []string{"A=\x00"}},
	} {
		if _, err := s.Command(c); !errors.Is(err, unix.EINVAL) {
			t.Errorf("NUL in %s: %v", name, err)
		}
	}
}

func FuzzACommandArrivesAsItWasGiven(f *testing.F) {
	s := newSet(f)
	f.Add("/var/task/bootstrap", "a\nb", "A=1\nB=2", "/var/task", 1024)
	f.Add("", "", "", "", 0)
	f.Fuzz(func(t *testing.T, path, arguments, environment, directory string, files int) {
		want := Command{Path: path, Arguments: strings.Split(arguments, "\n"), Environment: strings.Split(environment, "\n"), Directory: directory, OpenFiles: files}
		b, err := s.Command(want)
		if err != nil {
			all := slices.Concat([]string{path, directory}, want.Arguments, want.Environment)
			if !strings.Contains(strings.Join(all, ""), "\x00") && len(strings.Join(all, "")) < 10000 && len(all) < 1000 {
				t.Errorf("refused: %v", err)
			}
			return
		}
		if diff := cmp.Diff(want, decode(t, s, b)); diff != "" {
			t.Errorf("command (-want +got): %s", diff)
		}
	})
}

func TestTheHelpersAreSmall(t *testing.T) {
	s := newSet(t)
	for name, image := range map[string][]byte{"keeper": s.KeeperImage, "starter": s.StarterImage} {
		if len(image) > 16<<10 {
			t.Errorf("the %s has %d bytes", name, len(image))
		}
		t.Logf("%s: %d bytes", name, len(image))
	}
}

func TestAStartersAnswerIsReadAsAnErrorNumber(t *testing.T) {
	answer := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff-unix.ENOENT+1))
	if errno, failed := FailureOf(answer); !failed || errno != unix.ENOENT {
		t.Errorf("%v %v", errno, failed)
	}
	for _, other := range [][]byte{nil, {1}, make([]byte, 8)} {
		if _, failed := FailureOf(other); failed {
			t.Errorf("%v was read as a failure", other)
		}
	}
}
