package tidy

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ranks orders the folders at the top of the tree. A package imports only lower ranks; within a
// rank only its own folder and the edges below. A new folder must be given its rank here.
var ranks = map[string]int{
	"internal": 0,
	"lambda":   1,
	"api":      2, "iam": 2, "store": 2, "artifact": 2, "sandbox": 2, "runtimeapi": 2, "runtimes": 2, "logs": 2,
	"control": 3, "invoke": 3, "placement": 3, "worker": 3,
	"gateway": 4,
	"cmd":     5, "test": 5,
}

// edges are the imports allowed within rank 2, with the reason.
var edges = map[string]string{
	"iam api":           "answers API calls with generated shapes",
	"iam store":         "users, roles and policies are durable",
	"logs api":          "answers API calls with generated shapes",
	"runtimes artifact": "runtime images are built by artifact/erofs",
	"sandbox artifact":  "test images are built by artifact/erofs",
}

// standardOnly are the ranks that import nothing but the standard library beside Cloister.
const standardOnly = 1

func TestImportsOnlyGoDown(t *testing.T) {
	for _, s := range sources(t) {
		from := top(s.path)
		rank, known := ranks[from]
		if !known {
			t.Errorf("%s: folder %q has no rank in internal/tidy", s.path, from)
			continue
		}
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			inside, ours := strings.CutPrefix(imported, "cloister/")
			if !ours {
				if rank == standardOnly && strings.Contains(imported, ".") && !s.test {
					t.Errorf("%s imports %s: rank 1 uses the standard library only", s.path, imported)
				}
				continue
			}
			if to := top(inside); !allowed(from, rank, to, s.test) {
				t.Errorf("%s imports %s: not allowed from %s to %s (internal/tidy)", s.path, imported, from, to)
			}
		}
	}
}

func top(p string) string {
	first, _, _ := strings.Cut(p, "/")
	return first
}

func allowed(from string, rank int, to string, test bool) bool {
	switch target := ranks[to]; {
	case from == to:
		return true
	case to == "cmd":
		return false
	case target < rank:
		return true
	case target == rank && rank == 2:
		return edges[from+" "+to] != "" || test
	}
	return false
}

func TestEveryEdgeAndRankIsUsed(t *testing.T) {
	used, folders := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		folders[top(s.path)] = true
		for _, spec := range s.file.Imports {
			if imported, _ := strconv.Unquote(spec.Path.Value); strings.HasPrefix(imported, "cloister/") {
				used[top(s.path)+" "+top(strings.TrimPrefix(imported, "cloister/"))] = true
			}
		}
	}
	for edge := range edges {
		if !used[edge] {
			t.Errorf("the edge %q is allowed but nobody uses it: remove it", edge)
		}
	}
	for folder := range ranks {
		if !folders[folder] {
			t.Errorf("the folder %q has a rank but does not exist", folder)
		}
	}
}

// launchers run as root next to tenant code and must not be able to reach what the front guards.
var launchers = []string{"sandbox", "worker", "runtimeapi", "runtimes"}

func TestWhatRunsBesideTenantCodeKnowsNoKeysOrPolicies(t *testing.T) {
	banned := []string{"cloister/api", "cloister/iam", "cloister/store", "cloister/internal/seal", "cloister/gateway", "cloister/control"}
	for _, s := range sources(t) {
		if s.test || !slices.Contains(launchers, top(s.path)) {
			continue
		}
		for _, spec := range s.file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			for _, b := range banned {
				if imported == b || strings.HasPrefix(imported, b+"/") {
					t.Errorf("%s imports %s", s.path, imported)
				}
			}
		}
	}
}
