package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloister/api/lambdaapi"
)

// A smuggler sends one connection's bytes: a request whose end is in doubt or that no client would send, and behind it a
// well-signed invocation of the function "prize". It counts what the service was asked for.
type smuggler struct {
	*house
	echoes, prizes atomic.Int32
}

func newSmuggler(t *testing.T) *smuggler {
	s := &smuggler{house: openHouse(t)}
	s.lambda.invoke = func(_ context.Context, in *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		switch *in.FunctionName {
		case "prize":
			s.prizes.Add(1)
		case "echo":
			s.echoes.Add(1)
		}
		return &lambdaapi.InvocationResponse{StatusCode: new(int32(200)), Payload: in.Payload}, nil
	}
	return s
}

// prize is the request that must not be found.
func (s *smuggler) prize(t *testing.T) string {
	path := strings.Replace(invocationsPath, "echo", "prize", 1)
	return dump(t, s.request(t, http.MethodPost, path, "{}", signing{}), "Content-Length: 2\r\n", "{}")
}

// cover is a signed invocation of "echo" with the payload {} and whatever framing and body. No length is signed.
func (s *smuggler) cover(t *testing.T, framing, body string) string {
	r := s.unsigned(t, http.MethodPost, invocationsPath, "{}")
	r.ContentLength = -1 // some signers sign a length; these requests have none or two
	signing{}.sign(t, r, []byte("{}"))
	return dump(t, r, framing, body)
}

// line replaces the request line of a request.
func line(request, replacement string) string {
	_, rest, _ := strings.Cut(request, "\r\n")
	return replacement + "\r\n" + rest
}

const (
	lengthOfTwo = "Content-Length: 2\r\n"
	inChunks    = "Transfer-Encoding: chunked\r\n"
	oneChunk    = "2\r\n{}\r\n0\r\n\r\n"
)

// A trick is bytes in front of the prize and the status of their one answer.
type trick struct {
	bytes  string
	status int
}

