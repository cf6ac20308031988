//! Texts for which an operator may hold, or just not.

use serde_json::Value;

use crate::tools::explain::matching;

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
                let (alike, plain) =
                    (matching(&text).unwrap_or_default(), text.trim_start_matches('^').trim_end_matches('$'));
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
