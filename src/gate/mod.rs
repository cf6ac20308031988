//! The gate: it joins policy and stores, and makes the decisions.

mod approval;
mod builder;
mod evaluation;
mod in_force;
mod known_approval;
mod observe;
mod preview;
pub(crate) mod ready;
pub mod shadow;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::approval::{ApprovalStore, AsyncApprovalStore};
use crate::call::{Caller, ToolCall};
use crate::charge::{CounterId, Subject};
use crate::decision::Decision;
use crate::decision::permit::{AnyPermit, AsyncPermit, Permit};
use crate::decision::reservation::Reservation;
use crate::policy::{Plan, Policy};
use crate::store::{AsyncCounterStore, CounterStore, InProcess, MemoryStore, ReservationId, StoreError};
use crate::time::Timestamp;
use evaluation::deny_without_policy;
use in_force::{InForce, Parts, PerThread, ShadowRun};
use ready::at_once;

pub use builder::GateBuilder;
pub use preview::FirstRefusal;

#[cfg(feature = "replay")]
pub(crate) use known_approval::KnownApproval;

/// The policy decision point: a policy in force, the counters and a clock. Clones are cheap, and
/// are the same gate.
///
/// ```
/// use serde_json::json;
/// use toolgate::{Decision, Gate, Policy, ToolCall};
///
/// let policy: Policy = r#"{
///     "version": "1",
///     "default": "deny",
///     "tools": { "search": { "rate_limit": { "max": 1, "window": "hour" } } }
/// }"#.parse()?;
/// let gate = Gate::new(policy);
///
/// let arguments = json!({ "query": "rust" });
/// let call = ToolCall::new("search", &arguments).session("s-7");
/// let Decision::Allow(permit) = gate.check(&call) else { panic!("the first call passes") };
/// assert_eq!(gate.check(&call).as_str(), "rate_limited");
/// permit.release(); // the call was not made after all
/// assert_eq!(gate.check(&call).as_str(), "allow");
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
pub struct Gate<S = MemoryStore, A: ?Sized = dyn ApprovalStore>(Arc<Inner<S, A>>);

/// A gate over stores across a network: the same verbs, and those that ask a store are `async`. It
/// is tied to no runtime. [`GateBuilder::store_async`] leads to it.
///
/// Stores in the process work too, as [`InProcess`]. To choose the store at run time, use
/// `Arc<dyn AsyncCounterStore>`.
///
/// ```
/// use serde_json::json;
/// use toolgate::store::{InProcess, MemoryStore};
/// use toolgate::{Gate, ToolCall};
///
/// # async fn decide() -> Result<(), toolgate::PolicyError> {
/// let policy: toolgate::Policy = r#"{ "version": "1", "default": "allow" }"#.parse()?;
/// let gate = Gate::builder().policy(policy).store_async(InProcess(MemoryStore::new())).build();
///
/// let arguments = json!({});
/// assert!(gate.check(&ToolCall::new("search", &arguments)).await.is_allowed());
/// # Ok(())
/// # }
/// ```
pub type AsyncGate<S> = Gate<S, dyn AsyncApprovalStore>;

struct Inner<S, A: ?Sized> {
    in_force: ArcSwap<PerThread<S, A>>,
    /// Locked while a policy or a shadow is replaced, so that neither change undoes the other.
    replacing: Mutex<()>,
    parts: Arc<Parts<S, A>>,
}

