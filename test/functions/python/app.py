"""Counts its invocations: the second one in the same environment answers 2."""
import os
import platform

count = 0


def handler(event, context):
    global count
    count += 1
    print("hello from", context.function_name)
    return {
        "greeting": f"Hello, {event.get('name', 'world')}, from Python {platform.python_version()}",
        "invocation": count,
        "environment": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"][-8:],
    }
