//! The audit log: one file, of one gateway.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use toolgate::GateBuilder;
use toolgate::audit::{AuditError, AuditRecord, AuditSink, JsonLines};

use super::log::say;
use super::text::plain;

/// A log, and the lock that keeps other gateways from writing into it: its lines are a chain.
struct Log {
    lines: JsonLines<File>,
    _lock: File,
}

impl AuditSink for Log {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        self.lines.record(record)
    }
}

/// The gate with a log in this file, if one is asked for; `required`, if what is not in it may not pass.
pub(crate) fn audited<S>(gate: GateBuilder<S>, log: Option<&Path>, required: bool) -> Result<GateBuilder<S>, String> {
    let gate = if required { gate.require_audit() } else { gate };
    let Some(path) = log else { return Ok(gate) };
    let log = open(path).map_err(|error| format!("audit log {}: {error}", path.display()))?;
    Ok(gate.audit(log).on_audit_error(|record, error| {
        let tool = record.tool().map_or(String::new(), |tool| format!(" of `{}`", plain(tool)));
        let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
        say(format_args!("{error}{cause}: the {}{tool} is not in it", record.event().as_str()));
    }))
}

fn open(path: &Path) -> Result<Log, String> {
    let lock = File::options().create(true).append(true).open(path).map_err(|error| error.to_string())?;
    // A device has no chain that could break, and others may have it locked.
    if lock.metadata().is_ok_and(|metadata| metadata.is_file()) {
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => "another gateway writes it".to_owned(),
            error => error.to_string(),
        })?;
    }
    let lines = JsonLines::append(path).map_err(|error| error.to_string())?;
    Ok(Log { lines, _lock: lock })
}
