//! What a policy says of a call: pure, total, without an allocation.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::approval::Approving;
use super::condition::{Condition, Stance, Truth};
use super::pattern::Matching;
use super::{Action, Compiled, DefaultEffect, Policy, Rule, RuleRef, Rules, Section};
use crate::amount::Amount;
use crate::call::ToolCall;
use crate::charge::{Charge, Charges, CounterId, Meter, Subject};
use crate::limit::{Algorithm, Cost, Limit, Scope, ScopePart};
use crate::path::{Datum, Facts, Found};
use crate::subject::OwnScope;
use crate::time::Timestamp;

/// Why a decision is what it is. Its text is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// There is no policy for the caller.
    NoPolicy,
    /// `hide` names the tool.
    Hidden,
    /// No entry names the tool, and `default` is `deny`.
    DefaultDeny,
    /// The `action` of an entry denies it.
    ActionDeny,
    /// A rule of `require` does not hold.
    Require,
    /// A rule of `deny_if` matches.
    DenyIf,
    /// A limit has no room.
    Limit,
    /// A person's approval is needed.
    Approval,
    /// A limit's scope asks for a part that the call lacks: it could not be counted.
    ScopeMissing,
    /// What the call says it costs is no amount.
    AmountInvalid,
    /// The counter store cannot tell, or the store of approvals.
    StoreUnavailable,
    /// The call could not be read in one way only, or its arguments are no object.
    MalformedCall,
    /// The caller's grant has expired.
    GrantExpired,
    /// The caller's grant has been revoked.
    GrantRevoked,
    /// The tool's definition is not the one that was pinned.
    ToolChanged,
    /// The decision could not be recorded, and the host [requires](crate::GateBuilder::require_audit) that each one is.
    AuditUnavailable,
}

