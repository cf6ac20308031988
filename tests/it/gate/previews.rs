//! Previews: whether calls would be allowed, and how much of each limit a caller has used.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::trace::FaultStore;
use toolgate::{Amount, Caller, Gate, Identity, LimitState, ToolCall};

use super::permits::{amount, call, clock, gate, permit, policy};
use crate::polling::ready;

fn found(found: &Result<(), Box<toolgate::FirstRefusal>>) -> (usize, &str, Option<&str>) {
    let found = found.as_ref().unwrap_err();
    (found.index(), found.decision().as_str(), found.decision().rule())
}

#[test]
fn a_preview_names_the_first_refused_call() {
    let limit = |max: u32, scope: &str| {
        json!({
            "counter": format!("by {scope}"), "window": "minute", "max": max, "scope": scope,
        })
    };
    let tools = json!({
        "t": { "limits": [limit(2, "grant")] },
        "all": { "limits": [limit(3, "global"), limit(2, "grant")] },
        "ask": { "action": "require_approval", "limits": [limit(2, "grant")] },
        "free": {},
    });
    let store = Arc::new(FaultStore::default());
    let gate = Gate::builder().policy(policy(&tools)).store(Arc::clone(&store)).clock(clock()).build();
    let by = |tool, grant: &'static str| ToolCall::new(tool, None::<&Value>).grant(grant);
    let (t, free) = (by("t", "g"), by("free", "g"));
    assert!(gate.would_allow(&[]).is_ok());
    assert!(gate.would_allow(&[t, by("t", "h"), t, by("t", "h"), free]).is_ok(), "each grant has its own budget");
    let third = gate.would_allow(&[t, free, by("t", "h"), t, free, t]);
    assert_eq!(found(&third), (5, "rate_limited", Some("/tools/t/limits/0")));
    let shared = ["g", "g", "h", "h"].map(|grant| by("all", grant));
    assert_eq!(found(&gate.would_allow(&shared)), (3, "rate_limited", Some("/tools/all/limits/0")));
    assert_eq!(found(&gate.would_allow(&[t, by("ask", "g"), t])), (1, "approval_required", Some("/tools/ask/action")));
    let no_room = gate.would_allow(&[t, t, by("ask", "g")]);
    assert_eq!(
        found(&no_room),
        (2, "rate_limited", Some("/tools/ask/limits/0")),
        "no approval is asked for while the limit is reached"
    );
    let denied = gate.would_allow(&[t, by("other", "g"), by("ask", "g")]);
    assert_eq!(found(&denied), (1, "deny", Some("(default deny)")));
    let nobody = ToolCall::new("t", None::<&Value>);
    assert_eq!(found(&gate.would_allow(&[free, nobody])), (1, "deny", Some("/tools/t/limits/0")));
    // An exhausted limit comes before a later call that the rules deny.
    assert_eq!(found(&gate.would_allow(&[t, t, t, by("other", "g")])).0, 2);

    store.set_down(true);
    assert!(gate.would_allow(&[free, free]).is_ok(), "there is nothing to count");
    assert_eq!(found(&gate.would_allow(&[free, t])), (1, "deny", Some("/tools/t/limits/0")));
    store.set_down(false);

    gate.replace_policy(None);
    assert!(gate.would_allow(&[]).is_ok());
    assert_eq!(found(&gate.would_allow(&[t])), (0, "deny", Some("(no policy)")));
}

/// The wait of the first refused call is for all calls up to it, together.
#[test]
fn a_preview_waits_for_all_calls_together() {
    // The number of calls 10 s ago, of calls now, and of previewed calls.
    let waits = |limit: Value, [before, now, more]: [usize; 3]| {
        let mut limit = limit;
        (limit["counter"], limit["scope"], limit["max"]) = (json!("c"), json!("grant"), json!(3));
        let (gate, _, clock) = gate(&json!([limit]));
        (0..before).for_each(|_| drop(gate.check(&call())));
        clock.advance(Duration::from_secs(10));
        (0..now).for_each(|_| drop(gate.check(&call())));
        let found = gate.would_allow(&vec![call(); more]).unwrap_err();
        (found.index(), found.decision().retry_after().map(|wait| wait.as_secs()))
    };
    let minute = |algorithm: &str| json!({ "window": "minute", "algorithm": algorithm });
    assert_eq!(waits(minute("fixed"), [1, 1, 2]), (1, Some(50)));
    assert_eq!(waits(minute("sliding"), [1, 1, 2]), (1, Some(50)));
    assert_eq!(waits(minute("sliding"), [0, 1, 3]), (2, Some(60)));
    assert_eq!(waits(minute("sliding"), [1, 1, 4]), (1, Some(50)), "the first call that does not pass is named");
    assert_eq!(waits(json!({ "window": 30, "algorithm": "token_bucket" }), [1, 1, 3]), (2, Some(10)));
    for algorithm in ["fixed", "sliding", "token_bucket"] {
        assert_eq!(waits(minute(algorithm), [0, 0, 4]), (3, None), "{algorithm}: four never fit");
    }
}

