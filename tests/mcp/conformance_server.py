"""A server of the official SDK that has all that the official conformance suite asks for.

    conformance_server.py [PORT]

Without a port, it uses stdio.
The names of tools, prompts and resources, and the texts that they answer with, are the suite's.
"""

import base64
import json
import struct
import sys
import zlib

import anyio
import conformance_tasks
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, SamplingMessage, TextContent

TOOLS, PROMPTS = {}, {}
CHANGES = InMemorySubscriptionBus()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# One red pixel, and one silent sample.
PIXEL = b"\x89PNG\r\n\x1a\n" + b"".join([
    chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
    chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")),
    chunk(b"IEND", b""),
])
SAMPLE = b"RIFF" + struct.pack("<I", 38) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
SAMPLE += b"data" + struct.pack("<IH", 2, 0)

RESOURCES = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": base64.b64encode(PIXEL).decode()},
    "test://watched-resource": {"mimeType": "text/plain", "text": "It never changes."},
}
TEMPLATE = ("test://template/", "/data")


def text(value):
    return {"type": "text", "text": value}


def media(kind, mime_type, data):
    return {"type": kind, "mimeType": mime_type, "data": base64.b64encode(data).decode()}


def embedded(uri, mime_type, value):
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": value}}


def form(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


STRING, BOOLEAN = {"type": "string"}, {"type": "boolean"}
IMAGE = media("image", "image/png", PIXEL)


def tool(**schema):
    """Registers a tool under the name of its function. It returns content, or a whole result."""
    def register(function):
        TOOLS[function.__name__] = (function, {"type": "object", **schema})
        return function

    return register


def prompt(*arguments):
    """Registers a prompt under the name of its function. It returns contents, or a whole result."""
    def register(function):
        PROMPTS[function.__name__] = (function, [{"name": name, "required": True} for name in arguments])
        return function

    return register


# Contents.


@tool()
async def test_simple_text(ctx, params):
    return [text("This is a simple text response for testing.")]


@tool()
async def test_image_content(ctx, params):
    return [IMAGE]


@tool()
async def test_audio_content(ctx, params):
    return [media("audio", "audio/wav", SAMPLE)]


@tool()
async def test_embedded_resource(ctx, params):
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@tool()
async def test_multiple_content_types(ctx, params):
    resource = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return [text("Multiple content types test:"), IMAGE, resource]


@tool()
async def test_error_handling(ctx, params):
    return {"isError": True, "content": [text("This tool intentionally returns an error for testing")]}


# Input schemas.


@tool(**{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {"address": {"$anchor": "address", "type": "object", "properties": {"town": STRING}}},
    "properties": {"by": {"enum": ["phone", "post"]}, "phone": STRING, "address": {"$ref": "#/$defs/address"}},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["address"]}]}],
    "if": {"properties": {"by": {"const": "phone"}}, "required": ["by"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["address"]},
    "additionalProperties": False,
})
async def json_schema_2020_12_tool(ctx, params):
    return [text("called")]


@tool(properties={"region": {"type": "string", "x-mcp-header": "Region"}}, required=["region"])
async def test_argument_in_header(ctx, params):
    return [text(params.arguments["region"])]


# Notifications, and streams that end early.


@tool()
async def test_tool_with_logging(ctx, params):
    for step in "Tool execution started", "Tool processing data", "Tool execution completed":
        await ctx.session.send_log_message("info", step, related_request_id=ctx.request_id)
        await anyio.sleep(0.05)
    return [text("logged")]


TOOLS["test_logging_tool"] = TOOLS["test_tool_with_logging"]


@tool()
async def test_tool_with_progress(ctx, params):
    for progress in 0, 50, 100:
        await ctx.session.report_progress(progress, 100)
        await anyio.sleep(0.05)
    return [text("done")]


@tool()
async def test_reconnection(ctx, params):
    await ctx.close_sse_stream()
    await anyio.sleep(0.3)
    return [text("done after the stream was closed")]


@tool()
async def test_trigger_tool_change(ctx, params):
    await CHANGES.publish(ToolsListChanged())
    return [text("published")]


@tool()
async def test_trigger_prompt_change(ctx, params):
    await CHANGES.publish(PromptsListChanged())
    return [text("published")]


# Requests to the client in the middle of a call, up to 2025-11-25.


