//! Name patterns against an exhaustive matcher and against the `regex` crate, anchored at both
//! ends; and the operators that search texts against that crate alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};
use toolgate::{Policy, Timestamp, ToolCall};
use toolgate_fuzz::tape::Tape;
use toolgate_fuzz::{policy_of, truth};

const PARTS: [&str; 16] = ["*", "*", "*", "a", "a", "b", "b", "ab", "ba", ".", "/", "~", "\\", "é", "A", "\u{7f}"];
/// Parts of texts: letters of one, two and three bytes that fold to each other.
const LETTERS: [&str; 20] =
    ["a", "A", "b", "B", "k", "K", "\u{212a}", "ß", "ẞ", "s", "ſ", "σ", "ς", "Σ", "é", "É", ".", "\n", "", "\u{130}"];

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    match tape.below(3) {
        0 => names(&mut tape),
        1 => searches(&mut tape),
        _ => regexes(&mut tape),
    }
});

fn names(tape: &mut Tape<'_>) {
    // More than eight patterns are searched in another way.
    let patterns: Vec<String> = (0..tape.below(24)).map(|_| tape.text(7, &PARTS)).collect();
    let hide: Vec<String> = (0..tape.below(3)).map(|_| tape.text(5, &PARTS)).collect();
    let default = tape.pick(&["allow", "deny"]);
    let mut tools: Vec<&String> = Vec::new();
    patterns.iter().for_each(|pattern| {
        if !tools.contains(&pattern) {
            tools.push(pattern);
        }
    });
    let entries = tools.iter().map(|name| format!("{}:{{\"action\":\"deny\"}}", json!(name))).collect::<Vec<_>>();
    let tools_text = entries.join(",");
    let text =
        format!("{{\"version\":\"1\",\"default\":\"{default}\",\"hide\":{},\"tools\":{{{tools_text}}}}}", json!(hide));
    let is_everything = |name: &str| name.chars().all(|c| c == '*');
    let fits = tools.iter().all(|name| !is_everything(name)) && hide.iter().all(|name| !name.is_empty());
    let policy = Policy::from_json(&text).ok();
    assert_eq!(policy.is_some(), fits, "{text}");
    let Some(policy) = policy else { return };
    while !tape.is_over() {
        let name = tape.text(10, &PARTS);
        let any =
            |patterns: &[&String]| patterns.iter().position(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
        let (hidden, entry) = (any(&hide.iter().collect::<Vec<_>>()), any(&tools));
        for pattern in &tools {
            let by_regex = whole(pattern).is_match(&name);
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), by_regex, "{pattern} {name}");
        }
        assert_eq!(
            policy.lists(&name),
            hidden.is_none() && (default == "allow" || entry.is_some()),
            "{name} in {text}"
        );
        let call = ToolCall::new(&name, None::<&Value>);
        let rule = policy.evaluate(&call, Timestamp::UNIX_EPOCH).rule().map(|rule| rule.into_owned());
        let want = match (hidden, entry, default) {
            (Some(_), ..) => Some("(hidden)".to_owned()),
            (None, Some(entry), _) => {
                Some(format!("/tools/{}/action", tools[entry].replace('~', "~0").replace('/', "~1")))
            }
            (None, None, "deny") => Some("(default deny)".to_owned()),
            (None, None, _) => None,
        };
        assert_eq!(rule, want, "{name} in {text}");
    }
}

/// A star matches nothing, or one more byte.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // For each beginning of the name: the pattern so far matches it.
    let mut so_far: Vec<bool> = (0..=name.len()).map(|length| length == 0).collect();
    for part in pattern {
        let mut next = vec![false; so_far.len()];
        for length in 0..so_far.len() {
            next[length] = match (part, length.checked_sub(1)) {
                (b'*', before) => so_far[length] || before.is_some_and(|before| next[before]),
                (byte, Some(before)) => so_far[before] && name[before] == *byte,
                (_, None) => false,
            };
        }
        so_far = next;
    }
    so_far[name.len()]
}

fn whole(pattern: &str) -> Regex {
    let parts: Vec<_> = pattern.split('*').map(regex::escape).collect();
    Regex::new(&format!("(?s)\\A{}\\z", parts.join(".*"))).expect("an escaped pattern")
}

/// Searches for texts, with and without regard to case.
fn searches(tape: &mut Tape<'_>) {
    let op = tape.pick(&["contains", "not_contains", "starts_with", "ends_with"]);
    let folds = tape.below(2) == 1;
    let needle = tape.text(5, &LETTERS);
    let condition = json!({ "path": "args.x", "op": op, "value": needle, "ignore_case": folds });
    let policy = policy_of(&condition).expect("a short text");
    let escaped = regex::escape(&needle);
    let anchored = match op {
        "starts_with" => format!("\\A(?:{escaped})"),
        "ends_with" => format!("(?:{escaped})\\z"),
        _ => escaped,
    };
    let regex = RegexBuilder::new(&anchored).case_insensitive(folds).build().expect("an escaped text");
    while !tape.is_over() {
        let text = tape.text(12, &LETTERS);
        let want = regex.is_match(&text) != op.starts_with("not_");
        assert_eq!(truth(&policy, &text), Some(want), "{condition} {text:?}");
    }
}

/// Each expression that the `regex` crate accepts within the bounds is accepted, and finds the
/// same.
fn regexes(tape: &mut Tape<'_>) {
    let op = tape.pick(&["regex", "not_regex"]);
    let folds = tape.below(2) == 1;
    let texts: Vec<String> = (0..3).map(|_| tape.text(12, &LETTERS)).collect();
    let expression = tape.line();
    let mut condition = Map::from_iter([("path".to_owned(), json!("args.x")), ("op".to_owned(), json!(op))]);
    condition.insert("value".to_owned(), json!(expression));
    if folds {
        condition.insert("ignore_case".to_owned(), json!(true));
    }
    let condition = Value::from(condition);
    let regex = RegexBuilder::new(&expression).case_insensitive(folds).size_limit(1 << 20).build();
    // In JSON, `\b` is a backspace, which nobody means.
    let is_typed = |c: char| c >= ' ' || matches!(c, '\t' | '\n' | '\r');
    let regex = regex.ok().filter(|_| expression.len() <= 4096 && expression.chars().all(is_typed));
    let policy = policy_of(&condition);
    assert_eq!(policy.is_some(), regex.is_some(), "{condition}");
    let (Some(policy), Some(regex)) = (policy, regex) else { return };
    for text in texts.iter().map(String::as_str).chain([&*tape.line(), &*expression]) {
        assert_eq!(truth(&policy, text), Some(regex.is_match(text) != (op == "not_regex")), "{condition} {text:?}");
    }
}
