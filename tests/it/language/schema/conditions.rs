//! Conditions, operators, their values, and paths.

use serde_json::{Value, json};

use super::documents::Documents;
use super::parts::{CONDITION, approval, entry, lacking, letters, limit, texts, together, unless, when, with};

pub(super) fn all(documents: &mut Documents) {
    conditions(documents);
    operators(documents);
    values(documents);
    all_times(documents);
    paths(documents);
}

fn conditions(documents: &mut Documents) {
    let one = || CONDITION.clone();
    let text = json!({ "path": "args.x", "op": "ends_with", "value": "z", "ignore_case": true });
    let from = with(lacking(text.clone(), "value"), json!({ "value_from": "args.y" }));
    let both = with(text.clone(), json!({ "value_from": "args.y" }));
    let unknown = with(text.clone(), json!({ "vlaue": 5 }));
    let nested = json!([{ "all": [one(), { "not": { "any": [one(), { "not": one() }] } }] }, text]);
    for place in [when, unless] {
        let bad = json!([null, "x", [], {}, lacking(one(), "path"), lacking(one(), "op"), lacking(one(), "value")]);
        documents.of("a condition", place, json!([one(), text, from]), bad);
        documents.of("a condition", place, json!([]), json!([both, unknown, [one()]]));
        for group in ["any", "all"] {
            let good = json!([[one()], [one(), one()], nested, [text, { "not": one() }]]);
            let bad = json!([null, [], {}, one(), "x", [null], ["x"], [[one()]], [{ "any": [] }]]);
            documents.of("a group", |value| place(json!({ group: value })), good, bad);
        }
        let good = json!([one(), { "any": [one()] }, { "all": [one()] }, { "not": { "not": one() } }]);
        let bad = json!([null, "x", [one()], [], {}, { "any": [] }, { "all": [] }]);
        documents.of("not", |value| place(json!({ "not": value })), good, bad);
        for (group, value) in [("any", json!([one()])), ("all", json!([one()])), ("not", one())] {
            let place = |members| place(with(members, json!({ group: value })));
            let bad = json!([{ "path": "args.x" }, { "op": "eq" }, { "value": 5 }, { "xor": [] }]);
            documents.of("a group with another key", place, json!([{}]), bad);
        }
        let two = json!({ "any": [one()], "all": [one()] });
        let bad = json!([two, { "any": [one()], "not": one() }, { "all": [one()], "not": one() }]);
        documents.of("two groups in one", place, json!([]), bad);
        let place = |value| place(json!({ "path": "args.x", "op": "regex", "value": "x", "ignore_case": value }));
        documents.of("ignore_case", place, json!([true, false]), json!([null, "yes", 1]));
    }
    let absent = json!({ "path": "args.x", "op": "eq", "value": 5, "absent": "match" });
    let exists = json!({ "path": "args.x", "op": "exists", "value": true, "absent": "match" });
    documents.of(
        "absent",
        when,
        json!([absent, { "any": [absent] }, { "all": [{ "any": [absent] }, { "not": one() }] }]),
        json!([
            exists,
            { "not": absent },
            { "not": { "not": absent } },
            { "not": { "any": [one(), absent] } },
            { "any": [{ "not": { "all": [{ "any": [absent] }] } }] },
        ]),
    );
    let place = |value| when(with(CONDITION.clone(), json!({ "op": "eq", "absent": value })));
    documents.of("absent", place, json!(["match", "no_match"]), json!(["", "deny", null, true]));
    let required = |condition| entry(json!({ "require": [{ "conditions": [condition] }] }));
    let no_match = with(absent.clone(), json!({ "absent": "no_match" }));
    documents.of("absent in `require`", required, json!([absent]), json!([no_match, { "any": [one(), no_match] }]));
}

