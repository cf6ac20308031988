//! A gate with its clock, store and calls, to which the events of a history are applied.

use std::sync::Arc;

use proptest::prelude::prop;
use serde_json::Value;
use toolgate::trace::FaultStore;
use toolgate::{Amount, Decision, Gate, ManualClock, Permit, Policy, SettleError, Timestamp};

use super::generate::{Document, Event};
use super::properties::{START, tool_call};

/// A gate, and the state of each of its calls.
pub(crate) struct World {
    pub(crate) policies: [Policy; 2],
    pub(crate) in_force: usize,
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<FaultStore>,
    pub(crate) gate: Gate<Arc<FaultStore>>,
    pub(crate) now: i64,
    /// The state of each call.
    pub(crate) calls: Vec<CallState>,
}

pub(crate) enum CallState {
    Refused,
    Open(Box<Permit>),
    Done,
}

/// The result of an event.
pub(crate) enum EventResult {
    Decided(Box<Decision>),
    Answered(Result<(), &'static str>),
    Nothing,
}

impl World {
    pub(crate) fn of(documents: &[Document; 2]) -> Self {
        let policies = documents.each_ref().map(|document| Policy::from_json(&document.to_json()).unwrap());
        let clock = ManualClock::new(Timestamp::from_unix_micros(START));
        let store = Arc::new(FaultStore::default());
        let builder = Gate::builder().policy(policies[0].clone()).store(Arc::clone(&store));
        let gate = builder.clock(clock.clone()).build();
        Self { policies, in_force: 0, clock, store, gate, now: START, calls: Vec::new() }
    }

    fn pass(&mut self, pause: i64) {
        self.now += pause;
        self.clock.set(Timestamp::from_unix_micros(self.now));
    }

    pub(super) fn run(&mut self, history: &[Event]) {
        for event in history {
            if let EventResult::Decided(decision) = self.apply(event) {
                self.keep(*decision);
            }
        }
    }

    /// Applies an event. The decision of a call must then be [kept](Self::keep).
    pub(crate) fn apply(&mut self, event: &Event) -> EventResult {
        match event {
            Event::Call(call, pause) => {
                self.pass(*pause);
                let decision = self.gate.check(&tool_call(call));
                self.calls.push(CallState::Refused);
                return EventResult::Decided(Box::new(decision));
            }
            Event::Store { down } => self.store.set_down(*down),
            Event::Swap => {
                self.in_force = 1 - self.in_force;
                self.gate.replace_policy(self.policies[self.in_force].clone());
            }
            Event::Settle(of, real, pause) => {
                self.pass(*pause);
                if let Some(at) = self.one(of) {
                    return EventResult::Answered(self.settle(at, real));
                }
            }
            Event::Release(of) => {
                if let Some(at) = self.one(of) {
                    let settled = matches!(&self.calls[at], CallState::Open(permit) if permit.is_settled());
                    let released = |permit: Permit| permit.try_release().map_err(|_| "store_unavailable");
                    return EventResult::Answered(if settled {
                        Err("already_done")
                    } else {
                        self.finish(at, released)
                    });
                }
            }
            Event::End(of) => {
                if let Some(at) = self.one(of) {
                    return EventResult::Answered(self.finish(at, |permit| {
                        permit.end();
                        Ok(())
                    }));
                }
            }
        }
        EventResult::Nothing
    }

    pub(crate) fn keep(&mut self, decision: Decision) {
        if let (Decision::Allow(permit), Some(last)) = (decision, self.calls.last_mut()) {
            *last = CallState::Open(Box::new(permit));
        }
    }

    /// Returns the call that an event is about.
    pub(super) fn one(&self, of: &prop::sample::Index) -> Option<usize> {
        (!self.calls.is_empty()).then(|| of.index(self.calls.len()))
    }

    fn settle(&mut self, at: usize, real: &Value) -> Result<(), &'static str> {
        let permit = match &mut self.calls[at] {
            CallState::Refused => return Err("unknown_call"),
            CallState::Done => return Err("already_done"),
            CallState::Open(permit) if permit.is_settled() => return Err("already_done"),
            CallState::Open(permit) => permit,
        };
        let real = real.as_number().and_then(|number| Amount::from_number(number).ok()).ok_or("amount_invalid")?;
        permit.settle(real).map_err(|error| match error {
            SettleError::AlreadySettled => "already_done",
            _ => "store_unavailable",
        })
    }

    fn finish(&mut self, at: usize, how: impl FnOnce(Permit) -> Result<(), &'static str>) -> Result<(), &'static str> {
        match std::mem::replace(&mut self.calls[at], CallState::Done) {
            CallState::Open(permit) => how(*permit),
            CallState::Done => Err("already_done"),
            CallState::Refused => {
                self.calls[at] = CallState::Refused;
                Err("unknown_call")
            }
        }
    }
}