@tool(**form(prompt=STRING))
async def test_sampling(ctx, params):
    message = SamplingMessage(role="user", content=TextContent(type="text", text=params.arguments["prompt"]))
    result = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return [text(f"LLM response: {result.content.text}")]


async def elicit(ctx, message, **properties):
    schema = {"type": "object", "properties": properties}
    result = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    content = json.dumps(result.content, sort_keys=True)
    return [text(f"Elicitation completed: action={result.action}, content={content}")]


@tool(**form(message=STRING))
async def test_elicitation(ctx, params):
    return await elicit(ctx, params.arguments["message"], username=STRING, email=STRING)


@tool()
async def test_elicitation_sep1034_defaults(ctx, params):
    return await elicit(
        ctx, "Is this right?",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )


@tool()
async def test_elicitation_sep1330_enums(ctx, params):
    plain = {"type": "string", "enum": ["option1", "option2", "option3"]}
    titled = [{"const": f"value{n}", "title": f"Option {n}"} for n in (1, 2, 3)]
    old = {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option 1", "Option 2", "Option 3"]}
    return await elicit(
        ctx, "Which?",
        untitledSingle=plain,
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum=old,
        untitledMulti={"type": "array", "items": plain},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )


# Calls in several rounds, from 2026-07-28 on.


def question(message, **properties):
    params = {"mode": "form", "message": message, "requestedSchema": form(**properties)}
    return {"method": "elicitation/create", "params": params}


def sampling(prompt):
    return {"method": "sampling/createMessage", "params": {
        "messages": [{"role": "user", "content": text(prompt)}], "maxTokens": 100,
    }}


ROOTS = {"method": "roots/list", "params": {}}


def unanswered(params, state=None, **requests):
    """Asks for what has not been answered, or returns `None`."""
    if requests.keys() <= (params.input_responses or {}).keys() and params.request_state == state:
        return None
    result = {"resultType": "input_required", "inputRequests": requests}
    return result if state is None else {**result, "requestState": state}


@tool()
async def test_input_required_result_elicitation(ctx, params):
    asked = unanswered(params, user_name=question("What is your name?", name=STRING))
    return asked or [text(f"Hello, {params.input_responses['user_name'].content['name']}!")]


@tool()
async def test_input_required_result_sampling(ctx, params):
    asked = unanswered(params, capital_question=sampling("What is the capital of France?"))
    return asked or [text(params.input_responses["capital_question"].content.text)]


@tool()
async def test_input_required_result_list_roots(ctx, params):
    asked = unanswered(params, client_roots=ROOTS)
    return asked or [text(" ".join(str(root.uri) for root in params.input_responses["client_roots"].roots))]


@tool()
async def test_input_required_result_request_state(ctx, params):
    return unanswered(params, "asked", confirm=question("Please confirm", ok=BOOLEAN)) or [text("state-ok")]


TOOLS["test_input_required_result_tampered_state"] = TOOLS["test_input_required_result_request_state"]


@tool()
async def test_input_required_result_multiple_inputs(ctx, params):
    asked = unanswered(
        params, "asked",
        user_name=question("What is your name?", name=STRING),
        greeting=sampling("Generate a greeting"),
        client_roots=ROOTS,
    )
    return asked or [text("all answered")]


@tool()
async def test_input_required_result_multi_round(ctx, params):
    if params.request_state is None:
        return unanswered(params, "first", step1=question("Step 1: What is your name?", name=STRING))
    if params.request_state == "first":
        return unanswered(params, "second", step2=question("Step 2: What is your favorite color?", color=STRING))
    return [text("both answered")]


@tool()
async def test_input_required_result_capabilities(ctx, params):
    declared = ctx.session.client_capabilities
    requests = {}
    if declared.sampling is not None:
        requests["greeting"] = sampling("Generate a greeting")
    if declared.elicitation is not None:
        requests["user_name"] = question("What is your name?", name=STRING)
    return unanswered(params, **requests) or [text("answered")]


@tool()
async def test_missing_capability(ctx, params):
    if ctx.session.client_capabilities.sampling is None:
        missing = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", missing)
    return [text("sampling is there")]


@tool()
async def test_streaming_elicitation(ctx, params):
    await ctx.session.report_progress(0, 1)
    return unanswered(params, confirm=question("Please confirm", ok=BOOLEAN)) or [text("confirmed")]


# Prompts.


@prompt()
async def test_simple_prompt(ctx, params):
    return [text("This is a simple prompt for testing.")]


@prompt("arg1", "arg2")
async def test_prompt_with_arguments(ctx, params):
    given = params.arguments
    return [text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")]


@prompt("resourceUri")
async def test_prompt_with_embedded_resource(ctx, params):
    resource = embedded(params.arguments["resourceUri"], "text/plain", "Embedded resource content for testing.")
    return [resource, text("Please process the embedded resource above.")]


@prompt()
async def test_prompt_with_image(ctx, params):
    return [IMAGE, text("Please analyze the image above.")]


@prompt()
async def test_input_required_result_prompt(ctx, params):
    asked = unanswered(params, user_context=question("What context should the prompt use?", context=STRING))
    return asked or [text(params.input_responses["user_context"].content["context"])]


# The methods of the protocol.


METHODS = {}


def method(handler):
    """Registers the handler of a method. Older clients do not get the `resultType`."""
    async def complete(ctx, params):
        return {"resultType": "complete", **await handler(ctx, params)}

    METHODS[f"on_{handler.__name__}"] = complete
    return handler


def described(name):
    return {"name": name, "description": name.replace("_", " ").capitalize()}


@method
async def list_tools(ctx, params):
    return {"tools": [{**described(name), "inputSchema": schema} for name, (_, schema) in TOOLS.items()]}


@method
async def call_tool(ctx, params):
    if params.name not in TOOLS:
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
    result = await TOOLS[params.name][0](ctx, params)
    return {"content": result} if isinstance(result, list) else result


@method
async def list_prompts(ctx, params):
    return {"prompts": [{**described(name), "arguments": arguments} for name, (_, arguments) in PROMPTS.items()]}


@method
async def get_prompt(ctx, params):
    if params.name not in PROMPTS:
        raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")
    result = await PROMPTS[params.name][0](ctx, params)
    if isinstance(result, list):
        return {"messages": [{"role": "user", "content": content} for content in result]}
    return result


@method
async def list_resources(ctx, params):
    return {"resources": [
        {"uri": uri, "name": uri.removeprefix("test://"), "mimeType": content["mimeType"]}
        for uri, content in RESOURCES.items()
    ]}


@method
async def list_resource_templates(ctx, params):
    return {"resourceTemplates": [{"uriTemplate": "{id}".join(TEMPLATE), "name": "template"}]}


@method
async def read_resource(ctx, params):
    uri, (begin, end) = str(params.uri), TEMPLATE
    content = RESOURCES.get(uri)
    if content is None and uri.startswith(begin) and uri.endswith(end):
        content = {"mimeType": "text/plain", "text": f"data of {uri.removeprefix(begin).removesuffix(end)}"}
    if content is None:
        raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri, **content}]}


