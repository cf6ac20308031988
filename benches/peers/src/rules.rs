//! Policies without counters: compares the time of decisions and of loading with other engines.

use std::hint::black_box;

use toolgate::Policy;

use crate::engines::by_hand::{ConditionFloor, JsonSchemas, NameFloor, NameMap, Toolgate};
use crate::engines::casbin::{Casbin, CasbinMatches};
use crate::engines::cedar::{Cedar, CedarByTool};
use crate::engines::cel::{Cel, CelByTool, CelMatches};
use crate::engines::regorus::Regorus;
use crate::engines::{Engine, Rules, TextSize, check_conditions, check_names, with_conditions, with_names};
use crate::race::{Contender, ContenderFactory, race, ratio, ratio_at_most};
use crate::report::{Comparison, Loaded, Loads, Sizes};
use crate::workload::{self, DESCRIPTION, ENTRIES};
use crate::{Options, allocations, floor};

/// Panics unless all engines give the same answers.
pub(crate) fn check_agreement() {
    check_names::<NameFloor>();
    check_names::<Toolgate>();
    check_names::<NameMap>();
    check_names::<JsonSchemas>();
    check_names::<Cel>();
    check_names::<CelByTool>();
    check_names::<Regorus>();
    check_names::<Cedar>();
    check_names::<CedarByTool>();
    check_names::<Casbin>();
    check_conditions::<ConditionFloor>();
    check_conditions::<Toolgate>();
    check_conditions::<JsonSchemas>();
    check_conditions::<Cel>();
    check_conditions::<CelMatches>();
    check_conditions::<CelByTool>();
    check_conditions::<Regorus>();
    check_conditions::<Cedar>();
    check_conditions::<Casbin>();
    check_conditions::<CasbinMatches>();
}

/// Compares W1 with one look-up by hand, and with the standard library's map of names.
pub(crate) fn names_alone(allowed: bool) -> Comparison {
    Comparison {
        title: if allowed { "evaluate W1 allowed" } else { "evaluate W1 denied" },
        heading: if allowed { "W1 allowed" } else { "W1 denied" },
        contenders: vec![
            with_names::<NameFloor>(ENTRIES, allowed),
            with_names::<Toolgate>(ENTRIES, allowed),
            with_names::<NameMap>(ENTRIES, allowed),
            with_names::<Cel>(ENTRIES, allowed),
            with_names::<CelByTool>(ENTRIES, allowed),
            with_names::<Regorus>(ENTRIES, allowed),
            with_names::<Cedar>(ENTRIES, allowed),
            with_names::<CedarByTool>(ENTRIES, allowed),
            with_names::<Casbin>(ENTRIES, allowed),
        ],
        ratios: vec![ratio_at_most(1, 0, 2.0), ratio_at_most(1, 2, 1.0)],
    }
}

/// Compares W2 with the same look-ups and regular expression by hand, and with JSON Schema behind a
/// map of names.
pub(crate) fn conditions(allowed: bool) -> Comparison {
    Comparison {
        title: if allowed { "evaluate W2 allowed" } else { "evaluate W2 denied" },
        heading: if allowed { "W2 allowed" } else { "W2 denied" },
        contenders: vec![
            with_conditions::<ConditionFloor>(allowed),
            with_conditions::<Toolgate>(allowed),
            with_conditions::<JsonSchemas>(allowed),
            with_conditions::<Cel>(allowed),
            with_conditions::<CelByTool>(allowed),
            with_conditions::<CelMatches>(allowed),
            with_conditions::<Regorus>(allowed),
            with_conditions::<Cedar>(allowed),
            with_conditions::<Casbin>(allowed),
            with_conditions::<CasbinMatches>(allowed),
        ],
        ratios: vec![ratio_at_most(1, 0, 1.3), ratio_at_most(1, 2, 1.0)],
    }
}

