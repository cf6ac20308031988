//! Approvals in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use super::group::{ApprovalGroup, changes};
use super::record::{Approval, Claim, Redemption, Verdict};
use super::{
    ApprovalError, ApprovalId, ApprovalStore, Ask, CAPACITY, CallDigest, DETAILS_BYTES, DecideError, PENDING_PER_ASKER,
};
use crate::time::Timestamp;

/// The number of expired approvals that each new request reclaims. More than one, so that a backlog
/// shrinks.
const RECLAIMED_AT_ONCE: usize = 4;

/// Approvals in memory, for one process.
///
/// They are lost when the process ends. That is the safe side for requests, but not for used
/// [signed](super::signed) approvals: one that is still valid can be used once more after a
/// restart. Where that matters, use a store that outlives the process.
///
/// The store holds 10,000 approvals by default: pending, approved, refused and in use, until they
/// expire.
/// When it is full, new requests are refused and their calls denied; a live approval is never
/// evicted. The pending requests of each [asker](Ask::asker) are
/// [limited](Self::pending_per_asker), so that none can fill the store alone. The names of tool and
/// caller can have 4 KiB together.
///
/// ```
/// use toolgate::approval::MemoryApprovals;
/// use toolgate::Gate;
///
/// let approvals = MemoryApprovals::with_capacity(1_000).pending_per_asker(10).details_up_to(0);
/// let gate = Gate::builder().approvals(approvals).build();
/// assert!(gate.pending()?.is_empty());
/// # Ok::<(), toolgate::approval::ApprovalError>(())
/// ```
pub struct MemoryApprovals {
    table: Mutex<Table>,
    capacity: usize,
    pending: usize,
    details_bytes: usize,
}

#[derive(Default)]
struct Table {
    groups: HashMap<CallDigest, ApprovalGroup>,
    by_end: BTreeSet<(Timestamp, ApprovalId)>,
    /// The pending requests of each asker.
    waiting: HashMap<String, BTreeSet<(Timestamp, ApprovalId)>>,
    last_number: u64,
    /// Used signatures that ended by then may have been dropped.
    horizon: Option<Timestamp>,
}

impl MemoryApprovals {
    /// A store with room for 10,000 approvals.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// A store with room for `capacity` approvals. Memory is allocated as they are added.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { table: Mutex::default(), capacity, pending: PENDING_PER_ASKER, details_bytes: DETAILS_BYTES }
    }

    /// Sets how many requests of one [asker](Ask::asker) can be pending at once; the default is
    /// 100. A call that would add another is denied, with [`ApprovalError::TooManyPending`].
    #[must_use = "this returns the store with the new setting"]
    pub fn pending_per_asker(self, pending: usize) -> Self {
        Self { pending, ..self }
    }

    /// Keeps [details](Approval::details), which are values from calls, of at most `bytes` bytes.
    /// The default and the maximum is 16 KiB; 0 keeps the names of arguments alone. Nobody can
    /// approve a request that is [not shown](Approval::is_shown), unless the host
    /// [lets them](crate::GateBuilder::approve_unseen).
    #[must_use = "this returns the store with the new setting"]
    pub fn details_up_to(self, bytes: usize) -> Self {
        Self { details_bytes: bytes, ..self }
    }

    /// The number of approvals in the store.
    pub fn len(&self) -> usize {
        self.table.lock().by_end.len()
    }

    /// Returns `true` if the store has no approvals.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// Applies a change to the group of a digest, brought to `now`.
    fn at<T>(&mut self, digest: &CallDigest, now: Timestamp, change: impl FnOnce(&mut ApprovalGroup) -> T) -> T {
        let mut entry = match self.groups.entry(*digest) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(ApprovalGroup::default()),
        };
        let group = entry.get_mut();
        let (before, asker) = (group.index_entries(Duration::ZERO), group.asker());
        self.horizon = self.horizon.max(group.sweep(now, Duration::ZERO));
        let result = change(group);
        let (gone, put) = changes(&before, &group.index_entries(Duration::ZERO));
        if let Some(asker) = group.asker().or(asker).filter(|_| !gone.is_empty() || !put.is_empty()) {
            let waiting = self.waiting.entry(asker);
            let mut waiting = match waiting {
                Entry::Occupied(entry) => entry,
                Entry::Vacant(entry) => entry.insert_entry(BTreeSet::new()),
            };
            let of = |number| ApprovalId::new(*digest, number);
            for entry in gone.iter().filter(|entry| entry.since.is_some()) {
                waiting.get_mut().remove(&(entry.ends_at, of(entry.number)));
            }
            for entry in put.iter().filter(|entry| entry.since.is_some()) {
                waiting.get_mut().insert((entry.ends_at, of(entry.number)));
            }
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
        for old in gone {
            self.by_end.remove(&(old.ends_at, ApprovalId::new(*digest, old.number)));
        }
        for new in put {
            self.by_end.insert((new.ends_at, ApprovalId::new(*digest, new.number)));
        }
        if group.is_empty() {
            entry.remove();
        }
        result
    }

    /// Drops a few expired approvals.
    fn reclaim(&mut self, now: Timestamp) {
        for _ in 0..RECLAIMED_AT_ONCE {
            let Some((_, id)) = self.by_end.first().copied().filter(|(end, _)| *end <= now) else { break };
            self.at(&id.digest(), now, |_| ());
        }
    }

    /// The number of pending requests of an asker.
    fn waiting(&mut self, asker: &str, now: Timestamp) -> usize {
        loop {
            let Some(waiting) = self.waiting.get(asker) else { return 0 };
            match waiting.first().copied().filter(|(end, _)| *end <= now) {
                Some((_, id)) => self.at(&id.digest(), now, |_| ()),
                None => return waiting.len(),
            }
        }
    }

    /// A number above all that were assigned. It follows the clock, so that it is also above those
    /// of an earlier process, unless the clock has stepped back.
    fn next_number(&mut self, now: Timestamp) -> u64 {
        let instant = u64::try_from(now.unix_micros()).unwrap_or(0);
        self.last_number = instant.max(self.last_number.saturating_add(1));
        self.last_number
    }
}

