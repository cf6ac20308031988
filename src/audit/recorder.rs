//! The recorder of a gate: its sink and settings.

use super::{AuditError, AuditRecord, AuditSink};

type OnError = dyn Fn(&AuditRecord, &AuditError) + Send + Sync;

/// The sink, and how the host wants it used.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) sink: Option<Box<dyn AuditSink>>,
    pub(crate) on_error: Option<Box<OnError>>,
    /// `true` if a call that cannot be recorded is denied.
    pub(crate) is_required: bool,
    pub(crate) with_arguments: bool,
}

/// A required record was not kept.
#[derive(Debug, thiserror::Error)]
#[error("it could not be recorded, and the gate requires records")]
pub(crate) struct Unrecorded;

impl Recorder {
    /// Returns `true` if decisions are recorded. This never changes.
    pub(crate) fn keeps(&self) -> bool {
        self.sink.is_some() || self.is_required
    }

    /// Returns `true` if decisions are recorded, or reported as events.
    pub(crate) fn is_on(&self) -> bool {
        self.keeps() || is_traced()
    }

    /// Keeps a record, and reports it as an event.
    ///
    /// # Errors
    /// The record is required, and was not kept.
    pub(crate) fn record(&self, record: &AuditRecord) -> Result<(), Unrecorded> {
        #[cfg(feature = "tracing")]
        super::trace::emit(record);
        let Some(sink) = &self.sink else { return if self.is_required { Err(Unrecorded) } else { Ok(()) } };
        let Err(error) = sink.record(record) else { return Ok(()) };
        #[cfg(feature = "tracing")]
        super::trace::emit_failure(record, &error);
        if let Some(on_error) = &self.on_error {
            on_error(record, &error);
        }
        if self.is_required { Err(Unrecorded) } else { Ok(()) }
    }
}

/// Returns `true` if a subscriber listens to events.
pub(crate) fn is_traced() -> bool {
    #[cfg(feature = "tracing")]
    return super::trace::is_enabled();
    #[cfg(not(feature = "tracing"))]
    false
}
