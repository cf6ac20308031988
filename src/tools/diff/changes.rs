//! Finds where one policy is looser than another.
//!
//! Each rule stops calls independently of the others. So if the other policy has an equivalent of
//! each rule, for all tools that the rule applies to, then it stops at least as much. If it stops
//! less, then one of the rules without an equivalent no longer stops some call. So only these rules
//! are examined, one by one.

use std::collections::HashSet;

use super::Budget;
use super::compared::{ComparedPolicy, NameEffect};
use super::cover::{Clause, clauses, comparisons_in, covers};
use super::names::{common_name, fresh_character, generic_name};
use super::report::{Change, ChangeDetail, Comparison, Undecided};
use super::search::{FoundCall, Search, boundary};
use super::terms::{Direction, LimitComparison, compare_limit, looser_approval};
use crate::json::pointer;
use crate::policy::Approving;
use crate::policy::ast::RulesObject;
use crate::policy::limit::Limit;
use crate::tools::explain::RuleEffect;

/// The maximum number of tools that are tried for one pattern.
const MAX_TOOLS_PER_PATTERN: usize = 16;
/// The maximum number of patterns with approval terms that are compared with each other.
const MAX_APPROVAL_PATTERNS: usize = 64;

const DEFAULT_DENY: &str = "(default deny)";
const BUDGET_EXHAUSTED: &str = "the budget of the comparison is exhausted";

/// Compares two policies in one direction: finds where `to` is looser than `from`.
pub(super) struct Comparer<'s, 'p> {
    from: &'s ComparedPolicy<'p>,
    to: &'s ComparedPolicy<'p>,
    direction: Direction,
    fresh: char,
    budget: Budget,
    changes: Vec<Change>,
    undecided: Vec<Undecided>,
    /// The patterns for which a changed call has been found.
    changed: HashSet<String>,
    /// The patterns and texts that have been reported.
    reported: HashSet<(String, String)>,
}

impl<'s, 'p> Comparer<'s, 'p> {
    pub(super) fn new(
        from: &'s ComparedPolicy<'p>,
        to: &'s ComparedPolicy<'p>,
        direction: Direction,
        budget: u64,
    ) -> Self {
        let fresh = fresh_character([from.policy, to.policy]);
        let (changes, undecided) = (Vec::new(), Vec::new());
        let (budget, changed, reported) = (Budget { left: budget }, HashSet::new(), HashSet::new());
        Self { from, to, direction, fresh, budget, changes, undecided, changed, reported }
    }

    /// Compares everything by which `from` stops calls.
    pub(super) fn compare(mut self) -> Comparison {
        self.compare_default();
        let still_hidden: HashSet<&str> = self.to.hide.iter().copied().collect();
        for pattern in &self.from.hide {
            if !still_hidden.contains(pattern) {
                self.check_clause(pattern, Clause::Deny, "(hidden)");
            }
        }
        let entries = (0u32..).zip(&self.from.names).map(|(entry, name)| (Some(entry), *name));
        for (entry, pattern) in entries.chain([(None, "*")]) {
            self.compare_entry(entry, pattern);
        }
        self.compare_approvals();
        Comparison { changes: self.changes, undecided: self.undecided }
    }

    /// Compares the tools that `from` denies because no entry matches them.
    fn compare_default(&mut self) {
        if !self.from.policy.denies_by_default() {
            return;
        }
        let to = self.to;
        if !to.policy.denies_by_default() {
            self.check_clause("*", Clause::Deny, DEFAULT_DENY);
        }
        for name in &to.names {
            if !self.from.entry_of.contains_key(name) && !self.spend_lookup() {
                self.report_undecided(name, DEFAULT_DENY, BUDGET_EXHAUSTED);
                continue;
            }
            let is_matched = self.from.entry_of.contains_key(name)
                || !self.from.policy.entries_matching(&generic_name(name, self.fresh)).is_empty();
            if !is_matched {
                self.check_clause(name, Clause::Deny, DEFAULT_DENY);
            }
        }
    }

