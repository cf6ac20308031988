//! Records of calls, answers and policies, bounded in length.

use std::error::Error;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::record::{ArgumentsDigest, AuditRecord, DecisionId, Event, Outcome};
use crate::amount::Amount;
use crate::approval::{Approval, ApprovalId, ApprovalState, DecideError, Verdict};
use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::decision::permit::AnyPermit;
use crate::decision::{Decision, Denial};
use crate::json::canonical;
use crate::json::hex::Hex;
use crate::policy::Policy;
use crate::time::Timestamp;

/// The most bytes of a name or a message.
const MAX_NAME_BYTES: usize = 512;
/// The most names of arguments that are kept.
const MAX_ARGUMENT_NAMES: usize = 64;
/// The most bytes of the arguments, and of the context, as canonical JSON.
const MAX_ARGUMENT_BYTES: usize = 256 * 1024;
/// The greatest depth of the arguments: JSON readers give up at 128, and a record adds a few
/// levels.
const MAX_DEPTH: usize = 100;

/// Returns a text as it is kept, and `true` if that is the whole text.
fn bounded(text: &str) -> (Box<str>, bool) {
    if text.len() <= MAX_NAME_BYTES {
        return (text.into(), true);
    }
    let end = (0..=MAX_NAME_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let head = text.get(..end).unwrap_or_default();
    (format!("{head}…#{}", Hex(&Sha256::digest(text.as_bytes()))).into(), false)
}

fn short(text: &str) -> Box<str> {
    bounded(text).0
}

fn named(name: &str) -> Option<Box<str>> {
    Some(name).filter(|name| !name.is_empty()).map(short)
}

/// Returns `true` if a record of `text` has `kept`.
#[cfg(feature = "replay")]
pub(crate) fn is_kept_as(kept: Option<&str>, text: Option<&str>) -> bool {
    match (kept, text) {
        (Some(kept), Some(text)) if text.len() > MAX_NAME_BYTES => *kept == *short(text),
        (kept, text) => kept == text,
    }
}

fn is_nested_within(value: &Value, levels: usize) -> bool {
    let Some(inside) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(elements) => elements.iter().all(|element| is_nested_within(element, inside)),
        Value::Object(members) => members.values().all(|member| is_nested_within(member, inside)),
        _ => true,
    }
}

/// Returns the canonical JSON of an object, or `None` if it is too deep.
fn canonical(members: &Map<String, Value>) -> Option<String> {
    members.values().all(|member| is_nested_within(member, MAX_DEPTH)).then(|| {
        let mut text = String::new();
        canonical::write_object(&mut text, members);
        text
    })
}

impl AuditRecord {
    fn empty(event: Event, time: Timestamp) -> Self {
        Self {
            time,
            event,
            id: None,
            decision: None,
            code: None,
            rule: None,
            message: None,
            policy: None,
            namespace: None,
            further_round: false,
            tool: None,
            server: None,
            grant: None,
            session: None,
            agent: None,
            user: None,
            argument_names: Box::default(),
            more_arguments: 0,
            arguments_digest: None,
            arguments: None,
            context: None,
            input: None,
            task: false,
            limits: Vec::new(),
            retry_after_ms: None,
            counter: None,
            expires_at: None,
            approval: None,
            by: None,
            approved: None,
            amount: None,
            failure: None,
        }
    }

