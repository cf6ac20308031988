//! Compares limits and approval terms by their settings.

use std::collections::HashSet;
use std::time::Duration;

use super::report::Kind;
use crate::policy::limit::{Algorithm, Cost, Limit};
use crate::policy::{Binding, Policy, Terms};
use crate::tools::explain::Witness;

/// The result of comparing a limit with those that apply to the same calls in the other policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LimitComparison {
    /// At equal counts, one of them refuses every call that the limit refuses.
    AsStrict,
    /// The change that lets more calls through.
    Looser(String),
    /// The reason why it is undecided, such as a change of the window.
    Undecided(String),
}

/// The direction in which two policies are compared. It affects only the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the old policy to the new one: finds what becomes wider.
    OldToNew,
    /// From the new policy to the old one: finds what becomes narrower.
    NewToOld,
}

impl Direction {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::OldToNew => Kind::Wider,
            Self::NewToOld => Kind::Narrower,
        }
    }

    /// Describes the change of a setting, from the old policy to the new one.
    fn describe(self, subject: &str, setting: &str, from: &str, to: &str) -> String {
        let (old, new) = self.old_first(from, to);
        format!("{subject}: {setting} {old} to {new}")
    }

    /// Orders the pair so that the item of the old policy comes first.
    pub(super) fn old_first<T>(self, from: T, to: T) -> (T, T) {
        if self == Self::OldToNew { (from, to) } else { (to, from) }
    }
}

/// Compares a limit with those that apply to the same calls in the other policy.
pub(super) fn compare_limit(from: &Limit, others: &[&Limit], direction: Direction) -> LimitComparison {
    let mut found = None;
    for limit in others.iter().filter(|limit| limit.counter == from.counter) {
        match compare_pair(from, limit, direction) {
            LimitComparison::AsStrict => return LimitComparison::AsStrict,
            other => found = found.or(Some(other)),
        }
    }
    let kind = if from.shadow { "shadow limit" } else { "limit" };
    let (change, _) = direction.old_first("was removed", "was added");
    found.unwrap_or_else(|| {
        let text = format!("{kind} `{}` ({}) {change}", from.counter, rate(from));
        if others.iter().all(|limit| limit.shadow) {
            LimitComparison::Looser(text)
        } else {
            LimitComparison::Undecided(format!("{text}; other limits apply"))
        }
    })
}

