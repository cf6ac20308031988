//! The lint: its findings, and the truth of their claims.

use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use toolgate::analysis::lint::{self, Claim, Finding, FindingCode, Report};
use toolgate::explain::Truth;
use toolgate::{Code, Effect, Gate, ManualClock, Policy, Timestamp};

use crate::model::generate;
use crate::model::properties::tool_call;

mod catalogue;
mod contradictions;
mod denials;
mod expressions;
mod limits;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn found(report: &Report) -> Vec<(&'static str, &str)> {
    report.findings().iter().map(|finding| (finding.code().as_str(), finding.pointer())).collect()
}

fn entry(rules: &Value) -> String {
    json!({ "version": "1", "default": "deny", "tools": { "t": rules } }).to_string()
}

fn rule(section: &str, conditions: &Value) -> String {
    entry(&json!({ section: [{ "conditions": conditions }] }))
}

#[test]
fn each_kind_of_finding_is_reported() {
    let c = |path: &str, op: &str, value: Value| json!({ "path": path, "op": op, "value": value });
    let limit = |counter: &str, rest: &Value| {
        let mut limit = json!({ "counter": counter, "window": "day", "max": 5, "scope": "grant" });
        limit.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        limit
    };
    let document = |rest: &Value| {
        let mut document = json!({ "version": "1", "default": "deny" });
        document.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        document.to_string()
    };
    for (source, want) in [
        (
            document(&json!({ "hide": ["a*"], "tools": { "ab*": {}, "ac": { "action": "deny" }, "b": {} } })),
            vec![("entry_hidden", "/tools/ab*")],
        ),
        (document(&json!({ "tools": { "a": {}, "a*": { "action": "deny" } } })), vec![("entry_shadowed", "/tools/a")]),
        (document(&json!({ "all_tools": { "deny_if": [{ "conditions": [] }] } })), vec![("all_denied", "/all_tools")]),
        (
            rule("require", &json!([c("args.x", "gt", json!(5)), c("args.x", "lt", json!(5))])),
            vec![("never_holds", "/tools/t/require/0/conditions/1")],
        ),
        (
            rule("require", &json!([{ "all": [c("args.x", "eq", json!("a")), c("args.x", "regex", json!("^b$"))] }])),
            vec![("never_holds", "/tools/t/require/0/conditions/0/all/1")],
        ),
        (
            rule("require", &json!([c("time.hour", "gt", json!(23))])),
            vec![("never_holds", "/tools/t/require/0/conditions/0")],
        ),
        (rule("require", &json!([c("time.hour", "gte", json!(23))])), vec![]),
        (
            rule("deny_if", &json!([c("call.user", "gt", json!(1))])),
            vec![("never_holds", "/tools/t/deny_if/0/conditions/0")],
        ),
        (
            entry(&json!({ "action": "deny", "require": [{ "conditions": [c("args.x", "exists", json!(true))] }] })),
            vec![("rule_never_decides", "/tools/t/require/0")],
        ),
        (
            entry(&json!({ "deny_if": [{ "conditions": [] }], "limits": [limit("n", &json!({}))] })),
            vec![("limit_never_decides", "/tools/t/limits/0")],
        ),
        (
            entry(&json!({ "limits": [limit("n", &json!({})), limit("n", &json!({ "max": 9 }))] })),
            vec![("limit_never_decides", "/tools/t/limits/1")],
        ),
        (
            rule("require", &json!([c("args.x", "regex", json!("[a-z]+$"))])),
            vec![("regex_unanchored", "/tools/t/require/0/conditions/0")],
        ),
        (rule("require", &json!([c("args.x", "regex", json!("^[a-z]+$"))])), vec![]),
        (
            rule("require", &json!([c("args.x", "regex", json!("^a|b$"))])),
            vec![("regex_unanchored", "/tools/t/require/0/conditions/0")],
        ),
        (
            rule("deny_if", &json!([c("args.x", "gt", json!(5))])),
            vec![("denial_left_out", "/tools/t/deny_if/0/conditions/0")],
        ),
        (
            entry(&json!({ "require": [{ "conditions": [c("args.x", "type", json!("number"))] }],
                           "deny_if": [{ "conditions": [c("args.x", "gt", json!(5))] }] })),
            vec![],
        ),
        (
            rule("deny_if", &json!([{ "path": "args.x", "op": "contains", "value": "rm -rf", "absent": "match" }])),
            vec![("denial_respelt", "/tools/t/deny_if/0/conditions/0")],
        ),
        (
            rule("deny_if", &json!([{ "path": "args.x", "op": "type", "value": "integer", "absent": "match" }])),
            vec![("denial_retyped", "/tools/t/deny_if/0/conditions/0")],
        ),
        (
            rule("require_approval_if", &json!([c("args.x", "gt", json!(5))])),
            vec![("approval_left_out", "/tools/t/require_approval_if/0/conditions/0")],
        ),
        (
            rule("require_approval_if", &json!([{ "path": "args.x", "op": "eq", "value": "prod", "absent": "match" }])),
            vec![("approval_respelt", "/tools/t/require_approval_if/0/conditions/0")],
        ),
        (
            rule(
                "require_approval_if",
                &json!([{ "path": "args.x", "op": "type", "value": "array", "absent": "match" }]),
            ),
            vec![("approval_retyped", "/tools/t/require_approval_if/0/conditions/0")],
        ),
        (
            rule("require", &json!([c("args.x", "path_within", json!(["/data/*"]))])),
            vec![("literal_pattern", "/tools/t/require/0/conditions/0")],
        ),
        (
            rule(
                "require",
                &json!([{ "any": [c("args.x", "eq", json!("b")), c("args.x", "in", json!(["a", "*.md"]))] }]),
            ),
            vec![("literal_pattern", "/tools/t/require/0/conditions/0/any/1")],
        ),
        (rule("require", &json!([c("args.x", "in", json!(["*", "rm -rf *", "2*3"]))])), vec![]),
        (rule("require", &json!([c("args.x", "host_in", json!(["*.example.com"]))])), vec![]),
        (
            document(&json!({ "hide": ["^admin", "debug.*"], "tools": { "get|list": {}, "a_b-c.d/e": {} } })),
            vec![("literal_pattern", "/hide/0"), ("literal_pattern", "/tools/get|list")],
        ),
        (
            entry(&json!({ "limits": [limit("n", &json!({ "amount": 0 }))] })),
            vec![("limit_never_reached", "/tools/t/limits/0")],
        ),
        (
            entry(&json!({ "limits": [limit("n", &json!({ "scope": ["args.x"] }))] })),
            vec![("scope_of_arguments", "/tools/t/limits/0/scope")],
        ),
        (
            entry(&json!({ "limits": [limit("api_calls", &json!({})), limit("apiCalls", &json!({}))] })),
            vec![("counters_alike", "/tools/t/limits/1/counter")],
        ),
        (json!({ "version": "1", "default": "allow" }).to_string(), vec![("unlimited", "/default")]),
        (
            entry(&json!({ "approval": { "bind": ["args<="], "min_approvers": 2, "approvers": ["ada", "ada"] } })),
            vec![
                ("bound_of_arguments", "/tools/t/approval/bind/0"),
                ("too_few_approvers", "/tools/t/approval/min_approvers"),
            ],
        ),
        (
            entry(&json!({ "approval": { "bind": [], "uses": 20 } })),
            vec![("bound_to_nothing", "/tools/t/approval/bind")],
        ),
        (
            entry(&json!({ "limits": [
                limit("a", &json!({ "window": "400d" })),
                limit("b", &json!({ "window": 86_401 })),
                limit("c", &json!({ "window": "1d" })),
                limit("d", &json!({ "window": "400d", "algorithm": "sliding" })),
                limit("e", &json!({ "window": "day", "utc_offset": "+13:37" })),
                limit("f", &json!({ "window": "day", "utc_offset": "+05:45" })),
                limit("g", &json!({ "window": "day", "utc_offset": "-12:00" })),
                limit("h", &json!({ "window": "day", "utc_offset": "+15:00" })),
                limit("i", &json!({ "window": "lifetime" })),
            ] })),
            vec![
                ("aligned_to_epoch", "/tools/t/limits/0/window"),
                ("aligned_to_epoch", "/tools/t/limits/1/window"),
                ("offset_of_no_place", "/tools/t/limits/4/utc_offset"),
                ("offset_of_no_place", "/tools/t/limits/7/utc_offset"),
            ],
        ),
    ] {
        let report = lint::check(&source).unwrap();
        let mut got = found(&report);
        got.sort_unstable();
        assert_eq!(got, want, "{source}");
        assert!(report.is_complete());
        for finding in report.findings() {
            assert!(finding.line() == 1 && finding.column() > 1 && !finding.help().is_empty(), "{finding}");
            assert!(finding.claim() != Claim::SlipsThrough || finding.witness().is_some(), "{finding}");
        }
    }
}

