//! Leased counters: a node reserves slices of remote counters in advance, and serves calls from
//! them.

mod call;
mod lease;
mod settling;
mod table;

use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::{
    AsyncCounterStore, ChargeChange, ChargedAt, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
    StoreFuture, Tallies, Tally,
};
use crate::amount::Total;
use crate::charge::{Charge, Charges, CounterId, Meter, Subject};
use crate::time::Timestamp;
use call::{Call, Served, complete, less, window_of};
use lease::{Lease, Returned, Terms, can_be_leased, served_window};
use table::Table;

/// Up to this many charges of one subject are served without a list of positions.
const INLINE_CHARGES: usize = 4;

/// A store that serves most calls in the process, from slices of the counters of a store across a
/// network.
///
/// A slice is an ordinary reservation at the inner store of more than one call needs. Calls are
/// served from it under one short lock and without a request, and what is not used is returned.
/// This pays for counters that many calls share: at 1,000 calls a second under a large maximum,
/// fewer than one call in a hundred sends a request.
///
/// # Guarantees
/// * **Never more.** Everything that a node serves was reserved at the inner store first, under a
///   maximum no larger than the call's. Over all nodes, no more is admitted than the maximum,
///   whatever crashes and whichever requests fail.
/// * **All or none**, over charges that slices serve and charges that they do not. A refused call
///   charges nothing.
/// * **No refusal of its own.** A call is refused only if the inner store has no room for it after
///   this node has returned what was left of the counters that the call lacked. So a refusal comes
///   too early by at most what *other* nodes have left.
///
/// # Costs
/// * A node has at most one slice of a counter and what calls have released, less than three slices
///   in all. A slice is at most [one part in 16](Self::with_share) of the room that remained at the
///   inner store's last answer, so slices shrink as the counter fills, and at most [1,024
///   times](Self::with_calls) the amount of the call that requested it. A slice should last a
///   second: a counter that is charged less often is not leased, and one that is charged more often
///   is leased in slices that double step by step.
/// * **The slice of a crashed node is lost until its window ends.** Nobody knows how much of it was
///   served, so all of it stays charged. For a window of a day, that can be a sixteenth of the
///   day's maximum. The same holds for a slice whose request failed or was dropped midway. A slice
///   never outlives its window: none of it is served for the next one.
/// * [`Tally::used`] of a call that a slice serves is what the inner store held when it last
///   answered this node, less what is left of the slice. With one node it is exact. With several,
///   it counts the slices of other nodes as used, and lacks what they have reserved since.
/// * Limits of one counter may have different maxima. A slice was counted when it was reserved: one
///   that was taken while the counter held 20 serves calls with a maximum of 20 or more, even if
///   other nodes have filled the counter further since.
/// * A call that settles at more than its estimate takes the difference from the slice, or records
///   it at the inner store.
/// * [`reset`](AsyncCounterStore::reset) forgets this node's slices of the counter. Other nodes
///   serve theirs until their next request, whose answer shows that the counter has begun anew;
///   where that matters, let them [return their slices](Self::give_back) first.
///
/// Only charges of fixed windows are served from slices. A call with another charge (sliding
/// window, token bucket, in flight) sends one request for everything that slices do not serve.
///
/// The [`Tally::charged_at`] of a charge that a slice served is one microsecond after the start of
/// its window, by which its settlement finds the slice. Settle it at the store that served it.
///
/// There is no background thread. A slice that has not been used for [five
/// seconds](Self::with_idle) is returned by a later call that sends a request anyway, one counter
/// at a time. Before a shutdown, or when calls may cease, use [`give_back`](Self::give_back).
///
/// ```
/// use toolgate::store::{InProcess, LeasedStore, MemoryStore};
/// use toolgate::Gate;
///
/// // In place of a store across a network.
/// let remote = InProcess(MemoryStore::new());
/// let gate = Gate::builder().store_async(LeasedStore::new(remote).with_share(32)).build();
/// assert!(gate.store().is_empty());
/// ```
pub struct LeasedStore<S> {
    inner: S,
    table: Table,
    terms: Terms,
    /// The number of resets. Amounts that were requested before a reset are not kept after it.
    resets: AtomicU64,
    /// The number of the next settlement of a slice. One sequence for all, since several counters
    /// may share a reservation.
    next_step: AtomicU32,
}

