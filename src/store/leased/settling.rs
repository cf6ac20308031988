//! Settlements: what goes back to a slice, what is taken from it, and what the inner store has to record.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::super::{
    AsyncCounterStore, ChargeChange, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
};
use super::call::{Served, complete};
use super::holding::{Holding, served_in, window_of_served};
use super::{Epoch, LeasedStore, Returns};
use crate::amount::Amount;
use crate::charge::{Charge, Charges, Meter, Span};
use crate::time::Timestamp;

impl<S: AsyncCounterStore> LeasedStore<S> {
    /// A settlement that slices alone do not carry out. The inner store's part comes first, so that one that fails changes nothing
    /// here and can be made again.
    pub(super) async fn settle_out(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let epoch = self.epoch();
        let mut taken = Taken { store: self, epoch, served: SmallVec::new() };
        let mut rest: SmallVec<[ChargeChange<'_>; 4]> = SmallVec::new();
        let mut more = Charges::new();
        let mut given: SmallVec<[(&ChargeChange<'_>, Timestamp); 4]> = SmallVec::new();
        for settled in request.charges {
            let Some(window) = window_of_served(settled.charge, settled.at) else {
                rest.push(*settled);
                continue;
            };
            match self.place(settled, window, request.now) {
                // Forgotten here, never at the inner store.
                Place::Unknown => rest.push(ChargeChange::new(settled.charge, window, settled.to)),
                Place::Passed => {}
                Place::Less => given.push((settled, window)),
                Place::Taken(amount) => taken.served.push(Served { charge: settled.charge, at: settled.at, amount }),
                Place::More(window, amount) => {
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
            self.table.with(charge.counter, &charge.subject, |holding| holding.changed(settled.at, charge.amount, to));
        }
        let mut excess = Returns::new();
        for (settled, window) in given {
            let charge = settled.charge;
            let amount = difference(settled.to, charge.amount);
            self.put_back(epoch, &Served { charge, at: served_in(window), amount });
            excess.extend(self.table.take(charge, Holding::excess).unwrap_or_default());
        }
        // What cannot be given back stays spent.
        let _ = self.return_all(&excess, request.now).await;
        Ok(())
    }

    /// Records at the inner store what calls have cost beyond their estimates and beyond what is held.
    async fn record(&self, epoch: Epoch, now: Timestamp, charges: &[Charge]) -> Result<(), StoreError> {
        let id = ReservationId::next();
        let outcome = self.inner.reserve(&ReserveRequest::new(id, now, charges)).await?;
        let Outcome::Granted(tallies) = complete(outcome, charges)? else {
            return Err(StoreError::unavailable("the store refused a charge that has no maximum"));
        };
        for (charge, tally) in charges.iter().zip(&tallies) {
            self.hold(epoch, charge, tally, now, |holding| {
                // In a later window nothing had to be recorded: there it is a slice like any other.
                let later = !matches!(charge.meter, Meter::Fixed(window) if window.start == tally.charged_at);
                if holding.note(tally, u64::MAX) {
                    holding.add(id, charge.amount, if later { charge.amount.micros() } else { 0 });
                }
            });
        }
        Ok(())
    }

    /// Where a charge that a slice has served is settled, and what more it needs, taken if it is there.
    fn place(&self, settled: &ChargeChange<'_>, window: Timestamp, now: Timestamp) -> Place {
        let (from, to) = (settled.charge.amount, settled.to);
        let place = self.table.with(settled.charge.counter, &settled.charge.subject, |holding| {
            let more = difference(from, to);
            match holding.window_start().cmp(&window) {
                Ordering::Less => Place::Unknown,
                Ordering::Greater => Place::Passed,
                Ordering::Equal if to <= from => Place::Less,
                Ordering::Equal if holding.room() >= more.micros() => {
                    holding.serve(more, now);
                    Place::Taken(more)
                }
                Ordering::Equal => Place::More(holding.window(), more),
            }
        });
        place.unwrap_or(Place::Unknown)
    }

    /// Carries out a settlement that only gives back to slices. Whether it was one.
    pub(super) fn settle_here(&self, request: &SettleRequest<'_>) -> bool {
        let charges = || request.charges.iter().enumerate();
        if !request.charges.iter().all(|settled| settled.to <= settled.charge.amount) {
            return false;
        }
        let mut locked = self.table.lock(request.charges.iter().map(|settled| settled.charge));
        let here = charges().all(|(index, settled)| {
            let window = window_of_served(settled.charge, settled.at);
            let holding = locked.find(index, settled.charge);
            let amount = difference(settled.to, settled.charge.amount);
            window.zip(holding).is_some_and(|(window, holding)| holding.keeps(window, amount))
        });
        if here {
            for (index, settled) in charges() {
                let window = window_of_served(settled.charge, settled.at);
                if let Some((window, holding)) = window.zip(locked.found(index)) {
                    holding.credit(window, difference(settled.to, settled.charge.amount));
                }
            }
        }
        here
    }
}

/// Puts amounts back into their slices, unless they are kept.
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

/// Where a charge that a slice has served is settled.
enum Place {
    /// Nothing is known of it here.
    Unknown,
    /// Its window is over.
    Passed,
    /// Something comes back to the slice.
    Less,
    /// It costs more, which the slice had.
    Taken(Amount),
    /// It costs more, in this window.
    More(Span, Amount),
}

/// What `to` is above `from`.
fn difference(from: Amount, to: Amount) -> Amount {
    Amount::from_micros(to.micros().saturating_sub(from.micros())).unwrap_or(Amount::ZERO)
}
