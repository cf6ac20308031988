//! What a call will cost: all that policy and store share.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::amount::Amount;
use crate::call::Identity;
use crate::hex::{Hex, unhex};
use crate::number::Exact;

pub use crate::limit::Span;

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

fn bytes_of_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let bytes = unhex(&String::deserialize(deserializer)?);
    bytes.ok_or_else(|| de::Error::custom("not a row of bytes in hexadecimal digits"))
}

impl fmt::Debug for CounterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CounterId({})", Hex(&self.0))
    }
}

/// Whom a counter counts: the values of its scope's parts, in an encoding that is injective. No two different lists of
/// parts give the same bytes, whatever the parts contain.
///
/// The parts come from callers and may be any text; a store must treat them as opaque bytes. There are at most 128 of them: in
/// place of more stands their SHA-256, so that nobody fills a store with long names.
#[derive(Clone)]
pub struct Subject(Bytes);

/// A buffer of its own, because one is filled for each call: a general one took a third of the time of a plan.
#[derive(Clone)]
enum Bytes {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Vec<u8>),
}

/// So many bytes stay out of the heap.
const SHORT: usize = 46;

/// What a part of a subject is: its first byte.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Global = 0,
    Text = 1,
    Integer = 2,
    Float = 3,
    Grant = 4,
    Session = 5,
    Agent = 6,
    User = 7,
    Server = 8,
    /// The digest of an encoding that is too long.
    Digest = 9,
}

/// In place of a part's length: it is 255 or above, and follows in eight bytes.
const LONG: u8 = u8::MAX;
/// How long an encoding may be.
const SUBJECT_BYTES: usize = 128;

impl Subject {
    /// A subject of these bytes, or of their digest where there are more than 128, whether parts encode to them or not: for
    /// tests of stores.
    #[cfg(feature = "conformance")]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut subject = Self::of_bytes(bytes);
        subject.bound();
        subject
    }

    /// The encoded parts.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Bytes::Long(bytes) => bytes,
        }
    }

    /// A subject from the bytes that another one had.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let mut subject = Self::default();
        subject.extend([], bytes);
        subject
    }

    #[inline]
    pub(crate) fn push_identity(&mut self, identity: Identity, name: &str) {
        let tag = match identity {
            Identity::Grant => Tag::Grant,
            Identity::Session => Tag::Session,
            Identity::Agent => Tag::Agent,
            Identity::User => Tag::User,
            Identity::Server => Tag::Server,
        };
        self.push(tag, name.as_bytes());
    }

    pub(crate) fn push_global(&mut self) {
        self.push(Tag::Global, &[]);
    }

    pub(crate) fn push_text(&mut self, text: &str) {
        self.push(Tag::Text, text.as_bytes());
    }

    /// Numbers by value: `1` and `1.0` are one part, `"1"` is another.
    pub(crate) fn push_number(&mut self, number: Exact) {
        let integer = match number {
            Exact::Integer(integer) => i128::from(integer),
            Exact::Large(integer) => i128::from(integer),
            #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^100")]
            Exact::Float(float) if number.is_whole() && float.abs() < 2f64.powi(100) => float as i128,
            Exact::Float(float) => return self.push(Tag::Float, &float.to_bits().to_le_bytes()),
        };
        self.push(Tag::Integer, &integer.to_le_bytes());
    }

    /// Brings the encoding down to at most [`SUBJECT_BYTES`], after the last part.
    #[inline]
    pub(crate) fn bound(&mut self) {
        if let Bytes::Long(bytes) = &self.0
            && bytes.len() > SUBJECT_BYTES
        {
            let digest = Sha256::digest(bytes);
            *self = Self::default();
            self.push(Tag::Digest, &digest);
        }
    }

    #[inline]
    fn push(&mut self, tag: Tag, part: &[u8]) {
        match u8::try_from(part.len()) {
            Ok(length) if length < LONG => self.extend([tag as u8, length], part),
            _ => {
                self.extend([tag as u8, LONG], &(part.len() as u64).to_le_bytes());
                self.extend([], part);
            }
        }
    }

    #[inline]
    fn extend<const HEAD: usize>(&mut self, head: [u8; HEAD], part: &[u8]) {
        if let Bytes::Short { length, bytes } = &mut self.0 {
            let before = usize::from(*length);
            let after = before + HEAD + part.len();
            let space = bytes.get_mut(before..after).and_then(|space| space.split_first_chunk_mut::<HEAD>());
            if let (Some((to_head, to_part)), Ok(after)) = (space, u8::try_from(after)) {
                *to_head = head;
                to_part.copy_from_slice(part);
                *length = after;
                return;
            }
        }
        self.extend_on_heap(&head, part);
    }

    #[cold]
    fn extend_on_heap(&mut self, head: &[u8], part: &[u8]) {
        let mut bytes = match std::mem::take(self).0 {
            Bytes::Long(bytes) => bytes,
            short @ Bytes::Short { .. } => Self(short).as_bytes().to_vec(),
        };
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(part);
        self.0 = Bytes::Long(bytes);
    }
}

