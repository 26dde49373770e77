package artifact

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cloister/artifact/zip/ziptest"
	"cloister/lambda"
)

func TestGrantsAreForOneHolderOneTimeAndAWhile(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, code(1))
	g, err := f.Grant(a, "worker-1", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(g, a.ID) || strings.Contains(g, alice) {
		t.Error("the grant shows what it is for")
	}
	refused := func(what, grant, holder string) {
		t.Helper()
		if s, err := f.Redeem(t.Context(), grant, holder); lambda.KindOf(err) != lambda.AccessDenied || s.Key != nil {
			t.Errorf("%s: Redeem gave %v, want AccessDenied", what, err)
		}
	}
	refused("another holder", g, "worker-2")
	refused("no holder", g, "")
	refused("no grant", "", "worker-1")
	refused("not base64", "!"+g[1:], "worker-1")
	refused("cut", g[:len(g)-4], "worker-1")
	refused("huge", strings.Repeat("A", 1<<20), "worker-1")
	raw, err := base64.RawURLEncoding.DecodeString(g)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		refused(fmt.Sprint("byte ", i, " changed"), base64.RawURLEncoding.EncodeToString(changed), "worker-1")
	}
	// What was refused has not used the grant up.
	if _, err := f.Redeem(t.Context(), g, "worker-1"); err != nil {
		t.Errorf("the right holder: %v", err)
	}
	refused("redeemed before", g, "worker-1")

	late, err := f.Grant(a, "worker-1", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(time.Minute)
	refused("expired", late, "worker-1")
	f.now = f.now.Add(-time.Nanosecond)
	if _, err := f.Redeem(t.Context(), late, "worker-1"); err != nil {
		t.Errorf("just before it expires: %v", err)
	}

	old, err := f.Grant(a, "worker-1", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	f.reopen()
	refused("issued before a restart", old, "worker-1")
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

func TestManyRedeemedGrantsAreBounded(t *testing.T) {
	f := fresh(t)
	for i := range maxRedeemed {
		f.grants.redeemed[fmt.Sprint(i)] = f.now.Add(time.Minute)
	}
	a := f.put(alice, ziptest.Of("a", "x"))
	g, err := f.Grant(a, "worker", 2*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Redeem(t.Context(), g, "worker"); lambda.KindOf(err) != lambda.Throttled {
		t.Errorf("over the bound Redeem gave %v, want Throttled", err)
	}
	f.now = f.now.Add(time.Minute)
	if _, err := f.Redeem(t.Context(), g, "worker"); err != nil || len(f.grants.redeemed) != 1 {
		t.Errorf("after the others expired: %v, %d are remembered", err, len(f.grants.redeemed))
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
