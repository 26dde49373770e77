package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"cloister/artifact/zip/ziptest"
	"cloister/lambda"
)

// A pack is a stored package, as a version names it.
type pack struct {
	artifact lambda.Artifact
	sha256   string
}

// naming names exactly these packages.
func naming(packs ...pack) Names {
	return func(_ context.Context, keep func(lambda.Artifact, string)) error {
		for _, p := range packs {
			keep(p.artifact, p.sha256)
		}
		return nil
	}
}

// upload is a PutZip whose call has ended.
func (f *fixture) upload(owner string, zip []byte) pack {
	f.Helper()
	ctx, end := context.WithCancel(f.Context())
	a, sum, _, err := f.PutZip(ctx, owner, zip)
	if err != nil {
		f.Fatal(err)
	}
	end()
	f.settle()
	return pack{a, sum}
}

// settle waits until no ended call holds anything.
func (f *fixture) settle() {
	f.Helper()
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) {
		f.garbage.mu.Lock()
		held := len(f.garbage.held)
		f.garbage.mu.Unlock()
		if held == 0 {
			return
		}
	}
	f.Fatal("an ended call holds files")
}

// collect looks once and returns how many files went.
func (f *fixture) collect(names Names) int {
	f.Helper()
	removed, _, err := f.Collect(f.Context(), names)
	if err != nil {
		f.Fatal(err)
	}
	return removed
}

// whole checks that image and zip of a package can be read.
func (f *fixture) whole(p pack) error {
	g, err := f.Grant(p.artifact, "worker", time.Minute)
	if err != nil {
		return err
	}
	s, err := f.Redeem(context.Background(), g, "worker")
	if err != nil {
		return err
	}
	r, err := s.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := Unseal(io.Discard, r, s.Key, s.Artifact); err != nil {
		return err
	}
	z, _, err := f.OpenZip(context.Background(), p.artifact.Owner, p.sha256)
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = io.Copy(io.Discard, z)
	return err
}

func TestWhatNobodyNamesGoesAfterTheGrace(t *testing.T) {
	f := fresh(t)
	kept, dropped := f.upload(alice, ziptest.Of("a", "1")), f.upload(alice, ziptest.Of("a", "2"))
	same := f.upload(bob, ziptest.Of("a", "2")) // of another account: other files
	names := naming(kept, same)
	if n := f.collect(names); n != 0 {
		t.Errorf("%d files went at the first look", n)
	}
	f.now = f.now.Add(defaultGrace - time.Second)
	if n := f.collect(names); n != 0 {
		t.Errorf("%d files went before the grace was over", n)
	}
	f.now = f.now.Add(time.Second)
	if n := f.collect(names); n != 2 || len(f.files()) != 4 {
		t.Errorf("%d files went and %d are left, want 2 and 4", n, len(f.files()))
	}
	if err := errors.Join(f.whole(kept), f.whole(same)); err != nil {
		t.Error(err)
	}
	if err := f.whole(dropped); lambda.KindOf(err) != lambda.NotFound {
		t.Errorf("what nobody names: %v, want NotFound", err)
	}
	if again := f.upload(alice, ziptest.Of("a", "2")); again != dropped || f.whole(again) != nil {
		t.Errorf("uploaded again it is %v, want %v", again, dropped)
	}
}

func TestAnImageThatAnotherZipNamesStays(t *testing.T) {
	f := fresh(t)
	one := ziptest.Zip{Files: []ziptest.File{{Name: "a", Content: "x"}}}
	two := ziptest.Zip{Files: []ziptest.File{{Name: "a", Content: "x", Stored: true}}}
	first, second := f.upload(alice, one.Bytes()), f.upload(alice, two.Bytes())
	if first.artifact != second.artifact {
		t.Fatal("the two zips have two images")
	}
	f.collect(naming(second))
	f.now = f.now.Add(defaultGrace)
	if n := f.collect(naming(second)); n != 1 {
		t.Errorf("%d files went, want the first zip", n)
	}
	if err := f.whole(second); err != nil {
		t.Error(err)
	}
}

