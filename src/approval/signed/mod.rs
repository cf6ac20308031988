//! Approvals that travel: a separate service shows a request to people, and hands back a text that a gate believes without a
//! store, but for its single use.
//!
//! Gate and service share an [`ApprovalKey`]. The gate's host sends the request as a text
//! ([`write_request`](ApprovalKeys::write_request)); the service reads it, lets people decide, and signs
//! ([`sign`](ApprovalKeys::sign)). The agent's call comes again with the signed text, and
//! [`Gate::check_signed`](crate::Gate::check_signed) checks all that is in it: that the key is known and the signature its own, that
//! it is for this very call under the policy in force, no number above the one that people saw, its times, who approved. Then
//! the store of approvals is asked once: has it been used?
//!
//! ```
//! use serde_json::json;
//! use toolgate::approval::Verdict;
//! use toolgate::approval::signed::{ApprovalKey, ApprovalKeys};
//! use toolgate::{Clock, Decision, Gate, Policy, SystemClock, ToolCall};
//!
//! let secret = [7; 32]; // from wherever the host keeps its secrets
//! let policy: Policy = r#"{
//!     "version": "1",
//!     "default": "deny",
//!     "tools": { "pay": { "action": "require_approval", "approval": { "approvers": ["ann"], "ttl": "5m" } } }
//! }"#.parse()?;
//!
//! // The gateway asks.
//! let keys = ApprovalKeys::new(ApprovalKey::new("2026-01", &secret)?);
//! let gate = Gate::builder().policy(policy).approval_keys(keys.clone()).build();
//! let arguments = json!({ "amount": 5 });
//! let call = ToolCall::new("pay", &arguments).grant("g-42");
//! let Decision::RequireApproval(request) = gate.check(&call) else { panic!("a person is asked") };
//! let request = keys.write_request(request.approval().ok_or("no request")?)?;
//!
//! // The service shows it to people, and signs what they approve.
//! let mut shown = keys.read_request(&request)?;
//! assert_eq!((shown.tool(), shown.details()), ("pay", Some(r#"{"amount":5}"#)));
//! shown.decide(Verdict::Approve, "ann", SystemClock.now())?;
//! let signed = keys.sign(&shown, SystemClock.now())?;
//!
//! // The same call passes, once.
//! assert!(gate.check_signed(&call, &signed).is_allowed());
//! let Decision::RequireApproval(request) = gate.check_signed(&call, &signed) else { panic!("it was used") };
//! assert_eq!(request.signed_error().map(|error| error.as_str()), Some("spent"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One request has one use, however often it is signed, and also if it is approved at the gate; gates that do not share a store of
//! approvals each count for themselves, so let them share one.
//!
//! # What the texts are
//! A signed approval is `approval1.`, the key's id, `.`, hexadecimal digits, `.`, and 64 digits of HMAC-SHA-256 over all before: at most 4
//! KiB of letters, digits, `.`, `-` and `_`, which need no escape in a URL, a header or JSON. There is one spelling of each. The digits
//! hold the call's digest, the request's number, when it was signed and until when it holds, the upper bounds, and who approved. It
//! holds no secret, but whoever has it may make that one call as that caller, once.
//!
//! A request is `request1.`, the key's id, `.`, 64 digits of HMAC-SHA-256 over the rest, `.`, and a JSON object. It is signed too, so that
//! nobody shows people another call than the one that they approve. It holds the [details](crate::approval::Approval::details) of the call, if
//! the store keeps them: argument values.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::DecideError;
use super::ask::Ask;
use super::record::{Approval, ApprovalState};

use crate::json::hex::{Hex, decode_hex};
use crate::time::Timestamp;

mod payload;
mod presented;
use payload::Payload;

pub(crate) use presented::{SignedText, VerifiedApproval};

