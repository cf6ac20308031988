//! The lease of one counter by this node. Pure: no lock, no clock, no request.

use std::time::Duration;

use smallvec::SmallVec;

use super::super::{ChargeChange, ReservationId, Tally};
use crate::amount::{Amount, Total};
use crate::charge::{Charge, Meter, Span};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// How long a slice should last. One that is used up sooner is followed by one of twice the size;
/// one that lasts four times as long, by one of half the size.
const SLICE_TIME: Duration = Duration::from_secs(1);
/// At most this many slices are remembered, the newest. What is left of older ones is served, and
/// cannot be returned.
const MAX_SLICES: usize = 32;

/// The bounds of slices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// A slice is at most one part in this many of the remaining room.
    pub(super) share: u32,
    /// A slice is at most this many times the amount of the call that requests it.
    pub(super) calls: u32,
    /// Slices that have not been used for this long are returned.
    pub(super) idle: Duration,
}

/// The lease of one counter for one subject, in the latest window that this node knows of.
#[derive(Debug)]
pub(super) struct Lease {
    window: Span,
    /// The amount, in millionths, that is reserved at the inner store and has not been served.
    left: u64,
    /// The inner store's total as far as this node knows: the total of its last answer, and the
    /// changes of this node since. It includes everything reserved for slices, so it is never less
    /// than `left`.
    known: u64,
    /// The inner store's total, including all of `left`, when it last answered. What is served was
    /// counted then.
    ceiling: u64,
    /// The reservations that `left` is the rest of, the newest last.
    slices: SmallVec<[Slice; 1]>,
    /// The size of the next slice, before its bounds.
    target: u64,
    requested_at: Timestamp,
    served_at: Timestamp,
    /// The number of answers of the inner store, and of changes to it, that are part of this state.
    generation: u64,
    /// A call of this node is requesting a slice, so others request no more than they need.
    requesting: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    id: ReservationId,
    amount: Amount,
}

/// A part of a slice that is returned: the charge at the inner store, and the amount that it
/// changes to.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) id: ReservationId,
    pub(super) charge: Charge,
    at: Timestamp,
    to: Amount,
}

impl Returned {
    pub(super) fn change(&self) -> ChargeChange<'_> {
        ChargeChange::new(&self.charge, self.at, self.to)
    }
}

/// Returns the [`Tally::charged_at`] of a charge that a slice served: the start of its window plus
/// one microsecond.
///
/// A settlement carries only this instant, so the instant has to tell whether a slice served the
/// charge. Windows begin at full seconds, so no store returns it for a charge that it made itself.
pub(super) fn mark_served(window_start: Timestamp) -> Timestamp {
    Timestamp::from_unix_micros(window_start.unix_micros().saturating_add(1))
}

/// Returns the start of the window of a charge, if a slice served it.
pub(super) fn served_window(charge: &Charge, at: Timestamp) -> Option<Timestamp> {
    let served = matches!(charge.meter, Meter::Fixed(_)) && at.unix_micros().rem_euclid(MICROS_PER_SECOND) == 1;
    served.then(|| Timestamp::from_unix_micros(at.unix_micros().saturating_sub(1)))
}

/// Returns whether a window can be leased: it begins at a full second, as all aligned windows do.
pub(super) fn can_be_leased(meter: &Meter) -> bool {
    matches!(meter, Meter::Fixed(window) if window.start.unix_micros().rem_euclid(MICROS_PER_SECOND) == 0)
}

impl Lease {
    /// Makes the lease of a counter of which nothing is known yet.
    pub(super) fn new(window: Span, now: Timestamp) -> Self {
        Self {
            window,
            left: 0,
            known: 0,
            ceiling: 0,
            slices: SmallVec::new(),
            target: 0,
            requested_at: now,
            served_at: now,
            generation: 0,
            requesting: false,
        }
    }

    pub(super) fn window(&self) -> Span {
        self.window
    }

    pub(super) fn window_start(&self) -> Timestamp {
        self.window.start
    }

