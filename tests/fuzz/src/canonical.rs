//! An independent writer of canonical JSON: RFC 8785, with 64-bit integers in full.

use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};

pub fn text(value: &Value) -> String {
    match value {
        Value::Number(number) => number_text(number),
        Value::Array(elements) => format!("[{}]", elements.iter().map(text).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| key.encode_utf16().collect::<Vec<_>>());
            let member = |(key, value): (&String, &Value)| format!("{}:{}", Value::from(key.as_str()), text(value));
            format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn number_text(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let float = number.as_f64().expect("a double");
    // Integers up to 2^64 that a double holds are written as integers.
    match float.fract() == 0.0 && float >= -9_223_372_036_854_775_808.0 && float < 18_446_744_073_709_551_616.0 {
        true => (float as i128).to_string(),
        false => ryu_js::Buffer::new().format_finite(float).to_owned(),
    }
}

/// The SHA-256 of the canonical text, in hexadecimal digits.
pub fn digest(value: &Value) -> String {
    hex(&Sha256::digest(text(value)))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
