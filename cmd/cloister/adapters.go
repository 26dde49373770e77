package main

import (
	"context"
	"time"

	"cloister/artifact"
	"cloister/control"
	"cloister/iam"
	"cloister/invoke"
	"cloister/lambda"
	"cloister/placement"
	"cloister/worker"
)

// This file joins neighbours that do not know each other: each type gives one part the few
// methods that another declared to need.

// sessionDuration is how long the credentials of an environment live: the longest that STS gives.
const sessionDuration = 12 * time.Hour

// grantDuration is how long a worker may take to fetch a function's code.
const grantDuration = 5 * time.Minute

// workers is worker.Client for placement.
type workers struct{ client *worker.Client }

func (w workers) Create(ctx context.Context, spec lambda.EnvironmentSpec) (placement.Environment, error) {
	e, err := w.client.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// provisioner completes the order for an environment.
type provisioner struct {
	directory *iam.Directory
	artifacts *artifact.Store
	orders    *orders
}

func (p provisioner) Provision(ctx context.Context, v *lambda.Version) (lambda.EnvironmentSpec, error) {
	credentials, err := p.directory.RoleCredentials(ctx, v.Role, v.ID.FunctionName, sessionDuration)
	if err != nil {
		return lambda.EnvironmentSpec{}, err
	}
	grant, err := p.artifacts.Grant(v.Code, worker.Holder, grantDuration)
	if err != nil {
		return lambda.EnvironmentSpec{}, err
	}
	return lambda.EnvironmentSpec{Version: *v, Credentials: credentials, Grant: grant, LogStream: p.orders.streamName(v)}, nil
}

// assigner is placement.Pool for invoke.
type assigner struct{ pool *placement.Pool }

func (a assigner) Assign(ctx context.Context, v *lambda.Version) (invoke.Assignment, error) {
	assignment, err := a.pool.Assign(ctx, v)
	if err != nil {
		return nil, err
	}
	return held{assignment, a.pool}, nil
}

// held is an environment in the hands of one invocation.
type held struct {
	*placement.Assignment
	pool *placement.Pool
}

func (h held) Release()              { h.pool.Release(h.Assignment) }
func (h held) Defer()                { h.pool.Defer(h.Assignment) }
func (h held) Discard(reason string) { h.pool.Discard(h.Assignment, reason) }

// environments is placement.Pool for control. What is retired may have left code that nobody names.
type environments struct {
	pool      *placement.Pool
	artifacts *artifact.Store
}

func (e environments) Retire(_ context.Context, id lambda.VersionID) {
	e.pool.Retire(id)
	e.artifacts.Dropped()
}

// versionCode tells artifact.Store which code the functions of all accounts need.
func versionCode(c *control.Server, d *iam.Directory) artifact.Names {
	return func(ctx context.Context, keep func(lambda.Artifact, string)) error {
		return c.EachCode(ctx, d.Accounts(), keep)
	}
}

// managedRuntimes is worker.Client for control.
type managedRuntimes struct{ client *worker.Client }

func (r managedRuntimes) Check(ctx context.Context, identifier string) (string, error) {
	return r.client.CheckRuntime(ctx, identifier)
}

func (r managedRuntimes) Prepare(ctx context.Context, identifier string) error {
	return r.client.PrepareRuntime(ctx, identifier)
}