    /// Sets the tool and the caller. Returns `true` if all names are kept whole.
    fn set_names<'a>(&mut self, tool: &str, identity: impl Fn(Identity) -> Option<&'a str>) -> bool {
        let mut whole = true;
        let mut keep = |name: Option<&str>| {
            let (kept, is_whole) = bounded(name.filter(|name| !name.is_empty())?);
            whole &= is_whole;
            Some(kept)
        };
        self.tool = keep(Some(tool));
        self.server = keep(identity(Identity::Server));
        self.grant = keep(identity(Identity::Grant));
        self.session = keep(identity(Identity::Session));
        self.agent = keep(identity(Identity::Agent));
        self.user = keep(identity(Identity::User));
        whole
    }

    /// Creates the record of a decision that is not known yet.
    fn of_call(call: &ToolCall<'_>, id: DecisionId, now: Timestamp, with_arguments: bool) -> Self {
        let further_round = call.is_further_round();
        let mut record = Self { id: Some(id), further_round, ..Self::empty(Event::Decision, now) };
        let is_whole = record.set_names(call.tool(), |identity| call.identity(identity));
        if call.is_malformed() {
            return record;
        }
        record.task = call.is_task();
        let nothing = Map::new();
        let arguments = call.argument_members().unwrap_or(&nothing);
        let mut names: Vec<&str> = arguments.keys().map(String::as_str).collect();
        names.sort_unstable();
        record.argument_names = names.iter().take(MAX_ARGUMENT_NAMES).map(|name| short(name)).collect();
        record.more_arguments = names.len().saturating_sub(MAX_ARGUMENT_NAMES) as u64;
        let Some(text) = canonical(arguments) else { return record };
        record.arguments_digest = Some(ArgumentsDigest(Sha256::digest(text.as_bytes()).into()));
        let (context, input) = (call.context_members(), call.input_members());
        let fits = |members| canonical(members).is_some_and(|text| text.len() <= MAX_ARGUMENT_BYTES);
        if with_arguments
            && is_whole
            && text.len() <= MAX_ARGUMENT_BYTES
            && [context, input].into_iter().flatten().all(fits)
        {
            record.arguments = Some(arguments.clone());
            record.context = context.cloned();
            record.input = input.cloned();
        }
        record
    }

    fn denied(mut self, denial: &Denial) -> Self {
        self.decision = Some(Outcome::Deny);
        self.code = Some(denial.code());
        self.rule = denial.rule().map(short);
        self.message = Some(short(denial.message()));
        self.policy = denial.policy();
        self.failure = denial.store_error().map(|error| failure_text(error));
        self
    }

    /// Creates the record of a decision on a call under `policy`.
    pub(crate) fn of_decision<P: AnyPermit>(
        call: &ToolCall<'_>,
        id: DecisionId,
        now: Timestamp,
        with_arguments: bool,
        policy: Option<&Policy>,
        decision: &Decision<P>,
    ) -> Self {
        let mut record = Self::of_call(call, id, now, with_arguments);
        record.policy = policy.map(Policy::digest);
        record.decision = Some(match decision {
            Decision::Allow(_) => Outcome::Allow,
            Decision::Deny(denial) => return record.denied(denial),
            Decision::RateLimit(_) => Outcome::RateLimited,
            Decision::RequireApproval(_) => Outcome::ApprovalRequired,
        });
        record.code = decision.code();
        record.rule = decision.rule().map(short);
        record.message = decision.message().map(short);
        record.limits = decision.limit_states();
        record.retry_after_ms = decision.retry_after().and_then(|wait| u64::try_from(wait.as_millis()).ok());
        record.approval = decision.approval_id();
        record
    }

    /// Creates the record of a denial that no gate has made.
    pub(crate) fn of_denial(
        call: &ToolCall<'_>,
        id: DecisionId,
        now: Timestamp,
        with_arguments: bool,
        denial: &Denial,
    ) -> Self {
        Self::of_call(call, id, now, with_arguments).denied(denial)
    }

    /// Creates the record of a later event of this record's call.
    pub(crate) fn afterwards(&self, event: Event, now: Timestamp) -> Self {
        Self {
            id: self.id,
            policy: self.policy,
            tool: self.tool.clone(),
            server: self.server.clone(),
            grant: self.grant.clone(),
            session: self.session.clone(),
            agent: self.agent.clone(),
            user: self.user.clone(),
            approval: self.approval,
            ..Self::empty(event, now)
        }
    }

    pub(crate) fn with_amount(self, amount: Option<Amount>) -> Self {
        Self { amount, ..self }
    }

    pub(crate) fn with_failure(self, failure: Option<&(dyn Error + 'static)>) -> Self {
        Self { failure: failure.map(failure_text), ..self }
    }

    /// Creates the record of a person's answer to a request.
    pub(crate) fn of_verdict(
        id: &ApprovalId,
        verdict: Verdict,
        by: &str,
        now: Timestamp,
        decided: Result<&Approval, &DecideError>,
    ) -> Self {
        let event = match verdict {
            Verdict::Approve => Event::Approve,
            Verdict::Refuse => Event::Refuse,
            Verdict::Lift => Event::Lift,
        };
        let mut record = Self { approval: Some(*id), by: Some(short(by)), ..Self::empty(event, now) };
        match decided {
            Ok(approval) => {
                record.set_names(approval.tool(), |identity| approval.identity(identity));
                record.approved = Some(approval.state() == ApprovalState::Approved);
            }
            Err(error) => record.failure = Some(error.as_str().into()),
        }
        record
    }

    /// Creates the record of the reset of a counter under `policy`.
    pub(crate) fn of_reset(
        counter: &str,
        call: &ToolCall<'_>,
        by: &str,
        now: Timestamp,
        with_arguments: bool,
        policy: Option<&Policy>,
    ) -> Self {
        Self {
            event: Event::Reset,
            id: None,
            counter: Some(short(counter)),
            by: named(by),
            policy: policy.map(Policy::digest),
            ..Self::of_call(call, DecisionId(0), now, with_arguments)
        }
    }

    /// Creates the record of a change of a grant, on a server or on all.
    pub(crate) fn of_grant(event: Event, grant: &str, server: Option<&str>, by: &str, now: Timestamp) -> Self {
        Self { grant: named(grant), server: server.map(short), by: named(by), ..Self::empty(event, now) }
    }

    /// Adds the policy of the access that a grant is given or has lost.
    pub(crate) fn with_access(self, policy: &str, expires_at: Option<Timestamp>) -> Self {
        Self { namespace: Some(short(policy)), expires_at, ..self }
    }

    /// Creates the record of a policy that was put in force, or without one, of the removal of
    /// `former`.
    pub(crate) fn of_policy(policy: Option<&Policy>, former: Option<&Policy>, now: Timestamp) -> Self {
        let namespace = policy.or(former).map(Policy::namespace).filter(|name| !name.is_empty());
        let namespace = namespace.map(short);
        Self { policy: policy.map(Policy::digest), namespace, ..Self::empty(Event::Policy, now) }
    }
}

