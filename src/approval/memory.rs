//! Approvals in the process.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use parking_lot::Mutex;

use super::record::{Approval, ApprovalState, Claim, Verdict};
use super::{ApprovalError, ApprovalId, ApprovalStore, Ask, CallDigest, DecideError};
use crate::time::Timestamp;

/// How many approvals are kept at most, unless the host says otherwise.
const CAPACITY: usize = 10_000;
/// So many that have expired are reclaimed with each new request: more than one, so that they become fewer.
const RECLAIMED_AT_ONCE: usize = 4;
/// How many bytes the names of tool and caller may have together. The agent writes the tool's, and the store keeps it.
const NAME_BYTES: usize = 4096;

/// Approvals in memory, for one process. They are gone when it ends, which errs on the safe side.
///
/// At most so many are kept as there is room for, 10,000 by default: those that wait, those that may be used, and those in use,
/// until they expire. When it is full, new requests are refused and their calls denied; no live one makes room for another. The names
/// of tool and caller may have 4 KiB together.
pub struct MemoryApprovals {
    table: Mutex<Table>,
    capacity: usize,
}

#[derive(Default)]
struct Table {
    /// Several of one digest differ in the numbers that they are bound to, or all but one are in use.
    by_digest: HashMap<CallDigest, Vec<Approval>>,
    by_end: BTreeSet<(Timestamp, ApprovalId)>,
    last_number: u64,
}

impl MemoryApprovals {
    /// Room for 10,000.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// Room for so many. It is not taken before it is needed.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { table: Mutex::default(), capacity }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.table.lock().by_end.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// Lets something happen to an approval, and forgets it if that was its end.
    fn at<T>(&mut self, id: &ApprovalId, happen: impl FnOnce(&mut Approval) -> T) -> Option<T> {
        let approvals = self.by_digest.get_mut(&id.digest())?;
        let index = approvals.iter().position(|approval| approval.id() == id)?;
        let approval = approvals.get_mut(index)?;
        let before = approval.expires_at();
        let result = happen(approval);
        let (after, state) = (approval.expires_at(), approval.state());
        let ended = matches!(state, ApprovalState::Denied | ApprovalState::Expired);
        if ended {
            approvals.remove(index);
            if approvals.is_empty() {
                self.by_digest.remove(&id.digest());
            }
        }
        if ended || after != before {
            self.by_end.remove(&(before, *id));
        }
        if !ended && after != before {
            self.by_end.insert((after, *id));
        }
        Some(result)
    }

    /// Forgets some that have expired.
    fn reclaim(&mut self, now: Timestamp) {
        for _ in 0..RECLAIMED_AT_ONCE {
            let Some((_, id)) = self.by_end.first().copied().filter(|(end, _)| *end <= now) else { break };
            self.at(&id, |approval| approval.look(now));
        }
    }

    /// Brings all of a digest to `now`, and forgets those that have expired. One pass: an agent that asks with many numbers under
    /// one bound makes its own calls slower, and no more than that.
    fn sweep(&mut self, digest: &CallDigest, now: Timestamp) -> &[Approval] {
        let Self { by_digest, by_end, .. } = self;
        let Entry::Occupied(mut entry) = by_digest.entry(*digest) else { return &[] };
        entry.get_mut().retain_mut(|approval| {
            let before = approval.expires_at();
            let lives = approval.look(now) != ApprovalState::Expired;
            let after = approval.expires_at();
            if !lives || after != before {
                by_end.remove(&(before, *approval.id()));
            }
            if lives && after != before {
                by_end.insert((after, *approval.id()));
            }
            lives
        });
        if entry.get().is_empty() {
            entry.remove();
            return &[];
        }
        entry.into_mut()
    }

    /// The approval that the call can use, else the one that it has to wait for.
    fn find(&mut self, ask: &Ask<'_>, now: Timestamp) -> Option<Approval> {
        let covering = self.sweep(&ask.digest(), now).iter().filter(|approval| approval.covers(ask));
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
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, approval)| approval.clone())
    }

    /// A number above all that were given, and after a new start of the process above those of the former, as long as the
    /// clock goes on.
    fn next_number(&mut self, now: Timestamp) -> u64 {
        let instant = u64::try_from(now.unix_micros()).unwrap_or(0);
        self.last_number = instant.max(self.last_number.saturating_add(1));
        self.last_number
    }
}

impl ApprovalStore for MemoryApprovals {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        let bytes = ask.name_bytes();
        if bytes > NAME_BYTES {
            return Err(ApprovalError::TooLong { bytes, bound: NAME_BYTES });
        }
        let mut table = self.table.lock();
        table.reclaim(now);
        if let Some(found) = table.find(ask, now) {
            return Ok(found);
        }
        if table.by_end.len() >= self.capacity {
            return Err(ApprovalError::Full { capacity: self.capacity });
        }
        let approval = Approval::new(ask, table.next_number(now), now);
        table.by_end.insert((approval.expires_at(), *approval.id()));
        table.by_digest.entry(ask.digest()).or_default().push(approval.clone());
        Ok(approval)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        let decide = |approval: &mut Approval| approval.decide(verdict, by, now).map(|()| approval.clone());
        self.table.lock().at(id, decide).unwrap_or(Err(DecideError::NotPending))
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        Ok(self.table.lock().at(id, |approval| approval.claim(now)).flatten())
    }

    fn hand_back(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        let handed_back = self.table.lock().at(claim.approval(), |approval| approval.hand_back(claim, now));
        Ok(handed_back.unwrap_or(false))
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        let mut table = self.table.lock();
        let digests: Vec<_> = table.by_digest.keys().copied().collect();
        let mut waiting = Vec::new();
        for digest in digests {
            let live = table.sweep(&digest, now).iter();
            waiting.extend(live.filter(|approval| approval.state() == ApprovalState::Pending).cloned());
        }
        waiting.sort_by_key(|approval| (approval.made_at(), *approval.id()));
        Ok(waiting)
    }
}

impl Default for MemoryApprovals {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryApprovals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryApprovals").field("len", &self.len()).field("capacity", &self.capacity).finish()
    }
}
