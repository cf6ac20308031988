//! Calls of well-behaved clients, one by one and many at once.

use serde_json::{Value, json};

use super::client::Client;
use super::programs::{Running, TestGateway, grant, upstream};
use crate::operator;

fn policy() -> Value {
    json!({
        "version": "1",
        "default": "deny",
        "hide": ["delete_*"],
        "tools": {
            "echo": { "rate_limit": { "max": 2, "window": "hour" } },
            "add": { "require": [{ "conditions": [{ "path": "args.a", "op": "lt", "value": 10 }],
                "on_deny": "Too large." }] },
            "large": {},
            "fail": { "limits": [{ "counter": "failing", "window": "day", "max": 9, "scope": "grant" }] },
            "unknown_method": { "limits": [{ "counter": "unknown", "window": "day", "max": 9, "scope": "grant" }] },
            "sleep": { "limits": [{ "counter": "sleepers", "window": "in_flight", "max": 1, "scope": "grant" }] },
            "notify": { "action": "require_approval", "reason": "Ask somebody." },
        },
    })
}

#[test]
fn calls_are_decided_before_they_are_forwarded() {
    for server in [&["--json"][..], &[]] {
        let house = TestGateway::with(&policy(), &[grant("g")], server, "");
        let client = house.session_client();
        assert_eq!(client.tools(1), ["echo", "add", "sleep", "large", "fail", "unknown_method", "notify"]);
        assert_eq!(client.call_text(2, "add", &json!({ "a": 1, "b": 2 })), "3");
        assert_eq!(client.call_text(3, "add", &json!({ "a": 11, "b": 2 })), "[POLICY DENIED] Too large.");
        let hidden = client.call(4, "delete_file", &json!({})).last();
        assert_eq!(hidden["result"]["structuredContent"]["code"], "hidden");
        assert_eq!((&hidden["id"], &hidden["result"]["isError"]), (&json!(4), &json!(true)));
        let unlisted = client.call(5, "never", &json!({})).last();
        assert_eq!(unlisted["result"]["structuredContent"]["code"], "default_deny");
        for id in [6, 7] {
            assert_eq!(client.call_text(id, "echo", &json!({ "text": "hello" })), "hello");
        }
        let limited = client.call(8, "echo", &json!({ "text": "hello" })).last();
        assert_eq!(limited["result"]["structuredContent"]["decision"], "rate_limited");
        assert_eq!(
            house.session_client().call_text(9, "echo", &json!({ "text": "x" })),
            "x",
            "another session has its own counter"
        );
    }
}

#[test]
fn an_approval_allows_one_call() {
    let house = TestGateway::new(&policy(), "");
    let client = house.session_client();
    let arguments = json!({ "text": "all hands" });
    assert_eq!(client.call_text(1, "notify", &arguments), "[APPROVAL REQUIRED] Ask somebody.");
    let pending = house.pending();
    let (id, caller) = (pending[0]["id"].as_str().unwrap(), &pending[0]["caller"]);
    assert_eq!((&caller["grant"], &caller["user"]), (&json!("g"), &json!("mary")));
    let approve = |by| operator::answer(&house.socket(), id, "approve", by);
    assert!(approve("Mary").is_err(), "the person that a call is made for may not approve it");
    assert_eq!(approve("joan").unwrap(), "approved");
    assert_eq!(client.call_text(2, "notify", &json!({ "text": "else" })), "[APPROVAL REQUIRED] Ask somebody.");
    assert_eq!(client.call_text(3, "notify", &arguments), "notified");
    assert_eq!(client.call_text(4, "notify", &arguments), "[APPROVAL REQUIRED] Ask somebody.");
}

#[test]
fn a_failed_tool_stays_charged_and_a_missing_one_does_not() {
    let house = TestGateway::new(&policy(), "");
    let client = house.session_client();
    assert_eq!(client.call_text(1, "fail", &json!({})), "it failed");
    assert_eq!(client.call_text(2, "unknown_method", &json!({})), "no such tool");
    assert_eq!((house.used("failing"), house.used("unknown")), ("1 of 9 used".into(), "0 of 9 used".into()));
}

#[test]
fn calls_in_flight_are_limited() {
    let house = TestGateway::new(&policy(), "");
    let client = house.session_client();
    let sleeper = client.clone();
    let sleeping = std::thread::spawn(move || sleeper.call_text(1, "sleep", &json!({ "ms": 2000 })));
    house.wait_for_usage("sleepers", "1 of 1 used");
    let refused = house.session_client().call_text(2, "sleep", &json!({ "ms": 1 }));
    assert!(refused.starts_with("[RATE LIMITED]"), "{refused}");
    assert_eq!(sleeping.join().unwrap(), "slept");
    assert_eq!(house.used("sleepers"), "0 of 1 used", "the unit is freed before the client gets the answer");
    assert_eq!(client.call_text(3, "sleep", &json!({ "ms": 1 })), "slept");
}

