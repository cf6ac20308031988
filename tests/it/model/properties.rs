//! Properties of every policy, call and history.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use toolgate::audit::{self, AuditRecord};
use toolgate::shadow::Shadow;
use toolgate::{Code, Decision, Gate, LimitState, ManualClock, Policy, Timestamp, ToolCall};

use super::generate::{self, Document, Event};
use super::interpreter::{self, Model};
use super::world::{EventResult, World};
use toolgate::trace::FaultStore;

/// 2026-01-15T10:30:00Z
pub(super) const START: i64 = 1_768_473_000_000_000;

/// Returns the call of a `call` object of a trace.
pub(crate) fn tool_call(call: &Value) -> ToolCall<'_> {
    let text = |key: &str| call.get(key).and_then(Value::as_str);
    ToolCall::new(text("tool").unwrap(), call.get("arguments"))
        .grant(text("grant"))
        .session(text("session"))
        .agent(text("agent"))
        .user(text("user"))
        .server(text("server"))
        .context(call.get("context").and_then(Value::as_object))
        .input(call.get("input").and_then(Value::as_object))
        .task(call.get("task") == Some(&Value::Bool(true)))
}

proptest! {
    #[test]
    fn parsing_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Policy::from_slice(&bytes);
    }

    #[test]
    fn parsing_any_json_like_text_never_panics(text in "[\\[\\]{}:,\"a-e0-9\\\\u.*+ -]{0,80}") {
        let _ = Policy::from_json(&text);
        let _ = toolgate::mcp::Message::read(&text);
    }

    /// A valid document that is cut, or has a few changed bytes.
    #[test]
    fn parsing_a_damaged_document_never_panics(
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

    /// A policy is parsed, written and parsed again, as text and by serde.
    #[test]
    fn policies_round_trip(document in generate::document()) {
        let policy = Policy::from_json(&document.to_json()).unwrap();
        prop_assert_eq!(&Policy::from_json(policy.to_json()).unwrap(), &policy);
        let written = serde_json::to_string(&policy).unwrap();
        let read: Policy = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(&read, &policy);
        prop_assert_eq!(read.digest(), policy.digest());
    }

    /// Any arguments get a decision, and the same one again.
    #[test]
    fn deciding_any_call_never_panics(document in generate::document(), call in generate::call(), now in any::<i64>()) {
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

    /// The naive interpreter gives the same answers to the same history.
    #[test]
    fn the_model_gives_the_same_answers(document in generate::document(), history in generate::history()) {
        agrees(&[document.clone(), document], &history)?;
    }

    /// The same under two policies in turn that count by every algorithm.
    #[test]
    fn the_model_counts_the_same_amounts(documents in generate::counting_documents(),
        history in generate::counted_history()) {
        agrees(&documents, &history)?;
    }

    /// Neither records nor a shadow policy change a decision or a counter.
    #[test]
    fn observers_change_no_decision(
        documents in prop_oneof![
            (generate::document(), generate::document()).prop_map(|(one, two)| [one, two]),
            generate::counting_documents(),
        ],
        history in prop_oneof![generate::history().boxed(), generate::counted_history().boxed()],
    ) {
        is_undisturbed(&documents, &history)?;
    }

    #[test]
    fn a_log_is_decided_again_with_the_same_answers(
        documents in generate::counting_documents(),
        history in generate::counted_history(),
        other in generate::document(),
        calls in generate::history(),
    ) {
        is_decided_again(&documents, &history)?;
        is_decided_again(&[other.clone(), other], &calls)?;
    }

    #[test]
    fn a_policy_agrees_with_itself_as_shadow(
        documents in generate::counting_documents(),
        history in generate::counted_history(),
        other in generate::document(),
        calls in generate::history(),
    ) {
        agrees_with_itself(&documents, &history)?;
        agrees_with_itself(&[other.clone(), other], &calls)?;
    }

    /// If nothing else is counted, a rate-limited call is refused until its retry time, and not
    /// then. A call without a retry time is always refused, unless it waits for calls in flight.
    #[test]
    fn a_retry_time_is_exact(
        documents in generate::counting_documents(),
        history in generate::counted_history(),
        call in generate::counted_call(),
    ) {
        let mut world = World::of(&documents);
        world.run(&history);
        world.store.set_down(false);
        let tool_call = tool_call(&call);
        let refused = world.gate.check(&tool_call);
        let Decision::RateLimit(limited) = &refused else { return Ok(()) };
        let refused_at = |wait: Duration| {
            world.clock.set(Timestamp::from_unix_micros(world.now).saturating_add(wait));
            world.gate.would_allow(&[tool_call]).is_err_and(|found| found.decision().code() == Some(Code::Limit))
        };
        match limited.retry_after() {
            wait if limited.waits_for_calls() => {
                prop_assert!(wait.is_none_or(|wait| refused_at(wait - Duration::from_millis(1))));
                // Their leases end at the latest.
                prop_assert!(!refused_at(Duration::from_secs(400 * 86_400)));
            }
            Some(wait) => {
                prop_assert!(wait > Duration::ZERO && wait.subsec_micros() % 1000 == 0);
                prop_assert!(refused_at(wait - Duration::from_millis(1)), "a millisecond before {:?}: {:?}", wait,
                    refused);
                prop_assert!(!refused_at(wait), "after {:?}: {:?}", wait, refused);
                // The call itself passes too.
                let again = world.gate.check(&tool_call);
                prop_assert!(again.code() != Some(Code::Limit), "{:?}", again);
            }
            None => {
                for days in [0, 1, 40, 4_000, 40_000] {
                    prop_assert!(refused_at(Duration::from_secs(days * 86_400)), "after {} days: {:?}", days, refused);
                }
            }
        }
    }

    /// A preview has the same result as making the calls, and charges nothing.
    #[test]
    fn a_preview_has_the_result_of_the_calls(
        documents in generate::counting_documents(),
        history in generate::counted_history(),
        calls in prop::collection::vec(generate::counted_call(), 0..8),
    ) {
        let [previewing, calling] = [(); 2].map(|()| {
            let mut world = World::of(&documents);
            world.run(&history);
            world
        });
        let calls: Vec<_> = calls.iter().map(tool_call).collect();
        let previewed = previewing.gate.would_allow(&calls);
        let mut permits = Vec::new();
        let mut met = None;
        for (index, call) in calls.iter().enumerate() {
            match calling.gate.check(call) {
                Decision::Allow(permit) => permits.push(permit),
                refused => {
                    met = Some((index, refused));
                    break;
                }
            }
        }
        match (&previewed, &met) {
            (Ok(()), None) => {}
            (Err(found), Some((index, met))) => {
                prop_assert_eq!(found.index(), *index);
                let found = found.decision();
                prop_assert_eq!(
                    (found.as_str(), found.code(), found.rule(), found.message()),
                    (met.as_str(), met.code(), met.rule(), met.message())
                );
                let counted = |decision: &Decision| -> Vec<_> {
                    let states = decision.limits().into_iter();
                    states.map(|state| (state.counter().to_owned(), state.used(), state.remaining(),
                        state.max())).collect()
                };
                prop_assert_eq!(counted(found), counted(met));
                if *index == 0 {
                    prop_assert_eq!((found.retry_after(), found.limits()), (met.retry_after(), met.limits()));
                }
            }
            _ => prop_assert!(false, "previewed: {:?}, met: {:?}", previewed, met),
        }
        // All calls up to the first refused one pass after its wait, if nothing else is counted,
        // and not before.
        let timed = |decision: &Decision| match decision {
            Decision::RateLimit(limited) if limited.waits_for_calls() => None,
            decision => decision.retry_after(),
        };
        if let Some((index, wait)) = previewed.err().and_then(|found| Some((found.index(),
            timed(found.decision())?))) {
            let limited_at = |wait: Duration| {
                previewing.clock.set(Timestamp::from_unix_micros(previewing.now).saturating_add(wait));
                let found = previewing.gate.would_allow(&calls[..=index]);
                found.err().filter(|found| found.decision().code() == Some(Code::Limit)).map(|found| found.index())
            };
            prop_assert_eq!(limited_at(wait - Duration::from_millis(1)), Some(index));
            prop_assert_eq!(limited_at(wait), None);
            previewing.clock.set(Timestamp::from_unix_micros(previewing.now));
        }
        drop((permits, met));
        // Nothing was charged: the same calls get the same answers from a fresh gate.
        let mut fresh = World::of(&documents);
        fresh.run(&history);
        for call in &calls {
            let (one, other) = (previewing.gate.check(call), fresh.gate.check(call));
            prop_assert_eq!(shown(&one), shown(&other));
            std::mem::forget((one, other));
        }
    }

    /// With a further rule in an entry, or a lower maximum, no call passes that was stopped in the
    /// same state.
    #[test]
    fn further_rules_never_allow_further_calls(
        document in generate::document(),
        history in generate::history(),
        call in generate::call(),
        change in change(),
    ) {
        let stricter = apply(&document, &change);
        let before = Policy::from_json(&document.to_json()).unwrap();
        let after = Policy::from_json(&stricter.to_json()).unwrap();
        // The same state: both gates have the same charges, made under the first policy.
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
            "stopped by {:?} before and allowed after {:?}", first.rule(), change
        );
    }
}

