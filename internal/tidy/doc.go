// Package tidy holds the rules of this repository that are tests: which package may
// import which, that every package says what it is, how long functions and files may
// grow, and that docs/STATUS.md names tests that exist.
//
// It has no code of its own; "go test ./internal/tidy" runs it over the whole tree.
package tidy
