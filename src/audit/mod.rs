//! The audit log: what a gate has decided, what became of it, and who said what.
//!
//! A gate that has a [sink](crate::GateBuilder::audit) gives it an [`AuditRecord`] of each decision; of each release, settlement
//! and end of an allowed call; of each answer of a person to a request for approval; and of each policy that is put in force or
//! taken away. [`JsonLines`] is a sink that writes a log in which later changes show: [`verify`] finds them.
//!
//! With the feature `tracing`, the same is told as events of that crate, target `toolgate`, with a sink or without. The name of an
//! event is its message; the fields are those of a record under the same names, as texts, but for the message and for arguments,
//! of which it tells nothing but the digest:
//!
//! | event | level | fields |
//! |---|---|---|
//! | `decision` | `DEBUG` for allow, `WARN` where a store or the audit failed or a tool has changed, else `INFO` | `id`, `decision`, `code`, `rule`, `policy`, `tool`, `server`, `grant`, `session`, `agent`, `user`, `arguments_digest`, `retry_after_ms`, `approval`, `failure` |
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

/// Where records go.
///
/// It is called by the threads that decide, by several at once, and also when a permit is dropped: it must not panic, and should not
/// wait long. A sink that gives records to another thread should have a bounded queue, and fail when that is full.
pub trait AuditSink: Send + Sync {
    /// Takes a record.
    ///
    /// # Errors
    /// It cannot be kept. The host [hears](crate::GateBuilder::on_audit_error) of it, and where it
    /// [requires](crate::GateBuilder::require_audit) records, the call is denied.
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError>;
}

impl<T: AuditSink + ?Sized> AuditSink for Arc<T> {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        (**self).record(record)
    }
}

/// A record could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// It could not be written, or not wholly.
    #[error("the audit log cannot be written")]
    Io(#[from] io::Error),
    /// It would be longer than a line of a log may be.
    #[error("a record of {bytes} bytes is longer than a line of a log may be")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A file is not empty, and what it ends in is not the end of a log.
    #[error("the file does not end as an audit log does: verify it, and begin another")]
    NoLog,
    /// The sink's own reason.
    #[error("the record cannot be kept")]
    Other(#[source] Box<dyn Error + Send + Sync>),
}