/// The number of resets when a request was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Epoch(u64);

/// The rest of a slice, and where it was charged.
#[derive(Clone, Copy, Default)]
struct Left {
    amount: u64,
    at: Option<ChargedAt>,
}

type Returns = SmallVec<[Returned; 2]>;

impl<S> LeasedStore<S> {
    /// Makes a store that leases the counters of `inner`.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            table: Table::new(65_536),
            terms: Terms { share: 16, calls: 1_024, idle: Duration::from_secs(5) },
            resets: AtomicU64::new(0),
            next_step: AtomicU32::new(1),
        }
    }

    /// Sets the share of a slice: at most one part in `parts` of the remaining room (16 by
    /// default). Use more parts for more nodes: calls can be refused too early by what all other
    /// nodes have left.
    #[must_use = "the store is changed by value"]
    pub fn with_share(mut self, parts: u32) -> Self {
        self.terms.share = parts.max(1);
        self
    }

    /// Sets the size of a slice: at most `calls` times the amount of the call that requests it
    /// (1,024 by default). With 1 or less nothing is leased, and every call goes to the inner
    /// store.
    #[must_use = "the store is changed by value"]
    pub fn with_calls(mut self, calls: u32) -> Self {
        self.terms.calls = calls;
        self
    }

    /// Sets after how long an unused slice is returned (five seconds by default).
    #[must_use = "the store is changed by value"]
    pub fn with_idle(mut self, idle: Duration) -> Self {
        self.terms.idle = idle;
        self
    }

    /// Sets how many counters are leased at most (65,536 by default), some 350 bytes each. Calls of
    /// other counters go to the inner store.
    #[must_use = "the store is changed by value"]
    pub fn with_capacity(mut self, counters: usize) -> Self {
        self.table.capacity = counters;
        self
    }

    /// Returns the store whose counters are leased.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns the number of leased counters.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether no counter is leased.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leases(&self) -> bool {
        self.terms.calls > 1 && self.table.capacity > 0
    }

    /// Charges a call if slices serve all of it, without a request, and without allocation for up
    /// to four charges. Otherwise charges nothing and returns `None`;
    /// [`reserve`](AsyncCounterStore::reserve) then sends a request. O(charges).
    #[inline]
    pub fn try_reserve(&self, request: &ReserveRequest<'_>) -> Option<Outcome> {
        self.serve(request, true).map(Outcome::Granted)
    }

    #[inline]
    fn serve(&self, request: &ReserveRequest<'_>, commit: bool) -> Option<Tallies> {
        if !request.charges.iter().all(|charge| can_be_leased(&charge.meter)) {
            return None;
        }
        let first = request.charges.first()?;
        if request.charges.len() <= INLINE_CHARGES
            && request.charges.iter().all(|charge| charge.subject == first.subject)
        {
            return self.serve_one(request, &first.subject, commit);
        }
        let mut locked = self.table.lock(request.charges.iter());
        let mut tallies = Tallies::new();
        for (index, charge) in request.charges.iter().enumerate() {
            let Meter::Fixed(asked) = charge.meter else { return None };
            let lease = locked.find(index, charge).filter(|lease| lease.covers(charge, asked))?;
            tallies.push(lease.tally());
        }
        if commit {
            for (index, (charge, tally)) in request.charges.iter().zip(&mut tallies).enumerate() {
                *tally = locked.found(index)?.serve(charge.amount, request.now);
            }
        }
        Some(tallies)
    }

    /// The common case: a few counters of one subject. One hash, one lock, no list of positions.
    #[inline]
    fn serve_one(&self, request: &ReserveRequest<'_>, subject: &Subject, commit: bool) -> Option<Tallies> {
        let mut locked = self.table.lock_one(subject)?;
        let mut buckets = [0; INLINE_CHARGES];
        let mut tallies = Tallies::new();
        for (charge, bucket) in request.charges.iter().zip(&mut buckets) {
            let Meter::Fixed(asked) = charge.meter else { return None };
            *bucket = locked.find(charge)?;
            let lease = locked.found(*bucket).filter(|lease| lease.covers(charge, asked))?;
            tallies.push(lease.tally());
        }
        if commit {
            for ((charge, tally), bucket) in request.charges.iter().zip(&mut tallies).zip(buckets) {
                *tally = locked.found(bucket)?.serve(charge.amount, request.now);
            }
        }
        Some(tallies)
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.resets.load(Ordering::SeqCst))
    }

    /// Changes the lease of a charge that the inner store has made, and adds one if there is none.
    /// Returns `None` if a counter was reset since the request was sent, or if the counter cannot
    /// be leased.
    fn hold<T>(
        &self,
        epoch: Epoch,
        charge: &Charge,
        tally: &Tally,
        now: Timestamp,
        change: impl FnOnce(&mut Lease) -> T,
    ) -> Option<T> {
        let window = window_of(tally);
        if !self.leases() || !can_be_leased(&Meter::Fixed(window)) || self.epoch() != epoch {
            return None;
        }
        // Checked again with the shard locked: a reset increments the number first and then removes
        // the lease.
        self.table.with_new(charge, window, now, |lease| (self.epoch() == epoch).then(|| change(lease)))?
    }

    /// Returns units taken for a call that did not go ahead.
    fn put_back(&self, epoch: Epoch, served: &Served<'_>) {
        let Some(window) = served_window(served.charge, served.at) else { return };
        self.table.with(served.charge.counter, &served.charge.subject, |lease| {
            if self.epoch() == epoch {
                lease.credit(window, served.amount);
            }
        });
    }
}

