//! A second, naive implementation of the policy language: the judge of the real one.
//!
//! It reads a policy document straight from its JSON at every call, scans lists from end to end,
//! clones freely and keeps no counters: one log of all that was ever charged or given back, from
//! which it works out anew what a counter holds whenever somebody asks. It shares no code and no
//! data structure with the crate, so where both agree on random policies and calls, a mistake would
//! have to be made twice.
//!
//! It does not validate: it may be given only documents that the real reader accepted. Approvals
//! are asked for, never given. A sum past the largest number that the crate holds is not modelled.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};
use url::Url;

/// One unit of an amount, in the micro-units that the counters are kept in.
const UNIT: u128 = 1_000_000;

/// The largest amount there is, in micro-units.
const LARGEST: u128 = 9_000_000_000_000 * UNIT;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A policy, all that was charged, and the calls that were allowed.
pub(crate) struct Model {
    policy: Option<Policy>,
    store_down: bool,
    /// What happened to any counter, in order.
    log: Vec<Event>,
    permits: BTreeMap<String, Permit>,
}

/// What was decided about one call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// `allow`, `deny`, `rate_limited` or `approval_required`.
    pub(crate) decision: &'static str,
    /// The stable code; none for an allowed call.
    pub(crate) code: Option<&'static str>,
    /// The JSON Pointer of the rule, or a name in parentheses.
    pub(crate) rule: Option<String>,
    /// The text of the document for this refusal; none where a default text applies.
    pub(crate) message: Option<String>,
    /// The wait after which the call could pass, for a rate-limited one that ever can.
    pub(crate) retry_after_ms: Option<u64>,
    /// Each limit that counted the call, as it stands after the decision.
    pub(crate) limits: Vec<LimitState>,
}

/// Where one limit stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LimitState {
    /// The counter's name.
    pub(crate) counter: String,
    /// What the counter holds, in micro-units, rounded up.
    pub(crate) used: u128,
    /// What is left under this limit's `max`, or under its burst, in micro-units.
    pub(crate) remaining: u128,
    /// The limit's `max`, in micro-units.
    pub(crate) max: u128,
    /// The end of the window, or when the counter holds nothing, in microseconds since the Unix
    /// epoch.
    pub(crate) resets_at: i64,
}

impl Model {
    /// A model under `policy`, a valid document whose `tools` has the keys `entries`, in document
    /// order.
    pub(crate) fn new(policy: &Value, entries: &[String]) -> Model {
        let mut model = Model { policy: None, store_down: false, log: Vec::new(), permits: BTreeMap::new() };
        model.set_policy(Some((policy, entries)));
        model
    }

    /// Swaps the policy, or takes it away; what was charged stays.
    pub(crate) fn set_policy(&mut self, policy: Option<(&Value, &[String])>) {
        self.policy =
            policy.map(|(document, entries)| Policy { document: document.clone(), entries: entries.to_vec() });
    }

    /// Makes the counter store fail from here on, or answer again.
    pub(crate) fn set_store_down(&mut self, down: bool) {
        self.store_down = down;
    }

    /// Decides `call` (the object of a trace's `call` step) at `now`, in microseconds since the
    /// Unix epoch; `id`, which no earlier call has, names it for `release`, `settle` and `end`.
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

    /// Each limit of the policy that can count the caller of `call`, whatever the tool, as it
    /// stands; one line for those of one counter with one `max`.
    pub(crate) fn usage(&self, call: &Value, now: i64) -> Vec<LimitState> {
        let Some(policy) = &self.policy else { return Vec::new() };
        let roots = roots(call, call["arguments"].clone(), now);
        let mut states: Vec<LimitState> = Vec::new();
        for limit in limits(&policy.places(|_| true)) {
            if let Some(group) = key(&limit, &roots) {
                let one = Counting { charged: policy.charged(&group, &limit), group, limit, amount: 0, constant: None };
                let state = self.states(&[one], now).remove(0);
                if !states.iter().any(|known| known.counter == state.counter && known.max == state.max) {
                    states.push(state);
                }
            }
        }
        states
    }

    /// Gives back what the call `id` was charged, in the very windows that were charged, once.
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

    /// Puts the real amount in place of what was read from the call `id`, once.
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

