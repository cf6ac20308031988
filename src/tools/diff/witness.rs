//! Calls that are made up to show a change.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::slots::{Given, Slot};
use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::call::path::{Root, Step};
use crate::time::Timestamp;

/// The instant of calls to which the time does not matter: a Thursday, 2026-01-15T10:30:00Z.
pub(super) const NOON: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// How far an array is filled to reach an index.
pub(super) const FAR: usize = 1_000;

/// A call that two policies decide otherwise: what a caller would have to send, and when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Witness {
    pub(super) tool: String,
    pub(super) arguments: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(super) context: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    pub(super) at: Timestamp,
}

impl Witness {
    /// The call.
    pub fn call(&self) -> ToolCall<'_> {
        ToolCall::new(&self.tool, &self.arguments)
            .context(&self.context)
            .grant(self.grant.as_deref())
            .session(self.session.as_deref())
            .agent(self.agent.as_deref())
            .user(self.user.as_deref())
            .server(self.server.as_deref())
    }

    /// The name of the tool.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// The arguments.
    pub fn arguments(&self) -> &Map<String, Value> {
        &self.arguments
    }

    /// When the call is made.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// A call of nobody's without arguments.
    pub(super) fn of(tool: &str) -> Self {
        Self {
            tool: tool.to_owned(),
            arguments: Map::new(),
            context: Map::new(),
            grant: None,
            session: None,
            agent: None,
            user: None,
            server: None,
            at: NOON,
        }
    }

    /// A call with these values at these places. What is no container stands last, as it hides what would be inside, and of those
    /// the outermost.
    pub(super) fn with<'g>(tool: &str, given: impl Iterator<Item = (&'g Slot, &'g Given)>) -> Self {
        let mut call = Self::of(tool);
        let mut wrong = Vec::new();
        for (slot, given) in given {
            if matches!(given, Given::Wrong) {
                wrong.push(slot);
            } else {
                call.put(slot, given);
            }
        }
        wrong.sort_by_key(|slot| std::cmp::Reverse(slot.path.steps.len()));
        wrong.into_iter().for_each(|slot| call.put(slot, &Given::Wrong));
        call
    }

    fn put(&mut self, slot: &Slot, given: &Given) {
        let (steps, given) = match given {
            Given::Absent => return,
            Given::At(now) => {
                self.at = *now;
                return;
            }
            Given::Wrong => match slot.path.steps.split_last() {
                Some((_, steps)) if !steps.is_empty() => (steps, &Given::Value(Value::String("x".to_owned()))),
                _ => return,
            },
            given => (&*slot.path.steps, given),
        };
        let members = match slot.path.root {
            Root::Arguments => &mut self.arguments,
            Root::Context => &mut self.context,
            Root::Identity(identity) => {
                if let Given::Value(Value::String(text)) = given {
                    *self.identity(identity) = Some(text.clone());
                }
                return;
            }
            Root::Tool | Root::Time(_) => return,
        };
        let mut root = Value::Object(std::mem::take(members));
        set(&mut root, steps, given);
        if let Value::Object(changed) = root {
            *members = changed;
        }
    }

    fn identity(&mut self, identity: Identity) -> &mut Option<String> {
        match identity {
            Identity::Grant => &mut self.grant,
            Identity::Session => &mut self.session,
            Identity::Agent => &mut self.agent,
            Identity::User => &mut self.user,
            Identity::Server => &mut self.server,
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
                let index = (*index).min(FAR);
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

/// On one line: the tool, its arguments, and of the rest what is there.
impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Value::from(&*self.tool), Value::Object(self.arguments.clone()))?;
        if !self.context.is_empty() {
            write!(f, " context {}", Value::Object(self.context.clone()))?;
        }
        for (word, identity) in [
            ("grant", &self.grant),
            ("session", &self.session),
            ("agent", &self.agent),
            ("user", &self.user),
            ("server", &self.server),
        ] {
            if let Some(identity) = identity {
                write!(f, " {word} {}", Value::from(&**identity))?;
            }
        }
        if self.at != NOON {
            write!(f, " at {}", self.at)?;
        }
        Ok(())
    }
}
