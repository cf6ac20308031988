//! Explanations of calls with the states of their limits. Nothing is charged.

use std::time::Duration;

use super::Standing;
use crate::amount::Amount;
use crate::call::ToolCall;
use crate::decision::limit_state::LimitState;
use crate::gate::Gate;
use crate::gate::ready::at_once;
use crate::policy::LimitRef;
use crate::store::{AsyncCounterStore, CounterStore, InProcess, ReservationId, ReserveRequest, StoreError};
use crate::time::wait_millis;
use crate::tools::explain::Explanation;

impl<S: CounterStore + 'static> Gate<S> {
    /// Explains why the gate would decide a call as it would, budgets included: as
    /// [`Policy::explain`](crate::Policy::explain) does, with the state of each limit, what it has
    /// left, and how long to wait. Nothing is charged, and no approval is looked for.
    ///
    /// # Errors
    /// The store failed. [`Policy::explain`](crate::Policy::explain) still explains the policy's
    /// part.
    pub fn explain(&self, call: &ToolCall<'_>) -> Result<Explanation, StoreError> {
        at_once(explain(self, &InProcess(self.store()), call))
            .unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }
}

impl<S: AsyncCounterStore + 'static> Gate<S> {
    /// Explains why the gate would decide a call as it would, as [`Gate::explain`] does.
    ///
    /// # Errors
    /// The store failed.
    pub async fn explain_async(&self, call: &ToolCall<'_>) -> Result<Explanation, StoreError> {
        explain(self, self.store(), call).await
    }
}

async fn explain<S>(
    gate: &Gate<S>,
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
        explanation.stand(&policy, &plan, call, |found: LimitRef| {
            let (limit, charge) = (policy.limit(found)?, plan.charges.get(found.charge())?);
            let tally = tallies.get(found.charge())?;
            let state = LimitState::of(limit, tally);
            let room = limit.room();
            let ever = room > Amount::ZERO && charge.amount <= room;
            let wait = tally.retry_at.filter(|_| ever).map(|at| Duration::from_millis(wait_millis(now, at)));
            let standing = Standing { used: state.used, remaining: state.remaining, resets_at: state.resets_at };
            Some((standing, tally.used.has_room(charge.amount, room), wait))
        });
    }
    Ok(explanation)
}