/// Compares W1 with few entries and with many. The largest sizes are skipped for engines that
/// evaluate their rules in sequence, because they would take minutes. The table shows a dash
/// instead.
pub(crate) fn many_entries(options: &Options) -> Option<Sizes> {
    let title = "evaluate W1 by entries";
    if !options.selects(title) {
        return None;
    }
    let sizes: Vec<usize> =
        [10, ENTRIES, 10_000, 100_000].into_iter().filter(|size| options.pace.measures() || *size <= ENTRIES).collect();
    type WithNames = fn(usize, bool) -> ContenderFactory;
    let engines: [(WithNames, usize); 8] = [
        (with_names::<NameFloor>, 100_000),
        (with_names::<Toolgate>, 100_000),
        (with_names::<Cel>, 100_000),
        (with_names::<CelByTool>, 10_000),
        (with_names::<Regorus>, 100_000),
        (with_names::<Cedar>, 100_000),
        (with_names::<CedarByTool>, 10_000),
        (with_names::<Casbin>, 10_000),
    ];
    let mut contenders = Vec::new();
    let mut rows = Vec::new();
    for (with_names, max_size) in engines {
        let factories: Vec<_> =
            sizes.iter().filter(|size| **size <= max_size).map(|size| (with_names(*size, true), size)).collect();
        rows.push((factories[0].0.name.clone(), factories.len()));
        contenders
            .extend(factories.iter().map(|(factory, size)| factory.make().named(&format!("{}, {size}", factory.name))));
    }
    let measures_all = sizes.len() == 4;
    let ratios =
        if measures_all { vec![ratio(4, 5), ratio_at_most(7, 5, 2.0), ratio(3, 1), ratio(7, 3)] } else { Vec::new() };
    let mut medians = race(title, options.pace.of_large(), &mut contenders, &ratios).into_iter();
    let rows = rows.into_iter().map(|(name, count)| (name, medians.by_ref().take(count).collect())).collect();
    Some(Sizes { sizes, rows })
}

/// Compares loading a policy with deserializing it into structs, and with other engines. Measures
/// the memory that the loaded policy holds, too.
pub(crate) fn load(options: &Options) -> Vec<Loads> {
    let mut all = Vec::new();
    for (title, text, regex, pace, with_peers) in [
        ("load 359 bare entries", workload::w1(ENTRIES), None, options.pace, true),
        ("load 359 bare entries and a regex", workload::w2(), Some(DESCRIPTION), options.pace, false),
        ("load 359 entries with rules", workload::mixed(ENTRIES), None, options.pace, false),
        ("load 10,000 entries with rules", workload::mixed(10_000), None, options.pace.of_large(), false),
        ("load 100,000 bare entries", workload::w1(100_000), None, options.pace.of_large(), false),
    ] {
        if !options.selects(title) {
            continue;
        }
        let bytes = text.len();
        let by_hand = text.clone();
        let mut loads = vec![
            Load::new("floor by hand: serde into structs", bytes, move || floor::load(black_box(&by_hand), regex)),
            Load::new("toolgate", bytes, move || Policy::from_json(black_box(&text)).unwrap()),
        ];
        if with_peers {
            let rules = Rules::Names(ENTRIES);
            loads.extend([
                Load::of::<Cel>(rules),
                Load::of::<CelByTool>(rules),
                Load::of::<Regorus>(rules),
                Load::of::<Cedar>(rules),
                Load::of::<CedarByTool>(rules),
                Load::of::<Casbin>(rules),
            ]);
        }
        let live_bytes: Vec<_> = loads.iter().map(|load| (load.live_bytes)()).collect();
        let (rows, mut contenders): (Vec<_>, Vec<_>) =
            loads.into_iter().map(|load| ((load.name, load.text_bytes), load.contender)).unzip();
        let medians = race(title, pace, &mut contenders, &[ratio_at_most(1, 0, 3.0)]);
        let rows = rows.into_iter().zip(live_bytes).zip(medians);
        let rows = rows
            .map(|(((name, text_bytes), live_bytes), nanoseconds)| Loaded { name, text_bytes, live_bytes, nanoseconds })
            .collect();
        all.push(Loads { title, rows });
    }
    all
}

/// A contender that loads a policy from its text.
struct Load {
    name: &'static str,
    text_bytes: usize,
    contender: Contender<'static>,
    /// Loads the policy, and returns the bytes that it holds.
    live_bytes: Box<dyn Fn() -> i64>,
}

impl Load {
    fn of<E: Engine<Text: TextSize>>(rules: Rules) -> Self {
        let text = E::write(rules);
        Self::new(E::NAME, text.bytes(), move || E::load(black_box(&text)))
    }

    fn new<T>(name: &'static str, text_bytes: usize, load: impl Fn() -> T + 'static) -> Self {
        let load = std::rc::Rc::new(load);
        let load_again = std::rc::Rc::clone(&load);
        let live_bytes = move || {
            // The first policy also allocates what the whole process shares.
            drop(load_again());
            let (allocated, policy) = allocations::during(&*load_again);
            drop(policy);
            allocated.live_bytes
        };
        Self {
            name,
            text_bytes,
            contender: Contender::new(name, move || drop(load())),
            live_bytes: Box::new(live_bytes),
        }
    }
}
