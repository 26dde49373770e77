package sigv4

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The crate that the newest copy of the suite is in, and its SHA-256.
const (
	crateVersion = "1.6.4"
	crateDigest  = "f385da9b7757ed4c8214797ad663ff534fb622006143530aa80e21f8e06ff85c"
)

// unpackBotocore returns the files below a folder of botocore's source distribution, which "make botocore" downloads
// for package api too; version and digest are pinned there, for both.
func unpackBotocore(t testing.TB, folder string) map[string]string {
	t.Helper()
	pin, err := os.ReadFile("../../api/internal/botocore/pin.txt")
	if err != nil {
		t.Fatal(err)
	}
	version, digest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(pin)), "botocore=="), " --hash=sha256:")
	cache := os.Getenv("CLOISTER_BOTOCORE")
	if cache == "" {
		cache = "../../.cache/botocore"
	}
	packed := filepath.Join(cache, "botocore-"+version+".tar.gz")
	if _, err := os.Stat(packed); err != nil {
		t.Fatalf("AWS's suite of signed requests is not there, \"make botocore\" downloads it: %v", err)
	}
	return unpack(t, packed, digest, "botocore-"+version+"/"+folder)
}

// unpackCrate lets cargo download the crate and returns the files below one of its folders.
func unpackCrate(t testing.TB, folder string) map[string]string {
	t.Helper()
	project := t.TempDir()
	manifest := filepath.Join(project, "Cargo.toml")
	write(t, manifest, fmt.Sprintf("[package]\nname = \"suite\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[dependencies]\naws-sigv4 = \"=%s\"\n", crateVersion))
	write(t, filepath.Join(project, "src", "lib.rs"), "")
	cargo(t, project, "fetch")
	var metadata struct {
		Packages []struct {
			Name         string `json:"name"`
			ManifestPath string `json:"manifest_path"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(cargo(t, project, "metadata", "--offline", "--format-version", "1"), &metadata); err != nil {
		t.Fatal(err)
	}
	for _, p := range metadata.Packages {
		if p.Name != "aws-sigv4" {
			continue
		}
		// Cargo keeps what it has unpacked in registry/src and what it has downloaded in registry/cache.
		unpacked := filepath.Dir(p.ManifestPath)
		packed := strings.Replace(unpacked, "/registry/src/", "/registry/cache/", 1) + ".crate"
		return unpack(t, packed, crateDigest, "aws-sigv4-"+crateVersion+"/"+folder)
	}
	t.Fatal("cargo does not list the crate that it was asked for")
	return nil
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func cargo(t testing.TB, folder string, arguments ...string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), "cargo", arguments...)
	command.Dir = folder
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		t.Fatalf("cargo %s: %v\n%s", strings.Join(arguments, " "), err, complaint.String())
	}
	return out
}

// unpack returns the files below a folder of a distribution whose SHA-256 is known, without line breaks at their ends. The
// race detector makes package gzip too slow for this.
func unpack(t testing.TB, packed, digest, folder string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != digest {
		t.Fatalf("%s has SHA-256 %x, want %s", packed, sum, digest)
	}
	into := t.TempDir()
	command := exec.CommandContext(t.Context(), "tar", "-xzf", "-", "-C", into, folder)
	command.Stdin = bytes.NewReader(content)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", packed, err, out)
	}
	files := map[string]string{}
	root := filepath.Join(into, folder)
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		below, _ := strings.CutPrefix(name, root+"/")
		files[below] = strings.TrimRight(string(text), "\r\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
