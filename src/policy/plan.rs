//! The plan of a call: which counters its limits charge, for whom, and how much.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use smallvec::SmallVec;

use super::Policy;
use super::code::Code;
use super::compiled::{Compiled, Counter, RuleRef, Section};
use super::pattern::Matching;
use crate::amount::{Amount, AmountError};
use crate::call::path::{Datum, Facts, Found, Path, Unclear};
use crate::call::subject::OwnScope;
use crate::call::{Identity, ToolCall};
use crate::charge::{Charge, Charges, CounterId, Meter, Subject};
use crate::policy::limit::{Algorithm, Cost, Limit, Scope, ScopePart};
use crate::time::Timestamp;

/// The plan of a call: its charges, and the limits that they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) charges: Charges,
    pub(crate) limits: SmallVec<[LimitRef; 4]>,
    /// The host's own maxima for the caller, by the index of their limit in `limits`. Boxed to keep
    /// plans small: most have none.
    host_maxima: Option<Box<HostMaxima>>,
}

type HostMaxima = SmallVec<[(u32, Amount); 4]>;

/// A limit of the policy, and the index of its charge in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitRef {
    pub(crate) entry: Option<u32>,
    pub(crate) index: u32,
    pub(crate) charge: u32,
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

impl Plan {
    /// Adds a limit. Limits of one counter share a charge: the largest amount, and the smallest
    /// maximum.
    ///
    /// # Errors
    /// Returns a code if the call lacks a part of the limit's scope, or has no valid amount.
    #[inline]
    pub(crate) fn add(
        &mut self,
        policy: &Policy,
        found: LimitRef,
        limit: &Limit,
        facts: &Facts<'_>,
    ) -> Result<(), Code> {
        let before = self.charges.len();
        let added = self.charge(policy, limit.slot, limit, facts).and_then(|index| {
            let amount = amount(limit, facts).ok_or(Code::AmountInvalid)?;
            let charge = self.charges.get_mut(index).ok_or(Code::ScopeMissing)?;
            charge.amount = charge.amount.max(amount);
            let host_max = host_max(limit, facts)?;
            if !limit.shadow {
                let room = limit.room().min(host_max.unwrap_or(Amount::MAX));
                charge.max = Some(charge.max.map_or(room, |max| max.min(room)));
            }
            for bucket in &limit.buckets {
                let other = self.charge(policy, *bucket, limit, facts)?;
                if let Some(charge) = self.charges.get_mut(other) {
                    charge.amount = charge.amount.max(amount);
                }
            }
            Ok((index, host_max))
        });
        match added {
            Ok((index, host_max)) => {
                self.note_host_max(host_max);
                self.limits.push(LimitRef { charge: u32::try_from(index).unwrap_or(u32::MAX), ..found });
                Ok(())
            }
            Err(code) => {
                // Charges that were added for this limit are removed again.
                self.charges.truncate(before);
                Err(code)
            }
        }
    }

    /// Returns the index of a counter's charge, which is added if it is missing.
    #[inline]
    fn charge(&mut self, policy: &Policy, slot: u32, limit: &Limit, facts: &Facts<'_>) -> Result<usize, Code> {
        let counter = policy.counter_id(slot).ok_or(Code::ScopeMissing)?;
        match self.charges.iter().position(|charge| charge.counter == *counter) {
            Some(known) => Ok(known),
            None => self.new_charge(policy, slot, limit, facts),
        }
    }

    /// Adds a charge of zero to a counter that has none.
    #[inline]
    fn new_charge(&mut self, policy: &Policy, slot: u32, limit: &Limit, facts: &Facts<'_>) -> Result<usize, Code> {
        let counter = policy.counter_id(slot).ok_or(Code::ScopeMissing)?;
        let index = self.charges.len();
        let meter = policy.meter(slot, limit, facts);
        // Filled in place: a charge is large, and its subject is written into it.
        let counter = *counter;
        self.charges.push(Charge { counter, subject: Subject::default(), amount: Amount::ZERO, max: None, meter });
        let charge = self.charges.get_mut(index).ok_or(Code::ScopeMissing)?;
        let known = limit.scope.own.and_then(|scope| facts.call.known_subject(scope));
        let written = match known {
            Some(known) => {
                charge.subject.clone_from(known);
                Some(())
            }
            None => write_subject(&mut charge.subject, &limit.scope, facts),
        };
        if written.is_none() {
            self.charges.truncate(index);
            return Err(Code::ScopeMissing);
        }
        Ok(index)
    }

