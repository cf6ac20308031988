//! What a call would be charged, and how the limits stand.

use std::time::Duration;

use serde::Serialize;

use super::change::Change;
use super::{Explanation, Outcome, Step, StepKind};
use crate::amount::{Amount, Total};
use crate::call::ToolCall;
use crate::call::path::{Facts, Path};
use crate::policy::limit::{Algorithm, Cost, Limit, Scope, ScopePart, Window};
use crate::policy::operator::Takes;
use crate::policy::plan::{LimitRef, Plan};
use crate::policy::{Code, Policy};
use crate::time::Timestamp;

/// What one limit says of the call.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    standing: Option<Standing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
    /// Which of the plan's limits it is.
    #[serde(skip)]
    place: Option<usize>,
}

/// How a limit stands in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    pub(crate) used: Total,
    pub(crate) remaining: Amount,
    pub(crate) resets_at: Timestamp,
}

impl Limited {
    /// Its place in the document.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The name of its counter.
    pub fn counter(&self) -> &str {
        &self.counter
    }

    /// The most that it lets pass in a window.
    pub fn max(&self) -> Amount {
        self.max
    }

    /// Whether it counts and never refuses.
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// What becomes of the call by it; unknown where the counters were not asked.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why it stops the call.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// What the call would be charged in its counter; nothing where it cannot count the call. Of several limits of one counter it
    /// is the largest amount.
    pub fn charge(&self) -> Option<Amount> {
        self.charge
    }

    /// What its counter holds, if that was asked.
    pub fn used(&self) -> Option<Total> {
        self.standing.map(|standing| standing.used)
    }

    /// What it has left, if that was asked.
    pub fn remaining(&self) -> Option<Amount> {
        self.standing.map(|standing| standing.remaining)
    }

    /// When its counter holds nothing any more if nothing else is charged, if that was asked.
    pub fn resets_at(&self) -> Option<Timestamp> {
        self.standing.map(|standing| standing.resets_at)
    }

    /// For a limit that stops the call: changes of which each makes it let the call pass.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// `calls: 1 of 60 in each minute for each grant`, for a terminal.
    pub(super) fn words(&self) -> String {
        let scope = self.scope.join(", ");
        let charge = self.charge.map_or_else(|| "?".to_owned(), |charge| charge.to_string());
        let window = if self.window == "in_flight" { "at once".to_owned() } else { format!("in each {}", self.window) };
        let left = self.standing.map_or_else(String::new, |standing| {
            format!("; {} used, {} left, until {}", standing.used, standing.remaining, standing.resets_at)
        });
        format!("{}: {charge} of {} {window} for each {scope}{left}", self.counter, self.max)
    }
}

/// The limits of a call in document order, with the plan of those that can count it.
pub(super) fn limits(
    policy: &Policy,
    call: &ToolCall<'_>,
    now: Timestamp,
    places: &[LimitRef],
) -> (Vec<Limited>, Plan) {
    let facts = Facts::new(call, now);
    let mut plan = Plan::default();
    let mut all = Vec::new();
    for found in places {
        let Some(limit) = policy.limit(*found) else { continue };
        let added = plan.add(policy, *found, limit, &facts);
        let place = added.is_ok().then(|| plan.limits.len() - 1);
        let code = added.err().filter(|_| !limit.shadow);
        let changes = code.map_or_else(Vec::new, |code| countable(policy, call, now, (*found, limit), code));
        let limited = Limited {
            pointer: policy.limit_pointer(*found),
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
            standing: None,
            changes,
            place,
        };
        all.push(limited);
    }
    for limited in &mut all {
        let Some(found) = limited.place.and_then(|place| plan.limits.get(place)).copied() else {
            if limited.shadow {
                limited.outcome = Outcome::Passes;
            }
            continue;
        };
        let (Some(limit), Some(charge)) = (policy.limit(found), plan.charges.get(found.charge())) else { continue };
        limited.charge = Some(charge.amount);
        if limit.shadow {
            limited.outcome = Outcome::Passes;
        } else if !Total::ZERO.has_room(charge.amount, limit.room()) {
            // Whatever the counter holds.
            (limited.outcome, limited.code) = (Outcome::Stops, Some(Code::Limit));
            if is_alone(&plan, found) {
                limited.changes = within(limit, limit.room(), call, now);
            }
        }
    }
    (all, plan)
}

