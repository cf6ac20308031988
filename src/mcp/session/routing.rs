//! The results of a session: where each message goes, and the calls that have ended.

use std::borrow::Cow;

use super::super::{Call, CallOutcome, RequestId};
use crate::decision::Denial;
use crate::decision::permit::{AsyncPermit, Permit};
use crate::store::StoreError;

/// The route of a message of the client.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety depends on it: no arm may be forgotten")]
#[must_use = "what is not decided must not be passed on"]
pub enum FromClient {
    /// Not a call: send it to the server.
    Forward {
        /// The message to send.
        message: String,
        /// Its id if it is a request, for [`Session::give_up`](super::Session::give_up).
        id: Option<RequestId>,
        /// Its method; `None` for an answer to a request of the server.
        method: Option<Box<str>>,
        /// The pending request that it cancels. The server may not answer that any more: after a
        /// short time, [give it up](super::Session::give_up).
        cancels: Option<RequestId>,
        /// The headers of HTTP to send with it, if it came from
        /// [`Session::from_http_client`](super::Session::from_http_client).
        headers: Vec<(Box<str>, String)>,
    },
    /// It is not forwarded.
    Answer {
        /// The answer to send to the client; `None` if there is none.
        answer: Option<String>,
        /// The reason, for the host's log.
        denial: Denial,
        /// The status of a response of HTTP with this answer: 200, or 400 if the message could not
        /// be read or its headers contradict it.
        http_status: u16,
    },
    /// A call: let the gate decide it, and pass both to
    /// [`Session::decided`](super::Session::decided).
    Decide(Call),
}

/// The route of a call that was decided.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety depends on it: no arm may be forgotten")]
#[must_use = "a decision that is not enforced stops nothing"]
pub enum Routed {
    /// The call is allowed: send it to the server.
    Forward {
        /// The message to send.
        message: String,
        /// Its id, for [`Session::give_up`](super::Session::give_up).
        id: RequestId,
        /// The headers of HTTP to send with it, as in [`FromClient::Forward`].
        headers: Vec<(Box<str>, String)>,
    },
    /// The call is refused.
    Answer {
        /// The answer to send to the client.
        answer: String,
    },
}

/// The route of a message of the server.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "it decides whether quota is released: no arm may be forgotten")]
#[must_use = "the client waits for it, and a permit may have ended with it"]
pub enum FromServer<'m, P> {
    /// Send it to the client.
    Forward {
        /// The message to send.
        message: Cow<'m, str>,
        /// The request that it answers.
        answers: Option<RequestId>,
        /// The pending request whose progress it reports. A host may then wait longer for it.
        progress: Option<RequestId>,
        /// The call that has ended with this answer.
        ended: Option<FinishedCall<P>>,
    },
    /// It is not forwarded: it is not a valid message, or answers no pending request.
    Drop {
        /// The reason, for the host's log.
        why: &'static str,
    },
}

/// A call that has ended. Settle its permit if needed, then [conclude](FinishedCall::conclude) it.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a pair")]
#[must_use = "the permit keeps its in-flight units until it is concluded"]
pub struct FinishedCall<P> {
    /// The call's permit.
    pub permit: P,
    /// The outcome of the call.
    pub ending: CallOutcome,
}

/// A request that the server did not answer.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a pair")]
#[must_use = "the client waits for it, and a permit may have ended with it"]
pub struct FailedRequest<P> {
    /// The error to send to the client; `None` if it has cancelled the request.
    pub answer: Option<String>,
    /// The call that has ended.
    pub ended: Option<FinishedCall<P>>,
}

impl FinishedCall<Permit> {
    /// Releases the permit if the call was certainly not made, else ends it.
    ///
    /// # Errors
    /// The store failed: the quota stays spent, and in-flight units are freed when their lease
    /// ends.
    pub fn conclude(self) -> Result<(), StoreError> {
        self.permit.conclude(self.ending)
    }
}

impl FinishedCall<AsyncPermit> {
    /// Releases the permit if the call was certainly not made, else ends it.
    ///
    /// # Errors
    /// The store failed: the quota stays spent, and in-flight units are freed when their lease
    /// ends.
    pub async fn conclude(self) -> Result<(), StoreError> {
        self.permit.conclude(self.ending).await
    }
}
