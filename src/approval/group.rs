//! All approvals for one call digest: they differ in their bound numbers, or all but one are in
//! use. A store keeps each group as a whole. A group has no lock and no clock; the store has those.

use std::time::Duration;

use super::record::{Approval, ApprovalState, Claim, Redemption, Verdict};
use super::uses::Uses;
use super::{ApprovalId, Ask, DecideError};
use crate::call::identity::Identity;
use crate::time::Timestamp;

#[derive(Clone, Debug, Default)]
pub(super) struct ApprovalGroup {
    /// In ascending order of their numbers.
    pub(super) approvals: Vec<Approval>,
    pub(super) redeemed: Vec<RedeemedSignature>,
}

/// A signed approval that was used here. An approval that was given and used here becomes one when
/// it expires, because the same request may also have been signed elsewhere; so does a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RedeemedSignature {
    pub(super) number: u64,
    /// The latest end of a text that was signed for the request.
    pub(super) until: Timestamp,
    /// Those of the request, however it was approved.
    pub(super) uses: Uses,
    /// A person has refused the request: no text for it is ever used.
    pub(super) refused: bool,
}

/// The entry of one approval of a group in the indexes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) number: u64,
    pub(super) ends_at: Timestamp,
    /// When it was requested, if it is pending.
    pub(super) since: Option<Timestamp>,
}

impl RedeemedSignature {
    /// Returns what remains of an approval that has ended in this state: texts that were signed for
    /// it serve only the calls that it has left, and none if it was refused.
    fn of(approval: &Approval, was: ApprovalState) -> Option<Self> {
        let refused = was == ApprovalState::Denied;
        let (number, until) = (approval.id().number(), approval.signed_until());
        let was_used = !approval.uses.held.is_empty();
        (refused || was_used).then(|| Self { number, until, uses: approval.uses.clone(), refused })
    }
}

impl ApprovalGroup {
    pub(super) fn is_empty(&self) -> bool {
        self.approvals.is_empty() && self.redeemed.is_empty()
    }

    /// Brings all approvals to `now` and drops those that have ended, used signatures only `late`
    /// after their end. Returns the latest end of a used signature that it dropped.
    ///
    /// One pass over the group. An agent that asks with many numbers below one bound slows down its
    /// own calls only.
    pub(super) fn sweep(&mut self, now: Timestamp, late: Duration) -> Option<Timestamp> {
        let redeemed = &mut self.redeemed;
        self.approvals.retain_mut(|approval| {
            let was = approval.state();
            let lives = approval.look(now) != ApprovalState::Expired;
            if !lives {
                redeemed.extend(RedeemedSignature::of(approval, was));
            }
            lives
        });
        let has_ended = |used: &RedeemedSignature| now >= used.until.saturating_add(late);
        let latest = self.redeemed.iter().filter(|used| has_ended(used)).map(|used| used.until).max();
        self.redeemed.retain(|used| !has_ended(used));
        latest
    }

    /// The refusal that is in force for this call.
    pub(super) fn refusal(&self, ask: &Ask<'_>) -> Option<&Approval> {
        self.approvals.iter().find(|approval| approval.state() == ApprovalState::Denied && approval.fits(ask))
    }

    /// The refusal of the call, else the approval that it can use, else the one that it has to wait
    /// for.
    pub(super) fn find(&self, ask: &Ask<'_>) -> Option<&Approval> {
        if let Some(refusal) = self.refusal(ask) {
            return Some(refusal);
        }
        let covering = self.approvals.iter().filter(|approval| approval.covers(ask));
        let rank = |approval: &Approval| {
            let (fits, is_named) = (approval.fits(ask), ask.named().is_none_or(|named| named == approval.id()));
            match approval.state() {
                // An exact fit comes first, so that a call with smaller numbers leaves a larger
                // approval to larger calls.
                ApprovalState::Approved if is_named => Some((0, !fits)),
                ApprovalState::Pending if fits => Some((1, false)),
                ApprovalState::Approved => Some((2, !fits)),
                _ => None,
            }
        };
        let ranked = covering.filter_map(|approval| Some((rank(approval)?, approval)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, approval)| approval)
    }

    /// Returns `true` if an approval or a used signature has this number. A signature may have a
    /// number that another store assigned.
    pub(super) fn has(&self, number: u64) -> bool {
        let mut approvals = self.approvals.iter();
        approvals.any(|approval| approval.id().number() == number)
            || self.redeemed.iter().any(|used| used.number == number)
    }

    /// Adds a new request.
    pub(super) fn add(&mut self, approval: Approval) {
        let at = self.approvals.partition_point(|known| known.id() < approval.id());
        self.approvals.insert(at, approval);
    }

    /// Applies a change to an approval, and drops the approval if that ended it.
    fn at<T>(&mut self, id: &ApprovalId, change: impl FnOnce(&mut Approval) -> T) -> Option<T> {
        let index = self.approvals.iter().position(|approval| approval.id() == id)?;
        let approval = self.approvals.get_mut(index)?;
        let was = approval.state();
        let result = change(approval);
        if approval.state() == ApprovalState::Expired {
            self.redeemed.extend(RedeemedSignature::of(approval, was));
            self.approvals.remove(index);
        }
        Some(result)
    }

