//! Which grant, on which server, has which policy.

mod grant;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::approval::{Approval, ApprovalError, ApprovalId, DecideError};
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

/// Named policies, and the grants that have them: it decides each call by the policy of the call's grant. Cheap to clone;
/// clones are one registry.
///
/// All grants that name a policy share the one compiled form of it, so that replacing it replaces it for all of them in one
/// step. A decision is made by one policy whole, the former or the new one. All policies count in one store, each in a
/// namespace of its own, its name: their counters never mix, and they go on when a policy is replaced.
///
/// ```
/// use serde_json::json;
/// use toolgate::{Access, Grants, ToolCall};
///
/// let grants = Grants::new();
/// grants.put_policy("reader", r#"{ "version": "1", "default": "deny", "tools": { "get_*": {} } }"#)?;
/// grants.grant("g-42", Access::to("reader").on("github"))?;
///
/// let arguments = json!({});
/// let call = ToolCall::new("get_issue", &arguments).server("github").grant("g-42");
/// assert!(grants.check(&call).is_allowed());
/// assert_eq!(grants.check(&call.server("mail")).rule(), Some("(no policy)"));
/// grants.revoke("g-42");
/// assert_eq!(grants.check(&call).rule(), Some("(grant revoked)"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A check never waits for an update. Finding a grant, and each update of one, take O(log n) in the number of grants;
/// replacing a policy costs nothing for each grant that names it. Updates wait for each other.
pub struct Grants<S = MemoryStore>(Arc<Inner<S>>);

struct Inner<S> {
    /// Without a policy: it lends its counters and its clock to the gates of the policies, and denies whoever has none.
    nobody: Gate<S>,
    records: ArcSwap<Table<Record<S>>>,
    /// The policies by name. It is locked throughout each update of a record.
    policies: Mutex<HashMap<Box<str>, Arc<Named<S>>>>,
}

/// A policy's name, and the gate at which it is in force; a name that grants use before there is a policy has a gate without.
struct Named<S> {
    name: Box<str>,
    gate: Gate<S>,
}

struct Record<S> {
    id: Box<str>,
    revoked: bool,
    /// One for each server, and one for all others. There are few.
    places: Vec<Place<S>>,
}

struct Place<S> {
    /// None is any server that has no place of its own.
    server: Option<Box<str>>,
    policy: Arc<Named<S>>,
    expires_at: Option<Timestamp>,
}

/// A grant cannot be made. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// It has been revoked: [`Grants::forget`] it first, if it is really to be given again.
    #[error("the grant has been revoked: forget it first, if it is to be given again")]
    Revoked,
    /// The grant or the server has an empty name, which no call can name.
    #[error("a grant and a server have names that are not empty")]
    Unnamed,
}

impl Grants {
    /// No grants and no policies, with counters in memory and the system's clock.
    pub fn new() -> Self {
        Self::over(&Gate::builder().build())
    }
}

impl Default for Grants {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Grants<S> {
    /// No grants and no policies, with the counters, the clock and whatever else `gate` was built from. A policy of the gate
    /// itself decides nothing here.
    pub fn over(gate: &Gate<S>) -> Self {
        let records = ArcSwap::from_pointee(Table::new());
        Self(Arc::new(Inner { nobody: gate.beside(None), records, policies: Mutex::default() }))
    }

    /// Reads a document and puts it in force under a name, for all grants that name it, in place of the former one, which it
    /// gives back.
    ///
    /// The name is also the namespace of the policy's counters: they go on where they stood.
    ///
    /// # Errors
    /// Every issue of the document, as for [`Policy::from_json`]. The former policy stays in force, if there is one.
    pub fn put_policy(&self, name: &str, document: &str) -> Result<Option<Policy>, PolicyError> {
        Ok(self.replace_policy(name, Policy::from_json(document)?))
    }

    /// Takes a policy away, and gives it back: its grants are denied, `no_policy`, until there is one of that name again.
    pub fn remove_policy(&self, name: &str) -> Option<Policy> {
        // Not locked while the gate records it: what hears of a failure may take policies away.
        let named = Arc::clone(self.0.policies.lock().get(name)?);
        let former = named.gate.replace_policy(None);
        named.gate.stop_shadow();
        let mut policies = self.0.policies.lock();
        // A name that no grant uses is not kept: nobody has it but the table, and this.
        if Arc::strong_count(&named) == 2 && named.gate.policy().is_none() {
            policies.remove(name);
        }
        former
    }

