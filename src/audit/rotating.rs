//! A log in several files.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::chain::ChainHead;
use super::json_lines::{JsonLines, head_of, open_alone};
use super::{AuditError, AuditRecord, AuditSink};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// The digits of a number in a name, so that names sort like numbers.
const DIGITS: usize = 12;

/// A log as [`JsonLines`] writes it, in files of limited size or of one day each.
///
/// The files are one chain: each continues after the head of the one before. Their names have the
/// number of their first record, so that the order of the names is that of the files:
///
/// ```text
/// audit-000000000001.jsonl
/// audit-000000048213.jsonl
/// ```
///
/// The files in their order, joined, are a log for [`verify`](super::verify). The first can be
/// archived: keep the head of the last of them, and use [`verify_after`](super::verify_after). A
/// file that is not the last is never written again, and no file is ever overwritten. The last one
/// must stay where it is, and so must the one before it as long as the last one is empty.
///
/// A new file begins between two records, so a process that ends at any moment loses none. At the
/// next start the log continues in the last file; if that is still empty, after the head of the
/// file before it. If a new file cannot be made, the record is refused, and the next one tries
/// again.
///
/// ```
/// use toolgate::Gate;
/// use toolgate::audit::RotatingLog;
///
/// # let folder = std::env::temp_dir().join(format!("toolgate-rotating-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// let log = RotatingLog::open(folder.join("audit.jsonl"))?.daily().max_bytes(100 << 20);
/// let gate = Gate::builder().audit(log).require_audit().build();
/// # drop(gate);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RotatingLog {
    path: PathBuf,
    current: Mutex<JsonLines<File>>,
    max_bytes: Option<u64>,
    is_daily: bool,
    syncs: bool,
    /// Held until this value is dropped: a lock on the last file alone is gone for a moment when
    /// the log continues in the next.
    _lock: File,
}

impl RotatingLog {
    /// Continues the log in the files that belong to a path, or begins one. Of `audit.jsonl` these
    /// are the files `audit-000000000001.jsonl` and so on in the same folder. If there are none,
    /// but a file with the name itself, the log continues in that file.
    ///
    /// A second writer is refused, as [`JsonLines::append`] does. The lock is on a file
    /// `audit.jsonl.lock`, which stays.
    ///
    /// Without [`max_bytes`](Self::max_bytes) and [`daily`](Self::daily) no file follows.
    ///
    /// # Errors
    /// As for [`JsonLines::append`]; [`AuditError::NoHead`] if the last file has no record, and the
    /// file before it is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, AuditError> {
        let path = path.as_ref().to_owned();
        let lock = open_alone(&with_suffix(&path, ".lock"))?;
        let mut files = files(&path)?;
        let last = files.pop().unwrap_or((1, numbered(&path, 1)));
        // Needed only if the last file has no record. If it has one, the file before it may be
        // missing or damaged.
        let before = files.pop().and_then(|(_, before)| head_of(&before, ChainHead::EMPTY).ok());
        let lines = JsonLines::append_after(&last.1, before.unwrap_or(ChainHead::EMPTY))?;
        if lines.head().records().saturating_add(1) < last.0 {
            return Err(AuditError::NoHead { first: last.0 });
        }
        Ok(Self { path, current: Mutex::new(lines), max_bytes: None, is_daily: false, syncs: false, _lock: lock })
    }

    /// Ends a file with the record with which it reaches this length.
    #[must_use = "the returned log has the bound; the original was moved"]
    pub fn max_bytes(self, bytes: u64) -> Self {
        Self { max_bytes: Some(bytes), ..self }
    }

    /// Begins a file with the first record of each day of UTC, by the times of the records: those
    /// of the gate's clock. A record that comes late, after one of the next day, is written behind
    /// it.
    #[must_use = "the returned log rotates; the original was moved"]
    pub fn daily(self) -> Self {
        Self { is_daily: true, ..self }
    }

    /// Syncs each record to the disk, as [`JsonLines::sync_data`] does.
    #[must_use = "the returned log syncs; the original was moved"]
    pub fn sync_data(self) -> Self {
        Self { current: Mutex::new(self.current.into_inner().sync_data()), syncs: true, ..self }
    }

    /// Returns the head of the log. Keep it apart from the log, to [verify](super::verify_up_to)
    /// the log later.
    pub fn head(&self) -> ChainHead {
        self.current.lock().head()
    }

    /// Returns `true` if this record begins another file. A file that ends with the remains of a
    /// failed write gets one more record, which names them.
    fn is_due(&self, current: &JsonLines<File>, record: &AuditRecord) -> bool {
        let Some((length, latest)) = current.whole().filter(|(length, _)| *length > 0) else { return false };
        self.max_bytes.is_some_and(|max| length >= max)
            || (self.is_daily && latest.is_some_and(|latest| day(latest) < day(record.time())))
    }

    /// Begins the file after this head.
    fn next(&self, head: ChainHead) -> Result<JsonLines<File>, AuditError> {
        let path = numbered(&self.path, head.next_number());
        let lines = JsonLines::append_after(&path, head)?;
        if lines.head() != head {
            // Somebody has put a file there.
            return Err(AuditError::NotALog);
        }
        if !self.syncs {
            return Ok(lines);
        }
        sync_folder(&path)?;
        Ok(lines.sync_data())
    }
}

impl AuditSink for RotatingLog {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        let mut current = self.current.lock();
        if self.is_due(&current, record) {
            *current = self.next(current.head())?;
        }
        current.record(record)
    }
}

impl fmt::Debug for RotatingLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotatingLog").field("path", &self.path).field("head", &self.head()).finish_non_exhaustive()
    }
}

fn day(time: Timestamp) -> i64 {
    time.unix_micros().div_euclid(86_400 * MICROS_PER_SECOND)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the name of a new file as durable as the records in it.
fn sync_folder(file: &Path) -> io::Result<()> {
    // Other systems cannot open a folder.
    #[cfg(unix)]
    File::open(folder_of(file))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Returns the path of the file that begins with this record.
fn numbered(path: &Path, first: u64) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{first:0DIGITS$}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Returns the number in the name of a file of the log.
fn number(path: &Path, name: &OsStr) -> Option<u64> {
    let name = name.as_encoded_bytes().strip_prefix(path.file_stem()?.as_encoded_bytes())?.strip_prefix(b"-")?;
    let digits = str::from_utf8(name.split(|byte| !byte.is_ascii_digit()).next()?).ok()?;
    digits.parse().ok()
}

/// Returns the files of the log, each with the number of its first record, in their order.
fn files(path: &Path) -> Result<Vec<(u64, PathBuf)>, AuditError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder_of(path))? {
        let name = entry?.file_name();
        let Some(first) = number(path, &name) else { continue };
        let file = numbered(path, first);
        // Names in another form belong to others.
        if file.file_name() == Some(&*name) {
            files.push((first, file));
        }
    }
    if path.is_file() {
        files.push((0, path.to_owned()));
    }
    files.sort_unstable();
    Ok(files)
}
