"""The README's flow with boto3, and the corners that only an SDK shows. Prints "ok" at its end."""
import io
import json
import sys
import threading
import zipfile

import boto3
from botocore.config import Config

RUNTIME = sys.argv[1]
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]})
CODE = """
import json, os, time
count = 0
def handler(event, context):
    global count
    count += 1
    if event.get("fail"):
        raise ValueError("as asked")
    if event.get("sleep"):
        time.sleep(event["sleep"])
    return {"count": count, "id": context.aws_request_id, "stream": context.log_stream_name,
            "context": context.client_context.custom if context.client_context else None}
"""


def package(text):
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w") as z:
        z.writestr("app.py", text)
    return b.getvalue()


def call(client, **more):
    answer = client.invoke(FunctionName="flow", **more)
    return answer, json.loads(answer["Payload"].read())


def main():
    iam, sts, logs = (boto3.client(s) for s in ("iam", "sts", "logs"))
    lam = boto3.client("lambda", config=Config(retries={"mode": "standard"}))
    account = sts.get_caller_identity()["Account"]
    assert len(account) == 12 and account.isdigit(), account

    role = iam.create_role(RoleName="flow", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    made = lam.create_function(FunctionName="flow", Runtime=RUNTIME, Role=role, Handler="app.handler", Code={"ZipFile": package(CODE)}, Timeout=2)
    assert made["State"] == "Pending" and made["StateReasonCode"] == "Creating", made
    lam.get_waiter("function_active_v2").wait(FunctionName="flow")
    got = lam.get_function(FunctionName="flow")
    assert got["Configuration"]["CodeSha256"] == made["CodeSha256"] and "Code" in got, got

    answer, first = call(lam, Payload=b"{}")
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST" and "FunctionError" not in answer, answer
    assert first["count"] == 1 and first["id"] == answer["ResponseMetadata"]["RequestId"], first
    _, second = call(lam)
    assert second["count"] == 2 and second["stream"] == first["stream"], "the environment was not reused"

    answer, body = call(lam, Payload=json.dumps({"fail": True}))
    assert answer["FunctionError"] == "Unhandled" and body["errorType"] == "ValueError" and body["errorMessage"] == "as asked", body
    assert body["requestId"] == answer["ResponseMetadata"]["RequestId"] and body["stackTrace"], body

    answer, body = call(lam, Payload=json.dumps({"sleep": 9}))
    assert answer["FunctionError"] == "Unhandled" and body["errorType"] == "Sandbox.Timedout", body
    assert body["errorMessage"].endswith("Error: Task timed out after 2.00 seconds"), body
    _, after = call(lam)
    assert after["count"] == 1, "after a timeout the runtime is not a new one"

    import base64
    context = base64.b64encode(json.dumps({"custom": {"key": "value"}}).encode()).decode()
    _, body = call(lam, ClientContext=context)
    assert body["context"] == {"key": "value"}, body

    # Environments serve one invocation at a time: eight at once need eight.
    results = []
    threads = [threading.Thread(target=lambda: results.append(call(lam, Payload=json.dumps({"sleep": 1}))[1]["stream"])) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(set(results)) == 8, results

    for error, arguments in {
        "ResourceNotFoundException": {"FunctionName": "missing"},
        "InvalidRequestContentException": {"FunctionName": "flow", "Payload": b"{"},
    }.items():
        try:
            lam.invoke(**arguments)
        except lam.exceptions.ClientError as e:
            assert e.response["Error"]["Code"] == error, e
        else:
            raise AssertionError(error)
    try:
        lam.update_function_configuration(FunctionName="flow", RevisionId="00000000-0000-0000-0000-000000000000", Timeout=5)
    except lam.exceptions.PreconditionFailedException as e:
        assert "Revision Id" in str(e), e
    else:
        raise AssertionError("an outdated revision id was accepted")

    version = lam.publish_version(FunctionName="flow")["Version"]
    assert version == "1" and lam.publish_version(FunctionName="flow")["Version"] == "1", "an unchanged function was published twice"
    lam.get_waiter("published_version_active").wait(FunctionName="flow", Qualifier="1")
    assert lam.invoke(FunctionName="flow", Qualifier="1")["ExecutedVersion"] == "1"

    events = [e["message"] for p in logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/flow") for e in p["events"]]
    for want in ("INIT_START", "START RequestId", "END RequestId", "REPORT RequestId", "Task timed out after 2.00 seconds"):
        assert any(want in e for e in events), (want, events[-20:])
    streams = logs.describe_log_streams(logGroupName="/aws/lambda/flow")["logStreams"]
    assert any(s["logStreamName"] == first["stream"] for s in streams), streams
    lines = logs.get_log_events(logGroupName="/aws/lambda/flow", logStreamName=first["stream"], startFromHead=True)["events"]
    assert lines[0]["message"].startswith("INIT_START"), lines[0]

    lam.delete_function(FunctionName="flow")
    print("ok")


main()
