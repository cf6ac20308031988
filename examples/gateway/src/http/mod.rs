//! The gateway over streamable HTTP: who asks, from where, for what.
#![expect(clippy::result_large_err, reason = "either way it is an answer")]

mod events;
mod exchange;
mod finish;
mod headers;
mod sessions;
mod stream;
mod upstream;

use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::serve::ListenerExt;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use toolgate::mcp::{self, CallOutcome, RefusalFormat, RequestId};
use toolgate::{Clock, SystemClock};

use self::exchange::Exchange;
use self::headers::{SESSION, VERSION};
use self::sessions::{Conversation, Sessions};
use self::stream::{Patience, Stream};
use self::upstream::{Lost, Unread, Upstream, whole};
use crate::callers::{Callers, Holder};
use crate::config::{Config, Limits, Reading};
use crate::files::{Reader, Watched};
use crate::host::{Host, Parts};
use crate::serve::{self, Address, TlsInForce};
use crate::who::Who;

/// How long a client may take to send a message.
const READING: Duration = Duration::from_secs(30);
/// The part of a message that is too long which is read all the same, so that the client is there
/// for the answer.
const SPILL: usize = 64 << 20;
/// How often sessions are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// How long requests under way may take once the gateway stops.
const GRACE: Duration = Duration::from_secs(10);

/// A server, and the sessions with it.
struct Server {
    upstream: Upstream,
    sessions: Sessions,
}

/// Everything that requests share.
struct Gateway {
    host: Arc<Host>,
    servers: Vec<Arc<Server>>,
    callers: ArcSwap<Callers>,
    tls: TlsInForce,
    limits: Limits,
    format: Option<RefusalFormat>,
    /// Nothing is judged: for measuring alone.
    ungated: bool,
}

/// A request that has been let in.
struct Admitted {
    holder: Arc<Holder>,
    session: Option<HeaderValue>,
    slot: OwnedSemaphorePermit,
}

impl Gateway {
    fn max_message(&self) -> usize {
        usize::try_from(self.limits.max_message_bytes.get()).unwrap_or(usize::MAX)
    }

    async fn serve(self: Arc<Self>, server: Arc<Server>, request: Request) -> Response {
        let admitted = match self.admit(&server, &request) {
            Ok(admitted) => admitted,
            Err(refusal) => return refusal,
        };
        let answered = match *request.method() {
            _ if self.ungated => self.pass(&server, request).await,
            Method::POST => self.post(server, admitted, request).await,
            Method::GET => self.listen(server, admitted, request).await,
            _ => self.delete(&server, &admitted, request.headers().clone()).await,
        };
        answered.unwrap_or_else(|refusal| refusal)
    }

