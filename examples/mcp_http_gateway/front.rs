//! The gateway's side of HTTP: who asks, from where, for what.
#![expect(clippy::result_large_err, reason = "either way it is an answer")]

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use toolgate::mcp::{self, CallOutcome, FinishedCall, RefusalFormat, RequestId};
use toolgate::store::AsyncCounterStore;
use toolgate::{AsyncPermit, Gate, Grants, ToolCall};

use crate::body::{self, Reply, Unread, Whole};
use crate::conversations::{Conversation, Conversations, Using};
use crate::exchange::Exchange;
use crate::finish::Finish;
use crate::gateway::log::say;
use crate::gateway::text::plain;
use crate::headers::{self, SESSION, VERSION};
use crate::holders::{Holder, Holders};
use crate::options::Options;
use crate::stream::{PIECES, Patience, Stream};
use crate::upstream::{Lost, Upstream};

/// How long a client may take to send a message.
const READING: Duration = Duration::from_secs(30);
/// How much of a message that is too long is read all the same, so that the client is there for the answer.
const SPILL: usize = 64 << 20;

pub(crate) type Store = Box<dyn AsyncCounterStore>;

/// All that requests share.
pub(crate) struct Gateway {
    pub(crate) options: Options,
    pub(crate) upstream: Upstream,
    pub(crate) gate: Gate<Store>,
    pub(crate) grants: Grants<Store>,
    pub(crate) holders: ArcSwap<Holders>,
    pub(crate) conversations: Conversations,
}

/// A request that has been let in.
struct Admitted {
    holder: Arc<Holder>,
    session: Option<HeaderValue>,
    slot: OwnedSemaphorePermit,
}

