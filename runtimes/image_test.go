package runtimes

import (
	"bytes"
	"debug/elf"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	goerofs "github.com/erofs/go-erofs"
)

const testCA = "-----BEGIN CERTIFICATE-----\ntest\n-----END CERTIFICATE-----\n"

var quiet = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	code := m.Run()
	if sharedDirectory != "" {
		os.RemoveAll(sharedDirectory)
	}
	os.Exit(code)
}

var sharedDirectory string

// sharedCatalog keeps the images that several tests look at.
var sharedCatalog = sync.OnceValues(func() (*Catalog, error) {
	directory, err := os.MkdirTemp("", "cloister-runtimes-")
	if err != nil {
		return nil, err
	}
	sharedDirectory = directory
	return Open(Config{Directory: directory, CA: []byte(testCA), Region: "us-east-1", Logger: quiet})
})

func resolve(t *testing.T, identifier string) Runtime {
	t.Helper()
	c, err := sharedCatalog()
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Resolve(t.Context(), identifier)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hostIdentifiers are the runtimes of this host, one of each family.
func hostIdentifiers(t *testing.T) (python, node, provided string) {
	t.Helper()
	c, err := sharedCatalog()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range c.List(t.Context()) {
		switch {
		case o.Interpreter == "":
		case strings.HasPrefix(o.Identifier, "python"):
			python = o.Identifier
		case strings.HasPrefix(o.Identifier, "nodejs"):
			node = o.Identifier
		case o.Identifier == "provided.al2023":
			provided = o.Identifier
		}
	}
	if python == "" || node == "" || provided == "" {
		t.Fatalf("install python3 and nodejs: this host has python %q, node %q", python, node)
	}
	return python, node, provided
}

func TestImagesHoldOnlyWhatARuntimeNeeds(t *testing.T) {
	python, node, provided := hostIdentifiers(t)
	shells := []string{"/usr/bin/sh", "/usr/bin/bash", "/usr/bin/dash"}
	for _, c := range []struct {
		identifier string
		has, lacks []string
	}{
		{python, []string{"/var/lang/bin/" + python, "/usr/bin/python3", "/var/runtime/bootstrap.pyc", "/var/runtime/bootstrap.py", "/etc/cloister/ca.pem", "/usr/share/zoneinfo/UTC"},
			append(shells, "/usr/bin/node", "/var/lang/bin/node")},
		{node, []string{"/var/lang/bin/node", "/usr/bin/node", "/var/runtime/bootstrap.js", "/etc/cloister/ca.pem"},
			append(shells, "/usr/bin/python3", "/var/runtime/bootstrap.py")},
		{provided, []string{"/usr/bin/sh", "/etc/cloister/ca.pem"}, []string{"/usr/bin/python3", "/usr/bin/node", "/usr/bin/su", "/usr/bin/mount", "/var/runtime/bootstrap.py"}},
	} {
		t.Run(c.identifier, func(t *testing.T) {
			r := resolve(t, c.identifier)
			seen := map[string]fs.FileMode{}
			walk(t, r, func(name string, mode fs.FileMode, _ func() []byte) { seen[name] = mode })
			for name, mode := range seen {
				if strings.Contains(name, "dist-packages") || strings.Contains(name, "site-packages") || strings.Contains(name, "/apt") || strings.Contains(name, "dpkg") {
					t.Errorf("%s is the host's", name)
				}
				if mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 || mode.Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
					t.Errorf("%s has mode %v", name, mode)
				}
				if mode.Type() != fs.ModeSymlink && mode&0o022 != 0 {
					t.Errorf("%s can be written to: %v", name, mode)
				}
			}
			for _, name := range append(c.has, "/proc", "/dev", "/tmp", "/opt", "/var/task", "/etc/passwd", "/etc/hosts", "/etc/resolv.conf") {
				if _, ok := seen[name]; !ok {
					t.Errorf("%s is missing", name)
				}
			}
			for _, name := range c.lacks {
				if _, ok := seen[name]; ok {
					t.Errorf("%s is there", name)
				}
			}
		})
	}
}

