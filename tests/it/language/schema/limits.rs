//! Limits: windows, amounts, scopes, and keys that depend on each other.

use serde_json::json;

use super::documents::Documents;
use super::parts::{all_tools, approval, entry, lacking, letters, limit, rate_limit, texts, together, with};

pub(super) fn all(documents: &mut Documents) {
    limits(documents);
    limit_neighbours(documents);
}

fn limits(documents: &mut Documents) {
    let whole = json!({
        "counter": "spend", "window": "day", "max": 20, "scope": ["grant", "args.customer"], "amount": 2.5,
        "algorithm": "fixed", "utc_offset": "+05:30", "shadow": true, "on_exceed": "Tomorrow.",
    });
    let unknown = with(whole.clone(), json!({ "limit": 5 }));
    let both = with(whole.clone(), json!({ "amount_from": "args.x" }));
    let lacking_one = ["counter", "window", "max", "scope"].map(|key| lacking(whole.clone(), key));
    let place = |limit| entry(json!({ "limits": [limit] }));
    documents.of("a limit", place, json!([whole]), together(&[&lacking_one, &[unknown, both]]));
    let place = |limit| all_tools(json!({ "limits": [limit] }));
    documents.of("a limit of all_tools", place, json!([whole]), json!(lacking_one));
    let counters = json!(["x", " ", letters(5000)]);
    documents.of(
        "counter",
        |value| limit(json!({ "counter": value })),
        counters,
        json!(["", null, 5, "\u{8}", "a\u{1f}"]),
    );
    documents.of("shadow", |value| limit(json!({ "shadow": value })), json!([true, false]), json!([null, "true", 1]));
    documents.of("on_exceed", |value| limit(json!({ "on_exceed": value })), json!(["", "x"]), json!([null, 5]));
    documents.of(
        "rate_limit",
        |value| entry(json!({ "rate_limit": value })),
        json!([{ "max": 1, "window": 60 }]),
        json!([null, 5, "5/minute", [], { "max": 1 }, { "window": 60 }, { "max": 1, "window": 60, "counter": "c" }]),
    );
    windows(documents);
    amounts(documents);
    scopes(documents);
}

fn windows(documents: &mut Documents) {
    let words = texts("second minute hour day week month in_flight lifetime");
    let durations = texts("1s 90s 15m 12h 30d 007s 34560000s 576000m 9600h 400d 0000400d");
    let seconds = [json!(1), json!(90), json!(90.0), json!(9e1), json!(34_560_000)];
    let good = [&durations[..], &seconds].concat();
    let no_durations = texts(
        "s 0s 000d 1 10x 1S -1s +1s 1.5h m15 34560001s 576001m 9601h 401d 4000d 99999999999999999999s 1w ٣s minutes
         Minute year fortnight",
    );
    let blanks = [json!(""), json!("1 s"), json!(" 1s"), json!("1s "), json!("1s\n"), json!("day\n")];
    let no_seconds = [json!(0), json!(-0.0), json!(0.5), json!(-1), json!(1.5), json!(34_560_001), json!(1e300)];
    let others = [json!(null), json!(true), json!([]), json!({})];
    let bad = [&no_durations[..], &blanks, &no_seconds, &others].concat();
    for place in [|window| limit(json!({ "window": window })), |window| rate_limit(json!({ "window": window }))] {
        documents.of("window", place, together(&[&good, &words]), json!(bad));
    }
    let lease = |lease| limit(json!({ "window": "in_flight", "lease": lease }));
    documents.of("lease", lease, json!(good), together(&[&bad, &words]));
    documents.of("ttl", |value| approval(json!({ "ttl": value })), json!(good), together(&[&bad, &words]));
}

fn amounts(documents: &mut Documents) {
    let good = json!([0, -0.0, 0.1, 0.000_001, 1e3, 12.5, 9_000_000_000_000_u64, 9e12]);
    let bad = json!([-1, -0.000_001, 9_000_000_000_001_u64, 1e13, u64::MAX, null, true, "1", [1], {}]);
    for key in ["max", "amount"] {
        documents.of(key, |value| limit(json!({ key: value })), good.clone(), bad.clone());
    }
    let burst = |value| limit(json!({ "algorithm": "token_bucket", "burst": value }));
    documents.of("burst", burst, good.clone(), bad.clone());
    documents.of("max", |value| rate_limit(json!({ "max": value })), good, bad);
}

