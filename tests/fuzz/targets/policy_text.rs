//! Texts of policies: read by the crate, by the JSON Schema, and by the crate again from its own
//! output.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use toolgate::analysis::{diff, lint};
use toolgate::mcp::ToolDigest;
use toolgate::{Effect, Issue, IssueCode, Policy, PolicyError, Timestamp, ToolCall, intercept};
use toolgate_fuzz::strict::{self, Node};

#[allow(dead_code, unused_imports, reason = "tests of their own use more of it")]
#[path = "../../it/language/schema/mod.rs"]
mod schema;

fuzz_target!(|bytes: &[u8]| {
    let read = Policy::from_slice(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        let error = read.expect_err("no text, and so no policy");
        assert!(error.issues().iter().all(|issue| issue.code() == IssueCode::NotUtf8));
        return;
    };
    match &read {
        Ok(policy) => writes_itself(policy, text),
        Err(error) => has_places(error, text),
    }
    assert_eq!(lint::check(text).is_ok(), read.is_ok(), "{text}");
    // The text as another reader sees it, if all readers see the same.
    let Some(node) = strict::read(text, 100) else {
        assert!(read.is_err(), "not JSON, or too deep: {text}");
        return;
    };
    let has_twin = |node: &Node| match node {
        Node::Object(members) => {
            (1..members.len()).any(|at| members[..at].iter().any(|(key, _)| *key == members[at].0))
        }
        _ => false,
    };
    if !node.all(&|node| !has_twin(node)) {
        assert!(read.is_err(), "a key appears twice: {text}");
        return;
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    agrees_with_the_schema(read.as_ref().map(|_| ()), &value, text);
    if let Ok(policy) = &read {
        let from_value = Policy::try_from(&value).expect("the same document");
        let value_of = |policy: &Policy| serde_json::from_str::<Value>(policy.to_json()).expect("a document");
        let digest = ToolDigest::of(&value);
        assert_eq!((ToolDigest::of(&value_of(policy)), ToolDigest::of(&value_of(&from_value))), (digest, digest));
    }
    if let Ok(carried_over) = intercept::read(&value) {
        writes_itself(&carried_over, carried_over.to_json());
    }
});

/// A policy reads back as itself, equals itself, and evaluates a call as it explains it.
fn writes_itself(policy: &Policy, text: &str) {
    let again = Policy::from_json(policy.to_json()).expect("what a policy writes is one");
    assert_eq!((&again, again.digest(), again.to_json()), (policy, policy.digest(), policy.to_json()), "{text}");
    assert!(diff::compare_within(policy, &again, 1_000).is_equal(), "{text}");
    let document: Value = serde_json::from_str(policy.to_json()).expect("a document");
    let arguments =
        json!({ "x": "a", "y": 1, "l": [1, "b"], "o": { "x": null }, "path": "/w/a", "url": "https://a.io/" });
    let tools = document["tools"].as_object().into_iter().flat_map(|tools| tools.keys().take(4));
    for tool in tools.map(|name| name.replace('*', "x")).chain(["another".to_owned()]) {
        let call = ToolCall::new(&tool, &arguments).grant("g");
        let now = Timestamp::from_unix_seconds(1_768_473_000);
        let (evaluation, explained) = (policy.evaluate(&call, now), policy.explain(&call, now));
        let (rule, explained_by) = (evaluation.rule(), explained.rule());
        assert_eq!((explained.effect(), explained_by), (evaluation.effect(), rule.as_deref()), "{tool}: {text}");
        // For a call that no rule denies, an explanation knows some limits too.
        let is_denied = matches!(evaluation.effect(), Effect::Deny(_));
        assert!(!is_denied || explained.code() == evaluation.code(), "{tool}: {text}");
        // A tool that is not listed is never allowed.
        assert!(policy.lists(&tool) || !evaluation.is_allowed(), "{tool}: {text}");
    }
}

/// Each issue has a place in the text, and, where the text is JSON, in the document.
fn has_places(error: &PolicyError, text: &str) {
    assert!(!error.issues().is_empty() && error.omitted() == 0 && !error.to_string().is_empty());
    let lines: Vec<&str> = text.split('\n').collect();
    let document: Option<Value> = serde_json::from_str(text).ok();
    for issue in error.issues() {
        let (line, column) = (issue.line().expect("a line"), issue.column().expect("a column"));
        let there = lines.get(line - 1).expect("a line of the text");
        assert!((1..=there.chars().count() + 1).contains(&column), "{issue} at {line}:{column}: {text}");
        assert!(!issue.message().is_empty());
        if let Some(document) = &document {
            let is_last = issue.code() == IssueCode::DuplicateKey || has_duplicates(error);
            assert!(is_last || document.pointer(issue.pointer()).is_some(), "{issue}: {text}");
        }
    }
}

fn has_duplicates(error: &PolicyError) -> bool {
    error.issues().iter().any(|issue| issue.code() == IssueCode::DuplicateKey)
}

/// Both accept the same documents, except for the rules that the schema's documentation says it
/// cannot express.
fn agrees_with_the_schema(read: Result<(), &PolicyError>, document: &Value, text: &str) {
    let takes = schema::VALIDATOR.is_valid(document);
    match read {
        Ok(()) => assert!(takes, "the schema refuses {text}"),
        Err(error) => {
            let beyond = |issue: &Issue| schema::is_inexpressible(issue, document);
            assert!(!takes || error.issues().iter().all(beyond), "the schema takes {text}: {error}");
        }
    }
}
