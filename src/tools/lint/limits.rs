//! Limits without effect, and counters that were probably intended to be one.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::Lint;
use super::findings::{Claim, FindingCode, UnplacedFinding, with_effect};
use crate::amount::Amount;
use crate::call::identity::Identity;
use crate::call::path::{Path, Source};
use crate::policy::Effect;
use crate::policy::ast::{Limit, Located, RulesObject};
use crate::policy::limit::ScopePart;
use crate::tools::explain::{RuleEffect, Witness};

impl Lint<'_> {
    pub(super) fn limits(&mut self) {
        let mut by_counter: BTreeMap<&str, Vec<&Limit>> = BTreeMap::new();
        let objects = self.objects();
        // The subject of a counter is looked up by a search through all limits.
        let lookup_steps = self.policy_steps + objects.iter().map(|object| object.limits.len() + 1).sum::<usize>() / 4;
        let all_tools = objects.iter().find(|object| object.pointer == "/all_tools").copied();
        for object in objects {
            for limit in &object.limits {
                self.scope_of_arguments(object, limit, lookup_steps);
                self.many_counters(object, limit, all_tools);
                self.scope_of_session(object, limit);
                self.window(limit);
                by_counter.entry(&limit.counter).or_default().push(limit);
            }
            if object.denies_all().is_none() {
                self.after_stricter(&object.limits);
            }
        }
        self.never_reached(&by_counter);
        self.counters_alike(&by_counter);
    }

    /// Reports a long window that begins anew on surprising days, and an offset that no place has.
    fn window(&mut self, limit: &Limit) {
        const DAY: u32 = 86_400;
        // Beside the whole hours from -12 to 14, the offsets that places have, summer time
        // included.
        const PARTS_OF_HOURS: [i32; 13] = [-570, -210, -150, 210, 270, 330, 345, 390, 525, 570, 630, 765, 825];
        if let Some(Located { at, value: seconds }) = limit.aligned.as_ref().filter(|length| length.value > DAY) {
            let length = match seconds.is_multiple_of(DAY) {
                true => format!("{} days", seconds / DAY),
                false => format!("{seconds} seconds"),
            };
            let message = format!(
                "windows of {length} are counted from 1970-01-01 UTC, not from the first call: the present one may end \
                 tomorrow"
            );
            let help = "write `week` or `month`, `lifetime` for a budget that never begins anew, or the algorithm \
                        `sliding`, which looks back from each call";
            let place = (*at, format!("{}/window", limit.pointer));
            self.findings.push(UnplacedFinding::without_claim(FindingCode::AlignedToEpoch, place, message, help));
        }
        let is_of_a_place =
            |offset: i32| PARTS_OF_HOURS.contains(&offset) || offset % 60 == 0 && (-720..=840).contains(&offset);
        if let Some(Located { at, .. }) = limit.utc_offset.as_ref().filter(|offset| !is_of_a_place(offset.value)) {
            let help = "write the offset of a place, such as `+02:00` or `-05:30`; it does not follow summer time";
            let place = (*at, format!("{}/utc_offset", limit.pointer));
            let message = "no place has this offset from UTC";
            self.findings.push(UnplacedFinding::without_claim(FindingCode::OffsetOfNoPlace, place, message, help));
        }
    }

    /// Reports limits of an object that share the counter of an earlier, stricter limit: whatever
    /// the later limit refuses, the earlier one refuses first.
    fn after_stricter(&mut self, limits: &[Limit]) {
        let mut strictest: HashMap<&str, (Amount, &str)> = HashMap::new();
        for limit in limits.iter().filter(|limit| !limit.is_token_bucket && !limit.is_shadow) {
            let known = strictest.get(limit.counter.as_str()).copied();
            if let Some((max, by)) = known.filter(|(max, _)| *max <= limit.max)
                && limit.constant_cost().is_some()
                && !limit.has_host_max
            {
                self.findings.push(UnplacedFinding {
                    code: FindingCode::LimitNeverDecides,
                    claim: Claim::NeverDecides,
                    at: limit.at,
                    pointer: limit.pointer.clone(),
                    message: format!("the limit never decides: {by} has the same counter and allows at most {max}"),
                    help: "remove it, or give it a counter of its own".to_owned(),
                    witness: None,
                });
            } else if known.is_none_or(|(max, _)| limit.max < max) {
                strictest.insert(&limit.counter, (limit.max, &limit.pointer));
            }
        }
    }

    /// Reports the limits of counters to which every call charges 0.
    fn never_reached(&mut self, by_counter: &BTreeMap<&str, Vec<&Limit>>) {
        for (counter, limits) in by_counter {
            if !limits.iter().all(|limit| limit.constant_cost() == Some(Amount::ZERO)) {
                continue;
            }
            for limit in limits.iter().filter(|limit| limit.max > Amount::ZERO && !limit.has_host_max) {
                self.findings.push(UnplacedFinding {
                    code: FindingCode::LimitNeverReached,
                    claim: Claim::NeverFull,
                    at: limit.at,
                    pointer: limit.pointer.clone(),
                    message: format!("nothing is ever charged to `{counter}`: the limit cannot be exceeded"),
                    help: "set `amount` above 0, or omit it to count calls".to_owned(),
                    witness: None,
                });
            }
        }
    }

    /// Reports a scope that has arguments but does not identify the caller.
    fn scope_of_arguments(&mut self, object: &RulesObject, limit: &Limit, lookup_steps: usize) {
        let Some(scope) = &limit.scope else { return };
        let has_identity = scope.value.iter().any(|part| matches!(part.value, ScopePart::Identity(_)));
        let path = |part: &'_ ScopePart| match part {
            ScopePart::Path(path) => Some(path.clone()),
            ScopePart::Identity(_) | ScopePart::Global => None,
        };
        let paths: Vec<Path> = scope.value.iter().filter_map(|part| path(&part.value)).collect();
        let arguments: Vec<&Path> = paths.iter().filter(|path| path.is_of_agent()).collect();
        // The tool and the time do not identify a caller.
        let is_impersonal = |path: &Path| path.is_of_agent() || matches!(path.source(), Source::Tool | Source::Time);
        if arguments.is_empty() || has_identity || !paths.iter().all(is_impersonal) || !self.spend(lookup_steps) {
            return;
        }
        let Some(witness) = self.call_with_new_count(object, &limit.counter, &arguments) else { return };
        let message = match arguments.len() == scope.value.len() {
            true => "the caller chooses every part of the scope: another value starts a new count",
            false => {
                "the scope does not identify the caller, who chooses some of its parts: \
                 another value starts a new count"
            }
        };
        self.findings.push(UnplacedFinding {
            code: FindingCode::ScopeOfArguments,
            claim: Claim::Nothing,
            at: scope.at,
            pointer: format!("{}/scope", limit.pointer),
            message: message.to_owned(),
            help: "add a part that the host provides, such as `grant`".to_owned(),
            witness,
        });
    }

    /// Reports a limit over a day or more that counts each caller by an argument too, if nothing
    /// bounds the calls of a grant. Each value of the argument is a counter until the window ends.
    fn many_counters(&mut self, object: &RulesObject, limit: &Limit, all_tools: Option<&RulesObject>) {
        const DAY: u32 = 86_400;
        let is_chosen =
            |part: &Located<ScopePart>| matches!(&part.value, ScopePart::Path(path) if path.is_in_arguments());
        let is_host = |part: &Located<ScopePart>| match &part.value {
            ScopePart::Identity(_) => true,
            ScopePart::Path(path) => matches!(path.source(), Source::Context | Source::Identity(_)),
            ScopePart::Global => false,
        };
        let Some(scope) = limit.scope.as_ref().filter(|_| limit.seconds >= DAY) else { return };
        // Without an identity the scope itself is the mistake.
        if !scope.value.iter().any(is_chosen) || !scope.value.iter().any(is_host) {
            return;
        }
        let is_grant = |part: &Located<ScopePart>| matches!(part.value, ScopePart::Identity(Identity::Grant));
        let is_of_grants = |other: &Limit| {
            let scope = other.scope.as_ref().map(|scope| scope.value.as_slice());
            !other.is_shadow && scope.is_some_and(|parts| matches!(parts, [part] if is_grant(part)))
        };
        let beside = all_tools.into_iter().flat_map(|all_tools| &all_tools.limits);
        if object.limits.iter().chain(beside).any(is_of_grants) {
            return;
        }
        self.findings.push(UnplacedFinding::without_claim(
            FindingCode::ManyCounters,
            (scope.at, format!("{}/scope", limit.pointer)),
            "each value of an argument is a counter for a day or longer, and no limit by `grant` bounds their number",
            "add a limit of the calls of each grant, such as 1000 an hour",
        ));
    }

    /// Reports a limit for each session, without a limit by another identity beside it: in its
    /// object, or in `all_tools`.
    fn scope_of_session(&mut self, object: &RulesObject, limit: &Limit) {
        let beside = object.limits.iter().chain(self.document.all_tools.iter().flat_map(|all| &all.limits));
        let mut beside = beside.filter(|other| !other.is_shadow);
        if limit.is_shadow || !is_by_session(limit) || beside.any(|other| !is_by_session(other)) {
            return;
        }
        let message = "the limit counts each session alone: a caller that begins a new one begins a new count";
        let help = "if callers can begin sessions, name another scope, such as `grant`, or add a limit with one";
        let place = match &limit.scope {
            Some(scope) => (scope.at, format!("{}/scope", limit.pointer)),
            None => (limit.at, limit.pointer.clone()),
        };
        self.findings.push(UnplacedFinding::without_claim(FindingCode::ScopeOfSession, place, message, help));
    }

    /// Looks for two calls that differ only at the paths and have different counts. Returns `None`
    /// if there are none, and otherwise one of them that is not denied, if one was found.
    fn call_with_new_count(
        &mut self,
        object: &RulesObject,
        counter: &str,
        paths: &[&Path],
    ) -> Option<Option<(Witness, RuleEffect)>> {
        let tools = self.reaching_tools(object);
        let passing = tools.iter().find_map(|tool| self.passing_call(tool).0);
        let empty = Witness::of_tool(object.tool());
        let policy = self.policy;
        let subject = |call: &Witness| Some(policy.counted_as(counter, &call.call(), call.at())?.1);
        let mut differ = false;
        for start in [passing.as_ref(), Some(&empty)].into_iter().flatten() {
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
                    return Some(Some(with_effect(policy, other)));
                }
            }
            if differ {
                break;
            }
        }
        differ.then_some(None)
    }

    /// Reports counters whose names differ only in case or separators.
    fn counters_alike(&mut self, by_counter: &BTreeMap<&str, Vec<&Limit>>) {
        let mut known: HashMap<String, &Limit> = HashMap::new();
        let named = |limits: &[&'_ Limit]| limits.iter().position(|limit| limit.counter_at.is_some()).unwrap_or(0);
        let first_named = by_counter.values().filter_map(|limits| limits.get(named(limits)).copied());
        let mut counters: Vec<&Limit> = first_named.collect();
        counters.sort_by_key(|limit| limit.at);
        for limit in counters {
            let first = *known.entry(without_separators(&limit.counter)).or_insert(limit);
            // The counters of two `rate_limit`s are named after two tools, which are different.
            let (limit, at, other) = match (limit.counter_at, first.counter_at) {
                (Some(at), _) => (limit, at, first),
                (None, Some(at)) => (first, at, limit),
                (None, None) => continue,
            };
            if other.counter != limit.counter {
                let message = format!("`{}` and `{}` are two counters", limit.counter, other.counter);
                let help = format!("write `{}` for both, or choose names that differ more", other.counter);
                let place = (at, format!("{}/counter", limit.pointer));
                self.findings.push(UnplacedFinding::without_claim(FindingCode::CountersAlike, place, message, help));
            }
        }
    }
}

/// Returns `true` if a new session is a new count: the scope is the session alone.
fn is_by_session(limit: &Limit) -> bool {
    let is_session = |part: &ScopePart| *part == ScopePart::Identity(Identity::Session);
    // The scope of a `rate_limit` is the session by default.
    limit.scope.as_ref().is_none_or(|scope| {
        let parts = || scope.value.iter().map(|part| &part.value);
        parts().any(is_session) && parts().all(|part| is_session(part) || *part == ScopePart::Global)
    })
}

/// Returns a name in lower case and without separators, except those between two digits: `1_0` is
/// not `10`.
fn without_separators(name: &str) -> String {
    let all: Vec<char> = name.chars().collect();
    let is_digit = |index: Option<usize>| index.and_then(|index| all.get(index)).is_some_and(char::is_ascii_digit);
    let is_separator = |index: usize, c: char| {
        (c.is_whitespace() || "_-./:".contains(c))
            && !(is_digit(index.checked_sub(1)) && is_digit(index.checked_add(1)))
    };
    let kept = all.iter().enumerate().filter(|(index, c)| !is_separator(*index, **c));
    let short: String = kept.flat_map(|(_, c)| c.to_lowercase()).collect();
    if short.is_empty() { name.to_owned() } else { short }
}
