package script

import "strings"

const (
	next      = "/2018-06-01/runtime/invocation/next"
	response  = "/2018-06-01/runtime/invocation/{id}/response"
	failed    = "/2018-06-01/runtime/invocation/{id}/error"
	initError = "/2018-06-01/runtime/init/error"

	errorBody = `{"errorMessage":"it broke","errorType":"Broken","stackTrace":["line 1","line 2"]}`
	causeBody = `{"errorMessage":"it <broke>","errorType":"Broken","stackTrace":["line 1"],"errorCause":{"message":"m","working_directory":"/","exceptions":[],"paths":[]},"more":1}`

	maxPayload = 6<<20 + 100
)

var (
	jsonHeader = map[string]string{"Content-Type": "application/json"}
	textHeader = map[string]string{"Content-Type": "text/plain; charset=utf-8"}
)

// event is an invocation up to the point where the runtime has its event.
func event(steps ...Step) []Step {
	return append([]Step{Invoke(`{"key":"value"}`), Get(next)}, steps...)
}

// Sequences returns all sequences, whose names are unique. A sequence that leaves an invocation without an
// answer does not ask for it: the emulator would take its whole timeout.
func Sequences() []Sequence {
	var all []Sequence
	for _, group := range [][]Sequence{invocations(), failures(), initErrors(), order(), sizes(), routing(), framing()} {
		all = append(all, group...)
	}
	return all
}

func invocations() []Sequence {
	return []Sequence{
		{"an event and its response", event(Post(response, `"done"`), Done())},
		{"a chunked response", event(Post(response, `{"done":true}`).Chunked(), Done())},
		{"an empty response", event(Post(response, ""), Done())},
		{"an empty chunked response", event(Post(response, "").Chunked(), Done())},
		{"a response that is not JSON", event(Post(response, "not {json", "Content-Type: text/plain"), Done())},
		{"an event with a client context of several lines", []Step{InvokeWith("1", "{\r\n \"custom\":\t{\"é\": 1}\n}"), Get(next), Post(response, "1"), Done()}},
		{"an event without payload", []Step{Invoke(""), Get(next), Post(response, "null"), Done()}},
		{"a query is not part of the path", []Step{Invoke("1"), Get(next + "?a=b"), Post(response+"?c", "2"), Done()}},
		{"two events one after the other", event(
			Post(response, "1"), Get(next).Start("second"), Answer(), Parked(1), Invoke("2"), Finish("second"), Post(response, "2"), Done())},
		{"next waits for the event", []Step{Invoke("1"), Get(next), Post(response, "1"), Get(next).Start("waits"), Answer(), Parked(1), Invoke(`{"n":2}`),
			Finish("waits"), Post(failed, errorBody), Done()}},
		{"a streamed response to a buffered invocation", event(Post(response, `"stream"`, "Lambda-Runtime-Function-Response-Mode: streaming").Chunked(), Done())},
		{"a response mode that does not exist", event(
			Post(response, `"done"`, "Lambda-Runtime-Function-Response-Mode: buffered"),
			Post(response, `"again"`), Get(next), Post(failed, errorBody))},
	}
}

func failures() []Sequence {
	return []Sequence{
		{"an error", event(Post(failed, errorBody, "Content-Type: application/json", "Lambda-Runtime-Function-Error-Type: Function.Broken"), Done())},
		{"an error of an unknown type", event(Post(failed, errorBody, "Lambda-Runtime-Function-Error-Type: Broken"), Done())},
		{"an error without body", event(Post(failed, ""), Done())},
		{"an error that is not JSON", event(Post(failed, "it broke"), Done())},
		{"a chunked error", event(Post(failed, errorBody).Chunked(), Done())},
		{"an error with its X-Ray cause in the body", event(Post(failed, causeBody, "Content-Type: application/vnd.aws.lambda.error.cause+json"), Done())},
		{"an invalid error with an X-Ray cause in the body", event(Post(failed, "it broke", "Content-Type: application/vnd.aws.lambda.error.cause+json"), Done())},
		{"an error with its X-Ray cause in a header", event(Post(failed, errorBody, `Lambda-Runtime-Function-XRay-Error-Cause: {"message":"m"}`), Done())},
		{"an error with a large X-Ray cause", event(Post(failed, errorBody, "Lambda-Runtime-Function-XRay-Error-Cause: "+strings.Repeat("x", 1<<20-100)), Done())},
		{"an error in streaming mode", event(Post(failed, errorBody, "Lambda-Runtime-Function-Response-Mode: streaming"), Done())},
	}
}

