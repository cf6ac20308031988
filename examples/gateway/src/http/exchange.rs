//! One request of a client, and the answer to it: admit, judge, forward, conclude.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{self, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use toolgate::mcp::{self, CallOutcome, RefusalFormat, RequestId, Session};
use toolgate::{Clock, SystemClock};
use tracing::Span;

use super::finish::Finish;
use super::headers::{self, SESSION, VERSION};
use super::sessions::{Conversation, MINUTE, Unusable};
use super::stream::Stream;
use super::upstream::{Lost, Patience, Unread, whole};
use super::{Gateway, Server};
use crate::callers::Holder;
use crate::link::{GRACE_OF_CANCELLED, LISTEN, Link, Next, Passed};
use crate::who::Who;

/// How long a client may take to send a message.
const READING: Duration = Duration::from_secs(30);
/// The part of a message that is too long which is read all the same, so that the client is there
/// for the answer.
const SPILL: usize = 64 << 20;
/// The longest error with a status of HTTP that passes as it is.
const ERROR_BYTES: usize = 64 << 10;
/// The answer for a session that does not exist.
const NO_SESSION: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#;

/// A caller that has been let in. The slot is held until the server has answered, whether the
/// client still waits for it or not.
pub(super) struct Admitted {
    holder: Arc<Holder>,
    slot: OwnedSemaphorePermit,
}

/// A request of a caller that has been let in, in its session.
pub(super) struct Exchange {
    pub(super) gateway: Arc<Gateway>,
    server: Arc<Server>,
    holder: Arc<Holder>,
    pub(super) conversation: Arc<Conversation>,
    pub(super) patience: Patience,
    /// Its stream reports changes of the list of tools.
    pub(super) listens: bool,
    _slot: OwnedSemaphorePermit,
}