    /// The call `id` has ended: frees what it held in flight. If the store is down, only a lease
    /// does.
    pub(crate) fn end(&mut self, id: &str, now: i64) -> Result<(), &'static str> {
        let permit = self.permits.get_mut(id).ok_or("unknown_call")?;
        if permit.done {
            return Err("already_done");
        }
        permit.done = true;
        for charge in permit.charges.clone() {
            if !self.store_down && matches!(self.log[charge.event].how, How::InFlight(_)) {
                self.change(&charge, 0, now);
            }
        }
        Ok(())
    }

    /// The refusal of a call for which some limit has no room.
    fn refusal(&self, counting: &[Counting], now: i64) -> Option<Answer> {
        let has_room =
            |one: &Counting| one.limit.room() > 0 && self.holds(one, now).used() + one.amount <= one.limit.room();
        let refusing: Vec<&Counting> = counting.iter().filter(|one| !one.limit.shadow && !has_room(one)).collect();
        let first = refusing.first()?.limit.clone();
        let message = optional_text(&first.members["on_exceed"]);
        let mut refused = answer("rate_limited", Some("limit"), Some(first.pointer), message);
        if refusing.iter().all(|one| one.limit.room() > 0 && one.amount <= one.limit.room()) {
            let until = |one: &&Counting| self.holds(one, now).falls_to(one.limit.room() - one.amount);
            let longest = refusing.iter().map(until).max().expect("a limit that refuses") - now;
            refused.retry_after_ms = Some(longest.unsigned_abs().div_ceil(1000));
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

    /// Makes a charge one of `to`.
    fn change(&mut self, charge: &Charge, to: u128, now: i64) {
        let Event { key, how, .. } = self.log[charge.event].clone();
        match how {
            // What comes back by itself cannot be told from what was there: the bucket is filled
            // up, or emptied, now.
            How::Bucket(..) => {
                let (less, more) = (charge.amount.saturating_sub(to), to.saturating_sub(charge.amount));
                self.log.push(Event { key: key.clone(), how: how.clone(), now, amount: less, taken: false });
                self.log.push(Event { key, how, now, amount: more, taken: true });
            }
            // What began as nothing is nothing in flight once its lease has run out.
            How::InFlight(lease) if charge.amount == 0 && self.log[charge.event].now + lease <= now => {}
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
                max: one.limit.max,
                resets_at: holds.resets_at(),
            }
        };
        counting.iter().map(state).collect()
    }

    /// What the limit's counter holds at `now`, worked out from the log.
    fn holds(&self, one: &Counting, now: i64) -> Holds {
        let (key, how) = &one.charged[0];
        let events: Vec<&Event> = self.log.iter().filter(|event| event.key == *key).collect();
        // An earlier time is charged where the latest charge was.
        let present = events.iter().map(|event| event.now).max().unwrap_or(now).max(now);
        let took = |index: usize| events[..=index].iter().map(|event| event.now).max().expect("at least its own");
        let numbered = || events.iter().enumerate();
        match how {
            How::Fixed(window) => {
                let span = window_at(window, present);
                let of_span = numbered().filter(|(index, _)| window_at(window, took(*index)) == span);
                Holds::Window { used: of_span.map(|(_, event)| event.amount).sum(), end: span.1 }
            }
            How::Sliding(length) => {
                // Charges of one 64th of the window leave with the last of them.
                let cell = |at: i64| (i128::from(at) * 64).div_euclid(i128::from(*length));
                let last = |index: usize| {
                    let same = (0..events.len()).map(took).filter(|at| cell(*at) == cell(took(index)));
                    same.max().expect("at least its own")
                };
                let leaving = numbered().map(|(index, event)| (last(index) + length, event.amount));
                Holds::Pieces { pieces: leaving.filter(|(until, _)| *until > present).collect(), now }
            }
            How::InFlight(_) => {
                let until = |event: &Event| match event.how {
                    How::InFlight(lease) => event.now + lease,
                    _ => panic!("a counter counts in one way"),
                };
                // A charge sweeps out what has run out, also if the clock steps back after it.
                let swept = |index: usize| events[index + 1..].iter().any(|event| event.now >= until(events[index]));
                let units = numbered().filter(|(index, _)| !swept(*index));
                let units = units.map(|(_, event)| (until(event), event.amount));
                Holds::Pieces { pieces: units.filter(|(until, _)| *until > now).collect(), now }
            }
            How::Bucket(rate, length) => {
                // What is missing, in micro-units times the microseconds of the window.
                let (mut missing, mut at) = (0i128, i64::MIN);
                for event in events {
                    let (How::Bucket(rate, _), amount) = (&event.how, signed(event.amount) * i128::from(*length))
                    else {
                        panic!("a counter counts in one way")
                    };
                    let then = at.max(event.now);
                    if at > i64::MIN {
                        missing -= signed(*rate) * (i128::from(then) - i128::from(at));
                    }
                    missing = missing.max(0) + if event.taken { amount } else { -amount };
                    missing = missing.max(0);
                    at = then;
                }
                let since = if at > i64::MIN { i128::from(present) - i128::from(at) } else { 0 };
                let missing = (missing - signed(*rate) * since).max(0);
                Holds::Missing { missing, rate: signed(*rate), length: i128::from(*length), present, now }
            }
        }
    }
}

