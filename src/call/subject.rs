//! Subjects: who a counter counts.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::LazyLock;

use foldhash::quality::RandomState;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::call::identity::Identity;
use crate::json::hex::{Hex, bytes_of_hex};
use crate::json::inline::InlineBytes;
use crate::json::number::Exact;

/// The subject of a counter: the values of its scope's parts, in an injective encoding. Two
/// different lists of parts never have the same bytes, whatever the parts contain.
///
/// The parts come from callers and may be any text, so a store must treat a subject as opaque
/// bytes. It has at most 128 of them: a longer encoding is replaced by its SHA-256, so that long
/// names cannot fill a store.
#[derive(Default)]
pub struct Subject {
    bytes: InlineBytes<46>,
    /// The [hash](Self::hash_code) of a subject that is used repeatedly.
    hash: Option<NonZeroU64>,
}

impl Clone for Subject {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Filled in place: building a value and then moving it stalls on store forwarding.
    fn clone_from(&mut self, from: &Self) {
        self.bytes.clone_from(&from.bytes);
        self.hash = from.hash;
    }
}

/// The kind of a part: its first byte.
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
    /// The digest of an encoding that was too long.
    Digest = 9,
    /// The grant of a caller without a session, in place of the session.
    SessionGrant = 10,
}

impl Tag {
    fn of(identity: Identity) -> Self {
        match identity {
            Identity::Grant => Self::Grant,
            Identity::Session => Self::Session,
            Identity::Agent => Self::Agent,
            Identity::User => Self::User,
            Identity::Server => Self::Server,
        }
    }
}

/// Marks a length of at least 255, which follows in eight bytes.
const LONG: u8 = u8::MAX;
/// An encoding has at most this many bytes.
const SUBJECT_BYTES: usize = 128;

impl Subject {
    /// Makes a subject of any bytes, or of their digest if there are more than 128: for tests of
    /// stores.
    #[cfg(feature = "conformance")]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut subject = Self::of_bytes(bytes);
        subject.bound();
        subject
    }

    /// The encoded parts.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// A hash of the encoded parts, with a key that is random for each process. O(bytes), except
    /// for a subject that [remembers](Self::remember_hash) it.
    pub(crate) fn hash_code(&self) -> u64 {
        self.hash.map_or_else(|| hash_code(self.as_bytes()), NonZeroU64::get)
    }

    /// Computes the hash once, for a subject that is used repeatedly.
    fn remember_hash(mut self) -> Self {
        self.hash = NonZeroU64::new(self.hash_code());
        self
    }

    /// Makes a subject from the bytes of another one.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), hash: None }
    }

    /// Adds an identity of a caller. In place of an absent session it adds the grant, as a part of
    /// its own kind: it is never the part of a session of that name. Returns `None` if the caller
    /// lacks the identity.
    pub(crate) fn push_caller<'i>(
        &mut self,
        identity: Identity,
        name_of: impl Fn(Identity) -> Option<&'i str>,
    ) -> Option<()> {
        match (name_of(identity), identity) {
            (Some(name), _) => self.push_identity(identity, name),
            (None, Identity::Session) => self.push(Tag::SessionGrant, name_of(Identity::Grant)?.as_bytes()),
            (None, _) => return None,
        }
        Some(())
    }

    pub(crate) fn push_identity(&mut self, identity: Identity, name: &str) {
        self.push(Tag::of(identity), name.as_bytes());
    }

    /// Returns the name of an identity among the parts. In place of an absent session it is that of
    /// the grant. Returns `None` if no part is this identity, or the parts were replaced by a
    /// digest.
    #[cfg(feature = "redis")]
    pub(crate) fn name_of(&self, identity: Identity) -> Option<&[u8]> {
        let mut rest = self.as_bytes();
        loop {
            let (&[tag, length], after) = rest.split_first_chunk()?;
            let (length, after) = match length {
                LONG => {
                    let (length, after) = after.split_first_chunk()?;
                    (usize::try_from(u64::from_le_bytes(*length)).ok()?, after)
                }
                length => (usize::from(length), after),
            };
            let (name, after) = after.split_at_checked(length)?;
            if tag == Tag::of(identity) as u8 || (identity == Identity::Grant && tag == Tag::SessionGrant as u8) {
                return Some(name);
            }
            rest = after;
        }
    }

    pub(crate) fn push_global(&mut self) {
        self.push(Tag::Global, &[]);
    }

    pub(crate) fn push_text(&mut self, text: &str) {
        self.push(Tag::Text, text.as_bytes());
    }

    /// Adds a number by value: `1` and `1.0` are the same part, and `"1"` is another.
    pub(crate) fn push_number(&mut self, number: Exact) {
        match number.to_integer() {
            Ok(integer) => self.push(Tag::Integer, &integer.to_le_bytes()),
            Err(float) => self.push(Tag::Float, &float.to_bits().to_le_bytes()),
        }
    }

    /// Replaces an encoding of more than [`SUBJECT_BYTES`] by its digest. Called after the last
    /// part.
    pub(crate) fn bound(&mut self) {
        if let InlineBytes::Long(bytes) = &self.bytes
            && bytes.len() > SUBJECT_BYTES
        {
            let digest = Sha256::digest(bytes);
            *self = Self::default();
            self.push(Tag::Digest, &digest);
        }
    }

    fn push(&mut self, tag: Tag, part: &[u8]) {
        match u8::try_from(part.len()) {
            Ok(length) if length < LONG => self.bytes.extend([tag as u8, length], part),
            _ => {
                self.bytes.extend([tag as u8, LONG], &(part.len() as u64).to_le_bytes());
                self.bytes.extend([], part);
            }
        }
    }
}

