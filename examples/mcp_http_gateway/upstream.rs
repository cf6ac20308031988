//! The server behind the gateway.

use std::path::Path;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::body::Whole;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept: less than common servers keep theirs, so that none is used which is just being closed.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 256;

pub(crate) struct Upstream {
    client: Client<HttpConnector, Whole>,
    url: Uri,
    authorization: Option<HeaderValue>,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No connection could be made: the server has seen nothing of it.
    Unreached,
    /// It may have arrived.
    Broken,
}

impl Upstream {
    /// The server at a URL, with the gateway's own credentials if it needs any.
    pub(crate) fn new(url: Uri, authorization: Option<HeaderValue>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { client, url, authorization }
    }

    /// Sends a request, and waits for the head of its answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        mut headers: HeaderMap,
        body: Whole,
    ) -> Result<Response<Incoming>, Lost> {
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        self.client
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { Lost::Unreached } else { Lost::Broken })
    }
}

/// The header that presents the token in a file.
pub(crate) fn authorization(file: &Path) -> Result<HeaderValue, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let token = std::fs::read_to_string(file).map_err(|error| said(&error))?;
    let mut header: HeaderValue =
        format!("Bearer {}", token.trim()).parse().map_err(|_| said(&"a token is visible ASCII, on one line"))?;
    header.set_sensitive(true);
    Ok(header)
}
