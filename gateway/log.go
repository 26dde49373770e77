package gateway

import (
	"log/slog"
	"net/http"
	"time"
)

// log writes one line about the finished exchange: faults of ours as errors, other refusals as information,
// the rest, and whatever strangers ask for, at debug level only, so that nobody without a key can fill
// the log. The line holds nothing that the client chose except its address, and the text of an error
// only where the client was not told.
func (x *exchange) log() {
	level := slog.LevelDebug
	switch {
	case x.status == http.StatusInternalServerError, x.status == http.StatusBadGateway:
		level = slog.LevelError
	case x.status >= http.StatusBadRequest && x.verified:
		level = slog.LevelInfo
	}
	ctx, logger := x.request.Context(), x.server.config.Logger
	if !logger.Enabled(ctx, level) {
		return
	}
	attributes := make([]slog.Attr, 0, 10)
	attributes = append(attributes,
		slog.String("request", x.call.RequestID),
		slog.String("service", x.route.api.Name),
		slog.Int("status", x.status),
		slog.Duration("duration", time.Since(x.started)),
		slog.String("source", sourceIP(x.request.RemoteAddr)))
	if x.operation != nil {
		attributes = append(attributes, slog.String("operation", x.operation.Name))
	}
	if x.verified {
		attributes = append(attributes, slog.String("account", x.call.AccountID), slog.String("caller", x.call.CallerARN))
	}
	if x.code != "" {
		attributes = append(attributes, slog.String("code", x.code))
	}
	if x.cause != nil && x.status >= http.StatusInternalServerError {
		attributes = append(attributes, slog.Any("error", x.cause))
	}
	logger.LogAttrs(ctx, level, "call", attributes...)
}
