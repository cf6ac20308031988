//! Approvals as JSON. Reading is strict, and rejects what no approval could be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ask::{Details, Shown, ShownArgument};
#[cfg(feature = "redis")]
use super::group::{ApprovalGroup, RedeemedSignature};
use super::record::{Approval, ApprovalState};
use super::uses::Uses;
use super::{ApprovalId, CallDigest};
use crate::call::identity::Identity;
use crate::json::canonical;
use crate::json::number::Exact;
use crate::json::object::Object;
use crate::policy::MAX_USES;
use crate::time::Timestamp;

/// The version of the format. No other version is read.
const VERSION: u32 = 1;

#[cfg(feature = "redis")]
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredGroup {
    version: u32,
    approvals: Vec<Object<StoredApproval>>,
    /// The signed approvals that were used.
    spent: Vec<Object<StoredSignature>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredApproval {
    number: u64,
    state: State,
    tool: Box<str>,
    caller: Object<Caller>,
    reason: Box<str>,
    details: Option<Box<str>>,
    details_bytes: usize,
    /// The name, the beginning of the value and its length, if there are no whole details.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<(Box<str>, Box<str>, usize)>,
    #[serde(default, skip_serializing_if = "is_default")]
    left_out: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    unseen: bool,
    /// The numbers as strings, each in its canonical form.
    bounds: Vec<String>,
    ttl_seconds: u64,
    approvers: Box<[Box<[Box<str>]>]>,
    min_approvers: u32,
    approved_by: Vec<Box<str>>,
    made_at: i64,
    expires_at: i64,
    turn: u32,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    uses: u32,
    /// The turns that hold a use, if there are several uses. The state says it of a single one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<u32>,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

/// The claims to write, and the uses that they are read as.
impl Uses {
    fn written(&self) -> Vec<u32> {
        if self.allowed == 1 { Vec::new() } else { self.held.clone() }
    }

    /// Returns `None` for uses that no claims can lead to.
    fn read(allowed: u32, turn: u32, held: Vec<u32>, is_spent: bool) -> Option<Self> {
        let held = match allowed {
            1 if !held.is_empty() => return None,
            1 if is_spent => vec![turn],
            _ => held,
        };
        let ascends = held.is_sorted_by(|one, next| one < next) && held.last().is_none_or(|last| *last <= turn);
        let uses = Self { allowed, turn, held };
        let is_spent_so = allowed == 1 || is_spent == (uses.left() == 0);
        let fits = (1..=MAX_USES).contains(&allowed) && uses.held.len() <= allowed as usize;
        (ascends && fits && is_spent_so).then_some(uses)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
struct StoredSignature {
    number: u64,
    until: i64,
    turn: u32,
    in_use: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    refused: bool,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    uses: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<u32>,
}

/// One approval outside of a group, with its whole id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SingleApproval {
    version: u32,
    id: String,
    approval: Object<StoredApproval>,
}

impl Approval {
    /// The whole approval as JSON, for a store of your own. [`from_json`](Self::from_json) reads
    /// it. The text contains the [details](Self::details), which are argument values.
    pub fn to_json(&self) -> String {
        let single =
            SingleApproval { version: VERSION, id: self.id.to_string(), approval: Object(StoredApproval::of(self)) };
        // Strings and integers always serialise.
        serde_json::to_string(&single).unwrap_or_default()
    }

    /// Reads the output of [`to_json`](Self::to_json), strictly. The text is not authenticated:
    /// whoever can change it can approve.
    ///
    /// # Errors
    /// Unknown, missing or duplicate members; another version; a state that does not match the
    /// number of approvers.
    pub fn from_json(json: &str) -> Result<Self, ParseApprovalError> {
        let read = || {
            let Object(single): Object<SingleApproval> = serde_json::from_str(json).ok()?;
            let id: ApprovalId = single.id.parse().ok()?;
            let approval = single.approval.0.approval(id.digest())?;
            (single.version == VERSION && approval.id == id).then_some(approval)
        };
        read().ok_or(ParseApprovalError(()))
    }
}

/// The error for a text that is not the JSON of an approval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the JSON of an approval")]
pub struct ParseApprovalError(());

#[cfg(feature = "redis")]
impl ApprovalGroup {
    /// The group as JSON; an empty text if the group is empty.
    pub(super) fn write(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let signature = |used: &RedeemedSignature| {
            Object(StoredSignature {
                number: used.number,
                until: used.until.unix_micros(),
                turn: used.uses.turn,
                in_use: used.uses.left() == 0,
                refused: used.refused,
                uses: used.uses.allowed,
                held: used.uses.written(),
            })
        };
        let written = StoredGroup {
            version: VERSION,
            approvals: self.approvals.iter().map(StoredApproval::of).map(Object).collect(),
            spent: self.redeemed.iter().map(signature).collect(),
        };
        // Strings and integers always serialise.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads the output of `write`, for the group of this digest. Returns `None` for any other
    /// text.
    pub(super) fn read(text: &str, digest: CallDigest) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let Object(written): Object<StoredGroup> = serde_json::from_str(text).ok()?;
        let approvals: Vec<_> =
            written.approvals.into_iter().map(|Object(row)| row.approval(digest)).collect::<Option<_>>()?;
        let signature = |Object(row): Object<StoredSignature>| {
            Some(RedeemedSignature {
                number: row.number,
                until: Timestamp::from_unix_micros(row.until),
                uses: Uses::read(row.uses, row.turn, row.held, row.in_use)?,
                refused: row.refused,
            })
        };
        let redeemed: Option<_> = written.spent.into_iter().map(signature).collect();
        let group = Self { approvals, redeemed: redeemed? };
        let lives = |approval: &Approval| approval.state != ApprovalState::Expired;
        let ascends = group.approvals.iter().all(lives) && group.approvals.is_sorted_by(|a, b| a.id() < b.id());
        (written.version == VERSION && ascends && !group.is_empty()).then_some(group)
    }
}

impl StoredApproval {
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
        let argument = |shown: &ShownArgument| (shown.name.clone(), shown.value.clone(), shown.bytes);
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
            details: approval.details().map(Box::from),
            details_bytes: approval.details.bytes,
            arguments: approval.arguments().iter().map(argument).collect(),
            left_out: approval.arguments_left_out(),
            unseen: approval.unseen,
            bounds: approval.bounds.iter().map(bound).collect(),
            ttl_seconds: approval.ttl.as_secs(),
            approvers: approval.approvers.clone(),
            min_approvers: approval.min_approvers,
            approved_by: approval.approved_by.clone(),
            made_at: approval.made_at.unix_micros(),
            expires_at: approval.expires_at.unix_micros(),
            turn: approval.uses.turn,
            uses: approval.uses.allowed,
            held: approval.uses.written(),
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
        // An expired one may have been used up, or not.
        let is_spent = match state {
            ApprovalState::Expired => self.held.len() >= self.uses as usize,
            state => state == ApprovalState::Consumed,
        };
        let uses = Uses::read(self.uses, self.turn, self.held, is_spent)?;
        let is_consistent = match state {
            ApprovalState::Pending => !has_all && uses.held.is_empty(),
            ApprovalState::Approved | ApprovalState::Consumed => has_all,
            ApprovalState::Denied => uses.held.is_empty(),
            ApprovalState::Expired => true,
        };
        if !is_consistent || self.min_approvers == 0 {
            return None;
        }
        let argument = |(name, value, bytes)| ShownArgument { name, value, bytes };
        let arguments: Box<[_]> = self.arguments.into_iter().map(argument).collect();
        let shown = match self.details {
            // A cut text that passes for a whole one would be approved unseen.
            Some(text) if text.len() != self.details_bytes || !arguments.is_empty() || self.left_out > 0 => {
                return None;
            }
            Some(text) => Shown::Whole(text),
            None => Shown::Cut { arguments, left_out: self.left_out },
        };
        Some(Approval {
            id: ApprovalId::new(digest, self.number),
            state,
            tool: self.tool,
            identities,
            reason: self.reason,
            details: Details { shown, bytes: self.details_bytes },
            unseen: self.unseen,
            bounds: bounds?,
            ttl: Duration::from_secs(self.ttl_seconds),
            approvers: self.approvers,
            min_approvers: self.min_approvers,
            approved_by: self.approved_by,
            made_at: Timestamp::from_unix_micros(self.made_at),
            expires_at: Timestamp::from_unix_micros(self.expires_at),
            uses,
        })
    }
}
