//! What the fuzz targets judge the crate by: small, slow and written by another hand.

pub mod canonical;
pub mod strict;
pub mod tape;

use serde_json::{Value, json};
use toolgate::{Policy, Timestamp, ToolCall};

/// The three values of one condition on `args.x`, as a `require` and a `deny_if` tell them apart; nothing where the policy is
/// refused. Beside it, the policy, for other questions.
pub fn policy_of(condition: &Value) -> Option<Policy> {
    let rule = json!([{ "conditions": [condition] }]);
    let tools = json!({ "holds": { "require": rule }, "fails": { "deny_if": rule } });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).ok()
}

/// Whether the condition of [`policy_of`] is true of a text; nothing where it is undecidable.
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
