//! Audit records of a gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use toolgate::approval::ApprovalId;
use toolgate::audit::{AuditRecord, Event, Outcome};
use toolgate::mcp::{Message, OnChange, ToolPins};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{
    Access, Clock, Code, Decision, Denial, Gate, GateBuilder, Grants, Identity, ManualClock, Policy, Timestamp,
    ToolCall,
};

use crate::model::generate;
use crate::model::recording_sink::RecordingSink;
use crate::polling::{block_on, poll_once, ready};
use toolgate::trace::FaultStore;

/// A Thursday morning.
const START: Timestamp = Timestamp::from_unix_micros(1_768_473_000_123_456);

fn policy() -> Policy {
    let limits = json!([
        { "counter": "spend", "window": "day", "max": 10, "scope": "grant", "amount_from": "args.amount" },
        { "counter": "flight", "window": "in_flight", "max": 2, "scope": "grant" },
    ]);
    let document = json!({ "version": "1", "default": "deny", "tools": {
        "free": {},
        "pay": { "limits": limits },
        "sign": { "action": "require_approval", "reason": "Ask.", "approval": { "approvers": ["ann"] },
            "limits": limits },
        "never": { "action": "deny", "reason": "No." },
    } });
    Policy::try_from(&document).unwrap()
}

fn builder() -> (GateBuilder, RecordingSink, ManualClock) {
    let (kept, clock) = (RecordingSink::default(), ManualClock::new(START));
    (Gate::builder().policy(policy()).clock(clock.clone()).audit(kept.clone()), kept, clock)
}

fn call<'a>(tool: &'a str, arguments: &'a Value) -> ToolCall<'a> {
    ToolCall::new(tool, arguments).grant("g").session("s").agent("robot").user("ben").server("bank")
}

