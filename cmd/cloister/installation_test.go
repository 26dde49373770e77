package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestStateThatDoesNotBelongTogetherIsRefused runs the program on data directories that miss a key, hold files
// of others, or come from a newer version.
func TestStateThatDoesNotBelongTogetherIsRefused(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/state",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await, "schema": setSchema, "keep": keep, "unchanged": unchanged, "smalldisk": smallDisk, "fill": fill, "user": createUser,
		},
	})
}

// setSchema FILE NUMBER makes a store one of another schema.
func setSchema(ts *testscript.TestScript, negate bool, args []string) {
	if negate || len(args) != 2 {
		ts.Fatalf("usage: schema FILE NUMBER")
	}
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	db, err := sqlite3.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	err = db.Exec("PRAGMA user_version=" + strconv.Itoa(number))
	ts.Check(errors.Join(err, db.Close()))
}

// files is the content of all files below a directory, but for the index that SQLite makes anew for each
// log, and logs that are empty.
func files(directory string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(directory, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "-shm") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(b) > 0 || !strings.HasSuffix(path, "-wal") {
			found[path] = string(b)
		}
		return nil
	})
	return found, err
}

// keep DIRECTORY notes all bytes of a directory; unchanged DIRECTORY fails unless they are still there.
func keep(ts *testscript.TestScript, negate bool, args []string) {
	if negate || len(args) != 1 {
		ts.Fatalf("usage: keep DIRECTORY")
	}
	found, err := files(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) < 1 {
		ts.Fatalf("%s is empty", args[0])
	}
	copies := ts.Getenv("WORK") + "/.kept"
	ts.Check(os.RemoveAll(copies))
	for path, content := range found {
		ts.Check(os.MkdirAll(filepath.Dir(copies+path), 0o700))
		ts.Check(os.WriteFile(copies+path, []byte(content), 0o600))
	}
}

func unchanged(ts *testscript.TestScript, negate bool, args []string) {
	if negate || len(args) != 1 {
		ts.Fatalf("usage: unchanged DIRECTORY")
	}
	now, err := files(ts.MkAbs(args[0]))
	ts.Check(err)
	before, err := files(ts.Getenv("WORK") + "/.kept" + ts.MkAbs(args[0]))
	ts.Check(err)
	for path, content := range before {
		if after := now[strings.TrimPrefix(path, ts.Getenv("WORK")+"/.kept")]; after != content {
			ts.Fatalf("%s was changed or removed", path)
		}
	}
	if len(before) != len(now) {
		ts.Fatalf("there are now the files %q", slices.Sorted(maps.Keys(now)))
	}
}

// smalldisk DIRECTORY puts a file system of a few megabytes under the content of a directory until the script ends.
func smallDisk(ts *testscript.TestScript, negate bool, args []string) {
	if negate || len(args) != 1 {
		ts.Fatalf("usage: smalldisk DIRECTORY")
	}
	path := ts.MkAbs(args[0])
	ts.Check(os.Rename(path, path+".before"))
	ts.Check(os.Mkdir(path, 0o700))
	ts.Check(syscall.Mount("tmpfs", path, "tmpfs", 0, "size=3m,mode=700"))
	ts.Defer(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	ts.Check(ts.Exec("cp", "-a", path+".before/.", path))
}

// fill FILE writes to a file until the disk is full.
func fill(ts *testscript.TestScript, negate bool, args []string) {
	if negate || len(args) != 1 {
		ts.Fatalf("usage: fill FILE")
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		ts.Check(err)
	}
}

// user DATA NAME creates a user of the service that runs on a data directory; "! user DATA NAME CODE" fails unless the
// service answers with that error.
func createUser(ts *testscript.TestScript, negate bool, args []string) {
	if len(args) != 2 && !(negate && len(args) == 3) {
		ts.Fatalf("usage: [!] user DATA NAME [CODE]")
	}
	ts.Check(ts.Exec("cloister", "env", "--data", args[0]))
	environment := map[string]string{}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		environment[name] = strings.Trim(value, "'")
	}
	bundle, err := os.Open(environment["AWS_CA_BUNDLE"])
	ts.Check(err)
	defer bundle.Close()
	c, err := config.LoadDefaultConfig(context.Background(),
		config.WithRegion(environment["AWS_REGION"]), config.WithBaseEndpoint(environment["AWS_ENDPOINT_URL"]), config.WithCustomCABundle(bundle),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], "")),
		config.WithRetryMaxAttempts(1))
	ts.Check(err)
	_, err = iam.NewFromConfig(c).CreateUser(context.Background(), &iam.CreateUserInput{UserName: &args[1]})
	if !negate {
		ts.Check(err)
		return
	}
	if answer, ok := errors.AsType[smithy.APIError](err); !ok || answer.ErrorCode() != args[2] {
		ts.Fatalf("the service answered %v, want %s", err, args[2])
	}
}

func TestADirectoryThatIsNotOursIsNotTouched(t *testing.T) {
	for name, c := range map[string]struct {
		holds map[string]string
		want  string
	}{
		"letters":                {map[string]string{"letter": "Dear reader"}, "it holds letter"},
		"a schema of others":     {map[string]string{"schema": "CREATE TABLE letters"}, "does not hold a schema number"},
		"a newer version":        {map[string]string{"schema": "2\n", "id": "12345678\n"}, "has schema 2"},
		"state without a schema": {map[string]string{"front/state/meta.db": "x"}, "it holds front"},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			for path, content := range c.holds {
				path = filepath.Join(directory, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			before, err := files(directory)
			if err != nil {
				t.Fatal(err)
			}
			if in, err := openInstallation(directory); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("openInstallation gave %v, %v; want an error that says %q", in, err, c.want)
			}
			if after, err := files(directory); err != nil || cmp.Diff(before, after) != "" {
				t.Errorf("the directory was changed: %s, %v", cmp.Diff(before, after), err)
			}
		})
	}
}

func TestAFirstStartThatWasKilledIsContinued(t *testing.T) {
	directory := t.TempDir()
	for _, name := range []string{"lock", ".durable-1234"} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in, err := openInstallation(directory)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	if _, err := os.Stat(filepath.Join(directory, ".durable-1234")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the killed start left is still there: %v", err)
	}
}
