//! Compiles a document, and finds all its issues at once.

mod approval;
mod condition;
mod limit;
mod partial_limit;

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Digest;
use super::bounds::Bounds;
use super::compiled::{Action, Compiled, DefaultEffect, Entries, Rule, Rules};
use super::document::{ACTIONS, ALL_TOOLS, APPROVAL_RULE, DEFAULTS, DOCUMENT, ENTRY, RULE, Shape, TOOLS};
use super::error::{IssueCode, PolicyError};
use super::pattern::Names;
use super::read::suggest::{Want, nearest};
use super::read::{Fields, Reader, quote};
use crate::json::number::Exact;
use crate::json::{Json, Member, Node, Parser, SyntaxError, SyntaxErrorKind};

use condition::Polarity;
use limit::LimitPlaces;

/// The initial capacity of a policy's text is at most half a megabyte.
const FIRST_TEXT: usize = 512 << 10;

/// Compiles a document. Its entries are compiled one by one as they are read, so that a large
/// document is never in memory as a tree.
pub(super) fn compile(source: &str, bounds: &Bounds) -> Result<Compiled, PolicyError> {
    let mut reader = Reader::new(bounds);
    let whole = |reader: Reader<'_>| Err(reader.issues.into_error(source));
    if source.len() > bounds.document_bytes {
        let message = format!("a document of {} bytes exceeds the bound of {}", source.len(), bounds.document_bytes);
        reader.issue(IssueCode::DocumentTooLarge, 0, message, "split it, or raise the bound".to_owned());
        return whole(reader);
    }
    if source.starts_with('\u{feff}') {
        let message = "the text begins with a byte order mark";
        reader.issue(IssueCode::ByteOrderMark, 0, message, "save the file as UTF-8 without it".to_owned());
        return whole(reader);
    }
    // The text is about as long as the source. But a source that is refused at its start should not
    // cost memory of its length.
    let mut draft = Draft { text: String::with_capacity(source.len().min(FIRST_TEXT)), ..Draft::default() };
    let mut parser = Parser::new(source, bounds.nesting);
    if let Err(error) = draft.read(&mut reader, &mut parser) {
        syntax_issue(&mut reader, source, error);
    }
    draft.limits.connect(&mut reader, &mut draft.entries, &mut draft.all_tools, &draft.names);
    if !reader.issues.is_empty() {
        return whole(reader);
    }
    let (Some(default), text) = (draft.default, draft.text) else { return whole(reader) };
    let mut compiled = Compiled {
        digest: Digest::new(Sha256::digest(text.as_bytes()).into()),
        text: text.into(),
        default,
        hide: draft.hide,
        names: draft.names,
        entries: draft.entries,
        all_tools: draft.all_tools,
        counters: draft.limits.counters,
        reads_time: draft.reads_time,
    };
    compiled.hide.finish();
    compiled.names.finish();
    compiled.entries.shrink();
    Ok(compiled)
}

fn syntax_issue(reader: &mut Reader<'_>, source: &str, error: SyntaxError) {
    let (before, rest) = source.split_at_checked(error.at).unwrap_or((source, ""));
    let is_at_start = before.trim().is_empty();
    let (code, help) = match error.what {
        SyntaxErrorKind::TooDeep => {
            (IssueCode::TooDeep, Some(format!("nest at most {} lists and objects", reader.bounds.nesting)))
        }
        SyntaxErrorKind::ExpectedValue | SyntaxErrorKind::Ended if is_at_start => {
            (IssueCode::Syntax, Some("write the policy as one JSON object".to_owned()))
        }
        SyntaxErrorKind::ExpectedValue => (IssueCode::Syntax, Some(value_help(rest))),
        SyntaxErrorKind::ExpectedKey => (IssueCode::Syntax, Some("write it as `\"key\": value`".to_owned())),
        SyntaxErrorKind::Ended => (IssueCode::Syntax, Some("close the open string, list or object".to_owned())),
        SyntaxErrorKind::TrailingComma | SyntaxErrorKind::Comment | SyntaxErrorKind::TrailingText => {
            (IssueCode::Syntax, Some("remove it".to_owned()))
        }
        _ => (IssueCode::Syntax, None),
    };
    reader.pointer.clear();
    reader.issue(code, error.at, error.what.to_string(), help);
}

