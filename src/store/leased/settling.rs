//! Settlements: amounts that return to slices, are taken from slices, or are recorded at the inner
//! store.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::super::{
    AsyncCounterStore, ChargeChange, ChargedAt, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
};
use super::call::{Served, complete};
use super::lease::{Lease, mark_served, served_window};
use super::{Epoch, LeasedStore, Returns};
use crate::amount::Amount;
use crate::charge::{Charge, Charges, Meter, Span};
use crate::time::Timestamp;

impl<S: AsyncCounterStore> LeasedStore<S> {
    /// Carries out a settlement that needs a request. The inner store's part comes first, so that
    /// one that fails changes nothing here and can be repeated.
    pub(super) async fn settle_out(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let epoch = self.epoch();
        let mut taken = Taken { store: self, epoch, served: SmallVec::new() };
        let mut rest: SmallVec<[ChargeChange<'_>; 4]> = SmallVec::new();
        let mut more = Charges::new();
        let mut given: SmallVec<[(&ChargeChange<'_>, ChargedAt); 4]> = SmallVec::new();
        for settled in request.charges {
            let Some(window) = served_window(settled.charge, settled.at) else {
                rest.push(*settled);
                continue;
            };
            match self.destination(settled, window, request.now) {
                // This node has forgotten it. The inner store has not.
                Destination::Unknown => rest.push(ChargeChange::new(settled.charge, window, settled.to)),
                Destination::Ended => {}
                Destination::Less => given.push((settled, window)),
                Destination::Taken(amount) => {
                    taken.served.push(Served { charge: settled.charge, at: settled.at, amount })
                }
                Destination::More(window, amount) => {
                    let (counter, subject) = (settled.charge.counter, settled.charge.subject.clone());
                    more.push(Charge { counter, subject, amount, max: None, meter: Meter::Fixed(window) });
                }
            }
        }
        if !rest.is_empty() {
            self.inner.settle(&SettleRequest::new(request.id, request.step, request.now, &rest)).await?;
        }
        if !more.is_empty() {
            self.record(epoch, request.now, &more).await?;
        }
        taken.served.clear();
        for settled in request.charges.iter().filter(|settled| matches!(settled.charge.meter, Meter::Fixed(_))) {
            let (charge, to) = (settled.charge, settled.to);
            self.table.with(charge.counter, &charge.subject, |lease| lease.changed(settled.at, charge.amount, to));
        }
        let mut excess = Returns::new();
        for (settled, window) in given {
            let charge = settled.charge;
            let amount = difference(settled.to, charge.amount);
            self.put_back(epoch, &Served { charge, at: mark_served(window), amount });
            excess.extend(self.table.take(charge, Lease::excess).unwrap_or_default());
        }
        // What cannot be returned stays charged.
        let _ = self.return_all(&excess, request.now).await;
        Ok(())
    }

    /// Records at the inner store what calls cost beyond their estimates, as far as slices did not
    /// cover it.
    async fn record(&self, epoch: Epoch, now: Timestamp, charges: &[Charge]) -> Result<(), StoreError> {
        let id = ReservationId::next();
        let outcome = self.inner.reserve(&ReserveRequest::new(id, now, charges)).await?;
        let Outcome::Granted(tallies) = complete(outcome, charges)? else {
            return Err(StoreError::unavailable("the store refused a charge that has no maximum"));
        };
        for (charge, tally) in charges.iter().zip(&tallies) {
            self.hold(epoch, charge, tally, now, |lease| {
                // If it went to a later window, nothing had to be recorded there, so it is a slice
                // like any other.
                let later = !matches!(charge.meter, Meter::Fixed(window) if window.start == tally.charged_at.instant);
                if lease.note(tally, u64::MAX) {
                    lease.add(id, charge.amount, if later { charge.amount.micros() } else { 0 });
                }
            });
        }
        Ok(())
    }

    /// Returns where a charge that a slice served is settled. If it needs more, takes it from the
    /// slice if that covers it.
    fn destination(&self, settled: &ChargeChange<'_>, window: ChargedAt, now: Timestamp) -> Destination {
        let (from, to) = (settled.charge.amount, settled.to);
        let destination = self.table.with(settled.charge.counter, &settled.charge.subject, |lease| {
            let more = difference(from, to);
            match lease.window_start().cmp(&window.instant) {
                Ordering::Less => Destination::Unknown,
                Ordering::Greater => Destination::Ended,
                // The inner store knows which generation is the present one.
                Ordering::Equal if !lease.is_of(window) => Destination::Unknown,
                Ordering::Equal if to <= from => Destination::Less,
                Ordering::Equal if lease.left() >= more.micros() => {
                    lease.serve(more, now);
                    Destination::Taken(more)
                }
                Ordering::Equal => Destination::More(lease.window(), more),
            }
        });
        destination.unwrap_or(Destination::Unknown)
    }

    /// Carries out a settlement that only returns amounts to slices. Returns whether it was one.
    pub(super) fn settle_here(&self, request: &SettleRequest<'_>) -> bool {
        let charges = || request.charges.iter().enumerate();
        if !request.charges.iter().all(|settled| settled.to <= settled.charge.amount) {
            return false;
        }
        let mut locked = self.table.lock(request.charges.iter().map(|settled| settled.charge));
        let here = charges().all(|(index, settled)| {
            let window = served_window(settled.charge, settled.at);
            let lease = locked.find(index, settled.charge);
            let amount = difference(settled.to, settled.charge.amount);
            window.zip(lease).is_some_and(|(window, lease)| lease.keeps(window, amount))
        });
        if here {
            for (index, settled) in charges() {
                let window = served_window(settled.charge, settled.at);
                if let Some((window, lease)) = window.zip(locked.found(index)) {
                    lease.credit(window, difference(settled.to, settled.charge.amount));
                }
            }
        }
        here
    }
}

/// Amounts that were taken from slices. They are put back when this is dropped.
struct Taken<'s, S> {
    store: &'s LeasedStore<S>,
    epoch: Epoch,
    served: SmallVec<[Served<'s>; 4]>,
}

impl<S> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        for served in &self.served {
            self.store.put_back(self.epoch, served);
        }
    }
}

/// The place where a charge that a slice served is settled.
enum Destination {
    /// The inner store: this node does not know the window.
    Unknown,
    /// Nowhere: its window has ended.
    Ended,
    /// The slice, which gets an amount back.
    Less,
    /// The slice, which had the additional amount.
    Taken(Amount),
    /// The inner store, which has to record an additional amount in this window.
    More(Span, Amount),
}

/// Returns how much larger `to` is than `from`, or zero.
fn difference(from: Amount, to: Amount) -> Amount {
    Amount::from_micros(to.micros().saturating_sub(from.micros())).unwrap_or(Amount::ZERO)
}
