//! Bytes as hexadecimal digits.

use std::fmt;

/// Two small digits for each byte.
pub(crate) struct Hex<'b>(pub(crate) &'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes of a row of digits, small or large.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte << 4 | u8::try_from(*digit).unwrap_or(0));
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(byte).collect())
}

/// The 32 bytes of a digest, as [`Hex`] writes them and in no other spelling.
pub(crate) fn undigest(text: &str) -> Option<[u8; 32]> {
    let small = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    unhex(text).filter(|_| small)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_and_nothing_else_does() {
        let bytes = [0x00, 0x0f, 0xf0, 0xab];
        assert_eq!(Hex(&bytes).to_string(), "000ff0ab");
        assert_eq!(unhex("000ff0ab").as_deref(), Some(&bytes[..]));
        assert_eq!(unhex("000FF0AB").as_deref(), Some(&bytes[..]));
        assert_eq!(unhex(""), Some(Vec::new()));
        for wrong in ["0", "0g", "é0", "+1", " 0"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