#[test]
fn a_policy_is_compared_with_a_catalogue() {
    let source = json!({ "version": "1", "default": "deny", "hide": ["admin_*"], "tools": {
        "create_chrage": {},
        "create_refund": {
            "deny_if": [
                { "conditions": [{ "path": "args.amount", "op": "gt", "value": 100, "absent": "match" }] },
                { "conditions": [{ "path": "args.reason", "op": "in", "value": ["fun"] }] },
            ],
            "limits": [{ "counter": "n", "window": "day", "max": 5, "scope": "grant", "amount_from": "args.fee" }],
            "require": [{ "conditions": [{ "path": "args.curency", "op": "eq", "value": "usd" }] }],
        },
    } });
    let tools = json!({ "tools": [
        { "name": "create_charge", "inputSchema": { "type": "object" } },
        { "name": "create_refund", "inputSchema": { "type": "object", "required": ["amount"], "properties": {
            "amount": { "type": "string" }, "currency": { "type": "string" }, "fee": { "type": "number" },
            "reason": { "enum": ["fraud", "duplicate"] },
        } } },
    ] });
    let report = lint::check_against(&source.to_string(), &tools).unwrap();
    let of_catalogue: Vec<_> = report
        .findings()
        .iter()
        .filter(|finding| finding.code() >= FindingCode::NoSuchTool)
        .map(|finding| (finding.code().as_str(), finding.pointer(), finding.help()))
        .collect();
    let starts: Vec<_> = of_catalogue.iter().map(|(code, pointer, _)| (*code, *pointer)).collect();
    assert_eq!(
        starts,
        [
            ("tool_unmentioned", "/default"),
            ("no_such_tool", "/hide/0"),
            ("no_such_tool", "/tools/create_chrage"),
            ("never_of_type", "/tools/create_refund/deny_if/0/conditions/0"),
            ("argument_optional", "/tools/create_refund/deny_if/1/conditions/0"),
            ("never_of_type", "/tools/create_refund/deny_if/1/conditions/0"),
            ("argument_optional", "/tools/create_refund/limits/0/amount_from"),
            ("no_such_argument", "/tools/create_refund/require/0/conditions/0"),
        ]
    );
    assert_eq!((of_catalogue[2].2, of_catalogue[7].2), ("did you mean `create_charge`?", "did you mean `currency`?"));
}

