package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"time"

	"cloister/test/bench/floor"
)

// floorCommand as the first argument makes this program a floor instead of the benchmark. The floor gets a
// process of its own, as every service has one: sharing a scheduler with its load would save it the
// kernel's wake-ups that all others pay.
const floorCommand = "serve-floor"

// serveFloor prints the addresses of a floor and serves until standard input ends.
func serveFloor() error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	f, err := floor.Start(certificate)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println(f.Clients.Addr(), f.RuntimeAPI.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// plainFloor is a floor with the runtimes of one subject as plain processes.
type plainFloor struct {
	name       string
	clients    string // address
	runtimeAPI string // address
	server     *exec.Cmd
	stdin      io.Closer
	runtimes   []*exec.Cmd
}

func startFloorProcess(name string) (*plainFloor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &plainFloor{name: "floor " + name, server: exec.Command(self, floorCommand)}
	p.server.Stderr = os.Stderr
	if p.stdin, err = p.server.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.server.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &p.clients, &p.runtimeAPI)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("floor said %q: %w", strings.TrimSpace(line), err)
	}
	return p, nil
}

// startFloor starts a floor and so many environments of the subject's runtime.
func (s *subject) startFloor(folder string, environments int) (*plainFloor, error) {
	p, err := startFloorProcess(s.name)
	if err != nil {
		return nil, err
	}
	for range environments {
		process, err := s.start(p.runtimeAPI, folder)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.runtimes = append(p.runtimes, process)
	}
	return p, nil
}

func (p *plainFloor) target() *target {
	request := fmt.Sprintf("POST /invoke HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", p.clients, len(event), event)
	return &target{name: p.name, address: p.clients, tls: &tls.Config{InsecureSkipVerify: true}, request: []byte(request), event: event, pids: []int{p.server.Process.Pid}}
}

func (p *plainFloor) close() error {
	for _, process := range p.runtimes {
		process.Process.Kill()
		process.Wait()
	}
	p.stdin.Close()
	return p.server.Wait()
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
