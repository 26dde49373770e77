package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"cloister/test/service"
)

// neighbourCommand as the first argument measures this section alone.
const neighbourCommand = "neighbours"

// A harm is what a hostile function does, told by the events that one caller sends it in turn, each as
// soon as the last one was answered.
type harm struct {
	name   string
	events []string
	init   string // HOSTILE_INIT of the function
}

// harms are the kinds of hostile functions. What goes on for a time takes a little longer than a slice, so
// that it lasts for all of it; the function's timeout ends the rest.
func harms(slice time.Duration) []harm {
	lasting := func(do string, n int) []string {
		return []string{fmt.Sprintf(`{"do":%q,"n":%d,"milliseconds":%d}`, do, n, (slice + settle).Milliseconds())}
	}
	once := func(do ...string) []string {
		var events []string
		for _, d := range do {
			events = append(events, fmt.Sprintf(`{"do":%q}`, d))
		}
		return events
	}
	return []harm{
		{name: "exits at once", events: []string{`{"do":"exit","n":1}`}},
		{name: "never polls", events: once("echo"), init: "hang"},
		{name: "hangs", events: once("hang")},
		{name: "forks without end", events: once("forks")},
		{name: "eats memory", events: once("memory")},
		{name: "spins on 8 threads", events: lasting("spin", 8)},
		{name: "answers, then spins on 8 threads", events: lasting("burn", 8)},
		{name: "fills /tmp", events: once("fill", "clean")},
		{name: "fills /tmp with empty files", events: once("inodes", "clean")},
		{name: "writes, syncs, deletes", events: lasting("churn", 0)},
		{name: "logs lines of 1 KiB", events: lasting("bytes", 0)},
		{name: "logs a line with each call", events: lasting("lines", 0)},
		{name: "logs empty lines", events: lasting("newlines", 0)},
		{name: "logs one endless line", events: lasting("endless line", 0)},
		{name: "logs random bytes", events: lasting("binary", 0)},
		{name: "answers 6 MB + 1", events: []string{`{"do":"size","n":6291557}`}},
		{name: "dies in the middle of its answer", events: once("half and die")},
		{name: "sends garbage and giant headers", events: once("garbage")},
		{name: "answers in endless chunks", events: once("endless chunks")},
		{name: "answers in chunks of a byte", events: once("tiny chunks")},
		{name: "floods the Runtime API", events: lasting("hammer", 4)},
		{name: "reconnects to the Runtime API", events: lasting("reconnect", 4)},
		{name: "reconnects to the gateway", events: lasting("dial", 4)},
	}
}

// settle is how long a harm runs before its slice begins, and how long it is quiet before a quiet one.
const settle = 300 * time.Millisecond

// neighbours is the section that shows what a hostile function does to a quiet one beside it.
type neighbours struct {
	rounds   int
	slice    time.Duration
	patience time.Duration // for how long a round waits until other programs leave the CPUs alone
	only     string        // a part of the names of the harms to measure

	packed map[string][]byte // functions by folder

	service *service.Service
	client  *lambda.Client
	config  aws.Config
	role    *string
	tls     *tls.Config
	quiet   *target
	report  bytes.Buffer
}

// measureNeighbours runs the section; arguments are those of its own command, or none.
func measureNeighbours(ctx context.Context, binary, write string, arguments ...string) error {
	n := &neighbours{packed: map[string][]byte{}}
	flags := flag.NewFlagSet(neighbourCommand, flag.ExitOnError)
	flags.StringVar(&binary, "binary", binary, "the cloister binary")
	flags.StringVar(&write, "write", write, "file whose table between the marker comments is replaced")
	flags.IntVar(&n.rounds, "rounds", 5, "pairs of a quiet and a hostile slice for each harm")
	flags.DurationVar(&n.slice, "slice", 1500*time.Millisecond, "length of a slice")
	flags.DurationVar(&n.patience, "patience", 10*time.Second, "wait of a round for other programs to leave the CPUs alone")
	flags.StringVar(&n.only, "only", "", "measure only harms whose name contains this")
	flags.Parse(arguments)
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	log := new(coldLog)
	if n.service, err = service.Start(ctx, service.Config{Binary: binary, Log: log}); err != nil {
		return err
	}
	defer n.service.Close()
	if err := n.run(ctx); err != nil {
		return fmt.Errorf("neighbours: %w\n%s", err, log.tail())
	}
	if write != "" {
		return replaceBetween(write, neighboursBegin, neighboursEnd, n.report.String())
	}
	return nil
}

