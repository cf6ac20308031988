"""Calls that run as tasks: the extension `io.modelcontextprotocol/tasks`, which the SDK lacks.

The names of tools, and what they do, are the conformance suite's.
"""

import asyncio
import uuid
from datetime import datetime, timezone

from mcp.server.mcpserver.server import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp_types import HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, RequestParams
from pydantic import Field

EXTENSION = "io.modelcontextprotocol/tasks"
TASKS = {}


def now():
    return datetime.now(timezone.utc).isoformat()


class Task:
    """A call under way, and its end. The work gets the task, to ask the user."""

    def __init__(self, work):
        self.id, self.status, self.created, self.updated = str(uuid.uuid4()), "working", now(), now()
        self.end, self.requests, self.answered = {}, {}, asyncio.Event()
        self.job = asyncio.create_task(self.run(work))
        TASKS[self.id] = self

    async def run(self, work):
        try:
            self.end, status = {"result": await work(self)}, "completed"
        except asyncio.CancelledError:
            status = "cancelled"
        except MCPError as error:
            self.end, status = {"error": {"code": error.error.code, "message": error.error.message}}, "failed"
        self.update(status)

    def update(self, status):
        self.status, self.updated = status, now()

    async def ask(self, **requests):
        self.requests = requests
        self.update("input_required")
        await self.answered.wait()

    def answer(self, keys):
        self.requests = {key: request for key, request in self.requests.items() if key not in keys}
        if self.status == "input_required" and not self.requests:
            self.update("working")
            self.answered.set()

    def handle(self):
        times = {"createdAt": self.created, "lastUpdatedAt": self.updated}
        return {"taskId": self.id, "status": self.status, **times, "ttlMs": 60_000, "pollIntervalMs": 100}


def started(ctx, work):
    """Starts the work, and returns the answer of its call."""
    require_client_extension(ctx, EXTENSION)
    return {"resultType": "task", **Task(work).handle()}


class TaskParams(RequestParams):
    task_id: str = Field(alias="taskId")
    input_responses: dict = Field({}, alias="inputResponses")


def of_task(handler):
    """Makes the handler of a method of the extension from a function of the task and the params."""
    async def handle(ctx, params):
        require_client_extension(ctx, EXTENSION)
        if ctx.request.headers.get("mcp-name") != params.task_id:
            raise MCPError(HEADER_MISMATCH, "Mcp-Name is not the task's id")
        if params.task_id not in TASKS:
            raise MCPError(INVALID_PARAMS, "Unknown task")
        return handler(TASKS[params.task_id], params) or {}

    return handle


def get(task, params):
    asked = {"inputRequests": task.requests} if task.status == "input_required" else {}
    return {**task.handle(), **task.end, **asked}


def update(task, params):
    task.answer(params.input_responses.keys())


def cancel(task, params):
    task.job.cancel()


def extend(server, tool, unanswered, question, text):
    """Adds the extension to a server, and tools that use it."""
    string, boolean = {"type": "string"}, {"type": "boolean"}
    server.extensions[EXTENSION] = {}
    for handler in get, update, cancel:
        server.add_request_handler(f"tasks/{handler.__name__}", TaskParams, of_task(handler))

    @tool(properties={"name": string})
    async def greet(ctx, params):
        return [text(f"Hello, {params.arguments['name']}!")]

    @tool(properties={"seconds": {"type": "number"}, "label": string})
    async def slow_compute(ctx, params):
        async def work(task):
            await asyncio.sleep(params.arguments["seconds"])
            return {"content": [text("computed")]}

        declared = ctx.session.client_capabilities.extensions or {}
        return started(ctx, work) if EXTENSION in declared else await work(None)

    @tool()
    async def failing_job(ctx, params):
        async def work(task):
            return {"isError": True, "content": [text("The job has failed.")]}

        return started(ctx, work)

    @tool()
    async def protocol_error_job(ctx, params):
        async def work(task):
            raise MCPError(INTERNAL_ERROR, "The job has crashed")

        return started(ctx, work)

    @tool(properties={"filename": string})
    async def confirm_delete(ctx, params):
        async def work(task):
            await task.ask(confirm=question("Delete it?", confirm=boolean))
            return {"content": [text(f"deleted {params.arguments['filename']}")]}

        return started(ctx, work)

    @tool()
    async def multi_input(ctx, params):
        async def work(task):
            await task.ask(name=question("Which name?", name=string), sure=question("Sure?", confirm=boolean))
            return {"content": [text("both answered")]}

        return started(ctx, work)

    @tool()
    async def test_tool_with_task(ctx, params):
        if asked := unanswered(params, user_name=question("What is your name?", name=string)):
            return asked

        async def work(task):
            return {"content": [text(f"Hello, {params.input_responses['user_name'].content['name']}!")]}

        return started(ctx, work)
