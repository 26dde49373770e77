"""How records of the logging module become log lines. Imported when that module is."""

import json
import time

# Attributes of every log record; others came from the caller's "extra" and are written, too.
RECORD_FIELDS = frozenset(
    "name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno"
    " funcName created msecs relativeCreated thread threadName processName process taskName"
    " aws_request_id tenant_id message asctime".split()
)


def configure(logging, state, write_line):
    """Adds the root handler. state has the format, the level and the ids of the event under way."""

    class Formatter(logging.Formatter):
        converter = time.gmtime

        def format(self, record):
            return format_json(self, record) if state.as_json else super().format(record)

    class Handler(logging.Handler):
        def emit(self, record):
            # Set here, not by the formatter: customers set formatters of their own with
            # %(aws_request_id)s in them.
            record.aws_request_id, record.tenant_id = state.request_id, state.tenant_id
            write_line(self.format(record))

    handler = Handler()
    handler.setFormatter(
        Formatter(
            "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )
    )
    root = logging.getLogger()
    level = {"TRACE": "DEBUG", "FATAL": "CRITICAL"}.get(state.level, state.level)
    if isinstance(logging.getLevelName(level), int):
        root.setLevel(level)
    root.addHandler(handler)


def format_json(formatter, record):
    message = record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage()
    fields = {
        "timestamp": formatter.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
        "level": record.levelname,
        "message": message,
        "logger": record.name,
    }
    if record.exc_info:
        import traceback

        kind, value, trace = record.exc_info
        fields["stackTrace"] = traceback.format_tb(trace)
        fields["errorType"] = kind.__name__ if kind else None
        fields["errorMessage"] = str(value)
        fields["location"] = "%s:%s:%d" % (record.pathname, record.funcName, record.lineno)
    fields["requestId"] = record.aws_request_id
    fields["tenantId"] = record.tenant_id
    for name, value in record.__dict__.items():
        if name not in RECORD_FIELDS and name not in fields:
            fields[name] = value
    fields = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(fields, default=str, ensure_ascii=False)
