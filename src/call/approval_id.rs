//! The digest of a call, and the id of an approval.

use std::fmt;
use std::str::FromStr;

use crate::json::hex::{Hex, parse_digest};

/// A SHA-256 over everything that an approval is bound to: tool, server, arguments, grant, session,
/// agent, user and policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallDigest([u8; 32]);

impl CallDigest {
    /// The digest with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for CallDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for CallDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallDigest({self})")
    }
}

/// The id of an approval: the call's digest, and a number. A call that asks again after a refusal
/// gets another number, so an old answer cannot approve a new request.
///
/// The id is not a secret, and knowing it gives no right to decide: the host controls who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId {
    digest: CallDigest,
    number: u64,
}

impl ApprovalId {
    /// The id with this number for calls of this digest. A store assigns each number once per
    /// digest.
    pub const fn new(digest: CallDigest, number: u64) -> Self {
        Self { digest, number }
    }

    /// The digest of the calls that the approval is for.
    pub fn digest(&self) -> CallDigest {
        self.digest
    }

    /// The number.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// The digest, a dash, and the number in hexadecimal digits.
impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.digest, self.number)
    }
}

/// The error for a text that is not the id of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid approval id: expected 64 hexadecimal digits, a dash and a hexadecimal number")]
#[non_exhaustive]
pub struct ParseApprovalIdError;

/// Accepts exactly the text that `Display` writes.
impl FromStr for ApprovalId {
    type Err = ParseApprovalIdError;

    fn from_str(text: &str) -> Result<Self, ParseApprovalIdError> {
        let (digits, number) = text.split_once('-').ok_or(ParseApprovalIdError)?;
        let digest = CallDigest(parse_digest(digits).ok_or(ParseApprovalIdError)?);
        let number = u64::from_str_radix(number, 16).map_err(|_| ParseApprovalIdError)?;
        let id = Self { digest, number };
        if id.to_string() == text { Ok(id) } else { Err(ParseApprovalIdError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_displayed_text_of_an_id_parses() {
        let id = ApprovalId::new(CallDigest([0xab; 32]), 0x1f);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        let digest = "ab".repeat(32);
        for wrong in
            ["", "-", "ab-1f", &digest, &text.to_uppercase(), &format!("{digest}-01f"), &format!("{digest}-+1f")]
        {
            assert!(wrong.parse::<ApprovalId>().is_err(), "{wrong}");
        }
        assert!(format!("{digest}ab-1f").parse::<ApprovalId>().is_err());
        assert!(format!("{}-1f", "é".repeat(32)).parse::<ApprovalId>().is_err());
    }
}