/// Of the hash, in bytes: a shorter secret is easier to guess than the MAC.
const SECRET_BYTES: usize = 32;
const MOST_ID: usize = 32;
/// How long a signed approval may be.
const MOST_SIGNED: usize = 4096;
/// How long a request may be.
const MOST_REQUEST: usize = 1 << 20;
/// How far a service's clock may be ahead, unless the host says otherwise.
const SKEW: Duration = Duration::from_secs(5);
const APPROVAL: &str = "approval1";
const REQUEST: &str = "request1";

/// A secret that gate and approval service share, and its name. Whoever has it can approve any call.
#[derive(Clone)]
pub struct ApprovalKey {
    id: Box<str>,
    mac: Hmac<Sha256>,
}

/// No key can be made so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A short secret.
    #[error("the secret of a key has at least 32 bytes, drawn at random; this one has {bytes}")]
    Short {
        /// How long it is.
        bytes: usize,
    },
    /// No id, a long one, or one with other characters.
    #[error("the id of a key is 1 to 32 ASCII letters, digits, `-` and `_`, such as `2026-01`")]
    Id,
}

impl ApprovalKey {
    /// A key from at least 32 bytes drawn at random. Its id says which it is where there are several; it is no secret.
    ///
    /// # Errors
    /// A shorter secret, or an id that is not 1 to 32 ASCII letters, digits, `-` and `_`.
    pub fn new(id: &str, secret: &[u8]) -> Result<Self, KeyError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=MOST_ID).contains(&id.len()) || !id.bytes().all(is_plain) {
            return Err(KeyError::Id);
        }
        let short = KeyError::Short { bytes: secret.len() };
        if secret.len() < SECRET_BYTES {
            return Err(short);
        }
        Ok(Self { id: id.into(), mac: Hmac::new_from_slice(secret).map_err(|_| short)? })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs an approval that people have [given](Approval::decide): the text that a gate takes, once, until the approval expires.
    ///
    /// # Errors
    /// It is not approved, or has expired; or the text would be longer than 4 KiB.
    pub fn sign(&self, approval: &Approval, now: Timestamp) -> Result<String, SignError> {
        if approval.clone().look(now) != ApprovalState::Approved {
            return Err(SignError::NotApproved);
        }
        let payload = Payload::of(approval, now).write().ok_or(SignError::TooLong)?;
        let text = format!("{APPROVAL}.{}.{}", self.id, Hex(&payload));
        let signed = format!("{text}.{}", Hex(&self.mac_of(&[&text])));
        if signed.len() > MOST_SIGNED { Err(SignError::TooLong) } else { Ok(signed) }
    }

    fn mac_of(&self, parts: &[&str]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part.as_bytes()));
        mac.finalize().into_bytes().into()
    }

    /// Whether these digits are the MAC of the parts, one after the other. It takes as long wherever they differ.
    fn has_signed(&self, parts: &[&str], digits: &str) -> bool {
        let Some(bytes) = small_digits(digits) else { return false };
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part.as_bytes()));
        mac.verify_slice(&bytes).is_ok()
    }
}

/// The keys that texts may be signed with: the first of them signs, all of them are believed. To change a key, let everybody believe
/// the new one, then let it sign, and leave the old one out when what it has signed has expired.
///
/// ```
/// use toolgate::approval::signed::{ApprovalKey, ApprovalKeys};
///
/// let (new, old) = ([1; 32], [2; 32]); // from wherever the host keeps its secrets
/// let keys = ApprovalKeys::new(ApprovalKey::new("2026-02", &new)?).and(ApprovalKey::new("2026-01", &old)?);
/// # Ok::<(), toolgate::approval::signed::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ApprovalKeys {
    first: ApprovalKey,
    others: Vec<ApprovalKey>,
    max_skew: Duration,
}

impl ApprovalKeys {
    /// One key.
    pub fn new(first: ApprovalKey) -> Self {
        Self { first, others: Vec::new(), max_skew: SKEW }
    }

    /// Believes another key too.
    #[must_use = "the keys themselves are moved"]
    pub fn and(mut self, other: ApprovalKey) -> Self {
        self.others.push(other);
        self
    }

