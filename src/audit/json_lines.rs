//! A log of JSON Lines.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::chain::{ChainHead, Fault, Line, MAX_LINE_BYTES};
use super::text_format;
use super::{AuditError, AuditRecord, AuditSink};
use crate::json::visible::visible_json;
use crate::time::Timestamp;

/// Writes records as JSON Lines, one object on each line, to a file or to any writer.
///
/// ```json
/// {"seq":2,"prev":"9b0c…","record":{"time":"2026-01-15T10:30:00.25Z","event":"decision",…},"hash":"51d2…"}
/// ```
///
/// `seq` counts the records from 1. `hash` is the SHA-256 of the line up to that member, and `prev`
/// is the hash of the line before: each line is bound to everything before it, and
/// [`verify`](super::verify) finds changes. Each record is written with one write.
///
/// A log is safe to look at: control characters, bidirectional controls and whatever else people
/// cannot see are JSON escapes (`\u202e`), which read back as the characters.
///
/// **If a write fails**, also in its middle (a full disk), or the process ends within one, what was
/// written stays: a log is only ever appended to. The next record begins on its own line and has a
/// member `torn`: the SHA-256 of the lines before it that are not records. So only the remains of a
/// failed write are accepted between records, and no record is lost except those whose write was
/// reported as failed.
///
/// **A log has one writer.** Gates share it as an [`Arc`](std::sync::Arc), and each process has its
/// own file: [`append`](Self::append) refuses a file that another writer has open. For a file that
/// is rotated, use [`RotatingLog`](super::RotatingLog).
///
/// The threads that decide write the records one after the other, under a lock. If a decision must
/// not wait for a disk, use a sink that passes records to another thread.
pub struct JsonLines<W> {
    state: Mutex<State<W>>,
    sync: Option<fn(&W) -> io::Result<()>>,
    /// Returns the length of the file, if it has one that others could change.
    length: Option<LengthOf<W>>,
}

type LengthOf<W> = fn(&W) -> Result<u64, AuditError>;

struct State<W> {
    writer: W,
    head: ChainHead,
    /// `true` if the last line is not empty and has no line end yet.
    in_line: bool,
    /// The hash over the remains of failed writes since the last record.
    remains: Option<Sha256>,
    /// The length of the file as it was left.
    length: u64,
    /// The latest time of a record, as far as it is known.
    latest: Option<Timestamp>,
}

impl JsonLines<File> {
    /// Continues the log in a file, or begins one, in a file that on Unix only its owner may read.
    /// The last record is read and must be valid. What follows it is kept as the remains of a
    /// failed write.
    ///
    /// The file is locked as long as this value lives: a second writer, in this process or another,
    /// is refused with [`AuditError::InUse`]. The lock is `flock` on Unix, and goes with a process
    /// that dies; on Windows no other program can open the file for writing. Over NFS it holds
    /// between machines only if the server keeps locks (on Linux it does by default, `nolock` ends
    /// that); a file system without locks refuses the file. What a program without a lock does to
    /// the file is noticed at the next record, from its length: the record is refused with
    /// [`AuditError::FileChanged`] or, on Unix, [`AuditError::FileDeleted`].
    ///
    /// # Errors
    /// The file cannot be opened, locked or read, has another writer, or does not end as a log
    /// does.
    pub fn append(path: impl AsRef<Path>) -> Result<Self, AuditError> {
        Self::append_after(path, ChainHead::EMPTY)
    }

    /// Works as [`append`](Self::append), but a log that it begins continues after the head of
    /// another. [`Records::after`](super::Records::after) and [`verify_after`](super::verify_after)
    /// read it.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_after(path: impl AsRef<Path>, head: ChainHead) -> Result<Self, AuditError> {
        let mut file = open_alone(path.as_ref())?;
        let (tail, latest) = Tail::read(&mut file, head)?;
        let (head, in_line, remains) = match tail {
            Tail::Empty => (head, false, None),
            Tail::Line { head, in_line } => (head, in_line, None),
            Tail::Torn { head, rest, in_line } => (head, in_line, Some(Sha256::new_with_prefix(rest))),
        };
        let metadata = file.metadata()?;
        let length = metadata.is_file().then_some(length_of as LengthOf<File>);
        let state = State { writer: file, head, in_line, remains, length: metadata.len(), latest };
        Ok(Self { state: Mutex::new(state), sync: None, length })
    }

    /// Syncs each record to the disk before it counts as written, so that none is lost if the
    /// machine fails. This takes milliseconds on most disks.
    #[must_use = "the returned log syncs; the original was moved"]
    pub fn sync_data(self) -> Self {
        Self { sync: Some(File::sync_data), ..self }
    }
}

