//! Conditions of a document.

use serde_json::Value;

use super::super::compare::{Keys, Values};
use super::super::condition::{Absent, Check, Condition, IgnoreCase, Operand, Order, Sought, Test, Types};
use super::super::document::{COMPARISON, CONDITION, GROUPS, TYPES};
use super::super::error::IssueCode;
use super::super::operator::{OPERATORS, Operator, Takes};
use super::super::text::{Affix, Directories, Hosts, Needle};
use crate::call::path::TimePart;
use crate::json::number::Exact;
use crate::json::{Json, Node};
use crate::policy::read::suggest::{Want, nearest, retype};
use crate::policy::read::{Fields, Reader, quote, shown};
use crate::time::is_date;

/// The section that a rule's conditions belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Polarity {
    Require,
    Match,
}

/// The parent of a condition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    Rule(Polarity),
    /// At any depth.
    Not,
}

/// The key of a group is looked for among this many members.
const MAX_TRIED_KEYS: usize = 8;

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>, below: Below, reads_time: &mut bool) -> Option<Condition> {
    let Json::Object(members) = &node.json else {
        reader.wrong_type(node, &Want::Object(&CONDITION), "a condition must be an object");
        return None;
    };
    let fields = Fields { at: node.at, members };
    for member in members {
        reader.known_key(&member.key, member.at, &CONDITION);
    }
    let Some(first) = members.iter().find(|member| GROUPS.contains(&&*member.key)) else {
        let has = |key: &str| fields.get(key).is_some();
        // An object with a misspelt group key does not lack the keys of a comparison.
        let could_be = !has("path") && !has("op") && !reader.issues.is_full();
        let is_group = could_be && members.iter().take(MAX_TRIED_KEYS).any(|member| is_almost_group(&member.key));
        if !is_group {
            reader.missing(node.at, &COMPARISON, has);
        }
        return comparison(reader, fields, below, reads_time);
    };
    let key = &*first.key;
    for other in CONDITION.names().filter(|other| *other != key) {
        reader.misplaced(fields, other, &format!("the group `{key}` has no other keys"));
    }
    // Misplaced keys are also read, for their issues.
    let _ = (path_and_operator(reader, fields), ignore_case(reader, fields), absent_word(reader, fields, below));
    values(reader, fields);
    for other in GROUPS.iter().filter(|other| **other != key) {
        group(reader, fields, other, below, reads_time);
    }
    group(reader, fields, key, below, reads_time)
}

/// Reads a group, with the conditions below its key.
fn group(
    reader: &mut Reader<'_>,
    fields: Fields<'_, '_>,
    key: &str,
    below: Below,
    reads_time: &mut bool,
) -> Option<Condition> {
    reader.field(fields, key, |reader, node| {
        if key == "not" {
            return read(reader, node, Below::Not, reads_time).map(Condition::not);
        }
        let conditions = reader.list(node, &format!("`{key}`"))?;
        if conditions.is_empty() {
            reader.empty_list(
                node.at,
                &format!("an empty `{key}` decides nothing"),
                "add a condition, or remove the group",
            );
        }
        let conditions = reader.each(conditions, |reader, node| read(reader, node, below, reads_time)).into();
        Some(if key == "any" { Condition::Any(conditions) } else { Condition::All(conditions) })
    })
}

/// Returns `true` if an unknown key is probably a misspelt group key.
fn is_almost_group(key: &str) -> bool {
    let names: Vec<_> = CONDITION.names().collect();
    !CONDITION.has(key) && nearest(key, &names).is_some_and(|near| GROUPS.contains(&near))
}

fn path_and_operator(
    reader: &mut Reader<'_>,
    fields: Fields<'_, '_>,
) -> (Option<crate::call::path::Path>, Option<&'static Operator>) {
    let path = reader.field(fields, "path", |reader, node| reader.path(node, "`path`"));
    let operator = reader.field(fields, "op", |reader, node| {
        let known = node.as_str().and_then(Operator::named);
        if known.is_none() {
            let names: Vec<_> = OPERATORS.iter().map(|operator| operator.name).collect();
            match node.as_str() {
                Some(text) => reader.unknown_word(node, text, "an operator", &names),
                None => reader.wrong_type(node, &Want::Any, "`op` must be the name of an operator"),
            }
        }
        known
    });
    (path, operator)
}

fn ignore_case(reader: &mut Reader<'_>, fields: Fields<'_, '_>) -> Option<bool> {
    reader.field(fields, "ignore_case", |reader, node| reader.boolean(node, "`ignore_case`"))
}

/// Notes the issues of a value, or of a path to one, that do not depend on the operator.
fn values(reader: &mut Reader<'_>, fields: Fields<'_, '_>) {
    reader.field(fields, "value", |reader, node| {
        reader.comparable(node);
        Some(())
    });
    reader.field(fields, "value_from", |reader, node| reader.single_path(node, "`value_from`"));
}