/// The [hash](Subject::hash_code) of the bytes of a subject.
pub(crate) fn hash_code(subject: &[u8]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    let mut hasher = KEY.build_hasher();
    hasher.write(subject);
    hasher.finish()
}

/// A scope without arguments: the caller's identities, in order, as octal digits from the lowest.
/// Such a subject is the same in all calls of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnScope(NonZeroU32);

impl OwnScope {
    /// Returns the scope of these parts, of which `None` is `global`. Returns `None` for more than
    /// ten parts, or none.
    pub(crate) fn of(parts: impl DoubleEndedIterator<Item = Option<Identity>>) -> Option<Self> {
        let digit = |part| match part {
            None => 1,
            Some(Identity::Grant) => 2,
            Some(Identity::Session) => 3,
            Some(Identity::Agent) => 4,
            Some(Identity::User) => 5,
            Some(Identity::Server) => 6,
        };
        let number = parts.rev().try_fold(0u32, |number, part| number.checked_mul(8)?.checked_add(digit(part)))?;
        NonZeroU32::new(number).map(Self)
    }

    /// The parts, in order.
    fn parts(self) -> impl Iterator<Item = Option<Identity>> {
        let digits = std::iter::successors(Some(self.0.get()), |rest| Some(rest / 8).filter(|rest| *rest > 0));
        digits.map(|rest| match rest % 8 {
            2 => Some(Identity::Grant),
            3 => Some(Identity::Session),
            4 => Some(Identity::Agent),
            5 => Some(Identity::User),
            6 => Some(Identity::Server),
            _ => None,
        })
    }

    /// The subject of a caller with these identities; `None` if one is absent.
    pub(crate) fn subject<'i>(self, identity: impl Fn(Identity) -> Option<&'i str>) -> Option<Subject> {
        let mut subject = Subject::default();
        for part in self.parts() {
            match part {
                None => subject.push_global(),
                Some(part) => subject.push_caller(part, &identity)?,
            }
        }
        subject.bound();
        Some(subject.remember_hash())
    }
}

impl PartialEq for Subject {
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

/// Serialises as hexadecimal digits.
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
        // Few letters, and those of the encoding itself, so that parts nearly collide.
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

