//! Replays an audit log.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::partial::{Needs, Unknowns};
use super::{Change, ChangeKind, Comparison, DecisionSummary, Indeterminate};
use crate::audit::{AuditRecord, DecisionId, Event, Outcome, is_kept_as};
use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::decision::Decision;
use crate::decision::permit::Permit;
use crate::gate::{Gate, KnownApproval};
use crate::policy::{Code, Effect, Policy};
use crate::time::{ManualClock, Timestamp};
use crate::tools::trace::FaultStore;

/// The maximum number of calls in flight. If there are more, the oldest counts as ended.
const MAX_IN_FLIGHT: usize = 1 << 17;
/// The maximum length of a name in a record, in bytes. A longer one was truncated.
const MAX_NAME_BYTES: usize = 512;

/// A gate that decides the calls of a log again, and the permits of those in flight.
pub(super) struct LogReplay {
    policy: Policy,
    gate: Gate<Arc<FaultStore>>,
    store: Arc<FaultStore>,
    clock: ManualClock,
    in_flight: HashMap<DecisionId, Box<Permit>>,
    /// The ids of allowed calls, the oldest first, including calls that have ended.
    order: VecDeque<DecisionId>,
    /// Counters that have missed a call.
    uncertain: HashSet<Box<str>>,
}

impl LogReplay {
    pub(super) fn new(policy: Policy, pass_uncounted: &[Box<str>]) -> Self {
        let (store, clock) = (Arc::new(FaultStore::default()), ManualClock::new(Timestamp::UNIX_EPOCH));
        let builder = Gate::builder().policy(policy.clone()).store(Arc::clone(&store)).clock(clock.clone());
        let gate = pass_uncounted.iter().fold(builder, |builder, counter| builder.pass_uncounted(counter)).build();
        let (in_flight, order, uncertain) = (HashMap::new(), VecDeque::new(), HashSet::new());
        Self { policy, gate, store, clock, in_flight, order, uncertain }
    }

    /// Replays a record.
    pub(super) fn record(&mut self, line: u64, record: &AuditRecord) -> Comparison {
        self.clock.set(record.time());
        match (record.event(), record.id()) {
            (Event::Decision, _) => return self.decide(line, record),
            (Event::Release, Some(id)) => {
                if let Some(permit) = self.in_flight.remove(&id) {
                    // A release that failed in the log fails again.
                    self.store.set_down(record.failure().is_some());
                    permit.release();
                    self.store.set_down(false);
                }
            }
            (Event::Settle, Some(id)) if record.failure().is_none() => {
                if let (Some(permit), Some(amount)) = (self.in_flight.get_mut(&id), record.amount()) {
                    // The store does not fail here. If the call is already settled, that is kept.
                    let _ = permit.settle(amount);
                }
            }
            (Event::End, Some(id)) => drop(self.in_flight.remove(&id)),
            (Event::Reset, _) => self.reset(record),
            _ => {}
        }
        Comparison::Step
    }

    /// Resets a counter again. If the record does not say for whom, or the reset has failed, the
    /// counter is uncertain from now on.
    fn reset(&mut self, record: &AuditRecord) {
        let Some(counter) = record.counter() else { return };
        let nothing = Map::new();
        let call = record.call().unwrap_or_else(|| without_arguments(record, &nothing));
        let is_known = record.failure().is_none() && !has_truncated_name(record);
        let is_reset = is_known && self.gate.reset_counter(counter, call, "").unwrap_or(false);
        if !is_reset && !self.uncertain.contains(counter) {
            self.uncertain.insert(counter.into());
        }
    }