/// Compares a limit with one of the same counter in the other policy.
fn compare_pair(old: &Limit, new: &Limit, direction: Direction) -> LimitComparison {
    let limit = format!("limit `{}`", old.counter);
    let change = |setting: &str, from: &str, to: &str| direction.describe(&limit, setting, from, to);
    if (old.window, old.utc_offset) != (new.window, new.utc_offset) {
        let window = |limit: &Limit| format!("{}{}", limit.window.canonical(), offset(limit));
        return LimitComparison::Undecided(change("window", &window(old), &window(new)) + " (a new counter)");
    }
    if old.scope != new.scope {
        return LimitComparison::Undecided(change("scope", &scope(old), &scope(new)) + " (a new counter)");
    }
    if old.algorithm.kind() != new.algorithm.kind() {
        let (from, to) = (old.algorithm.canonical(), new.algorithm.canonical());
        return LimitComparison::Undecided(change("algorithm", &from, &to) + " (a new counter)");
    }
    if new.shadow && !old.shadow {
        return LimitComparison::Looser(change("shadow", "false", "true"));
    }
    match (&old.cost, &new.cost) {
        (Cost::Constant(from), Cost::Constant(to)) if to < from => {
            return LimitComparison::Looser(change("amount", &from.to_string(), &to.to_string()));
        }
        (Cost::Constant(_), Cost::Constant(_)) => {}
        (from, to) if from == to => {}
        (from, to) => return LimitComparison::Undecided(change("amount", &cost(from), &cost(to))),
    }
    if !old.shadow && new.max > old.max {
        return LimitComparison::Looser(change("max", &old.max.to_string(), &new.max.to_string()));
    }
    match (&old.max_from, &new.max_from) {
        (Some(from), None) if !old.shadow => {
            return LimitComparison::Looser(change("max_from", &from.to_string(), "none"));
        }
        (Some(from), Some(to)) if !old.shadow && from != to => {
            return LimitComparison::Undecided(change("max_from", &from.to_string(), &to.to_string()));
        }
        _ => {}
    }
    if !old.shadow && new.room() > old.room() {
        return LimitComparison::Looser(change("burst", &old.room().to_string(), &new.room().to_string()));
    }
    if let (Algorithm::InFlight { lease: from }, Algorithm::InFlight { lease: to }) = (old.algorithm, new.algorithm)
        && !old.shadow
        && to < from
    {
        return LimitComparison::Looser(change("lease", &format!("{from}s"), &format!("{to}s")));
    }
    let have_other_buckets = matches!(old.algorithm, Algorithm::TokenBucket { .. })
        && !(old.buckets.is_empty() && new.buckets.is_empty())
        && ((old.max, &old.max_from) != (new.max, &new.max_from) || old.buckets.len() != new.buckets.len());
    if have_other_buckets {
        return LimitComparison::Undecided(format!("{limit}: its token buckets differ"));
    }
    LimitComparison::AsStrict
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

fn rate(limit: &Limit) -> String {
    format!("max {} per {}", limit.max, limit.window.canonical())
}

/// Returns each term by which an approval of the tool's calls is easier to obtain, or covers more,
/// under `new` than under `old`.
pub(super) fn looser_approval(old: &Policy, new: &Policy, tool: &str, direction: Direction) -> Vec<String> {
    let call = Witness::of_tool(tool);
    let [old, new] = [old, new].map(|policy| call.evaluate(policy).terms(&call.call()));
    let mut found = Vec::new();
    let mut change = |setting: &str, from: String, to: String| {
        found.push(direction.describe("approval", setting, &from, &to));
    };
    if new.ttl > old.ttl {
        change("ttl", seconds(old.ttl), seconds(new.ttl));
    }
    if new.min_approvers < old.min_approvers {
        change("min_approvers", old.min_approvers.to_string(), new.min_approvers.to_string());
    }
    if new.uses > old.uses {
        change("uses", old.uses.to_string(), new.uses.to_string());
    }
    let (before, after) = (approvers(&old), approvers(&new));
    let has_more_approvers = match (&before, &after) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before), Some(after)) => {
            let before: HashSet<&str> = before.iter().copied().collect();
            after.iter().any(|name| !before.contains(name))
        }
    };
    if has_more_approvers {
        let shown = |names: Option<Vec<&str>>| names.map_or_else(|| "anyone".to_owned(), |names| names.join(" or "));
        change("approvers", shown(before), shown(after));
    }
    let binds_less = match (&old.bind, &new.bind) {
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
    if binds_less {
        change("bind", describe_binding(old.bind.as_deref()), describe_binding(new.bind.as_deref()));
    }
    found
}

fn describe_binding(bind: Option<&[&Binding]>) -> String {
    let one = |binding: &&Binding| format!("{}{}", binding.path, if binding.at_most { "<=" } else { "" });
    match bind {
        None => "all arguments".to_owned(),
        Some([]) => "no argument".to_owned(),
        Some(all) => all.iter().map(one).collect::<Vec<_>>().join(" and "),
    }
}

/// Returns the names that are in every list of approvers. `None` means anyone.
fn approvers<'p>(terms: &Terms<'p>) -> Option<Vec<&'p str>> {
    let (first, others) = terms.approvers.split_first()?;
    let others: Vec<HashSet<&str>> = others.iter().map(|list| list.iter().map(|name| &**name).collect()).collect();
    Some(first.iter().map(|name| &**name).filter(|name| others.iter().all(|list| list.contains(name))).collect())
}

fn seconds(ttl: Duration) -> String {
    format!("{}s", ttl.as_secs())
}
