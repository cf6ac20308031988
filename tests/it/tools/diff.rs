//! The difference between two policies.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use toolgate::analysis::diff::{self, ChangeDetail, Comparison, Kind, Tightening};
use toolgate::{Decision, Effect, Gate, ManualClock, Policy, Timestamp, ToolCall};

use crate::model::generate::{self, Document};

/// 2026-01-15T10:30:00Z
const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(document: &Value) -> Policy {
    Policy::try_from(document).unwrap_or_else(|error| panic!("{document}: {error}"))
}

fn of_tools(tools: &Value) -> Policy {
    policy(&json!({ "version": "1", "default": "deny", "tools": tools }))
}

fn rule(path: &str, op: &str, value: &Value) -> Value {
    json!([{ "conditions": [{ "path": path, "op": op, "value": value }] }])
}

/// Returns each change and each undecided question in short.
fn summary(found: &Comparison) -> Vec<String> {
    let changes = found.changes().iter().map(|change| {
        let detail = match change.detail() {
            ChangeDetail::Call { old, new, witness, boundary, .. } => {
                let boundary = boundary
                    .as_ref()
                    .map(|boundary| format!(" at {} {} | {}", boundary.path(), boundary.alike(), boundary.changed()));
                let (old, new) = (old.decision(), new.decision());
                format!("{old} > {new}: {witness}{}", boundary.unwrap_or_default())
            }
            ChangeDetail::Terms { text, .. } => text.clone(),
            other => panic!("{other:?}"),
        };
        format!("{} {}: {detail}", change.kind(), change.tools())
    });
    let undecided =
        found.undecided().iter().map(|it| format!("possibly {} {}: {}", it.kind(), it.tools(), it.reason()));
    changes.chain(undecided).collect()
}