    /// See [`ApprovalStore::decide`](super::ApprovalStore::decide).
    pub(super) fn decide(
        &mut self,
        id: &ApprovalId,
        verdict: Verdict,
        by: &str,
        now: Timestamp,
    ) -> Result<Approval, DecideError> {
        let decide = |approval: &mut Approval| approval.decide(verdict, by, now).map(|()| approval.clone());
        let gone = match verdict {
            Verdict::Approve | Verdict::Refuse => DecideError::NotPending,
            Verdict::Lift => DecideError::NotRefused,
        };
        self.at(id, decide).unwrap_or(Err(gone))
    }

    /// See [`ApprovalStore::claim`](super::ApprovalStore::claim).
    pub(super) fn claim(&mut self, id: &ApprovalId, now: Timestamp) -> Option<Claim> {
        self.at(id, |approval| approval.claim(now)).flatten()
    }

    /// See [`ApprovalStore::redeem`](super::ApprovalStore::redeem). A request has `allowed` uses in
    /// all, whichever way it was approved.
    pub(super) fn redeem(&mut self, id: &ApprovalId, allowed: u32, until: Timestamp, now: Timestamp) -> Redemption {
        let kept = self.approvals.iter().position(|approval| approval.id() == id);
        match kept.and_then(|kept| self.approvals.get(kept)).map(Approval::state) {
            Some(ApprovalState::Denied) => return Redemption::Refused,
            Some(ApprovalState::Consumed) => return Redemption::Spent,
            Some(ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Expired) | None => {}
        }
        if now >= until {
            return Redemption::Spent;
        }
        let index = match self.redeemed.iter().position(|used| used.number == id.number()) {
            Some(index) => index,
            None => {
                let kept = kept.map(|kept| self.approvals.remove(kept));
                let uses = kept.map_or_else(|| Uses::new(allowed), |kept| kept.uses);
                self.redeemed.push(RedeemedSignature { number: id.number(), until, uses, refused: false });
                self.redeemed.len() - 1
            }
        };
        let Some(used) = self.redeemed.get_mut(index) else { return Redemption::Spent };
        if used.refused {
            return Redemption::Refused;
        }
        let Some(turn) = used.uses.take() else { return Redemption::Spent };
        used.until = used.until.max(until);
        Redemption::Claimed(Claim { approval: *id, turn, signed: true })
    }

    /// See [`ApprovalStore::restore`](super::ApprovalStore::restore).
    pub(super) fn restore(&mut self, claim: &Claim, now: Timestamp) -> bool {
        if !claim.signed {
            return self.at(claim.approval(), |approval| approval.restore(claim, now)).unwrap_or(false);
        }
        let is_its = |used: &&mut RedeemedSignature| {
            used.number == claim.approval().number() && !used.refused && now < used.until
        };
        self.redeemed.iter_mut().find(is_its).is_some_and(|used| used.uses.give_back(claim.turn))
    }

    /// The pending requests.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Approval> {
        self.approvals.iter().filter(|approval| approval.state() == ApprovalState::Pending)
    }

    /// The key of the asker. All approvals of a group have the same one, as a digest has one
    /// caller.
    pub(super) fn asker(&self) -> Option<String> {
        self.approvals.first().map(|approval| asker_key(approval.asker()))
    }

    /// The index entries of the group, in the order of their numbers. A used signature has one
    /// until it is dropped.
    pub(super) fn index_entries(&self, late: Duration) -> Vec<IndexEntry> {
        let ends_at = |approval: &Approval| match approval.state() {
            ApprovalState::Consumed | ApprovalState::Denied => {
                approval.expires_at().max(approval.signed_until().saturating_add(late))
            }
            _ => approval.expires_at(),
        };
        let approvals = self.approvals.iter().map(|approval| IndexEntry {
            number: approval.id().number(),
            ends_at: ends_at(approval),
            since: (approval.state() == ApprovalState::Pending).then(|| approval.made_at()),
        });
        let redeemed = self.redeemed.iter().map(|used| IndexEntry {
            number: used.number,
            ends_at: used.until.saturating_add(late),
            since: None,
        });
        let mut entries: Vec<_> = approvals.chain(redeemed).collect();
        entries.sort_unstable_by_key(|entry| entry.number);
        entries
    }
}

/// A text that identifies an asker: the first letter of its kind, then its name.
fn asker_key(asker: Option<(Identity, &str)>) -> String {
    asker.map_or_else(
        || "-".to_owned(),
        |(identity, name)| format!("{}{name}", identity.as_str().get(..1).unwrap_or("-")),
    )
}

impl Ask<'_> {
    /// The key under which a store counts the asker's pending requests.
    pub(super) fn asker_key(&self) -> String {
        asker_key(self.asker())
    }
}

/// Returns the entries of `before` that are gone or changed, and those of `after` that are new or
/// changed.
pub(super) fn changes(before: &[IndexEntry], after: &[IndexEntry]) -> (Vec<IndexEntry>, Vec<IndexEntry>) {
    let difference = |these: &[IndexEntry], those: &[IndexEntry]| {
        let is_there = |entry: &&IndexEntry| {
            those.binary_search_by_key(&entry.number, |other| other.number).ok().and_then(|at| those.get(at))
                == Some(entry)
        };
        these.iter().filter(|entry| !is_there(entry)).copied().collect()
    };
    (difference(before, after), difference(after, before))
}
