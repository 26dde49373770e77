package runtimes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloister/lambda"
)

func open(t *testing.T, directory, ca string) *Catalog {
	t.Helper()
	c, err := Open(Config{Directory: directory, CA: []byte(ca), Region: "eu-central-1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func resolveIn(t *testing.T, c *Catalog, identifier string) Runtime {
	t.Helper()
	r, err := c.Resolve(t.Context(), identifier)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func images(t *testing.T, directory string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestAnImageIsMadeOnceAndFoundAgain(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "new")
	c := open(t, directory, testCA)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := c.Resolve(context.Background(), "provided.al2023"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	first := resolveIn(t, c, "provided.al2023")
	sum := sha256.Sum256(read(t, first.File))
	if want := "arn:aws:lambda:eu-central-1::runtime:" + hex.EncodeToString(sum[:]); first.VersionARN != want {
		t.Errorf("version %s, want %s", first.VersionARN, want)
	}
	made, err := os.Stat(first.File)
	if err != nil {
		t.Fatal(err)
	}
	if made.Mode().Perm() != 0o600 || made.Size() != first.Size {
		t.Errorf("image has mode %v and %d bytes, want %d", made.Mode(), made.Size(), first.Size)
	}
	again := resolveIn(t, open(t, directory, testCA), "provided.al2023")
	same, err := os.Stat(again.File)
	if err != nil {
		t.Fatal(err)
	}
	if again.Key != first.Key || !os.SameFile(made, same) || !same.ModTime().Equal(made.ModTime()) {
		t.Errorf("a second catalog made %s again", again.File)
	}
	if files := images(t, directory); len(files) != 1 {
		t.Errorf("the directory holds %q", files)
	}
	if twin := resolveIn(t, c, "provided.al2"); twin.Key != first.Key || twin.Identifier != "provided.al2" {
		t.Errorf("provided.al2 has an image of its own: %+v", twin)
	}
}

func TestTheSameInputsGiveTheSameImageElsewhere(t *testing.T) {
	a, b := resolveIn(t, open(t, t.TempDir(), testCA), "provided.al2023"), resolveIn(t, open(t, t.TempDir(), testCA), "provided.al2023")
	if a.Key != b.Key {
		t.Errorf("%s and %s", a.Key, b.Key)
	}
}

func TestAnotherAuthorityMakesAnotherImageInPlaceOfTheOld(t *testing.T) {
	directory := t.TempDir()
	before := resolveIn(t, open(t, directory, testCA), "provided.al2023")
	after := resolveIn(t, open(t, directory, "another"), "provided.al2023")
	if before.Key == after.Key || before.VersionARN == after.VersionARN {
		t.Error("the image is the same")
	}
	if files := images(t, directory); len(files) != 1 || files[0] != after.File {
		t.Errorf("the directory holds %q", files)
	}
	found := false
	walk(t, after, func(name string, _ os.FileMode, content func() []byte) {
		found = found || name == caFile && string(content()) == "another"
	})
	if !found {
		t.Errorf("%s does not hold the authority", caFile)
	}
}

func TestADamagedImageIsMadeAgain(t *testing.T) {
	directory := t.TempDir()
	r := resolveIn(t, open(t, directory, testCA), "provided.al2023")
	f, err := os.OpenFile(r.File, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], r.Size/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], r.Size/2); err != nil {
		t.Fatal(err)
	}
	f.Close()
	again := resolveIn(t, open(t, directory, testCA), "provided.al2023")
	if sum := sha256.Sum256(read(t, again.File)); again.Key != "runtime/"+hex.EncodeToString(sum[:]) || again.Key != r.Key {
		t.Error("the damaged image is used")
	}
}

func TestHalfAnImageOfAKilledProcessIsRemoved(t *testing.T) {
	directory := t.TempDir()
	half := filepath.Join(directory, ".durable-123")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, directory, testCA)
	if files := images(t, directory); len(files) != 0 {
		t.Errorf("the directory holds %q", files)
	}
}

func TestAnInterpreterThatTheHostLacksIsRefusedWithWhatToInstall(t *testing.T) {
	c := open(t, t.TempDir(), testCA)
	for _, o := range c.List(t.Context()) {
		if o.Interpreter != "" {
			continue
		}
		_, err := c.Resolve(t.Context(), o.Identifier)
		if lambda.KindOf(err) != lambda.InvalidParameter || !strings.Contains(err.Error(), "This host has no "+o.Identifier+". To get it, install ") || !strings.Contains(err.Error(), "provided.al2023") {
			t.Errorf("%s: %v", o.Identifier, err)
		}
	}
	for _, identifier := range []string{"java21", "", "../python3.11", "python3.11 ", "nodejs.x"} {
		if _, err := c.Resolve(t.Context(), identifier); lambda.KindOf(err) != lambda.InvalidParameter {
			t.Errorf("%q: %v", identifier, err)
		}
	}
}

func TestACallerThatGivesUpDoesNotStopTheMaking(t *testing.T) {
	c := open(t, t.TempDir(), testCA)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Resolve(gone, "provided.al2023"); err != nil && lambda.KindOf(err) != lambda.Unavailable {
		t.Errorf("%v, want kind unavailable", err)
	}
	resolveIn(t, c, "provided.al2023")
}

func TestARuntimeSetsTheVariablesOfAWS(t *testing.T) {
	python, node, provided := hostIdentifiers(t)
	for _, c := range []struct{ identifier, execution, own, value string }{
		{python, "AWS_Lambda_" + python, "PYTHONPATH", "/var/runtime"},
		{node, "AWS_Lambda_" + node, "NODE_PATH", "/opt/nodejs/node" + majorOf(node) + "/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task"},
		{provided, "", "PYTHONPATH", ""},
	} {
		r := resolve(t, c.identifier)
		if r.ExecutionEnvironment != c.execution || r.Environment[c.own] != c.value || r.Environment["TZ"] != ":UTC" || r.Environment["LANG"] != "en_US.UTF-8" {
			t.Errorf("%s: %q, %v", c.identifier, r.ExecutionEnvironment, r.Environment)
		}
	}
}

func TestTheCommandFollowsTheFunction(t *testing.T) {
	for _, c := range []struct {
		name    string
		runtime Runtime
		memory  int
		wrapper string
		want    string
	}{
		{"Python does not care for memory", Runtime{Bootstrap: []string{"python", "-u", "b"}, ExecutionEnvironment: "x"}, 128, "", "python -u b"},
		{"a wrapper is given the command", Runtime{Bootstrap: []string{"python", "b"}, ExecutionEnvironment: "x"}, 128, "/opt/wrap", "/opt/wrap python b"},
		{"custom runtimes have no wrapper", Runtime{Bootstrap: []string{"/var/task/bootstrap"}}, 128, "/opt/wrap", "/var/task/bootstrap"},
		{"Node.js is told its share", Runtime{Bootstrap: []string{"node", "b"}, node: true, ExecutionEnvironment: "x"}, 1000, "", "node --expose-gc --max-http-header-size=81920 --max-semi-space-size=50 --max-old-space-size=900 b"},
	} {
		if got := strings.Join(c.runtime.Command(c.memory, c.wrapper), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAnIdentifiersDatesDecideWhoMayUseIt(t *testing.T) {
	offers := []Offer{{"python3.11", "/usr/bin/python3.11", ""}, {"nodejs20.x", "/usr/bin/node", ""}, {"python3.12", "", "install python3.12"}}
	day := func(s string) time.Time {
		at, err := time.Parse(time.DateTime, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	now := day("2026-11-23 12:00:00")
	const blocked = "is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported runtime while creating or updating functions."
	for _, c := range []struct {
		name, identifier string
		at               time.Time
		create, update   string // part of the error, or empty
	}{
		{"supported", "python3.11", now, "", ""},
		{"deprecated, still open", "nodejs20.x", now, "", ""},
		{"the last second before the block", "nodejs20.x", day("2027-01-31 23:59:59"), "", ""},
		{"the first second of the block", "nodejs20.x", day("2027-02-01 00:00:00"), "The runtime parameter of nodejs20.x " + blocked, ""},
		{"updates blocked, too", "nodejs20.x", day("2027-03-03 00:00:00"), blocked, blocked},
		{"AWS's recorded text", "go1.x", now, "The runtime parameter of go1.x " + blocked, "Cloister does not run go1.x yet"},
		{"the host lacks it", "python3.12", now, "This host has no python3.12. To get it, install python3.12, or use a runtime that this host has: python3.11, nodejs20.x.", "This host has no python3.12"},
		{"another family", "java21", now, "Cloister does not run java21 yet. This host has: python3.11, nodejs20.x.", "Cloister does not run java21 yet"},
		{"unknown", "python9", now, "Value python9 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [nodejs16.x, ", "or be a valid ARN"},
		{"long nonsense is cut", strings.Repeat("x", 1000), now, "Value " + strings.Repeat("x", 64) + "… at 'runtime'", "Value"},
	} {
		for _, half := range []struct {
			what, want string
			err        error
		}{{"create", c.create, CheckCreate(c.identifier, c.at, offers)}, {"update", c.update, CheckUpdate(c.identifier, c.at, offers)}} {
			switch {
			case half.want == "" && half.err == nil:
			case half.want == "" || half.err == nil || !strings.Contains(half.err.Error(), half.want) || lambda.KindOf(half.err) != lambda.InvalidParameter:
				t.Errorf("%s, %s: %v, want %q", c.name, half.what, half.err, half.want)
			}
		}
	}
}

func TestTheTableOfRuntimesIsWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range lifecycles {
		if seen[l.identifier] {
			t.Errorf("%s is there twice", l.identifier)
		}
		seen[l.identifier] = true
		for _, day := range []string{l.deprecated, l.createBlocked, l.updateBlock} {
			if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
				t.Errorf("%s: %v", l.identifier, err)
			}
		}
		if l.createBlocked > l.updateBlock {
			t.Errorf("%s may be created longer than updated", l.identifier)
		}
	}
}
