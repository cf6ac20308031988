//! Explanations of calls with the limits as they stand. Nothing is charged.

use std::time::Duration;

use super::Standing;
use crate::amount::Amount;
use crate::call::ToolCall;
use crate::decision::limit_state::LimitState;
use crate::gate::Gate;
use crate::policy::{LimitRef, Plan, Policy};
use crate::store::{AsyncCounterStore, CounterStore, Outcome, ReservationId, ReserveRequest, StoreError};
use crate::time::Timestamp;
use crate::time::wait_millis;
use crate::tools::explain::Explanation;

impl<S: CounterStore + 'static> Gate<S> {
    /// Why the gate would decide a call as it would, budgets included: [`Policy::explain`] with how each limit stands, what it has
    /// left, and how long to wait. Nothing is charged, and whether an approval is there is not looked at.
    ///
    /// # Errors
    /// The store cannot tell; what the policy alone says, [`Policy::explain`] still does.
    pub fn explain(&self, call: &ToolCall<'_>) -> Result<Explanation, StoreError> {
        let mut asked = match Asked::of(self, call) {
            Ok(asked) => asked,
            Err(explanation) => return Ok(*explanation),
        };
        if !asked.plan.charges.is_empty() {
            let outcome = self.counters().peek(&asked.request())?;
            asked.stand(call, &outcome)?;
        }
        Ok(asked.explanation)
    }
}

impl<S: AsyncCounterStore + 'static> Gate<S> {
    /// Why the gate would decide a call as it would. As [`Gate::explain`].
    ///
    /// # Errors
    /// The store cannot tell.
    pub async fn explain_async(&self, call: &ToolCall<'_>) -> Result<Explanation, StoreError> {
        let mut asked = match Asked::of(self, call) {
            Ok(asked) => asked,
            Err(explanation) => return Ok(*explanation),
        };
        if !asked.plan.charges.is_empty() {
            let outcome = {
                let request = asked.request();
                self.counters().peek(&request).await?
            };
            asked.stand(call, &outcome)?;
        }
        Ok(asked.explanation)
    }
}

/// An explanation without its limits' states, and what to ask for them.
struct Asked {
    policy: Policy,
    now: Timestamp,
    plan: Plan,
    explanation: Explanation,
}

impl Asked {
    /// What to ask; the explanation itself where there is no policy.
    fn of<S>(gate: &Gate<S>, call: &ToolCall<'_>) -> Result<Self, Box<Explanation>> {
        let now = gate.now();
        let Some(policy) = gate.policy() else { return Err(Explanation::without_policy(call, now).into()) };
        let (explanation, plan) = policy.explained(call, now, false);
        Ok(Self { policy, now, plan, explanation })
    }

    fn request(&self) -> ReserveRequest<'_> {
        ReserveRequest::new(ReservationId::next(), self.now, &self.plan.charges)
    }

    fn stand(&mut self, call: &ToolCall<'_>, outcome: &Outcome) -> Result<(), StoreError> {
        let Self { policy, now, plan, explanation } = self;
        let tallies = outcome.tallies();
        if tallies.len() != plan.charges.len() {
            return Err(StoreError::Corrupt);
        }
        explanation.stand(policy, plan, call, |found: LimitRef| {
            let (limit, charge) = (policy.limit(found)?, plan.charges.get(found.charge())?);
            let tally = tallies.get(found.charge())?;
            let state = LimitState::of(limit, tally);
            let room = limit.room();
            let ever = room > Amount::ZERO && charge.amount <= room;
            let wait = tally.retry_at.filter(|_| ever).map(|at| Duration::from_millis(wait_millis(*now, at)));
            let standing = Standing { used: state.used, remaining: state.remaining, resets_at: state.resets_at };
            Some((standing, tally.used.has_room(charge.amount, room), wait))
        });
        Ok(())
    }
}