/// The help names the possible values, for example where a policy has `Monday`.
#[test]
fn a_condition_that_never_holds_is_reported_with_help() {
    for (condition, help) in [
        (json!({ "path": "time.weekday", "op": "gt", "value": 7 }), "a number from 1 (Monday) to 7"),
        (json!({ "path": "time.hour", "op": "gt", "value": 23 }), "a number from 0 to 23"),
        (json!({ "path": "time.minute", "op": "lt", "value": 0 }), "a number from 0 to 59"),
        (json!({ "path": "time.date", "op": "type", "value": "number" }), "a string such as `2026-01-15`"),
        (json!({ "path": "call.user", "op": "gt", "value": 1 }), "fix the value, or remove the condition"),
    ] {
        let rules = json!({ "require": [{ "conditions": [condition] }] });
        let source = json!({ "version": "1", "default": "deny", "tools": { "t": rules } }).to_string();
        let report = lint::check(&source).unwrap();
        let [finding] = report.findings() else { panic!("{report}") };
        assert!(finding.code() == FindingCode::NeverHolds && finding.help().contains(help), "{finding}");
        assert_eq!(report.to_string(), format!("{finding}\n1 finding\n"));
    }
}

#[test]
fn findings_have_lines_and_columns() {
    let source = r#"{
  "version": "1", "default": "deny",
  "tools": {
    "ä": { "deny_if": [
      { "conditions": [{ "path": "args.x", "op": "gt", "value": 1 }] }
    ] }
  }
}"#;
    let report = lint::check(source).unwrap();
    let places: Vec<_> = report.findings().iter().map(|finding| (finding.line(), finding.column())).collect();
    assert_eq!(places, [(5, 24)]);
    assert!(report.findings()[0].to_string().starts_with("5:24: warning[denial_left_out]: "));
    assert_eq!(serde_json::to_value(&report).unwrap()["findings"][0]["effect"]["decision"], "allow");
}

