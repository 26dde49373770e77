"""A function on AWS's Python runtime client, for the tests of package runtimeapi."""


def handle(event, context):
    if "fail" in event:
        raise ValueError(event["fail"])
    if "size" in event:
        return "x" * (event["size"] - 2)
    if "context" in event:
        client = context.client_context
        return {
            "id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "client": client.custom if client else None,
            "left": context.get_remaining_time_in_millis(),
        }
    return event.get("echo")
