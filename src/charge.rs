//! What a call will cost: all that policy and store share.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::amount::Amount;
use crate::json::hex::{Hex, bytes_of_hex};
use crate::time::Timestamp;

pub use crate::call::subject::Subject;

/// A counter of one policy, whoever is counted by it.
///
/// It is the beginning of a SHA-256 over an injective encoding of the policy's namespace, the counter's name, its
/// window, scope and algorithm: an edited policy goes on counting where the old one stood, another window begins a new
/// counter, and nobody can choose names that meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterId([u8; 16]);

impl CounterId {
    /// The counter that these parts name. No two different lists of parts give the same counter.
    pub(crate) fn of<'p>(parts: impl IntoIterator<Item = &'p str>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(id)
    }

    /// A counter of this name, which no policy has: for tests of stores.
    #[cfg(feature = "conformance")]
    pub fn named(name: &str) -> Self {
        Self::of(["(conformance)", name])
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// As 32 hexadecimal digits.
impl Serialize for CounterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for CounterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes_of_hex(deserializer)?;
        bytes.try_into().map(Self).map_err(|_| de::Error::custom("a counter has 16 bytes"))
    }
}

impl fmt::Debug for CounterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CounterId({})", Hex(&self.0))
    }
}

/// What one call costs in one counter: data, so that a store across a network can take it in one message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// The counter.
    pub counter: CounterId,
    /// Whom it counts.
    pub subject: Subject,
    /// What is charged.
    pub amount: Amount,
    /// The most that the counter may hold with the charge in it. `None` for one that only shadow limits charge: it
    /// counts and never refuses. [`Amount::ZERO`] refuses every charge. (Of a token bucket it is the burst.)
    pub max: Option<Amount>,
    /// How it counts.
    pub meter: Meter,
}

impl Charge {
    /// Charges `subject` with `amount` in `counter`, if it then holds at most `max`.
    pub fn new(counter: CounterId, subject: Subject, amount: Amount, max: Option<Amount>, meter: Meter) -> Self {
        Self { counter, subject, amount, max, meter }
    }
}

/// How a counter counts, in integers: a store needs no calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meter {
    /// At most `max` in the aligned window that the present lies in.
    Fixed(Span),
    /// At most `max` in every interval of so many seconds.
    Sliding {
        /// The interval's length in seconds. Never zero.
        seconds: u32,
    },
    /// `refill` comes back over so many seconds, continuously; what can be taken at once is the charge's `max`.
    TokenBucket {
        /// What comes back in `seconds`.
        refill: Amount,
        /// The time in which `refill` comes back. Never zero.
        seconds: u32,
    },
    /// Held until the call has ended.
    InFlight {
        /// After so many seconds a unit comes back though nobody has reported the end.
        lease: u32,
    },
}

/// All charges of one call: up to four without an allocation.
pub(crate) type Charges = SmallVec<[Charge; 4]>;

/// A span of time: from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a start and an end are what a span is")]
pub struct Span {
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_different_parts_differ() {
        assert_eq!(CounterId::of(["a", "b"]), CounterId::of(["a", "b"]));
        assert_ne!(CounterId::of(["a", "b"]), CounterId::of(["ab"]));
        assert_ne!(CounterId::of(["a", "b"]), CounterId::of(["a", "b", ""]));
        assert_ne!(CounterId::of(["", "a"]), CounterId::of(["a", ""]));
    }
    #[test]
    fn counters_are_written_in_hexadecimal_digits() {
        let counter = CounterId::of(["a"]);
        let text = serde_json::to_string(&counter).unwrap();
        let digits: String = counter.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((text.as_str(), counter.as_bytes().len()), (&*format!("\"{digits}\""), 16));
        assert_eq!(serde_json::from_str::<CounterId>(&text).unwrap(), counter);
        assert_eq!(format!("{counter:?}"), format!("CounterId({digits})"));
        assert!(serde_json::from_str::<CounterId>("\"00\"").is_err());
    }
}