/// Checks that a gate with audit records and a shadow policy decides and counts as one without.
pub(crate) fn is_undisturbed(documents: &[Document; 2], history: &[Event]) -> Result<(), TestCaseError> {
    let (mut quiet, mut watched) = (World::of(documents), World::of(documents));
    let builder = Gate::builder().policy(watched.policies[0].clone()).store(Arc::clone(&watched.store));
    watched.gate = builder.clock(watched.clock.clone()).audit(super::recording_sink::RecordingSink::default()).build();
    watched.gate.start_shadow(Shadow::new(watched.policies[1].clone()));
    for event in history {
        match (quiet.apply(event), watched.apply(event)) {
            (EventResult::Decided(one), EventResult::Decided(two)) => {
                prop_assert_eq!(shown(&one), shown(&two), "{:?}", event);
                quiet.keep(*one);
                watched.keep(*two);
            }
            (EventResult::Answered(one), EventResult::Answered(two)) => prop_assert_eq!(one, two, "{:?}", event),
            (EventResult::Nothing, EventResult::Nothing) => {}
            _ => prop_assert!(false, "{event:?} has the same kind of result"),
        }
        if let Event::Call(call, _) = event {
            let usage = |world: &World| world.gate.usage(tool_call(call)).ok().map(|used| states(&used));
            prop_assert_eq!(usage(&quiet), usage(&watched));
        }
    }
    Ok(())
}

