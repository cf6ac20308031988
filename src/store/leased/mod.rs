//! The step past one round trip: a node takes a slice of a remote counter in advance, and serves from it.

mod call;
mod holding;
mod settling;
mod table;

use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::{
    AsyncCounterStore, ChargeChange, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError, StoreFuture,
    Tallies, Tally,
};
use crate::amount::Total;
use crate::charge::{Charge, Charges, CounterId, Meter, Subject};
use crate::time::Timestamp;
use call::{Call, Served, complete, less, window_of};
use holding::{Holding, Returned, Terms, can_be_leased, window_of_served};
use table::Table;

/// So many charges are served without a list of places.
const FEW: usize = 4;

/// Serves most calls in the process, from slices of the counters of a store across a network.
///
/// A slice is an ordinary reservation at the inner store, of more than one call needs. Calls are served from it with one short
/// lock and no request, and what was not used is given back. It is for counters that many calls meet: at 1,000 calls a second
/// under a large maximum, under one call in a hundred makes a request.
///
/// # What it keeps
/// * **Never more.** All that a node serves was reserved at the inner store first, under a maximum no larger than the call's.
///   Over all nodes, no more is admitted than the maximum, whatever crashes and whichever requests fail.
/// * **All or none**, over charges that slices serve and such that they do not. A refused call burns nothing.
/// * **No refusal of its own.** A call is refused when the inner store has no room for it after this node has given back what it
///   held of the counters that the call lacked. So a refusal comes too early by no more than what *other* nodes hold and have not
///   served.
///
/// # What it costs
/// * A node holds at most one slice of a counter and what calls have released, less than three slices in all. A slice is at most
///   [one part in 16](Self::with_share) of the room that was left at the inner store's last word, so slices shrink as the counter
///   fills, and at most [1,024 times](Self::with_calls) the amount of the call that asked for it. It is meant to last a second: a
///   counter that is met less often is not leased, one that is met more often is leased in slices of twice the size, step by step.
/// * **A crashed node's slice is lost until its window ends.** Nobody knows how much of it was served, so all of it stays spent.
///   For a window of a day that can be a sixteenth of the day's maximum. The same holds for a slice whose request failed or was
///   dropped midway. A slice never outlives its window: nothing of it is served for the next.
/// * [`Tally::used`] of a call that a slice serves is what the inner store held at its last word to this node, less what the node
///   has not served of it. With one node it is exact. With several it counts their slices as used, and lacks what they have
///   reserved since.
/// * Limits of one counter may have different maxima. A slice was counted when it was reserved: one that was taken while the
///   counter held 20 serves calls up to a maximum of 20 or more, though others have filled the counter further since.
/// * A call that settles at more than its estimate takes the difference from the slice, or records it at the inner store.
/// * [`reset`](AsyncCounterStore::reset) forgets this node's slices of the counter. Other nodes serve what they hold of it until
///   they next ask; have them [give back](Self::give_back) first where that matters.
///
/// Only charges of fixed windows are served from slices. A call with another charge (sliding, token bucket, in flight) makes
/// one request, for all that slices do not serve.
///
/// What a slice has served bears in [`Tally::charged_at`] the microsecond after the start of its window; by that a settlement knows
/// where it belongs. It must be settled at the store that served it.
///
/// There is no background thread. A slice that has not been used for [five seconds](Self::with_idle) goes back at a later call that
/// makes a request anyway, a counter at a time; before a shutdown, or where calls may cease, [`give_back`](Self::give_back).
///
/// ```
/// use toolgate::store::{InProcess, LeasedStore, MemoryStore};
/// use toolgate::Gate;
///
/// // In place of a store across a network.
/// let remote = InProcess(MemoryStore::new());
/// let gate = Gate::builder().store(LeasedStore::new(remote).with_share(32)).build();
/// assert!(gate.store().is_empty());
/// ```
pub struct LeasedStore<S> {
    inner: S,
    table: Table,
    terms: Terms,
    /// How often a counter was reset. What was asked before a reset is not held after it.
    resets: AtomicU64,
    /// The settlements of slices. One sequence for all, for several counters may share a reservation.
    next_step: AtomicU32,
}

/// How many resets there were when something was asked.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Epoch(u64);

type Returns = SmallVec<[Returned; 2]>;

