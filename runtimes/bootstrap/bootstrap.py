"""Runs a Python function: asks the Runtime API for events and gives them to its handler.

It is the first program of a Python execution environment and shares a process with the
customer's code, so nothing in here protects anything: what must hold against that code is
enforced outside, by the sandbox and the Runtime API server.

What the customer can see (error types and messages, log lines, the context object, the order of
sys.path, the JSON of a response) is what AWS's own Python runtimes do. The modules imported at the
top are those that are cheap: each millisecond here is a millisecond of every cold start.
"""

import _socket  # "socket" would cost as much as the rest of this file together
import json
import os
import sys
import time

from cloister_json import Encoder

RUNTIME = "/2018-06-01/runtime"
MAX_CAUSE_BYTES = 64 << 10  # of the X-Ray cause, which travels in a header
NO_BREAK_SPACE = "\u00a0"  # keeps the indentation of traces in log viewers that trim lines


class Fault(Exception):
    """An error that the runtime, not the customer's code, found."""

    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.kind = "Runtime." + kind
        self.message = message
        self.trace = list(trace)


# --- Runtime API: HTTP/1.1 over one kept connection ---------------------------------------------


class RuntimeAPI:
    """A client that has one request under way at a time."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.address = (host.strip("[]") or "127.0.0.1", int(port or 80))
        self.host = address.encode()
        self.connection = None
        self.buffer = b""

    def next(self):
        """Blocks until there is an event; returns its headers, with lower-case names, and body."""
        status, headers, body = self.request(b"GET", RUNTIME + "/invocation/next")
        if status != 200:
            raise ConnectionError("the Runtime API answered next with status %d" % status)
        return headers, body

    def post(self, path, body, headers=()):
        """Posts a response or an error. A refusal is logged: the event is over either way."""
        status, _, answer = self.request(b"POST", RUNTIME + path, body, headers)
        if status != 202:
            sys.stderr.write("Runtime API refused %s: %d %r\n" % (path, status, bytes(answer[:200])))

    def request(self, method, path, body=b"", headers=()):
        head = [method + b" " + path.encode() + b" HTTP/1.1", b"Host: " + self.host]
        head += [b"%s: %s" % (name.encode(), value.encode()) for name, value in headers]
        if method == b"POST":
            head.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join(head) + b"\r\n\r\n"
        if self.connection is not None:
            # The server may have closed the connection while this process was frozen.
            try:
                return self.exchange(head, body)
            except OSError:
                self.close()
        self.connect()
        return self.exchange(head, body)

    def connect(self):
        family = _socket.AF_INET6 if ":" in self.address[0] else _socket.AF_INET
        self.connection = _socket.socket(family, _socket.SOCK_STREAM)
        self.connection.connect(self.address)
        self.connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)

    def close(self):
        self.connection.close()
        self.connection, self.buffer = None, b""

    def exchange(self, head, body):
        if len(body) <= 16 << 10:
            self.connection.sendall(head + body)
        else:
            self.connection.sendall(head)
            self.connection.sendall(body)
        while True:
            lines = self.read_until(b"\r\n\r\n").decode("utf-8", "replace").split("\r\n")
            status = int(lines[0].split(" ", 2)[1])
            if status >= 200:
                break
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        answer = self.read_body(headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, headers, answer

    def read_body(self, headers):
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = bytearray()
            while True:
                size = int(self.read_until(b"\r\n").split(b";")[0], 16)
                if size == 0:
                    while self.read_until(b"\r\n"):
                        pass
                    return body
                body += self.read_exactly(size)
                self.read_exactly(2)
        if "content-length" in headers:
            return self.read_exactly(int(headers["content-length"]))
        raise ConnectionError("the Runtime API sent a body of unknown length")

    def fill(self):
        received = self.connection.recv(256 << 10)
        if not received:
            raise ConnectionError("the Runtime API closed the connection")
        self.buffer += received

    def read_until(self, mark):
        while mark not in self.buffer:
            if len(self.buffer) > 1 << 20:
                raise ConnectionError("the Runtime API sent a line without end")
            self.fill()
        line, _, self.buffer = self.buffer.partition(mark)
        return line

    def read_exactly(self, size):
        if len(self.buffer) >= size:
            part, self.buffer = self.buffer[:size], self.buffer[size:]
            return part
        body = bytearray(size)
        have = len(self.buffer)
        body[:have] = self.buffer
        self.buffer = b""
        view = memoryview(body)
        while have < size:
            received = self.connection.recv_into(view[have:])
            if not received:
                raise ConnectionError("the Runtime API closed the connection")
            have += received
        return body


# --- JSON ---------------------------------------------------------------------------------------


def decode_event(headers, body):
    if not headers.get("content-type", "application/json").startswith("application/json"):
        return bytes(body)
    try:
        return json.loads(body)
    except Exception as error:
        raise Fault("UnmarshalError", "Unable to unmarshal input: %s" % error)


def encode_response(encoder, value):
    if isinstance(value, bytes):
        return value, "application/unknown"
    try:
        return encoder.encode(value), "application/json"
    except Exception as error:
        raise Fault("MarshalError", "Unable to marshal response: %s" % error)


# --- Logs ---------------------------------------------------------------------------------------


class Log:
    """What log records and error lines need to know of the event under way."""

    request_id = ""
    tenant_id = None
    as_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()


def write_line(text):
    """One line is one log event; inside it a line break travels as a carriage return."""
    sys.stdout.write(text.rstrip("\n").replace("\n", "\r") + "\n")


def log_error(error):
    if Log.as_json:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_line(json.dumps({"timestamp": now, "level": "ERROR", **error}))
        return
    lines = ["[ERROR] %s: %s" % (error["errorType"], error["errorMessage"])]
    lines.append("Traceback (most recent call last):")
    for entry in error["stackTrace"]:
        for line in entry.splitlines():
            text = line.lstrip(" ")
            lines.append(NO_BREAK_SPACE * (len(line) - len(text)) + text)
    text = "\n".join(lines)
    write_line(text.encode("utf-8", "backslashreplace").decode())


class LoggingFinder:
    """Configures the logging module when it is first imported: most of its cost is the import,
    and functions that do not log shall not pay it."""

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = ConfiguringLoader(spec.loader)
                return spec
        return None


class ConfiguringLoader:
    """The loader of the logging module, with one step more."""

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def exec_module(self, module):
        self.loader.exec_module(module)
        import cloister_logging

        cloister_logging.configure(module, Log, write_line)


# --- Errors -------------------------------------------------------------------------------------


def describe(error, request_id):
    """Returns an exception in the shape that callers see, and as a cause for X-Ray."""
    if isinstance(error, Fault):
        kind, message, trace, frames = error.kind, error.message, error.trace, []
        cause_kind = "LambdaValidationError"
    else:
        import traceback

        frames = traceback.extract_tb(error.__traceback__)
        own = describe.__code__.co_filename
        first = next((i for i, frame in enumerate(frames) if frame.filename != own), 0)
        frames = frames[first:]
        kind = cause_kind = type(error).__name__
        message = str(error)
        trace = traceback.format_list([(f.filename, f.lineno, f.name, f.line) for f in frames])
    stack = [{"label": f.name, "path": f.filename, "line": f.lineno} for f in frames]
    cause = {
        "working_directory": os.getcwd(),
        "exceptions": [{"message": message, "type": cause_kind, "stack": stack}],
        "paths": sorted({f.filename for f in frames}),
    }
    error = {
        "errorMessage": message,
        "errorType": kind,
        "requestId": request_id,
        "stackTrace": trace,
    }
    return error, cause


# --- The context object -------------------------------------------------------------------------


class Attributes:
    """A class of plain attributes whose text form lists them, as AWS's do."""

    names = ()

    def __init__(self, values=None):
        for name in self.names:
            setattr(self, name, (values or {}).get(name))

    def __repr__(self):
        values = ",".join("%s=%s" % (name, getattr(self, name)) for name in self.names)
        return "%s([%s])" % (type(self).__name__, values)


