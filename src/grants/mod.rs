//! The registry of grants: which policy decides the calls of a grant on a server.

mod grant;
mod record;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::approval::{Approval, ApprovalError, ApprovalId, ApprovalStore, AsyncApprovalStore, DecideError};
use crate::audit::Event;
use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::decision::permit::AsyncPermit;
use crate::decision::{Decision, Denial, Refusal, default_message};
use crate::gate::Gate;
use crate::gate::shadow::{Report, Shadow};
use crate::policy::{Code, Policy, PolicyError};
use crate::store::{AsyncCounterStore, CounterStore, MemoryStore};
use crate::time::Timestamp;
use table::{Keyed, Table};

pub use grant::{Access, AccessTo, Grant};

/// A registry of named policies and of grants, which decides each call by the policy of its grant.
/// Clones are cheap and share one registry.
///
/// All grants that name a policy share its compiled form, so replacing the policy replaces it for
/// all of them in one step. Each decision is made by one whole policy, the former or the new one.
/// All policies count in one store, each in the namespace of its name: their counters never mix,
/// and they continue when a policy is replaced. So a grant that moves to another policy begins with
/// a second budget, unless the two are put [in one namespace](Self::put_policy_in).
///
/// ```
/// use serde_json::json;
/// use toolgate::{Access, Grants, ToolCall};
///
/// let grants = Grants::new();
/// grants.put_policy("reader", r#"{ "version": "1", "default": "deny", "tools": { "get_*": {} } }"#)?;
/// grants.give("g-42", Access::to("reader").on("github"), "ann")?;
///
/// let arguments = json!({});
/// let call = ToolCall::new("get_issue", &arguments).server("github").grant("g-42");
/// assert!(grants.check(&call).is_allowed());
/// assert_eq!(grants.check(&call.server("mail")).rule(), Some("(no policy)"));
/// grants.revoke("g-42", "ann");
/// assert_eq!(grants.check(&call).rule(), Some("(grant revoked)"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A check never waits for an update; updates wait for each other. Finding or updating a grant
/// takes O(log n) in the number of grants. The cost of replacing a policy does not depend on them.
pub struct Grants<S = MemoryStore, A: ?Sized = dyn ApprovalStore>(Arc<Inner<S, A>>);

/// A registry of grants over gates of the type [`AsyncGate`](crate::AsyncGate): the same verbs, and
/// those that ask a store are `async`.
pub type AsyncGrants<S> = Grants<S, dyn AsyncApprovalStore>;

struct Inner<S, A: ?Sized> {
    /// A gate without a policy. The gates of the policies share its counters and its clock, and it
    /// denies calls that have no policy.
    default_gate: Gate<S, A>,
    records: ArcSwap<Table<Record<S, A>>>,
    /// The policies by name. Each update of a record holds this lock.
    policies: Mutex<Policies<S, A>>,
}

type Policies<S, A> = HashMap<Box<str>, Arc<Named<S, A>>>;

/// A name of a policy and its gate. The gate has no policy while grants use a name without one.
struct Named<S, A: ?Sized> {
    name: Box<str>,
    gate: Gate<S, A>,
}

struct Record<S, A: ?Sized> {
    id: Box<str>,
    revoked: bool,
    /// One for each server, and one for all others. There are few.
    access: Vec<NamedAccess<S, A>>,
}

struct NamedAccess<S, A: ?Sized> {
    /// `None` for every server without access of its own.
    server: Option<Box<str>>,
    policy: Arc<Named<S, A>>,
    expires_at: Option<Timestamp>,
}

/// Access could not be granted. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The grant has been revoked. [`Grants::forget`] it first to reuse its name.
    #[error("the grant has been revoked: forget it first to reuse its name")]
    Revoked,
    /// The name of the grant or of the server is empty, so no call can name it.
    #[error("the name of a grant or a server must not be empty")]
    Unnamed,
    /// The access cannot be [recorded](crate::audit), and the host
    /// [requires](crate::GateBuilder::require_audit) records.
    #[error("the access could not be recorded, and the gate requires records")]
    Unrecorded,
}