    /// Notes the host's own maximum for the limit that is added next.
    fn note_host_max(&mut self, max: Option<Amount>) {
        if let Some(max) = max {
            let next = u32::try_from(self.limits.len()).unwrap_or(u32::MAX);
            self.host_maxima.get_or_insert_default().push((next, max));
        }
    }

    /// The maximum of a limit of the plan for this caller, and the most that its counter may hold.
    pub(crate) fn max_and_room(&self, index: usize, limit: &Limit) -> (Amount, Amount) {
        let own = self.host_maxima.iter().flat_map(|maxima| maxima.iter()).find(|(at, _)| *at as usize == index);
        let most = own.map_or(Amount::MAX, |(_, max)| *max);
        (limit.max.min(most), limit.room().min(most))
    }

    /// The amount of each charge if the call really cost `real`. Only charges of limits that read
    /// their amount from the call change.
    pub(crate) fn settled(&self, policy: &Policy, real: Amount) -> SmallVec<[Amount; 4]> {
        let mut amounts: SmallVec<[_; 4]> = self.charges.iter().map(|charge| (charge.amount, None)).collect();
        for limit in self.limits.iter().filter_map(|found| policy.limit(*found)) {
            let (cost, reads) = match limit.cost {
                Cost::Constant(amount) => (amount, false),
                Cost::From(_) => (real, true),
            };
            for slot in limit.buckets.iter().copied().chain([limit.slot]) {
                let counter = policy.counter_id(slot);
                let index = self.charges.iter().position(|charge| Some(&charge.counter) == counter);
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
    /// Calls `visit` for each limit that applies, in document order, until it returns something.
    #[inline]
    pub(crate) fn each_limit<'c, T>(
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

    /// Returns the counters of that name (several, if they are token buckets), and the subject that
    /// `call` is counted under. `None` if there are none, or the call lacks a part of their scope.
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

    /// Zero-amount charges to every limit that this caller could reach, to read their state: those
    /// whose scope it has all parts of, and for which it has a maximum. Limits that agree in
    /// counter and maximum count once. O(limits).
    pub(crate) fn every_limit(&self, caller: &ToolCall<'_>, now: Timestamp) -> Plan {
        let compiled = self.compiled();
        let facts = Facts::new(caller, now);
        let mut plan = Plan::default();
        let (mut seen, mut charges) = (HashSet::new(), HashMap::new());
        let entries = compiled.entries.with_rules().map(|(entry, rules)| (Some(entry), rules));
        for (entry, rules) in entries.chain([(None, &compiled.all_tools)]) {
            for (index, limit) in (0u32..).zip(&rules.limits) {
                let Ok(host_max) = host_max(limit, &facts) else { continue };
                if !seen.insert((&*limit.counter, host_max.map_or(limit.max, |max| limit.max.min(max)))) {
                    continue;
                }
                let charge = charges.entry(limit.slot).or_insert_with(|| {
                    plan.new_charge(self, limit.slot, limit, &facts).ok().and_then(|charge| u32::try_from(charge).ok())
                });
                if let Some(charge) = *charge {
                    plan.note_host_max(host_max);
                    plan.limits.push(LimitRef { entry, index, charge });
                }
            }
        }
        plan
    }

    /// Returns the names of the counters whose scope lacks an identity. A store whose counters are
    /// partitioned by it charges them in a step of their own.
    pub fn counters_without(&self, identity: Identity) -> BTreeSet<&str> {
        let has = |counter: &&Counter| counter.scope.parts.contains(&ScopePart::Identity(identity));
        self.compiled().counters.iter().filter(|counter| !has(counter)).map(|counter| &*counter.name).collect()
    }

    /// The scopes of the counters that depend on the caller alone.
    pub(crate) fn own_scopes(&self) -> impl Iterator<Item = OwnScope> {
        self.compiled().counters.iter().filter_map(|counter| counter.scope.own)
    }

    #[inline]
    fn counter_id(&self, slot: u32) -> Option<&CounterId> {
        self.0.counters.get(slot as usize)
    }

    /// The meter of a counter now. `limit` is one of the counter's own, or, for a token bucket, of
    /// its name.
    #[inline]
    fn meter(&self, slot: u32, limit: &Limit, facts: &Facts<'_>) -> Meter {
        match limit.algorithm {
            Algorithm::Fixed => Meter::Fixed(limit.window.around(facts.now, limit.utc_offset)),
            Algorithm::Sliding => Meter::Sliding { seconds: limit.window.seconds() },
            Algorithm::TokenBucket { .. } => {
                let counter = self.compiled().counters.get(slot as usize);
                let refill = counter.map_or(limit.max, |counter| match &counter.max_from {
                    None => counter.max,
                    // A bucket without a valid maximum does not refill.
                    Some(path) => counter.max.min(amount_at(path, facts).unwrap_or(Amount::ZERO)),
                });
                Meter::TokenBucket { refill, seconds: limit.window.seconds() }
            }
            Algorithm::InFlight { lease } => Meter::InFlight { lease },
        }
    }

    /// The JSON Pointer to the limit.
    pub(crate) fn limit_pointer(&self, found: LimitRef) -> String {
        let is_rate_limit = self.limit(found).is_some_and(|limit| limit.is_rate_limit);
        let section = if is_rate_limit { Section::RateLimit } else { Section::Limit(found.index) };
        self.compiled().pointer(RuleRef { entry: found.entry, section })
    }
}

/// The subject of a scope; `None` if the call lacks a part.
fn subject(scope: &Scope, facts: &Facts<'_>) -> Option<Subject> {
    let mut subject = Subject::default();
    write_subject(&mut subject, scope, facts).map(|()| subject)
}

#[inline]
fn write_subject(subject: &mut Subject, scope: &Scope, facts: &Facts<'_>) -> Option<()> {
    for part in &scope.parts {
        match part {
            ScopePart::Global => subject.push_global(),
            ScopePart::Identity(identity) => subject.push_caller(*identity, |part| facts.call.identity(part))?,
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

/// Returns the first part of the scope of `limit` that a call lacks.
pub(crate) fn missing_part(limit: &Limit, call: &ToolCall<'_>, now: Timestamp) -> Option<String> {
    let lacks = |part: &&ScopePart| {
        let scope = Scope::new([(*part).clone()]);
        write_subject(&mut Subject::default(), &scope, &Facts::new(call, now)).is_none()
    };
    limit.scope.parts.iter().find(lacks).map(ScopePart::canonical)
}

#[inline]
pub(crate) fn amount(limit: &Limit, facts: &Facts<'_>) -> Option<Amount> {
    match &limit.cost {
        Cost::Constant(amount) => Some(*amount),
        Cost::From(path) => amount_at(path, facts),
    }
}

/// Returns the host's own maximum for the caller, if the limit reads one.
#[inline]
fn host_max(limit: &Limit, facts: &Facts<'_>) -> Result<Option<Amount>, Code> {
    match &limit.max_from {
        None => Ok(None),
        Some(path) => amount_at(path, facts).map(Some).ok_or(Code::AmountInvalid),
    }
}

fn amount_at(path: &Path, facts: &Facts<'_>) -> Option<Amount> {
    match path.resolve(facts) {
        Found::Value(Datum::Number(number)) => Amount::from_exact(number).ok(),
        _ => None,
    }
}

/// The amount that a limit does not find in a call.
pub(crate) struct InvalidAmount<'p> {
    pub(crate) path: &'p Path,
    /// Describes the value at the path without it: `has more than six decimals`.
    pub(crate) problem: Cow<'static, str>,
    /// It is the host's maximum, not the cost of the call.
    pub(crate) is_max: bool,
}

/// Returns the first amount that `limit` does not find in a call.
#[cold]
pub(crate) fn invalid_amount<'p>(limit: &'p Limit, call: &ToolCall<'_>, now: Timestamp) -> Option<InvalidAmount<'p>> {
    let facts = Facts::new(call, now);
    let cost = match &limit.cost {
        Cost::From(path) => Some((path, false)),
        Cost::Constant(_) => None,
    };
    let max = limit.max_from.as_deref().map(|path| (path, true));
    cost.into_iter().chain(max).find_map(|(path, is_max)| {
        let problem = match path.resolve(&facts) {
            Found::Absent => "is absent".into(),
            Found::Unclear(Unclear::CaseVariant) => "has two members that differ in case".into(),
            Found::Unclear(Unclear::WrongContainer) => "leads into a value without such parts".into(),
            Found::Value(Datum::Number(number)) => match Amount::from_exact(number).err()? {
                AmountError::Negative => "is negative".into(),
                AmountError::TooPrecise => "has more than six decimals".into(),
                AmountError::TooLarge => format!("is above {}", Amount::MAX).into(),
                AmountError::NotANumber => "is not a number".into(),
            },
            Found::Value(Datum::UnclearNumber) => "is a number that readers hold differently".into(),
            Found::Value(datum) => format!("is {}, not a number", datum.kind()).into(),
        };
        Some(InvalidAmount { path, problem, is_max })
    })
}
