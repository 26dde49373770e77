package runtimes

import (
	"bufio"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cloister/artifact/erofs"
	"cloister/internal/durable"
	"cloister/lambda"
)

//go:embed bootstrap
var bootstraps embed.FS

// addBootstrap adds the bootstrap's sources of one language, told by their extension.
func addBootstrap(t *tree, extension string) error {
	entries, err := bootstraps.ReadDir("bootstrap")
	if err != nil {
		return fmt.Errorf("add bootstrap: %w", err)
	}
	for _, e := range entries {
		if path.Ext(e.Name()) != extension {
			continue
		}
		data, err := bootstraps.ReadFile("bootstrap/" + e.Name())
		if err != nil {
			return fmt.Errorf("add bootstrap: %w", err)
		}
		t.content(path.Join(runtimeDirectory, e.Name()), data)
	}
	return nil
}

// commonVariables are those that AWS sets for every runtime and that a function may override.
var commonVariables = map[string]string{
	"LANG":            "en_US.UTF-8",
	"TZ":              ":UTC",
	"PATH":            "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
	"LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
}

// Config describes a catalog.
type Config struct {
	Directory string       // for images; made with mode 0700 if it does not exist. One process at a time uses it
	CA        []byte       // PEM of the installation's authority, put into each image at /etc/cloister/ca.pem; may be empty
	Region    string       // for version ARNs
	Logger    *slog.Logger // empty: slog.Default
}

// Catalog finds and makes runtimes. Its methods may be called concurrently.
type Catalog struct {
	config Config

	mu       sync.Mutex
	runtimes map[string]*resolution // guarded by mu; by identifier
	nodes    map[string]string      // guarded by mu; major version to the program of that version; nil: not looked yet
}

// A resolution is a runtime that is there or being made.
type resolution struct {
	ready   chan struct{} // closed when the fields below are set
	runtime Runtime
	err     error
}

// Open prepares the directory. It makes no images.
func Open(c Config) (*Catalog, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := durable.MakeDirectory(c.Directory, 0o700); err != nil {
		return nil, fmt.Errorf("open runtime catalog: %w", err)
	}
	if err := durable.Sweep(c.Directory); err != nil {
		return nil, fmt.Errorf("open runtime catalog: %w", err)
	}
	return &Catalog{config: c, runtimes: map[string]*resolution{}}, nil
}

// Resolve returns a runtime, whose image it makes if there is none of this host's files as they
// are now. That takes seconds and goes on if ctx ends. Each runtime is looked for on
// the host once; a runtime that could not be made is tried again by the next call. If the
// identifier is unknown or the host lacks the interpreter, the error is of kind
// lambda.InvalidParameter and says what to install. Blocks of deprecated runtimes do not matter
// here: functions that exist go on running.
func (c *Catalog) Resolve(ctx context.Context, identifier string) (Runtime, error) {
	c.mu.Lock()
	r := c.runtimes[identifier]
	if r == nil {
		r = &resolution{ready: make(chan struct{})}
		c.runtimes[identifier] = r
		go c.resolve(context.WithoutCancel(ctx), identifier, r)
	}
	c.mu.Unlock()
	select {
	case <-r.ready:
		return r.runtime, r.err
	case <-ctx.Done():
		return Runtime{}, lambda.Errorf(lambda.Unavailable, "prepare runtime", "the image of %s is still being made", shorten(identifier))
	}
}

func (c *Catalog) resolve(ctx context.Context, identifier string, r *resolution) {
	r.runtime, r.err = c.prepare(ctx, identifier)
	if r.err != nil {
		c.mu.Lock()
		delete(c.runtimes, identifier)
		c.mu.Unlock()
	}
	close(r.ready)
}

// A plan says what an image is to hold, before any content is read.
type plan struct {
	tree      *tree
	key       string // of the inputs
	bootstrap []string
	node      bool

	// finish adds what takes work to make. Nil: nothing.
	finish func(ctx context.Context, t *tree) error
}

