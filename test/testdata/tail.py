"""Follows a log group while its function is invoked: every line must come once, in order, within two seconds."""
import json
import sys
import time

import boto3

NAME = sys.argv[1]
logs, lam = boto3.client("logs"), boto3.client("lambda")
began = int(time.time() * 1000) - 1000
seen, lines = set(), []


def poll():
    """One round of "tail --follow": everything since the start that has not been shown."""
    for page in logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/" + NAME, startTime=began, interleaved=True):
        for event in page["events"]:
            if event["eventId"] not in seen:
                seen.add(event["eventId"])
                if event["message"].startswith("line"):
                    lines.append(int(event["message"].split()[1]))


for i in range(20):
    lam.invoke(FunctionName=NAME, Payload=json.dumps(i))
    deadline = time.time() + 2
    while i not in lines:
        assert time.time() < deadline, f"line {i} did not come within two seconds: {lines}"
        try:
            poll()
        except logs.exceptions.ResourceNotFoundException:
            pass  # the group is made with its first line
        time.sleep(0.05)
poll()
assert lines == list(range(20)), lines
print("ok")
