//! What a trace is answered, and what it came to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::decision::Decision;
use crate::decision::limit_state::LimitState;

/// What a trace answers to a line. It is written as one JSON object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Answer {
    /// To a call.
    Decided {
        /// The call's id.
        id: String,
        /// `allow`, `deny`, `rate_limited` or `approval_required`.
        decision: &'static str,
        /// Why it is stopped.
        code: Option<&'static str>,
        /// The rule that stops it.
        rule: Option<String>,
        /// What the agent is told.
        message: Option<String>,
        /// How long it has to wait: a number of seconds with at most three decimals.
        retry_after: Option<Value>,
        /// How the limits stand after the decision.
        limits: Vec<LimitState>,
    },
    /// To a list of tools.
    Tools {
        /// The step's id.
        id: String,
        /// The names of the tools that stay.
        tools: Vec<String>,
    },
    /// To what was done.
    Done {
        /// The step's id.
        id: String,
        /// Always `true`.
        ok: bool,
    },
    /// To what could not be done.
    Failed {
        /// The step's id.
        id: String,
        /// `unknown_call`, `already_done`, `not_pending`, `not_an_approver`, `policy_invalid`, `not_a_call`, `amount_invalid`,
        /// `store_unavailable` or `unreadable`.
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

/// What a trace has come to.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many lines were no blank ones.
    pub steps: usize,
    /// How many calls were decided.
    pub calls: usize,
    /// How many lines could not be read.
    pub unreadable: usize,
    /// How many calls were decided so.
    pub by_decision: BTreeMap<&'static str, usize>,
    /// How many calls were stopped by this code and rule.
    pub by_rule: BTreeMap<(String, String), usize>,
    /// By counter: the fullest that it has been, and how many calls it has counted.
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
