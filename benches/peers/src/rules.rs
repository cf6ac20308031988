//! Policies without counters: how fast calls are decided and documents read, beside other engines.

use std::hint::black_box;

use toolgate::Policy;

use crate::engines::by_hand::{LookUp, LookUps, Schemas, SipMap, Toolgate};
use crate::engines::casbin::{Casbin, CasbinMatches};
use crate::engines::cedar::{Cedar, CedarByTool};
use crate::engines::cel::{Cel, CelByTool, CelMatches};
use crate::engines::regorus::Regorus;
use crate::engines::{Engine, Rules, Written, agrees_on_conditions, agrees_on_names, of_conditions, of_names};
use crate::race::{Contender, Entrant, claim, race, shown};
use crate::report::{Contest, Loaded, Loads, Sizes};
use crate::workload::{self, DESCRIPTION, ENTRIES};
use crate::{Asked, allocations, floor};

/// Fails unless all engines give the same answers.
pub(crate) fn agree() {
    agrees_on_names::<LookUp>();
    agrees_on_names::<Toolgate>();
    agrees_on_names::<SipMap>();
    agrees_on_names::<Schemas>();
    agrees_on_names::<Cel>();
    agrees_on_names::<CelByTool>();
    agrees_on_names::<Regorus>();
    agrees_on_names::<Cedar>();
    agrees_on_names::<CedarByTool>();
    agrees_on_names::<Casbin>();
    agrees_on_conditions::<LookUps>();
    agrees_on_conditions::<Toolgate>();
    agrees_on_conditions::<Schemas>();
    agrees_on_conditions::<Cel>();
    agrees_on_conditions::<CelMatches>();
    agrees_on_conditions::<CelByTool>();
    agrees_on_conditions::<Regorus>();
    agrees_on_conditions::<Cedar>();
    agrees_on_conditions::<Casbin>();
    agrees_on_conditions::<CasbinMatches>();
}

/// W1 beside one look-up by hand and the standard library's map of names.
pub(crate) fn names_alone(allowed: bool) -> Contest {
    Contest {
        title: if allowed { "evaluate W1 allowed" } else { "evaluate W1 denied" },
        heading: if allowed { "W1 allowed" } else { "W1 denied" },
        entrants: vec![
            of_names::<LookUp>(ENTRIES, allowed),
            of_names::<Toolgate>(ENTRIES, allowed),
            of_names::<SipMap>(ENTRIES, allowed),
            of_names::<Cel>(ENTRIES, allowed),
            of_names::<CelByTool>(ENTRIES, allowed),
            of_names::<Regorus>(ENTRIES, allowed),
            of_names::<Cedar>(ENTRIES, allowed),
            of_names::<CedarByTool>(ENTRIES, allowed),
            of_names::<Casbin>(ENTRIES, allowed),
        ],
        claims: vec![claim(1, 0, 2.0), claim(1, 2, 1.0)],
    }
}

/// W2 beside the look-ups and the regular expression by hand, and beside JSON Schema behind a map.
pub(crate) fn conditions(allowed: bool) -> Contest {
    Contest {
        title: if allowed { "evaluate W2 allowed" } else { "evaluate W2 denied" },
        heading: if allowed { "W2 allowed" } else { "W2 denied" },
        entrants: vec![
            of_conditions::<LookUps>(allowed),
            of_conditions::<Toolgate>(allowed),
            of_conditions::<Schemas>(allowed),
            of_conditions::<Cel>(allowed),
            of_conditions::<CelByTool>(allowed),
            of_conditions::<CelMatches>(allowed),
            of_conditions::<Regorus>(allowed),
            of_conditions::<Cedar>(allowed),
            of_conditions::<Casbin>(allowed),
            of_conditions::<CasbinMatches>(allowed),
        ],
        claims: vec![claim(1, 0, 1.3), claim(1, 2, 1.0)],
    }
}

