//! Text to typed document. The text compiles, so whatever does not fit is passed over.

use super::{Approval, Comparison, Condition, Document, Limit, Located, Rule, RulesObject};
use crate::amount::Amount;
use crate::call::path::Path;
use crate::json::{Json, Member, Node, Parser, pointer};
use crate::policy::approval::Binding;
use crate::policy::compiled::{Action, DefaultEffect};
use crate::policy::condition::Absent;
use crate::policy::limit::{Cost, ScopePart, WINDOWS, parse_duration, parse_utc_offset};
use crate::policy::operator::Operator;
use crate::policy::read::whole_seconds;

impl Document {
    /// Reads a text that compiles. `None` if its lists and objects are nested more than `nesting`
    /// deep.
    pub(crate) fn read(text: &str, nesting: usize) -> Option<Self> {
        let root = Parser::document(text, nesting).ok()?;
        let default = Located { at: 0, value: DefaultEffect::Allow };
        let mut document = Self { default, hide: Vec::new(), entries: Vec::new(), all_tools: None };
        for Member { at, key, value } in members(&root) {
            match &**key {
                "default" => {
                    let denies = value.as_str() == Some("deny");
                    let effect = if denies { DefaultEffect::Deny } else { DefaultEffect::Allow };
                    document.default = Located { at: value.at, value: effect };
                }
                "hide" => document.hide = elements(value).iter().filter_map(name).collect(),
                "tools" => document.entries = members(value).iter().map(entry).collect(),
                "all_tools" => document.all_tools = Some(rules_object(value, *at, None, "/all_tools".to_owned())),
                _ => {}
            }
        }
        Some(document)
    }
}

fn name(node: &Node<'_>) -> Option<Located<String>> {
    Some(Located { at: node.at, value: node.as_str()?.to_owned() })
}

fn entry(member: &Member<'_>) -> RulesObject {
    let mut pointer = "/tools".to_owned();
    pointer::push_key(&mut pointer, &member.key);
    rules_object(&member.value, member.at, Some(&*member.key), pointer)
}

fn rules_object(node: &Node<'_>, at: usize, name: Option<&str>, pointer: String) -> RulesObject {
    let mut object = RulesObject { name: name.map(Box::from), at, ..RulesObject::default() };
    let mut rate_limit = None;
    for Member { key, value, .. } in members(node) {
        match &**key {
            "action" => {
                object.action = match value.as_str() {
                    Some("deny") => Action::Deny,
                    Some("require_approval") => Action::RequireApproval,
                    _ => Action::Allow,
                };
            }
            "require" => object.require = rules(value),
            "deny_if" => object.deny_if = rules(value),
            "require_approval_if" => object.require_approval_if = rules(value),
            "limits" => {
                let numbered = elements(value).iter().enumerate();
                object.limits =
                    numbered.filter_map(|(index, node)| limit(node, format!("{pointer}/limits/{index}"))).collect();
            }
            "rate_limit" => {
                let counter = format!("{}_rate", name.unwrap_or("all_tools"));
                rate_limit = self::rate_limit(value, format!("{pointer}/rate_limit"), counter);
            }
            "approval" => object.approval = Some(approval(value)),
            _ => {}
        }
    }
    object.limits.extend(rate_limit);
    object.pointer = pointer;
    object
}

fn rules(node: &Node<'_>) -> Vec<Rule> {
    elements(node).iter().map(rule).collect()
}

fn rule(node: &Node<'_>) -> Rule {
    Rule {
        at: node.at,
        name: field(node, "name").and_then(Node::as_str).map(Box::from),
        conditions: field(node, "conditions").map_or_else(Vec::new, conditions),
    }
}

fn conditions(node: &Node<'_>) -> Vec<Condition> {
    elements(node).iter().filter_map(condition).collect()
}

fn condition(node: &Node<'_>) -> Option<Condition> {
    let group = members(node).iter().find_map(|Member { key, value, .. }| match &**key {
        "any" => Some(Some(Condition::Any(conditions(value)))),
        "all" => Some(Some(Condition::All(conditions(value)))),
        "not" => Some(condition(value).map(|inner| Condition::Not(Box::new(inner)))),
        _ => None,
    });
    group.unwrap_or_else(|| comparison(node).map(Condition::Comparison))
}

fn comparison(node: &Node<'_>) -> Option<Comparison> {
    Some(Comparison {
        at: node.at,
        path: path(field(node, "path")?)?,
        operator: field(node, "op").and_then(Node::as_str).and_then(Operator::named)?,
        value: field(node, "value").and_then(Node::to_value),
        value_from: field(node, "value_from").and_then(|from| Some(Located { at: from.at, value: path(from)? })),
        ignore_case: field(node, "ignore_case").map(is_true),
        absent: field(node, "absent").and_then(Node::as_str).and_then(Absent::of_word),
    })
}