    fn decide(&mut self, line: u64, record: &AuditRecord) -> Comparison {
        let is_kept = matches!(
            record.code(),
            Some(
                Code::MalformedCall
                    | Code::UnknownState
                    | Code::NoPolicy
                    | Code::GrantExpired
                    | Code::GrantRevoked
                    | Code::ToolChanged
                    | Code::AuditUnavailable
            )
        );
        // A further round is part of a call that was decided before.
        let is_kept = is_kept || record.is_further_round();
        let Some(was) = record.decision().filter(|_| !is_kept) else { return Comparison::Kept };
        let nothing = Map::new();
        let (call, unknowns) = match record.call() {
            Some(call) => (call, None),
            None => (without_arguments(record, &nothing), Some(unknowns(record))),
        };
        if unknowns.is_some() && has_truncated_name(record) {
            self.miss(&call);
            return Comparison::Indeterminate(indeterminate(line, record, None));
        }
        let is_same = record.policy() == Some(self.policy.digest());
        if let Some(unknowns) = &unknowns
            && let Some(needs) = self.needs(&call, record, unknowns)
        {
            let was_charged = is_same && was == Outcome::Allow;
            let was_stopped = is_same && was != Outcome::Allow;
            if was_charged && self.policy.needs_of_limits(&call, unknowns).is_none() {
                let permit = self.gate.charge(&call);
                self.keep(record, permit);
            } else if !was_stopped {
                self.miss(&call);
            }
            return Comparison::Indeterminate(indeterminate(line, record, Some(needs)));
        }
        let decision = self.decide_call(record, &call, is_same);
        if let Some((rule, counter)) = self.uncertain_limit(&call, &decision) {
            self.miss(&call);
            let found = indeterminate(line, record, Some(Needs { rule, paths: Vec::new() }));
            return Comparison::Indeterminate(Indeterminate { counter: Some(counter), ..found });
        }
        let comparison = compare(line, record, was, &decision).map_or(Comparison::Unchanged, Comparison::Change);
        let permit = match decision {
            Decision::Allow(permit) => Some(permit),
            Decision::Deny(_) | Decision::RateLimit(_) | Decision::RequireApproval(_) => None,
        };
        // A call that was refused in the log was not made, so it is not in flight.
        self.keep(record, permit.filter(|_| was == Outcome::Allow));
        comparison
    }

    fn needs(&self, call: &ToolCall<'_>, record: &AuditRecord, unknowns: &Unknowns<'_>) -> Option<Needs> {
        let policy = &self.policy;
        let found = policy.needs_of_rules(call, record.time(), unknowns);
        // A call that a rule denies does not reach the limits.
        let is_denied = || matches!(policy.evaluate(call, record.time()).effect(), Effect::Deny(_));
        found.or_else(|| policy.needs_of_limits(call, unknowns).filter(|_| !is_denied()))
    }

    fn decide_call(&mut self, record: &AuditRecord, call: &ToolCall<'_>, is_same: bool) -> Decision {
        let failed = record.code() == Some(Code::StoreUnavailable);
        let is_by_limit = record.rule().is_some_and(is_limit);
        let approval = match record.decision() {
            Some(Outcome::Allow) if record.approval().is_some() => KnownApproval::Yes,
            _ if failed && !is_by_limit => KnownApproval::Unknown,
            _ if record.code() == Some(Code::ApprovalRefused) => KnownApproval::Refused,
            _ => KnownApproval::No,
        };
        // A call that passed limits without recording their state passed them uncounted.
        let passed_limits = matches!(record.decision(), Some(Outcome::Allow | Outcome::ApprovalRequired));
        let uncounted = is_same && passed_limits && record.limits().is_empty();
        self.store.set_down(uncounted || (failed && is_by_limit));
        let decision = self.gate.check_known(call, approval);
        self.store.set_down(false);
        decision
    }

    /// Returns the first limit that the decision depends on and whose counter is uncertain.
    fn uncertain_limit(&self, call: &ToolCall<'_>, decision: &Decision) -> Option<(String, String)> {
        let reached_limits = match decision {
            Decision::Allow(_) | Decision::RateLimit(_) | Decision::RequireApproval(_) => true,
            Decision::Deny(_) => false,
        };
        if self.uncertain.is_empty() || !reached_limits {
            return None;
        }
        let limits = self.policy.limits_on(call);
        let (rule, counter) = limits.into_iter().find(|(_, counter)| self.uncertain.contains(*counter))?;
        Some((rule, counter.to_owned()))
    }

    /// Marks all counters that the call may have charged as uncertain.
    fn miss(&mut self, call: &ToolCall<'_>) {
        for (_, counter) in self.policy.limits_on(call) {
            if !self.uncertain.contains(counter) {
                self.uncertain.insert(counter.into());
            }
        }
    }

