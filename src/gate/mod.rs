//! The hall that joins policy and store: it decides.

mod approval;
mod evaluation;
mod known_approval;
mod observe;
mod preview;
pub mod shadow;

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::approval::signed::ApprovalKeys;
use crate::approval::{
    Answer as ApprovalAnswer, ApprovalError, ApprovalStore, AsyncApprovalStore, Claim, MemoryApprovals,
};
use crate::audit::{AuditError, AuditRecord, AuditSink, Recorder};
use crate::call::Caller;
use crate::call::ToolCall;
use crate::charge::{CounterId, Subject};
use crate::decision::Decision;
use crate::decision::permit::{AsyncPermit, AsyncPermitBackend, IssuedUnder, Permit, PermitBackend, Reservation};
use crate::policy::{Plan, Policy};
use crate::store::{Answer, AsyncCounterStore, CounterStore, MemoryStore, ReservationId, SettleRequest, StoreError};
use crate::time::{Clock, SystemClock, Timestamp};
use approval::{Approvals, PresentedApproval};
use evaluation::deny_without_policy;
use shadow::ShadowRun;

pub use preview::FirstRefusal;

#[cfg(feature = "replay")]
pub(crate) use known_approval::KnownApproval;

/// The policy decision point: a policy in force, the counters, a clock. Cheap to clone; clones are one gate.
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
pub struct Gate<S = MemoryStore>(Arc<Inner<S>>);

struct Inner<S> {
    in_force: ArcSwap<PerThread<S>>,
    /// Reservation while another policy is put in force, or another trial on, so that neither undoes the other.
    replacing: Mutex<()>,
    parts: Arc<Parts<S>>,
}

/// One thing in force, as often as threads run at once: every permit keeps hold of it, and a count of holders that all threads
/// share would be passed around between them at each call, which took four times as long as the rest of a decision.
struct PerThread<S> {
    first: Arc<InForce<S>>,
    others: Box<[Arc<InForce<S>>]>,
}

/// What decides a call, whole: a decision takes hold of it once, and a permit keeps it. On cache lines of its own, for the
/// count's sake.
#[repr(align(128))]
struct InForce<S> {
    policy: Option<Policy>,
    /// Whether decisions are recorded, or a candidate looks at them.
    is_watched: bool,
    trial: Option<Arc<ShadowRun>>,
    parts: Arc<Parts<S>>,
}

impl<S> InForce<S> {
    fn new(policy: Option<&Policy>, trial: Option<&Arc<ShadowRun>>, parts: &Arc<Parts<S>>) -> Self {
        let is_watched = parts.recorder.keeps() || trial.is_some();
        Self { policy: policy.cloned(), is_watched, trial: trial.cloned(), parts: Arc::clone(parts) }
    }
}

/// What stays when the policy is replaced.
struct Parts<S> {
    store: S,
    approvals: Approvals,
    /// What signed approvals are believed by.
    keys: Option<ApprovalKeys>,
    clock: Arc<dyn Clock>,
    /// The counters whose limits let a call pass when the store fails.
    pass_uncounted: Box<[Box<str>]>,
    recorder: Recorder,
}

impl<S> PerThread<S> {
    fn new(policy: Option<&Policy>, trial: Option<&Arc<ShadowRun>>, parts: &Arc<Parts<S>>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(64);
        let copy = || Arc::new(InForce::new(policy, trial, parts));
        Self { first: copy(), others: (1..threads).map(|_| copy()).collect() }
    }

    /// The copy that the present thread takes hold of.
    #[inline]
    fn own(&self) -> &Arc<InForce<S>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        let turn = THREAD.with(|thread| thread % (1 + self.others.len()));
        self.others.get(turn).unwrap_or(&self.first)
    }
}

impl<S> IssuedUnder for InForce<S> {
    fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

impl<S: CounterStore> PermitBackend for InForce<S> {
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.parts.store.settle(request)
    }

    fn restore(&self, claim: &Claim) -> Result<(), ApprovalError> {
        self.parts.approvals.here()?.restore(claim, self.parts.clock.now()).map(drop)
    }
}

impl<S: AsyncCounterStore> AsyncPermitBackend for InForce<S> {
    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> Answer<'a, ()> {
        self.parts.store.settle(request)
    }

    fn restore<'a>(&'a self, claim: &'a Claim) -> ApprovalAnswer<'a, bool> {
        self.parts.approvals.anywhere().restore(claim, self.parts.clock.now())
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        self.parts.store.abandon(request);
    }
}