fn comparison(
    reader: &mut Reader<'_>,
    fields: Fields<'_, '_>,
    below: Below,
    reads_time: &mut bool,
) -> Option<Condition> {
    let (path, operator) = path_and_operator(reader, fields);
    *reads_time |= path.as_ref().is_some_and(crate::call::path::Path::reads_time);
    let absent = absent(reader, fields, operator, below);
    let ignore_case = ignore_case(reader, fields);
    let (value, other) = (fields.get("value"), fields.get("value_from"));
    if value.is_some() && other.is_some() {
        let message = "`value` and `value_from` exclude each other";
        reader.issue(IssueCode::ConflictingKeys, fields.at, message, "keep one of the two".to_owned());
    }
    let Some(operator) = operator else {
        // Note the issues that do not depend on the operator.
        values(reader, fields);
        return None;
    };
    if !operator.ignore_case && fields.get("ignore_case").is_some() {
        reader.misplaced(fields, "ignore_case", &format!("`{}` has no case to ignore", operator.name));
    }
    let case = if ignore_case == Some(true) { IgnoreCase::Yes } else { IgnoreCase::No };
    if value.is_none() && (other.is_none() || !operator.value_from) {
        let choice = if operator.value_from { "`value` or `value_from`" } else { "`value`" };
        let message = format!("a condition with `{}` needs {choice}", operator.name);
        let help = match operator.takes {
            Takes::Exists => "write `true` for a path that must exist, `false` for one that must not",
            _ => "add what the path is compared with",
        };
        reader.issue(IssueCode::MissingKey, fields.at, message, help.to_owned());
    }
    if !operator.value_from {
        let why = format!("`{}` takes only a `value`, which is checked when the policy is read", operator.name);
        reader.misplaced(fields, "value_from", &why);
    }
    let part = path.as_ref().and_then(crate::call::path::Path::time_part);
    let fixed = reader.field(fields, "value", |reader, node| {
        let can_be = part.is_none_or(|part| time_can_be(reader, part, operator.takes, node));
        if can_be { check(reader, operator, node, case) } else { None }
    });
    let from = reader.field(fields, "value_from", |reader, node| {
        let path = reader.single_path(node, "`value_from`")?;
        *reads_time |= path.reads_time();
        check_from(operator.takes, path, case)
    });
    let (path, (check, turned)) = (path?, fixed.or(from)?);
    Some(Condition::Test(Box::new(Test { path, check, negated: operator.negative != turned, absent })))
}

fn absent_word(reader: &mut Reader<'_>, fields: Fields<'_, '_>, below: Below) -> Option<Absent> {
    let words = [Absent::Match.word(), Absent::NoMatch.word()];
    reader.field(fields, "absent", |reader, node| {
        let absent = Absent::of_word(reader.word(node, "a value of `absent`", &words)?)?;
        if absent == Absent::NoMatch && below == Below::Rule(Polarity::Require) {
            let message = "`no_match` is not valid in `require`, where an absent value never holds by itself";
            let help = "remove `absent`, or write `match` to make the value optional".to_owned();
            reader.issue(IssueCode::InvalidValue, node.at, message, help);
        }
        Some(absent)
    })
}

fn absent(
    reader: &mut Reader<'_>,
    fields: Fields<'_, '_>,
    operator: Option<&Operator>,
    below: Below,
) -> Option<Absent> {
    let absent = absent_word(reader, fields, below);
    if below == Below::Not {
        reader.misplaced(fields, "absent", "`not` would invert it");
    } else if operator.is_some_and(|operator| operator.takes == Takes::Exists) {
        reader.misplaced(fields, "absent", "`exists` itself tests for absence");
    }
    absent
}

/// A check, and `true` if its value inverts it.
type Checked = (Check, bool);

fn check_from(takes: Takes, path: crate::call::path::Path, case: IgnoreCase) -> Option<Checked> {
    let order = |order, path| Check::Order(order, Operand::From(path));
    let check = match takes {
        Takes::Equal => Check::Equal(Operand::From(path)),
        Takes::Less => order(Order::Less, path),
        Takes::LessOrEqual => order(Order::LessOrEqual, path),
        Takes::Greater => order(Order::Greater, path),
        Takes::GreaterOrEqual => order(Order::GreaterOrEqual, path),
        Takes::In => Check::In(Operand::From(path)),
        Takes::Contains => Check::Contains(Operand::From(path), case),
        Takes::StartsWith => Check::Affix(Affix::Start, Operand::From(path), case),
        Takes::EndsWith => Check::Affix(Affix::End, Operand::From(path), case),
        // The table of operators allows `value_from` for none of the others.
        _ => return None,
    };
    Some((check, false))
}