fn signed(number: u128) -> i128 {
    i128::try_from(number).expect("far below the end of an i128")
}

/// What a counter holds.
enum Holds {
    /// Until the end of a window.
    Window { used: u128, end: i64 },
    /// Pieces, each with the instant at which it goes.
    Pieces { pieces: Vec<(i64, u128)>, now: i64 },
    /// What is missing from a bucket, in parts of which one unit has `length`, and `rate` come back
    /// in a microsecond.
    Missing { missing: i128, rate: i128, length: i128, present: i64, now: i64 },
}

impl Holds {
    fn used(&self) -> u128 {
        match self {
            Holds::Window { used, .. } => *used,
            Holds::Pieces { pieces, .. } => pieces.iter().map(|(_, amount)| amount).sum(),
            Holds::Missing { missing, length, .. } => up(*missing, *length).unsigned_abs(),
        }
    }

    fn resets_at(&self) -> i64 {
        match self {
            Holds::Window { end, .. } => *end,
            Holds::Pieces { now, .. } | Holds::Missing { now, .. } if self.used() == 0 => *now,
            _ => self.falls_to(0),
        }
    }

    /// The first instant at which it holds no more than `room`, which it does not now.
    fn falls_to(&self, room: u128) -> i64 {
        match self {
            Holds::Window { end, .. } => *end,
            Holds::Pieces { pieces, .. } => {
                let left =
                    |at: i64| pieces.iter().filter(|(until, _)| *until > at).map(|(_, amount)| amount).sum::<u128>();
                let instants = pieces.iter().map(|(until, _)| *until).filter(|at| left(*at) <= room);
                instants.min().expect("all are gone in the end")
            }
            // Never.
            Holds::Missing { rate: 0, .. } => i64::MAX,
            Holds::Missing { missing, rate, length, present, .. } => {
                let wait = up(missing - signed(room) * length, *rate);
                i64::try_from(i128::from(*present) + wait).unwrap_or(i64::MAX)
            }
        }
    }
}

/// A quotient rounded up.
fn up(number: i128, by: i128) -> i128 {
    -(-number).div_euclid(by)
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
    /// The rules objects of the entries for which `applies` holds, in document order, then
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

    /// Under which names, and how, a call is charged that `limit` counts; the limit's own first.
    /// They are several where token buckets of one name differ in `max`: each runs full at its own
    /// rate.
    fn charged(&self, group: &str, limit: &Limit) -> Vec<(String, How)> {
        let How::Bucket(own, length) = limit.how else { return vec![(group.to_string(), limit.how.clone())] };
        let mut rates = Vec::new();
        for other in limits(&self.places(|_| true)) {
            if other.members["counter"] == limit.members["counter"] && !rates.contains(&other.max) {
                rates.push(other.max);
            }
        }
        let mut charged: Vec<(u128, String)> = Vec::new();
        rates.sort_unstable();
        for (number, rate) in rates.into_iter().enumerate() {
            charged.push((rate, format!("bucket {number} of {group}")));
        }
        charged.sort_by_key(|(rate, _)| *rate != own);
        charged.into_iter().map(|(rate, name)| (name, How::Bucket(rate, length))).collect()
    }
}

/// Something that was charged to a counter, or put back into a bucket.
#[derive(Clone, Debug)]
struct Event {
    key: String,
    how: How,
    /// What the clock said.
    now: i64,
    /// Of a charge, what it is now: what is settled or released is written into it. Of a bucket,
    /// what it was.
    amount: u128,
    taken: bool,
}

/// How a counter counts, with lengths in microseconds.
#[derive(Clone, Debug)]
enum How {
    Fixed(Window),
    Sliding(i64),
    /// So much comes back in such a time.
    Bucket(u128, i64),
    InFlight(i64),
}

#[derive(Clone)]
struct Permit {
    charges: Vec<Charge>,
    settled: bool,
    done: bool,
}

/// What a call was charged in one counter.
#[derive(Clone, Debug, PartialEq)]
struct Charge {
    /// Which of the log it is.
    event: usize,
    amount: u128,
    /// The largest amount of those limits that name a constant one.
    constant: Option<u128>,
    /// Whether a limit reads its amount from the call.
    reads: bool,
}

fn deny(code: &'static str, rule: &str, message: Option<String>) -> Answer {
    answer("deny", Some(code), Some(rule.to_string()), message)
}

fn answer(decision: &'static str, code: Option<&'static str>, rule: Option<String>, message: Option<String>) -> Answer {
    Answer { decision, code, rule, message, retry_after_ms: None, limits: Vec::new() }
}