/// W1 with a few entries and with many. Those that go through their rules one by one are left out where that would take
/// minutes, and say so by a dash in the table.
pub(crate) fn many_entries(asked: &Asked) -> Option<Sizes> {
    let title = "evaluate W1 by entries";
    if !asked.wants(title) {
        return None;
    }
    let sizes: Vec<usize> =
        [10, ENTRIES, 10_000, 100_000].into_iter().filter(|size| asked.pace.measures() || *size <= ENTRIES).collect();
    type Of = fn(usize, bool) -> Entrant;
    let engines: [(Of, usize); 8] = [
        (of_names::<LookUp>, 100_000),
        (of_names::<Toolgate>, 100_000),
        (of_names::<Cel>, 100_000),
        (of_names::<CelByTool>, 10_000),
        (of_names::<Regorus>, 100_000),
        (of_names::<Cedar>, 100_000),
        (of_names::<CedarByTool>, 10_000),
        (of_names::<Casbin>, 10_000),
    ];
    let mut contenders = Vec::new();
    let mut rows = Vec::new();
    for (of, most) in engines {
        let entrants: Vec<_> = sizes.iter().filter(|size| **size <= most).map(|size| (of(*size, true), size)).collect();
        rows.push((entrants[0].0.name.clone(), entrants.len()));
        contenders
            .extend(entrants.iter().map(|(entrant, size)| entrant.make().named(&format!("{}, {size}", entrant.name))));
    }
    let many = sizes.len();
    let claims = if many == 4 { vec![shown(4, 5), claim(7, 5, 2.0), shown(3, 1), shown(7, 3)] } else { Vec::new() };
    let mut medians = race(title, asked.pace.of_large(), &mut contenders, &claims).into_iter();
    let rows = rows.into_iter().map(|(name, of)| (name, medians.by_ref().take(of).collect())).collect();
    Some(Sizes { sizes, rows })
}

/// Reading a document beside what `serde` takes to put it into structs, and beside other engines; and what it holds then.
pub(crate) fn load(asked: &Asked) -> Vec<Loads> {
    let mut all = Vec::new();
    for (title, text, regex, pace, with_peers) in [
        ("load 359 bare entries", workload::w1(ENTRIES), None, asked.pace, true),
        ("load 359 bare entries and a regex", workload::w2(), Some(DESCRIPTION), asked.pace, false),
        ("load 359 entries with rules", workload::mixed(ENTRIES), None, asked.pace, false),
        ("load 10,000 entries with rules", workload::mixed(10_000), None, asked.pace.of_large(), false),
        ("load 100,000 bare entries", workload::w1(100_000), None, asked.pace.of_large(), false),
    ] {
        if !asked.wants(title) {
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
        let live: Vec<_> = loads.iter().map(|load| (load.live)()).collect();
        let (rows, mut contenders): (Vec<_>, Vec<_>) =
            loads.into_iter().map(|load| ((load.name, load.text_bytes), load.contender)).unzip();
        let medians = race(title, pace, &mut contenders, &[claim(1, 0, 3.0)]);
        let rows = rows.into_iter().zip(live).zip(medians);
        let rows = rows
            .map(|(((name, text_bytes), live_bytes), nanoseconds)| Loaded { name, text_bytes, live_bytes, nanoseconds })
            .collect();
        all.push(Loads { title, rows });
    }
    all
}

/// Something that reads a text.
struct Load {
    name: &'static str,
    text_bytes: usize,
    contender: Contender<'static>,
    /// How much what was read holds.
    live: Box<dyn Fn() -> i64>,
}

impl Load {
    fn of<E: Engine<Text: Written>>(rules: Rules) -> Self {
        let text = E::write(rules);
        Self::new(E::NAME, text.bytes(), move || E::read(black_box(&text)))
    }

    fn new<T>(name: &'static str, text_bytes: usize, read: impl Fn() -> T + 'static) -> Self {
        let read = std::rc::Rc::new(read);
        let again = std::rc::Rc::clone(&read);
        let live = move || {
            // What is made once for the whole process is no policy's.
            drop(again());
            let (allocated, read) = allocations::during(&*again);
            drop(read);
            allocated.live_bytes
        };
        Self { name, text_bytes, contender: Contender::new(name, move || drop(read())), live: Box::new(live) }
    }
}
