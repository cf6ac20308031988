// The official TypeScript client behind the gateway, in front of real servers, over stdio:
//
//     stdio.mjs ROOT FOLDER PYTHON

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [root, folder, python] = process.argv.slice(2);
// The packages are not beside this file, but where `run` has installed them.
const require = createRequire(join(root, "target/mcp/package.json"));
const load = (path) => import(pathToFileURL(require.resolve(path)).href);
const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = await load("@modelcontextprotocol/sdk/client/stdio.js");
const types = await load("@modelcontextprotocol/sdk/types.js");

const target = join(process.env.CARGO_TARGET_DIR, process.env.GATEWAYS);
const gateway = join(target, "toolgate-gateway");
const ownServer = join(target, "examples", "mcp_server");
const modules = join(root, "target/mcp/node_modules/@modelcontextprotocol");
const filesystem = ["node", join(modules, "server-filesystem/dist/index.js")];
const everything = ["node", join(modules, "server-everything/dist/index.js"), "stdio"];
const files = join(folder, "files");
const allowAll = { version: "1", default: "allow" };

function check(what, holds, seen) {
    if (!holds) {
        console.error(`NOT ok - ${what}:`, seen);
        process.exit(1);
    }
    console.log(`ok - ${what}`);
}

let policies = 0;
function behind(policy, server, ...options) {
    let file = policy;
    if (typeof policy !== "string") {
        file = join(folder, `policy-${policies++}.json`);
        writeFileSync(file, JSON.stringify(policy));
    }
    return [gateway, "stdio", "--policy", file, "--grant", "g-42", ...options, "--", ...server];
}

async function connect([command, ...args], capabilities = {}) {
    const client = new Client({ name: "proof", version: "1" }, { capabilities });
    await client.connect(new StdioClientTransport({ command, args, stderr: "ignore" }));
    return client;
}

