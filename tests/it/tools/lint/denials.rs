//! Denials and approvals that a caller can evade by omitting an argument.

use serde_json::{Value, json};
use toolgate::analysis::lint::{self, Finding};
use toolgate::{Effect, Policy};

fn rules(section: &str, conditions: &Value) -> Value {
    json!({ section: [{ "conditions": conditions }] })
}

fn too_many() -> Value {
    json!({ "path": "args.n", "op": "gt", "value": 5 })
}

fn left_out(source: &str) -> Vec<Finding> {
    let report = lint::check(source).unwrap();
    assert!(report.is_complete(), "{source}");
    let left_out = |finding: &&Finding| matches!(finding.code().as_str(), "denial_left_out" | "approval_left_out");
    report.findings().iter().filter(left_out).cloned().collect()
}

/// Returns the pointer and the witness of each finding.
fn shown(source: &Value) -> Vec<(String, String)> {
    let source = source.to_string();
    let policy: Policy = source.parse().unwrap();
    let shown = |finding: &Finding| {
        let witness = finding.witness().unwrap();
        let effect = policy.evaluate(&witness.call(), witness.at()).effect();
        assert!(!matches!(effect, Effect::Deny(_)), "{finding}");
        (finding.pointer().to_owned(), format!("{witness} -> {}", finding.effect().unwrap()))
    };
    left_out(&source).iter().map(shown).collect()
}

#[test]
fn evasion_is_found_in_any_group() {
    let g = too_many();
    for (conditions, want) in [
        (json!([{ "any": [g] }]), "/any/0"),
        (json!([{ "not": { "path": "args.n", "op": "neq", "value": 5 } }]), "/not"),
        (json!([{ "not": { "any": [{ "not": g }] } }]), "/not/any/0/not"),
        (json!([{ "not": { "all": [{ "not": g }, { "not": g }] } }]), "/not/all/0/not"),
        (json!([{ "all": [{ "any": [g, { "path": "args.n", "op": "neq", "value": 1 }] }] }]), ""),
        (json!([{ "any": [g, { "path": "args.n", "op": "exists", "value": false }] }]), ""),
        // In `deny_if`, a negated comparison matches an absent argument.
        (json!([{ "not": { "path": "args.n", "op": "lte", "value": 5 } }]), ""),
    ] {
        let source = json!({ "version": "1", "default": "deny", "tools": { "t": rules("deny_if", &conditions) } });
        let found = shown(&source);
        let want = (!want.is_empty()).then(|| format!("/tools/t/deny_if/0/conditions/0{want}"));
        assert_eq!(found.first().map(|(pointer, _)| pointer), want.as_ref(), "{conditions}");
        let findings = left_out(&source.to_string());
        let below_not = |finding: &Finding| finding.pointer().contains("/not");
        assert!(findings.iter().all(|one| below_not(one) == one.help().contains("without `not`")), "{findings:?}");
    }
    let named = json!({ "version": "1", "default": "deny", "tools": { "notify": rules("deny_if", &json!([g])) } });
    assert!(left_out(&named.to_string())[0].help().starts_with("add `\"absent\""));
}

