//! A stream of the server on its way to the client: every message in it goes through the session, all else passes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use toolgate::mcp::{FromServer, RequestId};

use crate::body;
use crate::conversations::{Stage, Using};
use crate::events::{self, Events, Part};
use crate::front::Gateway;

/// How many pieces may wait for a client that reads slowly; then the server waits.
pub(crate) const PIECES: usize = 16;
/// How long a client may take for the last word.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why something was waited for no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Late,
    Closed,
}

impl Cut {
    /// As the client is told.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Late => "the server has not answered in time",
            Self::Closed => "the session has ended",
        }
    }
}

/// How long a request waits for the server: until its time has run out, or its session has ended.
pub(crate) struct Patience {
    pub(crate) until: Option<Instant>,
    pub(crate) stage: watch::Receiver<Stage>,
}

impl Patience {
    pub(crate) async fn wait_for<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Cut> {
        let until = self.until;
        let late = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = late => Err(Cut::Late),
            // The conversation is held as long as its streams are, and the sender with it.
            _ = self.stage.wait_for(|stage| *stage == Stage::Closed) => Err(Cut::Closed),
        }
    }
}

/// A stream under way.
pub(crate) struct Stream {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) conversation: Using,
    pub(crate) patience: Patience,
    /// None once the client has gone.
    pub(crate) client: Option<mpsc::Sender<Bytes>>,
    /// The request that it answers; none for a stream that listens.
    pub(crate) request: Option<RequestId>,
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By the server, who may send the answer elsewhere if it has named its events.
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
    /// Passes the stream on to its end. A client that goes away leaves its call under way: the server is at work on it, and
    /// may be asked for the answer again.
    pub(crate) async fn pass(mut self, body: Incoming) {
        if let Some(id) = &self.request {
            let elsewhere = self.conversation.park(id);
            let end = self.read(body).await;
            self.conclude(end, elsewhere).await;
        } else {
            let mut listeners = self.conversation.listeners();
            tokio::select! {
                _ = self.read(body) => {}
                _ = listeners.changed() => {}
            }
        }
    }

    async fn read(&mut self, mut body: Incoming) -> End {
        let mut events = Events::new(self.gateway.options.max_message);
        let mut parts = Vec::new();
        let mut resumable = false;
        let mut answered = false;
        loop {
            let chunk = match self.next(&mut body).await {
                Ok(Some(Ok(chunk))) => chunk,
                _ if answered => return End::Answered,
                Ok(Some(Err(_))) => return End::Lost,
                Ok(None) => return End::Clean { resumable },
                Err(end) => return end,
            };
            let taken = events.take(&chunk, &mut parts);
            let mut out = Vec::with_capacity(chunk.len() + 64);
            for part in parts.drain(..) {
                match part {
                    Part::Comment(comment) => events::write_comment(&mut out, &comment),
                    Part::Event(event) => {
                        resumable |= event.has_id;
                        match &event.data {
                            Some(data) if !data.is_empty() => {
                                let (message, answers) = from_server(&self.gateway, &self.conversation, data).await;
                                answered |= answers.is_some() && answers == self.request;
                                event.write(&mut out, message.as_deref());
                            }
                            data => event.write(&mut out, data.as_deref()),
                        }
                    }
                }
            }
            if !out.is_empty()
                && let Err(cut) = self.send(out.into()).await
            {
                return if answered { End::Answered } else { End::Cut(cut) };
            }
            if taken.is_err() {
                return if answered { End::Answered } else { End::TooLong };
            }
            if answered && self.client.is_none() {
                return End::Answered;
            }
        }
    }

    /// The next piece. One who only listens is not waited with once the client has gone.
    async fn next(&mut self, body: &mut Incoming) -> Result<Option<Result<Bytes, hyper::Error>>, End> {
        let next = self.patience.wait_for(body::next(body));
        match (&self.client, &self.request) {
            (Some(client), None) => tokio::select! {
                next = next => next.map_err(End::Cut),
                () = client.closed() => Err(End::Gone),
            },
            (None, None) => Err(End::Gone),
            _ => next.await.map_err(End::Cut),
        }
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Cut> {
        let Some(client) = &self.client else { return Ok(()) };
        if self.patience.wait_for(client.send(bytes)).await?.is_err() {
            self.client = None;
        }
        Ok(())
    }

    /// Sees to it that the request does not stay under way, and that the client hears of it.
    async fn conclude(mut self, end: End, mut elsewhere: tokio::sync::oneshot::Receiver<()>) {
        let Some(id) = self.request.take() else { return };
        let why = match end {
            End::Answered => None,
            End::Clean { resumable: true } => {
                // The answer comes on a stream that the client asks for; this one has nothing more.
                self.client = None;
                let waited = self.patience.wait_for(&mut elsewhere).await;
                waited.err().map(Cut::why)
            }
            End::Clean { resumable: false } => Some("the server has ended the stream without an answer"),
            End::Lost => Some("the connection to the server was lost"),
            End::TooLong => Some("the server's answer is too long"),
            End::Cut(cut) => Some(cut.why()),
            End::Gone => Some("nobody waits for the answer"),
        };
        self.conversation.unpark(&id);
        let Some(why) = why else { return };
        let answer =
            self.gateway.give_up(&self.conversation, &id, toolgate::mcp::CallOutcome::Unclear(None), why).await;
        if let (Some(answer), Some(client)) = (answer, &self.client) {
            let mut out = Vec::new();
            events::write_message(&mut out, answer.as_bytes());
            // A client that does not take it has no use for it.
            let _ = timeout(LAST_WORD, client.send(out.into())).await;
        }
    }
}

/// Takes a message of the server: what of it goes to the client, and which request it answers.
pub(crate) async fn from_server<'m>(
    gateway: &Gateway,
    conversation: &Using,
    message: &'m [u8],
) -> (Option<Cow<'m, [u8]>>, Option<RequestId>) {
    let taken = {
        let filter = |result: &mut serde_json::Value| gateway.filter_tools_list(&conversation.grant, result);
        conversation.session().from_server(message, filter)
    };
    match taken {
        FromServer::Forward { message, answers, ended } => {
            if let Some(id) = &answers {
                conversation.unpark(id);
            }
            if let Some(ended) = ended {
                gateway.conclude(ended).await;
            }
            let message = match message {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            (Some(message), answers)
        }
        FromServer::Drop { why } => {
            gateway.note(&format!("a message of the server is dropped: {why}"));
            (None, None)
        }
    }
}
