//! Guesses what was meant by a wrong word, key, value or path.

use serde_json::{Number, Value};

use crate::call::path::{CALL_MEMBERS, Path, ROOTS, TIME_MEMBERS};
use crate::json::{Json, Node};
use crate::policy::document::Shape;

/// `a`, `b`, `c`
pub(crate) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The help for a word that is not one of `words`.
pub(crate) fn suggest(word: &str, words: &[&'static str]) -> String {
    match nearest(word, words) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected one of {}", listed(words)),
    }
}

/// The help for an unknown key: the nearest key of that shape, or else the object that has the key.
pub(crate) fn suggest_key(key: &str, shape: &Shape) -> String {
    let names: Vec<_> = shape.names().collect();
    match (nearest(key, &names), shape.elsewhere(key)) {
        (None, Some(other)) => {
            format!("`{key}` is a key of {}; {} has the keys {}", other.name, shape.name, listed(&names))
        }
        _ => suggest(key, &names),
    }
}

/// The expected type of a value.
pub(crate) enum Want {
    Text,
    Number,
    Boolean,
    List,
    Object(&'static Shape),
    /// Several types are valid.
    Any,
}

/// The help for a value of the wrong type, if the fix is clear.
pub(crate) fn retype(node: &Node<'_>, want: &Want) -> Option<String> {
    let word = |text: &str| text == "true" || text == "false";
    match (want, &node.json) {
        (_, Json::Null) => Some("`null` is not allowed here: write a value, or omit an optional key".to_owned()),
        (Want::Text, Json::Number(_) | Json::Bool(_)) => Some("write it in double quotes".to_owned()),
        (Want::Number, Json::String(text)) if text.parse::<Number>().is_ok() => {
            Some("write it without quotes".to_owned())
        }
        (Want::Boolean, Json::String(text)) if word(text) => Some("write it without quotes".to_owned()),
        (Want::List, _) => Some("write a list in brackets, `[` and `]`, even for one element".to_owned()),
        (Want::Object(shape), Json::Array(_)) if shape.has("any") => {
            Some(r#"combine conditions with `{ "all": [..] }` or `{ "any": [..] }`"#.to_owned())
        }
        (Want::Object(shape), _) => Some(format!("for example {}", shape.example)),
        _ => None,
    }
}

/// Words from other languages. Those made of letters match in any case and with any separators.
const FOREIGN: &[(&str, &str)] = &[
    ("==", "eq"),
    ("=", "eq"),
    ("===", "eq"),
    ("equal", "eq"),
    ("equals", "eq"),
    ("is", "eq"),
    ("!=", "neq"),
    ("!==", "neq"),
    ("<>", "neq"),
    ("ne", "neq"),
    ("not_eq", "neq"),
    ("not_equal", "neq"),
    ("not_equals", "neq"),
    ("is_not", "neq"),
    ("<", "lt"),
    ("<=", "lte"),
    ("le", "lte"),
    (">", "gt"),
    (">=", "gte"),
    ("ge", "gte"),
    ("greater", "gt"),
    ("greater_than", "gt"),
    ("greater_or_equal", "gte"),
    ("less", "lt"),
    ("less_than", "lt"),
    ("less_or_equal", "lte"),
    ("greater_than_or_equal", "gte"),
    ("less_than_or_equal", "lte"),
    ("matches", "regex"),
    ("match", "regex"),
    ("pattern", "regex"),
    ("not_matches", "not_regex"),
    ("one_of", "in"),
    ("nin", "not_in"),
    ("include", "contains"),
    ("includes", "contains"),
    ("min", "min_length"),
    ("max", "max_length"),
    ("len", "max_length"),
    ("length", "max_length"),
    ("size", "max_items"),
    ("count", "max_items"),
    ("or", "any"),
    ("any_of", "any"),
    ("one_of", "any"),
    ("and", "all"),
    ("all_of", "all"),
    ("operator", "op"),
    ("field", "path"),
    ("prefix", "starts_with"),
    ("suffix", "ends_with"),
    ("arguments", "args"),
    ("params", "args"),
    ("ctx", "context"),
    ("caller", "call"),
    ("now", "time"),
    ("limit", "max"),
    ("per", "window"),
    ("key", "scope"),
    ("message", "on_deny"),
    ("effect", "action"),
    ("block", "deny"),
    ("is_type", "type"),
    ("type_of", "type"),
    ("typeof", "type"),
    ("present", "exists"),
    ("is_present", "exists"),
    ("is_set", "exists"),
    ("defined", "exists"),
    ("is_null", "exists"),
    ("not_exists", "exists"),
    ("regexp", "regex"),
    ("like", "regex"),
    ("glob", "regex"),
    ("within", "path_within"),
    ("under", "path_within"),
    ("inside", "path_within"),
    ("path_in", "path_within"),
    ("host", "host_in"),
    ("hostname", "host_in"),
    ("domain", "host_in"),
    ("domain_in", "host_in"),
    ("keys", "keys_in"),
    ("only_keys", "keys_in"),
    ("members_in", "keys_in"),
    ("int", "integer"),
    ("float", "number"),
    ("double", "number"),
    ("bool", "boolean"),
    ("str", "string"),
    ("text", "string"),
    ("list", "array"),
    ("dict", "object"),
    ("map", "object"),
    ("per_second", "second"),
    ("min", "minute"),
    ("per_minute", "minute"),
    ("hourly", "hour"),
    ("per_hour", "hour"),
    ("daily", "day"),
    ("per_day", "day"),
    ("weekly", "week"),
    ("per_week", "week"),
    ("monthly", "month"),
    ("per_month", "month"),
    ("concurrent", "in_flight"),
    ("concurrency", "in_flight"),
    ("at_once", "in_flight"),
    ("parallel", "in_flight"),
    ("rolling", "sliding"),
    ("sliding_window", "sliding"),
    ("fixed_window", "fixed"),
    ("bucket", "token_bucket"),
    ("leaky_bucket", "token_bucket"),
    ("per_grant", "grant"),
    ("credential", "grant"),
    ("api_key", "grant"),
    ("per_session", "session"),
    ("per_agent", "agent"),
    ("per_user", "user"),
    ("per_server", "server"),
    ("everyone", "global"),
    ("shared", "global"),
    ("all", "global"),
    ("ask", "require_approval"),
    ("approve", "require_approval"),
    ("approval", "require_approval"),
    ("confirm", "require_approval"),
    ("reject", "deny"),
    ("refuse", "deny"),
    ("forbid", "deny"),
    ("permit", "allow"),
    ("accept", "allow"),
    ("pass", "allow"),
    ("deny", "action"),
    ("allow", "action"),
    ("ask", "action"),
    ("require_approval", "action"),
    ("on_match", "on_deny"),
    ("reason", "on_deny"),
    ("on_deny", "reason"),
    ("message", "reason"),
    ("message", "on_exceed"),
    ("reason", "on_exceed"),
    ("on_deny", "on_exceed"),
    ("day", "weekday"),
    ("day_of_week", "weekday"),
    ("dow", "weekday"),
    ("today", "date"),
    ("timezone", "utc_offset"),
    ("tz", "utc_offset"),
    ("name", "counter"),
    ("cost", "amount"),
];

/// Returns the word that was probably meant: equal except for case and separators, a foreign word's
/// counterpart, or a few edits away.
pub(crate) fn nearest(word: &str, words: &[&'static str]) -> Option<&'static str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(40).collect()
    };
    let is_there = |near: &&'static str| words.contains(near);
    let wanted = plain(word);
    let is_it = |foreign: &str| {
        let letters = foreign.chars().filter(|c| c.is_alphanumeric());
        foreign == word || (!wanted.is_empty() && letters.eq(wanted.chars()))
    };
    if let Some((_, near)) = FOREIGN.iter().find(|(foreign, near)| is_it(foreign) && is_there(near)) {
        return Some(near);
    }
    let near = words.iter().map(|known| (edits(&wanted, &plain(known)), *known)).min_by_key(|(edits, _)| *edits)?;
    (near.0 <= (near.1.len() / 3).max(1) && near.0 < near.1.len()).then_some(near.1)
}

/// Returns the path that was probably meant by a text without a root. The most common mistake is
/// `amount` for `args.amount`. A fact that the host states is never taken for an argument, which
/// the agent writes.
pub(crate) fn nearest_path(text: &str) -> Option<String> {
    let below = match (text.strip_prefix('/'), text.strip_prefix('$')) {
        (Some(pointer), _) => pointer.split('/').map(step).collect(),
        (_, Some(steps)) => steps.to_owned(),
        _ => format!(".{text}"),
    };
    let known = |path: String| Path::parse(&path).is_ok().then_some(path);
    let text = below.trim_start_matches('.');
    // As in an MCP request.
    let text = text.strip_prefix("params.").filter(|rest| rest.starts_with("arguments")).unwrap_or(text);
    let (word, rest) = text.split_at(text.find(['.', '[']).unwrap_or(text.len()));
    let lower = text.to_ascii_lowercase();
    let fact = [text, &lower].into_iter().flat_map(|text| ["call", "time"].map(|root| known(format!("{root}.{text}"))));
    let rooted = || nearest(word, &ROOTS).map(|near| known(format!("{near}{rest}")).unwrap_or_else(|| near.to_owned()));
    let is_fact = CALL_MEMBERS.iter().chain(&TIME_MEMBERS).any(|member| member.eq_ignore_ascii_case(word));
    let is_plain = word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    let root = if is_fact { "context" } else { "args" };
    fact.flatten()
        .next()
        .or_else(|| known(text.to_owned()))
        .or_else(rooted)
        .or_else(|| known(format!("{root}{below}")).filter(|_| is_plain))
}

/// Writes a step of a JSON Pointer as a step of a path.
fn step(text: &str) -> String {
    let name = text.replace("~1", "/").replace("~0", "~");
    if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() {
        format!("[{name}]")
    } else if name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
        format!(".{name}")
    } else {
        format!("[{}]", Value::from(name))
    }
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two texts.
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&above, j + 1) + 1).min(at(&row, j) + 1).min(at(&above, j) + usize::from(ca != cb));
            if i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca) {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::document::{CONDITION, ENTRY, LIMIT};
    use crate::policy::operator::OPERATORS;

    #[test]
    fn the_nearest_word_is_found() {
        let keys: Vec<_> = ENTRY.names().chain(LIMIT.names()).collect();
        let operators: Vec<_> = OPERATORS.iter().map(|operator| operator.name).collect();
        for (word, near) in [
            ("denyIf", Some("deny_if")),
            ("denyif", Some("deny_if")),
            ("DENY_IF", Some("deny_if")),
            ("limit", Some("max")),
            ("limts", Some("limits")),
            ("requrie", Some("require")),
            ("approvals", Some("approval")),
            ("deny", Some("action")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &keys), near, "{word}");
        }
        for (word, near) in [
            ("startswith", Some("starts_with")),
            ("matches", Some("regex")),
            (">=", Some("gte")),
            ("equal", Some("eq")),
            ("not_eq", Some("neq")),
            ("not_equal", Some("neq")),
            ("is_not", Some("neq")),
            ("<>", Some("neq")),
            ("===", Some("eq")),
            ("~", None),
            ("lessThan", Some("lt")),
            ("include", Some("contains")),
            ("includes", Some("contains")),
            ("len", Some("max_length")),
            ("min", Some("min_length")),
            ("is_null", Some("exists")),
            ("domain_in", Some("host_in")),
            ("within", Some("path_within")),
            ("between", None),
            ("EQ", Some("eq")),
            ("not_contain", Some("not_contains")),
        ] {
            assert_eq!(nearest(word, &operators), near, "{word}");
        }
    }

    #[test]
    fn a_group_is_found_by_what_others_call_it() {
        let keys: Vec<_> = CONDITION.names().collect();
        for (word, near) in [
            ("Any", "any"),
            ("anny", "any"),
            ("anyOf", "any"),
            ("or", "any"),
            ("al", "all"),
            ("alll", "all"),
            ("AND", "all"),
            ("nott", "not"),
            ("NOT", "not"),
            ("operator", "op"),
            ("valu", "value"),
        ] {
            assert_eq!(nearest(word, &keys), Some(near), "{word}");
        }
    }

    #[test]
    fn a_path_without_a_root_is_an_argument_or_a_fact() {
        for (text, near) in [
            ("amount", Some("args.amount")),
            ("customer.id", Some("args.customer.id")),
            ("items[0].price", Some("args.items[0].price")),
            ("user", Some("call.user")),
            ("User", Some("call.user")),
            ("grant", Some("call.grant")),
            ("tool", Some("call.tool")),
            ("user.name", Some("context.user.name")),
            ("hour", Some("time.hour")),
            ("weekday", Some("time.weekday")),
            ("now.hour", Some("time.hour")),
            ("now", Some("time")),
            ("caller.user", Some("call.user")),
            ("arguments.user", Some("args.user")),
            ("arg.amount", Some("args.amount")),
            ("ctx.role", Some("context.role")),
            ("$.amount", Some("args.amount")),
            ("$.args.amount", Some("args.amount")),
            ("$.user", Some("call.user")),
            ("$[\"x y\"]", Some("args[\"x y\"]")),
            ("/x", Some("args.x")),
            ("/args/x", Some("args.x")),
            ("/items/0/a~1b", Some("args.items[0][\"a/b\"]")),
            ("params.arguments.amount", Some("args.amount")),
            ("params.amount", Some("args.amount")),
            ("a/b", None),
            ("{{amount}}", None),
            ("$", Some("args")),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(nearest_path(text).as_deref(), near, "{text}");
        }
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("ab", "ba", 1), ("grnat", "grant", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(a, b), count, "{a} {b}");
        }
    }
}