#[test]
fn a_witness_names_a_tool_that_reaches_the_rule() {
    let g = rules("deny_if", &json!([too_many()]));
    let document = |default: &str, rest: &Value| {
        let mut document = json!({ "version": "1", "default": default });
        document.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        document
    };
    let denied = json!({ "action": "deny" });
    for (source, witness) in [
        (document("deny", &json!({ "all_tools": g, "tools": { "pay": {} } })), r#""pay" {} -> allow"#),
        (document("deny", &json!({ "all_tools": g, "tools": { "a": denied, "p*": {} } })), r#""p" {} -> allow"#),
        (document("allow", &json!({ "all_tools": g, "hide": ["t*"] })), r#""x" {} -> allow"#),
        (document("deny", &json!({ "tools": { "p*": g, "p": denied } })), r#""px" {} -> allow"#),
        (document("deny", &json!({ "hide": ["p", "px*", "*a"], "tools": { "p*": g } })), r#""p0" {} -> allow"#),
        (document("deny", &json!({ "tools": { "p*": g, "p": rules("deny_if", &json!([])) } })), r#""px" {} -> allow"#),
    ] {
        let found = shown(&source);
        assert_eq!(found.first().map(|(_, witness)| witness.as_str()), Some(witness), "{source}");
    }
    // No call reaches these rules.
    for rest in [json!({ "all_tools": g }), json!({ "all_tools": g, "hide": ["*"], "tools": { "a": {} } })] {
        assert_eq!(shown(&document("deny", &rest)), [], "{rest}");
    }
}

#[test]
fn a_witness_satisfies_the_other_rules() {
    let from = |op: &str, other: &str| json!([{ "path": "args.u", "op": op, "value_from": other }]);
    let exists = |path: &str| json!({ "path": path, "op": "exists", "value": true });
    for (rules, witness) in [
        (rules("deny_if", &from("eq", "call.user")), r#""t" {} user "x" -> allow"#),
        (rules("deny_if", &from("gt", "context.max")), r#""t" {} context {"max":5} -> allow"#),
        (rules("deny_if", &from("in", "context.names")), r#""t" {} context {"names":["x"]} -> allow"#),
        (rules("deny_if", &from("lt", "args.least")), r#""t" {"least":5} -> allow"#),
        (
            json!({ "require": [{ "conditions": [{ "path": "args.owner", "op": "eq", "value_from": "call.user" }] }],
                    "deny_if": [{ "conditions": [too_many()] }] }),
            r#""t" {"owner":"x"} user "x" -> allow"#,
        ),
        (
            json!({ "require": [{ "conditions": [{ "any": [exists("args.n"), exists("args.m")] }] }],
                    "deny_if": [{ "conditions": [too_many()] }] }),
            r#""t" {"m":"x"} -> allow"#,
        ),
        (
            json!({ "require": [{ "conditions": [{ "all": [{ "any": [
                        { "all": [exists("args.n"), exists("args.k")] }, exists("args.n.x"), exists("args.m"),
                    ] }] }] }],
                    "deny_if": [{ "conditions": [too_many()] }] }),
            r#""t" {"m":"x"} -> allow"#,
        ),
    ] {
        let source = json!({ "version": "1", "default": "deny", "tools": { "t": rules } });
        assert_eq!(shown(&source).first().map(|(_, witness)| witness.as_str()), Some(witness), "{rules}");
    }
    // The other rules require this argument.
    let wanted = json!({ "require": [{ "conditions": [{ "any": [exists("args.n"), exists("args.n")] }] }],
                         "deny_if": [{ "conditions": [too_many()] }] });
    assert_eq!(shown(&json!({ "version": "1", "default": "deny", "tools": { "t": wanted } })), []);
}

#[test]
fn no_match_says_that_an_argument_may_be_left_out() {
    let source = |condition: Value| {
        let rules = rules("deny_if", &json!([condition]));
        json!({ "version": "1", "default": "deny", "tools": { "t": rules } })
    };
    assert_eq!(shown(&source(too_many())).len(), 1);
    for (path, op) in [("args.n", "gt"), ("args.n[*]", "gt"), ("args.n", "neq")] {
        let said = source(json!({ "path": path, "op": op, "value": 5, "absent": "no_match" }));
        assert_eq!(shown(&said), [], "{path} {op}");
        let schema = json!({ "type": "object", "properties": { "n": { "type": "number" } } });
        let tools = json!({ "tools": [{ "name": "t", "inputSchema": schema }] });
        let report = lint::check_against(&said.to_string(), &tools).unwrap();
        assert!(report.findings().iter().all(|finding| finding.code().as_str() != "optional_argument"), "{path} {op}");
    }
    // These are never absent.
    let never = source(json!({ "path": "time.hour", "op": "gt", "value": 23, "absent": "no_match" }));
    let report = lint::check(&never.to_string()).unwrap();
    assert!(report.findings().iter().any(|finding| finding.code().as_str() == "never_holds"), "{report}");
}

#[test]
fn an_empty_list_evades_a_denial_of_some_element() {
    let some = json!([{ "path": "args.items[*].p", "op": "gt", "value": 5, "absent": "match" }]);
    let source = |rules: &Value| json!({ "version": "1", "default": "deny", "tools": { "t": rules } });
    let mut own = rules("deny_if", &some);
    let empty = r#""t" {"items":[]} -> allow"#.to_owned();
    assert_eq!(shown(&source(&own)), [("/tools/t/deny_if/0/conditions/0".to_owned(), empty)]);
    own["require"] = json!([{ "conditions": [{ "path": "args.items", "op": "min_items", "value": 1 }] }]);
    assert_eq!(shown(&source(&own)), []);
}

#[test]
fn an_approval_that_can_be_evaded_is_found() {
    let g = json!([too_many()]);
    let own = |rest: Value| {
        let mut own = rules("require_approval_if", &g);
        own.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "version": "1", "default": "deny", "tools": { "t": own } })
    };
    let at = "/tools/t/require_approval_if/0/conditions/0".to_owned();
    let mut everywhere = json!({ "version": "1", "default": "deny", "tools": { "t": {} } });
    everywhere["all_tools"] = rules("require_approval_if", &g);
    for (source, want) in [
        (own(json!({})), vec![(at.clone(), r#""t" {} -> allow"#.to_owned())]),
        (
            own(rules("require", &json!([{ "path": "args.m", "op": "exists", "value": true }]))),
            vec![(at.clone(), r#""t" {"m":"x"} -> allow"#.to_owned())],
        ),
        (
            everywhere,
            vec![("/all_tools/require_approval_if/0/conditions/0".to_owned(), r#""t" {} -> allow"#.to_owned())],
        ),
        // A call without the argument still needs approval, or is denied.
        (own(json!({ "action": "require_approval" })), vec![]),
        (own(json!({ "action": "deny" })), vec![]),
        (own(rules("deny_if", &json!([{ "path": "args.n", "op": "exists", "value": false }]))), vec![]),
        (own(json!({ "require_approval_if": [{ "conditions": g }, { "conditions": [] }] })), vec![]),
        (
            own(rules(
                "require_approval_if",
                &json!([{ "path": "args.n", "op": "gt", "value": 5, "absent": "match" }]),
            )),
            vec![],
        ),
    ] {
        assert_eq!(shown(&source), want, "{source}");
    }
    let all = json!({ "version": "1", "default": "deny", "tools": {
        "t": rules("require_approval_if", &g),
        "t*": rules("require_approval_if", &json!([{ "path": "args.n", "op": "exists", "value": false }])),
    } });
    assert_eq!(shown(&all), []);
    let findings = left_out(&own(json!({})).to_string());
    assert_eq!(findings[0].message(), "a call without `args.n` needs no approval");
}
