package gateway

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cloister/api/lambdaapi"
	"cloister/iam"
	"cloister/iam/sigv4"
	"cloister/lambda"
)

// A street has many tenants: whoever signs with the key "AKIDn" is of account "n".
type street struct{ *fakeIdentity }

func (street) Caller(_ context.Context, accessKeyID, _ string) (iam.Caller, error) {
	account := strings.TrimPrefix(accessKeyID, "AKID")
	return iam.Caller{AccountID: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account}, nil
}

func withStreet(c *Config) {
	var err error
	c.Identity = street{c.Identity.(*fakeIdentity)}
	c.Verifier, err = sigv4.New(sigv4.Config{Region: testRegion, Services: []string{"lambda", "logs", "iam", "sts"},
		Lookup: func(context.Context, string, string) (string, error) { return testSecret, nil }})
	if err != nil {
		panic(err)
	}
}

func TestATenantCannotUseUpTheBudgetOfTheOthers(t *testing.T) {
	const size = lambda.MaxPayloadBytes
	h := openHouse(t, withStreet, func(c *Config) { c.BodyBudget = 8 * size })
	entered, leave := make(chan struct{}), make(chan struct{})
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		entered <- struct{}{}
		<-leave
		return &lambdaapi.InvocationResponse{StatusCode: new(int32(200))}, nil
	}
	body := string(zeros(size))
	results := make(chan int, 8)
	hold := func(key string) {
		r := h.request(t, http.MethodPost, invocationsPath, body, signing{keyID: key})
		go func() {
			response, err := h.client.Do(r)
			if err != nil {
				results <- 0
				return
			}
			response.Body.Close()
			results <- response.StatusCode
		}()
		<-entered
	}
	refused := func(key string) {
		t.Helper()
		got := h.do(t, h.request(t, http.MethodPost, invocationsPath, body, signing{keyID: key}))
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || shape(got) != nil {
			t.Errorf("%s: status %d, %.200s", key, got.status, got.body)
		}
	}
	for range 4 {
		hold("AKID1") // half of it for one alone
	}
	refused("AKID1")
	hold("AKID2")
	hold("AKID2") // and as much as that leaves free for the next
	refused("AKID2")
	refused("AKID1")
	hold("AKID3")
	close(leave)
	for range 7 {
		if status := <-results; status != http.StatusOK {
			t.Errorf("a body that was let in: status %d", status)
		}
	}
	waitFor(t, "return of the budget", func() bool { return h.held() == 0 })
	h.budget.mu.Lock()
	defer h.budget.mu.Unlock()
	if len(h.budget.accounts) > 0 {
		t.Errorf("accounts %v hold something", h.budget.accounts)
	}
}

// Whatever three tenants do, the budget holds, and a newcomer finds room: each left free as much as it holds itself.
func TestTheBudgetKeepsRoomForANewcomer(t *testing.T) {
	tenants := []string{"a", "b", "c"}
	for seed := range uint64(2000) {
		source := rand.New(rand.NewPCG(seed, 0))
		size := 1 + source.Int64N(1000)
		b, held, calls := &budget{size: size}, map[string]int64{}, []*reservation{}
		for range 60 {
			if len(calls) > 0 && source.IntN(4) == 0 {
				n := source.IntN(len(calls))
				held[calls[n].account] -= calls[n].bytes
				b.release(calls[n])
				calls = slices.Delete(calls, n, n+1)
				continue
			}
			r := &reservation{account: tenants[source.IntN(len(tenants))]}
			if len(calls) > 0 && source.IntN(2) == 0 {
				r = calls[source.IntN(len(calls))] // a chunked body that turns out longer
			} else {
				calls = append(calls, r)
			}
			before, more := r.bytes, source.Int64N(size)
			if b.raise(r, before+more) {
				held[r.account] += more
			} else if r.bytes != before {
				t.Fatal("a refusal changed what is held")
			}
		}
		total := int64(0)
		for tenant, n := range held {
			total += n
			if b.accounts[tenant] != n {
				t.Fatalf("seed %d: %s holds %d, counted are %d", seed, tenant, n, b.accounts[tenant])
			}
		}
		if total != b.used || total > size {
			t.Fatalf("seed %d: %d of %d are held, counted are %d", seed, total, size, b.used)
		}
		if newcomer := (&reservation{account: "new"}); !b.raise(newcomer, size>>(len(tenants)+1)) {
			t.Fatalf("seed %d: no room for a newcomer: %d of %d are held by %v", seed, total, size, b.accounts)
		}
	}
}
