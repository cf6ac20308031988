//! An audit sink that keeps records for a test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use toolgate::audit::{AuditError, AuditRecord, AuditSink};

/// A sink that keeps records, and fails on demand.
#[derive(Clone, Default)]
pub(crate) struct RecordingSink {
    records: Arc<Mutex<Vec<AuditRecord>>>,
    down: Arc<AtomicBool>,
}

impl RecordingSink {
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Vec<AuditRecord> {
        std::mem::take(&mut self.records.lock().unwrap())
    }

    pub(crate) fn events(&self) -> Vec<&'static str> {
        self.take().iter().map(|record| record.event().as_str()).collect()
    }
}

impl AuditSink for RecordingSink {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(AuditError::Other("down".into()));
        }
        self.records.lock().unwrap().push(record.clone());
        Ok(())
    }
}
