//go:build race

package sqlite

// powerCuts is smaller where everything is ten times slower.
const powerCuts = 160
