//! Lets in only who has a token of the operator.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::OperatorState;

/// Refuses requests without a bearer token of the operator. A header, unlike a cookie, is never
/// sent by a page of another origin.
pub(super) async fn check(State(state): State<OperatorState>, request: Request, next: Next) -> Response {
    let Some(tokens) = &state.0.tokens else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let token = given.and_then(|given| given.strip_prefix(b"Bearer "));
    // Digests are compared, so the time says nothing about the token.
    let digest: Option<[u8; 32]> = token.map(|token| Sha256::digest(token).into());
    if digest.is_some_and(|digest| tokens.contains(&digest)) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer realm="toolgate operator""#)];
    (StatusCode::UNAUTHORIZED, challenge, "a bearer token of the operator is needed\n").into_response()
}
