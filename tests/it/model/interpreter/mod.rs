//! A naive implementation of the policy language, which the real one is compared with.
//!
//! It interprets the JSON of a policy document at every call, scans lists from end to end, clones
//! freely, and keeps a log of all charges in place of counters. It computes what a counter holds
//! from the log whenever that is needed. It shares no code and no data structure with the crate, so
//! where both agree on random policies and calls, a mistake would have to be made twice.
//!
//! It does not validate, so it takes only documents that the crate accepts. Approvals are asked for
//! and never given. Sums above the largest number of the crate are not modelled.

mod conditions;
mod counters;
mod limits;
mod numbers;
mod paths;
mod time;

use std::collections::BTreeMap;

use serde_json::Value;

use self::conditions::{Tri, rule_value};
use self::counters::{Algorithm, Event};
use self::limits::{Counting, Limit, counting, host_maximum, key, limits};
use self::numbers::amount;
use self::paths::roots;

/// A policy, the log of charges, and the allowed calls.
pub(crate) struct Model {
    policy: Option<Policy>,
    store_down: bool,
    /// The events of all counters, in order.
    log: Vec<Event>,
    permits: BTreeMap<String, Permit>,
}

/// The decision of one call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// `allow`, `deny`, `rate_limited` or `approval_required`.
    pub(crate) decision: &'static str,
    /// The code; `None` for an allowed call.
    pub(crate) code: Option<&'static str>,
    /// The JSON Pointer of the rule, or a name in parentheses.
    pub(crate) rule: Option<String>,
    /// The message in the document for this refusal; `None` where a default message applies.
    pub(crate) message: Option<String>,
    /// The wait after which a rate-limited call could pass; `None` if it never can.
    pub(crate) retry_after_ms: Option<u64>,
    /// The state of each limit that counts the call, after the decision.
    pub(crate) limits: Vec<LimitState>,
}

/// The state of one limit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LimitState {
    /// The name of the counter.
    pub(crate) counter: String,
    /// The used amount of the counter, in micro-units, rounded up.
    pub(crate) used: u128,
    /// The rest below `max` or burst of this limit, in micro-units.
    pub(crate) remaining: u128,
    /// The `max` of the limit, in micro-units.
    pub(crate) max: u128,
    /// The end of the window, or the time when the counter is empty, in microseconds since the Unix
    /// epoch; the largest number if that never happens.
    pub(crate) resets_at: i64,
}

impl Model {
    /// Creates a model with `policy`, a valid document whose `tools` has the keys `entries`, in
    /// document order.
    pub(crate) fn new(policy: &Value, entries: &[String]) -> Model {
        let mut model = Model { policy: None, store_down: false, log: Vec::new(), permits: BTreeMap::new() };
        model.set_policy(Some((policy, entries)));
        model
    }

    /// Replaces or removes the policy. The charges stay.
    pub(crate) fn set_policy(&mut self, policy: Option<(&Value, &[String])>) {
        self.policy =
            policy.map(|(document, entries)| Policy { document: document.clone(), entries: entries.to_vec() });
    }

    /// Makes the counter store fail, or answer again.
    pub(crate) fn set_store_down(&mut self, down: bool) {
        self.store_down = down;
    }