#[test]
fn usage_lists_each_counter_of_the_caller() {
    let limit = |counter: &str, max: u32, scope: Value| {
        json!({
            "counter": counter, "window": "day", "max": max, "scope": scope,
        })
    };
    let tools = json!({
        "0 bare": {},
        "a": { "limits": [limit("calls", 5, json!("grant")), limit("mine", 9, json!(["grant", "args.customer"]))] },
        "b bare": {},
        "b": { "limits": [limit("calls", 5, json!("grant")), limit("calls", 3, json!("grant")),
                          limit("user", 4, json!("user"))],
               "rate_limit": { "max": 2, "window": 60 } },
        "c": { "action": "deny", "limits": [{ "counter": "bucket", "window": 60, "max": 6, "burst": 2,
                                              "scope": "global", "algorithm": "token_bucket", "shadow": true }] },
    });
    let store = Arc::new(FaultStore::default());
    let gate = Gate::builder().policy(policy(&tools)).store(Arc::clone(&store)).clock(clock()).build();
    let lines = |caller: &ToolCall<'_>| -> Vec<(String, u64, u64, u64)> {
        let whole = |micros: u64| micros / 1_000_000;
        let line = |state: &LimitState| {
            let (used, left, max) = (state.used().micros(), state.remaining().micros(), state.max().micros());
            (state.counter().to_owned(), whole(used), whole(left), whole(max))
        };
        gate.usage(caller).unwrap().iter().map(line).collect()
    };
    let line = |counter: &str, used, left, max| (counter.to_owned(), used, left, max);
    let arguments = json!({ "customer": 7 });
    let caller = ToolCall::new("a", &arguments).grant("g");
    permit(gate.check(&caller)).limits();
    let global = line("bucket", 0, 2, 6);
    let (calls, mine) = (line("calls", 1, 4, 5), line("mine", 1, 8, 9));
    let rate = line("b_rate", 0, 2, 2);
    assert_eq!(lines(&caller), [calls, mine, line("calls", 1, 2, 3), rate.clone(), global.clone()]);
    let user = ToolCall::new("whatever", None::<&Value>).user("u").session("s");
    assert_eq!(lines(&user), [line("user", 0, 4, 4), rate, global.clone()]);
    assert_eq!(lines(&ToolCall::new("", None::<&Value>)), [global]);
    store.set_down(true);
    assert!(gate.usage(caller).is_err());
    gate.replace_policy(policy(&json!({ "bare": {} })));
    assert!(gate.usage(caller).unwrap().is_empty(), "nothing is counted, so the store is not asked");
    gate.replace_policy(None);
    assert!(gate.usage(caller).unwrap().is_empty());
}

#[test]
fn usage_of_a_large_policy_lists_each_counter() {
    const ENTRIES: usize = 20_000;
    let limits = |number: usize| {
        let own = json!({ "counter": format!("c{number}"), "window": "day", "max": 2, "scope": "grant" });
        json!({ "limits": [own, { "counter": "all", "window": "day", "max": 1 + number % 7, "scope": "grant" }] })
    };
    let tools: Map<String, Value> = (0..ENTRIES).map(|number| (format!("t{number}"), limits(number))).collect();
    let gate = Gate::builder().policy(policy(&tools.into())).clock(clock()).build();
    assert!(gate.check(&ToolCall::new("t6", None::<&Value>).grant("g")).is_allowed());
    let usage = gate.usage(call()).unwrap();
    assert_eq!(usage.len(), ENTRIES + 7);
    let counted = usage.iter().filter(|state| state.used().micros() > 0).map(LimitState::counter).collect::<Vec<_>>();
    assert_eq!(counted.iter().filter(|counter| **counter == "all").count(), 7);
    assert_eq!(counted.iter().filter(|counter| **counter == "c6").count(), 1);
    assert_eq!(counted.len(), 8);
}

