package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// A client speaks to the Runtime API over one connection that it can break at will.
type client struct {
	address string
	conn    net.Conn
	reader  *bufio.Reader
}

func newClient() *client {
	c := &client{address: os.Getenv("AWS_LAMBDA_RUNTIME_API")}
	c.dial()
	return c
}

// dial opens the connection anew.
func (c *client) dial() {
	if c.conn != nil {
		c.conn.Close()
	}
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile: dial:", err)
		os.Exit(9)
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
}

// next asks for an event.
func (c *client) next() (id string, body []byte, err error) {
	r, body, err := c.exchange("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: a\r\n\r\n")
	if err != nil {
		return "", nil, err
	}
	if r.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("status %d: %s", r.StatusCode, body)
	}
	return r.Header.Get("Lambda-Runtime-Aws-Request-Id"), body, nil
}

// post sends an answer or an error and returns the status.
func (c *client) post(id, action string, body []byte) (int, error) {
	r, _, err := c.exchange(head(id, action, len(body)) + string(body))
	if err != nil {
		return 0, err
	}
	return r.StatusCode, nil
}

func head(id, action string, length int) string {
	return fmt.Sprintf("POST /2018-06-01/runtime/invocation/%s/%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", id, action, length)
}

// exchange sends text and reads one answer. The connection is opened anew if the server ends it.
func (c *client) exchange(text string) (*http.Response, []byte, error) {
	if _, err := io.WriteString(c.conn, text); err != nil {
		return nil, nil, err
	}
	return c.receive()
}

func (c *client) receive() (*http.Response, []byte, error) {
	r, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r.Body)
	if r.Close {
		c.dial()
	}
	return r, body, err
}

// size answers with a JSON string of N bytes.
func size(i *invocation) any { return strings.Repeat("x", i.N-2) }

func answerAndExit(i *invocation) any {
	i.answer("answered")
	os.Exit(i.N)
	return silence
}

// closeEarly drops the connection over which the event came and asks for it again.
func closeEarly(i *invocation) any {
	i.api.dial()
	id, _, err := i.api.next()
	if err != nil || id != i.id {
		return fmt.Sprint("asked again and got ", id, err)
	}
	return "asked again"
}

// sendHalf begins an answer.
func (i *invocation) sendHalf() {
	const length = 1 << 20
	io.WriteString(i.api.conn, head(i.id, "response", length)+strings.Repeat("x", length/2))
}

// half begins an answer, drops the connection, and answers whole on another one.
func half(i *invocation) any {
	i.sendHalf()
	i.api.dial()
	time.Sleep(20 * time.Millisecond) // the server notices first
	return "whole"
}

func halfAndHang(i *invocation) any {
	i.sendHalf()
	i.api.conn.Close()
	return forever()
}

func halfAndDie(i *invocation) any {
	i.sendHalf()
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	return forever()
}

// garbage sends what is no request, each on a connection of its own, and answers with what came back.
func garbage(i *invocation) any {
	const ping = "GET /2018-06-01/ping HTTP/1.1\r\n"
	var statuses []int
	for _, text := range []string{
		"\x00\xff\xfe garbage\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"GET\r\n\r\n",
		ping + "\r\n",
		ping + "Host: a\r\nNul: \x00\r\n\r\n",
		ping + "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		ping + "Host: a\r\nLarge: " + strings.Repeat("x", 2<<20) + "\r\n\r\n",
		ping + "Host: a\r\n" + strings.Repeat("A: b\r\n", 1000) + "\r\n",
		"GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /2018-06-01/runtime/invocation/" + i.id + "/response HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET /2018-06-01/runtime/invocation/../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		statuses = append(statuses, ask(i.api.address, text))
	}
	return statuses
}

// ask sends text on a new connection and returns the status of the answer, or 0.
func ask(address, text string) int {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0
	}
	defer conn.Close()
	go io.WriteString(conn, text)
	conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	return r.StatusCode
}

// wrongIDs answers other events than the one it has, with ids that the event may name.
func wrongIDs(i *invocation) any {
	var statuses []int
	for _, id := range []string{"", "x", "00000000-0000-0000-0000-000000000000", i.id + "0", strings.ToUpper(i.id), i.id[:35], "%00", "..", strings.Repeat("9", 4000), strings.Trim(string(i.Value), `"`)} {
		status, err := i.api.post(id, "response", []byte(`"not yours"`))
		if err != nil {
			i.api.dial()
		}
		statuses = append(statuses, status)
	}
	return statuses
}

// twice answers, and then again in two ways; the log tells what came of it.
func twice(i *invocation) any {
	for _, action := range []string{"response", "response", "error"} {
		status, err := i.api.post(i.id, action, []byte(`"`+action+`"`))
		fmt.Println(action, status, err)
	}
	return silence
}

// pipelined sends junk right behind its answer.
func pipelined(i *invocation) any {
	body := `"answered"`
	io.WriteString(i.api.conn, head(i.id, "response", len(body))+body+strings.Repeat("junk\r\n\r\n", 1000))
	for {
		r, _, err := i.api.receive()
		if err != nil {
			i.api.dial()
			return silence
		}
		fmt.Println("status", r.StatusCode)
		if r.Close {
			return silence
		}
	}
}

// announced says that a petabyte follows.
func announced(i *invocation) any {
	r, _, err := i.api.exchange(head(i.id, "response", 1<<50) + "x")
	if err != nil {
		i.api.dial()
		return silence
	}
	fmt.Println("status", r.StatusCode)
	return silence
}

// endlessChunks sends large chunks until it is stopped.
func endlessChunks(i *invocation) any {
	return i.chunks(fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10)))
}

// tinyChunks sends chunks of a byte until it is stopped.
func tinyChunks(i *invocation) any { return i.chunks(strings.Repeat("1\r\nx\r\n", 10000)) }

func (i *invocation) chunks(piece string) any {
	io.WriteString(i.api.conn, "POST /2018-06-01/runtime/invocation/"+i.id+"/response HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func(conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
	}(i.api.conn)
	r, _, err := i.api.receive()
	i.api.dial()
	if err == nil {
		fmt.Println("status", r.StatusCode)
	}
	return silence
}
