//! Common mistakes in a policy, each with a help text that says what to write.

use serde_json::json;
use toolgate::Policy;

fn entry(body: &str) -> String {
    format!(r#"{{"version":"1","default":"deny","tools":{{"t":{body}}}}}"#)
}

fn with_condition(condition: &str) -> String {
    entry(&format!(r#"{{"require":[{{"conditions":[{condition}]}}]}}"#))
}

#[test]
fn common_mistakes_are_reported_with_a_correction() {
    let limit =
        |more: &str| entry(&format!(r#"{{"limits":[{{"counter":"c","window":"day","max":1,"scope":"user"{more}}}]}}"#));
    for (document, help) in [
        (r#"{"version":1,"default":"deny"}"#.to_owned(), "write it in double quotes"),
        (r#"{"version":"1","default":"deny","tools":["t"]}"#.to_owned(), r#"for example { "list_customers": {} }"#),
        (entry(r#""allow""#), r#"for example {}, which allows the tool, or { "action": "deny" }"#),
        (entry(r#"{"deny":true}"#), "did you mean `action`?"),
        (entry(r#"{"require_approval":true}"#), "did you mean `action`?"),
        (entry(r#"{"action":"ask"}"#), "did you mean `require_approval`?"),
        (entry(r#"{"on_deny":"no"}"#), "did you mean `reason`?"),
        (entry(r#"{"ttl":"5m"}"#), "`ttl` is a key of `approval`; an entry has the keys `description`, "),
        (entry(r#"{"hide":true}"#), "`hide` is a key of a policy; an entry has the keys `description`, "),
        (entry(r#"{"colour":1}"#), "expected one of `description`, "),
        (entry(r#"{"rate_limit":10}"#), r#"for example { "max": 10, "window": "minute" }"#),
        (entry(r#"{"require":{"conditions":[]}}"#), "write a list in brackets"),
        (entry(r#"{"deny_if":[{"conditions":[],"reason":"no"}]}"#), "did you mean `on_deny`?"),
        (
            entry(r#"{"deny_if":[{"conditions":[],"path":"args.x"}]}"#),
            "`path` is a key of a condition; a rule has the keys `name`, ",
        ),
        (
            entry(r#"{"require_approval_if":[{"conditions":[],"approvers":["ann"]}]}"#),
            "`approvers` is a key of `approval`; ",
        ),
        (entry(r#"{"approval":{"approvers":"ann"}}"#), "write a list in brackets"),
        (with_condition(r#"{"path":"args.x","op":"exists"}"#), "write `true` for a path that must exist"),
        (with_condition(r#"{"path":"args.x","op":"is_null","value":true}"#), "did you mean `exists`?"),
        (with_condition(r#"{"path":"args.x","op":"gt","value":"100"}"#), "write it without quotes"),
        (with_condition(r#"{"path":"args.x","op":"in","value":"eur"}"#), "write a list in brackets"),
        (with_condition(r#"{"path":"args.x","op":"path_within","value":"/srv"}"#), "write a list in brackets"),
        (
            with_condition(r#"{"path":"args.x","op":"host_in","value":[".example.com"]}"#),
            "did you mean `*.example.com`?",
        ),
        (with_condition(r#"{"path":"args.x","op":"type","value":"bool"}"#), "did you mean `boolean`?"),
        (
            with_condition(r#"{"path":"args.x","op":"regex","value":"\bdrop\b"}"#),
            r"write `\\b` for the boundary of a word",
        ),
        (with_condition(r#"{"path":"time.hour","op":"gte","value":24}"#), "write a whole number from 0 to 23"),
        (with_condition(r#"{"path":"time.weekday","op":"in","value":["sat"]}"#), "write a whole number from 1 to 7"),
        (
            with_condition(r#"{"path":"time.date","op":"eq","value":"15.01.2026"}"#),
            "write a date, such as `2026-01-15`",
        ),
        (entry(r#"{"approval":{"approvers":[]}}"#), "list the people who may approve, or remove `approvers`"),
        (with_condition(r#"{"path":"params.arguments.x","op":"gt","value":1}"#), "did you mean `args.x`?"),
        (
            with_condition(r#"{"path":"time.day","op":"in","value":[6,7]}"#),
            "did you mean `time.weekday`? expected one of `hour`, `minute`, `weekday`, `date`: \
             0 to 23, 0 to 59, 1 (Monday) to 7, ",
        ),
        (with_condition(r#"{"not":[]}"#), r#"combine conditions with `{ "all": [..] }`"#),
        (limit("").replace("day", "daily"), "did you mean `day`?"),
        (limit("").replace("day", "60"), "write seconds without quotes, or add a unit"),
        (limit("").replace("day", "1 day"), "write a number of seconds, or digits with a unit "),
        (limit("").replace("user", "tool"), r#"or a list of these and of paths, such as ["user", "args.customer"]"#),
        (limit("").replace("user", "per_user"), "did you mean `user`?"),
        (limit(r#","algorithm":"sliding_window""#), "did you mean `sliding`?"),
        (limit("").replace(r#""max":1"#, r#""max":"1""#), "write it without quotes"),
        (limit(r#","shadow":"true""#), "write it without quotes"),
        (limit(r#","reason":"no""#), "did you mean `on_exceed`?"),
    ] {
        let error = Policy::from_json(&document).unwrap_err();
        let shown = error.issues()[0].help().unwrap_or_default();
        assert!(shown.contains(help), "{document}: {shown}");
    }
}

/// A document without a text has no line to show; the help comes last as always.
#[test]
fn an_issue_without_source_text_is_displayed_with_its_help() {
    let error = serde_json::from_value::<Policy>(json!({ "version": "1", "default": "dney" })).unwrap_err().to_string();
    assert!(error.contains("\n  in /default\n  = help: did you mean `deny`?"), "{error}");
}

#[test]
fn issues_serialize_as_json() {
    let error = Policy::from_json("{\n\"version\": \"1\", \"default\": \"dney\" }").unwrap_err();
    let help = "did you mean `deny`? expected one of `allow`, `deny`";
    let issue = json!({ "code": "unknown_value", "pointer": "/default", "line": 2, "column": 28,
        "message": "`dney` is not an outcome", "help": help });
    assert_eq!(serde_json::to_value(&error).unwrap(), json!({ "issues": [issue], "omitted": 0 }));
}
