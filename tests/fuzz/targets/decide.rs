//! Decisions against the model of the tests: the bytes are the tape from which their generator draws policies and histories.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

#[allow(dead_code, unused_imports, unused_macros, reason = "tests of their own use more of it")]
#[path = "../../it/audit.rs"]
mod audit;
#[allow(dead_code, unused_imports, unused_macros, reason = "tests of their own use more of it")]
#[path = "../../it/generate.rs"]
mod generate;
#[allow(dead_code, unused_imports, unused_macros, reason = "tests of their own use more of it")]
#[path = "../../it/model.rs"]
mod model;
#[allow(dead_code, unused_imports, unused_macros, reason = "tests of their own use more of it")]
#[path = "../../it/properties.rs"]
mod properties;

use generate::{Document, Event};

type Drawn = ([Document; 2], Vec<Event>);

/// What is drawn behind the fuzzer's bytes: without an end, so that a draw which has to be repeated comes to one.
static TAIL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut word = 1u64;
    let words = (0..16_384).flat_map(|_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    });
    words.collect()
});

thread_local! {
    /// Rules of every kind, and much that is counted in every way.
    static STRATEGIES: [BoxedStrategy<Drawn>; 2] = [
        (generate::document(), generate::history()).prop_map(|(one, history)| ([one.clone(), one], history)).boxed(),
        (generate::counting_documents(), generate::counted_history()).boxed(),
    ];
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, tape)) = bytes.split_first() else { return };
    let rng = TestRng::from_seed(RngAlgorithm::PassThrough, &[tape, &TAIL].concat());
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let drawn = STRATEGIES.with(|of| of[usize::from(choice % 2)].new_tree(&mut runner)).map(|tree| tree.current());
    let Ok((documents, history)) = drawn else { return };
    let checks: [fn(&[Document; 2], &[Event]) -> Result<(), TestCaseError>; 4] =
        [properties::agrees, properties::is_undisturbed, properties::is_decided_again, properties::agrees_with_itself];
    // Mostly the model.
    let check = match choice / 2 % 8 {
        5 => checks[1],
        6 => checks[2],
        7 => checks[3],
        _ => checks[0],
    };
    if let Err(error) = check(&documents, &history) {
        panic!("{error}\n{}\n{}\n{history:?}", documents[0].to_json(), documents[1].to_json());
    }
});
