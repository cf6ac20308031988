//! The evaluation of a call: pure, total, without an allocation.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Policy;
use super::approval::{Approving, DEFAULT_TTL, Terms};
use super::code::Code;
use super::compiled::{Action, Compiled, DefaultEffect, Rule, RuleRef, Rules, Section};
use super::condition::{Condition, Stance};
use super::pattern::Matching;
use super::plan::{Plan, Uncountable};
use super::truth::Truth;
use crate::call::path::Facts;
use crate::call::{Round, ToolCall};
use crate::json::pointer;
use crate::time::Timestamp;

/// The effect of a policy's rules on a call. A [`Gate`](crate::Gate) and its store decide whether
/// the limits have room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a `_` arm could allow a call that the policy stops")]
pub enum Effect {
    /// No rule stops the call.
    Allow,
    /// A rule denies the call.
    Deny(Code),
    /// A person must approve the call.
    RequireApproval,
}

/// A policy's evaluation of a call.
#[derive(Clone)]
#[must_use = "an unused evaluation stops nothing"]
pub struct Evaluation<'p> {
    policy: &'p Policy,
    effect: Effect,
    rule: Option<RuleRef>,
    matching: Matching,
}

/// The condition because of which a rule denies a call.
#[derive(Clone, Debug)]
pub(crate) struct DecidingCondition {
    /// Its JSON Pointer.
    pub(crate) pointer: Box<str>,
    /// The reason why it is undecidable, if it is.
    pub(crate) undecidable: Option<Cow<'static, str>>,
}

impl Policy {
    /// Evaluates a call at an instant, without the limits.
    ///
    /// Pure and total. Takes O(1) in the number of entries with an exact name, and O(n) for `n`
    /// rules that apply. Allocates only to compare unusual URLs (`host_in`), and texts from
    /// elsewhere in the call without regard to case (`value_from` with `ignore_case`).
    #[inline]
    pub fn evaluate(&self, call: &ToolCall<'_>, now: Timestamp) -> Evaluation<'_> {
        let mut evaluation = Evaluation::of(self);
        evaluation.judge(call, now);
        evaluation
    }
}

impl Compiled {
    /// Returns `true` if any rule could stop the call. For most tools of most policies, none can.
    #[inline]
    fn can_stop(&self, call: &ToolCall<'_>, matching: &Matching) -> bool {
        self.first(call, matching, |_, rules: &Rules| rules.can_stop().then_some(())).is_some()
    }

    /// Applies the rules in the order of the language: `action: deny`, `require`, `deny_if`,
    /// approval.
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

    /// Returns the first result of `find` among the rules that apply: those of the matching entries
    /// in document order, then those of `all_tools`.
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
    /// An evaluation to be filled in place by [`Self::judge`]. Moving it after writing stalls on
    /// store forwarding, as for a plan and a subject: with moves, a decision with one limit took
    /// 2.8 times as long as `governor`'s check, and not 2.4 times.
    #[inline]
    pub(crate) fn of(policy: &'p Policy) -> Self {
        Self { policy, effect: Effect::Deny(Code::MalformedCall), rule: None, matching: Matching::Nothing }
    }

    /// Evaluates the call. Called once.
    pub(crate) fn judge(&mut self, call: &ToolCall<'_>, now: Timestamp) {
        let compiled = self.policy.compiled();
        if call.is_malformed() {
            return;
        }
        if call.round() == Round::Unknown {
            self.effect = Effect::Deny(Code::UnknownState);
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

    /// Out of line, so that a call that no rule can stop does not pay for its stack frame.
    #[inline(never)]
    fn judge_by_rules(&mut self, call: &ToolCall<'_>, now: Timestamp) {
        (self.effect, self.rule) = self.policy.compiled().effect(call, now, &self.matching);
    }

    /// The effect of the rules.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Returns `true` if no rule stops the call.
    pub fn is_allowed(&self) -> bool {
        self.effect == Effect::Allow
    }

    /// The code of the reason; `None` if the call is allowed.
    pub fn code(&self) -> Option<Code> {
        match self.effect {
            Effect::Allow => None,
            Effect::Deny(code) => Some(code),
            Effect::RequireApproval => Some(Code::Approval),
        }
    }

    /// The rule that stops the call: its JSON Pointer in the document
    /// (`/tools/create_charge/deny_if/0`), `(hidden)`, or `(default deny)`.
    pub fn rule(&self) -> Option<Cow<'static, str>> {
        match (self.effect, self.rule) {
            (Effect::Deny(Code::Hidden), _) => Some("(hidden)".into()),
            (Effect::Deny(Code::DefaultDeny), _) => Some("(default deny)".into()),
            (_, rule) => rule.map(|rule| self.policy.compiled().pointer(rule).into()),
        }
    }

    /// The message that the policy's author wrote for calls that this rule stops.
    pub fn message(&self) -> Option<&'p str> {
        self.policy.compiled().message(self.rule?)
    }

