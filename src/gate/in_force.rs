//! The policy in force, and the parts of a gate that stay when it is replaced.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::shadow::{Ledger, OnDifference};
use crate::approval::signed::ApprovalKeys;
use crate::approval::{ApprovalError, ApprovalStore, AsyncApprovalStore, Claim};
use crate::audit::Recorder;
use crate::decision::permit::{AsyncPermitBackend, IssuedUnder, PermitBackend};
use crate::policy::Policy;
use crate::store::{AsyncCounterStore, CounterStore, InProcess, SettleRequest, StoreError, StoreFuture};
use crate::time::{Clock, Timestamp};

/// One copy of what is in force for each thread that can run at once. Every permit holds a
/// reference to its copy; one reference count shared by all threads would move between their caches
/// at each call, which took four times as long as the rest of a decision.
pub(super) struct PerThread<S> {
    first: Arc<InForce<S>>,
    others: Box<[Arc<InForce<S>>]>,
}

impl<S> PerThread<S> {
    pub(super) fn new(policy: Option<&Policy>, shadow: Option<&Arc<ShadowRun>>, parts: &Arc<Parts<S>>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(64);
        let copy = || Arc::new(InForce::new(policy, shadow, parts));
        Self { first: copy(), others: (1..threads).map(|_| copy()).collect() }
    }

    /// Returns the copy of the current thread.
    pub(super) fn own(&self) -> &Arc<InForce<S>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        let turn = THREAD.with(|thread| thread % (1 + self.others.len()));
        self.others.get(turn).unwrap_or(&self.first)
    }
}

/// Everything that decides a call. A decision loads it once, and a permit keeps it. Aligned to
/// cache lines of its own because of its reference count.
#[repr(align(128))]
pub(super) struct InForce<S> {
    pub(super) policy: Option<Policy>,
    /// `true` if decisions are recorded or compared with those of a candidate.
    pub(super) is_watched: bool,
    pub(super) shadow: Option<Arc<ShadowRun>>,
    pub(super) parts: Arc<Parts<S>>,
}

impl<S> InForce<S> {
    pub(super) fn new(policy: Option<&Policy>, shadow: Option<&Arc<ShadowRun>>, parts: &Arc<Parts<S>>) -> Self {
        let is_watched = parts.recorder.keeps() || shadow.is_some();
        Self { policy: policy.cloned(), is_watched, shadow: shadow.cloned(), parts: Arc::clone(parts) }
    }
}

/// The parts that stay when the policy is replaced.
pub(super) struct Parts<S> {
    pub(super) store: S,
    pub(super) approvals: Approvals,
    /// The keys of signed approvals.
    pub(super) keys: Option<ApprovalKeys>,
    pub(super) clock: Arc<dyn Clock>,
    /// The counters whose limits let a call pass if the store fails.
    pub(super) pass_uncounted: Box<[Box<str>]>,
    pub(super) recorder: Recorder,
}

/// The store of approvals.
pub(super) enum Approvals {
    Local(InProcess<Box<dyn ApprovalStore>>),
    Remote(Box<dyn AsyncApprovalStore>),
}

impl Approvals {
    pub(super) fn local(store: impl ApprovalStore + 'static) -> Self {
        Self::Local(InProcess(Box::new(store)))
    }

    /// Returns the store if it is in the process: for verbs that do not wait.
    pub(super) fn in_process(&self) -> Result<&InProcess<Box<dyn ApprovalStore>>, ApprovalError> {
        match self {
            Self::Local(store) => Ok(store),
            Self::Remote(_) => Err(ApprovalError::AsyncOnly),
        }
    }

    /// Returns the store, wherever it is: for verbs that wait.
    pub(super) fn anywhere(&self) -> &dyn AsyncApprovalStore {
        match self {
            Self::Local(store) => store,
            Self::Remote(store) => store,
        }
    }
}

/// A candidate that runs in the shadow of the policy in force.
pub(super) struct ShadowRun {
    pub(super) candidate: Arc<InForce<Arc<dyn CounterStore>>>,
    pub(super) on_difference: Option<Box<OnDifference>>,
    pub(super) ledger: Ledger,
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
        self.parts.approvals.in_process()?.0.restore(claim, self.parts.clock.now()).map(drop)
    }
}

impl<S: AsyncCounterStore> AsyncPermitBackend for InForce<S> {
    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        self.parts.store.settle(request)
    }

    fn restore<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, bool, ApprovalError> {
        self.parts.approvals.anywhere().restore(claim, self.parts.clock.now())
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        self.parts.store.abandon(request);
    }
}
