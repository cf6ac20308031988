//! The lease of one counter by this node. Pure: no lock, no clock, no request.

use std::time::Duration;

use smallvec::SmallVec;

use super::super::{ChargeChange, ChargedAt, Generation, ReservationId, Tally};
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
    revision: u64,
    /// The generation of the inner store's counter, in its latest answer.
    generation: Generation,
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
    at: ChargedAt,
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
pub(super) fn mark_served(window: ChargedAt) -> ChargedAt {
    let instant = Timestamp::from_unix_micros(window.instant.unix_micros().saturating_add(1));
    ChargedAt { instant, ..window }
}

/// Returns the start of the window of a charge, if a slice served it.
pub(super) fn served_window(charge: &Charge, at: ChargedAt) -> Option<ChargedAt> {
    let micros = at.instant.unix_micros();
    let served = matches!(charge.meter, Meter::Fixed(_)) && micros.rem_euclid(MICROS_PER_SECOND) == 1;
    served.then(|| ChargedAt { instant: Timestamp::from_unix_micros(micros.saturating_sub(1)), ..at })
}

/// Returns whether a window can be leased: it ends, and it begins at a full second, as all aligned
/// windows do.
pub(super) fn can_be_leased(meter: &Meter) -> bool {
    matches!(meter, Meter::Fixed(window)
        if window.start.unix_micros().rem_euclid(MICROS_PER_SECOND) == 0 && window.end < Timestamp::MAX)
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
            revision: 0,
            generation: Generation::new(0),
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

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns where the inner store has made its charges.
    pub(super) fn charged_at(&self) -> ChargedAt {
        ChargedAt { instant: self.window.start, generation: self.generation }
    }

    /// Returns whether a charge was made in the latest window, and of the same generation.
    pub(super) fn is_of(&self, at: ChargedAt) -> bool {
        at == self.charged_at()
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
            charged_at: mark_served(self.charged_at()),
        }
    }

    /// Serves an amount that it [covers](Self::covers).
    #[inline]
    pub(super) fn serve(&mut self, amount: Amount, now: Timestamp) -> Tally {
        self.left = self.left.saturating_sub(amount.micros());
        self.served_at = self.served_at.max(now);
        self.tally()
    }

    /// Takes back an amount that was served in a window, if that is still the latest, of the same
    /// generation.
    pub(super) fn credit(&mut self, window: ChargedAt, amount: Amount) {
        if self.is_of(window) {
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
    /// `revision` is the value of [`Self::revision`] when the request was sent: an answer that
    /// another has overtaken never lowers the known total.
    pub(super) fn note(&mut self, tally: &Tally, revision: u64) -> bool {
        let used = tally.used.micros();
        let ChargedAt { instant, generation } = tally.charged_at;
        if instant < self.window.start {
            return false;
        }
        let overtaken = revision != self.revision;
        let is_anew = generation != self.generation;
        if instant > self.window.start || is_anew {
            // What is left of the earlier window, or of a counter that began anew since, is lost
            // with it.
            self.window = Span { start: instant, end: tally.resets_at };
            self.generation = generation;
            self.left = 0;
            self.slices.clear();
            (self.known, self.ceiling) = (used, used);
        } else if overtaken {
            (self.known, self.ceiling) = (self.known.max(used), self.ceiling.max(used));
        } else {
            (self.known, self.ceiling) = (used, used);
        }
        self.revision += 1;
        true
    }

    /// Notes the tally of a refusal, which begins no window.
    pub(super) fn note_refused(&mut self, tally: &Tally, revision: u64) {
        if tally.charged_at.instant == self.window.start {
            self.note(tally, revision);
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
    pub(super) fn changed(&mut self, at: ChargedAt, from: Amount, to: Amount) {
        if self.is_of(at) {
            self.known = Total::from_micros(self.known).replace(from, to).micros().max(self.left);
            // If less is used, other nodes may have taken it since the last answer, so the ceiling
            // does not fall.
            self.ceiling = self.ceiling.max(self.known);
            // An answer that is on its way may not include the change.
            self.revision += 1;
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
    pub(super) fn keeps(&self, window: ChargedAt, amount: Amount) -> bool {
        let kept = self.left.saturating_add(amount.micros()) <= self.target.saturating_mul(2);
        self.window.start > window.instant || (self.is_of(window) && kept)
    }

    /// Returns how much more than two slices is left, which released calls can cause.
    pub(super) fn excess(&self) -> u64 {
        self.left.saturating_sub(self.target.saturating_mul(2))
    }

    /// Takes up to `most` of what has not been served, to return it. `charge` names the counter and
    /// subject.
    pub(super) fn take(&mut self, most: u64, charge: &Charge) -> SmallVec<[Returned; 2]> {
        let mut returned = SmallVec::new();
        let at = self.charged_at();
        let mut rest = most.min(self.left);
        for slice in self.slices.iter_mut().rev() {
            let part = rest.min(slice.amount.micros());
            let Some(to) = Amount::from_micros(slice.amount.micros() - part).filter(|_| part > 0) else { continue };
            let meter = Meter::Fixed(self.window);
            let charge = Charge { amount: slice.amount, meter, ..charge.clone() };
            returned.push(Returned { id: slice.id, charge, at, to });
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
mod tests;
