//! A log of JSON Lines.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::chain::{ChainHead, Fault, Line, MAX_LINE_BYTES};
use super::{AuditError, AuditRecord, AuditSink};

/// Writes records as JSON Lines, one object on each line, to a file or to any writer.
///
/// ```json
/// {"seq":2,"prev":"9b0c…","record":{"time":"2026-01-15T10:30:00.25Z","event":"decision",…},"hash":"51d2…"}
/// ```
///
/// `seq` counts the records from 1; `hash` is the SHA-256 of all that stands before it on the line, and `prev` that of the line
/// before: each line is bound to everything before it, and [`verify`](super::verify) finds what was changed. Each record is
/// written whole with one write.
///
/// **When a write fails**, in its middle too (a full disk), or when the process ends within one, what was written stays: a log
/// is only ever appended to. The next record begins on a line of its own, with a member `torn`: the SHA-256 of the lines before it
/// that are none. So nothing but a rest of a failed write passes for one, and no record is lost but those whose writing had been
/// reported as failed.
///
/// One log has one writer: gates share it as an [`Arc`](std::sync::Arc), and processes each have their own file. Records are written
/// one after the other, under a lock, by the threads that decide: where a decision must not wait for a disk, give the gate a sink
/// that hands records to another thread.
pub struct JsonLines<W> {
    state: Mutex<State<W>>,
    sync: Option<fn(&W) -> io::Result<()>>,
}

struct State<W> {
    writer: W,
    head: ChainHead,
    /// Whether something stands on the last line that is not ended yet.
    in_line: bool,
    /// What is left of failed writes since the last record.
    rests: Option<Sha256>,
}

impl JsonLines<File> {
    /// Goes on with the log in a file, or begins one, in a file that on Unix only its owner may read. The last record is read, and must
    /// be right; a rest after it is kept, as that of a failed write.
    ///
    /// # Errors
    /// The file cannot be opened or read, or its last line is not that of a log.
    pub fn append(path: impl AsRef<Path>) -> Result<Self, AuditError> {
        Self::append_after(path, ChainHead::EMPTY)
    }

    /// As [`append`](Self::append), but a log that it begins goes on where another one has ended: for a log that is moved to
    /// another file from time to time. [`Records::after`](super::Records::after) reads it.
    ///
    /// # Errors
    /// As for [`append`](Self::append).
    pub fn append_after(path: impl AsRef<Path>, head: ChainHead) -> Result<Self, AuditError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let (head, in_line, rests) = match Tail::read(&mut file, head)? {
            Tail::Empty => (head, false, None),
            Tail::Line { head, in_line } => (head, in_line, None),
            Tail::Torn { head, rest, in_line } => (head, in_line, Some(Sha256::new_with_prefix(rest))),
        };
        let state = State { writer: file, head, in_line, rests };
        Ok(Self { state: Mutex::new(state), sync: None })
    }

    /// Has the system put each record on the disk before it counts as written, so that none is lost with the machine. It costs
    /// milliseconds on most disks.
    #[must_use = "this is the log that does so"]
    pub fn sync_data(self) -> Self {
        Self { sync: Some(File::sync_data), ..self }
    }
}

impl<W: Write> JsonLines<W> {
    /// Begins a log. The writer should hold nothing back: what it has taken counts as written, and it is flushed after each
    /// record.
    pub fn new(writer: W) -> Self {
        Self::after(writer, ChainHead::EMPTY)
    }

    /// Begins a log that goes on where another one has ended.
    pub fn after(writer: W, head: ChainHead) -> Self {
        let state = State { writer, head, in_line: false, rests: None };
        Self { state: Mutex::new(state), sync: None }
    }

    /// Where the log stands. Keep it elsewhere than the log, to [verify](super::verify_up_to) the log with.
    pub fn head(&self) -> ChainHead {
        self.state.lock().head
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.state.into_inner().writer
    }
}

impl<W: Write + Send> AuditSink for JsonLines<W> {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        let record = serde_json::to_string(record).map_err(|error| AuditError::Other(Box::new(error)))?;
        let mut state = self.state.lock();
        state.write(&record)?;
        state.writer.flush()?;
        self.sync.map_or(Ok(()), |sync| sync(&state.writer))?;
        Ok(())
    }
}

