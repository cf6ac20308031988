//! Which headers pass, and which end at the gateway.

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// They belong to one connection, in both directions.
const OF_CONNECTION: &str = "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer \
    transfer-encoding upgrade";

/// The client's, which the server does not get: those meant for the gateway, those that the gateway
/// writes anew, and those by which a client could say something about its own origin.
const OF_CLIENT: &str = "accept-encoding authorization content-encoding content-length content-type cookie expect \
    forwarded host mcp-session-id origin x-forwarded-for x-forwarded-host x-forwarded-proto \
    x-real-ip";

/// The server's, which the client does not get: the server asks the gateway for credentials, not
/// the client, and does not choose which web pages may read the answers of the gateway.
const OF_SERVER: &str = "access-control-allow-credentials access-control-allow-headers access-control-allow-methods \
    access-control-allow-origin access-control-expose-headers content-length mcp-session-id \
    set-cookie www-authenticate";

/// Returns the headers of a client that the server gets, with the id of the session.
pub(super) fn to_server(client: &HeaderMap, session: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = passed(client, OF_CLIENT);
    headers.append(header::VIA, HeaderValue::from_static("1.1 toolgate"));
    // What is compressed cannot be judged.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    session.map(|session| headers.insert(SESSION, session.clone()));
    headers
}

/// Returns the headers of a server that the client gets, with the id of the session.
pub(super) fn to_client(server: &HeaderMap, session: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = passed(server, OF_SERVER);
    session.map(|session| headers.insert(SESSION, session.clone()));
    // Nothing on the way keeps what is for one client.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
}

fn passed(headers: &HeaderMap, stopped: &str) -> HeaderMap {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = connection.flat_map(|value| value.split(',')).map(str::trim).collect();
    let passes = |name: &str| {
        let is_named = || named.iter().any(|named| named.eq_ignore_ascii_case(name));
        OF_CONNECTION.split(' ').chain(stopped.split(' ')).all(|stopped| stopped != name) && !is_named()
    };
    let mut passed = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers.iter().filter(|(name, _)| passes(name.as_str())) {
        passed.append(name.clone(), value.clone());
    }
    passed
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
