"""Shared by the HTTP clients: a gateway with two grants, and the servers behind it."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

from checks import EXAMPLES, GATEWAY, MODULES, ROOT, check

ALLOW_ALL = {"version": "1", "default": "allow"}
# Calls that show that nothing changes on the way. The answers are the same every time.
TRANSPARENT = {
    "everything": [
        ("echo", {"message": "ä\u2028 x"}), ("get-sum", {"a": 0.1, "b": 2}), ("get-tiny-image", {}),
        ("get-sum", {"a": "x"}),
        ("get-structured-content", {"location": "New York"}), ("get-resource-links", {"count": 3}),
        ("get-annotated-message", {"messageType": "error"}), ("no_such_tool", {}),
    ],
    "own": [
        ("add", {"a": 1, "b": 2}), ("echo", {"text": "\u0000\U0001f600"}), ("large", {"bytes": 2_000_000}),
        ("fail", {}), ("sleep", {"ms": 20}), ("unknown_method", {}),
    ],
}
TOKENS = {"ann": "token-of-ann", "former": "token-of-former"}


@contextmanager
def running(command, log, **options):
    with open(log, "ab") as errors:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, **options)
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(20)
        except subprocess.TimeoutExpired:
            program.kill()


def listening(log, program):
    """Returns the address at which a program listens."""
    for _ in range(600):
        if found := re.search(r"listening on (http://\S+)", log.read_text()):
            return found[1]
        if program.poll() is not None:
            break
        time.sleep(0.05)
    check("the program listens", False, log.read_text())


@contextmanager
def behind(folder, upstream, policy, *options):
    """Runs a gateway in front of a server. Yields its URL and the operator's socket."""
    place = folder / f"gateway-{time.monotonic_ns()}"
    place.mkdir()
    (place / "policy.json").write_text(json.dumps(policy))
    log, socket = place / "errors.log", place / "operator"
    config = [
        'listen = "127.0.0.1:0"',
        f'servers.upstream.url = "{upstream}"',
        f'operator.listen = "unix:{socket}"',
        'policies.p = "policy.json"',
        *options,
    ]
    for name, token in TOKENS.items():
        digest = hashlib.sha256(token.encode()).hexdigest()
        config += [f"[grants.{name}]", 'policy = "p"', f'token_sha256 = ["{digest}"]']
    config.append('expires_at = "2026-01-01T00:00:00Z"')
    (place / "gateway.toml").write_text("\n".join(config))
    with running([GATEWAY, "http", "--config", place / "gateway.toml"], log) as gateway:
        yield listening(log, gateway), socket


@contextmanager
def own_server(*options):
    log = EXAMPLES / f"upstream-{os.getpid()}-{time.monotonic_ns()}.log"
    with running([EXAMPLES / "mcp_http_upstream", "--listen", "127.0.0.1:0", *options], log) as server:
        yield listening(log, server)
    log.unlink()


@contextmanager
def on_free_port(command, log):
    """Runs a server on a port that was free a moment ago. `command` gets the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running(command(port), log):
        for _ in range(600):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"


def conformance_server(log):
    script = ROOT / "tests" / "mcp" / "conformance_server.py"
    return on_free_port(lambda port: [sys.executable, script, str(port)], log)


@contextmanager
def everything():
    """Runs the reference server with everything in it."""
    server = MODULES / "server-everything" / "dist" / "index.js"
    log = EXAMPLES / f"everything-{os.getpid()}-{time.monotonic_ns()}.log"
    with on_free_port(lambda port: ["env", f"PORT={port}", "node", server, "streamableHttp"], log) as url:
        yield url
    log.unlink()


def messages(body):
    """Returns the messages in the body of an answer: the data of its events, or all of it."""
    text = body.decode()
    if not text.lstrip().startswith(("event:", "data:", "id:", ":", "retry:")):
        return [text] if text.startswith("{") else []
    events = re.split(r"\r?\n\r?\n", text)
    lines = ([line for line in re.split(r"\r?\n", event) if line.startswith("data:")] for event in events)
    data = ("\n".join(line[5:].strip() for line in event) for event in lines)
    return [message for message in data if message]


def compared(folder, name, without, through):
    """Compares two sessions, as lists of the bodies of all answers.

    The ids of events and sessions are random.

    `notifications/tools/list_changed` is left out: "everything" sends it as soon as the client is
    initialized, while the client opens the stream that carries it. Either can be first.
    """
    logs = [folder / f"{name}.{part}" for part in ("without", "with")]
    for log, bodies in zip(logs, (without, through)):
        lines = [message.replace("\n", " ") for body in bodies for message in messages(body)]
        lines = [line for line in lines if json.loads(line).get("method") != "notifications/tools/list_changed"]
        log.write_text("".join(f"{line}\n" for line in lines))
    command = [sys.executable, ROOT / "tests" / "mcp" / "compare.py", *logs]
    ran = subprocess.run(command, capture_output=True, text=True)
    check(f"{name}: {ran.stdout.removeprefix('ok - ').strip()}", ran.returncode == 0, ran.stderr)
