//! A call between its request and its answer: what slices serve of it, and what they lack.

use smallvec::SmallVec;

use super::super::{Outcome, ReservationId, ReserveRequest, StoreError, Tallies, Tally};
use super::holding::{Holding, can_be_leased, served_in};
use super::{Epoch, LeasedStore, Returns};
use crate::amount::Amount;
use crate::charge::{Charge, Charges, Meter, Span};
use crate::time::Timestamp;

/// A call that slices alone do not serve. Dropped before it was granted, it puts back what it took from them.
pub(super) struct Call<'r, S> {
    store: &'r LeasedStore<S>,
    request: &'r ReserveRequest<'r>,
    epoch: Epoch,
    parts: SmallVec<[Part; 4]>,
    granted: bool,
}

/// One charge of it.
enum Part {
    /// Taken from a slice.
    Served(Tally),
    Lacking(Lacking),
}

#[derive(Clone, Copy, Default)]
struct Lacking {
    /// The slice to ask for, if it should be larger than the charge.
    slice: Option<Amount>,
    /// What is held and does not serve it: too little, or counted under a larger maximum.
    room: u64,
    /// Whether the charge may fit with that in the counter.
    may_fit: bool,
    words: u64,
}

impl<'r, S> Call<'r, S> {
    /// Takes what slices cover.
    pub(super) fn begin(store: &'r LeasedStore<S>, request: &'r ReserveRequest<'r>) -> Self {
        let epoch = store.epoch();
        // A reservation that another meter has a charge in keeps the call's own id, so that the call's own settlements reach it.
        let leasable = request.charges.iter().all(|charge| can_be_leased(&charge.meter));
        let mut locked = store.table.lock(request.charges.iter());
        let mut take = |index, charge: &Charge| {
            let Meter::Fixed(asked) = charge.meter else { return Part::Lacking(Lacking::default()) };
            let Some(holding) = locked.find(index, charge) else { return Part::Lacking(Lacking::default()) };
            if holding.covers(charge, asked) {
                return Part::Served(holding.serve(charge.amount, request.now));
            }
            let slice = if leasable { holding.ask(charge, asked, request.now, &store.terms) } else { None };
            let room = if asked.start <= holding.window_start() { holding.room() } else { 0 };
            let may_fit = leasable && holding.may_fit(charge);
            Part::Lacking(Lacking { slice, room, may_fit, words: holding.words() })
        };
        let parts = request.charges.iter().enumerate().map(|(index, charge)| take(index, charge)).collect();
        Self { store, request, epoch, parts, granted: false }
    }

    fn lacking(&self) -> impl Iterator<Item = (&'r Charge, &Lacking)> {
        self.request.charges.iter().zip(&self.parts).filter_map(|(charge, part)| match part {
            Part::Lacking(lacking) => Some((charge, lacking)),
            Part::Served(_) => None,
        })
    }

    /// The charges that a slice would be taken with: larger than the call needs, or as large while something is held, so that the
    /// rest of it need not go back first. None if the call should be charged as it is.
    pub(super) fn slices(&self) -> Option<Charges> {
        let wants = |lacking: &Lacking| lacking.slice.is_some() || (lacking.room > 0 && lacking.may_fit);
        if !self.lacking().any(|(_, lacking)| wants(lacking)) {
            return None;
        }
        let sized = |charge: &Charge, slice: Option<Amount>| Charge {
            amount: slice.map_or(charge.amount, |slice| slice.max(charge.amount)),
            ..charge.clone()
        };
        Some(self.lacking().map(|(charge, lacking)| sized(charge, lacking.slice)).collect())
    }

    /// The charges that no slice serves, as they are. None if they are all.
    pub(super) fn unserved(&self) -> Option<Charges> {
        let all = self.parts.iter().all(|part| matches!(part, Part::Lacking(_)));
        (!all).then(|| self.lacking().map(|(charge, _)| charge.clone()).collect())
    }

    /// What is held of the counters that lack room goes back: the counters are full enough that it counts.
    pub(super) fn held_back(&self) -> Returns {
        let held = self.lacking().filter(|(_, lacking)| lacking.room > 0);
        held.filter_map(|(charge, _)| self.store.table.take(charge, Holding::room)).flatten().collect()
    }

    /// The slices were granted: the call is served from them, and the rest stays.
    pub(super) fn sliced(mut self, id: ReservationId, slices: &[Charge], tallies: &Tallies) -> Outcome {
        let mut granted = slices.iter().zip(tallies);
        let lacking = |charge: &Charge, lacking: &Lacking| {
            let (slice, tally) = granted.next()?;
            let left = slice.amount.micros().saturating_sub(charge.amount.micros());
            let held = self.store.hold(self.epoch, charge, tally, self.request.now, |holding| {
                let latest = holding.note(tally, lacking.words);
                latest.then(|| {
                    holding.add(id, slice.amount, left);
                    holding.tally()
                })
            });
            // Without a place for the rest, it stays spent.
            Some(held.flatten().unwrap_or(Tally { charged_at: served_in(tally.charged_at), ..*tally }))
        };
        let tallies = self.tallies(lacking, |_, tally| *tally);
        self.granted = true;
        Outcome::Granted(tallies)
    }