impl<W: Write> JsonLines<W> {
    /// Begins a log. The writer should not buffer: what it has accepted counts as written. It is
    /// flushed after each record.
    pub fn new(writer: W) -> Self {
        Self::after(writer, ChainHead::EMPTY)
    }

    /// Begins a log that continues after the head of another.
    pub fn after(writer: W, head: ChainHead) -> Self {
        let state = State { writer, head, in_line: false, remains: None, length: 0, latest: None };
        Self { state: Mutex::new(state), sync: None, length: None }
    }

    /// Returns the head of the log. Keep it apart from the log, to [verify](super::verify_up_to)
    /// the log later.
    pub fn head(&self) -> ChainHead {
        self.state.lock().head
    }

    /// Returns the length of the file and the latest time of its records, if the file ends with a
    /// whole line: only then can the log continue in another file.
    pub(super) fn whole(&self) -> Option<(u64, Option<Timestamp>)> {
        let state = self.state.lock();
        (!state.in_line && state.remains.is_none()).then_some((state.length, state.latest))
    }

    /// Returns the writer.
    pub fn into_inner(self) -> W {
        self.state.into_inner().writer
    }
}

impl<W: Write + Send> AuditSink for JsonLines<W> {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        let text = serde_json::to_string(record).map_err(|error| AuditError::Other(Box::new(error)))?;
        let mut state = self.state.lock();
        if let Some(length) = self.length {
            let found = length(&state.writer)?;
            state.check_length(found)?;
        }
        state.write(&visible_json(&text))?;
        state.latest = state.latest.max(Some(record.time()));
        state.writer.flush()?;
        self.sync.map_or(Ok(()), |sync| sync(&state.writer))?;
        Ok(())
    }
}

impl<W: Write> State<W> {
    /// Checks that the file is as long as it was left.
    fn check_length(&mut self, found: u64) -> Result<(), AuditError> {
        let expected = std::mem::replace(&mut self.length, found);
        if expected == found {
            return Ok(());
        }
        // This is reported once. The log then continues after its head, in a line of its own:
        // whoever reads it sees what is missing.
        (self.in_line, self.remains) = (found > 0, None);
        Err(AuditError::FileChanged { expected, found })
    }

    fn write(&mut self, record: &str) -> Result<(), AuditError> {
        let before: &[u8] = if self.in_line { b"\n" } else { b"" };
        let torn = self.remains.clone().map(|remains| remains.chain_update(before).finalize().into());
        let (line, head) = self.head.next_line(torn, record);
        if line.len() > MAX_LINE_BYTES {
            return Err(AuditError::TooLong { bytes: line.len() });
        }
        let text = [before, line.as_bytes(), b"\n"].concat();
        let (written, outcome) = write_all(&mut self.writer, &text);
        self.length = self.length.saturating_add(written as u64);
        // A record is complete without its line end.
        if written >= before.len() + line.len() {
            (self.head, self.remains) = (head, None);
            self.in_line = written < text.len();
        } else if let Some(rest) = text.get(..written).filter(|rest| !rest.is_empty()) {
            self.in_line = rest.len() > before.len();
            // The line end of an earlier record does not count as remains.
            let is_remains = self.remains.is_some() || self.in_line;
            let rest = if self.remains.is_some() { rest } else { rest.get(before.len()..).unwrap_or_default() };
            if is_remains {
                self.remains.get_or_insert_default().update(rest);
            }
        }
        outcome.map_err(AuditError::from)
    }
}

/// Opens a file for its only writer.
pub(super) fn open_alone(path: &Path) -> Result<File, AuditError> {
    const ERROR_SHARING_VIOLATION: i32 = 32;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // FILE_SHARE_READ and FILE_SHARE_DELETE: nobody else may write. A lock would keep readers out.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 4);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(ERROR_SHARING_VIOLATION) if cfg!(windows) => AuditError::InUse,
        _ => error.into(),
    })?;
    // A device or a pipe has no end that two writers could both continue.
    if cfg!(not(windows)) && file.metadata()?.is_file() {
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => AuditError::InUse,
            TryLockError::Error(error) => error.into(),
        })?;
    }
    Ok(file)
}