fn limit(node: &Node<'_>, pointer: String) -> Option<Limit> {
    let counter = field(node, "counter")?;
    let cost = match (field(node, "amount"), field(node, "amount_from")) {
        (Some(fixed), _) => Located { at: fixed.at, value: Cost::Constant(amount(fixed)?) },
        (None, Some(from)) => Located { at: from.at, value: Cost::From(path(from)?) },
        (None, None) => Located { at: node.at, value: Cost::Constant(Amount::ONE) },
    };
    Some(Limit {
        at: node.at,
        pointer,
        counter: counter.as_str()?.to_owned(),
        counter_at: Some(counter.at),
        max: amount(field(node, "max")?)?,
        has_host_max: field(node, "max_from").is_some(),
        cost,
        scope: field(node, "scope").map(scope),
        seconds: field(node, "window").map_or(0, seconds),
        aligned: field(node, "window").filter(|_| is_fixed(node)).and_then(aligned),
        utc_offset: field(node, "utc_offset").and_then(utc_offset),
        is_token_bucket: field(node, "algorithm").and_then(Node::as_str) == Some("token_bucket"),
        is_shadow: field(node, "shadow").is_some_and(is_true),
    })
}

fn rate_limit(node: &Node<'_>, pointer: String, counter: String) -> Option<Limit> {
    Some(Limit {
        at: node.at,
        pointer,
        counter,
        counter_at: None,
        max: amount(field(node, "max")?)?,
        has_host_max: false,
        cost: Located { at: node.at, value: Cost::Constant(Amount::ONE) },
        scope: field(node, "scope").map(scope),
        seconds: field(node, "window").map_or(0, seconds),
        aligned: field(node, "window").and_then(aligned),
        utc_offset: None,
        is_token_bucket: false,
        is_shadow: false,
    })
}

fn is_fixed(limit: &Node<'_>) -> bool {
    field(limit, "algorithm").is_none_or(|algorithm| algorithm.as_str() == Some("fixed"))
}

/// The length of a window that is a duration.
fn aligned(window: &Node<'_>) -> Option<Located<u32>> {
    let is_named = WINDOWS.iter().any(|(name, _)| window.as_str() == Some(name));
    (!is_named).then(|| Located { at: window.at, value: seconds(window) })
}

fn utc_offset(offset: &Node<'_>) -> Option<Located<i32>> {
    Some(Located { at: offset.at, value: parse_utc_offset(offset.as_str()?)? })
}

fn seconds(window: &Node<'_>) -> u32 {
    let text = match &window.json {
        Json::Number(text) => return whole_seconds(text).unwrap_or(0),
        _ => window.as_str().unwrap_or_default(),
    };
    let named = WINDOWS.iter().find(|(name, _)| *name == text).map(|(_, window)| window.seconds());
    named.or_else(|| parse_duration(text)).unwrap_or(0)
}

fn scope(node: &Node<'_>) -> Located<Vec<Located<ScopePart>>> {
    let parts = match &node.json {
        Json::Array(parts) => parts.iter().filter_map(scope_part).collect(),
        _ => scope_part(node).into_iter().collect(),
    };
    Located { at: node.at, value: parts }
}

fn scope_part(node: &Node<'_>) -> Option<Located<ScopePart>> {
    let text = node.as_str()?;
    let part = ScopePart::named(text).or_else(|| Path::parse(text).ok().map(ScopePart::Path))?;
    Some(Located { at: node.at, value: part })
}

fn approval(node: &Node<'_>) -> Approval {
    let texts = |node: &Node<'_>| elements(node).iter().filter_map(Node::as_str).map(str::to_owned).collect();
    let count = |node: &Node<'_>| {
        let count = node.to_value().and_then(|value| value.as_u64()).unwrap_or(0);
        Located { at: node.at, value: count }
    };
    Approval {
        approvers: field(node, "approvers").map(texts),
        min_approvers: field(node, "min_approvers").map(count),
        bind: field(node, "bind").map_or(&[][..], elements).iter().filter_map(binding).collect(),
        empty_bind: field(node, "bind").filter(|bind| elements(bind).is_empty()).map(|bind| bind.at),
    }
}

fn binding(node: &Node<'_>) -> Option<Located<Binding>> {
    let text = node.as_str()?;
    let (at_most, path) = text.strip_suffix("<=").map_or((false, text), |path| (true, path));
    Some(Located { at: node.at, value: Binding { path: Path::parse(path).ok()?, at_most } })
}

fn path(node: &Node<'_>) -> Option<Path> {
    Path::parse(node.as_str()?).ok()
}

fn amount(node: &Node<'_>) -> Option<Amount> {
    match &node.json {
        Json::Number(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_true(node: &Node<'_>) -> bool {
    matches!(node.json, Json::Bool(true))
}

fn field<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    members(node).iter().find(|member| member.key == key).map(|member| &member.value)
}

fn members<'n, 't>(node: &'n Node<'t>) -> &'n [Member<'t>] {
    match &node.json {
        Json::Object(members) => members,
        _ => &[],
    }
}

fn elements<'n, 't>(node: &'n Node<'t>) -> &'n [Node<'t>] {
    match &node.json {
        Json::Array(elements) => elements,
        _ => &[],
    }
}
