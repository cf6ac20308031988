//! Previews: the decisions that calls would get, and the states of a caller's limits. Nothing is
//! charged.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::evaluation::{CallEvaluation, deny_without_policy, deny_without_store};
use super::in_force::InForce;
use super::ready::at_once;
use super::{AsyncGate, Gate};
use crate::amount::Amount;
use crate::call::{Caller, ToolCall};
use crate::charge::{Asker, Charge, CounterId, Subject};
use crate::decision::limit_state::LimitState;
use crate::decision::{Decision, Refused};
use crate::policy::Plan;
use crate::store::{
    AsyncCounterStore, CounterStore, InProcess, Outcome, ReservationId, ReserveRequest, StoreError, Tallies,
};
use crate::time::Timestamp;

/// The first of several calls that would not pass.
#[derive(Debug)]
pub struct FirstRefusal {
    index: usize,
    decision: Decision,
}

impl FirstRefusal {
    fn new(index: usize, refused: impl Into<Decision>) -> Box<Self> {
        Box::new(Self { index, decision: refused.into() })
    }

    /// Returns the index of the call, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the decision that the call would get after the calls before it. Two values differ:
    /// the [`resets_at`](LimitState::resets_at) of its limits is that of the counters as they are
    /// now, and its [`retry_after`](Decision::retry_after) is the wait after which all calls up to
    /// this one could pass.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }
}

impl<S: CounterStore + 'static> Gate<S> {
    /// Checks if these calls would all pass now, in this order, budgets included. Nothing is
    /// charged and nothing is promised: another call may come first. A call that needs an approval
    /// does not pass, and none is requested. O(calls × limits).
    ///
    /// ```
    /// use serde_json::json;
    /// use toolgate::{Gate, Policy, ToolCall};
    ///
    /// let policy: Policy = r#"{
    ///     "version": "1", "default": "allow",
    ///     "all_tools": { "limits": [{ "counter": "calls", "window": "hour", "max": 2, "scope": "global" }] }
    /// }"#.parse()?;
    /// let gate = Gate::new(policy);
    /// let arguments = json!({});
    /// let call = ToolCall::new("search", &arguments);
    /// assert!(gate.would_allow(&[call, call]).is_ok());
    /// let obstacle = gate.would_allow(&[call, call, call]).unwrap_err();
    /// assert_eq!((obstacle.index(), obstacle.decision().as_str()), (2, "rate_limited"));
    /// # Ok::<(), toolgate::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// The first call that would not be allowed.
    pub fn would_allow(&self, calls: &[ToolCall<'_>]) -> Result<(), Box<FirstRefusal>> {
        let Some(first) = calls.first() else { return Ok(()) };
        let in_force = self.in_force();
        at_once(preview(&in_force, &InProcess(&in_force.parts.store), calls))
            .unwrap_or_else(|error| Err(FirstRefusal::new(0, Decision::Deny(deny_without_store(first, error.into())))))
    }

    /// Returns the states of a caller's limits: all limits of the policy whose scope this caller
    /// can fill. Limits that share a counter and have the same `max` appear once. Nothing is
    /// charged. Pass a call in place of the caller for limits that count by its arguments.
    ///
    /// ```
    /// use toolgate::{Caller, Gate, Policy};
    ///
    /// let policy: Policy = r#"{
    ///     "version": "1", "default": "allow",
    ///     "all_tools": { "limits": [{ "counter": "calls", "window": "hour", "max": 2, "scope": "user" }] }
    /// }"#.parse()?;
    /// let gate = Gate::new(policy);
    /// let states = gate.usage(&Caller::new().user("ann"))?;
    /// assert_eq!((states[0].counter(), states[0].remaining()), ("calls", 2.into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The store failed.
    pub fn usage<'c>(&self, caller: impl Into<ToolCall<'c>>) -> Result<Vec<LimitState>, StoreError> {
        at_once(usage(&self.in_force(), &InProcess(self.store()), &caller.into()))
            .unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }

    /// Returns the states of the limits of several callers, in their order, each as
    /// [`usage`](Self::usage) does, all under one policy and at one time of the clock. Calls may be
    /// charged meanwhile. O(callers × limits).
    ///
    /// ```
    /// use toolgate::{Caller, Gate, Policy};
    ///
    /// let policy: Policy = r#"{
    ///     "version": "1", "default": "allow",
    ///     "all_tools": { "limits": [{ "counter": "calls", "window": "hour", "max": 2, "scope": "user" }] }
    /// }"#.parse()?;
    /// let gate = Gate::new(policy);
    /// let usages = gate.usage_of(&[Caller::new().user("ann"), Caller::new().grant("g-42")])?;
    /// assert_eq!(usages[0][0].remaining(), 2.into());
    /// assert!(usages[1].is_empty(), "no limit counts this caller");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The store failed.
    pub fn usage_of(&self, callers: &[Caller]) -> Result<Vec<Vec<LimitState>>, StoreError> {
        // One request for each caller: it locks less of the store, and there is no round trip to
        // save.
        at_once(usage_of(&self.in_force(), &InProcess(self.store()), callers, 1))
            .unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }
}

