//! The schema of texts: names, paths, durations. Patterns are in the syntax of ECMA-262, without
//! look-around.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::super::Bounds;
use super::{Path, SinglePath};
use crate::call::path::{CALL_MEMBERS, TIME_MEMBERS};
use crate::policy::limit::MAX_DURATION;

/// A text that is compared, or a name: without control characters.
pub(super) fn plain() -> Schema {
    json_schema!({ "type": "string", "pattern": no_control() })
}

pub(super) fn no_control() -> String {
    format!("^[^{CONTROL}]*$")
}

/// A name in `hide`.
pub(super) fn name() -> Schema {
    json_schema!({
        "title": "Tool name",
        "type": "string",
        "pattern": no_control(),
        "minLength": 1,
        "maxLength": Bounds::default().pattern_bytes,
        "examples": ["delete_account", "admin_*"],
    })
}

/// A key of `tools`. One of stars alone would be a second `all_tools`.
pub(super) fn entry_name() -> Schema {
    json_schema!({
        "title": "Tool name",
        "type": "string",
        "pattern": format!("^[^{CONTROL}]*[^*{CONTROL}][^{CONTROL}]*$"),
        "maxLength": Bounds::default().pattern_bytes,
        "examples": ["create_charge", "refund_*"],
    })
}

pub(super) fn regex() -> Schema {
    json_schema!({
        "type": "string",
        "pattern": no_control(),
        "maxLength": Bounds::default().regex_bytes,
        "examples": ["^[a-z0-9_]+$"],
    })
}

/// An absolute directory that every server reads the same way.
pub(super) fn directory() -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^/",
        "not": {
            "pattern": format!(r"^//|/(?:\.{{3,}}|[. ]* [. ]*)(?:/|$)|[{CONTROL}]|\\|%2[eEfF]|%5[cC]|%00"),
        },
        "examples": ["/srv/data"],
    })
}

pub(super) fn host() -> Schema {
    json_schema!({
        "type": "string",
        "pattern": format!(r"^(?:\*\.)?[^*/?#@\\{BLANK}]+$"),
        "examples": ["example.com", "*.example.com"],
    })
}

pub(super) fn utc_offset() -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]$",
        "examples": ["+02:00", "-05:30"],
    })
}

pub(super) fn duration() -> Schema {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let units = units.map(|(unit, seconds)| format!("(?:{}){unit}", up_to(MAX_DURATION / seconds)));
    json_schema!({
        "title": "Duration",
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": MAX_DURATION },
            { "type": "string", "pattern": format!("^0*(?:{})$", units.join("|")) },
        ],
        "examples": ["15m", "12h", 90],
    })
}

pub(super) fn path() -> Schema {
    let spellings = |root: &str, members: &[&str]| {
        let members: Vec<_> = members.iter().map(|member| escapable(member)).collect();
        format!(r#"{root}\["(?:{})"\]"#, members.join("|"))
    };
    let call = CALL_MEMBERS.iter().map(|member| format!("call.{member}"));
    let time = TIME_MEMBERS.iter().map(|member| format!("time.{member}"));
    let facts: Vec<_> = call.chain(time).collect();
    json_schema!({
        "title": "Path",
        "type": "string",
        "anyOf": [
            { "pattern": format!("^(?:args|context|input)(?:{}|\\[\\*\\]|\\.\\*)*$", single_step()) },
            { "enum": facts },
            { "pattern": format!("^(?:{}|{})$", spellings("call", &CALL_MEMBERS), spellings("time", &TIME_MEMBERS)) },
        ],
        "examples": ["args.amount", "args.items[*].price", r#"context["x-role"]"#],
    })
}

/// A path without `[*]` and `.*` outside quotes.
pub(super) fn single_path(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "Path to one value",
        "allOf": [generator.subschema_for::<Path>()],
        "pattern": r#"^(?:[^\["*]|\[[^*"]|\["(?:[^"\\]|\\.)*")*$"#,
        "examples": ["args.amount", "args.items[0].price", "call.user"],
    })
}

/// A path that cannot be a word of a scope.
pub(super) fn scope_path(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "Path to a part of a scope",
        "allOf": [generator.subschema_for::<SinglePath>()],
        "pattern": r"[.\[]",
        "not": { "pattern": format!(r#"^call(?:\.task|\["{}"\])$"#, escapable("task")) },
        "examples": ["args.customer_id"],
    })
}

/// A path that an approval is bound to: one argument, or an upper bound of it.
pub(super) fn bound_path() -> Schema {
    json_schema!({
        "title": "Path to an argument",
        "type": "string",
        "pattern": format!("^args(?:{})*(?:<=)?$", single_step()),
        "examples": ["args.customer", "args.amount<="],
    })
}

