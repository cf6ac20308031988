//! Tests of policies, as hosts write them: failures are explained, and untested rules are named.

use std::time::Duration;

use serde_json::json;
use toolgate::testing::{self, Case, Suite, TestError};

const POLICY: &str = r#"{
    "version": "1", "default": "deny", "hide": ["secret"],
    "all_tools": { "limits": [{ "counter": "calls", "window": "minute", "max": 3, "scope": "grant" }] },
    "tools": {
        "pay": {
            "require": [{ "conditions": [{ "path": "args.to", "op": "exists", "value": true }] }],
            "deny_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 100 }],
                "on_deny": "Too much." }],
            "require_approval_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 10 }] }],
            "limits": [{ "counter": "spend", "window": "day", "max": 5, "scope": "grant", "amount_from": "args.amount",
                "shadow": true }]
        },
        "p*": {},
        "a/b": { "action": "deny", "rate_limit": { "max": 1, "window": 60 } }
    }
}"#;

fn failure(cases: &str) -> String {
    testing::run(POLICY, cases).unwrap_err().to_string()
}

#[test]
fn rules_that_no_case_exercises_are_named() {
    let cases = r#"[{ "id": "one", "steps": [
        { "caller": { "grant": "g" } },
        { "call": { "tool": "secret" }, "expect": { "rule": "(hidden)" } },
        { "call": { "tool": "pay", "arguments": { "to": "x", "amount": 5 } }, "expect": { "decision": "allow" } },
        { "call": { "tool": "pay", "arguments": { "amount": 5 } }, "expect": { "code": "require" } },
        { "call": { "tool": "pay", "arguments": { "to": "x", "amount": 50 } },
            "expect": { "decision": "approval_required" } }
    ] }]"#;
    let coverage = testing::run(POLICY, cases).unwrap();
    assert_eq!((coverage.cases(), coverage.calls(), coverage.is_complete()), (1, 4, false));
    let places: Vec<_> =
        coverage.places().iter().map(|place| (place.pointer(), place.reached(), place.stopped())).collect();
    let want = [
        ("/tools/pay", 3, 0),
        ("/tools/pay/require/0", 3, 1),
        ("/tools/pay/deny_if/0", 2, 0),
        ("/tools/pay/require_approval_if/0", 2, 1),
        ("/tools/pay/limits/0", 2, 0),
        ("/tools/p*", 3, 0),
        ("/tools/a~1b", 0, 0),
        ("/tools/a~1b/action", 0, 0),
        ("/tools/a~1b/rate_limit", 0, 0),
        ("/all_tools/limits/0", 2, 0),
    ];
    assert_eq!(places, want);
    let missing: Vec<_> = coverage.unexercised().map(ToString::to_string).collect();
    let want = [
        "/tools/pay/deny_if/0: reached by 2 calls, stopped none",
        "/tools/a~1b: reached by no call",
        "/tools/a~1b/action: reached by no call",
        "/tools/a~1b/rate_limit: reached by no call",
        "/all_tools/limits/0: reached by 2 calls, stopped none",
    ];
    assert_eq!(missing, want);
    let text = coverage.to_string();
    assert!(
        text.starts_with("1 cases, 4 calls: 5 of 10 places of the policy exercised\n  /tools/pay/deny_if/0"),
        "{text}"
    );
    let written = serde_json::to_value(&coverage).unwrap();
    assert_eq!(written["places"][1], json!({ "pointer": "/tools/pay/require/0", "reached": 3, "stopped": 1 }));
}

#[test]
fn a_case_with_its_own_policy_exercises_nothing() {
    let cases = format!(
        r#"[{{ "id": "own", "policy": {}, "steps": [
        {{ "call": {{ "tool": "pay" }}, "expect": {{ "decision": "allow" }} }} ] }}]"#,
        r#"{ "version": "1", "default": "allow" }"#
    );
    assert_eq!(testing::run(POLICY, &cases).unwrap().calls(), 0);
}

