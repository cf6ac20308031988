//! Looking ahead, and looking around: what calls would meet, and how a caller's counters stand. Nothing is charged.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::evaluation::{CallEvaluation, deny_without_policy};
use super::{Gate, InForce};
use crate::amount::Amount;
use crate::call::ToolCall;
use crate::charge::{Charge, CounterId, Subject};
use crate::decision::limit_state::LimitState;
use crate::decision::{Decision, Refused};
use crate::policy::{Plan, Policy};
use crate::store::{
    AsyncCounterStore, CounterStore, Outcome, ReservationId, ReserveRequest, StoreError, Tallies, Tally,
};
use crate::time::Timestamp;

/// The first of several calls that would not pass.
#[derive(Debug)]
pub struct FirstRefusal {
    index: usize,
    decision: Decision,
}

impl FirstRefusal {
    /// Which of the calls it is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What the gate would answer it, after the calls before it; but its limits' [`resets_at`](LimitState::resets_at) is that of
    /// the counters as they stand, and its [`retry_after`](Decision::retry_after) the wait after which all calls up to this one
    /// could pass.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }
}

impl<S: CounterStore + 'static> Gate<S> {
    /// Would these calls all pass, in this order, one after the other at this instant, budgets included? Nothing is charged, and
    /// nothing is promised: another call may come first. A call that needs an approval does not pass, whether there is one or not;
    /// none is asked for. O(calls × limits).
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
        let in_force = self.in_force();
        let foresight = Foresight::of(&in_force, calls)?;
        let store = &self.0.parts.store;
        let outcome = match foresight.counters.is_empty() {
            true => Ok(Outcome::Granted(Tallies::new())),
            false => store.peek(&foresight.request()),
        };
        match foresight.obstacle(outcome) {
            None => Ok(()),
            Some(found) => {
                let waits = found.sums(foresight.now).map(|request| store.peek(&request));
                Err(found.named(waits))
            }
        }
    }

    /// How every counter of a caller stands: each limit of the policy whose scope `caller`, a call of any tool, has all parts of.
    /// Limits that share a counter and agree in `max` are one. Nothing is charged.
    ///
    /// ```
    /// use toolgate::{Arguments, Caller, Gate, Policy};
    ///
    /// let policy: Policy = r#"{
    ///     "version": "1", "default": "allow",
    ///     "all_tools": { "limits": [{ "counter": "calls", "window": "hour", "max": 2, "scope": "user" }] }
    /// }"#.parse()?;
    /// let gate = Gate::new(policy);
    /// let caller = gate.caller(Caller::new().user("ann"));
    /// let states = gate.usage(&caller.call("", Arguments::default()))?;
    /// assert_eq!((states[0].counter(), states[0].remaining()), ("calls", 2.into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The store cannot tell.
    pub fn usage(&self, caller: &ToolCall<'_>) -> Result<Vec<LimitState>, StoreError> {
        let Some(usage) = Usage::of(self, caller) else { return Ok(Vec::new()) };
        usage.states(self.0.parts.store.peek(&usage.request())?)
    }
}

impl<S: AsyncCounterStore + 'static> Gate<S> {
    /// Would these calls all pass? As [`Gate::would_allow`].
    ///
    /// # Errors
    /// The first call that would not be allowed.
    pub async fn would_allow_async(&self, calls: &[ToolCall<'_>]) -> Result<(), Box<FirstRefusal>> {
        let in_force = self.in_force();
        let foresight = Foresight::of(&in_force, calls)?;
        let store = &self.0.parts.store;
        let outcome = match foresight.counters.is_empty() {
            true => Ok(Outcome::Granted(Tallies::new())),
            false => store.peek(&foresight.request()).await,
        };
        match foresight.obstacle(outcome) {
            None => Ok(()),
            Some(found) => {
                let waits = match found.sums(foresight.now) {
                    Some(request) => Some(store.peek(&request).await),
                    None => None,
                };
                Err(found.named(waits))
            }
        }
    }

    /// How every counter of a caller stands. As [`Gate::usage`].
    ///
    /// # Errors
    /// The store cannot tell.
    pub async fn usage_async(&self, caller: &ToolCall<'_>) -> Result<Vec<LimitState>, StoreError> {
        let Some(usage) = Usage::of(self, caller) else { return Ok(Vec::new()) };
        let request = usage.request();
        usage.states(self.0.parts.store.peek(&request).await?)
    }
}

