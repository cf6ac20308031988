//! The charges of a call. Only a policy makes charges, so a gate with a recording store runs it.

use std::sync::Mutex;

use toolgate::charge::{Charge, CounterId, Subject};
use toolgate::store::{CounterStore, Outcome, ReserveRequest, SettleRequest, StoreError, Tally};
use toolgate::{Gate, Policy, ToolCall};

/// Returns the charges of a call that the policy allows.
pub(crate) fn charges(policy: Policy, call: &ToolCall<'_>) -> Vec<Charge> {
    let gate = Gate::builder().policy(policy).store(Recorder::default()).build();
    assert!(gate.check(call).is_allowed());
    gate.store().0.lock().unwrap().clone()
}

/// A store that counts nothing and keeps the charges of the last request.
#[derive(Default)]
struct Recorder(Mutex<Vec<Charge>>);

impl CounterStore for Recorder {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        *self.0.lock().unwrap() = request.charges.into();
        Ok(Outcome::Granted(request.charges.iter().map(|c| Tally::unused(&c.meter, request.now)).collect()))
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.reserve(request)
    }

    fn settle(&self, _: &SettleRequest<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn reset(&self, _: CounterId, _: &Subject) -> Result<(), StoreError> {
        Ok(())
    }
}
