package main

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"cloister/artifact"
	"cloister/internal/seal"
	"cloister/lambda"
	"cloister/placement"
	"cloister/worker"
)

// lateLogs is how long log lines of an environment may still come in after it has ended: the worker tries for a
// minute to end one that resists.
const lateLogs = 2 * time.Minute

// orders stands between placement and the workers: what a worker may ask of the front lasts as long as its
// order. The grant for the code ends when the order is answered, and only the streams of environments that were
// ordered take log lines, so that a worker that was taken over writes no other function's log.
type orders struct {
	ordersConfig
	began time.Time

	mu      sync.Mutex
	streams map[logStream]struct{} // guarded by mu; of environments that live, or ended lately
	warned  time.Time              // guarded by mu; when a refusal was logged last
}

type ordersConfig struct {
	workers   placement.Worker
	artifacts *artifact.Store
	logs      worker.Logs
	names     *seal.Key // marks the names of streams as ours
	logger    *slog.Logger
}

type logStream struct{ accountID, group, stream string }

func newOrders(c ordersConfig) *orders {
	return &orders{ordersConfig: c, began: time.Now(), streams: map[logStream]struct{}{}}
}

// Create implements placement.Worker.
func (o *orders) Create(ctx context.Context, spec lambda.EnvironmentSpec) (placement.Environment, error) {
	s := logStream{spec.Version.ID.AccountID, spec.Version.LogGroup, spec.LogStream}
	o.mu.Lock()
	o.streams[s] = struct{}{}
	o.mu.Unlock()
	e, err := o.workers.Create(ctx, spec)
	o.artifacts.Revoke(spec.Grant) // a worker that has the code already did not redeem it
	if err != nil {
		o.closeLater(s)
		return nil, err
	}
	go func() {
		<-e.Gone()
		o.closeLater(s)
	}()
	return e, nil
}

func (o *orders) closeLater(s logStream) {
	time.AfterFunc(lateLogs, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.streams, s)
	})
}

// markDigits of a stream's name are the mark. The random digits before them are as many.
const markDigits = 16

// streamName makes the name of the log stream of a new environment.
func (o *orders) streamName(v *lambda.Version) string {
	name := worker.LogStream(time.Now(), v.ID.Version)
	name = name[:len(name)-markDigits]
	return name + o.mark(v.ID.AccountID, v.LogGroup, name)
}

func (o *orders) mark(accountID, group, name string) string {
	sum := o.names.Sum(seal.Bind(accountID, group, name))
	return hex.EncodeToString(sum[:markDigits/2])
}

// Append implements worker.Logs. In its first minutes it also takes the last lines of environments that an
// earlier front has ordered, which it knows by the mark in the name.
func (o *orders) Append(ctx context.Context, accountID, group, stream string, events []lambda.LogEvent) (dropped int, err error) {
	now := time.Now()
	o.mu.Lock()
	_, ordered := o.streams[logStream{accountID, group, stream}]
	if !ordered && now.Sub(o.began) < lateLogs && len(stream) > markDigits {
		name, mark := stream[:len(stream)-markDigits], stream[len(stream)-markDigits:]
		ordered = mark == o.mark(accountID, group, name)
	}
	warn := !ordered && now.Sub(o.warned) > time.Minute
	if warn {
		o.warned = now
	}
	o.mu.Unlock()
	if warn {
		o.logger.WarnContext(ctx, "a worker wrote to a log stream of no environment of its own; more of these are not logged for a minute",
			"account", accountID, "group", group, "stream", stream)
	}
	if !ordered {
		return len(events), lambda.Errorf(lambda.AccessDenied, "append log events", "no environment that was ordered of this worker writes to this log stream")
	}
	return o.logs.Append(ctx, accountID, group, stream, events)
}
