//! What must hold of every policy, call and history.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use toolgate::{Code, Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};

use crate::generate::{self, Document, Event};
use crate::model::Model;
use crate::trace::SwitchStore;

/// 2026-01-15T10:30:00Z
const START: i64 = 1_768_473_000_000_000;

/// A trace's `call` object as a call.
fn tool_call(call: &Value) -> ToolCall<'_> {
    let text = |key: &str| call.get(key).and_then(Value::as_str);
    ToolCall::new(text("tool").unwrap(), call.get("arguments"))
        .grant(text("grant"))
        .session(text("session"))
        .agent(text("agent"))
        .user(text("user"))
        .server(text("server"))
        .context(call.get("context").and_then(Value::as_object))
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Policy::from_slice(&bytes);
    }

    #[test]
    fn no_text_of_json_marks_makes_reading_panic(text in "[\\[\\]{}:,\"a-e0-9\\\\u.*+ -]{0,80}") {
        let _ = Policy::from_json(&text);
        let _ = toolgate::mcp::Message::read(&text);
    }

    /// A valid document, cut or with a few bytes changed.
    #[test]
    fn no_damage_makes_reading_panic(
        document in generate::document(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = document.to_json().into_bytes();
        for (at, byte) in damage {
            *at.get_mut(&mut bytes) = byte;
        }
        if let Err(error) = Policy::from_slice(&bytes) {
            prop_assert!(!error.issues().is_empty() && !error.to_string().is_empty());
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = Policy::from_slice(&bytes);
    }

    /// Read, written and read again, as text and through serde.
    #[test]
    fn policies_round_trip(document in generate::document()) {
        let policy = Policy::from_json(&document.to_json()).unwrap();
        prop_assert_eq!(&Policy::from_json(policy.to_json()).unwrap(), &policy);
        let written = serde_json::to_string(&policy).unwrap();
        let read: Policy = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(&read, &policy);
        prop_assert_eq!(read.digest(), policy.digest());
    }

    /// Whatever the arguments are, there is a decision, and it is the same when asked again.
    #[test]
    fn no_call_makes_a_decision_panic(document in generate::document(), call in generate::call(), now in any::<i64>()) {
        let policy = Policy::from_json(&document.to_json()).unwrap();
        let now = Timestamp::from_unix_micros(now);
        let evaluation = policy.evaluate(&tool_call(&call), now);
        let again = policy.evaluate(&tool_call(&call), now);
        prop_assert_eq!((evaluation.effect(), evaluation.rule()), (again.effect(), again.rule()));
        let gate = Gate::builder().policy(policy.clone()).clock(ManualClock::new(now)).build();
        let decision = gate.check(&tool_call(&call));
        if decision.is_allowed() {
            prop_assert!(evaluation.is_allowed());
        }
    }

    /// The independent model gives the same answers to the same history.
    #[test]
    fn the_model_agrees(document in generate::document(), history in generate::history()) {
        agrees(&document, &history)?;
    }

    /// A rule more in an entry, or a lower maximum, lets no call through that was stopped in the same state.
    #[test]
    fn more_rules_never_let_more_through(
        document in generate::document(),
        history in generate::history(),
        call in generate::call(),
        change in change(),
    ) {
        let stricter = apply(&document, &change);
        let before = Policy::from_json(&document.to_json()).unwrap();
        let after = Policy::from_json(&stricter.to_json()).unwrap();
        // The same state: both have seen the same charges, made under the first policy.
        let run = |policy: Policy| {
            let clock = ManualClock::new(Timestamp::from_unix_micros(START));
            let gate = Gate::builder().policy(before.clone()).clock(clock.clone()).build();
            let mut now = START;
            for event in &history {
                if let Event::Call(call, pause) = event {
                    now += pause;
                    clock.set(Timestamp::from_unix_micros(now));
                    drop(gate.check(&tool_call(call)));
                }
            }
            gate.replace_policy(policy);
            gate.check(&tool_call(&call))
        };
        let (first, second) = (run(before.clone()), run(after));
        prop_assert!(
            first.is_allowed() || !second.is_allowed(),
            "stopped by {:?} before and let through after {:?}", first.rule(), change
        );
    }
}

fn agrees(document: &Document, history: &[Event]) -> Result<(), TestCaseError> {
    let text = document.to_json();
    let policy = Policy::from_json(&text).unwrap();
    let mut model = Model::new(&serde_json::from_str(&text).unwrap(), &document.entries());
    let clock = ManualClock::new(Timestamp::from_unix_micros(START));
    let (store, mut is_down) = (Arc::new(SwitchStore::default()), false);
    let gate = Gate::builder().policy(policy).store(Arc::clone(&store)).clock(clock.clone()).build();
    let (mut now, mut permits) = (START, HashMap::new());
    for (number, event) in history.iter().enumerate() {
        match event {
            Event::Call(call, pause) => {
                now += pause;
                clock.set(Timestamp::from_unix_micros(now));
                let want = model.decide(&number.to_string(), call, now);
                let decision = gate.check(&tool_call(call));
                let states = decision.limits();
                let limits: Vec<_> = states
                    .iter()
                    .map(|state| {
                        let (used, remaining) = (state.used().micros(), state.remaining().micros());
                        (
                            state.counter(),
                            u128::from(used),
                            u128::from(remaining),
                            u128::from(state.max().micros()),
                            state.resets_at().unix_micros(),
                        )
                    })
                    .collect();
                let want_limits: Vec<_> = want
                    .limits
                    .iter()
                    .map(|state| (&*state.counter, state.used, state.remaining, state.max, state.resets_at))
                    .collect();
                prop_assert_eq!(decision.as_str(), want.decision, "{} {:?}", call, decision);
                prop_assert_eq!(decision.code().map(Code::as_str), want.code, "{}", call);
                prop_assert_eq!(decision.rule(), want.rule.as_deref(), "{}", call);
                prop_assert_eq!(
                    decision.retry_after().map(|wait| u64::try_from(wait.as_millis()).unwrap()),
                    want.retry_after_ms
                );
                prop_assert_eq!(limits, want_limits, "{}", call);
                if let Some(message) = &want.message {
                    prop_assert_eq!(decision.message(), Some(&**message));
                }
                if let Decision::Allow(permit) = decision {
                    permits.insert(number, permit);
                }
            }
            Event::Release(number) => {
                // With the store down a release is lost; the model has no such thing.
                if is_down {
                    continue;
                }
                let done = permits.remove(number).map(|permit| permit.try_release().unwrap());
                prop_assert_eq!(model.release(&number.to_string()).ok(), done);
            }
            Event::Store { down } => {
                is_down = *down;
                store.set_down(is_down);
                model.set_store_down(*down);
            }
        }
    }
    Ok(())
}

/// Something that makes a policy stricter.
#[derive(Debug, Clone)]
enum Change {
    Hide(&'static str),
    Rule { entry: prop::sample::Index, list: &'static str, rule: Value },
    Action { entry: prop::sample::Index, action: &'static str },
    LowerMax { entry: prop::sample::Index },
    DefaultDeny,
}

fn change() -> impl Strategy<Value = Change> {
    let lists = prop::sample::select(vec!["require", "deny_if", "require_approval_if"]);
    let rule = generate::condition().prop_map(|condition| json!({ "conditions": [condition] }));
    prop_oneof![
        1 => prop::sample::select(vec!["a", "*b", "*"]).prop_map(Change::Hide),
        6 => (any::<prop::sample::Index>(), lists, rule).prop_map(|(entry, list, rule)| Change::Rule { entry, list, rule }),
        1 => (any::<prop::sample::Index>(), prop::sample::select(vec!["deny", "require_approval"]))
            .prop_map(|(entry, action)| Change::Action { entry, action }),
        4 => any::<prop::sample::Index>().prop_map(|entry| Change::LowerMax { entry }),
        1 => Just(Change::DefaultDeny),
    ]
}

fn apply(document: &Document, change: &Change) -> Document {
    let mut document = document.clone();
    let mut change_entry = |index: &prop::sample::Index, change: &dyn Fn(&mut Map<String, Value>)| {
        if !document.tools.is_empty() {
            let at = index.index(document.tools.len());
            change(document.tools[at].1.as_object_mut().unwrap());
        }
    };
    match change {
        Change::Hide(pattern) => document.hide.push((*pattern).to_owned()),
        Change::DefaultDeny => document.default = "deny",
        Change::Rule { entry, list, rule } => change_entry(entry, &|rules| {
            rules.entry(*list).or_insert_with(|| json!([])).as_array_mut().unwrap().push(rule.clone());
        }),
        Change::Action { entry, action } => change_entry(entry, &|rules| {
            // Only upwards: a denial stays one.
            if rules.get("action") != Some(&json!("deny")) {
                rules.insert("action".into(), json!(action));
            }
        }),
        Change::LowerMax { entry } => change_entry(entry, &|rules| {
            for limit in rules.get_mut("limits").and_then(Value::as_array_mut).into_iter().flatten() {
                limit["max"] = json!(limit["max"].as_f64().unwrap() / 2.0);
            }
        }),
    }
    document
}
