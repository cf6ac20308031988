//! The format of one line of a trace.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::call::ToolCall;
use crate::json::object::Object;
use crate::policy::Policy;
use crate::time::Timestamp;

/// One line of a trace: a time, an id, and one of the steps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) at: Option<At>,
    pub(super) id: Option<String>,
    pub(super) call: Option<Object<Call>>,
    /// The id of the call that asked for the approval of this call.
    pub(super) approval: Option<String>,
    pub(super) approve: Option<String>,
    pub(super) refuse: Option<String>,
    /// The person who approves or refuses.
    pub(super) by: Option<String>,
    pub(super) message: Option<String>,
    pub(super) caller: Option<Object<Caller>>,
    pub(super) release: Option<String>,
    pub(super) settle: Option<String>,
    /// The actual cost of the call that `settle` names.
    #[serde(default, deserialize_with = "present")]
    pub(super) amount: Option<Value>,
    pub(super) end: Option<String>,
    /// `null` is a step too: it removes the policy.
    #[serde(default, deserialize_with = "present")]
    pub(super) policy: Option<Box<RawValue>>,
    pub(super) store: Option<Switch>,
    pub(super) tools_list: Option<Value>,
}

/// An instant in RFC 3339, or seconds since the start of the trace.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum At {
    Instant(String),
    Seconds(Number),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) tool: String,
    pub(super) arguments: Option<Value>,
    pub(super) server: Option<String>,
    pub(super) grant: Option<String>,
    pub(super) session: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) user: Option<String>,
    pub(super) context: Option<Map<String, Value>>,
    /// The call asks to run as a task.
    #[serde(default)]
    pub(super) task: bool,
    /// The agent's answers to the server.
    pub(super) input: Option<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    pub(super) server: Option<String>,
    pub(super) grant: Option<String>,
    pub(super) session: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) user: Option<String>,
    pub(super) context: Option<Map<String, Value>>,
}

impl Caller {
    /// Returns the call with the identities and the context of this caller.
    pub(super) fn make<'a>(&'a self, call: ToolCall<'a>) -> ToolCall<'a> {
        let Self { server, grant, session, agent, user, context } = self;
        call.server(server.as_deref())
            .grant(grant.as_deref())
            .session(session.as_deref())
            .agent(agent.as_deref())
            .user(user.as_deref())
            .context(context.as_ref())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Switch {
    Up,
    Down,
}

impl At {
    /// Returns the instant of a step that follows one at `before`. Returns `None` if it is invalid.
    pub(super) fn instant(at: Option<Self>, before: Timestamp) -> Option<Timestamp> {
        match at {
            None => Some(before),
            Some(Self::Instant(text)) => text.parse().ok(),
            Some(Self::Seconds(seconds)) => {
                let micros = (seconds.as_f64().unwrap_or(f64::INFINITY) * 1e6).round();
                let fits = micros.abs() < 1e17;
                #[expect(clippy::cast_possible_truncation, reason = "whole and far within an `i64`")]
                fits.then(|| Timestamp::from_unix_micros(super::START.unix_micros() + micros as i64))
            }
        }
    }
}

impl Call {
    /// Returns the call made by this caller. Members of the call replace those of the caller.
    pub(super) fn by<'a>(&'a self, caller: &'a Caller) -> ToolCall<'a> {
        let call = ToolCall::new(&self.tool, self.arguments.as_ref()).task(self.task).input(self.input.as_ref());
        let mut call = caller.make(call);
        for (own, set) in [
            (&self.server, ToolCall::server as fn(_, _) -> _),
            (&self.grant, ToolCall::grant),
            (&self.session, ToolCall::session),
            (&self.agent, ToolCall::agent),
            (&self.user, ToolCall::user),
        ] {
            if let Some(own) = own {
                call = set(call, own.as_str());
            }
        }
        match &self.context {
            Some(context) => call.context(context),
            None => call,
        }
    }
}

/// Explains the error in a line that cannot be read, or in its policy, to its author.
pub(crate) fn explained(text: &str) -> String {
    let line = match serde_json::from_str::<Object<Line>>(text) {
        Ok(Object(line)) => line,
        Err(error) => return error.to_string(),
    };
    if At::instant(line.at, super::START).is_none() {
        return "`at` is an instant such as `2026-01-15T10:30:00Z`, or a number of seconds since the start".to_owned();
    }
    let issues = line.policy.and_then(|policy| Policy::from_json(policy.get()).err());
    issues.map_or_else(|| "it is not one step".to_owned(), |error| error.to_string())
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
