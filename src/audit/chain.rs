//! Lines of a log, each bound to all before it.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::str::FromStr;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::record::AuditRecord;
use crate::json::hex::{Hex, undigest};
use crate::json::object::Object;

/// How long a line may be. A record is shorter by far, but for the states of very many limits.
pub(super) const LINE: usize = 16 * 1024 * 1024;
/// What stands at the end of each line, before and after its hash.
const HASH: &str = ",\"hash\":\"";
const END: &str = "\"}";

/// Where a log stands: how many records it has, and a hash over all of them.
///
/// Kept elsewhere than the log, it shows later that the log still begins with them ([`verify_up_to`]). It is written as the
/// number, a dash and 64 hexadecimal digits, and read from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    pub(super) records: u64,
    pub(super) hash: [u8; 32],
}

impl ChainHead {
    /// That of a log without a record.
    pub const EMPTY: Self = Self { records: 0, hash: [0; 32] };

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The line that comes next, without its line end, and where the log stands then.
    pub(super) fn next_line(&self, torn: Option<[u8; 32]>, record: &str) -> (String, Self) {
        let torn = torn.map_or_else(String::new, |hash| format!(",\"torn\":\"{}\"", Hex(&hash)));
        let mut line = format!("{}{torn},\"record\":{record}", self.next_begin());
        let hash: [u8; 32] = Sha256::digest(line.as_bytes()).into();
        line.push_str(HASH);
        line.push_str(&Hex(&hash).to_string());
        line.push_str(END);
        (line, Self { records: self.next_number(), hash })
    }

    fn next_number(&self) -> u64 {
        self.records.saturating_add(1)
    }

    /// What the next line begins with.
    fn next_begin(&self) -> String {
        format!("{{\"seq\":{},\"prev\":\"{}\"", self.next_number(), Hex(&self.hash))
    }

    /// Whether this may be what is left of the next line: its beginning, and where a machine has stopped, zeros.
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

/// A text is no head of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the head of a log: a number, a dash and 64 hexadecimal digits")]
pub struct ParseHeadError;

/// Reads what was written, and no other spelling.
impl FromStr for ChainHead {
    type Err = ParseHeadError;

    fn from_str(text: &str) -> Result<Self, ParseHeadError> {
        let (records, digits) = text.split_once('-').ok_or(ParseHeadError)?;
        let records = records.parse().map_err(|_| ParseHeadError)?;
        let head = Self { records, hash: undigest(digits).ok_or(ParseHeadError)? };
        if head.to_string() == text { Ok(head) } else { Err(ParseHeadError) }
    }
}

/// One line, as it is written. Unknown members and those that stand twice are refused.
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
        let hash = undigest(&written.hash).ok_or(Fault::Unreadable)?;
        let end = format!("{HASH}{}{END}", written.hash);
        let hashed = text.strip_suffix(&end).ok_or(Fault::Unreadable)?;
        if Sha256::digest(hashed.as_bytes())[..] != hash {
            return Err(Fault::Changed);
        }
        let torn = written.torn.map(|torn| undigest(&torn).ok_or(Fault::Unreadable)).transpose()?;
        let prev = undigest(&written.prev).ok_or(Fault::Unreadable)?;
        Ok(Self { head: ChainHead { records: written.seq, hash }, prev, torn, record: written.record.0 })
    }
}