/// Returns a record in short: what happened, and why.
fn line(record: &AuditRecord) -> String {
    let parts = [
        Some(record.event().as_str()),
        record.decision().map(Outcome::as_str),
        record.code().map(Code::as_str),
        record.rule(),
        record.tool(),
        record.by(),
        record.failure(),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn lines(kept: &RecordingSink) -> Vec<String> {
    kept.take().iter().map(line).collect()
}

macro_rules! scenario {
    ($gate:expr, $kept:expr, $wait:ident, $settle:expr, $release:expr) => {{
        let (gate, kept) = ($gate, $kept);
        let (arguments, none) = (json!({ "amount": 4, "to": "x" }), json!({}));
        drop($wait(gate.check(&call("free", &none))));
        drop($wait(gate.check(&call("never", &none))));
        drop($wait(gate.check(&call("other", &none))));
        let Decision::Allow(mut permit) = $wait(gate.check(&call("pay", &arguments))) else { panic!("there is room") };
        $settle(&mut permit);
        drop(permit);
        let Decision::Allow(permit) = $wait(gate.check(&call("pay", &arguments))) else { panic!("there is room") };
        $release(permit);
        drop($wait(gate.check(&call("pay", &json!({ "amount": 11 })))));
        drop($wait(gate.check(&call("pay", &none))));
        let asked = $wait(gate.check(&call("sign", &arguments)));
        let Decision::RequireApproval(request) = &asked else { panic!("{asked:?}") };
        let id = *request.approval().unwrap().id();
        assert!($wait(gate.approve(&id, "ben")).is_err());
        $wait(gate.approve(&id, "ann")).unwrap();
        assert!($wait(gate.refuse(&id, "ann")).is_err());
        let Decision::Allow(permit) = $wait(gate.check(&call("sign", &arguments).approval(&id))) else { panic!() };
        $release(permit);
        gate.replace_policy(None);
        drop($wait(gate.check(&call("free", &none))));
        (kept.take(), id)
    }};
}

const SCENARIO: [&str; 20] = [
    "policy",
    "decision allow free",
    "end free",
    "decision deny action_deny /tools/never/action never",
    "decision deny default_deny (default deny) other",
    "decision allow pay",
    "settle pay",
    "end pay",
    "decision allow pay",
    "release pay",
    "decision rate_limited limit /tools/pay/limits/0 pay",
    "decision deny amount_invalid /tools/pay/limits/0 pay",
    "decision approval_required approval /tools/sign/action sign",
    "approve ben not_an_approver",
    "approve sign ann",
    "refuse ann not_pending",
    "decision allow sign",
    "release sign",
    "policy",
    "decision deny no_policy (no policy) free",
];

fn same<T>(answer: T) -> T {
    answer
}

fn assert_scenario(records: &[AuditRecord], id: ApprovalId) {
    let found: Vec<_> = records.iter().map(line).collect();
    assert_eq!(found, SCENARIO);
    let digest = Some(policy().digest());
    assert_eq!((records[0].policy(), records[18].policy()), (digest, None));
    assert!(records.iter().all(|record| record.time() == START && record.arguments().is_none()));
    // Records of one call have one id, and no two decisions share an id.
    let ids: Vec<_> = records.iter().map(AuditRecord::id).collect();
    assert!(ids[1] == ids[2] && ids[5] == ids[6] && ids[5] == ids[7] && ids[8] == ids[9] && ids[16] == ids[17]);
    let mut decisions: Vec<_> = records.iter().filter(|record| record.decision().is_some()).map(|r| r.id()).collect();
    decisions.sort();
    decisions.dedup();
    assert_eq!((decisions.len(), ids[13]), (10, None));
    // The caller, the call, and the amounts.
    for record in records.iter().filter(|record| record.tool() == Some("pay")) {
        let names = [Identity::Grant, Identity::Session, Identity::Agent, Identity::User, Identity::Server]
            .map(|identity| record.identity(identity).unwrap_or_default());
        assert_eq!((names, record.policy()), (["g", "s", "robot", "ben", "bank"], digest));
    }
    let paid = &records[5];
    assert_eq!(paid.argument_names().collect::<Vec<_>>(), ["amount", "to"]);
    assert_eq!(paid.arguments_digest(), records[8].arguments_digest());
    assert_ne!(paid.arguments_digest(), records[10].arguments_digest());
    let used: Vec<_> = paid.limits().iter().map(|state| state.used().to_string()).collect();
    assert_eq!((used, records[6].amount()), (vec!["4".to_owned(), "1".to_owned()], "2.5".parse().ok()));
    assert_eq!((records[10].retry_after(), records[10].limits().len()), (None, 2));
    assert_eq!(records[3].message(), Some("No."));
    assert!([12, 13, 14, 15, 16, 17].iter().all(|index| records[*index].approval() == Some(id)));
    assert_eq!((records[14].approved(), records[13].approved()), (Some(true), None));
}

#[test]
fn every_event_is_recorded() {
    let (builder, kept, _) = builder();
    let gate = builder.build();
    let (records, id) = scenario!(
        gate,
        kept,
        same,
        |permit: &mut toolgate::Permit| permit.settle("2.5".parse().unwrap()).unwrap(),
        |permit: toolgate::Permit| permit.release()
    );
    assert_scenario(&records, id);
}

#[test]
fn every_event_of_an_async_gate_is_recorded() {
    let (builder, kept, _) = builder();
    let gate = builder.store_async(InProcess(MemoryStore::new())).build();
    let (records, id) = scenario!(
        gate,
        kept,
        ready,
        |permit: &mut toolgate::AsyncPermit| ready(permit.settle("2.5".parse().unwrap())).unwrap(),
        |permit: toolgate::AsyncPermit| ready(permit.release()).unwrap()
    );
    assert_scenario(&records, id);
}

#[test]
fn denials_by_grants_and_by_hosts_are_recorded() {
    let (builder, kept, clock) = builder();
    let grants = Grants::over(&builder.policy(None).build());
    let document = r#"{ "version": "1", "default": "deny", "tools": { "t": {} } }"#;
    grants.put_policy("reader", document).unwrap();
    grants
        .give(
            "g",
            Access::to("reader").on_any_server().until(START.saturating_add(std::time::Duration::from_secs(60))),
            "ops",
        )
        .unwrap();
    let none = json!({});
    assert!(grants.check(&ToolCall::new("t", &none).grant("g")).is_allowed());
    assert!(!grants.check(&ToolCall::new("t", &none).grant("nobody")).is_allowed());
    clock.advance(std::time::Duration::from_secs(60));
    assert!(!grants.check(&ToolCall::new("t", &none).grant("g")).is_allowed());
    grants.revoke("g", "ops");
    assert!(!grants.check(&ToolCall::new("t", &none).grant("g")).is_allowed());
    grants.remove_policy("reader");
    let records = kept.take();
    assert_eq!(
        records.iter().map(line).collect::<Vec<_>>(),
        [
            "policy",
            "give ops",
            "decision allow t",
            "end t",
            "decision deny no_policy (no policy) t",
            "decision deny grant_expired (grant expired) t",
            "revoke ops",
            "decision deny grant_revoked (grant revoked) t",
            "policy",
        ]
    );
    assert!([0, 1, 8].iter().all(|index| records[*index].namespace() == Some("reader")));
    assert_eq!((records[1].expires_at(), records[5].time()), (Some(clock.now()), clock.now()));

    let pins = ToolPins::new(10);
    for description in ["one", "two"] {
        let mut list = json!({ "tools": [{ "name": "t", "description": description }] });
        pins.check_list("s", &mut list, OnChange::Keep);
    }
    let changed = ToolCall::new("t", &none).server("s").grant("g");
    grants.record_denial(changed, &pins.denial(&changed).unwrap());
    let malformed = Denial::from(Message::read("[1").unwrap_err());
    grants.record_denial(&toolgate::Caller::new().session("s-7"), &malformed);
    let records = kept.take();
    let found: Vec<_> = records.iter().map(line).collect();
    assert_eq!(found, ["decision deny tool_changed (tool changed) t", "decision deny malformed_call"]);
    assert_eq!((records[1].tool(), records[1].identity(Identity::Session)), (None, Some("s-7")));
}

#[test]
fn failures_after_a_decision_are_recorded() {
    let (builder, kept, _) = builder();
    let store = Arc::new(FaultStore::default());
    let gate = builder.store(Arc::clone(&store)).build();
    let arguments = json!({ "amount": 1 });
    let permit = || match gate.check(&call("pay", &arguments)) {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    };
    let (mut one, two) = (permit(), permit());
    store.set_down(true);
    assert!(one.settle("2".parse().unwrap()).is_err());
    assert!(one.try_release().is_err());
    two.end();
    assert!(!gate.check(&call("pay", &arguments)).is_allowed());
    let unavailable = "the counter store is unavailable: switched off";
    assert_eq!(
        lines(&kept)[3..],
        [
            format!("settle pay {unavailable}"),
            format!("release pay {unavailable}"),
            "end pay".to_owned(),
            format!("decision deny store_unavailable /tools/pay/limits/0 pay {unavailable}"),
        ]
    );
}

/// The release is abandoned. The store may have carried it out.
#[test]
fn an_abandoned_release_is_recorded() {
    let (builder, kept, _) = builder();
    let gate = builder.store_async(slow::Slow(MemoryStore::new())).build();
    let arguments = json!({ "amount": 1 });
    let check = |tool: &'static str, arguments| {
        let call = call(tool, arguments);
        block_on(gate.check(&call))
    };
    let Decision::Allow(permit) = check("pay", &arguments) else { panic!("there is room") };
    assert!(poll_once(permit.release()).is_none());
    let found = lines(&kept);
    assert_eq!(found[1..], ["decision allow pay", "release pay dropped before the store answered"]);
}

mod slow {
    //! A store whose answers are ready at the second poll.

    use std::task::Poll;

    use toolgate::charge::{CounterId, Subject};
    use toolgate::store::{
        AsyncCounterStore, CounterStore, MemoryStore, Outcome, ReserveRequest, SettleRequest, StoreFuture,
    };

    pub(super) struct Slow(pub(super) MemoryStore);

    async fn yield_once() {
        let mut polled = false;
        std::future::poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    impl AsyncCounterStore for Slow {
        fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
            Box::pin(async move {
                yield_once().await;
                self.0.reserve(request)
            })
        }

        fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
            Box::pin(async move {
                yield_once().await;
                self.0.peek(request)
            })
        }

        fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
            Box::pin(async move {
                yield_once().await;
                self.0.settle(request)
            })
        }

        fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
            Box::pin(async move { self.0.reset(counter, subject) })
        }
    }
}