    /// Puts a policy that has been read already in force under a name, as [`put_policy`](Self::put_policy) does.
    pub fn replace_policy(&self, name: &str, policy: Policy) -> Option<Policy> {
        let policy = policy.with_namespace(name);
        let named = self.0.named(&mut self.0.policies.lock(), name);
        named.gate.replace_policy(policy)
    }

    /// The policy in force under a name.
    pub fn policy(&self, name: &str) -> Option<Policy> {
        self.0.policies.lock().get(name)?.gate.policy()
    }

    /// Tries a candidate out beside the policy of this name, as [`Gate::start_shadow`] does. Says whether there is a policy of that name;
    /// if not, nothing is tried out. The trial ends with the policy.
    pub fn start_shadow(&self, name: &str, candidate: Shadow) -> bool {
        let policies = self.0.policies.lock();
        let named = policies.get(name).filter(|named| named.gate.policy().is_some());
        named.map(|named| drop(named.gate.start_shadow(candidate))).is_some()
    }

    /// Ends the trial of a candidate, and says how it stands.
    pub fn stop_shadow(&self, name: &str) -> Option<Report> {
        self.0.policies.lock().get(name)?.gate.stop_shadow()
    }

    /// How the trial of a candidate beside the policy of this name stands.
    pub fn shadow_report(&self, name: &str) -> Option<Report> {
        self.0.policies.lock().get(name)?.gate.shadow_report()
    }

    /// Adds `access` to the grant `id`. It replaces the access that the grant had on the same
    /// server.
    ///
    /// The policy may be added later; until then calls are denied with `no_policy`.
    ///
    /// # Errors
    /// [`GrantError::Revoked`] if the grant has been revoked, [`GrantError::Unnamed`] if the grant or
    /// the server is `""`.
    pub fn grant(&self, id: &str, access: Access) -> Result<(), GrantError> {
        let Access { server, policy, expires_at } = access;
        if id.is_empty() || server.as_deref() == Some("") {
            return Err(GrantError::Unnamed);
        }
        let mut policies = self.0.policies.lock();
        let records = self.0.records.load();
        let former = records.get(id);
        if former.is_some_and(|record| record.revoked) {
            return Err(GrantError::Revoked);
        }
        let mut places = former.map_or_else(Vec::new, |record| record.places.clone());
        places.retain(|place| place.server != server);
        let policy = self.0.named(&mut policies, &policy);
        places.push(Place { server, policy, expires_at });
        let record = Record { id: id.into(), revoked: false, places };
        self.0.records.store(Arc::new(records.with(record)));
        Ok(())
    }

    /// Revokes a grant, on all servers: every check that begins after this has returned denies, `grant_revoked`. Says whether the
    /// grant was known and not yet revoked.
    ///
    /// A grant that is not known is revoked too, so that it cannot be given by a message that comes late. Permits that were
    /// given before stay.
    pub fn revoke(&self, id: &str) -> bool {
        let _updating = self.0.policies.lock();
        let records = self.0.records.load();
        let former = records.get(id);
        if former.is_some_and(|record| record.revoked) {
            return false;
        }
        let places = former.map_or_else(Vec::new, |record| record.places.clone());
        self.0.records.store(Arc::new(records.with(Record { id: id.into(), revoked: true, places })));
        former.is_some()
    }

    /// Forgets all about a grant, also that it was revoked: its calls are denied, `no_policy`, and it may be given again. Says
    /// whether it was known.
    ///
    /// Revoked and expired grants are kept until then, to tell them from unknown ones. What it has used stays counted.
    pub fn forget(&self, id: &str) -> bool {
        let _updating = self.0.policies.lock();
        let records = self.0.records.load();
        let known = records.get(id).is_some();
        if known {
            self.0.records.store(Arc::new(records.without(id)));
        }
        known
    }