// walk visits every file of a runtime's image by its absolute path.
func walk(t *testing.T, r Runtime, visit func(name string, mode fs.FileMode, read func() []byte)) {
	t.Helper()
	f, err := r.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, err := goerofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(image, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		visit(path.Join("/", name), info.Mode(), func() []byte {
			data, err := fs.ReadFile(image, name)
			if err != nil {
				t.Fatal(err)
			}
			return data
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryLibraryThatAnImagesProgramsNameIsInTheImage(t *testing.T) {
	python, node, provided := hostIdentifiers(t)
	for _, identifier := range []string{python, node, provided} {
		names, needed, programs := map[string]bool{}, map[string]string{}, 0
		walk(t, resolve(t, identifier), func(name string, mode fs.FileMode, read func() []byte) {
			if !mode.IsRegular() || mode&0o111 == 0 && !strings.Contains(name, ".so") {
				return
			}
			names[path.Base(name)] = true
			f, err := elf.NewFile(bytes.NewReader(read()))
			if err != nil {
				return // a script
			}
			programs++
			libraries, err := f.ImportedLibraries()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range libraries {
				needed[l] = name
			}
		})
		if programs < 3 {
			t.Errorf("%s has only %d programs and libraries", identifier, programs)
		}
		for library, by := range needed {
			if !names[library] {
				t.Errorf("%s: %s needs %s", identifier, by, library)
			}
		}
	}
}

// enter is a script for a mount namespace of its own: it mounts an image, puts a folder at /var/task,
// and runs a command as nobody with that root. All of it is gone when the command ends.
const enter = `set -e
/bin/mount -t erofs -o ro,loop "$1" "$2"
/bin/mount --bind "$3" "$2/var/task"
root=$2; shift 3
exec /usr/sbin/chroot --userspec=65534:65534 "$root" "$@"`

// inside returns the command that runs another one with a runtime's image as root.
func inside(t *testing.T, r Runtime, task string, command ...string) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run this test as root: it mounts images")
	}
	return append([]string{"/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", enter, "enter", r.File, t.TempDir(), task}, command...)
}

func TestAnImagesInterpreterLoadsItsLibraryInAChangedRoot(t *testing.T) {
	python, node, provided := hostIdentifiers(t)
	for _, c := range []struct {
		identifier string
		command    []string
		want       string
	}{
		{python, []string{"/usr/bin/python3", "-c", `
import ssl, sqlite3, ctypes, zoneinfo, hashlib, lzma, bz2, zlib, json, asyncio, decimal, curses, uuid, logging, http.client, urllib.request, concurrent.futures, multiprocessing, unittest.mock, xml.etree.ElementTree
import datetime, locale, os, sys, time
assert locale.setlocale(locale.LC_ALL, "") == "en_US.UTF-8"
assert datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset() == datetime.timedelta(hours=2)
assert sqlite3.connect(":memory:").execute("select 40 + 2").fetchone() == (42,)
assert len(ssl.create_default_context().get_ca_certs()) > 50
assert time.tzname == ("UTC", "UTC"), time.tzname
assert not [p for p in sys.path if "dist-packages" in p], sys.path
assert hashlib.new("sha3_256").digest_size == 32
ctypes.CDLL("libstdc++.so.6")
assert os.listdir("/usr/bin") == ["python3", "` + python + `"], os.listdir("/usr/bin")
print("ünïcode", sys.prefix, sys.getfilesystemencoding())`}, "ünïcode /var/lang utf-8\n"},
		{node, []string{"/usr/bin/node", "-e", `
const crypto = require('crypto'), fs = require('fs'), zlib = require('zlib'), { Worker } = require('worker_threads');
const assert = require('assert');
assert.equal(typeof fetch, 'function');
assert.equal(zlib.gunzipSync(zlib.gzipSync('text')).toString(), 'text');
assert.equal(crypto.createHash('sha256').update('').digest('hex').slice(0, 8), 'e3b0c442');
assert.equal(crypto.randomBytes(8).length, 8);
assert.equal(new Intl.DateTimeFormat('de', { timeZone: 'Europe/Berlin', timeStyle: 'short' }).format(new Date('2026-07-01T00:00Z')), '02:00');
assert.deepEqual(fs.readdirSync('/usr/bin'), ['node']);
new Worker('require("worker_threads").parentPort.postMessage("from a thread")', { eval: true }).on('message', (m) => console.log(m));`}, "from a thread\n"},
		{provided, []string{"/bin/sh", "-c", `set -euo pipefail; echo "$(echo a.b | cut -d. -f1)" "$(echo x | tr x y)"; date +%Z; [ -r /usr/lib64/libstdc++.so.6 ]`}, "a y\nUTC\n"},
	} {
		t.Run(c.identifier, func(t *testing.T) {
			r := resolve(t, c.identifier)
			command := inside(t, r, t.TempDir(), c.command...)
			process := exec.CommandContext(t.Context(), command[0], command[1:]...)
			for name, value := range r.Environment {
				process.Env = append(process.Env, name+"="+value)
			}
			output, err := process.CombinedOutput()
			if err != nil || string(output) != c.want {
				t.Errorf("%v, output %q, want %q", err, output, c.want)
			}
		})
	}
}

func TestABootstrapServesAFunctionFromItsImage(t *testing.T) {
	python, node, provided := hostIdentifiers(t)
	for _, c := range []struct {
		identifier string
		files      map[string]string
	}{
		{python, map[string]string{"app.py": "import logging\nlogging.warning('logged')\ndef handler(event, context):\n    return event\n"}},
		{node, map[string]string{"app.js": "console.log('logged'); exports.handler = async (event) => event;"}},
		{provided, map[string]string{"bootstrap": `#!/bin/sh
set -euo pipefail
echo logged
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
	headers="$(mktemp)"
	event="$(curl -sS -LD "$headers" "$api/next")"
	id="$(grep -Fi Lambda-Runtime-Aws-Request-Id "$headers" | tr -d '[:space:]' | cut -d: -f2)"
	curl -sS -H 'Content-Type: application/json' -d "$event" "$api/$id/response" >/tmp/answer
done
`}},
	} {
		t.Run(c.identifier, func(t *testing.T) {
			r := resolve(t, c.identifier)
			task := t.TempDir()
			if err := os.Chmod(task, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, content := range c.files {
				if err := os.WriteFile(filepath.Join(task, name), []byte(content), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			command := inside(t, r, task, r.Command(128, "")...)
			if c.identifier == provided { // its image has no writable folder; the environments' /tmp is one
				command[6] = strings.Replace(enter, "root=", `/bin/mount -t tmpfs -o mode=1777 tmp "$2/tmp"; root=`, 1)
			}
			variables := map[string]string{"LAMBDA_TASK_ROOT": "/var/task", "LAMBDA_RUNTIME_DIR": "/var/runtime"}
			for name, value := range r.Environment {
				variables[name] = value
			}
			out := run(t, command, function{handler: "app.handler", events: []string{`{"n":1}`, `{"n":2}`}, variables: variables})
			var bodies []string
			for _, p := range out.posts {
				bodies = append(bodies, strings.ReplaceAll(p.Body, " ", ""))
			}
			if !slices.Equal(bodies, []string{`{"n":1}`, `{"n":2}`}) {
				t.Errorf("answers %q, output %q", bodies, out.output)
			}
			if !strings.Contains(out.output, "logged") {
				t.Errorf("output %q", out.output)
			}
		})
	}
}

func TestTheBootstrapOfAnImageIsCompiledAlready(t *testing.T) {
	python, _, _ := hostIdentifiers(t)
	r := resolve(t, python)
	command := inside(t, r, t.TempDir(), "/usr/bin/python3", "-v", "-c", "import json, cloister_json, asyncio, email.parser")
	process := exec.CommandContext(t.Context(), command[0], command[1:]...)
	for name, value := range r.Environment {
		process.Env = append(process.Env, name+"="+value)
	}
	output, err := process.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	compiled := 0
	for line := range strings.Lines(string(output)) {
		if strings.Contains(line, "matches") && strings.Contains(line, ".pyc") {
			compiled++
		}
		if strings.Contains(line, "code object from '/var") && strings.Contains(line, ".py'") {
			t.Errorf("compiled anew: %s", line)
		}
	}
	if compiled < 50 {
		t.Errorf("%d modules were there compiled, want most:\n%.2000s", compiled, output)
	}
}

func TestAFileWithTheLoadersNameThatIsNoProgramIsPassedOver(t *testing.T) {
	l, err := newLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.add(findProgram("sh")); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "libm.so.6"), []byte("GROUP ( /lib/libm.so )"), 0o644); err != nil {
		t.Fatal(err)
	}
	if at := l.search("libm.so.6", []string{folder, "relative"}); at == "" || strings.HasPrefix(at, folder) {
		t.Errorf("found %q", at)
	}
	if at := l.search("libno-such.so.1", nil); at != "" {
		t.Errorf("found %q", at)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
