//! The gateway on standard input and output, in front of a real server.

mod bad_input;
mod lifetime;
pub(crate) mod running;

use std::time::Duration;

use serde_json::{Value, json};

use crate::operator;
use running::{Gateway, Running, outcome, program};

const POLICY: &str = r#"{
    "version": "1",
    "default": "deny",
    "hide": ["crash"],
    "tools": {
        "add": {},
        "echo": { "rate_limit": { "max": 2, "window": "day" } },
        "fail": { "limits": [{ "counter": "failures", "window": "day", "max": 1, "scope": "grant" }] },
        "unknown_method": { "limits": [{ "counter": "missing", "window": "day", "max": 1, "scope": "grant" }] },
        "sleep": { "limits": [{ "counter": "asleep", "window": "in_flight", "max": 1, "scope": "grant" }] },
        "large": { "deny_if": [{ "conditions": [{ "path": "args.bytes", "op": "gt", "value": 1000 }],
            "on_deny": "Too large." }] },
        "delete_file": { "action": "require_approval", "reason": "A person deletes." }
    }
}"#;

const ALLOW_ALL: &str = r#"{ "version": "1", "default": "allow" }"#;

#[test]
fn lists_are_filtered_and_calls_are_decided() {
    let mut gateway = Gateway::start(POLICY);
    let client = &mut gateway.client;
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "toolgate-example");
    assert_eq!(client.tools(), ["echo", "add", "sleep", "large", "fail", "unknown_method", "delete_file"]);
    let echo = json!({ "text": "hello" });
    let steps = [
        ("add", json!({ "a": 1, "b": 2 }), "ok: 3"),
        ("echo", echo.clone(), "ok: hello"),
        ("echo", echo.clone(), "ok: hello"),
        ("echo", echo, "limit: [RATE LIMITED] "),
        ("large", json!({ "bytes": 3 }), "ok: xxx"),
        ("large", json!({ "bytes": 1001 }), "deny_if: [POLICY DENIED] Too large."),
        ("large", json!({ "bytes": "1001" }), "deny_if: [POLICY DENIED] Too large."),
        ("crash", json!({}), "hidden: [POLICY DENIED] "),
        ("never", json!({}), "default_deny: [POLICY DENIED] "),
        ("no_such_tool", json!({}), "default_deny: [POLICY DENIED] "),
    ];
    for (tool, arguments, expected) in steps {
        let outcome = client.call(tool, &arguments);
        assert!(outcome.starts_with(expected), "{tool} {arguments}: {outcome}");
    }
    assert_eq!(gateway.reached(), ["add", "echo", "echo", "large"]);
}

#[test]
fn an_approved_call_passes_once() {
    let mut gateway = Gateway::start(POLICY);
    gateway.client.initialize();
    let file = json!({ "path": "/tmp/x" });
    assert_eq!(gateway.pending(), Vec::<Value>::new());
    for _ in 0..2 {
        let outcome = gateway.client.call("delete_file", &file);
        assert_eq!(outcome, "approval: [APPROVAL REQUIRED] A person deletes.");
    }
    let pending = gateway.pending();
    assert_eq!(pending.len(), 1, "the request is listed once");
    let (id, asked) = (pending[0]["id"].as_str().unwrap(), &pending[0]);
    assert_eq!((&asked["tool"], &asked["reason"]), (&json!("delete_file"), &json!("A person deletes.")));
    assert_eq!(asked["details"], "{\"path\":\"/tmp/x\"}");
    let caller = &asked["caller"];
    assert_eq!(
        (&caller["grant"], &caller["user"], &caller["server"]),
        (&json!("g-42"), &json!("ann"), &json!("files"))
    );
    assert!(caller["session"].as_str().unwrap().starts_with("stdio-"), "{caller}");

    let socket = gateway.socket();
    assert_eq!(operator::answer(&socket, id, "approve", "ann").unwrap_err(), "not an approver of this call");
    assert_eq!(operator::answer(&socket, id, "approve", "bob b.").unwrap(), "approved");
    assert_eq!(
        gateway.client.call("delete_file", &json!({ "path": "/tmp/y" })),
        "approval: [APPROVAL REQUIRED] A person deletes."
    );
    assert_eq!(gateway.client.call("delete_file", &file), "ok: deleted /tmp/x");
    assert!(gateway.client.call("delete_file", &file).starts_with("approval: "), "the approval is used");

    // The former request for `/tmp/y` is pending too: refuse the latest one.
    let pending = gateway.pending();
    assert_eq!(pending.len(), 2);
    assert_eq!(operator::answer(&socket, pending[1]["id"].as_str().unwrap(), "refuse", "ann").unwrap(), "denied");
    assert_eq!(gateway.reached(), ["delete_file"]);
}