    /// Returns the amount that has not been served, in millionths.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns whether a charge for the window `asked` can be served. The latest window serves
    /// charges for earlier ones, as in every store.
    ///
    /// What is served was reserved when the counter held at most `ceiling`, including it. So a
    /// charge whose own maximum is lower is not served: limits of one counter may have different
    /// maxima.
    #[inline]
    pub(super) fn covers(&self, charge: &Charge, asked: Span) -> bool {
        let fits = charge.max.is_none_or(|max| max > Amount::ZERO && self.ceiling <= max.micros());
        fits && self.left > 0 && self.left >= charge.amount.micros() && asked.start <= self.window.start
    }

    /// Returns the tally: the known total of the inner store, less what has not been served.
    #[inline]
    pub(super) fn tally(&self) -> Tally {
        Tally {
            used: Total::from_micros(self.known.saturating_sub(self.left)),
            resets_at: self.window.end,
            retry_at: Some(self.window.end),
            charged_at: mark_served(self.window.start),
        }
    }

    /// Serves an amount that it [covers](Self::covers).
    #[inline]
    pub(super) fn serve(&mut self, amount: Amount, now: Timestamp) -> Tally {
        self.left = self.left.saturating_sub(amount.micros());
        self.served_at = self.served_at.max(now);
        self.tally()
    }

    /// Takes back an amount that was served in a window, if that is still the latest.
    pub(super) fn credit(&mut self, window_start: Timestamp, amount: Amount) {
        if window_start == self.window.start {
            self.left = self.left.saturating_add(amount.micros()).min(self.known);
        }
    }

    /// Returns the size of the slice to request for a charge that it does not cover, or `None` to
    /// request no more than the charge.
    pub(super) fn begin_request(
        &mut self,
        charge: &Charge,
        asked: Span,
        now: Timestamp,
        terms: &Terms,
    ) -> Option<Amount> {
        let amount = charge.amount.micros();
        let most = amount.saturating_mul(terms.calls.into());
        let since = now.saturating_since(self.requested_at);
        if !self.requesting {
            self.target = match self.target {
                target if since <= SLICE_TIME => target.max(amount).saturating_mul(2),
                target if since > SLICE_TIME * 4 => target / 2,
                target => target,
            };
            self.target = self.target.min(most);
            self.requested_at = now;
        }
        self.served_at = self.served_at.max(now);
        let known = if asked.start > self.window.start { 0 } else { self.known };
        let share = |max: Amount| max.micros().saturating_sub(known) / u64::from(terms.share.max(1));
        let size = self.target.min(charge.max.map_or(u64::MAX, share)).min(Amount::MAX.micros());
        if self.requesting || size <= amount {
            return None;
        }
        self.requesting = true;
        Amount::from_micros(size)
    }

    /// Notes that the call that requested a slice has its answer, or was dropped.
    pub(super) fn end_request(&mut self) {
        self.requesting = false;
    }

    /// Makes the next call request no more than it needs, after a request failed whose amount may
    /// be spent.
    pub(super) fn reset_target(&mut self) {
        self.target = 0;
    }

    /// Returns whether a charge may fit, by the known total. A guess: other nodes charge too.
    pub(super) fn may_fit(&self, charge: &Charge) -> bool {
        charge.max.is_none_or(|max| Total::from_micros(self.known).has_room(charge.amount, max))
    }

    /// Notes an answer of the inner store, and returns whether it is about the latest window.
    /// `generation` is the value of [`Self::generation`] when the request was sent: an answer that
    /// another has overtaken never lowers the known total.
    pub(super) fn note(&mut self, tally: &Tally, generation: u64) -> bool {
        let used = tally.used.micros();
        if tally.charged_at < self.window.start {
            return false;
        }
        if tally.charged_at > self.window.start {
            // What is left of the earlier window is lost with it.
            self.window = Span { start: tally.charged_at, end: tally.resets_at };
            self.left = 0;
            self.slices.clear();
            (self.known, self.ceiling) = (used, used);
        } else if generation == self.generation {
            if used < self.left {
                // Another node has reset the counter, so what was reserved is no longer counted.
                self.left = 0;
                self.slices.clear();
            }
            (self.known, self.ceiling) = (used, used);
        } else {
            (self.known, self.ceiling) = (self.known.max(used), self.ceiling.max(used));
        }
        self.generation += 1;
        true
    }

