//! Canonical JSON, so that equal values have equal digests: RFC 8785, except for integers.
//!
//! RFC 8785 writes every number as the nearest double, so that 2^53 and 2^53+1 have one text. Here,
//! a 64-bit integer is written in full, and a double that equals one is written as that integer:
//! one value, one text.

use serde_json::{Map, Number, Value};

use crate::json::number::{Exact, ShortText};
use crate::json::plain_length;

/// Writes a value.
pub(crate) fn write(to: &mut String, value: &Value) {
    match value {
        Value::Null => to.push_str("null"),
        Value::Bool(true) => to.push_str("true"),
        Value::Bool(false) => to.push_str("false"),
        Value::Number(number) => write_number(to, number),
        Value::String(text) => write_text(to, text),
        Value::Array(elements) => write_array(to, elements),
        Value::Object(members) => write_object(to, members),
    }
}

/// Writes an array.
pub(crate) fn write_array(to: &mut String, elements: &[Value]) {
    write_elements(to, elements, write);
}

/// Writes an array, each element by `write`.
pub(crate) fn write_elements(to: &mut String, elements: &[Value], write: impl Fn(&mut String, &Value)) {
    to.push('[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            to.push(',');
        }
        write(to, element);
    }
    to.push(']');
}

/// Writes an object, its keys in the order of their UTF-16 code units.
pub(crate) fn write_object(to: &mut String, members: &Map<String, Value>) {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    to.push('{');
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            to.push(',');
        }
        write_text(to, key);
        to.push(':');
        write(to, value);
    }
    to.push('}');
}

/// Writes a string with the fewest and shortest escapes.
pub(crate) fn write_text(to: &mut String, text: &str) {
    to.push('"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at_checked(plain_length(rest.as_bytes())).unwrap_or((rest, ""));
        to.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            None => break,
            Some('"') => to.push_str("\\\""),
            Some('\\') => to.push_str("\\\\"),
            Some('\u{8}') => to.push_str("\\b"),
            Some('\t') => to.push_str("\\t"),
            Some('\n') => to.push_str("\\n"),
            Some('\u{c}') => to.push_str("\\f"),
            Some('\r') => to.push_str("\\r"),
            Some(control) => to.push_str(&format!("\\u{:04x}", u32::from(control))),
        }
        rest = characters.as_str();
    }
    to.push('"');
}

fn write_number(to: &mut String, number: &Number) {
    match Exact::of(number) {
        Some(exact) => write_exact(to, exact),
        // No double holds it: its own text, which no other number has here.
        None => to.push_str(&number.to_string()),
    }
}

/// Writes a number.
pub(crate) fn write_exact(to: &mut String, exact: Exact) {
    match exact {
        Exact::Integer(integer) => to.push_str(&integer.to_string()),
        Exact::Large(integer) => to.push_str(&integer.to_string()),
        Exact::Float(float) => match whole(float) {
            Some(integer) => to.push_str(&integer.to_string()),
            None => write_float(to, float),
        },
    }
}

/// Returns the 64-bit integer, signed or not, that a double equals.
fn whole(float: f64) -> Option<i128> {
    let fits = float.fract() == 0.0 && (-(2f64.powi(63))..2f64.powi(64)).contains(&float);
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 64 bits")]
    fits.then_some(float as i128)
}

