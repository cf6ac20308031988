//! Where one policy is looser than another.
//!
//! Every rule stops calls by itself. So if each rule of one policy has its like in the other, for all tools that it applies to, the
//! other stops at least as much; and where it stops less, it is one of the rules without a like that no longer stops a call. These
//! are looked into one by one.

use std::collections::HashSet;

use super::Budget;
use super::cover::{Piece, covers, pieces, tests_of};
use super::names::{common, fresh_character, generic};
use super::report::{Change, ChangeDetail, Comparison, Kind, Undecided};
use super::search::{FoundCall, Search, boundary};
use super::side::{Side, Standing};
use super::terms::{Bound, Sense, bound, looser_approval};
use crate::policy::Approving;
use crate::policy::ast::RulesObject;
use crate::policy::limit::Limit;
use crate::tools::explain::RuleEffect;

/// Up to so many tools of one pattern are tried.
const TOOLS: usize = 16;
/// Up to so many patterns with terms for approvals are compared with each other.
const PATTERNS: usize = 64;

const SPENT: &str = "the budget of the comparison is spent";

/// What is found, going through the rules of `from`.
pub(super) struct Changes<'s, 'p> {
    from: &'s Side<'p>,
    to: &'s Side<'p>,
    sense: Sense,
    fresh: char,
    budget: Budget,
    changes: Vec<Change>,
    undecided: Vec<Undecided>,
    /// Tools of which a changed call has been found.
    changed: HashSet<String>,
    /// What has been told of which tools.
    told: HashSet<(String, String)>,
}

impl Sense {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Forward => Kind::Wider,
            Self::Backward => Kind::Narrower,
        }
    }
}

impl<'s, 'p> Changes<'s, 'p> {
    pub(super) fn new(from: &'s Side<'p>, to: &'s Side<'p>, sense: Sense, budget: u64) -> Self {
        let fresh = fresh_character([from.policy, to.policy]);
        let (changes, undecided) = (Vec::new(), Vec::new());
        let (budget, changed, told) = (Budget { left: budget }, HashSet::new(), HashSet::new());
        Self { from, to, sense, fresh, budget, changes, undecided, changed, told }
    }

    /// Goes through all that `from` stops.
    pub(super) fn find(mut self) -> Comparison {
        self.default();
        let kept: HashSet<&str> = self.to.hide.iter().copied().collect();
        for pattern in &self.from.hide {
            if !kept.contains(pattern) {
                self.piece(pattern, Piece::Deny, "(hidden)");
            }
        }
        let all = (0u32..).zip(&self.from.names).map(|(entry, name)| (Some(entry), *name));
        for (entry, pattern) in all.chain([(None, "*")]) {
            self.rules(entry, pattern);
        }
        self.approvals();
        Comparison { changes: self.changes, undecided: self.undecided }
    }

    /// Tools that no entry names, and that are denied for it.
    fn default(&mut self) {
        if !self.from.policy.denies_by_default() {
            return;
        }
        let to = self.to;
        if !to.policy.denies_by_default() {
            self.piece("*", Piece::Deny, "(default deny)");
        }
        for name in &to.names {
            if !self.from.entry_of.contains_key(name) && !self.look_up() {
                self.undecided(name, "(default deny)", SPENT);
                continue;
            }
            let is_named = self.from.entry_of.contains_key(name)
                || !self.from.policy.entries_matching(&generic(name, self.fresh)).is_empty();
            if !is_named {
                self.piece(name, Piece::Deny, "(default deny)");
            }
        }
    }

    /// What one entry says, or `all_tools`.
    fn rules(&mut self, entry: Option<u32>, pattern: &str) {
        let (from, to) = (self.from, self.to);
        // The same entry in the other policy.
        let twin = entry.map_or(Some(None), |_| to.entry_of.get(pattern).copied().map(Some));
        if let Some(rules) = from.rules_of(entry) {
            let kept: Vec<&RulesObject> = twin.into_iter().chain([None]).filter_map(|twin| to.rules_of(twin)).collect();
            if !kept.iter().any(|kept| kept.stops_as(rules)) {
                let base = from.place(entry);
                for (piece, place) in pieces(rules) {
                    if twin.is_none() || self.budget.left == 0 || !covers(&kept, piece, &mut self.budget) {
                        self.piece(pattern, piece, &format!("{base}{place}"));
                    }
                }
            }
        }
        let here: Vec<&Limit> = twin.into_iter().chain([None]).flat_map(|twin| to.policy.limits_of(twin)).collect();
        for limit in from.policy.limits_of(entry) {
            let is_paid = self.budget.spend(1 + here.len() as u64 / 16);
            if !is_paid || bound(limit, &here, self.sense) != Bound::Holds {
                self.limit(entry, pattern, limit);
            }
        }
    }