/// Calls in their order, and every counter that they would charge.
struct Foresight<'p> {
    now: Timestamp,
    calls: Vec<Foreseen<'p>>,
    /// The first call that the policy stops whatever the counters hold.
    stopped: Option<Refused>,
    /// Each counter and subject once, with nothing charged: to see how they stand.
    counters: Vec<Charge>,
    /// Which of them it is.
    known: HashMap<(CounterId, Subject), usize>,
}

struct Foreseen<'p> {
    evaluation: CallEvaluation<'p>,
    plan: Plan,
    /// Which counter each charge of the plan is made to.
    places: SmallVec<[usize; 4]>,
}

/// The first call that would not pass.
enum Found<'f> {
    /// For this reason.
    Refused(usize, Refused),
    /// It has no room.
    Full {
        index: usize,
        call: &'f Foreseen<'f>,
        tallies: Tallies,
        /// What all calls up to this one charge its counters, to ask how long that has to wait.
        sums: Vec<Charge>,
    },
}

impl<'p> Foresight<'p> {
    fn of<S>(in_force: &'p InForce<S>, calls: &'p [ToolCall<'p>]) -> Result<Self, Box<FirstRefusal>> {
        let now = in_force.parts.clock.now();
        let foreseen = Vec::with_capacity(calls.len());
        let mut foresight = Self { now, calls: foreseen, stopped: None, counters: Vec::new(), known: HashMap::new() };
        for call in calls {
            let Some(policy) = &in_force.policy else {
                return Err(Box::new(FirstRefusal { index: 0, decision: deny_without_policy(call).into() }));
            };
            let mut plan = Plan::default();
            let mut evaluation = in_force.evaluation(policy, call);
            evaluation.judge(Some(now));
            match evaluation.cost(&mut plan) {
                Ok(()) => {
                    let places = foresight.count(&plan);
                    let asks = evaluation.needs_approval();
                    foresight.calls.push(Foreseen { evaluation, plan, places });
                    if asks {
                        break;
                    }
                }
                Err(refused) => {
                    foresight.stopped = Some(refused);
                    break;
                }
            }
        }
        Ok(foresight)
    }

    /// Notes the counters of a call, and says which they are.
    fn count(&mut self, plan: &Plan) -> SmallVec<[usize; 4]> {
        let Self { counters, known, .. } = self;
        let place = |charge: &Charge| {
            *known.entry((charge.counter, charge.subject.clone())).or_insert_with(|| {
                counters.push(Charge { amount: Amount::ZERO, max: None, ..charge.clone() });
                counters.len() - 1
            })
        };
        plan.charges.iter().map(place).collect()
    }

    fn request(&self) -> ReserveRequest<'_> {
        ReserveRequest::new(ReservationId::next(), self.now, &self.counters)
    }

