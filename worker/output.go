package worker

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"cloister/lambda"
)

// Bounds of a function's output.
const (
	maxLineBytes   = 256 << 10 // one log event (CloudWatch Logs)
	maxBatchEvents = 512

	// What one environment may log: a line costs its bytes and lineCostBytes for the work that it makes in
	// worker and front. Beyond that, output is read so that the function can go on, but not looked at.
	logBytesPerSecond = 2 << 20
	logBurstBytes     = 8 << 20
	logResumeBytes    = logBurstBytes / 16 // to have been gathered before lines are kept again
	lineCostBytes     = 100

	// Between two wakes for output. A function that writes without end fills the pipe meanwhile and
	// waits, and one that writes line by line wakes the worker for many at once.
	intakePause = 2 * time.Millisecond
	intakeReads = 4 // for each wake: the pipe's capacity
)

// output collects what a runtime process writes to its standard output and error, one pipe for
// both so that their order is kept, cuts it into log events and puts the platform's own
// lines between them.
type output struct {
	read, write *os.File // write is what processes inherit
	deliver     func([]lambda.LogEvent)
	raw         syscall.RawConn // of read
	done        chan struct{}   // closed when the collecting goroutine has ended

	mu      sync.Mutex        // also held while reading, so that drain knows that nothing is under way
	buffer  []byte            // guarded by mu; read space
	partial []byte            // guarded by mu; a line without its end yet
	batch   []lambda.LogEvent // guarded by mu; not delivered yet
	last    []byte            // guarded by mu; the last LogTailBytes, if asked for
	wanted  bool              // guarded by mu; whether last is kept

	tokens    int       // guarded by mu; bytes that may be logged now, negative after a large piece
	refilled  time.Time // guarded by mu; when tokens was last counted
	flooded   bool      // guarded by mu; output is dropped until enough tokens have gathered
	midLine   bool      // guarded by mu; what comes next is the rest of a line that was dropped
	lostLines int       // guarded by mu; not told yet
	lostBytes int       // guarded by mu; not told yet
}

func newOutput(deliver func([]lambda.LogEvent)) (*output, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make log pipe: %w", err)
	}
	raw, err := read.SyscallConn()
	if err != nil {
		read.Close()
		write.Close()
		return nil, fmt.Errorf("make log pipe: %w", err)
	}
	o := &output{read: read, write: write, deliver: deliver, raw: raw, done: make(chan struct{}), buffer: make([]byte, 16<<10),
		tokens: logBurstBytes, refilled: time.Now()}
	go o.collect()
	return o, nil
}

// collect reads until the pipe is closed. It sleeps in the poller and takes the mutex for each read.
func (o *output) collect() {
	defer close(o.done)
	for {
		open := true
		err := o.raw.Read(func(fd uintptr) bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			for i := range intakeReads {
				n, err := o.readOnce(fd)
				if err == syscall.EAGAIN {
					return i > 0
				}
				if open = n > 0; !open {
					break
				}
			}
			return true
		})
		if err != nil || !open {
			return
		}
		o.flush()
		time.Sleep(intakePause)
	}
}

// readOnce takes what one read yields. The caller holds mu.
func (o *output) readOnce(fd uintptr) (int, error) {
	for {
		n, err := syscall.Read(int(fd), o.buffer)
		if err == syscall.EINTR {
			continue
		}
		if n > 0 {
			o.consume(o.buffer[:n])
		}
		return n, err
	}
}

// drain takes everything that was written before it was called.
func (o *output) drain() {
	o.raw.Control(func(fd uintptr) {
		o.mu.Lock()
		defer o.mu.Unlock()
		for range 64 { // at most the pipe's capacity and what is written meanwhile
			if n, err := o.readOnce(fd); n <= 0 || err != nil {
				break
			}
		}
		if len(o.partial) > 0 { // a last line without its end still belongs to this invocation
			o.tokens -= len(o.partial) + lineCostBytes
			o.add(append(o.partial, '\n'))
			o.partial = o.partial[:0]
		}
		o.tellLoss()
	})
}