/// Puts a [`Gate`] together from parts other than the default ones.
///
/// ```
/// use toolgate::store::MemoryStore;
/// use toolgate::{Gate, ManualClock, Timestamp};
///
/// let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
/// let gate = Gate::builder().store(MemoryStore::with_capacity(10_000)).clock(clock.clone()).build();
/// assert!(gate.policy().is_none(), "a gate without a policy denies every call");
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct GateBuilder<S = MemoryStore> {
    policy: Option<Policy>,
    store: S,
    approvals: Approvals,
    keys: Option<ApprovalKeys>,
    clock: Arc<dyn Clock>,
    pass_uncounted: Vec<Box<str>>,
    recorder: Recorder,
}

impl Gate {
    /// A gate with counters in memory and the system's clock.
    pub fn new(policy: Policy) -> Self {
        Self::builder().policy(policy).build()
    }

    /// A gate from chosen parts. Without a policy it denies every call, `no_policy`.
    pub fn builder() -> GateBuilder {
        let (store, clock) = (MemoryStore::new(), Arc::new(SystemClock));
        let approvals = Approvals::here_in(MemoryApprovals::new());
        let (pass_uncounted, recorder) = (Vec::new(), Recorder::default());
        GateBuilder { policy: None, store, approvals, keys: None, clock, pass_uncounted, recorder }
    }
}

impl<S> GateBuilder<S> {
    /// The policy in force from the start.
    pub fn policy(self, policy: impl Into<Option<Policy>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// The counters: a [`CounterStore`] for [`Gate::check`], an [`AsyncCounterStore`] for [`Gate::check_async`]. Gates that
    /// share a store need policies with [namespaces](Policy::with_namespace). A host that chooses when it starts has one type in
    /// `Arc<dyn AsyncCounterStore>`, with [`InProcess`](crate::store::InProcess) around counters in memory.
    pub fn store<T>(self, store: T) -> GateBuilder<T> {
        let Self { policy, approvals, keys, clock, pass_uncounted, recorder, .. } = self;
        GateBuilder { policy, store, approvals, keys, clock, pass_uncounted, recorder }
    }

    /// The approvals; [in memory](MemoryApprovals) without it. Gates may share a store.
    pub fn approvals(self, approvals: impl ApprovalStore + 'static) -> Self {
        Self { approvals: Approvals::here_in(approvals), ..self }
    }

    /// The approvals, across a network, for [`Gate::check_async`], [`Gate::approve_async`] and the other verbs that end so. A
    /// verb that does not wait cannot ask them: [`Gate::check`] denies a call that needs an approval, `store_unavailable`,
    /// with [`ApprovalError::AsyncOnly`] as the cause. (Counters in memory serve there too, as
    /// [`InProcess`](crate::store::InProcess).)
    pub fn approvals_async(self, approvals: impl AsyncApprovalStore + 'static) -> Self {
        Self { approvals: Approvals::Remote(Box::new(approvals)), ..self }
    }

    /// The keys by which [`Gate::check_signed`] believes approvals that were [signed](crate::approval::signed) elsewhere; none, if
    /// nothing is said.
    pub fn approval_keys(self, keys: impl Into<Option<ApprovalKeys>>) -> Self {
        Self { keys: keys.into(), ..self }
    }

    /// The clock.
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Lets calls pass uncounted when the store fails, as far as the limits of this counter are concerned: for a limit whose loss
    /// is worth less than the calls. Without it, and for every limit of another counter, a call that cannot be
    /// counted is denied, `store_unavailable`.
    pub fn pass_uncounted(mut self, counter: &str) -> Self {
        self.pass_uncounted.push(counter.into());
        self
    }

    /// Where the gate records what it decides, what becomes of it, and what people say: [`audit`](crate::audit). All gates of
    /// [`Grants`](crate::Grants) share it. A sink is called by [`Gate::check`] itself, and may take the time that it takes.
    pub fn audit(mut self, sink: impl AuditSink + 'static) -> Self {
        self.recorder.sink = Some(Box::new(sink));
        self
    }

    /// Has records hold the arguments and the context of each call, so that it can be [decided again](AuditRecord::call).
    /// Logs are read by more people than calls.
    pub fn audit_arguments(mut self) -> Self {
        self.recorder.with_arguments = true;
        self
    }

    /// Denies a call that would be allowed, `audit_unavailable`, if that cannot be recorded; what it was charged, and the
    /// approval that it has used, are given back. Without a sink no call is allowed. (The log may hold the record all the same, if its
    /// writer failed afterwards.)
    pub fn require_audit(mut self) -> Self {
        self.recorder.is_required = true;
        self
    }

    /// Hears of each record that could not be kept. It is called where the record was made, also when a permit is dropped: it
    /// must not panic.
    pub fn on_audit_error(mut self, hear: impl Fn(&AuditRecord, &AuditError) + Send + Sync + 'static) -> Self {
        self.recorder.on_error = Some(Box::new(hear));
        self
    }

    /// The gate.
    pub fn build(self) -> Gate<S> {
        let Self { policy, store, approvals, keys, clock, pass_uncounted, recorder } = self;
        let pass_uncounted = pass_uncounted.into();
        let parts = Arc::new(Parts { store, approvals, keys, clock, pass_uncounted, recorder });
        if policy.is_some() {
            parts.note_policy(policy.as_ref(), None);
        }
        Gate::of(policy.as_ref(), parts)
    }
}

impl<S: CounterStore + 'static> Gate<S> {
    /// Decides a call. If it is allowed, its quota is spent.
    ///
    /// Never fails, never blocks on I/O with a store in the process, and for an allowed call allocates nothing, unless a
    /// caller is counted for the first time, more than four counters are charged, or a part of a key is long. (The queue of a
    /// sliding window, or of the calls in flight, grows to the longest that it has been.) A call that needs an approval takes some
    /// microseconds more: it uses one that was given for it, or asks for one. A decision that is [recorded](GateBuilder::audit)
    /// takes the time of its sink.
    pub fn check(&self, call: &ToolCall<'_>) -> Decision {
        self.decide(call, PresentedApproval::Any)
    }

