//! Whether one set of rules stops all that another stops: by what they say where that is plain, else by trying a call of every
//! kind that they tell apart, where there are few enough. A yes is a proof; anything else is no answer.

use serde_json::{Map, Value, json};

use super::slots::{Slots, is_plain};
use super::witness::Witness;
use super::{Budget, strictness};
use crate::call::path::{Path, Root};
use crate::policy::Policy;

/// Up to so many calls are tried for one proof.
const TRIES: u64 = 20_000;

/// What a rules object says, piece by piece: each alone stops calls, and the object stops what any of them stops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'v> {
    /// Denies everything.
    Deny,
    /// Asks for an approval of everything.
    Ask,
    /// A condition that must hold.
    Require(&'v Value),
    /// Conditions that deny together.
    DenyIf(&'v [Value]),
    /// Conditions that ask together.
    AskIf(&'v [Value]),
}

/// The rules of a section.
fn section<'v>(rules: &'v Value, key: &str) -> &'v [Value] {
    rules.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn conditions(rule: &Value) -> &[Value] {
    section(rule, "conditions")
}

fn action(rules: &Value) -> Option<&str> {
    rules.get("action").and_then(Value::as_str)
}

/// The pieces of a rules object, each with its place below the object.
pub(super) fn pieces(rules: &Value) -> Vec<(Piece<'_>, String)> {
    let mut pieces = Vec::new();
    match action(rules) {
        Some("deny") => pieces.push((Piece::Deny, "/action".to_owned())),
        Some("require_approval") => pieces.push((Piece::Ask, "/action".to_owned())),
        _ => {}
    }
    for (index, rule) in section(rules, "require").iter().enumerate() {
        pieces
            .extend(conditions(rule).iter().map(|condition| (Piece::Require(condition), format!("/require/{index}"))));
    }
    for (index, rule) in section(rules, "deny_if").iter().enumerate() {
        pieces.push((Piece::DenyIf(conditions(rule)), format!("/deny_if/{index}")));
    }
    for (index, rule) in section(rules, "require_approval_if").iter().enumerate() {
        pieces.push((Piece::AskIf(conditions(rule)), format!("/require_approval_if/{index}")));
    }
    pieces
}

impl Piece<'_> {
    /// A rules object that says this alone.
    fn alone(self) -> Value {
        let rules = |conditions: &[Value]| json!([{ "conditions": conditions }]);
        match self {
            Self::Deny => json!({ "action": "deny" }),
            Self::Ask => json!({ "action": "require_approval" }),
            Self::Require(condition) => json!({ "require": rules(std::slice::from_ref(condition)) }),
            Self::DenyIf(conditions) => json!({ "deny_if": rules(conditions) }),
            Self::AskIf(conditions) => json!({ "require_approval_if": rules(conditions) }),
        }
    }
}

/// Whether a call that `piece` stops is stopped as strictly by one of these rules objects, whatever the call is, by any name.
pub(super) fn covers(new: &[&Value], piece: Piece<'_>, budget: &mut Budget) -> bool {
    budget.spend(1 + new.len() as u64 / 4) && (plainly_covers(new, piece, budget) || exactly_covers(new, piece, budget))
}

/// By comparing the rules one by one.
fn plainly_covers(new: &[&Value], piece: Piece<'_>, budget: &mut Budget) -> bool {
    if new.iter().any(|rules| action(rules) == Some("deny")) {
        return true;
    }
    let asks = matches!(piece, Piece::Ask | Piece::AskIf(_));
    if asks && new.iter().any(|rules| action(rules) == Some("require_approval")) {
        return true;
    }
    let matching: &[&str] = if asks { &["deny_if", "require_approval_if"] } else { &["deny_if"] };
    let old: &[Value] = match piece {
        Piece::Require(condition) => {
            let required = new.iter().flat_map(|rules| section(rules, "require")).flat_map(conditions);
            let mut required = required.collect::<Vec<_>>().into_iter();
            if required.any(|new| implies(new, condition, Stance::Require, budget)) {
                return true;
            }
            &[]
        }
        Piece::DenyIf(conditions) | Piece::AskIf(conditions) => conditions,
        Piece::Deny | Piece::Ask => &[],
    };
    for key in matching {
        for rule in new.iter().flat_map(|rules| section(rules, key)) {
            let mut each = conditions(rule).iter();
            if each.all(|new| old.iter().any(|old| implies(old, new, Stance::Match, budget))) {
                return true;
            }
        }
    }
    false
}

/// Where conditions stand, as in the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stance {
    Require,
    Match,
}

/// Whether `new` is fulfilled wherever `old` is: true in `require`, and not false elsewhere.
fn implies(old: &Value, new: &Value, stance: Stance, budget: &mut Budget) -> bool {
    if !budget.spend(1) {
        return false;
    }
    if old == new {
        return true;
    }
    let text = |test: &Value, key: &str| test.get(key).and_then(Value::as_str).map(str::to_owned);
    let path = |test: &Value| text(test, "path").and_then(|text| Path::parse(&text).ok());
    let (Some(one), Some(other)) = (path(old), path(new)) else { return false };
    if one != other {
        return false;
    }
    if is_plain(old) && is_plain(new) {
        // What holds for every single value holds for all and for any of many.
        let moved = |test: &Value| {
            let mut test = test.clone();
            if let Some(path) = test.get_mut("path") {
                *path = "args.v".into();
            }
            json!([{ "conditions": [test] }])
        };
        let (stops, also) = match stance {
            Stance::Require => (json!({ "require": moved(new) }), json!({ "require": moved(old) })),
            Stance::Match => (json!({ "deny_if": moved(old) }), json!({ "deny_if": moved(new) })),
        };
        return is_covered(&stops, &also, budget);
    }
    lists_more(old, new)
}

