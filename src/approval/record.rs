//! One approval, from its request to its end. No lock and no clock: a store has those.

use std::fmt;
use std::time::Duration;

use super::DecideError;
use super::ask::{Ask, Details, asker};
use super::id::ApprovalId;
use crate::call::identity::Identity;
use crate::json::number::Exact;
use crate::time::Timestamp;

/// Where an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "only one of them lets a call pass: no arm may be forgotten")]
pub enum ApprovalState {
    /// It waits for people.
    Pending,
    /// It may be used, once.
    Approved,
    /// Somebody has refused it.
    Denied,
    /// Its time has ended, in whichever state.
    Expired,
    /// A call has used it.
    Consumed,
}

/// What a person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third")]
pub enum Verdict {
    /// The call may be made.
    Approve,
    /// It may not.
    Refuse,
}

/// The use that a call makes of an approval, to hand it back by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub(super) approval: ApprovalId,
    pub(super) turn: u32,
    /// Of one that was approved elsewhere.
    pub(super) signed: bool,
}

impl Claim {
    /// The approval.
    pub fn approval(&self) -> &ApprovalId {
        &self.approval
    }
}

/// A person's leave for one call, or the request for it.
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
    /// How often it was claimed: what hands an earlier claim back finds another turn.
    pub(super) turn: u32,
}

impl Approval {
    /// A request, pending from `now`.
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

    /// Which one it is.
    pub fn id(&self) -> &ApprovalId {
        &self.id
    }

    /// Where it stood when it was looked at.
    pub fn state(&self) -> ApprovalState {
        self.state
    }

    /// The tool that is to be called.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// Who is to call it, and where.
    pub fn identity(&self, identity: Identity) -> Option<&str> {
        let index = Identity::ALL.iter().position(|known| *known == identity)?;
        self.identities.get(index)?.as_deref()
    }

    /// Why a person is asked: what the rule says.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What it is bound to, for a person to read before saying yes: the canonical JSON of all arguments, or where the policy names
    /// what is bound, a list of `[path, value]`, `[path]` for what is absent, and `["args.amount<=", 100]` for an upper bound.
    ///
    /// These are values from the call: whoever may read the store's memory may read them. None if they are longer than 4 KiB,
    /// or if the store keeps none; [`details_bytes`](Self::details_bytes) says how long they were.
    pub fn details(&self) -> Option<&str> {
        self.details.text.as_deref()
    }

    /// How many bytes the text has of what it is bound to, kept or not.
    pub fn details_bytes(&self) -> usize {
        self.details.bytes
    }

    /// Keeps the [details](Self::details) only if they have at most so many bytes, and never more than 4 KiB; 0 keeps none.
    #[must_use = "the approval itself is moved"]
    pub fn with_details_up_to(mut self, bytes: usize) -> Self {
        self.details.cut(bytes);
        self
    }

    /// Who is counted as the one that asked: as for [`Ask::asker`].
    pub fn asker(&self) -> Option<(Identity, &str)> {
        asker(|identity| self.identity(identity))
    }

    /// How many different people must approve it.
    pub fn min_approvers(&self) -> u32 {
        self.min_approvers
    }

    /// Who has approved it so far.
    pub fn approved_by(&self) -> impl ExactSizeIterator<Item = &str> {
        self.approved_by.iter().map(|by| &**by)
    }

    /// When it was asked for.
    pub fn made_at(&self) -> Timestamp {
        self.made_at
    }

    /// The instant at which it has expired: its `ttl` after it was asked for, and once it is approved, after that.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Until when a text may hold that was signed for this request elsewhere: people decide within its `ttl`, and what they have
    /// approved holds no longer than another.
    pub(super) fn signed_until(&self) -> Timestamp {
        self.made_at.saturating_add(self.ttl).saturating_add(self.ttl)
    }

    /// Whether it is for such a call: of the same digest, and with no number above the one that it is bound to.
    pub fn covers(&self, ask: &Ask<'_>) -> bool {
        self.id.digest() == ask.digest
            && self.bounds.len() == ask.bounds.len()
            && self.bounds.iter().zip(&ask.bounds).all(|(bound, number)| number <= bound)
    }

    /// Whether it is for such a call, with the very numbers that it is bound to.
    pub fn fits(&self, ask: &Ask<'_>) -> bool {
        self.id.digest() == ask.digest && self.bounds == ask.bounds
    }

    /// Brings it to `now`: it expires, if its time has come. After a clock that ran ahead, it has no longer to live than its `ttl`
    /// from now on.
    pub fn look(&mut self, now: Timestamp) -> ApprovalState {
        if now >= self.expires_at {
            self.state = ApprovalState::Expired;
        }
        self.expires_at = self.expires_at.min(now.saturating_add(self.ttl));
        self.state
    }

    /// Decides it. The last approval that is needed begins its `ttl` anew; a single refusal ends it.
    ///
    /// An approver must be on every list of the policy. Whoever asked may not approve: nobody whose name is that of the
    /// call's agent, user, grant or session, byte by byte. (To refuse one's own request is no danger.)
    ///
    /// # Errors
    /// It is not pending, or not for `by` to decide; it stays as it is.
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

    /// Whether somebody is on every list of the policy. Nobody is no person.
    pub(super) fn is_listed(&self, by: &str) -> bool {
        !by.is_empty() && self.approvers.iter().all(|list| list.iter().any(|approver| **approver == *by))
    }

    pub(super) fn asked(&self, by: &str) -> bool {
        let askers = [Identity::Agent, Identity::User, Identity::Grant, Identity::Session];
        askers.into_iter().any(|asker| self.identity(asker) == Some(by))
    }

    /// Takes it into use, if it is approved.
    pub fn claim(&mut self, now: Timestamp) -> Option<Claim> {
        (self.look(now) == ApprovalState::Approved).then(|| {
            self.state = ApprovalState::Consumed;
            // It would take thousands of millions of failed calls within one `ttl`.
            self.turn = self.turn.saturating_add(1);
            Claim { approval: self.id, turn: self.turn, signed: false }
        })
    }

    /// Gives it back, if this claim has it in use and it has not expired. It keeps its end.
    pub fn restore(&mut self, claim: &Claim, now: Timestamp) -> bool {
        let is_its = claim.approval == self.id && claim.turn == self.turn && !claim.signed;
        let handed_back = self.look(now) == ApprovalState::Consumed && is_its;
        if handed_back {
            self.state = ApprovalState::Approved;
        }
        handed_back
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
