//! The servers behind the gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

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
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    authorization: Option<HeaderValue>,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// No connection could be made: the server has seen nothing of it.
    Unreached,
    /// It may have arrived.
    Broken,
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
        Ok(Self { name: name.to_owned(), path, client, url, authorization })
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
        let answer = self.client.request(request).await;
        answer
            .map(|answer| answer.map(Body::new))
            .map_err(|error| if error.is_connect() { Lost::Unreached } else { Lost::Broken })
    }
}

/// Returns the header that presents the token in a file.
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
