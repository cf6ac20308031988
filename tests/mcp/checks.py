"""What the Python clients share: the gateway's command, the admin client, and checks that stop at the first failure."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "target" / os.environ["GATEWAYS"] / "examples"
GATEWAY = str(EXAMPLES / "mcp_stdio_gateway")
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


def admin(socket, *command):
    ran = subprocess.run([GATEWAY, "admin", str(socket), *command], capture_output=True, text=True, timeout=30)
    return ran.returncode, ran.stdout + ran.stderr


def approve_the_oldest(socket):
    """What a person does at a second terminal: look, and approve."""
    code, pending = admin(socket, "pending")
    request = pending.splitlines()[0]
    check("the request waits for a person", code == 0 and "reason" in pending, pending)
    code, said = admin(socket, "approve", request, "--by", "bob")
    check("a person approves it", code == 0 and "is approved" in said, said)
