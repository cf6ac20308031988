//! Limits of a document.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::super::document::{LIMIT, RATE};
use super::super::error::IssueCode;
use super::super::pattern::Names;
use super::partial_limit::{PartialLimit, Parts};
use crate::amount::Amount;
use crate::call::path::{Path, Root};
use crate::json::pointer;
use crate::json::{Json, Node};
use crate::policy::compiled::{Counter, Entries, Rules};
use crate::policy::limit::{
    ALGORITHMS, Algorithm, Cost, Limit, SCOPES, Scope, ScopePart, WINDOWS, Window, parse_duration, parse_utc_offset,
};
use crate::policy::read::suggest::{Want, listed};
use crate::policy::read::{Fields, Reader, quote, shown};

/// The limits as they are read, and the counters that they share.
#[derive(Default)]
pub(super) struct LimitPlaces {
    /// For each rules object with limits, in the order in which they were read: its entry, and the
    /// positions of its limits.
    owners: Vec<(Option<u32>, Vec<LimitPlace>)>,
    pub(super) counters: Vec<Counter>,
    /// The counters of each name, and the pointer to the first limit that names it. Only token
    /// buckets can have more than one.
    by_name: HashMap<Box<str>, (SmallVec<[u32; 1]>, String)>,
    /// Names whose first limit has an issue, and the pointer to it.
    broken: HashMap<Box<str>, (PartialLimit, String)>,
}

struct LimitPlace {
    /// The index in `limits`; `None` for `rate_limit`.
    index: Option<usize>,
    at: usize,
    /// The readable parts of a limit with an issue, which is not among the compiled limits.
    partial: Option<Box<PartialLimit>>,
}

impl LimitPlaces {
    /// Reads the limits of a rules object, `limits` before `rate_limit`. `owner` is its entry;
    /// `None` for `all_tools`.
    pub(super) fn read(
        &mut self,
        reader: &mut Reader<'_>,
        fields: Fields<'_, '_>,
        owner: Option<u32>,
        name: &str,
        reads_time: &mut bool,
    ) -> Box<[Limit]> {
        let mut places = Vec::new();
        // The number of limits under the first key `limits`. A second one is read only for its
        // issues.
        let mut read = None;
        let limits = reader.field(fields, "limits", |reader, node| {
            let limits = reader.list(node, "`limits`")?;
            let mut indices = 0..;
            let limits = reader.each(limits, |reader, node| {
                let index = indices.next()?;
                note(&mut places, Some(index), node, limit(reader, node)?)
            });
            read.get_or_insert(places.len());
            Some(limits)
        });
        places.truncate(read.unwrap_or_default());
        let before = places.len();
        let rate = reader
            .field(fields, "rate_limit", |reader, node| note(&mut places, None, node, rate_limit(reader, node, name)?));
        places.truncate(before + 1);
        if !places.is_empty() {
            *reads_time = true;
            self.owners.push((owner, places));
        }
        limits.unwrap_or_default().into_iter().chain(rate).collect()
    }

