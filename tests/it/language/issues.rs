//! The issues of an invalid document: each reported once, with its place, message and help.

use serde_json::{Value, json};
use toolgate::{Bounds, Issue, Policy};

/// Returns the pointer and the message of each issue.
fn messages(document: &str) -> Vec<String> {
    let error = Policy::from_json(document).unwrap_err();
    assert_eq!(error.omitted(), 0);
    error.issues().iter().map(|issue| format!("{}: {}", issue.pointer(), issue.message())).collect()
}

fn with_limits(limits: &Value) -> String {
    json!({ "version": "1", "default": "allow", "all_tools": { "limits": limits } }).to_string()
}

/// A limit of one call a day for everybody, overridden by the members of `more`.
fn limit(more: Value) -> Value {
    let mut limit = json!({ "counter": "c", "window": "day", "max": 1, "scope": "global" });
    let Value::Object(more) = more else { panic!("an object") };
    limit.as_object_mut().unwrap().extend(more);
    limit
}

#[test]
fn an_issue_names_the_key_that_counters_disagree_in() {
    let bucket = |burst: u8| limit(json!({ "algorithm": "token_bucket", "burst": burst }));
    let lease = |lease: &str| limit(json!({ "window": "in_flight", "lease": lease }));
    for (first, second, what) in [
        (limit(json!({})), limit(json!({ "window": "hour" })), "window"),
        (limit(json!({})), limit(json!({ "utc_offset": "+01:00" })), "utc_offset"),
        (limit(json!({})), limit(json!({ "scope": "grant" })), "scope"),
        (limit(json!({})), limit(json!({ "algorithm": "sliding" })), "algorithm"),
        (bucket(1), limit(json!({ "algorithm": "sliding" })), "algorithm"),
        (bucket(1), bucket(2), "burst"),
        (lease("5m"), lease("6m"), "lease"),
        (lease("5m"), limit(json!({})), "window"),
    ] {
        let found = messages(&with_limits(&json!([first, second])));
        let want = format!("/all_tools/limits/1: the counter `c` has a different `{what}` in /all_tools/limits/0");
        assert_eq!(found, [want]);
    }
}

/// Another mistake in a limit neither hides a disagreement nor counts as one.
#[test]
fn limits_with_another_mistake_are_compared_with_others() {
    let bucket = |burst: Value| limit(json!({ "algorithm": "token_bucket", "burst": burst }));
    let flight = |lease: &str| limit(json!({ "window": "in_flight", "lease": lease }));
    let hour = limit(json!({ "window": "hour" }));
    for (first, second, what) in [
        (limit(json!({ "scope": "bogus" })), hour.clone(), Some("window")),
        (hour.clone(), limit(json!({ "scope": "bogus" })), Some("window")),
        (limit(json!({ "algorithm": "bogus" })), hour.clone(), Some("window")),
        (limit(json!({ "max": -1 })), hour.clone(), Some("window")),
        (limit(json!({ "window": "bogus", "algorithm": "sliding" })), limit(json!({})), Some("algorithm")),
        (limit(json!({ "utc_offset": "+0200" })), limit(json!({ "utc_offset": "+02:00" })), None),
        (limit(json!({ "utc_offset": "+02:00" })), limit(json!({ "utc_offset": "+0200" })), None),
        (bucket(json!("5")), bucket(json!(5)), None),
        (bucket(json!(5)), bucket(json!("5")), None),
        (flight("1 m"), flight("1m"), None),
        (limit(json!({ "window": "bogus" })), flight("1m"), None),
        (limit(json!({ "window": "bogus" })), limit(json!({ "algorithm": "sliding" })), None),
        (limit(json!({ "scope": "bogus" })), limit(json!({ "scope": "grant" })), None),
    ] {
        let found = messages(&with_limits(&json!([first, second])));
        let want = what.map(|what| {
            format!("/all_tools/limits/1: the counter `c` has a different `{what}` in /all_tools/limits/0")
        });
        let disagreements: Vec<_> =
            found.iter().filter(|issue| issue.contains("the counter `c` has a different")).collect();
        assert_eq!(disagreements, want.iter().collect::<Vec<_>>(), "{first} {second}");
        assert_eq!(found.len(), 1 + disagreements.len(), "{found:?}");
    }
}