    /// Returns the condition that decided, if a rule of `require` or `deny_if` denies the call.
    /// Evaluates that rule again, so that calls which no rule denies pay nothing for it.
    #[cold]
    pub(crate) fn deciding(&self, call: &ToolCall<'_>, now: Timestamp) -> Option<DecidingCondition> {
        let rule_ref = self.rule?;
        let rules = self.policy.compiled().rules(rule_ref.entry)?;
        let (rule, stance) = match rule_ref.section {
            Section::Require(index) => (rules.require.get(index as usize)?, Stance::Require),
            Section::DenyIf(index) => (rules.deny_if.get(index as usize)?, Stance::Match),
            _ => return None,
        };
        let facts = Facts::new(call, now);
        let truths: Vec<Truth> = rule.conditions.iter().map(|condition| condition.truth(&facts, stance)).collect();
        let first = |truth| truths.iter().position(|known| *known == truth);
        let index = first(Truth::False).or_else(|| first(Truth::Undecidable)).or_else(|| first(Truth::True))?;
        let mut pointer = format!("{}/conditions", self.policy.compiled().pointer(rule_ref));
        pointer::push_index(&mut pointer, index);
        let undecidable = rule.conditions.get(index).and_then(|condition| condition.reason(&facts, stance));
        Some(DecidingCondition { pointer: pointer.into(), undecidable })
    }

    /// Calls `visit` with `approval` of each rules object that matches the call, in document order.
    pub(crate) fn each_approving(&self, call: &ToolCall<'_>, mut visit: impl FnMut(&'p Approving)) {
        self.policy.compiled().first(call, &self.matching, |_, rules| {
            rules.approval.as_deref().map(&mut visit);
            None::<()>
        });
    }

    /// Returns `true` if a rule asks for an approval because of the input in this round.
    pub(crate) fn asks_about_input(&self, call: &ToolCall<'_>, now: Timestamp) -> bool {
        let facts = Facts::new(call, now);
        let asks = |rule: &Rule| {
            rule.conditions.iter().any(Condition::reads_input) && rule.truth(&facts, Stance::Match) != Truth::False
        };
        let found = self
            .policy
            .compiled()
            .first(call, &self.matching, |_, rules| rules.require_approval_if.iter().any(asks).then_some(()));
        found.is_some()
    }

    /// The terms of an approval of the call.
    pub(crate) fn terms(&self, call: &ToolCall<'_>) -> Terms<'p> {
        let mut ttl: Option<Duration> = None;
        let mut terms = Terms { ttl: DEFAULT_TTL, approvers: Vec::new(), min_approvers: 1, bind: None, uses: 1 };
        let (mut binds_all, mut uses) = (false, None::<u32>);
        self.each_approving(call, |approving| {
            let own = approving.ttl.map_or(DEFAULT_TTL, |seconds| Duration::from_secs(seconds.into()));
            ttl = Some(ttl.map_or(own, |known| known.min(own)));
            terms.approvers.extend(approving.approvers.as_deref());
            terms.min_approvers = terms.min_approvers.max(approving.min_approvers.unwrap_or(1));
            let own_uses = approving.uses.unwrap_or(1);
            uses = Some(uses.map_or(own_uses, |known| known.min(own_uses)));
            match &approving.bind {
                Some(bind) => terms.bind.get_or_insert_default().extend(bind),
                None => binds_all = true,
            }
        });
        terms.ttl = ttl.unwrap_or(DEFAULT_TTL);
        terms.bind = terms.bind.filter(|_| !binds_all);
        terms.uses = uses.unwrap_or(1);
        terms
    }

    /// Adds the charges of all limits that apply to `plan`, which is empty. (A plan is large, so it
    /// is filled in place.)
    ///
    /// # Errors
    /// Returns a limit that cannot count the call: one whose scope the call lacks a part of, or
    /// else one that finds no valid amount.
    pub(crate) fn plan(&self, call: &ToolCall<'_>, now: Timestamp, plan: &mut Plan) -> Result<(), Uncountable> {
        if self.policy.compiled().counters.is_empty() {
            return Ok(());
        }
        let facts = Facts::new(call, now);
        let mut no_amount = None;
        let no_scope = self.policy.compiled().each_limit(call, &self.matching, |found, limit| {
            match plan.add(self.policy, found, limit, &facts) {
                // A shadow limit ignores a call that it cannot count.
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
