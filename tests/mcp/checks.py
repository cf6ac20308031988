"""Shared by the Python clients: the programs, the operator's interface, and checks that stop at the
first failure.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ["CARGO_TARGET_DIR"]) / os.environ["GATEWAYS"]
EXAMPLES = TARGET / "examples"
GATEWAY = str(TARGET / "toolgate-gateway")
SERVER = str(EXAMPLES / "mcp_server")
MODULES = ROOT / "target" / "mcp" / "node_modules" / "@modelcontextprotocol"
SCRIPTS = Path(sys.executable).parent

FILESYSTEM = ["node", str(MODULES / "server-filesystem" / "dist" / "index.js")]
EVERYTHING = ["node", str(MODULES / "server-everything" / "dist" / "index.js"), "stdio"]
GIT = [str(SCRIPTS / "mcp-server-git")]
TIME = [str(SCRIPTS / "mcp-server-time"), "--local-timezone", "UTC"]


def check(what, holds, seen=None):
    if not holds:
        sys.exit(f"NOT ok - {what}: {seen!r}")
    print(f"ok - {what}", flush=True)


def text(result):
    return result.content[0].text


def refused(result, label):
    return result.is_error and text(result).startswith(f"[{label}] ")


def operator(socket, path, body=None):
    """Asks the operator's interface. Returns the answer, or fails with its error."""
    command = ["curl", "-sS", "--fail-with-body", "-m", "30", "--unix-socket", str(socket)]
    command += ["-H", "X-Toolgate-Operator: 1", f"http://localhost{path}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    check(f"the operator's interface answers {path.split('/')[2]}", ran.returncode == 0, ran.stdout + ran.stderr)
    return json.loads(ran.stdout)


def approve_the_oldest(socket):
    """A person at a second terminal looks, and approves."""
    request = operator(socket, "/api/approvals")[0]
    check("the request waits for a person", bool(request["reason"]), request)
    answered = operator(socket, f"/api/approvals/{request['id']}/approve", {"by": "bob"})
    check("a person approves it", answered["state"] == "approved", answered)
