//! Engines that decide the same calls, each in its own idiom, and the proof that they decide them alike.
//!
//! A decision begins with what a gateway has in its hands, the tool's name and the arguments as a `serde_json::Value`, and
//! ends with a `bool`. An engine is given no more of a call than its policy asks for: where no rule asks for arguments,
//! none are converted. What can be made once, at loading, is made once.

pub(crate) mod by_hand;
pub(crate) mod casbin;
pub(crate) mod cedar;
pub(crate) mod cel;
pub(crate) mod regorus;

use std::hint::black_box;

use serde_json::{Value, json};

use crate::limiters::Checks;
use crate::race::{Contender, Entrant};
use crate::workload::{self, CHARGE, ENTRIES};

/// How many there are where calls are counted.
pub(crate) const CALLERS: usize = 1_000;

/// What a policy says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// W1: so many names, and nothing else is allowed.
    Names(usize),
    /// W2: W1, and one tool with four conditions on its arguments.
    Conditions,
}

impl Rules {
    /// The tools that are allowed whatever their arguments are.
    pub(crate) fn bare(self) -> impl Iterator<Item = String> {
        let many = match self {
            Self::Names(entries) => entries,
            Self::Conditions => ENTRIES - 1,
        };
        (0..many).map(workload::tool_name)
    }

    pub(crate) fn has_conditions(self) -> bool {
        self == Self::Conditions
    }
}

/// One that reads a policy and decides calls.
pub(crate) trait Engine: Sized + 'static {
    const NAME: &'static str;

    /// What it reads: the texts that somebody who uses it would write.
    type Text: 'static;

    fn write(rules: Rules) -> Self::Text;

    fn read(text: &Self::Text) -> Self;

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool;
}

/// Texts that have a size.
pub(crate) trait Written {
    fn bytes(&self) -> usize;
}

/// W1, asked for one name after another.
pub(crate) fn of_names<E: Engine>(entries: usize, allowed: bool) -> Entrant {
    Entrant::new(E::NAME, move || {
        let mut engine = E::read(&E::write(Rules::Names(entries)));
        let mut names = workload::names(entries, if allowed { workload::tool_name } else { workload::unknown_name });
        let arguments = workload::arguments();
        Contender::new(E::NAME, move || {
            assert_eq!(engine.allows(black_box(names.next()), black_box(&arguments)), allowed);
        })
    })
}

/// W2, asked for the tool that has conditions.
pub(crate) fn of_conditions<E: Engine>(allowed: bool) -> Entrant {
    Entrant::new(E::NAME, move || {
        let mut engine = E::read(&E::write(Rules::Conditions));
        let arguments = workload::charge_arguments(allowed);
        Contender::new(E::NAME, move || {
            assert_eq!(engine.allows(black_box(CHARGE), black_box(&arguments)), allowed);
        })
    })
}

/// W1 and one limit: toolgate counts itself, the others have one check of `governor`.
pub(crate) fn of_one_limit<E: Engine>() -> Entrant {
    Entrant::new(E::NAME, move || {
        let mut engine = E::read(&E::write(Rules::Names(ENTRIES)));
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

/// Fails unless the engine decides W1 as it says: every name that it has, and as many that it does not have.
pub(crate) fn agrees_on_names<E: Engine>() {
    let mut engine = E::read(&E::write(Rules::Names(ENTRIES)));
    let arguments = workload::arguments();
    for index in 0..ENTRIES {
        let (known, unknown) = (workload::tool_name(index), workload::unknown_name(index));
        assert!(engine.allows(&known, &arguments), "{} denies {known}", E::NAME);
        assert!(!engine.allows(&unknown, &arguments), "{} allows {unknown}", E::NAME);
    }
}

/// Fails unless the engine decides W2 as it says: calls that break no condition, and calls that break one of them.
pub(crate) fn agrees_on_conditions<E: Engine>() {
    let arguments = workload::arguments();
    let mut engine = E::read(&E::write(Rules::Conditions));
    for (name, allowed) in [(workload::tool_name(7), true), (workload::unknown_name(7), false)] {
        assert_eq!(engine.allows(&name, &arguments), allowed, "{} on {name}", E::NAME);
    }
    let long = "x".repeat(201);
    for (change, value, allowed) in [
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
            Value::Null => drop(arguments.as_object_mut().unwrap().remove(change)),
            ref value => arguments[change] = value.clone(),
        }
        assert_eq!(engine.allows(CHARGE, &arguments), allowed, "{} on {change}: {value}", E::NAME);
    }
    for allowed in [true, false] {
        assert_eq!(engine.allows(CHARGE, &workload::charge_arguments(allowed)), allowed, "{}", E::NAME);
    }
}