impl Admitted {
    /// Finds out who asks, and whether there is room.
    pub(super) fn admit(gateway: &Gateway, request: &Request) -> Result<Self, Response> {
        let (head, callers) = (request.headers(), gateway.callers.load());
        if !head.get_all(ORIGIN).iter().all(|origin| lets_in(origin, &callers.allow_origins)) {
            return Err(refuse(StatusCode::FORBIDDEN, "pages of this origin may not ask"));
        }
        if ![Method::POST, Method::GET, Method::DELETE].contains(request.method()) {
            let refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, "the methods are POST, GET and DELETE");
            return Err(with(refusal, ALLOW, "POST, GET, DELETE"));
        }
        let unauthorized = |challenge| {
            let refusal = refuse(StatusCode::UNAUTHORIZED, "a bearer token of this gateway is needed");
            with(refusal, header::WWW_AUTHENTICATE, challenge)
        };
        let token = headers::single(head, &AUTHORIZATION).ok().flatten().and_then(|given| {
            let (scheme, token) = given.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        let token = token.ok_or_else(|| unauthorized(r#"Bearer realm="toolgate""#))?;
        let holder =
            callers.of_token(token).ok_or_else(|| unauthorized(r#"Bearer realm="toolgate", error="invalid_token""#))?;
        if headers::single(head, &SESSION).is_err() || headers::single(head, &VERSION).is_err() {
            return Err(refuse(StatusCode::BAD_REQUEST, "a header appears twice"));
        }
        let slot = Arc::clone(&holder.slots).try_acquire_owned();
        let slot = slot.map_err(|_| busy("too many requests are under way"))?;
        Ok(Self { holder, slot })
    }
}

impl Exchange {
    /// Finds the session that the request names, or makes one for this request alone. Nothing of
    /// the body has been read by then.
    pub(super) fn new(
        gateway: Arc<Gateway>,
        server: Arc<Server>,
        Admitted { holder, slot }: Admitted,
        request: &Request,
    ) -> Result<Self, Response> {
        let conversation = match request.headers().get(SESSION) {
            Some(id) => server.sessions.find(id, &holder.who).ok_or_else(|| json(StatusCode::NOT_FOUND, NO_SESSION))?,
            None if request.method() == Method::POST && !server.sessions.has_room(holder.grant()) => {
                return Err(busy("all sessions of the grant are in use"));
            }
            None => {
                // A server without sessions is asked without one, each time with a version.
                let of_header = |version: &HeaderValue| version.to_str().ok().map(RefusalFormat::of_version);
                let format = request.headers().get(VERSION).and_then(of_header);
                let format = format.filter(|_| gateway.speech.format.is_none());
                let who = Who { server: Some(server.upstream.name.clone()), context: None, ..holder.who.clone() };
                let session = gateway.speech.session(&server.state, &who, server.upstream.integers_of_64_bits);
                let session = format.into_iter().fold(session, Session::with_form);
                let (host, turns) = (Arc::clone(&gateway.host), Arc::clone(&holder.turns));
                Conversation::new(Link::new(host, who, session, turns))
            }
        };
        let patience = Patience { until: gateway.until(), closed: conversation.closed.clone() };
        Ok(Self { gateway, server, holder, conversation, patience, listens: false, _slot: slot })
    }

    /// Answers the request.
    pub(super) async fn answer(self, request: Request) -> Result<Response, Response> {
        let (head, body) = request.into_parts();
        match head.method {
            Method::POST => self.post(head.headers, body).await,
            Method::GET => self.listen(&head.headers).await,
            _ => self.delete(&head.headers).await,
        }
    }

    /// Judges a message, passes it on, and returns the answer. A client that goes away does not
    /// stop half-way what has begun.
    async fn post(mut self, head: HeaderMap, mut body: Body) -> Result<Response, Response> {
        if headers::media_type(&head).as_deref() != Some("application/json") {
            return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a message is plain application/json"));
        }
        let message = match timeout(READING, whole(&mut body, self.gateway.max_message())).await {
            Ok(Ok(message)) => message,
            Ok(Err(Unread::TooLong)) => {
                let _ = timeout(READING, spill(&mut body)).await;
                let refusal = json(StatusCode::PAYLOAD_TOO_LARGE, mcp::too_long(self.gateway.max_message()));
                return Err(with(refusal, CONNECTION, "close"));
            }
            Ok(Err(Unread::Broken)) => return Err(refuse(StatusCode::BAD_REQUEST, "the message breaks off")),
            Err(_) => return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the message does not come")),
        };
        // The time to send the message is the client's.
        self.patience.until = self.gateway.until();
        Ok(Finish::new(async move { self.judge(&message, &head).await }).await)
    }

    /// Decides what the server gets, or answers if it gets nothing.
    async fn judge(mut self, message: &[u8], head: &HeaderMap) -> Response {
        let who = self.conversation.who(self.holder.who.context.as_ref());
        match self.conversation.link.take_from_client(&who, message, Some(head)).await {
            Next::Forward { message, id, method, cancels, headers, span } => {
                if let Some(cancelled) = cancels {
                    self.give_up_later(cancelled);
                }
                if !self.holder.is_good() && !is_harmless(&method) {
                    let why = "its grant has been revoked or has expired";
                    return self.fail(id.as_ref(), Lost::not_run(StatusCode::FORBIDDEN, why)).await;
                }
                if method == "initialize" && self.conversation.id().is_none() && !self.may_begin() {
                    let why = "the grant begins too many sessions in a minute";
                    return self.fail(id.as_ref(), Lost::not_run(StatusCode::TOO_MANY_REQUESTS, why)).await;
                }
                if method == LISTEN {
                    self.listen_until_expiry();
                }
                let (upstream, session) = (&self.server.upstream, self.conversation.id());
                let headers = headers::to_server(head, &upstream.passed, session, headers::written(headers));
                self.forward(message, id, headers, span).await
            }
            Next::Answer { answer: None, .. } => refuse(StatusCode::BAD_REQUEST, "this message cannot be taken"),
            Next::Answer { answer: Some(answer), http_status } => {
                json(StatusCode::from_u16(http_status).unwrap_or(StatusCode::BAD_REQUEST), answer)
            }
        }
    }

    /// Gives a cancelled request up, unless the server answers it soon.
    fn give_up_later(&self, id: RequestId) {
        let conversation = Arc::clone(&self.conversation);
        tokio::spawn(async move {
            tokio::time::sleep(GRACE_OF_CANCELLED).await;
            conversation.link.give_up_cancelled(&id).await;
        });
    }

    fn may_begin(&self) -> bool {
        self.server.sessions.may_begin(self.holder.grant())
    }

    async fn forward(self, message: String, id: Option<RequestId>, mut headers: HeaderMap, span: Span) -> Response {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.send(Method::POST, headers, message).await {
            Ok(response) if response.status().is_success() => self.answered(response, id, span).await,
            Ok(response) => self.turned_down(response, id, &span).await,
            Err(lost) => self.fail(id.as_ref(), lost).await,
        }
    }

    async fn send(&self, method: Method, headers: HeaderMap, message: String) -> Result<Response, Lost> {
        let answer = self.patience.wait_for(self.server.upstream.send(method, headers, message)).await;
        answer.unwrap_or_else(|why| Err(Lost::unclear(StatusCode::GATEWAY_TIMEOUT, why)))
    }

    /// Passes on what the server has answered.
    async fn answered(self, response: Response, id: Option<RequestId>, span: Span) -> Response {
        let (head, mut body) = response.into_parts();
        let lost = |why: &str| Lost::unclear(StatusCode::BAD_GATEWAY, why);
        let failed = match self.keep(&head.headers) {
            Ok(()) => None,
            Err(Unusable::TooMany) => {
                Some(Lost::unclear(StatusCode::SERVICE_UNAVAILABLE, "all sessions of the grant are in use"))
            }
            Err(Unusable::BadId) => Some(lost("the server gives its sessions no usable ids")),
        };
        if let Some(failed) = failed {
            return self.fail(id.as_ref(), failed).await;
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
                let passing = Stream { exchange: self, request: Some(id), span };
                return (head.status, passed, passing.pass(body)).into_response();
            }
            Some("application/json") => {
                match self.patience.wait_for(whole(&mut body, self.gateway.max_message())).await {
                    Ok(Ok(bytes)) => match body_of(self.take_from_server(&bytes, &span).await, &bytes, &id) {
                        Some(message) => return (head.status, passed, message).into_response(),
                        None => "the server's answer is none to this request",
                    },
                    Ok(Err(Unread::TooLong)) => "the server's answer is too long",
                    Ok(Err(Unread::Broken)) => "the connection to the server was lost",
                    Err(why) => why,
                }
            }
            Some(_) => "the server's answer is of no known type",
        };
        self.fail(Some(&id), lost(why)).await
    }

    /// The server has answered with an error of HTTP. With an error of JSON-RPC in it, it passes as
    /// it is, except that a demand for credentials is an affair between gateway and server.
    async fn turned_down(self, response: Response, id: Option<RequestId>, span: &Span) -> Response {
        let (head, mut body) = response.into_parts();
        let (status, closes) = (head.status, response_ends_session(head.status, &self.conversation));
        let passes = status.is_client_error()
            && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
            && headers::media_type(&head.headers).as_deref() == Some("application/json");
        let mut message = None;
        if let (true, Some(id)) = (passes, &id) {
            let bytes = self.patience.wait_for(whole(&mut body, ERROR_BYTES)).await;
            if let Some(bytes) = bytes.ok().and_then(Result::ok) {
                let passed = self.conversation.link.take_client_error(&bytes, span).await;
                message = body_of(passed, &bytes, id);
            }
        }
        let answer = match message {
            Some(message) => {
                (status, headers::to_client(&head.headers, self.conversation.id()), message).into_response()
            }
            None => {
                let lost = Lost::unclear(
                    status_for_client(status),
                    format!("the server answered with status {}", status.as_u16()),
                );
                let mut answer = self.fail(id.as_ref(), lost).await;
                if closes && id.is_some() {
                    // With this status, the client begins again.
                    *answer.status_mut() = StatusCode::NOT_FOUND;
                }
                answer
            }
        };
        if closes {
            self.server.sessions.close(&self.conversation);
        }
        answer
    }

    /// Takes a message of the server. Returns the message for the client, if it gets one, and the
    /// request that it answers.
    pub(super) async fn take_from_server<'m>(&self, message: &'m [u8], span: &Span) -> Passed<'m> {
        let passed = self.conversation.link.take_from_server(message, span).await;
        passed.answers.iter().for_each(|id| self.conversation.unpark(id));
        passed
    }

    /// Keeps the session that the server has begun with this answer, if it has.
    fn keep(&self, headers: &HeaderMap) -> Result<(), Unusable> {
        let given = headers::single(headers, &SESSION).map_err(|()| Unusable::BadId)?;
        let Some(given) = given.filter(|_| self.conversation.id().is_none()) else { return Ok(()) };
        let kept = self.server.sessions.keep(&self.conversation, given);
        let ended = match &kept {
            Ok(former) => former.as_ref().and_then(|former| former.id()),
            Err(Unusable::TooMany) => Some(given),
            Err(Unusable::BadId) => None,
        };
        if let Some(ended) = ended {
            // The server need not keep it either. If it does not learn this, the session times out.
            let (server, patience) = (Arc::clone(&self.server), self.patience.clone());
            let headers = headers::to_server(&HeaderMap::new(), &[], Some(ended), None);
            tokio::spawn(
                async move { patience.wait_for(server.upstream.send(Method::DELETE, headers, "")).await.is_ok() },
            );
        }
        kept.map(drop)
    }

    /// The stream on which the server sends messages unasked, or continues an earlier one.
    async fn listen(mut self, head: &HeaderMap) -> Result<Response, Response> {
        if !self.holder.is_good() {
            return Err(refuse(StatusCode::FORBIDDEN, "the grant has been revoked or has expired"));
        }
        let (head, body) = self.ask(Method::GET, head).await?.into_parts();
        if headers::media_type(&head.headers).as_deref() != Some("text/event-stream") {
            return Err(refuse(StatusCode::BAD_GATEWAY, "the server's answer is not a stream"));
        }
        let headers = headers::to_client(&head.headers, self.conversation.id());
        self.listen_until_expiry();
        let passing = Stream { exchange: self, request: None, span: Span::none() };
        Ok((headers, passing.pass(body)).into_response())
    }

    /// A client may listen as long as its grant or its token is good.
    fn listen_until_expiry(&mut self) {
        let left = self.holder.expires_at.map(|end| end.saturating_since(SystemClock.now()));
        self.patience.until = left.and_then(|left| Instant::now().checked_add(left));
        self.listens = true;
    }

    async fn delete(self, head: &HeaderMap) -> Result<Response, Response> {
        let response = self.ask(Method::DELETE, head).await?;
        // The server may still work on its calls: they end when it has answered.
        self.server.sessions.forget(&self.conversation);
        Ok(response.status().into_response())
    }

    /// Passes on a request without a message. If the server refuses it, that is the error.
    async fn ask(&self, method: Method, head: &HeaderMap) -> Result<Response, Response> {
        let (upstream, session) = (&self.server.upstream, self.conversation.id());
        let headers = headers::to_server(head, &upstream.passed, session, headers::version(head));
        let response = self.send(method, headers, String::new()).await;
        let response = response.map_err(|lost| refuse(lost.status, &lost.why))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if response_ends_session(status, &self.conversation) {
            self.server.sessions.close(&self.conversation);
        }
        let why = format!("the server answered with status {}", status.as_u16());
        let mut refusal = refuse(status_for_client(status), &why);
        response.headers().get(ALLOW).map(|allow| refusal.headers_mut().insert(ALLOW, allow.clone()));
        Err(refusal)
    }

    /// The server has not answered: the client gets an error, and nothing is held any more.
    async fn fail(&self, id: Option<&RequestId>, lost: Lost) -> Response {
        let Some(id) = id else { return refuse(lost.status, &lost.why) };
        match self.give_up(id, lost.outcome, &lost.why).await {
            Some(text) if lost.status == StatusCode::TOO_MANY_REQUESTS => {
                let mut refusal = json(lost.status, text);
                refusal.headers_mut().insert(RETRY_AFTER, MINUTE.as_secs().into());
                refusal
            }
            Some(text) => json(StatusCode::OK, text),
            // The client has cancelled it.
            None => StatusCode::ACCEPTED.into_response(),
        }
    }

    /// Gives a request up. Returns the answer for the client if it still waits.
    pub(super) async fn give_up(&self, id: &RequestId, outcome: CallOutcome, why: &str) -> Option<String> {
        tracing::warn!("a request of grant {:?} is given up: {why}", self.holder.grant());
        self.conversation.link.fail(id, outcome, why).await
    }
}

/// Returns whether a server says by a status that it does not know the session any more.
fn response_ends_session(status: StatusCode, conversation: &Conversation) -> bool {
    status == StatusCode::NOT_FOUND && conversation.id().is_some()
}

/// Returns the server's answer to a request as the client gets it.
fn body_of(passed: Passed<'_>, bytes: &Bytes, id: &RequestId) -> Option<Body> {
    match passed.message.filter(|_| passed.answers.as_ref() == Some(id))? {
        Cow::Borrowed(_) => Some(bytes.clone().into()),
        Cow::Owned(message) => Some(message.into()),
    }
}

/// Returns whether a caller without a valid grant may send it: what a client needs to learn that a
/// call is denied.
fn is_harmless(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "tools/call" | "tools/list") || method.starts_with("notifications/")
}

/// Returns whether web pages of an origin may ask. Without this check any page that somebody opens
/// could, by having its own name resolve to this machine.
fn lets_in(origin: &HeaderValue, allowed: &[String]) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let is_loopback = || {
        let uri: Uri = origin.parse().ok()?;
        let (host, scheme) = (uri.host()?, uri.scheme_str()?);
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = host == "localhost" || plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        Some(is_local && !has_user && matches!(scheme, "http" | "https"))
    };
    allowed.iter().any(|allowed| allowed == origin) || is_loopback().unwrap_or(false)
}

/// Reads on for a while without keeping anything.
async fn spill(body: &mut Body) {
    let mut left = SPILL;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Returns the status for a client whose request the server has answered with this one. It is the
/// gateway's affair if the server wants credentials, and where it would rather be asked.
fn status_for_client(status: StatusCode) -> StatusCode {
    let is_own = matches!(status.as_u16(), 401 | 403 | 407) || !(status.is_client_error() || status.is_server_error());
    if is_own { StatusCode::BAD_GATEWAY } else { status }
}

fn json(status: StatusCode, text: impl Into<Body>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, text.into()).into_response()
}

/// An answer of HTTP, with a line for people.
pub(super) fn refuse(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

fn busy(why: &str) -> Response {
    with(refuse(StatusCode::SERVICE_UNAVAILABLE, why), RETRY_AFTER, "1")
}

fn with(mut response: Response, name: HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