#[test]
fn a_failure_shows_its_place_and_cause() {
    let text = failure(
        r#"[{ "id": "good", "steps": [{ "call": { "tool": "pay" }, "expect": { "decision": "deny" } }] },
            { "id": "large", "description": "a large charge", "steps": [
                { "caller": { "grant": "g" } },
                { "call": { "tool": "pay", "arguments": { "to": "x", "amount": 500 } },
                    "expect": { "decision": "allow", "rule": null } }
            ] },
            { "id": "gone", "steps": [{ "release": "nothing", "expect": { "ok": true } }] }]"#,
    );
    let want = r##"2 of 3 cases fail
  large (a large charge), step 2:
    step     {"call":{ "tool": "pay", "arguments": { "to": "x", "amount": 500 } }}
    decision: expected "allow", got "deny"
    rule: expected null, got "/tools/pay/deny_if/0"
    answered {"code":"deny_if","decision":"deny","id":"#2","limits":[],"message":"Too much.",..}
  gone, step 1:
    step     {"release":"nothing"}
    ok: expected true, got null
    answered {"error":"unknown_call","id":"#1"}"##;
    let shown =
        |text: &str| text.lines().filter(|line| !line.contains("answered")).map(str::to_owned).collect::<Vec<_>>();
    // The members of an answer can be in any order.
    assert_eq!(shown(&text), shown(want), "{text}");
    let error = testing::run(POLICY, r#"[{ "id": "x", "steps": [{ "policy": {} }] }]"#).unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string(), "the output of a failed test is readable");
    let TestError::Failed { cases: 1, failures } = error else { panic!("a failure") };
    assert_eq!((failures[0].case(), failures[0].step()), ("x", Some(1)));
}

