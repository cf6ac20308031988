//! The charges of a call, and the states of its limits.

use std::time::Duration;

use serde::Serialize;

use super::change::Change;
use super::{Explanation, Outcome, Step, StepKind};
use crate::amount::{Amount, Total};
use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::call::path::{Datum, Facts, Found, Path};
use crate::policy::limit::{Algorithm, Cost, Limit, Scope, ScopePart, Window};
use crate::policy::operator::Takes;
use crate::policy::plan::{self, LimitRef, Plan};
use crate::policy::{Code, Policy};
use crate::time::Timestamp;

/// The outcome of a call under one limit.
#[derive(Debug, Clone, Serialize)]
pub struct Limited {
    pointer: String,
    counter: String,
    window: String,
    scope: Vec<String>,
    algorithm: &'static str,
    max: Amount,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shadow: bool,
    pub(super) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<Amount>,
    #[serde(rename = "standing", skip_serializing_if = "Option::is_none")]
    state: Option<CounterState>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
    /// The index in the plan, or `None` if the limit cannot count the call.
    #[serde(skip)]
    plan_index: Option<usize>,
}

/// The state of a limit's counter in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct CounterState {
    pub(crate) used: Total,
    pub(crate) remaining: Amount,
    pub(crate) resets_at: Option<Timestamp>,
}

impl Limited {
    /// Returns the JSON Pointer of the limit.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Returns the name of its counter.
    pub fn counter(&self) -> &str {
        &self.counter
    }

    /// Returns the largest amount that it lets pass in a window: its `max`, or the host's own for
    /// the caller if that is smaller.
    pub fn max(&self) -> Amount {
        self.max
    }

    /// Returns `true` for a limit that counts and never refuses.
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// Returns the outcome of the call under this limit. It is [`Unknown`](Outcome::Unknown) if it
    /// depends on the counter and the counter was not read.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the code if the limit stops the call.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// Returns the charge of the call to its counter, or `None` if the limit cannot count the call.
    /// If several limits share the counter, this is the largest of their amounts.
    pub fn charge(&self) -> Option<Amount> {
        self.charge
    }

    /// Returns what its counter holds, if the counter was read.
    pub fn used(&self) -> Option<Total> {
        self.state.map(|state| state.used)
    }

    /// Returns what the limit has left, if the counter was read.
    pub fn remaining(&self) -> Option<Amount> {
        self.state.map(|state| state.remaining)
    }

    /// Returns when its counter is empty if nothing else is charged, if the counter was read and is
    /// ever empty again.
    pub fn resets_at(&self) -> Option<Timestamp> {
        self.state.and_then(|state| state.resets_at)
    }

    /// Returns changes to the call after each of which this limit lets the call pass. Empty if the
    /// limit does not stop the call, or if no change was found.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Describes the limit for a terminal: `calls: 1 of 60 in each minute for each grant`.
    pub(super) fn summary(&self) -> String {
        let scope = self.scope.join(", ");
        let charge = self.charge.map_or_else(|| "?".to_owned(), |charge| charge.to_string());
        let window = match self.window.as_str() {
            "in_flight" => "at once".to_owned(),
            "lifetime" => "in all".to_owned(),
            window => format!("in each {window}"),
        };
        let left = self.state.map_or_else(String::new, |state| {
            let until = state.resets_at.map_or_else(|| "until a reset".to_owned(), |at| format!("until {at}"));
            format!("; {} used, {} left, {until}", state.used, state.remaining)
        });
        format!("{}: {charge} of {} {window} for each {scope}{left}", self.counter, self.max)
    }
}

/// Explains the limits of a call in document order, and returns the plan of the limits that can
/// count it.
pub(super) fn limits(
    policy: &Policy,
    call: &ToolCall<'_>,
    now: Timestamp,
    applying: &[LimitRef],
) -> (Vec<Limited>, Plan) {
    let facts = Facts::new(call, now);
    let mut plan = Plan::default();
    let mut all = Vec::new();
    for reference in applying {
        let Some(limit) = policy.limit(*reference) else { continue };
        let added = plan.add(policy, *reference, limit, &facts);
        let plan_index = added.is_ok().then(|| plan.limits.len() - 1);
        let code = added.err().filter(|_| !limit.shadow);
        let changes = code.map_or_else(Vec::new, |code| changes_to_count(policy, call, now, (*reference, limit), code));
        let limited = Limited {
            pointer: policy.limit_pointer(*reference),
            counter: limit.counter.to_string(),
            window: limit.window.canonical(),
            scope: limit.scope.parts.iter().map(ScopePart::canonical).collect(),
            algorithm: match (limit.window, limit.algorithm) {
                (Window::InFlight, _) | (_, Algorithm::InFlight { .. }) => "in_flight",
                (_, Algorithm::Fixed) => "fixed",
                (_, Algorithm::Sliding) => "sliding",
                (_, Algorithm::TokenBucket { .. }) => "token_bucket",
            },
            max: limit.max,
            shadow: limit.shadow,
            outcome: if code.is_some() { Outcome::Stops } else { Outcome::Unknown },
            code,
            charge: None,
            state: None,
            changes,
            plan_index,
        };
        all.push(limited);
    }
    for limited in &mut all {
        let Some(&reference) = limited.plan_index.and_then(|index| plan.limits.get(index)) else {
            if limited.shadow {
                limited.outcome = Outcome::Passes;
            }
            continue;
        };
        let (Some(limit), Some(charge)) = (policy.limit(reference), plan.charges.get(reference.charge())) else {
            continue;
        };
        limited.charge = Some(charge.amount);
        let (max, room) = limited.plan_index.map_or((limit.max, limit.room()), |index| plan.max_and_room(index, limit));
        limited.max = max;
        if limit.shadow {
            limited.outcome = Outcome::Passes;
        } else if !Total::ZERO.has_room(charge.amount, room) {
            // The charge does not fit even into an empty counter.
            (limited.outcome, limited.code) = (Outcome::Stops, Some(Code::Limit));
            if is_only_charge(&plan, reference) {
                limited.changes = reduce_amount(limit, room, call, now);
            }
        }
    }
    (all, plan)
}

