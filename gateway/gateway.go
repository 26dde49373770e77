// Package gateway is the front door: it answers every HTTPS request with what an AWS endpoint
// would answer. For each call it finds the service, reads a bounded body, verifies the signature,
// decodes and checks the input, asks the policies, calls the service and encodes the answer;
// exchange.go shows these steps in their order.
//
// It holds no business rule and no state of its own: services, verifier and identities are given by
// cmd, which is its only caller. Names and codes of AWS exceptions that belong to kinds of
// lambda.Error are in faults.go and nowhere else.
//
// Invariants: no service sees a call whose signature was not verified and whose permissions were
// not all allowed, and there is no setting that changes this; a call without a permission to ask
// for is refused unless freeOperations lists it; the memory that request bodies take is bounded
// over all connections; every request that is HTTP gets an answer in AWS's shape.
//
// An attacker controls every byte that comes, when it comes and how many connections there are;
// a tenant, who has a valid key, also chooses what a well-formed call asks for.
package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"cloister/api"
	"cloister/iam"
	"cloister/iam/sigv4"
)

// A Service answers the calls of one AWS service. Its methods may be called concurrently.
type Service interface {
	// API returns the service's operations and wire format. Its Name is what signatures are scoped to.
	API() *api.Service

	// Server returns what implements the generated Server interface of the service. Errors of its
	// methods are api.Fault, or lambda.Error, or else internal failures. A request body, and
	// so a blob of an input, belongs to the call that it came with: it is never reused, so a
	// service may keep it.
	Server() any

	// Permissions returns all that the caller must be allowed to do for this call.
	Permissions(operation string, in any, call *api.Call) []api.Permission
}

// A Verifier verifies signatures. *sigv4.Verifier is one; see there for the methods' contracts.
type Verifier interface {
	Check(r *http.Request) (sigv4.Claim, error)
	Verify(ctx context.Context, r *http.Request, body []byte) (sigv4.Signature, error)
}

// Identity knows who holds a key and what they may do. *iam.Directory is one.
type Identity interface {
	// Caller returns the holder of an access key that is active now.
	Caller(ctx context.Context, accessKeyID, sessionToken string) (iam.Caller, error)
	// Authorize returns nil if the caller's policies allow p, an api.Fault in AWS's words if not.
	Authorize(ctx context.Context, caller iam.Caller, p api.Permission) error
}

// Config is what a Server is made of. Services, Verifier, Identity, Certificate and Region are required;
// the zero value of each other field means its default.
type Config struct {
	Services []Service
	Verifier Verifier
	Identity Identity
	Region   string // "us-east-1", for api.Call

	// Certificate chooses the server certificate of a handshake; see package certificate.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	MaxConnections int           // open at once, over all listeners; default 4096
	BodyBudget     int64         // bytes of all request bodies above 64 KiB at once, of which one body gets half at most; default 512 MiB
	HeaderTimeout  time.Duration // for the TLS handshake, and again for each request's header; default 10 s
	BodyTimeout    time.Duration // for each 256 KiB of a request body; default 10 s
	WriteTimeout   time.Duration // for a response, however long its making took; default 60 s
	// IdleTimeout is how long a connection may stay open between requests; default 120 s. It is longer than
	// the 90 s of aws-sdk-go, so that the client closes first and no request meets a closing connection.
	IdleTimeout time.Duration

	Logger *slog.Logger     // default slog.Default()
	Now    func() time.Time // clock of api.Call; default time.Now
	Rand   io.Reader        // of request ids; default crypto/rand
}

func (c *Config) setDefaults() {
	setDefault(&c.MaxConnections, 4096)
	setDefault(&c.BodyBudget, 512<<20)
	setDefault(&c.HeaderTimeout, 10*time.Second)
	setDefault(&c.BodyTimeout, 10*time.Second)
	setDefault(&c.WriteTimeout, 60*time.Second)
	setDefault(&c.IdleTimeout, 120*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
}

func setDefault[T int | int64 | time.Duration](value *T, standard T) {
	if *value == 0 {
		*value = standard
	}
}

// maxHeaderBytes bounds request line and headers. The largest that Lambda allows, a client context of
// 3,583 bytes and a session token, fit several times.
const maxHeaderBytes = 32 << 10

// A Server is the front door. Its methods may be called concurrently.
type Server struct {
	config      Config
	services    routes
	limits      map[*api.Operation]int64 // of request bodies, where not maxFormBytes
	budget      budget
	connections *connections
	tls         *tls.Config
	ctx         context.Context // of all calls
	cancel      context.CancelFunc
	lane        *lane
	http        *http.Server // for what is not for the lane
}

// New returns a Server that listens nowhere yet.
func New(c Config) (*Server, error) {
	if c.Verifier == nil || c.Identity == nil || c.Certificate == nil || c.Region == "" {
		return nil, errors.New("gateway: verifier, identity, certificate and region are required")
	}
	c.setDefaults()
	services, err := newRoutes(c.Services)
	if err != nil {
		return nil, err
	}
	s := &Server{
		config:      c,
		services:    services,
		limits:      bodyLimits(c.Services),
		budget:      budget{size: c.BodyBudget},
		connections: newConnections(c.MaxConnections),
		tls: &tls.Config{
			MinVersion: tls.VersionTLS12,
			// For TLS 1.2; those of 1.3 are not configurable. Our certificates are ECDSA, so the suites for RSA
			// would never be chosen, and those in CBC mode are left out.
			CipherSuites: []uint16{
				tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
				tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
				tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			},
			GetCertificate: c.Certificate,
			// No HTTP/2, as on AWS's Lambda endpoint: SDKs keep one connection for each call in flight anyway,
			// a 6 MiB payload does not hold up others on a shared one, and a class of attacks (rapid
			// reset, header compression, downgrade smuggling) has nothing to work on.
			NextProtos: []string{"http/1.1"},
		},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.lane = &lane{server: s, tracks: map[*track]bool{}}
	s.http = s.newHTTPServer()
	return s, nil
}

func (s *Server) newHTTPServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           http.HandlerFunc(s.answer),
		Protocols:         protocols,
		ReadHeaderTimeout: s.config.HeaderTimeout,
		// Counts from the first byte of a request; for large bodies readBody moves the deadline on.
		ReadTimeout:    s.config.HeaderTimeout + s.config.BodyTimeout,
		IdleTimeout:    s.config.IdleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		// net/http would answer OPTIONS * itself, to anybody.
		DisableGeneralOptionsHandler: true,
		ConnContext:                  s.connections.remember,
		ConnState:                    s.connections.changed,
		// What it logs are handshakes and requests that strangers got wrong.
		ErrorLog: slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug),
	}
}

// Serve answers connections of l, which must not be TLS yet, until Shutdown or Close; its error is
// nil then. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(s.lane.listen(listener{l, s.connections}))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve API on %s: %w", l.Addr(), err)
}

// Shutdown closes the listeners, lets calls in flight finish, and returns when all connections are closed.
// If ctx ends first, the rest is cut off and the error is the context's.
func (s *Server) Shutdown(ctx context.Context) error {
	rest := make(chan error, 1)
	go func() { rest <- s.http.Shutdown(ctx) }() // closes the listeners first
	err := errors.Join(s.lane.drain(ctx), <-rest)
	if err == nil {
		return nil
	}
	s.Close()
	return fmt.Errorf("drain API connections: %w", err)
}

// Close cuts off everything. The contexts of calls in flight end.
func (s *Server) Close() error {
	s.cancel()
	s.lane.close(func(bool) bool { return true })
	return s.http.Close()
}