func (n *neighbours) printf(format string, args ...any) {
	fmt.Printf(format, args...)
	fmt.Fprintf(&n.report, format, args...)
}

func (n *neighbours) run(ctx context.Context) error {
	if err := n.prepare(ctx); err != nil {
		return err
	}
	n.printf("Measured %s on %d CPUs with %s: for each row %d rounds of a quiet and a hostile slice of %s; ratios are of p99s of the same round. "+
		"CPU is what was used in the hostile slices, on average: by front, worker, all functions (the neighbour too), and all the rest (the caller, the kernel, other programs); "+
		"the rest used %%.2f in the quiet slices.\n\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), n.rounds, n.slice)
	n.printf("| the other function | its memory | quiet p99 µs | p99 µs beside it | median ratio (min–max) | failed | CPU of front, worker, functions |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, h := range harms(n.slice) {
		if !strings.Contains(h.name, n.only) {
			continue
		}
		for _, memory := range []int32{lambdaCPU, 128} {
			if err := n.measure(ctx, h, memory); err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
		}
	}
	return nil
}

// lambdaCPU is the memory size, in MB, at which a function has one CPU.
const lambdaCPU = 1769

// prepare makes the role, the client, and the neighbour.
func (n *neighbours) prepare(ctx context.Context) (err error) {
	if n.config, err = (&bench{service: n.service}).settings(ctx); err != nil {
		return err
	}
	ca, err := os.ReadFile(n.service.Getenv("AWS_CA_BUNDLE"))
	if err != nil {
		return err
	}
	n.tls = &tls.Config{RootCAs: x509.NewCertPool()}
	n.tls.RootCAs.AppendCertsFromPEM(ca)
	role, err := iam.NewFromConfig(n.config).CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("neighbours"), AssumeRolePolicyDocument: aws.String(trust)})
	if err != nil {
		return err
	}
	n.role, n.client = role.Role.Arn, lambda.NewFromConfig(n.config)
	if err := n.deploy(ctx, "neighbour", "./test/functions/echo-go", lambdaCPU, nil); err != nil {
		return err
	}
	raw, err := n.signed(ctx, "neighbour", event)
	if err != nil {
		return err
	}
	n.quiet = &target{name: "neighbour", address: raw.URL.Host, tls: n.tls, event: event}
	return nil
}

func (n *neighbours) deploy(ctx context.Context, name, pkg string, memory int32, variables map[string]string) error {
	packed, err := service.BuildGo(ctx, pkg)
	if err != nil {
		return err
	}
	if _, err := n.client.CreateFunction(ctx, &lambda.CreateFunctionInput{
		FunctionName: &name, Runtime: types.RuntimeProvidedal2023, Handler: aws.String("bootstrap"), Role: n.role, MemorySize: &memory,
		Timeout: aws.Int32(int32((n.slice+settle)/time.Second) + 1), Code: &types.FunctionCode{ZipFile: packed}, Environment: &types.Environment{Variables: variables},
	}); err != nil {
		return err
	}
	return lambda.NewFunctionActiveV2Waiter(n.client).Wait(ctx, &lambda.GetFunctionInput{FunctionName: &name}, time.Minute)
}

// signed is one Invoke whose signature holds for five minutes.
func (n *neighbours) signed(ctx context.Context, function, payload string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.service.Endpoint+"/2015-03-31/functions/"+function+"/invocations", strings.NewReader(payload))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(payload))
	keys, err := n.config.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	return r, v4.NewSigner().SignHTTP(ctx, keys, r, hex.EncodeToString(sum[:]), "lambda", n.config.Region, time.Now())
}

// measure makes one row.
func (n *neighbours) measure(ctx context.Context, h harm, memory int32) error {
	name := "hostile-" + strconv.Itoa(int(memory))
	if err := n.deploy(ctx, name, "./test/functions/hostile", memory, map[string]string{"HOSTILE_INIT": h.init}); err != nil {
		return err
	}
	defer n.client.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &name})
	var rows [][2]sample
	var used usage
	for i := range n.rounds + 1 {
		row, u, err := n.round(ctx, name, h)
		if err != nil {
			return err
		}
		if i > 0 { // the first round warms both
			rows, used = append(rows, row), used.plus(u)
		}
	}
	p99 := func(i int) (all []time.Duration) {
		for _, r := range rows {
			all = append(all, []time.Duration{r[0].p99, r[1].p99}[i])
		}
		return all
	}
	failed := 0
	for _, r := range rows {
		failed += r[0].failed + r[1].failed
	}
	all := ratios(rows, func(s sample) float64 { return float64(s.p99) })
	n.printf("| %s | %d MB | %d | %d | **%.2f** (%.2f–%.2f) | %d | %s |\n", h.name, memory, median(p99(0)).Microseconds(), median(p99(1)).Microseconds(),
		middle(all), all[0], all[len(all)-1], failed, used.share(time.Duration(len(rows))*n.slice))
	return nil
}

