package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"cloister/internal/loop"
)

// Sweep ends and removes what an earlier process of this installation left behind when it was
// killed: control groups, and perhaps a half-made template. Its namespaces have ended
// with it, their mounts with them, and the loop devices with those; Sweep makes sure. It looks
// at nothing that does not carry the id of the installation.
func (b *Backend) Sweep(ctx context.Context) error {
	names, err := b.groups.Groups()
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var failed []error
	for _, name := range names {
		g := b.groups.Existing(name)
		failed = append(failed, g.Kill(ctx), g.Remove(ctx))
	}
	devices, err := loop.Detach(b.mark())
	failed = append(failed, err)
	files, err := filepath.Glob(filepath.Join(b.ephemeral.directory, temporaryPrefix+"*"))
	failed = append(failed, err)
	for _, f := range files {
		failed = append(failed, os.Remove(f))
	}
	if len(names)+devices+len(files) > 0 {
		b.logger.LogAttrs(ctx, slog.LevelInfo, "swept what a killed process left",
			slog.Int("groups", len(names)), slog.Int("loop_devices", devices), slog.Int("files", len(files)))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}
