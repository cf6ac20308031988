//! The lines of a log: each is bound to all lines before it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::record::AuditRecord;
use crate::json::hex::{Hex, parse_digest};
use crate::json::object::Object;

/// The greatest length of a line. A record is far shorter unless it has the states of very many
/// limits.
pub(super) const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// The text before and after the hash at the end of each line.
const HASH: &str = ",\"hash\":\"";
const END: &str = "\"}";

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
        if found < expected || found > expected.saturating_add(lost) {
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

/// One line, as it is written. Unknown and repeated members are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    seq: u64,
    prev: String,
    torn: Option<String>,
    record: Object<AuditRecord>,
    hash: String,
}

/// A line whose own hash is right.
pub(super) struct Line {
    pub(super) head: ChainHead,
    pub(super) prev: [u8; 32],
    pub(super) torn: Option<[u8; 32]>,
    pub(super) record: AuditRecord,
}

impl Line {
    /// Reads a line without its line end.
    pub(super) fn read(text: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(text).map_err(|_| Fault::Unreadable)?;
        let written: Written = serde_json::from_str(text).map_err(|_| Fault::Unreadable)?;
        let hash = parse_digest(&written.hash).ok_or(Fault::Unreadable)?;
        let end = format!("{HASH}{}{END}", written.hash);
        let hashed = text.strip_suffix(&end).ok_or(Fault::Unreadable)?;
        if Sha256::digest(hashed.as_bytes())[..] != hash {
            return Err(Fault::Changed);
        }
        let torn = written.torn.map(|torn| parse_digest(&torn).ok_or(Fault::Unreadable)).transpose()?;
        let prev = parse_digest(&written.prev).ok_or(Fault::Unreadable)?;
        Ok(Self { head: ChainHead { records: written.seq, hash }, prev, torn, record: written.record.0 })
    }
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