    /// Compares the rules and limits of an entry, or of `all_tools` for `None`.
    fn compare_entry(&mut self, entry: Option<u32>, pattern: &str) {
        let (from, to) = (self.from, self.to);
        // The entry of the same name in the other policy.
        let twin = entry.map_or(Some(None), |_| to.entry_of.get(pattern).copied().map(Some));
        if let Some(rules) = from.rules_of(entry) {
            let kept: Vec<&RulesObject> = twin.into_iter().chain([None]).filter_map(|twin| to.rules_of(twin)).collect();
            if !kept.iter().any(|kept| kept.stops_as(rules)) {
                let base = from.pointer(entry);
                for (clause, below) in clauses(rules) {
                    if twin.is_none() || self.budget.left == 0 || !covers(&kept, clause, &mut self.budget) {
                        self.check_clause(pattern, clause, &format!("{base}{below}"));
                    }
                }
            }
        }
        let kept: Vec<&Limit> = twin.into_iter().chain([None]).flat_map(|twin| to.policy.limits_of(twin)).collect();
        for limit in from.policy.limits_of(entry) {
            let has_budget = self.budget.spend(1 + kept.len() as u64 / 16);
            if !has_budget || compare_limit(limit, &kept, self.direction) != LimitComparison::AsStrict {
                self.check_limit(entry, pattern, limit);
            }
        }
    }

    /// Checks a clause of `from` that applies to a pattern and that the entry of the same name in
    /// `to` does not cover.
    fn check_clause(&mut self, pattern: &str, clause: Clause<'_>, rule: &str) {
        let mut tools = Vec::new();
        if self.spend_lookup() && self.is_covered(pattern, clause, &mut tools) {
            return;
        }
        if self.budget.left > 0 {
            self.add_tools(pattern, &mut tools);
        }
        let mut best: Option<FoundCall> = None;
        for tool in &tools {
            if let Some(found) = self.search(tool, rule) {
                let is_by_rule = found.is_by_rule;
                if best.is_none() || is_by_rule {
                    best = Some(found);
                }
                if is_by_rule {
                    break;
                }
            }
        }
        let is_known = self.changed.contains(pattern);
        match best {
            Some(found) if found.is_by_rule || !is_known => self.report_call(pattern, found),
            Some(_) => {}
            None if is_known => {}
            None => {
                let reason = if self.budget.left == 0 {
                    BUDGET_EXHAUSTED
                } else {
                    "found neither rules that certainly stop the same calls nor a call that passes"
                };
                self.report_undecided(pattern, rule, reason);
            }
        }
    }

    /// Spends the steps for finding and reading the entries of a few tools. The time is
    /// proportional to the number of patterns in a policy, since all of them may match.
    fn spend_lookup(&mut self) -> bool {
        self.budget.spend(1 + (self.from.pattern_count + self.to.pattern_count) / 4)
    }

    /// Returns `true` if `to` certainly stops what the clause stops, for all tools of the pattern.
    /// Otherwise adds some tools for which it may not.
    fn is_covered(&mut self, pattern: &str, clause: Clause<'_>, tools: &mut Vec<String>) -> bool {
        let to = self.to;
        let name = generic_name(pattern, self.fresh);
        match to.name_effect(pattern, self.fresh) {
            NameEffect::Denied => true,
            NameEffect::Rules => covers(&to.rules_for(&name), clause, &mut self.budget),
            NameEffect::DeniedByDefault => {
                let mut is_covered = true;
                for other in &to.names {
                    if self.budget.left == 0 {
                        return false;
                    }
                    let Some(tool) = self.common_tool(pattern, other) else { continue };
                    if !self.spend_lookup() {
                        return false;
                    }
                    if to.name_effect(other, self.fresh) == NameEffect::Denied {
                        continue;
                    }
                    let rules = to.rules_for(&generic_name(other, self.fresh));
                    if !covers(&rules, clause, &mut self.budget) {
                        is_covered = false;
                        tools.push(tool);
                        if tools.len() >= MAX_TOOLS_PER_PATTERN {
                            break;
                        }
                    }
                }
                is_covered
            }
        }
    }

