//! The requests to a store and its answers: plain data.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::{Deref, DerefMut};
use std::slice;

use smallvec::SmallVec;

use crate::amount::{Amount, Total};
use crate::charge::{Asker, Charge, Meter};
use crate::time::Timestamp;

/// The identity of a reservation, unique among all processes that share a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(u128);

impl ReservationId {
    /// Makes an id from a number.
    pub const fn new(id: u128) -> Self {
        Self(id)
    }

    /// Makes an id that no other reservation has: the low half counts the reservations of the
    /// thread, the high half is drawn at random for each thread. (A counter that threads share
    /// costs as much as a table lookup.)
    #[inline]
    pub(crate) fn next() -> Self {
        thread_local!(static LAST: Cell<(u64, u64)> = const { Cell::new((0, u64::MAX)) });
        let (origin, last) = LAST.get();
        let (origin, number) = match last.checked_add(1) {
            Some(number) => (origin, number),
            None => (RandomState::new().build_hasher().finish(), 0),
        };
        LAST.set((origin, number));
        Self(u128::from(origin) << 64 | u128::from(number))
    }

    /// Returns the number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

/// The generation of a counter: another one after the host has reset the counter, or the store has
/// lost it and begun it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation(u64);

impl Generation {
    /// Makes a generation from a number.
    pub const fn new(generation: u64) -> Self {
        Self(generation)
    }

    /// Makes a generation that no other store has.
    pub(crate) fn random() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// Makes the generation of a counter that a reservation begins.
    #[cfg(feature = "redis")]
    pub(crate) fn by(id: ReservationId) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are added")]
        let [origin, number] = [(id.get() >> 64) as u64, id.get() as u64];
        // One half is random for each thread, the other counts.
        Self(origin.wrapping_add(number))
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A request to charge a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReserveRequest<'c> {
    /// The id that the reservation gets.
    pub id: ReservationId,
    /// The present time by the host's clock.
    pub now: Timestamp,
    /// The charges. No two of them have the same counter and subject.
    pub charges: &'c [Charge],
    /// The maker of the call. A store that bounds the counters of each asker counts new ones by it;
    /// without one it counts them by nobody. The gate always names one.
    pub asker: Option<Asker<'c>>,
}

impl<'c> ReserveRequest<'c> {
    /// Requests `charges` at `now`.
    pub fn new(id: ReservationId, now: Timestamp, charges: &'c [Charge]) -> Self {
        Self { id, now, charges, asker: None }
    }

    /// Names who makes the call.
    #[inline]
    #[must_use = "this returns the request with its asker"]
    pub fn by(self, asker: impl Into<Option<Asker<'c>>>) -> Self {
        Self { asker: asker.into(), ..self }
    }
}

/// A request to change what a reservation has charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettleRequest<'c> {
    /// The id of the reservation.
    pub id: ReservationId,
    /// The number of this settlement among those of the reservation, from 1.
    pub step: u32,
    /// The present time by the host's clock.
    pub now: Timestamp,
    /// The charges that change, which need not be all that were made. No two of them have the same
    /// counter.
    pub charges: &'c [ChargeChange<'c>],
}

impl<'c> SettleRequest<'c> {
    /// Changes `charges` of a reservation.
    pub fn new(id: ReservationId, step: u32, now: Timestamp, charges: &'c [ChargeChange<'c>]) -> Self {
        Self { id, step, now, charges }
    }
}

/// A change of one charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChargeChange<'c> {
    /// The charge as it was made, with the amount of the latest settlement if there was one.
    pub charge: &'c Charge,
    /// Where it was made: the [`Tally::charged_at`] that the store returned for it, unchanged.
    pub at: ChargedAt,
    /// The amount that it changes to.
    pub to: Amount,
    /// If it is a unit in flight whose lease changes: the new end of its lease.
    pub lease_end: Option<Timestamp>,
}

/// Where a charge was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make it of both")]
pub struct ChargedAt {
    /// The start of a fixed window, the instant of the charge in a sliding window or a token
    /// bucket, the end of a lease.
    pub instant: Timestamp,
    /// The generation of the counter.
    pub generation: Generation,
}

impl ChargedAt {
    /// A charge in the first generation, for a store that has none.
    #[inline]
    pub(crate) const fn new(instant: Timestamp) -> Self {
        Self { instant, generation: Generation::new(0) }
    }
}

impl<'c> ChargeChange<'c> {
    /// Changes the charge that was made at `at` to an amount of `to`.
    pub fn new(charge: &'c Charge, at: ChargedAt, to: Amount) -> Self {
        Self { charge, at, to, lease_end: None }
    }