/// The help for a text that is not a JSON value.
fn value_help(text: &str) -> String {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').take(20).collect();
    match text.chars().next() {
        Some('+') => "write the number without `+`".to_owned(),
        Some('.') => "write a digit before the point, as in `0.5`".to_owned(),
        Some('\'' | '`' | '\u{201c}' | '\u{201d}') => "write a string in double quotes, `\"`".to_owned(),
        _ if matches!(&*word, "NaN" | "Infinity" | "inf") => format!("JSON has no number {}", quote(&word)),
        _ => match nearest(&word, &["true", "false", "null"]) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "a value is an object, a list, a string in double quotes, a number, `true`, `false` or `null`"
                .to_owned(),
        },
    }
}

/// A policy that is being compiled.
#[derive(Default)]
struct Draft {
    /// The document as one line of JSON, its members in their order.
    text: String,
    default: Option<DefaultEffect>,
    hide: Names,
    names: Names,
    patterns: HashSet<String>,
    entries: Entries,
    all_tools: Rules,
    limits: LimitPlaces,
    reads_time: bool,
}

impl Draft {
    fn read<'t>(&mut self, reader: &mut Reader<'_>, parser: &mut Parser<'t>) -> Result<(), SyntaxError> {
        let (is_object, at) = parser.peek_object();
        if !is_object {
            let node = parser.node()?;
            parser.finish()?;
            reader.wrong_type(&node, &Want::Object(&DOCUMENT), "a policy is an object");
            return Ok(());
        }
        parser.enter_object()?;
        self.text.push('{');
        let mut seen: HashSet<Cow<'t, str>> = HashSet::new();
        while let Some((at, key)) = parser.next_key()? {
            reader.known_key(&key, at, &DOCUMENT);
            if seen.contains(&key) {
                reader.duplicate_key(&key, at);
                // It is read only for its issues, into a draft of its own.
                let mut other = Self::default();
                reader.at_key(&key, |reader| other.member(reader, parser, &key))?;
                continue;
            }
            self.begin_member(&key, seen.is_empty());
            let read = reader.at_key(&key, |reader| self.member(reader, parser, &key));
            read?;
            seen.insert(key);
        }
        parser.finish()?;
        self.text.push('}');
        reader.missing(at, &DOCUMENT, |key| seen.contains(key));
        Ok(())
    }

    #[expect(clippy::ptr_arg, reason = "a borrowed text was written without escapes")]
    fn begin_member(&mut self, key: &Cow<'_, str>, first: bool) {
        if !first {
            self.text.push(',');
        }
        write_string(&mut self.text, key);
        self.text.push(':');
    }

    fn member<'t>(&mut self, reader: &mut Reader<'_>, parser: &mut Parser<'t>, key: &str) -> Result<(), SyntaxError> {
        let (is_object, at) = parser.peek_object();
        if key == "tools" && is_object {
            return self.tools(reader, parser, at);
        }
        let node = parser.node()?;
        reader.duplicates(&node);
        write_node(&mut self.text, &node);
        match key {
            "$schema" | "description" => {
                reader.string(&node, &format!("`{key}`"));
            }
            "version" => match reader.string(&node, "`version`") {
                Some("1") | None => {}
                Some(version) => {
                    let message = format!("unsupported language version {}", quote(version));
                    reader.issue(IssueCode::UnknownValue, node.at, message, "write \"1\"".to_owned());
                }
            },
            "default" => {
                self.default = reader.word(&node, "an outcome", &DEFAULTS).map(|word| match word {
                    "allow" => DefaultEffect::Allow,
                    _ => DefaultEffect::Deny,
                });
            }
            "hide" => {
                if let Some(patterns) = reader.list(&node, "`hide`") {
                    if patterns.len() > reader.bounds.entries {
                        let message =
                            format!("{} patterns exceed the bound of {}", patterns.len(), reader.bounds.entries);
                        reader.issue(IssueCode::TooMany, node.at, message, "use patterns with `*`".to_owned());
                        return Ok(());
                    }
                    let hide = &mut self.hide;
                    reader.each(patterns, |reader, node| {
                        let name = reader.string(node, "a name pattern")?;
                        if name.is_empty() {
                            let help = "name a tool, or remove it".to_owned();
                            reader.issue(IssueCode::InvalidPattern, node.at, "a tool name cannot be empty", help);
                        }
                        if name_fits(reader, node.at, name) {
                            hide.insert(name);
                        }
                        Some(())
                    });
                }
            }
            "all_tools" => {
                if let Some(fields) = reader.object(&node, &ALL_TOOLS) {
                    self.all_tools = self.rules(reader, fields, None);
                }
            }
            "tools" => {
                reader.wrong_type(&node, &Want::Object(&TOOLS), "`tools` must be an object of names and rules");
            }
            _ => {}
        }
        Ok(())
    }

    fn tools<'t>(&mut self, reader: &mut Reader<'_>, parser: &mut Parser<'t>, at: usize) -> Result<(), SyntaxError> {
        parser.enter_object()?;
        self.text.push('{');
        let (mut first, mut too_many) = (true, false);
        while let Some((at_key, key)) = parser.next_key()? {
            self.begin_member(&key, first);
            first = false;
            let node = parser.node()?;
            write_node(&mut self.text, &node);
            if self.names.len() >= reader.bounds.entries {
                if !std::mem::replace(&mut too_many, true) {
                    let message = format!("`tools` has more entries than the bound of {}", reader.bounds.entries);
                    reader.issue(IssueCode::TooMany, at, message, "use patterns with `*`".to_owned());
                }
                continue;
            }
            reader.at_key(&key, |reader| self.entry(reader, at_key, &key, &node));
        }
        self.text.push('}');
        Ok(())
    }

    fn entry(&mut self, reader: &mut Reader<'_>, at: usize, name: &str, node: &Node<'_>) {
        reader.duplicates(node);
        if name.is_empty() {
            let help = "name a tool, or remove the entry".to_owned();
            reader.issue(IssueCode::InvalidPattern, at, "a tool name cannot be empty", help);
        } else if name.bytes().all(|byte| byte == b'*') {
            let help =
                "write rules for every tool in `all_tools`, and the outcome for tools without an entry in `default`";
            reader.issue(IssueCode::InvalidPattern, at, format!("an entry cannot be {}", quote(name)), help.to_owned());
        }
        let is_new = name_fits(reader, at, name) && {
            let is_new = !name.contains('*') || self.patterns.insert(name.to_owned());
            let is_new = is_new && self.names.insert(name);
            if !is_new {
                let help = "merge the rules of both into one entry".to_owned();
                reader.issue(IssueCode::DuplicateKey, at, format!("duplicate entry {}", quote(name)), help);
            }
            is_new
        };
        let limits = self.limits.len();
        let rules = match &node.json {
            // Half of the entries of real policies only say that the tool exists.
            Json::Object(members) if members.is_empty() => Rules::default(),
            _ => match reader.object(node, &ENTRY) {
                Some(fields) => self.rules(reader, fields, Some(name)),
                None => Rules::default(),
            },
        };
        if !is_new {
            // Its rules were read only for their issues.
            self.limits.truncate(limits);
            return;
        }
        self.entries.push(rules);
    }

    /// Compiles a rules object. `entry` is the name of its entry; `None` for `all_tools`.
    fn rules(&mut self, reader: &mut Reader<'_>, fields: Fields<'_, '_>, entry: Option<&str>) -> Rules {
        reader.field(fields, "description", |reader, node| reader.string(node, "`description`").map(drop));
        let action = reader.field(fields, "action", |reader, node| reader.word(node, "an action", &ACTIONS));
        let reason = reader.field(fields, "reason", |reader, node| reader.text(node, "`reason`"));
        let approval = reader.field(fields, "approval", approval::read);
        let mut list = |reader: &mut Reader<'_>, key: &str, shape, polarity| {
            let rules = reader.field(fields, key, |reader, node| {
                let rules = reader.list(node, &format!("`{key}`"))?;
                Some(reader.each(rules, |reader, node| self.rule(reader, node, shape, polarity)))
            });
            rules.unwrap_or_default().into()
        };
        let require = list(reader, "require", &RULE, Polarity::Require);
        let deny_if = list(reader, "deny_if", &RULE, Polarity::Match);
        let require_approval_if = list(reader, "require_approval_if", &APPROVAL_RULE, Polarity::Match);
        let owner = entry.map(|_| u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        let limits = self.limits.read(reader, fields, owner, entry.unwrap_or("all_tools"), &mut self.reads_time);
        Rules {
            action: match action {
                Some("deny") => Action::Deny,
                Some("require_approval") => Action::RequireApproval,
                _ => Action::Allow,
            },
            reason,
            require,
            deny_if,
            require_approval_if,
            approval,
            limits,
        }
    }

    fn rule(
        &mut self,
        reader: &mut Reader<'_>,
        node: &Node<'_>,
        shape: &'static Shape,
        polarity: Polarity,
    ) -> Option<Rule> {
        let fields = reader.object(node, shape)?;
        reader.field(fields, "name", |reader, node| {
            let name = reader.string(node, "`name`")?;
            reader.no_control(node.at, name).then_some(())
        });
        let on_deny = reader.field(fields, "on_deny", |reader, node| reader.text(node, "`on_deny`"));
        let reason = reader.field(fields, "reason", |reader, node| reader.text(node, "`reason`"));
        if shape.has("reason") && fields.get("on_deny").is_some() && fields.get("reason").is_some() {
            let message = "`reason` and `on_deny` exclude each other";
            reader.issue(IssueCode::ConflictingKeys, fields.at, message, "keep one of the two".to_owned());
        }
        let conditions = reader.field(fields, "conditions", |reader, node| {
            let conditions = reader.list(node, "`conditions`")?;
            if conditions.is_empty() && polarity == Polarity::Require {
                let help = "add a condition that must hold, or remove the rule";
                reader.empty_list(node.at, "a rule of `require` without conditions requires nothing", help);
            }
            Some(reader.each(conditions, |reader, node| {
                condition::read(reader, node, condition::Below::Rule(polarity), &mut self.reads_time)
            }))
        })?;
        Some(Rule { conditions: conditions.into(), message: on_deny.or(reason) })
    }
}

