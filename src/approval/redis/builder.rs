//! How a store of approvals is put together.

use std::time::Duration;

use super::RedisApprovals;
use crate::approval::{CAPACITY, DETAILS_BYTES, PENDING};
use crate::redis::{BuildError, GRACE, Known, Settings, micros, settings_verbs};

/// Puts a [`RedisApprovals`] together.
///
/// ```
/// use std::time::Duration;
/// use toolgate::approval::redis::RedisApprovals;
///
/// let approvals = RedisApprovals::builder("redis://127.0.0.1:6379")
///     .prefix("gateway-eu")
///     .pending_per_asker(20)
///     .details_up_to(1_000)
///     .build()?;
/// # Ok::<(), toolgate::store::redis::BuildError>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RedisApprovalsBuilder {
    settings: Settings,
    capacity: usize,
    pending: usize,
    details_bytes: usize,
}

impl RedisApprovalsBuilder {
    pub(super) fn new(url: String) -> Self {
        let settings = Settings::new(url);
        Self { settings, capacity: CAPACITY, pending: PENDING, details_bytes: DETAILS_BYTES }
    }

    /// What the names of all keys begin with, in braces: `{toolgate}`, if nothing is said. Stores of one prefix share their
    /// approvals; they may have the prefix of a store of counters. 1 to 64 visible ASCII characters, none of them a brace.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// How far the host's clock and the server's may be apart: two seconds, if nothing is said. Past it every verb that changes
    /// something fails, [`ApprovalError::ClockSkew`](crate::approval::ApprovalError::ClockSkew). Keys are kept twice as much longer
    /// than what is in them lives.
    pub fn max_skew(mut self, max_skew: Duration) -> Self {
        self.settings.max_skew = max_skew;
        self
    }

    settings_verbs!();

    /// How long one request may take in all, with its retry: one and a half seconds, if nothing is said. A verb makes two requests,
    /// more where others change the same approval meanwhile, and begins none when this time has passed.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.patience.deadline = deadline;
        self
    }

    /// How many approvals may live at once: those that wait, those that may be used, those in use, and those that were approved
    /// elsewhere and are used up; 10,000, if nothing is said. Past it new requests are refused,
    /// [`ApprovalError::Full`](crate::approval::ApprovalError::Full), and their calls denied.
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// How many requests of one [asker](crate::approval::Ask::asker) may wait at once: 100, if nothing is said. A call that would
    /// make another one is denied, [`ApprovalError::TooManyPending`](crate::approval::ApprovalError::TooManyPending).
    pub fn pending_per_asker(self, pending: usize) -> Self {
        Self { pending, ..self }
    }

    /// How many bytes of [details](crate::approval::Approval::details), which are values from calls, are kept on the server for people to
    /// read: 4 KiB, if nothing is said, which is the most; 0 keeps none.
    pub fn details_up_to(self, bytes: usize) -> Self {
        Self { details_bytes: bytes, ..self }
    }

    /// The store. It connects when it is first used, so the server need not be up.
    ///
    /// For `rediss://`, if the process has no default provider of cryptography for `rustls`, this makes `ring` that.
    ///
    /// # Errors
    /// `localhost:6379` (no scheme), an empty prefix, a timeout of zero.
    pub fn build(self) -> Result<RedisApprovals, BuildError> {
        let Self { settings, capacity, pending, details_bytes } = self;
        let (link, max_skew) = (settings.link()?, settings.max_skew);
        Ok(RedisApprovals {
            link,
            put: Known::new(include_str!("put.lua").to_owned()),
            deadline: settings.patience.deadline,
            prefix: settings.prefix,
            bound_millis: max_skew.as_millis().try_into().unwrap_or(u64::MAX),
            skew_micros: micros(max_skew),
            late: max_skew * 2 + GRACE,
            capacity,
            pending,
            details_bytes,
        })
    }
}
