//! Signed approvals: a separate service shows a request to people and returns a signed text, which
//! a gate verifies without a store. Only its single use needs the store.
//!
//! Gate and service share an [`ApprovalKey`]:
//!
//! 1. The gate's host sends the request as a text ([`write_request`](ApprovalKeys::write_request)).
//! 2. The service reads it, lets people decide, and signs ([`sign`](ApprovalKeys::sign)).
//! 3. The agent makes the call again, with the signed text. The host sets it on the call with
//!    [`ToolCall::signed`](crate::ToolCall::signed).
//! 4. The gate verifies the key and the signature, that the text is for this call under the policy
//!    in force, that no number is above the one that people saw, the times, and the approvers. Then
//!    it asks the approval store whether the request has been used.
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
//! let Decision::RequireApproval(request) = gate.check(&call) else { panic!("it needs an approval") };
//! let request = keys.write_request(request.approval().ok_or("no request")?)?;
//!
//! // The service shows it to people, and signs what they approve.
//! let mut shown = keys.read_request(&request)?;
//! assert_eq!((shown.tool(), shown.details()), ("pay", Some(r#"{"amount":5}"#)));
//! shown.decide(Verdict::Approve, "ann", SystemClock.now())?;
//! let signed = keys.sign(&shown, SystemClock.now())?;
//!
//! // The same call passes, once.
//! let call = call.signed(&signed);
//! assert!(gate.check(&call).is_allowed());
//! let Decision::RequireApproval(request) = gate.check(&call) else { panic!("it was used") };
//! assert_eq!(request.signed_error().map(|error| error.as_str()), Some("spent"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A request can be used once, or as often as the policy's `uses` says, however often it is signed,
//! and also if it is approved at the gate.
//! If it is refused at the gate, no text for it is accepted, whenever it was signed. Gates with
//! separate approval stores each allow one use, so let them share a store.
//!
//! # Format
//! A signed approval is `approval1.`, the key's id, `.`, hexadecimal digits, `.`, and the 64 digits
//! of an HMAC-SHA-256 over everything before. It has at most 4 KiB of letters, digits, `.`, `-` and
//! `_`, which need no escapes in a URL, a header or JSON. Each approval has exactly one form. The
//! digits encode the call's digest, the request's number, when it was signed and until when it is
//! valid, the upper bounds, and the approvers. The text is not encrypted and has no secret in it,
//! but whoever has it can make that call as that caller, as often as the policy allows.
//!
//! A request is `request1.`, the key's id, `.`, the 64 digits of an HMAC-SHA-256 over the rest,
//! `.`, and a JSON object. It is signed too, so that people cannot be shown another call than the
//! one that they approve. It contains the [details](crate::approval::Approval::details) of the
//! call, if the store keeps them: argument values.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::DecideError;
use super::ask::Ask;
use super::record::{Approval, ApprovalState, is_same_person};

use crate::json::hex::{Hex, decode_hex};
use crate::time::Timestamp;

mod payload;
mod presented;
use payload::Payload;

pub(crate) use presented::{SignedText, VerifiedApproval};

/// The minimum length of a secret: that of the hash. A shorter one is easier to guess than the MAC.
const SECRET_BYTES: usize = 32;
const MAX_ID_BYTES: usize = 32;
const MAX_SIGNED_BYTES: usize = 4096;
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// The default for how far the service's clock can be ahead of the gate's.
const SKEW: Duration = Duration::from_secs(5);
const APPROVAL: &str = "approval1";
const REQUEST: &str = "request1";

/// A named secret that gate and approval service share. Whoever has it can approve any call.
#[derive(Clone)]
pub struct ApprovalKey {
    id: Box<str>,
    mac: Hmac<Sha256>,
}

/// A key could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is too short.
    #[error("the secret of a key needs at least 32 random bytes; this one has {bytes}")]
    Short {
        /// The length of the secret.
        bytes: usize,
    },
    /// The id is empty, too long, or has other characters.
    #[error("the id of a key must be 1 to 32 ASCII letters, digits, `-` and `_`, such as `2026-01`")]
    Id,
}