    /// Finds out who asks, and whether there is room. Nothing of the body has been read by then.
    fn admit(&self, server: &Server, request: &Request) -> Result<Admitted, Response> {
        let (head, callers) = (request.headers(), self.callers.load());
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
        let single = |name| headers::single(head, name);
        let (Ok(session), Ok(_)) = (single(&SESSION), single(&VERSION)) else {
            return Err(refuse(StatusCode::BAD_REQUEST, "a header appears twice"));
        };
        let slot = Arc::clone(&holder.slots).try_acquire_owned().map_err(|_| {
            with(refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way"), RETRY_AFTER, "1")
        })?;
        if request.method() == Method::POST && session.is_none() && !server.sessions.has_room(holder.grant()) {
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the grant has too many sessions"));
        }
        Ok(Admitted { session: session.cloned(), holder, slot })
    }

    /// Returns the session that the request names, or one for this request alone.
    fn conversation(
        &self,
        server: &Server,
        admitted: &Admitted,
        head: &HeaderMap,
    ) -> Result<Arc<Conversation>, Response> {
        let Some(id) = &admitted.session else {
            // A server without sessions is asked without one, each time with a version.
            let of_header = |version: &HeaderValue| version.to_str().ok().map(RefusalFormat::of_version);
            let format = self.format.or_else(|| head.get(VERSION).and_then(of_header));
            let server = Some(server.upstream.name.clone());
            return Ok(Conversation::new(Who { server, context: None, ..admitted.holder.who.clone() }, format));
        };
        server.sessions.find(id, &admitted.holder.who).ok_or_else(|| {
            let text = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#;
            json(StatusCode::NOT_FOUND, text)
        })
    }

    fn patience(&self, conversation: &Conversation) -> Patience {
        let until = self.limits.timeout().map(|timeout| Instant::now() + timeout);
        Patience { until, closed: conversation.closed.clone() }
    }

    async fn post(
        self: Arc<Self>,
        server: Arc<Server>,
        admitted: Admitted,
        request: Request,
    ) -> Result<Response, Response> {
        let (head, mut body) = request.into_parts();
        if headers::media_type(&head.headers).as_deref() != Some("application/json") {
            return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a message is plain application/json"));
        }
        let conversation = self.conversation(&server, &admitted, &head.headers)?;
        let message = match timeout(READING, whole(&mut body, self.max_message())).await {
            Ok(Ok(message)) => message,
            Ok(Err(Unread::TooLong)) => {
                let _ = timeout(READING, spill(&mut body)).await;
                let refusal = json(StatusCode::PAYLOAD_TOO_LARGE, mcp::too_long(self.max_message()));
                return Err(with(refusal, CONNECTION, "close"));
            }
            Ok(Err(Unread::Broken)) => return Err(refuse(StatusCode::BAD_REQUEST, "the message breaks off")),
            Err(_) => return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the message does not come")),
        };
        let mut headers = headers::to_server(&head.headers, conversation.id());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let who = conversation.who(admitted.holder.who.context.as_ref());
        let patience = self.patience(&conversation);
        let Admitted { holder, slot, .. } = admitted;
        let exchange = Exchange { gateway: self, server, holder, who, conversation, headers, patience, slot };
        Ok(exchange.run(message).await)
    }

    /// The stream on which the server sends messages unasked, or continues an earlier one.
    async fn listen(
        self: Arc<Self>,
        server: Arc<Server>,
        admitted: Admitted,
        request: Request,
    ) -> Result<Response, Response> {
        let holder = &admitted.holder;
        if !holder.is_good() {
            return Err(refuse(StatusCode::FORBIDDEN, "the grant has been revoked or has expired"));
        }
        let conversation = self.conversation(&server, &admitted, request.headers())?;
        let response = self.ask(&server, &conversation, Method::GET, request.headers()).await?;
        let (head, body) = response.into_parts();
        if headers::media_type(&head.headers).as_deref() != Some("text/event-stream") {
            return Err(refuse(StatusCode::BAD_GATEWAY, "the server's answer is not a stream"));
        }
        let headers = headers::to_client(&head.headers, conversation.id());
        // A client may listen as long as its grant or its token is good.
        let left = holder.expires_at.map(|end| end.saturating_since(SystemClock.now()));
        let until = left.and_then(|left| Instant::now().checked_add(left));
        let patience = Patience { until, closed: conversation.closed.clone() };
        let passing = Stream { gateway: self, conversation, patience, request: None };
        Ok((headers, passing.pass(body, admitted)).into_response())
    }

    async fn delete(&self, server: &Server, admitted: &Admitted, head: HeaderMap) -> Result<Response, Response> {
        let conversation = self.conversation(server, admitted, &head)?;
        let response = self.ask(server, &conversation, Method::DELETE, &head).await?;
        server.sessions.close(&conversation);
        Ok(refuse(response.status(), ""))
    }

    /// Passes on a request without a message. If the server refuses it, that is the error.
    async fn ask(
        &self,
        server: &Server,
        conversation: &Conversation,
        method: Method,
        head: &HeaderMap,
    ) -> Result<Response, Response> {
        let headers = headers::to_server(head, conversation.id());
        match self.patience(conversation).wait_for(server.upstream.send(method, headers, "")).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(response),
            Ok(Ok(response)) => {
                let status = response.status();
                if status == StatusCode::NOT_FOUND {
                    server.sessions.close(conversation);
                }
                let why = format!("the server answered with status {}", status.as_u16());
                let mut refusal = refuse(status_for_client(status), &why);
                response.headers().get(ALLOW).map(|allow| refusal.headers_mut().insert(ALLOW, allow.clone()));
                Err(refusal)
            }
            Ok(Err(Lost::Unreached)) => Err(refuse(StatusCode::BAD_GATEWAY, "the server cannot be reached")),
            Ok(Err(Lost::Broken)) => Err(refuse(StatusCode::BAD_GATEWAY, "the connection to the server was lost")),
            Err(cut) => Err(refuse(StatusCode::GATEWAY_TIMEOUT, cut.why())),
        }
    }

