package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cloister/api"
	"cloister/api/kmsapi"
	"cloister/artifact"
	"cloister/control"
	"cloister/gateway"
	"cloister/gateway/certificate"
	"cloister/iam"
	"cloister/iam/sigv4"
	"cloister/iam/sts"
	"cloister/internal/durable"
	"cloister/internal/seal"
	"cloister/invoke"
	"cloister/logs"
	"cloister/placement"
	"cloister/worker"
)

type frontCommand struct{}

// Run is the unprivileged process: it owns keys and state and answers clients.
func (frontCommand) Run(ctx context.Context) error { return runChild(ctx, runFront) }

// front is the assembled process. Fields stand in the order in which they are made.
type front struct {
	config frontConfig
	logger *slog.Logger

	state        *state
	certificates *certificate.Authority
	directory    *iam.Directory
	artifacts    *artifact.Store
	logs         *logs.Store
	worker       *worker.Client
	orders       *orders
	pool         *placement.Pool
	control      *control.Server
	invoke       *invoke.Service
	gateway      *gateway.Server
	pipes        *pipeListener // connections of functions
}

func runFront(ctx context.Context, config frontConfig, report func(any) error) error {
	f := &front{config: config, logger: newLogger(config.Verbose).With("process", "front"), pipes: newPipeListener()}
	defer f.close()
	for _, step := range []func(context.Context) error{f.openState, f.openIdentity, f.openServices, f.openGateway} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	trustStore, err := os.ReadFile(filepath.Join(f.path("tls"), "ca.p12"))
	if err != nil {
		return fmt.Errorf("read trust store: %w", err)
	}
	if err := report(frontReport{CA: f.certificates.CA(), TrustStore: trustStore}); err != nil {
		return fmt.Errorf("report to serve: %w", err)
	}
	return f.serve(ctx, report)
}

func (f *front) path(name string) string { return filepath.Join(f.config.Directory, name) }

func (f *front) openState(ctx context.Context) (err error) {
	if f.state, err = openState(f.config.Directory, f.logger); err != nil {
		return err
	}
	if f.artifacts, err = artifact.Open(artifact.Config{Directory: f.path("artifacts"), Root: f.state.root, Logger: f.logger}); err != nil {
		return err
	}
	f.logs, err = logs.Open(logs.Config{Directory: f.path("logs"), Key: f.state.root.Key("logs"), Logger: f.logger})
	return err
}

func (f *front) openIdentity(ctx context.Context) (err error) {
	if err := durable.MakeDirectory(f.path("tls"), 0o700); err != nil {
		return err
	}
	f.certificates, err = certificate.LoadOrCreate(certificate.Config{
		Directory: f.path("tls"), Key: f.state.root.Key("tls"), Names: []string{f.config.Host, "localhost", "127.0.0.1", "::1"}, Logger: f.logger,
	})
	if err != nil {
		return err
	}
	f.directory, err = iam.New(iam.Config{Store: f.state.meta, SessionKey: f.state.root.Key("session tokens")})
	if err != nil {
		return err
	}
	administrator, err := f.directory.Bootstrap(ctx)
	if err != nil {
		return err
	}
	return writeAdministrator(f.state.root, f.config.Directory, administrator)
}

func (f *front) openServices(context.Context) (err error) {
	if f.worker, err = worker.NewClient(dialer(f.config.WorkerSocket), f.config.Credential, f.logger); err != nil {
		return err
	}
	f.orders = newOrders(ordersConfig{workers: workers{f.worker}, artifacts: f.artifacts, logs: f.logs, names: f.state.root.Key("log streams"), logger: f.logger})
	f.pool, err = placement.New(placement.Config{
		Worker: f.orders, Provisioner: provisioner{f.directory, f.artifacts, f.orders}, Logger: f.logger, Now: time.Now,
	})
	if err != nil {
		return err
	}
	f.control, err = control.New(control.Config{
		Store: f.state.meta, Artifacts: f.artifacts, Roles: f.directory, Runtimes: managedRuntimes{f.worker}, Environments: environments{f.pool, f.artifacts},
		Region: f.config.Region, Logger: f.logger,
	})
	if err != nil {
		return err
	}
	f.invoke, err = invoke.New(invoke.Config{Versions: f.control, Placement: assigner{f.pool}})
	return err
}