/// What is wrong with a line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is no line of a log, and no later line says that a write had failed there: changed or inserted.
    #[error("no line of a log")]
    Unreadable,
    /// It is not what its own hash says: changed.
    #[error("the record has been changed")]
    Changed,
    /// Its number is not the next one: records before it are missing, or it stands at another place, or twice.
    #[error("record {found} stands where record {expected} is expected: records are missing, moved or doubled")]
    Sequence {
        /// The number that comes next.
        expected: u64,
        /// Its number.
        found: u64,
    },
    /// It does not carry the hash of the line before: that one, or this one, was put in the place of another.
    #[error("it does not follow the record before it: one of the two was replaced")]
    Chain,
    /// What it says of failed writes before it is not so: the rests of them are missing or changed.
    #[error("the rests of failed writes before it are not as it says")]
    Torn,
    /// It is longer than 16 MiB.
    #[error("longer than 16 MiB")]
    TooLong,
    /// The log ends in it: the write was interrupted, or the end cut off. A [`JsonLines`](super::JsonLines) that goes on with the
    /// log mends it.
    #[error("the log ends before the line does")]
    Unfinished,
    /// The log ends before the head that was expected: records at its end are missing.
    #[error("the log ends at record {found}, before record {expected}: its end is missing")]
    Cut {
        /// How many records were expected at least.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The log has another record where the expected head is: it is not the same log.
    #[error("this record is not the one of the expected head: the log was replaced")]
    OtherHead,
}

/// A log is not as it was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Something is wrong with a line.
    #[error("line {line}: {fault}")]
    Broken {
        /// The line, from 1; the one past the last, where lines are missing at the end.
        line: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Io(#[from] io::Error),
}

/// What [`verify`] has found of a log in which nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    head: ChainHead,
    torn: u64,
}

impl Verified {
    /// Where the log stands: compare it with a head from elsewhere.
    pub fn head(&self) -> ChainHead {
        self.head
    }

    /// How many lines are the rest of a write that had failed, after which the log went on.
    pub fn torn(&self) -> u64 {
        self.torn
    }
}

/// The records of a log, each verified as it is read. After an error there are no more.
///
/// Streaming: it holds one line, of at most 16 MiB.
pub struct Records<R> {
    reader: R,
    line: u64,
    head: ChainHead,
    rests: Rests,
    torn: u64,
    has_ended: bool,
}

/// Lines that are none: they may be what is left of failed writes, which the next line has to say.
#[derive(Default)]
struct Rests {
    hasher: Sha256,
    /// The first, and what is wrong with it.
    first: Option<(u64, Fault)>,
    count: u64,
    is_unfinished: bool,
}

impl<R: BufRead> Records<R> {
    /// The records of a log from its beginning.
    pub fn new(reader: R) -> Self {
        Self::after(reader, ChainHead::EMPTY)
    }

    /// The records of a log that goes on where another has ended.
    pub fn after(reader: R, head: ChainHead) -> Self {
        Self { reader, line: 0, head, rests: Rests::default(), torn: 0, has_ended: false }
    }

    /// Where the log stands, as far as it has been read.
    pub fn head(&self) -> ChainHead {
        self.head
    }

    fn broken<T>(&self, fault: Fault) -> Result<T, LogError> {
        Err(LogError::Broken { line: self.line, fault })
    }

    fn read(&mut self) -> Result<Option<AuditRecord>, LogError> {
        loop {
            let mut bytes = Vec::new();
            self.reader.by_ref().take(LINE as u64 + 2).read_until(b'\n', &mut bytes)?;
            self.line += 1;
            let is_whole = bytes.pop_if(|last| *last == b'\n').is_some();
            if bytes.len() > LINE {
                return self.broken(Fault::TooLong);
            }
            if !is_whole && bytes.is_empty() {
                return match self.rests.first {
                    // Nothing comes after them that could say what they are.
                    Some((line, Fault::Unreadable)) if self.rests.is_unfinished => {
                        Err(LogError::Broken { line, fault: Fault::Unfinished })
                    }
                    Some((line, fault)) => Err(LogError::Broken { line, fault }),
                    None => Ok(None),
                };
            }
            match Line::read(&bytes) {
                Ok(line) => return self.follow(line).map(Some),
                Err(fault) => {
                    self.rests.hasher.update(&bytes);
                    self.rests.hasher.update(b"\n");
                    self.rests.first = self.rests.first.or(Some((self.line, fault)));
                    self.rests.count += 1;
                    self.rests.is_unfinished = !is_whole;
                }
            }
        }
    }

