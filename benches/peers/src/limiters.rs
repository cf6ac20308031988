//! Counters in memory: compares toolgate with the keyed limiters of `governor` and with
//! `limitador`.

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZero;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use limitador::RateLimiter as Limitador;

use crate::counters::{GateWorkload, PreparedCallers, StoreWorkload};
use crate::engines::by_hand::{NameFloor, NameMap};
use crate::engines::casbin::Casbin;
use crate::engines::cedar::{Cedar, CedarByTool};
use crate::engines::cel::{Cel, CelByTool};
use crate::engines::regorus::Regorus;
use crate::engines::{CALLERS, with_one_limit};
use crate::race::{Contender, ContenderFactory, Ratio, race, ratio, ratio_at_most};
use crate::report::Comparison;
use crate::workload::{self, Caller, ENTRIES, Limits, Ring};
use crate::{Options, peer};

const THREE_LIMITS: [Limits; 2] = [Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes];

/// Compares one atomic step over all counters of a call with one check, or with three checks that
/// are not atomic together.
pub(crate) fn reserve(options: &Options) {
    for (title, many, pace) in [
        ("reserve, 1,000 callers", 1_000, options.pace),
        ("reserve, 1,000,000 callers", 1_000_000, options.pace.of_large()),
    ] {
        if !options.selects(title) {
            continue;
        }
        let callers = options.callers(many);
        let checks = Checks::new(callers);
        let (mut one, mut of_one_scope, mut of_three_scopes) = (checks.ring(), checks.ring(), checks.ring());
        let [mut store_one, mut store_scope, mut store_scopes] =
            [Limits::One, THREE_LIMITS[0], THREE_LIMITS[1]].map(|limits| StoreWorkload::new(limits, callers));
        let mut settled = StoreWorkload::new(THREE_LIMITS[0], callers);
        let [limitador_one, limitador_three] = [1, 3].map(limitador);
        let (mut of_limitador_one, mut of_limitador_three) = (checks.ring(), checks.ring());
        let mut contenders = vec![
            Contender::new("governor, one check", || checks.one(one.next())),
            Contender::new("governor, three checks of one key", || checks.three_of_one_key(of_one_scope.next())),
            Contender::new("governor, three checks of three keys", || {
                checks.three_of_three_keys(of_three_scopes.next())
            }),
            Contender::new("toolgate, one limit", || store_one.reserve()),
            Contender::new("toolgate, three limits of one scope", || store_scope.reserve()),
            Contender::new("toolgate, three limits of three scopes", || store_scopes.reserve()),
            Contender::new("toolgate, three of one scope, settled", || settled.reserve_and_settle()),
        ];
        // limitador takes about 900 bytes for each counter, too much for a million callers.
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
        let ratios: &[Ratio] = match many {
            1_000 => &[
                ratio_at_most(3, 0, 0.7),
                ratio_at_most(4, 1, 0.4),
                ratio_at_most(5, 2, 0.8),
                ratio_at_most(6, 1, 0.8),
                ratio(3, 7),
                ratio(4, 8),
            ],
            _ => &[ratio_at_most(3, 0, 0.75), ratio_at_most(4, 0, 0.9), ratio_at_most(5, 2, 0.8), ratio(6, 1)],
        };
        race(title, pace, &mut contenders, ratios);
    }
}

/// Compares a whole decision (name, clock and counters) with a map of names and one check.
pub(crate) fn decide(options: &Options) {
    for (title, many, pace) in [
        ("decide, 1,000 callers", 1_000, options.pace),
        ("decide, 1,000,000 callers", 1_000_000, options.pace.of_large()),
    ] {
        if !options.selects(title) {
            continue;
        }
        let callers = options.callers(many);
        let checks = Checks::new(callers);
        let names: HashMap<String, ()> = (0..ENTRIES).map(|index| (workload::tool_name(index), ())).collect();
        let (mut one, mut both) = (checks.ring(), checks.ring());
        let mut tools = workload::names(ENTRIES, workload::tool_name);
        let [mut gate_none, mut gate_one, mut gate_scope, mut gate_scopes] =
            [Limits::None, Limits::One, THREE_LIMITS[0], THREE_LIMITS[1]]
                .map(|limits| GateWorkload::new(limits, callers));
        let [mut prepared_one, mut prepared_scopes] =
            [Limits::One, THREE_LIMITS[1]].map(|limits| PreparedCallers::new(limits, callers));
        let mut contenders = vec![
            Contender::new("governor, one check", || checks.one(one.next())),
            Contender::new("a HashMap of names and governor", || {
                assert!(names.contains_key(*black_box(tools.next())));
                checks.one(both.next());
            }),
            Contender::new("toolgate, no limit", || gate_none.decide()),
            Contender::new("toolgate, one limit", || gate_one.decide()),
            Contender::new("toolgate, three limits of one scope", || gate_scope.decide()),
            Contender::new("toolgate, three limits of three scopes", || gate_scopes.decide()),
            Contender::new("toolgate, one limit, prepared callers", || prepared_one.decide()),
            Contender::new("toolgate, three limits of three scopes, prepared callers", || prepared_scopes.decide()),
        ];
        // The target for prepared callers: 60 ns where governor's check takes 33 ns.
        let ratios = [
            ratio_at_most(3, 0, 3.0),
            ratio(3, 1),
            ratio(4, 3),
            ratio(5, 3),
            ratio_at_most(6, 0, 60.0 / 33.0),
            ratio(7, 5),
        ];
        race(title, pace, &mut contenders, &ratios);
    }
}

