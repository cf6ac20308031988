//! A stream of the server on its way to the client: every message in it goes through the session,
//! everything else passes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use toolgate::mcp::{CallOutcome, FromServer, RequestId};

use super::Gateway;
use super::events::{Event, Events};
use super::finish::Finish;
use super::sessions::Conversation;

/// The number of pieces that may wait for a client that reads slowly; then the server waits.
const PIECES: usize = 16;
/// How long a client may take for the last message.
const LAST_MESSAGE: Duration = Duration::from_secs(5);

/// Why something was waited for no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Late,
    Closed,
}

impl Cut {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Late => "the server has not answered in time",
            Self::Closed => "the session has ended",
        }
    }
}

/// How long a request waits for the server: until its time is over, or its session has ended.
#[derive(Clone)]
pub(super) struct Patience {
    pub(super) until: Option<Instant>,
    pub(super) closed: CancellationToken,
}

impl Patience {
    pub(super) async fn wait_for<T>(&self, work: impl Future<Output = T>) -> Result<T, Cut> {
        let late = async {
            match self.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = late => Err(Cut::Late),
            () = self.closed.cancelled() => Err(Cut::Closed),
        }
    }
}

/// A stream under way.
pub(super) struct Stream {
    pub(super) gateway: Arc<Gateway>,
    pub(super) conversation: Arc<Conversation>,
    pub(super) patience: Patience,
    /// The request that it answers; `None` for a stream that listens.
    pub(super) request: Option<RequestId>,
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By the server, who may send the answer on another stream if its events have ids.
    Clean {
        resumable: bool,
    },
    Answered,
    Lost,
    TooLong,
    Cut(Cut),
    /// Nobody listens.
    Gone,
}

impl Stream {
    /// Returns the stream for the client. It holds `slot` to its end.
    pub(super) fn pass(self, body: Body, slot: impl Send + 'static) -> Body {
        let (pieces, mut stream) = mpsc::channel(PIECES);
        let mut work = Finish::new(async move {
            self.run(body, pieces).await;
            drop(slot);
        });
        // The work runs as the client reads, and notices when the client has gone.
        Body::from_stream(stream::poll_fn(move |context| {
            let _ = work.proceed(context);
            stream.poll_recv(context).map(|piece| piece.map(Ok::<Bytes, std::convert::Infallible>))
        }))
    }

    /// Passes the stream on to its end. If the client goes away, its call stays under way: the
    /// server works on it, and the client may ask for the answer again.
    async fn run(mut self, body: Body, pieces: mpsc::Sender<Bytes>) {
        let mut client = Some(pieces);
        let Some(id) = self.request.clone() else {
            let conversation = Arc::clone(&self.conversation);
            tokio::select! {
                _ = self.read(body, &mut client) => {}
                () = conversation.end_listeners.notified() => {}
            }
            return;
        };
        let elsewhere = self.conversation.park(&id);
        let end = self.read(body, &mut client).await;
        self.conclude(&id, end, elsewhere, client).await;
    }

    async fn read(&mut self, mut body: Body, client: &mut Option<mpsc::Sender<Bytes>>) -> End {
        let mut events = Events::new(self.gateway.max_message());
        let (mut complete, mut resumable, mut answered) = (Vec::new(), false, false);
        loop {
            let chunk = match self.next(&mut body, client.as_ref()).await {
                Ok(Some(Ok(chunk))) => chunk,
                _ if answered => return End::Answered,
                Ok(Some(Err(_))) => return End::Lost,
                Ok(None) => return End::Clean { resumable },
                Err(end) => return end,
            };
            let taken = events.take(&chunk, &mut complete);
            let mut out = Vec::with_capacity(chunk.len() + 64);
            for event in complete.drain(..) {
                resumable |= event.has_id;
                match event.data.as_deref() {
                    Some(data) if !data.is_empty() => {
                        let (message, answers) = from_server(&self.gateway, &self.conversation, data).await;
                        answered |= answers.is_some() && answers == self.request;
                        event.write(&mut out, message.as_deref());
                    }
                    data => event.write(&mut out, data),
                }
            }
            if let (Some(to), false) = (&client, out.is_empty()) {
                match self.patience.wait_for(to.send(out.into())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => *client = None,
                    Err(cut) => return if answered { End::Answered } else { End::Cut(cut) },
                }
            }
            match taken {
                _ if answered && (taken.is_err() || client.is_none()) => return End::Answered,
                Err(_) => return End::TooLong,
                Ok(()) => {}
            }
        }
    }

    /// Returns the next piece. A client that only listens is not waited with once it has gone.
    async fn next(
        &self,
        body: &mut Body,
        client: Option<&mpsc::Sender<Bytes>>,
    ) -> Result<Option<Result<Bytes, axum::Error>>, End> {
        let data = async {
            loop {
                // Trailers do not pass.
                match body.frame().await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => return Some(Ok(data)),
                        Err(_) => continue,
                    },
                    Err(error) => return Some(Err(error)),
                }
            }
        };
        let next = self.patience.wait_for(data);
        match (client, &self.request) {
            (Some(client), None) => tokio::select! {
                next = next => next.map_err(End::Cut),
                () = client.closed() => Err(End::Gone),
            },
            (None, None) => Err(End::Gone),
            _ => next.await.map_err(End::Cut),
        }
    }

    /// Makes sure that the request does not stay under way, and that the client learns its end.
    async fn conclude(
        self,
        id: &RequestId,
        end: End,
        elsewhere: oneshot::Receiver<()>,
        mut client: Option<mpsc::Sender<Bytes>>,
    ) {
        let why = match end {
            End::Answered => None,
            End::Clean { resumable: true } => {
                // The answer comes on a stream that the client asks for; this one has nothing more.
                client = None;
                self.patience.wait_for(elsewhere).await.err().map(Cut::why)
            }
            End::Clean { resumable: false } => Some("the server has ended the stream without an answer"),
            End::Lost => Some("the connection to the server was lost"),
            End::TooLong => Some("the server's answer is too long"),
            End::Cut(cut) => Some(cut.why()),
            End::Gone => Some("nobody waits for the answer"),
        };
        self.conversation.unpark(id);
        let Some(why) = why else { return };
        let answer = self.gateway.give_up(&self.conversation, id, CallOutcome::Unclear(None), why).await;
        if let (Some(answer), Some(client)) = (answer, client) {
            let mut out = Vec::new();
            Event::message().write(&mut out, Some(answer.as_bytes()));
            // A client that does not take it does not need it.
            let _ = timeout(LAST_MESSAGE, client.send(out.into())).await;
        }
    }
}

/// Takes a message of the server: the part of it that the client gets, and the request that it
/// answers.
pub(super) async fn from_server<'m>(
    gateway: &Gateway,
    conversation: &Conversation,
    message: &'m [u8],
) -> (Option<Cow<'m, [u8]>>, Option<RequestId>) {
    let taken = {
        let filter = |result: &mut serde_json::Value| gateway.host.filter_tools_list(&conversation.who(None), result);
        conversation.session().from_server(message, filter)
    };
    match taken {
        FromServer::Forward { message, answers, ended, .. } => {
            if let Some(id) = &answers {
                conversation.unpark(id);
            }
            if let Some(ended) = ended {
                gateway.host.conclude(ended).await;
            }
            let message = match message {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            (Some(message), answers)
        }
        FromServer::Drop { why } => {
            tracing::warn!("dropped a message of the server: {why}");
            (None, None)
        }
    }
}
