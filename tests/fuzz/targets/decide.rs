//! Decisions against the model of the tests. The bytes are the seeds from which the tests'
//! generator draws policies and a history, followed by the order of the events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

#[allow(dead_code, unused_imports, reason = "tests of their own use more of it")]
#[path = "../../it/model/mod.rs"]
mod model;

use model::generate::{self, Document, Event};
use model::properties;

thread_local! {
    /// Rules of every kind, and limits of every kind; and the histories for each.
    static DOCUMENTS: [BoxedStrategy<[Document; 2]>; 2] = [
        generate::document().prop_map(|one| [one.clone(), one]).boxed(),
        generate::counting_documents().boxed(),
    ];
    static HISTORIES: [BoxedStrategy<Vec<Event>>; 2] =
        [generate::history().boxed(), generate::counted_history().boxed()];
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let (of_documents, rest) = rest.split_at(rest.len().min(32));
    let (of_history, order) = rest.split_at(rest.len().min(32));
    let kind = usize::from(choice % 2);
    let Some(documents) = DOCUMENTS.with(|of| drawn(&of[kind], of_documents)) else { return };
    let Some(mut history) = HISTORIES.with(|of| drawn(&of[kind], of_history)) else { return };
    if !order.is_empty() {
        history = order.iter().take(48).map(|at| history[usize::from(*at) % history.len()].clone()).collect();
    }
    // In most cases, the model.
    let check: fn(&[Document; 2], &[Event]) -> Result<(), TestCaseError> = match choice / 2 % 8 {
        5 => properties::is_undisturbed,
        6 => properties::is_decided_again,
        7 => properties::agrees_with_itself,
        _ => properties::agrees,
    };
    if let Err(error) = check(&documents, &history) {
        panic!("{error}\n{}\n{}\n{history:?}", documents[0].to_json(), documents[1].to_json());
    }
});

/// Draws from a strategy by a seed. Drawn from the bytes themselves it might not end: the strategy
/// repeats a draw that does not fit.
fn drawn<T: std::fmt::Debug>(strategy: &BoxedStrategy<T>, seed: &[u8]) -> Option<T> {
    let mut whole = [0; 32];
    whole[..seed.len()].copy_from_slice(seed);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &whole);
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    strategy.new_tree(&mut runner).ok().map(|tree| tree.current())
}
