//! Reading a log line by line.

use std::fmt;
use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::chain::{ChainHead, Fault, Line, MAX_LINE_BYTES};
use super::record::AuditRecord;

/// The most lines in a row that are not records and whose faults are kept.
pub(super) const MAX_REMAINS: usize = 1024;

/// Reads the lines of a log. It holds one line at a time.
pub(super) struct LineReader<R> {
    reader: R,
    /// The last line.
    bytes: Vec<u8>,
    /// The number of the last line, from 1.
    pub(super) number: u64,
    pub(super) remains: Remains,
    /// `true` if the rest of the last line, which is too long, was not read.
    is_in_line: bool,
}

/// Lines in a row that are not records. They may be the remains of failed writes: then the next
/// record names their hash.
#[derive(Default)]
pub(super) struct Remains {
    hasher: Sha256,
    /// The numbers and faults of the first of them, at most [`MAX_REMAINS`].
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) count: u64,
    /// `true` if the log ends in the middle of the last of them.
    pub(super) is_unfinished: bool,
}

impl Remains {
    fn add(&mut self, number: u64, bytes: &[u8], fault: Fault) {
        self.hasher.update(bytes);
        self.hasher.update(b"\n");
        if self.faults.len() < MAX_REMAINS {
            self.faults.push((number, fault));
        }
        self.count = self.count.saturating_add(1);
    }

    /// Returns `true` if there are remains, and this is their hash.
    pub(super) fn are(&self, hash: [u8; 32]) -> bool {
        self.count > 0 && self.hasher.clone().finalize()[..] == hash
    }
}

/// The next line of a log.
pub(super) enum Next {
    /// A line whose hash is right. [`LineReader::record`] reads its record.
    Record(Line),
    /// It is not a record, and is added to the remains.
    Remains,
    /// It is too long. The rest of it was not read.
    TooLong,
    /// The log has no more lines.
    End,
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, bytes: Vec::new(), number: 0, remains: Remains::default(), is_in_line: false }
    }

    pub(super) fn next(&mut self) -> io::Result<Next> {
        if std::mem::take(&mut self.is_in_line) {
            self.reader.skip_until(b'\n')?;
        }
        let bytes = &mut self.bytes;
        bytes.clear();
        self.reader.by_ref().take(MAX_LINE_BYTES as u64 + 2).read_until(b'\n', bytes)?;
        self.number += 1;
        let is_whole = bytes.pop_if(|last| *last == b'\n').is_some();
        if bytes.len() > MAX_LINE_BYTES {
            self.is_in_line = !is_whole;
            return Ok(Next::TooLong);
        }
        if !is_whole && bytes.is_empty() {
            return Ok(Next::End);
        }
        match Line::read(bytes) {
            Ok(line) => Ok(Next::Record(line)),
            Err(fault) => {
                self.remains.add(self.number, bytes, fault);
                self.remains.is_unfinished = !is_whole;
                Ok(Next::Remains)
            }
        }
    }

    /// Reads the record of the last line.
    pub(super) fn record(&self, line: &Line) -> Result<AuditRecord, Fault> {
        line.record(&self.bytes)
    }
}

/// The log is not as it was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A line has a fault.
    #[error("line {line}: {fault}")]
    Broken {
        /// The number of the line, from 1; one past the last if lines are missing at the end.
        line: u64,
        /// The fault of the line.
        fault: Fault,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Io(#[from] io::Error),
}

/// The result of [`verify`] for a log without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    head: ChainHead,
    torn: u64,
}

impl Verified {
    /// Returns the head of the log: compare it with a head that was kept elsewhere.
    pub fn head(&self) -> ChainHead {
        self.head
    }

    /// Returns the number of lines that are remains of failed writes after which the log continued.
    pub fn torn(&self) -> u64 {
        self.torn
    }
}

/// Iterates over the records of a log, and verifies each as it is read. Ends after an error.
///
/// Streaming: it holds one line of at most 16 MiB.
pub struct Records<R> {
    lines: LineReader<R>,
    head: ChainHead,
    torn: u64,
    has_ended: bool,
}

impl<R: BufRead> Records<R> {
    /// Reads a log from its beginning.
    pub fn new(reader: R) -> Self {
        Self::after(reader, ChainHead::EMPTY)
    }

    /// Reads a log that continues after the head of another.
    pub fn after(reader: R, head: ChainHead) -> Self {
        Self { lines: LineReader::new(reader), head, torn: 0, has_ended: false }
    }

    /// Returns the head of the log as far as it has been read.
    pub fn head(&self) -> ChainHead {
        self.head
    }

    fn broken<T>(&self, fault: Fault) -> Result<T, LogError> {
        Err(LogError::Broken { line: self.lines.number, fault })
    }

