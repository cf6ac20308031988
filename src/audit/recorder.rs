//! What a gate hands its records to.

use super::{AuditError, AuditRecord, AuditSink};

type OnError = dyn Fn(&AuditRecord, &AuditError) + Send + Sync;

/// The sink, and what the host wants done with it.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) sink: Option<Box<dyn AuditSink>>,
    pub(crate) on_error: Option<Box<OnError>>,
    /// Whether a call that cannot be recorded is denied.
    pub(crate) is_required: bool,
    pub(crate) with_arguments: bool,
}

/// A record that has to be kept was not.
pub(crate) struct Unrecorded;

impl Recorder {
    /// Whether anything is recorded: it stays so.
    pub(crate) fn keeps(&self) -> bool {
        self.sink.is_some() || self.is_required
    }

    /// Whether anything is recorded, or told of.
    pub(crate) fn is_on(&self) -> bool {
        self.keeps() || is_traced()
    }

    /// Records it, and tells of it.
    ///
    /// # Errors
    /// It must be kept, and was not.
    pub(crate) fn record(&self, record: &AuditRecord) -> Result<(), Unrecorded> {
        #[cfg(feature = "tracing")]
        super::trace::tell(record);
        let Some(sink) = &self.sink else { return if self.is_required { Err(Unrecorded) } else { Ok(()) } };
        let Err(error) = sink.record(record) else { return Ok(()) };
        #[cfg(feature = "tracing")]
        super::trace::tell_failure(record, &error);
        if let Some(on_error) = &self.on_error {
            on_error(record, &error);
        }
        if self.is_required { Err(Unrecorded) } else { Ok(()) }
    }
}

/// Whether somebody listens to events.
#[inline]
pub(crate) fn is_traced() -> bool {
    #[cfg(feature = "tracing")]
    return super::trace::is_heard();
    #[cfg(not(feature = "tracing"))]
    false
}
