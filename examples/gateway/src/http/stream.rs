//! A stream of the server on its way to the client: every message in it goes through the session,
//! everything else passes.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use toolgate::Policy;
use toolgate::mcp::RequestId;
use tracing::Span;

use super::events::{Event, Events};
use super::exchange::Exchange;
use super::finish::Finish;

/// The number of pieces that may wait for a client that reads slowly; then the server waits.
const PIECES: usize = 16;
/// How long a client may take for the last message.
const LAST_MESSAGE: Duration = Duration::from_secs(5);

/// A stream under way.
pub(super) struct Stream {
    pub(super) exchange: Exchange,
    /// The request that it answers; `None` for a stream that listens.
    pub(super) request: Option<RequestId>,
    pub(super) span: Span,
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// By the server, which may send the answer on another stream, as its events have ids.
    Resumable,
    Failed(&'static str),
}

impl Stream {
    /// Returns the stream for the client.
    pub(super) fn pass(self, body: Body) -> Body {
        let (pieces, mut stream) = mpsc::channel(PIECES);
        let mut work = Finish::new(self.run(body, pieces));
        // The work runs as the client reads, and notices when the client has gone.
        Body::from_stream(stream::poll_fn(move |context| {
            let _ = work.proceed(context);
            stream.poll_recv(context).map(|piece| piece.map(Ok::<Bytes, std::convert::Infallible>))
        }))
    }

    /// Passes the stream on to its end. If the client goes away, its call stays under way: the
    /// server works on it, and the client may ask for the answer again.
    async fn run(self, body: Body, pieces: mpsc::Sender<Bytes>) {
        let (conversation, mut client) = (&self.exchange.conversation, Some(pieces.clone()));
        let Some(id) = &self.request else {
            tokio::select! {
                _ = self.read(body, &mut client) => {}
                () = conversation.end_listeners.notified() => {}
                () = pieces.closed() => {}
            }
            return;
        };
        drop(pieces);
        let elsewhere = conversation.park(id);
        let end = self.read(body, &mut client).await;
        self.conclude(id, end, elsewhere, client).await;
    }

    async fn read(&self, body: Body, client: &mut Option<mpsc::Sender<Bytes>>) -> End {
        let mut body = body.into_data_stream();
        let (link, limits) = (&self.exchange.conversation.link, &self.exchange.gateway.limits);
        let mut patience = self.exchange.patience.clone();
        let latest = Instant::now() + limits.longest_timeout();
        let mut changes =
            self.exchange.listens.then(|| (link.host.policy_of(&link.who), link.host.changed.subscribe()));
        let mut events = Events::new(self.exchange.gateway.max_message());
        let (mut complete, mut resumable, mut answered) = (Vec::new(), false, false);
        loop {
            let next = tokio::select! {
                next = patience.wait_for(body.next()) => next,
                listed = changed(&mut changes) => {
                    let mut out = Vec::new();
                    let messages = link.list_changed(listed).await;
                    for (_, message) in messages.iter().filter(|(id, _)| *id == self.request) {
                        Event::message().write(&mut out, Some(message.as_bytes()));
                    }
                    if let (Some(to), false) = (&client, out.is_empty()) {
                        let _ = patience.wait_for(to.send(out.into())).await;
                    }
                    continue;
                }
            };
            let chunk = match next {
                Ok(Some(Ok(chunk))) => chunk,
                _ if answered => return End::Answered,
                Ok(Some(Err(_))) => return End::Failed("the connection to the server was lost"),
                Ok(None) if resumable => return End::Resumable,
                Ok(None) => return End::Failed("the server has ended the stream without an answer"),
                Err(why) => return End::Failed(why),
            };
            let taken = events.take(&chunk, &mut complete);
            let mut out = Vec::with_capacity(chunk.len() + 64);
            for event in complete.drain(..) {
                resumable |= event.has_id;
                match event.data.as_deref() {
                    Some(data) if !data.is_empty() => {
                        let passed = self.exchange.take_from_server(data, &self.span).await;
                        answered |= passed.answers.is_some() && passed.answers == self.request;
                        if let (Some(until), true) =
                            (&mut patience.until, passed.progress.is_some() && passed.progress == self.request)
                        {
                            let longer = limits.timeout().map(|timeout| Instant::now() + timeout);
                            *until = (*until).max(longer.unwrap_or(latest).min(latest));
                        }
                        event.write(&mut out, passed.message.as_deref().map(str::as_bytes));
                    }
                    data => event.write(&mut out, data),
                }
            }
            if let (Some(to), false) = (&client, out.is_empty()) {
                match patience.wait_for(to.send(out.into())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => *client = None,
                    Err(_) if answered => return End::Answered,
                    Err(why) => return End::Failed(why),
                }
            }
            match taken {
                _ if answered && (taken.is_err() || client.is_none()) => return End::Answered,
                Err(_) => return End::Failed("the server's answer is too long"),
                Ok(()) => {}
            }
        }
    }

    /// Makes sure that the request does not stay under way, and that the client learns its end.
    async fn conclude(
        &self,
        id: &RequestId,
        end: End,
        elsewhere: oneshot::Receiver<()>,
        client: Option<mpsc::Sender<Bytes>>,
    ) {
        let (why, client) = match end {
            End::Answered => (None, None),
            // This stream has nothing more. The answer comes on one that the client asks for.
            End::Resumable => {
                drop(client);
                (self.exchange.patience.wait_for(elsewhere).await.err(), None)
            }
            End::Failed(why) => (Some(why), client),
        };
        self.exchange.conversation.unpark(id);
        let Some(why) = why else { return };
        let answer = self.exchange.give_up(id, toolgate::mcp::CallOutcome::Unclear(None), why).await;
        if let (Some(answer), Some(client)) = (answer, client) {
            let mut out = Vec::new();
            Event::message().write(&mut out, Some(answer.as_bytes()));
            // A client that does not take it does not need it.
            let _ = timeout(LAST_MESSAGE, client.send(out.into())).await;
        }
    }
}

/// Waits for a change of the policy, for a client that listens. Returns the policy by which it has
/// listed its tools.
async fn changed(changes: &mut Option<(Option<Policy>, watch::Receiver<()>)>) -> &mut Option<Policy> {
    if let Some((listed, changed)) = changes
        && changed.changed().await.is_ok()
    {
        return listed;
    }
    std::future::pending().await
}
