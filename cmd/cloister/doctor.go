package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"cloister/runtimes"
)

type doctorCommand struct {
	JSON bool `name:"json" help:"Print JSON instead of a table."`
}

// A finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // pass, fail
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// diagnosis is what doctor prints.
type diagnosis struct {
	Usable   bool      `json:"usable"` // at least one backend ran its self-test
	Backends []finding `json:"backends"`
	Host     []finding `json:"host"`
	Runtimes []string  `json:"runtimes"`
}

// Run checks the host. It fails if no backend can be used.
func (c *doctorCommand) Run(ctx context.Context, out io.Writer) error {
	d, err := diagnose(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(d)
	} else {
		err = d.print(out)
	}
	if err == nil && !d.Usable {
		err = errors.New("no isolation backend is usable on this host")
	}
	return err
}

func diagnose(ctx context.Context) (*diagnosis, error) {
	d := new(diagnosis)
	d.Host = append(d.Host, checkRoot(), checkCgroups(), checkFileSystem("erofs"), checkFileSystem("ext4"),
		checkPath("loop devices", "/dev/loop-control", "modprobe loop"), checkProgram("mke2fs", "apt-get install e2fsprogs"))
	quiet := slog.New(slog.DiscardHandler)
	directory, err := os.MkdirTemp("", "cloister-doctor-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	if os.Geteuid() == 0 {
		in, err := openInstallation(directory) // an id and user ids of its own, beside running services
		if err != nil {
			return nil, err
		}
		defer in.close()
		config := workerConfig{Installation: in.id, Directory: in.path("worker"), FirstUID: in.uid + 1, UIDs: uidsPerSlot - 1}
		for _, candidate := range backends(config, quiet) {
			f := finding{Check: candidate.level.String(), Status: "pass", Detail: "self-test ran a program"}
			if backend, err := candidate.open(ctx); err != nil {
				f.Status, f.Detail = "fail", err.Error()
			} else {
				d.Usable = true
				backend.Close()
			}
			d.Backends = append(d.Backends, f)
		}
	} else {
		d.Backends = append(d.Backends, finding{"all", "fail", "self-tests make namespaces and mounts", "run doctor as root"})
	}
	catalog, err := runtimes.Open(runtimes.Config{Directory: directory, Logger: quiet})
	if err != nil {
		return nil, err
	}
	for _, offer := range catalog.List(ctx) {
		if offer.Interpreter != "" && runtimes.CheckCreate(offer.Identifier, time.Now(), []runtimes.Offer{offer}) == nil {
			d.Runtimes = append(d.Runtimes, offer.Identifier)
		}
	}
	return d, nil
}

func result(check string, ok bool, detail, fix string) finding {
	if ok {
		return finding{Check: check, Status: "pass", Detail: detail}
	}
	return finding{check, "fail", detail, fix}
}

func checkRoot() finding {
	return result("root", os.Geteuid() == 0, fmt.Sprintf("user id %d", os.Geteuid()), "run as root")
}

func checkCgroups() finding {
	for _, hierarchy := range []string{"/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(hierarchy)
		if err == nil && (strings.Contains(string(b), "memory") || strings.HasPrefix(hierarchy, "/sys/fs/cgroup/memory")) {
			return finding{Check: "cgroups", Status: "pass", Detail: "memory controller at " + hierarchy}
		}
	}
	return finding{"cgroups", "fail", "no memory controller below /sys/fs/cgroup", "mount cgroup2, or boot without cgroup_disable=memory"}
}

func checkFileSystem(name string) finding {
	b, err := os.ReadFile("/proc/filesystems")
	return result(name+" file system", err == nil && strings.Contains(string(b), "\t"+name+"\n"), "", "modprobe "+name)
}

func checkPath(check, path, fix string) finding {
	return result(check, unix.Access(path, unix.F_OK) == nil, path, fix)
}

func checkProgram(name, fix string) finding {
	for _, directory := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/"} {
		if path, err := exec.LookPath(directory + name); err == nil {
			return finding{Check: name, Status: "pass", Detail: path}
		}
	}
	return finding{name, "fail", "not found", fix}
}

func (d *diagnosis) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tSTATUS\tDETAIL\tFIX")
	for _, f := range append(append([]finding{}, d.Host...), d.Backends...) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Check, f.Status, f.Detail, f.Fix)
	}
	fmt.Fprintf(w, "runtimes\t\t%s\t\n", strings.Join(d.Runtimes, " "))
	return w.Flush()
}
