//! The hall that joins policy and store: it decides.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::amount::Amount;
use crate::call::ToolCall;
use crate::decision::{
    ApprovalRequest, Decision, Denial, Granter, Held, LimitState, Permit, RateLimited, Refusal, default_message,
};
use crate::limit::wait_millis;
use crate::policy::{Code, Effect, Evaluation, LimitRef, Plan, Policy, Uncountable};
use crate::store::{CounterStore, MemoryStore, Outcome, Reservation, ReservationId, Reserve, StoreError, Tallies};
use crate::time::{Clock, SystemClock, Timestamp};

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
    in_force: RwLock<Arc<InForce<S>>>,
    parts: Arc<Parts<S>>,
}

/// What decides a call, whole: a decision takes hold of it once, and a permit keeps it.
struct InForce<S> {
    policy: Option<Policy>,
    parts: Arc<Parts<S>>,
}

/// What stays when the policy is replaced.
struct Parts<S> {
    store: S,
    clock: Box<dyn Clock>,
    /// The next reservation's number, in the lower half of its id; the upper half is this gate's, drawn at random.
    next: AtomicU64,
    origin: u64,
}

impl<S: CounterStore> Granter for InForce<S> {
    fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    fn release(&self, reservation: Reservation) -> Result<(), StoreError> {
        self.parts.store.release(reservation)
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
    clock: Box<dyn Clock>,
}

impl Gate {
    /// A gate with counters in memory and the system's clock.
    pub fn new(policy: Policy) -> Self {
        Self::builder().policy(policy).build()
    }