class CognitoIdentity(Attributes):
    names = ("cognito_identity_id", "cognito_identity_pool_id")


class Client(Attributes):
    names = (
        "installation_id",
        "app_title",
        "app_version_name",
        "app_version_code",
        "app_package_name",
    )


class ClientContext(Attributes):
    names = ("custom", "env", "client")


class LambdaContext(Attributes):
    names = (
        "aws_request_id",
        "log_group_name",
        "log_stream_name",
        "function_name",
        "memory_limit_in_mb",
        "function_version",
        "invoked_function_arn",
        "client_context",
        "identity",
        "tenant_id",
    )

    def __init__(self, headers):
        environment = os.environ
        self.aws_request_id = headers.get("lambda-runtime-aws-request-id")
        self.log_group_name = environment.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environment.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = environment.get("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = environment.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        self._deadline = int(headers.get("lambda-runtime-deadline-ms") or 0)

        client = json_header(headers, "lambda-runtime-client-context", "Client Context")
        self._trace_context = client.pop("w3c", None) if isinstance(client, dict) else None
        self.client_context = None if client is None else ClientContext(client)
        if self.client_context and self.client_context.client is not None:
            self.client_context.client = Client(self.client_context.client)

        cognito = json_header(headers, "lambda-runtime-cognito-identity", "Cognito Identity") or {}
        self.identity = CognitoIdentity()
        self.identity.cognito_identity_id = cognito.get("cognitoIdentityId")
        self.identity.cognito_identity_pool_id = cognito.get("cognitoIdentityPoolId")

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline - int(time.time() * 1000))

    def w3c(self):
        """The W3C trace context that came with the event: strings only."""
        given = self._trace_context if isinstance(self._trace_context, dict) else {}
        known = ("traceparent", "tracestate", "baggage")
        return {name: given[name] for name in known if isinstance(given.get(name), str)}

    def log(self, message):
        sys.stdout.write(str(message))