#[test]
fn the_operator_socket_answers_requests() {
    let mut gateway = Gateway::start(POLICY);
    gateway.client.initialize();
    gateway.client.call("echo", &json!({ "text": "x" }));
    let socket = gateway.socket();
    let callers = operator::get(&socket, "/api/callers").unwrap();
    let session = callers["callers"][0]["caller"]["session"].as_str().unwrap().to_owned();
    let used =
        |session: &str| operator::usage(&socket, &format!("?server=files&grant=g-42&session={session}"))[0].clone();
    assert_eq!(used(&session), ("echo_rate".to_owned(), "1 of 2 used".to_owned()));
    assert_eq!(used("another"), ("echo_rate".to_owned(), "0 of 2 used".to_owned()));
    let policy = operator::get(&socket, "/api/policies").unwrap()["policies"][0].clone();
    assert_eq!((&policy["name"], &policy["entries"]), (&json!("files"), &json!(7)));
    assert!(policy["source"].as_str().unwrap().contains("\"crash\""), "{policy}");
    let nonsense = "00".repeat(32) + "-1";
    let (unknown, maybe) = (format!("/api/approvals/{nonsense}/approve"), format!("/api/approvals/{nonsense}/maybe"));
    for (method, path, body, status, complaint) in [
        ("GET", "/nonsense", "", 404, ""),
        ("POST", "/api/approvals/x/approve", r#"{"by":"bob"}"#, 400, "invalid approval id"),
        ("POST", &unknown, "{}", 422, "missing field `by`"),
        ("POST", &unknown, r#"{"by":"bob"}"#, 409, "the request is not pending"),
        ("POST", &maybe, r#"{"by":"bob"}"#, 404, "`approve` or `refuse`"),
        ("GET", "/api/usage?nobody=x", "", 400, "unknown field `nobody`"),
        ("POST", "/api/usage", "{}", 405, ""),
    ] {
        let (answered, message) = operator::ask(&socket, method, path, body);
        assert!(answered == status && message.contains(complaint), "{path}: {answered} {message}");
    }
}

#[test]
fn a_call_in_flight_is_freed_before_its_answer_arrives() {
    let mut gateway = Gateway::start(POLICY);
    let client = &mut gateway.client;
    client.initialize();
    let first = client.ask_call("sleep", &json!({ "ms": 400 }));
    assert!(client.call("sleep", &json!({ "ms": 1 })).starts_with("limit: "));
    assert_eq!(outcome(&client.answer(&first)), "ok: slept");
    for _ in 0..20 {
        assert_eq!(client.call("sleep", &json!({ "ms": 1 })), "ok: slept");
    }
}

#[test]
fn calls_run_concurrently() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let client = &mut gateway.client;
    client.initialize();
    let began = std::time::Instant::now();
    let sleeping: Vec<_> = (0..40).map(|_| client.ask_call("sleep", &json!({ "ms": 500 }))).collect();
    let adding: Vec<_> = (0..200).map(|n| (n, client.ask_call("add", &json!({ "a": n, "b": n })))).collect();
    for (n, id) in adding {
        assert_eq!(outcome(&client.answer(&id)), format!("ok: {}", n + n));
    }
    for id in sleeping {
        assert_eq!(outcome(&client.answer(&id)), "ok: slept");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "calls one by one would take twice as long");
}

#[test]
fn progress_is_forwarded_and_cancelled_calls_get_no_answer() {
    let mut gateway = Gateway::with(POLICY, &["--timeout", "2"], &[]);
    let client = &mut gateway.client;
    client.initialize();
    let params = json!({ "name": "sleep", "arguments": { "ms": 100 }, "_meta": { "progressToken": "p" } });
    assert_eq!(outcome(&client.request("tools/call", &params)), "ok: slept");
    let progress: Vec<_> =
        (0..10).map(|_| client.expect(|message| message["method"] == "notifications/progress")).collect();
    let steps: Vec<_> = progress.iter().map(|message| message["params"]["progress"].as_u64().unwrap()).collect();
    assert_eq!(steps, Vec::from_iter(1..=10));

    let id = client.ask_call("sleep", &json!({ "ms": 600 }));
    client.notify("notifications/cancelled", &json!({ "requestId": id, "reason": "enough" }));
    assert!(client.call("sleep", &json!({ "ms": 1 })).starts_with("limit: "), "a cancelled call may still run");
    // Neither the server, which got the cancellation, nor the gateway, which gives up after 2 s,
    // answers.
    assert_eq!(client.within(Duration::from_millis(2500), |message| message["id"] == id), None);
    assert_eq!(client.call("sleep", &json!({ "ms": 1 })), "ok: slept");
}

#[test]
fn a_failed_tool_is_charged_and_a_missing_method_is_not() {
    let mut gateway = Gateway::start(POLICY);
    let client = &mut gateway.client;
    client.initialize();
    assert_eq!(client.call("fail", &json!({})), "failed: it failed");
    assert!(client.call("fail", &json!({})).starts_with("limit: "));
    for _ in 0..3 {
        assert_eq!(client.call("unknown_method", &json!({})), "error -32601");
    }
    assert_eq!(gateway.reached(), ["fail", "unknown_method", "unknown_method", "unknown_method"]);
}

#[test]
fn requests_of_the_server_and_their_answers_are_forwarded() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let client = &mut gateway.client;
    client.initialize();
    let id = client.ask_call("ask_client", &json!({}));
    let question = client.expect(|message| message["method"] == "ping");
    client.send(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "here": true } }));
    assert_eq!(outcome(&client.answer(&id)), r#"ok: the client says {"here":true}"#);
}

