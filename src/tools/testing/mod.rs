//! Tests of a policy, as a host writes them.
//!
//! Cases stand beside the policy, in JSON: [steps](crate::trace), each with what its answer must hold. [`run`] runs them all, in
//! one call of a test of the host's own, says of each that fails which step was answered how and by which rule, and says
//! which rules, entries and limits of the policy no case has [exercised](Coverage). Or they are written in Rust: a [`Suite`] of
//! [`Case`]s. Time is in the cases, and nothing waits.
//!
//! ```json
//! [{
//!     "id": "spend-is-capped",
//!     "description": "a grant spends 1000 a day",
//!     "steps": [
//!         { "caller": { "grant": "g-42" } },
//!         { "call": { "tool": "pay", "arguments": { "amount": 600 } }, "expect": { "decision": "allow" } },
//!         { "call": { "tool": "pay", "arguments": { "amount": 600 } },
//!           "expect": { "decision": "rate_limited", "rule": "/tools/pay/limits/0" } },
//!         { "at": "2026-01-16T00:00:00Z", "call": { "tool": "pay", "arguments": { "amount": 600 } },
//!           "expect": { "decision": "allow" } }
//!     ]
//! }]
//! ```
//!
//! An answer must have every member of `expect`, with that value: lists have as many elements, numbers compare by value. A step
//! without `expect` must be one that can be read, whatever it is answered: a step that names a call wrongly is answered
//! `unknown_call`, so give it `{ "ok": true }` to hold. A case that has a `policy` of its own is run under that. A case of a
//! `document`, a text, and `issues`, of which each has a `pointer` and may have a `code`, passes if that document is refused with
//! at least those. What is misspelt is refused: unknown and double members of cases, steps and expectations.
//!
//! There is no feature to switch on: the crate's examples and its own tests stand on the same reader, it adds no dependency, and what
//! nobody calls is not linked.

mod case;
mod coverage;
mod places;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::approval::{ApprovalStore, MemoryApprovals};
use crate::json::object::Object;
use crate::policy::{Policy, PolicyError};
use crate::tools::trace::Runner;

pub use case::Case;
pub use coverage::{Coverage, Place};

/// Runs all cases under a policy, both as JSON texts, and says what of the policy they have exercised.
///
/// ```
/// use toolgate::testing::{self, TestError};
///
/// const POLICY: &str = r#"{ "version": "1", "default": "deny",
///     "tools": { "read_*": {}, "write_file": { "action": "deny" } } }"#;
/// const CASES: &str = r#"[{ "id": "reading", "steps": [
///     { "call": { "tool": "read_file" }, "expect": { "decision": "allow" } }
/// ]}]"#;
///
/// let coverage = testing::run(POLICY, CASES)?;
/// let missing: Vec<_> = coverage.unexercised().map(|place| place.pointer()).collect();
/// assert_eq!(missing, ["/tools/write_file", "/tools/write_file/action"]);
/// # Ok::<(), TestError>(())
/// ```
///
/// # Errors
/// The policy is none, the cases cannot be read, or some fail.
pub fn run(policy: &str, cases: &str) -> Result<Coverage, TestError> {
    Suite::new(policy)?.cases(cases)?.run()
}

/// Cases, and the policy that they test.
#[must_use = "a suite does nothing until it is run"]
pub struct Suite<'a> {
    policy: Option<Policy>,
    cases: Vec<Case>,
    approvals: Box<dyn Fn() -> Arc<dyn ApprovalStore> + 'a>,
}

impl<'a> Suite<'a> {
    /// No case yet, for a policy as JSON text.
    ///
    /// # Errors
    /// It is no policy.
    pub fn new(policy: &str) -> Result<Self, TestError> {
        Ok(Self::of(Policy::from_json(policy)?))
    }

    /// No case yet, for a policy; without one, each case has to bring its own.
    pub fn of(policy: impl Into<Option<Policy>>) -> Self {
        Self { policy: policy.into(), cases: Vec::new(), approvals: Box::new(|| Arc::new(MemoryApprovals::new())) }
    }