    /// Notes the tally of a refusal, which begins no window.
    pub(super) fn note_refused(&mut self, tally: &Tally, generation: u64) {
        if tally.charged_at == self.window.start {
            self.note(tally, generation);
        }
    }

    /// Adds a slice of `amount` that was granted in the latest window and noted. `left` of it has
    /// not been served.
    pub(super) fn add(&mut self, id: ReservationId, amount: Amount, left: u64) {
        if self.slices.len() >= MAX_SLICES {
            self.slices.remove(0);
        }
        self.slices.push(Slice { id, amount });
        self.left = self.left.saturating_add(left).min(self.known);
    }

    /// Notes that the inner store has changed a charge of this node that no slice served.
    pub(super) fn changed(&mut self, window_start: Timestamp, from: Amount, to: Amount) {
        if window_start == self.window.start {
            self.known = Total::from_micros(self.known).replace(from, to).micros().max(self.left);
            // If less is used, other nodes may have taken it since the last answer, so the ceiling
            // does not fall.
            self.ceiling = self.ceiling.max(self.known);
            // An answer that is on its way may not include the change.
            self.generation += 1;
        }
    }

    /// Returns whether nothing was served for so long that the rest should be returned, or the
    /// lease forgotten.
    pub(super) fn is_idle(&self, now: Timestamp, idle: Duration) -> bool {
        !self.requesting && now.saturating_since(self.served_at) >= idle
    }

    pub(super) fn expired(&self, now: Timestamp, grace: Duration) -> bool {
        !self.requesting && self.window.end.saturating_add(grace) <= now
    }

    /// Returns whether an amount that comes back in a window needs no request: it is kept here, or
    /// the window has ended.
    pub(super) fn keeps(&self, window_start: Timestamp, amount: Amount) -> bool {
        let kept = self.left.saturating_add(amount.micros()) <= self.target.saturating_mul(2);
        self.window.start > window_start || (self.window.start == window_start && kept)
    }

    /// Returns how much more than two slices is left, which released calls can cause.
    pub(super) fn excess(&self) -> u64 {
        self.left.saturating_sub(self.target.saturating_mul(2))
    }

    /// Takes up to `most` of what has not been served, to return it. `charge` names the counter and
    /// subject.
    pub(super) fn take(&mut self, most: u64, charge: &Charge) -> SmallVec<[Returned; 2]> {
        let mut returned = SmallVec::new();
        let mut rest = most.min(self.left);
        for slice in self.slices.iter_mut().rev() {
            let part = rest.min(slice.amount.micros());
            let Some(to) = Amount::from_micros(slice.amount.micros() - part).filter(|_| part > 0) else { continue };
            let meter = Meter::Fixed(self.window);
            let charge = Charge { amount: slice.amount, meter, ..charge.clone() };
            returned.push(Returned { id: slice.id, charge, at: self.window.start, to });
            slice.amount = to;
            rest -= part;
            self.left -= part;
            // This node cannot serve it any more, even if the return fails.
            self.known = self.known.saturating_sub(part);
            self.ceiling = self.ceiling.saturating_sub(part);
        }
        self.slices.retain(|slice| slice.amount > Amount::ZERO);
        returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charge::{CounterId, Subject};

    const TERMS: Terms = Terms { share: 16, calls: 1_024, idle: Duration::from_secs(5) };

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(micros)
    }

    fn window(minute: i64) -> Span {
        Span { start: Timestamp::from_unix_seconds(60 * minute), end: Timestamp::from_unix_seconds(60 * minute + 60) }
    }

    fn amount(micros: u64) -> Amount {
        Amount::from_micros(micros).unwrap()
    }

    fn charge(micros: u64, max: impl Into<Option<u64>>) -> Charge {
        let (counter, subject, meter) = (CounterId::of(["c"]), Subject::default(), Meter::Fixed(window(0)));
        Charge { counter, subject, amount: amount(micros), max: max.into().map(amount), meter }
    }