/// Returns the message of an error and of its sources.
fn failure_text(error: &(dyn Error + 'static)) -> Box<str> {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause.filter(|_| text.len() <= MAX_NAME_BYTES) {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    short(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::ToolCall;
    use serde_json::json;

    fn of_call(call: &ToolCall<'_>) -> AuditRecord {
        AuditRecord::of_call(call, DecisionId(1), Timestamp::UNIX_EPOCH, true)
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let (one, two) = ("ä".repeat(400), "ä".repeat(401));
        let arguments: Value = (0..100).map(|index| (format!("{index:03}{two}"), json!(index))).collect();
        let record = of_call(&ToolCall::new(&one, &arguments).grant(&*two));
        let (tool, grant) = (record.tool().unwrap(), record.identity(Identity::Grant).unwrap());
        assert!(tool.len() < 600 && grant.len() < 600 && tool != grant, "{tool} {grant}");
        assert_eq!((record.argument_names().len(), record.more_arguments()), (64, 36));
        assert!(record.argument_names().all(|name| name.len() < 600));
        assert!(record.call().is_none(), "a name that was cut is not the name");
        let fits = "a".repeat(MAX_NAME_BYTES);
        assert_eq!(of_call(&ToolCall::new(&fits, None::<&Value>)).tool(), Some(&*fits));
    }

    #[test]
    fn arguments_past_the_bounds_are_left_out() {
        let deep = (0..MAX_DEPTH).fold(json!(1), |inside, _| json!([inside]));
        let long = json!({ "a": "x".repeat(MAX_ARGUMENT_BYTES) });
        for (arguments, has_digest) in [(json!({ "a": deep }), false), (long, true), (json!([]), false)] {
            let record = of_call(&ToolCall::new("t", &arguments));
            assert_eq!((record.arguments(), record.arguments_digest().is_some()), (None, has_digest));
            assert!(record.call().is_none());
        }
        let context = json!({ "c": "x".repeat(MAX_ARGUMENT_BYTES) });
        assert!(of_call(&ToolCall::new("t", None::<&Value>).context(context.as_object())).call().is_none());
        let fits = json!({ "a": (1..MAX_DEPTH).fold(json!(1), |inside, _| json!([inside])) });
        let record = of_call(&ToolCall::new("t", &fits));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<AuditRecord>(&text).unwrap(), record);
    }
}