impl Gateway {
    /// Answers a request.
    pub(crate) async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let admitted = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(refusal) => return refusal,
        };
        let method = request.method().clone();
        if self.options.ungated {
            return crate::ungated::pass(&self, request).await;
        }
        match method {
            Method::POST => self.post(admitted, request).await,
            Method::GET => self.listen(admitted, request).await,
            _ => self.delete(admitted, request).await,
        }
    }

    /// Finds out who asks, and whether there is room. Nothing has been read of the body by then.
    fn admit(&self, request: &Request<Incoming>) -> Result<Admitted, Response<Reply>> {
        let (head, method) = (request.headers(), request.method());
        if request.uri().path() != self.options.path() {
            return Err(refuse(StatusCode::NOT_FOUND, "there is nothing here"));
        }
        if !head.get_all(ORIGIN).iter().all(|origin| self.options.lets_in(origin)) {
            return Err(refuse(StatusCode::FORBIDDEN, "pages of this origin may not ask"));
        }
        if ![Method::POST, Method::GET, Method::DELETE].contains(method) {
            let mut refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, "POST, GET and DELETE are what there is");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
            return Err(refusal);
        }
        let holder = self.holder(head)?;
        let single = |name| headers::single(head, name);
        let (Ok(session), Ok(_)) = (single(&SESSION), single(&VERSION)) else {
            return Err(refuse(StatusCode::BAD_REQUEST, "a header is there twice"));
        };
        let slot = Arc::clone(&holder.slots).try_acquire_owned().map_err(|_| {
            let mut refusal = refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way");
            refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            refusal
        })?;
        Ok(Admitted { holder, session: session.cloned(), slot })
    }

    /// Whose token the request has.
    fn holder(&self, head: &HeaderMap) -> Result<Arc<Holder>, Response<Reply>> {
        let unauthorized = |challenge| {
            let mut refusal = refuse(StatusCode::UNAUTHORIZED, "a bearer token of this gateway is needed");
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            refusal
        };
        let given = headers::single(head, &AUTHORIZATION).ok().flatten();
        let token = given.and_then(|given| {
            let (scheme, token) = given.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        let token = token.ok_or_else(|| unauthorized(r#"Bearer realm="toolgate""#))?;
        let holder = self.holders.load().of_token(token).cloned();
        holder.ok_or_else(|| unauthorized(r#"Bearer realm="toolgate", error="invalid_token""#))
    }

    /// The session that a request names; a new one, if it names none.
    fn conversation(&self, admitted: &Admitted, head: &HeaderMap) -> Result<Using, Response<Reply>> {
        let Admitted { holder, session, .. } = admitted;
        match session {
            Some(id) => self.conversations.find(id, &holder.grant).ok_or_else(|| {
                let text = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#;
                json(StatusCode::NOT_FOUND, text)
            }),
            None => {
                // Only a server that keeps no sessions is asked again without one, and says its version each time.
                let of_header = |version: &HeaderValue| version.to_str().ok().map(RefusalFormat::of_version);
                let form = self.options.form.or_else(|| head.get(VERSION).and_then(of_header));
                Ok(Conversation::new(&holder.grant, form).using())
            }
        }
    }

    async fn post(self: Arc<Self>, admitted: Admitted, request: Request<Incoming>) -> Response<Reply> {
        let (head, mut body) = request.into_parts();
        let head = head.headers;
        if headers::media_type(&head) != "application/json" || headers::is_encoded(&head) {
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a message is plain application/json");
        }
        if admitted.session.is_none() && !self.conversations.has_room(&admitted.holder.grant) {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "the grant has too many sessions");
        }
        let conversation = match self.conversation(&admitted, &head) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal,
        };
        let bound = self.options.max_message;
        let message = match timeout(READING, body::whole(&mut body, bound)).await {
            Ok(Ok(message)) => message,
            Ok(Err(Unread::TooLong)) => {
                spill(&mut body).await;
                let mut refusal = json(StatusCode::PAYLOAD_TOO_LARGE, mcp::too_long(bound));
                refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return refusal;
            }
            Ok(Err(Unread::Broken)) => return refuse(StatusCode::BAD_REQUEST, "the message breaks off"),
            Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the message does not come"),
        };
        let mut headers = headers::to_server(&head);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(session) = conversation.id() {
            headers.insert(SESSION, session.clone());
        }
        let Admitted { holder, slot, .. } = admitted;
        Exchange { gateway: self, holder, conversation, headers, slot }.run(message).await
    }

    /// The stream on which the server speaks unasked, or goes on after one that was broken off.
    async fn listen(self: Arc<Self>, admitted: Admitted, request: Request<Incoming>) -> Response<Reply> {
        if !admitted.holder.is_good() {
            return refuse(StatusCode::FORBIDDEN, "the grant has been revoked or has expired");
        }
        let conversation = match self.conversation(&admitted, request.headers()) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal,
        };
        let (response, patience) = match self.ask(&conversation, Method::GET, request.headers()).await {
            Ok(answered) => answered,
            Err(refusal) => return refusal,
        };
        let (head, body) = response.into_parts();
        let is_stream = headers::media_type(&head.headers) == "text/event-stream";
        if !is_stream || headers::is_encoded(&head.headers) {
            return refuse(StatusCode::BAD_GATEWAY, "the server's answer is no stream");
        }
        let (pieces, stream) = mpsc::channel(PIECES);
        let passing = Stream { gateway: self, conversation, patience, client: Some(pieces), request: None };
        let mut headers = headers::to_client(&head.headers);
        if let Some(session) = passing.conversation.id() {
            headers.insert(SESSION, session.clone());
        }
        let work = async move {
            passing.pass(body).await;
            drop(admitted);
        };
        let mut response = Response::new(Reply::Stream(stream, Finish::new(work)));
        *response.headers_mut() = headers;
        response
    }

    async fn delete(self: Arc<Self>, admitted: Admitted, request: Request<Incoming>) -> Response<Reply> {
        let conversation = match self.conversation(&admitted, request.headers()) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal,
        };
        match self.ask(&conversation, Method::DELETE, request.headers()).await {
            Ok((response, _)) => {
                self.conversations.close(&conversation);
                refuse(response.status(), "")
            }
            Err(refusal) => refusal,
        }
    }

    /// Passes a request on that has no message. What the server does not grant is the client's answer.
    async fn ask(
        &self,
        conversation: &Using,
        method: Method,
        head: &HeaderMap,
    ) -> Result<(Response<Incoming>, Patience), Response<Reply>> {
        let mut headers = headers::to_server(head);
        if let Some(session) = conversation.id() {
            headers.insert(SESSION, session.clone());
        }
        let until = self.options.timeout.map(|timeout| Instant::now() + timeout);
        let mut patience = Patience { until, stage: conversation.stage() };
        let sent = patience.wait_for(self.upstream.send(method, headers, Whole::new(Bytes::new()))).await;
        // Whoever listens does so without end.
        patience.until = None;
        match sent {
            Ok(Ok(response)) if response.status().is_success() => Ok((response, patience)),
            Ok(Ok(response)) => {
                let status = response.status();
                if status == StatusCode::NOT_FOUND {
                    self.conversations.close(conversation);
                }
                let why = format!("the server answered with status {}", status.as_u16());
                let mut refusal = refuse(Self::status_for_client(status), &why);
                if let Some(allow) = response.headers().get(ALLOW) {
                    refusal.headers_mut().insert(ALLOW, allow.clone());
                }
                Err(refusal)
            }
            Ok(Err(Lost::Unreached)) => Err(refuse(StatusCode::BAD_GATEWAY, "the server cannot be reached")),
            Ok(Err(Lost::Broken)) => Err(refuse(StatusCode::BAD_GATEWAY, "the connection to the server was lost")),
            Err(cut) => Err(refuse(StatusCode::GATEWAY_TIMEOUT, cut.why())),
        }
    }

    /// The status that a client gets where the server answered with this one. That the server wants credentials is the gateway's
    /// affair, and so is where it would rather be asked.
    pub(crate) fn status_for_client(status: StatusCode) -> StatusCode {
        let is_own =
            matches!(status.as_u16(), 401 | 403 | 407) || !(status.is_client_error() || status.is_server_error());
        if is_own { StatusCode::BAD_GATEWAY } else { status }
    }

    /// Tells the server that nobody uses a session.
    pub(crate) fn end_upstream(self: &Arc<Self>, session: &HeaderValue) {
        let (gateway, session) = (Arc::clone(self), session.clone());
        tokio::spawn(async move {
            let mut headers = headers::to_server(&HeaderMap::new());
            headers.insert(SESSION, session);
            // One that does not hear of it lets it run out.
            let send = gateway.upstream.send(Method::DELETE, headers, Whole::new(Bytes::new()));
            let _ = timeout(READING, send).await;
        });
    }

    /// Takes out of a list what the grant's policy, as it is now, does not list; everything, if the grant is good for nothing.
    pub(crate) fn filter_tools_list(&self, grant: &str, result: &mut serde_json::Value) {
        let caller = ToolCall::new("", None::<&serde_json::Value>).grant(grant).server(self.options.server.as_str());
        let policy = self.grants.gate(&caller).ok().and_then(|gate| gate.policy());
        mcp::filter_tools_list(policy.as_ref(), result);
    }

    /// Gives a request up: what to tell the client, if it still waits.
    pub(crate) async fn give_up(
        &self,
        conversation: &Using,
        id: &RequestId,
        ending: CallOutcome,
        why: &str,
    ) -> Option<String> {
        let failed = conversation.session().fail(id, ending, why)?;
        self.note(&format!("a request of grant {} is given up: {why}", conversation.grant));
        if let Some(ended) = failed.ended {
            self.conclude(ended).await;
        }
        failed.answer
    }

    pub(crate) async fn conclude(&self, ended: FinishedCall<AsyncPermit>) {
        if let Err(error) = ended.conclude().await {
            self.note(&format!("a permit could not be concluded: {error}"));
        }
    }

    /// Writes a line for whoever runs the gateway.
    pub(crate) fn note(&self, text: &str) {
        say(plain(text));
    }
}

/// Reads on for a while without keeping anything.
async fn spill(body: &mut Incoming) {
    let reading = async {
        let mut left = SPILL;
        while let Some(Ok(bytes)) = body::next(body).await {
            match left.checked_sub(bytes.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = timeout(READING, reading).await;
}

/// The answer to a request of JSON-RPC.
pub(crate) fn answer(text: impl Into<Bytes>) -> Response<Reply> {
    json(StatusCode::OK, text)
}

pub(crate) fn json(status: StatusCode, text: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

/// An answer of HTTP's own, with a line for people.
pub(crate) fn refuse(status: StatusCode, why: &str) -> Response<Reply> {
    let text = if why.is_empty() { String::new() } else { format!("{why}\n") };
    let mut response = Response::new(Reply::whole(text));
    *response.status_mut() = status;
    if !why.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}
