//! Limits and approvals, compared by what they say.

use std::collections::HashSet;
use std::time::Duration;

use crate::policy::limit::{Algorithm, Cost, Limit};
use crate::policy::{Binding, Policy, Terms};
use crate::tools::explain::Witness;

/// How a limit stands to those that apply in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// One of them refuses all that it refuses, where both have counted the same.
    Holds,
    /// What lets more pass now.
    Loosens(String),
    /// It counts elsewhere now, and nothing can be said.
    Unclear(String),
}

/// Which of two policies is the newer one, for the words alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sense {
    /// What is asked is whether the newer one is looser.
    Forward,
    /// Whether the older one is.
    Backward,
}

impl Sense {
    fn change(self, of: &str, what: &str, from: &str, to: &str) -> String {
        let (from, to) = self.pair(from, to);
        format!("{of}: {what} {from} to {to}")
    }

    /// The older one first.
    pub(super) fn pair<T>(self, from: T, to: T) -> (T, T) {
        if self == Self::Forward { (from, to) } else { (to, from) }
    }
}

/// Whether one of `new` bounds what `old` bounds.
pub(super) fn bound(old: &Limit, new: &[&Limit], sense: Sense) -> Bound {
    let mut found = None;
    for limit in new.iter().filter(|limit| limit.counter == old.counter) {
        match between(old, limit, sense) {
            Bound::Holds => return Bound::Holds,
            other => found = found.or(Some(other)),
        }
    }
    let kind = if old.shadow { "shadow limit" } else { "limit" };
    let (gone, _) = sense.pair("is gone", "is new");
    found.unwrap_or_else(|| {
        let text = format!("{kind} `{}` ({}) {gone}", old.counter, shown(old));
        if new.iter().all(|limit| limit.shadow) {
            Bound::Loosens(text)
        } else {
            Bound::Unclear(format!("{text}, beside others"))
        }
    })
}

fn between(old: &Limit, new: &Limit, sense: Sense) -> Bound {
    let limit = format!("limit `{}`", old.counter);
    let change = |what: &str, from: &str, to: &str| sense.change(&limit, what, from, to);
    if (old.window, old.utc_offset) != (new.window, new.utc_offset) {
        let window = |limit: &Limit| format!("{}{}", limit.window.canonical(), offset(limit));
        return Bound::Unclear(change("window", &window(old), &window(new)) + ", a new counter");
    }
    if old.scope != new.scope {
        return Bound::Unclear(change("scope", &scope(old), &scope(new)) + ", a new counter");
    }
    if old.algorithm.kind() != new.algorithm.kind() {
        let (from, to) = (old.algorithm.canonical(), new.algorithm.canonical());
        return Bound::Unclear(change("algorithm", &from, &to) + ", a new counter");
    }
    if new.shadow && !old.shadow {
        return Bound::Loosens(change("shadow", "false", "true"));
    }
    match (&old.cost, &new.cost) {
        (Cost::Constant(from), Cost::Constant(to)) if to < from => {
            return Bound::Loosens(change("amount", &from.to_string(), &to.to_string()));
        }
        (Cost::Constant(_), Cost::Constant(_)) => {}
        (from, to) if from == to => {}
        (from, to) => return Bound::Unclear(change("amount", &cost(from), &cost(to))),
    }
    if !old.shadow && new.max > old.max {
        return Bound::Loosens(change("max", &old.max.to_string(), &new.max.to_string()));
    }
    if !old.shadow && new.room() > old.room() {
        return Bound::Loosens(change("burst", &old.room().to_string(), &new.room().to_string()));
    }
    if let (Algorithm::InFlight { lease: from }, Algorithm::InFlight { lease: to }) = (old.algorithm, new.algorithm)
        && !old.shadow
        && to < from
    {
        return Bound::Loosens(change("lease", &format!("{from}s"), &format!("{to}s")));
    }
    let buckets = matches!(old.algorithm, Algorithm::TokenBucket { .. })
        && !(old.buckets.is_empty() && new.buckets.is_empty())
        && (old.max != new.max || old.buckets.len() != new.buckets.len());
    if buckets {
        return Bound::Unclear(format!("{limit}: its token buckets are not the same"));
    }
    Bound::Holds
}

fn offset(limit: &Limit) -> String {
    if limit.utc_offset == 0 { String::new() } else { format!(" at {:+} minutes", limit.utc_offset) }
}

fn scope(limit: &Limit) -> String {
    let parts: Vec<_> = limit.scope.parts.iter().map(crate::policy::limit::ScopePart::canonical).collect();
    parts.join(" and ")
}

fn cost(cost: &Cost) -> String {
    match cost {
        Cost::Constant(amount) => amount.to_string(),
        Cost::From(path) => path.to_string(),
    }
}

fn shown(limit: &Limit) -> String {
    format!("max {} per {}", limit.max, limit.window.canonical())
}

/// Where the approval of a tool's calls is given more easily by `new` than by `old`.
pub(super) fn looser_approval(old: &Policy, new: &Policy, tool: &str, sense: Sense) -> Vec<String> {
    let call = Witness::of_tool(tool);
    let [old, new] = [old, new].map(|policy| call.evaluate(policy).terms(&call.call()));
    let mut found = Vec::new();
    let mut change = |what: &str, from: String, to: String| found.push(sense.change("approval", what, &from, &to));
    if new.ttl > old.ttl {
        change("ttl", seconds(old.ttl), seconds(new.ttl));
    }
    if new.min_approvers < old.min_approvers {
        change("min_approvers", old.min_approvers.to_string(), new.min_approvers.to_string());
    }
    let (before, after) = (approvers(&old), approvers(&new));
    let is_more = match (&before, &after) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before), Some(after)) => {
            let before: HashSet<&str> = before.iter().copied().collect();
            after.iter().any(|name| !before.contains(name))
        }
    };
    if is_more {
        let shown = |names: Option<Vec<&str>>| names.map_or_else(|| "anyone".to_owned(), |names| names.join(" or "));
        change("approvers", shown(before), shown(after));
    }
    let is_loose = match (&old.bind, &new.bind) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(before), Some(after)) => {
            let kept: HashSet<_> = after.iter().map(|new| (new.path.to_string(), new.at_most)).collect();
            let is_kept = |old: &&Binding| {
                let path = old.path.to_string();
                kept.contains(&(path.clone(), false)) || (old.at_most && kept.contains(&(path, true)))
            };
            !before.iter().all(is_kept)
        }
    };
    if is_loose {
        change("bind", bound_to(old.bind.as_deref()), bound_to(new.bind.as_deref()));
    }
    found
}

fn bound_to(bind: Option<&[&Binding]>) -> String {
    let one = |binding: &&Binding| format!("{}{}", binding.path, if binding.at_most { "<=" } else { "" });
    bind.map_or_else(|| "all arguments".to_owned(), |all| all.iter().map(one).collect::<Vec<_>>().join(" and "))
}

/// Who may approve: all that every list has. None is anyone.
fn approvers<'p>(terms: &Terms<'p>) -> Option<Vec<&'p str>> {
    let (first, others) = terms.approvers.split_first()?;
    let others: Vec<HashSet<&str>> = others.iter().map(|list| list.iter().map(|name| &**name).collect()).collect();
    Some(first.iter().map(|name| &**name).filter(|name| others.iter().all(|list| list.contains(name))).collect())
}

fn seconds(ttl: Duration) -> String {
    format!("{}s", ttl.as_secs())
}