// framings are requests whose end is in doubt. Those answered with 200 are framed as net/http reads them, which RFC 9112
// allows if the connection ends with the answer.
func (s *smuggler) framings(t *testing.T) map[string]trick {
	cover := func(framing, body string) string { return s.cover(t, framing, body) }
	return map[string]trick{
		"CL.TE":                       {cover(lengthOfTwo+inChunks, oneChunk), 200},
		"TE.CL":                       {cover(inChunks+"Content-Length: 400\r\n", oneChunk), 200},
		"CL.TE, length of all":        {cover(fmt.Sprintf("Content-Length: %d\r\n", len(oneChunk)+900)+inChunks, oneChunk), 200},
		"CL.TE, no chunks":            {cover(lengthOfTwo+inChunks, "{}"), 400},
		"chunked":                     {cover(inChunks, oneChunk), 200},
		"chunked in capitals":         {cover("Transfer-Encoding: CHUNKED\r\n", oneChunk), 200},
		"chunked after a tab":         {cover("Transfer-Encoding:\tchunked\r\n", oneChunk), 200},
		"chunked twice":               {cover(inChunks+inChunks, oneChunk), 501},
		"chunked, chunked":            {cover("Transfer-Encoding: chunked, chunked\r\n", oneChunk), 501},
		"chunked, identity":           {cover("Transfer-Encoding: chunked, identity\r\n", oneChunk), 501},
		"gzip, chunked":               {cover("Transfer-Encoding: gzip, chunked\r\n", oneChunk), 501},
		"identity":                    {cover("Transfer-Encoding: identity\r\n", ""), 501},
		"xchunked":                    {cover("Transfer-Encoding: xchunked\r\n", oneChunk), 501},
		"quoted chunked":              {cover("Transfer-Encoding: \"chunked\"\r\n", oneChunk), 501},
		"vertical tab chunked":        {cover("Transfer-Encoding: \x0bchunked\r\n", oneChunk), 400},
		"empty transfer encoding":     {cover("Transfer-Encoding:\r\n"+lengthOfTwo, "{}"), 501},
		"space before the colon":      {cover("Transfer-Encoding : chunked\r\n", oneChunk), 400},
		"tab before the colon":        {cover("Content-Length\t: 2\r\n", "{}"), 400},
		"underscore":                  {cover("Transfer_Encoding: chunked\r\n", oneChunk), 403},
		"two lengths":                 {cover("Content-Length: 2\r\nContent-Length: 4\r\n", "{}"), 400},
		"two lengths, other case":     {cover("Content-Length: 2\r\ncontent-length: 0\r\n", "{}"), 400},
		"list of lengths":             {cover("Content-Length: 2, 2\r\n", "{}"), 400},
		"length with a sign":          {cover("Content-Length: +2\r\n", "{}"), 400},
		"negative length":             {cover("Content-Length: -2\r\n", "{}"), 400},
		"hexadecimal length":          {cover("Content-Length: 0x2\r\n", "{}"), 400},
		"length of 70 bits":           {cover("Content-Length: 1180591620717411303424\r\n", "{}"), 400},
		"empty length":                {cover("Content-Length:\r\n", "{}"), 400},
		"length with an underscore":   {cover("Content-Length: 0_2\r\n", "{}"), 400},
		"length zero before a body":   {cover("Content-Length: 0\r\n", "{}"), 403},
		"no length before a body":     {cover("", "{}"), 403},
		"length up to the prize's":    {cover(fmt.Sprintf("Content-Length: %d\r\n", 2+len(s.prize(t))), "{}"), 403},
		"chunk size not hexadecimal":  {cover(inChunks, "zz\r\n{}\r\n0\r\n\r\n"), 400},
		"chunk size with a sign":      {cover(inChunks, "+2\r\n{}\r\n0\r\n\r\n"), 400},
		"negative chunk size":         {cover(inChunks, "-2\r\n{}\r\n0\r\n\r\n"), 400},
		"chunk size with 0x":          {cover(inChunks, "0x2\r\n{}\r\n0\r\n\r\n"), 400},
		"chunk size of 68 bits":       {cover(inChunks, "10000000000000002\r\n{}\r\n0\r\n\r\n"), 400},
		"chunk longer than its size":  {cover(inChunks, "2\r\n{}x\r\n0\r\n\r\n"), 400},
		"chunk size and bare LF":      {cover(inChunks, "2\n{}\r\n0\r\n\r\n"), 400},
		"chunk and bare LF":           {cover(inChunks, "2\r\n{}\n0\r\n\r\n"), 400},
		"chunk extension":             {cover(inChunks, "2;a=b\r\n{}\r\n0\r\n\r\n"), 200},
		"chunk extension and bare LF": {cover(inChunks, "2;a\nb\r\n{}\r\n0\r\n\r\n"), 400},
		"chunk extension and bare CR": {cover(inChunks, "2;a\rb\r\n{}\r\n0\r\n\r\n"), 400},
		"endless chunk extension":     {cover(inChunks, "2;a="+strings.Repeat("b", 5<<10)+"\r\n{}\r\n0\r\n\r\n"), 400},
		"trailer":                     {cover(inChunks, "2\r\n{}\r\n0\r\nX-Amz-Invocation-Type: DryRun\r\n\r\n"), 200},
		"declared trailer":            {cover(inChunks+"Trailer: X-A\r\n", "2\r\n{}\r\n0\r\nX-A: b\r\n\r\n"), 200},
		"length as a trailer":         {cover(inChunks+"Trailer: Content-Length\r\n", "2\r\n{}\r\n0\r\nContent-Length: 4\r\n\r\n"), 400},
		"malformed trailer":           {cover(inChunks, "2\r\n{}\r\n0\r\nno colon\r\n\r\n"), 400},
		"chunks in HTTP/1.0":          {strings.Replace(cover(inChunks+"Connection: keep-alive\r\n", oneChunk), "HTTP/1.1", "HTTP/1.0", 1), 403},
		"kept alive in HTTP/1.0":      {strings.Replace(cover(lengthOfTwo+"Connection: keep-alive\r\n", "{}"), "HTTP/1.1", "HTTP/1.0", 1), 200},
	}
}