    #[inline(always)]
    fn decide(&self, call: &ToolCall<'_>, presented: PresentedApproval<'_>) -> Decision {
        let copies = self.0.in_force.load();
        let in_force = copies.own();
        if in_force.is_watched() {
            return self.decide_watched(in_force, call, presented);
        }
        self.decide_at(None, in_force, call, presented)
    }

    /// Decides a call at an instant; at the present one, which is asked for only where something depends on it.
    #[inline(always)]
    fn decide_at(
        &self,
        now: Option<Timestamp>,
        in_force: &Arc<InForce<S>>,
        call: &ToolCall<'_>,
        presented: PresentedApproval<'_>,
    ) -> Decision {
        let Some(policy) = &in_force.policy else { return deny_without_policy(call).into() };
        let mut evaluation = in_force.evaluation(policy, call);
        evaluation.judge(now);
        let mut plan = Plan::default();
        if let Err(refused) = evaluation.cost(&mut plan) {
            return refused.into();
        }
        if !evaluation.asks(&plan) {
            return Decision::Allow(Permit::uncounted());
        }
        if evaluation.needs_approval() {
            return self.decide_asking(in_force, &evaluation, &plan, presented);
        }
        let request = evaluation.request(ReservationId::next(), &plan);
        let outcome = self.0.parts.store.reserve(&request);
        let id = request.id;
        match evaluation.answered(&plan, outcome) {
            Ok(Some(tallies)) => Decision::Allow(Permit::counted(Reservation {
                backend: in_force.clone(),
                id,
                plan,
                tallies,
                claim: None,
            })),
            Ok(None) => Decision::Allow(Permit::uncounted()),
            Err(refused) => refused.into(),
        }
    }

    /// Forgets what the caller of `call` has used of a counter, after a clock that ran years ahead, say. Says whether the
    /// policy has such a counter and the call all parts of its scope.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub fn reset_counter(&self, counter: &str, call: &ToolCall<'_>) -> Result<bool, StoreError> {
        let Some((counters, subject)) = self.counted_as(counter, call) else { return Ok(false) };
        counters.into_iter().try_for_each(|counter| self.0.parts.store.reset(counter, &subject)).map(|()| true)
    }
}

