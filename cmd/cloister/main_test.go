package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is the program itself: also when serve starts its two processes from /proc/self/exe.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"cloister": main}) }

func TestEveryCommandDoesWhatItSays(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"await": await},
	})
}

// await FILE PATTERN waits until the file matches the pattern, half a minute at most.
func await(ts *testscript.TestScript, negate bool, args []string) {
	if negate || len(args) != 2 {
		ts.Fatalf("usage: await FILE PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	path := filepath.Join(ts.Getenv("WORK"), args[0])
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && pattern.Match(b) {
			return
		}
	}
	b, _ := os.ReadFile(path)
	ts.Fatalf("%s does not match %s: %s", args[0], args[1], b)
}