impl Grants {
    /// An empty registry with counters in memory and the system's clock.
    pub fn new() -> Self {
        Self::over(&Gate::builder().build())
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, A: ?Sized> Grants<S, A> {
    /// An empty registry with the counters, the clock and all other parts of `gate`. A policy of
    /// `gate` itself is not used.
    pub fn over(gate: &Gate<S, A>) -> Self {
        let records = ArcSwap::from_pointee(Table::new());
        Self(Arc::new(Inner { default_gate: gate.beside(None), records, policies: Mutex::default() }))
    }

    /// Reads a document and puts the policy in force under a name, for all grants that use the
    /// name. Returns the former policy.
    ///
    /// The name is also the namespace of the policy's counters, so they continue.
    ///
    /// # Errors
    /// Every issue of the document, as for [`Policy::from_json`]. A former policy stays in force.
    pub fn put_policy(&self, name: &str, document: &str) -> Result<Option<Policy>, PolicyError> {
        Ok(self.replace_policy(name, Policy::from_json(document)?))
    }

    /// Reads a document and puts the policy in force under a name, with its counters in a namespace
    /// that several policies can share: the plans of one service. Limits of one counter that agree
    /// in window, scope and algorithm then count together, so a grant that moves to another plan
    /// keeps what it has used, and a larger `max` is a raise and not a second budget.
    ///
    /// ```
    /// use toolgate::{Access, Grants, ToolCall};
    ///
    /// let plan = |max: u32| format!(
    ///     r#"{{ "version": "1", "default": "allow", "all_tools": {{ "limits": [
    ///         {{ "counter": "calls", "window": "day", "max": {max}, "scope": "grant" }}] }} }}"#
    /// );
    /// let grants = Grants::new();
    /// grants.put_policy_in("basic", "plans", &plan(1))?;
    /// grants.put_policy_in("large", "plans", &plan(2))?;
    ///
    /// let call = ToolCall::new("search", None::<&serde_json::Value>).grant("g-42");
    /// grants.give("g-42", Access::to("basic").on_any_server(), "ann")?;
    /// assert!(grants.check(&call).is_allowed());
    /// grants.give("g-42", Access::to("large").on_any_server(), "ann")?;
    /// assert!(grants.check(&call).is_allowed(), "one of two is left");
    /// assert!(!grants.check(&call).is_allowed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`put_policy`](Self::put_policy).
    pub fn put_policy_in(&self, name: &str, namespace: &str, document: &str) -> Result<Option<Policy>, PolicyError> {
        Ok(self.replace_policy_in(name, namespace, Policy::from_json(document)?))
    }

    /// Removes and returns a policy. Calls of its grants are denied with `no_policy` until there is
    /// a policy of that name again.
    pub fn remove_policy(&self, name: &str) -> Option<Policy> {
        // Not locked while the gate records this: a handler of failures may remove policies.
        let named = Arc::clone(self.0.policies.lock().get(name)?);
        let former = named.gate.replace_policy(None);
        named.gate.stop_shadow();
        let mut policies = self.0.policies.lock();
        // A name that no grant uses is dropped: only the map and this function refer to it.
        if Arc::strong_count(&named) == 2 && named.gate.policy().is_none() {
            policies.remove(name);
        }
        former
    }

    /// Puts a compiled policy in force under a name, like [`put_policy`](Self::put_policy).
    pub fn replace_policy(&self, name: &str, policy: Policy) -> Option<Policy> {
        self.replace_policy_in(name, name, policy)
    }

    /// Puts a compiled policy in force under a name, like [`put_policy_in`](Self::put_policy_in).
    pub fn replace_policy_in(&self, name: &str, namespace: &str, policy: Policy) -> Option<Policy> {
        let policy = policy.with_namespace(namespace);
        let named = self.0.named(&mut self.0.policies.lock(), name);
        named.gate.replace_policy(policy)
    }

    /// The policy in force under a name.
    pub fn policy(&self, name: &str) -> Option<Policy> {
        self.0.policies.lock().get(name)?.gate.policy()
    }

    /// Runs a candidate in the shadow of the policy of this name, like [`Gate::start_shadow`].
    /// Returns `false`, and starts nothing, if there is no such policy. The shadow ends with the
    /// policy.
    pub fn start_shadow(&self, name: &str, candidate: Shadow) -> bool {
        let policies = self.0.policies.lock();
        let named = policies.get(name).filter(|named| named.gate.policy().is_some());
        named.map(|named| drop(named.gate.start_shadow(candidate))).is_some()
    }

    /// Stops the shadow of the policy of this name, and returns its report.
    pub fn stop_shadow(&self, name: &str) -> Option<Report> {
        self.0.policies.lock().get(name)?.gate.stop_shadow()
    }

    /// The report so far of the shadow of the policy of this name.
    pub fn shadow_report(&self, name: &str) -> Option<Report> {
        self.0.policies.lock().get(name)?.gate.shadow_report()
    }

    /// Gives a grant access. It replaces the access that the grant had on the same
    /// server.
    ///
    /// The policy may be added later; until then calls are denied with `no_policy`. `by` is who
    /// gives it, for the [audit log](crate::audit).
    ///
    /// # Errors
    /// [`GrantError::Revoked`] if the grant has been revoked, [`GrantError::Unnamed`] if the grant
    /// or the server is `""`, [`GrantError::Unrecorded`] if a required record cannot be kept.
    pub fn give(&self, id: &str, access: Access, by: &str) -> Result<(), GrantError> {
        if id.is_empty() || access.server.as_deref() == Some("") {
            return Err(GrantError::Unnamed);
        }
        // Recorded first, and not under the lock: a handler of failures may change grants.
        if self.0.records.load().get(id).is_none_or(|record| !record.revoked) {
            self.0.note(Event::Give, id, Some(&access), by, None)?;
        }
        let given = self.put(id, access.clone());
        if let Err(error) = &given {
            let _ = self.0.note(Event::Give, id, Some(&access), by, Some(error));
        }
        given
    }

    fn put(&self, id: &str, access: Access) -> Result<(), GrantError> {
        let Access { server, policy, expires_at } = access;
        let mut policies = self.0.policies.lock();
        let records = self.0.records.load();
        let former = records.get(id);
        if former.is_some_and(|record| record.revoked) {
            return Err(GrantError::Revoked);
        }
        let mut all = former.map_or_else(Vec::new, |record| record.access.clone());
        all.retain(|access| access.server != server);
        let policy = self.0.named(&mut policies, &policy);
        all.push(NamedAccess { server, policy, expires_at });
        let record = Record { id: id.into(), revoked: false, access: all };
        self.0.records.store(Arc::new(records.with(record)));
        Ok(())
    }

    /// Makes these the only grants, in one step: a check sees all of the former ones or all of
    /// these. For hosts that read all grants from one place.
    ///
    /// Grants that are not listed are forgotten: their calls are denied with `no_policy`. A grant
    /// that was [revoked](Self::revoke) stays revoked, listed or not. A grant may be listed several
    /// times, with access on different servers; on the same server the last one counts.
    ///
    /// Each difference from the former grants is recorded, by `by`. It holds even if this fails,
    /// because it also takes access away.
    ///
    /// # Errors
    /// [`GrantError::Unnamed`] if a grant or a server is `""`. Nothing has changed then.
    pub fn replace_all<'g>(
        &self,
        grants: impl IntoIterator<Item = (&'g str, Access)>,
        by: &str,
    ) -> Result<(), GrantError> {
        let mut access: HashMap<&str, Vec<Access>> = HashMap::new();
        for (id, given) in grants {
            if id.is_empty() || given.server.as_deref() == Some("") {
                return Err(GrantError::Unnamed);
            }
            let all = access.entry(id).or_default();
            all.retain(|other| other.server != given.server);
            all.push(given);
        }
        let mut policies = self.0.policies.lock();
        let former = self.0.records.load();
        let changes = self.0.changes(&former, &access);
        let mut records = Table::new();
        for (id, all) in access {
            if former.get(id).is_none_or(|record| !record.revoked) {
                let named = |Access { server, policy, expires_at }| {
                    let policy = self.0.named(&mut policies, &policy);
                    NamedAccess { server, policy, expires_at }
                };
                records.insert(Record { id: id.into(), revoked: false, access: all.into_iter().map(named).collect() });
            }
        }
        former.for_each(|record| {
            if record.revoked {
                records.insert(Record { id: record.id.clone(), revoked: true, access: record.access.clone() });
            }
        });
        self.0.records.store(Arc::new(records));
        drop(policies);
        for (event, id, access) in changes {
            let _ = self.0.note(event, &id, access.as_ref(), by, None);
        }
        Ok(())
    }

    /// Revokes a grant on all servers: every check that begins after this has returned denies, with
    /// `grant_revoked`. Returns `true` if the grant was known and not yet revoked.
    ///
    /// An unknown grant is revoked too, so that a message that arrives late cannot grant it.
    /// Permits that were issued before remain. `by` is who revokes it, for the
    /// [audit log](crate::audit); the grant is revoked even if this cannot be recorded.
    pub fn revoke(&self, id: &str, by: &str) -> bool {
        let Some(was_known) = self.mark_revoked(id) else { return false };
        let _ = self.0.note(Event::Revoke, id, None, by, None);
        was_known
    }

    /// Returns whether the grant was known, or `None` if it was revoked before.
    fn mark_revoked(&self, id: &str) -> Option<bool> {
        let _updating = self.0.policies.lock();
        let records = self.0.records.load();
        let former = records.get(id);
        if former.is_some_and(|record| record.revoked) {
            return None;
        }
        let access = former.map_or_else(Vec::new, |record| record.access.clone());
        self.0.records.store(Arc::new(records.with(Record { id: id.into(), revoked: true, access })));
        Some(former.is_some())
    }

    /// Forgets a grant, also that it was revoked: its calls are denied with `no_policy`, and its
    /// name can be used again. Returns `true` if the grant was known.
    ///
    /// Until then, revoked and expired grants are kept, to distinguish them from unknown ones. The
    /// usage of the grant stays counted. `by` is who wants it forgotten, for the
    /// [audit log](crate::audit).
    pub fn forget(&self, id: &str, by: &str) -> bool {
        let is_known = self.remove(id);
        if is_known {
            let _ = self.0.note(Event::Forget, id, None, by, None);
        }
        is_known
    }

    fn remove(&self, id: &str) -> bool {
        let _updating = self.0.policies.lock();
        let records = self.0.records.load();
        let known = records.get(id).is_some();
        if known {
            self.0.records.store(Arc::new(records.without(id)));
        }
        known
    }

    /// Returns the gate that decides the calls of this caller, for previews, usage, and the policy
    /// in force. The gate does not follow later changes of the
    /// grant: call this again each time.
    ///
    /// # Errors
    /// The grant has been revoked or has expired. A missing policy is not an error: the gate
    /// denies.
    pub fn gate<'c>(&self, caller: impl Into<ToolCall<'c>>) -> Result<Gate<S, A>, Denial> {
        let call = caller.into();
        self.0.find(&self.0.records.load(), &call).cloned().map_err(|denied| denied.denial(&call))
    }

    /// Records a denial by the host itself, like [`Gate::record_denial`].
    pub fn record_denial<'c>(&self, call: impl Into<ToolCall<'c>>, denial: &Denial) {
        self.0.default_gate.record_denial(call, denial);
    }