    /// How far the service's clock may be ahead of the gate's: five seconds, if nothing is said. What was signed later than that
    /// after the gate's present is refused.
    #[must_use = "the keys themselves are moved"]
    pub fn max_skew(self, max_skew: Duration) -> Self {
        Self { max_skew, ..self }
    }

    /// A request as a text for the service that asks people.
    ///
    /// # Errors
    /// It has been refused, or has expired.
    pub fn write_request(&self, approval: &Approval) -> Result<String, SignError> {
        if matches!(approval.state(), ApprovalState::Denied | ApprovalState::Expired) {
            return Err(SignError::Ended);
        }
        let (key, json) = (&self.first, approval.to_json());
        let head = format!("{REQUEST}.{}.", key.id);
        Ok(format!("{head}{}.{json}", Hex(&key.mac_of(&[&head, &json]))))
    }

    /// Reads a request that a gate's host has written: what people have to see, and decide by [`Approval::decide`], which knows the
    /// terms of the policy. One that has been approved can be [signed](Self::sign).
    ///
    /// # Errors
    /// It was not written with any of the keys, or is longer than 1 MiB.
    pub fn read_request(&self, text: &str) -> Result<Approval, SignedError> {
        let parts = split(text, MOST_REQUEST, REQUEST).ok_or(SignedError::Malformed)?;
        let (mac, json) = parts.rest.split_once('.').ok_or(SignedError::Malformed)?;
        self.check(&parts, &[parts.head, json], mac)?;
        Approval::from_json(json).map_err(|_| SignedError::Malformed)
    }

    /// Signs with the first key, as [`ApprovalKey::sign`] does.
    ///
    /// # Errors
    /// As for `ApprovalKey::sign`.
    pub fn sign(&self, approval: &Approval, now: Timestamp) -> Result<String, SignError> {
        self.first.sign(approval, now)
    }

    /// Whether a text lets this very call pass now. Whether it has been used, a store knows.
    fn verify(&self, text: &str, ask: &Ask<'_>, now: Timestamp) -> Result<VerifiedApproval, SignedError> {
        let parts = split(text, MOST_SIGNED, APPROVAL).ok_or(SignedError::Malformed)?;
        let (digits, mac) = parts.rest.split_once('.').ok_or(SignedError::Malformed)?;
        self.check(&parts, &[parts.head, digits], mac)?;
        let payload = small_digits(digits).and_then(|bytes| Payload::read(&bytes)).ok_or(SignedError::Malformed)?;
        let Payload { id, issued_at, expires_at, bounds, approved_by } = payload;
        if id.digest() != ask.digest() {
            return Err(SignedError::OtherCall);
        }
        // What it would be if it were kept here, on the terms of the policy in force.
        let mut approval = Approval::new(ask, id.number(), issued_at);
        approval.bounds = bounds.into();
        if !approval.covers(ask) {
            return Err(SignedError::AboveBound);
        }
        if issued_at > now.saturating_add(self.max_skew) {
            return Err(SignedError::NotYet);
        }
        if now >= expires_at {
            return Err(SignedError::Expired);
        }
        if expires_at > approval.expires_at() {
            return Err(SignedError::TooLongLived);
        }
        for (index, by) in approved_by.iter().enumerate() {
            let is_again = approved_by.iter().take(index).any(|other| other == by);
            if is_again || approval.may_approve(by).is_err() {
                return Err(SignedError::NotAnApprover);
            }
        }
        if approved_by.len() < approval.min_approvers() as usize {
            return Err(SignedError::TooFewApprovers);
        }
        // The same request may have been signed again, later: as long as such a text may hold it counts as used. It was made before
        // this one has expired, however far the service's clock is behind, and people decide within its `ttl`.
        let until = approval.expires_at().saturating_add(approval.ttl * 2).saturating_add(self.max_skew);
        Ok(VerifiedApproval { id, until })
    }