fn scopes(documents: &mut Documents) {
    let words = texts("grant session agent user server global");
    let lists =
        json!([["global"], ["grant", "grant"], words, ["args.x"], ["context.tenant", "call.tool", "time.date"]]);
    let no_words = json!(["", "tool", "Grant", "args", "args.x", "context.tenant", "call.grant", null, 5, {}]);
    let no_lists = json!([[], [""], ["tool"], ["args"], [null], ["args.x[*]"], [["grant"]], ["tenant.id"]]);
    for place in [|scope| limit(json!({ "scope": scope })), |scope| rate_limit(json!({ "scope": scope }))] {
        documents.of("scope", place, json!(words), no_words.clone());
        documents.of("scope", place, lists.clone(), no_lists.clone());
    }
}

fn limit_neighbours(documents: &mut Documents) {
    let place = |value| limit(json!({ "algorithm": value }));
    documents.of(
        "algorithm",
        place,
        json!(["fixed", "sliding", "token_bucket"]),
        json!(["", "Fixed", "leaky", null, 1]),
    );
    documents.of(
        "keys that depend on each other",
        limit,
        json!([
            {},
            { "algorithm": "token_bucket", "burst": 5, "window": "1h" },
            { "algorithm": "token_bucket", "window": "month" },
            { "algorithm": "sliding", "window": 60 },
            { "window": "in_flight", "lease": "1m", "amount": 2, "shadow": true },
            { "window": "in_flight" },
            { "window": "lifetime" },
            { "window": "lifetime", "algorithm": "fixed", "amount_from": "args.x" },
            { "window": "second", "utc_offset": "+01:00" },
            { "window": "minute", "utc_offset": "+01:00" },
            { "window": "hour", "utc_offset": "+01:00" },
            { "window": "week", "utc_offset": "+01:00" },
            { "window": "month", "utc_offset": "+01:00", "algorithm": "fixed" },
            { "amount_from": "args.x", "algorithm": "sliding" },
            { "max_from": "context.max", "amount_from": "args.x" },
            { "max_from": "context.plans[0][\"a b\"].max", "shadow": true },
            { "max_from": "context.m", "algorithm": "token_bucket", "burst": 5 },
        ]),
        json!([
            { "burst": 5 },
            { "burst": 5, "algorithm": "fixed" },
            { "burst": 5, "algorithm": "sliding" },
            { "burst": 5, "window": "in_flight" },
            { "algorithm": "fixed", "window": "in_flight" },
            { "algorithm": "sliding", "window": "in_flight" },
            { "algorithm": "token_bucket", "window": "in_flight" },
            { "algorithm": "sliding", "window": "lifetime" },
            { "algorithm": "token_bucket", "window": "lifetime" },
            { "burst": 5, "window": "lifetime" },
            { "utc_offset": "+01:00", "window": "lifetime" },
            { "lease": "1m", "window": "lifetime" },
            { "lease": "1m" },
            { "lease": "1m", "window": 60 },
            { "lease": "1m", "algorithm": "token_bucket" },
            { "utc_offset": "+01:00", "window": 60 },
            { "utc_offset": "+01:00", "window": "1d" },
            { "utc_offset": "+01:00", "window": "in_flight" },
            { "utc_offset": "+01:00", "algorithm": "sliding" },
            { "utc_offset": "+01:00", "algorithm": "token_bucket" },
            { "amount": 1, "amount_from": "args.x" },
            { "max_from": "args.max" },
            { "max_from": "input.max" },
            { "max_from": "context" },
            { "max_from": "context.plans[*].max" },
            { "max_from": "context.plans.*" },
            { "max_from": "call.user" },
            { "max_from": "plan.max" },
            { "max_from": 5 },
            { "max_from": null },
        ]),
    );
    documents.of(
        "utc_offset",
        |value| limit(json!({ "window": "day", "utc_offset": value })),
        json!(["+00:00", "-00:00", "+02:00", "-05:30", "+23:59", "+19:09"]),
        json!([
            "", "Z", "02:00", "+2:00", "+0200", "+24:00", "+02:60", "+30:00", "+02:00 ", "+02:00\n", "+02-00",
            "+٠2:00", null, 2
        ]),
    );
}