    /// Returns a grant, or `None` if it is unknown.
    pub fn get(&self, id: &str) -> Option<Grant> {
        self.0.records.load().get(id).map(|record| Grant::of(record))
    }

    /// Returns all grants as of one instant, in the order of their ids. O(n log n); checks and
    /// updates continue during it.
    pub fn grants(&self) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.0.records.load().for_each(|record| grants.push(Grant::of(record)));
        grants.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        grants
    }
}

/// The approvals of all policies, which share one store.
impl<S> Grants<S> {
    /// Approves a request, like [`Gate::approve`].
    ///
    /// # Errors
    /// As for `Gate::approve`.
    pub fn approve(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.default_gate.approve(id, by)
    }

    /// Refuses a request, like [`Gate::refuse`].
    ///
    /// # Errors
    /// As for `Gate::refuse`.
    pub fn refuse(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.default_gate.refuse(id, by)
    }

    /// Returns the pending requests of all policies, the oldest first.
    ///
    /// # Errors
    /// As for [`Gate::pending`].
    pub fn pending(&self) -> Result<Vec<Approval>, ApprovalError> {
        self.0.default_gate.pending()
    }
}

/// The approvals of all policies, which share one store.
impl<S> AsyncGrants<S> {
    /// Approves a request, like [`AsyncGate::approve`](crate::AsyncGate::approve).
    ///
    /// # Errors
    /// As for [`Gate::approve`].
    pub async fn approve(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.default_gate.approve(id, by).await
    }

