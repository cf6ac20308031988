"""The official Python client behind the gateway, in front of real servers, over stdio.

    stdio.py FOLDER
"""

import json
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from mcp.client.client import Client
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CreateMessageResult, TextContent

from checks import (
    EVERYTHING, FILESYSTEM, GATEWAY, GIT, ROOT, SERVER, TIME, approve_the_oldest, check, operator, refused, text,
)

FOLDER = Path(sys.argv[1])
ALLOW_ALL = '{ "version": "1", "default": "allow" }'


@asynccontextmanager
async def connect(command, **callbacks):
    parameters = StdioServerParameters(command=command[0], args=[str(word) for word in command[1:]], cwd=FOLDER)
    with open(FOLDER / "errors.log", "a", encoding="utf-8") as errors:
        async with stdio_client(parameters, errlog=errors) as (read, write):
            async with ClientSession(read, write, **callbacks) as session:
                yield session


def behind(policy, server, *options):
    """The command of a gateway in front of a server, with the policy as text or in a file."""
    if not isinstance(policy, Path):
        file = FOLDER / f"policy-{abs(hash(policy))}.json"
        file.write_text(policy)
        policy = file
    return [GATEWAY, "stdio", "--policy", policy, "--grant", "g-42", "--user", "ann", *options, "--", *server]


async def filesystem():
    files = FOLDER / "files"
    files.mkdir()
    (files / "a.txt").write_text("hello ä\n")
    (files / ".env").write_text("SECRET=1")
    (files / "large.txt").write_text("line of text\n" * 250_000)
    socket = FOLDER / "files.sock"
    policy = ROOT / "examples" / "data" / "mcp-filesystem.json"
    command = behind(policy, [*FILESYSTEM, files], "--server", "files", "--operator", f"unix:{socket}")
    async with connect(command) as session:
        initialized = await session.initialize()
        check("filesystem: initialize", initialized.server_info.name == "secure-filesystem-server", initialized)
        tools = [tool.name for tool in (await session.list_tools()).tools]
        check("filesystem: the hidden and the unlisted are gone", "read_text_file" in tools and "write_file" in tools
              and "move_file" not in tools, tools)
        result = await session.call_tool("read_text_file", {"path": str(files / "a.txt")})
        check("filesystem: allowed", not result.is_error and text(result) == "hello ä\n", result)
        result = await session.call_tool("read_text_file", {"path": str(files / "large.txt")})
        check("filesystem: a large result", text(result) == "line of text\n" * 250_000, len(text(result)))
        result = await session.call_tool("read_text_file", {"path": str(files / ".env")})
        check("filesystem: denied", text(result) == "[POLICY DENIED] Files with secrets are not read.", result)
        result = await session.call_tool("read_multiple_files", {"paths": [str(files / "a.txt"), str(files / ".env")]})
        check("filesystem: denied for one of several", refused(result, "POLICY DENIED"), result)
        result = await session.call_tool("move_file", {"source": str(files / "a.txt"), "destination": str(files / "b")})
        check("filesystem: hidden", refused(result, "POLICY DENIED") and (files / "a.txt").exists(), result)

        new = {"path": str(files / "new.txt"), "content": "written"}
        result = await session.call_tool("write_file", new)
        check("filesystem: a write needs approval", refused(result, "APPROVAL REQUIRED"), result)
        check("filesystem: nothing is written before", not (files / "new.txt").exists())
        approve_the_oldest(socket)
        result = await session.call_tool("write_file", {**new, "content": "something else"})
        check("filesystem: not for other arguments", refused(result, "APPROVAL REQUIRED"), result)
        result = await session.call_tool("write_file", new)
        check("filesystem: approved", not result.is_error and (files / "new.txt").read_text() == "written", result)
        result = await session.call_tool("write_file", new)
        check("filesystem: approved once", refused(result, "APPROVAL REQUIRED"), result)

        outcomes = []

        async def read(number):
            (files / f"{number}.txt").write_text(f"number {number}")
            result = await session.call_tool("read_text_file", {"path": str(files / f"{number}.txt")})
            outcomes.append(text(result) == f"number {number}")

        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(read, number)
        check("filesystem: concurrent calls", outcomes == [True] * 16, outcomes)

        allowed = 0
        for _ in range(31):
            result = await session.call_tool("list_directory", {"path": str(files)})
            allowed += not result.is_error
        check("filesystem: rate-limited", allowed == 30 and refused(result, "RATE LIMITED"), (allowed, result))
        limits = operator(socket, "/api/callers")["callers"][0]["limits"]
        used = {limit["counter"]: (float(limit["used"]), float(limit["max"])) for limit in limits}
        check("filesystem: usage", used["list_*_rate"] == (30, 30) and used["reading"] == (0, 16), limits)
    check("filesystem: the socket goes with the client", not socket.exists())


