//! Parts of which the documents are made.

use std::sync::LazyLock;

use serde_json::{Value, json};

pub(super) static CONDITION: LazyLock<Value> =
    LazyLock::new(|| json!({ "path": "args.x", "op": "exists", "value": true }));

pub(super) fn policy(members: Value) -> Value {
    with(json!({ "version": "1", "default": "deny" }), members)
}

pub(super) fn entry(rules: Value) -> Value {
    policy(json!({ "tools": { "t": rules } }))
}

pub(super) fn all_tools(rules: Value) -> Value {
    policy(json!({ "all_tools": rules }))
}

pub(super) fn deny_if(rule: Value) -> Value {
    entry(json!({ "deny_if": [rule] }))
}

pub(super) fn when(condition: Value) -> Value {
    deny_if(json!({ "conditions": [condition] }))
}

pub(super) fn unless(condition: Value) -> Value {
    when(json!({ "not": condition }))
}

/// A limit of one call a minute for each grant, overridden by these members.
pub(super) fn limit(members: Value) -> Value {
    let limit = json!({ "counter": "c", "window": "minute", "max": 1, "scope": "grant" });
    entry(json!({ "limits": [with(limit, members)] }))
}

pub(super) fn rate_limit(members: Value) -> Value {
    entry(json!({ "rate_limit": with(json!({ "max": 1, "window": "minute" }), members) }))
}

pub(super) fn approval(terms: Value) -> Value {
    entry(json!({ "action": "require_approval", "approval": terms }))
}

pub(super) fn with(mut object: Value, members: Value) -> Value {
    if let (Value::Object(object), Value::Object(members)) = (&mut object, members) {
        object.extend(members);
    }
    object
}

pub(super) fn lacking(mut object: Value, key: &str) -> Value {
    object.as_object_mut().and_then(|object| object.remove(key)).expect("the key");
    object
}

pub(super) fn together(lists: &[&[Value]]) -> Value {
    lists.concat().into()
}

/// Splits a text at white space.
pub(super) fn texts(text: &str) -> Vec<Value> {
    text.split_whitespace().map(Value::from).collect()
}

pub(super) fn letters(count: usize) -> Value {
    "x".repeat(count).into()
}