#[test]
fn every_change_has_a_witness() {
    let gt = |max: u32| json!({ "deny_if": rule("args.amount", "gt", &json!(max)) });
    let cases = [
        (json!({ "t": gt(50000) }), json!({ "t": gt(50000) }), vec![]),
        (
            json!({ "t": gt(50000) }),
            json!({ "t": gt(50002) }),
            vec![r#"wider t: deny > allow: "t" {"amount":50001} at args.amount 50000 | 50001"#],
        ),
        (
            json!({ "t": { "require": rule("args.amount", "lte", &json!(9)) } }),
            json!({ "t": { "require": rule("args.amount", "lt", &json!(9)) } }),
            vec![r#"narrower t: allow > deny: "t" {"amount":9} at args.amount 8 | 9"#],
        ),
        // The same rule, written differently.
        (
            json!({ "t": { "deny_if": [{ "conditions": [{ "path": "args.n", "op": "gt", "value": 9,
                "absent": "match" }] }] } }),
            json!({ "t": { "require": rule("args.n", "lte", &json!(9)) } }),
            vec![],
        ),
        (
            json!({ "t": { "require": rule("args.c", "in", &json!(["eur", "usd"])) } }),
            json!({ "t": { "require": [{ "conditions": [{ "any": [
                { "path": "args.c", "op": "eq", "value": "usd" }, { "path": "args.c", "op": "eq", "value": "eur" },
            ] }] }] } }),
            vec![],
        ),
        (json!({ "t": {} }), json!({ "t": {}, "u": {} }), vec![r#"wider u: deny > allow: "u" {}"#]),
        (json!({ "t*": {} }), json!({ "t*": {}, "tu": {} }), vec![]),
        (json!({ "t*": {} }), json!({ "tu": {} }), vec![r#"narrower t*: allow > deny: "tx" {}"#]),
        (
            json!({ "t": { "require": rule("args.path", "path_within", &json!(["/a"])) } }),
            json!({ "t": { "require": rule("args.path", "path_within", &json!(["/a", "/b"])) } }),
            vec![r#"wider t: deny > allow: "t" {"path":"/b"}"#],
        ),
        (
            json!({ "t": { "require": rule("args.q", "regex", &json!("^ORD-[0-9]{4}$")) } }),
            json!({ "t": {} }),
            vec![r#"wider t: deny > allow: "t" {"q":1}"#],
        ),
        (
            json!({ "t": { "action": "require_approval" } }),
            json!({ "t": { "action": "deny" } }),
            vec![r#"narrower t: approval_required > deny: "t" {}"#],
        ),
        (
            json!({ "t": { "deny_if": rule("time.hour", "gte", &json!(18)) } }),
            json!({ "t": { "deny_if": rule("time.hour", "gte", &json!(20)) } }),
            vec![r#"wider t: deny > allow: "t" {} at 2026-01-15T18:30:00Z"#],
        ),
        (
            json!({ "t": { "require": rule("call.user", "in", &json!(["ann", "bob"])) } }),
            json!({ "t": { "require": rule("call.user", "in", &json!(["ann"])) } }),
            vec![r#"narrower t: allow > deny: "t" {} user "bob""#],
        ),
        (
            json!({ "t": { "deny_if": rule("args.l[*].x", "eq", &json!("bad")) } }),
            json!({ "t": {} }),
            vec![r#"wider t: deny > allow: "t" {"l":[{"x":1}]}"#],
        ),
    ];
    for (old, new, want) in cases {
        let found = diff::compare(&of_tools(&old), &of_tools(&new));
        assert_eq!(summary(&found), want, "{old}\n{new}");
    }
}

#[test]
fn limits_and_approvals_are_compared() {
    let limit = |key: &str, value: Value| {
        let mut limit = json!({ "counter": "c", "window": "day", "max": 10, "scope": "grant" });
        if !key.is_empty() {
            limit[key] = value;
        }
        json!({ "t": { "limits": [limit] } })
    };
    let (base, own_max) = (limit("", json!(null)), limit("max_from", json!("context.m")));
    let mut bucket = limit("algorithm", json!("token_bucket"));
    bucket["t"]["limits"][0]["burst"] = json!(3);
    let asks = |approval: Value| json!({ "t": { "action": "require_approval", "approval": approval } });
    let some =
        asks(json!({ "ttl": "5m", "approvers": ["ann", "bob"], "min_approvers": 2, "bind": ["args.a", "args.n<="] }));
    for (old, new, want, tightens) in [
        (&base, limit("max", json!(20)), "wider t: limit `c`: max 10 to 20", "no"),
        (&base, limit("max", json!(8_999_999_999_999.999)), "wider t: limit `c`: max 10 to 8999999999999.998", "no"),
        (&base, limit("max", json!(9)), "narrower t: limit `c`: max 10 to 9", "yes"),
        (&base, limit("amount", json!(0.5)), "wider t: limit `c`: amount 1 to 0.5", "no"),
        (&base, limit("amount", json!(2)), "narrower t: limit `c`: amount 1 to 2", "yes"),
        (&base, limit("shadow", json!(true)), "wider t: limit `c`: shadow false to true", "no"),
        (&base, json!({ "t": {} }), "wider t: limit `c` (max 10 per day) was removed", "no"),
        (&base, limit("max_from", json!("context.m")), "narrower t: limit `c`: max_from none to context.m", "yes"),
        (&own_max, base.clone(), "wider t: limit `c`: max_from context.m to none", "no"),
        (
            &own_max,
            limit("max_from", json!("context.n")),
            "possibly wider t: limit `c`: max_from context.m to context.n",
            "cannot tell",
        ),
        (&json!({ "t": {} }), base.clone(), "narrower t: limit `c` (max 10 per day) was added", "yes"),
        (
            &base,
            limit("amount_from", json!("args.n")),
            "possibly wider t: limit `c`: amount 1 to args.n",
            "cannot tell",
        ),
        (
            &base,
            limit("window", json!("hour")),
            "possibly wider t: limit `c`: window day to hour (a new counter)",
            "cannot tell",
        ),
        (
            &base,
            limit("scope", json!("user")),
            "possibly wider t: limit `c`: scope grant to user (a new counter)",
            "cannot tell",
        ),
        (
            &base,
            limit("algorithm", json!("sliding")),
            "possibly wider t: limit `c`: algorithm fixed to sliding (a new counter)",
            "cannot tell",
        ),
        (
            &base,
            bucket,
            "possibly wider t: limit `c`: algorithm fixed to token_bucket 3 (a new counter)",
            "cannot tell",
        ),
        (
            &some,
            asks(json!({ "ttl": "5m", "approvers": ["ann", "bob", "eve"], "min_approvers": 2,
                    "bind": ["args.a", "args.n<="] })),
            "wider t: approval: approvers ann or bob to ann or bob or eve",
            "no",
        ),
        (
            &some,
            asks(
                json!({ "ttl": "6m", "approvers": ["ann", "bob"], "min_approvers": 2, "bind": ["args.a", "args.n<="] }),
            ),
            "wider t: approval: ttl 300s to 360s",
            "no",
        ),
        (
            &some,
            asks(json!({ "ttl": "5m", "approvers": ["ann", "bob"], "bind": ["args.a", "args.n<="] })),
            "wider t: approval: min_approvers 2 to 1",
            "no",
        ),
        (
            &some,
            asks(json!({ "ttl": "5m", "approvers": ["ann", "bob"], "min_approvers": 2, "bind": ["args.n<="] })),
            "wider t: approval: bind args.a and args.n<= to args.n<=",
            "no",
        ),
        (
            &some,
            asks(json!({ "ttl": "5m", "approvers": ["ann", "bob"], "min_approvers": 2, "bind": ["args.a", "args.n"] })),
            "narrower t: approval: bind args.a and args.n<= to args.a and args.n",
            "yes",
        ),
        (
            &some,
            asks(json!({ "ttl": "5m", "approvers": ["ann", "bob"], "min_approvers": 2 })),
            "narrower t: approval: bind args.a and args.n<= to all arguments",
            "yes",
        ),
        (
            &some,
            asks(json!({ "ttl": "5m", "approvers": ["ann", "bob"], "min_approvers": 2, "bind": [] })),
            "wider t: approval: bind args.a and args.n<= to no argument",
            "no",
        ),
        (
            &some,
            asks(json!({ "ttl": "5m", "approvers": ["ann", "bob"], "min_approvers": 2, "uses": 5,
                    "bind": ["args.a", "args.n<="] })),
            "wider t: approval: uses 1 to 5",
            "no",
        ),
    ] {
        let (old, new) = (of_tools(old), of_tools(&new));
        let found = summary(&diff::compare(&old, &new));
        assert!(found.iter().any(|line| line == want), "{want}\n{found:#?}");
        assert_eq!(short(&diff::only_tightens(&old, &new)), tightens, "{want}");
    }
}

fn short(tightening: &Tightening) -> &'static str {
    match tightening {
        Tightening::Yes => "yes",
        Tightening::No(_) => "no",
        Tightening::CannotTell(_) => "cannot tell",
    }
}

#[test]
fn only_tightens_answers_yes_only_with_a_proof() {
    let old = json!({
        "read_*": {},
        "pay": {
            "require": rule("args.currency", "in", &json!(["eur", "usd"])),
            "deny_if": rule("args.amount", "gt", &json!(500)),
            "require_approval_if": rule("args.note", "regex", &json!("urgent")),
        },
    });
    let with = |change: fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        new
    };
    for (new, want) in [
        (with(|_| {}), "yes"),
        (with(|new| new["pay"]["deny_if"] = rule("args.amount", "gte", &json!(500))), "yes"),
        (with(|new| new["pay"]["deny_if"] = rule("args.amount", "gt", &json!(500.5))), "no"),
        (with(|new| new["pay"]["require"] = rule("args.currency", "eq", &json!("eur"))), "yes"),
        (with(|new| new["pay"]["action"] = json!("require_approval")), "yes"),
        (with(|new| new["pay"]["deny_if"] = rule("args.note", "contains", &json!("x"))), "no"),
        (
            with(|new| new["pay"]["require_approval_if"] = rule("args.note", "regex", &json!("urgent|now"))),
            "cannot tell",
        ),
        (with(|new| new["read_*"]["action"] = json!("deny")), "yes"),
        (
            with(|new| {
                new.as_object_mut().unwrap().remove("pay");
            }),
            "yes",
        ),
        (
            with(|new| {
                new.as_object_mut().unwrap().insert("read_all".into(), json!({}));
            }),
            "yes",
        ),
        (
            with(|new| {
                new.as_object_mut().unwrap().insert("write".into(), json!({}));
            }),
            "no",
        ),
        (
            with(|new| {
                new.as_object_mut().unwrap().insert("write".into(), json!({ "action": "deny" }));
            }),
            "yes",
        ),
    ] {
        let answer = diff::only_tightens(&of_tools(&old), &of_tools(&new));
        assert_eq!(short(&answer), want, "{new}\n{answer}");
    }
}

#[test]
fn a_comparison_serializes_as_data() {
    let found = diff::compare(&of_tools(&json!({})), &of_tools(&json!({ "t": {} })));
    let want = json!({ "changes": [{
        "kind": "wider", "tools": "t", "call": {
            "old": { "decision": "deny", "code": "default_deny", "rule": "(default deny)" },
            "new": { "decision": "allow" },
            "witness": { "tool": "t", "arguments": {}, "at": "2026-01-15T10:30:00Z" },
        },
    }], "undecided": [] });
    assert_eq!(serde_json::to_value(&found).unwrap(), want);
}

/// The sample files of the example, which the documentation shows.
#[test]
fn the_sample_policies_have_the_documented_changes() {
    let read = |name: &str| -> Policy {
        let file = format!("{}/examples/data/desk.{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(file).unwrap().parse().unwrap()
    };
    let found = diff::compare(&read("old"), &read("new"));
    let count = |kind| found.changes().iter().filter(|change| change.kind() == kind).count();
    assert_eq!((count(Kind::Wider), count(Kind::Narrower), found.undecided().len()), (3, 3, 0), "{found}");
    assert!(found.to_string().contains("boundary args.amount 50000 | 50001"), "{found}");
}

/// Returns the strictness of an effect.
fn rank(effect: Effect) -> u8 {
    match effect {
        Effect::Allow => 0,
        Effect::RequireApproval => 1,
        Effect::Deny(_) => 2,
    }
}

/// Matches by the definition: a star matches nothing, or one character and then again.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => matches(rest, name) || (!name.is_empty() && matches(pattern, &name[1..])),
        Some((c, rest)) => name.first() == Some(c) && matches(rest, &name[1..]),
    }
}

/// A small change of a document.
#[derive(Debug, Clone)]
enum Edit {
    Remove(Index),
    Insert(&'static str, Value),
    Default(&'static str),
    Hide(Vec<String>),
    /// Removes a rule from a section of an entry.
    Drop(Index, &'static str, Index),
    /// Appends the rules of another entry.
    Append(Index, Value),
    /// Adds to one of the numbers of an entry or of `all_tools`.
    Nudge(Index, Index, i64),
    /// Replaces one of the text values of an entry.
    Retext(Index, Index, &'static str),
}

fn edit() -> impl Strategy<Value = Edit> {
    let sections = select(vec!["require", "deny_if", "require_approval_if", "limits"]);
    let names = select(vec!["a", "b", "ab", "a*", "*b", "*a*", "a*b", "ba"]);
    prop_oneof![
        1 => any::<Index>().prop_map(Edit::Remove),
        2 => (names, generate::entry()).prop_map(|(name, rules)| Edit::Insert(name, rules)),
        1 => select(vec!["allow", "deny"]).prop_map(Edit::Default),
        1 => select(vec![vec![], vec!["b"],
            vec!["a*"]]).prop_map(|names| Edit::Hide(names.into_iter().map(String::from).collect())),
        3 => (any::<Index>(), sections, any::<Index>()).prop_map(|(of, section, rule)| Edit::Drop(of, section, rule)),
        3 => (any::<Index>(), generate::entry()).prop_map(|(of, rules)| Edit::Append(of, rules)),
        6 => (any::<Index>(), any::<Index>(), -2i64..3).prop_map(|(of, which, by)| Edit::Nudge(of, which, by)),
        2 => (any::<Index>(), any::<Index>(), select(vec!["a", "b", "gt", "lte", "eq", "neq", "in", "args.x",
            "args.y"]))
            .prop_map(|(of, which, text)| Edit::Retext(of, which, text)),
    ]
}

fn each_leaf(value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|element| each_leaf(element, visit)),
        Value::Object(members) => members.values_mut().for_each(|member| each_leaf(member, visit)),
        leaf => visit(leaf),
    }
}

/// Changes one of the leaves that fit.
fn change_leaf(rules: &mut Value, which: Index, fits: fn(&Value) -> bool, change: impl Fn(&Value) -> Value) {
    let mut count = 0;
    each_leaf(rules, &mut |leaf| count += usize::from(fits(leaf)));
    if count == 0 {
        return;
    }
    let (target, mut at) = (which.index(count), 0);
    each_leaf(rules, &mut |leaf| {
        if fits(leaf) {
            if at == target {
                *leaf = change(leaf);
            }
            at += 1;
        }
    });
}

impl Edit {
    fn apply(&self, document: &mut Document) {
        let count = document.tools.len();
        let rules_at = |document: &mut Document, of: Index| -> Option<usize> {
            (!document.tools.is_empty()).then(|| of.index(document.tools.len()))
        };
        match self {
            Self::Remove(of) if count > 0 => drop(document.tools.remove(of.index(count))),
            Self::Insert(name, rules) => {
                document.tools.retain(|(known, _)| known != name);
                document.tools.push(((*name).to_owned(), rules.clone()));
            }
            Self::Default(default) => document.default = default,
            Self::Hide(names) => document.hide.clone_from(names),
            Self::Drop(of, section, rule) => {
                let Some(entry) = rules_at(document, *of) else { return };
                if let Some(Value::Array(rules)) = document.tools[entry].1.get_mut(*section)
                    && !rules.is_empty()
                {
                    rules.remove(rule.index(rules.len()));
                }
            }
            Self::Append(of, more) => {
                let Some(entry) = rules_at(document, *of) else { return };
                for section in ["require", "deny_if", "require_approval_if", "limits"] {
                    let Some(Value::Array(more)) = more.get(section) else { continue };
                    let rules = &mut document.tools[entry].1[section];
                    match rules {
                        Value::Array(rules) => rules.extend(more.iter().cloned()),
                        other => *other = json!(more),
                    }
                }
            }
            Self::Nudge(of, which, by) => {
                let change = |leaf: &Value| leaf.as_i64().map_or(json!(by), |n| json!(n.saturating_add(*by)));
                let entry = of.index(count + 1);
                let rules =
                    if entry < count { Some(&mut document.tools[entry].1) } else { document.all_tools.as_mut() };
                if let Some(rules) = rules {
                    change_leaf(rules, *which, Value::is_number, change);
                }
            }
            Self::Retext(of, which, text) => {
                let Some(entry) = rules_at(document, *of) else { return };
                change_leaf(&mut document.tools[entry].1, *which, Value::is_string, |_| json!(text));
            }
            Self::Remove(_) => {}
        }
    }
}

/// Returns two policies, of which the second is mostly a small change of the first.
fn pair() -> impl Strategy<Value = (Policy, Policy)> {
    let edited = (generate::document(), proptest::collection::vec(edit(), 0..4)).prop_map(|(old, edits)| {
        let mut new = old.clone();
        for edit in edits {
            let before = new.clone();
            edit.apply(&mut new);
            // An edit that makes the policy invalid is undone.
            if Policy::from_json(&new.to_json()).is_err() {
                new = before;
            }
        }
        (old, new)
    });
    let any = (generate::document(), generate::document());
    prop_oneof![8 => edited, 1 => any].prop_map(|(old, new)| {
        let read = |document: Document| Policy::from_json(&document.to_json()).unwrap();
        (read(old), read(new))
    })
}

fn tool_call(call: &Value) -> ToolCall<'_> {
    let text = |key: &str| call.get(key).and_then(Value::as_str);
    ToolCall::new(text("tool").unwrap(), call.get("arguments"))
        .grant(text("grant"))
        .user(text("user"))
        .context(call.get("context").and_then(Value::as_object))
}

/// Returns how often a new gate allows a call.
fn passes(policy: &Policy, call: &ToolCall<'_>, now: Timestamp) -> usize {
    let gate = Gate::builder().policy(policy.clone()).clock(ManualClock::new(now)).build();
    let mut permits = Vec::new();
    for _ in 0..6 {
        match gate.check(call) {
            Decision::Allow(permit) => permits.push(permit),
            _ => break,
        }
    }
    permits.len()
}

proptest! {
    /// A call is only decided differently if the comparison names its tool, and every witness shows
    /// its change. A policy that only tightens allows no further call, limits included.
    #[test]
    fn a_comparison_misses_no_change(
        (old, new) in pair(),
        calls in proptest::collection::vec((generate::call(), 0i64..2_000_000), 24),
    ) {
        let found = diff::compare(&old, &new);
        let tightens = diff::only_tightens(&old, &new);
        for change in found.changes() {
            let ChangeDetail::Call { old: old_outcome, new: new_outcome, witness, boundary,
                .. } = change.detail() else { continue };
            let strictness = |policy: &Policy| rank(policy.evaluate(&witness.call(), witness.at()).effect());
            let (before, after) = (strictness(&old), strictness(&new));
            let kind = if after < before { Kind::Wider } else { Kind::Narrower };
            prop_assert!(before != after && kind == change.kind(), "{}", change);
            prop_assert!(old_outcome.decision() != new_outcome.decision());
            prop_assert!(matches(change.tools().as_bytes(), witness.tool().as_bytes()), "{}", change);
            prop_assert!(boundary.as_ref().is_none_or(|boundary| boundary.alike() != boundary.changed()));
        }
        let named = |kind: Kind, tool: &str| {
            let is_it = |its: Kind, tools: &str| its == kind && matches(tools.as_bytes(), tool.as_bytes());
            found.changes().iter().any(|change| is_it(change.kind(), change.tools()))
                || found.undecided().iter().any(|it| is_it(it.kind(), it.tools()))
        };
        for (call, seconds) in &calls {
            let now = Timestamp::from_unix_seconds(START.unix_seconds() + seconds);
            let call = tool_call(call);
            let strictness = |policy: &Policy| rank(policy.evaluate(&call, now).effect());
            let (before, after) = (strictness(&old), strictness(&new));
            prop_assert!(after >= before || named(Kind::Wider, call.tool()), "missed {:?}\n{}\n{}\n{}", call,
                old.to_json(), new.to_json(), found);
            prop_assert!(after <= before || named(Kind::Narrower, call.tool()), "missed {:?}\n{}\n{}\n{}", call,
                old.to_json(), new.to_json(), found);
            if tightens == Tightening::Yes {
                prop_assert!(after >= before, "wrong yes {:?}\n{}\n{}", call, old.to_json(), new.to_json());
                let (before, after) = (passes(&old, &call, now), passes(&new, &call, now));
                prop_assert!(after <= before, "wrong yes {:?} {} {}\n{}\n{}", call, before, after, old.to_json(),
                    new.to_json());
            }
        }
    }
}

/// Each of 10,000 patterns overlaps every other: the comparison ends at its budget and reports
/// that.
#[test]
fn a_comparison_beyond_its_budget_is_undecided() {
    let policy = |more: u32| -> Policy {
        let entries = (0..10_000u32).map(|index| {
            let rule = json!({ "conditions": [{ "path": "args.n", "op": "gt", "value": index * 10 + more }] });
            (format!("*{index}*"), json!({ "deny_if": [rule] }))
        });
        let tools: serde_json::Map<_, _> = entries.collect();
        Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
    };
    let (old, new) = (policy(1), policy(2));
    assert!(!diff::compare_within(&old, &new, 20_000).undecided().is_empty());
    assert!(matches!(diff::only_tightens_within(&old, &new, 20_000), Tightening::CannotTell(_) | Tightening::No(_)));
    assert_eq!(diff::only_tightens_within(&old, &old, 0), Tightening::Yes);
}
