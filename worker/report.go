package worker

import (
	"math"
	"strconv"
	"strings"
	"time"

	"cloister/lambda"
	"cloister/runtimes"
)

// milliseconds spells a duration as AWS's log lines do: "3.01 ms".
func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64) + " ms"
}

// report is the REPORT line. Billed duration is rounded up to 1 ms and, for every function since
// August 2025, includes the init phase.
func report(v *lambda.Version, requestID string, o *outcome) string {
	took := min(o.took, v.Timeout) // AWS never reports more than the timeout
	billed := int64(math.Ceil(float64(took+o.init) / float64(time.Millisecond)))
	used := min((o.peak+1<<20-1)>>20, int64(v.MemoryMiB))
	line := "REPORT RequestId: " + requestID +
		"\tDuration: " + milliseconds(took) +
		"\tBilled Duration: " + strconv.FormatInt(billed, 10) + " ms" +
		"\tMemory Size: " + strconv.Itoa(v.MemoryMiB) + " MB" +
		"\tMax Memory Used: " + strconv.FormatInt(used, 10) + " MB\t"
	if o.init > 0 {
		line += "Init Duration: " + milliseconds(o.init) + "\t"
	}
	if f := o.failure; f != nil {
		line += status(f)
	}
	return line + "\n"
}

func status(f *failure) string {
	if f.kind == typeTimeout {
		return "Status: timeout"
	}
	return "Status: error\tError Type: " + f.kind
}

// initStart is the first line of an environment: "python3.11" reads "python:3.11" there.
func initStart(r runtimes.Runtime) string {
	name := r.Identifier
	if i := strings.IndexAny(name, "0123456789."); i > 0 {
		name = name[:i] + ":" + strings.TrimPrefix(name[i:], ".")
	}
	return "INIT_START Runtime Version: " + name + "\tRuntime Version ARN: " + r.VersionARN + "\n"
}

// initReport is the line about an init phase that failed.
func initReport(took time.Duration, phase string, f *failure) string {
	return "INIT_REPORT Init Duration: " + milliseconds(took) + "\tPhase: " + phase + "\t" + status(f) + "\n"
}

// LogStream names the log stream of a new environment: date, version and 32 hexadecimal digits.
func LogStream(now time.Time, version string) string {
	return now.UTC().Format("2006/01/02") + "/[" + version + "]" + newID()
}