    /// The gate that decides the calls of a caller, a call of any tool: to ask it for the policy in force, what is used, or what
    /// would pass. It goes on deciding by that policy's name when the grant is changed: ask for it anew each time.
    ///
    /// # Errors
    /// The grant was revoked or has expired. (A gate without a policy is no error: it denies.)
    pub fn gate(&self, caller: &ToolCall<'_>) -> Result<Gate<S>, Denial> {
        self.0.find(&self.0.records.load(), caller).cloned().map_err(|barred| barred.denial(caller))
    }

    /// Records a denial that the host has made itself, as [`Gate::record_denial`] does.
    pub fn record_denial(&self, call: &ToolCall<'_>, denial: &Denial) {
        self.0.nobody.record_denial(call, denial);
    }

    /// What is known of a grant.
    pub fn get(&self, id: &str) -> Option<Grant> {
        self.0.records.load().get(id).map(|record| Grant::of(record))
    }

    /// All grants as they stand at one moment, in the order of their ids. O(n log n); checks and updates go on meanwhile.
    pub fn grants(&self) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.0.records.load().for_each(|record| grants.push(Grant::of(record)));
        grants.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        grants
    }
}

/// The approvals of all policies, which are in one store.
impl<S> Grants<S> {
    /// Approves a request, as [`Gate::approve`] does.
    ///
    /// # Errors
    /// As for `Gate::approve`.
    pub fn approve(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.nobody.approve(id, by)
    }

    /// Refuses a request, as [`Gate::refuse`] does.
    ///
    /// # Errors
    /// As for `Gate::refuse`.
    pub fn refuse(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.nobody.refuse(id, by)
    }

    /// What waits for a person, under whichever policy, the oldest first.
    ///
    /// # Errors
    /// As for [`Gate::pending`].
    pub fn pending(&self) -> Result<Vec<Approval>, ApprovalError> {
        self.0.nobody.pending()
    }

    /// Approves a request, wherever the approvals are.
    ///
    /// # Errors
    /// As for [`Gate::approve`].
    pub async fn approve_async(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.nobody.approve_async(id, by).await
    }

    /// Refuses a request, wherever the approvals are.
    ///
    /// # Errors
    /// As for [`Gate::refuse`].
    pub async fn refuse_async(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.0.nobody.refuse_async(id, by).await
    }

    /// What waits for a person, under whichever policy, wherever the approvals are.
    ///
    /// # Errors
    /// As for [`Gate::pending_async`].
    pub async fn pending_async(&self) -> Result<Vec<Approval>, ApprovalError> {
        self.0.nobody.pending_async().await
    }
}

