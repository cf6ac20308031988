//! Texts for which an operator may hold, or just not.

use crate::policy::ast::Comparison;
use crate::policy::operator::Takes;
use crate::tools::explain::matching;

/// Texts that are near to what an operator looks for in texts.
pub(super) fn near(comparison: &Comparison) -> Vec<String> {
    let mut found = Vec::new();
    for text in comparison.texts() {
        match comparison.operator.takes {
            Takes::PathWithin => {
                let directory = text.trim_end_matches('/');
                found.extend([
                    format!("{directory}/a"),
                    text.to_owned(),
                    format!("{directory}/../.."),
                    "/elsewhere".into(),
                ]);
            }
            Takes::HostIn => {
                let host = text.strip_prefix("*.").map_or_else(|| text.to_owned(), |domain| format!("a.{domain}"));
                found.extend([
                    format!("https://{host}/"),
                    format!("https://a.{host}/"),
                    "https://elsewhere.example/".to_owned(),
                ]);
            }
            Takes::Regex => {
                let (alike, plain) =
                    (matching(text).unwrap_or_default(), text.trim_start_matches('^').trim_end_matches('$'));
                found.extend([
                    format!("{alike} x"),
                    format!("x {alike}"),
                    plain.to_owned(),
                    alike.to_uppercase(),
                    alike,
                ]);
            }
            _ => found.extend([
                text.to_owned(),
                format!("{text}x"),
                format!("x{text}"),
                text.to_uppercase(),
                text.to_lowercase(),
            ]),
        }
    }
    found
}
