//! Counters: toolgate beside the keyed limiter of `governor`.

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZero;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use limitador::RateLimiter as Limitador;

use crate::counters::{Counted, Ready, Stored};
use crate::engines::by_hand::{LookUp, SipMap};
use crate::engines::casbin::Casbin;
use crate::engines::cedar::{Cedar, CedarByTool};
use crate::engines::cel::{Cel, CelByTool};
use crate::engines::regorus::Regorus;
use crate::engines::{CALLERS, of_one_limit};
use crate::race::{Claim, Contender, Entrant, claim, race, shown};
use crate::report::Contest;
use crate::workload::{self, Caller, ENTRIES, Limits, Ring};
use crate::{Asked, peer};

const THREE: [Limits; 2] = [Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes];

/// One atomic step over all counters of a call, beside one check or three checks, which are not atomic together.
pub(crate) fn reserve(asked: &Asked) {
    for (title, many, pace) in [
        ("reserve, 1,000 callers", 1_000, asked.pace),
        ("reserve, 1,000,000 callers", 1_000_000, asked.pace.of_large()),
    ] {
        if !asked.wants(title) {
            continue;
        }
        let callers = asked.callers(many);
        let checks = Checks::new(callers);
        let (mut one, mut of_one_scope, mut of_three_scopes) = (checks.ring(), checks.ring(), checks.ring());
        let [mut stored_one, mut stored_scope, mut stored_scopes] =
            [Limits::One, THREE[0], THREE[1]].map(|limits| Stored::new(limits, callers));
        let mut settled = Stored::new(THREE[0], callers);
        let [limitador_one, limitador_three] = [1, 3].map(limitador);
        let (mut of_limitador_one, mut of_limitador_three) = (checks.ring(), checks.ring());
        let mut contenders = vec![
            Contender::new("governor, one check", || checks.one(one.next())),
            Contender::new("governor, three checks of one key", || checks.three_of_one_key(of_one_scope.next())),
            Contender::new("governor, three checks of three keys", || checks.three(of_three_scopes.next())),
            Contender::new("toolgate, one limit", || stored_one.reserve()),
            Contender::new("toolgate, three limits of one scope", || stored_scope.reserve()),
            Contender::new("toolgate, three limits of three scopes", || stored_scopes.reserve()),
            Contender::new("toolgate, three of one scope, settled", || settled.reserve_and_settle()),
        ];
        // It takes some 900 bytes for each counter: not for as many as the others.
        if many == 1_000 {
            let checks = [
                ("limitador, one limit", &limitador_one, &mut of_limitador_one),
                ("limitador, three limits of one scope", &limitador_three, &mut of_limitador_three),
            ];
            contenders.extend(checks.map(|(name, limiter, callers)| {
                Contender::new(name, || {
                    let context = peer::context(&callers.next().grant);
                    let answer = limiter.check_rate_limited_and_update(&peer::namespace(), &context, 1);
                    assert!(!answer.unwrap().limited);
                })
            }));
        }
        let claims: &[Claim] = match many {
            1_000 => {
                &[claim(3, 0, 0.7), claim(4, 1, 0.4), claim(5, 2, 0.8), claim(6, 1, 0.8), shown(3, 7), shown(4, 8)]
            }
            _ => &[claim(3, 0, 0.75), claim(4, 0, 0.9), claim(5, 2, 0.8), shown(6, 1)],
        };
        race(title, pace, &mut contenders, claims);
    }
}

