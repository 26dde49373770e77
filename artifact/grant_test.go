package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloister/artifact/zip/ziptest"
	"cloister/lambda"
)

// grant issues a permission for a minute.
func (f *fixture) grant(a lambda.Artifact, holder string) string {
	f.Helper()
	g, err := f.Grant(a, holder, time.Minute)
	if err != nil {
		f.Fatal(err)
	}
	return g
}

// refused checks that a grant gives nothing.
func (f *fixture) refused(what, grant, holder string) {
	f.Helper()
	if s, err := f.Redeem(f.Context(), grant, holder); lambda.KindOf(err) != lambda.AccessDenied || s.Key != nil || s.path != "" {
		f.Errorf("%s: Redeem gave %v, want AccessDenied", what, err)
	} else if e, _ := errors.AsType[*lambda.Error](err); e.Message != "the grant is not valid" {
		f.Errorf("%s: the holder is told %q", what, e.Message)
	}
}

func TestGrantsAreForOneHolderOneTimeAndAWhile(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, code(1))
	g := f.grant(a, "worker-1")
	if strings.Contains(g, a.ID) || strings.Contains(g, alice) {
		t.Error("the grant shows what it is for")
	}
	f.refused("another holder", g, "worker-2")
	f.refused("no holder", g, "")
	f.refused("no grant", "", "worker-1")
	f.refused("cut", g[:len(g)-1], "worker-1")
	f.refused("longer", g+"A", "worker-1")
	f.refused("twice in one", g+g, "worker-1")
	f.refused("huge", strings.Repeat("A", 1<<20), "worker-1")
	for i := range len(g) * 8 {
		changed := []byte(g)
		changed[i/8] ^= 1 << (i % 8)
		f.refused(fmt.Sprint("bit ", i, " changed"), string(changed), "worker-1")
	}
	// What was refused has not used the grant up.
	if s, err := f.Redeem(t.Context(), g, "worker-1"); err != nil || s.Artifact != a {
		t.Errorf("the right holder: %v, %v", s, err)
	}
	f.refused("redeemed before", g, "worker-1")

	late := f.grant(a, "worker-1")
	f.now = f.now.Add(time.Minute)
	f.refused("expired", late, "worker-1")
	f.now = f.now.Add(-time.Nanosecond)
	if _, err := f.Redeem(t.Context(), late, "worker-1"); err != nil {
		t.Errorf("just before it expires: %v", err)
	}

	old := f.grant(a, "worker-1")
	f.reopen()
	f.refused("issued before a restart", old, "worker-1")
}

func TestAGrantEndsWithTheOrderThatItWasIssuedFor(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, code(1))
	mine, other := f.grant(a, "worker"), f.grant(a, "worker")
	f.Revoke(mine)
	f.Revoke(mine)
	f.Revoke("never issued")
	f.refused("revoked", mine, "worker")
	if _, err := f.Redeem(t.Context(), other, "worker"); err != nil {
		t.Errorf("the grant of another order: %v", err)
	}
	f.Revoke(other)
	f.refused("redeemed, then revoked", other, "worker")
}

func TestAGrantOpensItsOwnArtifactOnly(t *testing.T) {
	f := fresh(t)
	mine, foreign := f.put(alice, code(1)), f.put(bob, code(2))
	s, err := f.Redeem(t.Context(), f.grant(mine, "worker"), "worker")
	if err != nil {
		t.Fatal(err)
	}
	stolen := f.redeem(foreign)
	// Whoever has the sealed bytes of another artifact, from the disk, has no key to them.
	if err := Unseal(io.Discard, mustOpen(t, stolen), s.Key, foreign); lambda.KindOf(err) != lambda.Corrupt {
		t.Errorf("the key of one artifact on another: %v, want Corrupt", err)
	}
	if err := Unseal(io.Discard, mustOpen(t, stolen), stolen.Key, foreign); err != nil {
		t.Errorf("its own key: %v", err)
	}
}

func TestManyAtOnceRedeemAGrantOnce(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, ziptest.Of("a", "x"))
	for range 20 {
		g := f.grant(a, "worker")
		var opened atomic.Int32
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				switch _, err := f.Redeem(t.Context(), g, "worker"); {
				case err == nil:
					opened.Add(1)
				case lambda.KindOf(err) != lambda.AccessDenied:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := opened.Load(); n != 1 {
			t.Fatalf("one grant was redeemed %d times", n)
		}
	}
}

func TestGrantsOutOfBoundsAreNotIssued(t *testing.T) {
	f := fresh(t)
	a := lambda.Artifact{ID: "id", Owner: alice}
	for _, g := range []struct {
		a        lambda.Artifact
		holder   string
		validity time.Duration
	}{
		{a, "worker", 0}, {a, "worker", -time.Minute}, {a, "worker", MaxValidity + 1}, {a, "", time.Minute},
		{lambda.Artifact{Owner: alice}, "worker", time.Minute}, {lambda.Artifact{ID: "id"}, "worker", time.Minute},
	} {
		if text, err := f.Grant(g.a, g.holder, g.validity); err == nil || text != "" {
			t.Errorf("Grant(%v, %q, %v) was issued", g.a, g.holder, g.validity)
		}
	}
}

func TestManyGrantsAreBounded(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, ziptest.Of("a", "x"))
	var last string
	for range maxGrants {
		last = f.grant(a, "worker")
	}
	if g, err := f.Grant(a, "worker", time.Minute); lambda.KindOf(err) != lambda.Throttled || g != "" {
		t.Errorf("over the bound Grant gave %q, %v, want Throttled", g, err)
	}
	if _, err := f.Redeem(t.Context(), last, "worker"); err != nil {
		t.Errorf("at the bound a grant is not redeemed: %v", err)
	}
	f.grant(a, "worker") // there is room for one again
	f.now = f.now.Add(time.Minute)
	f.grant(a, "worker")
	if n := len(f.grants.good); n != 1 {
		t.Errorf("after the others expired %d are remembered", n)
	}
}

func TestARedeemedKeyIsNeverPrinted(t *testing.T) {
	f := fresh(t)
	s := f.redeem(f.put(alice, ziptest.Of("a", "x")))
	s.Key = bytes.Repeat([]byte{0xAB}, len(s.Key))
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %x %s %d", s, s, s, s, s, struct{ S Sealed }{s})
	slog.New(slog.NewTextHandler(&out, nil)).Info("redeemed", "sealed", s)
	if text := strings.ToLower(out.String()); strings.Contains(text, "abab") || strings.Contains(text, "171 171") {
		t.Errorf("output holds the key: %s", text)
	}
}
