//! Translates the rules of Intercept to entries of this crate's language.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::condition::{Bound, Condition};
use super::rule::{self, Cost, Rule, State};
use super::walk::{Place, Walk};
use crate::json::pointer;
use crate::policy::{IssueCode, quote};

/// The rules of one key of `tools`.
pub(super) struct Tool<'v> {
    pub(super) name: &'v str,
    rules: Vec<Rule>,
    place: Place,
}

/// The counters of a document, by scope and name.
#[derive(Default)]
pub(super) struct Counters {
    kept: HashMap<(String, String), Counter>,
    /// Counters with an issue that is already reported. Without a name: any counter of the scope.
    unclear: HashSet<(String, Option<String>)>,
}

struct Counter {
    window: &'static str,
    cost: Cost,
}

impl Counters {
    /// Suppresses the issue that a bounded counter is not kept by a rule, for this counter.
    fn unclear(&mut self, scope: &str, counter: Option<&str>) {
        self.unclear.insert((scope.to_owned(), counter.map(str::to_owned)));
    }

    fn is_unclear(&self, scope: &str, counter: &str) -> bool {
        [None, Some(counter)]
            .into_iter()
            .any(|counter| self.unclear.contains(&(scope.to_owned(), counter.map(str::to_owned))))
    }
}

/// The key for all tools.
pub(super) const ALL: &str = "*";
/// The scope of the counters of `*`.
const GLOBAL: &str = "_global";

/// Reads the rules of a tool.
pub(super) fn read<'v>(walk: &mut Walk, name: &'v str, value: &Value, counters: &mut Counters) -> Option<Tool<'v>> {
    let place = walk.place();
    if name.is_empty() || (name.contains('*') && name != ALL) {
        let message = format!("{} is not a valid tool name: Intercept has no pattern except `*`", quote(name));
        let help = "name each tool, or use a pattern of this crate's language in the translation";
        walk.issue(IssueCode::InvalidPattern, message, help.to_owned());
    }
    let scope = if name == ALL { GLOBAL } else { name };
    let mut tool = Tool { name, rules: Vec::new(), place };
    if value.is_null() {
        return Some(tool);
    }
    let members = walk.object(value, "a tool", &["rules"])?;
    let rules = walk.field(members, "rules", |walk, value| {
        let written = walk.list(value, "`rules`")?;
        let rules = walk.each(written, |walk, value| rule::read(walk, value, scope));
        if rules.len() < written.len() {
            counters.unclear(scope, None);
        }
        Some(rules)
    });
    tool.rules = rules.unwrap_or_default();
    let mut kept = HashSet::new();
    for rule in &tool.rules {
        if rule.has_unread_state {
            counters.unclear(scope, None);
        }
        let Some(state) = &rule.state else { continue };
        if name == GLOBAL || name.contains('.') {
            let message = match name {
                GLOBAL => "`_global` is the scope of the counters of `*`, which a tool of this name would share",
                _ => "Intercept cannot find the counters of a tool whose name has a dot",
            };
            let help = "remove it, and add it to `limits` in the translation";
            walk.issue_at(&state.place, IssueCode::InvalidPattern, message, help);
            counters.unclear(scope, Some(&state.counter));
            // A path is split at its first dot.
            if let Some((scope, counter)) = format!("{scope}.{}", state.counter).split_once('.') {
                counters.unclear(scope, Some(counter));
            }
        } else if !kept.insert(&state.counter) {
            let message = format!("another rule of this tool keeps the counter {}", quote(&state.counter));
            walk.issue_at(&state.place, IssueCode::CounterDisagrees, message, "give it another name");
        } else if rule.own_bound(scope).is_none() {
            if rule.is_whole {
                let path = quote(&format!("state.{scope}.{}", state.counter));
                let message = format!("the rule has no upper bound on {path}, so Intercept does not count it");
                let help = "add a bound with `lte`, or remove `state`";
                walk.issue_at(&state.place, IssueCode::MissingKey, message, help);
            }
            counters.unclear(scope, Some(&state.counter));
        } else if let Some(window) = state.window {
            let counter = Counter { window, cost: state.cost.clone() };
            counters.kept.insert((scope.to_owned(), state.counter.clone()), counter);
        } else {
            counters.unclear(scope, Some(&state.counter));
        }
    }
    Some(tool)
}

