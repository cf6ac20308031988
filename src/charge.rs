//! Charges: what a call costs in its counters. Plain data, which policies and stores share.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::amount::Amount;
use crate::call::ToolCall;
use crate::call::identity::{Identity, asker};
use crate::json::hex::{Hex, bytes_of_hex};
use crate::time::Timestamp;

pub use crate::call::subject::Subject;

/// The id of a counter in one policy, for all its subjects.
///
/// It is the beginning of a SHA-256 of an injective encoding of the policy's namespace and of the
/// counter's name, window, scope and algorithm. An edited policy continues its counters, a
/// different window starts a new one, and names cannot be chosen to collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterId([u8; 16]);

impl CounterId {
    /// Returns the counter of these parts. Two different lists of parts never have the same
    /// counter.
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

    /// A counter that no policy has: for tests of stores.
    #[cfg(feature = "conformance")]
    pub fn named(name: &str) -> Self {
        Self::of(["(conformance)", name])
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Serialises as 32 hexadecimal digits.
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

/// The charge of one call to one counter: plain data, so that a remote store can receive it in one
/// message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// The counter.
    pub counter: CounterId,
    /// The subject that is counted.
    pub subject: Subject,
    /// The amount to charge.
    pub amount: Amount,
    /// The most that the counter may hold, including the charge (the burst of a token bucket).
    /// [`Amount::ZERO`] refuses every charge. `None` for a counter that only shadow limits charge:
    /// it counts and never refuses.
    pub max: Option<Amount>,
    /// The counting algorithm, with its window.
    pub meter: Meter,
}

impl Charge {
    /// Makes a charge of `amount` that is refused if the counter would then hold more than `max`.
    pub fn new(counter: CounterId, subject: Subject, amount: Amount, max: Option<Amount>, meter: Meter) -> Self {
        Self { counter, subject, amount, max, meter }
    }
}

/// The maker of a call, for a store that bounds the counters of each: the first present of grant,
/// user, agent and session. All calls without any of them have one asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker<'c>(Option<(Identity, &'c str)>);

impl<'c> Asker<'c> {
    /// The asker with this identity, or the one without any.
    pub fn new(identity: impl Into<Option<(Identity, &'c str)>>) -> Self {
        Self(identity.into())
    }

    /// The asker of a call.
    #[inline]
    pub(crate) fn of(call: &ToolCall<'c>) -> Self {
        Self(asker(|identity| call.identity(identity)))
    }

    /// A key of at most 128 bytes, which no other asker has.
    pub fn key(self) -> Subject {
        let mut key = Subject::default();
        match self.0 {
            Some((identity, name)) => key.push_identity(identity, name),
            None => key.push_global(),
        }
        key.bound();
        key
    }
}

/// The counting algorithm of a counter, in integers: a store needs no calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meter {
    /// At most `max` in the aligned window that contains the present, or in
    /// [all time](Span::LIFETIME).
    Fixed(Span),
    /// At most `max` in every interval of this length.
    Sliding {
        /// The length of the interval in seconds. Never zero.
        seconds: u32,
    },
    /// `refill` flows back over `seconds`, continuously. At most `max` of the charge can be taken
    /// at once.
    TokenBucket {
        /// The amount that flows back in `seconds`.
        refill: Amount,
        /// The time in which `refill` flows back. Never zero.
        seconds: u32,
    },
    /// A unit is held until the call ends.
    InFlight {
        /// The seconds after which a unit is freed if the end of the call is not reported.
        lease: u32,
    },
}

/// All charges of one call. Up to four are stored without an allocation.
pub(crate) type Charges = SmallVec<[Charge; 4]>;

/// A span of time from `start` to `end`, without `end` itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a span is a start and an end")]
pub struct Span {
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after the span.
    pub end: Timestamp,
}

impl Span {
    /// The window of a counter that never begins anew. A store must not drop such a counter, unless
    /// it is reset. It begins at the epoch so that every store can tell its start exactly; an
    /// earlier instant is in it too.
    pub const LIFETIME: Self = Self { start: Timestamp::UNIX_EPOCH, end: Timestamp::MAX };
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
    fn counters_serialise_as_hexadecimal_digits() {
        let counter = CounterId::of(["a"]);
        let text = serde_json::to_string(&counter).unwrap();
        let digits: String = counter.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((text.as_str(), counter.as_bytes().len()), (&*format!("\"{digits}\""), 16));
        assert_eq!(serde_json::from_str::<CounterId>(&text).unwrap(), counter);
        assert_eq!(format!("{counter:?}"), format!("CounterId({digits})"));
        assert!(serde_json::from_str::<CounterId>("\"00\"").is_err());
    }
}