const call = (client, name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
const text = (result) => result.content[0].text;
const refused = (result, label) => result.isError && text(result).startsWith(`[${label}] `);
const operator = (path, body) => {
    const post = body ? ["-H", "Content-Type: application/json", "-d", JSON.stringify(body)] : [];
    const own = ["-H", "X-Toolgate-Operator: 1"];
    const command = ["-sS", "--fail-with-body", "-m", "30", "--unix-socket", socket, ...own, ...post];
    command.push(`http://localhost${path}`);
    return JSON.parse(execFileSync("curl", command, { encoding: "utf8" }));
};
const approveTheOldest = () => {
    const [request] = operator("/api/approvals");
    return operator(`/api/approvals/${request.id}/approve`, { by: "bob" }).state === "approved";
};
const socket = join(folder, "files.sock");

async function files_and_people() {
    mkdirSync(files);
    writeFileSync(join(files, "a.txt"), "hello ä\n");
    writeFileSync(join(files, ".env"), "SECRET=1");
    writeFileSync(join(files, "large.txt"), "line of text\n".repeat(250_000));
    const policy = join(root, "examples/data/mcp-filesystem.json");
    const options = ["--server", "files", "--operator", `unix:${socket}`];
    const client = await connect(behind(policy, [...filesystem, files], ...options));
    const tools = (await client.listTools()).tools.map((tool) => tool.name);
    check("filesystem: the hidden are gone", tools.includes("write_file") && !tools.includes("move_file"), tools);
    let result = await call(client, "read_text_file", { path: join(files, "a.txt") });
    check("filesystem: allowed", text(result) === "hello ä\n", result);
    result = await call(client, "read_text_file", { path: join(files, "large.txt") });
    check("filesystem: a large result", text(result).length === 13 * 250_000, text(result).length);
    // These tools have an output schema. This client validates refusals against it too.
    result = await call(client, "read_text_file", { path: join(files, ".env") });
    check("filesystem: denied", refused(result, "POLICY DENIED"), result);
    result = await call(client, "move_file", { source: join(files, "a.txt"), destination: join(files, "b") });
    check("filesystem: hidden", refused(result, "POLICY DENIED") && existsSync(join(files, "a.txt")), result);
    const write = { path: join(files, "new.txt"), content: "written" };
    result = await call(client, "write_file", write);
    const waits = refused(result, "APPROVAL REQUIRED") && !existsSync(write.path);
    check("filesystem: a write needs approval", waits, result);
    check("filesystem: a person approves it", approveTheOldest());
    await call(client, "write_file", write);
    check("filesystem: approved", readFileSync(write.path, "utf8") === "written");
    result = await call(client, "write_file", write);
    check("filesystem: approved once", refused(result, "APPROVAL REQUIRED"), result);
    const reads = Array.from({ length: 16 }, () => call(client, "read_text_file", { path: join(files, "a.txt") }));
    check("filesystem: concurrent calls", (await Promise.all(reads)).every((read) => text(read) === "hello ä\n"));
    let allowed = 0;
    for (let n = 0; n < 31; n++) {
        result = await call(client, "list_directory", { path: files });
        allowed += result.isError ? 0 : 1;
    }
    check("filesystem: rate-limited", allowed === 30 && refused(result, "RATE LIMITED"), result);
    await client.close();
    check("filesystem: the socket goes with the client", !existsSync(socket));
}

async function progress_and_cancellation() {
    const limits = [{ counter: "asleep", window: "in_flight", max: 1, scope: "grant" }];
    const policy = { version: "1", default: "allow", tools: { sleep: { limits } } };
    const options = ["--timeout", "3", "--on-changed-tool", "deny"];
    const client = await connect(behind(policy, [ownServer, "--change-tools"], ...options));
    const changed = new Promise((seen) => client.setNotificationHandler(types.ToolListChangedNotificationSchema, seen));
    await client.listTools();
    await changed;
    const tools = (await client.listTools()).tools.map((tool) => tool.name);
    check("own server: a changed tool is gone", !tools.includes("echo") && tools.includes("add"), tools);
    const reported = [];
    let result = await call(client, "sleep", { ms: 200 }, { onprogress: ({ progress }) => reported.push(progress) });
    // This client may lose the last progress, which comes together with the result.
    const inOrder = reported.length >= 9 && reported.every((n, at) => n === at + 1);
    check("own server: progress", text(result) === "slept" && inOrder, reported);
    const cancel = new AbortController();
    const cancelled = call(client, "sleep", { ms: 60_000 }, { signal: cancel.signal }).catch(() => "cancelled");
    setTimeout(() => cancel.abort("enough"), 200);
    check("own server: cancelled", (await cancelled) === "cancelled");
    result = await call(client, "sleep", { ms: 1 });
    check("own server: a cancelled call may still run", refused(result, "RATE LIMITED"), result);
    await new Promise((done) => setTimeout(done, 3200));
    result = await call(client, "sleep", { ms: 1 });
    check("own server: it is given up after the timeout", text(result) === "slept", result);
    await client.close();
}

async function requests_of_the_server() {
    const tools_denied = { "get-structured-content": { action: "deny" } };
    const policy = { version: "1", default: "allow", hide: ["get-env"], tools: tools_denied };
    const client = await connect(behind(policy, everything), { sampling: {} });
    const answer = { role: "assistant", model: "none", content: { type: "text", text: "sampled" } };
    client.setRequestHandler(types.CreateMessageRequestSchema, () => answer);
    await new Promise((done) => setTimeout(done, 500));
    const tools = (await client.listTools()).tools.map((tool) => tool.name);
    check("everything: listed", tools.includes("echo") && !tools.includes("get-env"), tools);
    let result = await call(client, "get-env", {});
    check("everything: hidden", refused(result, "POLICY DENIED"), result);
    result = await call(client, "get-structured-content", { location: "Chicago" });
    check("everything: a refusal for a tool with an output schema", refused(result, "POLICY DENIED"), result);
    result = await call(client, "trigger-sampling-request", { prompt: "x", maxTokens: 10 });
    check("everything: the server asks the client", text(result).includes("sampled"), result);
    const reported = [];
    const operation = { duration: 1, steps: 4 };
    const onprogress = ({ progress }) => reported.push(progress);
    await call(client, "trigger-long-running-operation", operation, { onprogress });
    check("everything: progress", reported.length >= 3 && reported.every((n, at) => n === at + 1), reported);
    check("everything: resources", (await client.listResources()).resources.length > 0);
    check("everything: prompts", (await client.listPrompts()).prompts.length > 0);
    await client.close();
}

async function recorded(log, server, steps) {
    const client = await connect([python, join(root, "tests/mcp/record.py"), log, ...server]);
    await client.listTools();
    for (const [tool, args] of steps) {
        // An answer that this client rejects has been recorded all the same.
        await call(client, tool, args).catch((error) => console.log(`# ${tool}: ${error.message.slice(0, 100)}`));
    }
    await client.ping();
    await client.close();
}

async function transparency() {
    const path = join(files, "a.txt");
    const sessions = {
        filesystem: [[...filesystem, files], [
            ["read_text_file", { path }], ["read_text_file", { path: join(files, "large.txt") }],
            ["list_directory", { path: files }],
            ["read_text_file", { path: "/etc/passwd" }], ["read_text_file", { path: 5 }], ["no_such_tool", {}],
        ]],
        own: [[ownServer], [
            ["add", { a: 0.1, b: 1e300 }], ["large", { bytes: 2_000_000 }], ["fail", {}], ["unknown_method", {}],
        ]],
        everything: [everything, [
            ["echo", { message: "x" }], ["get-sum", { a: 0.1, b: 2 }], ["get-tiny-image", {}], ["get-sum", { a: "x" }],
            ["get-structured-content", { location: "New York" }], ["get-resource-links", { count: 3 }],
        ]],
    };
    for (const [name, [server, steps]] of Object.entries(sessions)) {
        const logs = ["without", "with"].map((part) => join(folder, `${name}.${part}`));
        await recorded(logs[0], server, steps);
        await recorded(logs[1], behind(allowAll, server), steps);
        const compared = spawnSync(python, [join(root, "tests/mcp/compare.py"), ...logs], { encoding: "utf8" });
        const summary = compared.stdout.replace("ok - ", "").trim();
        check(`${name}, TypeScript: ${summary}`, compared.status === 0, compared.stderr);
    }
}

await files_and_people();
await progress_and_cancellation();
await requests_of_the_server();
await transparency();
process.exit(0);