    fn check(&self, parts: &Parts<'_>, signed: &[&str], mac: &str) -> Result<(), SignedError> {
        let all = || std::iter::once(&self.first).chain(&self.others).filter(|key| &*key.id == parts.key);
        if all().next().is_none() {
            return Err(SignedError::UnknownKey);
        }
        if all().any(|key| key.has_signed(signed, mac)) { Ok(()) } else { Err(SignedError::Forged) }
    }
}

/// The bytes of hexadecimal digits in their one spelling.
fn small_digits(digits: &str) -> Option<Vec<u8>> {
    decode_hex(digits).filter(|bytes| Hex(bytes).to_string() == digits)
}

/// A text taken apart: what it is and the key's id, with the points behind them; the id; the rest.
struct Parts<'t> {
    head: &'t str,
    key: &'t str,
    rest: &'t str,
}

fn split<'t>(text: &'t str, most: usize, kind: &str) -> Option<Parts<'t>> {
    if text.len() > most {
        return None;
    }
    let (key, rest) = text.strip_prefix(kind)?.strip_prefix('.')?.split_once('.')?;
    let head = text.strip_suffix(rest)?;
    Some(Parts { head, key, rest })
}

/// Nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// People have not approved it, or not enough of them, or it has expired since.
    #[error("the approval is not approved")]
    NotApproved,
    /// It has been refused, or has expired.
    #[error("the request has been refused, or has expired")]
    Ended,
    /// The names of the approvers and the bounds do not fit in 4 KiB.
    #[error("the signed approval would be longer than {MOST_SIGNED} bytes")]
    TooLong,
}

/// Why a signed approval does not let a call pass: for the host's log, not for the agent, who could try until one passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// It is no such text.
    #[error("not a signed approval")]
    Malformed,
    /// It names a key that the host does not have.
    #[error("signed with a key that is not known here")]
    UnknownKey,
    /// Its MAC is not the key's.
    #[error("not what the key has signed")]
    Forged,
    /// It is for a call of another tool, with other arguments, of another caller, or under another policy.
    #[error("for another call, or under another policy")]
    OtherCall,
    /// A number of the call is above the one that was approved.
    #[error("a number of the call is above the bound that was approved")]
    AboveBound,
    /// It was signed later than the gate's present.
    #[error("signed in the future")]
    NotYet,
    /// Its time has ended.
    #[error("expired")]
    Expired,
    /// It would hold longer than the policy's `ttl`.
    #[error("it would hold longer than the policy's `ttl`")]
    TooLongLived,
    /// Somebody has approved it who may not, or twice.
    #[error("approved by somebody who may not, or twice by the same")]
    NotAnApprover,
    /// The policy wants more people.
    #[error("approved by fewer people than the policy wants")]
    TooFewApprovers,
    /// It has been used.
    #[error("used already")]
    Spent,
}

impl SignedError {
    /// One word for logs: `malformed`, `unknown_key`, `forged`, `other_call`, `above_bound`, `not_yet`, `expired`,
    /// `too_long_lived`, `not_an_approver`, `too_few_approvers` or `spent`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::OtherCall => "other_call",
            Self::AboveBound => "above_bound",
            Self::NotYet => "not_yet",
            Self::Expired => "expired",
            Self::TooLongLived => "too_long_lived",
            Self::NotAnApprover => "not_an_approver",
            Self::TooFewApprovers => "too_few_approvers",
            Self::Spent => "spent",
        }
    }
}

impl Approval {
    /// Whether this person may approve it: is on every list of the policy, and has not asked for it.
    pub(super) fn may_approve(&self, by: &str) -> Result<(), DecideError> {
        if self.is_listed(by) && !self.asked(by) { Ok(()) } else { Err(DecideError::NotAnApprover) }
    }
}

/// Its id alone.
impl fmt::Debug for ApprovalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalKey").field("id", &self.id).finish_non_exhaustive()
    }
}
