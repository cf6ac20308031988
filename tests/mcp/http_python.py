"""The official Python client, over streamable HTTP, through the gateway to a real server.

    http_python.py FOLDER
"""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CreateMessageResult, TextContent

from checks import ROOT, approve_the_oldest, check, refused, text
from http_gateway import ALLOW_ALL, TRANSPARENT, behind, compared, everything, own_server

FOLDER = Path(sys.argv[1])


class Recording(httpx2.AsyncHTTPTransport):
    """Records the body of every answer, byte for byte."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        response.stream = Recorded(response.stream, self.log)
        return response


class Recorded(httpx2.AsyncByteStream):
    def __init__(self, stream, log):
        self.stream, self.body, self.log = stream, b"", log

    async def __aiter__(self):
        async for part in self.stream:
            self.body += part
            yield part

    async def aclose(self):
        self.log.append(self.body)
        await self.stream.aclose()


@asynccontextmanager
async def connect(url, token="token-of-ann", log=None, **callbacks):
    headers = {"Authorization": f"Bearer {token}"}
    transport = None if log is None else Recording(log)
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30), transport=transport) as http:
        async with streamable_http_client(url, http_client=http, max_sse_event_size=1 << 25) as streams:
            async with ClientSession(*streams[:2], **callbacks) as session:
                yield session


POLICY = {
    "version": "1",
    "default": "allow",
    "hide": ["get-env", "delete_*"],
    "tools": {
        "echo": {"rate_limit": {"max": 5, "window": "hour"}},
        "get-sum": {
            "deny_if": [{"conditions": [{"path": "args.a", "op": "gt", "value": 1000}], "on_deny": "Too large."}],
        },
        "get-tiny-image": {"action": "require_approval", "reason": "Pictures are looked at by a person."},
        "trigger-long-running-operation": {
            "limits": [{"counter": "long", "window": "in_flight", "max": 2, "scope": "grant"}],
        },
        "sleep": {"limits": [{"counter": "asleep", "window": "in_flight", "max": 1, "scope": "grant"}]},
        "never": {"limits": [{"counter": "asleep", "window": "in_flight", "max": 1, "scope": "grant"}]},
    },
}


async def real_server():
    async def sample(context, params):
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text="sampled"), model="none")

    received = []

    async def logged(params):
        received.append(params)

    with everything() as server, behind(FOLDER, server, POLICY) as (url, socket):
        async with connect(url, sampling_callback=sample, logging_callback=logged) as session:
            initialized = await session.initialize()
            check("everything: initialize", "everything" in initialized.server_info.name, initialized)
            await anyio.sleep(0.5)
            tools = [tool.name for tool in (await session.list_tools()).tools]
            check("everything: the hidden are gone", "echo" in tools and "get-env" not in tools, tools)
            result = await session.call_tool("get-sum", {"a": 2, "b": 3})
            check("everything: allowed", not result.is_error and "5" in text(result), result)
            result = await session.call_tool("get-sum", {"a": 2000, "b": 3})
            check("everything: denied", text(result) == "[POLICY DENIED] Too large.", result)
            result = await session.call_tool("get-env", {})
            check("everything: hidden", refused(result, "POLICY DENIED"), result)
            result = await session.call_tool("get-tiny-image", {})
            check("everything: needs approval", refused(result, "APPROVAL REQUIRED"), result)
            approve_the_oldest(socket)
            result = await session.call_tool("get-tiny-image", {})
            check("everything: approved", not result.is_error and len(result.content) > 1, result)
            result = await session.call_tool("get-tiny-image", {})
            check("everything: approved once", refused(result, "APPROVAL REQUIRED"), result)
            allowed = 0
            for number in range(6):
                result = await session.call_tool("echo", {"message": f"{number}"})
                allowed += not result.is_error
            check("everything: rate-limited", allowed == 5 and refused(result, "RATE LIMITED"), (allowed, result))
            reported = []

            async def progress(done, total, message):
                reported.append(done)

            operation = {"duration": 1, "steps": 4}
            await session.call_tool("trigger-long-running-operation", operation, progress_callback=progress)
            check("everything: progress", reported == [1, 2, 3, 4], reported)
            result = await session.call_tool("trigger-sampling-request", {"prompt": "x", "maxTokens": 10})
            check("everything: the server asks the client", "sampled" in text(result), result)
            await session.call_tool("toggle-simulated-logging", {})
            with anyio.fail_after(30):
                while not received:
                    await anyio.sleep(0.1)
            check("everything: notifications on the stream that listens", True)
            outcomes = []

            async def add(number):
                result = await session.call_tool("get-sum", {"a": number, "b": 1})
                outcomes.append(f" {number + 1}" in text(result) and not result.is_error)

            async with anyio.create_task_group() as group:
                for number in range(32):
                    group.start_soon(add, number)
            check("everything: concurrent calls", outcomes == [True] * 32, outcomes)
            check("everything: resources", len((await session.list_resources()).resources) > 0)
            check("everything: prompts", len((await session.list_prompts()).prompts) > 0)

        refusal = None
        try:
            async with connect(url, token="of-nobody") as session:
                await session.initialize()
        except Exception as error:
            refusal = error
        check("a token of nobody gets nowhere", refusal is not None)
        async with connect(url, token="token-of-former") as session:
            await session.initialize()
            result = await session.call_tool("get-sum", {"a": 1, "b": 1})
            reason = refused(result, "POLICY DENIED") and "expired" in text(result)
            check("an expired grant learns the reason", reason, result)
            check("an expired grant sees no tools", (await session.list_tools()).tools == [])


async def own():
    with own_server() as server, behind(FOLDER, server, POLICY, "limits.timeout_seconds = 3") as (url, _):
        async with connect(url) as session:
            await session.initialize()
            result = await session.call_tool("large", {"bytes": 10_000_000})
            check("own server: a large result", len(text(result)) == 10_000_000)
            with anyio.move_on_after(0.5):
                await session.call_tool("never", {})
            result = await session.call_tool("sleep", {"ms": 1})
            check("own server: a cancelled call may still run", refused(result, "RATE LIMITED"), result)
            await anyio.sleep(3)
            result = await session.call_tool("sleep", {"ms": 10})
            check("own server: it is given up after the timeout", text(result) == "slept", result)


async def transparency():
    """Compares the same session without and with a gateway that allows everything."""
    for name, start in ("everything", everything), ("own", own_server), ("own, JSON", lambda: own_server("--json")):
        bodies = []
        with start() as server, behind(FOLDER, server, ALLOW_ALL) as (url, _):
            for address in server, url:
                bodies.append([])
                async with connect(address, log=bodies[-1]) as session:
                    await session.initialize()
                    await session.list_tools()
                    for tool, arguments in TRANSPARENT["everything" if name == "everything" else "own"]:
                        try:
                            await session.call_tool(tool, arguments)
                        except Exception as error:
                            print(f"# {tool}: {error}")
                    await session.send_ping()
        compared(FOLDER, f"{name}, Python", *bodies)


async def main():
    for part in real_server, own, transparency:
        with anyio.fail_after(120):
            await part()


anyio.run(main)