    /// A gate from chosen parts. Without a policy it denies every call, `no_policy`.
    pub fn builder() -> GateBuilder {
        GateBuilder { policy: None, store: MemoryStore::new(), clock: Box::new(SystemClock) }
    }
}

impl<S: CounterStore> GateBuilder<S> {
    /// The policy in force from the start.
    pub fn policy(self, policy: impl Into<Option<Policy>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// The counters. Gates that share a store need policies with [namespaces](Policy::with_namespace).
    pub fn store<T: CounterStore>(self, store: T) -> GateBuilder<T> {
        GateBuilder { policy: self.policy, store, clock: self.clock }
    }

    /// The clock.
    pub fn clock(self, clock: impl Clock + 'static) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// The gate.
    pub fn build(self) -> Gate<S> {
        let Self { policy, store, clock } = self;
        let origin = RandomState::new().build_hasher().finish();
        let parts = Arc::new(Parts { store, clock, next: AtomicU64::new(0), origin });
        let in_force = RwLock::new(Arc::new(InForce { policy, parts: Arc::clone(&parts) }));
        Gate(Arc::new(Inner { in_force, parts }))
    }
}

impl<S: CounterStore + 'static> Gate<S> {
    /// Decides a call. If it is allowed, its quota is spent.
    ///
    /// Never fails, never blocks on I/O with a store in the process, and for an allowed call allocates nothing, unless a
    /// caller is counted for the first time, more than four limits apply, or a part of a key is long.
    pub fn check(&self, call: &ToolCall<'_>) -> Decision {
        let in_force = Arc::clone(&*self.0.in_force.read());
        let Some(policy) = &in_force.policy else { return deny_without_policy(call) };
        let now = if policy.reads_time() { self.0.parts.clock.now() } else { Timestamp::UNIX_EPOCH };
        let evaluation = policy.evaluate(call, now);
        if let Effect::Deny(code) = evaluation.effect() {
            return Decision::Deny(Denial(rule_refusal(policy, &evaluation, code, call)));
        }
        let mut plan = Plan::default();
        if let Err(uncountable) = evaluation.plan(call, now, &mut plan) {
            return deny_uncountable(policy, &uncountable, call);
        }
        if plan.charges.is_empty() {
            return match evaluation.effect() {
                Effect::RequireApproval => require_approval(policy, &evaluation, Vec::new(), call),
                _ => Decision::Allow(Permit(None)),
            };
        }
        let store = &self.0.parts.store;
        let request = Reserve::new(self.next_id(), now, &plan.charges);
        let approval = evaluation.effect() == Effect::RequireApproval;
        let outcome = if approval { store.peek(&request) } else { store.reserve(&request) };
        match outcome {
            // A store that leaves a counter out cannot be believed.
            Ok(outcome) if outcome.tallies().len() != plan.charges.len() => {
                deny_without_store(policy, &evaluation, &plan.limits, call)
            }
            Ok(Outcome::Granted(tallies)) if approval => {
                let limits = LimitState::all(policy, &plan.limits, &tallies);
                require_approval(policy, &evaluation, limits, call)
            }
            Ok(Outcome::Granted(tallies)) => {
                let id = request.id;
                Decision::Allow(Permit(Some(Held { granter: in_force, id, plan, tallies })))
            }
            Ok(Outcome::Refused(tallies)) => rate_limit(policy, &plan.limits, &request, &tallies, call),
            Err(_) => deny_without_store(policy, &evaluation, &plan.limits, call),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<Policy> {
        self.0.in_force.read().policy.clone()
    }

    /// Puts another policy in force, or none, and gives back the former one. Calls that are being decided go on with the
    /// policy that they began with. The counters stay: one with the same name, window, scope and algorithm goes on where it
    /// stood.
    pub fn replace_policy(&self, policy: impl Into<Option<Policy>>) -> Option<Policy> {
        let next = Arc::new(InForce { policy: policy.into(), parts: Arc::clone(&self.0.parts) });
        let former = std::mem::replace(&mut *self.0.in_force.write(), next);
        former.policy.clone()
    }

    /// The counters.
    pub fn store(&self) -> &S {
        &self.0.parts.store
    }

    /// Forgets what the caller of `call` has used of a counter, after a clock that ran years ahead, say. Says whether the
    /// policy has such a counter and the call all parts of its scope.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub fn reset_counter(&self, counter: &str, call: &ToolCall<'_>) -> Result<bool, StoreError> {
        let now = self.0.parts.clock.now();
        let Some(policy) = self.policy() else { return Ok(false) };
        let Some((counter, subject)) = policy.counted_as(counter, call, now) else { return Ok(false) };
        self.0.parts.store.reset(counter, &subject).map(|()| true)
    }

    fn next_id(&self) -> ReservationId {
        let number = self.0.parts.next.fetch_add(1, Ordering::Relaxed);
        ReservationId::new(u128::from(self.0.parts.origin) << 64 | u128::from(number))
    }
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Gate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("policy", &self.0.in_force.read().policy).finish_non_exhaustive()
    }
}

fn deny_without_policy(call: &ToolCall<'_>) -> Decision {
    // What cannot be read is said first, with a policy and without.
    let (code, rule) = match call.is_malformed() {
        true => (Code::MalformedCall, None),
        false => (Code::NoPolicy, Some("(no policy)".into())),
    };
    let message = default_message(code, call.tool()).into();
    Decision::Deny(Denial(Refusal { code, rule, message, policy: None }))
}

/// What a rule says to a call that it stops.
fn rule_refusal(policy: &Policy, evaluation: &Evaluation<'_>, code: Code, call: &ToolCall<'_>) -> Refusal {
    let message = evaluation.message().map_or_else(|| default_message(code, call.tool()).into(), Into::into);
    Refusal { code, rule: evaluation.rule(), message, policy: Some(policy.digest()) }
}

/// What a limit says to a call that it stops; its own text is for one that it has no room for.
fn limit_refusal(policy: &Policy, limit: LimitRef, code: Code, call: &ToolCall<'_>) -> Refusal {
    let own = policy.limit(limit).and_then(|limit| limit.on_exceed.clone()).filter(|_| code == Code::Limit);
    let message = own.unwrap_or_else(|| default_message(code, call.tool()).into());
    Refusal { code, rule: Some(policy.limit_pointer(limit).into()), message, policy: Some(policy.digest()) }
}

fn deny_uncountable(policy: &Policy, uncountable: &Uncountable, call: &ToolCall<'_>) -> Decision {
    Decision::Deny(Denial(limit_refusal(policy, uncountable.limit, uncountable.code, call)))
}

fn require_approval(
    policy: &Policy,
    evaluation: &Evaluation<'_>,
    limits: Vec<LimitState>,
    call: &ToolCall<'_>,
) -> Decision {
    let refusal = rule_refusal(policy, evaluation, Code::Approval, call);
    Decision::RequireApproval(ApprovalRequest { refusal, limits })
}

/// The store cannot tell. A call that some limit could refuse is denied; shadow limits alone refuse nothing, so a call that
/// only they would count passes uncounted.
fn deny_without_store(
    policy: &Policy,
    evaluation: &Evaluation<'_>,
    limits: &[LimitRef],
    call: &ToolCall<'_>,
) -> Decision {
    let refuses = |found: &&LimitRef| policy.limit(**found).is_some_and(|limit| !limit.shadow);
    match (limits.iter().find(refuses), evaluation.effect()) {
        (Some(limit), _) => Decision::Deny(Denial(limit_refusal(policy, *limit, Code::StoreUnavailable, call))),
        (None, Effect::RequireApproval) => require_approval(policy, evaluation, Vec::new(), call),
        (None, _) => Decision::Allow(Permit(None)),
    }
}

/// Names the first limit without room, and works out how long the call has to wait for all that have none.
fn rate_limit(
    policy: &Policy,
    limits: &[LimitRef],
    request: &Reserve<'_>,
    tallies: &Tallies,
    call: &ToolCall<'_>,
) -> Decision {
    let mut first = None;
    let mut wait = Some(0);
    for found in limits {
        let (Some(limit), Some(charge), Some(tally)) =
            (policy.limit(*found), request.charges.get(found.charge()), tallies.get(found.charge()))
        else {
            continue;
        };
        if limit.shadow || tally.used.has_room(charge.amount, limit.max) {
            continue;
        }
        first = first.or(Some(*found));
        let never = limit.max == Amount::ZERO || charge.amount > limit.max;
        let end = (!never).then(|| wait_millis(request.now, tally.window.end));
        wait = wait.zip(end).map(|(longest, end)| longest.max(end));
    }
    // A store that refuses although every counter has room is believed: no is the safe side.
    let Some(named) = first.or_else(|| limits.first().copied()) else { return deny_without_policy(call) };
    Decision::RateLimit(RateLimited {
        refusal: limit_refusal(policy, named, Code::Limit, call),
        retry_after: wait.filter(|_| first.is_some()).map(Duration::from_millis),
        limits: LimitState::all(policy, limits, tallies),
    })
}
