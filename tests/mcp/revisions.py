"""Every revision of the protocol, over both transports, with the official client and server.

    revisions.py FOLDER

The conformance suite itself asks for 2025-11-25 in most scenarios of the older revisions.
"""

import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import mcp_types as types
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from checks import GATEWAY, check, refused
from http_gateway import ALLOW_ALL, behind, conformance_server

FOLDER = Path(sys.argv[1])
POLICY = {"version": "1", "default": "allow", "hide": ["test_audio_content"], "tools": {
    "test_image_content": {"action": "deny", "reason": "No pictures."},
}}
CALLS = [
    ("test_simple_text", {}), ("test_image_content", {}), ("test_audio_content", {}), ("test_error_handling", {}),
    ("test_multiple_content_types", {}), ("test_argument_in_header", {"region": "eu"}), ("test_tool_with_progress", {}),
]
# In the middle of these calls, the server asks the client. `rounds.py` has those of 2026-07-28.
ASKING = [("test_tool_with_logging", {}), ("test_sampling", {"prompt": "Why?"})]
ELICITING = [("test_elicitation", {"message": "Who?"})]
CALLS_OF = {
    "2025-03-26": CALLS + ASKING,
    "2025-06-18": CALLS + ASKING + ELICITING,
    "2025-11-25": CALLS + ASKING + ELICITING,
    "2026-07-28": CALLS,
}


async def sample(context, params):
    return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="so"), model="none")


async def elicit(context, params):
    return types.ElicitResult(action="accept", content={"username": "ann", "email": "ann@example.com"})


async def begin(session, revision):
    """Agrees on a revision. `ClientSession.initialize` asks for 2025-11-25."""
    if revision >= "2026-07-28":
        await session.discover()
        return
    capabilities = types.ClientCapabilities(sampling={}, elicitation={})
    client = types.Implementation(name="revisions", version="1")
    params = types.InitializeRequestParams(protocol_version=revision, capabilities=capabilities, client_info=client)
    result = await session.send_request(types.InitializeRequest(params=params), types.InitializeResult)
    session.adopt(result)
    await session.send_notification(types.InitializedNotification())


async def visit(session, revision, logged):
    """Returns all that the server has answered."""
    progress = []

    async def report(*reported):
        progress.append(reported)

    await begin(session, revision)
    answers = [(await session.list_tools()).tools]
    for name, arguments in CALLS_OF[revision]:
        answers.append(await session.call_tool(name, arguments, progress_callback=report))
    answers += [await session.read_resource("test://static-binary"), await session.get_prompt("test_simple_prompt")]
    check(f"{revision}: agreed", session.protocol_version == revision, session.protocol_version)
    check(f"{revision}: progress", [done for done, *_ in progress] == [0, 50, 100], progress)
    check(f"{revision}: messages", len(logged) == (3 if revision < "2026-07-28" else 0), logged)
    return answers


@asynccontextmanager
async def over_stdio(policy):
    server = [sys.executable, str(Path(__file__).with_name("conformance_server.py"))]
    if policy is not None:
        file = FOLDER / "policy.json"
        file.write_text(json.dumps(policy))
        server = [GATEWAY, "stdio", "--policy", str(file), "--grant", "ann", "--", *server]
    with open(FOLDER / "errors.log", "a", encoding="utf-8") as errors:
        async with stdio_client(StdioServerParameters(command=server[0], args=server[1:]), errlog=errors) as streams:
            yield streams


@asynccontextmanager
async def over_http(url):
    headers = {"Authorization": "Bearer token-of-ann"}
    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30)) as http:
        async with streamable_http_client(url, http_client=http) as streams:
            yield streams


@asynccontextmanager
async def connected(transport):
    logged = []

    async def note(params):
        logged.append(params.data)

    callbacks = {"sampling_callback": sample, "elicitation_callback": elicit, "logging_callback": note}
    async with transport as streams, ClientSession(*streams[:2], **callbacks) as session:
        yield session, logged


async def tried(name, connect, places):
    """Compares a session without and with a gateway that allows everything; then lets it refuse."""
    without, open_gateway, gateway = places
    for revision in CALLS_OF:
        answers = []
        for place in without, open_gateway:
            async with connected(connect(place)) as (session, logged):
                answers.append(await visit(session, revision, logged))
        for one, other in zip(*answers, strict=True):
            check(f"{name}, {revision}: an equal answer", one == other, (one, other))
        async with connected(connect(gateway)) as (session, _):
            await begin(session, revision)
            tools = [tool.name for tool in (await session.list_tools()).tools]
            check(f"{name}, {revision}: hidden", "test_audio_content" not in tools and len(tools) > 20, tools)
            result = await session.call_tool("test_image_content", {})
            has_facts = result.structured_content is not None
            check(f"{name}, {revision}: denied", refused(result, "POLICY DENIED"), result)
            check(f"{name}, {revision}: facts from 2025-06-18 on", has_facts == (revision >= "2025-06-18"), result)


async def main():
    await tried("stdio", over_stdio, [None, ALLOW_ALL, POLICY])
    with (
        conformance_server(FOLDER / "errors.log") as url,
        behind(FOLDER, url, ALLOW_ALL) as (open_url, _),
        behind(FOLDER, url, POLICY) as (own_url, _),
    ):
        await tried("HTTP", over_http, [url, open_url, own_url])


anyio.run(main)
