//go:build !amd64

package main

func machineAttempts(uintptr) []attempt { return nil }