/// The first reason to ask a person: of each place its action, then its rules.
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

/// Whether `*` in `pattern` can stand for runs of bytes so that it reads `name`.
fn name_matches(pattern: &str, name: &str) -> bool {
    // The lengths of the beginnings of `name` that the pattern so far can stand for.
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

// ---- Paths

#[derive(Debug, Clone)]
enum Step {
    Name(String),
    Index(String),
    Each,
}

/// What a path leads to; with `[*]` there are several of these, or none.
enum Reached {
    Found(Value),
    Absent,
    Undecidable,
}

/// The four roots as members of one object.
fn roots(call: &Value, arguments: Value, now: i64) -> Value {
    let mut who = serde_json::json!({ "tool": call["tool"] });
    for identity in ["server", "grant", "session", "agent", "user"] {
        if call[identity].as_str().is_some_and(|name| !name.is_empty()) {
            who[identity] = call[identity].clone();
        }
    }
    let days = now.div_euclid(DAY);
    let (year, month, day) = date(days);
    serde_json::json!({
        "args": arguments,
        "context": if call["context"].is_null() { serde_json::json!({}) } else { call["context"].clone() },
        "call": who,
        "time": {
            "hour": now.rem_euclid(DAY) / HOUR,
            "minute": now.rem_euclid(HOUR) / MINUTE,
            "weekday": weekday(days),
            "date": format!("{year:04}-{month:02}-{day:02}"),
        },
    })
}

/// The steps of a path, its root the first of them.
fn steps(path: &str) -> Vec<Step> {
    let path = format!(".{path}");
    let mut rest = path.as_str();
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(Step::Name(after[..end].to_string()));
            rest = &after[end..];
        } else if rest.starts_with("[\"") {
            let mut strings = serde_json::Deserializer::from_str(&rest[1..]).into_iter::<String>();
            steps.push(Step::Name(strings.next().expect("a name").expect("a quoted name")));
            rest = rest[1 + strings.byte_offset()..].strip_prefix(']').expect("a bracket");
        } else {
            let (index, after) = rest[1..].split_once(']').expect("a bracket");
            steps.push(if index == "*" { Step::Each } else { Step::Index(index.to_string()) });
            rest = after;
        }
    }
    steps
}

/// The elements of an array, named by their indices, or the members of an object.
fn members(value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v.clone())).collect(),
        Value::Object(members) => members.iter().map(|(name, v)| (name.clone(), v.clone())).collect(),
        _ => Vec::new(),
    }
}

fn reach(value: &Value, steps: &[Step]) -> Vec<Reached> {
    if value.is_null() {
        return vec![Reached::Absent];
    }
    let Some((step, rest)) = steps.split_first() else {
        return vec![Reached::Found(value.clone())];
    };
    let member = match (step, value) {
        (Step::Each, Value::Array(_) | Value::Object(_)) => {
            return members(value).iter().flat_map(|(_, member)| reach(member, rest)).collect();
        }
        (Step::Name(name), Value::Object(members)) => members.get(name),
        (Step::Index(index), Value::Array(items)) => index.parse::<usize>().ok().and_then(|i| items.get(i)),
        _ => return vec![Reached::Undecidable],
    };
    reach(member.unwrap_or(&Value::Null), rest)
}

/// The value at a path that has no `[*]`.
fn value_at(path: &Value, roots: &Value) -> Option<Value> {
    let mut reached = reach(roots, &steps(&text(path)));
    match (reached.pop(), reached.is_empty()) {
        (Some(Reached::Found(value)), true) => Some(value),
        _ => None,
    }
}

// ---- Conditions

/// In this order `all` is the least value and `any` the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tri {
    False,
    Undecidable,
    True,
}

fn tri(holds: bool) -> Tri {
    if holds { Tri::True } else { Tri::False }
}

fn turned(value: Tri) -> Tri {
    match value {
        Tri::True => Tri::False,
        Tri::False => Tri::True,
        Tri::Undecidable => Tri::Undecidable,
    }
}

fn all(values: impl IntoIterator<Item = Tri>) -> Tri {
    values.into_iter().min().unwrap_or(Tri::True)
}

fn any(values: impl IntoIterator<Item = Tri>) -> Tri {
    values.into_iter().max().unwrap_or(Tri::False)
}

fn rule_value(rule: &Value, require: bool, roots: &Value) -> Tri {
    all(list(&rule["conditions"]).iter().map(|c| condition(c, false, require, roots)))
}