    /// Adds all cases of a JSON text.
    ///
    /// # Errors
    /// It cannot be read, holds no case, or two cases have one id.
    pub fn cases(mut self, text: &str) -> Result<Self, TestError> {
        let written: Vec<Object<case::Written>> =
            serde_json::from_str(text).map_err(|error| TestError::Cases(error.to_string()))?;
        if written.is_empty() {
            return Err(TestError::Cases("there are none".to_owned()));
        }
        for Object(case) in written {
            self.cases.push(Case::read(case).map_err(TestError::Cases)?);
        }
        Ok(self)
    }

    /// Adds a case.
    pub fn case(mut self, case: Case) -> Self {
        self.cases.push(case);
        self
    }

    /// Keeps the approvals of each case in a store that this gives; [in memory](MemoryApprovals) without it.
    pub fn approvals(self, store: impl Fn() -> Arc<dyn ApprovalStore> + 'a) -> Self {
        Self { approvals: Box::new(store), ..self }
    }

    /// Runs all cases, each with counters of its own, and says what of the policy they have exercised.
    ///
    /// # Errors
    /// Two cases have one id, or some fail: each at its first step that is not answered as it must be.
    pub fn run(&self) -> Result<Coverage, TestError> {
        let mut ids = HashSet::new();
        if let Some(twice) = self.cases.iter().find(|case| !ids.insert(case.id())) {
            return Err(TestError::Cases(format!("two cases have the id `{}`", twice.id())));
        }
        let empty = Policy::from_json(r#"{"version":"1","default":"deny"}"#);
        let under_test = self.policy.clone().map_or(empty, Ok)?;
        let coverage = Arc::new(Mutex::new(Coverage::of(&under_test)));
        let mut failures = Vec::new();
        for case in &self.cases {
            let runner = |policy: Policy| {
                let (coverage, under_test) = (Arc::clone(&coverage), under_test.clone());
                Runner::over(policy, (self.approvals)()).watch(move |call, policy, _, decision| {
                    if policy == Some(&under_test) {
                        coverage.lock().note(&under_test, call, decision);
                    }
                })
            };
            failures.extend(case.run(self.policy.as_ref(), runner).err());
        }
        if !failures.is_empty() {
            return Err(TestError::Failed { cases: self.cases.len(), failures });
        }
        let mut coverage = coverage.lock().clone();
        coverage.cases = self.cases.len();
        Ok(coverage)
    }
}

impl fmt::Debug for Suite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").field("policy", &self.policy).field("cases", &self.cases.len()).finish_non_exhaustive()
    }
}

/// A case that fails.
#[derive(Clone)]
pub struct Failure {
    case: String,
    description: String,
    step: Option<usize>,
    text: String,
}

impl Failure {
    /// The case's id.
    pub fn case(&self) -> &str {
        &self.case
    }

    /// Which of its steps, from 1; none where it fails before the first.
    pub fn step(&self) -> Option<usize> {
        self.step
    }
}

/// The case, the step as it was run, what was expected of its answer, and the whole answer.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.case)?;
        if !self.description.is_empty() {
            write!(f, " ({})", self.description)?;
        }
        if let Some(step) = self.step {
            write!(f, ", step {step}")?;
        }
        write!(f, ":{}", self.text)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why cases do not pass. It is readable in [`Debug`](fmt::Debug) too, which is what a test that returns it, or unwraps it, prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// The policy is none.
    #[error("the policy cannot be read:\n{0}")]
    Policy(#[from] PolicyError),
    /// The cases cannot be read.
    #[error("the cases cannot be read: {0}")]
    Cases(String),
    /// Some cases fail.
    #[error("{} of {cases} cases fail{}", failures.len(), Listed(failures))]
    Failed {
        /// How many cases were run.
        cases: usize,
        /// Those that fail.
        failures: Vec<Failure>,
    },
}

struct Listed<'f>(&'f [Failure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

impl fmt::Debug for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