impl ApprovalKey {
    /// A key from at least 32 random bytes. Its id identifies it among several keys, and is not a
    /// secret.
    ///
    /// # Errors
    /// A shorter secret, or an id that is not 1 to 32 ASCII letters, digits, `-` and `_`.
    pub fn new(id: &str, secret: &[u8]) -> Result<Self, KeyError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=MAX_ID_BYTES).contains(&id.len()) || !id.bytes().all(is_plain) {
            return Err(KeyError::Id);
        }
        let short = KeyError::Short { bytes: secret.len() };
        if secret.len() < SECRET_BYTES {
            return Err(short);
        }
        Ok(Self { id: id.into(), mac: Hmac::new_from_slice(secret).map_err(|_| short)? })
    }

    /// The id of the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs an approval that people have [given](Approval::decide). A gate accepts the text for as
    /// many calls as the approval has [uses](Approval::uses), until the approval expires.
    ///
    /// # Errors
    /// The approval is not approved, has expired, or its text would be longer than 4 KiB.
    pub fn sign(&self, approval: &Approval, now: Timestamp) -> Result<String, SignError> {
        if approval.clone().look(now) != ApprovalState::Approved {
            return Err(SignError::NotApproved);
        }
        let payload = Payload::of(approval, now).write().ok_or(SignError::TooLong)?;
        let text = format!("{APPROVAL}.{}.{}", self.id, Hex(&payload));
        let signed = format!("{text}.{}", Hex(&self.mac_of(&[&text])));
        if signed.len() > MAX_SIGNED_BYTES { Err(SignError::TooLong) } else { Ok(signed) }
    }

    fn mac_of(&self, parts: &[&str]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part.as_bytes()));
        mac.finalize().into_bytes().into()
    }

    /// Returns `true` if these digits are the MAC of the concatenated parts. The comparison takes
    /// constant time.
    fn has_signed(&self, parts: &[&str], digits: &str) -> bool {
        let Some(bytes) = decode_hex(digits) else { return false };
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part.as_bytes()));
        mac.verify_slice(&bytes).is_ok()
    }
}

/// The keys of a gate or a service: the first key signs, and all of them verify. To replace a key,
/// first add the new one everywhere, then put it first, and remove the old one once the texts that
/// it signed have expired.
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
    /// One key, which signs and verifies.
    pub fn new(first: ApprovalKey) -> Self {
        Self { first, others: Vec::new(), max_skew: SKEW }
    }

    /// Adds a key that only verifies.
    #[must_use = "this returns the keys with the new one"]
    pub fn and(mut self, other: ApprovalKey) -> Self {
        self.others.push(other);
        self
    }

    /// Sets how far the service's clock can be ahead of the gate's; the default is five seconds. A
    /// text that was signed further in the future is refused.
    #[must_use = "this returns the keys with the new setting"]
    pub fn max_skew(self, max_skew: Duration) -> Self {
        Self { max_skew, ..self }
    }

    /// Writes a request for the service that asks people.
    ///
    /// # Errors
    /// The request has been refused, or has expired.
    pub fn write_request(&self, approval: &Approval) -> Result<String, SignError> {
        if matches!(approval.state(), ApprovalState::Denied | ApprovalState::Expired) {
            return Err(SignError::Ended);
        }
        let (key, json) = (&self.first, approval.to_json());
        let head = format!("{REQUEST}.{}.", key.id);
        Ok(format!("{head}{}.{json}", Hex(&key.mac_of(&[&head, &json]))))
    }

    /// Reads a request from a gate's host. People see it and decide it by [`Approval::decide`],
    /// which knows the terms of the policy. Once approved, it can be [signed](Self::sign).
    ///
    /// # Errors
    /// The text was not signed with one of the keys, or is longer than 1 MiB.
    pub fn read_request(&self, text: &str) -> Result<Approval, SignedError> {
        let parts = split(text, MAX_REQUEST_BYTES, REQUEST).ok_or(SignedError::Malformed)?;
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

    /// Verifies that a text lets this call pass now. Only a store knows whether it has been used.
    fn verify(&self, text: &str, ask: &Ask<'_>, now: Timestamp) -> Result<VerifiedApproval, SignedError> {
        let parts = split(text, MAX_SIGNED_BYTES, APPROVAL).ok_or(SignedError::Malformed)?;
        let (digits, mac) = parts.rest.split_once('.').ok_or(SignedError::Malformed)?;
        self.check(&parts, &[parts.head, digits], mac)?;
        let payload = decode_hex(digits).and_then(|bytes| Payload::read(&bytes)).ok_or(SignedError::Malformed)?;
        let Payload { id, issued_at, expires_at, bounds, approved_by } = payload;
        if id.digest() != ask.digest() {
            return Err(SignedError::OtherCall);
        }
        // The approval as this gate would have made it, on the terms of the policy in force.
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
            let is_again = approved_by.iter().take(index).any(|other| is_same_person(other, by));
            if is_again || approval.may_approve(by).is_err() {
                return Err(SignedError::NotAnApprover);
            }
        }
        if approved_by.len() < approval.min_approvers() as usize {
            return Err(SignedError::TooFewApprovers);
        }
        // The same request may have been signed again, later, so it counts as used for as long as
        // such a text can be valid. The request was made before this text expires, however far the
        // service's clock is behind, and people decide within its `ttl`.
        let until = approval.expires_at().saturating_add(approval.ttl * 2).saturating_add(self.max_skew);
        Ok(VerifiedApproval { id, uses: approval.uses(), until })
    }

    fn check(&self, parts: &Parts<'_>, signed: &[&str], mac: &str) -> Result<(), SignedError> {
        let all = || std::iter::once(&self.first).chain(&self.others).filter(|key| &*key.id == parts.key);
        if all().next().is_none() {
            return Err(SignedError::UnknownKey);
        }
        if all().any(|key| key.has_signed(signed, mac)) { Ok(()) } else { Err(SignedError::Forged) }
    }
}

