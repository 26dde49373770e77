package logs

import "time"

// A bucket is a token bucket of bytes. Its group's mutex guards it.
type bucket struct {
	tokens float64
	last   time.Time // of the newest refill; zero before the first use, when the bucket is full
}

// fill adds what has flowed in since the last call.
func (b *bucket) fill(now time.Time, rate, burst int64) {
	if b.last.IsZero() {
		b.tokens = float64(burst)
	} else if passed := now.Sub(b.last); passed > 0 {
		b.tokens = min(float64(burst), b.tokens+passed.Seconds()*float64(rate))
	}
	b.last = now
}

// take takes n bytes from each bucket, or from none if one of them has fewer. An event that is
// longer than a whole bucket passes when the bucket is full.
func takeAll(n, burst int64, buckets ...*bucket) bool {
	need := float64(min(n, burst))
	for _, b := range buckets {
		if b.tokens < need {
			return false
		}
	}
	for _, b := range buckets {
		b.tokens -= float64(n)
	}
	return true
}