    fn tally(minute: i64, used: u64) -> Tally {
        let Span { start, end } = window(minute);
        Tally { used: Total::from_micros(used), resets_at: end, retry_at: None, charged_at: start }
    }

    /// Makes a lease in the first minute with a known total, of which `left` is left of one slice.
    fn lease(known: u64, left: u64) -> Lease {
        let mut lease = Lease::new(window(0), at(0));
        assert!(lease.note(&tally(0, known), 0));
        lease.add(ReservationId::new(1), amount(left), left);
        lease
    }

    #[test]
    fn slices_grow_if_used_up_soon_and_shrink_if_not() {
        let mut lease = Lease::new(window(0), at(0));
        let mut now = 0;
        for (wait, size) in [
            (0, Some(20)),
            (0, Some(40)),
            (1_000_000, Some(80)),
            (1_000_001, Some(80)),
            (2_000_000, Some(80)),
            (4_000_000, Some(80)),
            (4_000_001, Some(40)),
            (9_000_000, Some(20)),
            (9_000_000, None),
            (0, Some(20)),
        ] {
            now += wait;
            let asked = lease.begin_request(&charge(10, 100_000), window(0), at(now), &TERMS);
            assert_eq!(asked.map(Amount::micros), size, "after {wait}");
            assert_eq!(lease.requesting, size.is_some());
            // While one call requests a slice, no other does, and nothing grows.
            if size.is_some() {
                assert_eq!(lease.begin_request(&charge(10, 100_000), window(0), at(now), &TERMS), None);
            }
            lease.end_request();
        }
        lease.reset_target();
        let asked = lease.begin_request(&charge(10, 100_000), window(0), at(now), &TERMS);
        assert_eq!(asked.map(Amount::micros), Some(20), "it starts anew");
    }

    #[test]
    fn slices_are_bounded_by_share_and_by_calls() {
        let ask = |known: u64, minute: i64, terms: &Terms, charge: &Charge| {
            let mut lease = lease(known, 0);
            (lease.requesting, lease.target) = (false, 1_000_000);
            lease.begin_request(charge, window(minute), at(0), terms).map(Amount::micros)
        };
        let few = Terms { calls: 3, ..TERMS };
        for (known, minute, terms, charge, size) in [
            (50_000, 0, &TERMS, charge(1_000, 100_000), Some(3_125)),
            (50_000, 1, &TERMS, charge(1_000, 100_000), Some(6_250)),
            (50_000, 0, &TERMS, charge(3_124, 100_000), Some(3_125)),
            (50_000, 0, &TERMS, charge(3_125, 100_000), None),
            (100_001, 0, &TERMS, charge(0, 100_000), None),
            (50_000, 0, &few, charge(1_000, 100_000), Some(3_000)),
            (50_000, 0, &few, charge(1_000, None), Some(3_000)),
        ] {
            assert_eq!(ask(known, minute, terms, &charge), size, "{known} {minute} {charge:?}");
        }
    }

    #[test]
    fn covers_only_charges_with_a_maximum_above_the_ceiling() {
        let lease = lease(100, 30);
        for (amount, max, minute, covered) in [
            (30, Some(100), 0, true),
            (31, Some(100), 0, false),
            (30, Some(99), 0, false),
            (30, None, 0, true),
            (0, Some(0), 0, false),
            (1, Some(100), -1, true),
            (1, Some(100), 1, false),
        ] {
            assert_eq!(lease.covers(&charge(amount, max), window(minute)), covered, "{amount} {max:?} {minute}");
        }
        assert!(!self::lease(100, 0).covers(&charge(0, 100), window(0)), "nothing is left");
        assert!(lease.may_fit(&charge(0, 100)) && lease.may_fit(&charge(1, None)));
        assert!(!lease.may_fit(&charge(1, 100)) && lease.may_fit(&charge(1, 101)));
    }

