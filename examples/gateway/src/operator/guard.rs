//! Lets in only who has a token of the operator, and no web page of another origin.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::{OperatorState, error};

/// On a Unix socket there is no token. A port that forwards to the socket can be reached by web
/// pages, but none of another origin can send this header without a preflight, which is refused.
const OWN_HEADER: &str = "x-toolgate-operator";

/// The page runs its own scripts and styles, talks to its own origin, and does nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";

/// Refuses requests without a bearer token of the operator, or on a Unix socket without the header
/// of the page. A header, unlike a cookie, is never sent by a page of another origin.
pub(super) async fn token(State(state): State<OperatorState>, request: Request, next: Next) -> Response {
    let Some(tokens) = &state.0.tokens else {
        if request.headers().contains_key(OWN_HEADER) || request.uri().path() == "/metrics" {
            return next.run(request).await;
        }
        return error(StatusCode::FORBIDDEN, format!("a request has the header `{OWN_HEADER}: 1`"));
    };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let token = given.and_then(|given| given.strip_prefix(b"Bearer "));
    // Digests are compared, so the time says nothing about the token.
    let digest: Option<[u8; 32]> = token.map(|token| Sha256::digest(token).into());
    if digest.is_some_and(|digest| tokens.contains(&digest)) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer realm="toolgate operator""#)];
    (challenge, error(StatusCode::UNAUTHORIZED, "a bearer token of the operator is needed")).into_response()
}

/// Refuses requests for another host name, and those of pages of another origin.
///
/// A name that an attacker's DNS server points to this address makes the attacker's page one of the
/// same origin. An IP address and `localhost` cannot be pointed elsewhere, and other names are
/// configured.
pub(super) async fn same_site(State(state): State<OperatorState>, request: Request, next: Next) -> Response {
    match refusal(request.headers(), request.uri().authority(), &state.0.hosts) {
        Some(why) => error(StatusCode::FORBIDDEN, why),
        None => next.run(request).await,
    }
}

fn refusal(headers: &HeaderMap, target: Option<&Authority>, hosts: &[String]) -> Option<&'static str> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("invalid"));
    let host = match (target, text(header::HOST)) {
        (Some(target), None) => target.clone(),
        (None, Some(host)) => match host.parse() {
            Ok(host) => host,
            Err(_) => return Some("the `Host` header is not valid"),
        },
        (Some(target), Some(host)) if target.as_str() == host => target.clone(),
        _ => return Some("the request names no host, or two"),
    };
    if !is_fixed(host.host()) && !hosts.iter().any(|name| name.eq_ignore_ascii_case(host.host())) {
        return Some(
            "open the page at its IP address, `localhost`, or a host of `allow_hosts`: others could lead elsewhere",
        );
    }
    // `null` comes from a sandboxed frame or a file.
    let origins = ["http://", "https://"].map(|scheme| format!("{scheme}{host}"));
    if text(header::ORIGIN).is_some_and(|origin| !origins.iter().any(|own| own == origin)) {
        return Some("the request comes from a page of another origin");
    }
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let is_navigation = headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() == b"navigate");
    match site {
        None | Some(b"same-origin" | b"none") => None,
        // Following a link to the page is harmless: it acts only on what its reader does.
        Some(_) if is_navigation => None,
        Some(_) => Some("the request comes from a page of another site"),
    }
}

fn is_fixed(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

/// Sets the headers that confine the page, on every answer.
pub(super) async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let all = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in
        [("cross-origin-opener-policy", "same-origin"), ("cross-origin-resource-policy", "same-origin")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pairs: &[(&str, &str)]) -> bool {
        let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        refusal(&pairs.collect(), None, &["gate.example.com".to_owned()]).is_some()
    }

    #[test]
    fn accepts_addresses_and_localhost_as_hosts() {
        for host in ["127.0.0.1:9000", "localhost:9000", "LOCALHOST", "[::1]:9000", "10.0.0.7"] {
            assert!(!refused(&[("host", host)]), "{host}");
        }
    }

    #[test]
    fn accepts_a_configured_host_and_its_pages() {
        for host in ["gate.example.com", "GATE.example.com:8443"] {
            assert!(!refused(&[("host", host)]), "{host}");
        }
        let host = ("host", "gate.example.com");
        assert!(!refused(&[host, ("origin", "https://gate.example.com"), ("sec-fetch-site", "same-origin")]));
        assert!(refused(&[host, ("origin", "https://other.example.com")]));
        for host in ["x.gate.example.com", "gate.example.com.evil.example", "example.com"] {
            assert!(refused(&[("host", host)]), "{host}");
        }
    }

    #[test]
    fn refuses_names_that_could_lead_elsewhere() {
        for host in ["evil.example", "127.0.0.1.evil.example:9000", "localhost.evil.example", "local host", ""] {
            assert!(refused(&[("host", host)]), "{host}");
        }
        assert!(refused(&[]));
    }

    #[test]
    fn refuses_pages_of_another_origin() {
        let host = ("host", "127.0.0.1:9000");
        assert!(!refused(&[host, ("origin", "http://127.0.0.1:9000"), ("sec-fetch-site", "same-origin")]));
        for origin in ["http://127.0.0.1:9001", "http://localhost:9000", "https://evil.example", "null", ""] {
            assert!(refused(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(refused(&[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")]));
        assert!(refused(&[host, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")]));
        assert!(!refused(&[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
    }
}
