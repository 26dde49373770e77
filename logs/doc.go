// Package logs keeps the log lines of functions in groups and streams and answers the part of
// the CloudWatch Logs API that clients need to read them.
//
// It is not the daemon's own log (that is log/slog), computes no metrics and evaluates no
// policy. The worker's lines come in through Store.Append; Server answers API calls that the
// gateway has authenticated and authorised. It runs in the unprivileged front process.
//
// # Life of a log event
//
// Append puts it into its group's memory, where readers see it at once. Within a quarter of
// a second the events of a group are sealed together into one frame and appended to the
// group's newest segment file: now they survive kill -9. Within another second the file is
// synced: now they survive power loss. What was appended in the last quarter of a second before a
// kill is lost; nobody waits for a disk to write a log line. When an account or the
// installation has more bytes than it may, the segments written longest ago are deleted.
//
// # Invariants
//
// Nothing that a tenant wrote is plain on the disk, names included. A frame opens only in
// the place where it was written: its group, segment and offset are bound into the seal. A frame
// that does not open is counted and passed over; it never gives wrong events. Half a frame at
// the end of a group, left by a kill, is cut. Every look-up starts with the account of the
// call. Memory, disk, groups, streams, the work of one read and the number of reads at a time are
// bounded, and what is dropped for that is counted and said in the stream.
//
// An attacker writes any bytes as fast as they can (a function's output), and reads with any
// parameters (the API). One who can write to the disk can delete a segment or cut its end
// unnoticed, but not change, add or move an event.
//
// Lock order: Store.flushing, Store.mu, group.mu; Store.mu and group.mu are never held together.
package logs

import (
	"log/slog"
	"time"

	"cloister/internal/seal"
)

// Limits bound what tenants can make the store do. A zero field has the default that is named
// beside it.
type Limits struct {
	StreamBytesPerSecond int64 // 1 MiB; of message bytes and 26 for each event, as CloudWatch counts
	StreamBurstBytes     int64 // 5 MiB
	GroupBytesPerSecond  int64 // 5 MiB
	GroupBurstBytes      int64 // 10 MiB
	PendingBytes         int64 // 64 MiB; of all events that are not on disk yet
	AccountBytes         int64 // 1 GiB; on disk
	TotalBytes           int64 // 10 GiB; on disk, of the installation
	SegmentBytes         int64 // 4 MiB; what is deleted at a time
	GroupsPerAccount     int   // 10,000
	StreamsPerAccount    int   // 100,000; of the groups in use
}

func (l Limits) withDefaults() Limits {
	for field, value := range map[*int64]int64{
		&l.StreamBytesPerSecond: 1 << 20, &l.StreamBurstBytes: 5 << 20,
		&l.GroupBytesPerSecond: 5 << 20, &l.GroupBurstBytes: 10 << 20,
		&l.PendingBytes: 64 << 20, &l.AccountBytes: 1 << 30, &l.TotalBytes: 10 << 30, &l.SegmentBytes: 4 << 20,
	} {
		if *field == 0 {
			*field = value
		}
	}
	if l.GroupsPerAccount == 0 {
		l.GroupsPerAccount = 10_000
	}
	if l.StreamsPerAccount == 0 {
		l.StreamsPerAccount = 100_000
	}
	return l
}

// Limits that are part of how the store works.
const (
	// MaxEventBytes is the length at which Append splits an event in two, as AWS splits the
	// lines of functions.
	MaxEventBytes = 256 << 10

	eventOverheadBytes = 26 // what CloudWatch adds to each event's length

	flushInterval = 250 * time.Millisecond // from Append to the segment file
	syncInterval  = time.Second            // from there to the disk
	flushBytes    = 64 << 10               // a group with as much is flushed at once
	frameBytes    = 256 << 10              // messages in one frame, unless one alone is longer
	blockBytes    = 64 << 10               // of neighbouring frames that are found and read together

	maxPageEvents     = 10_000
	maxPageBytes      = 1 << 20
	scanBytes         = 64 << 20 // after which a read answers with what it has
	concurrentScans   = 4
	noticeEvery       = time.Second // per stream that loses events
	maxGroupName      = 512
	maxStreamName     = 512
	maxDescribeResult = 50
)

// Config describes a store.
type Config struct {
	Directory string           // made with mode 0700 if it does not exist. One process at a time uses it
	Key       *seal.Key        // for everything in it
	Now       func() time.Time // empty: time.Now
	Logger    *slog.Logger     // empty: slog.Default
	Limits    Limits
}

// Counters are totals since Open.
type Counters struct {
	Dropped uint64 // events that were not stored: over a rate, or the disk failed
	Corrupt uint64 // frames and group descriptions that did not pass their integrity check
	Evicted uint64 // bytes deleted to stay within the bounds
}