async def git():
    repository = FOLDER / "repository"

    def run(*words):
        return subprocess.run(["git", "-C", repository, *words], check=True, capture_output=True, text=True).stdout

    subprocess.run(["git", "init", "-q", repository], check=True)
    run("config", "user.name", "test")
    run("config", "user.email", "test@example.com")
    (repository / "a").write_text("a\n")
    run("add", "a")
    run("commit", "-qm", "First")
    (repository / "b").write_text("b\n")
    policy = json.dumps({"version": "1", "default": "deny", "tools": {
        "git_status": {}, "git_log": {}, "git_show": {}, "git_diff*": {},
        "git_add": {"action": "deny", "reason": "Nothing is staged."},
    }})
    async with connect(behind(policy, [*GIT, "--repository", repository])) as session:
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        check("git: listed", "git_log" in tools and "git_commit" not in tools, tools)
        result = await session.call_tool("git_log", {"repo_path": str(repository)})
        check("git: allowed", not result.is_error and "First" in text(result), result)
        for tool, arguments in ("git_add", {"files": ["b"]}), ("git_commit", {"message": "x"}), ("git_reset", {}):
            result = await session.call_tool(tool, {"repo_path": str(repository), **arguments})
            check(f"git: {tool} is denied", refused(result, "POLICY DENIED"), result)
    unchanged = run("log", "--oneline").count("\n") == 1 and run("diff", "--cached") == ""
    check("git: the repository has not changed", unchanged)


async def time():
    policy = json.dumps({"version": "1", "default": "allow", "tools": {
        "get_current_time": {"limits": [{"counter": "looks", "window": "day", "max": 2, "scope": "grant"}]},
        "convert_time": {"deny_if": [{"conditions": [{"path": "args.target_timezone", "op": "eq", "value": "UTC"}]}]},
    }})
    async with connect(behind(policy, TIME)) as session:
        await session.initialize()
        for _ in range(2):
            result = await session.call_tool("get_current_time", {"timezone": "UTC"})
            check("time: allowed", not result.is_error and "datetime" in text(result), result)
        result = await session.call_tool("get_current_time", {"timezone": "UTC"})
        check("time: rate-limited", refused(result, "RATE LIMITED"), result)
        convert = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "UTC"}
        result = await session.call_tool("convert_time", convert)
        check("time: denied by an argument", refused(result, "POLICY DENIED"), result)
        result = await session.call_tool("convert_time", {**convert, "target_timezone": "Europe/Paris"})
        check("time: allowed by another", not result.is_error, result)


async def own_server():
    received = []

    async def hear(message):
        received.append(type(message).__name__)

    policy = json.dumps({"version": "1", "default": "allow", "tools": {
        "sleep": {"limits": [{"counter": "asleep", "window": "in_flight", "max": 1, "scope": "grant"}]},
    }})
    command = behind(policy, [SERVER, "--change-tools", "--junk"], "--timeout", "3", "--on-changed-tool", "deny")
    async with connect(command, message_handler=hear) as session:
        await session.initialize()
        await session.list_tools()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        check("own server: a changed tool is gone", "echo" not in tools and "add" in tools, tools)
        check("own server: list_changed is received", any("ToolListChanged" in name for name in received), received)
        reported = []

        async def progress(done, total, message):
            reported.append((done, total))

        result = await session.call_tool("sleep", {"ms": 200}, progress_callback=progress)
        check("own server: progress", text(result) == "slept" and reported == [(n, 10) for n in range(1, 11)], reported)
        with anyio.move_on_after(0.3):
            await session.call_tool("sleep", {"ms": 60_000})
        result = await session.call_tool("sleep", {"ms": 1})
        check("own server: a cancelled call may still run", refused(result, "RATE LIMITED"), result)
        facts = result.structured_content
        expected = ("limit", "/tools/sleep/limits/0")
        check("own server: the facts of a refusal", (facts["code"], facts["rule"]) == expected, facts)
        await anyio.sleep(3.2)
        result = await session.call_tool("sleep", {"ms": 1})
        check("own server: it is given up after the timeout", text(result) == "slept", result)
        try:
            result = await session.call_tool("never", {})
        except Exception as error:
            result = error
        check("own server: an answer that never comes", "may have been made" in str(result), result)


async def everything():
    async def sample(context, params):
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text="sampled"), model="none")

    policy = json.dumps({"version": "1", "default": "allow", "hide": ["get-env"]})
    async with connect(behind(policy, EVERYTHING), sampling_callback=sample) as session:
        await session.initialize()
        await anyio.sleep(0.5)
        tools = [tool.name for tool in (await session.list_tools()).tools]
        check("everything: listed", "echo" in tools and "get-env" not in tools, tools)
        result = await session.call_tool("get-env", {})
        check("everything: hidden", refused(result, "POLICY DENIED"), result)
        result = await session.call_tool("trigger-sampling-request", {"prompt": "x", "maxTokens": 10})
        check("everything: the server asks the client", "sampled" in text(result), result)
        reported = []

        async def progress(done, total, message):
            reported.append(done)

        operation = {"duration": 1, "steps": 4}
        await session.call_tool("trigger-long-running-operation", operation, progress_callback=progress)
        check("everything: progress", reported == [1, 2, 3, 4], reported)
        check("everything: resources", len((await session.list_resources()).resources) > 0)
        check("everything: prompts", len((await session.list_prompts()).prompts) > 0)