impl Default for Subject {
    #[inline]
    fn default() -> Self {
        Self(Bytes::Short { length: 0, bytes: [0; SHORT] })
    }
}

impl PartialEq for Subject {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Subject {}

impl PartialOrd for Subject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Subject {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// As hexadecimal digits.
impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Hex(self.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes_of_hex(deserializer)?;
        if bytes.len() > SUBJECT_BYTES {
            return Err(de::Error::custom("a subject has at most 128 bytes"));
        }
        Ok(Self::of_bytes(&bytes))
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.as_bytes().escape_ascii())
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

/// All charges of one call. Up to four stay out of the heap.
pub type Charges = SmallVec<[Charge; 4]>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Part {
        Global,
        Identity(Identity, String),
        Text(String),
        Integer(i64),
        Float(f64),
    }

    fn part() -> impl Strategy<Value = Part> {
        // Few letters, those of the encoding itself among them, so that parts nearly meet.
        let text = "[\\x00-\\x0aab]{0,4}";
        prop_oneof![
            Just(Part::Global),
            (prop::sample::select(Identity::ALL.to_vec()), text)
                .prop_map(|(identity, name)| Part::Identity(identity, name)),
            text.prop_map(Part::Text),
            (-3i64..3).prop_map(Part::Integer),
            prop::sample::select(vec![0.5, -0.5, 1e300, 5e-324]).prop_map(Part::Float),
        ]
    }

    fn encode(parts: &[Part]) -> Subject {
        let mut subject = Subject::default();
        for part in parts {
            match part {
                Part::Global => subject.push_global(),
                Part::Identity(identity, name) => subject.push_identity(*identity, name),
                Part::Text(text) => subject.push_text(text),
                Part::Integer(integer) => subject.push_number(Exact::Integer(*integer)),
                Part::Float(float) => subject.push_number(Exact::Float(*float)),
            }
        }
        subject
    }

    proptest! {
        #[test]
        fn different_lists_of_parts_give_different_subjects(
            a in prop::collection::vec(part(), 0..4),
            b in prop::collection::vec(part(), 0..4),
        ) {
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }

        /// The same bytes, cut into parts in two ways.
        #[test]
        fn a_text_cut_in_two_ways_gives_two_subjects(text in "[a-c\\x00-\\x02]{1,8}", cuts in any::<(usize, usize)>()) {
            let cut = |at: usize| {
                let (head, tail) = text.split_at(at % (text.len() + 1));
                encode(&[Part::Text(head.into()), Part::Text(tail.into())])
            };
            let same = cuts.0 % (text.len() + 1) == cuts.1 % (text.len() + 1);
            prop_assert_eq!(cut(cuts.0) == cut(cuts.1), same);
        }
    }

    #[test]
    fn counters_of_different_parts_differ() {
        assert_eq!(CounterId::of(["a", "b"]), CounterId::of(["a", "b"]));
        assert_ne!(CounterId::of(["a", "b"]), CounterId::of(["ab"]));
        assert_ne!(CounterId::of(["a", "b"]), CounterId::of(["a", "b", ""]));
        assert_ne!(CounterId::of(["", "a"]), CounterId::of(["a", ""]));
    }

    #[test]
    fn numbers_are_parts_by_value() {
        let part = |text: &str| {
            let mut subject = Subject::default();
            subject.push_number(Exact::of_text(text).unwrap());
            subject
        };
        assert_eq!(part("1"), part("1.0"));
        assert_eq!(part("0"), part("-0.0"));
        assert_eq!(part("100"), part("1e2"));
        assert_ne!(part("9007199254740993"), part("9007199254740992.0"));
        assert_ne!(part("1e300"), part("1e299"));
        let mut text = Subject::default();
        text.push_text("1");
        assert_ne!(text, part("1"));
    }

