//! The lines of a log: each is bound to all lines before it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest as _, Sha256};

use crate::json::hex::{Hex, parse_digest};
use crate::json::object::Object;

/// The greatest length of a line. A record is far shorter unless it has the states of very many
/// limits.
pub(super) const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// The text before and after the hash at the end of each line.
const HASH: &str = ",\"hash\":\"";
const END: &str = "\"}";
const END_BYTES: usize = HASH.len() + 64 + END.len();

/// The head of a log: its number of records, and a hash over all of them.
///
/// Kept apart from the log, it proves later that the log still begins with these records
/// ([`verify_up_to`](super::verify_up_to)). Its text is the number, a dash and 64 hexadecimal
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    pub(super) records: u64,
    pub(super) hash: [u8; 32],
}

impl ChainHead {
    /// The head of an empty log.
    pub const EMPTY: Self = Self { records: 0, hash: [0; 32] };

    /// Returns the number of records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the next line, without its line end, and the head after it.
    pub(super) fn next_line(&self, torn: Option<[u8; 32]>, record: &str) -> (String, Self) {
        let torn = torn.map_or_else(String::new, |hash| format!(",\"torn\":\"{}\"", Hex(&hash)));
        let mut line = format!("{}{torn},\"record\":{record}", self.next_begin());
        let hash: [u8; 32] = Sha256::digest(line.as_bytes()).into();
        line.push_str(HASH);
        line.push_str(&Hex(&hash).to_string());
        line.push_str(END);
        (line, Self { records: self.next_number(), hash })
    }

    /// Checks that `line` continues the log after this head, if up to `lost` unreadable lines
    /// between them were records.
    pub(super) fn check_next(&self, line: &Line, lost: u64) -> Result<(), Fault> {
        let (expected, found) = (self.next_number(), line.head.records);
        if *self == Self::EMPTY && lost == 0 && found > expected {
            Err(Fault::Continues { after: found - 1 })
        } else if found < expected || found > expected.saturating_add(lost) {
            Err(Fault::Sequence { expected, found })
        } else if found == expected && line.prev != self.hash {
            Err(Fault::Chain)
        } else {
            Ok(())
        }
    }

    pub(super) fn next_number(&self) -> u64 {
        self.records.saturating_add(1)
    }

    /// Returns the beginning of the next line.
    fn next_begin(&self) -> String {
        format!("{{\"seq\":{},\"prev\":\"{}\"", self.next_number(), Hex(&self.hash))
    }

    /// Returns `true` if `rest` may be what is left of the next line: its beginning, followed by
    /// zeros if a machine has stopped.
    pub(super) fn may_begin_with(&self, rest: &[u8]) -> bool {
        let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
        let begin = self.next_begin();
        rest.iter().take(rest.len() - zeros).zip(begin.as_bytes()).all(|(byte, expected)| byte == expected)
    }
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.records, Hex(&self.hash))
    }
}

/// The text is not the head of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the head of a log: a number, a dash and 64 hexadecimal digits")]
#[non_exhaustive]
pub struct ParseHeadError;

/// Reads the text that [`Display`](fmt::Display) writes, and no other form of it.
impl FromStr for ChainHead {
    type Err = ParseHeadError;

    fn from_str(text: &str) -> Result<Self, ParseHeadError> {
        let (records, digits) = text.split_once('-').ok_or(ParseHeadError)?;
        let records = records.parse().map_err(|_| ParseHeadError)?;
        let head = Self { records, hash: parse_digest(digits).ok_or(ParseHeadError)? };
        if head.to_string() == text { Ok(head) } else { Err(ParseHeadError) }
    }
}

/// A line whose own hash is right.
pub(super) struct Line {
    pub(super) head: ChainHead,
    pub(super) prev: [u8; 32],
    pub(super) torn: Option<[u8; 32]>,
    /// The part of the line that is the record.
    record: Range<usize>,
}

impl Line {
    /// Reads a line without its line end, in the form that [`ChainHead::next_line`] writes and no
    /// other. It does not read the record: [`verify`](super::verify) needs its hash alone.
    pub(super) fn read(text: &[u8]) -> Result<Self, Fault> {
        let line = Self::split(text).ok_or(Fault::Unreadable)?;
        if Sha256::digest(text.get(..line.record.end).unwrap_or_default())[..] == line.head.hash {
            return Ok(line);
        }
        // A write that was cut off can end in the middle of a record with what ends a line.
        let is_whole = serde_json::from_slice::<IgnoredAny>(text).is_ok();
        Err(if is_whole { Fault::Changed } else { Fault::Unreadable })
    }

