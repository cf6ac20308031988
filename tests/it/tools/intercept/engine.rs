//! A naive model of the engine of Intercept, to test that no translated policy is laxer.
//!
//! It has one window and no clock, which the vectors cover.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use regex::Regex;
use serde_json::{Map, Value, json};
use toolgate::{Decision, Gate, ManualClock, ToolCall, intercept};

#[derive(Default)]
struct Engine {
    counters: HashMap<String, i64>,
}

/// The reserved amounts of a call, by counter.
type Reserved = Vec<(String, i64)>;

impl Engine {
    fn call(&mut self, document: &Value, tool: &str, args: &Value) -> Option<Reserved> {
        let hidden = list(&document["hide"]).iter().any(|name| name == tool || name == "*");
        if hidden || (document["default"] == "deny" && document["tools"].get(tool).is_none()) {
            return None;
        }
        let rules = |key: &str, scope: &str| -> Vec<(Value, String)> {
            let rules = list(&document["tools"][key]["rules"]);
            rules.iter().map(|rule| (desugared(rule, scope), scope.to_owned())).collect()
        };
        let rules = [rules(tool, tool), rules("*", "_global")].concat();
        for (rule, _) in &rules {
            let holds = list(&rule["conditions"]).iter().all(|condition| self.holds(condition, args));
            if rule["action"] == "deny" || !holds {
                return None;
            }
        }
        let mut reserved = Reserved::new();
        for (rule, scope) in rules.iter().filter(|(rule, _)| rule["state"].is_object()) {
            if !self.reserve(rule, scope, args, &mut reserved) {
                self.release(&reserved);
                return None;
            }
        }
        Some(reserved)
    }

    fn release(&mut self, reserved: &Reserved) {
        for (key, amount) in reserved {
            *self.counters.entry(key.clone()).or_default() -= amount;
        }
    }

    fn reserve(&mut self, rule: &Value, scope: &str, args: &Value, reserved: &mut Reserved) -> bool {
        let state = &rule["state"];
        let key = format!("{scope}.{}", state["counter"].as_str().unwrap());
        let amount = match state["increment_from"].as_str() {
            Some(path) => match resolve(args, path).and_then(Value::as_f64) {
                Some(number) => number.trunc() as i64,
                None => return false,
            },
            None => state["increment"].as_i64().filter(|each| *each != 0).unwrap_or(1),
        };
        let bound = list(&rule["conditions"]).into_iter().find_map(|condition| {
            let whole = condition["value"].as_f64()?.trunc() as i64;
            match condition["op"].as_str()? {
                _ if condition["path"] != format!("state.{key}") => None,
                "lt" => Some(whole - 1),
                "lte" => Some(whole),
                _ => None,
            }
        });
        let Some(bound) = bound else { return true };
        let counter = self.counters.entry(key.clone()).or_default();
        if *counter + amount > bound {
            return false;
        }
        *counter += amount;
        reserved.push((key, amount));
        true
    }

    fn holds(&self, condition: &Value, args: &Value) -> bool {
        let (path, op, value) =
            (condition["path"].as_str().unwrap(), condition["op"].as_str().unwrap(), &condition["value"]);
        let found = match path.strip_prefix("state.") {
            Some(key) => Some(json!(self.counters.get(key).copied().unwrap_or_default())),
            None => resolve(args, path).cloned(),
        };
        if op == "exists" {
            return json!(found.is_some_and(|found| !found.is_null())) == *value;
        }
        let Some(found) = found else { return false };
        let order = found.as_f64().zip(value.as_f64()).and_then(|(a, b)| a.partial_cmp(&b));
        match op {
            "eq" => equal(&found, value),
            "neq" => !equal(&found, value),
            "in" => list(value).iter().any(|value| equal(&found, value)),
            "not_in" => !list(value).iter().any(|value| equal(&found, value)),
            "lt" => order.is_some_and(std::cmp::Ordering::is_lt),
            "lte" => order.is_some_and(std::cmp::Ordering::is_le),
            "gt" => order.is_some_and(std::cmp::Ordering::is_gt),
            "gte" => order.is_some_and(std::cmp::Ordering::is_ge),
            "contains" => match (&found, value) {
                (Value::String(text), Value::String(part)) => text.contains(part),
                (Value::Array(elements), value) => elements.iter().any(|element| equal(element, value)),
                _ => false,
            },
            "regex" => {
                let (_, ascii) = REGEXES.iter().find(|(source, _)| value == source).unwrap();
                found.as_str().is_some_and(|text| Regex::new(ascii).unwrap().is_match(text))
            }
            _ => panic!("{op}"),
        }
    }
}

/// Expressions in the syntax of Go, and the same with their ASCII classes written out.
const REGEXES: [(&str, &str); 4] =
    [(r"^\w+$", "^[0-9A-Za-z_]+$"), (r"\d", "[0-9]"), (r"^[^\s[]", r"^[^\t\n\f\r \[]"), ("(?i)A", "(?i)A")];

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn resolve<'a>(args: &'a Value, path: &str) -> Option<&'a Value> {
    path.strip_prefix("args.")?.split('.').try_fold(args, |value, name| value.as_object()?.get(name))
}

fn desugared(rule: &Value, scope: &str) -> Value {
    let Some((count, window)) = rule["rate_limit"].as_str().and_then(|text| text.split_once('/')) else {
        return rule.clone();
    };
    let (count, counter): (i64, _) = (count.parse().unwrap(), format!("_rate_{window}"));
    json!({
        "conditions": [{ "path": format!("state.{scope}.{counter}"), "op": "lte", "value": count }],
        "state": { "counter": counter },
    })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => printed(a) == printed(b),
    }
}

