package main

import (
	"testing"
	"time"
)

func TestAProcessIsStartedAtOnceUntilItHasEndedAgainAndAgain(t *testing.T) {
	var p pacing
	now := time.Now()
	for n := range restartsAtOnce {
		if pause := p.next(now); pause != 0 {
			t.Fatalf("start %d waits for %s", n+1, pause)
		}
	}
	for n := range 5 {
		pause := p.next(now)
		if pause != restartInterval {
			t.Fatalf("start %d beyond the limit waits for %s", n+1, pause)
		}
		now = now.Add(pause)
	}
	now = now.Add(3 * restartInterval)
	for range 3 {
		if pause := p.next(now); pause != 0 {
			t.Errorf("after a rest a start waits for %s", pause)
		}
	}
	now = now.Add(time.Hour)
	for range restartsAtOnce {
		if pause := p.next(now); pause != 0 {
			t.Errorf("an hour later a start waits for %s", pause)
		}
	}
	if pause := p.next(now); pause == 0 {
		t.Error("an hour of quiet allows more starts at once than the limit")
	}
}
