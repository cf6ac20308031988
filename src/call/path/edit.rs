//! Edits of values at paths, for the calls that explanations and findings try out.

use serde_json::{Map, Value};

use super::{Path, Root, Step, WrittenBy};
use crate::call::identity::Identity;

/// The root of a path, for edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Arguments,
    Context,
    Input,
    Tool,
    Task,
    Identity(Identity),
    Time,
}

/// A path of more steps is not edited.
const MAX_STEPS: usize = 64;

/// A list is not filled up to an index at or above this.
const MAX_ELEMENTS: usize = 64;

/// The name of a member that `.*` adds.
const MEMBER: &str = "any";

impl Path {
    pub(crate) fn source(&self) -> Source {
        match self.root {
            Root::Arguments => Source::Arguments,
            Root::Context => Source::Context,
            Root::Input => Source::Input,
            Root::Task => Source::Task,
            Root::Tool => Source::Tool,
            Root::Identity(identity) => Source::Identity(identity),
            Root::Time(_) => Source::Time,
        }
    }

    /// The path of a member of the arguments or the context.
    pub(crate) fn of_member(root: Root, key: &str) -> Self {
        Self { root, steps: [Step::Name(key.into())].into(), has_each: false }
    }

    /// Returns `true` if the path is only a root.
    pub(crate) fn is_root(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps below the root.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The path up to the first `[*]` or `.*`, and a value there without elements.
    pub(crate) fn before_each(&self) -> Option<(Self, Value)> {
        let each = self.steps.iter().position(Step::is_each)?;
        let empty = match self.steps.get(each)? {
            Step::EachMember => Value::Object(Map::new()),
            _ => Value::Array(Vec::new()),
        };
        let steps = self.steps.get(..each)?;
        Some((Self { root: self.root, steps: steps.into(), has_each: false }, empty))
    }

    /// Sets the value at the path, or removes it. `root` is the value of the path's root. Values
    /// that block the path are replaced, and members of the arguments whose names differ in case
    /// alone are removed. `[*]` and `.*` go through every element, and add one if there are none.
    /// Returns `false` if the path cannot be written.
    pub(crate) fn edit(&self, root: &mut Value, to: Option<&Value>) -> bool {
        self.steps.len() <= MAX_STEPS && edit(root, &self.steps, self.root.written_by(), to)
    }
}

fn edit(value: &mut Value, steps: &[Step], by: WrittenBy, to: Option<&Value>) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        *value = to.cloned().unwrap_or(Value::Null);
        return true;
    };
    match step {
        Step::Name(name) => {
            if let (WrittenBy::Agent, Value::Object(members)) = (by, &mut *value) {
                members.retain(|known, _| **known == **name || !name.is_variant(known));
            }
            if to.is_none() {
                let Some(members) = value.as_object_mut() else { return value.is_null() };
                return match (rest.is_empty(), members.get_mut(&**name)) {
                    (true, _) => {
                        members.remove(&**name);
                        true
                    }
                    (false, Some(inner)) => edit(inner, rest, by, to),
                    (false, None) => true,
                };
            }
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            value
                .as_object_mut()
                .is_some_and(|members| edit(members.entry(&**name).or_insert(Value::Null), rest, by, to))
        }
        Step::Index(index) => {
            if *index >= MAX_ELEMENTS {
                return false;
            }
            if !value.is_array() {
                if to.is_none() {
                    return value.is_null();
                }
                *value = Value::Array(Vec::new());
            }
            value.as_array_mut().is_some_and(|elements| {
                while elements.len() <= *index && to.is_some() {
                    elements.push(Value::Null);
                }
                elements.get_mut(*index).is_none_or(|element| edit(element, rest, by, to))
            })
        }
        Step::Each | Step::EachMember => match (step, &mut *value) {
            (Step::Each, Value::Array(elements)) if !elements.is_empty() => {
                elements.iter_mut().all(|each| edit(each, rest, by, to))
            }
            (Step::EachMember, Value::Object(members)) if !members.is_empty() => {
                members.values_mut().all(|each| edit(each, rest, by, to))
            }
            _ if to.is_none() => true,
            _ => {
                let mut element = Value::Null;
                let made = edit(&mut element, rest, by, to);
                *value = match step {
                    Step::EachMember => Value::Object(Map::from_iter([(MEMBER.to_owned(), element)])),
                    _ => Value::Array(vec![element]),
                };
                made
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_set_and_removed_at_paths() {
        for (path, before, to, after) in [
            ("args.a", json!({}), Some(json!(1)), json!({ "a": 1 })),
            ("args.a.b", json!({ "a": "x" }), Some(json!(1)), json!({ "a": { "b": 1 } })),
            ("args.l[1]", json!({}), Some(json!(1)), json!({ "l": [null, 1] })),
            ("args.l[*].x", json!({ "l": [{ "x": 1 }, {}] }), Some(json!(2)), json!({ "l": [{ "x": 2 }, { "x": 2 }] })),
            ("args.l[*]", json!({}), Some(json!(2)), json!({ "l": [2] })),
            ("args.l[*]", json!({ "l": [] }), Some(json!(2)), json!({ "l": [2] })),
            ("args.l[*]", json!({ "l": {} }), Some(json!(2)), json!({ "l": [2] })),
            ("args.l[*]", json!({ "l": "x" }), None, json!({ "l": "x" })),
            ("args.l[*].x", json!({ "l": [] }), None, json!({ "l": [] })),
            ("args.*", json!({ "a": 1 }), Some(json!(2)), json!({ "a": 2 })),
            ("args.o.*", json!({ "o": [] }), Some(json!(2)), json!({ "o": { "any": 2 } })),
            ("args.a", json!({ "a": 1, "b": 2 }), None, json!({ "b": 2 })),
            ("args.a.b", json!({ "A": 1, "a": { "B": 1 } }), Some(json!(2)), json!({ "a": { "b": 2 } })),
            ("context.a", json!({ "A": 1 }), Some(json!(2)), json!({ "A": 1, "a": 2 })),
            ("args.a", json!({ "A": 1 }), None, json!({})),
            ("args.a.b", json!({}), None, json!({})),
            ("args.l[*].x", json!({ "l": [{ "x": 1 }] }), None, json!({ "l": [{}] })),
        ] {
            let mut value = before.clone();
            assert!(Path::parse(path).unwrap().edit(&mut value, to.as_ref()), "{path} {before}");
            assert_eq!(value, after, "{path} {before}");
        }
        let far = Path::parse("args[4000000000]").unwrap();
        assert!(!far.edit(&mut json!([]), Some(&json!(1))));
        let deep = format!("args{}", ".a".repeat(10_000));
        assert!(!Path::parse(&deep).unwrap().edit(&mut json!({}), Some(&json!(1))));
    }

    #[test]
    fn a_path_is_known_by_its_steps() {
        for (path, steps, before_each) in [
            ("args", 0, None),
            ("args.a", 1, None),
            ("args.a[0][\"b c\"]", 3, None),
            ("args.*", 1, Some(("args", json!({})))),
            ("args.l[*].x.*", 4, Some(("args.l", json!([])))),
        ] {
            let parsed = Path::parse(path).unwrap();
            assert_eq!((parsed.is_root(), parsed.steps().len()), (steps == 0, steps), "{path}");
            let list = before_each.map(|(list, empty)| (Path::parse(list).unwrap(), empty));
            assert_eq!(parsed.before_each(), list, "{path}");
        }
    }
}