func initErrors() []Sequence {
	return []Sequence{
		{"init error", []Step{Invoke("1"), Post(initError, errorBody, "Lambda-Runtime-Function-Error-Type: Runtime.ImportModuleError")}},
		{"init error that is not JSON", []Step{Invoke("1"), Post(initError, "it broke")}},
		{"init error without body", []Step{Invoke("1"), Post(initError, "")}},
		{"init error twice", []Step{Invoke("1"), Post(initError, errorBody), Post(initError, errorBody)}},
		{"next after an init error", []Step{Invoke("1"), Post(initError, errorBody), Get(next)}},
		{"response after an init error", []Step{Invoke("1"), Post(initError, errorBody), Post("/2018-06-01/runtime/invocation/unknown/response", "1")}},
		{"init error while an event is running", event(Post(initError, errorBody), Post(response, "1"), Done())},
		{"init error while next waits", event(Post(response, "1"), Get(next).Start("waits"), Answer(), Parked(1), Post(initError, errorBody))},
		{"init error after a response", event(Post(response, "1"), Post(initError, errorBody), Done())},
	}
}

// order holds the sequences in which requests come when they should not.
func order() []Sequence {
	const unknown = "/2018-06-01/runtime/invocation/00000000-0000-0000-0000-000000000000/"
	return []Sequence{
		{"response before next", []Step{Invoke("1"), Post(unknown+"response", "1"), Post(unknown+"error", errorBody), Get(next)}},
		{"a wrong request id", event(Post(unknown+"response", "1"), Post(unknown+"error", errorBody), Post(response, "2"), Done())},
		{"an empty request id", event(Post("/2018-06-01/runtime/invocation//response", "1"))},
		{"a request id in capitals", event(Post("/2018-06-01/runtime/invocation/X{id}/response", "1"))},
		{"a response twice", event(Post(response, "1"), Post(response, "2"), Done())},
		{"an error after a response", event(Post(response, "1"), Post(failed, errorBody), Done())},
		{"a response after an error", event(Post(failed, errorBody), Post(response, "1"), Done())},
		{"an error twice", event(Post(failed, errorBody), Post(failed, errorBody), Done())},
		{"a late response to an earlier event", event(Post(response, "1"), Get(next).Start("waits"), Answer(), Parked(1),
			Invoke("2"), Finish("waits"), Post("/2018-06-01/runtime/invocation/{id1}/response", "late"), Post(response, "2"), Done())},
		{"a late response while next waits", event(Post(response, "1"), Get(next).Start("waits"), Answer(), Parked(1), Post(response, "late"))},
		{"next again while the event is running", event(Get(next), Post(response, "1"), Done())},
		{"two next at once", event(Post(response, "1"), Get(next).Start("first"), Answer(), Parked(1), Get(next).Start("second"), Parked(2),
			Invoke("2"), Finish("first"), Post(response, "2"), Get(next).Start("third"), Answer(), Parked(2), Invoke("3"), Finish("second"), Post(response, "3"), Done())},
	}
}

func sizes() []Sequence {
	return []Sequence{
		{"the largest response", event(Post(response, "").Sized(maxPayload), Done())},
		{"the largest chunked response", event(Post(response, "").Sized(maxPayload).Chunked(), Done())},
		{"a response that is too large", event(Post(response, "").Sized(maxPayload+1), Post(response, "1"), oversized())},
		{"a chunked response that is too large", event(Post(response, "").Sized(maxPayload+1).Chunked(), oversized())},
		{"the largest error", event(Post(failed, "").Sized(maxPayload), Done())},
		{"an error that is too large", event(Post(failed, "").Sized(maxPayload+1).Differs(
			Reply{Status: 413, Headers: jsonHeader, Body: `{"errorMessage":"Exceeded maximum allowed payload size (6291556 bytes).","errorType":"RequestEntityTooLarge"}` + "\n"},
			"the emulator's handler panics and breaks the connection"))},
	}
}

