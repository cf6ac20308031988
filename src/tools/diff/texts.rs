//! Texts at the boundary of what an operator accepts.

use crate::policy::ast::Comparison;
use crate::policy::operator::Takes;
use crate::tools::explain::matching;

/// Returns texts to try for a comparison: some that its operator accepts, and similar ones that it
/// may not.
pub(super) fn candidates(comparison: &Comparison) -> Vec<String> {
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
                let example = matching(text).unwrap_or_default();
                let without_anchors = text.trim_start_matches('^').trim_end_matches('$');
                found.extend([
                    format!("{example} x"),
                    format!("x {example}"),
                    without_anchors.to_owned(),
                    example.to_uppercase(),
                    example,
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
