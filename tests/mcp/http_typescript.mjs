// The official TypeScript client, over streamable HTTP, through the gateway to real servers. `http_typescript.py` starts them.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const stage = JSON.parse(process.argv[2]);
const require = createRequire(join(stage.root, "target/mcp/package.json"));
const load = (path) => import(pathToFileURL(require.resolve(path)).href);
const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { CreateMessageRequestSchema, LoggingMessageNotificationSchema } = await load("@modelcontextprotocol/sdk/types.js");

function check(what, holds, seen) {
    if (!holds) {
        console.error(`NOT ok - ${what}:`, seen);
        process.exit(1);
    }
    console.log(`ok - ${what}`);
}

async function connect(url, { token = "token-of-ann", capabilities = {}, fetch } = {}) {
    const client = new Client({ name: "proof", version: "1" }, { capabilities });
    const requestInit = { headers: { Authorization: `Bearer ${token}` } };
    const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit, fetch });
    await client.connect(transport);
    return { client, transport };
}

async function disconnect({ client, transport }) {
    await transport.terminateSession();
    await client.close();
}

const call = (client, name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
const text = (result) => result.content[0].text;
const refused = (result, label) => result.isError && text(result).startsWith(`[${label}] `);
const admin = (...command) => execFileSync(stage.gateway, ["admin", stage.admin, ...command], { encoding: "utf8" });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function realServer() {
    const both = await connect(stage.url, { capabilities: { sampling: {} } });
    const { client } = both;
    client.setRequestHandler(CreateMessageRequestSchema, () => ({ role: "assistant", model: "none", content: { type: "text", text: "sampled" } }));
    const logged = new Promise((heard) => client.setNotificationHandler(LoggingMessageNotificationSchema, heard));
    await pause(500);
    const tools = (await client.listTools()).tools.map((tool) => tool.name);
    check("everything: the hidden are gone", tools.includes("echo") && !tools.includes("get-env"), tools);
    let result = await call(client, "get-sum", { a: 2, b: 3 });
    check("everything: allowed", !result.isError && text(result).includes("5"), result);
    result = await call(client, "get-structured-content", { location: "Chicago" });
    check("everything: denied, where a tool has an output schema", text(result) === "[POLICY DENIED] No weather.", result);
    result = await call(client, "get-env", {});
    check("everything: hidden", refused(result, "POLICY DENIED"), result);
    result = await call(client, "get-tiny-image", {});
    check("everything: needs approval", refused(result, "APPROVAL REQUIRED"), result);
    const [request] = admin("pending").split("\n");
    check("everything: a person approves it", admin("approve", request, "--by", "bob").includes("is approved"));
    result = await call(client, "get-tiny-image", {});
    check("everything: approved", !result.isError && result.content.length > 1, result);
    let allowed = 0;
    for (let n = 0; n < 6; n++) {
        result = await call(client, "echo", { message: `${n}` });
        allowed += result.isError ? 0 : 1;
    }
    check("everything: rate-limited", allowed === 5 && refused(result, "RATE LIMITED"), result);
    const told = [];
    await call(client, "trigger-long-running-operation", { duration: 1, steps: 4 }, { onprogress: ({ progress }) => told.push(progress) });
    check("everything: progress", told.length >= 3 && told.every((n, at) => n === at + 1), told);
    result = await call(client, "trigger-sampling-request", { prompt: "x", maxTokens: 10 });
    check("everything: the server asks the client", text(result).includes("sampled"), result);
    await call(client, "toggle-simulated-logging", {});
    check("everything: notifications on the stream that listens", (await Promise.race([logged, pause(30_000)])) !== undefined);
    const sums = await Promise.all(Array.from({ length: 32 }, (_, n) => call(client, "get-sum", { a: n, b: 1 })));
    check("everything: concurrent calls", sums.every((sum, n) => text(sum).includes(` ${n + 1}`)), sums);
    check("everything: resources", (await client.listResources()).resources.length > 0);
    check("everything: prompts", (await client.listPrompts()).prompts.length > 0);
    await disconnect(both);
    const nobody = await connect(stage.url, { token: "of-nobody" }).catch((error) => error);
    check("a token of nobody gets nowhere", nobody.code === 401, nobody);
    const former = await connect(stage.url, { token: "token-of-former" });
    result = await call(former.client, "get-sum", { a: 1, b: 1 });
    check("an expired grant is told so", refused(result, "POLICY DENIED") && text(result).includes("expired"), result);
    await disconnect(former);
}

async function ownServer() {
    const both = await connect(stage.ownUrl);
    const { client } = both;
    let result = await call(client, "large", { bytes: 10_000_000 });
    check("own server: a large result", text(result).length === 10_000_000);
    const cancel = new AbortController();
    const cancelled = call(client, "never", {}, { signal: cancel.signal }).catch(() => "cancelled");
    setTimeout(() => cancel.abort("enough"), 300);
    check("own server: cancelled", (await cancelled) === "cancelled");
    result = await call(client, "sleep", { ms: 1 });
    check("own server: a cancelled call may still run", refused(result, "RATE LIMITED"), result);
    await pause(3200);
    result = await call(client, "sleep", { ms: 10 });
    check("own server: it is given up after the timeout", text(result) === "slept", result);
    // Its stream ends before the answer, which the client asks for itself.
    result = await call(client, "later", {}, { timeout: 20_000 });
    check("own server: a stream that is taken up again", text(result) === "here it is", result);
    await disconnect(both);
}

/** Every body that the client gets in a session, as text. */
async function recorded(url, steps) {
    const bodies = [];
    const recording = async (...asked) => {
        const response = await fetch(...asked);
        if (!response.body) return response;
        const [own, copy] = response.body.tee();
        bodies.push(new Response(copy).text().catch(() => ""));
        return new Response(own, { status: response.status, headers: response.headers });
    };
    const both = await connect(url, { fetch: recording });
    await both.client.listTools();
    for (const [tool, args] of steps) {
        await call(both.client, tool, args).catch((error) => console.log(`# ${tool}: ${error.message.slice(0, 100)}`));
    }
    await both.client.ping();
    await disconnect(both);
    return Promise.all(bodies);
}

await realServer();
await ownServer();
for (const session of stage.sessions) {
    const bodies = { without: await recorded(session.without, session.steps), with: await recorded(session.with, session.steps) };
    writeFileSync(join(stage.folder, `${session.name}.json`), JSON.stringify(bodies));
}
process.exit(0);