/// The value of a condition below an odd number of `not` (`turn`) or an even one: `not` itself is
/// pushed down to the leaves.
fn condition(node: &Value, turn: bool, require: bool, roots: &Value) -> Tri {
    if !node["not"].is_null() {
        return condition(&node["not"], !turn, require, roots);
    }
    for (group, needs_all) in [("all", true), ("any", false)] {
        if !node[group].is_null() {
            let members = list(&node[group]);
            let values = members.iter().map(|c| condition(c, turn, require, roots));
            return if needs_all != turn { all(values) } else { any(values) };
        }
    }
    leaf(node, turn, require, roots)
}

fn leaf(leaf: &Value, turn: bool, require: bool, roots: &Value) -> Tri {
    let (operator, turned_by_name) = match leaf["op"].as_str().expect("an operator") {
        "neq" => ("eq", true),
        "not_in" => ("in", true),
        "not_contains" => ("contains", true),
        "not_regex" => ("regex", true),
        other => (other, false),
    };
    let negative = turn != turned_by_name;
    let wanted = match leaf.get("value_from") {
        None => leaf["value"].clone(),
        Some(path) => match value_at(path, roots) {
            Some(value) if can_be_wanted(operator, &value) => value,
            _ => return Tri::Undecidable,
        },
    };
    let ignore_case = leaf["ignore_case"] == true;

    let mut values = Vec::new();
    for reached in reach(roots, &steps(&text(&leaf["path"]))) {
        values.push(match reached {
            Reached::Undecidable => Tri::Undecidable,
            Reached::Absent if leaf["absent"] == "match" => Tri::True,
            Reached::Absent if operator == "exists" => tri((wanted == false) != negative),
            Reached::Absent => tri(negative && !require),
            Reached::Found(found) => {
                let value = compare(operator, &found, &wanted, ignore_case);
                if negative { turned(value) } else { value }
            }
        });
    }
    if require { all(values) } else { any(values) }
}

/// Whether a `value_from` may hold `value`.
fn can_be_wanted(operator: &str, value: &Value) -> bool {
    let items = list(value);
    match operator {
        "lt" | "lte" | "gt" | "gte" => value.is_number(),
        _ if value == &Value::Array(Vec::new()) => false,
        "in" => !items.is_empty(),
        "starts_with" | "ends_with" => value.is_string() || (!items.is_empty() && items.iter().all(Value::is_string)),
        _ => true,
    }
}

fn compare(operator: &str, found: &Value, wanted: &Value, ignore_case: bool) -> Tri {
    match operator {
        "exists" => tri(wanted == true),
        "type" => tri(one_or_more(wanted).iter().any(|name| has_type(found, &text(name)))),
        "eq" => equal(found, wanted, false),
        "in" => any(list(wanted).iter().map(|one| equal(found, one, false))),
        "lt" | "lte" | "gt" | "gte" => compare_numbers(operator, found, wanted),
        "contains" => match (found, wanted) {
            (Value::String(string), Value::String(part)) => tri(text_has(string, "", part, "", ignore_case)),
            (Value::Array(items), _) => any(items.iter().map(|item| equal(item, wanted, ignore_case))),
            _ => Tri::Undecidable,
        },
        "min_length" | "max_length" => {
            let length = match found {
                Value::String(string) => string.chars().count(),
                Value::Array(items) => items.len(),
                Value::Object(members) => members.len(),
                _ => return Tri::Undecidable,
            };
            let operator = if operator == "min_length" { "gte" } else { "lte" };
            compare_numbers(operator, &Value::from(length), wanted)
        }
        _ => match found {
            Value::String(string) => compare_string(operator, string, wanted, ignore_case),
            _ => Tri::Undecidable,
        },
    }
}

fn compare_numbers(operator: &str, found: &Value, wanted: &Value) -> Tri {
    let (Value::Number(found), Value::Number(wanted)) = (found, wanted) else {
        return Tri::Undecidable;
    };
    let order = order(found, wanted);
    tri(match operator {
        "lt" => order == Ordering::Less,
        "lte" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}

/// The operators that take strings alone.
fn compare_string(operator: &str, string: &str, wanted: &Value, ignore_case: bool) -> Tri {
    let has = |before: &str, part: &Value, after: &str| text_has(string, before, &text(part), after, ignore_case);
    match operator {
        "regex" => tri(regex(&text(wanted), ignore_case).is_match(string)),
        "starts_with" => tri(one_or_more(wanted).iter().any(|part| has(r"\A", part, ""))),
        "ends_with" => tri(one_or_more(wanted).iter().any(|part| has("", part, r"\z"))),
        "path_within" => path_within(string, wanted),
        "host_in" => host_in(string, wanted),
        other => panic!("the model does not know the operator `{other}`"),
    }
}

fn one_or_more(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        one => vec![one.clone()],
    }
}

fn regex(source: &str, ignore_case: bool) -> Regex {
    RegexBuilder::new(source).case_insensitive(ignore_case).size_limit(1 << 28).build().expect("a regex that compiles")
}

/// Whether `part` stands in `string`, between the two anchors.
fn text_has(string: &str, before: &str, part: &str, after: &str, ignore_case: bool) -> bool {
    regex(&format!("{before}(?:{}){after}", regex::escape(part)), ignore_case).is_match(string)
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_number().is_some_and(is_whole),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the model does not know the type `{other}`"),
    }
}

