// The official TypeScript client, over streamable HTTP, through the gateway to real servers.
// `http_typescript.py` starts them.

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
const types = await load("@modelcontextprotocol/sdk/types.js");

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
const operator = (path, body) => {
    const post = body ? ["-H", "Content-Type: application/json", "-d", JSON.stringify(body)] : [];
    const own = ["-H", "X-Toolgate-Operator: 1"];
    const command = ["-sS", "--fail-with-body", "-m", "30", "--unix-socket", stage.socket, ...own, ...post];
    command.push(`http://localhost${path}`);
    return JSON.parse(execFileSync("curl", command, { encoding: "utf8" }));
};
const approveTheOldest = () => {
    const [request] = operator("/api/approvals");
    return operator(`/api/approvals/${request.id}/approve`, { by: "bob" }).state === "approved";
};
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function realServer() {
    const both = await connect(stage.url, { capabilities: { sampling: {} } });
    const { client } = both;
    const answer = { role: "assistant", model: "none", content: { type: "text", text: "sampled" } };
    client.setRequestHandler(types.CreateMessageRequestSchema, () => answer);
    const logged = new Promise((seen) => client.setNotificationHandler(types.LoggingMessageNotificationSchema, seen));
    await pause(500);
    const tools = (await client.listTools()).tools.map((tool) => tool.name);
    check("everything: the hidden are gone", tools.includes("echo") && !tools.includes("get-env"), tools);
    let result = await call(client, "get-sum", { a: 2, b: 3 });
    check("everything: allowed", !result.isError && text(result).includes("5"), result);
    result = await call(client, "get-structured-content", { location: "Chicago" });
    const denial = "[POLICY DENIED] No weather.";
    check("everything: denied, for a tool with an output schema", text(result) === denial, result);
    result = await call(client, "get-env", {});
    check("everything: hidden", refused(result, "POLICY DENIED"), result);
    result = await call(client, "get-tiny-image", {});
    check("everything: needs approval", refused(result, "APPROVAL REQUIRED"), result);
    check("everything: a person approves it", approveTheOldest());
    result = await call(client, "get-tiny-image", {});
    check("everything: approved", !result.isError && result.content.length > 1, result);
    let allowed = 0;
    for (let n = 0; n < 6; n++) {
        result = await call(client, "echo", { message: `${n}` });
        allowed += result.isError ? 0 : 1;
    }
    check("everything: rate-limited", allowed === 5 && refused(result, "RATE LIMITED"), result);
    const reported = [];
    const operation = { duration: 1, steps: 4 };
    const onprogress = ({ progress }) => reported.push(progress);
    await call(client, "trigger-long-running-operation", operation, { onprogress });
    check("everything: progress", reported.length >= 3 && reported.every((n, at) => n === at + 1), reported);
    result = await call(client, "trigger-sampling-request", { prompt: "x", maxTokens: 10 });
    check("everything: the server asks the client", text(result).includes("sampled"), result);
    await call(client, "toggle-simulated-logging", {});
    const notified = (await Promise.race([logged, pause(30_000)])) !== undefined;
    check("everything: notifications on the stream that listens", notified);
    const sums = await Promise.all(Array.from({ length: 32 }, (_, n) => call(client, "get-sum", { a: n, b: 1 })));
    check("everything: concurrent calls", sums.every((sum, n) => text(sum).includes(` ${n + 1}`)), sums);
    check("everything: resources", (await client.listResources()).resources.length > 0);
    check("everything: prompts", (await client.listPrompts()).prompts.length > 0);
    await disconnect(both);
    const nobody = await connect(stage.url, { token: "of-nobody" }).catch((error) => error);
    check("a token of nobody gets nowhere", nobody.code === 401, nobody);
    const former = await connect(stage.url, { token: "token-of-former" });
    result = await call(former.client, "get-sum", { a: 1, b: 1 });
    const reason = refused(result, "POLICY DENIED") && text(result).includes("expired");
    check("an expired grant learns the reason", reason, result);
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
    // The stream ends before the answer, and the client resumes it.
    result = await call(client, "later", {}, { timeout: 20_000 });
    check("own server: a stream that is resumed", text(result) === "here it is", result);
    await disconnect(both);
}

/** Returns every body that the client receives in a session, as text. */
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
    const bodies = {};
    for (const part of ["without", "with"]) bodies[part] = await recorded(session[part], session.steps);
    writeFileSync(join(stage.folder, `${session.name}.json`), JSON.stringify(bodies));
}
process.exit(0);