impl<S: AsyncCounterStore + 'static> Gate<S> {
    /// Decides a call, with counters across a network: one round trip, whatever the number of limits; none for a call that no
    /// limit applies to, and one more for a call that needs an approval, besides those of the store of approvals. If it is allowed,
    /// its quota is spent.
    ///
    /// Who drops the future before it is ready gets no permit, and the store may have heard of the call all the same: what was
    /// charged, and an approval that was used, stay spent, and what is in flight is free when its lease ends. Where callers give
    /// up, decide in a task of its own.
    pub async fn check_async(&self, call: &ToolCall<'_>) -> Decision<AsyncPermit> {
        self.decide_async(call, PresentedApproval::Any).await
    }

    async fn decide_async(&self, call: &ToolCall<'_>, presented: PresentedApproval<'_>) -> Decision<AsyncPermit> {
        let in_force = self.in_force();
        if in_force.is_watched() {
            // In a box, so that the futures of all other calls stay small.
            return Box::pin(self.decide_watched_async(in_force, call, presented)).await;
        }
        self.decide_at_async(None, in_force, call, presented).await
    }

    async fn decide_at_async(
        &self,
        now: Option<Timestamp>,
        in_force: Arc<InForce<S>>,
        call: &ToolCall<'_>,
        presented: PresentedApproval<'_>,
    ) -> Decision<AsyncPermit> {
        let Some(policy) = &in_force.policy else { return deny_without_policy(call).into() };
        let mut evaluation = in_force.evaluation(policy, call);
        evaluation.judge(now);
        let mut plan = Plan::default();
        if let Err(refused) = evaluation.cost(&mut plan) {
            return refused.into();
        }
        if !evaluation.asks(&plan) {
            return Decision::Allow(AsyncPermit::uncounted());
        }
        if evaluation.needs_approval() {
            // In a box, so that the futures of all other calls stay small.
            return Box::pin(self.decide_asking_async(Arc::clone(&in_force), &evaluation, &plan, presented)).await;
        }
        let request = evaluation.request(ReservationId::next(), &plan);
        let outcome = self.0.parts.store.reserve(&request).await;
        let id = request.id;
        match evaluation.answered(&plan, outcome) {
            Ok(Some(tallies)) => {
                Decision::Allow(AsyncPermit::counted(Reservation { backend: in_force, id, plan, tallies, claim: None }))
            }
            Ok(None) => Decision::Allow(AsyncPermit::uncounted()),
            Err(refused) => refused.into(),
        }
    }

    /// Forgets what the caller of `call` has used of a counter, as [`Gate::reset_counter`] does.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn reset_counter_async(&self, counter: &str, call: &ToolCall<'_>) -> Result<bool, StoreError> {
        let Some((counters, subject)) = self.counted_as(counter, call) else { return Ok(false) };
        for counter in counters {
            self.0.parts.store.reset(counter, &subject).await?;
        }
        Ok(true)
    }
}

impl<S> Gate<S> {
    /// The policy in force.
    pub fn policy(&self) -> Option<Policy> {
        self.0.in_force.load().own().policy.clone()
    }

    /// Makes a caller ready for the policy in force: whom its counters count is worked out now, for those scopes (up to 16
    /// different ones) that hang on the caller alone. Under another policy, and of another gate, its calls are decided the same, as
    /// those of any caller; only what was made ready serves no longer, until this is done again. O(counters of the policy).
    pub fn caller(&self, caller: Caller) -> Caller {
        let copies = self.0.in_force.load();
        let policy = copies.own().policy.as_ref();
        caller.ready_for(policy.into_iter().flat_map(Policy::own_scopes))
    }

    /// Puts another policy in force, or none, and gives back the former one. Calls that are being decided go on with the
    /// policy that they began with. The counters stay: one with the same name, window, scope and algorithm goes on where it
    /// stood.
    pub fn replace_policy(&self, policy: impl Into<Option<Policy>>) -> Option<Policy> {
        let policy = policy.into();
        let put = policy.clone();
        let former = self.replace(|_, trial| (policy, trial)).own().policy.clone();
        if put.is_some() || former.is_some() {
            self.0.parts.note_policy(put.as_ref(), former.as_ref());
        }
        former
    }

    /// Puts another policy in force, or another trial on. Gives back what was in force.
    fn replace(
        &self,
        by: impl FnOnce(Option<Policy>, Option<Arc<ShadowRun>>) -> (Option<Policy>, Option<Arc<ShadowRun>>),
    ) -> Arc<PerThread<S>> {
        let Inner { in_force, replacing, parts } = &*self.0;
        let _replacing = replacing.lock();
        let former = in_force.load_full();
        let InForce { policy, trial, .. } = &**former.own();
        let (policy, trial) = by(policy.clone(), trial.clone());
        in_force.store(Arc::new(PerThread::new(policy.as_ref(), trial.as_ref(), parts)));
        former
    }

    /// The counters.
    pub fn store(&self) -> &S {
        &self.0.parts.store
    }

    /// Another gate over the same counters and clock, with a policy of its own in force.
    pub(crate) fn beside(&self, policy: Option<&Policy>) -> Self {
        Self::of(policy, Arc::clone(&self.0.parts))
    }

    fn of(policy: Option<&Policy>, parts: Arc<Parts<S>>) -> Self {
        let in_force = ArcSwap::from_pointee(PerThread::new(policy, None, &parts));
        Self(Arc::new(Inner { in_force, replacing: Mutex::new(()), parts }))
    }

    /// The store that counts.
    #[cfg(feature = "analysis")]
    pub(crate) fn counters(&self) -> &S {
        &self.0.parts.store
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    fn in_force(&self) -> Arc<InForce<S>> {
        Arc::clone(self.0.in_force.load().own())
    }

    fn counted_as(&self, counter: &str, call: &ToolCall<'_>) -> Option<(Vec<CounterId>, Subject)> {
        self.policy()?.counted_as(counter, call, self.0.parts.clock.now())
    }
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Gate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("policy", &self.0.in_force.load().own().policy).finish_non_exhaustive()
    }
}
