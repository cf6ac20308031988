//! The compiled form of a document.

use super::Digest;
use super::approval::Approving;
use super::condition::Condition;
use super::limit::{Algorithm, Limit, Scope, Window};
use super::pattern::Names;
use crate::amount::Amount;
use crate::call::path::Path;
use crate::json::pointer;

/// A compiled document.
pub(crate) struct Compiled {
    /// The document in one line of JSON.
    pub(crate) text: Box<str>,
    pub(crate) digest: Digest,
    pub(crate) default: DefaultEffect,
    pub(crate) hide: Names,
    pub(crate) names: Names,
    pub(crate) entries: Entries,
    pub(crate) all_tools: Rules,
    pub(crate) counters: Vec<Counter>,
    /// A rule or limit reads the time.
    pub(crate) reads_time: bool,
}

/// The outcome for a tool that no entry matches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultEffect {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Action {
    #[default]
    Allow,
    Deny,
    RequireApproval,
}

/// A rules object.
#[derive(Default)]
pub(crate) struct Rules {
    pub(crate) action: Action,
    pub(crate) reason: Option<Box<str>>,
    pub(crate) require: Box<[Rule]>,
    pub(crate) deny_if: Box<[Rule]>,
    pub(crate) require_approval_if: Box<[Rule]>,
    /// Boxed, because it is rare.
    pub(crate) approval: Option<Box<Approving>>,
    /// `rate_limit` comes last.
    pub(crate) limits: Box<[Limit]>,
}

impl Rules {
    /// Returns `true` if they can stop a call, apart from their limits.
    pub(crate) fn can_stop(&self) -> bool {
        self.action != Action::Allow
            || !(self.require.is_empty() && self.deny_if.is_empty() && self.require_approval_if.is_empty())
    }

    /// Returns `true` if they have no rule, no limit and no `approval`.
    pub(crate) fn is_empty(&self) -> bool {
        !self.can_stop() && self.approval.is_none() && self.limits.is_empty()
    }
}

pub(crate) struct Rule {
    pub(crate) conditions: Box<[Condition]>,
    pub(crate) message: Option<Box<str>>,
}

/// The rules of every entry. Most entries of a large policy are empty, and have none.
#[derive(Default)]
pub(crate) struct Entries {
    /// For each entry, one above the index of its rules; zero if it has none.
    index: Vec<u32>,
    rules: Vec<Rules>,
}

impl Entries {
    #[inline]
    pub(crate) fn get(&self, entry: u32) -> Option<&Rules> {
        let index = self.index.get(entry as usize)?.checked_sub(1)?;
        self.rules.get(index as usize)
    }

    /// The entries that have rules, in document order.
    pub(crate) fn with_rules(&self) -> impl Iterator<Item = (u32, &Rules)> {
        (0u32..).zip(&self.index).filter_map(|(entry, _)| Some((entry, self.get(entry)?)))
    }

    pub(crate) fn get_mut(&mut self, entry: u32) -> Option<&mut Rules> {
        let index = self.index.get(entry as usize)?.checked_sub(1)?;
        self.rules.get_mut(index as usize)
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn push(&mut self, rules: Rules) {
        let index = if rules.is_empty() {
            0
        } else {
            self.rules.push(rules);
            u32::try_from(self.rules.len()).unwrap_or(u32::MAX)
        };
        self.index.push(index);
    }

    pub(crate) fn shrink(&mut self) {
        self.index.shrink_to_fit();
        self.rules.shrink_to_fit();
    }
}

/// A counter that one or more limits charge.
pub(crate) struct Counter {
    pub(crate) name: Box<str>,
    pub(crate) window: Window,
    pub(crate) utc_offset: i32,
    pub(crate) scope: Scope,
    pub(crate) algorithm: Algorithm,
    /// The maximum of the first limit that names it.
    pub(crate) max: Amount,
    /// The host's own maximum, which a token bucket refills by.
    pub(crate) max_from: Option<Box<Path>>,
    /// The rank among the token buckets of this name, slowest refill first. The rank, not the
    /// document order, identifies a bucket across edits of the policy. If one is removed, the next
    /// one takes its rank, and has at least as much missing.
    pub(crate) bucket: usize,
}

/// A reference to the rule or limit that a decision names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleRef {
    /// `None` for `all_tools`.
    pub(crate) entry: Option<u32>,
    pub(crate) section: Section,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Action,
    Require(u32),
    DenyIf(u32),
    RequireApprovalIf(u32),
    Limit(u32),
    RateLimit,
}

impl Compiled {
    pub(crate) fn rules(&self, entry: Option<u32>) -> Option<&Rules> {
        entry.map_or(Some(&self.all_tools), |entry| self.entries.get(entry))
    }

    pub(crate) fn pointer(&self, rule: RuleRef) -> String {
        let mut text = match rule.entry {
            None => "/all_tools".to_owned(),
            Some(entry) => {
                let mut text = "/tools".to_owned();
                pointer::push_key(&mut text, self.names.name(entry));
                text
            }
        };
        let (key, index) = match rule.section {
            Section::Action => ("action", None),
            Section::Require(index) => ("require", Some(index)),
            Section::DenyIf(index) => ("deny_if", Some(index)),
            Section::RequireApprovalIf(index) => ("require_approval_if", Some(index)),
            Section::Limit(index) => ("limits", Some(index)),
            Section::RateLimit => ("rate_limit", None),
        };
        pointer::push_key(&mut text, key);
        if let Some(index) = index {
            pointer::push_index(&mut text, index as usize);
        }
        text
    }

    /// The author's message for calls that the rule stops.
    pub(crate) fn message(&self, rule: RuleRef) -> Option<&str> {
        let rules = self.rules(rule.entry)?;
        match rule.section {
            Section::Action => rules.reason.as_deref(),
            Section::Require(index) => rules.require.get(index as usize)?.message.as_deref(),
            Section::DenyIf(index) => rules.deny_if.get(index as usize)?.message.as_deref(),
            Section::RequireApprovalIf(index) => rules.require_approval_if.get(index as usize)?.message.as_deref(),
            Section::Limit(index) => rules.limits.get(index as usize)?.on_exceed.as_deref(),
            Section::RateLimit => None,
        }
    }
}