/// The same operator, with a list that has all of the other's. What these operators cannot decide does not hang on the list.
fn lists_more(old: &Value, new: &Value) -> bool {
    let same = ["op", "ignore_case", "absent"].iter().all(|key| old.get(key) == new.get(key));
    let op = old.get("op").and_then(Value::as_str).unwrap_or_default();
    if !same || !["path_within", "host_in", "starts_with", "ends_with"].contains(&op) {
        return false;
    }
    let list = |test: &Value| match test.get("value") {
        Some(Value::Array(values)) => Some(values.clone()),
        Some(Value::String(text)) => Some(vec![Value::from(&**text)]),
        _ => None,
    };
    let (Some(old), Some(new)) = (list(old), list(new)) else { return false };
    let new: std::collections::HashSet<&str> = new.iter().filter_map(Value::as_str).collect();
    old.iter().all(|value| value.as_str().is_some_and(|text| new.contains(text)))
}

/// By trying calls of every kind: first with those new rules alone that ask for nothing else than the piece does, then with all
/// whose operators are plain.
fn exactly_covers(new: &[&Value], piece: Piece<'_>, budget: &mut Budget) -> bool {
    let old = piece.alone();
    let tests = tests_of(&[&old]);
    let count = new.iter().map(|rules| pieces(rules).len() as u64).sum::<u64>();
    if !budget.spend(1 + count / 4) {
        return false;
    }
    if !tests.iter().all(|test| is_plain(test)) {
        return false;
    }
    let paths: Vec<&str> = tests.iter().filter_map(|test| path_of(test)).collect();
    let asked_by_both = |test: &Value| is_plain(test) && path_of(test).is_some_and(|path| paths.contains(&path));
    let few = plain_rules(new, &asked_by_both);
    if is_covered(&old, &few, budget) {
        return true;
    }
    let all = plain_rules(new, &|test: &Value| is_plain(test) && !asks_tool(test));
    all != few && is_covered(&old, &all, budget)
}

fn path_of(test: &Value) -> Option<&str> {
    test.get("path").and_then(Value::as_str)
}

fn asks_tool(test: &Value) -> bool {
    let path = path_of(test).and_then(|path| Path::parse(path).ok());
    path.is_none_or(|path| path.root == Root::Tool || path.has_each())
}

/// The rules all of whose comparisons are fit, as one rules object. Leaving rules out lets more through, which is safe here.
fn plain_rules(new: &[&Value], is_fit: &dyn Fn(&Value) -> bool) -> Value {
    let mut all = Map::new();
    for key in ["require", "deny_if", "require_approval_if"] {
        let fit = |rule: &&Value| {
            let mut tests = Vec::new();
            conditions(rule).iter().for_each(|condition| collect(condition, &mut tests));
            tests.iter().all(|test| is_fit(test))
        };
        let rules: Vec<Value> = new.iter().flat_map(|rules| section(rules, key)).filter(fit).map(bare).collect();
        all.insert(key.to_owned(), rules.into());
    }
    if new.iter().any(|rules| action(rules) == Some("require_approval")) {
        all.insert("action".to_owned(), "require_approval".into());
    }
    Value::Object(all)
}

fn bare(rule: &Value) -> Value {
    json!({ "conditions": conditions(rule) })
}

/// Every comparison of some rules objects.
pub(super) fn tests_of<'v>(all: &[&'v Value]) -> Vec<&'v Value> {
    let mut tests = Vec::new();
    for rules in all {
        for key in ["require", "deny_if", "require_approval_if"] {
            let conditions = section(rules, key).iter().flat_map(conditions);
            conditions.for_each(|condition| collect(condition, &mut tests));
        }
    }
    tests
}

fn collect<'v>(condition: &'v Value, to: &mut Vec<&'v Value>) {
    let group = ["any", "all"].iter().find_map(|key| condition.get(key)).and_then(Value::as_array);
    match (group, condition.get("not")) {
        (Some(conditions), _) => conditions.iter().for_each(|condition| collect(condition, to)),
        (None, Some(inner)) => collect(inner, to),
        (None, None) => to.push(condition),
    }
}

/// Whether whatever `old` stops `new` stops as strictly, for calls of any tool: tried on a call of every kind.
fn is_covered(old: &Value, new: &Value, budget: &mut Budget) -> bool {
    let slots = Slots::of(&tests_of(&[old, new]));
    let product = slots.product();
    if !slots.is_complete || product > TRIES || !budget.spend(product.saturating_add(100)) {
        return false;
    }
    let policy = |rules: &Value| {
        let document = json!({ "version": "1", "default": "allow", "tools": { "t": rules } });
        Policy::try_from(&document).ok()
    };
    let (Some(old), Some(new)) = (policy(old), policy(new)) else { return false };
    each_call("t", &slots, |call| {
        let judge = |policy: &Policy| strictness(policy.evaluate(&call.call(), call.at).effect());
        judge(&new) >= judge(&old)
    })
}

/// Calls `holds` with a call for every choice of values, until one fails it; whether none does.
pub(super) fn each_call(tool: &str, slots: &Slots, mut holds: impl FnMut(&Witness) -> bool) -> bool {
    let slots = &slots.slots;
    let mut chosen = vec![0usize; slots.len()];
    loop {
        let given = slots.iter().zip(&chosen).filter_map(|(slot, index)| Some((slot, slot.choices.get(*index)?)));
        if !holds(&Witness::with(tool, given)) {
            return false;
        }
        let mut turned = false;
        for (slot, index) in slots.iter().zip(&mut chosen) {
            *index += 1;
            if *index < slot.choices.len() {
                turned = true;
                break;
            }
            *index = 0;
        }
        if !turned {
            return true;
        }
    }
}
