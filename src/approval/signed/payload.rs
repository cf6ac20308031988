//! The binary content of a signed approval. Each content has exactly one encoding, and no two
//! contents share one.
//!
//! In this order, integers with the most significant byte first:
//!
//! - the digest, 32 bytes;
//! - the request's number, when it was signed, and until when it is valid (microseconds since the
//!   Unix epoch), 8 bytes each;
//! - the number of bounds, 2 bytes, and for each its length, 1 byte, and its canonical text;
//! - the number of approvers, 2 bytes, and for each the length of the name, 2 bytes, and the name.

use crate::approval::{Approval, ApprovalId, CallDigest};
use crate::json::canonical;
use crate::json::number::Exact;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Payload {
    pub(super) id: ApprovalId,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) bounds: Vec<Exact>,
    pub(super) approved_by: Vec<Box<str>>,
}

impl Payload {
    pub(super) fn of(approval: &Approval, now: Timestamp) -> Self {
        Self {
            id: *approval.id(),
            issued_at: now,
            // At most a `ttl` from now, even if the clock was ahead when it was approved.
            expires_at: approval.expires_at().min(now.saturating_add(approval.ttl)),
            bounds: approval.bounds.to_vec(),
            approved_by: approval.approved_by.clone(),
        }
    }

    /// Returns `None` if a part is too long, or there are too many.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        let mut bytes = self.id.digest().as_bytes().to_vec();
        bytes.extend(self.id.number().to_be_bytes());
        bytes.extend(self.issued_at.unix_micros().to_be_bytes());
        bytes.extend(self.expires_at.unix_micros().to_be_bytes());
        bytes.extend(u16::try_from(self.bounds.len()).ok()?.to_be_bytes());
        for bound in &self.bounds {
            let text = text(*bound);
            bytes.push(u8::try_from(text.len()).ok()?);
            bytes.extend(text.as_bytes());
        }
        bytes.extend(u16::try_from(self.approved_by.len()).ok()?.to_be_bytes());
        for by in &self.approved_by {
            bytes.extend(u16::try_from(by.len()).ok()?.to_be_bytes());
            bytes.extend(by.as_bytes());
        }
        Some(bytes)
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let digest = CallDigest::new(rest.array()?);
        let id = ApprovalId::new(digest, u64::from_be_bytes(rest.array()?));
        let [issued_at, expires_at] =
            [rest.array()?, rest.array()?].map(|bytes| Timestamp::from_unix_micros(i64::from_be_bytes(bytes)));
        let bounds = (0..rest.count()?).map(|_| {
            let [length] = rest.array()?;
            let written = rest.text(length.into())?;
            Exact::of_text(written).filter(|bound| text(*bound) == written)
        });
        let bounds = bounds.collect::<Option<_>>()?;
        let approved_by = (0..rest.count()?).map(|_| {
            let length = rest.count()?;
            rest.text(length.into()).map(Box::from)
        });
        let approved_by = approved_by.collect::<Option<_>>()?;
        rest.0.is_empty().then_some(Self { id, issued_at, expires_at, bounds, approved_by })
    }
}

fn text(bound: Exact) -> String {
    let mut text = String::new();
    canonical::write_exact(&mut text, bound);
    text
}

/// The bytes that have not been read yet.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn count(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn text(&mut self, bytes: usize) -> Option<&'b str> {
        let (text, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payloads() -> impl Strategy<Value = Payload> {
        let bounds = prop::collection::vec(
            prop_oneof![
                any::<i64>().prop_map(Exact::Integer),
                any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Exact::Float),
            ],
            0..4,
        );
        let by = prop::collection::vec(".{0,12}", 0..4);
        (any::<[u8; 32]>(), any::<u64>(), any::<i64>(), any::<i64>(), bounds, by).prop_map(
            |(digest, number, issued, expires, bounds, by)| Payload {
                id: ApprovalId::new(CallDigest::new(digest), number),
                issued_at: Timestamp::from_unix_micros(issued),
                expires_at: Timestamp::from_unix_micros(expires),
                bounds,
                approved_by: by.into_iter().map(Box::from).collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn a_written_payload_reads_back(payload in payloads()) {
            let bytes = payload.write().unwrap();
            let again = Payload::read(&bytes).unwrap();
            let times = |payload: &Payload| (payload.issued_at, payload.expires_at);
            prop_assert_eq!((again.id, times(&again)), (payload.id, times(&payload)));
            prop_assert_eq!((&again.bounds, &again.approved_by), (&payload.bounds, &payload.approved_by));
        }

        /// Bytes that can be read are those that would be written: each content has one encoding.
        #[test]
        fn only_written_bytes_can_be_read(
            payload in payloads(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = payload.write().unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Some(read) = Payload::read(&bytes) {
                prop_assert_eq!(read.write().unwrap(), bytes);
            }
        }
    }
}
