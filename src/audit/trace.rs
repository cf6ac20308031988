//! Records as events of `tracing`, without arguments.

use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, enabled, error, info, warn};

use super::AuditError;
use super::record::{AuditRecord, Event, Outcome};
use crate::policy::Code;

/// The target of all events.
const TARGET: &str = "toolgate";

/// Returns `true` if a subscriber listens at a level that some decisions have.
pub(super) fn is_enabled() -> bool {
    LevelFilter::current() >= Level::WARN && enabled!(target: TARGET, Level::WARN)
}

fn level(record: &AuditRecord) -> Level {
    match record.event {
        Event::Decision => match (record.decision, record.code) {
            (Some(Outcome::Allow), _) => Level::DEBUG,
            (_, Some(Code::StoreUnavailable | Code::AuditUnavailable | Code::ToolChanged)) => Level::WARN,
            _ => Level::INFO,
        },
        _ if record.failure.is_some() => Level::WARN,
        Event::Release | Event::Settle | Event::End => Level::DEBUG,
        Event::Approve
        | Event::Refuse
        | Event::Lift
        | Event::Policy
        | Event::Reset
        | Event::Give
        | Event::Revoke
        | Event::Forget => Level::INFO,
    }
}

/// Emits the event of a record.
pub(super) fn emit(record: &AuditRecord) {
    let (event, level) = (record.event, level(record));
    if level > LevelFilter::current() {
        return;
    }
    macro_rules! emit_at {
        ($level:ident { $($field:ident $(= $value:expr)?,)* }) => {
            $level!(target: TARGET, $($field $(= $value)?,)* "{event}")
        };
    }
    macro_rules! at_level {
        ($($fields:tt)*) => {
            match level {
                Level::DEBUG => emit_at!(debug { $($fields)* }),
                Level::WARN => emit_at!(warn { $($fields)* }),
                _ => emit_at!(info { $($fields)* }),
            }
        };
    }
    let text = |value: Option<&dyn std::fmt::Display>| value.map(ToString::to_string);
    macro_rules! shown {
        ($($name:ident),*) => { $(let $name = text(record.$name.as_ref().map(|value| value as _));)* };
    }
    shown!(id, decision, code, policy, approval, amount, arguments_digest, expires_at);
    let (id, decision, code) = (id.as_deref(), decision.as_deref(), code.as_deref());
    let (policy, approval, amount) = (policy.as_deref(), approval.as_deref(), amount.as_deref());
    let (arguments_digest, expires_at) = (arguments_digest.as_deref(), expires_at.as_deref());
    let AuditRecord { rule, tool, server, grant, session, agent, user, namespace, counter, by, failure, .. } = record;
    let (rule, tool, server, grant) = (rule.as_deref(), tool.as_deref(), server.as_deref(), grant.as_deref());
    let (session, agent, user) = (session.as_deref(), agent.as_deref(), user.as_deref());
    let (namespace, counter, by, failure) =
        (namespace.as_deref(), counter.as_deref(), by.as_deref(), failure.as_deref());
    let (retry_after_ms, approved) = (record.retry_after_ms, record.approved);
    match event {
        Event::Decision => at_level! {
            id, decision, code, rule, policy, tool, server, grant, session, agent, user, arguments_digest,
            retry_after_ms, approval, failure,
        },
        Event::Release | Event::Settle | Event::End => at_level! {
            id, policy, tool, server, grant, session, agent, user, approval, amount, failure,
        },
        Event::Approve | Event::Refuse | Event::Lift => at_level! {
            approval, by, approved, tool, server, grant, session, agent, user, failure,
        },
        Event::Policy => at_level! { policy, namespace, },
        Event::Reset => at_level! {
            counter, by, policy, tool, server, grant, session, agent, user, arguments_digest, failure,
        },
        Event::Give | Event::Revoke | Event::Forget => at_level! {
            grant, server, namespace, expires_at, by, failure,
        },
    }
}

/// Emits the event of a record that could not be kept.
pub(super) fn emit_failure(record: &AuditRecord, failure: &AuditError) {
    let id = record.id.map(|id| id.to_string());
    error!(target: TARGET, event = record.event.as_str(), id = id.as_deref(), failure = %failure, "audit_failure");
}
