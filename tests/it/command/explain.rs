//! `toolgate explain`: explanations at an instant, and calls that are not valid.

use super::{Folder, POLICY, toolgate};

const PAYMENTS: &str = "examples/data/payments.json";

#[test]
fn a_call_is_a_file_or_json() {
    let from_file =
        toolgate(&["explain", PAYMENTS, "examples/data/payments.call.json", "--at", "2026-01-15T10:30:00Z"]);
    assert_eq!((from_file.code, &*from_file.err), (0, ""));
    assert!(from_file.out.starts_with("create_charge: denied\n"), "{}", from_file.out);
    let call = std::fs::read_to_string("examples/data/payments.call.json").unwrap();
    let inline = toolgate(&["explain", PAYMENTS, &call, "--at", "2026-01-15T10:30:00Z"]);
    assert_eq!(inline.out, from_file.out);
    let json = toolgate(&["explain", PAYMENTS, &call, "--format", "json"]).json();
    assert_eq!(json["effect"], "deny");
}

#[test]
fn values_are_shown_on_request_only() {
    let call = r#"{ "tool": "generate_code", "arguments": { "language": "cobol-secret", "prompt": "p" } }"#;
    assert!(!toolgate(&["explain", POLICY, call]).out.contains("cobol-secret"));
    assert!(toolgate(&["explain", POLICY, call, "--values"]).out.contains("cobol-secret"));
}

#[test]
fn rules_of_time_are_tried_at_an_instant() {
    let folder = Folder::new();
    let night = folder.write(
        "night.json",
        r#"{ "version": "1", "default": "deny", "tools": { "deploy": { "deny_if": [
            { "conditions": [{ "path": "time.hour", "op": "gte", "value": 22 }] }] } } }"#,
    );
    let at = |time: &str| toolgate(&["explain", &night, r#"{"tool":"deploy"}"#, "--at", time]).out;
    assert!(at("2026-01-15T21:59:59Z").starts_with("deploy: no rule stops it\n"));
    assert!(at("2026-01-15T22:00:00Z").starts_with("deploy: denied"));
}

#[test]
fn calls_that_are_not_valid_are_refused() {
    let folder = Folder::new();
    for (call, message) in [
        (r#"{"tool":"x","usr":"ann"}"#, "unknown field `usr`, expected one of `tool`, `arguments`"),
        (r#"{"arguments":{}}"#, "missing field `tool`"),
        ("{", "is not a JSON object: EOF"),
        (r#"{"tool":7}"#, "invalid type: integer `7`, expected a string"),
    ] {
        let ran = toolgate(&["explain", POLICY, call]);
        assert!(ran.code == 2 && ran.err.starts_with("error: the call: ") && ran.err.contains(message), "{}", ran.err);
    }
    let list = folder.write("call.json", r#"["x"]"#);
    let ran = toolgate(&["explain", POLICY, &list]);
    assert!(ran.code == 2 && ran.err.contains("call.json: is not a JSON object"), "{}", ran.err);
}
