package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"cloister/api"
	"cloister/iam"
	"cloister/iam/sigv4"
)

// An exchange is one request on its way through the steps of serve, and the writer of its answer. It
// belongs to the goroutine of its connection.
type exchange struct {
	http.ResponseWriter
	server  *Server
	request *http.Request
	started time.Time
	random  [16 + traceRandomBytes]byte // for the ids of the call, read at once

	route     *route         // never nil
	operation *api.Operation // nil until matched
	labels    api.Labels
	unmatched error // why operation is nil, to be told to those only who can sign

	body     []byte
	unread   bool // the client may be sending a body that nobody will read
	reserved reservation

	caller iam.Caller
	call   api.Call // what services see of all this

	verified bool   // the signature is good and caller is who made it
	status   int    // of the answer, 0 until it begins
	code     string // of an error answer
	cause    error  // of an answer that does not name it
}

// answer is the handler of every request.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, server: s, request: r, started: time.Now()}
	defer x.finish()
	out, err := x.serve()
	if err != nil {
		x.refuse(err)
		return
	}
	x.prepareWriting()
	x.route.api.Encode(x, x.operation, x.call.RequestID, out)
}

// serve takes the request from bytes to the output of an operation. The order is AWS's: only a signed request
// is told whether its operation exists, and a malformed input is an error whether or not the call
// would have been allowed.
func (x *exchange) serve() (any, error) {
	if err := x.begin(); err != nil {
		return nil, err
	}
	if err := x.readBody(); err != nil {
		return nil, err
	}
	if err := x.authenticate(); err != nil {
		return nil, err
	}
	in, err := x.decode()
	if err != nil {
		return nil, err
	}
	ctx := api.WithCall(x.server.ctx, &x.call) // a call runs to its end though its client leaves, as on AWS
	if err := x.authorize(ctx, in); err != nil {
		return nil, err
	}
	x.trace()
	return x.operation.Call(ctx, x.route.server, in)
}

// begin finds the service, makes the request id, and finds the operation if the header is enough for it.
func (x *exchange) begin() error {
	x.route = x.server.services.find(x.request)
	if _, err := io.ReadFull(x.server.config.Rand, x.random[:]); err != nil {
		return fmt.Errorf("make request id: %w", err)
	}
	x.call.RequestID = newRequestID([16]byte(x.random[:]))
	// Framing that has fooled servers before (RFC 9112, 6.1 and 6.3) ends the connection after one request:
	// net/http goes by Transfer-Encoding where there is a Content-Length too and does not tell. So does a target with
	// a host of its own, beside which net/http forgets the Host header.
	if len(x.request.TransferEncoding) > 0 || !x.request.ProtoAtLeast(1, 1) || x.request.URL.Host != "" {
		x.Header().Set("Connection", "close")
	}
	if !sigv4.NormalPath(x.request.URL) {
		x.unmatched = errPath
		return nil
	}
	if x.route.api.Protocol != api.Query {
		x.operation, x.labels, x.unmatched = x.route.api.Match(x.request, nil)
	}
	return nil
}

// errPath refuses what is signed like another path and was perhaps made of it by a proxy.
var errPath = &api.Error{Code: "UnknownOperationException", Status: http.StatusNotFound,
	Message: "The path of a request must begin with a slash and have no empty and no dot segments."}

// newRequestID makes a UUID version 4 of random bytes.
func newRequestID(id [16]byte) string {
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:36], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// authenticate verifies the signature and finds out whose it is.
func (x *exchange) authenticate() error {
	ctx := x.request.Context()
	signature, err := x.server.config.Verifier.Verify(ctx, x.request, x.body)
	if err != nil {
		return err
	}
	if signature.Service != x.route.api.Name {
		// The route and the verifier read the same scope, so this is a mistake of ours, not of the client.
		return fmt.Errorf("signature for %s on a call to %s", signature.Service, x.route.api.Name)
	}
	if x.caller, err = x.server.config.Identity.Caller(ctx, signature.AccessKeyID, signature.SessionToken); err != nil {
		return err
	}
	x.verified = true
	x.server.connections.verified(ctx)
	x.call.Region = x.server.config.Region
	x.call.AccountID = x.caller.AccountID
	x.call.CallerARN = x.caller.ARN
	x.call.CallerID = x.caller.UserID
	x.call.SourceIP = sourceIP(x.request.RemoteAddr)
	x.call.UserAgent = x.request.UserAgent()
	x.call.Time = x.server.config.Now()
	return nil
}

// sourceIP returns the address without port, brackets and zone.
func sourceIP(remote string) string {
	if i := strings.LastIndexByte(remote, ':'); i >= 0 {
		remote = remote[:i]
	}
	remote = strings.TrimSuffix(strings.TrimPrefix(remote, "["), "]")
	address, _, _ := strings.Cut(remote, "%")
	return address
}

// decode returns the operation's input, which satisfies all constraints of the model.
func (x *exchange) decode() (any, error) {
	if x.unmatched == nil && x.route.api.Protocol == api.Query {
		x.operation, x.labels, x.unmatched = x.route.api.Match(x.request, x.body)
	}
	if x.unmatched != nil {
		return nil, x.unmatched
	}
	return x.route.api.Decode(x.operation, x.labels, x.request, x.body)
}

// freeOperations need no permission. AWS: "No permissions are required to perform this operation. If an
// administrator attaches a policy that explicitly denies access to the action, you can still perform it."
var freeOperations = map[string]bool{"sts:GetCallerIdentity": true}

// authorize asks the policies for every permission that the call needs.
func (x *exchange) authorize(ctx context.Context, in any) error {
	permissions := x.route.service.Permissions(x.operation.Name, in, &x.call)
	if len(permissions) == 0 && !freeOperations[x.route.api.Name+":"+x.operation.Name] {
		return fmt.Errorf("no permission is declared for %s:%s", x.route.api.Name, x.operation.Name)
	}
	for _, permission := range permissions {
		if err := x.server.config.Identity.Authorize(ctx, x.caller, permission); err != nil {
			return err
		}
	}
	return nil
}

// refuse answers with an error.
func (x *exchange) refuse(err error) {
	if !x.verified {
		// A stranger gets one answer per connection, so holding one open takes work.
		x.Header().Set("Connection", "close")
	}
	x.prepareWriting()
	told := x.fault(err)
	if fault, ok := errors.AsType[api.Fault](told); ok {
		x.code = fault.ErrorCode()
	}
	x.cause = err
	x.route.api.EncodeError(x, x.operation, x.call.RequestID, told)
	if x.unread {
		x.release()
		x.drain()
	}
}

// prepareWriting starts the time that the client has to take the answer.
func (x *exchange) prepareWriting() {
	if d, ok := x.ResponseWriter.(interface{ SetWriteDeadline(time.Time) error }); ok {
		// An error means that the connection is gone, which the write says as well.
		_ = d.SetWriteDeadline(time.Now().Add(x.server.config.WriteTimeout))
	}
}

// WriteHeader remembers the status for finish.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(b)
}

// finish ends every exchange: it answers for a panic, returns what the call held and writes its log line.
func (x *exchange) finish() {
	var abort bool
	if p := recover(); p != nil {
		x.server.config.Logger.Error("panic", slog.String("request", x.call.RequestID),
			slog.Any("value", p), slog.String("stack", string(debug.Stack())))
		// Half an answer must not look like a whole one: the connection is cut.
		if abort = x.status != 0; !abort {
			x.refuse(fmt.Errorf("panic: %v", p))
		}
	}
	x.release()
	x.log()
	if abort {
		panic(http.ErrAbortHandler)
	}
}
