//! The activity of the gateway: the limits of its callers, and its decisions as they are made.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio_stream::wrappers::BroadcastStream;
use toolgate::audit::AuditRecord;
use toolgate::{Clock, SystemClock};

use super::{OperatorState, error};
use crate::who::Who;

/// The most readers that follow the decisions at once.
pub(super) const FOLLOWERS: usize = 32;
/// The most callers whose limits one answer has: each one asks the store.
const CALLERS: usize = 50;
/// A reader takes a longer silence for a broken connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn usage(State(state): State<OperatorState>, Query(who): Query<Who>) -> Response {
    match state.host().usage(&who).await {
        Ok(limits) => Json(limits).into_response(),
        Err(message) => error(StatusCode::CONFLICT, message),
    }
}

/// The limits of the callers that were seen last.
pub(super) async fn callers(State(state): State<OperatorState>) -> Json<Value> {
    let known = state.host().journal.callers();
    let mut callers = Vec::new();
    for who in known.iter().take(CALLERS) {
        let (limits, problem) = match state.host().usage(who).await {
            Ok(limits) => (limits, None),
            Err(message) => (Vec::new(), Some(message)),
        };
        let mut caller = json!(who);
        if let Some(names) = caller.as_object_mut() {
            names.retain(|_, name| !name.is_null());
        }
        callers.push(json!({ "caller": caller, "limits": limits, "problem": problem }));
    }
    Json(json!({ "now": SystemClock.now(), "callers": callers, "omitted": known.len().saturating_sub(CALLERS) }))
}

/// The last records, and those to come. `start` says that earlier ones are not continued.
pub(super) async fn events(State(state): State<OperatorState>) -> Response {
    let Ok(place) = Arc::clone(&state.0.followers).try_acquire_owned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, format!("at most {FOLLOWERS} readers can follow the decisions"));
    };
    let (recent, live) = state.host().journal.follow();
    let start = stream::iter([Event::default().event("start").data("{}")]);
    let recent = stream::iter(recent).map(|record| to_event(&record));
    // A reader that is too slow misses records. Its stream ends, and it begins again.
    let live = BroadcastStream::new(live)
        .take_while(|record| std::future::ready(record.is_ok()))
        .filter_map(|record| std::future::ready(record.ok()))
        .map(move |record| {
            let _ = &place;
            to_event(&record)
        });
    let events = start.chain(recent).chain(live).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

/// Writes a record without the values of the call, which the page does not show.
fn to_event(record: &AuditRecord) -> Event {
    let mut value = json!(record);
    if let Some(members) = value.as_object_mut() {
        members.remove("arguments");
        members.remove("context");
    }
    Event::default().event("record").data(value.to_string())
}