    /// Verifies the next line, without its record.
    fn verify_next(&mut self) -> Result<Option<Line>, LogError> {
        loop {
            match self.lines.next()? {
                Next::Record(line) => return self.check(line).map(Some),
                Next::Remains => {}
                Next::TooLong => return self.broken(Fault::TooLong),
                Next::End => {
                    let Remains { faults, is_unfinished, .. } = &self.lines.remains;
                    // No record follows that could name the remains.
                    return match faults.first() {
                        Some((line, Fault::Unreadable)) if *is_unfinished => {
                            Err(LogError::Broken { line: *line, fault: Fault::Unfinished })
                        }
                        Some((line, fault)) => Err(LogError::Broken { line: *line, fault: *fault }),
                        None => Ok(None),
                    };
                }
            }
        }
    }

    fn check(&mut self, line: Line) -> Result<Line, LogError> {
        if line.torn.is_some() || self.lines.remains.count > 0 {
            let remains = std::mem::take(&mut self.lines.remains);
            match (line.torn, remains.faults.first()) {
                (Some(torn), _) if remains.are(torn) => self.torn += remains.count,
                (Some(_), _) => return self.broken(Fault::Torn),
                (None, Some((line, fault))) => return Err(LogError::Broken { line: *line, fault: *fault }),
                (None, None) => {}
            }
        }
        match self.head.check_next(&line, 0) {
            Ok(()) => {
                self.head = line.head;
                Ok(line)
            }
            Err(fault) => self.broken(fault),
        }
    }

    fn read(&mut self) -> Result<Option<AuditRecord>, LogError> {
        let Some(line) = self.verify_next()? else { return Ok(None) };
        self.lines.record(&line).map(Some).or_else(|fault| self.broken(fault))
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
        f.debug_struct("Records").field("line", &self.lines.number).field("head", &self.head).finish_non_exhaustive()
    }
}

/// Verifies a log from its beginning to its end: no record is missing, changed, moved, inserted or
/// duplicated. Linear; it holds one line at a time.
///
/// It cannot detect that records at the very end are missing, or that somebody rewrote the log from
/// some record on: the chain has no key. Keep a later [head](Verified::head) where the log's writer
/// cannot change it, and call [`verify_up_to`].
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
/// assert!(audit::verify(cut).is_ok(), "a log does not show that its end is missing");
/// assert!(audit::verify_up_to(cut, &verified.head()).is_err(), "a head does");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It reads the hash of each record and not what the record says, in little more than the time of
/// reading and hashing. [`Records`] reads the records too.
///
/// # Errors
/// The first fault of the log; [`Fault::Continues`] if it continues another.
pub fn verify(reader: impl BufRead) -> Result<Verified, LogError> {
    verify_between(reader, &ChainHead::EMPTY, &ChainHead::EMPTY)
}

/// Verifies a log that continues after the head of another, as [`verify`] does: a log that was
/// rotated, after the file before it. Files that are joined in their order are one log.
///
/// # Errors
/// The first fault of the log: [`Fault::Sequence`] or [`Fault::Chain`] in its first line if it does
/// not continue after this head.
pub fn verify_after(reader: impl BufRead, after: &ChainHead) -> Result<Verified, LogError> {
    verify_between(reader, after, &ChainHead::EMPTY)
}

/// Verifies a log as [`verify`] does, and that it has all records up to a head that was noted
/// earlier. It may have more.
///
/// # Errors
/// The first fault of the log; [`Fault::Cut`] or [`Fault::OtherHead`] if the log does not match the
/// head.
pub fn verify_up_to(reader: impl BufRead, head: &ChainHead) -> Result<Verified, LogError> {
    verify_between(reader, &ChainHead::EMPTY, head)
}

/// Verifies a log that continues after one head, up to another: [`verify_after`] and
/// [`verify_up_to`] at once.
///
/// # Errors
/// As for both. A head `up_to` that lies before `after` is [`Fault::OtherHead`].
pub fn verify_between(reader: impl BufRead, after: &ChainHead, up_to: &ChainHead) -> Result<Verified, LogError> {
    let mut records = Records::after(reader, *after);
    let is_before = up_to.records < after.records && *up_to != ChainHead::EMPTY;
    loop {
        if is_before || (up_to.records == records.head.records && *up_to != records.head) {
            return records.broken(Fault::OtherHead);
        }
        if records.verify_next()?.is_none() {
            break;
        }
    }
    let Records { head, torn, .. } = records;
    if up_to.records > head.records {
        return records.broken(Fault::Cut { expected: up_to.records, found: head.records });
    }
    Ok(Verified { head, torn })
}