#[test]
fn a_changed_policy_file_takes_effect_unless_invalid() {
    let mut gateway = Gateway::start(POLICY);
    gateway.client.initialize();
    let echo = json!({ "text": "x" });
    assert_eq!(gateway.client.call("echo", &echo), "ok: x");

    // The counters continue: one of three units is used.
    gateway.put_policy(&POLICY.replace(r#""max": 2"#, r#""max": 3"#));
    gateway.client.wait_for_error_text(": in force, 7 entries, digest ");
    let outcomes: Vec<_> = (0..3).map(|_| gateway.client.call("echo", &echo)).collect();
    assert_eq!((&*outcomes[0], &*outcomes[1]), ("ok: x", "ok: x"));
    assert!(outcomes[2].starts_with("limit: "));

    gateway.put_policy("{\n  \"version\": \"1\",\n  \"defualt\": \"allow\"\n}");
    gateway.client.wait_for_error_text(
        "policy.json:3:3: unknown_key: /defualt: a policy has no key `defualt` (did you mean `default`?)",
    );
    gateway.client.wait_for_error_text("the former policy stays in force");
    assert!(gateway.client.call("never", &json!({})).starts_with("default_deny: "));
    let complaint = gateway.reload().unwrap_err();
    assert!(complaint.contains("unknown_key") && complaint.ends_with("the former policy stays in force"));

    std::fs::remove_file(gateway.folder.join("policy.json")).unwrap();
    gateway.client.wait_for_error_text("No such file");
    assert!(gateway.client.call("never", &json!({})).starts_with("default_deny: "));

    gateway.put_policy(ALLOW_ALL);
    assert!(gateway.reload().unwrap().contains("in force, 0 entries"));
    assert_eq!(gateway.client.call("echo", &echo), "ok: x");
}

#[test]
fn a_changed_policy_reports_a_changed_list() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let announced = gateway.client.initialize();
    assert_eq!(announced["result"]["capabilities"]["tools"]["listChanged"], true, "{announced}");
    assert!(gateway.client.tools().contains(&"add".to_owned()));
    gateway.put_policy(r#"{ "version": "1", "default": "allow", "hide": ["add"] }"#);
    gateway.client.expect(|message| message["method"] == "notifications/tools/list_changed");
    assert!(!gateway.client.tools().contains(&"add".to_owned()));
}

#[test]
fn a_cancelled_call_is_given_up_soon() {
    let limit = r#"{ "counter": "c", "window": "in_flight", "max": 1, "scope": "global" }"#;
    let policy =
        format!(r#"{{ "version": "1", "default": "allow", "tools": {{ "never": {{ "limits": [{limit}] }} }} }}"#);
    let mut gateway = Gateway::start(&policy);
    gateway.client.initialize();
    let id = gateway.client.ask_call("never", &json!({}));
    gateway.client.notify("notifications/cancelled", &json!({ "requestId": id }));
    assert!(gateway.client.call("never", &json!({})).starts_with("limit: "), "the server may still be at work");
    std::thread::sleep(std::time::Duration::from_secs(11));
    let id = gateway.client.ask_call("never", &json!({}));
    let refused = gateway.client.within(std::time::Duration::from_millis(300), |message| message["id"] == id);
    assert_eq!(refused, None, "its place is free again");
}

#[test]
fn a_changed_tool_is_denied_or_reported() {
    let mut gateway = Gateway::with(ALLOW_ALL, &["--on-changed-tool", "deny"], &["--change-tools"]);
    let client = &mut gateway.client;
    client.initialize();
    assert!(client.tools().contains(&"echo".to_owned()));
    client.expect(|message| message["method"] == "notifications/tools/list_changed");
    assert_eq!(client.call("echo", &json!({ "text": "x" })), "ok: x");
    assert!(!client.tools().contains(&"echo".to_owned()));
    assert!(client.call("echo", &json!({ "text": "x" })).starts_with("tool_changed: "));
    assert_eq!(client.call("add", &json!({ "a": 1, "b": 1 })), "ok: 2");
    client.wait_for_error_text("tool `echo` is not as it was pinned");

    let mut gateway = Gateway::with(ALLOW_ALL, &["--on-changed-tool", "report"], &["--change-tools"]);
    let client = &mut gateway.client;
    client.initialize();
    client.tools();
    assert!(client.tools().contains(&"echo".to_owned()));
    assert_eq!(client.call("echo", &json!({ "text": "x" })), "ok: x");
    client.wait_for_error_text("still listed");
}

#[test]
fn pins_survive_a_restart_of_the_gateway() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let pins = gateway.folder.path("pins.json");
    let again = |gateway: &Gateway, server: &[&str]| {
        Running::start(running::command(&gateway.folder, &["--pins", &pins], server).env("UNUSED", ""))
    };
    gateway.client.close();
    gateway.client.ended();
    let mut first = again(&gateway, &[]);
    first.initialize();
    first.tools();
    first.close();
    first.ended();
    let mut second = again(&gateway, &["--change-tools"]);
    second.initialize();
    assert!(second.tools().contains(&"echo".to_owned()), "the tool is unchanged");
    assert!(!second.tools().contains(&"echo".to_owned()), "the tool has changed");
    second.close();
    second.ended();
    let mut third = again(&gateway, &[]);
    third.initialize();
    assert!(third.call("echo", &json!({ "text": "x" })).starts_with("tool_changed: "), "the tool stays denied");
    assert!(!third.tools().contains(&"echo".to_owned()));
}

#[test]
fn every_decision_is_in_the_audit_log() {
    let mut gateway = Gateway::start(POLICY);
    gateway.client.close();
    gateway.client.ended();
    let log = gateway.folder.path("audit.jsonl");
    let options = ["--audit", &log, "--require-audit", "--on-changed-tool", "deny"];
    let mut client = Running::start(&mut running::command(&gateway.folder, &options, &["--change-tools"]));
    client.initialize();
    client.tools();
    client.tools();
    for (tool, expected) in
        [("add", "error -32602"), ("crash", "hidden: "), ("echo", "tool_changed: "), ("delete_file", "approval: ")]
    {
        let outcome = client.call(tool, &json!({}));
        assert!(outcome.starts_with(expected), "{tool}: {outcome}");
    }
    client.send(&json!([]));
    client.answer(&Value::Null);
    operator::answer(&gateway.socket(), gateway.pending()[0]["id"].as_str().unwrap(), "approve", "bob").unwrap();
    client.call("delete_file", &json!({}));
    gateway.put_policy(ALLOW_ALL);
    gateway.reload().unwrap();

    let mut second = Running::start(&mut running::command(
        &gateway.folder,
        &["--operator", &format!("unix:{}", gateway.folder.path("2")), "--audit", &log],
        &[],
    ));
    assert_eq!(second.ended().code(), Some(2));
    second.wait_for_error_text("another gateway writes it");
    client.close();
    client.ended();

    let records = toolgate::audit::verify(std::io::BufReader::new(std::fs::File::open(&log).unwrap())).unwrap();
    assert_eq!(records.torn(), 0);
    let lines = std::fs::read_to_string(&log).unwrap();
    let events: Vec<String> = lines
        .lines()
        .map(|line| {
            let record = &serde_json::from_str::<Value>(line).unwrap()["record"];
            let word = |name: &str| record[name].as_str().map(|word| format!(" {word}")).unwrap_or_default();
            format!("{}{}{}", record["event"].as_str().unwrap(), word("tool"), word("decision"))
        })
        .collect();
    assert_eq!(
        events,
        [
            "policy",
            "decision add allow",
            "end add",
            "decision crash deny",
            "decision echo deny",
            "decision delete_file approval_required",
            "decision deny",
            "approve delete_file",
            "decision delete_file allow",
            "end delete_file",
            "policy",
        ]
    );
}

#[test]
fn refusals_can_be_errors() {
    let mut gateway = Gateway::with(POLICY, &["--errors"], &[]);
    gateway.client.initialize();
    assert_eq!(gateway.client.call("crash", &json!({})), "error -32050");
}

/// With a policy that allows everything, a client sees the same messages with and without the
/// gateway.
#[test]
fn an_allow_all_policy_changes_no_message() {
    let mut gateway = Gateway::with(ALLOW_ALL, &["--integers-of-64-bits"], &[]);
    let mut server = Running::start(&mut std::process::Command::new(program("mcp_server")));
    let (with, without) = (record(&mut gateway.client), record(&mut server));
    assert_eq!(with.len(), without.len());
    for (with, without) in with.iter().zip(&without) {
        assert!(with == without, "{} is not {}", shortened(with), shortened(without));
    }
}

fn shortened(message: &Value) -> String {
    message.to_string().chars().take(500).collect()
}

fn record(client: &mut Running) -> Vec<Value> {
    let mut seen = vec![client.initialize()];
    let requests = [
        ("ping", json!({})),
        ("tools/list", json!({})),
        ("tools/list", json!({ "cursor": "x" })),
        ("resources/list", json!({})),
        ("prompts/get", json!({ "name": "none", "arguments": { "a": "b" } })),
    ];
    for (method, params) in requests {
        seen.push(client.request(method, &params));
    }
    let calls = [
        ("add", json!({ "a": 0.1, "b": 2e3 })),
        ("add", json!({ "a": "1" })),
        ("echo", json!({ "text": "ä\u{1F600}\u{0}\n\"\\ \u{2028}" })),
        ("echo", json!({ "text": "", "more": { "n": 9_007_199_254_740_993_u64, "e": 1e300 } })),
        ("large", json!({ "bytes": 5_000_000 })),
        ("fail", json!({})),
        ("unknown_method", json!({})),
        ("no_such_tool", json!({})),
    ];
    for (tool, arguments) in calls {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "any": ["thing"] } });
        seen.push(client.request("tools/call", &params));
    }
    let params = json!({ "name": "sleep", "arguments": { "ms": 50 }, "_meta": { "progressToken": 7 } });
    let id = client.ask("tools/call", &params);
    for _ in 0..10 {
        seen.push(client.expect(|message| message["method"] == "notifications/progress"));
    }
    seen.push(client.answer(&id));
    client.send(&json!({ "jsonrpc": "2.0", "id": "a text", "method": "tools/call", "params": { "name": "echo" } }));
    seen.push(client.answer(&json!("a text")));
    seen
}
