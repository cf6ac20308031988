//! All approvals of one digest, which differ in the numbers that they are bound to, or all but one of which are in use. What a
//! store keeps under one name, and all that can happen to it. No lock and no clock: a store has those.

use std::time::Duration;

use super::record::{Approval, ApprovalState, Claim, Verdict};
use super::{ApprovalId, Ask, DecideError};
use crate::call::identity::Identity;
use crate::time::Timestamp;

#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// The numbers ascend.
    pub(super) approvals: Vec<Approval>,
    pub(super) spent: Vec<Spent>,
}

/// What was approved elsewhere, and has been used here; or approved here and used, and may have been signed elsewhere too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) number: u64,
    pub(super) until: Timestamp,
    pub(super) turn: u32,
    /// Not handed back.
    pub(super) in_use: bool,
}

/// Where one of a shelf stands in the indexes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) ends_at: Timestamp,
    /// When it was asked for, if it waits for people.
    pub(super) since: Option<Timestamp>,
}

impl Shelf {
    pub(super) fn is_empty(&self) -> bool {
        self.approvals.is_empty() && self.spent.is_empty()
    }

    /// Brings all to `now`, and forgets what has ended: what was spent, so much later. Gives the latest end of a spent one
    /// that it has forgotten.
    ///
    /// One pass: an agent that asks with many numbers under one bound makes its own calls slower, and no more than that.
    pub(super) fn sweep(&mut self, now: Timestamp, late: Duration) -> Option<Timestamp> {
        let spent = &mut self.spent;
        self.approvals.retain_mut(|approval| {
            let was_used = approval.state() == ApprovalState::Consumed;
            let lives = approval.look(now) != ApprovalState::Expired;
            if was_used && !lives {
                let (number, until) = (approval.id().number(), approval.signed_until());
                spent.push(Spent { number, until, turn: approval.turn, in_use: true });
            }
            lives
        });
        let forgotten = |spent: &Spent| now >= spent.until.saturating_add(late);
        let latest = self.spent.iter().filter(|spent| forgotten(spent)).map(|spent| spent.until).max();
        self.spent.retain(|spent| !forgotten(spent));
        latest
    }

    /// The approval that the call can use, else the one that it has to wait for.
    pub(super) fn find(&self, ask: &Ask<'_>) -> Option<&Approval> {
        let covering = self.approvals.iter().filter(|approval| approval.covers(ask));
        let rank = |approval: &Approval| {
            let (fits, is_named) = (approval.fits(ask), ask.named().is_none_or(|named| named == approval.id()));
            match approval.state() {
                // A number below the bound leaves the larger approval to larger calls, where there is one of its own.
                ApprovalState::Approved if is_named => Some((0, !fits)),
                ApprovalState::Pending if fits => Some((1, false)),
                ApprovalState::Approved => Some((2, !fits)),
                _ => None,
            }
        };
        let ranked = covering.filter_map(|approval| Some((rank(approval)?, approval)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, approval)| approval)
    }

    /// Whether something has this number: what was spent may have one that another store gave.
    pub(super) fn has(&self, number: u64) -> bool {
        let mut approvals = self.approvals.iter();
        approvals.any(|approval| approval.id().number() == number)
            || self.spent.iter().any(|spent| spent.number == number)
    }

    /// Keeps a new request.
    pub(super) fn add(&mut self, approval: Approval) {
        let at = self.approvals.partition_point(|known| known.id() < approval.id());
        self.approvals.insert(at, approval);
    }

    /// Lets something happen to an approval, and forgets it if that was its end.
    fn at<T>(&mut self, id: &ApprovalId, happen: impl FnOnce(&mut Approval) -> T) -> Option<T> {
        let index = self.approvals.iter().position(|approval| approval.id() == id)?;
        let approval = self.approvals.get_mut(index)?;
        let result = happen(approval);
        if matches!(approval.state(), ApprovalState::Denied | ApprovalState::Expired) {
            self.approvals.remove(index);
        }
        Some(result)
    }

    /// As [`ApprovalStore::decide`](super::ApprovalStore::decide).
    pub(super) fn decide(
        &mut self,
        id: &ApprovalId,
        verdict: Verdict,
        by: &str,
        now: Timestamp,
    ) -> Result<Approval, DecideError> {
        let decide = |approval: &mut Approval| approval.decide(verdict, by, now).map(|()| approval.clone());
        self.at(id, decide).unwrap_or(Err(DecideError::NotPending))
    }