    /// Refuses a request, like [`AsyncGate::refuse`](crate::AsyncGate::refuse).
    ///
    /// # Errors
    /// As for [`Gate::refuse`].
    pub async fn refuse(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.default_gate.refuse(id, by).await
    }

    /// Returns the pending requests of all policies, the oldest first.
    ///
    /// # Errors
    /// As for [`AsyncGate::pending`](crate::AsyncGate::pending).
    pub async fn pending(&self) -> Result<Vec<Approval>, ApprovalError> {
        self.0.default_gate.pending().await
    }
}

impl<S: CounterStore + 'static> Grants<S> {
    /// Decides a call by the policy that its grant has on its server, like [`Gate::check`].
    ///
    /// A call is denied for the first of these reasons that applies:
    ///
    /// 1. `malformed_call`: the call cannot be read;
    /// 2. `grant_revoked`: its grant is revoked;
    /// 3. `no_policy`: it has no grant, or an unknown one, or one without access to this server;
    /// 4. `grant_expired`: its grant has expired on this server. Access to any server does not help
    ///    if the access to this one has expired;
    /// 5. `no_policy`: there is no policy of that name.
    ///
    /// Expiry follows the gate's clock: if the clock steps back, an expired grant is valid again.
    /// Revoke a grant to be certain.
    pub fn check(&self, call: &ToolCall<'_>) -> Decision {
        let records = self.0.records.load();
        match self.0.gate(&records, call) {
            Ok(gate) => gate.check(call),
            Err(denial) => Decision::Deny(denial),
        }
    }
}