/// Rules with two conditions on one argument, which mostly contradict.
fn contradictory_document() -> impl Strategy<Value = String> {
    let value = || select(vec![json!(0), json!(1), json!(2), json!("a"), json!("ab"), json!(true), json!([1])]);
    let number = || select(vec![json!(0), json!(1), json!(2), json!(1.5)]);
    let one = || {
        let path = select(vec!["args.x", "args.x", "args.x", "time.hour", "call.user", "call.tool", "args.l[*]"]);
        let operator = prop_oneof![
            (select(vec!["gt", "gte", "lt", "lte"]), number()),
            (select(vec!["eq", "neq"]), value()),
            (select(vec!["in", "not_in"]), prop::collection::vec(value(), 1..3).prop_map(Value::from)),
            (Just("exists"), any::<bool>().prop_map(Value::from)),
            (select(vec!["regex", "not_regex", "starts_with", "contains"]), Just(json!("a"))),
            (select(vec!["min_length", "max_length", "min_items", "max_items"]), (0u32..3).prop_map(Value::from)),
            (Just("type"), select(vec![json!("string"), json!(["integer", "array"])])),
        ];
        (path, operator, proptest::bool::weighted(0.2)).prop_map(|(path, (op, value), absent)| {
            let mut condition = json!({ "path": path, "op": op, "value": value });
            generate::fit_time(&mut condition);
            if absent && op != "exists" {
                condition["absent"] = json!("match");
            }
            condition
        })
    };
    let one = move || {
        let plain = one().prop_map(|mut condition| {
            condition.as_object_mut().unwrap().remove("absent");
            condition
        });
        let other = select(vec!["args.y", "call.user", "context.x"]);
        let from = (select(vec!["eq", "neq", "gt", "in"]), other)
            .prop_map(|(op, other)| json!({ "path": "args.x", "op": op, "value_from": other }));
        let several = prop::collection::vec(prop_oneof![3 => plain.clone(), 1 => from.clone()], 1..3);
        prop_oneof![
            6 => one(),
            1 => from,
            1 => (select(vec!["any", "all"]), several.clone()).prop_map(|(key, inner)| json!({ key: inner })),
            1 => plain.prop_map(|condition| json!({ "not": condition })),
            1 => (select(vec!["any", "all"]), several).prop_map(|(key, inner)| json!({ "not": { key: inner } })),
        ]
    };
    let rules = move || {
        let rule = prop::collection::vec(one(), 1..3).prop_map(|conditions| json!({ "conditions": conditions }));
        prop::collection::vec(rule, 0..3).prop_map(Value::from)
    };
    let effect = || select(vec!["allow", "deny"]);
    let effects = (effect(), effect());
    (rules(), rules(), rules(), rules(), effects).prop_map(|(require, deny_if, approval, all, (action, default))| {
        let own = json!({ "require": require, "deny_if": deny_if, "require_approval_if": approval });
        let action = if action == "deny" { json!({ "action": "deny" }) } else { json!({}) };
        let tools = json!({ "a": own, "a*": action, "b": own, "*b": own });
        json!({ "version": "1", "default": default, "all_tools": { "deny_if": all }, "tools": tools }).to_string()
    })
}

