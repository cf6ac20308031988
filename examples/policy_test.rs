//! Tests of a policy, to copy: cases beside the policy, and others in Rust.
//!
//! ```text
//! cargo run --example policy_test
//! ```
//!
//! In a host's own crate, each of these functions would be a `#[test]`. What fails is printed with its case, its step, and what was
//! expected; what no case exercises, with its place in the policy.

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

/// All together, and no rule or limit of the policy that they would not miss.
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
