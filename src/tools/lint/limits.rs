//! Limits that stop nothing, and counters that were likely meant to be one.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::Lint;
use super::findings::{Claim, FindingCode, Found, shown};
use crate::amount::Amount;
use crate::call::path::{Path, Source};
use crate::policy::Effect;
use crate::policy::ast::{Limit, RulesObject};
use crate::policy::limit::ScopePart;
use crate::tools::explain::{RuleEffect, Witness};

impl Lint<'_> {
    pub(super) fn limits(&mut self) {
        let mut all: BTreeMap<&str, Vec<&Limit>> = BTreeMap::new();
        let objects = self.objects();
        // Whom a counter counts is looked up among all.
        let lookup = self.whole + objects.iter().map(|object| object.limits.len() + 1).sum::<usize>() / 4;
        for object in objects {
            for limit in &object.limits {
                self.scope_of_arguments(object, limit, lookup);
            }
            if object.denies_all().is_none() {
                self.behind_smaller(&object.limits);
            }
            for limit in &object.limits {
                all.entry(&limit.counter).or_default().push(limit);
            }
        }
        self.never_reached(&all);
        self.alike(&all);
    }

    /// Limits of one object that share a counter with a stricter one before them: what the later refuses, the earlier refuses.
    fn behind_smaller(&mut self, own: &[Limit]) {
        let mut strictest: HashMap<&str, (Amount, &str)> = HashMap::new();
        for limit in own.iter().filter(|limit| !limit.is_token_bucket) {
            let known = strictest.get(limit.counter.as_str()).copied();
            if let Some((max, by)) = known.filter(|(max, _)| *max <= limit.max)
                && !limit.is_shadow
                && limit.constant_cost().is_some()
            {
                self.found.push(Found {
                    code: FindingCode::LimitNeverDecides,
                    claim: Claim::NeverDecides,
                    at: limit.at,
                    pointer: limit.pointer.clone(),
                    message: format!("it never decides: {by} has the same counter and lets at most {max} pass"),
                    help: "remove it, or give it a counter of its own".to_owned(),
                    witness: None,
                });
            } else if !limit.is_shadow {
                strictest.insert(&limit.counter, (limit.max, &limit.pointer));
            }
        }
    }

    /// Limits of a counter to which nothing is ever charged.
    fn never_reached(&mut self, all: &BTreeMap<&str, Vec<&Limit>>) {
        for (counter, limits) in all {
            if !limits.iter().all(|limit| limit.constant_cost() == Some(Amount::ZERO)) {
                continue;
            }
            for limit in limits.iter().filter(|limit| limit.max > Amount::ZERO) {
                self.found.push(Found {
                    code: FindingCode::LimitNeverReached,
                    claim: Claim::NeverFull,
                    at: limit.at,
                    pointer: limit.pointer.clone(),
                    message: format!("nothing is ever charged to `{counter}`: the limit cannot be exceeded"),
                    help: "give it an `amount` above 0, or leave `amount` out to count calls".to_owned(),
                    witness: None,
                });
            }
        }
    }

    /// A count for each value that the caller writes.
    fn scope_of_arguments(&mut self, object: &RulesObject, limit: &Limit, lookup: usize) {
        let Some(scope) = &limit.scope else { return };
        let path = |part: &'_ ScopePart| match part {
            ScopePart::Path(path) => Some(path.clone()),
            ScopePart::Identity(_) | ScopePart::Global => None,
        };
        let paths: Vec<Path> = scope.value.iter().filter_map(|part| path(&part.value)).collect();
        let written: Vec<&Path> = paths.iter().filter(|path| path.is_in_arguments()).collect();
        // The tool and the time are no caller's name, nor is what all callers share.
        let is_nobody = |path: &Path| matches!(path.source(), Source::Arguments | Source::Tool | Source::Time);
        let others = scope.value.iter().any(|part| matches!(part.value, ScopePart::Identity(_)));
        if written.is_empty() || others || !paths.iter().all(is_nobody) || !self.spend(lookup) {
            return;
        }
        let Some(witness) = self.counted_anew(object, &limit.counter, &written) else { return };
        let message = match written.len() == scope.value.len() {
            true => "the caller writes every part of the scope: another value begins another count",
            false => {
                "no part of the scope is a caller's, and some the caller writes: another value begins another count"
            }
        };
        self.found.push(Found {
            code: FindingCode::ScopeOfArguments,
            claim: Claim::Nothing,
            at: scope.at,
            pointer: format!("{}/scope", limit.pointer),
            message: message.to_owned(),
            help: "add a part that the host knows, such as `grant`".to_owned(),
            witness,
        });
    }

    /// A call that begins another count than the same call with other values at the paths, and that passes, if there is one;
    /// nothing, if it is not seen to begin another.
    fn counted_anew(
        &mut self,
        object: &RulesObject,
        counter: &str,
        paths: &[&Path],
    ) -> Option<Option<(Witness, RuleEffect)>> {
        let tools = self.reaching(object);
        let passing = tools.iter().find_map(|tool| self.passing(tool).0);
        let plain = Witness::of_tool(object.tool());
        let policy = self.policy;
        let subject = |call: &Witness| Some(policy.counted_as(counter, &call.call(), call.at())?.1);
        let mut differ = false;
        for start in [passing.as_ref(), Some(&plain)].into_iter().flatten() {
            for (one, other) in [(json!("x"), json!("y")), (json!(1), json!(2))] {
                let with = |value: &Value| {
                    let mut call = start.clone();
                    paths.iter().all(|path| call.edit(path, Some(value))).then_some(call)
                };
                let (Some(one), Some(other)) = (with(&one), with(&other)) else { continue };
                if subject(&one).zip(subject(&other)).is_none_or(|(one, other)| one == other) {
                    continue;
                }
                differ = true;
                if !matches!(other.evaluate(policy).effect(), Effect::Deny(_)) {
                    return Some(Some(shown(policy, other)));
                }
            }
            if differ {
                break;
            }
        }
        differ.then_some(None)
    }

    fn alike(&mut self, all: &BTreeMap<&str, Vec<&Limit>>) {
        let mut first: HashMap<String, &Limit> = HashMap::new();
        let named = |limits: &[&'_ Limit]| limits.iter().position(|limit| limit.counter_at.is_some()).unwrap_or(0);
        let mut counters: Vec<&Limit> = all.values().filter_map(|limits| limits.get(named(limits)).copied()).collect();
        counters.sort_by_key(|limit| limit.at);
        for limit in counters {
            let known = *first.entry(plain(&limit.counter)).or_insert(limit);
            // Two names of entries are the names of two tools.
            let (named, of) = match (limit.counter_at, known.counter_at) {
                (Some(at), _) => ((limit, at), known),
                (None, Some(at)) => ((known, at), limit),
                (None, None) => continue,
            };
            let (limit, at) = named;
            if of.counter != limit.counter {
                let message = format!("`{}` and `{}` are two counters", limit.counter, of.counter);
                let help = format!("write `{}` for both, or choose names that differ", of.counter);
                let place = (at, format!("{}/counter", limit.pointer));
                self.found.push(Found::remark(FindingCode::CountersAlike, place, message, help));
            }
        }
    }
}

/// A name without case and without what only parts its words. A mark between two digits says which number they are.
fn plain(name: &str) -> String {
    let all: Vec<char> = name.chars().collect();
    let digit = |index: Option<usize>| index.and_then(|index| all.get(index)).is_some_and(char::is_ascii_digit);
    let parts = |index: usize, c: char| {
        (c.is_whitespace() || "_-./:".contains(c)) && !(digit(index.checked_sub(1)) && digit(index.checked_add(1)))
    };
    let kept = all.iter().enumerate().filter(|(index, c)| !parts(*index, **c));
    let plain: String = kept.flat_map(|(_, c)| c.to_lowercase()).collect();
    if plain.is_empty() { name.to_owned() } else { plain }
}