impl<S: CounterStore + 'static> Grants<S> {
    /// Decides a call by the policy that its grant has on its server, as [`Gate::check`] does.
    ///
    /// In this order: a call that cannot be read is denied, `malformed_call`; one of a revoked grant, `grant_revoked`; one of no
    /// grant, of an unknown one, or of one that has nothing on this server, `no_policy`; one of a grant that has expired there,
    /// `grant_expired`, also if it has another policy for any server; one whose policy is not there, `no_policy`.
    ///
    /// Expiry goes by the gate's clock as it is: a clock that steps back lets an expired grant pass again. Revoke it to be sure.
    pub fn check(&self, call: &ToolCall<'_>) -> Decision {
        let records = self.0.records.load();
        match self.0.gate(&records, call) {
            Ok(gate) => gate.check(call),
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// Decides a call that comes with an approval, by the policy of its grant, as [`Gate::check_approved`] does.
    pub fn check_approved(&self, call: &ToolCall<'_>, approval: &ApprovalId) -> Decision {
        let records = self.0.records.load();
        self.0.gate(&records, call).map_or_else(Decision::Deny, |gate| gate.check_approved(call, approval))
    }

    /// Decides a call that comes with a signed approval, by the policy of its grant, as [`Gate::check_signed`] does.
    #[cfg(feature = "signed")]
    pub fn check_signed(&self, call: &ToolCall<'_>, signed: &str) -> Decision {
        let records = self.0.records.load();
        self.0.gate(&records, call).map_or_else(Decision::Deny, |gate| gate.check_signed(call, signed))
    }
}

impl<S: AsyncCounterStore + 'static> Grants<S> {
    /// Decides a call by the policy of its grant, as [`check`](Self::check) does, with counters across a network.
    pub async fn check_async(&self, call: &ToolCall<'_>) -> Decision<AsyncPermit> {
        match self.0.gate_now(call) {
            Ok(gate) => gate.check_async(call).await,
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// Decides a call that comes with an approval, by the policy of its grant, as [`Gate::check_approved`] does.
    pub async fn check_approved_async(&self, call: &ToolCall<'_>, approval: &ApprovalId) -> Decision<AsyncPermit> {
        match self.0.gate_now(call) {
            Ok(gate) => gate.check_approved_async(call, approval).await,
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// Decides a call that comes with a signed approval, by the policy of its grant, as [`Gate::check_signed`] does.
    #[cfg(feature = "signed")]
    pub async fn check_signed_async(&self, call: &ToolCall<'_>, signed: &str) -> Decision<AsyncPermit> {
        match self.0.gate_now(call) {
            Ok(gate) => gate.check_signed_async(call, signed).await,
            Err(denial) => Decision::Deny(denial),
        }
    }
}

impl<S> Inner<S> {
    /// The gate that decides a call.
    fn find<'r>(&'r self, records: &'r Table<Record<S>>, call: &ToolCall<'_>) -> Result<&'r Gate<S>, Barred> {
        let record = call.identity(Identity::Grant).and_then(|id| records.get(id));
        let Some(record) = record.filter(|_| !call.is_malformed()) else { return Ok(&self.nobody) };
        if record.revoked {
            return Err(Barred { code: Code::GrantRevoked, rule: "(grant revoked)", now: None });
        }
        let Some(place) = record.place(call.identity(Identity::Server)) else { return Ok(&self.nobody) };
        if let Some(end) = place.expires_at {
            let now = self.nobody.now();
            // At the instant itself it has expired.
            if now >= end {
                return Err(Barred { code: Code::GrantExpired, rule: "(grant expired)", now: Some(now) });
            }
        }
        Ok(&place.policy.gate)
    }

    /// The gate that a call is put to. A denial without one is recorded.
    fn gate<'r>(&'r self, records: &'r Table<Record<S>>, call: &ToolCall<'_>) -> Result<&'r Gate<S>, Denial> {
        self.find(records, call).map_err(|barred| {
            let denial = barred.denial(call);
            self.nobody.note_denial(call, &denial, barred.now);
            denial
        })
    }

    /// The same, for a decision that waits: it keeps nothing of the table.
    fn gate_now(&self, call: &ToolCall<'_>) -> Result<Gate<S>, Denial> {
        self.gate(&self.records.load(), call).cloned()
    }

    fn named(&self, policies: &mut HashMap<Box<str>, Arc<Named<S>>>, name: &str) -> Arc<Named<S>> {
        if let Some(named) = policies.get(name) {
            return Arc::clone(named);
        }
        let named = Arc::new(Named { name: name.into(), gate: self.nobody.beside(None) });
        policies.insert(name.into(), Arc::clone(&named));
        named
    }
}

/// Why no gate is asked, and the instant that showed it.
struct Barred {
    code: Code,
    rule: &'static str,
    now: Option<Timestamp>,
}

impl Barred {
    #[cold]
    fn denial(&self, call: &ToolCall<'_>) -> Denial {
        let message = default_message(self.code, call.tool()).into();
        Refusal { code: self.code, rule: Some(self.rule.into()), message, policy: None }.into()
    }
}

impl<S> Record<S> {
    /// The place for a server, else the one for any.
    fn place(&self, server: Option<&str>) -> Option<&Place<S>> {
        let of = |server: Option<&str>| self.places.iter().find(|place| place.server.as_deref() == server);
        server.and_then(|server| of(Some(server))).or_else(|| of(None))
    }
}

impl<S> Keyed for Record<S> {
    fn key(&self) -> &str {
        &self.id
    }
}

impl<S> Clone for Grants<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Clone for Place<S> {
    fn clone(&self) -> Self {
        Self { server: self.server.clone(), policy: Arc::clone(&self.policy), expires_at: self.expires_at }
    }
}

impl<S> fmt::Debug for Grants<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants").field("policies", &self.0.policies.lock().len()).finish_non_exhaustive()
    }
}
