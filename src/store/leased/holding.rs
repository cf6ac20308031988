//! What a node holds of one counter: pure, without a lock, a clock or a request.

use std::time::Duration;

use smallvec::SmallVec;

use super::super::{ChargeChange, ReservationId, Tally};
use crate::amount::{Amount, Total};
use crate::charge::{Charge, Meter, Span};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// A slice is meant to last so long: one that is used up sooner is followed by one of twice the size, one that lasts four times
/// as long by one of half.
const LASTS: Duration = Duration::from_secs(1);
/// So many slices are remembered, the newest; what older ones hold is served, and never given back before its window ends.
const SLICES: usize = 32;

/// How large a slice may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// At most one part in so many of the room that is left.
    pub(super) share: u32,
    /// At most so many times the amount of the call that asks for it.
    pub(super) calls: u32,
    /// What has not been used for so long goes back.
    pub(super) idle: Duration,
}

/// What a node holds of one counter for one subject, in the latest window that it knows of.
#[derive(Debug)]
pub(super) struct Holding {
    window: Span,
    /// What is reserved at the inner store and not served, in millionths.
    room: u64,
    /// What the inner store holds, as far as this node knows: its last word, changed by what the node has changed since. All that
    /// is reserved for slices is in it, so it is never less than `room`.
    known: u64,
    /// What the inner store held with all of `room` in it, at its last word: what is served was counted there then.
    ceiling: u64,
    /// The reservations of which `room` is the rest, the newest last.
    slices: SmallVec<[Slice; 1]>,
    /// How much the next slice should be.
    appetite: u64,
    asked_at: Timestamp,
    served_at: Timestamp,
    /// How often the inner store has said how the counter stands.
    words: u64,
    /// A call of this node is asking for a slice, so others ask for no more than they need.
    asking: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slice {
    id: ReservationId,
    amount: Amount,
}

/// A part of a slice that goes back: the charge as it stands at the inner store, and what is to be left of it.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) id: ReservationId,
    pub(super) charge: Charge,
    at: Timestamp,
    to: Amount,
}

impl Returned {
    pub(super) fn settled(&self) -> ChargeChange<'_> {
        ChargeChange::new(&self.charge, self.at, self.to)
    }
}

/// Where a charge stands that was served from a slice: a microsecond after the start of its window, which no store says of one
/// that it has charged itself. By it a settlement knows where to go.
pub(super) fn served_in(window_start: Timestamp) -> Timestamp {
    Timestamp::from_unix_micros(window_start.unix_micros().saturating_add(1))
}

/// The start of the window of a charge that was served from a slice.
pub(super) fn window_of_served(charge: &Charge, at: Timestamp) -> Option<Timestamp> {
    let served = matches!(charge.meter, Meter::Fixed(_)) && at.unix_micros().rem_euclid(MICROS_PER_SECOND) == 1;
    served.then(|| Timestamp::from_unix_micros(at.unix_micros().saturating_sub(1)))
}

/// Whether slices can be taken of a window: of one that begins with a second, as all aligned ones do.
pub(super) fn can_be_leased(meter: &Meter) -> bool {
    matches!(meter, Meter::Fixed(window) if window.start.unix_micros().rem_euclid(MICROS_PER_SECOND) == 0)
}

impl Holding {
    /// Of a counter of which nothing is known yet.
    pub(super) fn new(window: Span, now: Timestamp) -> Self {
        Self {
            window,
            room: 0,
            known: 0,
            ceiling: 0,
            slices: SmallVec::new(),
            appetite: 0,
            asked_at: now,
            served_at: now,
            words: 0,
            asking: false,
        }
    }

    pub(super) fn window(&self) -> Span {
        self.window
    }

    pub(super) fn window_start(&self) -> Timestamp {
        self.window.start
    }

    /// What is not served, in millionths.
    pub(super) fn room(&self) -> u64 {
        self.room
    }

    pub(super) fn words(&self) -> u64 {
        self.words
    }

    /// Whether a charge for the window `asked` can be served. An earlier window is served by the latest, as everywhere.
    ///
    /// What is served was reserved when the counter held no more than `ceiling` with it. So no charge is served whose own
    /// maximum is below that: limits of one counter may differ in theirs.
    #[inline]
    pub(super) fn covers(&self, charge: &Charge, asked: Span) -> bool {
        let fits = charge.max.is_none_or(|max| max > Amount::ZERO && self.ceiling <= max.micros());
        fits && self.room > 0 && self.room >= charge.amount.micros() && asked.start <= self.window.start
    }