impl<S: CounterStore + 'static> Gate<S> {
    /// Decides a call. If the call is allowed, its quota is spent.
    ///
    /// Never fails, and never blocks on I/O with a store in the process. An allowed call allocates
    /// nothing, unless a caller is counted for the first time, more than four counters are charged,
    /// or a part of a key is long. (The queue of a sliding window, or of calls in flight, grows to
    /// the greatest length that it has had.) A call that needs an approval takes some microseconds
    /// more: it uses an approval that was given for it, or requests one. A decision that is
    /// [recorded](GateBuilder::audit) waits for its sink.
    pub fn check(&self, call: &ToolCall<'_>) -> Decision {
        let copies = self.0.in_force.load();
        let in_force = copies.own();
        if in_force.is_watched() {
            return self.decide_watched(in_force, call);
        }
        self.decide_at(None, in_force, call)
    }

    /// Decides a call at `now`. Without `now`, the clock is read only if the decision depends on
    /// it.
    #[inline(always)]
    fn decide_at(
        &self,
        now: Option<Timestamp>,
        in_force: &Arc<InForce<S, dyn ApprovalStore>>,
        call: &ToolCall<'_>,
    ) -> Decision {
        let Some(policy) = &in_force.policy else { return deny_without_policy(call).into() };
        let mut evaluation = in_force.evaluation(policy, call);
        evaluation.judge(now);
        let mut plan = Plan::default();
        if let Err(refused) = evaluation.cost(&mut plan) {
            return refused.into();
        }
        if !evaluation.needs_store(&plan) {
            return Decision::Allow(Permit::uncounted());
        }
        if evaluation.needs_approval() {
            return self.decide_asking(in_force, &evaluation, &plan);
        }
        let request = evaluation.request(ReservationId::next(), &plan);
        let outcome = self.0.parts.store.reserve(&request);
        let id = request.id;
        match evaluation.answered(&plan, outcome) {
            Ok(Some(tallies)) => {
                let backend = in_force.clone();
                Decision::Allow(Permit::counted(Reservation::new(backend, id, plan, tallies)))
            }
            Ok(None) => Decision::Allow(Permit::uncounted()),
            Err(refused) => refused.into(),
        }
    }

    /// Forgets what a caller has used of a counter, for example after a clock ran years ahead.
    /// Returns `false` if the policy has no such counter, or the caller lacks a part of its scope.
    /// Pass a call in place of the caller for a counter that counts by its arguments.
    ///
    /// `by` is who resets it, for the [audit log](crate::audit): a reset gives the caller a second
    /// budget.
    ///
    /// # Errors
    /// The store cannot be reached; or the reset cannot be recorded, and the host
    /// [requires](GateBuilder::require_audit) records: then nothing is reset.
    pub fn reset_counter<'c>(
        &self,
        counter: &str,
        caller: impl Into<ToolCall<'c>>,
        by: &str,
    ) -> Result<bool, StoreError> {
        at_once(self.reset_in(&InProcess(&self.0.parts.store), counter, &caller.into(), by))
            .unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }
}

impl<S: AsyncCounterStore + 'static> AsyncGate<S> {
    /// Decides a call with counters across a network. If the call is allowed, its quota is spent.
    ///
    /// One round trip to the counters, however many limits apply; none if no limit applies. A call
    /// that needs an approval makes one more, and those to the store of approvals.
    ///
    /// If the future is dropped before it is ready, there is no permit, but the store may have
    /// received the request: what was charged, and an approval that was used, stay spent, and what
    /// is in flight is freed when its lease ends. Where callers give up, decide in a separate task.
    pub async fn check(&self, call: &ToolCall<'_>) -> Decision<AsyncPermit> {
        let in_force = self.in_force();
        if in_force.is_watched() {
            // Boxed to keep the futures of all other calls small.
            return Box::pin(self.decide_watched_async(in_force, call)).await;
        }
        self.decide_at_async(None, in_force, call).await
    }

    async fn decide_at_async(
        &self,
        now: Option<Timestamp>,
        in_force: Arc<InForce<S, dyn AsyncApprovalStore>>,
        call: &ToolCall<'_>,
    ) -> Decision<AsyncPermit> {
        let Some(policy) = &in_force.policy else { return deny_without_policy(call).into() };
        let mut evaluation = in_force.evaluation(policy, call);
        evaluation.judge(now);
        let mut plan = Plan::default();
        if let Err(refused) = evaluation.cost(&mut plan) {
            return refused.into();
        }
        if !evaluation.needs_store(&plan) {
            return Decision::Allow(AsyncPermit::uncounted());
        }
        if evaluation.needs_approval() {
            // Boxed to keep the futures of all other calls small.
            return Box::pin(self.decide_asking_async(&in_force, &evaluation, &plan)).await;
        }
        let request = evaluation.request(ReservationId::next(), &plan);
        let outcome = self.0.parts.store.reserve(&request).await;
        let id = request.id;
        match evaluation.answered(&plan, outcome) {
            Ok(Some(tallies)) => {
                let reservation = Reservation::new(in_force as _, id, plan, tallies);
                Decision::Allow(AsyncPermit::counted(reservation))
            }
            Ok(None) => Decision::Allow(AsyncPermit::uncounted()),
            Err(refused) => refused.into(),
        }
    }

    /// Forgets what a caller has used of a counter, as [`Gate::reset_counter`] does.
    ///
    /// # Errors
    /// As for `Gate::reset_counter`.
    pub async fn reset_counter<'c>(
        &self,
        counter: &str,
        caller: impl Into<ToolCall<'c>>,
        by: &str,
    ) -> Result<bool, StoreError> {
        self.reset_in(&self.0.parts.store, counter, &caller.into(), by).await
    }
}

