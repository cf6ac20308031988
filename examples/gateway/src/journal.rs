//! The record of what the gate decides: the audit log, and the last decisions for the operator.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use toolgate::Identity;
use toolgate::audit::{AuditError, AuditRecord, AuditSink, Event, JsonLines, RotatingLog};

use crate::config::Audit;
use crate::who::Who;

/// The number of records that are kept for someone who opens the operator page.
const RECENT: usize = 200;
/// The number of callers that are remembered.
const CALLERS: usize = 200;

/// Where records of decisions go.
pub struct Journal {
    log: Option<Box<dyn AuditSink>>,
    /// Set if somebody may ask for recent records.
    keeps: bool,
    recent: Mutex<VecDeque<Arc<AuditRecord>>>,
    callers: Mutex<VecDeque<Who>>,
    live: broadcast::Sender<Arc<AuditRecord>>,
}

impl Journal {
    /// Opens the log, if there is one. With `keeps`, recent records are kept in memory.
    ///
    /// # Errors
    /// The log cannot be opened, is not an audit log, or another process writes to it.
    pub(crate) fn open(audit: &Audit, keeps: bool) -> Result<Arc<Self>, String> {
        let log = match &audit.file {
            None => None,
            Some(path) => Some(open(path, audit).map_err(|error| match error {
                AuditError::InUse => format!("audit log {}: another gateway writes it", path.display()),
                error => format!("audit log {}: {error}", path.display()),
            })?),
        };
        let live = broadcast::Sender::new(RECENT);
        Ok(Arc::new(Self { log, keeps, recent: Mutex::default(), callers: Mutex::default(), live }))
    }

    /// Returns whether anything is recorded, so that a gate without need makes no records.
    pub fn is_needed(&self) -> bool {
        self.keeps || self.log.is_some()
    }

    /// Returns the last records, the oldest first, and those to come.
    pub fn follow(&self) -> (Vec<Arc<AuditRecord>>, broadcast::Receiver<Arc<AuditRecord>>) {
        let recent = self.recent.lock();
        (recent.iter().cloned().collect(), self.live.subscribe())
    }

    /// Returns the callers of the last calls, the latest first.
    pub fn callers(&self) -> Vec<Who> {
        self.callers.lock().iter().cloned().collect()
    }

    fn keep(&self, record: &AuditRecord) {
        let record = Arc::new(record.clone());
        if record.event() == Event::Decision {
            let name = |identity| record.identity(identity).map(str::to_owned);
            let who = Who {
                server: name(Identity::Server),
                grant: name(Identity::Grant),
                session: name(Identity::Session),
                agent: name(Identity::Agent),
                user: name(Identity::User),
                context: record.context().cloned(),
            };
            let mut callers = self.callers.lock();
            match callers.iter().position(|known| *known == who) {
                Some(0) => {}
                at => {
                    at.map(|at| callers.remove(at));
                    callers.push_front(who);
                    callers.truncate(CALLERS);
                }
            }
        }
        let mut recent = self.recent.lock();
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&record));
        // Under the lock, so that who follows misses no record and gets none twice.
        let _ = self.live.send(record);
    }
}

impl AuditSink for Journal {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        if self.keeps {
            self.keep(record);
        }
        self.log.as_ref().map_or(Ok(()), |log| log.record(record))
    }
}

fn open(path: &Path, audit: &Audit) -> Result<Box<dyn AuditSink>, AuditError> {
    if !audit.daily && audit.max_bytes.is_none() {
        return Ok(Box::new(JsonLines::append(path)?));
    }
    let mut log = RotatingLog::open(path)?;
    if audit.daily {
        log = log.daily();
    }
    if let Some(bytes) = audit.max_bytes {
        log = log.max_bytes(bytes);
    }
    Ok(Box::new(log))
}