/// Asserts that a claim is true for a call.
fn claim_holds(finding: &Finding, policy: &Policy, call: &Value) -> Result<(), TestCaseError> {
    let call = tool_call(call);
    let explanation = policy.explain(&call, NOW);
    match finding.claim() {
        Claim::AlwaysDenied => {
            let applies = finding.pointer() == "/all_tools"
                || explanation.entries().iter().any(|entry| entry == finding.pointer());
            prop_assert!(!applies || matches!(explanation.effect(), Effect::Deny(_)), "{}", finding);
        }
        Claim::NeverHolds => {
            let rule = finding.pointer().split("/conditions").next().unwrap();
            let outcome = explanation.steps().iter().flat_map(|step| step.rules()).find(|one| one.pointer() == rule);
            prop_assert!(outcome.is_none_or(|outcome| outcome.truth() != Some(Truth::True)), "{}", finding);
        }
        Claim::NeverDecides => prop_assert_ne!(explanation.rule(), Some(finding.pointer())),
        Claim::NeverFull | Claim::SlipsThrough | Claim::Nothing => {}
    }
    Ok(())
}

fn witnesses_show_their_claims(report: &Report, policy: &Policy, document: &Value) -> Result<(), TestCaseError> {
    for finding in report.findings().iter().filter(|finding| finding.claim() == Claim::SlipsThrough) {
        let witness = finding.witness().unwrap();
        let alone = |pointer: &str| {
            let rule = pointer.split("/conditions").next().unwrap();
            let section = rule.rsplit('/').nth(1).unwrap();
            let document = json!({ "version": "1", "default": "allow",
                "all_tools": { section: [document.pointer(rule).unwrap()] } });
            document.to_string().parse::<Policy>().unwrap()
        };
        if finding.code() != FindingCode::Unlimited {
            let alone = alone(finding.pointer());
            prop_assert!(alone.evaluate(&witness.call(), witness.at()).is_allowed(), "{}", finding);
        }
        let effect = policy.evaluate(&witness.call(), witness.at()).effect();
        match finding.code() {
            FindingCode::Unlimited | FindingCode::DenialLeftOut => {
                prop_assert!(!matches!(effect, Effect::Deny(_)), "{}", finding);
            }
            FindingCode::ApprovalLeftOut => prop_assert_eq!(effect, Effect::Allow, "{}", finding),
            _ => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn claims_about_rules_are_true(
        source in prop_oneof![1 => generate::document().prop_map(|document| document.to_json()),
            2 => contradictory_document()],
        calls in prop::collection::vec(generate::call(), 24),
    ) {
        let report = lint::check(&source).unwrap();
        let policy: Policy = source.parse().unwrap();
        let document: Value = serde_json::from_str(&source).unwrap();
        witnesses_show_their_claims(&report, &policy, &document)?;
        for finding in report.findings() {
            prop_assert!(document.pointer(finding.pointer()).is_some(), "{}", finding);
            for call in &calls {
                claim_holds(finding, &policy, call)?;
            }
        }
    }

    #[test]
    fn claims_about_limits_are_true(
        documents in generate::counting_documents(),
        calls in prop::collection::vec(generate::counted_call(), 1..20),
    ) {
        let [document, _] = documents;
        let source = document.to_json();
        let report = lint::check(&source).unwrap();
        let gate = Gate::builder().policy(source.parse::<Policy>().unwrap()).clock(ManualClock::new(NOW)).build();
        let mut kept = Vec::new();
        for call in &calls {
            let decision = gate.check(&tool_call(call));
            for finding in report.findings() {
                let named = decision.rule() == Some(finding.pointer());
                match finding.claim() {
                    Claim::NeverDecides => prop_assert!(!named, "{}", finding),
                    Claim::NeverFull => prop_assert!(!named || decision.code() != Some(Code::Limit), "{}", finding),
                    _ => {}
                }
            }
            kept.push(decision);
        }
    }

    #[test]
    fn any_catalogue_can_be_compared(document in generate::document(), tools in generate::argument(),
        name in "[ab]{1,3}") {
        let source = document.to_json();
        let _ = lint::check_against(&source, &tools).unwrap();
        let tool = json!({ "name": name, "inputSchema": { "properties": tools, "required": tools, "$ref": "#" } });
        let _ = lint::check_against(&source, &json!([tool, tools])).unwrap();
    }
}

/// Real catalogues and policies, where they are available beside the repository.
#[test]
fn real_catalogues_and_policies_take_milliseconds() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let Ok(folder) = std::fs::read_dir(shared.join("data/tools-list")) else {
        eprintln!("skipped: no {}", shared.join("data/tools-list").display());
        return;
    };
    let read = |path: &Path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap();
    let catalogues: Vec<Value> = folder.map(|file| read(&file.unwrap().path())).collect();
    let published = read(&shared.join("published/policies.json"));
    for policy in published.as_array().unwrap() {
        let source = policy["policy"].to_string();
        if source.parse::<Policy>().is_err() {
            continue;
        }
        for catalogue in &catalogues {
            let started = Instant::now();
            assert!(lint::check_against(&source, catalogue).unwrap().is_complete());
            assert!(started.elapsed().as_millis() < 500, "{:?} {}", started.elapsed(), policy["id"]);
        }
    }
}

/// A matching text has as many bytes as the expression has states, so trying it takes quadratic
/// time: seconds. Such texts are neither tried nor shown.
#[test]
fn long_matches_of_expressions_are_not_tried() {
    let condition = |n: u32| {
        let value = format!("(?:a{{4000}})x{n}");
        json!({ "conditions": [{ "path": "args.x", "op": "regex", "value": value }] })
    };
    let rules: Vec<_> = (0..40).map(condition).collect();
    for list in ["deny_if", "require"] {
        let source = json!({ "version": "1", "default": "deny", "tools": { "t": { list: rules } } }).to_string();
        let report = lint::check(&source).unwrap();
        assert!(report.findings().iter().all(|finding| finding.to_string().len() < 1_000));
    }
}

#[test]
fn extreme_policies_and_catalogues_take_bounded_time() {
    let condition = json!({ "path": "args.x.y[*].z", "op": "in", "value": ["a", 1] });
    let rules = json!({ "deny_if": [{ "conditions": [condition, condition] }], "limits": [
        { "counter": "n", "window": "day", "max": 1, "scope": ["args.x"] } ] });
    let wide = |pattern: &str| {
        let tools: serde_json::Map<_, _> =
            (0..10_000).map(|n| (pattern.replace('#', &n.to_string()), rules.clone())).collect();
        json!({ "version": "1", "default": "allow", "tools": tools }).to_string()
    };
    let deep = (0..50_000).fold(String::new(), |deep, _| deep + "/properties/x");
    let recursive = json!({ "properties": { "x": { "$ref": "#" }, "y": { "$ref": "#/properties/x" } } });
    let mut tools: Vec<_> =
        (0..10_000).map(|n| json!({ "name": format!("tool_{n}_x"), "inputSchema": recursive })).collect();
    tools[0]["inputSchema"] =
        json!({ "$ref": format!("#{deep}"), "properties": { "x": { "$ref": "#/properties/x" } } });
    tools[1]["inputSchema"] = json!({ "properties": { "x": { "$ref": "#/properties/x" } } });
    for source in [wide("tool_#_x"), wide("*_#_x"), wide("*#*")] {
        let started = Instant::now();
        let report = lint::check_against(&source, &json!({ "tools": tools })).unwrap();
        assert!(!report.is_complete() && !report.findings().is_empty());
        println!("{} bytes: {:?}", source.len(), started.elapsed());
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }
}