/// Removes the lease of a counter before and after its reset, even if the reset fails or is dropped
/// midway.
struct Forget<'s, S> {
    store: &'s LeasedStore<S>,
    counter: CounterId,
    subject: &'s Subject,
}

impl<S> Forget<'_, S> {
    fn now(&self) {
        self.store.resets.fetch_add(1, Ordering::SeqCst);
        self.store.table.remove(self.counter, self.subject);
    }
}

impl<S> Drop for Forget<'_, S> {
    fn drop(&mut self) {
        self.now();
    }
}

impl<S: AsyncCounterStore> LeasedStore<S> {
    /// Returns everything that is left of slices, so that a shutdown loses nothing. Sends one
    /// request for each slice, one after another; calls meanwhile may take new ones.
    ///
    /// # Errors
    /// Fails with the error of the first request that failed, after sending the others. What could
    /// not be returned stays charged until its window ends, as does the slice that was on its way
    /// if the future is dropped.
    pub async fn give_back(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut failed = Ok(());
        for shard in self.table.shards() {
            for charge in self.table.holders(shard) {
                let returns = self.table.take(&charge, Lease::left).unwrap_or_default();
                failed = failed.and(self.return_all(&returns, now).await);
            }
        }
        failed
    }

    async fn return_all(&self, returns: &[Returned], now: Timestamp) -> Result<(), StoreError> {
        let mut failed = Ok(());
        for returned in returns {
            let step = self.next_step.fetch_add(1, Ordering::Relaxed);
            let charges = [returned.change()];
            failed = failed.and(self.inner.settle(&SettleRequest::new(returned.id, step, now, &charges)).await);
        }
        failed
    }

    /// Charges a call that slices do not serve completely.
    async fn ask(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        if let Some(charge) = request.charges.first() {
            // First, so that a future that is dropped here has charged nothing. What cannot be
            // returned stays charged.
            let idle = self.table.sweep(&charge.subject, request.now, &self.terms);
            let _ = self.return_all(&idle, request.now).await;
        }
        let mut call = Call::begin(self, request);
        if let Some(slices) = call.slices() {
            let id = ReservationId::next();
            let slice = ReserveRequest::new(id, request.now, &slices).by(request.asker);
            match self.inner.reserve(&slice).await.and_then(|outcome| complete(outcome, &slices)) {
                Ok(Outcome::Granted(tallies)) => return Ok(call.sliced(id, &slices, &tallies)),
                Ok(Outcome::Refused(tallies)) => {
                    if !call.refused_slices(&tallies) {
                        return Ok(call.refused(&tallies));
                    }
                }
                Err(error) => {
                    call.reset_target();
                    return Err(error);
                }
            }
        }
        // The call as it is, after everything that could be in its way is returned.
        let left = call.take_left();
        let _ = self.return_all(&left, request.now).await;
        let some = call.unserved_charges();
        let charges = some.as_deref().unwrap_or(request.charges);
        if charges.is_empty() {
            return Ok(call.passed(&Tallies::new()));
        }
        let whole = ReserveRequest::new(request.id, request.now, charges).by(request.asker);
        match complete(self.inner.reserve(&whole).await?, charges)? {
            Outcome::Granted(tallies) => Ok(call.passed(&tallies)),
            Outcome::Refused(tallies) => Ok(call.refused(&tallies)),
        }
    }