/// Runs two threads, each on its own core, with separate callers and with one shared caller.
pub(crate) fn threads(options: &Options) {
    for (title, shared, one_limit_at_most) in
        [("two threads, own callers", false, 1.0 / 1.4), ("two threads, one caller", true, 1.0 / 3.0)]
    {
        if !options.selects(title) {
            continue;
        }
        let checks = Checks::new(1_000);
        let callers = checks.ring();
        let [store_one, store_scope] = [Limits::One, THREE_LIMITS[0]].map(|limits| StoreWorkload::new(limits, 1_000));
        let [gate_one, gate_scope] = [Limits::One, THREE_LIMITS[0]].map(|limits| GateWorkload::new(limits, 1_000));
        let check = |work: &(dyn Fn(&Caller) + Sync), units| on_two_threads(callers.items(), shared, units, work);
        let reserve = |workload: &StoreWorkload, units| {
            on_two_threads(workload.requests.items(), shared, units, &|request| {
                assert!(black_box(request).reserve(&workload.store));
            })
        };
        let decide = |workload: &GateWorkload, units| {
            let tool = workload.tools.items()[0];
            on_two_threads(workload.callers.items(), shared, units, &|caller: &Caller| {
                let call = caller.call(tool, &workload.arguments);
                assert!(workload.gate.check(black_box(&call)).is_allowed());
            })
        };
        let mut contenders = vec![
            Contender::timed("governor, one check", |units| check(&|caller| checks.one(caller), units)),
            Contender::timed("governor, three checks", |units| check(&|caller| checks.three_of_one_key(caller), units)),
            Contender::timed("toolgate, reserve one limit", |units| reserve(&store_one, units)),
            Contender::timed("toolgate, reserve three of one scope", |units| reserve(&store_scope, units)),
            Contender::timed("toolgate, decide with one limit", |units| decide(&gate_one, units)),
            Contender::timed("toolgate, decide with three of one scope", |units| decide(&gate_scope, units)),
        ];
        let ratios = [ratio_at_most(2, 0, one_limit_at_most), ratio_at_most(3, 1, 1.0 / 3.0), ratio(4, 0), ratio(5, 1)];
        race(title, options.pace.of_large(), &mut contenders, &ratios);
    }
}

/// Does `units` units of work on two threads together, and returns the time from the first start to
/// the last end. Each thread has a half of the items, or both share the first one.
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

/// Creates a `limitador` that counts in memory, with a number of limits of one scope.
fn limitador(limits: usize) -> Limitador {
    let limiter = Limitador::new(10_000);
    for limit in peer::limits(limits) {
        limiter.add_limit(limit);
    }
    limiter
}

/// Compares W1 and one limit, for 1,000 callers, with names by hand or another engine, and one
/// check.
pub(crate) fn one_limit() -> Comparison {
    Comparison {
        title: "decide W1 and one limit",
        heading: "W1 + one limit",
        contenders: vec![
            with_one_limit::<NameFloor>(),
            ContenderFactory::new("toolgate", || {
                let mut workload = GateWorkload::new(Limits::One, CALLERS);
                Contender::new("toolgate", move || workload.decide())
            }),
            with_one_limit::<NameMap>(),
            ContenderFactory::new("a HashMap of names and limitador", || {
                let names: HashMap<String, ()> = (0..ENTRIES).map(|index| (workload::tool_name(index), ())).collect();
                let mut tools = workload::names(ENTRIES, workload::tool_name);
                let (limiter, mut callers) = (limitador(1), workload::callers(CALLERS));
                Contender::new("a HashMap of names and limitador", move || {
                    assert!(names.contains_key(*black_box(tools.next())));
                    let context = peer::context(&callers.next().grant);
                    assert!(!limiter.check_rate_limited_and_update(&peer::namespace(), &context, 1).unwrap().limited);
                })
            }),
            with_one_limit::<Cel>(),
            with_one_limit::<CelByTool>(),
            with_one_limit::<Regorus>(),
            with_one_limit::<Cedar>(),
            with_one_limit::<CedarByTool>(),
            with_one_limit::<Casbin>(),
        ],
        ratios: vec![ratio(1, 0), ratio(1, 2)],
    }
}

/// Three keyed limiters, whose keys already exist for a number of callers.
pub(crate) struct Checks {
    limiters: [DefaultKeyedRateLimiter<String>; 3],
    callers: usize,
}

impl Checks {
    pub(crate) fn new(callers: usize) -> Self {
        // One cell per nanosecond and a burst of a second, so nothing is ever refused.
        let quota = Quota::per_second(NonZero::new(1_000_000_000).unwrap());
        let checks = Self { limiters: [(); 3].map(|()| RateLimiter::keyed(quota)), callers };
        for index in 0..callers {
            let caller = Caller::new(index);
            checks.three_of_one_key(&caller);
            checks.three_of_three_keys(&caller);
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

    fn three_of_three_keys(&self, caller: &Caller) {
        let [grant, session, user] = black_box([&caller.grant, &caller.session, &caller.user]);
        let checks = self.limiters.iter().zip([grant, session, user]);
        assert!(checks.into_iter().all(|(limiter, key)| limiter.check_key(key).is_ok()));
    }
}