    fn keep(&mut self, record: &AuditRecord, permit: Option<Permit>) {
        let (Some(id), Some(permit)) = (record.id(), permit) else { return };
        if !permit.is_counted() {
            return;
        }
        self.in_flight.insert(id, Box::new(permit));
        self.order.push_back(id);
        if self.order.len() > 2 * MAX_IN_FLIGHT {
            self.order.retain(|id| self.in_flight.contains_key(id));
        }
        while self.in_flight.len() > MAX_IN_FLIGHT {
            let Some(oldest) = self.order.pop_front() else { break };
            self.in_flight.remove(&oldest);
        }
    }
}

/// Returns the call of a record, without its arguments.
fn without_arguments<'r>(record: &'r AuditRecord, nothing: &'r Map<String, Value>) -> ToolCall<'r> {
    ToolCall::new(record.tool().unwrap_or_default(), nothing)
        .grant(record.identity(Identity::Grant))
        .session(record.identity(Identity::Session))
        .agent(record.identity(Identity::Agent))
        .user(record.identity(Identity::User))
        .server(record.identity(Identity::Server))
}

fn unknowns(record: &AuditRecord) -> Unknowns<'_> {
    // A truncated name may be any longer name with the same beginning.
    let has_more = record.more_arguments() > 0 || record.argument_names().any(|name| name.len() > MAX_NAME_BYTES);
    Unknowns { names: record.argument_names().collect(), has_more }
}

fn has_truncated_name(record: &AuditRecord) -> bool {
    let identities = Identity::ALL.into_iter().map(|identity| record.identity(identity));
    identities.chain([record.tool()]).flatten().any(|name| name.len() > MAX_NAME_BYTES)
}

/// Returns `true` if the pointer is that of a limit.
fn is_limit(rule: &str) -> bool {
    let mut parts = rule.rsplit('/');
    match (parts.next(), parts.next()) {
        (Some("rate_limit"), _) => true,
        (Some(index), Some("limits")) => index.parse::<u32>().is_ok(),
        _ => false,
    }
}

/// Compares the decision with the recorded one. Returns `None` if they are the same.
fn compare(line: u64, record: &AuditRecord, was: Outcome, decision: &Decision) -> Option<Change> {
    let is_same = was.as_str() == decision.as_str()
        && record.code() == decision.code()
        && is_kept_as(record.rule(), decision.rule());
    let kind = match (is_same, was == Outcome::Allow, decision.is_allowed()) {
        (true, ..) => {
            let is_identical = is_kept_as(record.message(), decision.message())
                && record.retry_after() == decision.retry_after()
                && record.limits() == decision.limits();
            if is_identical {
                return None;
            }
            ChangeKind::Details
        }
        (false, _, true) => ChangeKind::Loosened,
        (false, true, false) => ChangeKind::Tightened,
        (false, false, false) => ChangeKind::Changed,
    };
    let text = |code: Option<Code>| code.map(|code| code.as_str().to_owned());
    Some(Change {
        line,
        kind,
        tool: record.tool().unwrap_or_default().to_owned(),
        caller: caller(|identity| record.identity(identity)),
        was: DecisionSummary {
            decision: was.as_str().to_owned(),
            code: text(record.code()),
            rule: record.rule().map(str::to_owned),
        },
        now: DecisionSummary {
            decision: decision.as_str().to_owned(),
            code: text(decision.code()),
            rule: decision.rule().map(str::to_owned),
        },
    })
}

fn indeterminate(line: u64, record: &AuditRecord, needs: Option<Needs>) -> Indeterminate {
    let (rule, needs) = needs.map_or((None, Vec::new()), |needs| (Some(needs.rule), needs.paths));
    let tool = record.tool().unwrap_or_default().to_owned();
    Indeterminate { line, tool, caller: caller(|identity| record.identity(identity)), rule, needs, counter: None }
}

/// Names the caller by the first identity that is present.
pub(super) fn caller<'a>(identity: impl Fn(Identity) -> Option<&'a str>) -> String {
    let order = [Identity::Grant, Identity::Agent, Identity::User, Identity::Session];
    let known = order.into_iter().find_map(|which| Some((which, identity(which)?)));
    known.map_or_else(|| "nobody".to_owned(), |(which, name)| format!("{} {name}", which.as_str()))
}
