//! Files of grants and policies that change while a gateway runs.

use serde_json::{Value, json};

use super::programs::{Running, TestGateway, digest, grant, grant_with};

fn allow() -> Value {
    json!({ "version": "1", "default": "deny", "tools": { "echo": {}, "add": {} } })
}

fn code(answer: &Value) -> &str {
    answer["result"]["structuredContent"]["code"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_revoked_or_expired_grant_is_refused_with_the_reason() {
    let former = grant_with("former", "expires_at = \"2026-01-01T00:00:00Z\"");
    let revoked = grant_with("revoked", "revoked = true");
    let house = TestGateway::with(&allow(), &[former, revoked], &["--json"], "");
    for (name, expected) in [("former", "grant_expired"), ("revoked", "grant_revoked")] {
        let client = house.client(name).begin();
        assert_eq!(code(&client.call(1, "echo", &json!({})).last()), expected);
        assert_eq!(client.tools(2), Vec::<String>::new());
        let other = client.ask(3, "resources/list", &json!({}));
        assert!(other.text().contains("revoked or has expired"), "{}", other.text());
        assert_eq!(client.send("GET").status, 403);
        assert_eq!(client.post(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#).status, 403);
        assert_eq!(client.send("DELETE").status, 204, "the session can be ended");
    }
}

#[test]
fn changed_files_take_effect_and_invalid_ones_do_not() {
    let house = TestGateway::new(&allow(), "");
    let client = house.session_client();
    let hello = json!({ "text": "hello" });
    assert_eq!(client.call_text(1, "echo", &hello), "hello");

    // An invalid policy, and then a valid one.
    house.folder.write("policy.json", &json!({ "version": "1", "default": "deny", "tool": {} }));
    house.gateway.wait_for_log("/tool: a policy has no key `tool`");
    house.gateway.wait_for_log("the former grants and policies stay in force");
    assert_eq!(client.call_text(2, "echo", &hello), "hello");
    assert!(house.reload().unwrap_err().contains("stay in force"));
    house.folder.write("policy.json", &json!({ "version": "1", "default": "deny", "tools": { "add": {} } }));
    assert_eq!(house.reload().unwrap(), "1 grants and 1 policies are in force");
    assert_eq!(code(&client.call(3, "echo", &hello).last()), "default_deny");
    assert_eq!(client.tools(4), ["add"]);

    // Invalid grants, each for another reason.
    let twice = grant("h").replace(&digest("h"), &digest("g"));
    for (broken, complaint) in [
        (vec![grant("g"), twice], "is there twice"),
        (vec![grant("g"), grant("g")], "duplicate key"),
        (vec![grant("g").replace("grants.g", "grants.\"\"")], "a grant has a name"),
        (vec![grant("g").replace(&digest("g"), "plain")], "64 hexadecimal digits"),
        (vec![grant_with("g", "expires_at = \"soon\"")], "grants.g: expires_at: "),
        (vec![grant_with("g", "revokd = true")], "unknown field `revokd`"),
        (vec![grant("g").replace("\"p\"", "\"q\"")], "there is no policy `q`"),
        (vec!["nonsense".to_owned()], "gateway.toml: TOML parse error at line 6, column 9"),
    ] {
        house.put_grants(&broken);
        let refused = house.reload().unwrap_err();
        assert!(refused.contains(complaint), "{complaint}: {refused}");
        assert_eq!(client.call_text(5, "add", &json!({ "a": 1, "b": 1 })), "2");
    }
    std::fs::remove_file(house.folder.file("gateway.toml")).unwrap();
    house.gateway.wait_for_log("gateway.toml: No such file");
    assert_eq!(client.call_text(6, "add", &json!({ "a": 1, "b": 1 })), "2");

    // The grant is revoked, added again, and removed.
    house.put_grants(&[grant_with("g", "revoked = true")]);
    house.reload().unwrap();
    assert_eq!(code(&client.call(7, "add", &json!({})).last()), "grant_revoked");
    house.put_grants(&[grant("g"), grant("h")]);
    house.reload().unwrap();
    assert_eq!(client.call_text(8, "add", &json!({ "a": 1, "b": 1 })), "2");
    let listening = client.open("GET", b"");
    house.put_grants(&[grant("h")]);
    house.reload().unwrap();
    assert_eq!(client.call(9, "add", &json!({})).status, 401);
    assert!(listening.whole().status == 200, "the stream of a removed grant has ended");
    assert!(house.client("h").begin().call_text(1, "add", &json!({ "a": 1, "b": 1 })) == "2");
}

#[test]
fn an_operator_socket_belongs_to_one_gateway() {
    let house = TestGateway::new(&allow(), "");
    let output = TestGateway::command(&house.folder).output().unwrap();
    let output_text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && output_text.contains("another gateway has it"), "{output_text}");
    assert!(house.pending().is_empty(), "the first one still answers");
    let TestGateway { folder, server: _server, mut gateway, .. } = house;
    gateway.kill();
    let again = Running::start(TestGateway::command(&folder));
    assert!(again.address.port() > 0, "the socket of a killed gateway is replaced");
}

#[test]
fn the_audit_log_rotates_into_one_chain() {
    let folder = std::env::temp_dir().join(format!("toolgate-rotated-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let log = folder.join("audit.jsonl");
    let settings = format!("audit = {{ file = {log:?}, daily = true, max_bytes = 1, required = true }}");
    let mut house = TestGateway::new(&allow(), &settings);
    let client = house.session_client();
    client.call_text(1, "echo", &json!({ "text": "x" }));
    assert_eq!(house.gateway.stop(), Some(0));
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    files.sort();
    assert!(files.len() >= 4 && files[0].ends_with("audit-000000000001.jsonl"), "{files:?}");
    let joined: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    assert_eq!(toolgate::audit::verify(&joined[..]).unwrap().head().records(), files.len() as u64);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn unrecorded_calls_are_denied_where_audit_is_required() {
    let log = std::env::temp_dir().join(format!("toolgate-http-{}.jsonl", std::process::id()));
    let _ = std::fs::remove_file(&log);
    let mut house = TestGateway::new(&allow(), &format!("audit = {{ file = {log:?}, required = true }}"));
    let client = house.session_client();
    client.call_text(1, "echo", &json!({ "text": "secret" }));
    client.call(2, "large", &json!({}));
    client.post(r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"a","name":"b"}}"#);
    assert_eq!(house.gateway.stop(), Some(0));
    let text = std::fs::read_to_string(&log).unwrap();
    let verified = toolgate::audit::verify(text.as_bytes()).unwrap();
    assert!(verified.head().records() >= 4, "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |code: &str| lines.iter().filter(|line| line["record"]["code"] == code).count();
    assert_eq!((of("default_deny"), of("malformed_call")), (1, 1), "{text}");
    let allowed = lines.iter().find(|line| line["record"]["decision"] == "allow").unwrap();
    assert_eq!((&allowed["record"]["grant"], &allowed["record"]["user"]), (&json!("g"), &json!("mary")));
    assert!(!text.contains("secret") && !text.contains(client.session.as_ref().unwrap()), "{text}");
    std::fs::remove_file(&log).unwrap();

    let house = TestGateway::new(&allow(), r#"audit = { file = "/dev/full", required = true }"#);
    let client = house.session_client();
    assert_eq!(code(&client.call(1, "echo", &json!({})).last()), "audit_unavailable");
    house.gateway.wait_for_log("is not in it");
    let house = TestGateway::new(&allow(), r#"audit.file = "/dev/full""#);
    assert_eq!(
        house.session_client().call_text(1, "echo", &json!({ "text": "x" })),
        "x",
        "the call passes where audit is not required"
    );
}
