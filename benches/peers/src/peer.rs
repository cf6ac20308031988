//! `limitador` with limits like toolgate's, whose windows outlast the run.

use std::collections::HashMap;

use limitador::limit::{Context, Limit, Namespace};

/// A maximum that is never reached.
const MAX: u64 = 9_000_000_000_000;

pub(crate) fn namespace() -> Namespace {
    "calls".into()
}

pub(crate) fn limits(counters: usize) -> Vec<Limit> {
    let seconds = [86_400, 7 * 86_400, 30 * 86_400];
    let limit = |seconds: &u64| Limit::new("calls", MAX, *seconds, [], ["grant".try_into().unwrap()]);
    seconds[..counters].iter().map(limit).collect()
}

pub(crate) fn context(grant: &str) -> Context<'static> {
    HashMap::from([(String::from("grant"), grant.to_owned())]).into()
}