fn equal(found: &Value, wanted: &Value, ignore_case: bool) -> Tri {
    match (found, wanted) {
        (Value::Null, Value::Null) => Tri::True,
        (Value::Bool(a), Value::Bool(b)) => tri(a == b),
        (Value::Number(a), Value::Number(b)) => tri(order(a, b) == Ordering::Equal),
        (Value::String(a), Value::String(b)) if ignore_case => tri(text_has(a, r"\A", b, r"\z", true)),
        (Value::String(a), Value::String(b)) => tri(a == b),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            let (found, wanted) = (members(found), members(wanted));
            let mut common = Vec::new();
            for (name, member) in &found {
                for (_, other) in wanted.iter().filter(|(other, _)| other == name) {
                    common.push(equal(member, other, ignore_case));
                }
            }
            if common.contains(&Tri::Undecidable) {
                return Tri::Undecidable;
            }
            let same_names = common.len() == found.len() && common.len() == wanted.len();
            tri(same_names && !common.contains(&Tri::False))
        }
        _ => Tri::Undecidable,
    }
}

fn path_within(path: &str, directories: &Value) -> Tri {
    let lower = path.to_ascii_lowercase();
    let tricks = ["\0", "\\", "%2e", "%2f", "%5c", "%00"];
    if !path.starts_with('/') || tricks.iter().any(|trick| lower.contains(trick)) {
        return Tri::Undecidable;
    }
    let path = segments(path);
    let directories = list(directories);
    tri(directories.iter().any(|d| path.starts_with(&segments(&text(d)))))
}

fn segments(path: &str) -> Vec<String> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_string()),
        }
    }
    segments
}

fn host_in(address: &str, hosts: &Value) -> Tri {
    let blank = |c: char| c <= ' ';
    let outer = address.starts_with(blank) || address.ends_with(blank);
    let (_, after_scheme) = address.split_once(':').unwrap_or_default();
    let authority = after_scheme.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
    if outer || address.contains(['\\', '\t', '\r', '\n']) || authority.contains('@') {
        return Tri::Undecidable;
    }
    let Some(host) = host_of(address) else {
        return Tri::Undecidable;
    };
    tri(list(hosts).iter().map(text).any(|entry| match entry.strip_prefix("*.") {
        Some(domain) => host_of(&format!("http://{domain}/")).is_some_and(|d| host.ends_with(&format!(".{d}"))),
        None => host_of(&format!("http://{entry}/")).is_some_and(|entry| entry == host),
    }))
}

/// The host of an http(s) URL as text, without one trailing dot.
fn host_of(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    if url.scheme() != "http" && url.scheme() != "https" {
        return None;
    }
    let host = url.host_str()?;
    Some(host.strip_suffix('.').unwrap_or(host).to_string())
}

// ---- Numbers

