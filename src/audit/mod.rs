//! The audit log: what a gate decided, how the calls ended, and what people did.
//!
//! A gate passes its [sink](crate::GateBuilder::audit) an [`AuditRecord`] of each decision; of each
//! release, settlement and end of an allowed call; of each person's answer to a request for
//! approval; of each policy that is put in force or removed; of each counter that somebody
//! [resets](crate::Gate::reset_counter); and of each grant that is given, revoked or forgotten.
//! [`JsonLines`] is a sink that writes a log in which later changes can be detected: [`verify`]
//! finds them. [`RotatingLog`] writes the same log in several files.
//!
//! With the feature `tracing`, the same records are events of that crate, with the target
//! `toolgate`, with or without a sink. The event's message is the name of the event. Its fields are
//! those of the record under the same names, as texts, without the record's message and without
//! arguments except their digest:
//!
//! | event | level | fields |
//! |---|---|---|
//! | `decision` | `DEBUG` for allow, `WARN` if a store or the audit failed or a tool has changed, else `INFO` | `id`, `decision`, `code`, `rule`, `policy`, `tool`, `server`, `grant`, `session`, `agent`, `user`, `arguments_digest`, `retry_after_ms`, `approval`, `failure` |
//! | `release`, `settle`, `end` | `DEBUG`, `WARN` if it failed | `id`, `policy`, `tool`, `server`, `grant`, `session`, `agent`, `user`, `approval`, `amount`, `failure` |
//! | `approve`, `refuse`, `lift` | `INFO`, `WARN` if it failed | `approval`, `by`, `approved`, `tool`, `server`, `grant`, `session`, `agent`, `user`, `failure` |
//! | `policy` | `INFO` | `policy`, `namespace` |
//! | `reset` | `INFO`, `WARN` if it failed | `counter`, `by`, `policy`, `tool`, `server`, `grant`, `session`, `agent`, `user`, `arguments_digest`, `failure` |
//! | `give`, `revoke`, `forget` | `INFO`, `WARN` if it failed | `grant`, `server`, `namespace`, `expires_at`, `by`, `failure` |
//! | `audit_failure` | `ERROR` | `event`, `id`, `failure` |

mod build;
mod chain;
mod json_lines;
mod reader;
mod record;
mod recorder;
mod rotating;
mod text_format;
#[cfg(feature = "replay")]
mod tolerant;
#[cfg(feature = "tracing")]
mod trace;

use std::error::Error;
use std::io;
use std::sync::Arc;

pub use chain::{ChainHead, Fault, ParseHeadError};
pub use json_lines::JsonLines;
pub use reader::{LogError, Records, Verified, verify, verify_after, verify_between, verify_up_to};
pub use record::{ArgumentsDigest, AuditRecord, DecisionId, Event, Outcome};
pub use rotating::RotatingLog;

#[cfg(feature = "replay")]
pub(crate) use build::is_kept_as;
pub(crate) use recorder::{Recorder, Unrecorded, is_traced};
#[cfg(feature = "replay")]
pub(crate) use tolerant::{Entry, TolerantReader};

/// A destination of records.
///
/// The threads that decide call it, several at once, and also when a permit is dropped: it must not
/// panic, and should not wait long. A sink that passes records to another thread should have a
/// bounded queue, and fail if the queue is full.
pub trait AuditSink: Send + Sync {
    /// Takes a record.
    ///
    /// # Errors
    /// The record cannot be kept. The gate [reports](crate::GateBuilder::on_audit_error) it to the
    /// host, and denies the call if the host [requires](crate::GateBuilder::require_audit) records.
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError>;
}

impl<T: AuditSink + ?Sized> AuditSink for Arc<T> {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        (**self).record(record)
    }
}

/// The record could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// It could not be written completely.
    #[error("the audit log cannot be written")]
    Io(#[from] io::Error),
    /// It is longer than a line of a log can be.
    #[error("a record of {bytes} bytes is too long for a line of a log")]
    TooLong {
        /// The length of the line.
        bytes: usize,
    },
    /// The file does not end as an audit log does.
    #[error("the file does not end as an audit log does: verify it, and begin another")]
    NotALog,
    /// The file has another writer, whose records this one would not continue.
    #[error("another writer has the audit log open: give each process a file of its own")]
    InUse,
    /// The length of the file is not as this writer left it: somebody cut it, as `copytruncate` of
    /// logrotate does, or another program wrote to it. This record is not written. The next one
    /// continues the log after the same head, at the end that the file has then.
    #[error(
        "the audit log has {found} bytes in place of {expected}: another program has cut it or written to it; for a \
         log in several files, use `RotatingLog`"
    )]
    FileChanged {
        /// The length of the file as it was left.
        expected: u64,
        /// The length that it has.
        found: u64,
    },
    /// The file has been deleted: what is written to it would be lost. All records are refused
    /// until the log is opened again.
    #[error("the file of the audit log has been deleted")]
    FileDeleted,
    /// The last file of a log in several files has no record yet, and the file before it is
    /// missing.
    #[error(
        "the last file of the audit log begins with record {first}, and the file before it is missing: put it back"
    )]
    NoHead {
        /// The number of the first record of the file.
        first: u64,
    },
    /// Another error of the sink.
    #[error("the record cannot be kept")]
    Other(#[source] Box<dyn Error + Send + Sync>),
}