#[test]
fn an_unrecorded_call_is_denied_where_audit_is_required() {
    let lost = Arc::new(AtomicUsize::new(0));
    for is_required in [true, false] {
        let (builder, kept, _) = builder();
        let count = Arc::clone(&lost);
        let builder = builder.on_audit_error(move |record, error| {
            assert_eq!((record.event(), error.to_string()), (record.event(), "the record cannot be kept".to_owned()));
            count.fetch_add(1, Ordering::Relaxed);
        });
        let gate = if is_required { builder.require_audit() } else { builder }.build();
        let (arguments, none) = (json!({ "amount": 10 }), json!({}));
        let asked = gate.check(&call("sign", &arguments));
        let Decision::RequireApproval(request) = asked else { panic!("{asked:?}") };
        gate.approve(request.approval().unwrap().id(), "ann").unwrap();
        kept.set_down(true);
        let decisions = [gate.check(&call("free", &none)), gate.check(&call("sign", &arguments))];
        for decision in &decisions {
            assert_eq!(decision.is_allowed(), !is_required);
            assert_eq!(decision.code(), is_required.then_some(Code::AuditUnavailable));
        }
        assert!(!gate.check(&call("never", &none)).is_allowed());
        drop(decisions);
        kept.set_down(false);
        // The call needs the whole budget: its charge was released, and its approval restored.
        assert_eq!(gate.check(&call("sign", &arguments)).is_allowed(), is_required);
    }
    assert_eq!(lost.load(Ordering::Relaxed), 3 + 5);
}