impl<S> LeasedStore<S> {
    /// Leases the counters of `inner`.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            table: Table::new(65_536),
            terms: Terms { share: 16, calls: 1_024, idle: Duration::from_secs(5) },
            resets: AtomicU64::new(0),
            next_step: AtomicU32::new(1),
        }
    }

    /// Lets a slice be at most one part in `parts` of the room that is left (16 at first). The more nodes, the more parts: what
    /// they all hold can be refused too early.
    #[must_use = "the store is changed by value"]
    pub fn with_share(mut self, parts: u32) -> Self {
        self.terms.share = parts.max(1);
        self
    }

    /// Lets a slice be at most so many times the amount of the call that asks for it (1,024 at first). With 1 or less nothing is
    /// leased, and every call goes to the inner store.
    #[must_use = "the store is changed by value"]
    pub fn with_calls(mut self, calls: u32) -> Self {
        self.terms.calls = calls;
        self
    }

    /// Gives back what has not been used for so long (five seconds at first).
    #[must_use = "the store is changed by value"]
    pub fn with_idle(mut self, idle: Duration) -> Self {
        self.terms.idle = idle;
        self
    }

    /// Holds at most so many counters (65,536 at first), some 350 bytes each. Calls of others go to the inner store.
    #[must_use = "the store is changed by value"]
    pub fn with_capacity(mut self, counters: usize) -> Self {
        self.table.capacity = counters;
        self
    }

    /// The store whose counters are leased.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many counters this node knows of.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether this node knows of no counter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leases(&self) -> bool {
        self.terms.calls > 1 && self.table.capacity > 0
    }

    /// Charges a call if slices serve all of it: no request, and nothing allocated (up to four charges). None if they do not;
    /// nothing is charged then, and [`reserve`](AsyncCounterStore::reserve) asks. O(charges).
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
        if request.charges.len() <= FEW && request.charges.iter().all(|charge| charge.subject == first.subject) {
            return self.serve_one(request, &first.subject, commit);
        }
        let mut locked = self.table.lock(request.charges.iter());
        let mut tallies = Tallies::new();
        for (index, charge) in request.charges.iter().enumerate() {
            let Meter::Fixed(asked) = charge.meter else { return None };
            let holding = locked.find(index, charge).filter(|holding| holding.covers(charge, asked))?;
            tallies.push(holding.tally());
        }
        if commit {
            for (index, (charge, tally)) in request.charges.iter().zip(&mut tallies).enumerate() {
                *tally = locked.found(index)?.serve(charge.amount, request.now);
            }
        }
        Some(tallies)
    }

    /// The common case: a few counters of one subject. One hash, one lock, no list of places.
    #[inline]
    fn serve_one(&self, request: &ReserveRequest<'_>, subject: &Subject, commit: bool) -> Option<Tallies> {
        let mut locked = self.table.lock_one(subject)?;
        let mut places = [0; FEW];
        let mut tallies = Tallies::new();
        for (charge, place) in request.charges.iter().zip(&mut places) {
            let Meter::Fixed(asked) = charge.meter else { return None };
            *place = locked.find(charge)?;
            let holding = locked.found(*place).filter(|holding| holding.covers(charge, asked))?;
            tallies.push(holding.tally());
        }
        if commit {
            for ((charge, tally), place) in request.charges.iter().zip(&mut tallies).zip(places) {
                *tally = locked.found(place)?.serve(charge.amount, request.now);
            }
        }
        Some(tallies)
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.resets.load(Ordering::SeqCst))
    }

    /// Does something to the holding of a charge that the inner store has made, and begins one if there is none; nothing if a
    /// counter was reset since it was asked, or if nothing can be leased.
    fn hold<T>(
        &self,
        epoch: Epoch,
        charge: &Charge,
        tally: &Tally,
        now: Timestamp,
        change: impl FnOnce(&mut Holding) -> T,
    ) -> Option<T> {
        let window = window_of(tally);
        if !self.leases() || !can_be_leased(&Meter::Fixed(window)) || self.epoch() != epoch {
            return None;
        }
        // Again with the shard locked: a reset counts itself first, and removes then.
        self.table.with_new(charge, window, now, |holding| (self.epoch() == epoch).then(|| change(holding)))?
    }

    /// Puts back what was served to nobody in the end.
    fn put_back(&self, epoch: Epoch, served: &Served<'_>) {
        let Some(window) = window_of_served(served.charge, served.at) else { return };
        self.table.with(served.charge.counter, &served.charge.subject, |holding| {
            if self.epoch() == epoch {
                holding.credit(window, served.amount);
            }
        });
    }
}