#[test]
fn results_are_forwarded_up_to_the_size_bound() {
    for server in [&["--json"][..], &[]] {
        let house = TestGateway::with(&policy(), &[grant("g")], server, "limits.max_message_bytes = 9000000");
        let client = house.session_client();
        assert_eq!(client.call_text(1, "large", &json!({ "bytes": 8_000_000 })).len(), 8_000_000);
        let refused = client.call(2, "large", &json!({ "bytes": 9_000_000 })).last();
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("too long"), "{message}");
        assert_eq!(client.call_text(3, "large", &json!({ "bytes": 1 })), "x");
    }
}

/// Many sessions of two grants call at once: each grant makes exactly as many calls as allowed.
#[test]
fn sessions_share_the_budget_of_their_grant() {
    let limit = json!({ "counter": "c", "window": "day", "max": 25, "scope": "grant" });
    let policy = json!({ "version": "1", "default": "deny", "tools": { "echo": { "limits": [limit] } } });
    let house = TestGateway::with(&policy, &[grant("g"), grant("h")], &[], "");
    let callers: Vec<_> = (0..20)
        .map(|number| {
            let name = if number % 2 == 0 { "g" } else { "h" };
            let client = house.client(name);
            std::thread::spawn(move || {
                let client = client.begin();
                let made = (1..=5).filter(|id| {
                    let text = format!("{number} {id}");
                    let call_text = client.call_text(*id, "echo", &json!({ "text": text }));
                    assert!(call_text == text || call_text.starts_with("[RATE LIMITED]"), "{call_text}");
                    call_text == text
                });
                (name, made.count())
            })
        })
        .collect();
    let mut made = [0, 0];
    for caller in callers {
        let (name, count) = caller.join().unwrap();
        made[usize::from(name == "h")] += count;
    }
    assert_eq!(made, [25, 25]);
}

/// With a policy that allows everything, a client cannot distinguish gateway and server.
#[test]
fn an_allow_all_policy_changes_no_http_message() {
    let allow = json!({ "version": "1", "default": "allow" });
    for options in [&["--json"][..], &["--json", "--stateless"], &["--stateless"], &[]] {
        let house = TestGateway::with(&allow, &[grant("g")], options, "");
        let beside = upstream(options);
        let answers_to = |client: Client| -> Vec<(u16, Option<String>, Vec<Value>)> {
            let client = client.begin();
            let progress = json!({ "name": "sleep", "arguments": { "ms": 50 }, "_meta": { "progressToken": "p" } });
            let answers = [
                client.ask(1, "tools/list", &json!({})),
                client.ask(2, "ping", &json!({})),
                client.ask(3, "resources/list", &json!({ "cursor": "x" })),
                client.call(4, "echo", &json!({ "text": "ünï\u{2028}\"quoted\"\n" })),
                client.call(5, "large", &json!({ "bytes": 3_000_000 })),
                client.call(6, "fail", &json!({})),
                client.call(7, "unknown_method", &json!({})),
                client.call(8, "no_such_tool", &json!({})),
                client.ask(9, "tools/call", &progress),
                client.post(concat!(
                    r#"{"jsonrpc":"2.0","id":"text","method":"tools/call","#,
                    r#""params":{"name":"add","arguments":{"a":1,"b":9007199254740991}}}"#
                )),
                client.post(r#"{"jsonrpc":"2.0","id":77,"result":{"roots":[]}}"#),
                client.send("DELETE"),
            ];
            let seen = |answer: &Answer| {
                let kind = answer.header("content-type").map(str::to_owned);
                (answer.status, kind, if answer.body.is_empty() { Vec::new() } else { answer.messages() })
            };
            let stateful = client.session.is_some();
            answers.iter().take(if stateful { 12 } else { 11 }).map(seen).collect()
        };
        use super::client::Answer;
        let through = answers_to(house.client("g"));
        assert_eq!(through, answers_to(Client::new(beside.address, "g")));
        assert!(through.len() > 10 && through[8].2.len() == 11, "ten progress messages and a result");
    }
}

#[test]
fn a_gateway_that_is_stopped_lets_calls_end() {
    let mut house = TestGateway::new(&policy(), "");
    let client = house.session_client();
    let mut listening = client.open("GET", b"");
    let sleeper = client.clone();
    let sleeping = std::thread::spawn(move || sleeper.call_text(1, "sleep", &json!({ "ms": 1500 })));
    house.wait_for_usage("sleepers", "1 of 1 used");
    assert_eq!(house.gateway.stop(), Some(0));
    assert_eq!(sleeping.join().unwrap(), "slept");
    while listening.piece().is_some() {}
    assert!(!house.socket().exists(), "the socket is removed");
    let again = Running::start(TestGateway::command(&house.folder));
    assert_eq!(Client::new(again.address, "g").begin().call_text(2, "add", &json!({ "a": 1, "b": 1 })), "2");
}