    /// Decides `call`, the object of a `call` step of a trace, at `now`, in microseconds since the
    /// Unix epoch. The unique `id` names the call for `release`, `settle` and `end`.
    pub(crate) fn decide(&mut self, id: &str, call: &Value, now: i64) -> Answer {
        let arguments = match &call["arguments"] {
            Value::Null => serde_json::json!({}),
            Value::Object(members) => Value::Object(members.clone()),
            _ => return answer("deny", Some("malformed_call"), None, None),
        };
        let tool = call["tool"].as_str().expect("a call names its tool");
        let roots = roots(call, arguments, now);

        let Some(policy) = self.policy.clone() else {
            return deny("no_policy", "(no policy)", None);
        };
        let hidden = list(&policy.document["hide"]);
        if hidden.iter().any(|p| name_matches(&text(p), tool)) {
            return deny("hidden", "(hidden)", None);
        }
        let any_entry = policy.entries.iter().any(|p| name_matches(p, tool));
        if policy.document["default"] == "deny" && !any_entry {
            return deny("default_deny", "(default deny)", None);
        }
        let places = policy.places(|entry| name_matches(entry, tool));

        if let Some(place) = places.iter().find(|place| place.rules["action"] == "deny") {
            let rule = format!("{}/action", place.pointer);
            return deny("action_deny", &rule, optional_text(&place.rules["reason"]));
        }
        for (code, require) in [("require", true), ("deny_if", false)] {
            for place in &places {
                for (index, rule) in list(&place.rules[code]).iter().enumerate() {
                    let value = rule_value(rule, require, &roots);
                    if (require && value != Tri::True) || (!require && value != Tri::False) {
                        let pointer = format!("{}/{code}/{index}", place.pointer);
                        return deny(code, &pointer, optional_text(&rule["on_deny"]));
                    }
                }
            }
        }

        let mut counting = match counting(limits(&places), &policy, &roots) {
            Ok(counting) => counting,
            Err(answer) => return answer,
        };
        if self.store_down {
            if let Some(first) = counting.iter().find(|c| !c.limit.shadow) {
                return deny("store_unavailable", &first.limit.pointer, None);
            }
            counting.clear();
        }
        if let Some(refused) = self.refusal(&counting, now) {
            return refused;
        }
        if let Some((rule, message)) = approval(&places, &roots) {
            let mut asked = answer("approval_required", Some("approval"), Some(rule), message);
            asked.limits = self.states(&counting, now);
            return asked;
        }

        let charges = self.charge(&counting, now);
        self.permits.insert(id.to_string(), Permit { charges, settled: false, done: false });
        let mut allowed = answer("allow", None, None, None);
        allowed.limits = self.states(&counting, now);
        allowed
    }

    /// Returns the state of each limit that can count the caller of `call`, for any tool. Limits of
    /// one counter with the same `max` are listed once.
    pub(crate) fn usage(&self, call: &Value, now: i64) -> Vec<LimitState> {
        let Some(policy) = &self.policy else { return Vec::new() };
        let roots = roots(call, call["arguments"].clone(), now);
        let mut states: Vec<LimitState> = Vec::new();
        for mut limit in limits(&policy.places(|_| true)) {
            if let (Some(group), Some(host)) = (key(&limit, &roots), host_maximum(&limit, &roots)) {
                limit.host = host;
                let one = Counting {
                    charged: policy.charged(&group, &limit, &roots),
                    group,
                    limit,
                    amount: 0,
                    constant: None,
                };
                let state = self.states(&[one], now).remove(0);
                if !states.iter().any(|known| known.counter == state.counter && known.max == state.max) {
                    states.push(state);
                }
            }
        }
        states
    }

