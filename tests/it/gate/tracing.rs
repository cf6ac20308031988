//! Events for `tracing`: what subscribers receive, without an effect on decisions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use toolgate::{Decision, Gate, Policy, ToolCall};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::model::recording_sink::RecordingSink;

type Received = Vec<(Level, BTreeMap<&'static str, String>)>;

/// A subscriber that keeps the events of at least this level.
#[derive(Clone)]
struct Listener {
    received: Arc<Mutex<Received>>,
    level: Level,
}

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target() == "toolgate"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Id::from_u64(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        self.received.lock().unwrap().push((*event.metadata().level(), fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn policy() -> Policy {
    let document = json!({ "version": "1", "default": "deny", "tools": {
        "pay": { "limits": [{ "counter": "c", "window": "day", "max": 2, "scope": "grant" }] },
        "sign": { "action": "require_approval" },
    } });
    Policy::try_from(&document).unwrap()
}

/// Makes calls of every kind and returns the decisions.
fn calls(gate: &Gate) -> Vec<&'static str> {
    let arguments = json!({ "secret": "s3cret" });
    let call = |tool| ToolCall::new(tool, &arguments).grant("g").user("ann");
    let mut decisions = Vec::new();
    let mut check = |tool| {
        let decision = gate.check(&call(tool));
        decisions.push(decision.as_str());
        decision
    };
    let Decision::Allow(permit) = check("pay") else { panic!("there is room") };
    permit.release();
    let Decision::Allow(mut permit) = check("pay") else { panic!("there is room") };
    permit.settle("1.5".parse().unwrap()).unwrap();
    drop(permit);
    drop(check("pay"));
    drop(check("pay"));
    drop(check("other"));
    let Decision::RequireApproval(request) = check("sign") else { panic!("the call needs approval") };
    gate.approve(request.approval().unwrap().id(), "bob").unwrap();
    drop(check("sign"));
    decisions
}

fn received(level: Level, gate: impl FnOnce() -> Gate) -> (Vec<&'static str>, Received) {
    let listener = Listener { received: Arc::default(), level };
    let decisions = tracing::subscriber::with_default(listener.clone(), || calls(&gate()));
    let received = std::mem::take(&mut *listener.received.lock().unwrap());
    (decisions, received)
}

#[test]
fn decisions_and_their_outcomes_are_reported() {
    let quiet = calls(&Gate::new(policy()));
    let (decisions, received) = received(Level::TRACE, || Gate::new(policy()));
    assert_eq!(decisions, quiet, "a subscriber changes no decision");
    let field = |fields: &BTreeMap<_, String>, name| fields.get(name).cloned().unwrap_or_default();
    let events: Vec<_> = received
        .iter()
        .map(|(level, fields)| format!("{level} {} {}", field(fields, "message"), field(fields, "code")))
        .collect();
    assert_eq!(
        events,
        [
            "INFO policy ",
            "DEBUG decision ",
            "DEBUG release ",
            "DEBUG decision ",
            "DEBUG settle ",
            "DEBUG end ",
            "DEBUG decision ",
            "DEBUG end ",
            "INFO decision limit",
            "INFO decision default_deny",
            "INFO decision approval",
            "INFO approve ",
            "DEBUG decision ",
            "DEBUG end ",
        ]
    );
    let limited: Vec<_> = received[8].1.keys().copied().collect();
    let names = [
        "arguments_digest",
        "code",
        "decision",
        "grant",
        "id",
        "message",
        "policy",
        "retry_after_ms",
        "rule",
        "tool",
        "user",
    ];
    assert_eq!(limited, names);
    assert_eq!((field(&received[8].1, "tool"), field(&received[8].1, "grant")), ("pay".to_owned(), "g".to_owned()));
    assert_eq!(field(&received[4].1, "amount"), "1.5");
    assert_eq!(
        (field(&received[11].1, "by"), field(&received[11].1, "approved")),
        ("bob".to_owned(), "true".to_owned())
    );
    assert!(!format!("{received:?}").contains("s3cret"), "no value of an argument is reported");
}

#[test]
fn a_subscriber_for_warnings_receives_only_failures() {
    let (_, few) = received(Level::WARN, || Gate::new(policy()));
    assert!(few.is_empty(), "{few:?}");
    let kept = RecordingSink::default();
    kept.set_down(true);
    let (_, failures) = received(Level::WARN, || Gate::builder().audit(kept).policy(policy()).build());
    assert_eq!(failures.len(), 14);
    for (level, fields) in failures {
        assert_eq!(
            (level, &*fields["message"], &*fields["failure"]),
            (Level::ERROR, "audit_failure", "the record cannot be kept")
        );
    }
    let gate = || Gate::builder().audit(RecordingSink::default()).policy(policy()).build();
    assert_eq!(calls(&gate()), calls(&Gate::new(policy())));
    let none = ToolCall::new("t", None::<&Value>);
    assert!(!gate().check(&none).is_allowed());
}
