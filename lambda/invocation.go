package lambda

import "time"

// Limits of the Lambda API (AWS developer guide, "Lambda quotas").
const (
	MaxPayloadBytes       = 6 << 20     // request of a synchronous invocation
	MaxResponseBytes      = 6<<20 + 100 // response; AWS's message shows 6291556
	MaxClientContextBytes = 3583        // base64 text of X-Amz-Client-Context
	LogTailBytes          = 4 << 10     // X-Amz-Log-Result before base64
	InitTimeout           = 10 * time.Second
	MaxProcesses          = 1024
	MaxOpenFiles          = 1024
	MemoryPerCPUMiB       = 1769 // memory at which a function has one full vCPU
)

// A VersionID names what an environment is bound to for life. Configuration changes
// with every update of code or configuration, so that environments of an older $LATEST are
// never used again.
type VersionID struct {
	AccountID, FunctionName, Version, Configuration string
}

// An Artifact refers to a stored, sealed, read-only file system image.
type Artifact struct {
	ID    string // hexadecimal SHA-256, names the sealed image in the artifact store
	Size  int64  // bytes of the plain image
	Owner string // account id
}

// A Version is everything needed to run one function version. It is immutable: an update
// makes a new one with another ID.
type Version struct {
	ID           VersionID
	ARN          string // qualified with the version
	Runtime      string // "python3.11", "nodejs20.x", "provided.al2023"
	Handler      string
	MemoryMiB    int
	Timeout      time.Duration
	EphemeralMiB int               // size of /tmp
	Variables    map[string]string // the customer's environment variables
	Role         string            // ARN of the execution role
	Code         Artifact
	LogGroup     string
}

// An Invocation is one event on its way to a function.
type Invocation struct {
	RequestID     string
	FunctionARN   string // as invoked: with the caller's qualifier
	Payload       []byte // JSON, at most MaxPayloadBytes; owned by the invocation
	ClientContext string // JSON, decoded from base64
	TraceID       string // X-Amzn-Trace-Id
	LogTail       bool   // the caller wants the last LogTailBytes of the log
}

// A Result is what came of an invocation that reached its function. A function that
// failed still has a Result; an error of the service has none.
type Result struct {
	Payload         []byte
	FunctionError   string // "" or "Unhandled"
	ExecutedVersion string
	LogTail         []byte
}

// Credentials are temporary keys of an execution role.
type Credentials struct {
	AccessKeyID, SecretAccessKey, SessionToken string
	Expiration                                 time.Time
}

// An EnvironmentSpec is an order for a new environment.
type EnvironmentSpec struct {
	Version     Version
	Credentials Credentials
	Grant       string // time-limited permission to fetch Version.Code, opaque to the worker
	LogStream   string
}

// A LogEvent is one line that a function or the platform wrote.
type LogEvent struct {
	Time    time.Time
	Message string
}