impl ApprovalStore for MemoryApprovals {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        ask.check_names()?;
        let mut table = self.table.lock();
        table.reclaim(now);
        if let Some(found) = table.at(&ask.digest(), now, |group| group.find(ask).cloned()) {
            return Ok(found);
        }
        if table.by_end.len() >= self.capacity {
            return Err(ApprovalError::Full { capacity: self.capacity });
        }
        if table.waiting(&ask.asker_key(), now) >= self.pending {
            return Err(ApprovalError::TooManyPending { pending: self.pending });
        }
        let mut number = table.next_number(now);
        while table.at(&ask.digest(), now, |group| group.has(number)) {
            number = table.next_number(now);
        }
        let approval = Approval::new(ask, number, now).with_details_up_to(self.details_bytes);
        table.at(&ask.digest(), now, |group| group.add(approval.clone()));
        Ok(approval)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.table.lock().at(&id.digest(), now, |group| group.decide(id, verdict, by, now))
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        Ok(self.table.lock().at(&id.digest(), now, |group| group.claim(id, now)))
    }

    fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError> {
        Ok(self.table.lock().at(&ask.digest(), now, |group| group.refusal(ask).cloned()))
    }

    fn redeem(
        &self,
        id: &ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Redemption, ApprovalError> {
        let mut table = self.table.lock();
        table.reclaim(now);
        let is_known = table.at(&id.digest(), now, |group| group.has(id.number()));
        // If the clock has stepped back, the text may have been used and then dropped.
        if table.horizon.is_some_and(|horizon| until <= horizon) {
            return Ok(Redemption::Spent);
        }
        if !is_known && table.by_end.len() >= self.capacity {
            return Err(ApprovalError::Full { capacity: self.capacity });
        }
        Ok(table.at(&id.digest(), now, |group| group.redeem(id, uses, until, now)))
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        Ok(self.table.lock().at(&claim.approval().digest(), now, |group| group.restore(claim, now)))
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        let mut table = self.table.lock();
        let digests: Vec<_> = table.groups.keys().copied().collect();
        let mut waiting = Vec::new();
        for digest in digests {
            table.at(&digest, now, |group| waiting.extend(group.pending().cloned()));
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