/// Changes after which a limit can count the call.
fn countable(
    policy: &Policy,
    call: &ToolCall<'_>,
    now: Timestamp,
    (found, limit): (LimitRef, &Limit),
    code: Code,
) -> Vec<Change> {
    let change = match (&limit.cost, code) {
        (Cost::From(path), Code::AmountInvalid) => {
            Change::of_value(path, Takes::Type, "number".into(), serde_json::Value::from(1))
        }
        _ => match missing(&limit.scope, call, now) {
            Some(path) => Change::of_value(&path, Takes::Exists, true.into(), "x".into()),
            None => return Vec::new(),
        },
    };
    let changed = change.apply(call, now);
    let counts = |code: &Code| *code != Code::ScopeMissing && *code != Code::AmountInvalid;
    let call = changed.call();
    let result = Plan::default().add(policy, found, limit, &Facts::new(&call, changed.at()));
    match result {
        Ok(()) => vec![change],
        Err(code) if counts(&code) => vec![change],
        Err(_) => Vec::new(),
    }
}

/// The first part of a scope that the call lacks.
fn missing(scope: &Scope, call: &ToolCall<'_>, now: Timestamp) -> Option<Path> {
    let facts = Facts::new(call, now);
    scope.parts.iter().find_map(|part| match part {
        ScopePart::Global => None,
        ScopePart::Identity(identity) if call.identity(*identity).is_some() => None,
        ScopePart::Identity(identity) => Path::parse(&format!("call.{}", identity.as_str())).ok(),
        ScopePart::Path(path) => match path.resolve(&facts) {
            crate::call::path::Found::Value(
                crate::call::path::Datum::Text(_) | crate::call::path::Datum::Number(_),
            ) => None,
            _ => Some(path.clone()),
        },
    })
}

/// Whether no other limit charges its counter.
fn is_alone(plan: &Plan, found: LimitRef) -> bool {
    plan.limits.iter().filter(|other| other.charge() == found.charge()).count() == 1
}

/// A smaller amount, if the call says its amount itself and the limit lets any pass.
fn within(limit: &Limit, room: Amount, call: &ToolCall<'_>, now: Timestamp) -> Vec<Change> {
    let Cost::From(path) = &limit.cost else { return Vec::new() };
    // Another amount would be another subject, of whom nothing is known.
    if limit.scope.parts.iter().any(|part| matches!(part, ScopePart::Path(part) if part == path)) {
        return Vec::new();
    }
    let number = serde_json::from_str::<serde_json::Value>(&room.to_string()).ok();
    let Some(number) = number.filter(|_| room > Amount::ZERO && limit.max > Amount::ZERO) else { return Vec::new() };
    let change = Change::of_value(path, Takes::LessOrEqual, number.clone(), number);
    let changed = change.apply(call, now);
    let call = changed.call();
    let facts = Facts::new(&call, changed.at());
    let fits = crate::policy::plan::amount(limit, &facts).is_some_and(|amount| Total::ZERO.has_room(amount, room));
    if fits { vec![change] } else { Vec::new() }
}

impl Explanation {
    /// How the limits stand in a store: `standing` gives, for a limit of the plan, how it stands and, where it has no room, how
    /// long to wait until it has.
    pub(crate) fn stand(
        &mut self,
        policy: &Policy,
        plan: &Plan,
        call: &ToolCall<'_>,
        mut standing: impl FnMut(LimitRef) -> Option<(Standing, bool, Option<Duration>)>,
    ) {
        let now = self.at;
        let Some(step) = self.steps.iter_mut().find(|step| step.kind == StepKind::Limits) else { return };
        for limited in &mut step.limits {
            let Some(found) = limited.place.and_then(|place| plan.limits.get(place)).copied() else { continue };
            let (Some(limit), Some((stands, has_room, wait))) = (policy.limit(found), standing(found)) else {
                continue;
            };
            limited.standing = Some(stands);
            if limited.shadow || limited.code == Some(Code::Limit) {
                continue;
            }
            limited.outcome = if has_room { Outcome::Passes } else { Outcome::Stops };
            if !has_room {
                limited.code = Some(Code::Limit);
                if is_alone(plan, found) {
                    limited.changes = within(limit, stands.remaining, call, now);
                }
                limited.changes.extend(wait.map(Change::of_wait));
            }
        }
        step.conclude();
    }
}

impl Step {
    /// What all limits together come to: a scope that is missing goes before an amount, and both before a lack of room.
    pub(super) fn conclude(&mut self) {
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
