package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"cloister/store"
)

// Environment variables that make the test binary a writer which the crash tests kill.
const (
	writerDirectory = "CLOISTER_TEST_STORE_DIRECTORY"
	writerRound     = "CLOISTER_TEST_STORE_ROUND"
	writerLies      = "CLOISTER_TEST_STORE_LIES" // acknowledges before it commits
)

func TestMain(m *testing.M) {
	if os.Getenv(writerDirectory) != "" {
		writeUntilKilled()
	}
	os.Exit(m.Run())
}

// pair is the two objects of one commit.
func pair(name string) []store.Change {
	key := func(part string) store.Key { return store.Key{Kind: "pair", Account: part, Name: name} }
	return []store.Change{{Key: key("left"), Body: []byte("left " + name)}, {Key: key("right"), Body: []byte("right " + name)}}
}

func writeUntilKilled() {
	s, err := Open(testConfig(os.Getenv(writerDirectory)))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%s-%d-%d", os.Getenv(writerRound), w, i)
				if os.Getenv(writerLies) != "" {
					fmt.Println("committed", name)
				}
				if _, err := s.Commit(context.Background(), pair(name)...); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				if os.Getenv(writerLies) == "" {
					fmt.Println("committed", name)
				}
			}
		}()
	}
	select {}
}

// killWriter runs a writer for a while, kills it, and returns what it acknowledged.
func killWriter(t *testing.T, directory string, round int, after time.Duration, lies bool) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), writerDirectory+"="+directory, fmt.Sprint(writerRound, "=", round))
	if lies {
		c.Env = append(c.Env, writerLies+"=yes")
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	lines := bufio.NewReader(out)
	var acknowledged []string
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return acknowledged // a half line was not acknowledged
		}
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "committed ")
		if err != nil || !ok {
			t.Errorf("the writer said %q, %v", line, err)
			c.Process.Kill()
			return nil
		}
		if acknowledged = append(acknowledged, name); len(acknowledged) == 1 {
			// By the clock, so that the kill hits any moment of the commits.
			time.AfterFunc(after, func() { c.Process.Kill() })
		}
	}
}

// missing returns how many acknowledged commits are not there. No commit may be there by half.
func missing(t *testing.T, s *Store, acknowledged []string) (n int) {
	t.Helper()
	for _, name := range acknowledged {
		for _, c := range pair(name) {
			o, err := s.Get(t.Context(), c.Key)
			if errors.Is(err, store.ErrNotFound) {
				n++
			} else if err != nil || string(o.Body) != string(c.Body) {
				t.Errorf("%v came back as %q, %v", c.Key, o.Body, err)
			}
		}
	}
	left, err := s.List(t.Context(), "pair", "left", "", store.Page{Limit: store.MaxPageLimit})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range left {
		if _, err := s.Get(t.Context(), store.Key{Kind: "pair", Account: "right", Name: o.Name}); err != nil {
			t.Errorf("half of the commit %s is there: %v", o.Name, err)
		}
	}
	return n
}

func TestNothingAcknowledgedIsMissingAfterKill(t *testing.T) {
	directory := t.TempDir()
	var acknowledged []string
	for round := range 6 {
		after := time.Duration(rand.IntN(150)) * time.Millisecond
		acknowledged = append(acknowledged, killWriter(t, directory, round, after, false)...)
		s := mustOpen(t, testConfig(directory))
		if n := missing(t, s, acknowledged); n > 0 {
			t.Errorf("round %d: %d acknowledged objects are missing", round, n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(acknowledged) < 100 {
		t.Errorf("only %d commits were acknowledged: the test shows nothing", len(acknowledged))
	}
}

// TestTheKillTestFindsLoss is its control: a writer that acknowledges too early is caught.
func TestTheKillTestFindsLoss(t *testing.T) {
	lost := 0
	for round := range 10 {
		directory := t.TempDir()
		acknowledged := killWriter(t, directory, round, 20*time.Millisecond, true)
		s := mustOpen(t, testConfig(directory))
		if lost += missing(t, s, acknowledged); lost > 0 {
			return
		}
	}
	t.Error("a writer that acknowledges before it commits lost nothing")
}

// A power cut is stricter than a kill: see faults_test.go for fsync.

func TestAProcessKilledWhileItCreatesLeavesNoHalfStore(t *testing.T) {
	for round := range 5 {
		directory := t.TempDir()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), self)
		c.Env = append(os.Environ(), writerDirectory+"="+directory, writerRound+"=0")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(round*12) * time.Millisecond)
		c.Process.Kill()
		c.Wait()
		s := mustOpen(t, testConfig(directory))
		if _, err := s.Commit(t.Context(), pair("first")...); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
}

func TestOneEngineAtATimeHasTheFile(t *testing.T) {
	c := testConfig(t.TempDir())
	first := mustOpen(t, c)
	if s, err := Open(c); !errors.Is(err, store.ErrInUse) {
		t.Fatalf("a second Open gave %v, %v; want ErrInUse", s, err)
	}
	if _, err := first.Commit(t.Context(), pair("first")...); err != nil {
		t.Errorf("after that the first engine: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if n := missing(t, mustOpen(t, c), []string{"first"}); n > 0 {
		t.Errorf("%d objects are missing", n)
	}
}

func TestConcurrentFirstStartsMakeOneStore(t *testing.T) {
	c := testConfig(t.TempDir())
	var all sync.WaitGroup
	opened := make(chan *Store, 8)
	for range 8 {
		all.Go(func() {
			s, err := Open(c)
			if err == nil {
				opened <- s
			} else if !errors.Is(err, store.ErrInUse) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(opened) != 1 {
		t.Fatalf("%d engines have the file", len(opened))
	}
	s := <-opened
	if _, err := s.Commit(t.Context(), pair("first")...); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
