//! What a policy says of a call: pure, total, without an allocation.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Policy;
use super::approval::{Approving, DEFAULT_TTL, Terms};
use super::code::Code;
use super::compiled::{Action, Compiled, DefaultEffect, Rule, RuleRef, Rules, Section};
use super::condition::{Condition, Stance, Truth};
use super::pattern::Matching;
use super::plan::{Plan, Uncountable};
use crate::call::ToolCall;
use crate::call::path::Facts;
use crate::time::Timestamp;

/// What the rules of a policy say of a call. Whether its limits have room is another question, for a
/// [`Gate`](crate::Gate) and its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety hangs on it: no arm may be forgotten")]
pub enum Effect {
    /// No rule stops it.
    Allow,
    /// A rule denies it.
    Deny(Code),
    /// A person must approve it.
    RequireApproval,
}

/// A policy's evaluation of a call.
#[derive(Clone)]
#[must_use = "an evaluation that nobody looks at stops nothing"]
pub struct Evaluation<'p> {
    policy: &'p Policy,
    effect: Effect,
    rule: Option<RuleRef>,
    matching: Matching,
}

impl Policy {
    /// Evaluates a call at an instant: everything that the policy says without its limits.
    ///
    /// Pure and total. It takes O(1) in the number of entries with an exact name, O(rules that apply), and allocates
    /// nothing but in comparisons of unusual URLs (`host_in`) and of texts from elsewhere in the call without regard to
    /// case (`value_from` with `ignore_case`).
    #[inline]
    pub fn evaluate(&self, call: &ToolCall<'_>, now: Timestamp) -> Evaluation<'_> {
        let mut evaluation = Evaluation::of(self);
        evaluation.judge(call, now);
        evaluation
    }
}

impl Compiled {
    /// Whether some rule could stop the call, which of most tools of most policies is none.
    #[inline]
    fn can_stop(&self, call: &ToolCall<'_>, matching: &Matching) -> bool {
        self.first(call, matching, |_, rules: &Rules| rules.can_stop().then_some(())).is_some()
    }

    /// The steps that look at rules.
    #[inline]
    fn effect(&self, call: &ToolCall<'_>, now: Timestamp, matching: &Matching) -> (Effect, Option<RuleRef>) {
        let facts = Facts::new(call, now);
        let action = |action: Action| {
            move |entry, rules: &Rules| (rules.action == action).then_some(RuleRef { entry, section: Section::Action })
        };
        if let Some(rule) = self.first(call, matching, action(Action::Deny)) {
            return (Effect::Deny(Code::ActionDeny), Some(rule));
        }
        let requires = |entry, rules: &Rules| {
            let broken = |rule: &Rule| rule.truth(&facts, Stance::Require) != Truth::True;
            first_rule(&rules.require, broken).map(|index| RuleRef { entry, section: Section::Require(index) })
        };
        if let Some(rule) = self.first(call, matching, requires) {
            return (Effect::Deny(Code::Require), Some(rule));
        }
        let matches = |rule: &Rule| rule.truth(&facts, Stance::Match) != Truth::False;
        let denies = |entry, rules: &Rules| {
            first_rule(&rules.deny_if, matches).map(|index| RuleRef { entry, section: Section::DenyIf(index) })
        };
        if let Some(rule) = self.first(call, matching, denies) {
            return (Effect::Deny(Code::DenyIf), Some(rule));
        }
        let asks = |entry, rules: &Rules| {
            action(Action::RequireApproval)(entry, rules).or_else(|| {
                let index = first_rule(&rules.require_approval_if, matches)?;
                Some(RuleRef { entry, section: Section::RequireApprovalIf(index) })
            })
        };
        match self.first(call, matching, asks) {
            Some(rule) => (Effect::RequireApproval, Some(rule)),
            None => (Effect::Allow, None),
        }
    }

    /// The first thing that `find` finds in the rules that apply: those of the matching entries in document order, then
    /// those of `all_tools`.
    #[inline]
    pub(crate) fn first<'c, T>(
        &'c self,
        call: &ToolCall<'_>,
        matching: &Matching,
        mut find: impl FnMut(Option<u32>, &'c Rules) -> Option<T>,
    ) -> Option<T> {
        let mut of_entry = |entry: u32| self.entries.get(entry).and_then(|rules| find(Some(entry), rules));
        let found = match matching {
            Matching::Nothing => None,
            Matching::One(entry) => of_entry(*entry),
            _ => matching.iter(&self.names, call.tool()).find_map(of_entry),
        };
        found.or_else(|| find(None, &self.all_tools))
    }
}

#[inline]
fn first_rule(rules: &[Rule], stops: impl Fn(&Rule) -> bool) -> Option<u32> {
    rules.iter().position(stops).and_then(|index| u32::try_from(index).ok())
}

impl Rule {
    #[inline]
    pub(crate) fn truth(&self, facts: &Facts<'_>, stance: Stance) -> Truth {
        Truth::all(self.conditions.iter().map(|condition: &Condition| condition.truth(facts, stance)))
    }
}

impl<'p> Evaluation<'p> {
    /// The evaluation of a call that is not judged yet. It is filled where it stays: to move it takes as long as to find what it
    /// says.
    #[inline]
    pub(crate) fn of(policy: &'p Policy) -> Self {
        Self { policy, effect: Effect::Deny(Code::MalformedCall), rule: None, matching: Matching::Nothing }
    }