/// A path to one value that the host supplies.
pub(super) fn context_path() -> Schema {
    json_schema!({
        "title": "Path to a value of the host",
        "type": "string",
        "pattern": format!("^context(?:{})+$", single_step()),
        "examples": ["context.plan.max"],
    })
}

/// A step to one value: `.name`, `["name"]`, `[0]`.
fn single_step() -> String {
    let name = format!(r#"[^.\[\]"'`*<>={BLANK}]+"#);
    let index = up_to(u32::MAX);
    format!(r#"\.{name}|\["(?:{})*"\]|\[(?:0|{index})\]"#, string_character())
}

/// A character of a name in a JSON string, or its escape. Surrogates are characters only in pairs.
fn string_character() -> String {
    let hex = "[0-9a-fA-F]";
    let zero = format!("0(?:[1-9a-fA-F]{hex}{{2}}|0[2-9a-fA-F]{hex}|00[9aAdD])");
    let alone = format!("{zero}|[1-9abcefABCEF]{hex}{{3}}|[dD][0-7]{hex}{{2}}");
    let pair = format!(r"[dD][89abAB]{hex}{{2}}\\u[dD][c-fC-F]{hex}{{2}}");
    format!(r#"[^"\\\u0000-\u001f]|\\["\\/nrt]|\\u(?:{alone}|{pair})"#)
}

/// A word in a JSON string: each letter as it is, or escaped.
fn escapable(word: &str) -> String {
    let digit = |digit: char| match digit.to_ascii_uppercase() {
        upper if upper == digit => digit.to_string(),
        upper => format!("[{digit}{upper}]"),
    };
    let letter = |letter: char| {
        let code: String = format!("{:04x}", u32::from(letter)).chars().map(digit).collect();
        format!(r"(?:{letter}|\\u{code})")
    };
    word.chars().map(letter).collect()
}

/// The spellings of the path to a part of the time.
pub(super) fn time_path(member: &str) -> String {
    format!(r#"^time(?:\.{member}|\["{}"\])$"#, escapable(member))
}

/// A date of the calendar.
pub(super) fn date() -> Schema {
    let leap = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
    let days = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|\
                02-(?:0[1-9]|1[0-9]|2[0-8])";
    json_schema!({
        "type": "string",
        "pattern": format!("^(?:[0-9]{{4}}-(?:{days})|{leap}-02-29)$"),
        "examples": ["2026-01-15"],
    })
}

/// The whole numbers from 1 to `max`, without leading zeros.
fn up_to(max: u32) -> String {
    let digits = max.to_string();
    let mut numbers = Vec::new();
    if digits.len() > 1 {
        numbers.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    // As many digits as `max`, but below it: equal up to a smaller digit, and then any digits.
    for (at, digit) in digits.char_indices() {
        let (least, same) = (if at == 0 { '1' } else { '0' }, digits.get(..at).unwrap_or_default());
        let any = match digits.len() - at - 1 {
            0 => String::new(),
            count => format!("[0-9]{{{count}}}"),
        };
        if let Some(smaller) = (least..digit).next_back() {
            numbers.push(format!("{same}[{least}-{smaller}]{any}"));
        }
    }
    numbers.push(digits);
    numbers.join("|")
}

/// The control characters that no text to compare with and no name has, for a character class.
const CONTROL: &str = r"\u0000-\u0008\u000b\u000c\u000e-\u001f";

/// The blanks and control characters of Unicode, for a character class.
const BLANK: &str = r"\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn matcher(alternatives: &str) -> Regex {
        Regex::new(&format!("^(?:{alternatives})$")).unwrap()
    }

    #[test]
    fn numbers_are_matched_up_to_the_last() {
        for max in [1, 2, 9, 10, 11, 19, 99, 100, 400, 909, 9600] {
            let numbers = matcher(&up_to(max));
            for number in 0..20_000 {
                assert_eq!(numbers.is_match(&number.to_string()), (1..=max).contains(&number), "{number} {max}");
            }
            assert!(!numbers.is_match("01"));
        }
        let numbers = matcher(&up_to(u32::MAX));
        for (number, fits) in [("4294967295", true), ("4294967296", false), ("4300000000", false), ("999999999", true)]
        {
            assert_eq!(numbers.is_match(number), fits, "{number}");
        }
    }

    #[test]
    fn plain_names_are_those_of_paths() {
        let step = matcher(&single_step());
        // `.*` is a step to many values.
        for character in ('\0'..=char::MAX).filter(|character| *character != '*') {
            let name = format!(".{character}");
            let is_path = crate::call::path::Path::parse(&format!("args{name}")).is_ok();
            assert_eq!(step.is_match(&name), is_path, "{character:?}");
        }
    }
}
