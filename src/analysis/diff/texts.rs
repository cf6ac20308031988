//! Texts for which an operator may hold, or just not.

use serde_json::Value;

/// The texts that a comparison names.
pub(super) fn of(test: &Value) -> Vec<String> {
    strings(test.get("value").unwrap_or(&Value::Null))
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Texts that are near to what an operator looks for in texts.
pub(super) fn near(op: &str, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for text in strings(value) {
        match op {
            "path_within" => {
                let directory = text.trim_end_matches('/');
                found.extend([
                    format!("{directory}/a"),
                    text.clone(),
                    format!("{directory}/../.."),
                    "/elsewhere".into(),
                ]);
            }
            "host_in" => {
                let host = text.strip_prefix("*.").map_or_else(|| text.clone(), |domain| format!("a.{domain}"));
                found.extend([
                    format!("https://{host}/"),
                    format!("https://a.{host}/"),
                    "https://elsewhere.example/".to_owned(),
                ]);
            }
            "regex" | "not_regex" => {
                let (alike, plain) = (example(&text), text.trim_start_matches('^').trim_end_matches('$'));
                found.extend([
                    format!("{alike} x"),
                    format!("x {alike}"),
                    plain.to_owned(),
                    alike.to_uppercase(),
                    alike,
                ]);
            }
            _ => found.extend([
                text.clone(),
                format!("{text}x"),
                format!("x{text}"),
                text.to_uppercase(),
                text.to_lowercase(),
            ]),
        }
    }
    found
}

/// A text that a regular expression likely matches: of each alternative the first, of each class its first character, of
/// what may be repeated as few as there must be. What is rare in policies is taken as it stands.
pub(super) fn example(regex: &str) -> String {
    let chars: Vec<char> = regex.chars().collect();
    let mut at = 0;
    sequence(&chars, &mut at, 32)
}

fn sequence(regex: &[char], at: &mut usize, depth: usize) -> String {
    let mut text = String::new();
    while let Some(c) = regex.get(*at).copied() {
        *at += 1;
        let atom = match c {
            ')' => return text,
            '|' => {
                skip_alternatives(regex, at);
                return text;
            }
            '^' | '$' => continue,
            '.' => "x".to_owned(),
            '(' if depth > 0 => {
                if regex.get(*at) == Some(&'?') {
                    while regex.get(*at).is_some_and(|c| !matches!(c, ':' | '>' | ')')) {
                        *at += 1;
                    }
                    if regex.get(*at) != Some(&')') {
                        *at += 1;
                    }
                }
                sequence(regex, at, depth - 1)
            }
            '[' => class(regex, at),
            '\\' => {
                let escaped = regex.get(*at).copied();
                *at += 1;
                match escaped {
                    Some('d') => "1".to_owned(),
                    Some('w') => "a".to_owned(),
                    Some('s') => " ".to_owned(),
                    Some('D' | 'S') => "x".to_owned(),
                    Some('W') => "-".to_owned(),
                    Some('n') => "\n".to_owned(),
                    Some('t') => "\t".to_owned(),
                    Some('b' | 'B' | 'A' | 'z') | None => continue,
                    Some(other) => other.to_string(),
                }
            }
            other => other.to_string(),
        };
        let times = repetition(regex, at);
        if text.len() + atom.len() * times <= 4_096 {
            text.push_str(&atom.repeat(times));
        }
    }
    text
}

/// How often what stands before must be there: at least once where it may.
fn repetition(regex: &[char], at: &mut usize) -> usize {
    let times = match regex.get(*at) {
        Some('*' | '?' | '+') => {
            *at += 1;
            1
        }
        Some('{') => {
            let inside: String = regex.iter().skip(*at + 1).take_while(|c| **c != '}').collect();
            *at += inside.chars().count() + 2;
            let least = inside.split(',').next().and_then(|digits| digits.parse::<usize>().ok());
            least.unwrap_or(1).clamp(1, 4_096)
        }
        _ => return 1,
    };
    if regex.get(*at) == Some(&'?') {
        *at += 1;
    }
    times
}

fn class(regex: &[char], at: &mut usize) -> String {
    let negated = regex.get(*at) == Some(&'^');
    if negated {
        *at += 1;
    }
    let mut members = Vec::new();
    while let Some(c) = regex.get(*at).copied() {
        *at += 1;
        match c {
            ']' if !members.is_empty() => break,
            '\\' => {
                members.push(match regex.get(*at) {
                    Some('d') => '1',
                    Some('w') => 'a',
                    Some('s') => ' ',
                    Some(other) => *other,
                    None => break,
                });
                *at += 1;
            }
            other => members.push(other),
        }
    }
    let chosen = if negated { "xz1-¤".chars().find(|c| !members.contains(c)) } else { members.first().copied() };
    chosen.map(String::from).unwrap_or_default()
}

fn skip_alternatives(regex: &[char], at: &mut usize) {
    let mut open = 0usize;
    while let Some(c) = regex.get(*at) {
        *at += 1;
        match c {
            '\\' => *at += 1,
            '(' => open += 1,
            ')' if open == 0 => return,
            ')' => open -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_match() {
        for regex in [
            "^ORD-[0-9]{4,8}: .+$",
            "^(usd|eur)$",
            r"^\d{3}-\w+\.example$",
            "(?i)delete",
            "^[^a-z]+$",
            r"\bDROP\s+TABLE\b",
            "a|(b|c)d",
            "^.$",
            "",
        ] {
            let text = example(regex);
            assert!(regex::Regex::new(regex).unwrap().is_match(&text), "{regex} {text}");
        }
    }

    #[test]
    fn no_text_hangs() {
        for regex in ["[", "(", "((((", "[^", "\\", "a{", "a{99999999999}", "(?", "(?P<", "x{1000}{1000}"] {
            assert!(example(regex).len() <= 8_192, "{regex}");
        }
    }
}
