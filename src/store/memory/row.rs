//! The row of one subject: its key and its counters.

use smallvec::SmallVec;

use super::super::counter::{Counter, Fixed};
use super::super::{ChargeChange, StoreError, Tally};
use super::askers::AskerNumber;
use crate::charge::{Charge, CounterId, Meter, Subject};
use crate::json::inline::InlineBytes;
use crate::time::Timestamp;

/// The subject of a row, and the asker whose call began the row if the row is counted: half a cache
/// line. A subject of more than 30 bytes, or 25 if the row is counted, is on the heap.
pub(super) struct Key(InlineBytes<30>);

impl Key {
    /// The first byte of a key with an asker. Without one it is the subject as it is.
    const WITH_ASKER: u8 = 0xff;

    pub(super) fn new(subject: &Subject, AskerNumber(asker): AskerNumber) -> Self {
        let mut bytes = InlineBytes::default();
        if asker == 0 && subject.as_bytes().first() != Some(&Self::WITH_ASKER) {
            bytes.extend([], subject.as_bytes());
        } else {
            let [a, b, c, d] = asker.to_le_bytes();
            bytes.extend([Self::WITH_ASKER, a, b, c, d], subject.as_bytes());
        }
        Self(bytes)
    }

    /// The bytes of the subject.
    #[inline]
    pub(super) fn subject(&self) -> &[u8] {
        match self.0.as_slice() {
            [Self::WITH_ASKER, _, _, _, _, subject @ ..] => subject,
            subject => subject,
        }
    }

    pub(super) fn asker(&self) -> AskerNumber {
        match *self.0.as_slice() {
            [Self::WITH_ASKER, a, b, c, d, ..] => AskerNumber(u32::from_le_bytes([a, b, c, d])),
            _ => AskerNumber::NOBODY,
        }
    }
}

/// All counters of one subject. `C` is a [`Cell`] for one counter, as for most subjects, or
/// [`Cells`] for several.
pub(super) struct Row<C> {
    pub(super) key: Key,
    pub(super) cells: C,
}

/// One counter of a subject.
pub(super) struct Cell {
    pub(super) counter: CounterId,
    pub(super) state: State,
}

/// Up to three counters are stored inline.
pub(super) type Cells = SmallVec<[Cell; 3]>;

/// The state of a counter. The most common kind is stored inline.
pub(super) enum State {
    Fixed(Fixed),
    Other(Box<Counter>),
}

// The memory of a live counter depends on these sizes.
const _: () = assert!(size_of::<Key>() == 32 && size_of::<Cell>() == 40);
const _: () = assert!(size_of::<Row<Cell>>() == 72 && size_of::<Row<Cells>>() == 160);

impl Cell {
    pub(super) fn new(charge: &Charge) -> Self {
        let state = match charge.meter {
            Meter::Fixed(window) => State::Fixed(Fixed::new(window)),
            _ => State::Other(Box::new(Counter::new(&charge.meter))),
        };
        Self { counter: charge.counter, state }
    }

    pub(super) fn restored(counter: CounterId, state: Counter) -> Self {
        let state = state.into_fixed().map_or_else(|other| State::Other(Box::new(other)), State::Fixed);
        Self { counter, state }
    }

    pub(super) fn to_counter(&self) -> Counter {
        match &self.state {
            State::Fixed(fixed) => (*fixed).into(),
            State::Other(counter) => (**counter).clone(),
        }
    }

    #[inline]
    pub(super) fn tally(&self, charge: &Charge, now: Timestamp) -> Result<Tally, StoreError> {
        match (&self.state, charge.meter) {
            (State::Fixed(fixed), Meter::Fixed(asked)) => Ok(fixed.tally_for(charge, asked)),
            (State::Other(counter), _) => counter.tally(charge, now),
            (State::Fixed(_), _) => Err(StoreError::Corrupt),
        }
    }

    #[inline]
    pub(super) fn charge(&mut self, charge: &Charge, now: Timestamp) -> Result<Tally, StoreError> {
        match (&mut self.state, charge.meter) {
            (State::Fixed(fixed), Meter::Fixed(asked)) => Ok(fixed.charge(asked, charge.amount)),
            (State::Other(counter), _) => counter.charge(charge, now),
            (State::Fixed(_), _) => Err(StoreError::Corrupt),
        }
    }

    #[inline]
    pub(super) fn settle(&mut self, settled: &ChargeChange<'_>, now: Timestamp) -> Result<(), StoreError> {
        match (&mut self.state, settled.charge.meter) {
            (State::Fixed(fixed), Meter::Fixed(_)) => {
                fixed.settle(settled.at.instant, settled.charge.amount, settled.to);
                Ok(())
            }
            (State::Other(counter), _) => counter.settle(settled, now),
            (State::Fixed(_), _) => Err(StoreError::Corrupt),
        }
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        match &self.state {
            State::Fixed(fixed) => fixed.window().end,
            State::Other(counter) => counter.expires_at(),
        }
    }
}