func (f *front) openGateway(context.Context) (err error) {
	services := []gateway.Service{
		gateway.NewLambda(f.control, f.invoke, f.config.Region),
		f.directory.Server(),
		sts.New(f.directory),
		logs.NewServer(f.logs, f.config.Region),
		refusedKMS{},
	}
	var names []string
	for _, s := range services {
		names = append(names, s.API().Name)
	}
	verifier, err := sigv4.New(sigv4.Config{Region: f.config.Region, Services: names, Lookup: f.directory.Secret})
	if err != nil {
		return err
	}
	f.gateway, err = gateway.New(gateway.Config{
		Services: services, Verifier: verifier, Identity: f.directory, Certificate: f.certificates.GetCertificate, Region: f.config.Region, Logger: f.logger,
	})
	return err
}

// refusedKMS is the KMS API, of which nothing is built yet: whoever may call an operation gets the
// refusal that names it.
type refusedKMS struct{ kmsapi.Unimplemented }

// API returns the operations and wire format of the service.
func (refusedKMS) API() *api.Service { return kmsapi.Service }

// Server returns what refuses every operation.
func (k refusedKMS) Server() any { return k }

// Permissions asks for the action on everything: no operation knows its key yet.
func (refusedKMS) Permissions(operation string, _ any, _ *api.Call) []api.Permission {
	return []api.Permission{{Action: "kms:" + operation, Resource: "*"}}
}

// serve answers until ctx ends, and then drains: running calls are answered before their
// environments end.
func (f *front) serve(ctx context.Context, report func(any) error) error {
	clients, err := inheritedListener(firstFD)
	if err != nil {
		return err
	}
	fromWorkers, err := inheritedListener(firstFD + 1)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var tasks sync.WaitGroup
	attached := make(chan struct{})
	var once sync.Once
	services := &worker.Services{Artifacts: f.artifacts, Logs: f.orders, Gateway: f.pipes.give, Logger: f.logger}
	failed := make(chan error, 5)
	tasks.Go(func() { f.worker.Run(running, func() { once.Do(func() { close(attached) }) }) })
	tasks.Go(func() { f.pool.Run(running) })
	tasks.Go(func() { f.artifacts.Run(running, versionCode(f.control, f.directory)) })
	tasks.Go(func() { failed <- f.control.Run(running) })
	tasks.Go(func() { failed <- f.state.await(running) })
	tasks.Go(func() { failed <- services.Serve(fromWorkers, f.config.Credential) })
	select {
	case <-attached:
	case err = <-failed:
	case <-ctx.Done():
	}
	if err == nil && ctx.Err() == nil {
		tasks.Go(func() { failed <- f.gateway.Serve(clients) })
		tasks.Go(func() { failed <- f.gateway.Serve(f.pipes) })
		err = report(frontReport{Ready: true})
	}
	if err == nil {
		select {
		case err = <-failed:
		case <-ctx.Done():
		}
	}
	patience := f.config.Drain
	if context.Cause(ctx) == errAbandoned {
		patience = 0 // the worker ends now, too, and another serve may wait for both
	}
	draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err = errors.Join(err, f.gateway.Shutdown(draining))
	f.pipes.Close() // the gateway has, unless it never served
	f.pool.Close(draining)
	stop()
	fromWorkers.Close()
	tasks.Wait()
	return err
}

func (f *front) close() {
	if f.logs != nil {
		f.logs.Close()
	}
	if f.state != nil {
		f.state.close()
	}
}

// administratorFile holds the administrator's access key, sealed, for "cloister env".
const administratorFile = "administrator"

func writeAdministrator(root *seal.Root, directory string, a iam.Administrator) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return root.Key("administrator").WriteFile(filepath.Join(directory, administratorFile), administratorFile, b)
}

func readAdministrator(directory string) (a iam.Administrator, err error) {
	root, err := seal.Load(filepath.Join(directory, "root.key"))
	if err != nil {
		return a, err
	}
	b, err := root.Key("administrator").ReadFile(filepath.Join(directory, administratorFile), administratorFile)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(b, &a)
}