#[test]
fn an_async_gate_denies_unrecorded_calls_too() {
    let (builder, kept, _) = builder();
    let gate = builder.require_audit().store_async(InProcess(MemoryStore::new())).build();
    let arguments = json!({ "amount": 10 });
    kept.set_down(true);
    let pay = call("pay", &arguments);
    let denied = ready(gate.check(&pay));
    assert_eq!((denied.code(), denied.rule()), (Some(Code::AuditUnavailable), Some("(audit unavailable)")));
    kept.set_down(false);
    assert!(ready(gate.check(&pay)).is_allowed(), "the charge was released");
}

#[test]
fn required_audit_without_a_sink_denies() {
    let gate = Gate::builder().policy(policy()).require_audit().build();
    assert_eq!(gate.check(&call("free", &json!({}))).code(), Some(Code::AuditUnavailable));
}

#[test]
fn a_record_is_one_short_line_whatever_the_call() {
    let (builder, kept, _) = builder();
    let gate = builder.build();
    let long = "\u{1f980}".repeat(100_000);
    for name in ["a\nb", "a\r\n{\"seq\":1}", "\u{2028}\u{0}\"\\", &long] {
        let arguments = json!({ name: 1 });
        assert!(!gate.check(&ToolCall::new(name, &arguments)).is_allowed());
        let record = kept.take().pop().unwrap();
        let text = serde_json::to_string(&record).unwrap();
        assert!(!text.contains(['\n', '\r']) && text.len() < 4000, "{text}");
        assert_eq!(serde_json::from_str::<AuditRecord>(&text).unwrap(), record);
    }
    let many: serde_json::Map<String, Value> = (0..10_000).map(|index| (format!("k{index}"), json!(0))).collect();
    drop(gate.check(&ToolCall::new("free", &many)));
    let records = kept.take();
    assert_eq!((records[0].argument_names().len(), records[0].more_arguments()), (64, 9936));
}

