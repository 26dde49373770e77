package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"cloister/api"
	"cloister/lambda"
)

const (
	// maxFormBytes is the limit of request bodies that no other limit below is for.
	maxFormBytes = 1 << 20
	// maxEventBytes is the payload limit of asynchronous invocations.
	maxEventBytes = 1 << 20
	// maxCodeBytes is AWS's limit for a request that carries a zip file in base64.
	maxCodeBytes = 70_167_211

	// smallBodyBytes may be read from anybody, without looking at the signature's form first and without
	// a share of the budget: MaxConnections bounds what these bodies take together.
	smallBodyBytes = 64 << 10
	// bodyStep must arrive within Config.BodyTimeout, over and over.
	bodyStep = 256 << 10
	// maxDrain and drainTimeout bound how much of a refused body is thrown away, see drain.
	maxDrain     = 2 * maxCodeBytes
	drainTimeout = 30 * time.Second
)

// bodyLimits returns the limits of operations for which maxFormBytes is not right.
func bodyLimits(services []Service) map[*api.Operation]int64 {
	limits := map[*api.Operation]int64{}
	for _, service := range services {
		if service.API().Name != "lambda" {
			continue
		}
		for name, limit := range map[string]int64{
			"Invoke":                   lambda.MaxPayloadBytes,
			"InvokeWithResponseStream": lambda.MaxPayloadBytes,
			"CreateFunction":           maxCodeBytes,
			"UpdateFunctionCode":       maxCodeBytes,
			"PublishLayerVersion":      maxCodeBytes,
		} {
			if operation := service.API().Operation(name); operation != nil {
				limits[operation] = limit
			}
		}
	}
	return limits
}

// bodyLimit returns how long the body of a request for operation, which may be nil, may be.
func (s *Server) bodyLimit(r *http.Request, operation *api.Operation) int64 {
	limit, ok := s.limits[operation]
	switch {
	case !ok:
		return maxFormBytes
	case operation.Name == "Invoke" && r.Header.Get("X-Amz-Invocation-Type") == "Event":
		return maxEventBytes
	}
	return limit
}

// A budget bounds the bytes of all bodies above smallBodyBytes. An account may hold as much as it leaves free: the
// first gets half, the second at least half of the rest, and whoever comes next still finds room. While a body is
// read, its account is claimed and not proven, so what a stranger sends under the id of a tenant's key is that tenant's.
type budget struct {
	size int64

	mu       sync.Mutex
	used     int64            // guarded by mu
	accounts map[string]int64 // guarded by mu; what each holds, none holds 0
}

// A reservation is what a call holds of the budget.
type reservation struct {
	account string
	bytes   int64
}

// raise makes r hold n bytes and reports whether there was room for them.
func (b *budget) raise(r *reservation, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	more := n - r.bytes
	if b.accounts[r.account]+more > b.size-b.used-more {
		return false
	}
	if b.accounts == nil {
		b.accounts = map[string]int64{}
	}
	b.accounts[r.account] += more
	b.used += more
	r.bytes = n
	return true
}

// release makes r hold nothing.
func (b *budget) release(r *reservation) {
	if r.bytes == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= r.bytes
	if b.accounts[r.account] -= r.bytes; b.accounts[r.account] == 0 {
		delete(b.accounts, r.account)
	}
	*r = reservation{}
}

