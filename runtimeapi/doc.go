// Package runtimeapi is the HTTP server of one execution environment: the Lambda Runtime API,
// version 2018-06-01, through which the runtime inside fetches events and posts answers.
//
// The worker makes one Server per environment, lets it Serve the listener inside the sandbox's
// network namespace and speaks to the runtime through AwaitInit, Invoke, AwaitIdle and Reset.
// The package is not the Extensions, Telemetry or Logs API, keeps no clock and no deadline of
// its own (the worker's contexts end a wait), and knows nothing of processes: that one has
// exited is told to it by Reset.
//
// It holds its own HTTP/1.1 reader and writer instead of net/http's because every warm
// invocation passes here twice: one read buffer per connection, one write per answer, and an
// event that is written to the waiting connection by the goroutine that called Invoke.
//
// Invariants: at most one event is in the runtime's hands; an event has at most one answer; a
// connection made before Reset never acts on what comes after it; no lock is held while
// waiting for a connection.
//
// What an attacker controls: every byte that arrives, how fast, on how many connections, and
// when those break. All of it is tenant code. What it can reach is bounded: Config.Connections
// connections, 4 KiB for each idle one and up to smallHeaderBytes for one in the middle of a
// head, a single larger head at a time, and a single body being kept at a time, of at most
// lambda.MaxResponseBytes, whose memory grows with the bytes that came and not with those announced. A slow client is bounded only by
// the environment's life: it keeps its own connection waiting and nothing else. The work of a
// request is proportional to its bytes, which cost the sender's CPU share as well.
//
// The answers are those of AWS's runtime-interface-emulator; testdata/emulator.json holds a
// recording, and the sequences in internal/script name each deliberate difference.
package runtimeapi
