//! Limits that stop nothing, and counters that were likely meant to be one.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::findings::{Claim, FindingCode, Found};
use super::witness::{NOW, Witness};
use super::{Lint, Object, member};
use crate::amount::Amount;
use crate::call::ToolCall;
use crate::json::{Json, Node};
use crate::path::Path;
use crate::policy::explain::ChangedCall;

/// What a limit says, as far as the lint looks at it.
struct Written<'l> {
    pointer: String,
    at: usize,
    counter: &'l str,
    max: Amount,
    /// Nothing for an amount from the call.
    amount: Option<Amount>,
    shadow: bool,
    /// Limits of one counter with other maxima have buckets of their own.
    bucket: bool,
}

fn amount(node: &Node<'_>) -> Option<Amount> {
    match &node.json {
        Json::Number(text) => text.parse().ok(),
        _ => None,
    }
}

impl<'l> Lint<'l> {
    pub(super) fn limits(&mut self) {
        let mut all: BTreeMap<String, Vec<Written<'l>>> = BTreeMap::new();
        for object in self.objects() {
            let mut own: Vec<Written<'l>> = Vec::new();
            for (index, limit) in object.list("limits").iter().enumerate() {
                let counter = member(limit, "counter").and_then(Node::as_str);
                let max = member(limit, "max").and_then(amount);
                let (Some(counter), Some(max)) = (counter, max) else { continue };
                let pointer = object.place("limits", index);
                self.scope_of_arguments(&object, limit, &pointer);
                own.push(Written {
                    pointer,
                    at: limit.at,
                    counter,
                    max,
                    amount: match (member(limit, "amount"), member(limit, "amount_from")) {
                        (Some(fixed), _) => amount(fixed),
                        (None, Some(_)) => None,
                        (None, None) => Some(Amount::ONE),
                    },
                    bucket: member(limit, "algorithm").and_then(Node::as_str) == Some("token_bucket"),
                    shadow: matches!(member(limit, "shadow"), Some(Node { json: Json::Bool(true), .. })),
                });
            }
            if object.denies_all().is_none() {
                self.behind_smaller(&own);
            }
            for limit in own {
                all.entry(limit.counter.to_owned()).or_default().push(limit);
            }
        }
        self.never_reached(&all);
        self.alike(&all);
    }

    /// Limits of one object that share a counter with a stricter one before them: what the later refuses, the earlier refuses.
    fn behind_smaller(&mut self, own: &[Written<'_>]) {
        let mut strictest: HashMap<&str, (Amount, &str)> = HashMap::new();
        for limit in own.iter().filter(|limit| !limit.bucket) {
            let known = strictest.get(limit.counter).copied();
            if let Some((max, by)) = known.filter(|(max, _)| *max <= limit.max)
                && !limit.shadow
                && limit.amount.is_some()
            {
                self.found.push(Found {
                    code: FindingCode::LimitNeverDecides,
                    claim: Claim::NeverDecides,
                    at: limit.at,
                    pointer: limit.pointer.clone(),
                    message: format!("it never decides: {by} has the same counter and lets at most {max} pass"),
                    mend: "remove it, or give it a counter of its own".to_owned(),
                    witness: None,
                });
            } else if !limit.shadow {
                strictest.insert(limit.counter, (limit.max, &limit.pointer));
            }
        }
    }

    /// Limits of a counter to which nothing is ever charged.
    fn never_reached(&mut self, all: &BTreeMap<String, Vec<Written<'_>>>) {
        for (counter, limits) in all {
            if !limits.iter().all(|limit| limit.amount == Some(Amount::ZERO)) {
                continue;
            }
            for limit in limits.iter().filter(|limit| limit.max > Amount::ZERO) {
                self.found.push(Found {
                    code: FindingCode::LimitNeverReached,
                    claim: Claim::NeverFull,
                    at: limit.at,
                    pointer: limit.pointer.clone(),
                    message: format!("nothing is ever charged to `{counter}`: the limit cannot be exceeded"),
                    mend: "give it an `amount` above 0, or leave `amount` out to count calls".to_owned(),
                    witness: None,
                });
            }
        }
    }

    /// A count for each value that the caller writes.
    fn scope_of_arguments(&mut self, object: &Object<'_>, limit: &Node<'_>, pointer: &str) {
        let Some(scope) = member(limit, "scope") else { return };
        let Json::Array(parts) = &scope.json else { return };
        let paths: Vec<Path> =
            parts.iter().filter_map(Node::as_str).filter_map(|text| Path::parse(text).ok()).collect();
        if paths.len() != parts.len() || !self.spend_whole() || !paths.iter().all(Path::is_in_arguments) {
            return;
        }
        // The same call with another value, which begins another count.
        let (tool, arguments) = (object.tool(), json!({}));
        let with = |value: &Value| {
            let mut call = ChangedCall::new(&ToolCall::new(&tool, &arguments), NOW);
            paths.iter().all(|path| call.edit(path, Some(value))).then_some(call)
        };
        let (Some(one), Some(other)) = (with(&json!("x")), with(&json!("y"))) else { return };
        let counter = member(limit, "counter").and_then(Node::as_str).unwrap_or_default();
        let subject = |call: &ChangedCall| Some(self.policy.counted_as(counter, &call.call(), NOW)?.1);
        let differ = subject(&one).zip(subject(&other)).is_some_and(|(one, other)| one != other);
        if differ {
            self.found.push(Found {
                code: FindingCode::ScopeOfArguments,
                claim: Claim::Nothing,
                at: scope.at,
                pointer: format!("{pointer}/scope"),
                message: "the caller writes every part of the scope: another value begins another count".to_owned(),
                mend: "add a part that the host knows, such as `grant`".to_owned(),
                witness: Some(Witness::of(self.policy, &other.call(), NOW)),
            });
        }
    }

    fn alike(&mut self, all: &BTreeMap<String, Vec<Written<'_>>>) {
        let plain = |name: &str| -> String {
            name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
        };
        let mut first: HashMap<String, &Written<'_>> = HashMap::new();
        let mut counters: Vec<&Written<'_>> = all.values().filter_map(|limits| limits.first()).collect();
        counters.sort_by_key(|limit| limit.at);
        for limit in counters {
            let known = *first.entry(plain(limit.counter)).or_insert(limit);
            if known.counter != limit.counter {
                self.found.push(Found {
                    code: FindingCode::CountersAlike,
                    claim: Claim::Nothing,
                    at: limit.at,
                    pointer: format!("{}/counter", limit.pointer),
                    message: format!("`{}` and `{}` are two counters", limit.counter, known.counter),
                    mend: format!("write `{}` for both, or choose names that differ", known.counter),
                    witness: None,
                });
            }
        }
    }
}
