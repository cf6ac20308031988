"""Tools that ask the user, through the gateway, with the official client and server of both eras.

    rounds.py FOLDER
"""

import json
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from checks import GATEWAY, approve_the_oldest, check, refused, text
from http_gateway import behind, on_free_port

FOLDER = Path(sys.argv[1])
SERVER = [sys.executable, str(Path(__file__).with_name("asking_server.py"))]
PAGE = "https://approvals.example/{id}"
POLICY = {"version": "1", "default": "allow", "tools": {
    "approved": {"action": "require_approval"},
    "daily": {"limits": [{"counter": "daily", "window": "day", "max": 1, "scope": "grant"}]},
    "budget": {"limits": [
        {"counter": "budget", "window": "day", "max": 100, "scope": "grant", "amount_from": "args.amount"},
        {"counter": "at once", "window": "in_flight", "max": 1, "scope": "grant"},
    ]},
}}
# The server asks under a name of its own, so the rule looks at every answer.
JUDGED = {"deny_if": [{
    "conditions": [{"path": "input.*.content.yes", "op": "eq", "value": False}], "on_deny": "Nobody is sure.",
}]}


@asynccontextmanager
async def over_stdio(mode, answer, **tools):
    place = FOLDER / f"stdio-{time.monotonic_ns()}"
    place.mkdir()
    (place / "policy.json").write_text(json.dumps({**POLICY, "tools": {**POLICY["tools"], **tools}}))
    socket = place / "operator"
    options = ["--policy", place / "policy.json", "--grant", "ann", "--operator", f"unix:{socket}"]
    command = [GATEWAY, "stdio", *options, "--approval-page", PAGE, "--", *SERVER]
    parameters = StdioServerParameters(command=command[0], args=[str(word) for word in command[1:]], cwd=place)
    with open(FOLDER / "errors.log", "a", encoding="utf-8") as errors:
        async with Client(stdio_client(parameters, errlog=errors), mode=mode, elicitation_callback=answer) as client:
            yield client, socket


@asynccontextmanager
async def over_http(mode, answer, **tools):
    policy = {**POLICY, "tools": {**POLICY["tools"], **tools}}
    with (
        on_free_port(lambda port: [*SERVER, str(port)], FOLDER / "errors.log") as upstream,
        behind(FOLDER, upstream, policy, f'approvals.page = "{PAGE}"') as (url, socket),
    ):
        headers = {"Authorization": "Bearer token-of-ann"}
        async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30)) as http:
            transport = streamable_http_client(url, http_client=http)
            async with Client(transport, mode=mode, elicitation_callback=answer) as client:
                yield client, socket


async def asked(name, connect, mode):
    """One call is one charge and one approval, in how many rounds the server may ask."""
    questions = []

    async def sure(context, params):
        questions.append(params)
        return ElicitResult(action="accept", content={"yes": True})

    async with connect(mode, sure) as (client, socket):
        async def call(tool, amount):
            return await client.call_tool(tool, {"amount": amount})

        check(f"{name}: the version", (client.protocol_version >= "2026-07-28") == (mode == "auto"),
              client.protocol_version)
        result = await call("refund", 5)
        check(f"{name}: the user is asked", text(result) == "refunded 5: True" and len(questions) == 1, result)
        for _ in range(3):
            result = await call("daily", 7)
        check(f"{name}: one of one a day", refused(result, "RATE LIMITED"), result)
        check(f"{name}: the user was asked for the one", len(questions) == 2, questions)
        for amount, passes in (40, True), (40, True), (40, False), (20, True):
            result = await call("budget", amount)
            check(f"{name}: {amount} of a budget of 100", passes != result.is_error, result)
        for number in range(2):
            questions.clear()
            if mode == "auto":
                # The client can show the page, and its own answer does not approve the call.
                before = anyio.current_time()
                with anyio.move_on_after(5):
                    await client.session.call_tool("approved", {"amount": number}, allow_input_required=True)
                check(f"{name}: answered at once", anyio.current_time() - before < 5)
            else:
                result = await call("approved", number)
                check(f"{name}: needs approval", refused(result, "APPROVAL REQUIRED"), result)
            approve_the_oldest(socket)
            result = await call("approved", number)
            check(f"{name}: approved once for all rounds", text(result) == f"refunded {number}: True", result)

    async def unsure(context, params):
        return ElicitResult(action="accept", content={"yes": False})

    if mode == "auto":
        async with connect(mode, unsure, judged=JUDGED) as (client, _):
            result = await client.call_tool("judged", {"amount": 1})
            check(f"{name}: the user's answer is judged", text(result) == "[POLICY DENIED] Nobody is sure.", result)


async def page(name, connect):
    """A client that can show a page waits there until a person has approved the call."""
    pages = []
    sockets_of = []

    async def opened(context, params):
        if params.mode == "url":
            pages.append(params.url)
            if len(pages) == 2:
                await anyio.to_thread.run_sync(approve_the_oldest, sockets_of[0])
            return ElicitResult(action="accept")
        return ElicitResult(action="accept", content={"yes": True})

    async with connect("auto", opened) as (client, socket):
        sockets_of.append(socket)
        result = await client.call_tool("approved", {"amount": 3})
        check(f"{name}: passes once it is approved", text(result) == "refunded 3: True", result)
        check(f"{name}: the same page until then", len(pages) == 2 and pages[0] == pages[1], pages)
        check(f"{name}: the host's page", pages[0].startswith("https://approvals.example/"), pages)


async def main():
    for transport, connect in ("stdio", over_stdio), ("HTTP", over_http):
        for era, mode in ("2026-07-28", "auto"), ("an older version", "legacy"):
            with anyio.fail_after(90):
                await asked(f"{transport}, {era}", connect, mode)
        with anyio.fail_after(90):
            await page(f"{transport}, page", connect)


anyio.run(main)