    /// The first call without room, or that a person has to approve, or that the policy stops.
    fn obstacle(&self, outcome: Result<Outcome, StoreError>) -> Option<Found<'_>> {
        let mut tallies = match outcome {
            Ok(outcome) if outcome.tallies().len() == self.counters.len() => Ok(outcome.tallies().clone()),
            Ok(_) => Err(Arc::new(StoreError::Corrupt)),
            Err(error) => Err(Arc::new(error)),
        };
        let mut charged = vec![0u64; self.counters.len()];
        for (index, call) in self.calls.iter().enumerate() {
            let Foreseen { evaluation, plan, places } = call;
            let known = match &mut tallies {
                Ok(known) => known,
                Err(error) => match evaluation.without_store(&plan.limits, Arc::clone(error)) {
                    Ok(()) if evaluation.needs_approval() => {
                        return Some(Found::Refused(index, evaluation.require_approval(Vec::new(), None, None)));
                    }
                    Ok(()) => continue,
                    Err(refused) => return Some(Found::Refused(index, refused)),
                },
            };
            let own: Tallies = places.iter().filter_map(|place| known.get(*place).copied()).collect();
            if !plan.charges.iter().zip(&own).all(|(charge, tally)| tally.has_room(charge)) {
                let sum = |(charge, place): (&Charge, &usize)| {
                    let before = charged.get(*place).copied().unwrap_or(0);
                    let amount = Amount::from_micros(charge.amount.micros().saturating_add(before))?;
                    Some(Charge { amount, ..charge.clone() })
                };
                // A sum that is no amount can never have room.
                let sums: Option<_> = plan.charges.iter().zip(places).map(sum).collect();
                return Some(Found::Full { index, call, tallies: own, sums: sums.unwrap_or_default() });
            }
            if evaluation.needs_approval() {
                return Some(Found::Refused(
                    index,
                    evaluation.require_approval(evaluation.states(plan, &own), None, None),
                ));
            }
            for (charge, place) in plan.charges.iter().zip(places) {
                if let (Some(tally), Some(sum)) = (known.get_mut(*place), charged.get_mut(*place)) {
                    tally.used = tally.used.plus(charge.amount);
                    *sum = sum.saturating_add(charge.amount.micros());
                }
            }
        }
        self.stopped.clone().map(|refused| Found::Refused(self.calls.len(), refused))
    }
}

impl Found<'_> {
    /// What to ask the store yet.
    fn sums(&self, now: Timestamp) -> Option<ReserveRequest<'_>> {
        match self {
            Self::Full { sums, .. } if !sums.is_empty() => Some(ReserveRequest::new(ReservationId::next(), now, sums)),
            _ => None,
        }
    }

    /// The obstacle, given what the store says to the sums.
    fn named(self, waits: Option<Result<Outcome, StoreError>>) -> Box<FirstRefusal> {
        let (index, refused) = match self {
            Self::Refused(index, refused) => (index, refused),
            Self::Full { index, call: Foreseen { evaluation, plan, .. }, mut tallies, .. } => {
                let waits = waits.and_then(Result::ok);
                for (at, tally) in tallies.iter_mut().enumerate() {
                    let wait = waits.as_ref().and_then(|outcome| outcome.tallies().get(at));
                    tally.retry_at = wait.and_then(|wait| wait.retry_at);
                }
                (index, evaluation.rate_limit(plan, &tallies))
            }
        };
        Box::new(FirstRefusal { index, decision: refused.into() })
    }
}

/// The counters of one caller.
struct Usage {
    policy: Policy,
    now: Timestamp,
    plan: Plan,
}

impl Usage {
    fn of<S>(gate: &Gate<S>, caller: &ToolCall<'_>) -> Option<Self> {
        let now = gate.0.parts.clock.now();
        let policy = gate.policy()?;
        let plan = policy.every_limit(caller, now);
        // Where nothing is counted, no store need be asked.
        (!plan.charges.is_empty()).then_some(Self { policy, now, plan })
    }

    fn request(&self) -> ReserveRequest<'_> {
        ReserveRequest::new(ReservationId::next(), self.now, &self.plan.charges)
    }

    fn states(&self, outcome: Outcome) -> Result<Vec<LimitState>, StoreError> {
        let tallies: &[Tally] = outcome.tallies();
        if tallies.len() != self.plan.charges.len() {
            return Err(StoreError::Unavailable(None));
        }
        Ok(LimitState::all(&self.policy, &self.plan.limits, outcome.tallies()))
    }
}