@method
async def completion(ctx, params):
    values = [value for value in ("paris", "park", "party") if value.startswith(params.argument.value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


async def accept(ctx, params):
    """Has no effect: no resource changes, and messages of every level are sent."""
    return {}


class Events(EventStore):
    """Keeps every event, so that a client can resume a stream that ended early."""

    def __init__(self):
        self.events = []

    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id, send_callback):
        stream, _ = self.events[int(last_event_id) - 1]
        for number, (other, message) in enumerate(self.events[int(last_event_id):], int(last_event_id) + 1):
            if other == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


LISTS = ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"]
server = Server(
    "conformance",
    version="1",
    cache_hints={method: CacheHint(ttl_ms=60_000, scope="public") for method in LISTS},
    get_tool_input_schema=lambda name: TOOLS[name][1] if name in TOOLS else None,
    on_subscriptions_listen=ListenHandler(CHANGES),
    on_subscribe_resource=accept,
    on_unsubscribe_resource=accept,
    on_set_logging_level=accept,
    **METHODS,
)
conformance_tasks.extend(server, tool, unanswered, question, text)
server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))


async def over_stdio():
    async with stdio_server() as streams:
        await server.run(*streams, server.create_initialization_options())


if len(sys.argv) > 1:
    app = server.streamable_http_app(event_store=Events(), retry_interval=100)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
else:
    anyio.run(over_stdio)
