package gateway

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A record writer speaks TLS 1.3 with AES-128-GCM by hand, because crypto/tls sends no key updates (RFC 8446, 4.6.3).
type recordWriter struct {
	out      bytes.Buffer
	secret   []byte
	sequence uint64
}

func (w *recordWriter) expand(t *testing.T, label string, n int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label+"\x00"...)
	b, err := hkdf.Expand(sha256.New, w.secret, string(info), n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *recordWriter) write(t *testing.T, kind byte, content ...byte) {
	t.Helper()
	block, err := aes.NewCipher(w.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	sealing, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain := append(content[:len(content):len(content)], kind)
	head := []byte{23, 3, 3, 0, byte(len(plain) + sealing.Overhead())}
	nonce := w.expand(t, "iv", 12)
	nonce[11] ^= byte(w.sequence)
	w.sequence++
	w.out.Write(head)
	w.out.Write(sealing.Seal(nil, nonce, plain, head))
}

// update asks the peer for a key update of its own, which it must answer, and changes the key.
func (w *recordWriter) update(t *testing.T) {
	t.Helper()
	w.write(t, 22, 24, 0, 0, 1, 1)
	w.secret, w.sequence = w.expand(t, "traffic upd", 32), 0
}

// A server answers key updates while it reads. A client that asks for many and reads nothing must not
// hold it in such a write.
func TestAClientThatOnlyAsksForNewKeysIsLeft(t *testing.T) {
	h := openHouse(t, func(c *Config) { c.HeaderTimeout, c.IdleTimeout = time.Second, 300*time.Millisecond })
	probe, err := h.client.Transport.(*http.Transport).DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.RemoteAddr().String()
	probe.Close()
	small := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { // so that answers soon find no room
		return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4608) })
	}}
	raw, err := small.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var keys bytes.Buffer
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys, MinVersion: tls.VersionTLS13})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("the test does not speak %s", tls.CipherSuiteName(c.ConnectionState().CipherSuite))
	}
	w := new(recordWriter)
	for line := range strings.Lines(keys.String()) {
		var label, random, secret string
		if fmt.Sscan(line, &label, &random, &secret); label == "CLIENT_TRAFFIC_SECRET_0" {
			w.secret, _ = hex.DecodeString(secret)
		}
	}
	began := time.Now()
	raw.SetWriteDeadline(began.Add(15 * time.Second))
	for err = nil; err == nil; {
		for range 13 { // of 16 in a row crypto/tls makes an end itself
			w.update(t)
		}
		w.write(t, 23, 'A')
		_, err = raw.Write(w.out.Bytes())
		w.out.Reset()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is held %s after the first key update", time.Since(began))
	}
	deadline := time.Now().Add(10 * time.Second)
	for left := -1; left != 0; time.Sleep(20 * time.Millisecond) {
		h.Server.lane.mu.Lock()
		left = len(h.Server.lane.tracks)
		h.Server.lane.mu.Unlock()
		if left != 0 && time.Now().After(deadline) {
			t.Fatalf("%d connections are held %s after the first key update", left, time.Since(began))
		}
	}
}