    #[cfg(feature = "redis")]
    #[test]
    fn finds_the_name_of_an_identity_among_the_parts() {
        let name = |parts: &[Part], identity| encode(parts).name_of(identity).map(<[u8]>::to_vec);
        let grant = Part::Identity(Identity::Grant, "g".into());
        let long = Part::Text("\u{4}".repeat(300));
        let parts = [Part::Global, long, Part::Integer(4), Part::Text("\u{4}\u{1}x".into()), grant];
        assert_eq!(name(&parts, Identity::Grant), Some(b"g".to_vec()));
        assert_eq!(name(&parts, Identity::User), None);
        assert_eq!(name(&parts[..4], Identity::Grant), None);
        assert_eq!(Subject::default().name_of(Identity::Grant), None);
        let mut session = Subject::default();
        session.push_caller(Identity::Session, |identity| (identity == Identity::Grant).then_some("g")).unwrap();
        assert_eq!(session.name_of(Identity::Grant), Some(&b"g"[..]));
        // Bytes that stores are tested with, not parts.
        for bytes in [&[4][..], &[4, 9, 1], &[4, 255, 1], &[0, 255, 255, 255, 255, 255, 255, 255, 255, 255]] {
            assert_eq!(Subject::of_bytes(bytes).name_of(Identity::Grant), None);
        }
    }

    proptest! {
        #[test]
        fn different_lists_of_parts_have_different_subjects(
            a in prop::collection::vec(part(), 0..4),
            b in prop::collection::vec(part(), 0..4),
        ) {
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }

        /// Two ways to cut the same bytes into parts.
        #[test]
        fn a_text_cut_in_two_ways_has_two_subjects(text in "[a-c\\x00-\\x02]{1,8}", cuts in any::<(usize, usize)>()) {
            let cut = |at: usize| {
                let (head, tail) = text.split_at(at % (text.len() + 1));
                encode(&[Part::Text(head.into()), Part::Text(tail.into())])
            };
            let same = cuts.0 % (text.len() + 1) == cuts.1 % (text.len() + 1);
            prop_assert_eq!(cut(cuts.0) == cut(cuts.1), same);
        }
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

    /// Stores keep these bytes: a change would lose their counters.
    #[test]
    fn the_encoding_of_parts_is_stable() {
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
    fn subjects_serialise_as_hexadecimal_digits() {
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
    fn subjects_order_by_their_bytes() {
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

    #[test]
    fn a_scope_of_identities_has_its_parts() {
        let all = [None].into_iter().chain(Identity::ALL.map(Some));
        for first in all.clone() {
            for second in all.clone() {
                let scope = OwnScope::of([first, second].into_iter()).unwrap();
                assert_eq!(scope.parts().collect::<Vec<_>>(), [first, second]);
            }
        }
        assert_eq!(OwnScope::of(std::iter::repeat_n(Some(Identity::Server), 10)).map(|s| s.parts().count()), Some(10));
        assert_eq!(OwnScope::of(std::iter::repeat_n(Some(Identity::Server), 11)), None);
        assert_eq!(OwnScope::of(std::iter::empty()), None);
    }

    #[test]
    fn a_remembered_hash_is_that_of_the_bytes() {
        let scope = OwnScope::of([Some(Identity::Grant), Some(Identity::User)].into_iter()).unwrap();
        let long = "u".repeat(300);
        for user in ["", "u", &long] {
            let subject = scope.subject(|part| Some(if part == Identity::User { user } else { "g" })).unwrap();
            let again = Subject::of_bytes(subject.as_bytes());
            assert_eq!(subject, again);
            assert_eq!(subject.hash_code(), again.hash_code(), "{user}");
            assert!(subject.hash.is_some() && again.hash.is_none());
        }
        assert!(scope.subject(|part| (part == Identity::User).then_some("u")).is_none(), "no grant");
    }
    #[test]
    fn a_caller_without_a_session_is_counted_by_its_grant() {
        let of = |grant: Option<&'static str>, session: Option<&'static str>| {
            let scope = OwnScope::of([Some(Identity::Session)].into_iter()).unwrap();
            scope.subject(|part| if part == Identity::Grant { grant } else { session })
        };
        assert_eq!(of(Some("g"), None).unwrap().as_bytes(), b"\x0a\x01g");
        assert_eq!(of(Some("g"), Some("g")).unwrap().as_bytes(), b"\x05\x01g");
        assert_eq!(of(None, None), None);
        let grants = OwnScope::of([Some(Identity::Grant)].into_iter()).unwrap();
        assert_eq!(grants.subject(|part| (part == Identity::Session).then_some("s")), None);
    }
}