fn check(reader: &mut Reader<'_>, operator: &Operator, node: &Node<'_>, case: IgnoreCase) -> Option<Checked> {
    let name = operator.name;
    let order = |reader: &mut Reader<'_>, order| {
        let Json::Number(text) = node.json else {
            unfit(reader, node, name, &Want::Number, "a number");
            return None;
        };
        reader.comparable(node);
        Some(Check::Order(order, Operand::Fixed(Exact::of_text(text)?)))
    };
    let check = match operator.takes {
        Takes::Equal => {
            reader.comparable(node);
            Check::Equal(Operand::Fixed(node.to_value()?))
        }
        Takes::Less => order(reader, Order::Less)?,
        Takes::LessOrEqual => order(reader, Order::LessOrEqual)?,
        Takes::Greater => order(reader, Order::Greater)?,
        Takes::GreaterOrEqual => order(reader, Order::GreaterOrEqual)?,
        Takes::In => {
            let elements = some_list(reader, node, operator, "a list of values")?;
            reader.comparable(node);
            Check::In(Operand::Fixed(Values::new(elements.iter().map(Node::to_value).collect::<Option<_>>()?)))
        }
        Takes::Exists => match node.json {
            Json::Bool(there) => return Some((Check::Exists, !there)),
            _ => {
                unfit(reader, node, name, &Want::Boolean, "`true` or `false`");
                return None;
            }
        },
        Takes::Regex => {
            if node.as_str().is_none() {
                unfit(reader, node, name, &Want::Text, "a regular expression in a string");
                return None;
            }
            Check::Regex(reader.regex(node, case == IgnoreCase::Yes)?)
        }
        Takes::Contains => {
            reader.comparable(node);
            let value = node.to_value()?;
            let needle = match &value {
                Value::String(text) => Some(needle(reader, node, text, case)?),
                _ => None,
            };
            Check::Contains(Operand::Fixed(Sought { value, needle }), case)
        }
        Takes::StartsWith | Takes::EndsWith => {
            let affix = if operator.takes == Takes::StartsWith { Affix::Start } else { Affix::End };
            let needles = match &node.json {
                Json::String(text) if !reader.no_control(node.at, text) => return None,
                Json::String(text) => vec![needle(reader, node, text, case)?],
                _ => strings(reader, node, operator, "a string or a list of strings", |reader, node, text| {
                    needle(reader, node, text, case)
                })?,
            };
            Check::Affix(affix, Operand::Fixed(needles.into()), case)
        }
        Takes::MinLength => Check::MinLength(length(reader, node, name)?),
        Takes::MaxLength => Check::MaxLength(length(reader, node, name)?),
        Takes::MinItems => Check::MinItems(length(reader, node, name)?),
        Takes::MaxItems => Check::MaxItems(length(reader, node, name)?),
        Takes::KeysIn => {
            let names = match &node.json {
                // An object without members has no others.
                Json::Array(elements) if elements.is_empty() => Vec::new(),
                _ => strings(reader, node, operator, "a list of names", |_, _, name| Some(name.into()))?,
            };
            Check::KeysIn(Keys::new(names))
        }
        Takes::Type => {
            let mut types = Types::default();
            let mut add = |reader: &mut Reader<'_>, node: &Node<'_>, text: &str| {
                match text {
                    "string" => types.string = true,
                    "number" => types.number = true,
                    "integer" => types.integer = true,
                    "boolean" => types.boolean = true,
                    "array" => types.array = true,
                    "object" => types.object = true,
                    _ => {
                        reader.unknown_word(node, text, "a type", &TYPES);
                        return None;
                    }
                }
                Some(())
            };
            match &node.json {
                Json::String(text) => add(reader, node, text)?,
                _ => drop(strings(reader, node, operator, "the name of a type, or a list of them", add)?),
            }
            Check::Type(types)
        }
        Takes::PathWithin => {
            let help = "write it from the root with one slash, such as `/srv/data`, without backslashes or \
                 percent-encoded separators";
            let one = |reader: &mut Reader<'_>, node: &Node<'_>, text: &str| {
                if Directories::new([text]).is_err() {
                    let message = format!("{} is not an absolute directory", quote(text));
                    reader.issue(IssueCode::InvalidValue, node.at, message, help.to_owned());
                }
                Some(text.to_owned())
            };
            let directories = strings(reader, node, operator, "a list of absolute directories", one)?;
            Check::PathWithin(Directories::new(directories.iter().map(String::as_str)).ok()?)
        }
        Takes::HostIn => {
            let help = "write only a host, such as `example.com`, or `*.example.com` for all its subdomains";
            let one = |reader: &mut Reader<'_>, node: &Node<'_>, text: &str| {
                // Elsewhere `.example.com` means all its subdomains. Here it would match nothing,
                // because no host has an empty label.
                let is_dotted = text.starts_with('.');
                if is_dotted || Hosts::new([text]).is_err() {
                    let near = if is_dotted {
                        format!("did you mean {}? ", quote(&format!("*{text}")))
                    } else {
                        String::new()
                    };
                    let message = format!("{} is not a host", quote(text));
                    reader.issue(IssueCode::InvalidValue, node.at, message, format!("{near}{help}"));
                }
                Some(text.to_owned())
            };
            let hosts = strings(reader, node, operator, "a list of hosts", one)?;
            Check::HostIn(Hosts::new(hosts.iter().map(String::as_str)).ok()?)
        }
    };
    Some((check, false))
}