impl Tool<'_> {
    fn scope(&self) -> &str {
        if self.name == ALL { GLOBAL } else { self.name }
    }

    /// Translates the rules, in an order in which the same rule names a refusal.
    pub(super) fn translate(&self, walk: &mut Walk, counters: &Counters) -> Value {
        let mut base = match self.name {
            ALL => "/all_tools".to_owned(),
            _ => "/tools".to_owned(),
        };
        if self.name != ALL {
            pointer::push_key(&mut base, self.name);
        }
        walk.made_of(&base, &self.place);
        let mut entry = Map::new();
        let [mut require, mut deny_if, mut limits] = [const { Vec::new() }; 3];
        for (index, rule) in self.rules.iter().enumerate() {
            let Rule { name, on_deny, .. } = rule;
            let on_deny = on_deny.clone().unwrap_or_else(|| format!("Denied by rule {name:?}"));
            if rule.denies && index == 0 && self.name != ALL {
                entry.insert("action".to_owned(), json!("deny"));
                entry.insert("reason".to_owned(), json!(on_deny));
                entry.insert("description".to_owned(), json!(format!("Rule {name:?}.")));
                continue;
            }
            let mut conditions = Vec::new();
            let at = format!("{base}/require/{}", require.len());
            for condition in &rule.conditions {
                if let Condition::Argument { translated, place, value_place } = condition {
                    let at = format!("{at}/conditions/{}", conditions.len());
                    walk.made_of(&at, place);
                    walk.made_of(&format!("{at}/value"), value_place);
                    conditions.push(translated.clone());
                }
            }
            if rule.denies {
                // A condition that never holds, because every call has a tool. In `require`, it
                // denies in the order of the rules.
                conditions = vec![json!({ "path": "call.tool", "op": "exists", "value": false })];
            }
            if !conditions.is_empty() {
                walk.made_of(&at, &rule.place);
                require.push(json!({ "name": name, "conditions": conditions, "on_deny": on_deny }));
            }
            self.limit(walk, &base, rule, counters, &mut limits);
            if let Some(State { cost: Cost::From(path), place, .. }) = &rule.state {
                walk.made_of(&format!("{base}/deny_if/{}", deny_if.len()), place);
                deny_if.push(json!({
                    "name": name,
                    "conditions": [{ "any": [
                        { "not": { "path": path, "op": "type", "value": "integer" } },
                        { "path": path, "op": "lt", "value": 0 },
                    ] }],
                    "on_deny": "Internal policy error",
                }));
            }
        }
        for (key, list) in [("require", require), ("deny_if", deny_if), ("limits", limits)] {
            if !list.is_empty() {
                entry.insert(key.to_owned(), Value::Array(list));
            }
        }
        Value::Object(entry)
    }

    /// Translates the conditions of a rule on counters to limits.
    fn limit(&self, walk: &mut Walk, base: &str, rule: &Rule, counters: &Counters, limits: &mut Vec<Value>) {
        let own = rule.own_bound(self.scope());
        for (index, condition) in rule.conditions.iter().enumerate() {
            let Condition::Bound(bound) = condition else { continue };
            let Bound { scope, counter, place, value_place, .. } = bound;
            let Some(kept) = counters.kept.get(&(scope.clone(), counter.clone())) else {
                if !counters.is_unclear(scope, counter) {
                    let path = quote(&format!("state.{scope}.{counter}"));
                    let message = format!("{path} is not a counter of any `state`");
                    walk.issue_at(place, IssueCode::UnknownValue, message, "name a counter that a rule keeps");
                }
                continue;
            };
            let charged = scope == self.scope() || scope == GLOBAL;
            let (max, cost) = match &kept.cost {
                cost if own == Some(index) => (bound.up_to(), cost.clone()),
                Cost::Each(each) if charged => (bound.before().saturating_add(*each), cost_of(*each)),
                Cost::From(_) if charged => {
                    let message = "a second bound on a counter of amounts is tested before the amount is added";
                    walk.issue_at(place, IssueCode::InvalidValue, message, "keep only one bound");
                    continue;
                }
                _ if self.name == ALL => {
                    let message = "a rule for all tools cannot bound the counter of one tool";
                    walk.issue_at(place, IssueCode::InvalidValue, message, "write the rule for each other tool");
                    continue;
                }
                // Tested, but not charged.
                _ => (bound.before(), cost_of(0)),
            };
            if bound.before() < 0 || max < 0 {
                let message = "a counter is never below 0, so the rule denies every call";
                walk.issue_at(place, IssueCode::InvalidValue, message, "use `action: deny`");
                continue;
            }
            // In Intercept, only a bound on the rule's own counter is a rate limit.
            let message = rule.on_deny.clone().unwrap_or_else(|| match own == Some(index) {
                true => format!("Rate limit exceeded for {}", rule.name),
                false => format!("Denied by rule {:?}", rule.name),
            });
            let max = match cost {
                // A maximum of 0 refuses every call, even one that adds nothing. Counters are
                // whole, so at most 0.5 means 0.
                Cost::From(_) | Cost::Each(0) if max == 0 => json!(0.5),
                _ => json!(max),
            };
            let mut limit = json!({
                "counter": format!("{scope}.{counter}"),
                "window": kept.window,
                "max": max,
                "scope": "global",
                "on_exceed": message,
            });
            let at = format!("{base}/limits/{}", limits.len());
            walk.made_of(&at, place);
            walk.made_of(&format!("{at}/max"), value_place);
            if let Some(members) = limit.as_object_mut() {
                match cost {
                    Cost::Each(1) => None,
                    Cost::Each(each) => members.insert("amount".to_owned(), json!(each)),
                    Cost::From(path) => members.insert("amount_from".to_owned(), json!(path)),
                };
            }
            if let (Some(state), true) = (&rule.state, own == Some(index)) {
                for key in ["amount", "amount_from"] {
                    walk.made_of(&format!("{at}/{key}"), &state.cost_place);
                }
            }
            limits.push(limit);
        }
    }
}

fn cost_of(each: i64) -> Cost {
    Cost::Each(each)
}

impl Bound {
    /// Returns the maximum of the counter including the call, for a bound that Intercept counts up
    /// to: it drops the fraction.
    fn up_to(&self) -> i64 {
        whole(self.value.trunc()) - i64::from(self.is_strict)
    }

    /// Returns the maximum of the counter before the call.
    fn before(&self) -> i64 {
        if self.is_strict { whole(self.value.ceil()) - 1 } else { whole(self.value.floor()) }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^63: a bound above 2^53 is refused")]
fn whole(value: f64) -> i64 {
    (value as i64).clamp(-(1 << 60), 1 << 60)
}