#[test]
fn an_unreadable_step_fails_with_the_reason() {
    for (step, want) in [
        (
            r#"{ "call": { "tool": "pay", "args": {} } }"#,
            "because  unknown field `args`, expected one of `tool`, `arguments`",
        ),
        (r#"{ "caller": { "name": "ann" } }"#, "because  unknown field `name`, expected one of `server`, `grant`"),
        (r#"{ "at": "61s", "call": { "tool": "pay" } }"#, "because  `at` is an instant such as"),
        (r#"{ "at": "61s", "call": { "tool": "pay" }, "expect": { "decision": "allow" } }"#, "because  `at` is an"),
        (r#"{ "approve": "a" }"#, "because  it is not one step"),
        (r#"{ "policy": { "version": "1", "default": "dney" } }"#, "= help: did you mean `deny`?"),
        (r#"{ "release": "typo", "expect": { "ok": true } }"#, "\"error\":\"unknown_call\""),
    ] {
        let text = failure(&format!(r#"[{{ "id": "x", "steps": [{step}] }}]"#));
        assert!(text.contains(want), "{text}");
    }
}

#[test]
fn cases_are_parsed_strictly() {
    for (cases, want) in [
        ("[]", "none"),
        ("{}", "invalid type"),
        (r#"[["a", "", null, [{ "end": "x" }], null, []]]"#, "expected an object"),
        (r#"[{ "id": "a", "document": "", "issues": [[null, ""]] }]"#, "expected an object"),
        (r#"[{ "id": "a" }]"#, "neither"),
        (r#"[{ "id": "a", "stepz": [] }]"#, "unknown field"),
        (r#"[{ "id": "a", "steps": [{ "end": "x", "end": "y" }] }]"#, "`end` appears twice"),
        (r#"[{ "id": "a", "steps": [{ "text": "x", "end": "y" }] }]"#, "whole line"),
        (r#"[{ "id": "a", "steps": [{ "end": "x", "expect": { "decison": "allow" } }] }]"#, "no answer has `decison`"),
        (
            r#"[{ "id": "a", "steps": [{ "end": "x", "expect": { "limits": [{ "name": 1 }] } }] }]"#,
            "no answer has `name`",
        ),
        (r#"[{ "id": "a", "steps": [{ "end": "x", "expect": 1 }] }]"#, "an object"),
        (r#"[{ "id": "a", "steps": [{ "end": "x" }], "issues": [{ "pointer": "" }] }]"#, "without a `document`"),
        (r#"[{ "id": "a", "document": "", "steps": [{ "end": "x" }] }]"#, "`document` excludes `policy` and `steps`"),
        (r#"[{ "id": "a", "document": "" }, { "id": "a", "document": "" }]"#, "two cases have the id `a`"),
        (r#"[{ "id": "a", "steps": [{ "cal": { "tool": "x" } }] }]"#, "can be read"),
        (r#"[{ "id": "a", "document": "{\"version\":\"1\",\"default\":\"deny\"}" }]"#, "is accepted"),
        (r#"[{ "id": "a", "document": "[]", "issues": [{ "pointer": "/x" }] }]"#, "no issue"),
    ] {
        let text = failure(cases);
        assert!(text.contains(want), "{cases}: {text}");
    }
    let policy = testing::run("{}", "[]").unwrap_err();
    assert!(matches!(policy, TestError::Policy(_)) && policy.to_string().contains("version"), "{policy}");
    assert!(Suite::of(None).cases(r#"[{ "id": "a", "steps": [{ "end": "x" }] }]"#).unwrap().run().is_err());
}

#[test]
fn cases_can_be_written_in_rust() {
    let day = Case::new("a day")
        .description("every kind of step")
        .caller(json!({ "grant": "g", "user": "ann" }))
        .call("pay", json!({ "to": "x", "amount": 50 }))
        .asks("/tools/pay/require_approval_if/0")
        .step(json!({ "approve": "#2", "by": "bob" }).as_object().unwrap().clone())
        .call("pay", json!({ "to": "x", "amount": 50 }))
        .allowed()
        .call("pay", json!({ "to": "x", "amount": 500 }))
        .denied("/tools/pay/deny_if/0")
        .call("pay", json!({}))
        .denied("/tools/pay/require/0")
        .call("a/b", json!({}))
        .denied("/tools/a~1b/action");
    let minute = Case::new("a minute").caller(json!({ "grant": "g" })).call("p", json!({})).allowed();
    let minute = minute.call("p", json!({})).allowed().call("p", json!({})).allowed();
    let minute = minute.call("p", json!({})).limited("/all_tools/limits/0").expect([("retry_after".into(), json!(60))]);
    let minute = minute.after(Duration::from_secs(59)).call("p", json!({})).limited("/all_tools/limits/0");
    let minute = minute.at("2026-01-15T10:31:00Z".parse().unwrap()).call("p", json!({})).allowed();
    let coverage = Suite::new(POLICY).unwrap().case(day.clone()).case(minute).run().unwrap();
    let missing: Vec<_> = coverage.unexercised().map(testing::Place::pointer).collect();
    assert_eq!(missing, ["/tools/a~1b/rate_limit"], "a limit behind a denial is never reached");
    assert!(Suite::new(POLICY).unwrap().case(day.allowed()).run().is_err());
}

#[test]
fn events_of_the_last_call_need_no_id() {
    let policy = r#"{ "version": "1", "default": "deny", "tools": {
        "pay": { "action": "require_approval" },
        "spend": { "limits": [{ "counter": "spend", "window": "day", "max": 10, "scope": "grant",
            "amount_from": "args.amount" }] },
        "one": { "limits": [{ "counter": "one", "window": "in_flight", "max": 1, "scope": "grant" }] }
    } }"#;
    let case = Case::new("events")
        .caller(json!({ "grant": "g" }))
        .call("pay", json!({}))
        .asks("/tools/pay/action")
        .refused_by("lena")
        .call("pay", json!({}))
        .denied("/tools/pay/action")
        .call("pay", json!({ "again": true }))
        .asks("/tools/pay/action")
        .approved_by("lena")
        .call("pay", json!({ "again": true }))
        .allowed()
        .released()
        .call("pay", json!({ "again": true }))
        .allowed()
        .call("spend", json!({ "amount": 9 }))
        .allowed()
        .settled(1)
        .call("spend", json!({ "amount": 9 }))
        .allowed()
        .call("one", json!({}))
        .allowed()
        .call("one", json!({}))
        .limited("/tools/one/limits/0")
        .step(
            json!({ "id": "named", "call": { "tool": "spend", "arguments": { "amount": 0 } } })
                .as_object()
                .unwrap()
                .clone(),
        )
        .allowed()
        .ended();
    Suite::new(policy).unwrap().case(case).run().unwrap();

    let failure = |case| Suite::new(policy).unwrap().case(case).run().unwrap_err().to_string();
    let nothing_to_approve = failure(Case::new("none").approved_by("lena"));
    assert!(
        nothing_to_approve.contains("none, step 1") && nothing_to_approve.contains("unknown_call"),
        "{nothing_to_approve}"
    );
    let not_asked = failure(Case::new("free").caller(json!({ "grant": "g" })).call("one", json!({})).approved_by("x"));
    assert!(not_asked.contains("step 3"), "{not_asked}");
}
