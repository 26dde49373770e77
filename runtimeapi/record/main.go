// Command record plays the sequences of internal/script against AWS's
// runtime-interface-emulator and writes its answers as the table that the tests of package
// runtimeapi compare ours with.
//
//	record -emulator /path/to/aws-lambda-rie -commit 0123… -out testdata/emulator.json
//
// It needs the emulator's binary, which is no part of this repository, and listens on loopback
// only. It is run by hand when the sequences change or a new emulator is out, never by the tests.
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"cloister/runtimeapi/internal/script"
)

// settle is how long the emulator gets to notice a request that it does not answer yet.
const settle = 200 * time.Millisecond

func main() {
	binary := flag.String("emulator", "", "path of the emulator's binary")
	commit := flag.String("commit", "", "commit of the emulator's source; needed if the binary does not tell")
	out := flag.String("out", "testdata/emulator.json", "the table to write")
	bootstrap := flag.Bool("bootstrap", false, "play the process that the emulator starts: do nothing until it is gone")
	flag.Parse()
	if *bootstrap {
		for parent := os.Getppid(); os.Getppid() == parent; {
			time.Sleep(settle)
		}
		return
	}
	if *commit == "" {
		*commit = commitOf(*binary)
	}
	if *binary == "" || len(*commit) != 40 {
		fmt.Fprintln(os.Stderr, "record: -emulator is needed, and -commit (40 hexadecimal digits) if the binary does not tell it")
		os.Exit(2)
	}
	if err := record(*binary, *commit, *out); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

// commitOf reads the commit that the Go tool may have noted in a binary.
func commitOf(binary string) string {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return ""
}

func record(binary, commit, out string) error {
	table := script.Table{Commit: commit, Sequences: make(map[string][]script.Reply)}
	for _, sequence := range script.Sequences() {
		e, err := startEmulator(binary)
		if err != nil {
			return err
		}
		replies, err := script.Play(e, sequence)
		e.stop()
		if err != nil {
			return err
		}
		fmt.Printf("%3d replies  %s\n", len(replies), sequence.Name)
		table.Sequences[sequence.Name] = replies
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "\t")
	if err := encoder.Encode(table); err != nil {
		return err
	}
	return os.WriteFile(out, text.Bytes(), 0o644)
}

// An emulator is one running process of it, which has one environment.
type emulator struct {
	command        *exec.Cmd
	runtimeAddress string
	invokeAddress  string
}

func startEmulator(binary string) (*emulator, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e := new(emulator)
	if e.runtimeAddress, err = freeAddress(); err != nil {
		return nil, err
	}
	if e.invokeAddress, err = freeAddress(); err != nil {
		return nil, err
	}
	e.command = exec.Command(binary, "--log-level", "error", "--runtime-api-address", e.runtimeAddress,
		"--runtime-interface-emulator-address", e.invokeAddress, self, "-bootstrap")
	e.command.Stderr = os.Stderr
	if err := e.command.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if conn, err := net.Dial("tcp", e.runtimeAddress); err == nil {
			conn.Close()
			if conn, err = net.Dial("tcp", e.invokeAddress); err == nil {
				conn.Close()
				return e, nil
			}
		}
		time.Sleep(settle / 10)
	}
	e.stop()
	return nil, errors.New("the emulator does not listen")
}

func (e *emulator) stop() {
	e.command.Process.Kill()
	e.command.Wait()
}

// Address is part of script.Target.
func (e *emulator) Address() string { return e.runtimeAddress }

// Parked is part of script.Target.
func (e *emulator) Parked(int) { time.Sleep(settle) }

// Invoke is part of script.Target. It gives the emulator time to start the runtime, so that the
// next request does not come too early.
func (e *emulator) Invoke(payload []byte, clientContext string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		request, err := http.NewRequest(http.MethodPost, "http://"+e.invokeAddress+"/2015-03-31/functions/function/invocations", bytes.NewReader(payload))
		if err != nil {
			answer <- err.Error()
			return
		}
		request.Header.Set("X-Amz-Client-Context", base64.StdEncoding.EncodeToString([]byte(clientContext)))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		content, err := io.ReadAll(response.Body)
		if err != nil {
			content = []byte(err.Error())
		}
		answer <- string(content)
	}()
	time.Sleep(settle)
	return answer
}

// freeAddress returns a loopback address that was free a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