    /// Passes a request on as it is, unread, to measure the cost of the gate.
    async fn pass(&self, server: &Server, request: Request) -> Result<Response, Response> {
        let (head, mut body) = request.into_parts();
        let unreadable = |_| refuse(StatusCode::BAD_REQUEST, "the message could not be read");
        let message = whole(&mut body, self.max_message()).await.map_err(unreadable)?;
        let mut headers = headers::to_server(&head.headers, head.headers.get(SESSION));
        head.headers.get(CONTENT_TYPE).map(|kind| headers.insert(CONTENT_TYPE, kind.clone()));
        let lost = |_| refuse(StatusCode::BAD_GATEWAY, "the connection to the server was lost");
        let (head, body) = server.upstream.send(head.method, headers, message).await.map_err(lost)?.into_parts();
        Ok((head.status, headers::to_client(&head.headers, head.headers.get(SESSION)), body).into_response())
    }

    /// Gives a request up. Returns the answer for the client if it still waits.
    async fn give_up(
        &self,
        conversation: &Conversation,
        id: &RequestId,
        outcome: CallOutcome,
        why: &str,
    ) -> Option<String> {
        let failed = conversation.session().fail(id, outcome, why)?;
        tracing::warn!("a request of grant {:?} is given up: {why}", conversation.grant());
        if let Some(ended) = failed.ended {
            self.host.conclude(ended).await;
        }
        failed.answer
    }