    fn split(text: &[u8]) -> Option<Self> {
        let (hashed, end) = text.split_last_chunk::<END_BYTES>()?;
        let hash = parse_digest(end.strip_prefix(HASH.as_bytes())?.strip_suffix(END.as_bytes())?)?;
        let rest = hashed.strip_prefix(b"{\"seq\":")?;
        let (seq, rest) = rest.split_at_checked(rest.iter().position(|byte| !byte.is_ascii_digit())?)?;
        let records = str::from_utf8(seq).ok().filter(|seq| !seq.starts_with('0'))?.parse().ok()?;
        let (prev, rest) = member(rest, b",\"prev\":\"")?;
        let (torn, rest) = member(rest, b",\"torn\":\"").map_or((None, rest), |(torn, rest)| (Some(torn), rest));
        let record = rest.strip_prefix(b",\"record\":")?;
        let record = hashed.len() - record.len()..hashed.len();
        Some(Self { head: ChainHead { records, hash }, prev, torn, record })
    }

    /// Reads the record of the line, whose text this is.
    pub(super) fn record<T: DeserializeOwned>(&self, text: &[u8]) -> Result<T, Fault> {
        let record = text.get(self.record.clone()).ok_or(Fault::Unreadable)?;
        serde_json::from_slice(record).map(|Object(record)| record).map_err(|_| Fault::Unreadable)
    }
}

/// Reads a member that is a digest. Returns it and what follows.
fn member<'t>(text: &'t [u8], name: &[u8]) -> Option<([u8; 32], &'t [u8])> {
    let (digits, rest) = text.strip_prefix(name)?.split_at_checked(64)?;
    Some((parse_digest(digits)?, rest.strip_prefix(b"\"")?))
}

/// The fault of a line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is not a line of a log, and no later line names it as the remains of a failed write: it
    /// was changed or inserted.
    #[error("not a line of an audit log")]
    Unreadable,
    /// It does not match its own hash: it was changed.
    #[error("the record has been changed")]
    Changed,
    /// Its number is not the next one: records before it are missing, or it was moved or
    /// duplicated.
    #[error("record {found} found where record {expected} is expected: records are missing, moved or duplicated")]
    Sequence {
        /// The next number.
        expected: u64,
        /// The number of the line.
        found: u64,
    },
    /// The first record of a log that is read from its beginning is not number 1. The log continues
    /// another, as one that was rotated does: read it after the other, or after the
    /// [head](super::verify_after) of the other that was kept. If it continues none, its beginning
    /// is missing.
    #[error(
        "this log continues after record {after}: verify it together with the log before it, or after the head of \
         that log; if there is none, the first {after} records are missing"
    )]
    Continues {
        /// The number of records before it.
        after: u64,
    },
    /// It does not have the hash of the line before it: one of the two was replaced.
    #[error("it does not continue the record before it: one of the two was replaced")]
    Chain,
    /// The lines before it are not the remains of failed writes that it names: they are missing or
    /// were changed.
    #[error("the lines before it are not the remains of failed writes that it names")]
    Torn,
    /// It is longer than 16 MiB.
    #[error("longer than 16 MiB")]
    TooLong,
    /// The log ends in the middle of it: the write was interrupted, or the end was cut off. A
    /// [`JsonLines`](super::JsonLines) that continues the log repairs it.
    #[error("the log ends in the middle of the line")]
    Unfinished,
    /// The log ends before the expected head: records at its end are missing.
    #[error("the log ends at record {found}, before record {expected}: its end is missing")]
    Cut {
        /// The number of records that the log must have at least.
        expected: u64,
        /// The number of records that it has.
        found: u64,
    },
    /// The log has another record at the expected head: it is not the same log.
    #[error("this record is not the one of the expected head: the log was replaced")]
    OtherHead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_the_text_of_a_head_and_no_other() {
        let head = ChainHead { records: 17, hash: [0xab; 32] };
        assert_eq!(head.to_string().parse(), Ok(head));
        let digits = "ab".repeat(32);
        for wrong in ["", "17", &digits, &format!("017-{digits}"), &format!("+1-{digits}"), &format!("17-{digits}0")] {
            assert!(wrong.parse::<ChainHead>().is_err(), "{wrong}");
        }
        assert!(format!("17-{}", digits.to_uppercase()).parse::<ChainHead>().is_err());
    }
}