    /// As [`ApprovalStore::claim`](super::ApprovalStore::claim).
    pub(super) fn claim(&mut self, id: &ApprovalId, now: Timestamp) -> Option<Claim> {
        self.at(id, |approval| approval.claim(now)).flatten()
    }

    /// As [`ApprovalStore::redeem`](super::ApprovalStore::redeem). A request has one use, whichever way it was approved.
    pub(super) fn redeem(&mut self, id: &ApprovalId, until: Timestamp, now: Timestamp) -> Option<Claim> {
        let kept = self.approvals.iter().position(|approval| approval.id() == id);
        let in_use = kept.and_then(|kept| self.approvals.get(kept));
        if now >= until || in_use.is_some_and(|approval| approval.state() == ApprovalState::Consumed) {
            return None;
        }
        let turn = match self.spent.iter_mut().find(|spent| spent.number == id.number()) {
            Some(spent) if spent.in_use => return None,
            Some(spent) => {
                (spent.in_use, spent.turn) = (true, spent.turn.saturating_add(1));
                spent.until = spent.until.max(until);
                spent.turn
            }
            None => {
                self.spent.push(Spent { number: id.number(), until, turn: 1, in_use: true });
                1
            }
        };
        if let Some(kept) = kept {
            self.approvals.remove(kept);
        }
        Some(Claim { approval: *id, turn, signed: true })
    }

    /// As [`ApprovalStore::restore`](super::ApprovalStore::restore).
    pub(super) fn restore(&mut self, claim: &Claim, now: Timestamp) -> bool {
        if !claim.signed {
            return self.at(claim.approval(), |approval| approval.restore(claim, now)).unwrap_or(false);
        }
        let its = |spent: &&mut Spent| spent.number == claim.approval().number() && spent.turn == claim.turn;
        match self.spent.iter_mut().find(its).filter(|spent| spent.in_use && now < spent.until) {
            Some(spent) => {
                spent.in_use = false;
                true
            }
            None => false,
        }
    }

    /// What waits for people.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Approval> {
        self.approvals.iter().filter(|approval| approval.state() == ApprovalState::Pending)
    }

    /// Who is counted as the one that asked for all of them: a digest is of one caller.
    pub(super) fn asker(&self) -> Option<String> {
        self.approvals.first().map(|approval| asker_key(approval.asker()))
    }

    /// Where all of them stand, in the order of their numbers. What was spent stands until it is forgotten.
    pub(super) fn places(&self, late: Duration) -> Vec<Place> {
        let ends_at = |approval: &Approval| match approval.state() {
            ApprovalState::Consumed => approval.expires_at().max(approval.signed_until().saturating_add(late)),
            _ => approval.expires_at(),
        };
        let approvals = self.approvals.iter().map(|approval| Place {
            number: approval.id().number(),
            ends_at: ends_at(approval),
            since: (approval.state() == ApprovalState::Pending).then(|| approval.made_at()),
        });
        let spent = self.spent.iter().map(|spent| Place {
            number: spent.number,
            ends_at: spent.until.saturating_add(late),
            since: None,
        });
        let mut places: Vec<_> = approvals.chain(spent).collect();
        places.sort_unstable_by_key(|place| place.number);
        places
    }
}

/// One text for each asker: a letter for what it is, and its name.
fn asker_key(asker: Option<(Identity, &str)>) -> String {
    asker.map_or_else(
        || "-".to_owned(),
        |(identity, name)| format!("{}{name}", identity.as_str().get(..1).unwrap_or("-")),
    )
}

impl Ask<'_> {
    /// The asker as a store counts it.
    pub(super) fn asker_key(&self) -> String {
        asker_key(self.asker())
    }
}

/// The places that are no more, and those that are new or others now.
pub(super) fn changes(before: &[Place], after: &[Place]) -> (Vec<Place>, Vec<Place>) {
    let less = |these: &[Place], those: &[Place]| {
        let is_there = |place: &&Place| {
            those.binary_search_by_key(&place.number, |other| other.number).ok().and_then(|at| those.get(at))
                == Some(place)
        };
        these.iter().filter(|place| !is_there(place)).copied().collect()
    };
    (less(before, after), less(after, before))
}
