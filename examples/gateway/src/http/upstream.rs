//! The servers behind the gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use toolgate::mcp::CallOutcome;

use super::headers;
use crate::config::Server;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept: less than common servers keep theirs, so that none is used
/// which is just being closed.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 256;

/// A server.
pub(super) struct Upstream {
    pub(super) name: String,
    /// The path at which clients reach it.
    pub(super) path: String,
    /// The headers of a client that it gets.
    pub(super) passed: Vec<HeaderName>,
    pub(super) integers_of_64_bits: bool,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    authorization: Option<HeaderValue>,
}

/// Why a request got no answer that the client can have.
#[derive(Debug)]
pub(super) struct Lost {
    /// The outcome of the request, if it is a call.
    pub(super) outcome: CallOutcome,
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl Lost {
    /// The request may have had an effect.
    pub(super) fn unclear(status: StatusCode, why: impl Into<String>) -> Self {
        Self { outcome: CallOutcome::Unclear(None), status, why: why.into() }
    }

    /// The server has not seen the request, or has done nothing.
    pub(super) fn not_run(status: StatusCode, why: &str) -> Self {
        Self { outcome: CallOutcome::NotRun, status, why: why.into() }
    }
}

/// How long a request waits for the server: until its time is over, or its session has ended.
#[derive(Clone)]
pub(super) struct Patience {
    pub(super) until: Option<Instant>,
    pub(super) closed: CancellationToken,
}

impl Patience {
    /// Waits for work, or returns why it was waited for no longer.
    pub(super) async fn wait_for<T>(&self, work: impl Future<Output = T>) -> Result<T, &'static str> {
        let late = async {
            match self.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = late => Err("the server has not answered in time"),
            () = self.closed.cancelled() => Err("the session has ended"),
        }
    }
}

impl Upstream {
    pub(super) fn new(name: &str, server: &Server) -> Result<Self, String> {
        let of = |why: &str| format!("servers.{name}: {why}");
        let url: Uri = server.url.parse().map_err(|_| of("`url` is not a URL"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() || url.query().is_some() {
            return Err(of("`url` is a URL such as http://127.0.0.1:9000/mcp, without a query"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(of("`url` has no user information: use `token_file`"));
        }
        let path = server.path.clone().unwrap_or_else(|| url.path().to_owned());
        if !path.starts_with('/') || path.contains(['{', '}', '*', '?']) {
            return Err(of("`path` begins with `/` and has no pattern and no query"));
        }
        let passed = headers::passed(&server.forward_headers).map_err(|why| of(&why))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(Arc::new(rustls::crypto::ring::default_provider()))
            .map_err(|error| of(&format!("the certificates of the system: {error}")))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(tls.https_or_http().enable_http1().wrap_connector(connector));
        let authorization = server.token_file.as_deref().map(authorization).transpose()?;
        let (name, integers_of_64_bits) = (name.to_owned(), server.integers_of_64_bits);
        Ok(Self { name, path, passed, integers_of_64_bits, client, url, authorization })
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        method: Method,
        mut headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Response<Body>, Lost> {
        self.authorization.clone().map(|authorization| headers.insert(AUTHORIZATION, authorization));
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        self.client.request(request).await.map(|answer| answer.map(Body::new)).map_err(|error| {
            if error.is_connect() {
                Lost::not_run(StatusCode::BAD_GATEWAY, "the server cannot be reached")
            } else {
                Lost::unclear(StatusCode::BAD_GATEWAY, "the connection to the server was lost")
            }
        })
    }
}

/// Reads the token that the gateway presents to a server.
fn authorization(file: &Path) -> Result<HeaderValue, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let token = std::fs::read_to_string(file).map_err(|error| said(&error))?;
    let mut header: HeaderValue =
        format!("Bearer {}", token.trim()).parse().map_err(|_| said(&"a token is visible ASCII, on one line"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLong,
    Broken,
}

/// Reads a body of at most `bound` bytes.
pub(super) async fn whole(body: &mut Body, bound: usize) -> Result<Bytes, Unread> {
    let read = Limited::new(body, bound).collect().await;
    read.map(|body| body.to_bytes())
        .map_err(|error| if error.is::<LengthLimitError>() { Unread::TooLong } else { Unread::Broken })
}