/// The number of counters after which a request to look at those of several callers ends. A server
/// does nothing else meanwhile.
const COUNTERS_PER_LOOK: usize = 256;

impl<S: AsyncCounterStore + 'static> AsyncGate<S> {
    /// Checks if these calls would all pass, as [`Gate::would_allow`] does.
    ///
    /// # Errors
    /// The first call that would not be allowed.
    pub async fn would_allow(&self, calls: &[ToolCall<'_>]) -> Result<(), Box<FirstRefusal>> {
        preview(&self.in_force(), self.store(), calls).await
    }

    /// Returns the states of a caller's limits, as [`Gate::usage`] does.
    ///
    /// # Errors
    /// The store failed.
    pub async fn usage<'c>(&self, caller: impl Into<ToolCall<'c>>) -> Result<Vec<LimitState>, StoreError> {
        usage(&self.in_force(), self.store(), &caller.into()).await
    }

    /// Returns the states of the limits of several callers, in their order, as [`Gate::usage_of`]
    /// does. The store gets one request for every 256 counters, so a page of a dashboard takes one
    /// round trip (in a `RedisStore` with partitions, one for each of them). Callers with different
    /// maxima of the host (`max_from`) for one token bucket take a request each.
    ///
    /// # Errors
    /// The store failed, or does not answer for these callers at once: a `RedisStore` that was
    /// built `in_one_partition` does not if their counters are in several partitions, nor does a
    /// store in memory that has too little room for the counters that they do not have yet. Ask for
    /// each caller by [`usage`](Self::usage) then.
    pub async fn usage_of(&self, callers: &[Caller]) -> Result<Vec<Vec<LimitState>>, StoreError> {
        usage_of(&self.in_force(), self.store(), callers, COUNTERS_PER_LOOK).await
    }
}

