"""Clients for killloop_test.go: each thread invokes the function again and again until it is told to stop.
Every call asks for leave first, so that the test knows which calls are in flight when it kills a process:

    ->  "begin CLIENT"                  a call is to be made
    <-  "go CLIENT" or "stop CLIENT"
    ->  "end CLIENT RETRIES ok WHY"     it was answered rightly, after attempts that failed
     or "end CLIENT RETRIES failed WHY" after its last attempt the standard mode would have tried again
     or "end CLIENT RETRIES final WHY"  nothing would have helped
"""
import hashlib
import json
import queue
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.retries.standard import TransientRetryableChecker

NAME, FIRST, CLIENTS, ATTEMPTS = sys.argv[1], *map(int, sys.argv[2:])
leaves = {client: queue.SimpleQueue() for client in range(FIRST, FIRST + CLIENTS)}
speaking = threading.Lock()


def say(*words):
    with speaking:
        print(*words, flush=True)


def call(lam, client, count):
    # Every fourth event takes many packets, so that a kill can meet it on its way.
    event = {"client": client, "count": count, "padding": "x" * (300_000 if count % 4 == 0 else 10)}
    answer = lam.invoke(FunctionName=NAME, Payload=json.dumps(event))
    body = json.loads(answer["Payload"].read())
    want = [client, count, hashlib.sha256(event["padding"].encode()).hexdigest()]
    if "FunctionError" in answer or body != want:
        raise AssertionError(f"answer {body}, want {want}")
    return answer["ResponseMetadata"]["RetryAttempts"]


def transient(e):
    """Whether the standard mode tries again after e: the classes and status codes are its own."""
    if isinstance(e, ClientError):
        return e.response["ResponseMetadata"]["HTTPStatusCode"] in TransientRetryableChecker._TRANSIENT_STATUS_CODES
    return isinstance(e, TransientRetryableChecker._TRANSIENT_EXCEPTION_CLS)


def run(client):
    # 3 attempts are the default of this mode; the control has 1.
    lam = boto3.client("lambda", config=Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS}))
    attempts, count = [], 0

    def note(response, caught_exception, **_):
        outcome = caught_exception or response[1].get("Error") or "ok"
        attempts.append(f"{time.strftime('%H:%M:%S')} {outcome!r:.300}".replace("\n", " "))

    lam.meta.events.register("needs-retry.lambda.Invoke", note)
    while True:
        say("begin", client)
        if leaves[client].get() == "stop":
            return
        count += 1
        attempts.clear()
        try:
            retries = call(lam, client, count)
            say("end", client, retries, "ok", *attempts)
        except Exception as e:
            why = " ".join(f"{type(e).__name__}: {e}; attempts: {attempts}".split())
            say("end", client, max(len(attempts) - 1, 0), "failed" if transient(e) else "final", why)


threads = [threading.Thread(target=run, args=(client,)) for client in leaves]
[t.start() for t in threads]
for line in sys.stdin:
    word, client = line.split()
    leaves[int(client)].put(word)
[t.join() for t in threads]
