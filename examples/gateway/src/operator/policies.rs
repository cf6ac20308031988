//! The policies in force with what lint finds in them, and the tools of the servers.

use std::collections::{BTreeSet, HashMap};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use toolgate::Policy;
use toolgate::analysis::lint;

use super::OperatorState;

/// The most policies that one answer has.
const POLICIES: usize = 100;
/// The most names of grants that are listed for one policy.
const GRANTS: usize = 50;

pub(super) async fn policies(State(state): State<OperatorState>) -> Response {
    let grants = state.host().grants.as_ref().map(|grants| grants.grants()).unwrap_or_default();
    let all = state.host().policies();
    let omitted = all.len().saturating_sub(POLICIES);
    // Once over all grants, of which there can be many.
    let mut uses: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for grant in &grants {
        for access in grant.access() {
            uses.entry(access.policy()).or_default().insert(grant.id());
        }
    }
    let uses = |name: &str| {
        let grants = uses.get(name).into_iter().flatten();
        let (all, shown) = (grants.clone().count(), grants.take(GRANTS));
        (shown.map(|grant| (*grant).to_owned()).collect::<Vec<_>>(), all.saturating_sub(GRANTS))
    };
    let all: Vec<_> = all.into_iter().take(POLICIES).map(|(name, policy)| (uses(&name), name, policy)).collect();
    let examined =
        state.work(move || all.into_iter().map(|(grants, name, policy)| to_json(grants, &name, &policy)).collect());
    match examined.await {
        Ok(policies) => Json(json!({ "policies": Value::Array(policies), "omitted": omitted })).into_response(),
        Err(failed) => failed,
    }
}

fn to_json((grants, more): (Vec<String>, usize), name: &str, policy: &Policy) -> Value {
    let source = lines(policy.to_json());
    json!({
        "name": name,
        "digest": policy.digest().to_string(),
        "entries": policy.entries(),
        "grants": grants,
        "more_grants": more,
        "lint": lint::check(&source).unwrap_or_default(),
        "source": source,
    })
}

/// Writes JSON with a line for each member and element. A value would lose the order of members.
fn lines(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let (mut in_string, mut is_escaped) = (false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    let mut before = ' ';
    for c in json.chars() {
        if in_string {
            text.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            before = c;
            continue;
        }
        match c {
            ' ' | '\n' | '\r' | '\t' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(before, '{' | '[') {
                    line(&mut text, depth);
                }
            }
            _ if matches!(before, '{' | '[') => line(&mut text, depth),
            _ => {}
        }
        text.push(c);
        match c {
            '{' | '[' => depth += 1,
            ',' => line(&mut text, depth),
            ':' => text.push(' '),
            _ => in_string = c == '"',
        }
        // A bracket at the end of a string is not one.
        before = c;
    }
    text.push('\n');
    text
}

/// The tools that the servers have listed, with the names of the servers.
pub(super) async fn tools(State(state): State<OperatorState>) -> Json<Value> {
    let servers = state.host().tools().into_iter().map(|(server, tools)| json!({ "server": server, "tools": tools }));
    Json(json!({ "servers": servers.collect::<Vec<_>>() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_line_for_each_member() {
        let text = r#"{"a":[],"b":{},"c":[1,{"d":"x{\"["}],"e\\":"}"}"#;
        let expected = [
            "{",
            r#"  "a": [],"#,
            r#"  "b": {},"#,
            r#"  "c": ["#,
            "    1,",
            "    {",
            r#"      "d": "x{\"[""#,
            "    }",
            "  ],",
            r#"  "e\\": "}""#,
            "}",
            "",
        ];
        assert_eq!(lines(text).split('\n').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn writes_the_same_policy() {
        let text = include_str!("../../../data/code-generator.json");
        let policy: Policy = text.parse().unwrap();
        assert_eq!(lines(policy.to_json()).parse::<Policy>().unwrap().digest(), policy.digest());
    }
}