    /// Changes the end of the lease of a unit in flight, whose amount stays.
    pub fn prolonged(charge: &'c Charge, at: ChargedAt, lease_end: Timestamp) -> Self {
        Self { charge, at, to: charge.amount, lease_end: Some(lease_end) }
    }

    /// Returns whether a unit in flight begins, which was charged as zero.
    pub(super) fn is_new_unit(&self) -> bool {
        let is_in_flight = matches!(self.charge.meter, Meter::InFlight { .. });
        is_in_flight && self.charge.amount == Amount::ZERO && self.to > Amount::ZERO
    }

    /// Returns whether settling must create the [counter](super::Counter::new) if it is missing;
    /// otherwise a missing counter needs no change. Two changes create one: the first unit in
    /// flight, since a charge of zero need not have been kept; and a larger charge to a token
    /// bucket, which may have been forgotten since it was full again.
    pub fn begins(&self, now: Timestamp) -> bool {
        match self.charge.meter {
            Meter::InFlight { .. } => self.is_new_unit() && self.at.instant > now,
            Meter::TokenBucket { .. } => self.to > self.charge.amount,
            Meter::Fixed(_) | Meter::Sliding { .. } => false,
        }
    }
}

/// A store's answer to a [`ReserveRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety depends on it: no arm may be forgotten")]
pub enum Outcome {
    /// All charges were made (`peek`: would be made). One tally for each charge, in order,
    /// including the charges.
    Granted(Tallies),
    /// No charge was made. One tally for each charge, in order.
    Refused(Tallies),
}

impl Outcome {
    /// Returns the tallies, one for each charge.
    pub fn tallies(&self) -> &Tallies {
        match self {
            Self::Granted(tallies) | Self::Refused(tallies) => tallies,
        }
    }
}

/// The state of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// The amount that it holds.
    pub used: Total,
    /// When it holds nothing any more, if nothing else is charged and no call in flight ends: the
    /// end of a fixed window, the present for a counter of another kind that holds nothing.
    /// [`Timestamp::MAX`] if that never happens, as in a [lifetime](crate::charge::Span::LIFETIME).
    pub resets_at: Timestamp,
    /// If the charge has no room: the first instant at which it has, if nothing else is charged
    /// meanwhile and no call in flight ends; `None` if it can never have room. Without meaning if
    /// the charge has room.
    pub retry_at: Option<Timestamp>,
    /// If the charge was made: where, for [`ChargeChange::at`].
    pub charged_at: ChargedAt,
}

impl Tally {
    /// Returns the tally with the generation of its counter.
    #[inline]
    pub(super) fn of(mut self, generation: Generation) -> Self {
        self.charged_at.generation = generation;
        self
    }

    /// Returns when it holds nothing any more; `None` if only a reset empties it.
    pub(crate) fn resets_at(&self) -> Option<Timestamp> {
        (self.resets_at < Timestamp::MAX).then_some(self.resets_at)
    }

    /// Returns whether the counter has room for the charge.
    #[inline]
    pub fn has_room(&self, charge: &Charge) -> bool {
        charge.max.is_none_or(|max| self.used.has_room(charge.amount, max))
    }
}

/// The states of a call's counters, one [`Tally`] for each charge, in order.
///
/// A list that derefs to a slice. Up to four tallies are stored inline.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tallies(SmallVec<[Tally; 4]>);

impl Tallies {
    /// Makes an empty list.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a list of one tally. `from_iter` is not inlined, and takes 80 instructions more of the
    /// 420 of reserving one charge.
    #[inline]
    pub(super) fn one(tally: Tally) -> Self {
        let mut tallies = Self::new();
        tallies.push(tally);
        tallies
    }

    /// Appends a tally.
    #[inline]
    pub fn push(&mut self, tally: Tally) {
        self.0.push(tally);
    }
}

impl Deref for Tallies {
    type Target = [Tally];

    #[inline]
    fn deref(&self) -> &[Tally] {
        &self.0
    }
}

impl DerefMut for Tallies {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Tally] {
        &mut self.0
    }
}

impl FromIterator<Tally> for Tallies {
    #[inline]
    fn from_iter<I: IntoIterator<Item = Tally>>(tallies: I) -> Self {
        Self(SmallVec::from_iter(tallies))
    }
}

impl Extend<Tally> for Tallies {
    fn extend<I: IntoIterator<Item = Tally>>(&mut self, tallies: I) {
        self.0.extend(tallies);
    }
}

impl<'t> IntoIterator for &'t Tallies {
    type Item = &'t Tally;
    type IntoIter = slice::Iter<'t, Tally>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'t> IntoIterator for &'t mut Tallies {
    type Item = &'t mut Tally;
    type IntoIter = slice::IterMut<'t, Tally>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}

impl fmt::Debug for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