    #[test]
    fn notes_the_latest_answer_of_the_store() {
        let mut lease = lease(100, 30);
        assert_eq!((lease.generation(), lease.known, lease.left()), (1, 100, 30));
        // An answer that another has overtaken lowers nothing.
        assert!(lease.note(&tally(0, 80), 0));
        assert_eq!((lease.generation(), lease.known, lease.ceiling), (2, 100, 100));
        assert!(lease.note(&tally(0, 120), 0));
        assert_eq!((lease.generation(), lease.known, lease.ceiling), (3, 120, 120));
        assert!(lease.note(&tally(0, 90), 3));
        assert_eq!((lease.generation(), lease.known, lease.ceiling, lease.left()), (4, 90, 90, 30));
        // The store may hold exactly what is left; if it holds less, the counter was reset.
        assert!(lease.note(&tally(0, 30), 4));
        assert_eq!((lease.known, lease.left(), lease.slices.len()), (30, 30, 1));
        assert!(lease.note(&tally(0, 29), 5));
        assert_eq!((lease.known, lease.left(), lease.slices.len()), (29, 0, 0));
        // An earlier window changes nothing; a later one begins with nothing left.
        assert!(!lease.note(&tally(-1, 7), 6));
        assert_eq!((lease.generation(), lease.known, lease.window()), (6, 29, window(0)));
        let mut lease = self::lease(100, 30);
        assert!(lease.note(&tally(1, 7), 1));
        assert_eq!((lease.known, lease.left(), lease.window()), (7, 0, window(1)));
    }

    #[test]
    fn notes_a_refusal_only_in_the_same_window() {
        let mut lease = lease(100, 30);
        for minute in [-1, 1] {
            lease.note_refused(&tally(minute, 7), 1);
            assert_eq!((lease.generation(), lease.known, lease.window()), (1, 100, window(0)));
        }
        lease.note_refused(&tally(0, 70), 1);
        assert_eq!((lease.generation(), lease.known, lease.window()), (2, 70, window(0)));
    }

    #[test]
    fn notes_the_changes_of_settlements() {
        let mut lease = lease(100, 30);
        lease.changed(window(0).start, amount(10), amount(4));
        assert_eq!((lease.known, lease.ceiling, lease.left(), lease.generation()), (94, 100, 30, 2));
        lease.changed(window(0).start, amount(10), amount(25));
        assert_eq!((lease.known, lease.ceiling, lease.generation()), (109, 109, 3));
        lease.changed(window(0).start, amount(100), amount(0));
        assert_eq!((lease.known, lease.ceiling), (30, 109), "what is left is reserved there");
        lease.changed(window(1).start, amount(0), amount(9));
        assert_eq!((lease.known, lease.generation()), (30, 4));
    }

    #[test]
    fn keeps_up_to_two_slices_of_what_comes_back() {
        let mut lease = lease(100, 30);
        lease.target = 20;
        for (minute, amount, kept) in [(0, 10, true), (0, 11, false), (-1, 99, true), (1, 1, false)] {
            assert_eq!(lease.keeps(window(minute).start, self::amount(amount)), kept, "{minute} {amount}");
        }
        assert_eq!(lease.excess(), 0);
        lease.target = 12;
        assert_eq!(lease.excess(), 6);
    }

    #[test]
    fn returns_the_newest_slices_first() {
        let mut lease = lease(100, 10);
        lease.add(ReservationId::new(2), amount(20), 20);
        let name = Charge { meter: Meter::Fixed(window(7)), ..charge(0, None) };
        assert!(lease.take(0, &name).is_empty());
        let returned = lease.take(25, &name);
        let found: Vec<_> =
            returned.iter().map(|it| (it.id.get(), it.charge.amount.micros(), it.to.micros())).collect();
        assert_eq!(found, [(2, 20, 0), (1, 10, 5)]);
        for returned in &returned {
            assert_eq!((returned.charge.meter, returned.at), (Meter::Fixed(window(0)), window(0).start));
        }
        assert_eq!((lease.left(), lease.known, lease.ceiling, lease.slices.len()), (5, 75, 75, 1));
        assert_eq!(lease.take(99, &name).len(), 1);
        assert_eq!((lease.left(), lease.known, lease.slices.len()), (0, 70, 0));
    }
}
