//! Parses the paths of Intercept: names between dots, and nothing else.

use std::fmt::Write;

use serde_json::Value;

/// A path, by its root.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path<'t> {
    /// A path into the arguments, in this crate's language.
    Arguments(String),
    /// A counter: its tool, or `_global`, and its name.
    Counter(&'t str, &'t str),
}

impl<'t> Path<'t> {
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        if let Some(names) = text.strip_prefix("args.") {
            return Some(Self::Arguments(arguments(names)));
        }
        let (scope, counter) = text.strip_prefix("state.")?.split_once('.')?;
        Some(Self::Counter(scope, counter))
    }
}

/// Brackets, digits and stars have no meaning in Intercept: they are part of a name.
fn arguments(names: &str) -> String {
    let mut path = "args".to_owned();
    for name in names.split('.') {
        // Writing to a `String` does not fail.
        let _ = if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            write!(path, ".{name}")
        } else {
            write!(path, "[{}]", Value::from(name))
        };
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept() {
        for (text, path) in [
            ("args.amount", "args.amount"),
            ("args.a.b-c.0", "args.a.b-c.0"),
            ("args.items[0]", r#"args["items[0]"]"#),
            ("args.a..b*", r#"args.a[""]["b*"]"#),
            ("args.", r#"args[""]"#),
            ("args.say \"x\"", r#"args["say \"x\""]"#),
        ] {
            assert_eq!(Path::parse(text), Some(Path::Arguments(path.to_owned())), "{text}");
            assert!(crate::call::path::Path::parse(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn counters_are_distinguished_from_arguments() {
        assert_eq!(Path::parse("state.pay.daily.spend"), Some(Path::Counter("pay", "daily.spend")));
        for text in ["args", "state.", "state.pay", "amount", "", "Args.x", "context.user"] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }
}
