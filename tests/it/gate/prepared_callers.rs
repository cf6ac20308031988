//! Calls of prepared callers are decided and counted as other calls.

use allocation_counter::measure;
use proptest::prelude::*;
use serde_json::{Value, json};
use toolgate::{Caller, Decision, Gate, Policy, Timestamp};

use crate::model::generate::{self, Document, Event};
use crate::model::properties::tool_call;
use crate::model::world::{CallState, EventResult, World};

/// Returns the caller of a `call` object of a trace.
fn caller(call: &Value) -> Caller {
    let text = |key: &str| call.get(key).and_then(Value::as_str);
    Caller::new()
        .grant(text("grant"))
        .session(text("session"))
        .agent(text("agent"))
        .user(text("user"))
        .server(text("server"))
        .context(call.get("context").and_then(Value::as_object).cloned())
}

fn shown(decision: &Decision) -> String {
    format!("{decision:?} {:?} {:?} {:?}", decision.rule(), decision.retry_after(), decision.limits())
}

/// Compares calls of prepared callers with plain calls. The callers are prepared first, and the
/// policy may be replaced later.
fn agrees_with_plain_calls(documents: &[Document; 2], history: &[Event]) -> Result<(), TestCaseError> {
    let (mut plain, mut prepared) = (World::of(documents), World::of(documents));
    let first_gate = Gate::builder().policy(prepared.policies[0].clone()).build();
    for event in history {
        let Event::Call(call, pause) = event else {
            let (one, other) = (plain.apply(event), prepared.apply(event));
            prop_assert!(matches!(
                (&one, &other),
                (EventResult::Nothing, EventResult::Nothing) | (EventResult::Answered(_), EventResult::Answered(_))
            ));
            continue;
        };
        let EventResult::Decided(decision) = plain.apply(event) else { panic!("a call is decided") };
        prepared.now += pause;
        prepared.clock.set(Timestamp::from_unix_micros(prepared.now));
        let caller = first_gate.caller(caller(call));
        let made = caller
            .call(call["tool"].as_str().unwrap(), call.get("arguments"))
            .input(call.get("input").and_then(Value::as_object))
            .task(call.get("task") == Some(&Value::Bool(true)));
        let other = prepared.gate.check(&made);
        prepared.calls.push(CallState::Refused);
        prop_assert_eq!(shown(&decision), shown(&other), "{}", call);
        let usage = |world: &World| format!("{:?}", world.gate.usage(tool_call(call)));
        prop_assert_eq!(usage(&plain), usage(&prepared), "{}", call);
        plain.keep(*decision);
        prepared.keep(other);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_prepared_caller_is_decided_as_any_other(
        documents in prop_oneof![
            (generate::document(), generate::document()).prop_map(|(one, two)| [one, two]),
            generate::counting_documents(),
        ],
        history in prop_oneof![generate::history().boxed(), generate::counted_history().boxed()],
    ) {
        agrees_with_plain_calls(&documents, &history)?;
    }
}

/// Scopes of identities, with and without arguments.
#[test]
fn callers_that_differ_in_a_scope_are_counted_separately() {
    for scope in [json!("user"), json!(["grant", "user"]), json!(["args.x", "user"]), json!(["global", "user"])] {
        let limit = json!({ "counter": "calls", "window": "day", "scope": scope, "max": 1 });
        let document = json!({ "version": "1", "default": "allow", "all_tools": { "limits": [limit] } });
        let gate = Gate::new(Policy::try_from(&document).unwrap());
        let arguments = json!({ "x": "y" });
        let caller = |user| gate.caller(Caller::new().grant("g").user(user));
        let decide = |caller: &Caller| gate.check(&caller.call("t", &arguments)).as_str();
        let (ann, bob) = (caller("ann"), caller("bob"));
        assert_eq!([decide(&ann), decide(&bob)], ["allow"; 2], "{scope}");
        assert_eq!([decide(&ann), decide(&bob), decide(&caller("ann"))], ["rate_limited"; 3], "{scope}");
        // The identities of a call override those of its prepared caller.
        let as_another = ann.call("t", &arguments).user("cleo");
        assert_eq!(gate.check(&as_another).as_str(), "allow", "{scope}");
        assert_eq!(
            gate.check(&ann.call("t", &arguments).user(None::<&str>)).code().unwrap().as_str(),
            "scope_missing",
            "{scope}"
        );
        assert_eq!(decide(&ann.clone().user("dora")), "allow", "{scope}");
    }
}

#[test]
fn a_call_of_a_prepared_caller_allocates_nothing() {
    let limits = ["grant", "session", "user"]
        .map(|scope| json!({ "counter": scope, "window": "day", "scope": scope, "max": 1_000 }));
    let document = json!({ "version": "1", "default": "allow", "all_tools": { "limits": limits } });
    let gate = Gate::new(Policy::try_from(&document).unwrap());
    let caller = gate.caller(Caller::new().grant("g-42").session("s-7").user("u-1"));
    let arguments = json!({});
    let decide = || assert!(gate.check(&caller.call("search", &arguments)).is_allowed());
    decide();
    assert_eq!(measure(decide).count_total, 0);
}