    /// Releases the charges of the call `id`, in the windows that were charged, once.
    pub(crate) fn release(&mut self, id: &str, now: i64) -> Result<(), &'static str> {
        let permit = self.permits.get_mut(id).ok_or("unknown_call")?;
        if permit.done || permit.settled {
            return Err("already_done");
        }
        permit.done = true;
        let charges = permit.charges.clone();
        if self.store_down && !charges.is_empty() {
            return Err("store_unavailable");
        }
        for charge in charges {
            self.change(&charge, 0, now);
        }
        Ok(())
    }

    /// Replaces the amount that was read from the call `id` by the real amount, once.
    pub(crate) fn settle(&mut self, id: &str, real: &Value, now: i64) -> Result<(), &'static str> {
        let permit = self.permits.get(id).ok_or("unknown_call")?;
        if permit.done || permit.settled {
            return Err("already_done");
        }
        let real = amount(real).ok_or("amount_invalid")?;
        let mut after = permit.charges.clone();
        for charge in after.iter_mut().filter(|charge| charge.reads) {
            charge.amount = charge.constant.unwrap_or(0).max(real);
        }
        let before = permit.charges.clone();
        if self.store_down && before != after {
            return Err("store_unavailable");
        }
        for (before, after) in before.iter().zip(&after).filter(|(before, after)| before != after) {
            self.change(before, after.amount, now);
        }
        self.permits.insert(id.to_string(), Permit { charges: after, settled: true, done: false });
        Ok(())
    }

    /// Ends the call `id` and frees its units in flight. If the store is down, they end with their
    /// lease.
    pub(crate) fn end(&mut self, id: &str, now: i64) -> Result<(), &'static str> {
        let permit = self.permits.get_mut(id).ok_or("unknown_call")?;
        if permit.done {
            return Err("already_done");
        }
        permit.done = true;
        for charge in permit.charges.clone() {
            if !self.store_down && matches!(self.log[charge.event].how, Algorithm::InFlight(_)) {
                self.change(&charge, 0, now);
            }
        }
        Ok(())
    }

    /// Returns the refusal of a call for which a limit has no room.
    fn refusal(&self, counting: &[Counting], now: i64) -> Option<Answer> {
        let has_room =
            |one: &Counting| one.limit.room() > 0 && self.holds(one, now).used() + one.amount <= one.limit.room();
        let refusing: Vec<&Counting> = counting.iter().filter(|one| !one.limit.shadow && !has_room(one)).collect();
        let first = refusing.first()?.limit.clone();
        let message = optional_text(&first.members["on_exceed"]);
        let mut refused = answer("rate_limited", Some("limit"), Some(first.pointer), message);
        if refusing.iter().all(|one| one.limit.room() > 0 && one.amount <= one.limit.room()) {
            let until = |one: &&Counting| self.holds(one, now).falls_to(one.limit.room() - one.amount);
            // When a call in flight ends is not known, and a lifetime does not end.
            let timed = refusing.iter().filter(|one| !matches!(one.limit.how, Algorithm::InFlight(_)));
            let longest = timed.map(until).max().filter(|at| *at < i64::MAX);
            refused.retry_after_ms = longest.map(|at| (at - now).unsigned_abs().div_ceil(1000));
        }
        refused.limits = self.states(counting, now);
        Some(refused)
    }

    /// Charges each counter once.
    fn charge(&mut self, counting: &[Counting], now: i64) -> Vec<Charge> {
        let mut charges: Vec<Charge> = Vec::new();
        for one in counting {
            let of_group = || counting.iter().filter(|other| other.group == one.group);
            let constant = of_group().filter_map(|other| other.constant).max();
            let reads = of_group().any(|other| other.constant.is_none());
            for (key, how) in one.charged.clone() {
                if charges.iter().all(|charge| self.log[charge.event].key != key) {
                    let (event, amount) = (self.log.len(), one.amount);
                    self.log.push(Event { key, how, now, amount, taken: true });
                    charges.push(Charge { event, amount, constant, reads });
                }
            }
        }
        charges
    }

    /// Changes the amount of a charge to `to`.
    fn change(&mut self, charge: &Charge, to: u128, now: i64) {
        let Event { key, how, .. } = self.log[charge.event].clone();
        match how {
            // A bucket refills meanwhile, so it is filled up or emptied now.
            Algorithm::Bucket(..) => {
                let (less, more) = (charge.amount.saturating_sub(to), to.saturating_sub(charge.amount));
                self.log.push(Event { key: key.clone(), how: how.clone(), now, amount: less, taken: false });
                self.log.push(Event { key, how, now, amount: more, taken: true });
            }
            // A unit that was 0 at first stays 0 once its lease has expired.
            Algorithm::InFlight(lease) if charge.amount == 0 && self.log[charge.event].now + lease <= now => {}
            _ => self.log[charge.event].amount = to,
        }
    }

    fn states(&self, counting: &[Counting], now: i64) -> Vec<LimitState> {
        let state = |one: &Counting| {
            let holds = self.holds(one, now);
            LimitState {
                counter: text(&one.limit.members["counter"]),
                used: holds.used(),
                remaining: one.limit.room().saturating_sub(holds.used()),
                max: one.limit.max.min(one.limit.host),
                resets_at: holds.resets_at(),
            }
        };
        counting.iter().map(state).collect()
    }
}

#[derive(Clone)]
struct Policy {
    document: Value,
    entries: Vec<String>,
}

/// A rules object, its pointer, and the name of its entry.
struct Place {
    pointer: String,
    name: String,
    rules: Value,
}

