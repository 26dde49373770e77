// Command hostile is a function that misbehaves as its event, or a variable, tells it to: it exits, hangs,
// forks, floods, fills, and speaks to the Runtime API as nobody should. The system tests and the
// benchmark of neighbours invoke it. It uses no runtime client, because it needs to break every rule
// that one keeps.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// An event says what to do.
type event struct {
	Do           string
	N            int             // how much or how often, in the mode's own unit
	Milliseconds int             // for how long
	Value        json.RawMessage // to be answered by "echo"
}

// An invocation is one event in the hands of a mode.
type invocation struct {
	event
	api *client
	id  string
}

// A mode does one kind of harm and returns the answer; nothing is sent if it is silence.
type mode func(*invocation) any

type nothing struct{}

// silence is the answer of a mode that has answered itself, or never will.
var silence = nothing{}

var modes = map[string]mode{
	"echo": func(i *invocation) any { return i.Value },
	"exit": func(i *invocation) any { os.Exit(i.N); return silence },
	"hang": func(*invocation) any { return forever() },

	// Resources of the sandbox.
	"kill": killSelf, "signals": signals, "score": outOfMemoryScore,
	"forks": forks, "processes": processes, "memory": memory, "files": files,
	"fill": fill, "inodes": inodes, "clean": clean, "churn": churn,
	"burn": burn, "spin": spin, "background": background, "ticks": ticks,

	// Output.
	"bytes": bytesOut, "lines": linesOut, "newlines": newlinesOut, "endless line": endlessLine, "binary": binaryOut,

	// The Runtime API, and the way to the gateway.
	"size": size, "answer and exit": answerAndExit, "close": closeEarly, "half": half, "half and hang": halfAndHang, "half and die": halfAndDie,
	"garbage": garbage, "ids": wrongIDs, "twice": twice, "pipelined": pipelined, "announced": announced, "endless chunks": endlessChunks, "tiny chunks": tinyChunks,
	"connections": connections, "hammer": hammer, "reconnect": reconnect, "dial": dial,
}

func main() {
	if len(os.Args) > 1 {
		child(os.Args[1])
	}
	switch os.Getenv("HOSTILE_INIT") {
	case "exit":
		os.Exit(0)
	case "hang":
		forever()
	}
	api := newClient()
	for {
		id, body, err := api.next()
		if err != nil {
			fmt.Fprintln(os.Stderr, "hostile: next:", err)
			os.Exit(9)
		}
		i := &invocation{api: api, id: id}
		if err := json.Unmarshal(body, &i.event); err != nil {
			fmt.Fprintln(os.Stderr, "hostile: event:", err)
			os.Exit(9)
		}
		do, ok := modes[i.Do]
		if !ok {
			fmt.Fprintf(os.Stderr, "hostile: no mode %q\n", i.Do)
			os.Exit(9)
		}
		if answer := do(i); answer != silence {
			i.answer(answer)
		}
	}
}

// answer sends an answer of the mode's.
func (i *invocation) answer(answer any) {
	body, err := json.Marshal(answer)
	if err == nil {
		_, err = i.api.post(i.id, "response", body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile: answer:", err)
	}
}

func (i *invocation) duration() time.Duration {
	return time.Duration(i.Milliseconds) * time.Millisecond
}

func forever() any {
	for {
		time.Sleep(time.Hour)
	}
}