    fn follow(&mut self, line: Line) -> Result<AuditRecord, LogError> {
        let rests = std::mem::take(&mut self.rests);
        match (rests.first, line.torn) {
            (None, None) => {}
            (Some(_), Some(torn)) if rests.hasher.finalize()[..] == torn => self.torn += rests.count,
            (Some((line, fault)), None) => return Err(LogError::Broken { line, fault }),
            (_, Some(_)) => return self.broken(Fault::Torn),
        }
        let expected = self.head.next_number();
        if line.head.records != expected {
            return self.broken(Fault::Sequence { expected, found: line.head.records });
        }
        if line.prev != self.head.hash {
            return self.broken(Fault::Chain);
        }
        self.head = line.head;
        Ok(line.record)
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<AuditRecord, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let next = self.read().transpose();
        self.has_ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<R> fmt::Debug for Records<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("line", &self.line).field("head", &self.head).finish_non_exhaustive()
    }
}

/// Reads a log from its beginning to its end, and says whether every record stands where and as it was written: none missing,
/// changed, moved, inserted or doubled. Linear; it holds one line at a time.
///
/// What it cannot see is records that are missing at the very end, and a log that somebody has written anew from some record on: there
/// is no key in the chain. Keep a later [head](Verified::head) where the log's writer cannot change it, and ask [`verify_up_to`].
///
/// ```
/// use toolgate::audit::{self, JsonLines};
/// use toolgate::{Gate, Policy, ToolCall};
///
/// let policy: Policy = r#"{ "version": "1", "default": "deny", "tools": {} }"#.parse()?;
/// let path = std::env::temp_dir().join(format!("toolgate-verify-{}.jsonl", std::process::id()));
/// let gate = Gate::builder().audit(JsonLines::append(&path)?).policy(policy).build();
/// assert!(!gate.check(&ToolCall::new("search", None::<&serde_json::Value>)).is_allowed());
///
/// let log = std::fs::read(&path)?;
/// let verified = audit::verify(&log[..])?;
/// assert_eq!(verified.head().records(), 2, "the policy, and the decision");
///
/// let cut = &log[..log.iter().position(|byte| *byte == b'\n').unwrap() + 1];
/// assert!(audit::verify(cut).is_ok(), "a log cannot tell that its end is missing");
/// assert!(audit::verify_up_to(cut, &verified.head()).is_err(), "a head can");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first line with which something is wrong.
pub fn verify(reader: impl BufRead) -> Result<Verified, LogError> {
    verify_all(reader, None)
}

/// Verifies a log as [`verify`] does, and that it holds all records up to a head which was noted earlier. It may have more.
///
/// # Errors
/// The first line with which something is wrong; [`Fault::Cut`] and [`Fault::OtherHead`] where the log and the head do not agree.
pub fn verify_up_to(reader: impl BufRead, head: &ChainHead) -> Result<Verified, LogError> {
    verify_all(reader, Some(head))
}

fn verify_all(reader: impl BufRead, expected: Option<&ChainHead>) -> Result<Verified, LogError> {
    let mut records = Records::new(reader);
    loop {
        if let Some(expected) = expected.filter(|expected| expected.records == records.head.records)
            && *expected != records.head
        {
            return records.broken(Fault::OtherHead);
        }
        match records.next() {
            Some(record) => drop(record?),
            None => break,
        }
    }
    let Records { head, torn, .. } = records;
    match expected {
        Some(expected) if expected.records > head.records => {
            records.broken(Fault::Cut { expected: expected.records, found: head.records })
        }
        _ => Ok(Verified { head, torn }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_nothing_else_does() {
        let head = ChainHead { records: 17, hash: [0xab; 32] };
        assert_eq!(head.to_string().parse(), Ok(head));
        let digits = "ab".repeat(32);
        for wrong in ["", "17", &digits, &format!("017-{digits}"), &format!("+1-{digits}"), &format!("17-{digits}0")] {
            assert!(wrong.parse::<ChainHead>().is_err(), "{wrong}");
        }
        assert!(format!("17-{}", digits.to_uppercase()).parse::<ChainHead>().is_err());
    }
}