    /// How the counter stands: what the inner store is known to hold, less what is not served.
    #[inline]
    pub(super) fn tally(&self) -> Tally {
        Tally {
            used: Total::from_micros(self.known.saturating_sub(self.room)),
            resets_at: self.window.end,
            retry_at: Some(self.window.end),
            charged_at: served_in(self.window.start),
        }
    }

    /// Serves what it [covers](Self::covers).
    #[inline]
    pub(super) fn serve(&mut self, amount: Amount, now: Timestamp) -> Tally {
        self.room = self.room.saturating_sub(amount.micros());
        self.served_at = self.served_at.max(now);
        self.tally()
    }

    /// What was served in a window comes back, if it is still the latest.
    pub(super) fn credit(&mut self, window_start: Timestamp, amount: Amount) {
        if window_start == self.window.start {
            self.room = self.room.saturating_add(amount.micros()).min(self.known);
        }
    }

    /// How large a slice to ask for, for a charge that it does not cover; `None` for no more than the charge.
    pub(super) fn ask(&mut self, charge: &Charge, asked: Span, now: Timestamp, terms: &Terms) -> Option<Amount> {
        let amount = charge.amount.micros();
        let most = amount.saturating_mul(terms.calls.into());
        let since = now.saturating_since(self.asked_at);
        if !self.asking {
            self.appetite = match self.appetite {
                appetite if since <= LASTS => appetite.max(amount).saturating_mul(2),
                appetite if since > LASTS * 4 => appetite / 2,
                appetite => appetite,
            };
            self.appetite = self.appetite.min(most);
            self.asked_at = now;
        }
        self.served_at = self.served_at.max(now);
        let known = if asked.start > self.window.start { 0 } else { self.known };
        let share = |max: Amount| max.micros().saturating_sub(known) / u64::from(terms.share.max(1));
        let wish = self.appetite.min(charge.max.map_or(u64::MAX, share)).min(Amount::MAX.micros());
        if self.asking || wish <= amount {
            return None;
        }
        self.asking = true;
        Amount::from_micros(wish)
    }

    /// The call that asked for a slice has its answer, or has gone.
    pub(super) fn asked(&mut self) {
        self.asking = false;
    }

    /// A request failed, and whatever it asked for may be spent: the next asks for no more than it needs.
    pub(super) fn starve(&mut self) {
        self.appetite = 0;
    }

    /// Whether a charge may fit, by the last word. Only a guess: others charge too.
    pub(super) fn may_fit(&self, charge: &Charge) -> bool {
        charge.max.is_none_or(|max| Total::from_micros(self.known).has_room(charge.amount, max))
    }

    /// Notes how the inner store says that the counter stands. `words` is what [`Self::words`] was when it was asked: an answer
    /// that another has overtaken never lowers what is known. Whether it is about the latest window.
    pub(super) fn note(&mut self, tally: &Tally, words: u64) -> bool {
        let used = tally.used.micros();
        if tally.charged_at < self.window.start {
            return false;
        }
        if tally.charged_at > self.window.start {
            // What is left of the former window is lost with it.
            self.window = Span { start: tally.charged_at, end: tally.resets_at };
            self.room = 0;
            self.slices.clear();
            (self.known, self.ceiling) = (used, used);
        } else if words == self.words {
            if used < self.room {
                // Another node has reset the counter: what was reserved is not counted any more.
                self.room = 0;
                self.slices.clear();
            }
            (self.known, self.ceiling) = (used, used);
        } else {
            (self.known, self.ceiling) = (self.known.max(used), self.ceiling.max(used));
        }
        self.words += 1;
        true
    }

    /// Notes how the counter stands after a refusal, which begins no window.
    pub(super) fn note_refused(&mut self, tally: &Tally, words: u64) {
        if tally.charged_at == self.window.start {
            self.note(tally, words);
        }
    }

    /// A slice of `amount` was granted in the latest window, and noted; `room` of it is not served yet.
    pub(super) fn add(&mut self, id: ReservationId, amount: Amount, room: u64) {
        if self.slices.len() >= SLICES {
            self.slices.remove(0);
        }
        self.slices.push(Slice { id, amount });
        self.room = self.room.saturating_add(room).min(self.known);
    }

    /// The inner store has changed a charge of this node that no slice served.
    pub(super) fn changed(&mut self, window_start: Timestamp, from: Amount, to: Amount) {
        if window_start == self.window.start {
            self.known = Total::from_micros(self.known).replace(from, to).micros().max(self.room);
            // Less was used, but others may have taken it since the last word: what may be served stays as it was.
            self.ceiling = self.ceiling.max(self.known);
            // An answer that is on its way may not know of it.
            self.words += 1;
        }
    }

