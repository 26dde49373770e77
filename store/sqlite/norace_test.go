//go:build !race

package sqlite

const powerCuts = 2000