fn operators(documents: &mut Documents) {
    let compares = texts("eq neq lt lte gt gte");
    let searches = texts("contains not_contains starts_with ends_with");
    let regexes = texts("regex not_regex");
    for place in [when, unless] {
        let op = |op| place(json!({ "path": "args.x", "op": op, "value": 5 }));
        let bad = json!(["", "EQ", "==", "equals", "ne", "startswith", "matches", "any", null, 5, ["eq"]]);
        documents.of("an operator", op, json!(compares), bad);
        let op = |op| place(json!({ "path": "args.x", "op": op, "value_from": "args.y" }));
        let good = together(&[&compares, &searches, &texts("in not_in")]);
        let bad = together(&[
            &regexes,
            &texts("exists min_length max_length min_items max_items keys_in type path_within host_in"),
        ]);
        documents.of("an operator with value_from", op, good, bad);
    }
    for ignore_case in [true, false] {
        for (operators, value, takes) in [
            (&searches, json!("x"), true),
            (&regexes, json!("x"), true),
            (&compares, json!(5), false),
            (&texts("in not_in keys_in path_within"), json!(["/a"]), false),
            (&texts("min_length max_length min_items max_items"), json!(5), false),
            (&texts("exists"), json!(true), false),
            (&texts("type"), json!("string"), false),
            (&texts("host_in"), json!(["a"]), false),
        ] {
            let place = |op| when(json!({ "path": "args.x", "op": op, "value": value, "ignore_case": ignore_case }));
            let (good, bad) = if takes { (operators.clone(), vec![]) } else { (vec![], operators.clone()) };
            documents.of("an operator with ignore_case", place, good.into(), bad.into());
        }
        let place =
            |op| when(json!({ "path": "args.x", "op": op, "value_from": "args.y", "ignore_case": ignore_case }));
        documents.of(
            "an operator with value_from and ignore_case",
            place,
            searches.clone().into(),
            compares.clone().into(),
        );
    }
    let sought = |op, value, case| json!({ "path": "args.x", "op": op, "value": value, "ignore_case": case });
    documents.of(
        "a text with ignore_case",
        when,
        json!([
            sought("contains", letters(4096), true),
            sought("contains", json!([letters(4097)]), true),
            sought("starts_with", letters(4096), true),
            sought("ends_with", json!([letters(4096), ""]), true),
            sought("contains", letters(4097), false),
            sought("starts_with", letters(4097), false),
            sought("ends_with", json!([letters(4097)]), false),
            { "path": "args.x", "op": "ends_with", "value": [letters(4097)] },
        ]),
        json!([
            sought("contains", letters(4097), true),
            sought("not_contains", letters(4097), true),
            sought("starts_with", letters(4097), true),
            sought("ends_with", json!(["", letters(4097)]), true),
        ]),
    );
}

