//! Faulty input from both sides is refused with an answer or dropped, and the stream stays in sync.

use serde_json::{Value, json};

use super::running::{Gateway, outcome};
use super::{ALLOW_ALL, POLICY};
use outline::Outline;

#[path = "../../../src/stdio/outline.rs"]
mod outline;

#[test]
fn an_ambiguous_message_is_answered_and_not_forwarded() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    gateway.client.initialize();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let add = r#"{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"add"}}"#;
    let messages: Vec<(Vec<u8>, Value, i64)> = [
        ("nonsense".into(), Value::Null, -32700),
        (r#"{"jsonrpc":"2.0","id":77,"#.into(), Value::Null, -32700),
        (format!("[{add},{add}]"), Value::Null, -32600),
        (format!("{add}{add}"), Value::Null, -32700),
        (format!(r#"{{"jsonrpc":"2.0","id":77,"method":"x","params":{deep}}}"#), Value::Null, -32700),
        (
            r#"{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"add","name":"crash"}}"#.into(),
            json!(77),
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":77,"id":78,"method":"tools/call","params":{"name":"add"}}"#.into(),
            Value::Null,
            -32600,
        ),
        (r#"{"jsonrpc":"2.0","id":77,"method":"ping","Method":"tools/call"}"#.into(), json!(77), -32600),
        (
            r#"{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"add","arguments":[]}}"#.into(),
            json!(77),
            -32600,
        ),
        (r#"{"jsonrpc":"2.0","id":77.5,"method":"tools/call","params":{"name":"add"}}"#.into(), Value::Null, -32600),
        (r#"{"jsonrpc":"1.0","id":77,"method":"tools/call","params":{"name":"add"}}"#.into(), json!(77), -32600),
    ]
    .into_iter()
    .map(|(text, id, code): (String, _, _)| (text.into_bytes(), id, code))
    .chain([(b"{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"\xff\"}".to_vec(), Value::Null, -32700)])
    .collect();
    for (message, id, code) in messages {
        gateway.client.send_bytes(&[&message, b"\n".as_slice()].concat());
        let answer = gateway.client.expect(|answer| answer.get("error").is_some());
        let shown = String::from_utf8_lossy(&message[..message.len().min(120)]).into_owned();
        assert_eq!((&answer["id"], answer["error"]["code"].as_i64()), (&id, Some(code)), "{shown}");
    }
    // A call without an id gets no answer.
    gateway
        .client
        .send_bytes(b"{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"name\":\"crash\"}}\n\n  \n\r\n");
    assert_eq!(gateway.client.call("echo", &json!({ "text": "x" })), "ok: x");
    assert_eq!(gateway.reached(), ["echo"]);
}

#[test]
fn a_pending_id_cannot_be_used_again() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let client = &mut gateway.client;
    client.initialize();
    let id = client.ask_call("sleep", &json!({ "ms": 300 }));
    client.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "add" } }));
    assert_eq!(outcome(&client.answer(&id)), "error -32600");
    assert_eq!(outcome(&client.answer(&id)), "ok: slept");
    assert_eq!(gateway.reached(), ["sleep"]);
}

#[test]
fn an_oversized_message_takes_bounded_memory() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let client = &mut gateway.client;
    client.initialize();
    let text = "x".repeat(50 << 20);
    let message = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call",
        "params": { "name": "echo", "arguments": { "text": text } } });
    client.send(&message);
    let answer = client.answer(&json!(9));
    assert_eq!(answer["error"]["code"], -32600);
    assert_eq!(answer["error"]["message"], "The message has more than 16777216 bytes.");
    assert_eq!(client.call("echo", &json!({ "text": "x" })), "ok: x", "the stream is in sync");
    let peak = client.peak_memory();
    assert!(peak < 48 << 20, "{peak} bytes");
    assert_eq!(gateway.reached(), ["echo"]);
}