/// A whole decision: the name, the clock, the counters, beside a map of names and one check.
pub(crate) fn decide(asked: &Asked) {
    for (title, many, pace) in
        [("decide, 1,000 callers", 1_000, asked.pace), ("decide, 1,000,000 callers", 1_000_000, asked.pace.of_large())]
    {
        if !asked.wants(title) {
            continue;
        }
        let callers = asked.callers(many);
        let checks = Checks::new(callers);
        let names: HashMap<String, ()> = (0..ENTRIES).map(|index| (workload::tool_name(index), ())).collect();
        let (mut one, mut both) = (checks.ring(), checks.ring());
        let mut tools = workload::names(ENTRIES, workload::tool_name);
        let [mut none, mut counted_one, mut counted_scope, mut counted_scopes] =
            [Limits::None, Limits::One, THREE[0], THREE[1]].map(|limits| Counted::new(limits, callers));
        let [mut ready_one, mut ready_scopes] = [Limits::One, THREE[1]].map(|limits| Ready::new(limits, callers));
        let mut contenders = vec![
            Contender::new("governor, one check", || checks.one(one.next())),
            Contender::new("a HashMap of names and governor", || {
                assert!(names.contains_key(*black_box(tools.next())));
                checks.one(both.next());
            }),
            Contender::new("toolgate, no limit", || none.decide()),
            Contender::new("toolgate, one limit", || counted_one.decide()),
            Contender::new("toolgate, three limits of one scope", || counted_scope.decide()),
            Contender::new("toolgate, three limits of three scopes", || counted_scopes.decide()),
            Contender::new("toolgate, one limit, ready callers", || ready_one.decide()),
            Contender::new("toolgate, three limits of three scopes, ready callers", || ready_scopes.decide()),
        ];
        // A ready caller's decision at most 60 ns where governor's check takes 33.
        let claims = [claim(3, 0, 3.0), shown(3, 1), shown(4, 3), shown(5, 3), claim(6, 0, 60.0 / 33.0), shown(7, 5)];
        race(title, pace, &mut contenders, &claims);
    }
}

/// Two threads, each on a core of its own, with callers of their own and with one for both.
pub(crate) fn threads(asked: &Asked) {
    for (title, shared, one_limit) in
        [("two threads, own callers", false, 1.0 / 1.4), ("two threads, one caller", true, 1.0 / 3.0)]
    {
        if !asked.wants(title) {
            continue;
        }
        let checks = Checks::new(1_000);
        let callers = checks.ring();
        let [stored_one, stored_scope] = [Limits::One, THREE[0]].map(|limits| Stored::new(limits, 1_000));
        let [counted_one, counted_scope] = [Limits::One, THREE[0]].map(|limits| Counted::new(limits, 1_000));
        let check = |work: &(dyn Fn(&Caller) + Sync), units| on_two_threads(callers.items(), shared, units, work);
        let reserve = |stored: &Stored, units| {
            on_two_threads(stored.requests.items(), shared, units, &|request| {
                assert!(black_box(request).reserve(&stored.store));
            })
        };
        let decide = |counted: &Counted, units| {
            let tool = counted.tools.items()[0];
            on_two_threads(counted.callers.items(), shared, units, &|caller: &Caller| {
                let call = caller.call(tool, &counted.arguments);
                assert!(counted.gate.check(black_box(&call)).is_allowed());
            })
        };
        let mut contenders = vec![
            Contender::timed("governor, one check", |units| check(&|caller| checks.one(caller), units)),
            Contender::timed("governor, three checks", |units| check(&|caller| checks.three_of_one_key(caller), units)),
            Contender::timed("toolgate, reserve one limit", |units| reserve(&stored_one, units)),
            Contender::timed("toolgate, reserve three of one scope", |units| reserve(&stored_scope, units)),
            Contender::timed("toolgate, decide with one limit", |units| decide(&counted_one, units)),
            Contender::timed("toolgate, decide with three of one scope", |units| decide(&counted_scope, units)),
        ];
        let claims = [claim(2, 0, one_limit), claim(3, 1, 1.0 / 3.0), shown(4, 0), shown(5, 1)];
        race(title, asked.pace.of_large(), &mut contenders, &claims);
    }
}

