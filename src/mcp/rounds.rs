//! Calls that take several rounds, because the server asks for input.

use serde_json::{Map, Value, json};

use super::{Call, FIRST_MODERN, Params};
use crate::call::Round;

/// The round of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CallRound {
    First,
    /// It carries a state that nothing is known about.
    Unknown,
    /// It continues an allowed call, which was approved under the policy with this digest.
    Further {
        approved_under: Option<[u8; 32]>,
    },
}

impl CallRound {
    pub(super) fn of_call(&self) -> Round<'_> {
        match self {
            Self::First => Round::First,
            Self::Unknown => Round::Unknown,
            Self::Further { approved_under } => Round::Further { approved_under: approved_under.as_ref() },
        }
    }
}

impl Call {
    pub(super) fn new(
        id: Option<Value>,
        id_text: Option<Box<str>>,
        params: Params,
        others: Map<String, Value>,
    ) -> Self {
        let has = |key| params.others.contains_key(key);
        let round = if has("inputResponses") || has("requestState") { CallRound::Unknown } else { CallRound::First };
        Self { id, id_text, params, others, round, wants_page: true, http_version: None }
    }

    /// The client's answers to what the server has asked for; `None` if there are none.
    pub fn input_responses(&self) -> Option<&Map<String, Value>> {
        self.params.others.get("inputResponses")?.as_object()
    }

    /// The state that the client sends back. A client gets it with a request for input.
    pub fn request_state(&self) -> Option<&str> {
        self.params.others.get("requestState")?.as_str()
    }

    /// Returns `true` if the call asks to run as a task.
    pub fn is_task(&self) -> bool {
        self.params.others.contains_key("task")
    }

    /// Returns `true` if the call says that its protocol has calls of several rounds.
    pub(super) fn has_rounds(&self) -> bool {
        self.protocol_version().is_some_and(|version| version >= FIRST_MODERN)
    }

    pub(super) fn carries_state(&self) -> bool {
        self.round == CallRound::Unknown
    }

    /// Makes it a further round of an allowed call, with the state that the server gave.
    pub(super) fn continue_with(&mut self, server_state: Option<&str>, approved_under: Option<[u8; 32]>) {
        self.round = CallRound::Further { approved_under };
        match server_state {
            Some(state) => self.params.others.insert("requestState".to_owned(), state.into()),
            None => self.params.others.remove("requestState"),
        };
    }

    /// Removes the state and the client's answers, and makes it a call like one without them.
    pub(super) fn begin_again(&mut self) {
        self.round = CallRound::First;
        self.params.others.remove("requestState");
        self.params.others.remove("inputResponses");
    }

    /// Returns `true` if the client can show its user a page to open.
    pub(super) fn accepts_pages(&self) -> bool {
        let capabilities = || self.meta()?.get("io.modelcontextprotocol/clientCapabilities");
        self.has_rounds()
            && capabilities().is_some_and(|all| all.pointer("/elicitation/url").is_some_and(Value::is_object))
    }

    /// The answer that sends the user to a page, and asks the client to repeat the call with this
    /// state.
    pub(super) fn answer_with_page(&self, url: &str, message: &str, state: &str) -> Option<String> {
        let params = json!({ "mode": "url", "url": url, "message": message });
        let request = json!({ PAGE_REQUEST: { "method": "elicitation/create", "params": params } });
        let result = json!({ "resultType": "input_required", "inputRequests": request, "requestState": state });
        self.id_text().map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
    }

    /// Returns `true` if the user has not agreed to open the page.
    pub(super) fn declines_page(&self) -> bool {
        let answer = self.input_responses().and_then(|answers| answers.get(PAGE_REQUEST)?.get("action")?.as_str());
        answer != Some("accept")
    }
}

/// The name of the request to open a page.
const PAGE_REQUEST: &str = "approval";

/// An answer that does not end the call.
#[derive(Debug)]
pub(super) enum Interim {
    /// The server asks for input. The answer has the state that the server gave.
    Input(Value),
    /// The server runs the call as a task.
    Task(Box<str>),
}

impl Interim {
    /// Reads an answer that is interim. `None` if it can be read in more than one way.
    pub(super) fn read(answer: Value) -> Option<Self> {
        let result = answer.get("result")?;
        if result.get("resultType").and_then(Value::as_str) == Some("input_required") {
            let state = result.get("requestState");
            return state.is_none_or(Value::is_string).then_some(Self::Input(answer));
        }
        let id = result.pointer("/task/taskId").or_else(|| result.get("taskId"))?.as_str()?;
        Some(Self::Task(id.into()))
    }
}