fn all_times(documents: &mut Documents) {
    for (path, least, most) in [("time.hour", 0, 23), ("time.minute", 0, 59), (r#"time["week\u0064ay"]"#, 1, 7)] {
        let good = json!([least, most, f64::from(most)]);
        let bad = json!([least - 1, most + 1, f64::from(least) + 0.5, "3", true, [least], { "a": least }, null]);
        times(documents, path, &good, &bad);
    }
    let good = texts("2026-01-15 2028-02-29 2000-02-29 0000-02-29 9999-12-31 2026-04-30 2026-12-01");
    let bad =
        "2026-02-29 2100-02-29 2026-04-31 2026-13-01 2026-00-10 2026-01-00 2026-1-15 26-01-15 20260115 -026-01-01";
    let bad = together(&[&texts(bad), &["", " 2026-01-15", "2026-01-15\n", "２026-01-15"].map(Value::from)]);
    times(
        documents,
        "time.date",
        &json!(good),
        &together(&[bad.as_array().unwrap(), &[json!(5), json!(["2026-01-15"])]]),
    );
}

/// Values of a part of the time, by every operator that compares with them.
fn times(documents: &mut Documents, path: &'static str, good: &Value, bad: &Value) {
    let is_text = good[0].is_string();
    for op in texts("eq neq lt lte gt gte") {
        let has_order = !matches!(op.as_str(), Some("eq" | "neq"));
        let good = if is_text && has_order { json!([]) } else { good.clone() };
        documents.of(path, |value| when(json!({ "path": path, "op": op, "value": value })), good, bad.clone());
    }
    for op in texts("in not_in") {
        let list = |value| unless(json!({ "path": path, "op": op, "value": [good[0], value] }));
        documents.of(path, list, good.clone(), bad.clone());
    }
    let others = json!([["contains", 99], ["regex", "99"], ["starts_with", "99"], ["type", "string"]]);
    let other = |pair: Value| when(json!({ "path": path, "op": pair[0], "value": pair[1] }));
    documents.of(path, other, others, json!([]));
}

fn values(documents: &mut Documents) {
    let mut of = |operators: &[&'static str], good: Value, bad: Value| {
        for operator in operators {
            for place in [when, unless] {
                let place = |value| place(json!({ "path": "args.x", "op": operator, "value": value }));
                documents.of(operator, place, good.clone(), bad.clone());
            }
        }
    };
    let many = |value: Value, count: usize| Value::from(vec![value; count]);
    let sevens = |count| many(json!(7), count);
    let fitting =
        json!([true, 0, -1.5, u64::MAX, i64::MIN, 1e300, "", "null", [], {}, [1, "x", [false, []]], sevens(1000)]);
    let nulls =
        json!([null, [1, null], { "a": null }, { "a": [{ "b": [null] }] }, sevens(1001), { "a": [sevens(1001)] }]);
    of(&["eq", "neq", "contains", "not_contains"], fitting.clone(), nulls);
    let marks = ["\u{0}", "a\u{8}", "\u{b}", "\u{c}b", "\u{e}", "\u{1f}"];
    let plain = json!(["\t\n\r", "\u{7f}", "\u{85}", " "]);
    of(&["eq", "contains", "starts_with", "regex", "not_regex"], plain, json!(marks));
    of(&["eq", "neq", "in", "ends_with"], json!([]), marks.map(|mark| json!(["a", mark])).into());
    of(&["contains"], json!([]), json!([{ "a": { "\u{1}": 5 } }, [["\u{2}"]], { "a": "\u{3}" }]));
    of(&["lt", "lte", "gt", "gte"], json!([0, -1, 0.5, 1e300, u64::MAX]), json!([null, "5", true, [], {}, [5]]));
    let nulls = json!([null, [], {}, "x", 5, [null], [[null]], [{ "a": null }], sevens(1001), [sevens(1001)]]);
    of(&["in", "not_in"], json!([fitting, [5], [[]], [{}], [sevens(1000)]]), nulls);
    of(&["exists"], json!([true, false]), json!([null, 0, "true", []]));
    of(&["regex", "not_regex"], json!(["", "^a", letters(4096)]), json!([null, 5, ["a"], letters(4097)]));
    let good = json!(["", "a", ["a"], ["a", "a", ""], many("a".into(), 1000)]);
    let bad = json!([null, 5, [], {}, [5], ["a", null], [["a"]], many("a".into(), 1001)]);
    of(&["starts_with", "ends_with"], good, bad);
    let good = json!([0, -0.0, 1, 1.0, 1e3, 1e300, u64::MAX]);
    of(&["min_length", "max_length", "min_items", "max_items"], good, json!([null, -1, 0.5, -1e300, "3", [3], true]));

    let good = json!([[], ["a"], ["", "b c", "a", "a"], many("a".into(), 1000)]);
    let bad = json!([null, "a", {}, 5, [5], [null], [["a"]], ["a", "\u{1}"], many("a".into(), 1001)]);
    of(&["keys_in"], good, bad);
    let types = texts("string number integer boolean array object");
    let good = json!([types, ["string", "string"], many("array".into(), 1000)]);
    of(&["type"], types.into(), json!([null, 5, "null", "int", "String", [], {}, [5], ["string", "float"]]));
    of(&["type"], good, json!([many("array".into(), 1001)]));

    let good = texts("/ /a/b /a/../b//. /.a/..b/a. /%2 /%20 /%2g /%0 /5c /ä* /a:b /~");
    of(&["path_within"], json!([good, ["/ a"], ["/\n"], many("/a".into(), 1000)]), json!([null, "/a", [], {}, [5]]));
    of(
        &["path_within"],
        json!([]),
        json!([
            [""],
            ["/a", " /a"],
            ["/ "],
            ["/a/.. /b"],
            ["/a/ ."],
            ["/\u{0}"],
            ["/a\u{b}"],
            ["/\n\\"],
            many("/a".into(), 1001)
        ]),
    );
    for bad in texts(
        r"a ./a a/b ~ ~/a \a /a\b /a/%2e%2e /%2E /%2f /%2Fa /%5c /a%5C /%00 /%%2e file:///a //a ///a // /... /a/..../b",
    ) {
        of(&["path_within"], json!([]), json!([["/a", bad]]));
    }

    let good = texts("localhost a.example *.a.example A.Example. 192.0.2.1 [2001:db8::1] bücher.example");
    of(&["host_in"], json!([good, many("a".into(), 1000)]), json!([null, "a.example", [], {}, [5]]));
    of(&["host_in"], json!([]), json!([[""], ["a b"], ["a\n"], ["a\u{2028}b"], many("a".into(), 1001)]));
    for bad in texts(r"*. * a.* *.*.a **.a a/ https://a u@a a? a# a\") {
        of(&["host_in"], json!([]), json!([["a", bad]]));
    }
}

fn paths(documents: &mut Documents) {
    let single = texts(
        r#"
        args args.x args.x.y args.x[0][10].y args[4294967295] args.max-size args.größe args.$x args.a\b args.😀 args.call
        args[""] args["a.b"].c args["[*]"] args["\"[*]"] args["\\"][0] args["\u00e4\ud83d\uDE00\n\/"]
        args["\u0009\u000A\u000d\u0020\u007f\u0100"]
        args["\ud7ff\ue000"] context context.role context["x-role"] input
        input.ask.content["a.b"] call.tool call.task call.server call.grant call.session
        call.agent call.user call["tool"] call["\u0075s\u0065r"] time.hour time.minute time.weekday time.date
        time["date"] time["h\u006fur"] time["h\u006Fur"]
        "#,
    );
    let many =
        texts(r#"args[*] args.x[*].y context[*][*] args["a"][*] args["\\"][*] args.* context.x.*.y args["*"].*"#);
    let none = texts(
        r#"
        amount $.amount Args.x arg.x .args args. args..x args.x. args.** args.a* args.a<b args.a= args.a"b args.'a'
        args.`a` args.a] args[ args[] args[x] args[-1] args[01] args[+1] args[1 args[1]x args[4294967296]
        args[99999999999] args['x'] args["x] args["x" args["x"]y args["\x"] args["\u12"] args["\ud800"] args["\udc00"]
        args["\ud800\u0041"] args["\b"] args["a\f"] args["\u0000"]
        context["\u000b"] input["\u001F"] args["\u0008"]
        args[**] context. call call. call.id call.Tool call.tool.x call.tool[0] call[0] call[*]
        call["id"] call[tool] call["tool"].x call["tool\u0000"] call["\u0054ool"] time time.second time.hour.x time[*]
        time.* call.*
        env.x
        "#,
    );
    let blanks = ["", " ", "args x", "args.a b", "args[ 0 ]", "args[\"\n\"]", "args.x\n", "\nargs.x", "call.tool\n"];
    let marks = ["args.\u{0}", "args.\u{85}", "args.\u{a0}", "args.\u{3000}", "context.\u{0}"];
    let others = [json!(null), json!(5), json!(["args.x"])];
    let bad = [&none[..], &blanks.map(Value::from), &marks.map(Value::from), &others].concat();
    let not_single = together(&[&bad, &many]);
    for place in [when, unless] {
        let path = |path| place(with(CONDITION.clone(), json!({ "path": path })));
        documents.of("path", path, together(&[&single, &many]), json!(bad));
        let from = |path| place(json!({ "path": "args.x", "op": "eq", "value_from": path }));
        documents.of("value_from", from, json!(single), not_single.clone());
    }
    documents.of("amount_from", |path| limit(json!({ "amount_from": path })), json!(single), not_single.clone());

    let texts_of = |paths: &[Value]| paths.iter().filter_map(Value::as_str).map(String::from).collect::<Vec<_>>();
    let is_no_part = |path: &String| !path.contains(['.', '[']) || path == "call.task";
    let (words, parts): (Vec<_>, Vec<_>) = texts_of(&single).into_iter().partition(is_no_part);
    let part = |path| limit(json!({ "scope": ["grant", path] }));
    documents.of(
        "a part of a scope",
        part,
        json!(parts),
        json!([&words[..], &["tool".into(), "Grant".into(), r#"call["t\u0061sk"]"#.into()]].concat()),
    );
    documents.of("a part of a scope", part, json!([]), not_single.clone());

    let (arguments, others): (Vec<_>, Vec<_>) =
        texts_of(&single).into_iter().partition(|path| path.starts_with("args"));
    let bounds: Vec<_> = arguments.iter().map(|path| format!("{path}<=")).collect();
    let bind = |path| approval(json!({ "bind": ["args.a", path] }));
    documents.of("a path of bind", bind, json!(arguments), json!(others));
    documents.of("a path of bind", bind, json!(bounds), not_single);
    let bad = texts("<= context.role<= call.user<= args[*]<= args.x< args.x<=<= args.x>= x<=");
    documents.of("a bound of bind", bind, json!([]), together(&[&bad, &[json!("args.x<= "), json!("args.x <=")]]));
}
