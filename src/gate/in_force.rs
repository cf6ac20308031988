//! The policy in force, and the parts of a gate that stay when it is replaced.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::shadow::{Ledger, OnDifference};
use crate::approval::signed::ApprovalKeys;
use crate::approval::{ApprovalError, ApprovalStore, AsyncApprovalStore, Claim};
use crate::audit::Recorder;
use crate::decision::reservation::{AsyncPermitBackend, IssuedUnder, PermitBackend};
use crate::policy::Policy;
use crate::store::{AsyncCounterStore, CounterStore, SettleRequest, StoreError, StoreFuture};
use crate::time::{Clock, Timestamp};

/// One copy of what is in force for each thread that can run at once. Every permit holds a
/// reference to its copy; one reference count shared by all threads would move between their caches
/// at each call, which took four times as long as the rest of a decision.
pub(super) struct PerThread<S, A: ?Sized> {
    first: Arc<InForce<S, A>>,
    others: Box<[Arc<InForce<S, A>>]>,
}

impl<S, A: ?Sized> PerThread<S, A> {
    pub(super) fn new(policy: Option<&Policy>, shadow: Option<&Arc<ShadowRun>>, parts: &Arc<Parts<S, A>>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(64);
        let copy = || Arc::new(InForce::new(policy, shadow, parts));
        Self { first: copy(), others: (1..threads).map(|_| copy()).collect() }
    }

    /// Returns the copy of the current thread.
    pub(super) fn own(&self) -> &Arc<InForce<S, A>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        let turn = THREAD.with(|thread| thread % (1 + self.others.len()));
        self.others.get(turn).unwrap_or(&self.first)
    }
}

/// Everything that decides a call. A decision loads it once, and a permit keeps it. Aligned to
/// cache lines of its own because of its reference count.
#[repr(align(128))]
pub(super) struct InForce<S, A: ?Sized> {
    pub(super) policy: Option<Policy>,
    /// `true` if decisions are recorded or compared with those of a candidate.
    pub(super) is_watched: bool,
    pub(super) shadow: Option<Arc<ShadowRun>>,
    pub(super) parts: Arc<Parts<S, A>>,
}

impl<S, A: ?Sized> InForce<S, A> {
    pub(super) fn new(policy: Option<&Policy>, shadow: Option<&Arc<ShadowRun>>, parts: &Arc<Parts<S, A>>) -> Self {
        let is_watched = parts.recorder.keeps() || shadow.is_some();
        Self { policy: policy.cloned(), is_watched, shadow: shadow.cloned(), parts: Arc::clone(parts) }
    }
}

/// The parts that stay when the policy is replaced.
pub(super) struct Parts<S, A: ?Sized> {
    pub(super) store: S,
    pub(super) approvals: Box<A>,
    /// People may approve what they are not shown in full.
    pub(super) approve_unseen: bool,
    /// The keys of signed approvals.
    pub(super) keys: Option<ApprovalKeys>,
    pub(super) clock: Arc<dyn Clock>,
    /// The counters whose limits let a call pass if the store fails.
    pub(super) pass_uncounted: Box<[Box<str>]>,
    pub(super) recorder: Recorder,
}

/// A candidate that runs in the shadow of the policy in force.
pub(super) struct ShadowRun {
    pub(super) candidate: Arc<InForce<Arc<dyn CounterStore>, dyn ApprovalStore>>,
    pub(super) on_difference: Option<Box<OnDifference>>,
    pub(super) ledger: Ledger,
}

impl<S, A: ?Sized> IssuedUnder for InForce<S, A> {
    fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

impl<S: CounterStore> PermitBackend for InForce<S, dyn ApprovalStore> {
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.parts.store.settle(request)
    }

    fn restore(&self, claim: &Claim) -> Result<(), ApprovalError> {
        self.parts.approvals.restore(claim, self.parts.clock.now()).map(drop)
    }
}

impl<S: AsyncCounterStore> AsyncPermitBackend for InForce<S, dyn AsyncApprovalStore> {
    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        self.parts.store.settle(request)
    }

    fn restore<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, bool, ApprovalError> {
        self.parts.approvals.restore(claim, self.parts.clock.now())
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        self.parts.store.abandon(request);
    }
}