    /// Returns a tool that both patterns match. If the budget is exhausted, assumes that there is
    /// one.
    fn common_tool(&mut self, one: &str, other: &str) -> Option<String> {
        if one == "*" || !self.budget.spend(1) {
            return Some(generic_name(other, self.fresh));
        }
        let found = common_name(one, other);
        if found.is_some() {
            self.budget.spend((one.len() * other.len() / 16) as u64);
        }
        found
    }

    /// Adds tools of a pattern to those that are tried.
    fn add_tools(&mut self, pattern: &str, tools: &mut Vec<String>) {
        if !pattern.contains('*') {
            tools.clear();
            tools.push(pattern.to_owned());
            return;
        }
        let (from, to) = (self.from, self.to);
        tools.insert(0, generic_name(pattern, self.fresh));
        for name in to.names.iter().chain(&from.names) {
            if tools.len() >= MAX_TOOLS_PER_PATTERN {
                break;
            }
            if let Some(tool) = self.common_tool(pattern, name)
                && !tool.is_empty()
                && !tools.contains(&tool)
            {
                tools.push(tool);
            }
        }
    }

    /// Searches for a call of the tool that the rule of `from` stops and `to` does not.
    fn search(&mut self, tool: &str, rule: &str) -> Option<FoundCall> {
        if !self.spend_lookup() {
            return None;
        }
        let (from, to) = (self.from, self.to);
        let mut rules = to.rules_for(tool);
        rules.extend(from.rules_for(tool));
        // The steps for reading each rules object and for building the pointers of its rules.
        if !self.budget.spend(4 * rules.len() as u64) {
            return None;
        }
        let comparisons = comparisons_in(&rules);
        let order = to.evaluation_order(tool);
        Search { old: from.policy, new: to.policy, tool, comparisons, rule, order }.run(&mut self.budget)
    }

    fn report_call(&mut self, pattern: &str, found: FoundCall) {
        let FoundCall { witness, .. } = found;
        let (from, to) = (self.from.policy, self.to.policy);
        let boundary = boundary(from, to, &witness);
        let (old, new) = self.direction.old_first(from, to);
        let (old, new) = (RuleEffect::of(old, &witness), RuleEffect::of(new, &witness));
        self.changed.insert(pattern.to_owned());
        self.report_change(pattern, ChangeDetail::Call { old, new, witness: Box::new(witness), boundary });
    }

    fn report_terms(&mut self, pattern: &str, rule: String, text: String) {
        self.report_change(pattern, ChangeDetail::Terms { rule, text });
    }

    fn report_change(&mut self, pattern: &str, detail: ChangeDetail) {
        let change = Change { kind: self.direction.kind(), tools: pattern.to_owned(), detail };
        if self.reported.insert((pattern.to_owned(), change.to_string())) {
            self.changes.push(change);
        }
    }

    fn report_undecided(&mut self, pattern: &str, rule: &str, reason: &str) {
        let undecided = Undecided {
            kind: self.direction.kind(),
            tools: pattern.to_owned(),
            rule: rule.to_owned(),
            reason: reason.to_owned(),
        };
        if self.reported.insert((pattern.to_owned(), undecided.to_string())) {
            self.undecided.push(undecided);
        }
    }