/// Checks that a log with arguments is enough to decide all calls again, with the same answers and
/// counters.
pub(crate) fn is_decided_again(documents: &[Document; 2], history: &[Event]) -> Result<(), TestCaseError> {
    let (mut world, kept) = (World::of(documents), super::recording_sink::RecordingSink::default());
    let builder = Gate::builder().policy(world.policies[0].clone()).store(Arc::clone(&world.store));
    world.gate = builder.clock(world.clock.clone()).audit(kept.clone()).audit_arguments().build();
    // A log does not record that a store was down.
    for event in history.iter().filter(|event| !matches!(event, Event::Store { .. } | Event::Swap)) {
        if let EventResult::Decided(decision) = world.apply(event) {
            world.keep(*decision);
        }
    }
    world.calls.clear();
    let clock = ManualClock::new(Timestamp::from_unix_micros(START));
    let gate = Gate::builder().policy(world.policies[0].clone()).clock(clock.clone()).build();
    let mut permits = std::collections::HashMap::new();
    for record in kept.take() {
        let record: AuditRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        clock.set(record.time());
        match record.event() {
            audit::Event::Decision => {
                let Some(call) = record.call() else {
                    prop_assert_eq!(record.code(), Some(Code::MalformedCall));
                    continue;
                };
                let again = gate.check(&call);
                let before =
                    (record.decision().map(|it| it.as_str()), record.code(), record.rule(), record.retry_after());
                prop_assert_eq!(before, (Some(again.as_str()), again.code(), again.rule(), again.retry_after()));
                prop_assert_eq!(record.limits(), &*again.limits());
                if let Decision::Allow(permit) = again {
                    permits.insert(record.id(), permit);
                }
            }
            audit::Event::Release => permits.remove(&record.id()).unwrap().release(),
            audit::Event::Settle => permits.get_mut(&record.id()).unwrap().settle(record.amount().unwrap()).unwrap(),
            audit::Event::End => drop(permits.remove(&record.id()).unwrap()),
            audit::Event::Policy => {}
            other => prop_assert!(false, "no approval was given or refused: {other}"),
        }
    }
    prop_assert!(permits.is_empty(), "every call has ended");
    Ok(())
}

/// Checks that the policy in force, as its own shadow, agrees in every call and counts the same.
pub(crate) fn agrees_with_itself(documents: &[Document; 2], history: &[Event]) -> Result<(), TestCaseError> {
    let mut world = World::of(documents);
    let store = Arc::new(FaultStore::default());
    world.gate.start_shadow(Shadow::new(world.policies[0].clone()).store(Arc::clone(&store)));
    let builder = Gate::builder().policy(world.policies[0].clone()).store(store);
    let apart = builder.clock(world.clock.clone()).build();
    let mut calls = 0;
    // The store of the shadow does not fail when the other does.
    let steps = history.iter().filter(|event| !matches!(event, Event::Store { .. } | Event::Swap));
    for event in steps {
        if let EventResult::Decided(decision) = world.apply(event) {
            world.keep(*decision);
            calls += 1;
        }
        if let Event::Call(call, _) = event {
            let call = tool_call(call);
            prop_assert_eq!(states(&world.gate.usage(call).unwrap()), states(&apart.usage(call).unwrap()));
        }
    }
    let report = world.gate.stop_shadow().unwrap();
    prop_assert_eq!((report.agreed(), report.differed()), (calls, 0), "{:?}", report);
    Ok(())
}