func (c *Catalog) prepare(ctx context.Context, identifier string) (Runtime, error) {
	p, name, err := c.plan(ctx, identifier)
	if err != nil {
		return Runtime{}, err
	}
	runtime := Runtime{Identifier: identifier, Bootstrap: p.bootstrap, Environment: maps.Clone(commonVariables), node: p.node}
	switch {
	case strings.HasPrefix(identifier, "python"):
		maps.Copy(runtime.Environment, pythonVariables)
	case p.node:
		maps.Copy(runtime.Environment, (&nodeHost{major: majorOf(identifier)}).variables())
	}
	if !isProvided(identifier) {
		runtime.ExecutionEnvironment = "AWS_Lambda_" + identifier
	}
	file, sum, err := c.image(ctx, name, p)
	if err != nil {
		return Runtime{}, fmt.Errorf("make image of runtime %s: %w", identifier, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return Runtime{}, fmt.Errorf("make image of runtime %s: %w", identifier, err)
	}
	runtime.File, runtime.Size = file, info.Size()
	runtime.Key = "runtime/" + sum
	runtime.VersionARN = "arn:aws:lambda:" + c.config.Region + "::runtime:" + sum
	return runtime, nil
}

// plan describes a runtime's image. Name is that of the image: runtimes may share one.
func (c *Catalog) plan(ctx context.Context, identifier string) (p *plan, name string, err error) {
	offers := c.List(ctx)
	if err := available(identifier, offers); err != nil {
		return nil, "", err
	}
	i := slices.IndexFunc(offers, func(o Offer) bool { return o.Identifier == identifier })
	name = identifier
	switch {
	case isProvided(identifier):
		name = "provided"
		p, err = planProvided(c.config.CA)
	case strings.HasPrefix(identifier, "python"):
		host := findPython(strings.TrimPrefix(identifier, "python"))
		if host == nil {
			return nil, "", lambda.Errorf(lambda.Unavailable, "find runtime", "%s was removed from the host a moment ago", identifier)
		}
		p, err = host.plan(c.config.CA)
	default:
		p, err = (&nodeHost{major: majorOf(identifier), program: offers[i].Interpreter}).plan(c.config.CA)
	}
	if err != nil {
		return nil, "", fmt.Errorf("plan image of runtime %s: %w", identifier, err)
	}
	return p, name, nil
}

func isProvided(identifier string) bool { return strings.HasPrefix(identifier, "provided.") }

// majorOf returns "20" for "nodejs20.x".
func majorOf(identifier string) string {
	return strings.TrimSuffix(strings.TrimPrefix(identifier, "nodejs"), ".x")
}

// imageSuffix ends the name of every image: <name>-<key>-<SHA-256>.erofs.
const imageSuffix = ".erofs"

// image returns the file of a plan's image and the SHA-256 of it. An image that was made
// earlier is read once before it is trusted again.
func (c *Catalog) image(ctx context.Context, name string, p *plan) (file, sum string, err error) {
	prefix := filepath.Join(c.config.Directory, name+"-")
	made, err := filepath.Glob(prefix + p.key + "-*" + imageSuffix)
	if err != nil {
		return "", "", err
	}
	for _, file := range made {
		want := strings.TrimSuffix(strings.TrimPrefix(file, prefix+p.key+"-"), imageSuffix)
		sum, err := sumOf(file)
		if err == nil && sum == want {
			return file, sum, nil
		}
		c.config.Logger.WarnContext(ctx, "runtime image is damaged and made again", "file", file, "error", err)
	}
	file, sum, err = c.build(ctx, prefix+p.key, p)
	if err != nil {
		return "", "", err
	}
	c.removeOthers(prefix, file)
	return file, sum, nil
}

func (c *Catalog) build(ctx context.Context, prefix string, p *plan) (file, sum string, err error) {
	started := time.Now()
	if p.finish != nil {
		if err := p.finish(ctx, p.tree); err != nil {
			return "", "", err
		}
	}
	f, err := durable.Create(c.config.Directory, 0o600)
	if err != nil {
		return "", "", err
	}
	defer f.Abort()
	w, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		return "", "", err
	}
	size, err := erofs.Build(ctx, w, p.tree.list())
	if err := errors.Join(err, w.Close()); err != nil {
		return "", "", err
	}
	if sum, err = sumOf(f.Name()); err != nil {
		return "", "", err
	}
	file = prefix + "-" + sum + imageSuffix
	if err := f.Commit(file); err != nil {
		return "", "", err
	}
	c.config.Logger.InfoContext(ctx, "runtime image made", "file", filepath.Base(file), "bytes", size, "files", len(p.tree.entries), "took", time.Since(started))
	return file, sum, nil
}

// removeOthers removes a runtime's older images. Environments that use one keep it until they
// end.
func (c *Catalog) removeOthers(prefix, keep string) {
	files, err := filepath.Glob(prefix + "*" + imageSuffix)
	if err != nil {
		return // the pattern is ours and well-formed
	}
	for _, file := range files {
		if file == keep {
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.config.Logger.Warn("old runtime image stays", "file", file, "error", err)
		}
	}
}

func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, bufio.NewReaderSize(f, 1<<20)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// List returns what Cloister can run, in the order of AWS's table, and whether this host has it.
func (c *Catalog) List(ctx context.Context) []Offer {
	nodes := c.findNodes(ctx)
	var offers []Offer
	for _, l := range lifecycles {
		o := Offer{Identifier: l.identifier}
		switch {
		case l.identifier == "provided", l.identifier == "nodejs", strings.HasPrefix(l.identifier, "python2"):
			continue
		case isProvided(l.identifier):
			o.Interpreter, o.Install = "/var/task/bootstrap", "put a program named bootstrap into the package"
		case strings.HasPrefix(l.identifier, "python"):
			if host := findPython(strings.TrimPrefix(l.identifier, "python")); host != nil {
				o.Interpreter = host.program
			}
			o.Install = "install " + l.identifier + " (Debian, Ubuntu: apt-get install " + l.identifier + ")"
		case strings.HasPrefix(l.identifier, "nodejs") && strings.HasSuffix(l.identifier, ".x"):
			o.Interpreter = nodes[majorOf(l.identifier)]
			o.Install = "install Node.js " + majorOf(l.identifier) + " as /usr/bin/node (Debian, Ubuntu: apt-get install nodejs, where that is this version)"
		default:
			continue
		}
		offers = append(offers, o)
	}
	return offers
}

// findNodes looks for Node.js once: to learn its version it must be run.
func (c *Catalog) findNodes(ctx context.Context) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes != nil {
		return c.nodes
	}
	program := findProgram("node")
	if program == "" {
		return nil
	}
	major, err := nodeMajor(ctx, program)
	if err != nil {
		c.config.Logger.WarnContext(ctx, "Node.js is not used", "error", err)
		return nil
	}
	c.nodes = map[string]string{major: program}
	return c.nodes
}
