//! Engines that decide the same calls, each in its own idiom, and checks that their decisions
//! agree.
//!
//! A decision begins with the data that a gateway has, the tool's name and the arguments as a
//! `serde_json::Value`, and ends with a `bool`. An engine receives only as much of a call as its
//! policy reads: if no rule reads arguments, none are converted. Everything that can be prepared
//! when a policy is loaded is prepared then.

pub(crate) mod by_hand;
pub(crate) mod casbin;
pub(crate) mod cedar;
pub(crate) mod cel;
pub(crate) mod regorus;

use std::hint::black_box;

use serde_json::{Value, json};

use crate::limiters::Checks;
use crate::race::{Contender, ContenderFactory};
use crate::workload::{self, CHARGE, ENTRIES};

/// The number of callers where calls are counted.
pub(crate) const CALLERS: usize = 1_000;

/// The rules of a policy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// W1: allows this many names, and nothing else.
    Names(usize),
    /// W2: W1, and one tool with four conditions on its arguments.
    Conditions,
}

impl Rules {
    /// Returns the names of the tools that are allowed with any arguments.
    pub(crate) fn bare(self) -> impl Iterator<Item = String> {
        let count = match self {
            Self::Names(entries) => entries,
            Self::Conditions => ENTRIES - 1,
        };
        (0..count).map(workload::tool_name)
    }

    pub(crate) fn has_conditions(self) -> bool {
        self == Self::Conditions
    }
}

/// A policy engine.
pub(crate) trait Engine: Sized + 'static {
    const NAME: &'static str;

    /// The policy, in the form that a user of the engine writes.
    type Text: 'static;

    fn write(rules: Rules) -> Self::Text;

    fn load(text: &Self::Text) -> Self;

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool;
}

/// Policy texts whose size is measured.
pub(crate) trait TextSize {
    fn bytes(&self) -> usize;
}

/// Makes contenders that decide W1 for one name after another.
pub(crate) fn with_names<E: Engine>(entries: usize, allowed: bool) -> ContenderFactory {
    ContenderFactory::new(E::NAME, move || {
        let mut engine = E::load(&E::write(Rules::Names(entries)));
        let mut names = workload::names(entries, if allowed { workload::tool_name } else { workload::unknown_name });
        let arguments = workload::arguments();
        Contender::new(E::NAME, move || {
            assert_eq!(engine.allows(black_box(names.next()), black_box(&arguments)), allowed);
        })
    })
}

/// Makes contenders that decide W2 for the tool that has conditions.
pub(crate) fn with_conditions<E: Engine>(allowed: bool) -> ContenderFactory {
    ContenderFactory::new(E::NAME, move || {
        let mut engine = E::load(&E::write(Rules::Conditions));
        let arguments = workload::charge_arguments(allowed);
        Contender::new(E::NAME, move || {
            assert_eq!(engine.allows(black_box(CHARGE), black_box(&arguments)), allowed);
        })
    })
}

/// Makes contenders that decide W1, and run one check of `governor` in place of a limit.
pub(crate) fn with_one_limit<E: Engine>() -> ContenderFactory {
    ContenderFactory::new(E::NAME, move || {
        let mut engine = E::load(&E::write(Rules::Names(ENTRIES)));
        let mut names = workload::names(ENTRIES, workload::tool_name);
        let arguments = workload::arguments();
        let checks = Checks::new(CALLERS);
        let mut callers = checks.ring();
        Contender::new(E::NAME, move || {
            assert!(engine.allows(black_box(names.next()), black_box(&arguments)));
            checks.one(callers.next());
        })
    })
}

/// Panics unless the engine allows every name of W1, and denies as many other names.
pub(crate) fn check_names<E: Engine>() {
    let mut engine = E::load(&E::write(Rules::Names(ENTRIES)));
    let arguments = workload::arguments();
    for index in 0..ENTRIES {
        let (known, unknown) = (workload::tool_name(index), workload::unknown_name(index));
        assert!(engine.allows(&known, &arguments), "{} denies {known}", E::NAME);
        assert!(!engine.allows(&unknown, &arguments), "{} allows {unknown}", E::NAME);
    }
}

/// Panics unless the engine allows calls that violate no condition of W2, and denies calls that
/// violate one.
pub(crate) fn check_conditions<E: Engine>() {
    let arguments = workload::arguments();
    let mut engine = E::load(&E::write(Rules::Conditions));
    for (name, allowed) in [(workload::tool_name(7), true), (workload::unknown_name(7), false)] {
        assert_eq!(engine.allows(&name, &arguments), allowed, "{} on {name}", E::NAME);
    }
    let long = "x".repeat(201);
    for (name, value, allowed) in [
        ("amount", json!(50_000), true),
        ("amount", json!(50_001), false),
        ("amount", Value::Null, false),
        ("currency", json!("usd"), true),
        ("currency", json!("gbp"), false),
        ("currency", Value::Null, false),
        ("reason", Value::Null, false),
        ("description", json!("x"), true),
        ("description", json!(""), false),
        ("description", json!(long), false),
        ("description", json!("a\nb"), false),
        ("description", Value::Null, false),
        ("customer", Value::Null, true),
    ] {
        let mut arguments = workload::charge_arguments(true);
        match value {
            Value::Null => drop(arguments.as_object_mut().unwrap().remove(name)),
            ref value => arguments[name] = value.clone(),
        }
        assert_eq!(engine.allows(CHARGE, &arguments), allowed, "{} on {name}: {value}", E::NAME);
    }
    for allowed in [true, false] {
        assert_eq!(engine.allows(CHARGE, &workload::charge_arguments(allowed)), allowed, "{}", E::NAME);
    }
}
