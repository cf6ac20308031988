//! The conformance suite over every store, and a comparison with the naive store.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use toolgate::store::conformance::{self, Suite};
use toolgate::store::{AsyncCounterStore, CounterStore, InProcess, LeasedStore, MemoryStore};

use crate::counting::naive_store::NaiveStore;
use crate::polling::block_on;

fn passes<S: CounterStore>(store: S) {
    if let Err(failures) = conformance::check(store) {
        panic!("{failures}");
    }
}

#[test]
fn the_memory_store_passes_the_suite() {
    passes(MemoryStore::new());
}

/// Borrowed, boxed, shared, or as a trait object of either trait.
#[test]
fn a_store_passes_the_suite_through_pointers() {
    let own = MemoryStore::new();
    passes(&own);
    passes(Box::new(MemoryStore::new()));
    passes(Box::new(MemoryStore::new()) as Box<dyn CounterStore>);
    let shared: Arc<dyn CounterStore> = Arc::new(MemoryStore::new());
    passes(Arc::clone(&shared));
    passes(shared);
    // The suite starts at any instant, and can run again over the same store.
    let suite = Suite::new("2031-05-05T05:05:05.000001Z".parse().unwrap());
    let boxed: Box<dyn AsyncCounterStore> = Box::new(InProcess(MemoryStore::new()));
    let arced: Arc<dyn AsyncCounterStore> = Arc::new(InProcess(Box::new(MemoryStore::new()) as Box<dyn CounterStore>));
    for suite in [suite, suite.years(false), suite.flood(10)] {
        for store in [&boxed as &dyn AsyncCounterStore, &arced] {
            let passed = block_on(suite.run(store)).unwrap_or_else(|failures| panic!("{failures}"));
            assert_eq!(passed, suite.cases());
        }
    }
    for seed in 0..5 {
        block_on(suite.compare(&boxed, &arced, seed, 300)).unwrap();
    }
}

/// A node that takes slices of counters in advance still satisfies the contract.
#[test]
fn a_leased_store_passes_the_suite() {
    let suite = Suite::new("2026-01-15T10:30:00Z".parse().unwrap());
    let leased = LeasedStore::new(InProcess(MemoryStore::new()));
    let passed = block_on(suite.run(&leased)).unwrap_or_else(|failures| panic!("{failures}"));
    assert_eq!(passed, suite.cases());
}

/// A newcomer starts from this example.
#[test]
fn the_custom_store_example_is_short() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/custom_store.rs");
    let text = fs::read_to_string(path).unwrap();
    let code = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let lines = code.count();
    assert!(lines < 75, "{lines} lines");
}

#[test]
fn the_naive_store_passes_the_suite() {
    passes(NaiveStore::default());
}

#[test]
fn memory_and_naive_store_agree_on_random_histories() {
    for seed in 0..40 {
        if let Err(failure) = conformance::compare(MemoryStore::new(), NaiveStore::default(), seed, 400) {
            panic!("{failure}");
        }
    }
}
