//! The text form of paths.

use std::fmt;

use serde_json::Value;

use super::{Path, Root, Step, TimePart};
use crate::call::identity::Identity;

/// The words that a path can begin with, and the members of `call` and `time`.
pub(crate) const ROOTS: [&str; 5] = ["args", "context", "input", "call", "time"];
pub(crate) const CALL_MEMBERS: [&str; 7] = ["tool", "task", "server", "grant", "session", "agent", "user"];
pub(crate) const TIME_MEMBERS: [&str; 4] = ["hour", "minute", "weekday", "date"];

/// The reason why a text is not a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathError<'t> {
    /// An unknown root.
    Root(&'t str),
    /// `call` or `time` with a missing or unknown member.
    Member { root: &'static str, found: &'t str, known: &'static [&'static str] },
    /// A step into a text or a number.
    StepIntoText(&'t str),
    /// `args..x`, `args.`.
    EmptyName,
    /// A name with a character that a bare name cannot have.
    Name(&'t str),
    /// Brackets without a quoted name, an index or a star.
    Brackets,
    /// An invalid step after a closing bracket.
    Step(&'t str),
}

impl Path {
    pub(crate) fn parse(text: &str) -> Result<Self, PathError<'_>> {
        let root_end = text.find(['.', '[']).unwrap_or(text.len());
        let (root_word, mut rest) = text.split_at(root_end);
        let root = match root_word {
            "args" => Root::Arguments,
            "context" => Root::Context,
            "input" => Root::Input,
            "call" => {
                let member = take_member("call", &CALL_MEMBERS, &mut rest)?;
                let identity = Identity::ALL.into_iter().find(|identity| identity.as_str() == member);
                let other = if member == "task" { Root::Task } else { Root::Tool };
                identity.map_or(other, Root::Identity)
            }
            "time" => Root::Time(match take_member("time", &TIME_MEMBERS, &mut rest)? {
                "hour" => TimePart::Hour,
                "minute" => TimePart::Minute,
                "weekday" => TimePart::Weekday,
                _ => TimePart::Date,
            }),
            _ => return Err(PathError::Root(root_word)),
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            steps.push(take_step(&mut rest)?);
        }
        let has_each = steps.iter().any(Step::is_each);
        Ok(Self { root, steps: steps.into(), has_each })
    }
}

/// Parses the member after `call` or `time`, which must be the last step.
fn take_member<'t>(
    root: &'static str,
    known: &'static [&'static str],
    rest: &mut &'t str,
) -> Result<&'static str, PathError<'t>> {
    let whole = *rest;
    let error = |found| PathError::Member { root, found, known };
    let member = match take_step(rest) {
        Ok(Step::Name(name)) => name,
        _ => return Err(error(whole.trim_start_matches('.'))),
    };
    let word = known.iter().find(|word| ***word == *member).ok_or_else(|| error(whole.trim_start_matches('.')))?;
    if rest.is_empty() { Ok(word) } else { Err(PathError::StepIntoText(rest)) }
}

fn take_step<'t>(rest: &mut &'t str) -> Result<Step, PathError<'t>> {
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(['.', '[']).unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        if name.is_empty() {
            return Err(PathError::EmptyName);
        }
        if name == "*" {
            *rest = tail;
            return Ok(Step::EachMember);
        }
        // A wildcard, a comparison or a quotation here is a mistake, and would silently match
        // nothing.
        if name.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'`*<>=]".contains(c)) {
            return Err(PathError::Name(name));
        }
        *rest = tail;
        return Ok(Step::Name(name.into()));
    }
    let Some(inside) = rest.strip_prefix('[') else { return Err(PathError::Step(rest)) };
    if let Some(tail) = inside.strip_prefix("*]") {
        *rest = tail;
        return Ok(Step::Each);
    }
    if inside.starts_with('"') {
        // The name is a JSON string, so it can contain any character.
        let end = closing_quote(inside).ok_or(PathError::Brackets)?;
        let (quoted, tail) = inside.split_at_checked(end).ok_or(PathError::Brackets)?;
        let name: String = serde_json::from_str(quoted).map_err(|_| PathError::Brackets)?;
        *rest = tail.strip_prefix(']').ok_or(PathError::Brackets)?;
        return Ok(Step::Name(name.as_str().into()));
    }
    let (digits, tail) = inside.split_once(']').ok_or(PathError::Brackets)?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let index = digits.parse::<u32>().ok().filter(|_| plain).ok_or(PathError::Brackets)?;
    *rest = tail;
    Ok(Step::Index(usize::try_from(index).map_err(|_| PathError::Brackets)?))
}

/// Returns the end of the JSON string that `text` begins with.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().enumerate().skip(1).find_map(|(at, byte)| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes.then_some(at + 1)
    })
}

/// The canonical form: bare names after a dot, others in brackets.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.root {
            Root::Arguments => f.write_str("args"),
            Root::Context => f.write_str("context"),
            Root::Input => f.write_str("input"),
            Root::Task => f.write_str("call.task"),
            Root::Tool => f.write_str("call.tool"),
            Root::Identity(identity) => write!(f, "call.{}", identity.as_str()),
            Root::Time(part) => f.write_str(part.path()),
        }?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Name(name) => {
                let plain = format!(".{}", &**name);
                let mut rest = plain.as_str();
                match take_step(&mut rest) {
                    Ok(Step::Name(whole)) if *whole == **name => f.write_str(&plain),
                    _ => write!(f, "[{}]", Value::from(&**name)),
                }
            }
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Each => f.write_str("[*]"),
            Step::EachMember => f.write_str(".*"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_parse_and_display() {
        for (text, canonical) in [
            ("args", "args"),
            ("args.a.b", "args.a.b"),
            ("args.max-size", "args.max-size"),
            ("args.größe", "args.größe"),
            ("args.$filter", "args.$filter"),
            (r#"args["a"]"#, "args.a"),
            (r#"args["a.b"]["[0]"][0]"#, r#"args["a.b"]["[0]"][0]"#),
            (r#"args["say \"hi\""]"#, r#"args["say \"hi\""]"#),
            (r#"args["\u0061\\"]"#, r#"args.a\"#),
            (r#"args[""]"#, r#"args[""]"#),
            ("args.to[*].name", "args.to[*].name"),
            ("context[*]", "context[*]"),
            ("args.*.x.*", "args.*.x.*"),
            (r#"args["*"]"#, r#"args["*"]"#),
            ("call.grant", "call.grant"),
            (r#"call["tool"]"#, "call.tool"),
            (r#"call["task"]"#, "call.task"),
            ("input.ask.content.n", "input.ask.content.n"),
            ("time.date", "time.date"),
        ] {
            let path = Path::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!(path.to_string(), canonical);
            assert_eq!(Path::parse(canonical), Ok(path));
        }
    }

    #[test]
    fn invalid_paths_are_refused() {
        for text in [
            "",
            "amount",
            "$.amount",
            "Args.x",
            "args.",
            "args..x",
            ".args",
            "args.x.",
            "args.a b",
            "args.a*",
            "args.**",
            "call.*",
            "args.amount<=",
            "args[",
            "args[]",
            "args[x]",
            "args[-1]",
            "args[01]",
            "args[+1]",
            "args[1",
            "args[1]x",
            "args[\"x]",
            "args[\"x\"",
            "args['x']",
            "args[ 0 ]",
            "args[99999999999]",
            "args.x]",
            "call",
            "call.",
            "call.id",
            "call.tool.x",
            "call.task.x",
            "call.tool[0]",
            "call[0]",
            "time",
            "time.second",
            "time.hour.x",
            "time[*]",
            "context.\u{0}",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }
}