    /// The number of rules objects with limits that have been read.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Removes all after the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        self.owners.truncate(count);
    }

    /// Assigns one counter to limits of one name, and notes those that disagree with the first one.
    /// The order is that of evaluation, which may differ from that of the text.
    pub(super) fn connect(
        &mut self,
        reader: &mut Reader<'_>,
        entries: &mut Entries,
        all_tools: &mut Rules,
        names: &Names,
    ) {
        let mut owners = std::mem::take(&mut self.owners);
        owners.sort_by_key(|(owner, _)| owner.unwrap_or(u32::MAX));
        for (owner, places) in &owners {
            let Some(rules) = rules_of(entries, all_tools, *owner) else { continue };
            reader.pointer.clear();
            match owner {
                Some(entry) => {
                    reader.pointer.push_str("/tools");
                    pointer::push_key(&mut reader.pointer, names.name(*entry));
                }
                None => reader.pointer.push_str("/all_tools"),
            }
            let base = reader.pointer.len();
            let mut limits = rules.limits.iter_mut();
            for LimitPlace { index, at, partial } in places {
                reader.pointer.truncate(base);
                match index {
                    None => reader.pointer.push_str("/rate_limit"),
                    Some(index) => {
                        reader.pointer.push_str("/limits");
                        pointer::push_index(&mut reader.pointer, *index);
                    }
                }
                match partial {
                    Some(partial) => self.compare(reader, partial, *at),
                    None => limits.by_ref().take(1).for_each(|limit| limit.slot = self.slot(reader, limit, *at)),
                }
            }
        }
        reader.pointer.clear();
        if self.by_name.values().all(|(slots, _)| slots.len() == 1) {
            return;
        }
        for (slots, _) in self.by_name.values_mut() {
            let rate = |slot: &u32| {
                let counter = self.counters.get(*slot as usize)?;
                Some((counter.max, counter.max_from.as_ref().map(ToString::to_string)))
            };
            slots.sort_by_cached_key(rate);
            for (rank, slot) in slots.iter().enumerate() {
                if let Some(counter) = self.counters.get_mut(*slot as usize) {
                    counter.bucket = rank;
                }
            }
        }
        for (owner, _) in owners {
            for limit in rules_of(entries, all_tools, owner).into_iter().flat_map(|rules| &mut rules.limits) {
                let slots = self.by_name.get(&limit.counter).into_iter().flat_map(|(slots, _)| slots);
                limit.buckets = slots.copied().filter(|slot| *slot != limit.slot).collect();
            }
        }
    }

    fn slot(&mut self, reader: &mut Reader<'_>, limit: &Limit, at: usize) -> u32 {
        let new = u32::try_from(self.counters.len()).unwrap_or(u32::MAX);
        match self.by_name.get_mut(&limit.counter) {
            Some((slots, first)) => {
                let one = slots.first().copied().unwrap_or(new);
                let known = self.counters.get(one as usize);
                if let Some(what) = known.and_then(|known| Parts::of(known).disagreement(Parts::from(limit))) {
                    disagrees(reader, at, &limit.counter, what, first);
                }
                // Only the state of a token bucket depends on the maximum.
                let runs = |slot: &&u32| {
                    let known = self.counters.get(**slot as usize);
                    known.is_some_and(|known| (known.max, &known.max_from) == (limit.max, &limit.max_from))
                };
                match limit.algorithm {
                    Algorithm::TokenBucket { .. } => {
                        if let Some(slot) = slots.iter().find(runs) {
                            return *slot;
                        }
                    }
                    _ => return one,
                }
                slots.push(new);
            }
            None => {
                if let Some((known, first)) = self.broken.get(&limit.counter)
                    && let Some(what) = known.parts().disagreement(Parts::from(limit))
                {
                    disagrees(reader, at, &limit.counter, what, first);
                }
                let place = (SmallVec::from_slice(&[new]), reader.pointer.clone());
                self.by_name.insert(limit.counter.clone(), place);
            }
        }
        self.counters.push(Counter {
            name: limit.counter.clone(),
            window: limit.window,
            utc_offset: limit.utc_offset,
            scope: limit.scope.clone(),
            algorithm: limit.algorithm,
            max: limit.max,
            max_from: limit.max_from.clone(),
            bucket: 0,
        });
        new
    }

    /// Notes how a limit with an issue disagrees with the first limit of its counter.
    fn compare(&mut self, reader: &mut Reader<'_>, partial: &PartialLimit, at: usize) {
        let known = match (self.by_name.get(&partial.counter), self.broken.get(&partial.counter)) {
            (Some((slots, first)), _) => {
                let known = slots.first().and_then(|slot| self.counters.get(*slot as usize));
                known.map(|known| (Parts::of(known), first))
            }
            (None, known) => known.map(|(known, first)| (known.parts(), first)),
        };
        match known.map(|(known, first)| (known.disagreement(partial.parts()), first)) {
            Some((Some(what), first)) => disagrees(reader, at, &partial.counter, what, first),
            Some((None, _)) => {}
            None => {
                let place = (partial.clone(), reader.pointer.clone());
                self.broken.insert(partial.counter.clone(), place);
            }
        }
    }
}

/// Notes the position of a limit, and returns the limit if it has no issue.
fn note(
    places: &mut Vec<LimitPlace>,
    index: Option<usize>,
    node: &Node<'_>,
    read: Result<Limit, PartialLimit>,
) -> Option<Limit> {
    let (limit, partial) = match read {
        Ok(limit) => (Some(limit), None),
        Err(partial) => (None, Some(Box::new(partial))),
    };
    places.push(LimitPlace { index, at: node.at, partial });
    limit
}

fn disagrees(reader: &mut Reader<'_>, at: usize, counter: &str, what: &str, first: &str) {
    let message = format!("the counter {} has a different `{what}` in {first}", quote(counter));
    let help = format!("use the same `{what}` in both, or another counter");
    reader.issue(IssueCode::CounterDisagrees, at, message, help);
}

fn rules_of<'r>(entries: &'r mut Entries, all_tools: &'r mut Rules, owner: Option<u32>) -> Option<&'r mut Rules> {
    match owner {
        Some(entry) => entries.get_mut(entry),
        None => Some(all_tools),
    }
}