    /// Checks a limit of `from` that applies to a pattern and for which the entry of the same name
    /// in `to` has no limit that is as strict.
    fn check_limit(&mut self, entry: Option<u32>, pattern: &str, limit: &Limit) {
        let to = self.to;
        if limit.shadow && !to.enforced_counters.contains(&*limit.counter) {
            return;
        }
        if !self.spend_lookup() {
            return self.report_undecided(pattern, &self.from.pointer(entry), BUDGET_EXHAUSTED);
        }
        let comparison = match to.name_effect(pattern, self.fresh) {
            NameEffect::Denied => return,
            NameEffect::Rules => {
                compare_limit(limit, &to.limits_for(&generic_name(pattern, self.fresh)), self.direction)
            }
            NameEffect::DeniedByDefault => {
                let mut worst = LimitComparison::AsStrict;
                for other in &to.names {
                    if !self.spend_lookup() {
                        worst = LimitComparison::Undecided(BUDGET_EXHAUSTED.to_owned());
                        break;
                    }
                    if self.common_tool(pattern, other).is_none()
                        || to.name_effect(other, self.fresh) == NameEffect::Denied
                    {
                        continue;
                    }
                    worst = compare_limit(limit, &to.limits_for(&generic_name(other, self.fresh)), self.direction);
                    if worst != LimitComparison::AsStrict {
                        break;
                    }
                }
                worst
            }
        };
        let base = self.from.pointer(entry);
        let rule = if limit.is_rate_limit { format!("{base}/rate_limit") } else { format!("{base}/limits") };
        match comparison {
            LimitComparison::AsStrict => {}
            LimitComparison::Looser(text) => self.report_terms(pattern, rule, text),
            LimitComparison::Undecided(text) => self.report_undecided(pattern, &rule, &text),
        }
    }

    /// Compares the approval terms for each entry that has some, and for tools whose entries have
    /// none.
    fn compare_approvals(&mut self) {
        let (from, to) = (self.from, self.to);
        let (before, after) = (from.approvals(), to.approvals());
        if before == after || !from.requires_approval() || !to.requires_approval() {
            return;
        }
        let mut names: Vec<&str> = before.keys().chain(after.keys()).copied().chain(["*"]).collect();
        names.sort_unstable();
        names.dedup();
        let patterns: Vec<&str> = names.iter().copied().filter(|name| *name != "*" && name.contains('*')).collect();
        // The terms of patterns and of `all_tools` are read again for each name.
        let sizes = before.iter().chain(&after).map(|(name, terms)| (*name, size(terms)));
        let shared: u64 = sizes.filter(|(name, _)| name.contains('*')).map(|(_, size)| size / 64).sum();
        if patterns.len() > MAX_APPROVAL_PATTERNS {
            self.report_undecided("*", "approval", "too many patterns have approval terms");
            return;
        }
        for name in &names {
            if !self.spend_lookup() || !self.budget.spend(1 + shared) {
                self.report_undecided(name, &approval_pointer(name), BUDGET_EXHAUSTED);
                continue;
            }
            let tool = generic_name(name, self.fresh);
            let never_requires_approval = |compared: &ComparedPolicy<'_>| {
                compared.name_effect(name, self.fresh) == NameEffect::Denied
                    || (!name.contains('*') && !compared.requires_approval_of(&tool))
            };
            if never_requires_approval(from) || never_requires_approval(to) {
                continue;
            }
            for text in looser_approval(from.policy, to.policy, &tool, self.direction) {
                self.report_terms(name, approval_pointer(name), text);
            }
        }
        for (index, one) in patterns.iter().enumerate() {
            for other in patterns.iter().skip(index + 1) {
                // If one pattern includes the other, the comparison of the inner one was complete.
                let is_included =
                    |inner: &str, outer: &str| common_name(&generic_name(inner, self.fresh), outer).is_some();
                if is_included(one, other) || is_included(other, one) {
                    continue;
                }
                if common_name(one, other).is_some() {
                    let reason = format!("`{other}` also has approval terms, and applies to some of the same tools");
                    self.report_undecided(one, &approval_pointer(one), &reason);
                }
            }
        }
    }
}

/// Returns the approximate size of approval terms, in bytes.
fn size(terms: &Approving) -> u64 {
    let approvers = terms.approvers.iter().flatten().map(|name| 3 + name.len() as u64);
    let bind = terms.bind.iter().flatten().map(|binding| 8 + 8 * binding.path.steps().len() as u64);
    32 + approvers.chain(bind).sum::<u64>()
}

fn approval_pointer(name: &str) -> String {
    let mut pointer = if name == "*" { "/all_tools".to_owned() } else { "/tools".to_owned() };
    if name != "*" {
        pointer::push_key(&mut pointer, name);
    }
    pointer + "/approval"
}
