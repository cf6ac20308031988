//! Gates from chosen parts.

use std::fmt;
use std::sync::Arc;

use super::in_force::Parts;
use super::{AsyncGate, Gate};
use crate::approval::signed::ApprovalKeys;
use crate::approval::{ApprovalStore, AsyncApprovalStore, MemoryApprovals};
use crate::audit::{AuditError, AuditRecord, AuditSink, Recorder};
use crate::policy::Policy;
use crate::store::{AsyncCounterStore, CounterStore, InProcess, MemoryStore};
use crate::time::{Clock, SystemClock};

/// Builds a [`Gate`] from chosen parts.
///
/// ```
/// use toolgate::store::MemoryStore;
/// use toolgate::{Gate, ManualClock, Timestamp};
///
/// let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
/// let gate = Gate::builder().store(MemoryStore::with_capacity(10_000)).clock(clock.clone()).build();
/// assert!(gate.policy().is_none(), "a gate without a policy denies every call");
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct GateBuilder<S = MemoryStore, A: ?Sized = dyn ApprovalStore> {
    policy: Option<Policy>,
    store: S,
    approvals: Box<A>,
    keys: Option<ApprovalKeys>,
    clock: Arc<dyn Clock>,
    pass_uncounted: Vec<Box<str>>,
    approve_unseen: bool,
    recorder: Recorder,
}

impl Gate {
    /// Creates a gate with counters in memory and the system's clock.
    pub fn new(policy: Policy) -> Self {
        Self::builder().policy(policy).build()
    }

    /// Starts a gate from chosen parts. Without a policy it denies every call, `no_policy`.
    pub fn builder() -> GateBuilder {
        let (store, approvals, clock) = (MemoryStore::new(), Box::new(MemoryApprovals::new()), Arc::new(SystemClock));
        let (pass_uncounted, recorder) = (Vec::new(), Recorder::default());
        let approve_unseen = false;
        GateBuilder { policy: None, store, approvals, keys: None, clock, pass_uncounted, approve_unseen, recorder }
    }
}

/// A gate with stores in the process.
impl<S> GateBuilder<S> {
    /// Sets the store of the counters. Gates that share a store need policies with
    /// [namespaces](Policy::with_namespace).
    pub fn store<T>(self, store: T) -> GateBuilder<T> {
        let Self { policy, approvals, keys, clock, pass_uncounted, approve_unseen, recorder, .. } = self;
        GateBuilder { policy, store, approvals, keys, clock, pass_uncounted, approve_unseen, recorder }
    }

    /// Sets a store of the counters across a network: the builder now makes an [`AsyncGate`].
    pub fn store_async<T>(self, store: T) -> GateBuilder<T, dyn AsyncApprovalStore> {
        let Self { policy, approvals, keys, clock, pass_uncounted, approve_unseen, recorder, .. } = self;
        let approvals = Box::new(InProcess(approvals));
        GateBuilder { policy, store, approvals, keys, clock, pass_uncounted, approve_unseen, recorder }
    }

    /// Sets the store of the approvals; the default is [in memory](MemoryApprovals). Gates may
    /// share one.
    pub fn approvals(self, approvals: impl ApprovalStore + 'static) -> Self {
        Self { approvals: Box::new(approvals), ..self }
    }

    /// Builds the gate.
    pub fn build(self) -> Gate<S>
    where
        S: CounterStore,
    {
        self.finish()
    }
}

/// A gate with stores across a network.
impl<S> GateBuilder<S, dyn AsyncApprovalStore> {
    /// Sets the store of the approvals; the default is [in memory](MemoryApprovals). Gates may
    /// share one.
    pub fn approvals(self, approvals: impl AsyncApprovalStore + 'static) -> Self {
        Self { approvals: Box::new(approvals), ..self }
    }

    /// Builds the gate.
    pub fn build(self) -> AsyncGate<S>
    where
        S: AsyncCounterStore,
    {
        self.finish()
    }
}

impl<S, A: ?Sized> GateBuilder<S, A> {
    /// Sets the policy in force from the start.
    pub fn policy(self, policy: impl Into<Option<Policy>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// Sets the keys that verify [signed](crate::ToolCall::signed) approvals. Without keys, none is
    /// accepted.
    #[cfg(feature = "signed")]
    pub fn approval_keys(self, keys: impl Into<Option<ApprovalKeys>>) -> Self {
        Self { keys: keys.into(), ..self }
    }

    /// Lets people approve requests that they are not [shown](crate::approval::Approval::is_shown)
    /// in full: the arguments are longer than the store keeps, or it keeps none. Without this such
    /// a request can only be refused, because the agent chooses how long its arguments are. Use it
    /// where people see the arguments in another way.
    pub fn approve_unseen(mut self) -> Self {
        self.approve_unseen = true;
        self
    }

    /// Sets the clock.
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Lets calls pass the limits of this counter uncounted if the store fails. Use it where losing
    /// the limit costs less than losing the calls. A call that another limit counts is still
    /// denied, `store_unavailable`.
    pub fn pass_uncounted(mut self, counter: &str) -> Self {
        self.pass_uncounted.push(counter.into());
        self
    }

    /// Sets the sink that [records](crate::audit) the gate's decisions, how allowed calls end, and
    /// people's answers. All gates of [`Grants`](crate::Grants) share it. [`Gate::check`] calls the
    /// sink itself and waits for it.
    pub fn audit(mut self, sink: impl AuditSink + 'static) -> Self {
        self.recorder.sink = Some(Box::new(sink));
        self
    }

    /// Records the arguments and the context of each call, so that it can be
    /// [decided again](AuditRecord::call). More people read logs than calls.
    pub fn audit_arguments(mut self) -> Self {
        self.recorder.with_arguments = true;
        self
    }

    /// Denies a call that would be allowed, `audit_unavailable`, if the decision cannot be
    /// recorded. Its charges and the approval that it used are given back. Without a sink no call
    /// is allowed. (The log may contain the record all the same if its writer failed afterwards.)
    pub fn require_audit(mut self) -> Self {
        self.recorder.is_required = true;
        self
    }

    /// Sets a callback for each record that could not be kept. It runs where the record was made,
    /// also when a permit is dropped: it must not panic.
    pub fn on_audit_error(mut self, callback: impl Fn(&AuditRecord, &AuditError) + Send + Sync + 'static) -> Self {
        self.recorder.on_error = Some(Box::new(callback));
        self
    }

    fn finish(self) -> Gate<S, A> {
        let Self { policy, store, approvals, keys, clock, pass_uncounted, approve_unseen, recorder } = self;
        let pass_uncounted = pass_uncounted.into();
        let parts = Arc::new(Parts { store, approvals, keys, clock, pass_uncounted, approve_unseen, recorder });
        if policy.is_some() {
            parts.note_policy(policy.as_ref(), None);
        }
        Gate::of(policy.as_ref(), parts)
    }
}

impl<S, A: ?Sized> fmt::Debug for GateBuilder<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateBuilder")
            .field("policy", &self.policy)
            .field("pass_uncounted", &self.pass_uncounted)
            .finish_non_exhaustive()
    }
}