    /// Peeks at the inner store for a call that slices do not serve. What is left here counts as
    /// room.
    async fn look(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let mut asked = Charges::new();
        // For each charge its tally if a slice covers it; otherwise what is left.
        let found: SmallVec<[Result<Tally, Left>; 4]> = {
            let mut locked = self.table.lock(request.charges.iter());
            let mut look = |index, charge: &Charge| {
                let Meter::Fixed(window) = charge.meter else { return Err(Left::default()) };
                let Some(lease) = locked.find(index, charge) else { return Err(Left::default()) };
                if lease.covers(charge, window) {
                    return Ok(lease.tally());
                }
                Err(Left { amount: lease.left(), at: Some(lease.charged_at()) })
            };
            request.charges.iter().enumerate().map(|(index, charge)| look(index, charge)).collect()
        };
        for (charge, found) in request.charges.iter().zip(&found) {
            match found {
                Ok(_) => {}
                // Without a maximum: whether there is room is decided below, after subtracting what
                // is left.
                Err(left) if left.amount > 0 => asked.push(Charge { max: None, ..charge.clone() }),
                Err(_) => asked.push(charge.clone()),
            }
        }
        let asked_for = ReserveRequest::new(request.id, request.now, &asked).by(request.asker);
        let outcome = self.inner.peek(&asked_for).await?;
        let outcome = complete(outcome, &asked)?;
        let mut granted = matches!(outcome, Outcome::Granted(_));
        let mut answered = outcome.tallies().iter();
        let mut tallies = Tallies::new();
        for (charge, found) in request.charges.iter().zip(found) {
            let tally = match (found, charge.meter) {
                (Ok(tally), _) => tally,
                (Err(left), Meter::Fixed(_)) if left.amount > 0 => {
                    let Some(tally) = answered.next() else { return Err(StoreError::incomplete()) };
                    let tally = if left.at == Some(tally.charged_at) { less(tally, left.amount) } else { *tally };
                    granted &= tally.has_room(charge);
                    // No window ever has room for some charges.
                    let ever = charge.max.is_none_or(|max| Total::ZERO.has_room(charge.amount, max));
                    Tally { retry_at: ever.then_some(tally.resets_at), ..tally }
                }
                _ => {
                    let Some(tally) = answered.next() else { return Err(StoreError::incomplete()) };
                    *tally
                }
            };
            tallies.push(tally);
        }
        Ok(if granted { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) })
    }
}

impl<S: AsyncCounterStore> AsyncCounterStore for LeasedStore<S> {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        if !self.leases() {
            return self.inner.reserve(request);
        }
        match self.try_reserve(request) {
            Some(outcome) => Box::pin(ready(Ok(outcome))),
            None => Box::pin(self.ask(request)),
        }
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        if !self.leases() {
            return self.inner.peek(request);
        }
        match self.serve(request, false) {
            Some(tallies) => Box::pin(ready(Ok(Outcome::Granted(tallies)))),
            None => Box::pin(self.look(request)),
        }
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        if !self.leases() {
            return self.inner.settle(request);
        }
        if self.settle_here(request) { Box::pin(ready(Ok(()))) } else { Box::pin(self.settle_out(request)) }
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let forget = Forget { store: self, counter, subject };
            forget.now();
            self.inner.reset(counter, subject).await
        })
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        if !self.leases() {
            return self.inner.abandon(request);
        }
        // The units in flight, which no slice serves.
        let inner = request.charges.iter().filter(|settled| served_window(settled.charge, settled.at).is_none());
        let inner: SmallVec<[ChargeChange<'_>; 4]> = inner.copied().collect();
        if !inner.is_empty() {
            self.inner.abandon(&SettleRequest::new(request.id, request.step, request.now, &inner));
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for LeasedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedStore").field("inner", &self.inner).field("terms", &self.terms).finish_non_exhaustive()
    }
}
