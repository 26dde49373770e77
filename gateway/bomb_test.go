package gateway

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A bomb is a small effort for a tenant that is meant to be a great one for the server.
type bomb struct {
	service, path, body string
	harmless            bool // it means nothing, and is answered as if it were not there
}

const (
	createPath = "/2015-03-31/functions"
	create     = `{"FunctionName":"f","Role":"arn:aws:iam::123456789012:role/r","Code":{"ZipFile":"UEs="},`
	form       = "Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=x&"
)

// bombs are well signed. A million levels of one byte each are as many as fit into the limit of most operations.
func bombs() map[string]bomb {
	const deep = 1 << 20
	lambda := func(body string) bomb { return bomb{service: "lambda", path: createPath, body: body} }
	logs := func(body string) bomb {
		return bomb{service: "logs", path: "/", body: body[:min(len(body), maxFormBytes)]}
	}
	iam := func(body string) bomb {
		return bomb{service: "iam", path: "/", body: body[:min(len(body), maxFormBytes)]}
	}
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	return map[string]bomb{
		"arrays":                     lambda(strings.Repeat("[", deep)),
		"closed arrays":              lambda(strings.Repeat("[", deep) + strings.Repeat("]", deep)),
		"objects":                    lambda(strings.Repeat(`{"a":`, deep)),
		"arrays in an unknown":       lambda(create + `"Unknown":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + "}"),
		"objects in an unknown":      lambda(create + `"Unknown":` + strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep) + "}"),
		"arrays for a string":        lambda(create + `"Description":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + "}"),
		"arrays for a list":          lambda(create + `"Layers":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + "}"),
		"objects for a structure":    lambda(create + `"Environment":` + strings.Repeat(`{"Variables":`, deep) + "}"),
		"arrays in a key":            lambda(`{` + strings.Repeat("[", deep)),
		"one quote":                  lambda(`"` + strings.Repeat("a", deep)),
		"escapes":                    lambda(`{"FunctionName":"` + strings.Repeat(`\u0000`, deep) + `"}`),
		"half an escape":             lambda(`{"FunctionName":"` + strings.Repeat(`\ud800`, deep) + `"}`),
		"digits":                     lambda(create + `"Timeout":` + strings.Repeat("9", deep) + "}"),
		"exponent":                   lambda(create + `"Timeout":1e` + strings.Repeat("9", deep) + "}"),
		"fraction":                   lambda(create + `"Timeout":0.` + strings.Repeat("0", deep) + "1}"),
		"minus signs":                lambda(create + `"Timeout":` + strings.Repeat("-", deep) + "1}"),
		"spaces":                     lambda(strings.Repeat(" ", deep) + "x"),
		"commas":                     lambda("[" + strings.Repeat(",", deep) + "]"),
		"a hundred thousand layers":  lambda(create + `"Layers":[` + strings.TrimSuffix(many(100_000, `"l%d",`), ",") + "]}"),
		"a key a hundred times":      lambda(create + strings.Repeat(`"Environment":{"Variables":{"A":1}},`, 100) + `"Timeout":"x"}`),
		"a hundred thousand unknown": {"lambda", createPath, create + strings.TrimSuffix(many(100_000, `"k%d":0,`), ",") + "}", true},
		"JSON-RPC arrays":            logs(strings.Repeat("[", deep)),
		"JSON-RPC objects":           logs(strings.Repeat(`{"logGroupNamePrefix":`, deep)),
		"JSON-RPC digits":            logs(`{"limit":` + strings.Repeat("9", deep-20) + `}`),
		"dots in a name":             iam(form + strings.Repeat("a.", deep/2)),
		"members of members":         iam(form + "Tags" + strings.Repeat(".member.1", deep/10) + "=x"),
		"member of a great number":   iam(form + "Tags.member.2147483647.Key=k"),
		"member of no number":        iam(form + "Tags.member." + strings.Repeat("9", 1<<19) + ".Key=k"),
		"many members":               iam(form + many(30_000, "Tags.member.%d.Key=k&")),
		"half a million parameters":  iam(form + strings.Repeat("a&", deep/2-len(form))),
		"percent signs":              iam(form + "Path=" + strings.Repeat("%41", deep/3-len(form))),
		"halves of percent signs":    iam(form + "Path=" + strings.Repeat("%", 1<<19)),
	}
}

func (b bomb) request(t *testing.T, h *house) *http.Request {
	r := h.unsigned(t, http.MethodPost, b.path, b.body)
	switch b.service {
	case "logs":
		r.Header.Set("X-Amz-Target", "Logs_20140328.DescribeLogGroups")
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	case "iam":
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	signing{service: b.service}.sign(t, r, []byte(b.body))
	return r
}

// What a bomb may cost: a body is read once, may be copied some times, and takes memory in proportion to itself.
const (
	bombBytes = 64 << 20
	bombTime  = 5 * time.Second // a thousand times what it takes; a quadratic algorithm needs minutes
)

func TestABombCostsNoMoreThanItsSize(t *testing.T) {
	h := openHouse(t)
	for name, b := range bombs() {
		t.Run(name, func(t *testing.T) {
			r := b.request(t, h)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			got := h.do(t, r)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			refused := got.status == http.StatusBadRequest || got.status == http.StatusNotFound // AWS's for a malformed form
			if refused == b.harmless || shape(got) != nil || got.closed {
				t.Errorf("status %d; closed %v; %.300s", got.status, got.closed, got.body)
			}
			if len(got.body) > 64<<10 {
				t.Errorf("an answer of %d bytes", len(got.body))
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > bombBytes || took > bombTime {
				t.Errorf("%d bytes cost %d bytes of memory and %v", len(b.body), allocated, took)
			}
		})
	}
	if got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{})); got.status != http.StatusOK {
		t.Errorf("a call afterwards: status %d", got.status)
	}
	if log := h.log.String(); strings.Contains(log, "panic") {
		t.Errorf("panic:\n%s", log)
	}
}

// The control: a reader that goes as deep as the brackets would need more than a bomb may cost.
func TestADeepBodyIsABomb(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var top []any
	for range 1 << 20 {
		top = append(make([]any, 0, 4), top) // as encoding/json reads a nested array
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated < bombBytes {
		t.Errorf("a million nested arrays take %d bytes: the limit of the test above is too high", allocated)
	}
	runtime.KeepAlive(top)
}
