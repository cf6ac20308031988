//! Policies without counters.

use std::collections::HashMap;
use std::hint::black_box;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};
use toolgate::{Policy, Timestamp, ToolCall};

use crate::Asked;
use crate::floor::{self, Conditions, Names};
use crate::race::{Contender, claim, race, shown};
use crate::workload::{self, CHARGE, DESCRIPTION, ENTRIES};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// W1 beside one look-up by hand and the standard library's map of names.
pub(crate) fn names_alone(asked: &Asked) {
    let policy = Policy::from_json(&workload::w1(ENTRIES)).unwrap();
    let floor = Names::new(ENTRIES);
    let map: HashMap<String, ()> = (0..ENTRIES).map(|index| (workload::tool_name(index), ())).collect();
    let arguments = workload::arguments();
    for (title, allowed) in [("evaluate W1 allowed", true), ("evaluate W1 denied", false)] {
        if !asked.wants(title) {
            continue;
        }
        let names = || workload::names(ENTRIES, if allowed { workload::tool_name } else { workload::unknown_name });
        let (mut by_hand, mut by_map, mut by_policy) = (names(), names(), names());
        let contenders = vec![
            Contender::new("floor: one look-up", || assert_eq!(floor.allows(black_box(by_hand.next())), allowed)),
            Contender::new("a HashMap of names, SipHash", || {
                assert_eq!(map.contains_key(*black_box(by_map.next())), allowed);
            }),
            Contender::new("toolgate", || evaluate(&policy, by_policy.next(), &arguments, allowed)),
        ];
        let claims = [claim(2, 0, 2.0), claim(2, 1, 1.0)];
        race(title, asked.pace, contenders, &claims);
    }
}

/// W2 beside the look-ups and the regular expression by hand, and beside JSON Schema behind a map.
pub(crate) fn conditions(asked: &Asked) {
    let policy = Policy::from_json(&workload::w2()).unwrap();
    let floor = Conditions::new();
    let schemas = Schemas::new();
    for (title, allowed) in [("evaluate W2 allowed", true), ("evaluate W2 denied", false)] {
        if !asked.wants(title) {
            continue;
        }
        let arguments = workload::charge_arguments(allowed);
        let contenders = vec![
            Contender::new("floor: look-ups and regex", || {
                assert_eq!(floor.allows(black_box(CHARGE), black_box(&arguments)), allowed);
            }),
            Contender::new("jsonschema behind a map", || {
                assert_eq!(schemas.allows(black_box(CHARGE), black_box(&arguments)), allowed);
            }),
            Contender::new("toolgate", || evaluate(&policy, CHARGE, &arguments, allowed)),
        ];
        race(title, asked.pace, contenders, &[claim(2, 0, 1.3), claim(2, 1, 1.0)]);
    }
}

/// W1 with a few entries and with many.
pub(crate) fn many_entries(asked: &Asked) {
    let title = "evaluate W1 by entries";
    if !asked.wants(title) {
        return;
    }
    let arguments = workload::arguments();
    let of = |entries| {
        let policy = Policy::from_json(&workload::w1(entries)).unwrap();
        let mut names = workload::names(entries, workload::tool_name);
        let arguments = &arguments;
        Contender::new(&format!("toolgate, {entries} entries"), move || {
            evaluate(&policy, names.next(), arguments, true);
        })
    };
    let by_hand = |entries| {
        let floor = Names::new(entries);
        let mut names = workload::names(entries, workload::tool_name);
        Contender::new(&format!("floor: one look-up, {entries} entries"), move || {
            assert!(floor.allows(black_box(names.next())));
        })
    };
    let contenders = vec![of(10), of(ENTRIES), of(100_000), by_hand(ENTRIES), by_hand(100_000)];
    let claims = [shown(0, 1), claim(2, 1, 2.0), shown(4, 3), shown(2, 4)];
    race(title, asked.pace.of_large(), contenders, &claims);
}

/// Reading a document beside what `serde` takes to put it into structs.
pub(crate) fn load(asked: &Asked) {
    for (title, text, regex, pace) in [
        ("load 359 bare entries", workload::w1(ENTRIES), None, asked.pace),
        ("load 359 bare entries and a regex", workload::w2(), Some(DESCRIPTION), asked.pace),
        ("load 359 entries with rules", workload::mixed(ENTRIES), None, asked.pace),
        ("load 10,000 entries with rules", workload::mixed(10_000), None, asked.pace.of_large()),
        ("load 100,000 bare entries", workload::w1(100_000), None, asked.pace.of_large()),
    ] {
        if !asked.wants(title) {
            continue;
        }
        let contenders = vec![
            Contender::new("floor: serde into structs", || {
                drop(floor::load(black_box(&text), black_box(regex)));
            }),
            Contender::new("toolgate", || drop(Policy::from_json(black_box(&text)).unwrap())),
        ];
        race(title, pace, contenders, &[claim(1, 0, 3.0)]);
    }
}

fn evaluate(policy: &Policy, tool: &str, arguments: &Value, allowed: bool) {
    let call = ToolCall::new(tool, arguments);
    assert_eq!(policy.evaluate(black_box(&call), NOW).is_allowed(), allowed);
}

/// What a gateway without a policy engine would do: a schema for the arguments of each tool.
struct Schemas(HashMap<String, Option<Validator>>);

impl Schemas {
    fn new() -> Self {
        let schema = json!({
            "type": "object",
            "required": ["amount", "currency", "reason", "description"],
            "properties": {
                "amount": { "type": "number", "maximum": 50000 },
                "currency": { "enum": ["usd", "eur"] },
                "description": { "type": "string", "pattern": DESCRIPTION },
            },
        });
        let linear = PatternOptions::regex();
        let validator = jsonschema::options().with_pattern_options(linear).build(&schema).unwrap();
        let bare = (0..ENTRIES - 1).map(|index| (workload::tool_name(index), None));
        Self(bare.chain([(CHARGE.to_owned(), Some(validator))]).collect())
    }

    fn allows(&self, tool: &str, arguments: &Value) -> bool {
        match self.0.get(tool) {
            Some(Some(validator)) => validator.is_valid(arguments),
            Some(None) => true,
            None => false,
        }
    }
}