/// Lets two threads go through items, each through a half of them or both through the first one, and tells how long it
/// took until so many units were done by both together.
fn on_two_threads<T: Sync>(items: &[T], shared: bool, units: u64, work: &(impl Fn(&T) + Sync + ?Sized)) -> Duration {
    let start = Barrier::new(2);
    let run = |core: usize, items: &[T]| {
        if let Some(core) = core_affinity::get_core_ids().and_then(|cores| cores.get(core).copied()) {
            core_affinity::set_for_current(core);
        }
        let mut items = items.iter().cycle();
        start.wait();
        let began = Instant::now();
        for item in (0..units.div_ceil(2)).zip(&mut items) {
            work(item.1);
        }
        (began, Instant::now())
    };
    let (left, right) = if shared { (&items[..1], &items[..1]) } else { items.split_at(items.len() / 2) };
    thread::scope(|scope| {
        let run = &run;
        let handles = [scope.spawn(move || run(0, left)), scope.spawn(move || run(1, right))];
        let [a, b] = handles.map(|handle| handle.join().unwrap());
        a.1.max(b.1) - a.0.min(b.0)
    })
}

/// One that counts in memory, with so many limits of one scope.
fn limitador(limits: usize) -> Limitador {
    let limiter = Limitador::new(10_000);
    for limit in peer::limits(limits) {
        limiter.add_limit(limit);
    }
    limiter
}

/// W1 and one limit, for 1,000 callers: beside names by hand, or another engine, and one check.
pub(crate) fn one_limit() -> Contest {
    Contest {
        title: "decide W1 and one limit",
        heading: "W1 + one limit",
        entrants: vec![
            of_one_limit::<LookUp>(),
            Entrant::new("toolgate", || {
                let mut counted = Counted::new(Limits::One, CALLERS);
                Contender::new("toolgate", move || counted.decide())
            }),
            of_one_limit::<SipMap>(),
            Entrant::new("a HashMap of names and limitador", || {
                let names: HashMap<String, ()> = (0..ENTRIES).map(|index| (workload::tool_name(index), ())).collect();
                let mut tools = workload::names(ENTRIES, workload::tool_name);
                let (limiter, mut callers) = (limitador(1), workload::callers(CALLERS));
                Contender::new("a HashMap of names and limitador", move || {
                    assert!(names.contains_key(*black_box(tools.next())));
                    let context = peer::context(&callers.next().grant);
                    assert!(!limiter.check_rate_limited_and_update(&peer::namespace(), &context, 1).unwrap().limited);
                })
            }),
            of_one_limit::<Cel>(),
            of_one_limit::<CelByTool>(),
            of_one_limit::<Regorus>(),
            of_one_limit::<Cedar>(),
            of_one_limit::<CedarByTool>(),
            of_one_limit::<Casbin>(),
        ],
        claims: vec![shown(1, 0), shown(1, 2)],
    }
}

/// Three keyed limiters, in which so many callers are known already.
pub(crate) struct Checks {
    limiters: [DefaultKeyedRateLimiter<String>; 3],
    callers: usize,
}

impl Checks {
    pub(crate) fn new(callers: usize) -> Self {
        // One cell each nanosecond and a burst of a second: nothing is ever refused.
        let quota = Quota::per_second(NonZero::new(1_000_000_000).unwrap());
        let checks = Self { limiters: [(); 3].map(|()| RateLimiter::keyed(quota)), callers };
        for index in 0..callers {
            let caller = Caller::new(index);
            checks.three_of_one_key(&caller);
            checks.three(&caller);
        }
        checks
    }

    pub(crate) fn ring(&self) -> Ring<Caller> {
        workload::callers(self.callers)
    }

    pub(crate) fn one(&self, caller: &Caller) {
        assert!(self.limiters[0].check_key(black_box(&caller.grant)).is_ok());
    }

    fn three_of_one_key(&self, caller: &Caller) {
        let key = black_box(&caller.grant);
        assert!(self.limiters.iter().all(|limiter| limiter.check_key(key).is_ok()));
    }

    fn three(&self, caller: &Caller) {
        let [grant, session, user] = black_box([&caller.grant, &caller.session, &caller.user]);
        let checks = self.limiters.iter().zip([grant, session, user]);
        assert!(checks.into_iter().all(|(limiter, key)| limiter.check_key(key).is_ok()));
    }
}