    #[test]
    fn long_parts_keep_their_length() {
        let subject = |parts: &[&str]| {
            let mut subject = Subject::default();
            parts.iter().for_each(|part| subject.push_identity(Identity::Grant, part));
            subject
        };
        let long = "x".repeat(300);
        assert_eq!(subject(&[&long]).as_bytes().len(), 310);
        let (shorter, _) = long.split_at(299);
        assert_ne!(subject(&[&long, "y"]), subject(&[shorter, "xy"]));
        let bounded = |parts: &[&str]| {
            let mut subject = subject(parts);
            subject.bound();
            subject
        };
        assert_eq!(bounded(&["short"]), subject(&["short"]));
        assert_eq!(bounded(&[&long]).as_bytes().len(), 34);
        assert_ne!(bounded(&[&long, "y"]), bounded(&[shorter, "xy"]));
    }

    /// What stores keep: a change of it would lose their counters.
    #[test]
    fn parts_are_encoded_as_ever() {
        let number = |exact| {
            let mut subject = Subject::default();
            subject.push_number(exact);
            subject
        };
        let integer = |integer: i128| [&[2, 16][..], &integer.to_le_bytes()].concat();
        let float = |float: f64| [&[3, 8][..], &float.to_bits().to_le_bytes()].concat();
        assert_eq!(number(Exact::Integer(-7)).as_bytes(), integer(-7));
        assert_eq!(number(Exact::Float(2f64.powi(99))).as_bytes(), integer(1 << 99));
        assert_eq!(number(Exact::Float(-(2f64.powi(100)))).as_bytes(), float(-(2f64.powi(100))));
        assert_eq!(number(Exact::Float(0.5)).as_bytes(), float(0.5));
        let text = |length: usize| {
            let mut subject = Subject::default();
            subject.push_text(&"x".repeat(length));
            subject
        };
        assert_eq!(text(2).as_bytes(), b"\x01\x02xx");
        assert_eq!(text(254).as_bytes(), [&[1, 254][..], &[b'x'; 254]].concat());
        assert_eq!(text(255).as_bytes(), [&[1, 255, 255, 0, 0, 0, 0, 0, 0, 0][..], &[b'x'; 255]].concat());
        let bounded = |length| {
            let mut subject = text(length);
            subject.bound();
            subject.as_bytes().len()
        };
        assert_eq!((bounded(126), bounded(127)), (128, 34));
    }

    #[test]
    fn counters_and_subjects_are_written_in_hexadecimal_digits() {
        let counter = CounterId::of(["a"]);
        let text = serde_json::to_string(&counter).unwrap();
        let digits: String = counter.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((text.as_str(), counter.as_bytes().len()), (&*format!("\"{digits}\""), 16));
        assert_eq!(serde_json::from_str::<CounterId>(&text).unwrap(), counter);
        assert_eq!(format!("{counter:?}"), format!("CounterId({digits})"));
        assert!(serde_json::from_str::<CounterId>("\"00\"").is_err());

        let subject = encode(&[Part::Global, Part::Text("a".into())]);
        assert_eq!(serde_json::to_string(&subject).unwrap(), "\"0000010161\"");
        assert_eq!(serde_json::from_str::<Subject>("\"0000010161\"").unwrap(), subject);
        assert_eq!(format!("{subject:?}"), r"Subject(\x00\x00\x01\x01a)");
        let of_bytes = |count: usize| serde_json::from_str::<Subject>(&format!("\"{}\"", "61".repeat(count)));
        assert_eq!(of_bytes(128).unwrap().as_bytes(), [b'a'; 128]);
        assert!(of_bytes(129).is_err() && serde_json::from_str::<Subject>("\"6\"").is_err());
        assert!(serde_json::from_str::<Subject>("\"6g\"").is_err());
    }

    #[test]
    fn subjects_are_in_the_order_of_their_bytes() {
        let mut subjects = [Subject::of_bytes(b"b"), Subject::of_bytes(b"a"), Subject::of_bytes(&[b'a'; 60])];
        subjects.sort();
        assert_eq!(subjects.each_ref().map(|subject| subject.as_bytes().len()), [1, 60, 1]);
        assert!(subjects[0] < subjects[1] && subjects[1] < subjects[2]);
        let hash = |subject: &Subject| {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            subject.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(&subjects[0]), hash(&Subject::of_bytes(b"a")));
        assert_ne!(hash(&subjects[0]), hash(&subjects[1]));
    }
}
