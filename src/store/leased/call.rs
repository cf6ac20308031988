//! A call that slices do not serve completely, between its request and its answer.

use smallvec::SmallVec;

use super::super::{ChargedAt, Outcome, ReservationId, ReserveRequest, StoreError, Tallies, Tally};
use super::lease::{Lease, can_be_leased, mark_served};
use super::{Epoch, LeasedStore, Returns};
use crate::amount::Amount;
use crate::charge::{Charge, Charges, Meter, Span};

/// A call that slices do not serve completely. If it is dropped before it is granted, it puts back
/// what it took from slices.
pub(super) struct Call<'r, S> {
    store: &'r LeasedStore<S>,
    request: &'r ReserveRequest<'r>,
    epoch: Epoch,
    parts: SmallVec<[Part; 4]>,
    granted: bool,
}

/// One charge of a call.
enum Part {
    /// Served from a slice.
    Served(Tally),
    Unserved(Unserved),
}

#[derive(Clone, Copy, Default)]
struct Unserved {
    /// The size of the slice to request, if it is larger than the charge.
    slice: Option<Amount>,
    /// The rest of slices that do not serve it: too little, or reserved under a larger maximum.
    left: u64,
    /// The charge may fit while that is in the counter.
    may_fit: bool,
    revision: u64,
}

impl<'r, S> Call<'r, S> {
    /// Serves the charges that slices cover.
    pub(super) fn begin(store: &'r LeasedStore<S>, request: &'r ReserveRequest<'r>) -> Self {
        let epoch = store.epoch();
        // If a charge has another meter, the reservation keeps the id of the call, so that
        // settlements of the call reach it.
        let leasable = request.charges.iter().all(|charge| can_be_leased(&charge.meter));
        let mut locked = store.table.lock(request.charges.iter());
        let mut take = |index, charge: &Charge| {
            let Meter::Fixed(asked) = charge.meter else { return Part::Unserved(Unserved::default()) };
            let Some(lease) = locked.find(index, charge) else { return Part::Unserved(Unserved::default()) };
            if lease.covers(charge, asked) {
                return Part::Served(lease.serve(charge.amount, request.now));
            }
            let slice = if leasable { lease.begin_request(charge, asked, request.now, &store.terms) } else { None };
            let left = if asked.start <= lease.window_start() { lease.left() } else { 0 };
            let may_fit = leasable && lease.may_fit(charge);
            Part::Unserved(Unserved { slice, left, may_fit, revision: lease.revision() })
        };
        let parts = request.charges.iter().enumerate().map(|(index, charge)| take(index, charge)).collect();
        Self { store, request, epoch, parts, granted: false }
    }

    fn unserved_parts(&self) -> impl Iterator<Item = (&'r Charge, &Unserved)> {
        self.request.charges.iter().zip(&self.parts).filter_map(|(charge, part)| match part {
            Part::Unserved(unserved) => Some((charge, unserved)),
            Part::Served(_) => None,
        })
    }

    /// Returns the charges of a request for slices: larger than the call needs, or as large if
    /// something is left, so that it need not be returned first. Returns `None` if the call should
    /// be charged as it is.
    pub(super) fn slices(&self) -> Option<Charges> {
        let wants = |unserved: &Unserved| unserved.slice.is_some() || (unserved.left > 0 && unserved.may_fit);
        if !self.unserved_parts().any(|(_, unserved)| wants(unserved)) {
            return None;
        }
        let sized = |charge: &Charge, slice: Option<Amount>| Charge {
            amount: slice.map_or(charge.amount, |slice| slice.max(charge.amount)),
            ..charge.clone()
        };
        Some(self.unserved_parts().map(|(charge, unserved)| sized(charge, unserved.slice)).collect())
    }

    /// Returns the charges that no slice serves, or `None` if no slice serves any.
    pub(super) fn unserved_charges(&self) -> Option<Charges> {
        let all = self.parts.iter().all(|part| matches!(part, Part::Unserved(_)));
        (!all).then(|| self.unserved_parts().map(|(charge, _)| charge.clone()).collect())
    }

    /// Takes what is left of the counters of unserved charges, to return it: these counters are so
    /// full that it matters.
    pub(super) fn take_left(&self) -> Returns {
        let parts = self.unserved_parts().filter(|(_, unserved)| unserved.left > 0);
        parts.filter_map(|(charge, _)| self.store.table.take(charge, Lease::left)).flatten().collect()
    }

    /// Serves the call from slices that were granted, and keeps the rest of them.
    pub(super) fn sliced(mut self, id: ReservationId, slices: &[Charge], tallies: &Tallies) -> Outcome {
        let mut granted = slices.iter().zip(tallies);
        let unserved = |charge: &Charge, unserved: &Unserved| {
            let (slice, tally) = granted.next()?;
            let left = slice.amount.micros().saturating_sub(charge.amount.micros());
            let held = self.store.hold(self.epoch, charge, tally, self.request.now, |lease| {
                let latest = lease.note(tally, unserved.revision);
                latest.then(|| {
                    lease.add(id, slice.amount, left);
                    lease.tally()
                })
            });
            // If the rest cannot be kept, it stays charged.
            Some(held.flatten().unwrap_or(Tally { charged_at: mark_served(tally.charged_at), ..*tally }))
        };
        let tallies = self.tallies(unserved, |_, tally| *tally);
        self.granted = true;
        Outcome::Granted(tallies)
    }

