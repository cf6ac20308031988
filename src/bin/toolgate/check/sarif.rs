//! SARIF 2.1.0, the format of code scanning.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Problem, STALE, Stale};

/// The rule of an accepted finding that does not occur.
const STALE_RULE: &str = "accepted_finding_not_found";

pub(super) fn log(problems: &[Problem<'_>], stale: &[Stale<'_>]) -> Value {
    let codes: BTreeSet<_> =
        problems.iter().map(|problem| problem.code).chain(stale.iter().map(|_| STALE_RULE)).collect();
    let rules: Vec<_> = codes.into_iter().map(|code| json!({ "id": code })).collect();
    let results: Vec<_> = problems.iter().map(result).chain(stale.iter().map(stale_result)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "toolgate", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(problem: &Problem<'_>) -> Value {
    let Problem { severity, code, pointer, line, column, message, help, witness, .. } = problem;
    let mut text = (*message).to_owned();
    text += &help.map_or(String::new(), |help| format!("\nHelp: {help}"));
    text += &witness.as_ref().map_or(String::new(), |witness| format!("\nCall: {witness}"));
    let mut location = location(problem.file, *line, *column);
    if let Value::Object(location) = &mut location {
        location.insert("logicalLocations".to_owned(), json!([{ "fullyQualifiedName": pointer }]));
    }
    // The severities have the names of the levels.
    let mut result =
        json!({ "ruleId": code, "level": severity.as_str(), "message": { "text": text }, "locations": [location] });
    if let (true, Value::Object(result)) = (problem.is_accepted, &mut result) {
        result.insert("suppressions".to_owned(), json!([{ "kind": "external" }]));
    }
    result
}

fn stale_result(stale: &Stale<'_>) -> Value {
    let text = format!("`{}`: {STALE}", stale.text);
    let location = location(stale.file, Some(stale.line), None);
    json!({ "ruleId": STALE_RULE, "level": "warning", "message": { "text": text }, "locations": [location] })
}

fn location(file: &str, line: Option<usize>, column: Option<usize>) -> Value {
    let mut place = json!({ "artifactLocation": { "uri": uri(file) } });
    if let (Some(line), Value::Object(place)) = (line, &mut place) {
        let mut region = json!({ "startLine": line });
        if let (Some(column), Value::Object(region)) = (column, &mut region) {
            region.insert("startColumn".to_owned(), json!(column));
        }
        place.insert("region".to_owned(), region);
    }
    json!({ "physicalLocation": place })
}

/// Writes a path as a relative reference.
fn uri(file: &str) -> String {
    let mut uri = String::with_capacity(file.len());
    for byte in file.bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}