// round is a quiet slice and a hostile one.
func (n *neighbours) round(ctx context.Context, name string, h harm) (row [2]sample, used usage, err error) {
	r, err := n.signed(ctx, "neighbour", event)
	if err != nil {
		return row, used, err
	}
	var raw bytes.Buffer
	if err := r.Write(&raw); err != nil {
		return row, used, err
	}
	n.quiet.request = raw.Bytes()
	time.Sleep(settle)
	if row[0], err = n.quiet.load(1, n.slice); err != nil {
		return row, used, err
	}
	stop := n.harass(ctx, name, h)
	time.Sleep(settle)
	before := n.usage()
	row[1], err = n.quiet.load(1, n.slice)
	used = n.usage().minus(before)
	if done := stop(); done == 0 && err == nil {
		err = fmt.Errorf("the hostile function was not invoked")
	}
	return row, used, err
}

// harass invokes the hostile function again and again until the function that it returns is called, which
// waits for the last answer and says how many there were.
func (n *neighbours) harass(ctx context.Context, name string, h harm) (stop func() int) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: n.tls}}
	ended := make(chan struct{})
	answers := 0
	var driver sync.WaitGroup
	driver.Go(func() {
		defer client.CloseIdleConnections()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			default:
			}
			r, err := n.signed(ctx, name, h.events[i%len(h.events)])
			if err != nil {
				return
			}
			began := time.Now()
			response, err := client.Do(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			answers++
			if strings.Contains(h.name, "answers, then") { // one environment at a time: it is busy until then
				time.Sleep(time.Until(began.Add(n.slice + settle)))
			}
		}
	})
	return func() int {
		close(ended)
		driver.Wait()
		return answers
	}
}

// usage is CPU time of the service's processes and of all functions.
type usage struct{ front, worker, functions time.Duration }

func (u usage) plus(v usage) usage {
	return usage{u.front + v.front, u.worker + v.worker, u.functions + v.functions}
}

func (u usage) minus(v usage) usage {
	return usage{u.front - v.front, u.worker - v.worker, u.functions - v.functions}
}

func (u usage) share(of time.Duration) string {
	part := func(d time.Duration) float64 { return float64(d) / float64(of) }
	return fmt.Sprintf("%.2f, %.2f, %.2f", part(u.front), part(u.worker), part(u.functions))
}

// usage reads the kernel's counters; what cannot be read counts as nothing.
func (n *neighbours) usage() usage {
	const tick = 10 * time.Millisecond // USER_HZ
	var u usage
	statuses, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range statuses {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 13 || fields[1] != strconv.Itoa(n.service.PID()) {
			continue
		}
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		switch words := strings.Split(string(command), "\x00"); {
		case slices.Contains(words, "front"):
			u.front += time.Duration(user+system) * tick
		case slices.Contains(words, "worker"):
			u.worker += time.Duration(user+system) * tick
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/cpuacct/cloister-%s/cpuacct.usage", "/sys/fs/cgroup/cpu,cpuacct/cloister-%s/cpuacct.usage"} {
		if b, err := os.ReadFile(fmt.Sprintf(pattern, n.service.ID)); err == nil {
			used, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			u.functions = time.Duration(used)
			break
		}
	}
	if b, err := os.ReadFile("/sys/fs/cgroup/cloister-" + n.service.ID + "/cpu.stat"); err == nil { // version 2
		if fields := strings.Fields(string(b)); len(fields) > 1 && fields[0] == "usage_usec" {
			used, _ := strconv.ParseInt(fields[1], 10, 64)
			u.functions = time.Duration(used) * time.Microsecond
		}
	}
	return u
}

const (
	neighboursBegin = "<!-- neighbours: make bench -->"
	neighboursEnd   = "<!-- end of neighbours -->"
)

// replaceBetween writes text between two marker comments of a file.
func replaceBetween(path, begin, end, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marker comments %s and %s", path, begin, end)
	}
	return os.WriteFile(path, []byte(before+begin+"\n"+text+end+after), 0o644)
}
