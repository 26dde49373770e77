"""Parses responses as boto3 does.

Reads a JSON array from standard input, of objects with the model of a service,
the name of an operation and, if the response is an error, of the error's shape,
and the response; writes an array of what botocore makes of each. Timestamps
become seconds since 1970, blobs text.
"""

import base64
import datetime
import json
import sys

from botocore.awsrequest import HeadersDict
from botocore.model import ServiceModel
from botocore.parsers import PROTOCOL_PARSERS
from botocore.utils import parse_timestamp


def seconds(value):
    return parse_timestamp(value).astimezone(datetime.timezone.utc).timestamp()


def plain(value):
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not abs(value) < float("inf"):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def decode(case):
    model = ServiceModel(case["model"])
    operation = model.operation_model(case["operation"])
    shape = operation.output_shape
    response = {
        "status_code": case["status"],
        "headers": HeadersDict(case["headers"]),
        "body": base64.b64decode(case["body"]),
        "context": {"operation_name": case["operation"]},
    }
    parser = PROTOCOL_PARSERS[model.metadata["protocol"]](timestamp_parser=seconds)
    try:
        parsed = parser.parse(response, shape)
    except Exception as error:
        return {"exception": repr(error)}
    if case["error"]:
        parsed.update(parser.parse(response, model.shape_for(case["error"])))
    parsed.pop("ResponseMetadata", None)
    return plain(parsed)


json.dump([decode(case) for case in json.load(sys.stdin)], sys.stdout)