// admit counts what the environment may log and says whether it may log now. The caller holds mu.
func (o *output) admit() bool {
	now := time.Now()
	if passed := now.Sub(o.refilled); passed > 0 {
		o.tokens = min(o.tokens+int(passed.Seconds()*logBytesPerSecond), logBurstBytes)
	}
	o.refilled = now
	if o.flooded {
		o.flooded = o.tokens < logResumeBytes
	} else {
		o.flooded = o.tokens <= 0
	}
	return !o.flooded
}

// drop forgets b, but for what the caller wants of the log's end. The caller holds mu.
func (o *output) drop(b []byte) {
	o.lostBytes += len(o.partial) + len(b)
	o.lostLines += bytes.Count(b, []byte{'\n'})
	o.partial = o.partial[:0]
	o.midLine = b[len(b)-1] != '\n'
	o.keepLast(b)
}

// tellLoss puts a line where others are missing. The caller holds mu.
func (o *output) tellLoss() {
	if o.lostBytes > 0 {
		o.add(fmt.Appendf(nil, "[cloister] %d log lines, %d bytes, were dropped here: more than %d bytes a second\n", o.lostLines, o.lostBytes, logBytesPerSecond))
		o.lostLines, o.lostBytes = 0, 0
	}
}

// consume cuts b, which is not empty, into lines, or drops it. The caller holds mu.
func (o *output) consume(b []byte) {
	if !o.admit() {
		o.drop(b)
		return
	}
	if o.midLine {
		end := bytes.IndexByte(b, '\n') + 1
		if end == 0 {
			o.drop(b)
			return
		}
		o.drop(b[:end])
		b = b[end:]
	}
	o.tellLoss()
	for len(b) > 0 {
		if o.tokens <= 0 {
			o.flooded = true
			o.drop(b)
			return
		}
		end := bytes.IndexByte(b, '\n') + 1
		if end == 0 {
			end = min(len(b), maxLineBytes-len(o.partial))
			o.partial = append(o.partial, b[:end]...)
			if len(o.partial) < maxLineBytes {
				return
			}
		} else {
			end = min(end, maxLineBytes-len(o.partial))
			o.partial = append(o.partial, b[:end]...)
		}
		o.tokens -= len(o.partial) + lineCostBytes
		o.add(o.partial)
		o.partial = o.partial[:0]
		b = b[end:]
	}
}

// platform adds a line of the platform's own, after what the function has written so far.
func (o *output) platform(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.add([]byte(line))
}

// add makes an event of line. The caller holds mu.
func (o *output) add(line []byte) {
	o.keepLast(line)
	o.batch = append(o.batch, lambda.LogEvent{Time: time.Now(), Message: string(line)})
	if len(o.batch) >= maxBatchEvents {
		o.flushLocked()
	}
}

// keepLast remembers the end of the log, if it is wanted. The caller holds mu.
func (o *output) keepLast(b []byte) {
	if !o.wanted {
		return
	}
	o.last = append(o.last, b[max(0, len(b)-lambda.LogTailBytes):]...)
	if over := len(o.last) - lambda.LogTailBytes; over > 0 {
		o.last = append(o.last[:0], o.last[over:]...)
	}
}

// flush hands the collected events on.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked()
}

func (o *output) flushLocked() {
	if len(o.batch) == 0 {
		return
	}
	o.deliver(o.batch)
	o.batch = nil
}

// begin starts the log of one invocation.
func (o *output) begin(tail bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted = tail
	o.last = o.last[:0]
}

// tail returns the end of the log since begin.
func (o *output) tail() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.last)
}

// close takes what is left and ends collecting, even if a process that inherited the pipe still lives.
func (o *output) close() {
	o.drain()
	o.write.Close()
	o.read.Close()
	<-o.done
	o.flush()
}