/// The parts of a text: its kind and the key's id, each with the dot after it; the id; the rest.
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

/// An approval or a request could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// Too few people have approved it, or it has expired.
    #[error("the approval is not approved")]
    NotApproved,
    /// It has been refused, or has expired.
    #[error("the request has been refused, or has expired")]
    Ended,
    /// The names of the approvers and the bounds do not fit into 4 KiB.
    #[error("the signed approval would be longer than {MAX_SIGNED_BYTES} bytes")]
    TooLong,
}

/// The reason why a signed approval does not let a call pass. It is for the host's log, not for the
/// agent, which could try until one passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// It is not the text of a signed approval.
    #[error("not a signed approval")]
    Malformed,
    /// It names a key that the host does not have.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// Its MAC was not made with the key.
    #[error("the signature does not match the key")]
    Forged,
    /// It is for a call of another tool, with other arguments, of another caller, or under another
    /// policy.
    #[error("for another call, or under another policy")]
    OtherCall,
    /// A number of the call is above the one that was approved.
    #[error("a number of the call is above the bound that was approved")]
    AboveBound,
    /// It was signed later than the gate's present, by more than the allowed difference.
    #[error("signed in the future")]
    NotYet,
    /// Its time has ended.
    #[error("expired")]
    Expired,
    /// It is valid for longer than the policy's `ttl`.
    #[error("valid for longer than the policy's `ttl`")]
    TooLongLived,
    /// A person approved it who cannot approve it, or one person approved it twice.
    #[error("approved by a person who cannot approve it, or twice by one person")]
    NotAnApprover,
    /// The policy requires more approvers.
    #[error("approved by fewer people than the policy requires")]
    TooFewApprovers,
    /// It has been used up.
    #[error("already used")]
    Spent,
    /// A person has refused the request at the gate.
    #[error("refused by a person at the gate")]
    Refused,
}

impl SignedError {
    /// The code for logs: `malformed`, `unknown_key`, `forged`, `other_call`, `above_bound`,
    /// `not_yet`, `expired`, `too_long_lived`, `not_an_approver`, `too_few_approvers`, `spent` or
    /// `refused`.
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
            Self::Refused => "refused",
        }
    }
}

impl Approval {
    /// Checks that `by` can approve it: is on every list of the policy, and did not ask for it.
    pub(super) fn may_approve(&self, by: &str) -> Result<(), DecideError> {
        if self.is_listed(by) && !self.asked(by) { Ok(()) } else { Err(DecideError::NotAnApprover) }
    }
}

/// The id alone.
impl fmt::Debug for ApprovalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalKey").field("id", &self.id).finish_non_exhaustive()
    }
}
