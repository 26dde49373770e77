package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// The one input of this program. To move to another version change both lines
// and read the difference of the generated packages.
const (
	botocoreVersion = "1.44.5"
	botocoreSHA256  = "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921"
)

// modelLimit bounds an unpacked model, in bytes; the largest has 2.5 MB.
const modelLimit = 64 << 20

// models is an opened wheel.
type models struct {
	archive *zip.Reader
}

// openModels opens the wheel at path, or the one in the user's cache directory,
// which pip fills if it is missing. A wheel that is not the pinned one is refused.
func openModels(ctx context.Context, path string) (*models, error) {
	if path == "" {
		var err error
		if path, err = downloadWheel(ctx); err != nil {
			return nil, err
		}
	}
	wheel, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(wheel)
	if hex.EncodeToString(sum[:]) != botocoreSHA256 {
		return nil, fmt.Errorf("%s has SHA-256 %x, want %s", path, sum, botocoreSHA256)
	}
	archive, err := zip.NewReader(bytes.NewReader(wheel), int64(len(wheel)))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &models{archive}, nil
}

func downloadWheel(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	directory := filepath.Join(cache, "cloister", "botocore-"+botocoreVersion)
	path := filepath.Join(directory, "botocore-"+botocoreVersion+"-py3-none-any.whl")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", err
	}
	requirements := filepath.Join(directory, "requirements.txt")
	pin := fmt.Sprintf("botocore==%s --hash=sha256:%s\n", botocoreVersion, botocoreSHA256)
	if err := os.WriteFile(requirements, []byte(pin), 0o644); err != nil {
		return "", err
	}
	pip := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
		"--require-hashes", "--dest", directory, "--requirement", requirements)
	pip.Stderr = os.Stderr
	if err := pip.Run(); err != nil {
		return "", fmt.Errorf("download botocore %s: %w", botocoreVersion, err)
	}
	return path, nil
}

// load reads the model of one service and checks that its references resolve.
func (m *models) load(service, version string) (*model, error) {
	name := "botocore/data/" + service + "/" + version + "/service-2.json"
	text, err := m.read(name)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var loaded model
	if err := decoder.Decode(&loaded); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &loaded, loaded.check()
}

// read returns a file of the wheel that may be packed once more with gzip.
func (m *models) read(name string) ([]byte, error) {
	if f, err := m.archive.Open(name); err == nil {
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, modelLimit))
	}
	f, err := m.archive.Open(name + ".gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return io.ReadAll(io.LimitReader(unpacked, modelLimit))
}