    /// A piece of `from` that applies to a pattern and has no like where it stood.
    fn piece(&mut self, pattern: &str, piece: Piece<'_>, place: &str) {
        let mut tools = Vec::new();
        if self.look_up() && self.is_kept(pattern, piece, &mut tools) {
            return;
        }
        if self.budget.left > 0 {
            self.add_tools(pattern, &mut tools);
        }
        let mut best: Option<FoundCall> = None;
        for tool in &tools {
            if let Some(found) = self.search(tool, place) {
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
            Some(found) if found.is_by_rule || !is_known => self.changed_call(pattern, found),
            Some(_) => {}
            None if is_known => {}
            None => {
                let reason = if self.budget.left == 0 {
                    SPENT
                } else {
                    "no rule was found that surely stops the same calls, and no call that passes"
                };
                self.undecided(pattern, place, reason);
            }
        }
    }

    /// Pays for finding the entries of a few tools, and for what they say: it takes time in proportion to the patterns of a
    /// policy, all of which may match.
    fn look_up(&mut self) -> bool {
        self.budget.spend(1 + (self.from.patterns + self.to.patterns) / 4)
    }

    /// Whether `to` stops what the piece does, for all tools of the pattern. Else, some tools for which it may not.
    fn is_kept(&mut self, pattern: &str, piece: Piece<'_>, tools: &mut Vec<String>) -> bool {
        let to = self.to;
        let name = generic(pattern, self.fresh);
        match to.standing(pattern, self.fresh) {
            Standing::Denied => true,
            Standing::Ruled => covers(&to.rules_for(&name), piece, &mut self.budget),
            Standing::Unnamed => {
                let mut is_kept = true;
                for other in &to.names {
                    if self.budget.left == 0 {
                        return false;
                    }
                    let Some(found) = self.meet(pattern, other) else { continue };
                    if !self.look_up() {
                        return false;
                    }
                    if to.standing(other, self.fresh) == Standing::Denied {
                        continue;
                    }
                    let rules = to.rules_for(&generic(other, self.fresh));
                    if !covers(&rules, piece, &mut self.budget) {
                        is_kept = false;
                        tools.push(found);
                        if tools.len() >= TOOLS {
                            break;
                        }
                    }
                }
                is_kept
            }
        }
    }

    /// A tool that both patterns name. Past the budget it is taken to be there.
    fn meet(&mut self, one: &str, other: &str) -> Option<String> {
        if one == "*" {
            return Some(generic(other, self.fresh));
        }
        if !self.budget.spend(1) {
            return Some(generic(other, self.fresh));
        }
        let found = common(one, other);
        if found.is_some() && !self.budget.spend((one.len() * other.len() / 16) as u64) {
            self.budget.left = 0;
        }
        found
    }

    /// Adds tools of a pattern to those to be tried.
    fn add_tools(&mut self, pattern: &str, tools: &mut Vec<String>) {
        if !pattern.contains('*') {
            tools.clear();
            tools.push(pattern.to_owned());
            return;
        }
        let (from, to) = (self.from, self.to);
        tools.insert(0, generic(pattern, self.fresh));
        for name in to.names.iter().chain(&from.names) {
            if tools.len() >= TOOLS {
                break;
            }
            if let Some(found) = self.meet(pattern, name)
                && !found.is_empty()
                && !tools.contains(&found)
            {
                tools.push(found);
            }
        }
    }

    fn search(&mut self, tool: &str, place: &str) -> Option<FoundCall> {
        if !self.look_up() {
            return None;
        }
        let (from, to) = (self.from, self.to);
        let mut rules = to.rules_for(tool);
        rules.extend(from.rules_for(tool));
        // Each of them is looked through, and its places are written down.
        if !self.budget.spend(4 * rules.len() as u64) {
            return None;
        }
        let tests = tests_of(&rules);
        let search = Search { old: from.policy, new: to.policy, tool, tests, rule: place, order: to.order(tool) };
        search.run(&mut self.budget)
    }

    fn changed_call(&mut self, pattern: &str, found: FoundCall) {
        let FoundCall { witness, .. } = found;
        let (from, to) = (self.from.policy, self.to.policy);
        let boundary = boundary(from, to, &witness);
        let (old, new) = self.sense.pair(from, to);
        let (old, new) = (RuleEffect::of(old, &witness), RuleEffect::of(new, &witness));
        let detail = ChangeDetail::Call { old, new, witness: Box::new(witness), boundary };
        let change = Change { kind: self.sense.kind(), tools: pattern.to_owned(), detail };
        self.changed.insert(pattern.to_owned());
        if self.told.insert((pattern.to_owned(), change.to_string())) {
            self.changes.push(change);
        }
    }

    fn undecided(&mut self, pattern: &str, place: &str, reason: &str) {
        let undecided = Undecided {
            kind: self.sense.kind(),
            tools: pattern.to_owned(),
            rule: place.to_owned(),
            reason: reason.to_owned(),
        };
        if self.told.insert((pattern.to_owned(), undecided.to_string())) {
            self.undecided.push(undecided);
        }
    }

    /// A limit of `from` that has no like where it stood.
    fn limit(&mut self, entry: Option<u32>, pattern: &str, limit: &Limit) {
        let to = self.to;
        if limit.shadow && !to.counting.contains(&*limit.counter) {
            return;
        }
        if !self.look_up() {
            return self.undecided(pattern, &self.from.place(entry), SPENT);
        }
        let bounded = match to.standing(pattern, self.fresh) {
            Standing::Denied => return,
            Standing::Ruled => bound(limit, &to.limits_for(&generic(pattern, self.fresh)), self.sense),
            Standing::Unnamed => {
                let mut worst = Bound::Holds;
                for other in &to.names {
                    if !self.look_up() {
                        worst = Bound::Unclear(SPENT.to_owned());
                        break;
                    }
                    if self.meet(pattern, other).is_none() || to.standing(other, self.fresh) == Standing::Denied {
                        continue;
                    }
                    match bound(limit, &to.limits_for(&generic(other, self.fresh)), self.sense) {
                        Bound::Holds => {}
                        found => {
                            worst = found;
                            break;
                        }
                    }
                }
                worst
            }
        };
        let base = self.from.place(entry);
        let place = if limit.is_rate_limit { format!("{base}/rate_limit") } else { format!("{base}/limits") };
        match bounded {
            Bound::Holds => {}
            Bound::Loosens(text) => self.terms(pattern, place, text),
            Bound::Unclear(text) => self.undecided(pattern, &place, &text),
        }
    }

    fn terms(&mut self, pattern: &str, rule: String, text: String) {
        let detail = ChangeDetail::Terms { rule, text };
        let change = Change { kind: self.sense.kind(), tools: pattern.to_owned(), detail };
        if self.told.insert((pattern.to_owned(), change.to_string())) {
            self.changes.push(change);
        }
    }

    /// Approvals: at each entry that has terms for them, and where none has.
    fn approvals(&mut self) {
        let (from, to) = (self.from, self.to);
        let (before, after) = (from.approvals(), to.approvals());
        if before == after || !from.asks() || !to.asks() {
            return;
        }
        let mut names: Vec<&str> = before.keys().chain(after.keys()).copied().chain(["*"]).collect();
        names.sort_unstable();
        names.dedup();
        let patterns: Vec<&str> = names.iter().copied().filter(|name| *name != "*" && name.contains('*')).collect();
        // Those of patterns and of all tools are looked at again for each name.
        let sizes = before.iter().chain(&after).map(|(name, terms)| (*name, size(terms)));
        let shared: u64 = sizes.filter(|(name, _)| name.contains('*')).map(|(_, size)| size / 64).sum();
        if patterns.len() > PATTERNS {
            self.undecided("*", "approval", "too many patterns have terms for approvals");
            return;
        }
        for name in &names {
            if !self.look_up() || !self.budget.spend(1 + shared) {
                self.undecided(name, &approval_place(name), SPENT);
                continue;
            }
            let tool = generic(name, self.fresh);
            let is_idle = |side: &Side<'_>| {
                side.standing(name, self.fresh) == Standing::Denied || (!name.contains('*') && !side.asks_of(&tool))
            };
            if is_idle(from) || is_idle(to) {
                continue;
            }
            for text in looser_approval(from.policy, to.policy, &tool, self.sense) {
                self.terms(name, approval_place(name), text);
            }
        }
        for (index, one) in patterns.iter().enumerate() {
            for other in patterns.iter().skip(index + 1) {
                // Of patterns that lie in each other, the inner one has been compared.
                let lies = |inner: &str, outer: &str| common(&generic(inner, self.fresh), outer).is_some();
                if lies(one, other) || lies(other, one) {
                    continue;
                }
                if common(one, other).is_some() {
                    let reason =
                        format!("`{other}` has terms for approvals too, which count for some of the same tools");
                    self.undecided(one, &approval_place(one), &reason);
                }
            }
        }
    }
}

/// About the bytes of terms for approvals.
fn size(terms: &Approving) -> u64 {
    let approvers = terms.approvers.iter().flatten().map(|name| 3 + name.len() as u64);
    let bind = terms.bind.iter().flatten().map(|binding| 8 + 8 * binding.path.steps().len() as u64);
    32 + approvers.chain(bind).sum::<u64>()
}

fn approval_place(name: &str) -> String {
    let mut place = if name == "*" { "/all_tools".to_owned() } else { "/tools".to_owned() };
    if name != "*" {
        crate::json::pointer::push_key(&mut place, name);
    }
    place + "/approval"
}