#[test]
fn limits_of_a_duplicate_entry_are_not_compared_with_others() {
    let limits =
        |window: &str| json!({ "limits": [{ "counter": "c", "window": window, "max": 1, "scope": "global" }] });
    let document = format!(
        r#"{{"version":"1","default":"allow","tools":{{"s":{},"t":{},"t":{},"u":{}}}}}"#,
        limits("day"),
        limits("hour"),
        limits("week"),
        limits("month"),
    );
    let disagrees =
        |place: &str| format!("/tools/{place}/limits/0: the counter `c` has a different `window` in /tools/s/limits/0");
    assert_eq!(messages(&document), [disagrees("t"), "/tools/t: duplicate entry `t`".into(), disagrees("u")]);
}

#[test]
fn an_unknown_algorithm_hides_the_keys_that_depend_on_it() {
    let limit =
        json!({ "counter": "c", "window": "day", "max": 1, "scope": "global", "algorithm": "bucket", "burst": 2 });
    let found = messages(&with_limits(&json!([limit])));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("/all_tools/limits/0/algorithm: "), "{found:?}");
}

#[test]
fn a_wrong_value_is_named_by_its_type() {
    for (value, what) in [
        (json!(true), "a boolean"),
        (json!(1), "a number"),
        (json!("x"), "a string"),
        (json!([]), "a list"),
        (Value::Null, "null"),
    ] {
        let document = json!({ "version": "1", "default": "deny", "tools": value }).to_string();
        let found = messages(&document);
        assert!(found.len() == 1 && found[0].ends_with(&format!(", not {what}")), "{found:?}");
    }
    let document = json!({ "version": "1", "default": "deny", "hide": {} }).to_string();
    assert!(messages(&document)[0].ends_with(", not an object"));
}

/// A text to find with `ignore_case` becomes a regular expression, and is bounded as one.
#[test]
fn a_text_with_ignore_case_is_bounded_as_a_regex() {
    let document = |length: usize, ignore_case: bool| {
        let condition =
            json!({ "path": "args.x", "op": "contains", "value": "x".repeat(length), "ignore_case": ignore_case });
        json!({ "version": "1", "default": "deny", "all_tools": { "deny_if": [{ "conditions": [condition] }] } })
            .to_string()
    };
    let read = |length, ignore_case| {
        Policy::from_json_within(&document(length, ignore_case), &Bounds::new().regex_bytes(100))
            .map_err(|error| error.issues().iter().map(Issue::code).map(|code| code.as_str()).collect::<Vec<_>>())
    };
    assert!(read(100, true).is_ok() && read(101, false).is_ok());
    assert_eq!(read(101, true).unwrap_err(), ["too_long"]);
    // Whatever the host allows, the size of one expression is bounded.
    let read = |length| Policy::from_json_within(&document(length, true), &Bounds::new().regex_bytes(usize::MAX));
    let error = read(200_000).unwrap_err();
    let found: Vec<_> = error.issues().iter().map(|issue| (issue.code().as_str(), issue.help())).collect();
    assert_eq!(found, [("too_long", Some("use a shorter text"))]);
    assert!(read(1_000).is_ok());
}

/// Each expression counts as the smallest of four sizes that it fits, from 2 KiB to 1 MiB.
#[test]
fn regexes_count_as_the_smallest_size_that_they_fit() {
    let document = |regexes: &[&str]| {
        let conditions: Vec<_> =
            regexes.iter().map(|regex| json!({ "path": "args.x", "op": "regex", "value": regex })).collect();
        json!({ "version": "1", "default": "deny", "all_tools": { "deny_if": [{ "conditions": conditions }] } })
            .to_string()
    };
    let is_read = |regexes: &[&str], bytes: usize| {
        Policy::from_json_within(&document(regexes), &Bounds::new().regex_total_bytes(bytes)).is_ok()
    };
    for (one, other, size) in [
        ("a", "b{40}", 2 << 10),
        ("a{300}", "b{300}", 16 << 10),
        ("a{1500}", "b{1500}", 128 << 10),
        ("a{9000}", "b{9000}", 1 << 20),
    ] {
        assert!(is_read(&[one], size) && !is_read(&[one], size - 1), "{one}");
        assert!(is_read(&[one, other], 2 * size) && !is_read(&[one, other], 2 * size - 1), "{other}");
        assert!(is_read(&[one, one], size), "equal expressions count once");
    }
}

