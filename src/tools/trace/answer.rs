//! The answers to a trace, and its summary.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::decision::Decision;
use crate::decision::limit_state::LimitState;

/// The answer to a line of a trace. Serializes as one JSON object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Answer {
    /// The answer to a call.
    Decided {
        /// The call's id.
        id: String,
        /// `allow`, `deny`, `rate_limited` or `approval_required`.
        decision: &'static str,
        /// The code of the refusal.
        code: Option<&'static str>,
        /// The rule that refuses the call.
        rule: Option<String>,
        /// The message for the agent.
        message: Option<String>,
        /// The wait before a retry, in seconds with at most three decimals.
        retry_after: Option<Value>,
        /// The state of the limits after the decision.
        limits: Vec<LimitState>,
    },
    /// The answer to a list of tools.
    Tools {
        /// The step's id.
        id: String,
        /// The names of the tools that remain.
        tools: Vec<String>,
    },
    /// The answer to another step that succeeds.
    Done {
        /// The step's id.
        id: String,
        /// Always `true`.
        ok: bool,
    },
    /// The answer to a step that fails.
    Failed {
        /// The step's id.
        id: String,
        /// `unknown_call`, `already_done`, `not_pending`, `not_an_approver`, `policy_invalid`,
        /// `not_a_call`, `amount_invalid`, `store_unavailable` or `unreadable`.
        error: &'static str,
    },
}

/// Seconds with at most three decimals.
pub(super) fn seconds(wait: Duration) -> Value {
    let millis = wait.as_millis();
    match u64::try_from(millis / 1000) {
        Ok(seconds) if millis.is_multiple_of(1000) => Value::from(seconds),
        _ => Value::from(wait.as_secs_f64()),
    }
}

/// The totals of a trace.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Summary {
    /// The number of lines that are not blank.
    pub steps: usize,
    /// The number of calls that were decided.
    pub calls: usize,
    /// The number of lines that could not be read.
    pub unreadable: usize,
    /// The number of calls by decision.
    pub by_decision: BTreeMap<&'static str, usize>,
    /// The number of refused calls by code and rule.
    pub by_rule: BTreeMap<(String, String), usize>,
    /// For each counter: its fullest state, and the number of calls that it has counted.
    pub counters: BTreeMap<String, (LimitState, usize)>,
}

impl Summary {
    pub(super) fn count(&mut self, decision: &Decision) {
        self.calls += 1;
        *self.by_decision.entry(decision.as_str()).or_default() += 1;
        if let Some(code) = decision.code() {
            let rule = decision.rule().unwrap_or_default().to_owned();
            *self.by_rule.entry((code.to_string(), rule)).or_default() += 1;
        }
        for state in decision.limits() {
            let counted = usize::from(decision.is_allowed());
            let name = state.counter().to_owned();
            self.counters
                .entry(name)
                .and_modify(|(peak, calls)| {
                    *calls += counted;
                    if state.used() >= peak.used() {
                        *peak = state.clone();
                    }
                })
                .or_insert((state, counted));
        }
    }
}