// readBody reads the whole body of the request into x.body. A length that is announced and too large is
// refused before anything is read, one that is not is found out while reading. Until 64 KiB anybody may send;
// for more the signature must be well-formed and recent and name an existing key, and the budget must
// have room. What the budget gave is returned when the call has been answered.
//
// The buffer is made for this call and passes to it: see Service.Server. Reusing buffers would save little
// (making one of 6 MiB takes a seventh of the time of its hash, 3 % of the call) and would let one
// tenant's bytes show in another's call after any mistake about who still reads them.
func (x *exchange) readBody() error {
	limit := x.server.bodyLimit(x.request, x.operation)
	length := x.request.ContentLength
	x.unread = length != 0
	if length > limit {
		return x.tooLarge(limit)
	}
	size := length
	if length < 0 { // chunked: the length shows at the end
		size = min(limit, smallBodyBytes) + 1
	}
	if err := x.reserve(size); err != nil {
		return err
	}
	x.body = make([]byte, 0, size)
	for {
		err := x.fill()
		if int64(len(x.body)) > limit {
			return x.tooLarge(limit)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			x.unread = false // what is left of it, if anything, does not come
			return brokenBody(err)
		}
		if int64(len(x.body)) == length {
			break
		}
		// Only a chunked body is longer than the buffer.
		grown := min(limit+1, 4*int64(cap(x.body)))
		if err := x.reserve(grown); err != nil {
			return err
		}
		x.body = append(make([]byte, 0, grown), x.body...)
	}
	x.unread = false
	return nil
}

// fill reads until x.body is full. It returns io.EOF at the end of the body. It must not touch the
// deadline after that: net/http then has taken it away and reads ahead to see the client leave.
func (x *exchange) fill() error {
	step := 0 // the ReadTimeout of the http.Server is the deadline of the first
	for len(x.body) < cap(x.body) {
		n, err := x.request.Body.Read(x.body[len(x.body):cap(x.body)])
		x.body = x.body[:len(x.body)+n]
		if err != nil {
			return err
		}
		if step += n; step >= bodyStep {
			x.setReadDeadline(x.server.config.BodyTimeout)
			step = 0
		}
	}
	return nil
}

func (x *exchange) setReadDeadline(after time.Duration) {
	if d, ok := x.ResponseWriter.(interface{ SetReadDeadline(time.Time) error }); ok {
		// An error means that the connection is gone, which the next read says as well.
		_ = d.SetReadDeadline(time.Now().Add(after))
	}
}

// reserve raises what the call holds of the budget to n bytes, if n is not small.
func (x *exchange) reserve(n int64) error {
	if n <= smallBodyBytes+1 {
		return nil
	}
	if x.reserved.bytes == 0 {
		claim, err := x.server.config.Verifier.Check(x.request)
		if err != nil {
			return err
		}
		caller, err := x.server.config.Identity.Caller(x.request.Context(), claim.AccessKeyID, claim.SessionToken)
		if err != nil {
			return err
		}
		x.reserved.account = caller.AccountID
	}
	if !x.server.budget.raise(&x.reserved, n) {
		return lambda.Errorf(lambda.Capacity, "reserve memory for a body", "Too many large requests are in progress. Try again.")
	}
	return nil
}

// release returns what the call holds of the budget.
func (x *exchange) release() {
	x.server.budget.release(&x.reserved)
	x.body = nil
}

// tooLarge returns AWS's error. Lambda calls its Invoke by an older name there.
func (x *exchange) tooLarge(limit int64) error {
	code, name := "RequestEntityTooLargeException", "this"
	if x.operation != nil {
		name = "the " + x.operation.Name
		if x.operation.Name == "Invoke" {
			name = "the InvokeFunction"
		}
	}
	if x.route.api.Protocol == api.Query {
		code = "RequestEntityTooLarge"
	}
	return &api.Error{Code: code, Status: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("Request must be smaller than %d bytes for %s operation", limit, name)}
}

func brokenBody(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &api.Error{Code: "RequestTimeoutException", Status: http.StatusRequestTimeout,
			Message: "The request body did not arrive in time."}
	}
	return &api.Error{Code: "SerializationException", Status: http.StatusBadRequest,
		Message: "The request body is incomplete or its transfer encoding is malformed."}
}

// drain throws away the rest of a refused body, so that a client that sends all of it before it
// reads gets to the answer instead of a reset connection. A client that waits for 100 Continue has
// not begun to send.
func (x *exchange) drain() {
	if x.request.Header.Get("Expect") != "" {
		return
	}
	_ = http.NewResponseController(x.ResponseWriter).Flush() // an error means that nobody is there
	x.setReadDeadline(drainTimeout)
	_, _ = io.CopyN(io.Discard, x.request.Body, maxDrain)
}