func oversized() Step {
	return Done().Differs(Reply{Body: `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}`},
		"AWS's recorded answer; the emulator tells the size of the response as well, which is not known before all of it has come")
}

func routing() []Sequence {
	paths := []Step{
		Get("/2018-06-01/ping"), Request("HEAD", "/2018-06-01/ping", ""), Post("/2018-06-01/ping", "ping"),
		Get("/"), Get("/2018-06-01"), Get("/2018-06-01/"), Get("/2018-06-01/runtime/invocation"), Get(next + "/"), Get("/" + next),
		Get("/2018-06-01/runtime/%69nvocation/next"), Get("/2018-06-01/runtime/invocation/a%2Fb/response"), Get("/2015-03-31/functions"),
		Get("/2018-06-01/runtime/invocation/a/b/response"), Get("/2018-06-01/runtime/invocation/a/result"), Get("http://runtime/2018-06-01/ping"),
		Get("/2018-06-01/runtime/restore/next"), Post("/2018-06-01/runtime/restore/error", errorBody), Get("/2021-04-23/credentials"),
		Request("PUT", "/2020-08-15/logs", "{}"), Request("PUT", "/2022-07-01/telemetry", "{}"), Get("/2022-07-01/telemetry"),
	}
	methods := []Step{
		Post(next, ""), Request("HEAD", next, ""), Request("PUT", next, "{}"), Request("DELETE", next, ""), Request("OPTIONS", next, ""), Request("PROPFIND", next, ""),
		Request("PROPFIND", "/nowhere", ""), Get("/2018-06-01/runtime/invocation/a/response"), Request("PUT", "/2018-06-01/runtime/invocation/a/error", "{}"), Get(initError),
	}
	extension := Reply{Status: 501, Headers: jsonHeader, Body: `{"errorMessage":"Cloister does not implement the Extensions API yet","errorType":"Extension.NotSupported"}` + "\n"}
	const missing = "the Extensions API is not built"
	return []Sequence{
		{"paths", append([]Step{Invoke("1")}, paths...)},
		{"methods", append([]Step{Invoke("1")}, methods...)},
		{"extensions", []Step{Invoke("1"), Post("/2020-01-01/extension/register", "{}").Differs(extension, missing), Get("/2020-01-01/extension/event/next").Differs(extension, missing)}},
	}
}

// framing holds what is not quite HTTP. The two servers say why in different words.
func framing() []Sequence {
	const ping = "GET /2018-06-01/ping HTTP/1.1\r\n"
	refused := func(text, reason string) Step {
		return Raw(text).Differs(Reply{Status: 400, Headers: textHeader, Body: reason + "\n"}, "the words of the refusal")
	}
	stricter := func(text string, status int, reason string) Step {
		return Raw(text).Differs(Reply{Status: status, Headers: textHeader, Body: reason + "\n"}, "ours is stricter: see parseHead")
	}
	return []Sequence{
		{"framing that both refuse", []Step{Invoke("1"),
			refused("GET /2018-06-01/ping\r\n\r\n", "malformed request line"),
			refused(ping+"\r\n", "not one Host header"),
			refused(ping+"Host: a\r\nHost: b\r\n\r\n", "not one Host header"),
			refused(ping+"Host: a\r\nNo colon\r\n\r\n", "malformed header line"),
			refused(ping+"Host: a\r\nSpace : b\r\n\r\n", "malformed header line"),
			refused(ping+"Host: a\r\nNul: b\x00c\r\n\r\n", "malformed header value"),
			refused(ping+"Host: a\r\nContent-Length: 1x\r\n\r\n", "malformed Content-Length"),
			refused(ping+"Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "repeated body length"),
		}},
		{"framing that ours refuses", []Step{Invoke("1"),
			stricter(ping+"Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "both Content-Length and Transfer-Encoding"),
			stricter(ping+"Host: a\r\nFolded: b\r\n c\r\n\r\n", 400, "malformed header line"),
			stricter(ping+"Host: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400, "repeated body length"),
			stricter("GET /2018-06-01/ping HTTP/1.1\nHost: a\n\r\n\r\n", 400, "malformed request line"),
		}},
		{"HTTP/1.0", []Step{Invoke("1"), Raw("GET /2018-06-01/ping HTTP/1.0\r\n\r\n"), Raw("GET /2018-06-01/ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")}},
	}
}
