//! Which headers pass, and which end at the gateway.

use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VIA};

pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// They belong to one connection, whichever way they go.
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The client's, which the server does not get: what was meant for the gateway, what the gateway has judged and writes anew, and
/// what a client could say of its own origin.
const OF_CLIENT: [&str; 15] = [
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "mcp-session-id",
    "origin",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// The server's, which the client does not get: the server asks the gateway for credentials, not the client, and has no say in which
/// web pages may read what the gateway answers.
const OF_SERVER: [&str; 9] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "content-length",
    "mcp-session-id",
    "set-cookie",
    "www-authenticate",
];

/// What of a client's headers the server gets.
pub(crate) fn to_server(client: &HeaderMap) -> HeaderMap {
    let mut headers = passed(client, &OF_CLIENT);
    headers.append(VIA, HeaderValue::from_static("1.1 toolgate"));
    // What is compressed cannot be judged.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

/// What of a server's headers the client gets.
pub(crate) fn to_client(server: &HeaderMap) -> HeaderMap {
    passed(server, &OF_SERVER)
}

fn passed(headers: &HeaderMap, stopped: &[&str]) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let stays = |name: &HeaderName| {
        let name_text = name.as_str();
        !OF_CONNECTION.contains(&name_text) && !stopped.contains(&name_text) && !named.contains(name)
    };
    let mut passed = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        if stays(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// The value of a header that may be there once; an error, if it is there twice: two readers could take two of it.
pub(crate) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(()),
    }
}

/// The type of the body, without its parameters and in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the body is compressed.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}
