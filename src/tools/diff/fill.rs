//! Calls with chosen values in their slots.

use std::cmp::Reverse;

use serde_json::{Map, Value};

use super::slots::{Given, MAX_INDEX, Slot};
use crate::call::path::{Root, Step};
use crate::tools::explain::Witness;

/// A call with these values in these slots. A text in place of a container hides what would be inside, so such texts come
/// last, the outermost one at the end.
pub(super) fn call_with<'g>(tool: &str, given: impl Iterator<Item = (&'g Slot, &'g Given)>) -> Witness {
    let mut call = Witness::of_tool(tool);
    let mut wrong = Vec::new();
    for (slot, given) in given {
        if matches!(given, Given::Wrong) {
            wrong.push(slot);
        } else {
            put(&mut call, slot, given);
        }
    }
    wrong.sort_by_key(|slot| Reverse(slot.path.steps.len()));
    wrong.into_iter().for_each(|slot| put(&mut call, slot, &Given::Wrong));
    call
}

fn put(call: &mut Witness, slot: &Slot, given: &Given) {
    let (steps, given) = match given {
        Given::Absent => return,
        Given::At(now) => return call.set_time(*now),
        Given::Wrong => match slot.path.steps.split_last() {
            Some((_, steps)) if !steps.is_empty() => (steps, &Given::Value(Value::String("x".to_owned()))),
            _ => return,
        },
        given => (&*slot.path.steps, given),
    };
    match (slot.path.root, given) {
        (Root::Identity(identity), Given::Value(Value::String(name))) => {
            call.set_identity(identity, Some(name.clone()))
        }
        (root, given) => {
            let Some(object) = call.object_mut(root) else { return };
            set(object, steps, given);
            // No call has anything else at its root.
            if !object.is_object() {
                *object = Value::Object(Map::new());
            }
        }
    }
}

fn set(at: &mut Value, steps: &[Step], given: &Given) {
    let Some((step, rest)) = steps.split_first() else {
        if let Given::Value(value) = given {
            *at = value.clone();
        }
        return;
    };
    match step {
        Step::Name(name) => {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            if let Value::Object(members) = at {
                set(members.entry(&**name).or_insert(Value::Null), rest, given);
            }
        }
        Step::Index(index) => {
            if !at.is_array() {
                *at = Value::Array(Vec::new());
            }
            if let Value::Array(elements) = at {
                let index = (*index).min(MAX_INDEX);
                if elements.len() <= index {
                    elements.resize(index + 1, Value::Null);
                }
                if let Some(element) = elements.get_mut(index) {
                    set(element, rest, given);
                }
            }
        }
        Step::Each => {
            let Given::Each(values) = given else { return };
            if let Value::Object(members) = at {
                for (index, value) in values.iter().enumerate() {
                    let member = members.entry(format!("k{index}")).or_insert(Value::Null);
                    set(member, rest, &Given::Value(value.clone()));
                }
                return;
            }
            if !at.is_array() {
                *at = Value::Array(Vec::new());
            }
            if let Value::Array(elements) = at {
                elements.resize(values.len(), Value::Null);
                for (element, value) in elements.iter_mut().zip(values) {
                    set(element, rest, &Given::Value(value.clone()));
                }
            }
        }
    }
}