async def modern():
    """Uses the protocol of 2026-07-28, without `initialize`: each request names the version."""
    policy = json.dumps({"version": "1", "default": "deny", "tools": {"get_current_time": {
        "limits": [{"counter": "looks", "window": "day", "max": 2, "scope": "grant"}],
    }}})
    command = behind(policy, TIME)
    parameters = StdioServerParameters(command=command[0], args=[str(word) for word in command[1:]], cwd=FOLDER)
    async with Client(stdio_client(parameters, errlog=open(FOLDER / "errors.log", "a", encoding="utf-8"))) as client:
        check("modern: no handshake", client.protocol_version == "2026-07-28", client.protocol_version)
        tools = [tool.name for tool in (await client.list_tools()).tools]
        check("modern: listed", tools == ["get_current_time"], tools)
        for _ in range(2):
            result = await client.call_tool("get_current_time", {"timezone": "UTC"})
            check("modern: allowed", not result.is_error, result)
        result = await client.call_tool("get_current_time", {"timezone": "UTC"})
        check("modern: rate-limited", refused(result, "RATE LIMITED"), result)
        result = await client.call_tool("convert_time", {})
        check("modern: denied", refused(result, "POLICY DENIED"), result)
        check("modern: the facts of a refusal", result.structured_content["code"] == "default_deny", result)


async def recorded(log, server, steps):
    record = [sys.executable, ROOT / "tests" / "mcp" / "record.py", log]
    async with connect([*record, *server]) as session:
        await session.initialize()
        await session.list_tools()
        for tool, arguments in steps:
            try:
                await session.call_tool(tool, arguments)
            except Exception as error:
                print(f"# {tool}: {error}")
        await session.send_ping()


async def transparency():
    """Compares the same session without and with a gateway that allows everything."""
    files = FOLDER / "files"
    git = {"repo_path": str(FOLDER / "repository")}
    sessions = {
        "filesystem": ([*FILESYSTEM, files], [
            ("read_text_file", {"path": str(files / "a.txt")}), ("read_text_file", {"path": str(files / "large.txt")}),
            ("list_directory", {"path": str(files)}), ("read_text_file", {"path": "/etc/passwd"}),
            ("write_file", {"path": str(files / "new.txt"), "content": "ä\u2028\n"}),
            ("directory_tree", {"path": str(files)}),
            ("read_text_file", {"path": 5}), ("no_such_tool", {}),
        ]),
        "git": ([*GIT, "--repository", FOLDER / "repository"], [
            ("git_status", git), ("git_log", git), ("git_show", {**git, "revision": "HEAD"}),
            ("git_add", {**git, "files": ["none"]}), ("git_log", {}),
        ]),
        "time": (TIME, [
            # Not the present time, which differs between the sessions.
            ("get_current_time", {"timezone": "Nowhere/None"}), ("convert_time", {"source_timezone": "x"}),
        ]),
        "own": ([SERVER], [
            ("add", {"a": 0.1, "b": 1e300}), ("echo", {"text": "\u0000\U0001f600"}), ("large", {"bytes": 2_000_000}),
            ("fail", {}), ("sleep", {"ms": 20}), ("unknown_method", {}), ("add", {"a": "x"}),
        ]),
        "everything": (EVERYTHING, [
            ("echo", {"message": "x"}), ("get-sum", {"a": 0.1, "b": 2}), ("get-tiny-image", {}),
            ("get-structured-content", {"location": "New York"}), ("get-annotated-message", {"messageType": "error"}),
            ("get-resource-links", {"count": 3}), ("get-sum", {"a": "x"}),
        ]),
    }
    for name, (server, steps) in sessions.items():
        logs = [FOLDER / f"{name}.{part}" for part in ("without", "with")]
        await recorded(logs[0], server, steps)
        await recorded(logs[1], behind(ALLOW_ALL, server), steps)
        compare = [sys.executable, ROOT / "tests" / "mcp" / "compare.py", *logs]
        compared = subprocess.run(compare, capture_output=True, text=True)
        said = compared.stdout.removeprefix("ok - ").strip()
        check(f"{name}, Python: {said}", compared.returncode == 0, compared.stderr)


async def main():
    for part in filesystem, git, time, own_server, everything, modern, transparency:
        with anyio.fail_after(90):
            await part()


anyio.run(main)