impl Code {
    /// The code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPolicy => "no_policy",
            Self::Hidden => "hidden",
            Self::DefaultDeny => "default_deny",
            Self::ActionDeny => "action_deny",
            Self::Require => "require",
            Self::DenyIf => "deny_if",
            Self::Limit => "limit",
            Self::Approval => "approval",
            Self::ScopeMissing => "scope_missing",
            Self::AmountInvalid => "amount_invalid",
            Self::StoreUnavailable => "store_unavailable",
            Self::MalformedCall => "malformed_call",
            Self::GrantExpired => "grant_expired",
            Self::GrantRevoked => "grant_revoked",
            Self::ToolChanged => "tool_changed",
            Self::AuditUnavailable => "audit_unavailable",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

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
    pub fn evaluate(&self, call: &ToolCall<'_>, now: Timestamp) -> Evaluation<'_> {
        let compiled = self.compiled();
        let stopped =
            |code| Evaluation { policy: self, effect: Effect::Deny(code), rule: None, matching: Matching::Nothing };
        if call.is_malformed() {
            return stopped(Code::MalformedCall);
        }
        if compiled.hide.matches(call.tool()) {
            return stopped(Code::Hidden);
        }
        // What matches is written where it stays: copying it took as long as finding it.
        let matching = compiled.names.matching(call.tool());
        let mut evaluation = Evaluation { policy: self, effect: Effect::Deny(Code::DefaultDeny), rule: None, matching };
        if !(evaluation.matching.is_empty() && compiled.default == DefaultEffect::Deny) {
            (evaluation.effect, evaluation.rule) = compiled.effect(call, now, &evaluation.matching);
        }
        evaluation
    }
}

impl Compiled {
    /// The steps that look at rules.
    fn effect(&self, call: &ToolCall<'_>, now: Timestamp, matching: &Matching) -> (Effect, Option<RuleRef>) {
        // Most tools of most policies have no rule that could stop them.
        if self.first(call, matching, |_, rules: &Rules| rules.can_stop().then_some(())).is_none() {
            return (Effect::Allow, None);
        }
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
    pub(super) fn first<'c, T>(
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
    pub(super) fn truth(&self, facts: &Facts<'_>, stance: Stance) -> Truth {
        Truth::all(self.conditions.iter().map(|condition: &Condition| condition.truth(facts, stance)))
    }
}

impl<'p> Evaluation<'p> {
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
    pub(super) fn each_approving(&self, call: &ToolCall<'_>, mut visit: impl FnMut(&'p Approving)) {
        self.policy.compiled().first(call, &self.matching, |_, rules| {
            rules.approval.as_deref().map(&mut visit);
            None::<()>
        });
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

impl Plan {
    /// Adds a limit. Those of one counter make one charge: the largest amount, below the smallest maximum.
    ///
    /// # Errors
    /// The call lacks a part of the limit's scope, or has no valid amount.
    #[inline]
    pub(super) fn add(
        &mut self,
        policy: &Policy,
        mut found: LimitRef,
        limit: &Limit,
        facts: &Facts<'_>,
    ) -> Result<(), Code> {
        let before = self.charges.len();
        if limit.alone {
            let index = self.new_charge(policy, limit.slot, limit, facts)?;
            let Some(amount) = amount(limit, facts) else {
                self.charges.truncate(before);
                return Err(Code::AmountInvalid);
            };
            if let Some(charge) = self.charges.get_mut(index) {
                charge.amount = amount;
                charge.max = (!limit.shadow).then(|| limit.room());
            }
            found.charge = u32::try_from(index).unwrap_or(u32::MAX);
            self.limits.push(found);
            return Ok(());
        }
        let added = self.charge(policy, limit.slot, limit, facts).and_then(|index| {
            let amount = amount(limit, facts).ok_or(Code::AmountInvalid)?;
            let charge = self.charges.get_mut(index).ok_or(Code::ScopeMissing)?;
            charge.amount = charge.amount.max(amount);
            if !limit.shadow {
                let room = limit.room();
                charge.max = Some(charge.max.map_or(room, |max| max.min(room)));
            }
            found.charge = u32::try_from(index).unwrap_or(u32::MAX);
            for bucket in &limit.buckets {
                let other = self.charge(policy, *bucket, limit, facts)?;
                if let Some(charge) = self.charges.get_mut(other) {
                    charge.amount = charge.amount.max(amount);
                }
            }
            Ok(())
        });
        match added {
            Ok(()) => self.limits.push(found),
            // Only those that were made for this limit go again.
            Err(_) => self.charges.truncate(before),
        }
        added
    }

    /// The index of the charge of a counter, which is added if it is not there.
    #[inline]
    fn charge(&mut self, policy: &Policy, slot: u32, limit: &Limit, facts: &Facts<'_>) -> Result<usize, Code> {
        let counter = policy.counter_id(slot).ok_or(Code::ScopeMissing)?;
        match self.charges.iter().position(|charge| charge.counter == counter) {
            Some(known) => Ok(known),
            None => self.new_charge(policy, slot, limit, facts),
        }
    }

    /// Adds a charge of nothing to a counter that has none.
    #[inline]
    fn new_charge(&mut self, policy: &Policy, slot: u32, limit: &Limit, facts: &Facts<'_>) -> Result<usize, Code> {
        let counter = policy.counter_id(slot).ok_or(Code::ScopeMissing)?;
        let index = self.charges.len();
        let meter = policy.meter(slot, limit, facts.now);
        if let Some(known) = limit.scope.own.and_then(|scope| facts.call.known_subject(scope)) {
            self.charges.push(Charge { counter, subject: known.clone(), amount: Amount::ZERO, max: None, meter });
            return Ok(index);
        }
        // Made where it stays: a charge is large, and its subject is written into it.
        self.charges.push(Charge { counter, subject: Subject::default(), amount: Amount::ZERO, max: None, meter });
        let charge = self.charges.get_mut(index).ok_or(Code::ScopeMissing)?;
        if write_subject(&mut charge.subject, &limit.scope, facts).is_none() {
            self.charges.truncate(index);
            return Err(Code::ScopeMissing);
        }
        Ok(index)
    }

    /// What each charge is when the call has really cost `real`: only limits that read their amount from the call change.
    pub(crate) fn settled(&self, policy: &Policy, real: Amount) -> SmallVec<[Amount; 4]> {
        let mut amounts: SmallVec<[_; 4]> = self.charges.iter().map(|charge| (charge.amount, None)).collect();
        for limit in self.limits.iter().filter_map(|found| policy.limit(*found)) {
            let (cost, reads) = match limit.cost {
                Cost::Constant(amount) => (amount, false),
                Cost::From(_) => (real, true),
            };
            for slot in limit.buckets.iter().copied().chain([limit.slot]) {
                let counter = policy.counter_id(slot);
                let index = self.charges.iter().position(|charge| Some(charge.counter) == counter);
                if let Some((_, settled)) = index.and_then(|index| amounts.get_mut(index)) {
                    let (known, known_reads) = settled.unwrap_or_default();
                    *settled = Some((cost.max(known), reads || known_reads));
                }
            }
        }
        let settled = |(before, settled): (Amount, Option<(Amount, bool)>)| match settled {
            Some((amount, true)) => amount,
            _ => before,
        };
        amounts.into_iter().map(settled).collect()
    }
}

impl Compiled {
    /// Calls `visit` for every limit that applies, in document order, until it gives something.
    #[inline]
    pub(super) fn each_limit<'c, T>(
        &'c self,
        call: &ToolCall<'_>,
        matching: &Matching,
        mut visit: impl FnMut(LimitRef, &'c Limit) -> Option<T>,
    ) -> Option<T> {
        self.first(call, matching, |entry, rules| {
            (0u32..).zip(&rules.limits).find_map(|(index, limit)| visit(LimitRef { entry, index, charge: 0 }, limit))
        })
    }

    fn limit(&self, found: LimitRef) -> Option<&Limit> {
        self.rules(found.entry)?.limits.get(found.index as usize)
    }
}

impl Policy {
    pub(crate) fn limit(&self, found: LimitRef) -> Option<&Limit> {
        self.compiled().limit(found)
    }

    /// The counters of that name (several, if they are token buckets), and whom they count when `call` is made; nothing if there
    /// is none, or the call lacks a part of their scope.
    pub(crate) fn counted_as(
        &self,
        counter: &str,
        call: &ToolCall<'_>,
        now: Timestamp,
    ) -> Option<(Vec<CounterId>, Subject)> {
        let named =
            || self.compiled().counters.iter().zip(&self.0.counters).filter(|(known, _)| &*known.name == counter);
        let (first, _) = named().next()?;
        let subject = subject(&first.scope, &Facts::new(call, now))?;
        Some((named().map(|(_, id)| *id).collect(), subject))
    }

    /// What a call of this caller's would charge if every limit of the policy applied to it, with amounts of nothing: those
    /// limits whose scope it has all parts of, of those that agree in counter and maximum the first. O(limits).
    pub(crate) fn every_limit(&self, caller: &ToolCall<'_>, now: Timestamp) -> Plan {
        let compiled = self.compiled();
        let facts = Facts::new(caller, now);
        let mut plan = Plan::default();
        let (mut seen, mut charges) = (HashSet::new(), HashMap::new());
        let entries = compiled.entries.with_rules().map(|(entry, rules)| (Some(entry), rules));
        for (entry, rules) in entries.chain([(None, &compiled.all_tools)]) {
            for (index, limit) in (0u32..).zip(&rules.limits).filter(|(_, limit)| seen.insert((limit.slot, limit.max)))
            {
                let charge = charges.entry(limit.slot).or_insert_with(|| {
                    plan.new_charge(self, limit.slot, limit, &facts).ok().and_then(|charge| u32::try_from(charge).ok())
                });
                if let Some(charge) = *charge {
                    plan.limits.push(LimitRef { entry, index, charge });
                }
            }
        }
        plan
    }

    /// The scopes of its counters that hang on the caller alone.
    pub(crate) fn own_scopes(&self) -> impl Iterator<Item = OwnScope> {
        self.compiled().counters.iter().filter_map(|counter| counter.scope.own)
    }

    #[inline]
    fn counter_id(&self, slot: u32) -> Option<CounterId> {
        self.0.counters.get(slot as usize).copied()
    }

    /// How the counter counts now. `limit` is one of its own, or, for a token bucket, of its name.
    #[inline]
    fn meter(&self, slot: u32, limit: &Limit, now: Timestamp) -> Meter {
        match limit.algorithm {
            Algorithm::Fixed => Meter::Fixed(limit.window.around(now, limit.utc_offset)),
            Algorithm::Sliding => Meter::Sliding { seconds: limit.window.seconds() },
            Algorithm::TokenBucket { .. } => {
                let refill = self.compiled().counters.get(slot as usize).map_or(limit.max, |counter| counter.max);
                Meter::TokenBucket { refill, seconds: limit.window.seconds() }
            }
            Algorithm::InFlight { lease } => Meter::InFlight { lease },
        }
    }

    /// The limit's place in the document.
    pub(crate) fn limit_pointer(&self, found: LimitRef) -> String {
        let is_rate_limit = self.limit(found).is_some_and(|limit| limit.is_rate_limit);
        let section = if is_rate_limit { Section::RateLimit } else { Section::Limit(found.index) };
        self.compiled().pointer(RuleRef { entry: found.entry, section })
    }
}

/// What a call costs: the charges, and the limits that they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) charges: Charges,
    pub(crate) limits: SmallVec<[LimitRef; 4]>,
}

/// A limit of the policy, and which charge of the plan is its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitRef {
    pub(super) entry: Option<u32>,
    pub(super) index: u32,
    pub(super) charge: u32,
}

impl LimitRef {
    /// The index of its charge.
    pub(crate) fn charge(self) -> usize {
        self.charge as usize
    }
}

/// A limit that cannot count a call.
pub(crate) struct Uncountable {
    pub(crate) limit: LimitRef,
    pub(crate) code: Code,
}

/// Whom a counter of that scope counts; nothing where the call lacks a part.
fn subject(scope: &Scope, facts: &Facts<'_>) -> Option<Subject> {
    let mut subject = Subject::default();
    write_subject(&mut subject, scope, facts).map(|()| subject)
}

#[inline]
fn write_subject(subject: &mut Subject, scope: &Scope, facts: &Facts<'_>) -> Option<()> {
    for part in &scope.parts {
        match part {
            ScopePart::Global => subject.push_global(),
            ScopePart::Identity(identity) => subject.push_identity(*identity, facts.call.identity(*identity)?),
            ScopePart::Path(path) => match path.resolve(facts) {
                Found::Value(Datum::Text(text)) => subject.push_text(text),
                Found::Value(Datum::Number(number)) => subject.push_number(number),
                _ => return None,
            },
        }
    }
    subject.bound();
    Some(())
}

#[inline]
pub(super) fn amount(limit: &Limit, facts: &Facts<'_>) -> Option<Amount> {
    match &limit.cost {
        Cost::Constant(amount) => Some(*amount),
        Cost::From(path) => match path.resolve(facts) {
            Found::Value(Datum::Number(number)) => Amount::from_exact(number).ok(),
            _ => None,
        },
    }
}

impl fmt::Debug for Evaluation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluation").field("effect", &self.effect).field("rule", &self.rule()).finish_non_exhaustive()
    }
}
