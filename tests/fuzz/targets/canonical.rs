//! Canonical JSON against an independent writer, and amounts against decimal digits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Number, Value};
use toolgate::Amount;
use toolgate::mcp::ToolDigest;
use toolgate_fuzz::canonical;
use toolgate_fuzz::strict::Decimal;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let values: Vec<Value> = text.split('\n').take(4).filter_map(|line| serde_json::from_str(line).ok()).collect();
    for value in &values {
        // The same bytes are hashed.
        let written = canonical::text(value);
        let digest = ToolDigest::of(value);
        assert_eq!(digest.to_string(), canonical::digest(value), "{written}");
        // The text reads back as the value, so that no other value has it, and it is its own
        // canonical text.
        let again: Value = serde_json::from_str(&written).expect("canonical text is JSON");
        assert!(are_equal(value, &again), "{value} is written {written}");
        assert_eq!((canonical::text(&again), ToolDigest::of(&again)), (written, digest));
        each_number(value, &mut amount_is_exact);
    }
    for (one, other) in values.iter().zip(values.iter().skip(1)) {
        assert_eq!(ToolDigest::of(one) == ToolDigest::of(other), are_equal(one, other), "{one} and {other}");
    }
});

/// Compares by value: `1` is `1.0`, and the order of members does not count.
fn are_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => of_number(one) == of_number(other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| are_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(key, value)| other.get(key).is_some_and(|other| are_equal(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

/// The value of a number as it is held: all digits of a whole double of 64 bits, the shortest text
/// of any other.
fn of_number(number: &Number) -> Decimal {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) if float.fract() == 0.0 && (-(2f64.powi(63))..2f64.powi(64)).contains(&float) => {
            Decimal::of(&format!("{float:.0}"))
        }
        _ => Decimal::of(&number.to_string()),
    }
}

fn each_number(value: &Value, hear: &mut impl FnMut(&Number)) {
    match value {
        Value::Number(number) => hear(number),
        Value::Array(elements) => elements.iter().for_each(|element| each_number(element, hear)),
        Value::Object(members) => members.values().for_each(|member| each_number(member, hear)),
        _ => {}
    }
}

/// An amount has the value of its number, to the last of six decimals, or the number is refused.
fn amount_is_exact(number: &Number) {
    let Decimal { negative, digits, power } = of_number(number);
    let micros = ((!negative && (-6..=12).contains(&power)) || digits.is_empty())
        .then(|| format!("0{digits}{}", "0".repeat(usize::try_from(power + 6).unwrap_or(0))))
        .and_then(|micros| micros.parse::<u64>().ok())
        .filter(|micros| *micros <= 9_000_000_000_000_000_000);
    let amount = Amount::from_number(number).ok().map(|amount| amount.micros());
    assert_eq!(amount, micros, "{number}");
}