// spellings are requests that servers have read differently.
func (s *smuggler) spellings(t *testing.T) map[string]trick {
	cover := func(header string) string { return s.cover(t, header+lengthOfTwo, "{}") }
	post := "POST " + invocationsPath + " HTTP/1.1"
	return map[string]trick{
		"folded header":             {s.cover(t, "X-Folded: a\r\n Transfer-Encoding: chunked\r\n", ""), 403},
		"first header folded":       {line(cover(""), post+"\r\n X: y"), 400},
		"NUL in a value":            {cover("X-A: b\x00c\r\n"), 400},
		"NUL in a name":             {cover("X-\x00A: b\r\n"), 400},
		"NUL in the path":           {line(cover(""), "POST "+invocationsPath+"\x00 HTTP/1.1"), 400},
		"DEL in a value":            {cover("X-A: b\x7fc\r\n"), 400},
		"bare CR in a value":        {cover("X-A: b\rContent-Length: 0\r\n"), 400},
		"bare CR before the end":    {cover("X-A: b\r\r\n"), 400},
		"bare LF hides a length":    {s.cover(t, "X-A: b\nContent-Length: 0\r\nContent-Length: 2\r\n", "{}"), 400},
		"bare LF hides an encoding": {s.cover(t, "X-A: b\nTransfer-Encoding: chunked\r\n", oneChunk), 200},
		"header without a colon":    {cover("X-A\r\n"), 400},
		"header without a name":     {cover(": b\r\n"), 400},
		"space in a name":           {cover("X A: b\r\n"), 400},
		"parenthesis in a name":     {cover("X-(A): b\r\n"), 400},
		"two hosts":                 {cover("Host: other\r\n"), 400},
		"no host":                   {strings.Replace(cover(""), "Host: "+s.address+"\r\n", "", 1), 400},
		"space in the host":         {strings.Replace(cover(""), "Host: ", "Host: a b", 1), 400},
		"path in the host":          {strings.Replace(cover(""), "Host: ", "Host: a/", 1), 400},
		"user in the host":          {strings.Replace(cover(""), "Host: ", "Host: a@", 1), 400},
		"two spaces":                {line(cover(""), "POST  "+invocationsPath+" HTTP/1.1"), 400},
		"tabs":                      {line(cover(""), "POST\t"+invocationsPath+"\tHTTP/1.1"), 400},
		"more words":                {line(cover(""), post+" HTTP/1.1"), 400},
		"no version":                {"GET /\r\n\r\n", 400},
		"version in lower case":     {line(cover(""), "POST "+invocationsPath+" http/1.1"), 400},
		"version of three digits":   {line(cover(""), "POST "+invocationsPath+" HTTP/1.10"), 400},
		"HTTP/2.0":                  {line(cover(""), "POST "+invocationsPath+" HTTP/2.0"), 505},
		"HTTP/2 preface":            {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403},
		"HTTP/2 frames":             {"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n", 400},
		"TLS in TLS":                {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400},
		"method with a NUL":         {line(cover(""), "PO\x00ST "+invocationsPath+" HTTP/1.1"), 400},
		"method with a bracket":     {line(cover(""), "PO[ST "+invocationsPath+" HTTP/1.1"), 400},
		"absolute form":             {line(cover(""), "POST https://"+s.address+invocationsPath+" HTTP/1.1"), 200},
		"absolute form, other host": {line(cover(""), "POST https://other"+invocationsPath+" HTTP/1.1"), 403},
		"path without a slash":      {line(cover(""), "POST functions HTTP/1.1"), 400},
		"server's options":          {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 403},
		"tunnel":                    {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n", 403},
		"tunnel, signed":            {line(cover(""), "CONNECT "+s.address+" HTTP/1.1"), 403},
		"upgrade to HTTP/2":         {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", 403},
		"upgrade to WebSocket":      {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", 403},
		"unknown expectation":       {cover("Expect: a-miracle\r\n"), 417},
		"too many header bytes":     {cover("X-Long: " + strings.Repeat("a", 40<<10) + "\r\n"), 431},
		"too many headers":          {cover(strings.Repeat("X-Many: a\r\n", 4<<10)), 431},
		"too long a path":           {line(cover(""), "POST /"+strings.Repeat("a", 40<<10)+" HTTP/1.1"), 431},
		"refused with its body":     {dump(t, s.unsigned(t, http.MethodPost, invocationsPath, ""), lengthOfTwo, "{}"), 403},
		"refused before its body": {dump(t, s.unsigned(t, http.MethodPost, invocationsPath, ""),
			fmt.Sprintf("X-Amz-Invocation-Type: Event\r\nContent-Length: %d\r\n", maxEventBytes+1), string(zeros(maxEventBytes+1))), 413},
	}
}

func TestSmuggledRequestsAreNeverAnswered(t *testing.T) {
	s := newSmuggler(t)
	tricks := 0
	for _, table := range []map[string]trick{s.framings(t), s.spellings(t)} {
		for name, trick := range table {
			tricks++
			t.Run(name, func(t *testing.T) { s.play(t, trick) })
		}
	}
	if tricks < 80 {
		t.Errorf("%d tricks", tricks)
	}
}

// play sends the trick and then the prize, and looks at all that comes back until the connection ends.
func (s *smuggler) play(t *testing.T, trick trick) {
	s.echoes.Store(0)
	got, rest, conn := s.raw(t, trick.bytes+s.prize(t))
	if got.status != trick.status {
		t.Errorf("status %d, want %d; body %s", got.status, trick.status, got.body)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if more, err := io.ReadAll(rest); len(more) > 0 || isTimeout(err) {
		t.Errorf("after the answer came %.200q, %v: the connection was not closed", more, err)
	}
	if n := s.prizes.Load(); n != 0 {
		t.Fatal("the request behind it was executed")
	}
	want := int32(0)
	if trick.status == http.StatusOK {
		want = 1
	}
	if n := s.echoes.Load(); n != want {
		t.Errorf("status %d, and the function was invoked %d times", got.status, n)
	}
}

// The control: behind a request that ends without doubt the prize is found. RFC 9112, 5.2, says what a folded length means.
func TestARequestBehindOneThatEndsWithoutDoubtIsExecuted(t *testing.T) {
	s := newSmuggler(t)
	for n, framing := range []string{lengthOfTwo, "Content-Length:\r\n 2\r\n", "Content-Length: 2\r\nContent-Length: 2\r\n"} {
		got, rest, _ := s.raw(t, s.cover(t, framing, "{}")+s.prize(t))
		response, err := http.ReadResponse(rest, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := int32(n + 1)
		if again := read(t, response); got.status != 200 || again.status != 200 || s.prizes.Load() != want || s.echoes.Load() != want {
			t.Errorf("%q: status %d and %d, %d and %d invocations", framing, got.status, again.status, s.echoes.Load(), s.prizes.Load())
		}
	}
}