type Shown = (String, u128, u128, u128, i64);

fn states(states: &[LimitState]) -> Vec<Shown> {
    let numbers = |state: &LimitState| {
        let (used, remaining, max) = (state.used().micros(), state.remaining().micros(), state.max().micros());
        let resets_at = state.resets_at().map_or(i64::MAX, toolgate::Timestamp::unix_micros);
        (state.counter().to_owned(), used.into(), remaining.into(), max.into(), resets_at)
    };
    states.iter().map(numbers).collect()
}

fn wanted(states: &[interpreter::LimitState]) -> Vec<Shown> {
    let numbers = |state: &interpreter::LimitState| {
        (state.counter.clone(), state.used, state.remaining, state.max, state.resets_at)
    };
    states.iter().map(numbers).collect()
}

/// Returns every detail of a decision.
fn shown(decision: &Decision) -> impl PartialEq + std::fmt::Debug + use<> {
    let (rule, message) = (decision.rule().map(str::to_owned), decision.message().map(str::to_owned));
    (decision.as_str(), decision.code(), rule, message, decision.retry_after(), states(&decision.limits()))
}

/// Checks that the gate and the model give the same answers to a history.
pub(crate) fn agrees(documents: &[Document; 2], history: &[Event]) -> Result<(), TestCaseError> {
    let parsed = documents.each_ref().map(|document| serde_json::from_str::<Value>(&document.to_json()).unwrap());
    let mut model = Model::new(&parsed[0], &documents[0].entries());
    let mut world = World::of(documents);
    for event in history {
        let came = world.apply(event);
        let now = world.now;
        let number = |of| world.one(of).map(|at| at.to_string()).unwrap_or_default();
        let want = match event {
            Event::Call(call, _) => {
                let want = model.decide(&(world.calls.len() - 1).to_string(), call, now);
                let EventResult::Decided(decision) = came else { panic!("a call is decided") };
                prop_assert_eq!(decision.as_str(), want.decision, "{} {:?}", call, decision);
                prop_assert_eq!(decision.code().map(Code::as_str), want.code, "{}", call);
                prop_assert_eq!(decision.rule(), want.rule.as_deref(), "{}", call);
                let wait = decision.retry_after().map(|wait| u64::try_from(wait.as_millis()).unwrap());
                prop_assert_eq!(wait, want.retry_after_ms, "{}", call);
                prop_assert_eq!(states(&decision.limits()), wanted(&want.limits), "{}", call);
                if let Some(message) = &want.message {
                    prop_assert_eq!(decision.message(), Some(&**message));
                }
                world.keep(*decision);
                usage_agrees(&world, &model, call)?;
                continue;
            }
            Event::Release(of) => model.release(&number(of), now),
            Event::Settle(of, real, _) => model.settle(&number(of), real, now),
            Event::End(of) => model.end(&number(of), now),
            Event::Store { down } => {
                model.set_store_down(*down);
                continue;
            }
            Event::Swap => {
                let at = world.in_force;
                model.set_policy(Some((&parsed[at], &documents[at].entries())));
                continue;
            }
        };
        match came {
            EventResult::Answered(answer) => prop_assert_eq!(answer, want, "{:?}", event),
            _ => prop_assert_eq!(Err("unknown_call"), want, "{:?}", event),
        }
    }
    Ok(())
}

/// Checks that the usage of a caller is that of the model.
fn usage_agrees(world: &World, model: &Model, call: &Value) -> Result<(), TestCaseError> {
    let tool_call = tool_call(call);
    // A malformed call has no arguments that a scope could name.
    if !matches!(call["arguments"], Value::Object(_)) {
        return Ok(());
    }
    if let Ok(usage) = world.gate.usage(tool_call) {
        prop_assert_eq!(states(&usage), wanted(&model.usage(call, world.now)), "{}", call);
    }
    Ok(())
}

/// A change that makes a policy stricter.
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
        6 => (any::<prop::sample::Index>(), lists, rule).prop_map(|(entry, list, mut rule)| {
            if list == "require" {
                generate::strip_no_match(&mut rule);
            }
            Change::Rule { entry, list, rule }
        }),
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
            // The action becomes stricter only: a denial stays.
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