/// Formats a value as Go does.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.as_f64().unwrap().to_string(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => format!("[{}]", elements.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("{key}:{}", printed(value))).collect();
            format!("map[{}]", members.join(" "))
        }
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    let some = [
        json!(0),
        json!(1),
        json!(2),
        json!(1.5),
        json!(1.0),
        json!(-1),
        json!("1"),
        json!("a"),
        json!("A b"),
        json!("é"),
        json!("[a"),
        json!(""),
        json!(true),
        json!(false),
        json!("true"),
        json!("<nil>"),
        json!("[a]"),
    ];
    prop::sample::select(some.to_vec())
}

fn argument() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => scalar(),
        1 => Just(Value::Null),
        1 => prop::collection::vec(scalar(), 0..3).prop_map(Value::Array),
        1 => scalar().prop_map(|inner| json!({ "x": inner })),
    ]
}

fn args() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec!["a", "b", "n"]);
    prop::collection::hash_map(names, argument(), 0..4).prop_map(|members| {
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let path = || prop::sample::select(vec!["args.a", "args.b", "args.a.x", "args.n"]);
    let made = |(path, (op, value)): (&str, (&str, Value))| json!({ "path": path, "op": op, "value": value });
    let asked = prop_oneof![
        4 => (prop::sample::select(vec!["eq", "neq", "contains"]), scalar()),
        3 => (prop::sample::select(vec!["in", "not_in"]), prop::collection::vec(scalar(), 1..4).prop_map(Value::Array)),
        3 => (prop::sample::select(vec!["lt", "lte", "gt", "gte"]),
            prop::sample::select(vec![json!(0), json!(1), json!(1.5), json!(3)])),
        1 => (Just("exists"), any::<bool>().prop_map(Value::Bool)),
        1 => (Just("regex"), prop::sample::select(REGEXES.map(|(source, _)| json!(source)).to_vec())),
    ];
    (path(), asked).prop_map(made)
}

/// A bound on a counter, which may exist.
fn bound() -> impl Strategy<Value = Value> {
    let path = prop::sample::select(vec!["state.t.c", "state.u.c", "state._global.c", "state.t._rate_hour"]);
    let value = prop::sample::select(vec![json!(0), json!(1), json!(2), json!(2.5), json!(5), json!(9)]);
    (path, prop::sample::select(vec!["lt", "lte"]), value)
        .prop_map(|(path, op, value)| json!({ "path": path, "op": op, "value": value }))
}

fn rule(scope: &'static str) -> impl Strategy<Value = Value> {
    let own = (
        prop::sample::select(vec!["lt", "lte"]),
        1..9i64,
        0..4i64,
        prop::option::of(condition()),
        prop::option::of(bound()),
    );
    let own = own.prop_map(move |(op, value, each, condition, bound)| {
        let first = json!({ "path": format!("state.{scope}.c"), "op": op, "value": value });
        let conditions: Vec<_> = std::iter::once(first).chain(condition).chain(bound).collect();
        let state = match each {
            3 => json!({ "counter": "c", "window": "hour", "increment_from": "args.n" }),
            each => json!({ "counter": "c", "window": "hour", "increment": each }),
        };
        json!({ "name": "own", "conditions": conditions, "state": state })
    });
    prop_oneof![
        8 => prop::collection::vec(condition(), 1..3).prop_map(|conditions| json!({ "name": "asks",
            "conditions": conditions })),
        4 => own,
        2 => (1..4).prop_map(|count| json!({ "name": "rate", "rate_limit": format!("{count}/hour") })),
        1 => bound().prop_map(|bound| json!({ "name": "looks", "conditions": [bound] })),
        1 => Just(json!({ "name": "denies", "action": "deny" })),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    let rules = |scope, most: usize| prop::option::of(prop::collection::vec(rule(scope), 0..most));
    let default = prop::sample::select(vec!["allow", "deny"]);
    (default, rules("t", 3), rules("u", 3), rules("_global", 2)).prop_map(|(default, t, u, all)| {
        let tools = [("t", t), ("u", u), ("*", all)];
        let tools: Map<_, _> =
            tools.into_iter().filter_map(|(name, rules)| Some((name.to_owned(), json!({ "rules": rules? })))).collect();
        json!({ "version": "1", "default": default, "tools": tools })
    })
}

fn calls() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    prop::collection::vec((prop::sample::select(vec!["t", "t", "u", "v"]), args()), 1..12)
}

#[test]
fn no_translated_policy_is_laxer() {
    let [documents, both, stricter] = [const { AtomicUsize::new(0) }; 3];
    let count = |what: &AtomicUsize| what.fetch_add(1, Ordering::Relaxed);
    let config = ProptestConfig {
        cases: 3_000,
        max_global_rejects: 100_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(document in document(), calls in calls())| {
        let policy = intercept::read(&document);
        prop_assume!(policy.is_ok());
        count(&documents);
        let clock = ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap());
        let gate = Gate::builder().policy(policy.unwrap()).clock(clock).build();
        let mut engine = Engine::default();
        for (tool, args) in &calls {
            let there = engine.call(&document, tool, args);
            let here = gate.check(&ToolCall::new(tool, args));
            match (there, here) {
                (Some(_), Decision::Allow(_)) => drop(count(&both)),
                // The counters of both must stay equal.
                (Some(reserved), _) => {
                    engine.release(&reserved);
                    count(&stricter);
                }
                (None, here) => prop_assert!(!here.is_allowed(),
                    "{tool} {args} is denied by the engine, and here {here:?}"),
            }
        }
    });
    let [documents, both, stricter] = [documents, both, stricter].map(AtomicUsize::into_inner);
    println!("{documents} documents: {both} calls are allowed by both, {stricter} by the engine only");
    assert!(both > 4 * stricter, "{both} calls are allowed by both, {stricter} by the engine only");
}
