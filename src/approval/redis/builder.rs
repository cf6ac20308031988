//! The builder of [`RedisApprovals`].

use std::time::Duration;

use super::RedisApprovals;
use crate::approval::{CAPACITY, DETAILS_BYTES, PENDING_PER_ASKER};
use crate::redis::{BuildError, GRACE, Script, Server, Settings, micros, settings_methods};

/// Builds a [`RedisApprovals`].
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
    pub(super) fn new(server: Server) -> Self {
        let settings = Settings::new(server);
        Self { settings, capacity: CAPACITY, pending: PENDING_PER_ASKER, details_bytes: DETAILS_BYTES }
    }

    /// Sets the prefix of all keys, which is written in braces; the default is `{toolgate}`. Stores
    /// with the same prefix share their approvals. A store of counters can have the same prefix. A
    /// prefix is 1 to 64 visible ASCII characters, none of them a brace.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// Sets the maximum difference between the clocks of host and server; the default is two
    /// seconds. Past it, every method that writes fails with
    /// [`ApprovalError::ClockSkew`](crate::approval::ApprovalError::ClockSkew). Keys are kept for
    /// more than twice this time after their content has ended.
    pub fn max_skew(mut self, max_skew: Duration) -> Self {
        self.settings.max_skew = max_skew;
        self
    }

    settings_methods!();

    /// Sets the maximum time of one request with its retry; the default is 1.5 seconds. A method
    /// makes two requests, and more if others change the same approvals at the same time. It begins
    /// no request after this time.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.timeouts.deadline = deadline;
        self
    }

    /// Sets the maximum number of live approvals: pending, approved and in use, and signed
    /// approvals that were used; the default is 10,000. Past it, new requests fail with
    /// [`ApprovalError::Full`](crate::approval::ApprovalError::Full), and their calls are denied.
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// Sets how many requests of one [asker](crate::approval::Ask::asker) can be pending at once;
    /// the default is 100. A call that would add another is denied, with
    /// [`ApprovalError::TooManyPending`](crate::approval::ApprovalError::TooManyPending).
    pub fn pending_per_asker(self, pending: usize) -> Self {
        Self { pending, ..self }
    }

    /// Keeps [details](crate::approval::Approval::details), which are values from calls, of at most
    /// `bytes` bytes on the server. The default and the maximum is 16 KiB; 0 keeps the names of
    /// arguments alone. Nobody can approve a request that is
    /// [not shown](crate::approval::Approval::is_shown), unless the host
    /// [lets them](crate::GateBuilder::approve_unseen).
    pub fn details_up_to(self, bytes: usize) -> Self {
        Self { details_bytes: bytes, ..self }
    }

    /// Builds the store. It connects on first use, so the server need not be running yet.
    ///
    /// With `rediss://`, this installs `ring` as the cryptography provider of `rustls` if the
    /// process has no default provider.
    ///
    /// # Errors
    /// An invalid setting: a URL without a scheme (`localhost:6379`), an empty prefix, a timeout of
    /// zero.
    pub fn build(self) -> Result<RedisApprovals, BuildError> {
        let Self { settings, capacity, pending, details_bytes } = self;
        let (connection, max_skew) = (settings.connection()?, settings.max_skew);
        Ok(RedisApprovals {
            connection,
            put: Script::new(include_str!("put.lua").to_owned()),
            deadline: settings.timeouts.deadline,
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
