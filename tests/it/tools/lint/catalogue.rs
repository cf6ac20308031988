//! Comparison of every part of a policy that reads an argument with the schema of the tool.

use serde_json::{Value, json};
use toolgate::analysis::lint::{self, FindingCode};

/// Returns the findings of a policy for one tool.
fn found(rules: &Value) -> Vec<(String, String)> {
    let source = json!({ "version": "1", "default": "deny", "tools": { "pay": rules } }).to_string();
    let tools = json!([{ "name": "pay", "inputSchema": { "type": "object",
        "required": ["amount", "currency", "lines", "flag"], "properties": {
            "amount": { "type": "integer" }, "currency": { "type": "string" }, "flag": { "type": "boolean" },
            "lines": { "type": "array", "items": { "type": "object",
                "properties": { "price": { "type": "number" } } } },
            "note": { "type": "string" }, "many": { "type": ["integer", "string"] }, "none": { "type": "null" },
        } } }]);
    let report = lint::check_against(&source, &tools).unwrap();
    let own = report.findings().iter().filter(|finding| finding.code() >= FindingCode::NoSuchTool);
    own.map(|finding| {
        let place = finding.pointer().strip_prefix("/tools/pay/").unwrap();
        (finding.code().to_string(), place.to_owned())
    })
    .collect()
}

#[test]
fn every_use_of_an_argument_is_compared_with_its_schema() {
    let no = |at: &str| vec![("no_such_argument".to_owned(), at.to_owned())];
    let never = |at: &str| vec![("never_of_type".to_owned(), at.to_owned())];
    let optional = |at: &str| vec![("argument_optional".to_owned(), at.to_owned())];
    let require = |condition: Value| json!({ "require": [{ "conditions": [condition] }] });
    let compare = |path: &str, op: &str, value: Value| json!({ "path": path, "op": op, "value": value });
    let from = |op: &str, other: &str| json!({ "path": "args.amount", "op": op, "value_from": other });
    let limit = |rest: Value| {
        let mut limit = json!({ "counter": "n", "window": "day", "max": 5, "scope": "grant" });
        limit.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "limits": [limit] })
    };
    let bind = |path: &str| json!({ "action": "require_approval", "approval": { "bind": [path] } });
    for (rules, want) in [
        (require(from("lt", "args.max")), no("require/0/conditions/0/value_from")),
        (require(from("lt", "args.currency")), never("require/0/conditions/0/value_from")),
        (require(from("eq", "args.currency")), vec![]),
        (require(from("in", "args.lines")), vec![]),
        (
            require(from("in", "args.many")),
            [optional("require/0/conditions/0/value_from"), never("require/0/conditions/0/value_from")].concat(),
        ),
        (require(json!({ "any": [from("lt", "args.many")] })), vec![]),
        (require(json!({ "any": [compare("args.amuont", "lt", json!(5))] })), no("require/0/conditions/0/any/0")),
        (require(json!({ "not": compare("args.amuont", "lt", json!(5)) })), no("require/0/conditions/0/not")),
        (require(json!({ "any": [compare("args.note", "eq", json!("x"))] })), vec![]),
        (require(compare("args.amount.x", "eq", json!(5))), no("require/0/conditions/0")),
        (require(compare("args.lines.price", "gt", json!(5))), no("require/0/conditions/0")),
        (require(compare("args.lines[*].price", "gt", json!(5))), vec![]),
        (require(compare("args.amount", "eq", json!(1.5))), never("require/0/conditions/0")),
        (require(compare("args.amount", "eq", json!(1.0))), vec![]),
        (require(compare("args.amount", "in", json!([1.5, "a"]))), never("require/0/conditions/0")),
        (require(compare("args.amount", "in", json!([1.5, 2]))), vec![]),
        (require(compare("args.lines[0].price", "eq", json!(1.5))), optional("require/0/conditions/0")),
        (require(json!({ "not": compare("args.amount", "eq", json!(1.5)) })), vec![]),
        (limit(json!({ "scope": ["grant", "args.customer"] })), no("limits/0/scope/1")),
        (limit(json!({ "scope": ["grant", "args.flag"] })), never("limits/0/scope/1")),
        (limit(json!({ "scope": ["grant", "args.note"] })), optional("limits/0/scope/1")),
        (limit(json!({ "scope": ["grant", "args.note"], "shadow": true })), vec![]),
        (limit(json!({ "amount_from": "args.currency" })), never("limits/0/amount_from")),
        (limit(json!({ "amount_from": "args.amount" })), vec![]),
        (
            json!({ "rate_limit": { "max": 1, "window": 60, "scope": ["grant", "args.customer"] } }),
            no("rate_limit/scope/1"),
        ),
        (bind("args.amuont<="), no("approval/bind/0")),
        (bind("args.currency<="), never("approval/bind/0")),
        (bind("args.currency"), vec![]),
        (bind("args.none"), vec![]),
        (bind("args.amount<="), vec![]),
    ] {
        assert_eq!(found(&rules), want, "{rules}");
    }
}