/// Writes a double as ECMAScript does: with the shortest digits that read back as the same double.
fn write_float(to: &mut String, float: f64) {
    let short = ShortText::of(float);
    let Some(decimal) = short.decimal() else { return to.push_str(short.as_str()) };
    let digits: String = decimal.digits().map(|digit| char::from(b'0' + digit)).collect();
    // The position of the decimal point among the digits.
    let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let point = count + decimal.scale;
    let zeros = |many: i64| "0".repeat(usize::try_from(many).unwrap_or(0));
    let split = |at: i64| digits.split_at_checked(usize::try_from(at).unwrap_or(0)).unwrap_or((&digits, ""));
    if decimal.negative {
        to.push('-');
    }
    let written = if count <= point && point <= 21 {
        format!("{digits}{}", zeros(point - count))
    } else if 0 < point && point <= 21 {
        let (before, after) = split(point);
        format!("{before}.{after}")
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = split(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{first}{dot}{rest}e{:+}", point - 1)
    };
    to.push_str(&written);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(value: &Value) -> String {
        let mut text = String::new();
        write(&mut text, value);
        text
    }

    #[test]
    fn numbers_have_one_text() {
        for (value, want) in [
            (json!(100), "100"),
            (json!(100.0), "100"),
            (json!(1e2), "100"),
            (json!(-0.0), "0"),
            (json!(0), "0"),
            (json!(-7), "-7"),
            (json!(0.1), "0.1"),
            (json!(-1.5), "-1.5"),
            (json!(123.456), "123.456"),
            (json!(0.000_001), "0.000001"),
            (json!(0.000_000_1), "1e-7"),
            (json!(1.25e-7), "1.25e-7"),
            (json!(5e-324), "5e-324"),
            (json!(1.797_693_134_862_315_7e308), "1.7976931348623157e+308"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e21), "1e+21"),
            (json!(-1.5e300), "-1.5e+300"),
            (json!(9_007_199_254_740_992u64), "9007199254740992"),
            (json!(9_007_199_254_740_993u64), "9007199254740993"),
            (json!(9_007_199_254_740_992f64), "9007199254740992"),
            // ECMAScript rounds this one to ...847000. Here it equals an integer, and is written as
            // such.
            (json!(1_152_921_504_606_846_976f64), "1152921504606846976"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(i64::MIN), "-9223372036854775808"),
            (json!(-9_223_372_036_854_775_808f64), "-9223372036854775808"),
            (json!(18_446_744_073_709_551_616f64), "18446744073709552000"),
            (json!(333_333_333.333_333_3), "333333333.3333333"),
            // 190123405678907.125 is as near to ...07.12 as to ...07.13: the even one. (`{:e}`
            // writes the other.)
            (json!(1_520_987_245_431_257.0 / 8.0), "190123405678907.12"),
            (json!(1_520_987_245_431_259.0 / 8.0), "190123405678907.38"),
            (json!(140_737_488_355_329.0 / 16.0), "8796093022208.062"),
        ] {
            assert_eq!(text(&value), want, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_double_reads_back_from_its_text(bits in proptest::prelude::any::<u64>()) {
            let float = f64::from_bits(bits);
            if float.is_finite() {
                let text = text(&json!(float));
                proptest::prop_assert_eq!(text.parse::<f64>().unwrap(), float, "{}", text);
                let again: Value = serde_json::from_str(&text).unwrap();
                let mut twice = String::new();
                write(&mut twice, &again);
                proptest::prop_assert_eq!(twice, text);
            }
        }
    }

    #[test]
    fn strings_have_the_fewest_escapes() {
        let value = json!("\u{20ac}$\u{f}\u{a}A' \u{42}\u{22}\u{5c}\\\"/\u{7f}\u{8}\t\r\u{c}");
        assert_eq!(text(&value), "\"\u{20ac}$\\u000f\\nA' B\\\"\\\\\\\\\\\"/\u{7f}\\b\\t\\r\\f\"");
    }

    #[test]
    fn keys_are_in_the_order_of_utf_16() {
        let value = json!({ "\u{fb33}": 1, "\u{1f600}": 2, "\u{20ac}": 3, "b": 4, "a": [true, null, {}], "": false });
        // A smiley is a surrogate pair, and sorts before U+FB33, though its code point is higher.
        let want = "{\"\":false,\"a\":[true,null,{}],\"b\":4,\"\u{20ac}\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}";
        assert_eq!(text(&value), want);
    }
}
