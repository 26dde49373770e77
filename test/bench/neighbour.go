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
	paced  bool   // it works on after its answer: the caller waits until that is over
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
		{name: "answers, then spins on 8 threads", events: lasting("burn", 8), paced: true},
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

// oneCPU is the memory size, in MB, at which a function has one CPU.
const oneCPU = 1769

// neighbours is the section that shows what a hostile function does to a quiet one beside it.
type neighbours struct {
	rounds   int
	slice    time.Duration
	patience time.Duration // for how long a round waits until other programs leave the CPUs alone
	only     string        // a part of the names of the harms to measure

	service *service.Service
	client  *lambda.Client
	config  aws.Config
	role    *string
	tls     *tls.Config
	quiet   *target
	packed  map[string][]byte // functions, by folder
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
	flags.DurationVar(&n.patience, "patience", 10*time.Second, "how long a round waits for other programs to leave the CPUs alone")
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
	n.printf("Measured %s on %d CPUs with %s: for each row %d rounds of a quiet and a hostile slice of %s; a ratio is of the p99s of one round. "+
		"CPUs used are averages of the hostile slices, the neighbour's own use included; the rest is the caller, the kernel, and other programs, in the quiet slices and in the hostile ones.\n\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), n.rounds, n.slice)
	n.printf("| the other function | its memory | quiet p99 µs | p99 µs beside it | median ratio (min–max) | failed | CPUs: front, worker, functions, rest quiet→hostile |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, h := range harms(n.slice) {
		if !strings.Contains(h.name, n.only) {
			continue
		}
		for _, memory := range []int32{oneCPU, 128} {
			if err := n.measure(ctx, h, memory); err != nil {
				return fmt.Errorf("%s: %w", h.name, err)
			}
		}
	}
	n.printf("\n")
	return nil
}

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
	if err := n.deploy(ctx, "neighbour", "./test/functions/echo-go", oneCPU, nil); err != nil {
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
	packed, ok := n.packed[pkg]
	if !ok {
		var err error
		if packed, err = service.BuildGo(ctx, pkg); err != nil {
			return err
		}
		n.packed[pkg] = packed
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

// A round is a quiet slice and a hostile one.
type round struct {
	slices [2]sample
	used   [2]processors
}

// measure makes one row.
func (n *neighbours) measure(ctx context.Context, h harm, memory int32) error {
	name := "hostile-" + strconv.Itoa(int(memory))
	if err := n.deploy(ctx, name, "./test/functions/hostile", memory, map[string]string{"HOSTILE_INIT": h.init}); err != nil {
		return err
	}
	defer n.client.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &name})
	var rows [][2]sample
	var used [2]processors
	for i := range n.rounds + 1 {
		r, err := n.round(ctx, name, h)
		if err != nil {
			return err
		}
		if i > 0 { // the first round warms both
			rows = append(rows, r.slices)
			used[0], used[1] = used[0].plus(r.used[0]), used[1].plus(r.used[1])
		}
	}
	p99 := func(s sample) time.Duration { return s.p99 }
	failed := 0
	for _, r := range rows {
		failed += r[0].failed + r[1].failed
	}
	all := ratios(rows, func(s sample) float64 { return float64(s.p99) })
	length := time.Duration(len(rows)) * n.slice
	n.printf("| %s | %d MB | %d | %d | **%.2f** (%.2f–%.2f) | %d | %s |\n", h.name, memory, median(column(rows, 0, p99)).Microseconds(), median(column(rows, 1, p99)).Microseconds(),
		middle(all), all[0], all[len(all)-1], failed, shares(used, length))
	return nil
}

func (n *neighbours) round(ctx context.Context, name string, h harm) (r round, err error) {
	request, err := n.signed(ctx, "neighbour", event)
	if err != nil {
		return r, err
	}
	var raw bytes.Buffer
	if err := request.Write(&raw); err != nil {
		return r, err
	}
	n.quiet.request = raw.Bytes()
	n.awaitCalm()
	if r.slices[0], r.used[0], err = n.load(); err != nil {
		return r, err
	}
	stop := n.harass(ctx, name, h)
	time.Sleep(settle)
	r.slices[1], r.used[1], err = n.load()
	if done := stop(); done == 0 && err == nil {
		err = fmt.Errorf("the hostile function was not invoked")
	}
	return r, err
}

// load is one slice of the neighbour's own load.
func (n *neighbours) load() (sample, processors, error) {
	before := n.used()
	s, err := n.quiet.load(1, n.slice)
	return s, n.used().minus(before), err
}

// awaitCalm waits until the machine has little else to do, as long as there is patience.
func (n *neighbours) awaitCalm() {
	for began := time.Now(); ; {
		before := n.used()
		time.Sleep(settle)
		if u := n.used().minus(before); u.rest < settle/10 || time.Since(began) > n.patience {
			return
		}
	}
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
			if h.paced {
				time.Sleep(time.Until(began.Add(n.slice + 2*settle)))
			}
		}
	})
	return func() int {
		close(ended)
		driver.Wait()
		return answers
	}
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

// processors is CPU time of the service's processes, of all functions, and of everything else.
type processors struct{ front, worker, functions, rest time.Duration }

func (p processors) plus(q processors) processors {
	return processors{p.front + q.front, p.worker + q.worker, p.functions + q.functions, p.rest + q.rest}
}

func (p processors) minus(q processors) processors {
	return processors{p.front - q.front, p.worker - q.worker, p.functions - q.functions, p.rest - q.rest}
}

// shares prints what was used in the hostile slices, and the rest in the quiet ones too.
func shares(used [2]processors, of time.Duration) string {
	part := func(d time.Duration) float64 { return float64(d) / float64(of) }
	return fmt.Sprintf("%.2f, %.2f, %.2f, %.2f→%.2f", part(used[1].front), part(used[1].worker), part(used[1].functions), part(used[0].rest), part(used[1].rest))
}

// used reads the kernel's counters; what cannot be read counts as nothing.
func (n *neighbours) used() processors {
	var p processors
	pids, _ := children(n.service.PID())
	for _, pid := range pids {
		time, _ := cpuTime([]int{pid})
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		switch words := strings.Split(string(command), "\x00"); {
		case slices.Contains(words, "front"):
			p.front += time
		case slices.Contains(words, "worker"):
			p.worker += time
		}
	}
	p.functions = functionsTime(n.service.ID)
	p.rest = busyTime() - p.front - p.worker - p.functions
	return p
}

// functionsTime is what all sandboxes of the installation have used.
func functionsTime(id string) time.Duration {
	for _, version1 := range []string{"cpuacct", "cpu,cpuacct"} {
		if b, err := os.ReadFile("/sys/fs/cgroup/" + version1 + "/cloister-" + id + "/cpuacct.usage"); err == nil {
			nanoseconds, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return time.Duration(nanoseconds)
		}
	}
	b, _ := os.ReadFile("/sys/fs/cgroup/cloister-" + id + "/cpu.stat")
	if fields := strings.Fields(string(b)); len(fields) > 1 && fields[0] == "usage_usec" {
		microseconds, _ := strconv.ParseInt(fields[1], 10, 64)
		return time.Duration(microseconds) * time.Microsecond
	}
	return 0
}

// busyTime is what all CPUs together were not idle.
func busyTime() time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	var ticks int
	for i, field := range strings.Fields(line) {
		if n, err := strconv.Atoi(field); err == nil && i != 4 && i != 5 && i < 9 { // idle, waiting for disks; guests are counted twice
			ticks += n
		}
	}
	return time.Duration(ticks) * tick
}