/// Forgets a counter before its reset and after it, also if that fails or is dropped midway.
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
    /// Gives back everything that is not served, for a shutdown that loses nothing. One request for each slice, one after another;
    /// calls meanwhile may take new ones.
    ///
    /// # Errors
    /// Of the first request that failed; the others were made nevertheless. What could not be given back stays spent until its
    /// window ends. So does, of a future that is dropped midway, the slice that was on its way.
    pub async fn give_back(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut failed = Ok(());
        for shard in self.table.shards() {
            for charge in self.table.holders(shard) {
                let returns = self.table.take(&charge, Holding::room).unwrap_or_default();
                failed = failed.and(self.return_all(&returns, now).await);
            }
        }
        failed
    }

    async fn return_all(&self, returns: &[Returned], now: Timestamp) -> Result<(), StoreError> {
        let mut failed = Ok(());
        for returned in returns {
            let step = self.next_step.fetch_add(1, Ordering::Relaxed);
            let charges = [returned.settled()];
            failed = failed.and(self.inner.settle(&SettleRequest::new(returned.id, step, now, &charges)).await);
        }
        failed
    }

    /// A call that slices do not serve.
    async fn ask(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        if let Some(charge) = request.charges.first() {
            // Before anything is charged, so that a future that is dropped here has charged nothing. What fails stays spent.
            let idle = self.table.sweep(&charge.subject, request.now, &self.terms);
            let _ = self.return_all(&idle, request.now).await;
        }
        let mut call = Call::begin(self, request);
        if let Some(slices) = call.slices() {
            let id = ReservationId::next();
            let slice = ReserveRequest::new(id, request.now, &slices);
            match self.inner.reserve(&slice).await.and_then(|outcome| complete(outcome, &slices)) {
                Ok(Outcome::Granted(tallies)) => return Ok(call.sliced(id, &slices, &tallies)),
                Ok(Outcome::Refused(tallies)) => {
                    if !call.refused_slices(&tallies) {
                        return Ok(call.refused(&tallies));
                    }
                }
                Err(error) => {
                    call.starve();
                    return Err(error);
                }
            }
        }
        // The call as it is, with nothing held that could stand in its way.
        let held = call.held_back();
        let _ = self.return_all(&held, request.now).await;
        let some = call.unserved();
        let charges = some.as_deref().unwrap_or(request.charges);
        if charges.is_empty() {
            return Ok(call.passed(&Tallies::new()));
        }
        let whole = ReserveRequest::new(request.id, request.now, charges);
        match complete(self.inner.reserve(&whole).await?, charges)? {
            Outcome::Granted(tallies) => Ok(call.passed(&tallies)),
            Outcome::Refused(tallies) => Ok(call.refused(&tallies)),
        }
    }

    /// A look that slices do not answer: at the inner store, with what is held here taken for room.
    async fn look(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let mut asked = Charges::new();
        // Of each charge: how it stands, if a slice has room; else what is held of it, and of which window.
        let found: SmallVec<[Result<Tally, (u64, Timestamp)>; 4]> = {
            let mut locked = self.table.lock(request.charges.iter());
            let mut look = |index, charge: &Charge| {
                let Meter::Fixed(window) = charge.meter else { return Err((0, Timestamp::MIN)) };
                let Some(holding) = locked.find(index, charge) else { return Err((0, Timestamp::MIN)) };
                if holding.covers(charge, window) {
                    return Ok(holding.tally());
                }
                Err((holding.room(), holding.window_start()))
            };
            request.charges.iter().enumerate().map(|(index, charge)| look(index, charge)).collect()
        };
        for (charge, found) in request.charges.iter().zip(&found) {
            match found {
                Ok(_) => {}
                // How it stands is all that is asked: whether there is room is seen when what is held is taken off.
                Err((room, _)) if *room > 0 => asked.push(Charge { max: None, ..charge.clone() }),
                Err(_) => asked.push(charge.clone()),
            }
        }
        let outcome = self.inner.peek(&ReserveRequest::new(request.id, request.now, &asked)).await?;
        let outcome = complete(outcome, &asked)?;
        let mut granted = matches!(outcome, Outcome::Granted(_));
        let mut said = outcome.tallies().iter();
        let mut tallies = Tallies::new();
        for (charge, found) in request.charges.iter().zip(found) {
            let tally = match (found, charge.meter) {
                (Ok(tally), _) => tally,
                (Err((room, window)), Meter::Fixed(_)) if room > 0 => {
                    let Some(tally) = said.next() else { return Err(StoreError::incomplete()) };
                    let tally = if window == tally.charged_at { less(tally, room) } else { *tally };
                    granted &= tally.has_room(charge);
                    // No window has room for some.
                    let ever = charge.max.is_none_or(|max| Total::ZERO.has_room(charge.amount, max));
                    Tally { retry_at: ever.then_some(tally.resets_at), ..tally }
                }
                _ => {
                    let Some(tally) = said.next() else { return Err(StoreError::incomplete()) };
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
        // What is in flight, which no slice serves.
        let inner = request.charges.iter().filter(|settled| window_of_served(settled.charge, settled.at).is_none());
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