impl<S: AsyncCounterStore + 'static> AsyncGrants<S> {
    /// Decides a call by the policy of its grant, like [`Grants::check`] and
    /// [`AsyncGate::check`](crate::AsyncGate::check).
    pub async fn check(&self, call: &ToolCall<'_>) -> Decision<AsyncPermit> {
        match self.0.gate_now(call) {
            Ok(gate) => gate.check(call).await,
            Err(denial) => Decision::Deny(denial),
        }
    }
}

impl<S, A: ?Sized> Inner<S, A> {
    /// The gate that decides a call.
    fn find<'r>(
        &'r self,
        records: &'r Table<Record<S, A>>,
        call: &ToolCall<'_>,
    ) -> Result<&'r Gate<S, A>, GrantDenial> {
        let record = call.identity(Identity::Grant).and_then(|id| records.get(id));
        let Some(record) = record.filter(|_| !call.is_malformed()) else { return Ok(&self.default_gate) };
        if record.revoked {
            return Err(GrantDenial { code: Code::GrantRevoked, rule: "(grant revoked)", now: None });
        }
        let Some(access) = record.access_on(call.identity(Identity::Server)) else { return Ok(&self.default_gate) };
        if let Some(end) = access.expires_at {
            let now = self.default_gate.now();
            // At the instant itself it has expired.
            if now >= end {
                return Err(GrantDenial { code: Code::GrantExpired, rule: "(grant expired)", now: Some(now) });
            }
        }
        Ok(&access.policy.gate)
    }

    /// The gate that decides a call. A denial by the grant itself is recorded.
    fn gate<'r>(&'r self, records: &'r Table<Record<S, A>>, call: &ToolCall<'_>) -> Result<&'r Gate<S, A>, Denial> {
        self.find(records, call).map_err(|denied| {
            let denial = denied.denial(call);
            self.default_gate.note_denial(call, &denial, denied.now);
            denial
        })
    }

    /// The same for an asynchronous decision, which must not hold on to the table.
    fn gate_now(&self, call: &ToolCall<'_>) -> Result<Gate<S, A>, Denial> {
        self.gate(&self.records.load(), call).cloned()
    }

    fn named(&self, policies: &mut Policies<S, A>, name: &str) -> Arc<Named<S, A>> {
        if let Some(named) = policies.get(name) {
            return Arc::clone(named);
        }
        let named = Arc::new(Named { name: name.into(), gate: self.default_gate.beside(None) });
        policies.insert(name.into(), Arc::clone(&named));
        named
    }
}

/// A denial by the grant itself, before any gate, and the instant that it depends on.
struct GrantDenial {
    code: Code,
    rule: &'static str,
    now: Option<Timestamp>,
}

impl GrantDenial {
    #[cold]
    fn denial(&self, call: &ToolCall<'_>) -> Denial {
        let message = default_message(self.code, call.tool()).into();
        Refusal { code: self.code, rule: Some(self.rule.into()), message, policy: None }.into()
    }
}

impl<S, A: ?Sized> Record<S, A> {
    /// The access to a server, else the access to any.
    fn access_on(&self, server: Option<&str>) -> Option<&NamedAccess<S, A>> {
        let of = |server: Option<&str>| self.access.iter().find(|access| access.server.as_deref() == server);
        server.and_then(|server| of(Some(server))).or_else(|| of(None))
    }
}

impl<S, A: ?Sized> Keyed for Record<S, A> {
    fn key(&self) -> &str {
        &self.id
    }
}

impl<S, A: ?Sized> Clone for Grants<S, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, A: ?Sized> Clone for NamedAccess<S, A> {
    fn clone(&self) -> Self {
        Self { server: self.server.clone(), policy: Arc::clone(&self.policy), expires_at: self.expires_at }
    }
}

impl<S, A: ?Sized> fmt::Debug for Grants<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants").field("policies", &self.0.policies.lock().len()).finish_non_exhaustive()
    }
}
