//go:build race

package artifact

// overhead of the race detector, by which bounds of memory and time grow.
const overhead = 10