// Each of these uses must save what was about to go.
func TestWhatIsUsedAgainStays(t *testing.T) {
	zip := ziptest.Of("a", "x")
	for name, use := range map[string]func(*fixture, pack){
		"stored again": func(f *fixture, p pack) { f.upload(alice, zip) },
		"being stored": func(f *fixture, p pack) {
			if _, _, _, err := f.PutZip(f.Context(), alice, zip); err != nil {
				f.Error(err)
			}
		},
		"named": func(f *fixture, p pack) { f.collect(naming(p)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := fresh(t)
			p := f.upload(alice, zip)
			f.collect(naming())
			f.now = f.now.Add(defaultGrace)
			use(f, p)
			if n := f.collect(naming()); n != 0 || f.whole(p) != nil {
				t.Errorf("%d files went: %v", n, f.whole(p))
			}
		})
	}
	f := fresh(t)
	p := f.upload(alice, zip)
	f.collect(naming())
	f.now = f.now.Add(defaultGrace)
	g := f.grant(p.artifact, "worker")
	f.collect(naming())
	if _, err := f.Redeem(t.Context(), g, "worker"); err != nil {
		t.Errorf("an image that was granted is gone: %v", err)
	}
}

// A call that takes longer than any grace between storing its code and naming it.
func TestACallThatIsStillRunningKeepsItsCode(t *testing.T) {
	f := fresh(t)
	ctx, end := context.WithCancel(t.Context())
	a, sum, _, err := f.PutZip(ctx, alice, ziptest.Of("a", "x"))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		f.now = f.now.Add(defaultGrace)
		if n := f.collect(naming()); n != 0 {
			t.Fatalf("%d files of a running call went", n)
		}
	}
	end()
	f.settle()
	if n := f.collect(naming()); n != 0 || f.whole(pack{a, sum}) != nil {
		t.Errorf("%d files went as soon as the call had ended", n)
	}
	f.now = f.now.Add(defaultGrace)
	f.collect(naming())
	f.now = f.now.Add(defaultGrace)
	if f.collect(naming()); len(f.files()) != 0 {
		t.Error("code that was never named stays for ever")
	}
}

func TestNothingGoesWhenItIsNotKnownWhatIsNamed(t *testing.T) {
	f := fresh(t)
	p := f.upload(alice, ziptest.Of("a", "x"))
	broken := func(context.Context, func(lambda.Artifact, string)) error { return errBroken }
	f.collect(naming())
	f.now = f.now.Add(defaultGrace)
	if n, _, err := f.Collect(t.Context(), broken); n != 0 || !errors.Is(err, errBroken) || f.whole(p) != nil {
		t.Errorf("%d files went, %v", n, err)
	}
}

func TestFilesOfOtherKindsStay(t *testing.T) {
	f := fresh(t)
	f.upload(alice, ziptest.Of("a", "x"))
	other := filepath.Join(f.directory, "layer", "00", "of a later release")
	if err := errors.Join(os.MkdirAll(filepath.Dir(other), 0o700), os.WriteFile(other, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	f.collect(naming())
	f.now = f.now.Add(defaultGrace)
	f.collect(naming())
	if left := slices.Collect(maps.Keys(f.files())); !slices.Equal(left, []string{other}) {
		t.Errorf("left: %v", left)
	}
}

func TestRunLooksAtTheStartAndWhenSomethingHasChanged(t *testing.T) {
	directory := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, directory: directory + "/artifacts"}
		f.reopen()
		f.garbage.now = time.Now
		f.upload(alice, ziptest.Of("a", "left by an earlier process"))
		f.reopen()
		f.garbage.now = time.Now
		var looks atomic.Int32
		ctx, stop := context.WithCancel(t.Context())
		names := func(context.Context, func(lambda.Artifact, string)) error { looks.Add(1); return nil }
		done := make(chan struct{})
		go func() { defer close(done); f.Store.Run(ctx, names) }()
		pass := func(d time.Duration) { t.Helper(); time.Sleep(d); synctest.Wait() }

		pass(defaultGrace + time.Second)
		if left := f.files(); len(left) != 0 || looks.Load() != 2 {
			t.Errorf("after a grace %d files are left and there were %d looks, want 0 and 2", len(left), looks.Load())
		}
		pass(24 * time.Hour)
		if n := looks.Load(); n != 2 {
			t.Errorf("an idle store was looked at %d times", n)
		}
		for range 1000 { // many changes, few looks
			f.Dropped()
			pass(time.Second)
		}
		if n := looks.Load(); n < 3 || n > 5 {
			t.Errorf("a thousand changes in a thousand seconds led to %d looks", n-2)
		}
		f.upload(alice, ziptest.Of("a", "never named"))
		pass(time.Hour)
		if left := f.files(); len(left) != 0 {
			t.Errorf("an hour after a failed call %d files are left", len(left))
		}
		stop()
		<-done
	})
}

