//! Approvals in the process.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use super::group::{Shelf, changes};
use super::record::{Approval, Claim, Verdict};
use super::{ApprovalError, ApprovalId, ApprovalStore, Ask, CAPACITY, CallDigest, DETAILS_BYTES, DecideError, PENDING};
use crate::time::Timestamp;

/// So many that have expired are reclaimed with each new request: more than one, so that they become fewer.
const RECLAIMED_AT_ONCE: usize = 4;

/// Approvals in memory, for one process. They are gone when it ends, which errs on the safe side; and so is what it knew of
/// [signed](super::signed) approvals that were used, which does not: a text that holds still may be used once more after a new start.
/// Where that matters, keep them in a store that outlives the process.
///
/// At most so many are kept as there is room for, 10,000 by default: those that wait, those that may be used, and those in use,
/// until they expire. When it is full, new requests are refused and their calls denied; no live one makes room for another. Of one
/// [asker](Ask::asker) at most [so many](Self::pending_per_asker) wait, so that none takes the room of all. The names of tool and
/// caller may have 4 KiB together.
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
    shelves: HashMap<CallDigest, Shelf>,
    by_end: BTreeSet<(Timestamp, ApprovalId)>,
    /// What waits, by who asked.
    waiting: HashMap<String, BTreeSet<(Timestamp, ApprovalId)>>,
    last_number: u64,
    /// What was spent until then may be forgotten already.
    horizon: Option<Timestamp>,
}

impl MemoryApprovals {
    /// Room for 10,000.
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// Room for so many. It is not taken before it is needed.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { table: Mutex::default(), capacity, pending: PENDING, details_bytes: DETAILS_BYTES }
    }

    /// How many requests of one [asker](Ask::asker) may wait at once: 100, if nothing is said. A call that would make another one
    /// is denied, [`ApprovalError::TooManyPending`].
    #[must_use = "the store itself is moved"]
    pub fn pending_per_asker(self, pending: usize) -> Self {
        Self { pending, ..self }
    }

    /// How many bytes of [details](Approval::details), which are values from calls, are kept for people to read: 4 KiB, if nothing
    /// is said, which is the most; 0 keeps none.
    #[must_use = "the store itself is moved"]
    pub fn details_up_to(self, bytes: usize) -> Self {
        Self { details_bytes: bytes, ..self }
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
    /// Lets something happen to all approvals of a digest, brought to `now`.
    fn at<T>(&mut self, digest: &CallDigest, now: Timestamp, happen: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut entry = match self.shelves.entry(*digest) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(Shelf::default()),
        };
        let shelf = entry.get_mut();
        let (before, asker) = (shelf.places(Duration::ZERO), shelf.asker());
        self.horizon = self.horizon.max(shelf.sweep(now, Duration::ZERO));
        let result = happen(shelf);
        let (gone, put) = changes(&before, &shelf.places(Duration::ZERO));
        if let Some(asker) = shelf.asker().or(asker).filter(|_| !gone.is_empty() || !put.is_empty()) {
            let waiting = self.waiting.entry(asker);
            let mut waiting = match waiting {
                Entry::Occupied(entry) => entry,
                Entry::Vacant(entry) => entry.insert_entry(BTreeSet::new()),
            };
            let of = |number| ApprovalId::new(*digest, number);
            for place in gone.iter().filter(|place| place.since.is_some()) {
                waiting.get_mut().remove(&(place.ends_at, of(place.number)));
            }
            for place in put.iter().filter(|place| place.since.is_some()) {
                waiting.get_mut().insert((place.ends_at, of(place.number)));
            }
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
        for place in gone {
            self.by_end.remove(&(place.ends_at, ApprovalId::new(*digest, place.number)));
        }
        for place in put {
            self.by_end.insert((place.ends_at, ApprovalId::new(*digest, place.number)));
        }
        if shelf.is_empty() {
            entry.remove();
        }
        result
    }

    /// Forgets some that have expired.
    fn reclaim(&mut self, now: Timestamp) {
        for _ in 0..RECLAIMED_AT_ONCE {
            let Some((_, id)) = self.by_end.first().copied().filter(|(end, _)| *end <= now) else { break };
            self.at(&id.digest(), now, |_| ());
        }
    }

    /// How many requests of an asker wait.
    fn waiting(&mut self, asker: &str, now: Timestamp) -> usize {
        loop {
            let Some(waiting) = self.waiting.get(asker) else { return 0 };
            match waiting.first().copied().filter(|(end, _)| *end <= now) {
                Some((_, id)) => self.at(&id.digest(), now, |_| ()),
                None => return waiting.len(),
            }
        }
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
        ask.check_names()?;
        let mut table = self.table.lock();
        table.reclaim(now);
        if let Some(found) = table.at(&ask.digest(), now, |shelf| shelf.find(ask).cloned()) {
            return Ok(found);
        }
        if table.by_end.len() >= self.capacity {
            return Err(ApprovalError::Full { capacity: self.capacity });
        }
        if table.waiting(&ask.asker_key(), now) >= self.pending {
            return Err(ApprovalError::TooManyPending { pending: self.pending });
        }
        let mut number = table.next_number(now);
        while table.at(&ask.digest(), now, |shelf| shelf.has(number)) {
            number = table.next_number(now);
        }
        let approval = Approval::new(ask, number, now).with_details_up_to(self.details_bytes);
        table.at(&ask.digest(), now, |shelf| shelf.add(approval.clone()));
        Ok(approval)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.table.lock().at(&id.digest(), now, |shelf| shelf.decide(id, verdict, by, now))
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        Ok(self.table.lock().at(&id.digest(), now, |shelf| shelf.claim(id, now)))
    }

    fn redeem(&self, id: &ApprovalId, until: Timestamp, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        let mut table = self.table.lock();
        table.reclaim(now);
        let is_known = table.at(&id.digest(), now, |shelf| shelf.has(id.number()));
        // After a clock that stepped back it may have been spent, and forgotten.
        if table.horizon.is_some_and(|horizon| until <= horizon) {
            return Ok(None);
        }
        if !is_known && table.by_end.len() >= self.capacity {
            return Err(ApprovalError::Full { capacity: self.capacity });
        }
        Ok(table.at(&id.digest(), now, |shelf| shelf.redeem(id, until, now)))
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        Ok(self.table.lock().at(&claim.approval().digest(), now, |shelf| shelf.restore(claim, now)))
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        let mut table = self.table.lock();
        let digests: Vec<_> = table.shelves.keys().copied().collect();
        let mut waiting = Vec::new();
        for digest in digests {
            table.at(&digest, now, |shelf| waiting.extend(shelf.pending().cloned()));
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