async fn preview<S, A: ?Sized>(
    in_force: &InForce<S, A>,
    store: &impl AsyncCounterStore,
    calls: &[ToolCall<'_>],
) -> Result<(), Box<FirstRefusal>> {
    let preview = Preview::new(in_force, calls)?;
    let outcome = match preview.counters.charges.is_empty() {
        true => Ok(Outcome::Granted(Tallies::new())),
        false => store.peek(&preview.request()).await,
    };
    let Some(stopped) = preview.first_stopped(outcome) else { return Ok(()) };
    let waits = match stopped.sums(preview.now) {
        Some(request) => store.peek(&request).await.ok(),
        None => None,
    };
    Err(stopped.refusal(waits.as_ref()))
}

async fn usage<S, A: ?Sized>(
    in_force: &InForce<S, A>,
    store: &impl AsyncCounterStore,
    caller: &ToolCall<'_>,
) -> Result<Vec<LimitState>, StoreError> {
    let now = in_force.parts.clock.now();
    let Some(policy) = &in_force.policy else { return Ok(Vec::new()) };
    let plan = policy.every_limit(caller, now);
    if plan.charges.is_empty() {
        return Ok(Vec::new());
    }
    let outcome = store.peek(&ReserveRequest::new(ReservationId::next(), now, &plan.charges)).await?;
    let tallies = outcome.tallies();
    if tallies.len() != plan.charges.len() {
        return Err(StoreError::incomplete());
    }
    Ok(LimitState::all(policy, &plan, tallies))
}

/// Ends a request when it has `batch` counters; a caller's counters are all in one request.
async fn usage_of<S, A: ?Sized>(
    in_force: &InForce<S, A>,
    store: &impl AsyncCounterStore,
    callers: &[Caller],
    batch: usize,
) -> Result<Vec<Vec<LimitState>>, StoreError> {
    let now = in_force.parts.clock.now();
    let Some(policy) = &in_force.policy else { return Ok(vec![Vec::new(); callers.len()]) };
    let plans: Vec<Plan> = callers.iter().map(|caller| policy.every_limit(&caller.into(), now)).collect();
    let mut plans = plans.iter().peekable();
    let mut usages = Vec::with_capacity(callers.len());
    while plans.peek().is_some() {
        let (mut asked, mut counters) = (Vec::new(), Counters::default());
        while let Some(plan) = plans.next_if(|plan| counters.charges.len() < batch && counters.can_add(plan)) {
            asked.push((plan, counters.add(plan)));
        }
        let tallies = match counters.charges.is_empty() {
            true => Tallies::new(),
            false => {
                let request = ReserveRequest::new(ReservationId::next(), now, &counters.charges);
                store.peek(&request).await?.tallies().clone()
            }
        };
        if tallies.len() != counters.charges.len() {
            return Err(StoreError::incomplete());
        }
        for (plan, indexes) in asked {
            let own = indexes.iter().filter_map(|index| tallies.get(*index).copied()).collect();
            usages.push(LimitState::all(policy, plan, &own));
        }
    }
    Ok(usages)
}

/// Each counter and subject once, with an amount of zero, to read its state.
#[derive(Default)]
struct Counters {
    charges: Vec<Charge>,
    /// The index of each counter and subject in `charges`.
    indexes: HashMap<(CounterId, Subject), usize>,
}

impl Counters {
    /// Returns `false` if a counter of the plan is here with another meter: what comes back to a
    /// token bucket may be the host's own maximum, which differs by caller.
    fn can_add(&self, plan: &Plan) -> bool {
        plan.charges.iter().all(|charge| {
            let known = self.indexes.get(&(charge.counter, charge.subject.clone()));
            known.and_then(|index| self.charges.get(*index)).is_none_or(|known| known.meter == charge.meter)
        })
    }

    /// Adds the counters of a plan, and returns their indexes.
    fn add(&mut self, plan: &Plan) -> SmallVec<[usize; 4]> {
        let Self { charges, indexes } = self;
        let index = |charge: &Charge| {
            *indexes.entry((charge.counter, charge.subject.clone())).or_insert_with(|| {
                charges.push(Charge { amount: Amount::ZERO, max: None, ..charge.clone() });
                charges.len() - 1
            })
        };
        plan.charges.iter().map(index).collect()
    }
}

/// Calls in their order, and every counter that they would charge.
struct Preview<'p> {
    now: Timestamp,
    calls: Vec<PreviewedCall<'p>>,
    /// The refusal of the first call that the policy stops whatever the counters hold.
    stopped: Option<Refused>,
    counters: Counters,
}

struct PreviewedCall<'p> {
    evaluation: CallEvaluation<'p>,
    plan: Plan,
    /// The index of each charge's counter in `counters`.
    counters: SmallVec<[usize; 4]>,
}

/// The first call that would not pass.
enum Stopped<'f> {
    Refused(usize, Refused),
    /// A limit has no room for it.
    Full {
        index: usize,
        call: &'f PreviewedCall<'f>,
        tallies: Tallies,
        /// The charges of all calls up to this one to its counters, to find out how long they must
        /// wait.
        sums: Vec<Charge>,
    },
}

