"""A function that misbehaves as its event tells it to, where that depends on the language."""

import os
import signal
import sys
import time


def recurse(n):
    return recurse(n + 1) + 1


def handler(event, context):
    do = event["do"]
    if do == "os._exit":
        os._exit(3)
    if do == "sys.exit":
        sys.exit(7)
    if do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "memory":
        return len(b"x" * (1 << 30))
    if do == "large":
        return "x" * (6 * 1024 * 1024 + 101)
    if do == "hang":
        time.sleep(60)
    if do == "recursion":
        return recurse(0)
    if do == "close all":
        os.closerange(3, 1024)
    if do == "no output":
        os.closerange(1, 3)
    if do == "fork":
        os.fork()
    if do == "write":
        open("/tmp/mark", "w").write("here")
    if do == "look":
        return os.path.exists("/tmp/mark")
    return True
