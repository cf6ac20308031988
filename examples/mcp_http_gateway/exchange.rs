//! One message of a client, and what comes back for it.

use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use toolgate::ToolCall;
use toolgate::mcp::{CallOutcome, FromClient, RequestId, Routed};

use crate::body::{self, Reply, Unread, Whole};
use crate::conversations::{Unusable, Using};
use crate::finish::Finish;
use crate::front::{Gateway, answer, json, refuse};
use crate::headers::{self, SESSION};
use crate::holders::Holder;
use crate::stream::{PIECES, Patience, Stream, from_server};
use crate::upstream::Lost;

/// A POST that has been found in order, on behalf of a holder.
pub(crate) struct Exchange {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) holder: Arc<Holder>,
    pub(crate) conversation: Using,
    /// What the server gets of the client's headers.
    pub(crate) headers: HeaderMap,
    /// Held until the server has answered, whether the client still waits for it or not.
    pub(crate) slot: OwnedSemaphorePermit,
}

impl Exchange {
    /// Passes the message on and gives the answer. A client that goes away does not stop half-way what has begun.
    pub(crate) async fn run(self, message: Bytes) -> Response<Reply> {
        Finish::new(async move {
            let until = self.gateway.options.timeout.map(|timeout| Instant::now() + timeout);
            let patience = Patience { until, stage: self.conversation.stage() };
            self.go(&message, patience).await
        })
        .await
    }

    async fn go(mut self, message: &[u8], mut patience: Patience) -> Response<Reply> {
        let (message, id) = match self.judge(message).await {
            Ok(forwarded) => forwarded,
            Err(answer) => return answer,
        };
        let headers = std::mem::take(&mut self.headers);
        let sent = patience.wait_for(self.gateway.upstream.send(Method::POST, headers, Whole::new(message))).await;
        let (ending, status, why) = match sent {
            Ok(Ok(response)) => return self.answered(response, id, patience).await,
            Ok(Err(Lost::Unreached)) => (CallOutcome::NotRun, StatusCode::BAD_GATEWAY, "the server cannot be reached"),
            Ok(Err(Lost::Broken)) => {
                (CallOutcome::Unclear(None), StatusCode::BAD_GATEWAY, "the connection to the server was lost")
            }
            Err(cut) => (CallOutcome::Unclear(None), StatusCode::GATEWAY_TIMEOUT, cut.why()),
        };
        self.fail(id.as_ref(), ending, status, why).await
    }

    /// The call, made by whom this message came from.
    fn names<'a>(&'a self, call: ToolCall<'a>) -> ToolCall<'a> {
        let server = self.gateway.options.server.as_str();
        self.holder.names(call).server(server).session(self.conversation.name())
    }

    /// What the server is to get; or the answer, if it gets nothing.
    async fn judge(&self, message: &[u8]) -> Result<(String, Option<RequestId>), Response<Reply>> {
        let taken = self.conversation.session().from_client(message);
        match taken {
            FromClient::Forward { message, id } => {
                if !self.holder.is_good() && !is_harmless(&message) {
                    let why = "its grant has been revoked or has expired";
                    return Err(self.fail(id.as_ref(), CallOutcome::NotRun, StatusCode::FORBIDDEN, why).await);
                }
                Ok((message, id))
            }
            FromClient::Answer { answer: text, denial } => {
                let nothing = ToolCall::new("", None::<&serde_json::Value>);
                self.gateway.grants.record_denial(&self.names(nothing), &denial);
                self.gateway.note(&format!(
                    "a message of grant {} is refused: {}",
                    self.holder.grant,
                    denial.message()
                ));
                Err(match text {
                    None => refuse(StatusCode::BAD_REQUEST, "this message cannot be taken"),
                    Some(text) if text.starts_with(r#"{"jsonrpc":"2.0","id":null,"#) => {
                        json(StatusCode::BAD_REQUEST, text)
                    }
                    Some(text) => answer(text),
                })
            }
            FromClient::Decide(call) => {
                let decision = {
                    let named = self.names(call.tool_call());
                    self.gateway.grants.check_async(&named).await
                };
                match self.conversation.session().decided(call, decision) {
                    Routed::Forward { message, id } => Ok((message, Some(id))),
                    Routed::Answer { answer: text } => Err(answer(text)),
                }
            }
        }
    }