    /// Says of a call what the policy says, once.
    pub(crate) fn judge(&mut self, call: &ToolCall<'_>, now: Timestamp) {
        let compiled = self.policy.compiled();
        if call.is_malformed() {
            return;
        }
        if compiled.hide.matches(call.tool()) {
            self.effect = Effect::Deny(Code::Hidden);
            return;
        }
        compiled.names.find(call.tool(), &mut self.matching);
        if self.matching.is_empty() && compiled.default == DefaultEffect::Deny {
            self.effect = Effect::Deny(Code::DefaultDeny);
            return;
        }
        if compiled.can_stop(call, &self.matching) {
            self.judge_by_rules(call, now);
        } else {
            self.effect = Effect::Allow;
        }
    }

    /// Out of line, so that a call that no rule could stop does not make room for what the others take.
    #[inline(never)]
    fn judge_by_rules(&mut self, call: &ToolCall<'_>, now: Timestamp) {
        (self.effect, self.rule) = self.policy.compiled().effect(call, now, &self.matching);
    }

    /// What the rules say.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Whether no rule stops the call.
    pub fn is_allowed(&self) -> bool {
        self.effect == Effect::Allow
    }

    /// Why the call is stopped.
    pub fn code(&self) -> Option<Code> {
        match self.effect {
            Effect::Allow => None,
            Effect::Deny(code) => Some(code),
            Effect::RequireApproval => Some(Code::Approval),
        }
    }

    /// The rule that stops the call: its JSON Pointer in the document (`/tools/create_charge/deny_if/0`), or `(hidden)` or
    /// `(default deny)`.
    pub fn rule(&self) -> Option<Cow<'static, str>> {
        match (self.effect, self.rule) {
            (Effect::Deny(Code::Hidden), _) => Some("(hidden)".into()),
            (Effect::Deny(Code::DefaultDeny), _) => Some("(default deny)".into()),
            (_, rule) => rule.map(|rule| self.policy.compiled().pointer(rule).into()),
        }
    }

    /// The text that the policy's author has for a call that this rule stops.
    pub fn message(&self) -> Option<&'p str> {
        self.policy.compiled().message(self.rule?)
    }

    /// Calls `visit` for `approval` of every rules object that matches the call, in document order.
    pub(crate) fn each_approving(&self, call: &ToolCall<'_>, mut visit: impl FnMut(&'p Approving)) {
        self.policy.compiled().first(call, &self.matching, |_, rules| {
            rules.approval.as_deref().map(&mut visit);
            None::<()>
        });
    }

    /// The terms on which the call may be approved.
    pub(crate) fn terms(&self, call: &ToolCall<'_>) -> Terms<'p> {
        let mut ttl: Option<Duration> = None;
        let mut terms = Terms { ttl: DEFAULT_TTL, approvers: Vec::new(), min_approvers: 1, bind: None };
        let mut binds_all = false;
        self.each_approving(call, |approving| {
            let own = approving.ttl.map_or(DEFAULT_TTL, |seconds| Duration::from_secs(seconds.into()));
            ttl = Some(ttl.map_or(own, |known| known.min(own)));
            terms.approvers.extend(approving.approvers.as_deref());
            terms.min_approvers = terms.min_approvers.max(approving.min_approvers.unwrap_or(1));
            match &approving.bind {
                Some(bind) => terms.bind.get_or_insert_default().extend(bind),
                None => binds_all = true,
            }
        });
        terms.ttl = ttl.unwrap_or(DEFAULT_TTL);
        terms.bind = terms.bind.filter(|_| !binds_all);
        terms
    }

    /// Adds to `plan`, an empty one, what the call costs in all limits that apply. (A plan is large: it is filled where it
    /// stays.)
    ///
    /// # Errors
    /// The limit that cannot count the call: one that lacks a part of its scope, else one that finds no valid amount.
    pub(crate) fn plan(&self, call: &ToolCall<'_>, now: Timestamp, plan: &mut Plan) -> Result<(), Uncountable> {
        if self.policy.compiled().counters.is_empty() {
            return Ok(());
        }
        let facts = Facts::new(call, now);
        let mut no_amount = None;
        let no_scope = self.policy.compiled().each_limit(call, &self.matching, |found, limit| {
            match plan.add(self.policy, found, limit, &facts) {
                // A shadow limit passes what it cannot count.
                Err(_) if limit.shadow => None,
                Err(code @ Code::ScopeMissing) => Some(Uncountable { limit: found, code }),
                Err(code) => {
                    no_amount.get_or_insert(Uncountable { limit: found, code });
                    None
                }
                Ok(()) => None,
            }
        });
        no_scope.or(no_amount).map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Evaluation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluation").field("effect", &self.effect).field("rule", &self.rule()).finish_non_exhaustive()
    }
}
