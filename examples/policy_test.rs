//! Tests of a policy: cases in a file beside the policy, and others in Rust.
//!
//! ```text
//! cargo run --features testing --example policy_test
//! ```
//!
//! In a crate of your own, each of these functions is a `#[test]`. A failure shows the case, the
//! step and the expected decision. The coverage shows what no case exercises, with its place in the
//! policy.

use std::time::Duration;

use serde_json::json;
use toolgate::testing::{self, Case, Suite, TestError};

const POLICY: &str = include_str!("data/code-generator.json");
const CASES: &str = include_str!("data/code-generator.cases.json");

fn main() -> Result<(), TestError> {
    languages_and_prompts()?;
    ten_a_minute()?;
    println!("{}", everything()?);
    Ok(())
}

/// The cases beside the policy: one call.
fn languages_and_prompts() -> Result<(), TestError> {
    testing::run(POLICY, CASES).map(drop)
}

/// A case in Rust.
fn ten_a_minute() -> Result<(), TestError> {
    Suite::new(POLICY)?.case(minute("ten a minute")).run().map(drop)
}

/// All cases together. They exercise every rule and limit of the policy.
fn everything() -> Result<testing::Coverage, TestError> {
    let four_minutes = (1..=4).fold(generating("forty a day"), |case, _| ten(case).after(Duration::from_secs(60)));
    let day = four_minutes.call("generate_code", prompt()).limited("/tools/generate_code/limits/1");
    let coverage = Suite::new(POLICY)?.cases(CASES)?.case(minute("ten a minute")).case(day).run()?;
    assert!(coverage.is_complete(), "{coverage}");
    Ok(coverage)
}

fn prompt() -> serde_json::Value {
    json!({ "language": "rust", "prompt": "a parser" })
}

fn generating(id: &str) -> Case {
    Case::new(id).caller(json!({ "grant": "g-42", "user": "ann" }))
}

fn ten(case: Case) -> Case {
    (0..10).fold(case, |case, _| case.call("generate_code", prompt()).allowed())
}

fn minute(id: &str) -> Case {
    ten(generating(id)).call("generate_code", prompt()).limited("/tools/generate_code/limits/0")
}
