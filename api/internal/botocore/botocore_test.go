package botocore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConstantsReadAsGo(t *testing.T) {
	for _, c := range []struct{ enum, value, want string }{
		{"State", "Pending", "StatePending"},
		{"InvocationType", "DryRun", "InvocationTypeDryRun"},
		{"TenantIsolationMode", "PER_TENANT", "TenantIsolationModePerTenant"},
		{"Runtime", "provided.al2023", "RuntimeProvidedAl2023"},
		{"Runtime", "nodejs4.3-edge", "RuntimeNodejs43Edge"},
		{"Architecture", "x86_64", "ArchitectureX8664"},
		{"statusType", "Active", "StatusTypeActive"},
	} {
		if got := constant(c.enum, c.value); got != c.want {
			t.Errorf("constant(%q, %q) = %q, want %q", c.enum, c.value, got, c.want)
		}
	}
}

func TestADistributionThatIsNotThePinnedOneIsRefused(t *testing.T) {
	version, digest := Pin()
	folder := t.TempDir()
	t.Setenv("CLOISTER_BOTOCORE", folder)
	if _, err := OpenPinned(nil); err == nil || !strings.Contains(err.Error(), "make botocore") {
		t.Errorf("without one: error %v, want one that says what to do", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "botocore-"+version+".tar.gz"), []byte("PK"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPinned(nil); err == nil || !strings.Contains(err.Error(), digest) {
		t.Errorf("another one: error %v, want one that names the expected digest", err)
	}
}
