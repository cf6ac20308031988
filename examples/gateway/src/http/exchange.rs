//! One message of a client, and the answer to it: judge, forward, conclude.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use toolgate::mcp::{CallOutcome, FromClient, RequestId, Routed};
use tracing::Instrument;

use super::finish::Finish;
use super::headers::{self, SESSION};
use super::sessions::{Conversation, Unusable};
use super::stream::{Patience, Stream, from_server};
use super::upstream::{Lost, Unread, whole};
use super::{Gateway, Server, answer, json, refuse, status_for_client};
use crate::callers::Holder;
use crate::who::Who;

/// A POST that has been found in order, on behalf of a holder.
pub(super) struct Exchange {
    pub(super) gateway: Arc<Gateway>,
    pub(super) server: Arc<Server>,
    pub(super) holder: Arc<Holder>,
    pub(super) who: Who,
    pub(super) conversation: Arc<Conversation>,
    /// The headers that the server gets.
    pub(super) headers: HeaderMap,
    pub(super) patience: Patience,
    /// Held until the server has answered, whether the client still waits for it or not.
    pub(super) slot: OwnedSemaphorePermit,
}

/// The members of a message that the transport needs.
#[derive(Deserialize)]
struct Envelope<'m> {
    #[serde(borrow)]
    method: Option<Cow<'m, str>>,
}

impl Exchange {
    /// Passes the message on and returns the answer. A client that goes away does not stop half-way
    /// what has begun.
    pub(super) async fn run(self, message: Bytes) -> Response {
        Finish::new(async move { self.judge(&message).await.unwrap_or_else(|refusal| refusal) }).await
    }

    /// Decides what the server gets, or answers if it gets nothing.
    async fn judge(self, message: &[u8]) -> Result<Response, Response> {
        let taken = self.conversation.session().from_client(message);
        match taken {
            FromClient::Forward { message, id, .. } => {
                // It was written by the library a moment ago.
                let envelope: Option<Envelope<'_>> = serde_json::from_str(&message).ok();
                let method = envelope.and_then(|envelope| envelope.method).map_or(String::new(), Cow::into_owned);
                if !self.holder.is_good() && !is_harmless(&method) {
                    let why = "its grant has been revoked or has expired";
                    return Err(self.fail(id.as_ref(), CallOutcome::NotRun, StatusCode::FORBIDDEN, why).await);
                }
                let span = self.gateway.host.span(&method, None, &self.who, id.as_ref(), "tcp");
                Ok(self.forward(message, id).instrument(span).await)
            }
            FromClient::Answer { answer: text, denial, .. } => {
                self.gateway.host.record_denial(&self.who, &denial);
                tracing::info!("refused a message of grant {:?}: {}", self.holder.grant(), denial.message());
                Err(match text {
                    None => refuse(StatusCode::BAD_REQUEST, "this message cannot be taken"),
                    Some(text) if text.starts_with(r#"{"jsonrpc":"2.0","id":null,"#) => {
                        json(StatusCode::BAD_REQUEST, text)
                    }
                    Some(text) => answer(text),
                })
            }
            FromClient::Decide(call) => {
                let host = Arc::clone(&self.gateway.host);
                let id = call.id().and_then(RequestId::of);
                let span = host.span("tools/call", Some(call.tool()), &self.who, id.as_ref(), "tcp");
                let decide = async {
                    let decision = host.decide(&self.who, &call).await;
                    let routed = self.conversation.session().decided(call, decision);
                    match routed {
                        Routed::Forward { message, id, .. } => self.forward(message, Some(id)).await,
                        Routed::Answer { answer: text } => answer(text),
                    }
                };
                Ok(decide.instrument(span).await)
            }
        }
    }

    async fn forward(mut self, message: String, id: Option<RequestId>) -> Response {
        let headers = std::mem::take(&mut self.headers);
        let upstream = &self.server.upstream;
        let sent = self.patience.wait_for(upstream.send(Method::POST, headers, message)).await;
        let unclear = CallOutcome::Unclear(None);
        let (outcome, status, why) = match sent {
            Ok(Ok(response)) => return self.answered(response, id).await,
            Ok(Err(Lost::Unreached)) => (CallOutcome::NotRun, StatusCode::BAD_GATEWAY, "the server cannot be reached"),
            Ok(Err(Lost::Broken)) => (unclear, StatusCode::BAD_GATEWAY, "the connection to the server was lost"),
            Err(cut) => (unclear, StatusCode::GATEWAY_TIMEOUT, cut.why()),
        };
        self.fail(id.as_ref(), outcome, status, why).await
    }