// A model of accounts whose versions come and go, in any order and with any pauses: what is named is always
// there, and what is not goes.
func TestAnyHistoryKeepsWhatIsNamedAndNothingElse(t *testing.T) {
	contents := []string{"1", "2", "3", "4"}
	rapid.Check(t, func(r *rapid.T) {
		f := fresh(t)
		var named []pack
		drop := func(i int) { named = slices.Delete(named, i, i+1) }
		r.Repeat(map[string]func(*rapid.T){
			"create": func(r *rapid.T) {
				named = append(named, f.upload(rapid.SampledFrom([]string{alice, bob}).Draw(r, "owner"), ziptest.Of("a", rapid.SampledFrom(contents).Draw(r, "content"))))
			},
			"create that fails": func(r *rapid.T) { f.upload(alice, ziptest.Of("a", rapid.SampledFrom(contents).Draw(r, "content"))) },
			"delete": func(r *rapid.T) {
				if len(named) > 0 {
					drop(rapid.IntRange(0, len(named)-1).Draw(r, "which"))
				}
			},
			"grant": func(r *rapid.T) {
				if len(named) > 0 {
					f.grant(rapid.SampledFrom(named).Draw(r, "which").artifact, "worker")
				}
			},
			"wait": func(r *rapid.T) {
				f.now = f.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(r, "minutes")) * time.Minute)
			},
			"collect": func(*rapid.T) { f.collect(naming(named...)) },
			"restart": func(*rapid.T) { f.reopen() },
			"":        func(*rapid.T) {},
		})
		for _, p := range named {
			if err := f.whole(p); err != nil {
				r.Fatalf("a named package: %v", err)
			}
		}
		f.collect(naming(named...))
		f.now = f.now.Add(defaultGrace)
		f.collect(naming(named...))
		want := map[string]bool{}
		for _, p := range named {
			id, _ := zipID(p.sha256)
			want[f.path(imageKind, p.artifact.Owner, p.artifact.ID)] = true
			want[f.path(zipKind, p.artifact.Owner, id)] = true
		}
		if left := f.files(); len(left) != len(want) {
			r.Fatalf("%d files are left, want %d", len(left), len(want))
		}
	})
}

// With no grace at all uploads and looks at the same time must not harm each other.
func TestUploadsAndLooksAtTheSameTime(t *testing.T) {
	f := fresh(t)
	f.grace = time.Nanosecond
	f.reopen()
	f.Store.garbage.now, f.Store.grants.now = time.Now, time.Now
	var mu sync.Mutex
	named := map[pack]int{}
	names := func(_ context.Context, keep func(lambda.Artifact, string)) error {
		mu.Lock()
		defer mu.Unlock()
		for p := range named {
			keep(p.artifact, p.sha256)
		}
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	var looking, uploading sync.WaitGroup
	var removed atomic.Int64
	looking.Go(func() {
		for ctx.Err() == nil {
			n, _, err := f.Collect(t.Context(), names)
			if removed.Add(int64(n)); err != nil {
				t.Error(err)
			}
		}
	})
	for worker := range 4 {
		uploading.Go(func() {
			for i := range 40 {
				call, end := context.WithCancel(t.Context())
				a, sum, _, err := f.PutZip(call, alice, ziptest.Of("a", fmt.Sprint((i+worker)%5)))
				if err != nil {
					t.Error(err)
				}
				p := pack{a, sum}
				mu.Lock()
				named[p]++
				mu.Unlock()
				end()
				if err := f.whole(p); err != nil {
					t.Errorf("a named package: %v", err)
				}
				mu.Lock()
				if named[p]--; named[p] == 0 {
					delete(named, p)
				}
				mu.Unlock()
			}
		})
	}
	uploading.Wait()
	stop()
	looking.Wait()
	if removed.Load() == 0 {
		t.Error("nothing was removed: the test shows nothing")
	}
}
