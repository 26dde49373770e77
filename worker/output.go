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
	o := &output{read: read, write: write, deliver: deliver, raw: raw, done: make(chan struct{}), buffer: make([]byte, 16<<10)}
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
			n, err := o.readOnce(fd)
			open = n > 0 || err == syscall.EAGAIN
			return err != syscall.EAGAIN
		})
		if err != nil || !open {
			return
		}
		o.flush()
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
			o.add(append(o.partial, '\n'))
			o.partial = o.partial[:0]
		}
	})
}

// consume cuts b into lines. The caller holds mu.
func (o *output) consume(b []byte) {
	for len(b) > 0 {
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
	if o.wanted {
		o.last = append(o.last, line...)
		if over := len(o.last) - lambda.LogTailBytes; over > 0 {
			o.last = append(o.last[:0], o.last[over:]...)
		}
	}
	o.batch = append(o.batch, lambda.LogEvent{Time: time.Now(), Message: string(line)})
	if len(o.batch) >= maxBatchEvents {
		o.flushLocked()
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