#[test]
fn the_id_of_an_oversized_message_is_found_if_unambiguous() {
    for (text, of_request, of_answer) in [
        (r#"{"id":7,"method":"x"}"#, Some("7"), None),
        (r#"{"method":"x", "params":{"id":1,"a":[{"id":2}]} , "id" : "a\"b" }"#, Some(r#""a\"b""#), None),
        (r#"{"result":{"id":1,"method":"x","t":"}\\"},"jsonrpc":"2.0","id":-3}"#, None, Some("-3")),
        (r#"{"error":["id",{"x":"\"id\":5"}],"id":5}"#, None, Some("5")),
        (r#"{"id":1,"id":2,"result":{}}"#, None, None),
        (r#"{"id":{"id":1},"result":{}}"#, None, None),
        (r#"{"id":[1],"result":{}}"#, None, None),
        (r#"{"id":x,"result":{}}"#, None, None),
        (r#"{"result":{}}"#, None, None),
        (r#"[{"id":1,"result":{}}]"#, None, None),
        (r#""id":1"#, None, None),
        ("]]}}{", None, None),
        ("", None, None),
    ] {
        let outline = || {
            let mut outline = Outline::default();
            // In chunks, as from a pipe.
            text.as_bytes().chunks(3).for_each(|part| outline.read(part));
            outline
        };
        assert_eq!(outline().of_request().as_deref(), of_request, "{text}");
        assert_eq!(outline().of_answer().as_deref(), of_answer, "{text}");
    }
    let mut long = Outline::default();
    long.read(format!(r#"{{"id":"{}","result":1}}"#, "x".repeat(100_000)).as_bytes());
    assert_eq!(long.of_answer(), None);
}

/// The client gets an error in place of an oversized answer, and the call ends.
#[test]
fn an_oversized_answer_is_an_error() {
    let policy = r#"{ "version": "1", "default": "allow", "tools": { "large": { "limits": [
        { "counter": "large", "window": "in_flight", "max": 1, "scope": "grant" }
    ] } } }"#;
    let mut gateway = Gateway::with(policy, &["--max-message", "65536"], &[]);
    let client = &mut gateway.client;
    client.initialize();
    for _ in 0..2 {
        let id = client.ask_call("large", &json!({ "bytes": 60 << 20 }));
        let answer = client.answer(&id);
        assert_eq!(answer["error"]["code"], -32603);
        assert_eq!(answer["error"]["message"], "a message of the server has more than 65536 bytes");
    }
    assert_eq!(client.call("large", &json!({ "bytes": 60_000 })).len(), "ok: ".len() + 60_000);
    let peak = client.peak_memory();
    assert!(peak < 32 << 20, "{peak} bytes");
}

#[test]
fn a_full_audit_log_denies_where_audit_is_required() {
    let mut gateway = Gateway::with(ALLOW_ALL, &["--audit", "/dev/full", "--require-audit"], &[]);
    gateway.client.initialize();
    assert_eq!(gateway.client.tools().len(), 10);
    assert!(gateway.client.call("echo", &json!({ "text": "x" })).starts_with("audit_unavailable: [POLICY DENIED] "));
    gateway.client.wait_for_error_text(
        "the audit log cannot be written: No space left on device (os error 28): the decision of `echo` is not in it",
    );
    assert_eq!(gateway.reached(), [""; 0]);

    let mut gateway = Gateway::with(ALLOW_ALL, &["--audit", "/dev/full"], &[]);
    gateway.client.initialize();
    assert_eq!(gateway.client.call("echo", &json!({ "text": "x" })), "ok: x");
    gateway.client.wait_for_error_text("is not in it");
}

#[test]
fn output_of_the_server_that_is_not_a_message_is_dropped() {
    let mut gateway = Gateway::with(POLICY, &[], &["--junk"]);
    gateway.client.initialize();
    assert_eq!(gateway.client.call("add", &json!({ "a": 2, "b": 2 })), "ok: 4");
    gateway.client.wait_for_error_text("dropped a message of the server: not a JSON-RPC message");
    let junk =
        gateway.client.within(std::time::Duration::from_millis(100), |message| message.get("unreadable").is_some());
    assert_eq!(junk, None);
}
