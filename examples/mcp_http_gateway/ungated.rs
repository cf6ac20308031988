//! The gateway without a gate, to measure what the gate costs: messages pass as they are, unread.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};

use crate::body::{self, Reply, Whole};
use crate::front::{Gateway, refuse};
use crate::headers::{self, SESSION};

/// Passes a request on, and its answer back.
pub(crate) async fn pass(gateway: &Arc<Gateway>, request: Request<Incoming>) -> Response<Reply> {
    let (head, mut body) = request.into_parts();
    let Ok(message) = body::whole(&mut body, gateway.options.max_message).await else {
        return refuse(StatusCode::BAD_REQUEST, "the message could not be read");
    };
    let mut headers = headers::to_server(&head.headers);
    for name in [CONTENT_TYPE, SESSION] {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let Ok(response) = gateway.upstream.send(head.method, headers, Whole::new(message)).await else {
        return refuse(StatusCode::BAD_GATEWAY, "the connection to the server was lost");
    };
    let (head, body) = response.into_parts();
    let mut passed = Response::new(Reply::Passed(body));
    *passed.status_mut() = head.status;
    *passed.headers_mut() = headers::to_client(&head.headers);
    if let Some(session) = head.headers.get(SESSION) {
        passed.headers_mut().insert(SESSION, session.clone());
    }
    passed
}
