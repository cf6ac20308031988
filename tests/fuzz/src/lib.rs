//! Independent models that the fuzz targets compare the crate with: small, slow and simple.

pub mod canonical;
pub mod strict;
pub mod tape;

use serde_json::{Value, json};
use toolgate::{Policy, Timestamp, ToolCall};

/// A policy that shows the three values of one condition on `args.x`, by a `require` and a
/// `deny_if`. Returns `None` if the policy is refused.
pub fn policy_of(condition: &Value) -> Option<Policy> {
    let rule = json!([{ "conditions": [condition] }]);
    let tools = json!({ "holds": { "require": rule }, "fails": { "deny_if": rule } });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).ok()
}

/// Returns the value of the condition of [`policy_of`] for a text, or `None` if it is undecidable.
pub fn truth(policy: &Policy, text: &str) -> Option<bool> {
    let arguments = json!({ "x": text });
    let allowed = |tool| policy.evaluate(&ToolCall::new(tool, &arguments), Timestamp::UNIX_EPOCH).is_allowed();
    match (allowed("holds"), allowed("fails")) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
        (true, true) => panic!("what holds also fails: {text:?}"),
    }
}