    /// Grants the call after the inner store made its charges as they are.
    pub(super) fn passed(mut self, tallies: &Tallies) -> Outcome {
        let leasable = self.request.charges.iter().all(|charge| can_be_leased(&charge.meter));
        let mut made = tallies.iter();
        let unserved = |charge: &Charge, unserved: &Unserved| {
            let tally = made.next()?;
            let note = |lease: &mut Lease| {
                if lease.note(tally, unserved.revision) { lease.left() } else { 0 }
            };
            let (table, now) = (&self.store.table, self.request.now);
            let left = match charge.meter {
                Meter::Fixed(_) if leasable => self.store.hold(self.epoch, charge, tally, now, note),
                Meter::Fixed(_) => table.with(charge.counter, &charge.subject, note),
                _ => None,
            };
            Some(less(tally, left.unwrap_or(0)))
        };
        let tallies = self.tallies(unserved, |_, tally| *tally);
        self.granted = true;
        Outcome::Granted(tallies)
    }

    /// Notes the tallies of counters that have no room for slices. Returns whether they have room
    /// for the call as it is after what is left of them is returned.
    pub(super) fn refused_slices(&mut self, tallies: &Tallies) -> bool {
        let tallies = self.note_refused(tallies);
        self.request.charges.iter().zip(&self.parts).zip(&tallies).all(|((charge, part), tally)| match part {
            Part::Unserved(_) => tally.has_room(charge),
            Part::Served(_) => true,
        })
    }

    /// Refuses the call. What slices served of it is put back when it is dropped.
    pub(super) fn refused(self, tallies: &Tallies) -> Outcome {
        Outcome::Refused(self.note_refused(tallies))
    }

    /// Notes the tallies of a refusal, and returns those of all charges without the call.
    fn note_refused(&self, tallies: &Tallies) -> Tallies {
        let mut answered = tallies.iter();
        let unserved = |charge: &Charge, unserved: &Unserved| {
            let tally = answered.next()?;
            let note = |lease: &mut Lease| {
                lease.note_refused(tally, unserved.revision);
                if lease.is_of(tally.charged_at) { lease.left() } else { 0 }
            };
            let left = match charge.meter {
                Meter::Fixed(_) => self.store.table.with(charge.counter, &charge.subject, note),
                _ => None,
            };
            Some(less(tally, left.unwrap_or(0)))
        };
        self.tallies(unserved, |charge, tally| less(tally, charge.amount.micros()))
    }

    /// Notes that a request failed, so what it asked for may be spent.
    pub(super) fn reset_target(&self) {
        for (charge, _) in self.unserved_parts() {
            self.store.table.with(charge.counter, &charge.subject, Lease::reset_target);
        }
    }

    /// Returns a tally for each charge, in order. If a store has left one out, there are fewer,
    /// which the gate rejects.
    fn tallies(
        &self,
        mut unserved: impl FnMut(&Charge, &Unserved) -> Option<Tally>,
        served: impl Fn(&Charge, &Tally) -> Tally,
    ) -> Tallies {
        let parts = self.request.charges.iter().zip(&self.parts);
        parts
            .filter_map(|(charge, part)| match part {
                Part::Served(tally) => Some(served(charge, tally)),
                Part::Unserved(found) => unserved(charge, found),
            })
            .collect()
    }
}

impl<S> Drop for Call<'_, S> {
    fn drop(&mut self) {
        for (charge, part) in self.request.charges.iter().zip(&self.parts) {
            match part {
                Part::Served(tally) if !self.granted => {
                    let served = Served { charge, at: tally.charged_at, amount: charge.amount };
                    self.store.put_back(self.epoch, &served);
                }
                Part::Unserved(Unserved { slice: Some(_), .. }) => {
                    self.store.table.with(charge.counter, &charge.subject, Lease::end_request);
                }
                _ => {}
            }
        }
    }
}

/// An amount that a slice served.
pub(super) struct Served<'c> {
    pub(super) charge: &'c Charge,
    /// The instant that [`mark_served`] returned.
    pub(super) at: ChargedAt,
    pub(super) amount: Amount,
}

/// Returns a tally without the amount that this node has reserved and not served.
pub(super) fn less(tally: &Tally, micros: u64) -> Tally {
    let used = crate::amount::Total::from_micros(tally.used.micros().saturating_sub(micros));
    Tally { used, ..*tally }
}

/// Returns the window in which the inner store made a charge.
pub(super) fn window_of(tally: &Tally) -> Span {
    Span { start: tally.charged_at.instant, end: tally.resets_at }
}

/// Returns an answer if it has a tally for each charge; others cannot be trusted.
pub(super) fn complete(outcome: Outcome, charges: &[Charge]) -> Result<Outcome, StoreError> {
    if outcome.tallies().len() == charges.len() { Ok(outcome) } else { Err(StoreError::incomplete()) }
}
