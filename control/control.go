// Package control is the control plane: it answers the management operations of the Lambda
// API (functions, their versions and tags) and runs the state machine that takes a function
// from Pending to Active.
//
// It is not the data plane: package invoke answers Invoke, and asks Resolve here what to
// run. It keeps no code (package artifact does), builds no runtime image (runtimes), starts no
// environment (placement, worker) and evaluates no policy (iam): it says in Permissions which
// permission an operation needs, and gateway has that decided before the operation is called.
// Operations that are not built answer the typed refusal of lambdaapi.Unimplemented.
//
// The life of a function:
//
//	CreateFunction ─► Pending ──prepared──► Active ◄───────────────┐
//	                     │                    │ update             │ prepared
//	                     └──failed─► Failed   └─► Active, update InProgress ──failed─► Active, update Failed
//
// A commit that leaves a function Pending or InProgress also writes an order for Run to finish
// it, so the work survives a restart. While an update is in progress, or after it has failed,
// $LATEST keeps running what it ran before.
//
// Invariants: an operation is one commit that holds only if nobody else changed the function
// meanwhile, so that of two racing updates one wins and the other is told so. Version numbers
// of a function are never given twice. Every record is read and written under the account of
// the verified caller; the account in an ARN can only be refused, never followed. What is not
// built (layers, images, VPC, …) is refused before anything is changed.
//
// An attacker controls every member of a request, within the bounds that gateway and api
// enforce: names, variables, tags, markers. Names go into store keys only after they have been
// parsed; markers are positions in the listing of the caller's own account and nothing more.
package control

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"time"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// Artifacts keeps code packages. Implemented by artifact.Store.
type Artifacts interface {
	// PutZip checks a deployment package and stores it sealed, for the account owner. It
	// returns the base64 SHA-256 of the package and its size in bytes. Errors are of kind
	// lambda.InvalidParameter or lambda.TooLarge when the package is at fault. What it stored is kept until
	// ctx ends, which must be when the package is named or never will be, and after that as long as EachCode
	// names it.
	PutZip(ctx context.Context, owner string, zip []byte) (a lambda.Artifact, codeSHA256 string, codeSize int64, err error)
}

// Roles answers for execution roles. Implemented in cmd on top of iam.Directory.
type Roles interface {
	// CheckExecutionRole refuses a role that does not exist in the account or does not
	// trust Lambda.
	CheckExecutionRole(ctx context.Context, accountID, roleARN string) error

	// PassRole refuses a caller that may not give this role to a function.
	PassRole(ctx context.Context, call *api.Call, roleARN string) error
}

// Runtimes knows the managed runtimes. Implemented by cmd on top of runtimes and worker.
type Runtimes interface {
	// Check is quick: it refuses an identifier that is unknown, blocked, or that this
	// installation lacks, with kind lambda.InvalidParameter and a text for the caller.
	Check(ctx context.Context, identifier string) (versionARN string, err error)

	// Prepare makes the runtime ready to start environments and may take seconds; it may
	// be called concurrently. An error of kind lambda.InvalidParameter, InvalidRuntime,
	// NotFound, … is final and its text shown as the function's StateReason; one of kind
	// Unavailable, Capacity, Internal, … is tried again.
	Prepare(ctx context.Context, identifier string) error
}

// Environments ends what is outdated. Implemented by package placement.
type Environments interface {
	// Retire ends the environments of id as soon as they are idle. An invocation that
	// resolved id before may still start one. It must not block.
	Retire(ctx context.Context, id lambda.VersionID)
}

// Config joins a Server to its neighbours.
type Config struct {
	Store        store.Store
	Artifacts    Artifacts
	Roles        Roles
	Runtimes     Runtimes
	Environments Environments

	Region       string           // the only region whose functions exist here
	Architecture string           // of the hosts: "x86_64" or "arm64"; empty: of this machine
	Now          func() time.Time // empty: time.Now
	Rand         io.Reader        // empty: crypto/rand; read concurrently
	Logger       *slog.Logger     // empty: slog.Default
}

// Server answers the management operations. Its methods may be called concurrently. Run must
// be running for functions to become Active.
type Server struct {
	lambdaapi.Unimplemented

	store        store.Store
	artifacts    Artifacts
	roles        Roles
	runtimes     Runtimes
	environments Environments
	region       string
	architecture string
	now          func() time.Time
	rand         io.Reader
	log          *slog.Logger
	retry        time.Duration // before the second attempt of a preparation

	resolved cache
	work     workshop
}

// New checks config and returns a Server. It touches nothing yet.
func New(config Config) (*Server, error) {
	if config.Store == nil || config.Artifacts == nil || config.Roles == nil || config.Runtimes == nil || config.Environments == nil {
		return nil, errors.New("control: a neighbour is missing in Config")
	}
	if config.Region == "" {
		return nil, errors.New("control: Config.Region is empty")
	}
	s := &Server{
		store: config.Store, artifacts: config.Artifacts, roles: config.Roles, runtimes: config.Runtimes, environments: config.Environments,
		region: config.Region, architecture: config.Architecture, now: config.Now, rand: config.Rand, log: config.Logger, retry: firstRetry,
	}
	if s.architecture == "" {
		s.architecture = hostArchitecture(runtime.GOARCH)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.work.open()
	return s, nil
}

// hostArchitecture is Lambda's name for Go's name of an architecture.
func hostArchitecture(goarch string) string {
	if goarch == "arm64" {
		return lambdaapi.ArchitectureArm64
	}
	return lambdaapi.ArchitectureX8664
}

// value is what a member points to, or the zero value if it is absent.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
