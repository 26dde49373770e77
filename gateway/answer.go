package gateway

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// A laneWriter is the http.ResponseWriter of the lane. A large answer that announces its length is written as it comes,
// any other is kept until the call is over and logged.
type laneWriter struct {
	stream *tls.Conn
	header http.Header
	status int
	head   bool  // the head has been written, or written into body
	err    error // of the first write that failed
	kept   []byte
}

// answers holds buffers in which an answer is put together, so that it leaves in one record.
var answers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// smallAnswerBytes is the size up to which a body is copied behind its head.
const smallAnswerBytes = 12 << 10

// Header implements http.ResponseWriter.
func (w *laneWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *laneWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *laneWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !w.head && (w.header["Content-Length"] == nil || len(w.kept)+len(b) <= smallAnswerBytes) {
		w.kept = append(w.kept, b...)
		return len(b), nil
	}
	if len(w.kept) > 0 {
		w.send(w.kept)
		w.kept = nil
	}
	w.send(b)
	return len(b), w.err
}

// send writes b, behind the head if that has not been written yet.
func (w *laneWriter) send(b []byte) {
	if w.err != nil {
		return
	}
	if w.head {
		_, w.err = w.stream.Write(b)
		return
	}
	w.head = true
	buffer := answers.Get().(*bytes.Buffer)
	defer answers.Put(buffer)
	buffer.Reset()
	w.writeHead(buffer)
	if len(b) <= smallAnswerBytes {
		buffer.Write(b)
		b = nil
	}
	if _, w.err = w.stream.Write(buffer.Bytes()); w.err == nil && len(b) > 0 {
		_, w.err = w.stream.Write(b)
	}
}

func (w *laneWriter) writeHead(buffer *bytes.Buffer) {
	buffer.WriteString("HTTP/1.1 ")
	buffer.Write(strconv.AppendInt(buffer.AvailableBuffer(), int64(w.status), 10))
	buffer.WriteByte(' ')
	buffer.WriteString(http.StatusText(w.status))
	buffer.WriteString("\r\nDate: ")
	buffer.Write(time.Now().UTC().AppendFormat(buffer.AvailableBuffer(), http.TimeFormat))
	buffer.WriteString("\r\n")
	w.header.Write(buffer) // takes line breaks out of values; a bytes.Buffer does not fail
	buffer.WriteString("\r\n")
}

// finish writes what is left.
func (w *laneWriter) finish() error {
	w.WriteHeader(http.StatusOK)
	if !w.head {
		if w.header["Content-Length"] == nil && w.status != http.StatusNoContent {
			w.header.Set("Content-Length", strconv.Itoa(len(w.kept)))
		}
		w.send(w.kept)
	}
	return w.err
}

// FlushError sends what has been written so far; see http.ResponseController.
func (w *laneWriter) FlushError() error { return w.finish() }

// SetReadDeadline is for http.ResponseController.
func (w *laneWriter) SetReadDeadline(t time.Time) error { return w.stream.SetReadDeadline(t) }

// SetWriteDeadline is for http.ResponseController.
func (w *laneWriter) SetWriteDeadline(t time.Time) error { return w.stream.SetWriteDeadline(t) }