#[test]
fn records_are_parsed_strictly() {
    let text = r#"{"time":"2026-01-15T10:30:00.25Z","event":"end"}"#;
    let record: AuditRecord = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), text);
    for wrong in [
        r#"{"time":"2026-01-15T10:30:00.250Z","event":"end"}"#,
        r#"{"time":"2026-01-15T10:30:00.25Z","event":"ended"}"#,
        r#"{"time":"2026-01-15T10:30:00.25Z","event":"end","event":"end"}"#,
        r#"{"time":"2026-01-15T10:30:00.25Z","event":"end","more":1}"#,
        r#"{"time":"2026-01-15T10:30:00.25Z","event":"end","id":"1"}"#,
        r#"{"time":"2026-01-15T10:30:00.25Z","event":"end","amount":1}"#,
        r#"{"time":"2026-01-15T10:30:00.25Z","event":"end","code":"nothing"}"#,
        r#"{"event":"end"}"#,
    ] {
        assert!(serde_json::from_str::<AuditRecord>(wrong).is_err(), "{wrong}");
    }
}

/// Asserts that a record holds the decided call, and parses back.
fn assert_records_hold_calls(document: &generate::Document, calls: &[Value]) {
    let (kept, clock) = (RecordingSink::default(), ManualClock::new(START));
    let Ok(policy) = document.to_json().parse::<Policy>() else { return };
    let gate = Gate::builder().policy(policy.clone()).clock(clock).audit(kept.clone()).audit_arguments().build();
    for call in calls {
        let arguments = &call["arguments"];
        let text = |key: &str| call.get(key).and_then(Value::as_str);
        let tool_call = ToolCall::new(text("tool").unwrap(), arguments)
            .grant(text("grant"))
            .user(text("user"))
            .context(call.get("context").and_then(Value::as_object));
        kept.take();
        let decision = gate.check(&tool_call);
        let record = kept.take().remove(0);
        let written = serde_json::to_string(&record).unwrap();
        let read: AuditRecord = serde_json::from_str(&written).unwrap();
        assert_eq!(read, record, "{written}");
        assert_eq!(record.decision().map(Outcome::as_str), Some(decision.as_str()));
        assert_eq!((record.code(), record.rule()), (decision.code(), decision.rule()));
        assert_eq!((record.limits(), record.retry_after()), (&*decision.limits(), decision.retry_after()));
        let Some(again) = read.call() else {
            assert_eq!(record.code(), Some(Code::MalformedCall));
            continue;
        };
        // Evaluated again, from the record alone.
        let (one, two) = (policy.evaluate(&tool_call, START), policy.evaluate(&again, read.time()));
        assert_eq!((one.effect(), one.rule()), (two.effect(), two.rule()));
        if arguments.is_object() {
            assert_eq!(read.arguments(), arguments.as_object());
        }
        assert_eq!(read.context(), call.get("context").and_then(Value::as_object));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_record_holds_the_decided_call(
        document in generate::document(),
        calls in proptest::collection::vec(generate::call(), 1..8),
    ) {
        assert_records_hold_calls(&document, &calls);
    }
}

#[test]
fn previews_are_not_recorded() {
    let (builder, kept, _) = builder();
    let gate = builder.build();
    let arguments = json!({ "amount": 4 });
    assert!(gate.would_allow(&[call("pay", &arguments)]).is_ok());
    assert_eq!(gate.usage(call("pay", &arguments)).unwrap().len(), 2);
    assert_eq!((kept.events(), Event::Policy.as_str()), (vec!["policy"], "policy"));
}

/// The callback for lost records can revoke everything at once.
#[test]
fn the_callback_for_lost_records_can_revoke_grants() {
    let (kept, grants) = (RecordingSink::default(), Arc::new(std::sync::OnceLock::<Grants>::new()));
    let late = Arc::clone(&grants);
    let gate = Gate::builder().audit(kept.clone()).on_audit_error(move |_, _| {
        let grants = late.get().unwrap();
        grants.remove_policy("p");
        grants.revoke("g", "ops");
        grants.stop_shadow("p");
    });
    let grants = grants.get_or_init(|| Grants::over(&gate.build()));
    grants.replace_policy("p", policy());
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    let none = json!({});
    let call = ToolCall::new("free", &none).grant("g");
    assert!(grants.check(&call).is_allowed());
    kept.set_down(true);
    drop(grants.check(&call));
    assert_eq!(grants.check(&call).code(), Some(Code::GrantRevoked));
    grants.replace_policy("p", policy());
    assert!(grants.policy("p").is_none(), "the record of the replacement was lost as well");
}