fn name_fits(reader: &mut Reader<'_>, at: usize, name: &str) -> bool {
    let bound = reader.bounds.pattern_bytes;
    if name.len() > bound {
        let message = format!("a name of {} bytes exceeds the bound of {bound}", name.len());
        reader.issue(IssueCode::TooLong, at, message, "use a shorter pattern with `*`".to_owned());
    }
    reader.no_control(at, name) && name.len() <= bound && !name.is_empty()
}

/// Writes a value without blanks. Numbers that a double holds have one form, so that a policy that
/// another tool rewrote stays the same.
fn write_node(to: &mut String, node: &Node<'_>) {
    match &node.json {
        Json::Null => to.push_str("null"),
        Json::Bool(value) => to.push_str(if *value { "true" } else { "false" }),
        Json::Number(text) => match Exact::of_text(text).and_then(Exact::to_number) {
            Some(number) => to.push_str(&number.to_string()),
            None => to.push_str(text),
        },
        Json::String(text) => write_string(to, text),
        Json::Array(elements) => {
            to.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_node(to, element);
            }
            to.push(']');
        }
        Json::Object(members) => {
            to.push('{');
            for (index, Member { key, value, .. }) in members.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_string(to, key);
                to.push(':');
                write_node(to, value);
            }
            to.push('}');
        }
    }
}

#[expect(clippy::ptr_arg, reason = "a borrowed text was written without escapes")]
fn write_string(to: &mut String, text: &Cow<'_, str>) {
    match text {
        // It was written without escapes, so it needs none.
        Cow::Borrowed(text) => to.extend(["\"", text, "\""]),
        Cow::Owned(text) => to.push_str(&Value::from(&**text).to_string()),
    }
}
