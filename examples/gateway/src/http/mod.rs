//! The gateway over streamable HTTP: who asks, from where, for what.
#![expect(clippy::result_large_err, reason = "either way it is an answer")]

mod events;
mod exchange;
mod finish;
mod headers;
mod sessions;
mod stream;
mod upstream;

use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::serve::ListenerExt;
use futures_util::{FutureExt, StreamExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use toolgate::AsyncPermit;
use toolgate::mcp::{RefusalFormat, ServerState};

use self::exchange::{Admitted, Exchange, refuse};
use self::headers::SESSION;
use self::sessions::{Conversation, Sessions};
use self::upstream::{Upstream, whole};
use crate::callers::Callers;
use crate::config::{Config, Limits, Operator, Reading};
use crate::files::{Reader, Watched};
use crate::host::Host;
use crate::link::Speech;
use crate::serve::{self, Address, TlsInForce};

/// How often sessions are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// How long requests under way may take once the gateway stops.
const GRACE: Duration = Duration::from_secs(10);

/// A server, and the sessions with it.
struct Server {
    upstream: Upstream,
    sessions: Sessions,
    /// The calls that go on from one request to another, and the tools that have been listed.
    state: ServerState<AsyncPermit>,
}

/// Everything that requests share.
struct Gateway {
    host: Arc<Host>,
    servers: Vec<Arc<Server>>,
    callers: ArcSwap<Callers>,
    tls: TlsInForce,
    limits: Limits,
    speech: Speech,
    /// Nothing is judged: for measuring alone.
    ungated: bool,
}

impl Gateway {
    fn max_message(&self) -> usize {
        usize::try_from(self.limits.max_message_bytes.get()).unwrap_or(usize::MAX)
    }

    /// Returns when a request that begins now is late.
    fn until(&self) -> Option<Instant> {
        self.limits.timeout().map(|timeout| Instant::now() + timeout)
    }

    async fn serve(self: Arc<Self>, server: Arc<Server>, request: Request) -> Response {
        let answered = match Admitted::admit(&self, &request) {
            Ok(_admitted) if self.ungated => self.pass(&server, request).await,
            Ok(admitted) => match Exchange::new(self, server, admitted, &request) {
                Ok(exchange) => exchange.answer(request).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|refusal| refusal)
    }

    /// Passes a request on as it is, unread, to measure the cost of the gate.
    async fn pass(&self, server: &Server, request: Request) -> Result<Response, Response> {
        let (head, mut body) = request.into_parts();
        let unreadable = |_| refuse(StatusCode::BAD_REQUEST, "the message could not be read");
        let message = whole(&mut body, self.max_message()).await.map_err(unreadable)?;
        let (session, version) = (head.headers.get(SESSION), headers::version(&head.headers));
        let mut headers = headers::to_server(&head.headers, &server.upstream.passed, session, version);
        head.headers.get(CONTENT_TYPE).map(|kind| headers.insert(CONTENT_TYPE, kind.clone()));
        let answer = server.upstream.send(head.method, headers, message).await;
        let (answer, body) = answer.map_err(|lost| refuse(lost.status, &lost.why))?.into_parts();
        let headers = headers::to_client(&answer.headers, answer.headers.get(SESSION));
        Ok((answer.status, headers, body).into_response())
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
pub(crate) async fn run(path: &Path, operator: Option<String>, ungated: bool) -> Result<ExitCode, String> {
    let Reading { config, .. } = Reading::read(path, &mut Reader::default())?;
    if ungated && !config.listen.ip().is_loopback() {
        return Err("--ungated is for measuring, and listens on a loopback address alone".into());
    }
    let operator = match operator {
        Some(listen) => Some(Operator { listen, ..config.operator.clone().unwrap_or_default() }),
        None => config.operator.clone(),
    };
    let page = match &operator {
        Some(operator) => Some(Address::open(&operator.listen).await?),
        None => None,
    };
    let (limits, listen) = (config.limits.clone(), config.listen);
    let servers = config.servers.iter().map(|(name, server)| {
        let (upstream, sessions) = (Upstream::new(name, server)?, Sessions::new(&limits));
        Ok(Arc::new(Server { upstream, sessions, state: ServerState::new() }))
    });
    let gateway = Arc::new(Gateway {
        host: Host::build(true, &config.store, &config.audit, &config.pins, &config.approvals, operator.is_some())?,
        servers: servers.collect::<Result<_, String>>()?,
        callers: ArcSwap::default(),
        tls: TlsInForce::default(),
        speech: Speech {
            format: config.refusals_as_errors.then_some(RefusalFormat::Error),
            page: config.approvals.page.clone(),
            list_ttl: Duration::from_secs(limits.list_ttl_seconds.into()),
        },
        limits,
        ungated,
    });
    let (of_load, path) = (Arc::clone(&gateway), path.to_owned());
    let files = Watched::new("the former grants and policies stay in force", move |reader| {
        let read = Reading::read(&path, reader)?;
        let (gateway, started_with) = (Arc::clone(&of_load), config.clone());
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
    let operating = page.zip(operator.as_ref());
    let operating = operating.map(|(page, config)| page.operate(&gateway.host, config, files, stop.clone()));
    let operating = operating.transpose()?;
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
    let per_peer = gateway.limits.connections_per_peer.get();
    let stopped = serve::signals().into_future().map(|_| ());
    let graceful = serve::serve(listener, per_peer, Arc::clone(&gateway.tls), app, stopped).await;
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
    Ok(ExitCode::SUCCESS)
}
