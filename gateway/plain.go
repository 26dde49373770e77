package gateway

import (
	"bytes"
	"net/http"
)

// notPlain are the headers that change how a request or its connection is read, or whose handling by net/http
// is more than passing them on.
var notPlain = map[string]bool{
	"Connection": true, "Expect": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Http2-Settings": true, "Pragma": true,
}

// plainMethods are those of AWS's operations. HEAD has answers without a body.
var plainMethods = map[string]bool{http.MethodGet: true, http.MethodPost: true, http.MethodPut: true, http.MethodDelete: true, http.MethodPatch: true}

// plainHead says whether the lines of head, each of which ends with CRLF, are a request that cannot be read in two
// ways. It refuses much that is allowed: what it refuses is net/http's to judge.
func plainHead(head []byte) bool {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !plainRequestLine(line) {
		return false
	}
	hosts, lengths := 0, 0
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte(": "))
		if !found || !plainName(name) || !plainValue(value) {
			return false
		}
		switch key := http.CanonicalHeaderKey(string(name)); {
		case key == "Connection" && string(value) == "keep-alive": // what Python's client says
		case notPlain[key]:
			return false
		case key == "Host":
			if hosts++; !plainHost(value) {
				return false
			}
		case key == "Content-Length":
			if lengths++; !plainLength(value) {
				return false
			}
		}
	}
	return hosts == 1 && lengths <= 1
}

// plainRequestLine wants METHOD /path HTTP/1.1 with single spaces.
func plainRequestLine(line []byte) bool {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, _ := bytes.Cut(rest, []byte(" "))
	if !plainMethods[string(method)] || string(version) != "HTTP/1.1" || len(target) == 0 || target[0] != '/' {
		return false
	}
	for i, c := range target {
		if c <= ' ' || c >= 0x7f || c == '#' || c == '%' && !escaped(target[i+1:]) {
			return false
		}
	}
	return !bytes.HasPrefix(target, []byte("//"))
}

// escaped says whether two hexadecimal digits follow a percent sign.
func escaped(rest []byte) bool {
	if len(rest) < 2 {
		return false
	}
	for _, c := range rest[:2] {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return true
}

func plainName(name []byte) bool {
	for _, c := range name {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return len(name) > 0
}

func plainValue(value []byte) bool {
	for _, c := range value {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return len(value) > 0 && value[0] != ' ' && value[len(value)-1] != ' '
}

// plainHost wants a name or an address, with or without a port.
func plainHost(value []byte) bool {
	for _, c := range value {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == ':' || c == '[' || c == ']') {
			return false
		}
	}
	return true
}

func plainLength(value []byte) bool {
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(value) <= 12
}
