//! The audit log: what a gate decided, how the calls ended, and how people answered.
//!
//! A gate passes its [sink](crate::GateBuilder::audit) an [`AuditRecord`] of each decision; of each
//! release, settlement and end of an allowed call; of each person's answer to a request for
//! approval; and of each policy that is put in force or removed. [`JsonLines`] is a sink that
//! writes a log in which later changes can be detected: [`verify`] finds them.
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
//! | `approve`, `refuse` | `INFO`, `WARN` if it failed | `approval`, `by`, `approved`, `tool`, `server`, `grant`, `session`, `agent`, `user`, `failure` |
//! | `policy` | `INFO` | `policy`, `namespace` |
//! | `audit_failure` | `ERROR` | `event`, `id`, `failure` |

mod build;
mod chain;
mod json_lines;
mod reader;
mod record;
mod recorder;
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
pub use reader::{LogError, Records, Verified, verify, verify_up_to};
pub use record::{ArgumentsDigest, AuditRecord, DecisionId, Event, Outcome};

#[cfg(feature = "replay")]
pub(crate) use build::is_kept_as;
pub(crate) use recorder::{Recorder, is_traced};
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
    /// Another error of the sink.
    #[error("the record cannot be kept")]
    Other(#[source] Box<dyn Error + Send + Sync>),
}
