//! One approval, from its request to its end. It has no lock and no clock; a store has those.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::DecideError;
use super::ask::{Ask, Details, Shown, ShownArgument};
use super::uses::Uses;
use crate::call::approval_id::ApprovalId;
use crate::call::identity::{Identity, asker};
use crate::json::number::Exact;
use crate::json::visible::{person, visible};
use crate::time::Timestamp;

/// The state of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "only one of them lets a call pass: no arm may be forgotten")]
pub enum ApprovalState {
    /// It waits for people to decide.
    Pending,
    /// It can be used.
    Approved,
    /// A person has refused it. Until its time ends, the same call is denied.
    Denied,
    /// Its time has ended, whatever its state was, or its refusal has been lifted.
    Expired,
    /// Calls have used it up.
    Consumed,
}

/// A person's decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store must handle every verdict")]
pub enum Verdict {
    /// Lets the call be made.
    Approve,
    /// Does not let the call be made, until the `ttl` has ended.
    Refuse,
    /// Takes a refusal back, so that the same call can ask again.
    Lift,
}

/// The use of an approval by one call. It identifies the use, so that the approval can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub(super) approval: ApprovalId,
    pub(super) turn: u32,
    /// `true` if the approval was signed elsewhere.
    pub(super) signed: bool,
}

/// The result of using an approval that was signed elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "only one of them lets a call pass: no arm may be forgotten")]
pub enum Redemption {
    /// A use of it is held by this call.
    Claimed(Claim),
    /// Its time has ended, or the request has been used up before: by signed texts or in the store.
    Spent,
    /// A person has refused the request.
    Refused,
}

impl Redemption {
    /// The claim, if the approval can be used.
    pub fn claim(self) -> Option<Claim> {
        match self {
            Self::Claimed(claim) => Some(claim),
            Self::Spent | Self::Refused => None,
        }
    }
}

impl Claim {
    /// The approval that is in use.
    pub fn approval(&self) -> &ApprovalId {
        &self.approval
    }
}