impl<W: Write> State<W> {
    fn write(&mut self, record: &str) -> Result<(), AuditError> {
        let before: &[u8] = if self.in_line { b"\n" } else { b"" };
        let torn = self.rests.clone().map(|rests| rests.chain_update(before).finalize().into());
        let (line, head) = self.head.next_line(torn, record);
        if line.len() > MAX_LINE_BYTES {
            return Err(AuditError::TooLong { bytes: line.len() });
        }
        let text = [before, line.as_bytes(), b"\n"].concat();
        let (written, outcome) = write_all(&mut self.writer, &text);
        // A record is whole without the end of its line.
        if written >= before.len() + line.len() {
            (self.head, self.rests) = (head, None);
            self.in_line = written < text.len();
        } else if let Some(rest) = text.get(..written).filter(|rest| !rest.is_empty()) {
            self.in_line = rest.len() > before.len();
            // The end of an earlier record's line is no rest.
            let is_rest = self.rests.is_some() || self.in_line;
            let rest = if self.rests.is_some() { rest } else { rest.get(before.len()..).unwrap_or_default() };
            if is_rest {
                self.rests.get_or_insert_default().update(rest);
            }
        }
        outcome.map_err(AuditError::from)
    }
}

/// Writes it all, as a rule with one write; says how much was written, whatever went wrong then.
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

/// How a log ends.
enum Tail {
    Empty,
    Line {
        head: ChainHead,
        /// Whether its line is not ended.
        in_line: bool,
    },
    /// In what is left of a failed write.
    Torn {
        head: ChainHead,
        /// All lines that are none.
        rest: Vec<u8>,
        /// Whether the last of them is not ended.
        in_line: bool,
    },
}

impl Tail {
    /// Reads from the end as much as is needed, at most two lines' length. A log without a record begins after `first`.
    fn read(file: &mut File, first: ChainHead) -> Result<Self, AuditError> {
        let mut end = file.seek(SeekFrom::End(0))?;
        if end == 0 {
            return Ok(Self::Empty);
        }
        let mut tail = Vec::new();
        let mut step = 64 * 1024;
        loop {
            let from = end.saturating_sub(step);
            let mut bytes = vec![0; usize::try_from(end - from).map_err(|_| AuditError::NoLog)?];
            file.seek(SeekFrom::Start(from))?;
            file.read_exact(&mut bytes)?;
            bytes.append(&mut tail);
            (tail, end) = (bytes, from);
            if let Some(found) = Self::of(&tail, (end == 0).then_some(first)) {
                return found.ok_or(AuditError::NoLog);
            }
            if tail.len() > 2 * (MAX_LINE_BYTES + 2) {
                return Err(AuditError::NoLog);
            }
            step = step.saturating_mul(2);
        }
    }

    /// What the last bytes of a log tell, if they are enough: how it ends, or that it is none. If they are all of it, `first` is
    /// where it began.
    fn of(tail: &[u8], first: Option<ChainHead>) -> Option<Option<Self>> {
        let body = tail.strip_suffix(b"\n").unwrap_or(tail);
        let in_line = body.len() == tail.len();
        let mut to = body.len();
        loop {
            let line = body.get(..to)?;
            let from = line.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let from = from.or(first.map(|_| 0))?;
            let (head, rest) = match Line::read(line.get(from..)?) {
                Ok(line) if to == body.len() => return Some(Some(Self::Line { head: line.head, in_line })),
                Ok(line) => (line.head, tail.get(to + 1..)?),
                Err(Fault::Changed) => return Some(None),
                Err(_) if from > 0 => {
                    to = from - 1;
                    continue;
                }
                Err(_) => (first?, tail),
            };
            let is_rest = |line: &[u8]| !line.is_empty() && head.may_begin_with(line);
            let all = rest.strip_suffix(b"\n").unwrap_or(rest).split(|byte| *byte == b'\n').all(is_rest);
            return Some(all.then(|| Self::Torn { head, rest: rest.into(), in_line }));
        }
    }
}

impl<W> fmt::Debug for JsonLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").field("head", &self.state.lock().head).finish_non_exhaustive()
    }
}
