package api_test

import (
	"bytes"
	"encoding/base64"
	"net/http/httptest"
	"testing"

	"cloister/api/lambdaapi"
)

func benchmarkDecode(b *testing.B, target string, body []byte) {
	r := httptest.NewRequest("POST", target, nil)
	r.Header.Set("X-Amz-Invocation-Type", "RequestResponse")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		op, labels, err := lambdaapi.Service.Match(r, body)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := lambdaapi.Service.Decode(op, labels, r, body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeInvoke(b *testing.B) {
	benchmarkDecode(b, "/2015-03-31/functions/hello/invocations", bytes.Repeat([]byte("x"), 1024))
}

func BenchmarkDecodeCreateFunction(b *testing.B) {
	benchmarkDecode(b, "/2015-03-31/functions", createBody(1<<10))
}

func BenchmarkDecodeCreateFunctionOf10MiB(b *testing.B) {
	benchmarkDecode(b, "/2015-03-31/functions", createBody(10<<20))
}

func createBody(zip int) []byte {
	code := base64.StdEncoding.EncodeToString(make([]byte, zip))
	return []byte(`{"FunctionName":"hello","Runtime":"python3.11","Role":"arn:aws:iam::123456789012:role/r","Handler":"app.handler",` +
		`"Timeout":10,"MemorySize":256,"Environment":{"Variables":{"STAGE":"test","LEVEL":"info"}},"Tags":{"team":"a"},"Code":{"ZipFile":"` + code + `"}}`)
}

func BenchmarkEncodeGetFunction(b *testing.B) {
	out := &lambdaapi.GetFunctionResponse{
		Configuration: &lambdaapi.FunctionConfiguration{FunctionName: new("hello"), Role: new("arn:aws:iam::123456789012:role/r"), Timeout: new(int32(3)),
			MemorySize: new(int32(128)), State: new(lambdaapi.StateActive), LastModified: new("2026-11-05T04:03:02.000+0000")},
		Code: &lambdaapi.FunctionCodeLocation{RepositoryType: new("S3")},
	}
	op := lambdaapi.Service.Operation("GetFunction")
	b.ReportAllocs()
	for b.Loop() {
		lambdaapi.Service.Encode(httptest.NewRecorder(), op, "id", out)
	}
}
