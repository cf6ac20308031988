"""Runs the official TypeScript client over streamable HTTP, with servers and gateways for it.

    http_typescript.py FOLDER
"""

import json
import subprocess
import sys
from pathlib import Path

from checks import ROOT, check
from http_gateway import ALLOW_ALL, TRANSPARENT, behind, compared, everything, own_server

FOLDER = Path(sys.argv[1])
POLICY = {
    "version": "1",
    "default": "allow",
    "hide": ["get-env", "delete_*"],
    "tools": {
        "echo": {"rate_limit": {"max": 5, "window": "hour"}},
        "get-structured-content": {"action": "deny", "reason": "No weather."},
        "get-tiny-image": {"action": "require_approval"},
        "sleep": {"limits": [{"counter": "asleep", "window": "in_flight", "max": 1, "scope": "grant"}]},
        "never": {"limits": [{"counter": "asleep", "window": "in_flight", "max": 1, "scope": "grant"}]},
    },
}


def main():
    with (
        everything() as all_of_it,
        own_server() as own,
        behind(FOLDER, all_of_it, POLICY) as (url, socket),
        behind(FOLDER, own, POLICY, "limits.timeout_seconds = 3") as (own_url, _),
        behind(FOLDER, all_of_it, ALLOW_ALL) as (open_url, _),
        behind(FOLDER, own, ALLOW_ALL) as (own_open_url, _),
    ):
        stage = {
            "url": url, "ownUrl": own_url, "socket": str(socket), "folder": str(FOLDER), "root": str(ROOT),
            "sessions": [
                {"name": "everything", "without": all_of_it, "with": open_url, "steps": TRANSPARENT["everything"]},
                {"name": "own", "without": own, "with": own_open_url, "steps": TRANSPARENT["own"]},
            ],
        }
        ran = subprocess.run(["node", Path(__file__).with_name("http_typescript.mjs"), json.dumps(stage)], timeout=150)
        check("the TypeScript client finds everything in order", ran.returncode == 0)
        for session in stage["sessions"]:
            recorded = json.loads((FOLDER / f"{session['name']}.json").read_text())
            bodies = ([body.encode() for body in recorded[part]] for part in ("without", "with"))
            compared(FOLDER, f"{session['name']}, TypeScript", *bodies)


main()