    /// Whether nothing was served for so long that what is left should go back, or the holding be forgotten.
    pub(super) fn is_idle(&self, now: Timestamp, idle: Duration) -> bool {
        !self.asking && now.saturating_since(self.served_at) >= idle
    }

    pub(super) fn expired(&self, now: Timestamp, grace: Duration) -> bool {
        !self.asking && self.window.end.saturating_add(grace) <= now
    }

    /// Whether what comes back of a charge in a window changes nothing elsewhere: it stays here, or the window is over.
    pub(super) fn keeps(&self, window_start: Timestamp, amount: Amount) -> bool {
        let kept = self.room.saturating_add(amount.micros()) <= self.appetite.saturating_mul(2);
        self.window.start > window_start || (self.window.start == window_start && kept)
    }

    /// How much more is held than two slices: calls that were released can leave it so.
    pub(super) fn excess(&self) -> u64 {
        self.room.saturating_sub(self.appetite.saturating_mul(2))
    }

    /// Takes up to `most` out of what is not served, to be given back. `charge` names the counter and subject.
    pub(super) fn take(&mut self, most: u64, charge: &Charge) -> SmallVec<[Returned; 2]> {
        let mut returned = SmallVec::new();
        let mut left = most.min(self.room);
        for slice in self.slices.iter_mut().rev() {
            let part = left.min(slice.amount.micros());
            let Some(to) = Amount::from_micros(slice.amount.micros() - part).filter(|_| part > 0) else { continue };
            let meter = Meter::Fixed(self.window);
            let charge = Charge { amount: slice.amount, meter, ..charge.clone() };
            returned.push(Returned { id: slice.id, charge, at: self.window.start, to });
            slice.amount = to;
            left -= part;
            self.room -= part;
            // It is gone from what this node may serve, whether the inner store hears of it or not.
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

    /// Of the first minute, with so much known, of which `room` is held in one slice.
    fn holding(known: u64, room: u64) -> Holding {
        let mut holding = Holding::new(window(0), at(0));
        assert!(holding.note(&tally(0, known), 0));
        holding.add(ReservationId::new(1), amount(room), room);
        holding
    }

    #[test]
    fn a_slice_is_as_large_as_the_last_ones_were_soon_used_up() {
        let mut holding = Holding::new(window(0), at(0));
        let mut now = 0;
        for (wait, wish) in [
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
            let asked = holding.ask(&charge(10, 100_000), window(0), at(now), &TERMS);
            assert_eq!(asked.map(Amount::micros), wish, "after {wait}");
            assert_eq!(holding.asking, wish.is_some());
            // While one asks, nobody else does, and nothing grows.
            if wish.is_some() {
                assert_eq!(holding.ask(&charge(10, 100_000), window(0), at(now), &TERMS), None);
            }
            holding.asked();
        }
        holding.starve();
        let asked = holding.ask(&charge(10, 100_000), window(0), at(now), &TERMS);
        assert_eq!(asked.map(Amount::micros), Some(20), "it begins anew");
    }

    #[test]
    fn a_slice_is_a_share_of_what_is_left_and_so_many_calls_at_most() {
        let ask = |known: u64, minute: i64, terms: &Terms, charge: &Charge| {
            let mut holding = holding(known, 0);
            (holding.asking, holding.appetite) = (false, 1_000_000);
            holding.ask(charge, window(minute), at(0), terms).map(Amount::micros)
        };
        let few = Terms { calls: 3, ..TERMS };
        for (known, minute, terms, charge, wish) in [
            (50_000, 0, &TERMS, charge(1_000, 100_000), Some(3_125)),
            (50_000, 1, &TERMS, charge(1_000, 100_000), Some(6_250)),
            (50_000, 0, &TERMS, charge(3_124, 100_000), Some(3_125)),
            (50_000, 0, &TERMS, charge(3_125, 100_000), None),
            (100_001, 0, &TERMS, charge(0, 100_000), None),
            (50_000, 0, &few, charge(1_000, 100_000), Some(3_000)),
            (50_000, 0, &few, charge(1_000, None), Some(3_000)),
        ] {
            assert_eq!(ask(known, minute, terms, &charge), wish, "{known} {minute} {charge:?}");
        }
    }

    #[test]
    fn a_holding_covers_what_was_reserved_under_no_larger_maximum() {
        let holding = holding(100, 30);
        for (amount, max, minute, covered) in [
            (30, Some(100), 0, true),
            (31, Some(100), 0, false),
            (30, Some(99), 0, false),
            (30, None, 0, true),
            (0, Some(0), 0, false),
            (1, Some(100), -1, true),
            (1, Some(100), 1, false),
        ] {
            assert_eq!(holding.covers(&charge(amount, max), window(minute)), covered, "{amount} {max:?} {minute}");
        }
        assert!(!self::holding(100, 0).covers(&charge(0, 100), window(0)), "nothing is held");
        assert!(holding.may_fit(&charge(0, 100)) && holding.may_fit(&charge(1, None)));
        assert!(!holding.may_fit(&charge(1, 100)) && holding.may_fit(&charge(1, 101)));
    }

    #[test]
    fn the_last_word_of_the_store_is_noted() {
        let mut holding = holding(100, 30);
        assert_eq!((holding.words(), holding.known, holding.room()), (1, 100, 30));
        // One that another has overtaken lowers nothing.
        assert!(holding.note(&tally(0, 80), 0));
        assert_eq!((holding.words(), holding.known, holding.ceiling), (2, 100, 100));
        assert!(holding.note(&tally(0, 120), 0));
        assert_eq!((holding.words(), holding.known, holding.ceiling), (3, 120, 120));
        assert!(holding.note(&tally(0, 90), 3));
        assert_eq!((holding.words(), holding.known, holding.ceiling, holding.room()), (4, 90, 90, 30));
        // As much as is held may be all that the store has; less says that it was reset.
        assert!(holding.note(&tally(0, 30), 4));
        assert_eq!((holding.known, holding.room(), holding.slices.len()), (30, 30, 1));
        assert!(holding.note(&tally(0, 29), 5));
        assert_eq!((holding.known, holding.room(), holding.slices.len()), (29, 0, 0));
        // Of an earlier window nothing is learnt; a later one begins with nothing held.
        assert!(!holding.note(&tally(-1, 7), 6));
        assert_eq!((holding.words(), holding.known, holding.window()), (6, 29, window(0)));
        let mut holding = self::holding(100, 30);
        assert!(holding.note(&tally(1, 7), 1));
        assert_eq!((holding.known, holding.room(), holding.window()), (7, 0, window(1)));
    }

    #[test]
    fn a_refusal_is_noted_in_its_own_window_alone() {
        let mut holding = holding(100, 30);
        for minute in [-1, 1] {
            holding.note_refused(&tally(minute, 7), 1);
            assert_eq!((holding.words(), holding.known, holding.window()), (1, 100, window(0)));
        }
        holding.note_refused(&tally(0, 70), 1);
        assert_eq!((holding.words(), holding.known, holding.window()), (2, 70, window(0)));
    }

    #[test]
    fn what_a_settlement_changes_is_known() {
        let mut holding = holding(100, 30);
        holding.changed(window(0).start, amount(10), amount(4));
        assert_eq!((holding.known, holding.ceiling, holding.room(), holding.words()), (94, 100, 30, 2));
        holding.changed(window(0).start, amount(10), amount(25));
        assert_eq!((holding.known, holding.ceiling, holding.words()), (109, 109, 3));
        holding.changed(window(0).start, amount(100), amount(0));
        assert_eq!((holding.known, holding.ceiling), (30, 109), "what is held is reserved there");
        holding.changed(window(1).start, amount(0), amount(9));
        assert_eq!((holding.known, holding.words()), (30, 4));
    }

    #[test]
    fn what_comes_back_is_kept_up_to_two_slices() {
        let mut holding = holding(100, 30);
        holding.appetite = 20;
        for (minute, amount, kept) in [(0, 10, true), (0, 11, false), (-1, 99, true), (1, 1, false)] {
            assert_eq!(holding.keeps(window(minute).start, self::amount(amount)), kept, "{minute} {amount}");
        }
        assert_eq!(holding.excess(), 0);
        holding.appetite = 12;
        assert_eq!(holding.excess(), 6);
    }

    #[test]
    fn the_newest_slices_go_back_first() {
        let mut holding = holding(100, 10);
        holding.add(ReservationId::new(2), amount(20), 20);
        let name = Charge { meter: Meter::Fixed(window(7)), ..charge(0, None) };
        assert!(holding.take(0, &name).is_empty());
        let returned = holding.take(25, &name);
        let told: Vec<_> = returned.iter().map(|it| (it.id.get(), it.charge.amount.micros(), it.to.micros())).collect();
        assert_eq!(told, [(2, 20, 0), (1, 10, 5)]);
        for returned in &returned {
            assert_eq!((returned.charge.meter, returned.at), (Meter::Fixed(window(0)), window(0).start));
        }
        assert_eq!((holding.room(), holding.known, holding.ceiling, holding.slices.len()), (5, 75, 75, 1));
        assert_eq!(holding.take(99, &name).len(), 1);
        assert_eq!((holding.room(), holding.known, holding.slices.len()), (0, 70, 0));
    }
}
