//! Which headers pass, and which end at the gateway.

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The headers of a client that every server gets.
const PASSED: [HeaderName; 5] = [
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Returns the names of the headers of a client that a server gets: those that every server gets,
/// and those that its operator has named. Some can never pass: those that the gateway writes, those
/// that belong to one connection, and names that servers may read as others.
pub(super) fn passed(named: &[String]) -> Result<Vec<HeaderName>, String> {
    let read = |name: &String| {
        let is_own = |name: &HeaderName| {
            let name = name.as_str();
            name.contains('_') || name.starts_with("mcp-") || is_of_connection(name) || is_of_gateway(name)
        };
        let read = name.parse().ok().filter(|name| !is_own(name));
        read.ok_or_else(|| format!("`forward_headers`: a client's `{name}` cannot pass"))
    };
    PASSED.into_iter().map(Ok).chain(named.iter().map(read)).collect()
}

/// Returns the headers that the server gets: those of the client that may pass, the id of the
/// session, and those that repeat what was judged. The client's own `Mcp-*` headers end here.
pub(super) fn to_server(
    client: &HeaderMap,
    passed: &[HeaderName],
    session: Option<&HeaderValue>,
    judged: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    headers.extend(judged);
    let of_connection = of_connection(client);
    for name in passed.iter().filter(|name| !is_named(&of_connection, name)) {
        for value in client.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(header::VIA, HeaderValue::from_static("1.1 toolgate"));
    // What is compressed cannot be judged.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    session.map(|session| headers.insert(SESSION, session.clone()));
    headers
}

/// Returns the headers of a server that the client gets, with the id of the session. The server
/// asks the gateway for credentials, not the client, and does not choose which web pages may read
/// the answers of the gateway.
pub(super) fn to_client(server: &HeaderMap, session: Option<&HeaderValue>) -> HeaderMap {
    let of_connection = of_connection(server);
    let ends_here = |name: &HeaderName| {
        let of_server =
            matches!(name.as_str(), "content-length" | "mcp-session-id" | "set-cookie" | "www-authenticate");
        of_server
            || name.as_str().starts_with("access-control-")
            || is_of_connection(name.as_str())
            || is_named(&of_connection, name)
    };
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in server.iter().filter(|(name, _)| !ends_here(name)) {
        headers.append(name, value.clone());
    }
    session.map(|session| headers.insert(SESSION, session.clone()));
    // Nothing on the way keeps what is for one client.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
}

/// Returns the header with the version of the protocol, for a request without a message.
pub(super) fn version(client: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
    client.get(VERSION).map(|version| (VERSION, version.clone()))
}

/// Returns the headers that the library has written from a message. They are valid ones.
pub(super) fn written(headers: Vec<(Box<str>, String)>) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    headers.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.try_into().ok()?)))
}

fn is_of_connection(name: &str) -> bool {
    name.starts_with("proxy-")
        || matches!(name, "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade")
}

/// Returns whether the gateway writes the header anew, or is the one to whom a client speaks by it.
fn is_of_gateway(name: &str) -> bool {
    let of_body = matches!(name, "accept-encoding" | "content-encoding" | "content-length" | "content-type");
    of_body || matches!(name, "authorization" | "expect" | "host" | "origin" | "via")
}

/// Returns the values of `Connection`, which name more headers of one connection.
fn of_connection(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).collect()
}

fn is_named(of_connection: &[&str], name: &HeaderName) -> bool {
    of_connection.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
}

/// Returns the value of a header, or an error if it appears twice: two readers could take different
/// ones.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(()),
    }
}

/// Returns the type of the body, without its parameters and in lower case. `None` for a compressed
/// body.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return None;
    }
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
