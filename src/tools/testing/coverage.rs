//! What of a policy the cases have exercised.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::places::Place as PolicyPlace;
use crate::call::ToolCall;
use crate::decision::Decision;
use crate::policy::Policy;

/// What of the policy under test the cases have exercised, place by place.
///
/// An entry is exercised when it matches a call; a rule, an `action` or a limit when it stops one; a limit with `"shadow": true` when
/// it counts one. A rule that looks at a hundred calls and stops none might as well not be there: no case would notice.
/// What `hide` and `default` stop is no place.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    pub(super) cases: usize,
    calls: u64,
    places: Vec<Place>,
    #[serde(skip)]
    by_pointer: HashMap<Box<str>, usize>,
}

/// A place of the policy under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pointer: Box<str>,
    reached: u64,
    stopped: u64,
    /// Whether it must stop a call to be exercised.
    #[serde(skip)]
    can_stop: bool,
}

impl Place {
    /// Its JSON Pointer in the document: `/tools/create_charge`, `/tools/create_charge/deny_if/0`.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// How many calls it has looked at: those that the entry matches; those that the rule or limit was asked about.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// How many calls it has stopped.
    pub fn stopped(&self) -> u64 {
        self.stopped
    }

    /// Whether a case would notice if it were gone.
    pub fn is_exercised(&self) -> bool {
        if self.can_stop { self.stopped > 0 } else { self.reached > 0 }
    }
}

/// `/tools/x/deny_if/0: looked at 3 calls and stopped none`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pointer, reached, stopped, can_stop } = self;
        match (reached, stopped, can_stop) {
            (0, ..) => write!(f, "{pointer}: no call came to it"),
            (_, 0, true) => write!(f, "{pointer}: looked at {reached} calls and stopped none"),
            (_, _, true) => write!(f, "{pointer}: looked at {reached} calls and stopped {stopped}"),
            (_, _, false) => write!(f, "{pointer}: looked at {reached} calls"),
        }
    }
}

impl Coverage {
    pub(super) fn of(policy: &Policy) -> Self {
        let place = |place: PolicyPlace| {
            let (pointer, can_stop) = match place {
                PolicyPlace::Entry(pointer) | PolicyPlace::Shadow(pointer) => (pointer, false),
                PolicyPlace::Stop(pointer) => (pointer, true),
            };
            Place { pointer: pointer.into(), reached: 0, stopped: 0, can_stop }
        };
        let places: Vec<_> = policy.places().into_iter().map(place).collect();
        let by_pointer = places.iter().enumerate().map(|(index, place)| (place.pointer.clone(), index)).collect();
        Self { cases: 0, calls: 0, places, by_pointer }
    }

    /// Notes a call that was decided under the policy.
    pub(super) fn note(&mut self, policy: &Policy, call: &ToolCall<'_>, decision: &Decision) {
        self.calls += 1;
        for pointer in policy.reached(call, decision.code(), decision.rule()) {
            if let Some(place) = self.place(&pointer) {
                place.reached += 1;
            }
        }
        if let Some(place) = decision.rule().and_then(|rule| self.place(rule)) {
            place.stopped += 1;
        }
    }

    fn place(&mut self, pointer: &str) -> Option<&mut Place> {
        self.places.get_mut(*self.by_pointer.get(pointer)?)
    }

    /// How many cases were run.
    pub fn cases(&self) -> usize {
        self.cases
    }

    /// How many calls were decided under the policy under test.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// All places of the policy, in document order; `all_tools` comes last.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The places that no case has exercised.
    pub fn unexercised(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| !place.is_exercised())
    }

    /// Whether the cases have exercised every place.
    pub fn is_complete(&self) -> bool {
        self.unexercised().next().is_none()
    }
}

/// What was run, and a line for each place that was not exercised.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, missing) = (self.places.len(), self.unexercised().count());
        let exercised = all - missing;
        write!(f, "{} cases, {} calls: {exercised} of {all} places of the policy exercised", self.cases, self.calls)?;
        self.unexercised().try_for_each(|place| write!(f, "\n  {place}"))
    }
}