/// Returns changes after which a limit can count the call.
fn changes_to_count(
    policy: &Policy,
    call: &ToolCall<'_>,
    now: Timestamp,
    (reference, limit): (LimitRef, &Limit),
    code: Code,
) -> Vec<Change> {
    let invalid = (code == Code::AmountInvalid).then(|| plan::invalid_amount(limit, call, now)).flatten();
    let change = match invalid {
        Some(invalid) => Change::of_value(invalid.path, Takes::Type, "number".into(), serde_json::Value::from(1)),
        None => match missing_scope_part(&limit.scope, call, now) {
            Some(path) => Change::of_value(&path, Takes::Exists, true.into(), "x".into()),
            None => return Vec::new(),
        },
    };
    let changed = change.apply(call, now);
    let call = changed.call();
    match Plan::default().add(policy, reference, limit, &Facts::new(&call, changed.at())) {
        Err(Code::ScopeMissing | Code::AmountInvalid) => Vec::new(),
        _ => vec![change],
    }
}

/// Returns the path of the first part of a scope that the call lacks.
fn missing_scope_part(scope: &Scope, call: &ToolCall<'_>, now: Timestamp) -> Option<Path> {
    let facts = Facts::new(call, now);
    scope.parts.iter().find_map(|part| match part {
        ScopePart::Global => None,
        ScopePart::Identity(identity) if call.identity(*identity).is_some() => None,
        // A caller without a session is counted by its grant.
        ScopePart::Identity(Identity::Session) if call.identity(Identity::Grant).is_some() => None,
        ScopePart::Identity(identity) => Path::parse(&format!("call.{}", identity.as_str())).ok(),
        ScopePart::Path(path) => match path.resolve(&facts) {
            Found::Value(Datum::Text(_) | Datum::Number(_)) => None,
            _ => Some(path.clone()),
        },
    })
}

/// Returns `true` if no other limit shares the charge.
fn is_only_charge(plan: &Plan, limit: LimitRef) -> bool {
    plan.limits.iter().filter(|other| other.charge() == limit.charge()).count() == 1
}

/// Returns a change to a smaller amount, if the amount comes from the call and the limit has room.
fn reduce_amount(limit: &Limit, room: Amount, call: &ToolCall<'_>, now: Timestamp) -> Vec<Change> {
    let Cost::From(path) = &limit.cost else { return Vec::new() };
    // If the scope contains the amount, another amount has another counter, whose state is unknown.
    if limit.scope.parts.iter().any(|part| matches!(part, ScopePart::Path(part) if part == path)) {
        return Vec::new();
    }
    let number = serde_json::from_str::<serde_json::Value>(&room.to_string()).ok();
    let Some(number) = number.filter(|_| room > Amount::ZERO && limit.max > Amount::ZERO) else { return Vec::new() };
    let change = Change::of_value(path, Takes::LessOrEqual, number.clone(), number);
    let changed = change.apply(call, now);
    let call = changed.call();
    let facts = Facts::new(&call, changed.at());
    let fits = plan::amount(limit, &facts).is_some_and(|amount| Total::ZERO.has_room(amount, room));
    if fits { vec![change] } else { Vec::new() }
}

impl Explanation {
    /// Adds the states of the limits. For a limit of the plan and its index, `state_of` returns the
    /// state of its counter, `true` if it has room for the call, and how long to wait if it has
    /// none.
    pub(crate) fn add_limit_states(
        &mut self,
        policy: &Policy,
        plan: &Plan,
        call: &ToolCall<'_>,
        mut state_of: impl FnMut(usize, LimitRef) -> Option<(CounterState, bool, Option<Duration>)>,
    ) {
        let now = self.at;
        let Some(step) = self.steps.iter_mut().find(|step| step.kind == StepKind::Limits) else { return };
        for limited in &mut step.limits {
            let Some(index) = limited.plan_index else { continue };
            let Some(&reference) = plan.limits.get(index) else { continue };
            let (Some(limit), Some((state, has_room, wait))) = (policy.limit(reference), state_of(index, reference))
            else {
                continue;
            };
            limited.state = Some(state);
            if limited.shadow || limited.code == Some(Code::Limit) {
                continue;
            }
            limited.outcome = if has_room { Outcome::Passes } else { Outcome::Stops };
            if !has_room {
                limited.code = Some(Code::Limit);
                if is_only_charge(plan, reference) {
                    limited.changes = reduce_amount(limit, state.remaining, call, now);
                }
                limited.changes.extend(wait.map(Change::of_wait));
            }
        }
        step.decide_by_limits();
    }
}

impl Step {
    /// Sets the outcome and the code of the step from its limits. A missing scope takes precedence
    /// over an invalid amount, and both over a lack of room.
    pub(super) fn decide_by_limits(&mut self) {
        let rank = |code: Code| match code {
            Code::ScopeMissing => 0,
            Code::AmountInvalid => 1,
            _ => 2,
        };
        let stops = self.limits.iter().filter(|limited| limited.outcome == Outcome::Stops);
        self.code = stops.filter_map(|limited| limited.code).min_by_key(|code| rank(*code));
        let known = self.limits.iter().all(|limited| limited.outcome == Outcome::Passes);
        self.outcome = match (self.code, known) {
            (Some(_), _) => Outcome::Stops,
            (None, true) => Outcome::Passes,
            (None, false) => Outcome::Unknown,
        };
    }
}
