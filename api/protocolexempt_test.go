package api_test

// Which of botocore's protocol cases do not apply, and why. A case is exempt from a
// test only by its name here, or because its model has a trait that the generator
// refuses; either must be so, or the test fails.

// refusedTraits are what no service that Cloister serves has in its model, by what
// the generator says when it meets one. A service that has one cannot be added
// without its codec being extended first.
var refusedTraits = map[string]string{
	`unknown field "document"`:             "the model has values without a type",
	`unknown field "requestcompression"`:   "clients may compress bodies of the operation",
	`unknown field "httpChecksumRequired"`: "clients send a digest of the body that the service must check",
	`unknown location "headers"`:           "a map is spread over headers whose names begin alike",
	`for JSON in a string`:                 "a header has JSON in base64",
	`unknown field "location"`:             "shapes have a location, in a form of the model that is not published any more",
	`unknown field "resultWrapper"`:        "shapes have a wrapper, in a form of the model that is not published any more",
	`unknown type "character"`:             "the model has a type that no published one has",
}

const (
	clientFills    = "the client makes up a member that is absent from its parameters"
	otherPath      = "the endpoint itself has a path, which a service that is alone at its address has not"
	noTarget       = "the case does not say which headers the request has, and without X-Amz-Target it names no operation"
	nothingSent    = "what is empty is not sent, so it cannot be told from what is absent"
	emptyPayload   = "for a structure that is absent the client sends an empty one"
	mapOfAll       = "the client puts a map of parameters beside those that have a member; a server, by the protocol's definition, gives the map all of them"
	contentTypeOwn = "the client sets the content type, which is also a member of the input, by itself"
)

// notReadBack are cases whose request does not say what the parameters were.
var notReadBack = map[string]string{
	"input/rest-json RestJsonQueryIdempotencyTokenAutoFill": clientFills,
	"input/query QueryProtocolIdempotencyTokenAutoFill":     clientFills,
	"legacy/input/rest-json 19.1":                           clientFills,
	"legacy/input/query 12.1":                               clientFills,
	"input/rest-json RestJsonHostWithPath":                  otherPath,
	"input/json_1_0 AwsJson10HostWithPath":                  noTarget,
	"input/query QueryHostWithPath":                         "the case does not say which body the request has",
	"input/json_1_0 AwsJson10EndpointTrait":                 noTarget,
	"input/json_1_0 AwsJson10EndpointTraitWithHostLabel":    noTarget,
	"legacy/input/json 6.0":                                 noTarget,
	"legacy/input/json 6.1":                                 noTarget,
	"input/rest-json RestJsonNullAndEmptyHeaders":           nothingSent,
	"input/rest-json RestJsonOmitsEmptyListQueryValues":     nothingSent,
	"input/query QueryEmptyQueryMaps":                       nothingSent,
	"legacy/input/rest-json 26.1":                           nothingSent,
	"input/rest-json RestJsonQueryParamsStringListMap":      mapOfAll,
	"input/rest-json RestJsonQueryPrecedence":               mapOfAll,
	"input/rest-json RestJsonHttpWithEmptyStructurePayload": emptyPayload,
	"input/rest-json RestJsonHttpWithHeadersButNoPayload":   emptyPayload,
	"legacy/input/rest-json 13.1":                           emptyPayload,
	"legacy/input/rest-json 25.2":                           emptyPayload,
	"legacy/input/rest-json 25.4":                           emptyPayload,
	"legacy/input/rest-json 25.7":                           contentTypeOwn,
}

const (
	noTypedValue = "there is no value with that in it: members of lists are never null and clients alone know unknown members"
	eventStream  = "the answer is an event stream, which is not one value and not for Encode"
	knownFaults  = "botocore's parser cannot do it, and its own tests leave the case out"
)

// notParsed are cases whose result we cannot encode, or botocore cannot parse.
var notParsed = map[string]string{
	"legacy/output/rest-json 17.2":                                   noTypedValue,
	"legacy/output/json 3.1":                                         noTypedValue,
	"legacy/output/json 6.0":                                         eventStream,
	"output/rest-json RestJsonHttpPayloadTraitsWithNoBlobBody":       knownFaults,
	"output/rest-json RestJsonHttpPayloadWithUnsetUnion":             knownFaults,
	"output/rest-json RestJsonInputAndOutputWithQuotedStringHeaders": knownFaults,
	"output/rest-json RestJsonInputAndOutputWithTimestampHeaders":    knownFaults,
	"output/query QueryComplexError":                                 knownFaults,
	"output/query QueryXmlLists":                                     knownFaults,
}

const (
	offset      = "timestamps are written in UTC with Z, the case has another offset"
	errorHeader = "services name an error in x-amzn-errortype or __type, whichever is usual for the protocol, and without the address that some add"
	skipped     = "the case has something that clients skip"
	noBody      = "an operation without output has no body; the case has one that clients ignore"
	notMeant    = "the case has a header that no response has, or a value of its own for the request id"
	faultType   = "the case has a type of error that is neither Sender nor Receiver, or members that the model does not know"
)