def json_header(headers, name, title):
    text = headers.get(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except Exception as error:
        raise Fault("LambdaContextUnmarshalError", "Unable to parse %s JSON: %s" % (title, error))


# --- The life of the process --------------------------------------------------------------------


def extend_path():
    task = os.environ.get("LAMBDA_TASK_ROOT", "/var/task")
    layers = "/opt/python"
    packages = "%s/lib/python%d.%d/site-packages" % (layers, *sys.version_info[:2])
    own = os.environ.get("LAMBDA_RUNTIME_DIR", "/var/runtime")
    rest = [entry for entry in sys.path[1:] if entry != own]
    sys.path[:] = [task, packages, layers, own, *rest, packages, layers]


def load_handler(name):
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as error:
        raise Fault("MalformedHandlerName", "Bad handler '%s': %s" % (name, error))
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = "Cannot use built-in module %s as a handler module" % module_name
        raise Fault("BuiltInModuleConflict", message)

    import importlib

    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        message = "Unable to import module '%s': %s" % (module_name, error)
        raise Fault("ImportModuleError", message)
    except SyntaxError as error:
        message = "Syntax error in module '%s': %s" % (module_name, error)
        trace = '  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)
        raise Fault("UserCodeSyntaxError", message, [trace])
    try:
        return getattr(module, function_name)
    except AttributeError:
        message = "Handler '%s' missing on module '%s'" % (function_name, module_name)
        raise Fault("HandlerNotFound", message)


def begin(headers):
    Log.request_id = headers.get("lambda-runtime-aws-request-id", "")
    Log.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
    trace = headers.get("lambda-runtime-trace-id")
    if trace is not None:
        os.environ["_X_AMZN_TRACE_ID"] = trace
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)


def handle(api, encoder, handler, headers, body):
    """Runs the handler for one event and posts what came of it. SystemExit passes through: a
    function may end its process, and the Runtime API's server reports how it ended."""
    path = "/invocation/" + Log.request_id
    try:
        context = LambdaContext(headers)
        event = decode_event(headers, body)
        response, content_type = encode_response(encoder, handler(event, context))
    except Exception as error:
        described, cause = describe(error, Log.request_id)
        log_error(described)
        posted = [("Content-Type", "application/json")]
        cause = json.dumps(cause)
        if len(cause) <= MAX_CAUSE_BYTES:
            posted.append(("Lambda-Runtime-Function-XRay-Error-Cause", cause))
        api.post(path + "/error", encoder.encode(described), posted)
        return
    api.post(path + "/response", response, [("Content-Type", content_type)])


def main():
    extend_path()
    sys.meta_path.insert(0, LoggingFinder())
    api = RuntimeAPI(os.environ["AWS_LAMBDA_RUNTIME_API"])
    encoder = Encoder()
    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
    except Exception as error:
        described, _ = describe(error, "")
        log_error(described)
        posted = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Function-Error-Type", described["errorType"]),
        ]
        api.post("/init/error", encoder.encode(described), posted)
        sys.exit(1)
    while True:
        headers, body = api.next()
        begin(headers)
        handle(api, encoder, handler, headers, body)


if __name__ == "__main__":
    main()
