//! Explanations agree with evaluation, and the suggested changes work.

use proptest::prelude::*;
use serde_json::{Value, json};
use toolgate::explain::{Explanation, Outcome, StepKind, Truth};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Code, Decision, Effect, Gate, ManualClock, Policy, Timestamp, ToolCall};

use crate::model::generate;
use crate::model::properties::tool_call;
use crate::polling::ready;

/// A Thursday, 10:30.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(document: &Value) -> Policy {
    document.to_string().parse().unwrap()
}

/// Returns a policy with one rule of the document alone, for every tool.
fn alone(document: &Value, pointer: &str) -> Policy {
    let rule = document.pointer(pointer).unwrap();
    let section = pointer.rsplit('/').nth(1).unwrap();
    policy(&json!({ "version": "1", "default": "allow", "all_tools": { section: [rule] } }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn an_explanation_has_the_effect_of_evaluation(document in generate::document(), call in generate::call()) {
        let policy: Policy = document.to_json().parse().unwrap();
        let call = tool_call(&call);
        let evaluation = policy.evaluate(&call, NOW);
        let explanation = policy.explain(&call, NOW);
        prop_assert_eq!(explanation.effect(), evaluation.effect());
        let named_rule = evaluation.rule();
        prop_assert_eq!(explanation.rule(), named_rule.as_deref());
        // The steps lead to the same result.
        let rules = explanation.steps().iter().filter(|step| step.kind() != StepKind::Limits);
        let first = rules.clone().find(|step| step.outcome() == Outcome::Stops);
        prop_assert_eq!(first.and_then(|step| step.code()), evaluation.code());
        let named = first.and_then(|step| step.rules().iter().find(|rule| rule.outcome() == Outcome::Stops));
        if let Some(named) = named {
            prop_assert_eq!(Some(named.pointer()), named_rule.as_deref());
            prop_assert_eq!(named.message(), evaluation.message());
        }
        let (data, text) = (serde_json::to_value(&explanation).unwrap(), explanation.to_string());
        prop_assert!(data["steps"].as_array().unwrap().len() == 9 && text.lines().count() >= 10);
    }

    /// The outcome of every rule is that of a policy with this rule alone.
    #[test]
    fn each_rule_is_explained_as_it_decides_alone(document in generate::document(), call in generate::call()) {
        let text = document.to_json();
        let (policy, document): (Policy, Value) = (text.parse().unwrap(), serde_json::from_str(&text).unwrap());
        let call = tool_call(&call);
        let explanation = policy.explain(&call, NOW);
        for rule in explanation.steps().iter().flat_map(|step| step.rules()) {
            if rule.pointer().ends_with("/action") || explanation.code() == Some(Code::MalformedCall) {
                continue;
            }
            let alone = alone(&document, rule.pointer());
            prop_assert_eq!(alone.evaluate(&call, NOW).is_allowed(), rule.outcome() == Outcome::Passes, "{}",
                rule.pointer());
            for change in rule.changes().iter().filter(|change| !change.is_approval()) {
                let changed = change.apply(&call, NOW);
                prop_assert!(alone.evaluate(&changed.call(), changed.at()).is_allowed(), "{} {change}",
                    rule.pointer());
            }
        }
    }

    /// The explanation of a gate agrees with its decision and its limits.
    #[test]
    fn a_gate_explains_its_next_decision(
        documents in generate::counting_documents(),
        calls in prop::collection::vec(generate::counted_call(), 1..8),
    ) {
        let [document, _] = documents;
        let builder = || Gate::builder().clock(ManualClock::new(NOW));
        let gate = builder().policy(document.to_json().parse::<Policy>().unwrap()).build();
        let mut kept = Vec::new();
        let remote = builder().policy(gate.policy()).store_async(InProcess(MemoryStore::new())).build();
        for call in &calls {
            let call = tool_call(call);
            let explanation = gate.explain(&call).unwrap();
            prop_assert_eq!(ready(remote.explain(&call)).unwrap().to_string(), explanation.to_string());
            let decision = gate.check(&call);
            std::mem::forget(ready(remote.check(&call)));
            prop_assert_eq!(explanation.code(), decision.code(), "{}", explanation);
            if let Decision::RateLimit(limited) = &decision {
                let waits: Vec<_> = explanation.limits().iter().filter(|limit| limit.outcome() == Outcome::Stops)
                    .map(|limit| limit.changes().iter().find_map(|change| change.wait())).collect();
                let longest = match limited.waits_for_calls() {
                    true => waits.into_iter().flatten().max(),
                    false => waits.into_iter().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max()),
                };
                prop_assert_eq!(longest, limited.retry_after());
            }
            kept.push(decision);
        }
    }
}

fn reasons(explanation: &Explanation) -> Vec<(&str, Vec<String>)> {
    explanation
        .reasons()
        .map(|rule| (rule.pointer(), rule.changes().iter().map(ToString::to_string).collect()))
        .collect()
}

#[test]
fn all_reasons_are_listed_with_the_nearest_changes() {
    let policy = policy(&json!({ "version": "1", "default": "deny", "tools": {
        "p*": { "require": [{ "conditions": [{ "path": "args.ref", "op": "regex", "value": "^ORD-[0-9]{4}$" }] }] },
        "pay": {
            "require": [{ "name": "currency", "conditions": [{ "path": "args.currency", "op": "eq",
                "value": "usd" }] }],
            "deny_if": [
                { "conditions": [{ "path": "args.amount", "op": "gt", "value": 50000 }], "on_deny": "Too much." },
                { "conditions": [{ "path": "time.hour", "op": "lt", "value": 12 }] },
                { "conditions": [{ "path": "context.role", "op": "neq", "value": "admin" }] },
            ],
            "require_approval_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 10000 }] }],
        },
    } }));
    let arguments = json!({ "amount": 60000, "currency": "gbp" });
    let call = ToolCall::new("pay", &arguments);
    let explanation = policy.explain(&call, NOW);
    assert_eq!((explanation.effect(), explanation.code()), (Effect::Deny(Code::Require), Some(Code::Require)));
    let own = |text: &str| vec![text.to_owned()];
    assert_eq!(
        reasons(&explanation),
        [
            ("/tools/p*/require/0", own("args.ref matching \"^ORD-[0-9]{4}$\"")),
            ("/tools/pay/require/0", own("args.currency equal to \"usd\"")),
            ("/tools/pay/deny_if/0", own("args.amount at most 50000")),
            ("/tools/pay/deny_if/1", own("wait 5400s")),
            ("/tools/pay/deny_if/2", own("context.role equal to \"admin\"")),
            (
                "/tools/pay/require_approval_if/0",
                vec!["get an approval".to_owned(), "args.amount at most 10000".to_owned()]
            ),
        ]
    );
    let text = explanation.to_string();
    assert!(text.contains("require  stops (require)  <- decides"), "{text}");
    assert!(
        text.contains("- /tools/pay/deny_if/0: true\n      true: args.amount above 50000; found <number>"),
        "{text}"
    );
    assert!(text.contains("says: Too much."), "{text}");
}

#[test]
fn values_are_shown_only_on_request() {
    let policy = policy(&json!({ "version": "1", "default": "allow", "all_tools": { "deny_if": [
        { "conditions": [{ "path": "args.token", "op": "eq", "value_from": "context.token" }] },
        { "conditions": [{ "not": { "any": [{ "path": "call.user", "op": "neq", "value": "ada" }] } }] },
    ] } }));
    let (arguments, context) = (json!({ "token": "s3cret" }), json!({ "token": "s3cret" }));
    let call = ToolCall::new("t", &arguments).context(context.as_object()).user("ada");
    let masked = policy.explain(&call, NOW);
    let all = format!("{masked} {masked:?} {}", serde_json::to_value(&masked).unwrap());
    assert!(!all.contains("s3cret"), "{all}");
    assert!(all.contains("\"ada\""), "the caller is not a secret: {all}");
    let shown = policy.explain_with_values(&call, NOW);
    assert!(shown.to_string().contains("found \"s3cret\", to compare with \"s3cret\""), "{shown}");
    let rule = &shown.steps()[6].rules()[1];
    assert_eq!(
        (rule.truth(), rule.conditions()[0].pointer()),
        (Some(Truth::True), "/all_tools/deny_if/1/conditions/0/not")
    );
}

#[test]
fn limits_show_the_rest_and_the_wait() {
    let policy = policy(&json!({ "version": "1", "default": "allow", "tools": { "pay": { "limits": [
        { "counter": "spend", "window": "minute", "max": 100, "scope": "grant", "amount_from": "args.amount" },
        { "counter": "users", "window": "minute", "max": 1, "scope": "user" },
    ] } } }));
    let clock = ManualClock::new(NOW.saturating_add(std::time::Duration::from_secs(48)));
    let gate = Gate::builder().policy(policy).clock(clock).build();
    let arguments = |amount: u32| json!({ "amount": amount });
    let (first, second, third) = (arguments(70), arguments(50), arguments(500));
    let call = |arguments| ToolCall::new("pay", arguments).grant("g");
    assert!(gate.check(&call(&first).user("u")).is_allowed());

    let explanation = gate.explain(&call(&second)).unwrap();
    let found: Vec<_> = explanation
        .limits()
        .iter()
        .map(|limit| {
            (
                limit.code(),
                limit.remaining().map(|left| left.to_string()),
                limit.changes().iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (Some(Code::Limit), Some("30".to_owned()), "args.amount at most 30 or wait 12s".to_owned()),
            (Some(Code::ScopeMissing), None, "call.user given".to_owned()),
        ]
    );
    // The scope is missing before anything is counted.
    assert_eq!(explanation.code(), Some(Code::ScopeMissing));
    let never = gate.explain(&call(&third).user("u")).unwrap();
    assert_eq!(
        never.limits()[0].changes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["args.amount at most 100"]
    );
}

#[test]
fn a_missing_policy_or_a_malformed_call_is_explained_first() {
    let gate = Gate::builder().build();
    let arguments = json!([1]);
    let no_policy = gate.explain(&ToolCall::new("t", None::<&Value>)).unwrap();
    assert_eq!((no_policy.code(), no_policy.rule()), (Some(Code::NoPolicy), Some("(no policy)")));
    assert_eq!(gate.explain(&ToolCall::new("t", &arguments)).unwrap().code(), Some(Code::MalformedCall));
    let policy = policy(&json!({ "version": "1", "default": "allow", "hide": ["t"] }));
    let malformed = policy.explain(&ToolCall::new("t", &arguments), NOW);
    assert_eq!(malformed.code(), Some(Code::MalformedCall));
    assert_eq!(malformed.steps()[2].outcome(), Outcome::Stops);
}

/// An agent controls the size of a call, so explaining a large one takes bounded time.
#[test]
fn large_calls_and_policies_are_explained_in_bounded_time() {
    let rule = json!({ "conditions": [{ "path": "args.l[*]", "op": "in", "value": [1, "a"] },
        { "path": "args.x", "op": "gt", "value": 1 }] });
    let rules: Vec<_> = std::iter::repeat_n(rule, 100).collect();
    let policy =
        policy(&json!({ "version": "1", "default": "allow", "all_tools": { "deny_if": rules, "require": rules } }));
    let arguments = json!({ "l": vec!["text"; 10_000], "x": "no" });
    let started = std::time::Instant::now();
    let explanation = policy.explain(&ToolCall::new("t", &arguments), NOW);
    assert_eq!(explanation.reasons().count(), 200);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