    /// Passes on what the server has answered.
    async fn answered(
        self,
        response: Response<Incoming>,
        id: Option<RequestId>,
        mut patience: Patience,
    ) -> Response<Reply> {
        let (head, mut body) = response.into_parts();
        let unclear = CallOutcome::Unclear(None);
        if !head.status.is_success() {
            return self.turned_down(head.status, id.as_ref()).await;
        }
        if let Err(unusable) = self.keep(&head.headers) {
            let (status, why) = match unusable {
                Unusable::TooMany => (StatusCode::SERVICE_UNAVAILABLE, "the grant has too many sessions"),
                Unusable::BadId => (StatusCode::BAD_GATEWAY, "the server gives its sessions no usable ids"),
            };
            return self.fail(id.as_ref(), unclear, status, why).await;
        }
        let mut passed = headers::to_client(&head.headers);
        if let Some(session) = self.conversation.id() {
            passed.insert(SESSION, session.clone());
        }
        let Some(id) = id else {
            // Nothing is answered to what asks for nothing.
            passed.remove(CONTENT_TYPE);
            return with(head.status, passed, Reply::empty());
        };
        let kind = headers::media_type(&head.headers);
        let why = match &*kind {
            _ if headers::is_encoded(&head.headers) => "the server's answer is compressed",
            "text/event-stream" => {
                let (pieces, stream) = mpsc::channel(PIECES);
                let Self { gateway, conversation, slot, .. } = self;
                let passing = Stream { gateway, conversation, patience, client: Some(pieces), request: Some(id) };
                let work = async move {
                    passing.pass(body).await;
                    drop(slot);
                };
                return with(head.status, passed, Reply::Stream(stream, Finish::new(work)));
            }
            "application/json" => {
                let bound = self.gateway.options.max_message;
                match patience.wait_for(body::whole(&mut body, bound)).await {
                    Ok(Ok(bytes)) => match from_server(&self.gateway, &self.conversation, &bytes).await {
                        (Some(message), Some(answers)) if answers == id => {
                            let message = match message {
                                std::borrow::Cow::Borrowed(_) => bytes.clone(),
                                std::borrow::Cow::Owned(message) => message.into(),
                            };
                            return with(head.status, passed, Reply::whole(message));
                        }
                        _ => "the server's answer is none to this request",
                    },
                    Ok(Err(Unread::TooLong)) => "the server's answer is too long",
                    Ok(Err(Unread::Broken)) => "the connection to the server was lost",
                    Err(cut) => cut.why(),
                }
            }
            _ => "the server's answer is of no known type",
        };
        self.fail(Some(&id), unclear, StatusCode::BAD_GATEWAY, why).await
    }

    /// Keeps the session that the server has begun with this answer, if it has.
    fn keep(&self, headers: &HeaderMap) -> Result<(), Unusable> {
        let given = headers::single(headers, &SESSION).map_err(|()| Unusable::BadId)?;
        let Some(given) = given.filter(|_| self.conversation.id().is_none()) else { return Ok(()) };
        let kept = self.gateway.conversations.keep(&self.conversation, given);
        if kept == Err(Unusable::TooMany) {
            // The server need not keep it either.
            self.gateway.end_upstream(given);
        }
        kept
    }

    /// The server has answered with an error of HTTP.
    async fn turned_down(&self, status: StatusCode, id: Option<&RequestId>) -> Response<Reply> {
        let why = format!("the server answered with status {}", status.as_u16());
        let of_session = status == StatusCode::NOT_FOUND && self.conversation.id().is_some();
        let text = match id {
            None => None,
            Some(id) => self.gateway.give_up(&self.conversation, id, CallOutcome::Unclear(None), &why).await,
        };
        if of_session {
            self.gateway.conversations.close(&self.conversation);
        }
        match (text, id) {
            // It tells the client to begin again.
            (Some(text), _) if of_session => json(StatusCode::NOT_FOUND, text),
            (Some(text), _) => answer(text),
            (None, Some(_)) => refuse(StatusCode::ACCEPTED, ""),
            (None, None) => refuse(Gateway::status_for_client(status), &why),
        }
    }

    /// The server has not answered: the client is told, and nothing is held any more.
    async fn fail(
        &self,
        id: Option<&RequestId>,
        ending: CallOutcome,
        status: StatusCode,
        why: &str,
    ) -> Response<Reply> {
        let Some(id) = id else { return refuse(status, why) };
        match self.gateway.give_up(&self.conversation, id, ending, why).await {
            Some(text) => answer(text),
            // The client has cancelled it.
            None => refuse(StatusCode::ACCEPTED, ""),
        }
    }
}

/// What whoever has lost a grant may still say: what it takes to be told that a call is denied.
fn is_harmless(message: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        method: Option<std::borrow::Cow<'a, str>>,
    }
    // It was written by the library a moment ago.
    let method = serde_json::from_str::<Envelope<'_>>(message).ok().and_then(|envelope| envelope.method);
    method.is_some_and(|method| {
        matches!(&*method, "initialize" | "ping" | "tools/list") || method.starts_with("notifications/")
    })
}

fn with(status: StatusCode, headers: HeaderMap, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // Nothing on the way keeps what is one client's.
    response.headers_mut().entry("cache-control").or_insert(HeaderValue::from_static("no-store"));
    response
}
