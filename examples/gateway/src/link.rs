//! One MCP connection behind the gate: the way of a message of either side. Both transports use it.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::block_in_place;
use toolgate::mcp::{
    CallOutcome, FailedRequest, FromClient, FromServer, Integers, RefusalFormat, RequestId, Routed, ServerState,
    Session,
};
use toolgate::{AsyncPermit, Policy};
use tracing::Span;

use crate::host::Host;
use crate::who::Who;

/// A request that is answered when the client has heard enough, from 2026-07-28 on. (A message that
/// only pretends to be one waits for longer, and holds nothing.)
pub(crate) const LISTEN: &str = "subscriptions/listen";
/// How long a server may take to answer a call that the client has cancelled. By the protocol it
/// does not answer it, and the call must not stay counted.
pub(crate) const GRACE_OF_CANCELLED: Duration = Duration::from_secs(10);
/// A longer message is judged off the threads that serve all clients.
const LONG: usize = 64 << 10;

/// One connection, with the requests that are under way.
pub(crate) struct Link {
    pub(crate) host: Arc<Host>,
    /// The caller, as far as it is known when the connection begins.
    pub(crate) who: Who,
    /// A long message holds it for a while, so waiting for it must not hold a thread.
    session: Mutex<Session<AsyncPermit>>,
    /// A turn for each long message that is judged at once.
    turns: Arc<Semaphore>,
}

/// How sessions speak with clients.
pub(crate) struct Speech {
    pub(crate) format: Option<RefusalFormat>,
    /// The address of a page on which a person decides a request.
    pub(crate) page: Option<String>,
    pub(crate) list_ttl: Duration,
}

impl Speech {
    /// Begins a session of a caller with a server.
    pub(crate) fn session(
        &self,
        state: &ServerState<AsyncPermit>,
        who: &Who,
        has_64_bits: bool,
    ) -> Session<AsyncPermit> {
        let session = Session::sharing(state, &who.caller()).announcing_changes().with_max_list_ttl(self.list_ttl);
        let session = if has_64_bits { session.with_integers(Integers::Of64Bits) } else { session };
        let session = self.format.into_iter().fold(session, Session::with_form);
        self.page.clone().into_iter().fold(session, |session, page| {
            session.with_approval_page(move |approval| Some(page.replace(ID, &approval.id().to_string())))
        })
    }
}

/// The part of a page's address that becomes the id of the request.
const ID: &str = "{id}";

/// Checks the address of a page.
pub(crate) fn check_page(page: &str) -> Result<(), &'static str> {
    let is_url = page.starts_with("https://") || page.starts_with("http://");
    if is_url && page.contains(ID) && page.parse::<Uri>().is_ok() {
        Ok(())
    } else {
        Err("expected an address with `{id}` in it, such as https://gate.example.com/#{id}")
    }
}

/// The way of a message of the server.
#[derive(Default)]
pub(crate) struct Passed<'m> {
    /// The message for the client, if it gets one.
    pub(crate) message: Option<Cow<'m, str>>,
    /// The request that it answers.
    pub(crate) answers: Option<RequestId>,
    /// The request whose progress it reports.
    pub(crate) progress: Option<RequestId>,
}

/// The way of a message of the client.
pub(crate) enum Next {
    /// The server gets it, over HTTP with these headers. Without a method, it is an answer of the
    /// client.
    Forward {
        message: String,
        id: Option<RequestId>,
        method: Cow<'static, str>,
        /// The request that it cancels.
        cancels: Option<RequestId>,
        headers: Vec<(Box<str>, String)>,
        span: Span,
    },
    /// The server does not get it. The client gets the answer, if there is one.
    Answer { answer: Option<String>, http_status: u16 },
}

impl Link {
    pub(crate) fn new(host: Arc<Host>, who: Who, session: Session<AsyncPermit>, turns: Arc<Semaphore>) -> Self {
        Self { host, who, session: Mutex::new(session), turns }
    }

    /// Takes a message of the client, which over HTTP comes with headers, and decides it if it is a
    /// call of `who`.
    pub(crate) async fn take_from_client(&self, who: &Who, message: &[u8], head: Option<&HeaderMap>) -> Next {
        self.apart(message.len(), self.judge(who, message, head)).await
    }

