//! The coverage of a policy by its cases.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::places::Place as PolicyPlace;
use crate::call::ToolCall;
use crate::decision::Decision;
use crate::policy::Policy;

/// The coverage of the policy under test, place by place.
///
/// An entry is exercised if it matches a call; a rule, an `action` or a limit if it stops one; a
/// limit with `"shadow": true` if it counts one. A rule that a hundred calls reach but that stops
/// none is not exercised: if it were removed, every case would still pass. `hide` and `default` are
/// not places.
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
    /// `true` if it must stop a call to be exercised.
    #[serde(skip)]
    can_stop: bool,
}

impl Place {
    /// Returns its JSON Pointer in the document, such as `/tools/create_charge` or
    /// `/tools/create_charge/deny_if/0`.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Returns the number of calls that reached it: that the entry matched, or on which the rule or
    /// limit was evaluated.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// Returns the number of calls that it stopped.
    pub fn stopped(&self) -> u64 {
        self.stopped
    }

    /// Returns `true` if a case exercises it.
    pub fn is_exercised(&self) -> bool {
        if self.can_stop { self.stopped > 0 } else { self.reached > 0 }
    }
}

/// Writes a line such as `/tools/x/deny_if/0: reached by 3 calls, stopped none`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pointer, reached, stopped, can_stop } = self;
        match (reached, stopped, can_stop) {
            (0, ..) => write!(f, "{pointer}: reached by no call"),
            (_, 0, true) => write!(f, "{pointer}: reached by {reached} calls, stopped none"),
            (_, _, true) => write!(f, "{pointer}: reached by {reached} calls, stopped {stopped}"),
            (_, _, false) => write!(f, "{pointer}: reached by {reached} calls"),
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

    /// Records a call that was decided under the policy.
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

    /// Returns the number of cases that were run.
    pub fn cases(&self) -> usize {
        self.cases
    }

    /// Returns the number of calls that the policy under test decided.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Returns all places of the policy, in document order. `all_tools` comes last.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Returns the places that the cases do not exercise.
    pub fn unexercised(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| !place.is_exercised())
    }

    /// Returns `true` if the cases exercise every place.
    pub fn is_complete(&self) -> bool {
        self.unexercised().next().is_none()
    }
}

/// Writes the totals, and a line for each place that is not exercised.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, missing) = (self.places.len(), self.unexercised().count());
        let exercised = all - missing;
        write!(f, "{} cases, {} calls: {exercised} of {all} places of the policy exercised", self.cases, self.calls)?;
        self.unexercised().try_for_each(|place| write!(f, "\n  {place}"))
    }
}
