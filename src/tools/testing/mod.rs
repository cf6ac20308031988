//! Tests of a policy, written by the host.
//!
//! Cases are JSON: [steps](crate::trace), each with the members that its answer must have. One call
//! of [`run`] in a test of the host runs them all. It reports the failing step, its answer and its
//! rule for each case that fails, and the rules, entries and limits of the policy that the cases do
//! not [exercise](Coverage). Cases can also be written in Rust, as a [`Suite`] of [`Case`]s. The
//! cases set the time, so a test never waits.
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
//! An answer must have every member of `expect`, with that value. Lists must have the same length,
//! and numbers compare by value. A step without `expect` must be readable, but may have any answer:
//! a step that names an unknown call is answered `unknown_call`, so expect `{ "ok": true }` if it
//! has to succeed. A case with a `policy` of its own runs under that policy.
//!
//! A case of a `document` (a text) and `issues` (each with a `pointer` and an optional `code`)
//! passes if the document is refused with at least these issues. Unknown and duplicate members of
//! cases, steps and expectations are errors.

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

/// Runs all cases under a policy, both given as JSON texts, and returns the coverage of the policy.
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
/// The policy is invalid, the cases cannot be read, or a case fails.
pub fn run(policy: &str, cases: &str) -> Result<Coverage, TestError> {
    Suite::new(policy)?.cases(cases)?.run()
}

/// A policy under test, and its cases.
#[must_use = "a suite does nothing until it is run"]
pub struct Suite<'a> {
    policy: Option<Policy>,
    cases: Vec<Case>,
    approvals: Box<dyn Fn() -> Arc<dyn ApprovalStore> + 'a>,
}

impl<'a> Suite<'a> {
    /// Creates a suite without cases for a policy, given as JSON text.
    ///
    /// # Errors
    /// The policy is invalid.
    pub fn new(policy: &str) -> Result<Self, TestError> {
        Ok(Self::of(Policy::from_json(policy)?))
    }

    /// Creates a suite without cases for a policy. With `None`, each case needs its own policy.
    pub fn of(policy: impl Into<Option<Policy>>) -> Self {
        Self { policy: policy.into(), cases: Vec::new(), approvals: Box::new(|| Arc::new(MemoryApprovals::new())) }
    }

    /// Adds all cases of a JSON text.
    ///
    /// # Errors
    /// The text cannot be read, or it has no cases.
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

    /// Keeps the approvals of each case in a store from this function. The default is
    /// [`MemoryApprovals`].
    pub fn approvals(self, store: impl Fn() -> Arc<dyn ApprovalStore> + 'a) -> Self {
        Self { approvals: Box::new(store), ..self }
    }

    /// Runs all cases, each with its own counters, and returns the coverage of the policy.
    ///
    /// # Errors
    /// Two cases have the same id, or a case fails. A case ends at the first step whose answer does
    /// not meet its expectation.
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
    /// Returns the id of the case.
    pub fn case(&self) -> &str {
        &self.case
    }

    /// Returns the number of the failing step, from 1, or `None` if it fails before the first.
    pub fn step(&self) -> Option<usize> {
        self.step
    }
}

/// Writes the case, the step, the unmet expectations and the whole answer.
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

/// The reason why cases do not pass.
///
/// [`Debug`](fmt::Debug) is the same text as [`Display`](fmt::Display), because a test that returns
/// or unwraps the error prints `Debug`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// The policy is invalid.
    #[error("the policy cannot be read:\n{0}")]
    Policy(#[from] PolicyError),
    /// The cases cannot be read.
    #[error("the cases cannot be read: {0}")]
    Cases(String),
    /// Some cases fail.
    #[error("{} of {cases} cases fail{}", failures.len(), Listed(failures))]
    Failed {
        /// The number of cases that were run.
        cases: usize,
        /// The cases that fail.
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