/// Token buckets of one counter with different `max` are charged, released and reset together.
#[test]
fn token_buckets_of_one_counter_are_charged_together() {
    let bucket = |max: u32| {
        json!({ "limits": [{ "counter": "b", "window": "minute", "max": max, "scope": "grant",
            "algorithm": "token_bucket" }] })
    };
    let clock = clock();
    let gate = Gate::builder().policy(policy(&json!({ "2": bucket(2), "6": bucket(6) }))).clock(clock.clone()).build();
    let [two, six] = ["2", "6"].map(|tool| ToolCall::new(tool, None::<&Value>).grant("g"));
    let left = || gate.usage(two).unwrap().iter().map(LimitState::remaining).collect::<Vec<_>>();
    let first = permit(gate.check(&two));
    drop(gate.check(&six));
    assert_eq!(left(), [Amount::ZERO, amount("4")]);
    // One bucket refills two units a minute, the other six.
    assert_eq!(gate.check(&two).retry_after(), Some(Duration::from_secs(30)));
    first.release();
    assert_eq!(left(), [Amount::ONE, amount("5")]);
    clock.advance(Duration::from_secs(10));
    assert_eq!(left(), [amount("1.333333"), amount("6")]);
    drop((gate.check(&two), gate.check(&six)));
    assert!(gate.reset_counter("b", six, "ops").unwrap());
    assert_eq!(left(), [amount("2"), amount("6")]);
}

#[test]
fn usage_of_several_callers_is_that_of_each() {
    let limit =
        |counter: &str, scope: Value| json!({ "counter": counter, "window": "hour", "max": 900, "scope": scope });
    let tools = json!({ "t": { "limits": [
        limit("all", json!("global")), limit("user", json!("user")), limit("both", json!(["user", "grant"])),
        limit("grant", json!("grant")), limit("customer", json!(["args.customer"])),
    ] } });
    let store = Arc::new(FaultStore::default());
    let gate = Gate::builder().policy(policy(&tools)).store(Arc::clone(&store)).clock(clock()).build();
    let shared = Gate::builder().policy(policy(&tools)).store_async(InProcess(Arc::clone(&store))).clock(clock());
    let shared = shared.build();
    let arguments = json!({ "customer": 7 });
    // More counters than one request has, callers who occur twice, and some who are not counted.
    let callers: Vec<Caller> = (0..300)
        .map(|number| match number % 4 {
            0 => Caller::new().session("s"),
            1 => Caller::new().user(&format!("u{}", number / 7)),
            _ => Caller::new().user(&format!("u{number}")).grant(&format!("g{}", number / 2)),
        })
        .collect();
    for caller in callers.iter().step_by(3).filter(|caller| caller.identity(Identity::Grant).is_some()) {
        permit(gate.check(&caller.call("t", &arguments))).limits();
    }
    let each: Vec<_> = callers.iter().map(|caller| gate.usage(caller).unwrap()).collect();
    assert!(each.iter().any(|states| states.len() == 4 && states[2].used().micros() > 0));
    assert_eq!(gate.usage_of(&callers).unwrap(), each);
    assert_eq!(ready(shared.usage_of(&callers)).unwrap(), each);
    assert!(gate.usage_of(&[]).unwrap().is_empty() && ready(shared.usage_of(&[])).unwrap().is_empty());
    store.set_down(true);
    assert!(gate.usage_of(&callers).is_err() && ready(shared.usage_of(&callers)).is_err());
    shared.replace_policy(None);
    assert_eq!(ready(shared.usage_of(&callers[..2])).unwrap(), [const { Vec::<LimitState>::new() }; 2]);
}

#[test]
fn callers_of_one_bucket_are_shown_by_their_own_maxima() {
    let bucket = json!({ "counter": "bucket", "window": "minute", "max": 60, "burst": 60, "scope": "global",
                         "algorithm": "token_bucket", "max_from": "context.most" });
    let tools = json!({ "t": { "limits": [bucket] } });
    let clock = clock();
    let gate = Gate::builder().policy(policy(&tools)).store_async(InProcess(MemoryStore::new())).clock(clock.clone());
    let gate = gate.build();
    let caller = |most: u64| Caller::new().context(json!({ "most": most }).as_object().cloned());
    let callers = [caller(6), caller(60), caller(6)];
    for _ in 0..6 {
        assert!(ready(gate.check(&callers[1].call("t", None::<&Value>))).is_allowed());
    }
    clock.advance(Duration::from_secs(2));
    let each: Vec<_> = callers.iter().map(|caller| ready(gate.usage(caller)).unwrap()).collect();
    assert_ne!(each[0][0].used(), each[1][0].used(), "the bucket refills by the maximum of the caller");
    assert_eq!(ready(gate.usage_of(&callers)).unwrap(), each);
}