fn order(a: &Number, b: &Number) -> Ordering {
    let ((a_negative, a), (b_negative, b)) = (exact(a), exact(b));
    let magnitudes = (a.len(), a).cmp(&(b.len(), b));
    match (a_negative, b_negative) {
        (false, false) => magnitudes,
        (true, true) => magnitudes.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

fn integer(number: &Number) -> Option<i128> {
    let signed = number.as_i64().map(i128::from);
    signed.or(number.as_u64().map(i128::from))
}

/// A number as an integer multiple of 2^-1074, of which every double is one: whether it is
/// negative, and its magnitude in binary digits without leading zeros.
fn exact(number: &Number) -> (bool, String) {
    let (negative, magnitude, shift) = match integer(number) {
        Some(integer) => (integer < 0, integer.unsigned_abs(), 1074),
        None => {
            let bits = number.as_f64().expect("a double").to_bits();
            let exponent = (bits >> 52) as usize & 0x7ff;
            let fraction = u128::from(bits & ((1 << 52) - 1));
            let negative = bits >> 63 == 1 && (exponent, fraction) != (0, 0);
            match exponent {
                0 => (negative, fraction, 0),
                _ => (negative, fraction + (1 << 52), exponent - 1),
            }
        }
    };
    let digits = format!("{magnitude:b}{}", "0".repeat(shift));
    (negative, digits.trim_start_matches('0').to_string())
}

fn is_whole(number: &Number) -> bool {
    integer(number).is_some() || number.as_f64().is_some_and(|double| double.fract() == 0.0)
}

/// An amount in micro-units, by the shortest decimal text of the number; none if it is no valid
/// amount.
fn amount(value: &Value) -> Option<u128> {
    let number = value.as_number()?;
    let decimal = match integer(number) {
        Some(integer) => integer.to_string(),
        None => number.as_f64()?.to_string(),
    };
    let decimal = match decimal.strip_prefix('-') {
        Some("0") => "0",
        Some(_) => return None,
        None => &decimal,
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    if fraction.len() > 6 || whole.len() > 13 {
        return None;
    }
    let micros = format!("{whole}{fraction:0<6}").parse().expect("up to 19 digits");
    (micros <= LARGEST).then_some(micros)
}

// ---- Limits

/// A limit, a `rate_limit` written out as one; the document's own members are read where they are
/// needed.
#[derive(Clone)]
struct Limit {
    pointer: String,
    members: Value,
    how: How,
    max: u128,
    burst: Option<u128>,
    shadow: bool,
}

impl Limit {
    /// What the counter may hold at most.
    fn room(&self) -> u128 {
        match (self.max, self.burst) {
            (1.., Some(burst)) => burst,
            (max, _) => max,
        }
    }
}

#[derive(Debug, Clone)]
enum Window {
    /// `second` to `month`, and the offset in microseconds.
    Calendar(String, i64),
    /// A length in microseconds.
    Every(i64),
}

/// A limit that counts the call.
struct Counting {
    limit: Limit,
    /// The counter and whom it counts: limits that agree in it are charged together.
    group: String,
    /// What is charged; the limit's own first.
    charged: Vec<(String, How)>,
    /// What the call costs there.
    amount: u128,
    /// What the limit says it costs, unless it reads that from the call.
    constant: Option<u128>,
}

/// All limits of `places`: of each its `limits`, then its `rate_limit`.
fn limits(places: &[Place]) -> Vec<Limit> {
    let mut limits = Vec::new();
    for place in places {
        for (index, members) in list(&place.rules["limits"]).into_iter().enumerate() {
            limits.push(limit(members, format!("{}/limits/{index}", place.pointer)));
        }
        let mut members = place.rules["rate_limit"].clone();
        if !members.is_null() {
            members["counter"] = Value::from(format!("{}_rate", place.name));
            if members["scope"].is_null() {
                members["scope"] = Value::from("session");
            }
            limits.push(limit(members, format!("{}/rate_limit", place.pointer)));
        }
    }
    limits
}

fn limit(members: Value, pointer: String) -> Limit {
    let max = amount(&members["max"]).expect("a valid max");
    let window_of = || window(&members["window"], &members["utc_offset"]);
    let how = match members["algorithm"].as_str() {
        _ if members["window"] == "in_flight" => How::InFlight(match &members["lease"] {
            Value::Null => 5 * MINUTE,
            lease => length(&window(lease, &Value::Null)),
        }),
        Some("sliding") => How::Sliding(length(&window_of())),
        Some("token_bucket") => How::Bucket(max, length(&window_of())),
        _ => How::Fixed(window_of()),
    };
    let burst = amount(&members["burst"]);
    let shadow = members["shadow"] == true;
    Limit { pointer, members, how, max, burst, shadow }
}

/// The limits that count the call: all scopes are read, then all amounts.
fn counting(limits: Vec<Limit>, policy: &Policy, roots: &Value) -> Result<Vec<Counting>, Answer> {
    let mut scoped = Vec::new();
    for limit in limits {
        match key(&limit, roots) {
            Some(group) => scoped.push((limit, group)),
            None if limit.shadow => {}
            None => return Err(deny("scope_missing", &limit.pointer, None)),
        }
    }
    let mut counting = Vec::new();
    for (limit, group) in scoped {
        let (constant, cost) = match (&limit.members["amount"], &limit.members["amount_from"]) {
            (Value::Null, Value::Null) => (Some(UNIT), Some(UNIT)),
            (constant, Value::Null) => (amount(constant), amount(constant)),
            (_, path) => (None, value_at(path, roots).and_then(|value| amount(&value))),
        };
        match cost {
            Some(amount) => {
                let charged = policy.charged(&group, &limit);
                counting.push(Counting { limit, group, charged, amount, constant });
            }
            None if limit.shadow => {}
            None => return Err(deny("amount_invalid", &limit.pointer, None)),
        }
    }
    // A counter is charged once, by the largest amount of the limits that count in it.
    let same = |group: &str| counting.iter().filter(|one| one.group == group).map(|one| one.amount).max();
    let largest: Vec<u128> = counting.iter().map(|one| same(&one.group).expect("at least its own")).collect();
    for (one, amount) in counting.iter_mut().zip(largest) {
        one.amount = amount;
    }
    Ok(counting)
}

/// The text under which a limit counts the call; none if a part of its scope is missing. Two
/// different lists of parts give two different texts, because `Debug` quotes each text.
fn key(limit: &Limit, roots: &Value) -> Option<String> {
    let mut scope = Vec::new();
    let mut parts = Vec::new();
    for part in one_or_more(&limit.members["scope"]).iter().map(text) {
        match part.as_str() {
            "global" => scope.push(part),
            "grant" | "session" | "agent" | "user" | "server" => {
                parts.push(text(roots["call"].get(&part)?));
                scope.push(part);
            }
            path => {
                scope.push(format!("{:?}", steps(path)));
                parts.push(match value_at(&Value::from(path), roots)? {
                    Value::String(string) => format!("the text {string}"),
                    Value::Number(number) => format!("the number {:?}", exact(&number)),
                    _ => return None,
                });
            }
        }
    }
    let how = match &limit.how {
        // Buckets of one name may run full at different rates; and what a policy says of bursts and
        // leases holds from then on.
        How::Bucket(..) => "a bucket".to_owned(),
        How::InFlight(_) => "in flight".to_owned(),
        how => format!("{how:?}"),
    };
    let window = match limit.how {
        How::InFlight(_) => None,
        _ => Some(window(&limit.members["window"], &limit.members["utc_offset"])),
    };
    Some(format!("{:?}", (&limit.members["counter"], window, how, scope, parts)))
}

// ---- Time

fn window(window: &Value, offset: &Value) -> Window {
    if let Some(number) = window.as_number() {
        let seconds = number.as_i64().or(number.as_f64().map(|double| double as i64));
        return Window::Every(seconds.expect("seconds") * SECOND);
    }
    let name = text(window);
    let digits = name.trim_end_matches(char::is_alphabetic);
    let unit = match &name[digits.len()..] {
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Window::Calendar(name, offset_from(offset)),
    };
    Window::Every(digits.parse::<i64>().expect("a duration") * unit)
}

/// The length of a window that is aligned to nothing; a month has 30 days.
fn length(window: &Window) -> i64 {
    match window {
        Window::Every(length) => *length,
        Window::Calendar(name, _) => match name.as_str() {
            "month" => 30 * DAY,
            _ => window_at(window, 0).1 - window_at(window, 0).0,
        },
    }
}

/// `+02:00` in microseconds.
fn offset_from(offset: &Value) -> i64 {
    let offset = offset.as_str().unwrap_or("+00:00");
    let (hours, minutes) = offset[1..].split_once(':').expect("hours and minutes");
    let number = |digits: &str| digits.parse::<i64>().expect("a number");
    let length = number(hours) * HOUR + number(minutes) * MINUTE;
    if offset.starts_with('-') { -length } else { length }
}

/// The start and the end of the window that holds `now`.
fn window_at(window: &Window, now: i64) -> (i64, i64) {
    let (name, offset) = match window {
        Window::Every(length) => return aligned(now, *length),
        Window::Calendar(name, offset) => (name, *offset),
    };
    let local = now + offset;
    let days = local.div_euclid(DAY);
    let (start, end) = match name.as_str() {
        "second" => aligned(local, SECOND),
        "minute" => aligned(local, MINUTE),
        "hour" => aligned(local, HOUR),
        "day" => aligned(local, DAY),
        "week" => {
            let monday = days - (weekday(days) - 1);
            (monday * DAY, (monday + 7) * DAY)
        }
        "month" => {
            let (year, month, day) = date(days);
            let first = days - (day - 1);
            (first * DAY, (first + days_in(year, month)) * DAY)
        }
        other => panic!("the model does not know the window `{other}`"),
    };
    (start - offset, end - offset)
}

fn aligned(now: i64, length: i64) -> (i64, i64) {
    let start = now.div_euclid(length) * length;
    (start, start + length)
}

/// 1 for Monday to 7 for Sunday; the epoch was a Thursday.
fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7) + 1
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Year, month and day of a number of days since the epoch, month by month.
fn date(days: i64) -> (i64, i64, i64) {
    let year_and_month = |months: i64| (1970 + months.div_euclid(12), 1 + months.rem_euclid(12));
    let length = |months: i64| days_in(year_and_month(months).0, year_and_month(months).1);
    let (mut months, mut left) = (0, days);
    while left < 0 {
        months -= 1;
        left += length(months);
    }
    while left >= length(months) {
        left -= length(months);
        months += 1;
    }
    let (year, month) = year_and_month(months);
    (year, month, left + 1)
}