/// A bound above the default admits larger expressions, within the bound for all of them together.
#[test]
fn a_host_can_allow_a_larger_regex() {
    let document = with_condition(r#"{"path":"args.x","op":"regex","value":"a{90000}"}"#);
    let large = Bounds::new().regex_compiled_bytes(16 << 20);
    let message = |bounds: &Bounds| {
        let read = Policy::from_json_within(&document, bounds);
        read.err().map(|error| error.issues()[0].message().to_owned())
    };
    let one = "`a{90000}` exceeds the bound of 1048576 bytes when compiled";
    assert_eq!(message(&Bounds::new()).as_deref(), Some(one));
    assert_eq!(message(&large), None);
    let all = "all regular expressions together exceed the bound of 1048576 bytes";
    assert_eq!(message(&large.regex_total_bytes(1 << 20)).as_deref(), Some(all));
}

/// Texts with `ignore_case` count as regular expressions do.
#[test]
fn texts_with_ignore_case_share_the_bound_of_all_regexes() {
    let texts: Vec<_> = (0..20).map(|index| format!("{index:02}{}", "x".repeat(1_000))).collect();
    let read = |ignore_case: bool| {
        let condition = json!({ "path": "args.x", "op": "starts_with", "value": texts, "ignore_case": ignore_case });
        let bounds = Bounds::new().regex_total_bytes(1 << 20);
        let read = Policy::from_json_within(&with_condition(&condition.to_string()), &bounds);
        read.err().map_or_else(Vec::new, |error| error.issues().iter().map(Issue::code).collect())
    };
    assert_eq!(read(false), []);
    let codes = read(true);
    assert!(!codes.is_empty() && codes.iter().all(|code| code.as_str() == "regex_too_large"), "{codes:?}");
}

#[test]
fn missing_and_misread_values_are_reported_with_help() {
    let lease = |lease: Value| {
        with_limits(&json!([{ "counter": "c", "window": "in_flight", "max": 1, "scope": "grant", "lease": lease }]))
    };
    let approvers =
        r#"{ "version": "1", "default": "deny", "all_tools": { "approval": { "ttl": 60, "min_approvers": 1e999 } } }"#;
    let duration = "write a number of seconds, or digits with a unit `s`, `m`, `h` or `d`: from 1 second to 400 days";
    for (document, message, help) in [
        (
            json!({ "version": "1" }).to_string(),
            "a policy needs the key `default`",
            "the outcome for a tool that no entry of `tools` matches",
        ),
        (
            approvers.to_owned(),
            "`min_approvers` cannot be 1e999: it exceeds the range of an `f64`",
            "write a smaller number",
        ),
        (approvers.replace("1e999", "1.5"), "`min_approvers` cannot be 1.5", "write a whole number of at least 1"),
        (
            json!({ "version": "1", "default": "deny", "hide": [null] }).to_string(),
            "a name pattern must be a string, not null",
            "`null` is not allowed here: write a value, or omit an optional key",
        ),
        (
            with_condition(r#"{"path":"args.x","op":"not_in","value":[]}"#),
            "`not_in` with an empty list is true for every value",
            "add a value, or remove the condition",
        ),
        (
            with_condition(r#"{"path":"args.x","op":"eq","value":18446744073709551616}"#),
            "`18446744073709551616` is neither a 64-bit integer nor the shortest form of an `f64`",
            "write fewer digits: no argument can have this value",
        ),
        (
            with_limits(&json!([{ "counter": "c", "window": "day", "max": 1, "scope": "grant" }]))
                .replace(r#""max":1"#, &format!(r#""max":{}"#, "9".repeat(5_000))),
            &format!("`max` cannot be {}...: an amount is at most 9000000000000", "9".repeat(60)),
            "write a number from 0 to 9000000000000 with at most six decimals",
        ),
        (lease(json!("1 x\n")), "invalid duration `1 x\\n`", duration),
        (lease(json!(0)), "invalid duration `0`", duration),
        (
            json!({ "version": "1", "default": "deny", "hide": null }).to_string(),
            "`hide` must be a list, not null",
            "`null` is not allowed here: write a value, or omit an optional key",
        ),
    ] {
        let error = Policy::from_json(&document).unwrap_err();
        let found: Vec<_> = error.issues().iter().map(|issue| (issue.message(), issue.help())).collect();
        assert_eq!(found, [(message, Some(help))]);
    }
}

/// Each bound has the value that it is set to, also if another bound was set before.
#[test]
fn a_host_can_set_every_bound() {
    type Set = fn(Bounds, usize) -> Bounds;
    let rule = |condition: Value| json!({ "deny_if": [{ "conditions": [condition] }] });
    let all = |rules: Value| json!({ "version": "1", "default": "deny", "all_tools": rules }).to_string();
    let values = |values: &[i32]| all(rule(json!({ "path": "args.x", "op": "in", "value": values })));
    let regex = |regex: &str| all(rule(json!({ "path": "args.x", "op": "regex", "value": regex })));
    let tools = |names: &[&str]| {
        let tools: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        json!({ "version": "1", "default": "deny", "tools": tools }).to_string()
    };
    let hidden = |names: &[&str]| json!({ "version": "1", "default": "deny", "hide": names }).to_string();
    let deep = |levels: usize| {
        let value = (4..levels).fold(json!([]), |value, _| json!([value]));
        json!({ "version": "1", "default": "deny", "tools": { "t": { "deny_if": value } } }).to_string()
    };
    let least = tools(&["a"]);
    for (set, bound, fits, beyond, code) in [
        (Bounds::document_bytes as Set, least.len(), least.clone(), format!("{least} "), "document_too_large"),
        (Bounds::entries, 2, tools(&["a", "b"]), tools(&["a", "b", "c", "d", "e"]), "too_many"),
        (Bounds::entries, 2, hidden(&["a", "b"]), hidden(&["a", "b", "c"]), "too_many"),
        (Bounds::list_values, 2, values(&[1, 2]), values(&[1, 2, 3]), "too_many"),
        (Bounds::pattern_bytes, 3, tools(&["abc"]), tools(&["abcd"]), "too_long"),
        (Bounds::pattern_bytes, 3, hidden(&["abc"]), hidden(&["abcd"]), "too_long"),
        (Bounds::regex_bytes, 3, regex("abc"), regex("abcd"), "too_long"),
        (Bounds::regex_compiled_bytes, 100_000, regex("a"), regex("a{9000}"), "regex_too_large"),
        (Bounds::regex_total_bytes, 100_000, regex("a"), regex("a{9000}"), "regex_too_large"),
    ] {
        for before in [Bounds::new(), Bounds::new().nesting(9), Bounds::new().document_bytes(9_999)] {
            let bounds = set(before, bound);
            assert!(Policy::from_json_within(&fits, &bounds).is_ok(), "{fits}");
            let error = Policy::from_json_within(&beyond, &bounds).unwrap_err();
            let codes: Vec<_> = error.issues().iter().map(|issue| issue.code().as_str()).collect();
            assert_eq!(codes, [code], "{beyond}");
        }
        assert!(Policy::from_json(&beyond).is_ok(), "{beyond}");
    }
    let codes = |levels: usize, bounds: &Bounds| -> Vec<&str> {
        let read = Policy::from_json_within(&deep(levels), bounds);
        read.err().iter().flat_map(|error| error.issues()).map(|issue| issue.code().as_str()).collect()
    };
    let four = Bounds::new().nesting(4);
    assert!(codes(4, &four).is_empty());
    assert_eq!(codes(5, &four), ["too_deep"]);
    assert_eq!(codes(5, &Bounds::new()), ["wrong_type"]);
    // A bound that was set before keeps its value.
    let others: [Set; 6] = [
        Bounds::entries,
        Bounds::list_values,
        Bounds::pattern_bytes,
        Bounds::regex_bytes,
        Bounds::regex_compiled_bytes,
        Bounds::regex_total_bytes,
    ];
    for set in others {
        assert_eq!(codes(5, &set(Bounds::new().nesting(4), 9).document_bytes(9_999)), ["too_deep"]);
    }
}

#[test]
fn syntax_errors_are_reported_with_help() {
    for (text, help) in [
        ("", Some("write the policy as one JSON object")),
        ("{,", Some("write it as `\"key\": value`")),
        ("deny", Some("write the policy as one JSON object")),
        ("{\"version\": True}", Some("did you mean `true`?")),
        ("{\"version\": nulll}", Some("did you mean `null`?")),
        ("{\"version\": NaN}", Some("JSON has no number `NaN`")),
        ("{\"version\": +1}", Some("write the number without `+`")),
        ("{\"version\": .5}", Some("write a digit before the point, as in `0.5`")),
        ("{\"version\": '1'}", Some("write a string in double quotes, `\"`")),
        (
            "{\"version\": @}",
            Some("a value is an object, a list, a string in double quotes, a number, `true`, `false` or `null`"),
        ),
        ("{\"version\": ", Some("close the open string, list or object")),
        ("{\"version\": \"1\", \"default\": \"deny\",}", Some("remove it")),
        ("{} {}", Some("remove it")),
        ("{} // no", Some("remove it")),
        ("{\"version\": \"\\q\"}", None),
    ] {
        let error = Policy::from_json(text).unwrap_err();
        let found: Vec<_> =
            error.issues().iter().filter(|issue| issue.code().as_str() == "syntax").map(Issue::help).collect();
        assert_eq!(found, [help], "{text}");
    }
}

/// Returns the code and the pointer of each issue, in order.
fn places(document: &str) -> Vec<String> {
    let error = Policy::from_json(document).unwrap_err();
    error.issues().iter().map(|issue| format!("{} {}", issue.code(), issue.pointer())).collect()
}

/// A document with one entry, `t`, whose value is `body`.
fn entry(body: &str) -> String {
    format!(r#"{{"version":"1","default":"deny","tools":{{"t":{body}}}}}"#)
}

/// A document with one condition, in a `deny_if`. [`below_condition`] strips its pointer.
fn with_condition(condition: &str) -> String {
    entry(&format!(r#"{{"deny_if":[{{"conditions":[{condition}]}}]}}"#))
}

fn below_condition(issue: &str) -> String {
    issue.replace("/tools/t/deny_if/0/conditions/0", "")
}

#[test]
fn issues_below_a_duplicate_key_are_reported_too() {
    let limit = |window: &str| format!(r#"[{{"counter":"c","window":"{window}","max":1,"scope":"session"}}]"#);
    let (day, hour) = (limit("day"), limit("hour"));
    let rate = r#""rate_limit":{"max":1,"window":"day"}"#;
    for (document, want) in [
        (
            r#"{"version":"1","default":"deny","tools":{"a":{}},"tools":{"a":{"denyif":1}}}"#.to_owned(),
            &["duplicate_key /tools", "unknown_key /tools/a/denyif"][..],
        ),
        (
            r#"{"version":"1","version":2,"default":"deny","default":"no"}"#.to_owned(),
            &["duplicate_key /version", "wrong_type /version", "duplicate_key /default", "unknown_value /default"],
        ),
        (
            r#"{"version":"1","default":"deny","hide":[],"hide":[1,"a",{"x":1,"x":2}]}"#.to_owned(),
            &["duplicate_key /hide", "wrong_type /hide/0", "wrong_type /hide/2", "duplicate_key /hide/2/x"],
        ),
        (entry(r#"{"deny_if":[],"deny_if":"x"}"#), &["duplicate_key /tools/t/deny_if", "wrong_type /tools/t/deny_if"]),
        (
            entry(r#"{"deny_if":[{"conditions":[],"conditions":[{"path":"x","path":1,"op":"eq","value":1}]}]}"#),
            &[
                "duplicate_key /tools/t/deny_if/0/conditions",
                "invalid_path /tools/t/deny_if/0/conditions/0/path",
                "duplicate_key /tools/t/deny_if/0/conditions/0/path",
                "wrong_type /tools/t/deny_if/0/conditions/0/path",
            ],
        ),
        // Limits below a duplicate key are not compared with others.
        (
            format!(
                r#"{{"version":"1","default":"deny","all_tools":{{"limits":{day}}},"all_tools":{{"limits":{hour}}}}}"#
            ),
            &["duplicate_key /all_tools"],
        ),
        (entry(&format!(r#"{{"limits":{day},"limits":{hour}}}"#)), &["duplicate_key /tools/t/limits"]),
        (
            format!(
                concat!(
                    r#"{{"version":"1","default":"deny","tools":{{"t":{{{},"limits":[],"limits":{}}},"#,
                    r#""u":{{"limits":{}}}}}}}"#
                ),
                rate,
                day,
                hour.replace("\"c\"", "\"t_rate\"")
            ),
            &["duplicate_key /tools/t/limits", "counter_disagrees /tools/u/limits/0"],
        ),
    ] {
        assert_eq!(places(&document), want, "{document}");
    }
    // The place is that of the first limit, not of one below the duplicate key.
    let document = format!(
        "{{\"version\":\"1\",\"default\":\"deny\",\"tools\":{{\"s\":{{\"limits\":{}}},\n\
         \"t\":{{{rate},\n\"limits\":[],\n\"limits\":{day}}}}}}}",
        hour.replace("\"c\"", "\"t_rate\"")
    );
    let error = Policy::from_json(&document).unwrap_err();
    let lines: Vec<_> = error.issues().iter().map(|issue| (issue.code().as_str(), issue.line())).collect();
    assert_eq!(lines, [("counter_disagrees", Some(2)), ("duplicate_key", Some(4))]);
}

#[test]
fn every_part_of_a_condition_is_checked_beside_misplaced_keys() {
    for (condition, want) in [
        (
            r#"{"any":[{"path":"args.a","op":"eq","value":1}],"all":[{"bad":1}]}"#,
            &["misplaced_key /all", "missing_key /all/0", "missing_key /all/0", "unknown_key /all/0/bad"][..],
        ),
        (r#"{"not":{"path":"args.a","op":"eq","value":1},"any":1}"#, &["misplaced_key /any", "wrong_type /any"]),
        (
            r#"{"not":{"path":"args.a","op":"eq","value":1},"path":"args.a","path":"args.a"}"#,
            &["misplaced_key /path", "duplicate_key /path"],
        ),
        (
            concat!(
                r#"{"all":[{"path":"args.a","op":"eq","value":1}],"#,
                r#""path":"zz","op":"what","value":null,"ignore_case":1,"more":1}"#
            ),
            &[
                "misplaced_key /path",
                "invalid_path /path",
                "misplaced_key /op",
                "unknown_value /op",
                "misplaced_key /value",
                "null_value /value",
                "misplaced_key /ignore_case",
                "wrong_type /ignore_case",
                "unknown_key /more",
            ],
        ),
        (
            r#"{"op":"regex","value_from":"zz","path":"args.x"}"#,
            &["missing_key ", "misplaced_key /value_from", "invalid_path /value_from"],
        ),
        (
            r#"{"op":"regex","value":"(","value_from":"args.y","path":"args.x"}"#,
            &["conflicting_keys ", "invalid_regex /value", "misplaced_key /value_from"],
        ),
        (
            r#"{"op":"eq","value":1,"value_from":"zz","path":"args.x"}"#,
            &["conflicting_keys ", "invalid_path /value_from"],
        ),
        (r#"{"op":"eq","path":"args.x"}"#, &["missing_key "]),
    ] {
        let places: Vec<_> = places(&with_condition(condition)).iter().map(|issue| below_condition(issue)).collect();
        assert_eq!(places, want, "{condition}");
    }
}

#[test]
fn a_misspelt_group_key_is_reported_once() {
    for (key, near) in [
        ("Any", "any"),
        ("anny", "any"),
        ("anyOf", "any"),
        ("or", "any"),
        ("al", "all"),
        ("and", "all"),
        ("nott", "not"),
        ("NOT", "not"),
    ] {
        let document = with_condition(&format!(r#"{{"{key}":[]}}"#));
        let error = Policy::from_json(&document).unwrap_err();
        let found: Vec<_> = error.issues().iter().map(|issue| (issue.code().as_str(), issue.help())).collect();
        assert_eq!(found, [("unknown_key", Some(&*format!("did you mean `{near}`?")))], "{key}");
    }
    let document = with_condition(r#"{"colour":1}"#);
    let error = Policy::from_json(&document).unwrap_err();
    let helps: Vec<_> = error.issues().iter().filter_map(Issue::help).collect();
    let keys = "expected one of `path`, `op`, `value`, `value_from`, `ignore_case`, `absent`, `any`, `all`, `not`";
    assert!(helps.len() == 3 && helps.contains(&keys), "{helps:?}");
}