// otherForm are cases whose answer has another form than ours. That botocore
// understands ours all the same is TestBotocoreUnderstandsEveryAnswerOfItsProtocolCases.
var otherForm = map[string]string{
	"legacy/output/rest-json 17.2": noTypedValue,
	"legacy/output/json 3.1":       noTypedValue,
	"legacy/output/json 6.0":       eventStream,

	"output/rest-json RestJsonDateTimeWithNegativeOffset": offset,
	"output/rest-json RestJsonDateTimeWithPositiveOffset": offset,
	"output/json AwsJson11DateTimeWithNegativeOffset":     offset,
	"output/json AwsJson11DateTimeWithPositiveOffset":     offset,
	"output/query AwsQueryDateTimeWithNegativeOffset":     offset,
	"output/query AwsQueryDateTimeWithPositiveOffset":     offset,
	"legacy/output/rest-json 2.0":                         offset,
	"legacy/output/json 2.0":                              offset,
	"legacy/output/query 15.0":                            offset,

	"output/rest-json RestJsonFooErrorUsingXAmznErrorTypeWithUri":             errorHeader,
	"output/rest-json RestJsonFooErrorUsingXAmznErrorTypeWithUriAndNamespace": errorHeader,
	"output/rest-json RestJsonFooErrorUsingCode":                              errorHeader,
	"output/rest-json RestJsonFooErrorUsingCodeAndNamespace":                  errorHeader,
	"output/rest-json RestJsonFooErrorUsingCodeUriAndNamespace":               errorHeader,
	"output/rest-json RestJsonFooErrorWithDunderType":                         errorHeader,
	"output/rest-json RestJsonFooErrorWithDunderTypeAndNamespace":             errorHeader,
	"output/rest-json RestJsonFooErrorWithDunderTypeUriAndNamespace":          errorHeader,
	"output/json AwsJson11FooErrorUsingXAmznErrorType":                        errorHeader,
	"output/json AwsJson11FooErrorUsingXAmznErrorTypeWithUri":                 errorHeader,
	"output/json AwsJson11FooErrorUsingXAmznErrorTypeWithUriAndNamespace":     errorHeader,
	"output/json AwsJson11FooErrorUsingCode":                                  errorHeader,
	"output/json AwsJson11FooErrorUsingCodeAndNamespace":                      errorHeader,
	"output/json AwsJson11FooErrorUsingCodeUriAndNamespace":                   errorHeader,
	"output/json AwsJson11FooErrorWithDunderTypeUriAndNamespace":              errorHeader,
	"output/json_1_0 AwsJson10FooErrorUsingXAmznErrorType":                    errorHeader,
	"output/json_1_0 AwsJson10FooErrorUsingXAmznErrorTypeWithUri":             errorHeader,
	"output/json_1_0 AwsJson10FooErrorUsingXAmznErrorTypeWithUriAndNamespace": errorHeader,
	"output/json_1_0 AwsJson10FooErrorUsingCode":                              errorHeader,
	"output/json_1_0 AwsJson10FooErrorUsingCodeAndNamespace":                  errorHeader,
	"output/json_1_0 AwsJson10FooErrorUsingCodeUriAndNamespace":               errorHeader,
	"output/json_1_0 AwsJson10FooErrorWithDunderTypeUriAndNamespace":          errorHeader,

	"output/rest-json RestJsonDeserializesDenseSetMapAndSkipsNull": skipped,
	"output/rest-json RestJsonDeserializeIgnoreType":               skipped,
	"output/json AwsJson11DeserializeIgnoreType":                   skipped,
	"output/json_1_0 AwsJson10DeserializeIgnoreType":               skipped,
	"output/json_1_0 AwsJson10DeserializeAllowNulls":               skipped,
	"legacy/output/rest-json 7.0":                                  skipped,
	"legacy/output/json 5.0":                                       skipped,
	"legacy/output/json 7.1":                                       skipped,

	"output/json handles_empty_output_shape":               noBody,
	"output/json handles_unexpected_json_output":           noBody,
	"output/json_1_0 AwsJson10HandlesEmptyOutputShape":     noBody,
	"output/json_1_0 AwsJson10HandlesUnexpectedJsonOutput": noBody,
	"legacy/output/rest-json 8.0":                          noBody,

	"output/json AwsJson11IntEnums":                       notMeant,
	"output/json parses_the_request_id_from_the_response": notMeant,
	"legacy/output/json 7.2":                              notMeant,
	"legacy/output/rest-json 18.0":                        "the case has white space in a header that is not needed",

	"output/query QueryComplexError": "an error always has a message, even if it is empty; botocore's own tests leave the case out",
	"output/query QueryXmlLists":     "old models name the members of a flat list, new ones the list; botocore does the former and leaves the case out",
	"legacy/output/query 16.0":       faultType,
	"legacy/output/query 16.1":       faultType,
	"legacy/output/query 16.2":       faultType,
}