    /// The charges were made as they are.
    pub(super) fn passed(mut self, tallies: &Tallies) -> Outcome {
        let leasable = self.request.charges.iter().all(|charge| can_be_leased(&charge.meter));
        let mut made = tallies.iter();
        let lacking = |charge: &Charge, lacking: &Lacking| {
            let tally = made.next()?;
            let note = |holding: &mut Holding| {
                if holding.note(tally, lacking.words) { holding.room() } else { 0 }
            };
            let (table, now) = (&self.store.table, self.request.now);
            let room = match charge.meter {
                Meter::Fixed(_) if leasable => self.store.hold(self.epoch, charge, tally, now, note),
                Meter::Fixed(_) => table.with(charge.counter, &charge.subject, note),
                _ => None,
            };
            Some(less(tally, room.unwrap_or(0)))
        };
        let tallies = self.tallies(lacking, |_, tally| *tally);
        self.granted = true;
        Outcome::Granted(tallies)
    }

    /// Notes how the counters stand that have no room for slices. Whether they have room for the call as it is, once what is held
    /// of them is given back.
    pub(super) fn refused_slices(&mut self, tallies: &Tallies) -> bool {
        let tallies = self.stand(tallies);
        self.request.charges.iter().zip(&self.parts).zip(&tallies).all(|((charge, part), tally)| match part {
            Part::Lacking(_) => tally.has_room(charge),
            Part::Served(_) => true,
        })
    }

    /// The call is refused, and what was taken for it goes back where it came from.
    pub(super) fn refused(self, tallies: &Tallies) -> Outcome {
        Outcome::Refused(self.stand(tallies))
    }

    /// How the counters stand without the call, after a refusal.
    fn stand(&self, tallies: &Tallies) -> Tallies {
        let mut said = tallies.iter();
        let lacking = |charge: &Charge, lacking: &Lacking| {
            let tally = said.next()?;
            let note = |holding: &mut Holding| {
                holding.note_refused(tally, lacking.words);
                if holding.window_start() == tally.charged_at { holding.room() } else { 0 }
            };
            let room = match charge.meter {
                Meter::Fixed(_) => self.store.table.with(charge.counter, &charge.subject, note),
                _ => None,
            };
            Some(less(tally, room.unwrap_or(0)))
        };
        self.tallies(lacking, |charge, tally| less(tally, charge.amount.micros()))
    }

    /// A request failed: what it asked for may be spent.
    pub(super) fn starve(&self) {
        for (charge, _) in self.lacking() {
            self.store.table.with(charge.counter, &charge.subject, Holding::starve);
        }
    }

    /// A tally for each charge, in order. (One less, where a store has left one out: the gate does not believe it.)
    fn tallies(
        &self,
        mut lacking: impl FnMut(&Charge, &Lacking) -> Option<Tally>,
        served: impl Fn(&Charge, &Tally) -> Tally,
    ) -> Tallies {
        let parts = self.request.charges.iter().zip(&self.parts);
        parts
            .filter_map(|(charge, part)| match part {
                Part::Served(tally) => Some(served(charge, tally)),
                Part::Lacking(found) => lacking(charge, found),
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
                Part::Lacking(Lacking { slice: Some(_), .. }) => {
                    self.store.table.with(charge.counter, &charge.subject, Holding::asked);
                }
                _ => {}
            }
        }
    }
}

/// An amount that was served from a slice.
pub(super) struct Served<'c> {
    pub(super) charge: &'c Charge,
    /// Where, as [`served_in`] says.
    pub(super) at: Timestamp,
    pub(super) amount: Amount,
}

/// A tally without what this node holds and has not served.
pub(super) fn less(tally: &Tally, micros: u64) -> Tally {
    let used = crate::amount::Total::from_micros(tally.used.micros().saturating_sub(micros));
    Tally { used, ..*tally }
}

/// The window that the inner store says a charge was made in.
pub(super) fn window_of(tally: &Tally) -> Span {
    Span { start: tally.charged_at, end: tally.resets_at }
}

/// An answer that has a tally for each charge. One that leaves some out cannot be believed.
pub(super) fn complete(outcome: Outcome, charges: &[Charge]) -> Result<Outcome, StoreError> {
    if outcome.tallies().len() == charges.len() { Ok(outcome) } else { Err(StoreError::incomplete()) }
}