/// A person's permission for a call, or the request for it.
#[derive(Clone)]
pub struct Approval {
    pub(super) id: ApprovalId,
    pub(super) state: ApprovalState,
    pub(super) tool: Box<str>,
    /// In the order of [`Identity::ALL`].
    pub(super) identities: [Option<Box<str>>; 5],
    pub(super) reason: Box<str>,
    pub(super) details: Details,
    /// The host lets people approve what is not shown in full.
    pub(super) unseen: bool,
    pub(super) bounds: Box<[Exact]>,
    pub(super) ttl: Duration,
    pub(super) approvers: Box<[Box<[Box<str>]>]>,
    pub(super) min_approvers: u32,
    pub(super) approved_by: Vec<Box<str>>,
    pub(super) made_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) uses: Uses,
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
            unseen: ask.unseen,
            bounds: ask.bounds.clone(),
            ttl: ask.terms.ttl,
            approvers: approvers.collect(),
            min_approvers: ask.terms.min_approvers,
            approved_by: Vec::new(),
            made_at: now,
            expires_at: now.saturating_add(ask.terms.ttl),
            uses: Uses::new(ask.terms.uses),
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

    /// The values that the approval is bound to: the canonical JSON of all arguments. If the policy
    /// lists what is bound, it is a list of `[path, value]`, `[path]` for an absent value, and
    /// `["args.amount<=", 100]` for an upper bound; an empty list is for any arguments. `None` if
    /// they are longer than 16 KiB, or than the store keeps; then [`arguments`](Self::arguments)
    /// has the beginning of each.
    ///
    /// These are values from the call: whoever can read the store can read them, and they may have
    /// characters that nobody sees. Show people [`shown`](Self::shown).
    pub fn details(&self) -> Option<&str> {
        match &self.details.shown {
            Shown::Whole(text) => Some(text),
            Shown::Cut { .. } => None,
        }
    }

    /// The length of the [details](Self::details) in bytes, kept or not.
    pub fn details_bytes(&self) -> usize {
        self.details.bytes
    }

    /// Returns `true` if people see everything that the approval is bound to. If not, nobody can
    /// approve it, unless the host [lets them](crate::GateBuilder::approve_unseen).
    pub fn is_shown(&self) -> bool {
        self.details().is_some()
    }

    /// The text for a person to read before approving: the [details](Self::details), or each of the
    /// [arguments](Self::arguments) on a line of its own. Invisible characters are
    /// [written out](crate::visible), and a text says how much of it is left out.
    pub fn shown(&self) -> String {
        let (arguments, left_out) = match &self.details.shown {
            // People must see that the approval is for more than this call.
            Shown::Whole(text) if **text == *"[]" => return "any arguments".to_owned(),
            Shown::Whole(text) => return visible(text).into_owned(),
            Shown::Cut { arguments, left_out } => (arguments, *left_out),
        };
        let mut text = String::new();
        for argument in arguments {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{argument}");
        }
        if left_out > 0 {
            let _ = writeln!(text, "[{left_out} more arguments are not shown]");
        }
        text
    }

    /// The arguments, or the bound paths, if they are too long to be kept [whole](Self::details):
    /// the name of each and the beginning of its value. All values have the same share of the
    /// space, so that a long one hides no other. Empty if the details are whole.
    pub fn arguments(&self) -> &[ShownArgument] {
        match &self.details.shown {
            Shown::Whole(_) => &[],
            Shown::Cut { arguments, .. } => arguments,
        }
    }

    /// The number of arguments that are not even among the [arguments](Self::arguments), because
    /// their names are longer than 4 KiB together.
    pub fn arguments_left_out(&self) -> usize {
        match self.details.shown {
            Shown::Whole(_) => 0,
            Shown::Cut { left_out, .. } => left_out,
        }
    }

    /// Keeps the [details](Self::details) whole only if they have at most `bytes` bytes, and as
    /// much of the values otherwise; 0 keeps the names alone. The maximum is 16 KiB.
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

    /// The number of calls that it serves until it expires: show people this too. One, unless the
    /// policy sets `uses`.
    pub fn uses(&self) -> u32 {
        self.uses.allowed
    }

    /// The number of calls that it still serves, once it is approved.
    pub fn uses_left(&self) -> u32 {
        self.uses.left()
    }

    /// The people who have approved it so far.
    pub fn approved_by(&self) -> impl ExactSizeIterator<Item = &str> {
        self.approved_by.iter().map(|by| &**by)
    }

    /// The instant of the request.
    pub fn made_at(&self) -> Timestamp {
        self.made_at
    }

    /// The instant at which it has expired: its `ttl` after the request, and once it is approved or
    /// refused, its `ttl` after that.
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

    /// Decides the request. The last approval that is needed restarts its `ttl`, and so does a
    /// single refusal, which ends it.
    ///
    /// An approver must be on every list of the policy, by the exact name. The call's user is who
    /// asked, and cannot approve, but may refuse: that withdraws the request. Two names are one
    /// person if they differ only in case, outer blanks or invisible characters. Anyone but the
    /// asker may lift a refusal, as far as the host lets them: the call still needs an approval.
    ///
    /// # Errors
    /// It is not pending (to lift, not refused); `by` is blank or cannot decide it; or it is not
    /// [shown](Self::is_shown). It does not change.
    pub fn decide(&mut self, verdict: Verdict, by: &str, now: Timestamp) -> Result<(), DecideError> {
        let state = self.look(now);
        if verdict == Verdict::Lift {
            return match state {
                ApprovalState::Denied if person(by).is_empty() || self.asked(by) => Err(DecideError::NotAnApprover),
                ApprovalState::Denied => {
                    self.state = ApprovalState::Expired;
                    Ok(())
                }
                _ => Err(DecideError::NotRefused),
            };
        }
        if state != ApprovalState::Pending {
            return Err(DecideError::NotPending);
        }
        let asked = self.asked(by);
        let may = match verdict {
            Verdict::Approve => self.is_listed(by) && !asked,
            Verdict::Refuse | Verdict::Lift => self.is_listed(by) || asked,
        };
        if !may {
            return Err(DecideError::NotAnApprover);
        }
        match verdict {
            Verdict::Refuse | Verdict::Lift => {
                self.state = ApprovalState::Denied;
                self.expires_at = now.saturating_add(self.ttl);
            }
            Verdict::Approve if !self.is_shown() && !self.unseen => return Err(DecideError::NotShown),
            Verdict::Approve if self.approved_by().any(|known| is_same_person(known, by)) => {
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

    /// Returns `true` if `by` is on every list of the policy. A blank name is on none.
    pub(super) fn is_listed(&self, by: &str) -> bool {
        !person(by).is_empty() && self.approvers.iter().all(|list| list.iter().any(|approver| **approver == *by))
    }

    /// Returns `true` if `by` is the call's user.
    pub(super) fn asked(&self, by: &str) -> bool {
        !person(by).is_empty() && self.identity(Identity::User).is_some_and(|user| is_same_person(user, by))
    }

    /// Claims it for one call, if it is approved.
    pub fn claim(&mut self, now: Timestamp) -> Option<Claim> {
        if self.look(now) != ApprovalState::Approved {
            return None;
        }
        let turn = self.uses.take()?;
        if self.uses.left() == 0 {
            self.state = ApprovalState::Consumed;
        }
        Some(Claim { approval: self.id, turn, signed: false })
    }

    /// Gives back the use that this claim holds, if the approval has not expired. Its end does not
    /// change. Returns `true` if it was restored.
    pub fn restore(&mut self, claim: &Claim, now: Timestamp) -> bool {
        let is_its = claim.approval == self.id && !claim.signed;
        let lives = matches!(self.look(now), ApprovalState::Approved | ApprovalState::Consumed);
        let restored = lives && is_its && self.uses.give_back(claim.turn);
        if restored {
            self.state = ApprovalState::Approved;
        }
        restored
    }
}

/// Returns `true` if two names are spellings of one: they differ only in case, in outer blanks or
/// in invisible characters.
pub(super) fn is_same_person(one: &str, other: &str) -> bool {
    one == other || person(one) == person(other)
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