fn limit(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Result<Limit, PartialLimit>> {
    let fields = reader.object(node, &LIMIT)?;
    let counter = reader.field(fields, "counter", |reader, node| {
        let name = reader.text(node, "`counter`")?;
        if name.is_empty() {
            let help = "give the counter a name".to_owned();
            reader.issue(IssueCode::InvalidValue, node.at, "the name of a counter cannot be empty", help);
        }
        reader.no_control(node.at, &name);
        Some(name)
    });
    let window = reader.field(fields, "window", window);
    let max = reader.field(fields, "max", |reader, node| reader.amount(node, "`max`"));
    let max_from = reader.field(fields, "max_from", max_from);
    let scope = reader.field(fields, "scope", scope);
    let algorithm = algorithm(reader, fields, window);
    let utc_offset = utc_offset(reader, fields, window, algorithm);
    let cost = cost(reader, fields);
    let shadow = reader.field(fields, "shadow", |reader, node| reader.boolean(node, "`shadow`"));
    let on_exceed = reader.field(fields, "on_exceed", |reader, node| reader.text(node, "`on_exceed`"));
    let limit = PartialLimit { counter: counter?, window, utc_offset, scope, algorithm, max }.limit();
    Some(limit.map(|limit| Limit {
        // A limit with an invalid cost still has a counter that others may disagree with.
        cost: cost.unwrap_or(Cost::Constant(Amount::ONE)),
        max_from: max_from.map(Box::new),
        shadow: shadow.unwrap_or(false),
        on_exceed,
        ..limit
    }))
}

fn rate_limit(reader: &mut Reader<'_>, node: &Node<'_>, entry: &str) -> Option<Result<Limit, PartialLimit>> {
    let fields = reader.object(node, &RATE)?;
    let max = reader.field(fields, "max", |reader, node| reader.amount(node, "`max`"));
    let window = reader.field(fields, "window", window);
    let session = || Scope::new(Vec::from_iter(ScopePart::named("session")));
    let scope = match fields.get("scope") {
        Some(_) => reader.field(fields, "scope", scope),
        None => Some(session()),
    };
    let algorithm = window.map(|window| match window {
        Window::InFlight => Algorithm::InFlight { lease: DEFAULT_LEASE },
        _ => Algorithm::Fixed,
    });
    let counter = format!("{entry}_rate").into();
    let limit = PartialLimit { counter, window, utc_offset: Some(0), scope, algorithm, max }.limit();
    Some(limit.map(|limit| Limit { is_rate_limit: true, ..limit }))
}

/// Reads the path to the host's own maximum. The agent must not choose it.
fn max_from(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Path> {
    let path = reader.single_path(node, "`max_from`")?;
    if path.root != Root::Context || path.steps.is_empty() {
        let message = format!("`max_from` must be a path below `context`, not {}", shown(node));
        let help = "write a path such as `context.plan.max`, which the host supplies".to_owned();
        reader.issue(IssueCode::InvalidPath, node.at, message, help);
    }
    Some(path)
}

/// Five minutes.
const DEFAULT_LEASE: u32 = 300;

fn window(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Window> {
    match &node.json {
        Json::String(text) => {
            if let Some((_, window)) = WINDOWS.iter().find(|(name, _)| name == text) {
                return Some(*window);
            }
            if let Some(seconds) = parse_duration(text) {
                return Some(Window::Every(seconds));
            }
            if text.starts_with(|c: char| c.is_ascii_digit()) {
                reader.duration(node, "`window`").map(Window::Every)
            } else {
                let names = WINDOWS.map(|(name, _)| name);
                let or = ", a number of seconds, or a duration such as `15m`";
                reader.unknown_word_or(node, text, "a window", &names, or);
                None
            }
        }
        Json::Number(_) => reader.duration(node, "`window`").map(Window::Every),
        _ => {
            let must = "`window` must be a number of seconds, a duration such as `15m`, or a word";
            reader.wrong_type(node, &Want::Any, must);
            None
        }
    }
}

const SCOPE_LISTS: &str = r#", or a list of these and of paths, such as ["user", "args.customer"]"#;

fn scope(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Scope> {
    match &node.json {
        Json::String(text) => {
            if text.contains(['.', '[']) {
                let help = format!("write [{}]", quote(text).replace('`', "\""));
                reader.issue(IssueCode::UnknownValue, node.at, "a scope with a path must be a list", help);
                return None;
            }
            let part = ScopePart::named(text);
            if part.is_none() {
                reader.unknown_word_or(node, text, "a scope", &SCOPES, SCOPE_LISTS);
            }
            part.map(|part| Scope::new([part]))
        }
        Json::Array(parts) => {
            if parts.is_empty() {
                reader.empty_list(node.at, "a scope needs a part", "write \"global\" for one count for everyone");
            }
            let count = parts.len();
            let parts = reader.each(parts, |reader, node| {
                let text = reader.string(node, "a part of a scope")?;
                if text.contains(['.', '[']) {
                    let path = reader.single_path(node, "a part of a scope")?;
                    if path.root == Root::Task {
                        let message = "`call.task` cannot be a part of a scope: calls that are not tasks lack it";
                        let help = "remove it; a condition can read `call.task`".to_owned();
                        reader.issue(IssueCode::InvalidPath, node.at, message, help);
                    }
                    return Some(ScopePart::Path(path));
                }
                let part = ScopePart::named(text);
                if part.is_none() {
                    reader.unknown_word_or(node, text, "a scope", &SCOPES, SCOPE_LISTS);
                }
                part
            });
            (parts.len() == count && count > 0).then(|| Scope::new(parts))
        }
        _ => {
            reader.wrong_type(
                node,
                &Want::Any,
                &format!("`scope` must be one of {}, or a list of these and of paths", listed(&SCOPES)),
            );
            None
        }
    }
}

fn algorithm(reader: &mut Reader<'_>, fields: Fields<'_, '_>, window: Option<Window>) -> Option<Algorithm> {
    let named = reader.field(fields, "algorithm", |reader, node| reader.word(node, "an algorithm", &ALGORITHMS));
    let burst = reader.field(fields, "burst", |reader, node| reader.amount(node, "`burst`"));
    let lease = reader.field(fields, "lease", |reader, node| reader.duration(node, "`lease`"));
    if window == Some(Window::InFlight) {
        reader.misplaced(fields, "algorithm", "calls in flight have one algorithm");
        reader.misplaced(fields, "burst", "it belongs to a token bucket");
        return match fields.get("lease") {
            Some(_) => lease.map(|lease| Algorithm::InFlight { lease }),
            None => Some(Algorithm::InFlight { lease: DEFAULT_LEASE }),
        };
    }
    if window.is_some() {
        reader.misplaced(fields, "lease", "it belongs to the window `in_flight`");
    }
    let has_algorithm = fields.get("algorithm").is_some();
    if window == Some(Window::Lifetime) && named != Some("fixed") {
        reader.misplaced(fields, "algorithm", "a lifetime has no intervals, so it is always `fixed`");
        reader.misplaced(fields, "burst", "it belongs to a token bucket");
        return Some(Algorithm::Fixed);
    }
    let algorithm = match named {
        Some("token_bucket") => {
            let is_known = burst.is_some() || fields.get("burst").is_none();
            return is_known.then_some(Algorithm::TokenBucket { burst });
        }
        Some("sliding") => Algorithm::Sliding,
        None if has_algorithm => return None,
        _ => Algorithm::Fixed,
    };
    reader.misplaced(fields, "burst", "it belongs to the algorithm `token_bucket`");
    // Without a window, it could also be a limit of calls in flight.
    (window.is_some() || has_algorithm).then_some(algorithm)
}

fn utc_offset(
    reader: &mut Reader<'_>,
    fields: Fields<'_, '_>,
    window: Option<Window>,
    algorithm: Option<Algorithm>,
) -> Option<i32> {
    let offset = reader.field(fields, "utc_offset", |reader, node| {
        let text = reader.string(node, "`utc_offset`")?;
        let offset = parse_utc_offset(text);
        if offset.is_none() {
            let help = "write it as `+02:00` or `-05:30`; an offset does not follow summer time".to_owned();
            let message = format!("invalid offset from UTC {}", shown(node));
            reader.issue(IssueCode::InvalidUtcOffset, node.at, message, help);
        }
        offset
    });
    if window.is_some_and(|window| !window.is_calendar()) {
        reader.misplaced(fields, "utc_offset", "it shifts calendar windows, such as `day`");
    } else if let Some(Algorithm::Sliding | Algorithm::TokenBucket { .. }) = algorithm {
        reader.misplaced(fields, "utc_offset", "only `fixed` windows are aligned to the calendar");
    }
    if fields.get("utc_offset").is_some() { offset } else { Some(0) }
}

fn cost(reader: &mut Reader<'_>, fields: Fields<'_, '_>) -> Option<Cost> {
    let amount = reader.field(fields, "amount", |reader, node| reader.amount(node, "`amount`"));
    let from = reader.field(fields, "amount_from", |reader, node| reader.single_path(node, "`amount_from`"));
    match (fields.get("amount"), fields.get("amount_from")) {
        (Some(_), Some(_)) => {
            let message = "`amount` and `amount_from` exclude each other";
            reader.issue(IssueCode::ConflictingKeys, fields.at, message, "keep one of the two".to_owned());
            None
        }
        (None, None) => Some(Cost::Constant(Amount::ONE)),
        (Some(_), None) => amount.map(Cost::Constant),
        (None, Some(_)) => from.map(Cost::From),
    }
}