impl<'p> Preview<'p> {
    fn new<S, A: ?Sized>(in_force: &'p InForce<S, A>, calls: &'p [ToolCall<'p>]) -> Result<Self, Box<FirstRefusal>> {
        let now = in_force.parts.clock.now();
        let previewed = Vec::with_capacity(calls.len());
        let mut preview = Self { now, calls: previewed, stopped: None, counters: Counters::default() };
        for call in calls {
            let Some(policy) = &in_force.policy else {
                return Err(FirstRefusal::new(0, deny_without_policy(call)));
            };
            let mut plan = Plan::default();
            let mut evaluation = in_force.evaluation(policy, call);
            evaluation.judge(Some(now));
            match evaluation.cost(&mut plan) {
                Ok(()) => {
                    let counters = preview.counters.add(&plan);
                    let asks = evaluation.needs_approval();
                    preview.calls.push(PreviewedCall { evaluation, plan, counters });
                    if asks {
                        break;
                    }
                }
                Err(refused) => {
                    preview.stopped = Some(refused);
                    break;
                }
            }
        }
        Ok(preview)
    }

    fn request(&self) -> ReserveRequest<'_> {
        let mut askers = self.calls.iter().map(|call| Asker::of(call.evaluation.call));
        let first = askers.next();
        // Calls of several callers are not asked for as one of them.
        let asker = first.filter(|first| askers.all(|asker| asker == *first));
        ReserveRequest::new(ReservationId::next(), self.now, &self.counters.charges).by(asker)
    }

    /// Returns the first call for which there is no room, that needs an approval, or that the
    /// policy stops.
    fn first_stopped(&self, outcome: Result<Outcome, StoreError>) -> Option<Stopped<'_>> {
        let mut tallies = match outcome {
            Ok(outcome) if outcome.tallies().len() == self.counters.charges.len() => Ok(outcome.tallies().clone()),
            Ok(_) => Err(Arc::new(StoreError::Corrupt)),
            Err(error) => Err(Arc::new(error)),
        };
        let mut charged = vec![0u64; self.counters.charges.len()];
        for (index, call) in self.calls.iter().enumerate() {
            let PreviewedCall { evaluation, plan, counters } = call;
            let known = match &mut tallies {
                Ok(known) => known,
                Err(error) => match evaluation.without_store(&plan.limits, Arc::clone(error)) {
                    Ok(()) if evaluation.needs_approval() => {
                        return Some(Stopped::Refused(index, evaluation.require_approval(Vec::new(), None, None)));
                    }
                    Ok(()) => continue,
                    Err(refused) => return Some(Stopped::Refused(index, refused)),
                },
            };
            let own: Tallies = counters.iter().filter_map(|counter| known.get(*counter).copied()).collect();
            if !plan.charges.iter().zip(&own).all(|(charge, tally)| tally.has_room(charge)) {
                let sum = |(charge, counter): (&Charge, &usize)| {
                    let before = charged.get(*counter).copied().unwrap_or(0);
                    let amount = Amount::from_micros(charge.amount.micros().saturating_add(before))?;
                    Some(Charge { amount, ..charge.clone() })
                };
                // There is never room for a sum above the largest amount.
                let sums: Option<_> = plan.charges.iter().zip(counters).map(sum).collect();
                return Some(Stopped::Full { index, call, tallies: own, sums: sums.unwrap_or_default() });
            }
            if evaluation.needs_approval() {
                return Some(Stopped::Refused(
                    index,
                    evaluation.require_approval(evaluation.states(plan, &own), None, None),
                ));
            }
            for (charge, counter) in plan.charges.iter().zip(counters) {
                if let (Some(tally), Some(sum)) = (known.get_mut(*counter), charged.get_mut(*counter)) {
                    tally.used = tally.used.plus(charge.amount);
                    *sum = sum.saturating_add(charge.amount.micros());
                }
            }
        }
        self.stopped.clone().map(|refused| Stopped::Refused(self.calls.len(), refused))
    }
}

impl Stopped<'_> {
    /// Returns the request that finds out how long the calls must wait.
    fn sums(&self, now: Timestamp) -> Option<ReserveRequest<'_>> {
        match self {
            Self::Full { sums, .. } if !sums.is_empty() => Some(ReserveRequest::new(ReservationId::next(), now, sums)),
            _ => None,
        }
    }

    /// Returns the refusal, given the store's answer to [`sums`](Self::sums).
    fn refusal(self, waits: Option<&Outcome>) -> Box<FirstRefusal> {
        match self {
            Self::Refused(index, refused) => FirstRefusal::new(index, refused),
            Self::Full { index, call: PreviewedCall { evaluation, plan, .. }, mut tallies, .. } => {
                for (at, tally) in tallies.iter_mut().enumerate() {
                    tally.retry_at = waits.and_then(|waits| waits.tallies().get(at)?.retry_at);
                }
                FirstRefusal::new(index, evaluation.rate_limit(plan, &tallies))
            }
        }
    }
}
