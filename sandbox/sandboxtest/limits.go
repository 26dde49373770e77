package sandboxtest

import (
	"testing"
	"time"

	"cloister/sandbox"
)

func (s *suite) limits() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"AMemoryBombIsKilledAndReported":          s.memoryBomb,
		"AChildOverTheMemoryLimitIsReportedToo":   s.memoryChild,
		"AForkBombStopsAtTheLimit":                s.forkBomb,
		"OpenFilesStopAtTheLimit":                 s.openFiles,
		"EphemeralStorageHasItsSizeAndNoMore":     s.ephemeral,
		"EphemeralStorageIsGoneWithTheSandbox":    s.ephemeralGone,
		"EphemeralStorageIsNotChargedToMemory":    s.ephemeralMemory,
		"CPUTimeIsLimitedAndTheLimitCanBeChanged": s.cpu,
		"UsageIsCounted":                          s.usage,
		"UnusableLimitsAreRefused":                s.unusableLimits,
	}
}

func (s *suite) memoryBomb(t *testing.T) {
	box := s.attach(t, sandbox.Limits{MemoryMiB: 128, CPU: 1, Processes: 64, OpenFiles: 128})
	exit := Start(t, box, "memory", "1024").Exit(t)
	if !exit.OutOfMemory || exit.Code == 0 {
		t.Errorf("it ended with %+v", exit)
	}
	usage, err := box.Usage()
	must(t, err, "usage")
	if usage.OutOfMemoryKills == 0 || usage.MemoryPeakBytes > 129<<20 {
		t.Errorf("usage %+v", usage)
	}
	if exit := Start(t, box, "exit", "0").Exit(t); exit != (sandbox.Exit{}) {
		t.Errorf("the next process ended with %+v", exit)
	}
}

func (s *suite) memoryChild(t *testing.T) {
	box := s.attach(t, sandbox.Limits{MemoryMiB: 128, CPU: 1, Processes: 64, OpenFiles: 128})
	if exit := Start(t, box, "child", "memory", "1024").Exit(t); !exit.OutOfMemory {
		t.Errorf("it ended with %+v", exit)
	}
}

func (s *suite) forkBomb(t *testing.T) {
	l := Limits
	l.Processes = 40
	box := s.attach(t, l)
	var answer struct {
		Started int
		Error   string
	}
	Start(t, box, "forks", "1000").Answer(t, &answer)
	// Threads count: a Go program has about five.
	if answer.Started < 2 || answer.Started >= l.Processes || answer.Error == "" {
		t.Errorf("%d processes were started; %s", answer.Started, answer.Error)
	}
	must(t, box.KillAll(s.context(t)), "kill all")
	ask[Identity](t, box, "identity")
}

func (s *suite) openFiles(t *testing.T) {
	var answer struct {
		Opened int
		Error  string
	}
	Start(t, s.attach(t, Limits), "open", "100000").Answer(t, &answer)
	if answer.Opened < 100 || answer.Opened > Limits.OpenFiles || answer.Error != "too many open files" {
		t.Errorf("%d files were opened; %s", answer.Opened, answer.Error)
	}
}

type filled struct {
	MiB   int
	Error string
}

func (s *suite) ephemeral(t *testing.T) {
	box := s.attach(t, Limits)
	size := s.images.Class.EphemeralMiB
	got := ask[filled](t, box, "fill", "/tmp/large", "20000")
	if got.MiB < size || got.MiB > size+size/20 || got.Error != "no space left on device" {
		t.Errorf("%d MiB were written to %d; %q", got.MiB, size, got.Error)
	}
	must(t, box.KillAll(s.context(t)), "kill all")
	if got := ask[map[string]string](t, box, "list", "/tmp"); len(got) != 1 || got["/tmp/large"] == "" {
		t.Errorf("/tmp holds %v", got)
	}
}

func (s *suite) ephemeralGone(t *testing.T) {
	box := s.attach(t, Limits)
	if got := ask[string](t, box, "execute", "/tmp/program"); got != "" {
		t.Errorf("a program in /tmp: %s", got)
	}
	if got := ask[map[string]string](t, box, "list", "/tmp"); len(got) != 1 {
		t.Errorf("/tmp holds %v", got)
	}
	must(t, box.Destroy(s.context(t)), "destroy")
	if got := ask[map[string]string](t, s.attach(t, Limits), "list", "/tmp"); len(got) != 0 {
		t.Errorf("another sandbox finds %v", got)
	}
}

func (s *suite) ephemeralMemory(t *testing.T) {
	box := s.attach(t, sandbox.Limits{MemoryMiB: 128, CPU: 1, Processes: 64, OpenFiles: 128})
	probe := Start(t, box, "fill", "/tmp/large", "400")
	var got filled
	if exit := probe.Answer(t, &got); exit != (sandbox.Exit{}) || got.MiB != 400 || got.Error != "" {
		t.Errorf("400 MiB into /tmp with 128 MiB of memory: %+v, %+v", got, exit)
	}
}

func (s *suite) cpu(t *testing.T) {
	l := Limits
	l.CPU = 0.2
	box := s.attach(t, l)
	const run = 1000 // ms
	// One period may be used up at each end.
	if used := ask[int](t, box, "spin", "1000"); used > run*2/10+100 {
		t.Errorf("of %d ms it used %d with a fifth of a CPU", run, used)
	}
	must(t, box.SetCPU(1), "set CPU")
	usage, err := box.Usage()
	must(t, err, "usage")
	// Other work on the machine may take most of the CPU: more than before is enough.
	for range 10 {
		if used := ask[int](t, box, "spin", "1000"); used > run*2/10+100 {
			return
		}
	}
	t.Errorf("it never used more with a whole CPU; %+v", usage)
}

func (s *suite) usage(t *testing.T) {
	box := s.attach(t, Limits)
	before, err := box.Usage()
	must(t, err, "usage")
	if before.MemoryPeakBytes > 16<<20 || before.OutOfMemoryKills != 0 {
		t.Errorf("usage of an empty sandbox: %+v", before)
	}
	ask[int](t, box, "memory", "64")
	ask[int](t, box, "spin", "50")
	after, err := box.Usage()
	must(t, err, "usage")
	if after.MemoryPeakBytes < 64<<20 || after.MemoryPeakBytes > 200<<20 || after.OutOfMemoryKills != 0 ||
		after.CPU < before.CPU+5*time.Millisecond {
		t.Errorf("usage before %+v, after 64 MiB and 50 ms %+v", before, after)
	}
}

func (s *suite) unusableLimits(t *testing.T) {
	for _, l := range []sandbox.Limits{
		{},
		{MemoryMiB: -1, CPU: 1, Processes: 1, OpenFiles: 64},
		{MemoryMiB: 128, CPU: -1, Processes: 1, OpenFiles: 64},
		{MemoryMiB: 128, CPU: 1, Processes: 0, OpenFiles: 64},
		{MemoryMiB: 128, CPU: 1, Processes: 1, OpenFiles: 0},
	} {
		if err := s.park(t).Attach(s.context(t), nil, l); err == nil {
			t.Errorf("%+v was accepted", l)
		}
	}
}
