//! Hexadecimal digits.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// Displays bytes as lower-case hexadecimal digits, two for each byte.
pub(crate) struct Hex<'b>(pub(crate) &'b [u8]);

impl fmt::Display for Hex<'_> {
    /// Writes 32 bytes at a time, the size of a digest, because logs are full of digests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' - 10 + half };
        self.0.chunks(32).try_for_each(|bytes| {
            let mut text = [0; 64];
            let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit);
            text.iter_mut().zip(digits).for_each(|(to, digit)| *to = digit);
            let text = text.get(..2 * bytes.len()).and_then(|text| std::str::from_utf8(text).ok());
            f.write_str(text.ok_or(fmt::Error)?)
        })
    }
}

/// Decodes hexadecimal digits, only in the form that [`Hex`] writes: bytes have one text.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let value = |digit: char| digit.to_digit(16).filter(|_| !digit.is_ascii_uppercase());
    let digits: Vec<u32> = text.chars().map(value).collect::<Option<_>>()?;
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte << 4 | u8::try_from(*digit).unwrap_or(0));
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(byte).collect())
}

/// Deserialises bytes from a string of hexadecimal digits.
pub(crate) fn bytes_of_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let bytes = decode_hex(&String::deserialize(deserializer)?);
    bytes.ok_or_else(|| de::Error::custom("not pairs of hexadecimal digits"))
}

/// Parses the 32 bytes of a digest, in the form that [`Hex`] writes. Logs are full of digests.
pub(crate) fn parse_digest(text: impl AsRef<[u8]>) -> Option<[u8; 32]> {
    let text: &[u8; 64] = text.as_ref().try_into().ok()?;
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => 0x80,
    };
    let (mut digest, mut all) = ([0; 32], 0);
    for (byte, pair) in digest.iter_mut().zip(text.as_chunks::<2>().0) {
        let [high, low] = pair.map(value);
        all |= high | low;
        *byte = high << 4 | low & 15;
    }
    (all < 0x80).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hexadecimal_digits_decode() {
        let bytes = [0x00, 0x0f, 0xf0, 0xab];
        assert_eq!(Hex(&bytes).to_string(), "000ff0ab");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_hex(&Hex(&all).to_string()), Some(all));
        assert_eq!(decode_hex("000ff0ab").as_deref(), Some(&bytes[..]));
        assert_eq!(decode_hex(""), Some(Vec::new()));
        for wrong in ["0", "0g", "é0", "+1", " 0", "0F", "aB"] {
            assert_eq!(decode_hex(wrong), None, "{wrong}");
        }
        let digest: Vec<u8> = (100..132).collect();
        let text = Hex(&digest).to_string();
        assert_eq!(parse_digest(&text).as_ref().map(|digest| &digest[..]), Some(&digest[..]));
        for wrong in [text.trim_start_matches('6'), &format!("{text}0"), &text.replace('6', "g"), &text.to_uppercase()]
        {
            assert_eq!(parse_digest(wrong), None, "{wrong}");
        }
    }
}
