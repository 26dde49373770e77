package main

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

// emit writes a block to standard output N times, or for a time if there is one, and answers with the bytes
// that it got rid of.
func (i *invocation) emit(block []byte) any {
	written := 0
	end := time.Now().Add(i.duration())
	for count := 0; i.Milliseconds > 0 || count < i.N; count++ {
		n, err := os.Stdout.Write(block)
		written += n
		if err != nil || i.Milliseconds > 0 && time.Now().After(end) {
			break
		}
	}
	return written
}

const blockBytes = 64 << 10

// bytesOut writes lines of 1 KiB, N blocks of 64 KiB of them.
func bytesOut(i *invocation) any {
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	return i.emit(bytes.Repeat(line, blockBytes/len(line)))
}

// linesOut writes N lines, each with a system call of its own.
func linesOut(i *invocation) any { return i.emit([]byte("a line\n")) }

// newlinesOut writes blocks of nothing but empty lines: the most work for each byte.
func newlinesOut(i *invocation) any { return i.emit(bytes.Repeat([]byte("\n"), blockBytes)) }

// endlessLine writes blocks without an end of line.
func endlessLine(i *invocation) any { return i.emit(bytes.Repeat([]byte("x"), blockBytes)) }

// binaryOut writes blocks of random bytes.
func binaryOut(i *invocation) any {
	block := make([]byte, blockBytes)
	for at := range block {
		block[at] = byte(rand.Uint32())
	}
	return i.emit(block)
}

const pingRequest = "GET /2018-06-01/ping HTTP/1.1\r\nHost: a\r\n\r\n"

// connections opens N connections to the Runtime API and the gateway, keeps them, and answers how many
// were served.
func connections(i *invocation) any {
	served := map[string]int{}
	for range i.N {
		conn, err := net.Dial("tcp", i.api.address)
		if err != nil {
			continue
		}
		conn.Write([]byte(pingRequest))
		conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, _ := conn.Read(make([]byte, 512)); n > 0 {
			served["runtime API"]++
		}
		kept = append(kept, conn)
	}
	for range i.N {
		if conn, err := net.Dial("tcp", gateway()); err == nil {
			conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := conn.Read(make([]byte, 1)); os.IsTimeout(err) {
				served["gateway"]++ // it waits for us
			}
			kept = append(kept, conn)
		}
	}
	return served
}

var kept []net.Conn

// gateway is where the environment's way back begins.
func gateway() string {
	address := os.Getenv("AWS_ENDPOINT_URL")
	return address[len("https://"):]
}

// hammer sends requests that need no event as fast as they are answered, over N connections for a time.
func hammer(i *invocation) any {
	return i.parallel(func() int {
		conn, err := net.Dial("tcp", i.api.address)
		if err != nil {
			return 0
		}
		defer conn.Close()
		batch := bytes.Repeat([]byte(pingRequest), 100)
		answers := make([]byte, 64<<10)
		sent := 0
		for end := time.Now().Add(i.duration()); time.Now().Before(end); sent += 100 {
			if _, err := conn.Write(batch); err != nil {
				break
			}
			if _, err := conn.Read(answers); err != nil {
				break
			}
		}
		return sent
	})
}

// reconnect opens and drops connections to the Runtime API as fast as it can.
func reconnect(i *invocation) any { return i.parallel(func() int { return i.redial(i.api.address) }) }

// dial opens and drops connections to the gateway as fast as it can.
func dial(i *invocation) any { return i.parallel(func() int { return i.redial(gateway()) }) }

func (i *invocation) redial(address string) (made int) {
	for end := time.Now().Add(i.duration()); time.Now().Before(end); {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		conn.(*net.TCPConn).SetLinger(0) // no address is used up
		conn.Close()
		made++
	}
	return made
}

// parallel adds up what N goroutines did.
func (i *invocation) parallel(do func() int) any {
	counts := make(chan int)
	for range max(i.N, 1) {
		go func() { counts <- do() }()
	}
	sum := 0
	for range max(i.N, 1) {
		sum += <-counts
	}
	return sum
}