    async fn judge(&self, who: &Who, message: &[u8], head: Option<&HeaderMap>) -> Next {
        let mut session = self.session.lock().await;
        let taken = match head {
            None => session.from_client(message),
            Some(head) => session.from_http_client(message, mcp_headers(head)),
        };
        drop(session);
        match taken {
            FromClient::Forward { message, id, method, cancels, headers } => {
                let method = method.unwrap_or_default().into_string();
                let span = self.host.span(&method, None, who, id.as_ref());
                Next::Forward { message, id, method: method.into(), cancels, headers, span }
            }
            FromClient::Answer { answer, denial, http_status } => {
                self.host.record_denial(who, &denial);
                tracing::info!("refused a message of grant {:?}: {}", who.grant, denial.message());
                Next::Answer { answer, http_status }
            }
            FromClient::Decide(call) => {
                let id = call.id().and_then(RequestId::of);
                let span = self.host.span("tools/call", Some(call.tool()), who, id.as_ref());
                let decision = self.host.decide(who, &call, &span).await;
                match self.session.lock().await.decided(call, decision) {
                    Routed::Forward { message, id, headers } => {
                        let (id, method) = (Some(id), "tools/call".into());
                        Next::Forward { message, id, method, cancels: None, headers, span }
                    }
                    Routed::Answer { answer } => Next::Answer { answer: Some(answer), http_status: 200 },
                }
            }
        }
    }

    /// Takes a message of the server. Returns the message for the client, if it gets one, and the
    /// request that it answers. The call that it ends has been concluded by then: the client's next
    /// one may need what it held.
    pub(crate) async fn take_from_server<'m>(&self, message: &'m [u8], span: &Span) -> Passed<'m> {
        self.apart(message.len(), async {
            let filter = |result: &mut Value| self.host.filter_tools_list(&self.who, result);
            let taken = self.session.lock().await.from_server(message, filter);
            self.passed(taken, span).await
        })
        .await
    }

    /// Does the same with the body of a response of HTTP with a status from 400 to 499.
    pub(crate) async fn take_client_error<'m>(&self, message: &'m [u8], span: &Span) -> Passed<'m> {
        let taken = self.session.lock().await.from_server_with_client_error(message);
        self.passed(taken, span).await
    }

    async fn passed<'m>(&self, taken: FromServer<'m, AsyncPermit>, span: &Span) -> Passed<'m> {
        match taken {
            FromServer::Forward { message, answers, progress, ended } => {
                if let Some(ended) = ended {
                    self.host.conclude(ended, span).await;
                }
                Passed { message: Some(message), answers, progress }
            }
            FromServer::Drop { why } => {
                tracing::warn!("dropped a message of the server: {why}");
                Passed::default()
            }
        }
    }

    /// Ends a request that gets no answer any more. Returns the error for the client if it waits.
    pub(crate) async fn fail(&self, id: &RequestId, outcome: CallOutcome, why: &str) -> Option<String> {
        let failed = self.session.lock().await.fail(id, outcome, why);
        self.conclude(failed?).await
    }

    /// Ends a request that has taken too long. A late answer is dropped.
    pub(crate) async fn give_up(&self, id: &RequestId, why: &str) -> Option<String> {
        let failed = self.session.lock().await.give_up(id, why);
        self.conclude(failed?).await
    }

    /// Ends a request that the client has cancelled, if it still waits for the server.
    pub(crate) async fn give_up_cancelled(&self, id: &RequestId) {
        let failed = self.session.lock().await.give_up_cancelled(id);
        if let Some(failed) = failed {
            self.conclude(failed).await;
        }
    }

    /// Returns the notifications for a client whose list of tools has changed, each with the
    /// request on whose stream it belongs. `listed` is the policy by which the client has listed
    /// them.
    pub(crate) async fn list_changed(&self, listed: &mut Option<Policy>) -> Vec<(Option<RequestId>, String)> {
        let policy = self.host.policy_of(&self.who);
        let former = std::mem::replace(listed, policy);
        let session = self.session.lock().await;
        match session.state().lists_differ(former.as_ref(), listed.as_ref()) {
            true => session.list_changed(),
            false => Vec::new(),
        }
    }

    /// Ends all requests that are under way. Returns the errors for the client.
    pub(crate) async fn fail_all(&self, why: &str) -> Vec<String> {
        let failed = self.session.lock().await.fail_all(CallOutcome::Unclear(None), why);
        let mut errors = Vec::new();
        for failed in failed {
            errors.extend(self.conclude(failed).await);
        }
        errors
    }

    async fn conclude(&self, failed: FailedRequest<AsyncPermit>) -> Option<String> {
        if let Some(ended) = failed.ended {
            self.host.conclude(ended, &Span::none()).await;
        }
        failed.answer
    }

    /// Returns whether requests wait for an answer.
    pub(crate) async fn is_at_work(&self) -> bool {
        self.session.lock().await.under_way() > 0
    }

    /// Does work on a message. A long one must not keep the messages of other callers waiting: it
    /// waits for its turn, and other threads take over whatever else this one has to do.
    async fn apart<T>(&self, bytes: usize, work: impl Future<Output = T>) -> T {
        // In one place: the future of a request is copied when it is made.
        let work = pin!(work);
        if bytes <= LONG {
            return work.await;
        }
        let _turn = self.turns.acquire().await;
        block_in_place(|| Handle::current().block_on(work))
    }
}

/// Returns the headers that repeat parts of a message.
fn mcp_headers(head: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let headers = head.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    headers.filter(|(name, _)| name.starts_with("mcp-"))
}