/// Returns the length of a file that still has a name.
fn length_of(file: &File) -> Result<u64, AuditError> {
    let metadata = file.metadata()?;
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&metadata) == 0 {
        return Err(AuditError::FileDeleted);
    }
    Ok(metadata.len())
}

/// Writes all of `text`, usually with one write. Returns the number of bytes written, also if a
/// write failed then.
fn write_all(writer: &mut impl Write, text: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
        match writer.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written = written.saturating_add(more).min(text.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Reads the head of the log in a file. `first` is the head before the file.
pub(super) fn head_of(path: &Path, first: ChainHead) -> Result<ChainHead, AuditError> {
    Ok(match Tail::read(&mut File::open(path)?, first)?.0 {
        Tail::Empty => first,
        Tail::Line { head, .. } | Tail::Torn { head, .. } => head,
    })
}

/// The time of a record, whatever else it has.
#[derive(Deserialize)]
struct Time {
    #[serde(with = "text_format::one")]
    time: Timestamp,
}

/// The end of a log.
enum Tail {
    Empty,
    Line {
        head: ChainHead,
        /// `true` if its line has no line end.
        in_line: bool,
    },
    /// The log ends with the remains of failed writes.
    Torn {
        head: ChainHead,
        /// All lines that are not records.
        rest: Vec<u8>,
        /// `true` if the last of them has no line end.
        in_line: bool,
    },
}

impl Tail {
    /// Reads as much of the end as needed, at most the length of two lines. Returns the time of the
    /// last record too. A log without records begins after `first`.
    fn read(file: &mut File, first: ChainHead) -> Result<(Self, Option<Timestamp>), AuditError> {
        let mut end = file.seek(SeekFrom::End(0))?;
        if end == 0 {
            return Ok((Self::Empty, None));
        }
        let mut tail = Vec::new();
        let mut step = 64 * 1024;
        loop {
            let from = end.saturating_sub(step);
            let mut bytes = vec![0; usize::try_from(end - from).map_err(|_| AuditError::NotALog)?];
            file.seek(SeekFrom::Start(from))?;
            file.read_exact(&mut bytes)?;
            bytes.append(&mut tail);
            (tail, end) = (bytes, from);
            if let Some(found) = Self::of(&tail, (end == 0).then_some(first)) {
                return found.ok_or(AuditError::NotALog);
            }
            if tail.len() > 2 * (MAX_LINE_BYTES + 2) {
                return Err(AuditError::NotALog);
            }
            step = step.saturating_mul(2);
        }
    }

    /// Returns the end of a log from its last bytes, or `None` if more bytes are needed. The inner
    /// `None` means that the file is not a log. If the bytes are the whole file, `first` is the
    /// head before it.
    fn of(tail: &[u8], first: Option<ChainHead>) -> Option<Option<(Self, Option<Timestamp>)>> {
        let body = tail.strip_suffix(b"\n").unwrap_or(tail);
        let in_line = body.len() == tail.len();
        let mut to = body.len();
        loop {
            let line = body.get(..to)?;
            let from = line.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let from = from.or(first.map(|_| 0))?;
            let text = line.get(from..)?;
            let (head, rest, latest) = match Line::read(text) {
                Ok(line) => {
                    let latest = line.record(text).map(|Time { time }| time).ok();
                    if to == body.len() {
                        return Some(Some((Self::Line { head: line.head, in_line }, latest)));
                    }
                    (line.head, tail.get(to + 1..)?, latest)
                }
                Err(Fault::Changed) => return Some(None),
                Err(_) if from > 0 => {
                    to = from - 1;
                    continue;
                }
                Err(_) => (first?, tail, None),
            };
            let is_remains = |line: &[u8]| !line.is_empty() && head.may_begin_with(line);
            let all = rest.strip_suffix(b"\n").unwrap_or(rest).split(|byte| *byte == b'\n').all(is_remains);
            return Some(all.then(|| (Self::Torn { head, rest: rest.into(), in_line }, latest)));
        }
    }
}

impl<W> fmt::Debug for JsonLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").field("head", &self.state.lock().head).finish_non_exhaustive()
    }
}
