//! One approval, from its request to its end. It has no lock and no clock; a store has those.

use std::fmt;
use std::time::Duration;

use super::DecideError;
use super::ask::{Ask, Details, asker};
use crate::call::approval_id::ApprovalId;
use crate::call::identity::Identity;
use crate::json::number::Exact;
use crate::time::Timestamp;

/// The state of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "only one of them lets a call pass: no arm may be forgotten")]
pub enum ApprovalState {
    /// It waits for people to decide.
    Pending,
    /// It can be used, once.
    Approved,
    /// A person has refused it.
    Denied,
    /// Its time has ended, whatever its state was.
    Expired,
    /// A call has used it.
    Consumed,
}

/// A person's decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a request is approved or refused")]
pub enum Verdict {
    /// Lets the call be made.
    Approve,
    /// Does not let the call be made.
    Refuse,
}

/// The use of an approval by one call. It identifies the use, so that the approval can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub(super) approval: ApprovalId,
    pub(super) turn: u32,
    /// `true` if the approval was signed elsewhere.
    pub(super) signed: bool,
}

impl Claim {
    /// The approval that is in use.
    pub fn approval(&self) -> &ApprovalId {
        &self.approval
    }
}

/// A person's permission for one call, or the request for it.
#[derive(Clone)]
pub struct Approval {
    pub(super) id: ApprovalId,
    pub(super) state: ApprovalState,
    pub(super) tool: Box<str>,
    /// In the order of [`Identity::ALL`].
    pub(super) identities: [Option<Box<str>>; 5],
    pub(super) reason: Box<str>,
    pub(super) details: Details,
    pub(super) bounds: Box<[Exact]>,
    pub(super) ttl: Duration,
    pub(super) approvers: Box<[Box<[Box<str>]>]>,
    pub(super) min_approvers: u32,
    pub(super) approved_by: Vec<Box<str>>,
    pub(super) made_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// The number of claims so far. A claim of an earlier turn restores nothing.
    pub(super) turn: u32,
}

impl Approval {
    /// A new request, pending from `now`.
    pub fn new(ask: &Ask<'_>, number: u64, now: Timestamp) -> Self {
        let approvers = ask.terms.approvers.iter().map(|list| (*list).into());
        Self {
            id: ApprovalId::new(ask.digest, number),
            state: ApprovalState::Pending,
            tool: ask.call.tool().into(),
            identities: Identity::ALL.map(|identity| ask.call.identity(identity).map(Box::from)),
            reason: ask.reason.into(),
            details: ask.details.clone(),
            bounds: ask.bounds.clone(),
            ttl: ask.terms.ttl,
            approvers: approvers.collect(),
            min_approvers: ask.terms.min_approvers,
            approved_by: Vec::new(),
            made_at: now,
            expires_at: now.saturating_add(ask.terms.ttl),
            turn: 0,
        }
    }

    /// The id.
    pub fn id(&self) -> &ApprovalId {
        &self.id
    }

    /// The state when the approval was last [brought up to date](Self::look).
    pub fn state(&self) -> ApprovalState {
        self.state
    }

    /// The tool to be called.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// An identity of the call.
    pub fn identity(&self, identity: Identity) -> Option<&str> {
        let index = Identity::ALL.iter().position(|known| *known == identity)?;
        self.identities.get(index)?.as_deref()
    }

    /// The reason to ask a person, from the rule that requires the approval.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The values that the approval is bound to, for a person to read before approving: the
    /// canonical JSON of all arguments. If the policy lists what is bound, it is a list of
    /// `[path, value]`, `[path]` for an absent value, and `["args.amount<=", 100]` for an upper
    /// bound.
    ///
    /// These are values from the call: whoever can read the store can read them. `None` if they are
    /// longer than 4 KiB or the store does not keep them; [`details_bytes`](Self::details_bytes) is
    /// their length.
    pub fn details(&self) -> Option<&str> {
        self.details.text.as_deref()
    }

    /// The length of the [details](Self::details) in bytes, kept or not.
    pub fn details_bytes(&self) -> usize {
        self.details.bytes
    }

    /// Drops the [details](Self::details) if they have more than `bytes` bytes; 0 keeps none.
    /// Details above 4 KiB are never kept.
    #[must_use = "this returns the approval with the new setting"]
    pub fn with_details_up_to(mut self, bytes: usize) -> Self {
        self.details.cut(bytes);
        self
    }

    /// The identity whose pending requests are limited, as for [`Ask::asker`].
    pub fn asker(&self) -> Option<(Identity, &str)> {
        asker(|identity| self.identity(identity))
    }

