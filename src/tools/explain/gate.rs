//! Explanations of calls with the states of their limits. Nothing is charged.

use std::time::Duration;

use super::CounterState;
use crate::amount::Amount;
use crate::call::ToolCall;
use crate::charge::Meter;
use crate::gate::ready::at_once;
use crate::gate::{AsyncGate, Gate};
use crate::policy::LimitRef;
use crate::store::{AsyncCounterStore, CounterStore, InProcess, ReservationId, ReserveRequest, StoreError};
use crate::time::wait_millis;
use crate::tools::explain::Explanation;

impl<S: CounterStore + 'static> Gate<S> {
    /// Explains how the gate would decide a call: as
    /// [`Policy::explain`](crate::Policy::explain) does, and with the state of each limit, what it
    /// has left, and how long to wait. Nothing is charged, and approvals are not read.
    ///
    /// # Errors
    /// The store failed. [`Policy::explain`](crate::Policy::explain) still explains the rules.
    pub fn explain(&self, call: &ToolCall<'_>) -> Result<Explanation, StoreError> {
        at_once(explain(self, &InProcess(self.store()), call))
            .unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }
}

impl<S: AsyncCounterStore + 'static> AsyncGate<S> {
    /// Explains how the gate would decide a call, as [`Gate::explain`] does.
    ///
    /// # Errors
    /// The store failed.
    pub async fn explain(&self, call: &ToolCall<'_>) -> Result<Explanation, StoreError> {
        explain(self, self.store(), call).await
    }
}

async fn explain<S, A: ?Sized>(
    gate: &Gate<S, A>,
    counters: &impl AsyncCounterStore,
    call: &ToolCall<'_>,
) -> Result<Explanation, StoreError> {
    let now = gate.now();
    let Some(policy) = gate.policy() else { return Ok(Explanation::without_policy(call, now)) };
    let (mut explanation, plan) = policy.explained(call, now, false);
    if !plan.charges.is_empty() {
        let request = ReserveRequest::new(ReservationId::next(), now, &plan.charges);
        let outcome = counters.peek(&request).await?;
        let tallies = outcome.tallies();
        if tallies.len() != plan.charges.len() {
            return Err(StoreError::Corrupt);
        }
        explanation.add_limit_states(&policy, &plan, call, |index, limit: LimitRef| {
            let (charge, tally) = (plan.charges.get(limit.charge())?, tallies.get(limit.charge())?);
            let (_, room) = plan.max_and_room(index, policy.limit(limit)?);
            let can_ever_fit = room > Amount::ZERO && charge.amount <= room;
            // When a call in flight ends is not known.
            let is_timed = can_ever_fit && !matches!(charge.meter, Meter::InFlight { .. });
            let wait = tally.retry_at.filter(|_| is_timed).map(|at| Duration::from_millis(wait_millis(now, at)));
            let remaining = tally.used.remaining(room);
            let state = CounterState { used: tally.used, remaining, resets_at: tally.resets_at() };
            Some((state, tally.used.has_room(charge.amount, room), wait))
        });
    }
    Ok(explanation)
}
