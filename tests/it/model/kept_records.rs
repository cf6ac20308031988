//! A sink that keeps the records of a gate for the test that reads them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use toolgate::audit::{AuditError, AuditRecord, AuditSink};

/// Keeps records, and can be made to fail.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    records: Arc<Mutex<Vec<AuditRecord>>>,
    down: Arc<AtomicBool>,
}

impl Kept {
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

impl AuditSink for Kept {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(AuditError::Other("down".into()));
        }
        self.records.lock().unwrap().push(record.clone());
        Ok(())
    }
}