impl Policy {
    /// Returns the rules of the entries for which `applies` holds, in document order, then of
    /// `all_tools`.
    fn places(&self, applies: impl Fn(&str) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for name in self.entries.iter().filter(|entry| applies(entry)) {
            let pointer = format!("/tools/{}", name.replace('~', "~0").replace('/', "~1"));
            places.push(Place { pointer, name: name.clone(), rules: self.document["tools"][name].clone() });
        }
        let (pointer, name) = ("/all_tools".to_string(), "all_tools".to_string());
        places.push(Place { pointer, name, rules: self.document["all_tools"].clone() });
        places
    }

    /// Returns the counters, with their algorithm, that a call is charged in for `limit`, its own
    /// first. There are several where token buckets of one name differ in `max` or `max_from`,
    /// since each refills at its own rate.
    fn charged(&self, group: &str, limit: &Limit, roots: &Value) -> Vec<(String, Algorithm)> {
        let Algorithm::Bucket(_, length) = limit.how else { return vec![(group.to_string(), limit.how.clone())] };
        let rate = |limit: &Limit| (limit.max, limit.members["max_from"].as_str().map(str::to_owned));
        // Each rate, with the maximum that the host has for this caller, or none.
        let mut rates = BTreeMap::new();
        for other in limits(&self.places(|_| true)) {
            if other.members["counter"] == limit.members["counter"] {
                rates.insert(rate(&other), other.max.min(host_maximum(&other, roots).unwrap_or(0)));
            }
        }
        let own = rate(limit);
        let numbered = rates.into_iter().enumerate();
        let mut charged: Vec<_> = numbered
            .map(|(number, (rate, refill))| (rate != own, refill, format!("bucket {number} of {group}")))
            .collect();
        charged.sort_by_key(|(is_other, ..)| *is_other);
        charged.into_iter().map(|(_, refill, name)| (name, Algorithm::Bucket(refill, length))).collect()
    }
}

#[derive(Clone)]
struct Permit {
    charges: Vec<Charge>,
    settled: bool,
    done: bool,
}

/// The charge of a call in one counter.
#[derive(Clone, Debug, PartialEq)]
struct Charge {
    /// The index in the log.
    event: usize,
    amount: u128,
    /// The largest constant amount of the limits.
    constant: Option<u128>,
    /// `true` if a limit reads its amount from the call.
    reads: bool,
}

fn deny(code: &'static str, rule: &str, message: Option<String>) -> Answer {
    answer("deny", Some(code), Some(rule.to_string()), message)
}

fn answer(decision: &'static str, code: Option<&'static str>, rule: Option<String>, message: Option<String>) -> Answer {
    Answer { decision, code, rule, message, retry_after_ms: None, limits: Vec::new() }
}

/// Returns the first reason to need approval: for each place its action, then its rules.
fn approval(places: &[Place], roots: &Value) -> Option<(String, Option<String>)> {
    for place in places {
        if place.rules["action"] == "require_approval" {
            let pointer = format!("{}/action", place.pointer);
            return Some((pointer, optional_text(&place.rules["reason"])));
        }
        let rules = list(&place.rules["require_approval_if"]);
        for (index, rule) in rules.iter().enumerate() {
            if rule_value(rule, false, roots) != Tri::False {
                let pointer = format!("{}/require_approval_if/{index}", place.pointer);
                let message = optional_text(&rule["on_deny"]);
                return Some((pointer, message.or(optional_text(&rule["reason"]))));
            }
        }
    }
    None
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_string()
}

fn optional_text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string)
}

/// Returns whether `name` matches `pattern`, in which `*` matches any bytes.
fn name_matches(pattern: &str, name: &str) -> bool {
    // The lengths of the prefixes of `name` that the pattern so far matches.
    let mut reached = vec![0];
    for byte in pattern.bytes() {
        let mut next = Vec::new();
        for length in 0..=name.len() {
            let possible = match byte {
                b'*' => reached.iter().any(|before| *before <= length),
                _ => length > 0 && name.as_bytes()[length - 1] == byte && reached.contains(&(length - 1)),
            };
            if possible {
                next.push(length);
            }
        }
        reached = next;
    }
    reached.contains(&name.len())
}
