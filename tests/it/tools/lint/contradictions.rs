//! Pairs of conditions that can or cannot hold together.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use toolgate::analysis::lint;
use toolgate::{Policy, ToolCall};

use super::NOW;

fn source(conditions: &Value) -> String {
    let rules = json!({ "require": [{ "conditions": conditions }] });
    json!({ "version": "1", "default": "deny", "tools": { "t": rules } }).to_string()
}

/// Returns whether the lint reports that the conditions never hold together.
fn never(one: &Value, other: &Value) -> bool {
    let conditions = json!([one, other]);
    let report = lint::check(&source(&conditions)).unwrap();
    report.findings().iter().any(|finding| finding.code().as_str() == "never_holds")
}

fn condition(op: &str, value: &Value) -> Value {
    json!({ "path": "args.x", "op": op, "value": value })
}

#[test]
fn conditions_that_never_hold_together_are_found() {
    for (one, of_one, other, of_other, want) in [
        ("contains", json!("x"), "not_contains", json!("x"), true),
        ("contains", json!(1), "not_contains", json!(1), true),
        ("contains", json!("x"), "not_contains", json!("y"), false),
        ("regex", json!("^a"), "not_regex", json!("^a"), true),
        ("regex", json!("^a"), "not_regex", json!("^ab"), false),
        ("neq", json!([1]), "eq", json!([1]), true),
        ("starts_with", json!("a"), "starts_with", json!("b"), true),
        ("starts_with", json!("a"), "starts_with", json!("ab"), false),
        ("starts_with", json!(["a", "c"]), "starts_with", json!(["b", "d"]), true),
        ("starts_with", json!(["a", "c"]), "starts_with", json!(["b", "cd"]), false),
        ("starts_with", json!("a"), "ends_with", json!("b"), false),
        ("ends_with", json!("a"), "ends_with", json!("b"), true),
        ("ends_with", json!("ba"), "ends_with", json!("a"), false),
        ("starts_with", json!("ab"), "max_length", json!(0), true),
        ("ends_with", json!(["äb", "abc"]), "max_length", json!(1), true),
        ("ends_with", json!(["ab", ""]), "max_length", json!(1), false),
        ("starts_with", json!("ä"), "max_length", json!(1), false),
        ("host_in", json!(["a.io"]), "host_in", json!(["b.io", "*.a.io"]), true),
        ("host_in", json!(["x.a.io"]), "host_in", json!(["*.a.io"]), false),
        ("host_in", json!(["A.io"]), "host_in", json!(["a.io."]), false),
        ("host_in", json!(["*.a.io"]), "host_in", json!(["*.b.io"]), true),
        ("host_in", json!(["*.a.io"]), "host_in", json!(["*.b.a.io"]), false),
        ("host_in", json!(["*.a.io"]), "host_in", json!(["*.ba.io"]), true),
        ("path_within", json!(["/a"]), "path_within", json!(["/b", "/ab"]), true),
        ("path_within", json!(["/a"]), "path_within", json!(["/b", "/c/../a/d"]), false),
        ("path_within", json!(["/"]), "path_within", json!(["/b"]), false),
    ] {
        let (one, other) = (condition(one, &of_one), condition(other, &of_other));
        assert_eq!((never(&one, &other), never(&other, &one)), (want, want), "{one} {other}");
    }
    let folded = |op: &str, value: &str| json!({ "path": "args.x", "op": op, "value": value, "ignore_case": true });
    assert!(!never(&folded("starts_with", "a"), &condition("starts_with", &json!("A"))));
    assert!(!never(&folded("contains", "a"), &condition("not_contains", &json!("a"))));
    assert!(never(&folded("contains", "a"), &folded("not_contains", "a")));
}

/// Conditions on texts.
fn text_condition() -> impl Strategy<Value = Value> {
    let part = || select(vec!["", "a", "A", "ab", "b", "ba", "é"]);
    let some = |all: Vec<&'static str>| prop::collection::vec(select(all), 1..3).prop_map(Value::from);
    let operator = prop_oneof![
        (select(vec!["starts_with", "ends_with"]), prop::collection::vec(part(), 1..3).prop_map(Value::from)),
        (select(vec!["contains", "not_contains", "regex", "not_regex"]), part().prop_map(Value::from)),
        (select(vec!["min_length", "max_length", "min_items", "max_items"]), (0u32..3).prop_map(Value::from)),
        (Just("host_in"), some(vec!["a.io", "*.a.io", "*.b.a.io", "b.a.io", "A.io.", "*.ba.io", "1.2.3.4"])),
        (Just("path_within"), some(vec!["/", "/a", "/a/b", "/ab", "/b/../a", "/a//."])),
    ];
    (operator, any::<bool>()).prop_map(|((op, value), folds)| {
        let mut condition = condition(op, &value);
        let may_fold =
            !matches!(op, "min_length" | "max_length" | "min_items" | "max_items" | "host_in" | "path_within");
        if folds && may_fold {
            condition["ignore_case"] = json!(true);
        }
        condition
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn conditions_that_can_hold_together_are_not_reported(one in text_condition(), other in text_condition()) {
        if never(&one, &other) {
            let policy: Policy = source(&json!([one, other])).parse().unwrap();
            let hosts = ["a.io", "b.a.io", "c.b.a.io", "x.ba.io", "A.IO.", "1.2.3.4"];
            let texts = ["", "a", "A", "ab", "aB", "b", "ba", "bab", "aba", "é", "É", "aé", "/", "/a", "/a/b",
                "/a/b/c", "/ab"];
            let urls = hosts.map(|host| format!("https://{host}/x"));
            for text in texts.into_iter().chain(urls.iter().map(String::as_str)) {
                for value in [json!(text), json!([text]), json!([text, "x"]), json!([])] {
                    let arguments = json!({ "x": value });
                    prop_assert!(!policy.evaluate(&ToolCall::new("t", &arguments), NOW).is_allowed(), "{} {} {}", one,
                        other, text);
                }
            }
        }
    }
}