impl<S, A: ?Sized> Gate<S, A> {
    /// Returns the policy in force.
    pub fn policy(&self) -> Option<Policy> {
        self.0.in_force.load().own().policy.clone()
    }

    /// Prepares a caller for the policy in force: works out the subjects of its counters now, for
    /// the scopes (up to 16 different ones) that depend on the caller alone. Under another policy
    /// or at another gate, its calls are decided in the same way as those of any caller; they only
    /// lose the benefit until the caller is prepared again. O(counters of the policy).
    pub fn caller(&self, caller: Caller) -> Caller {
        let copies = self.0.in_force.load();
        let policy = copies.own().policy.as_ref();
        caller.ready_for(policy.into_iter().flat_map(Policy::own_scopes))
    }

    /// Puts another policy in force, or none, and returns the former one. A call that is being
    /// decided keeps the policy with which it began. The counters stay: a counter with the same
    /// name, window, scope and algorithm continues from its current state.
    pub fn replace_policy(&self, policy: impl Into<Option<Policy>>) -> Option<Policy> {
        let policy = policy.into();
        let put = policy.clone();
        let former = self.replace(|_, shadow| (policy, shadow)).own().policy.clone();
        if put.is_some() || former.is_some() {
            self.0.parts.note_policy(put.as_ref(), former.as_ref());
        }
        former
    }

    /// Replaces the policy or the shadow, and returns what was in force.
    fn replace(
        &self,
        by: impl FnOnce(Option<Policy>, Option<Arc<ShadowRun>>) -> (Option<Policy>, Option<Arc<ShadowRun>>),
    ) -> Arc<PerThread<S, A>> {
        let Inner { in_force, replacing, parts } = &*self.0;
        let _replacing = replacing.lock();
        let former = in_force.load_full();
        let InForce { policy, shadow, .. } = &**former.own();
        let (policy, shadow) = by(policy.clone(), shadow.clone());
        in_force.store(Arc::new(PerThread::new(policy.as_ref(), shadow.as_ref(), parts)));
        former
    }

    /// Returns the store of the counters.
    pub fn store(&self) -> &S {
        &self.0.parts.store
    }

    /// Returns the store of the approvals.
    pub fn approvals(&self) -> &A {
        &self.0.parts.approvals
    }

    /// Returns another gate over the same counters and clock, with its own policy in force.
    pub(crate) fn beside(&self, policy: Option<&Policy>) -> Self {
        Self::of(policy, Arc::clone(&self.0.parts))
    }

    fn of(policy: Option<&Policy>, parts: Arc<Parts<S, A>>) -> Self {
        let in_force = ArcSwap::from_pointee(PerThread::new(policy, None, &parts));
        Self(Arc::new(Inner { in_force, replacing: Mutex::new(()), parts }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    fn in_force(&self) -> Arc<InForce<S, A>> {
        Arc::clone(self.0.in_force.load().own())
    }

    async fn reset_in(
        &self,
        store: &impl AsyncCounterStore,
        counter: &str,
        caller: &ToolCall<'_>,
        by: &str,
    ) -> Result<bool, StoreError> {
        let Some((counters, subject)) = self.counted_as(counter, caller) else { return Ok(false) };
        // Recorded first: a second budget that nobody sees cannot be taken back.
        self.note_reset(counter, caller, by, None).map_err(StoreError::unavailable)?;
        for each in counters {
            if let Err(error) = store.reset(each, &subject).await {
                let _ = self.note_reset(counter, caller, by, Some(&error));
                return Err(error);
            }
        }
        Ok(true)
    }

    fn counted_as(&self, counter: &str, call: &ToolCall<'_>) -> Option<(Vec<CounterId>, Subject)> {
        self.policy()?.counted_as(counter, call, self.now())
    }
}

impl<S, A: ?Sized> Clone for Gate<S, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, A: ?Sized> fmt::Debug for Gate<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("policy", &self.0.in_force.load().own().policy).finish_non_exhaustive()
    }
}
