//go:build !race

package artifact

const overhead = 1
