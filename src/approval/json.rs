//! Approvals as text, and read again: JSON, strictly, and nothing that no approval could be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ask::Details;
#[cfg(feature = "redis")]
use super::group::{Shelf, Spent};
use super::record::{Approval, ApprovalState};
use super::{ApprovalId, CallDigest};
use crate::call::identity::Identity;
use crate::json::canonical;
use crate::json::number::Exact;
use crate::json::object::Object;
use crate::time::Timestamp;

/// Of the text; another one is not read.
const VERSION: u32 = 1;

#[cfg(feature = "redis")]
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shelved {
    version: u32,
    approvals: Vec<Object<Row>>,
    spent: Vec<Object<SpentRow>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    number: u64,
    state: State,
    tool: Box<str>,
    caller: Object<Caller>,
    reason: Box<str>,
    details: Option<Box<str>>,
    details_bytes: usize,
    /// Numbers as texts, each in its one spelling.
    bounds: Vec<String>,
    ttl_seconds: u64,
    approvers: Box<[Box<[Box<str>]>]>,
    min_approvers: u32,
    approved_by: Vec<Box<str>>,
    made_at: i64,
    expires_at: i64,
    turn: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Caller {
    grant: Option<Box<str>>,
    session: Option<Box<str>>,
    agent: Option<Box<str>>,
    user: Option<Box<str>>,
    server: Option<Box<str>>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Pending,
    Approved,
    Consumed,
    Denied,
    Expired,
}

#[cfg(feature = "redis")]
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpentRow {
    number: u64,
    until: i64,
    turn: u32,
    in_use: bool,
}

/// One approval alone, with its whole id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alone {
    version: u32,
    id: String,
    approval: Object<Row>,
}

impl Approval {
    /// All of it as JSON, for a store of one's own: [`from_json`](Self::from_json) reads it again. It holds the
    /// [details](Self::details), which are argument values.
    pub fn to_json(&self) -> String {
        let alone = Alone { version: VERSION, id: self.id.to_string(), approval: Object(Row::of(self)) };
        // Nothing in it can fail to be written.
        serde_json::to_string(&alone).unwrap_or_default()
    }

    /// Reads what [`to_json`](Self::to_json) has written, strictly. Nothing in it says who wrote it: whoever can change the text can
    /// approve.
    ///
    /// # Errors
    /// Unknown, missing or duplicate members; another version; an approval that has fewer approvers than it needs.
    pub fn from_json(json: &str) -> Result<Self, ParseApprovalError> {
        let read = || {
            let Object(alone): Object<Alone> = serde_json::from_str(json).ok()?;
            let id: ApprovalId = alone.id.parse().ok()?;
            let approval = alone.approval.0.approval(id.digest())?;
            (alone.version == VERSION && approval.id == id).then_some(approval)
        };
        read().ok_or(ParseApprovalError(()))
    }
}

/// A text is no approval that was written as JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an approval as it is written")]
pub struct ParseApprovalError(());

#[cfg(feature = "redis")]
impl Shelf {
    /// Its text; none if nothing is on it.
    pub(super) fn write(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let spent = |spent: &Spent| {
            Object(SpentRow {
                number: spent.number,
                until: spent.until.unix_micros(),
                turn: spent.turn,
                in_use: spent.in_use,
            })
        };
        let written = Shelved {
            version: VERSION,
            approvals: self.approvals.iter().map(Row::of).map(Object).collect(),
            spent: self.spent.iter().map(spent).collect(),
        };
        // Nothing in it can fail to be written.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads what was written for this digest; nothing if it is no such text.
    pub(super) fn read(text: &str, digest: CallDigest) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let Object(written): Object<Shelved> = serde_json::from_str(text).ok()?;
        let approvals: Vec<_> =
            written.approvals.into_iter().map(|Object(row)| row.approval(digest)).collect::<Option<_>>()?;
        let spent = |Object(row): Object<SpentRow>| Spent {
            number: row.number,
            until: Timestamp::from_unix_micros(row.until),
            turn: row.turn,
            in_use: row.in_use,
        };
        let shelf = Self { approvals, spent: written.spent.into_iter().map(spent).collect() };
        let lives = |approval: &Approval| !matches!(approval.state, ApprovalState::Denied | ApprovalState::Expired);
        let ascends = shelf.approvals.iter().all(lives) && shelf.approvals.is_sorted_by(|a, b| a.id() < b.id());
        (written.version == VERSION && ascends && !shelf.is_empty()).then_some(shelf)
    }
}

impl Row {
    fn of(approval: &Approval) -> Self {
        let state = match approval.state {
            ApprovalState::Pending => State::Pending,
            ApprovalState::Approved => State::Approved,
            ApprovalState::Consumed => State::Consumed,
            ApprovalState::Denied => State::Denied,
            ApprovalState::Expired => State::Expired,
        };
        let bound = |bound: &Exact| {
            let mut text = String::new();
            canonical::write_exact(&mut text, *bound);
            text
        };
        let name = |identity| approval.identity(identity).map(Box::from);
        Self {
            number: approval.id.number(),
            state,
            tool: approval.tool.clone(),
            caller: Object(Caller {
                grant: name(Identity::Grant),
                session: name(Identity::Session),
                agent: name(Identity::Agent),
                user: name(Identity::User),
                server: name(Identity::Server),
            }),
            reason: approval.reason.clone(),
            details: approval.details.text.clone(),
            details_bytes: approval.details.bytes,
            bounds: approval.bounds.iter().map(bound).collect(),
            ttl_seconds: approval.ttl.as_secs(),
            approvers: approval.approvers.clone(),
            min_approvers: approval.min_approvers,
            approved_by: approval.approved_by.clone(),
            made_at: approval.made_at.unix_micros(),
            expires_at: approval.expires_at.unix_micros(),
            turn: approval.turn,
        }
    }

    fn approval(self, digest: CallDigest) -> Option<Approval> {
        let state = match self.state {
            State::Pending => ApprovalState::Pending,
            State::Approved => ApprovalState::Approved,
            State::Consumed => ApprovalState::Consumed,
            State::Denied => ApprovalState::Denied,
            State::Expired => ApprovalState::Expired,
        };
        let bounds: Option<Box<[Exact]>> = self.bounds.iter().map(|text| Exact::of_text(text)).collect();
        let Caller { grant, session, agent, user, server } = self.caller.0;
        let identities = Identity::ALL.map(|identity| match identity {
            Identity::Grant => grant.clone(),
            Identity::Session => session.clone(),
            Identity::Agent => agent.clone(),
            Identity::User => user.clone(),
            Identity::Server => server.clone(),
        });
        let has_all = self.approved_by.len() >= self.min_approvers as usize;
        let is_so = match state {
            ApprovalState::Pending => !has_all,
            ApprovalState::Approved | ApprovalState::Consumed => has_all,
            ApprovalState::Denied | ApprovalState::Expired => true,
        };
        if !is_so || self.min_approvers == 0 {
            return None;
        }
        Some(Approval {
            id: ApprovalId::new(digest, self.number),
            state,
            tool: self.tool,
            identities,
            reason: self.reason,
            details: Details { text: self.details, bytes: self.details_bytes },
            bounds: bounds?,
            ttl: Duration::from_secs(self.ttl_seconds),
            approvers: self.approvers,
            min_approvers: self.min_approvers,
            approved_by: self.approved_by,
            made_at: Timestamp::from_unix_micros(self.made_at),
            expires_at: Timestamp::from_unix_micros(self.expires_at),
            turn: self.turn,
        })
    }
}