    /// Puts what was read in force. Returns a line about it.
    fn put_in_force(&self, read: Reading, started_with: &Config) -> String {
        let Reading { config, policies, mut callers, tls } = read;
        let (grants, names) =
            (callers.by_grant.len(), policies.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        if let Some(of_host) = &self.host.grants {
            callers.put_in_force(policies, &self.callers.load(), of_host);
        }
        let news = format!("{grants} grants and {} policies are in force", names.len());
        self.host.set_policy_names(names);
        self.tls.store(tls);
        self.callers.store(Arc::new(callers));
        let callers = self.callers.load();
        for server in &self.servers {
            // A caller without a grant has no session either.
            server.sessions.sweep(|session| !callers.by_grant.contains_key(session.grant()));
        }
        match config.needs_restart(started_with) {
            Some(changed) => format!("{news}; {changed} takes effect at the next start"),
            None => news,
        }
    }

    /// Ends sessions that are idle for long, and the streams of grants that are not good any more.
    async fn look_after(self: Arc<Self>) {
        let mut every = tokio::time::interval(SWEEP);
        loop {
            every.tick().await;
            let callers = self.callers.load_full();
            let is_good = |grant: &str| callers.by_grant.get(grant).is_some_and(|holder| holder.is_good());
            for server in &self.servers {
                server.sessions.sweep(|_| false);
                server.sessions.for_each(|session| {
                    if !is_good(session.grant()) {
                        session.end_listeners.notify_waiters();
                    }
                });
            }
        }
    }

    fn for_each_session(&self, act: impl Fn(&Conversation)) {
        self.servers.iter().for_each(|server| server.sessions.for_each(&act));
    }
}

/// Runs the gateway until a signal stops it.
pub(crate) fn run(config: &Path, operator: Option<String>, ungated: bool) -> Result<ExitCode, String> {
    let Reading { config: started_with, .. } = Reading::read(config, &mut Reader::default())?;
    if ungated && !started_with.listen.ip().is_loopback() {
        return Err("--ungated is for measuring, and listens on a loopback address alone".into());
    }
    // Before there are other threads: the mode of a socket is that of the process for a moment.
    let operator = operator.or(started_with.operator.as_ref().map(|operator| operator.listen.clone()));
    let address = operator.map(|operator| Address::open(&operator)).transpose()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let done = runtime.block_on(async {
        let parts = Parts {
            with_grants: true,
            store: &started_with.store,
            audit: &started_with.audit,
            pins: &started_with.pins,
            has_operator: address.is_some(),
        };
        let host = Arc::new(Host::build(parts)?);
        let limits = started_with.limits.clone();
        let sessions = || {
            let per_grant = usize::try_from(limits.sessions_per_grant.get()).unwrap_or(usize::MAX);
            Sessions::new(per_grant, Duration::from_secs(limits.session_idle_seconds.into()))
        };
        let servers = started_with.servers.iter().map(|(name, server)| {
            Ok(Arc::new(Server { upstream: Upstream::new(name, server)?, sessions: sessions() }))
        });
        let gateway = Arc::new(Gateway {
            host,
            servers: servers.collect::<Result<_, String>>()?,
            callers: ArcSwap::default(),
            tls: TlsInForce::default(),
            format: started_with.refusals_as_errors.then_some(RefusalFormat::Error),
            limits,
            ungated,
        });
        serve(gateway, config, started_with, address).await
    });
    // What still runs has had its time.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

async fn serve(gateway: Arc<Gateway>, path: &Path, config: Config, operator: Option<Address>) -> Result<(), String> {
    let listen = config.listen;
    let tokens = config.operator.as_ref().map_or(Vec::new(), |operator| operator.token_sha256.clone());
    let (of_load, path, started_with) = (Arc::clone(&gateway), path.to_owned(), config.clone());
    let files = Watched::new("the former grants and policies stay in force", move |reader| {
        let read = Reading::read(&path, reader)?;
        let (gateway, started_with) = (Arc::clone(&of_load), started_with.clone());
        Ok(Box::new(move || gateway.put_in_force(read, &started_with)))
    });
    files.start()?;
    files.watch()?;
    let mut app = Router::new();
    for server in &gateway.servers {
        let (path, gateway, server) = (server.upstream.path.clone(), Arc::clone(&gateway), Arc::clone(server));
        if app.has_routes() && gateway.servers.iter().filter(|other| other.upstream.path == path).count() > 1 {
            return Err(format!("servers.{}: another server has the path {path}: set `path`", server.upstream.name));
        }
        app = app.route(&path, any(move |request: Request| Arc::clone(&gateway).serve(Arc::clone(&server), request)));
    }
    let app = app.fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing here") });
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // Answers are small, and waiting for more to send would only take time.
    let listener = listener.tap_io(|client| drop(client.set_nodelay(true)));
    let stop = CancellationToken::new();
    let operating = operator.map(|address| address.operate(&gateway.host, &tokens, files, stop.clone())).transpose()?;
    if gateway.ungated {
        tracing::warn!("--ungated: NOTHING IS JUDGED. Every call of every client passes. For measuring alone.");
    }
    let is_plain = gateway.tls.load().is_none();
    if is_plain && !address.ip().is_loopback() {
        tracing::warn!("tokens travel in plain text: set `tls`, or put a proxy with TLS in front");
    }
    for server in &gateway.servers {
        let scheme = if is_plain { "http" } else { "https" };
        tracing::info!("listening on {scheme}://{address}{}", server.upstream.path);
    }
    tokio::spawn(Arc::clone(&gateway).look_after());
    let graceful = serve::serve(listener, Arc::clone(&gateway.tls), app, stopped()).await;
    // Streams that only listen would continue for ever.
    gateway.for_each_session(|session| session.end_listeners.notify_waiters());
    let mut ended = pin!(graceful.shutdown());
    if timeout(GRACE, &mut ended).await.is_err() {
        gateway.for_each_session(Conversation::close);
        let _ = timeout(GRACE / 4, ended).await;
    }
    stop.cancel();
    if let Some(operating) = operating {
        let _ = operating.await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a signal to stop.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        },
        _ => std::future::pending().await,
    }
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

/// The answer to a JSON-RPC request.
fn answer(text: impl Into<Body>) -> Response {
    json(StatusCode::OK, text)
}

fn json(status: StatusCode, text: impl Into<Body>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, text.into()).into_response()
}

/// An answer of HTTP, with a line for people.
fn refuse(status: StatusCode, why: &str) -> Response {
    if why.is_empty() { status.into_response() } else { (status, format!("{why}\n")).into_response() }
}

fn with(mut response: Response, name: header::HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