    /// Passes on what the server has answered.
    async fn answered(self, response: Response, id: Option<RequestId>) -> Response {
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            return self.turned_down(head.status, id.as_ref()).await;
        }
        let failed = match self.keep(&head.headers) {
            Ok(()) => None,
            Err(Unusable::TooMany) => Some((StatusCode::SERVICE_UNAVAILABLE, "the grant has too many sessions")),
            Err(Unusable::BadId) => Some((StatusCode::BAD_GATEWAY, "the server gives its sessions no usable ids")),
        };
        if let Some((status, why)) = failed {
            return self.fail(id.as_ref(), CallOutcome::Unclear(None), status, why).await;
        }
        let mut passed = headers::to_client(&head.headers, self.conversation.id());
        let Some(id) = id else {
            // There is no answer to a message that is not a request.
            passed.remove(CONTENT_TYPE);
            return (head.status, passed).into_response();
        };
        let why = match headers::media_type(&head.headers).as_deref() {
            None => "the server's answer is compressed",
            Some("text/event-stream") => {
                let Self { gateway, conversation, patience, slot, .. } = self;
                let passing = Stream { gateway, conversation, patience, request: Some(id) };
                return (head.status, passed, passing.pass(body, slot)).into_response();
            }
            Some("application/json") => {
                match self.patience.wait_for(whole(&mut body, self.gateway.max_message())).await {
                    Ok(Ok(bytes)) => match from_server(&self.gateway, &self.conversation, &bytes).await {
                        (Some(message), Some(answers)) if answers == id => {
                            let message = match message {
                                Cow::Borrowed(_) => bytes.clone(),
                                Cow::Owned(message) => message.into(),
                            };
                            return (head.status, passed, Body::from(message)).into_response();
                        }
                        _ => "the server's answer is none to this request",
                    },
                    Ok(Err(Unread::TooLong)) => "the server's answer is too long",
                    Ok(Err(Unread::Broken)) => "the connection to the server was lost",
                    Err(cut) => cut.why(),
                }
            }
            Some(_) => "the server's answer is of no known type",
        };
        self.fail(Some(&id), CallOutcome::Unclear(None), StatusCode::BAD_GATEWAY, why).await
    }

    /// Keeps the session that the server has begun with this answer, if it has.
    fn keep(&self, headers: &HeaderMap) -> Result<(), Unusable> {
        let given = headers::single(headers, &SESSION).map_err(|()| Unusable::BadId)?;
        let Some(given) = given.filter(|_| self.conversation.id().is_none()) else { return Ok(()) };
        let kept = self.server.sessions.keep(&self.conversation, given);
        if kept == Err(Unusable::TooMany) {
            // The server need not keep it either. If it does not learn this, the session times out.
            let (server, headers) = (Arc::clone(&self.server), headers::to_server(&HeaderMap::new(), Some(given)));
            let patience = self.patience.clone();
            tokio::spawn(
                async move { patience.wait_for(server.upstream.send(Method::DELETE, headers, "")).await.is_ok() },
            );
        }
        kept
    }

    /// The server has answered with an error of HTTP.
    async fn turned_down(&self, status: StatusCode, id: Option<&RequestId>) -> Response {
        let why = format!("the server answered with status {}", status.as_u16());
        let of_session = status == StatusCode::NOT_FOUND && self.conversation.id().is_some();
        let text = match id {
            None => None,
            Some(id) => self.gateway.give_up(&self.conversation, id, CallOutcome::Unclear(None), &why).await,
        };
        if of_session {
            self.server.sessions.close(&self.conversation);
        }
        match (text, id) {
            // With this status, the client begins again.
            (Some(text), _) if of_session => json(StatusCode::NOT_FOUND, text),
            (Some(text), _) => answer(text),
            (None, Some(_)) => refuse(StatusCode::ACCEPTED, ""),
            (None, None) => refuse(status_for_client(status), &why),
        }
    }

    /// The server has not answered: the client gets an error, and nothing is held any more.
    async fn fail(&self, id: Option<&RequestId>, outcome: CallOutcome, status: StatusCode, why: &str) -> Response {
        let Some(id) = id else { return refuse(status, why) };
        match self.gateway.give_up(&self.conversation, id, outcome, why).await {
            Some(text) => answer(text),
            // The client has cancelled it.
            None => refuse(StatusCode::ACCEPTED, ""),
        }
    }
}

/// Returns whether a caller without a valid grant may send it: what a client needs to learn that a
/// call is denied.
fn is_harmless(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "tools/list") || method.starts_with("notifications/")
}