/// Notes each value that this part of the time never has, if the operator compares with values of
/// its type. Returns `true` if there is none.
fn time_can_be(reader: &mut Reader<'_>, part: TimePart, takes: Takes, node: &Node<'_>) -> bool {
    match (takes, &node.json) {
        (Takes::In, Json::Array(elements)) => {
            let fits = reader.each(elements, |reader, node| one_time_can_be(reader, part, node).then_some(()));
            if fits.len() < elements.len() {
                reader.list_fits(node.at, elements.len());
            }
            fits.len() == elements.len()
        }
        (Takes::Equal | Takes::Less | Takes::LessOrEqual | Takes::Greater | Takes::GreaterOrEqual, _) => {
            one_time_can_be(reader, part, node)
        }
        _ => true,
    }
}

fn one_time_can_be(reader: &mut Reader<'_>, part: TimePart, node: &Node<'_>) -> bool {
    let (fits, help) = match part.numbers() {
        Some((least, most)) => {
            let fits = matches!(node.json, Json::Number(text) if is_whole_between(text, least, most));
            (fits, format!("write a whole number from {least} to {most}"))
        }
        None => (node.as_str().is_some_and(is_date), "write a date, such as `2026-01-15`".to_owned()),
    };
    match node.json {
        Json::Null => reader.comparable(node),
        _ if !fits => {
            let message = format!("`{}` is never {}", part.path(), shown(node));
            reader.issue(IssueCode::InvalidValue, node.at, message, help);
        }
        _ => {}
    }
    fits
}

fn is_whole_between(text: &str, least: u8, most: u8) -> bool {
    let range = Exact::Integer(least.into())..=Exact::Integer(most.into());
    Exact::of_text(text).is_some_and(|number| number.is_whole() && range.contains(&number))
}

/// Notes a value that the operator cannot compare with.
fn unfit(reader: &mut Reader<'_>, node: &Node<'_>, operator: &str, want: &Want, is: &str) {
    let message = format!("`{operator}` compares with {is}, not {}", node.kind());
    // `null` is explained the same way for every value.
    let help = retype(node, want).filter(|_| !matches!(node.json, Json::Null));
    reader.issue(IssueCode::InvalidValue, node.at, message, help);
}

fn some_list<'n, 't>(
    reader: &mut Reader<'_>,
    node: &'n Node<'t>,
    operator: &Operator,
    want: &str,
) -> Option<&'n [Node<'t>]> {
    let Json::Array(elements) = &node.json else {
        unfit(reader, node, operator.name, &Want::List, want);
        return None;
    };
    if elements.is_empty() {
        let always = if operator.negative { "true for every value" } else { "never true" };
        let message = format!("`{}` with an empty list is {always}", operator.name);
        reader.empty_list(node.at, &message, "add a value, or remove the condition");
    }
    Some(elements)
}

fn strings<T>(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    operator: &Operator,
    want: &str,
    mut read: impl FnMut(&mut Reader<'_>, &Node<'_>, &str) -> Option<T>,
) -> Option<Vec<T>> {
    let elements = some_list(reader, node, operator, want)?;
    reader.list_fits(node.at, elements.len());
    Some(reader.each(elements, |reader, node| match node.as_str() {
        Some(text) if !reader.no_control(node.at, text) => None,
        Some(text) => read(reader, node, text),
        None => {
            let message = format!("`{}` compares with strings, not {}", operator.name, node.kind());
            reader.issue(IssueCode::InvalidValue, node.at, message, None);
            None
        }
    }))
}

fn length(reader: &mut Reader<'_>, node: &Node<'_>, name: &str) -> Option<u64> {
    match node.json {
        Json::Number(_) => reader.count(node, &format!("`{name}`"), 0),
        _ => {
            unfit(reader, node, name, &Want::Number, "a whole number, 0 or above");
            None
        }
    }
}

fn needle(reader: &mut Reader<'_>, node: &Node<'_>, text: &str, case: IgnoreCase) -> Option<Needle> {
    match case {
        IgnoreCase::No => Some(Needle::Plain(text.into())),
        IgnoreCase::Yes => reader.folded(node, text),
    }
}