    /// The number of different people who must approve it.
    pub fn min_approvers(&self) -> u32 {
        self.min_approvers
    }

    /// The people who have approved it so far.
    pub fn approved_by(&self) -> impl ExactSizeIterator<Item = &str> {
        self.approved_by.iter().map(|by| &**by)
    }

    /// The instant of the request.
    pub fn made_at(&self) -> Timestamp {
        self.made_at
    }

    /// The instant at which it has expired: its `ttl` after the request, and once it is approved,
    /// its `ttl` after the approval.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The latest end of a text that was signed for this request elsewhere: people decide within
    /// its `ttl`, and a signed approval is valid for at most another `ttl`.
    pub(super) fn signed_until(&self) -> Timestamp {
        self.made_at.saturating_add(self.ttl).saturating_add(self.ttl)
    }

    /// Returns `true` if it is for this call: the digests are equal, and no number of the call is
    /// above its bound.
    pub fn covers(&self, ask: &Ask<'_>) -> bool {
        self.id.digest() == ask.digest
            && self.bounds.len() == ask.bounds.len()
            && self.bounds.iter().zip(&ask.bounds).all(|(bound, number)| number <= bound)
    }

    /// Returns `true` if it is for this call with exactly these numbers.
    pub fn fits(&self, ask: &Ask<'_>) -> bool {
        self.id.digest() == ask.digest && self.bounds == ask.bounds
    }

    /// Brings it to `now`, and returns its state: it expires if its time has ended. It never has
    /// more than its `ttl` left, so a clock that once ran ahead does not prolong it.
    pub fn look(&mut self, now: Timestamp) -> ApprovalState {
        if now >= self.expires_at {
            self.state = ApprovalState::Expired;
        }
        self.expires_at = self.expires_at.min(now.saturating_add(self.ttl));
        self.state
    }

    /// Decides the request. The last approval that is needed restarts its `ttl`; a single refusal
    /// ends it.
    ///
    /// An approver must be on every list of the policy. Whoever asked cannot approve: the name must
    /// differ from the call's agent, user, grant and session, byte by byte. Refusing one's own
    /// request is harmless.
    ///
    /// # Errors
    /// It is not pending, or `by` cannot decide it. It does not change.
    pub fn decide(&mut self, verdict: Verdict, by: &str, now: Timestamp) -> Result<(), DecideError> {
        if self.look(now) != ApprovalState::Pending {
            return Err(DecideError::NotPending);
        }
        if !self.is_listed(by) {
            return Err(DecideError::NotAnApprover);
        }
        match verdict {
            Verdict::Refuse => self.state = ApprovalState::Denied,
            Verdict::Approve if self.asked(by) => return Err(DecideError::NotAnApprover),
            Verdict::Approve if self.approved_by().any(|known| known == by) => {
                return Err(DecideError::AlreadyApproved);
            }
            Verdict::Approve => {
                self.approved_by.push(by.into());
                if self.approved_by.len() >= self.min_approvers as usize {
                    self.state = ApprovalState::Approved;
                    self.expires_at = now.saturating_add(self.ttl);
                }
            }
        }
        Ok(())
    }

    /// Returns `true` if `by` is on every list of the policy. An empty name is on none.
    pub(super) fn is_listed(&self, by: &str) -> bool {
        !by.is_empty() && self.approvers.iter().all(|list| list.iter().any(|approver| **approver == *by))
    }

    /// Returns `true` if `by` is one of the identities that asked.
    pub(super) fn asked(&self, by: &str) -> bool {
        let askers = [Identity::Agent, Identity::User, Identity::Grant, Identity::Session];
        askers.into_iter().any(|asker| self.identity(asker) == Some(by))
    }

    /// Claims it for one call, if it is approved.
    pub fn claim(&mut self, now: Timestamp) -> Option<Claim> {
        (self.look(now) == ApprovalState::Approved).then(|| {
            self.state = ApprovalState::Consumed;
            // Saturation needs four billion failed calls within one `ttl`.
            self.turn = self.turn.saturating_add(1);
            Claim { approval: self.id, turn: self.turn, signed: false }
        })
    }

    /// Makes it usable again, if it is in use by this claim and has not expired. Its end does not
    /// change. Returns `true` if it was restored.
    pub fn restore(&mut self, claim: &Claim, now: Timestamp) -> bool {
        let is_its = claim.approval == self.id && claim.turn == self.turn && !claim.signed;
        let restored = self.look(now) == ApprovalState::Consumed && is_its;
        if restored {
            self.state = ApprovalState::Approved;
        }
        restored
    }
}

impl fmt::Debug for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approval")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("tool", &self.tool)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
