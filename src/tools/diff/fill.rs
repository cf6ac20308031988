//! Builds calls from values for their slots.

use std::cmp::Reverse;

use serde_json::{Map, Value};

use super::slots::{MAX_INDEX, Slot, SlotValue, variant_of};
use crate::call::path::{Root, Step};
use crate::tools::explain::Witness;

/// Returns a call with these values in these slots. An unreachable slot replaces its container, and
/// all that the container holds, with a text: so these come last, the outermost one at the end. At
/// the top, it adds a member whose name differs in case.
pub(super) fn call_with<'v>(tool: &str, values: impl Iterator<Item = (&'v Slot, &'v SlotValue)>) -> Witness {
    let mut call = Witness::of_tool(tool);
    let mut unreachable = Vec::new();
    for (slot, value) in values {
        if matches!(value, SlotValue::Unreachable) {
            unreachable.push(slot);
        } else {
            fill(&mut call, slot, value);
        }
    }
    unreachable.sort_by_key(|slot| Reverse(slot.path.steps.len()));
    unreachable.into_iter().for_each(|slot| fill(&mut call, slot, &SlotValue::Unreachable));
    call
}

fn fill(call: &mut Witness, slot: &Slot, value: &SlotValue) {
    let (steps, value) = match value {
        SlotValue::Absent => return,
        SlotValue::Instant(now) => return call.set_time(*now),
        SlotValue::Unreachable => match slot.path.steps.split_last() {
            Some((_, steps)) if !steps.is_empty() => (steps, &SlotValue::Value(Value::String("x".to_owned()))),
            _ => {
                if let (Some(name), Some(Value::Object(members))) =
                    (variant_of(&slot.path), call.object_mut(slot.path.root))
                {
                    members.insert(name, Value::Null);
                }
                return;
            }
        },
        value => (&*slot.path.steps, value),
    };
    match (slot.path.root, value) {
        (Root::Identity(identity), SlotValue::Value(Value::String(name))) => {
            call.set_identity(identity, Some(name.clone()))
        }
        (Root::Task, SlotValue::Value(value)) => {
            call.edit(&slot.path, Some(value));
        }
        (root, value) => {
            let Some(object) = call.object_mut(root) else { return };
            set(object, steps, value);
            // The arguments and the context of a call are always objects.
            if !object.is_object() {
                *object = Value::Object(Map::new());
            }
        }
    }
}

/// Sets the value at a path. Replaces what is on the way and is not a container of the right type.
fn set(at: &mut Value, steps: &[Step], value: &SlotValue) {
    let Some((step, rest)) = steps.split_first() else {
        if let SlotValue::Value(value) = value {
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
                set(members.entry(&**name).or_insert(Value::Null), rest, value);
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
                    set(element, rest, value);
                }
            }
        }
        Step::EachMember => {
            let SlotValue::Elements(values) = value else { return };
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            if let Value::Object(members) = at {
                for (index, value) in values.iter().enumerate() {
                    let member = members.entry(format!("k{index}")).or_insert(Value::Null);
                    set(member, rest, &SlotValue::Value(value.clone()));
                }
            }
        }
        Step::Each => {
            let SlotValue::Elements(values) = value else { return };
            if !at.is_array() {
                *at = Value::Array(Vec::new());
            }
            if let Value::Array(elements) = at {
                elements.resize(values.len(), Value::Null);
                for (element, value) in elements.iter_mut().zip(values) {
                    set(element, rest, &SlotValue::Value(value.clone()));
                }
            }
        }
    }
}
