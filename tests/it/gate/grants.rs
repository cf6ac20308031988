//! Grants: which policy each has, also while calls run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::audit::AuditRecord;
use toolgate::store::InProcess;
use toolgate::store::MemoryStore;
use toolgate::{
    Access, Code, Decision, Gate, GrantError, Grants, Identity, IssueCode, ManualClock, Policy, Timestamp, ToolCall,
};

use crate::model::recording_sink::RecordingSink;

const START: &str = "2026-01-15T10:30:00Z";

fn registry() -> (Grants, ManualClock) {
    let clock = ManualClock::new(START.parse().unwrap());
    (Grants::over(&Gate::builder().clock(clock.clone()).build()), clock)
}

fn counting(max: u64) -> String {
    json!({
        "version": "1", "default": "deny",
        "tools": { "t": { "limits": [{ "counter": "c", "window": "day", "max": max, "scope": "grant" }] } }
    })
    .to_string()
}

fn call(grant: &str) -> ToolCall<'_> {
    ToolCall::new("t", None::<&Value>).grant(grant)
}

fn answer<P>(decision: &Decision<P>) -> (&'static str, Option<&'static str>, Option<&str>) {
    (decision.as_str(), decision.code().map(Code::as_str), decision.rule())
}

const NO_POLICY: (&str, Option<&str>, Option<&str>) = ("deny", Some("no_policy"), Some("(no policy)"));
const EXPIRED: (&str, Option<&str>, Option<&str>) = ("deny", Some("grant_expired"), Some("(grant expired)"));
const REVOKED: (&str, Option<&str>, Option<&str>) = ("deny", Some("grant_revoked"), Some("(grant revoked)"));
const ALLOWED: (&str, Option<&str>, Option<&str>) = ("allow", None, None);

fn used(decision: &Decision) -> u128 {
    u128::from(decision.limits()[0].used().micros()) / 1_000_000
}

#[test]
fn a_call_without_a_policy_is_denied() {
    let (grants, _) = registry();
    assert_eq!(answer(&grants.check(&call("g"))), NO_POLICY, "an unknown grant");
    grants.put_policy("p", &counting(9)).unwrap();
    assert_eq!(answer(&grants.check(&call("g"))), NO_POLICY, "a policy of no grant");
    grants.give("g", Access::to("p").on("github"), "ops").unwrap();
    assert_eq!(answer(&grants.check(&call("g"))), NO_POLICY, "a call that names no server");
    assert_eq!(answer(&grants.check(&call("g").server("mail"))), NO_POLICY, "another server");
    assert_eq!(answer(&grants.check(&call("g").server("github"))), ALLOWED);
    assert_eq!(answer(&grants.check(&call("").server("github"))), NO_POLICY, "an empty grant");
    assert_eq!(answer(&grants.check(&call("G").server("github"))), NO_POLICY, "names compare byte by byte");
    grants.give("h", Access::to("later").on_any_server(), "ops").unwrap();
    assert_eq!(answer(&grants.check(&call("h"))), NO_POLICY, "a policy that is added later");
    grants.put_policy("later", &counting(9)).unwrap();
    assert_eq!(answer(&grants.check(&call("h"))), ALLOWED);
    assert_eq!(grants.remove_policy("later").map(|policy| policy.digest()), Some(digest(&counting(9))));
    assert_eq!(answer(&grants.check(&call("h"))), NO_POLICY);
    assert_eq!(grants.remove_policy("never"), None);
}

fn digest(document: &str) -> toolgate::Digest {
    document.parse::<Policy>().unwrap().digest()
}

#[test]
fn a_malformed_call_is_denied_before_its_grant_is_read() {
    let (grants, _) = registry();
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    grants.revoke("g", "ops");
    let odd = json!([1]);
    for grant in [None, Some("g"), Some("unknown")] {
        let decision = grants.check(&ToolCall::new("t", &odd).grant(grant));
        assert_eq!(answer(&decision), ("deny", Some("malformed_call"), None));
    }
}

#[test]
fn access_for_one_server_precedes_access_for_all() {
    let (grants, clock) = registry();
    grants.put_policy("few", &counting(1)).unwrap();
    grants.put_policy("many", &counting(9)).unwrap();
    grants.give("g", Access::to("many").on_any_server(), "ops").unwrap();
    let end = clock_at(60);
    grants.give("g", Access::to("few").on("github").until(end), "ops").unwrap();
    let max = |server: Option<&str>| grants.check(&call("g").server(server)).limits()[0].max().to_string();
    assert_eq!([max(None), max(Some("mail")), max(Some("github"))], ["9", "9", "1"]);
    clock.set(end);
    let decision = grants.check(&call("g").server("github"));
    assert_eq!(answer(&decision), EXPIRED, "expired access does not fall back to wider access");
    assert_eq!(answer(&grants.check(&call("g").server("mail"))), ALLOWED);
}

fn clock_at(seconds: u64) -> Timestamp {
    START.parse::<Timestamp>().unwrap().saturating_add(Duration::from_secs(seconds))
}

#[test]
fn a_grant_has_expired_at_its_expiry_time() {
    let (grants, clock) = registry();
    grants.put_policy("p", &counting(9)).unwrap();
    grants.give("g", Access::to("p").on_any_server().until(clock_at(60)), "ops").unwrap();
    clock.set(Timestamp::from_unix_micros(clock_at(60).unix_micros() - 1));
    assert_eq!(answer(&grants.check(&call("g"))), ALLOWED);
    clock.set(clock_at(60));
    let decision = grants.check(&call("g"));
    assert_eq!(answer(&decision), EXPIRED);
    assert_eq!(decision.message(), Some("The grant for this call of `t` has expired."));
    grants.give("g", Access::to("p").on_any_server().until(clock_at(120)), "ops").unwrap();
    assert_eq!(used(&grants.check(&call("g"))), 2, "the extended grant continues its counters");
}

#[test]
fn a_revoked_grant_stays_revoked_until_forgotten() {
    let (grants, _) = registry();
    grants.put_policy("p", &counting(9)).unwrap();
    grants.give("g", Access::to("p").on("a"), "ops").unwrap();
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    assert!(grants.revoke("g", "ops") && !grants.revoke("g", "ops"));
    for server in [None, Some("a"), Some("b")] {
        assert_eq!(answer(&grants.check(&call("g").server(server))), REVOKED);
    }
    assert_eq!(grants.give("g", Access::to("p").on_any_server(), "ops"), Err(GrantError::Revoked));
    assert_eq!(answer(&grants.check(&call("g"))), REVOKED);
    let known = grants.get("g").unwrap();
    assert!(known.is_revoked() && known.access().len() == 2);
    assert!(grants.forget("g", "ops") && !grants.forget("g", "ops"));
    assert_eq!(answer(&grants.check(&call("g"))), NO_POLICY);
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    assert_eq!(answer(&grants.check(&call("g"))), ALLOWED);

    assert!(!grants.revoke("late", "ops"), "the grant is unknown");
    assert_eq!(
        grants.give("late", Access::to("p").on_any_server(), "ops"),
        Err(GrantError::Revoked),
        "a grant can be revoked before it is added"
    );
    assert_eq!(grants.give("", Access::to("p").on_any_server(), "ops"), Err(GrantError::Unnamed));
    assert_eq!(grants.give("x", Access::to("p").on(""), "ops"), Err(GrantError::Unnamed));
}

#[test]
fn grants_are_listed_in_order() {
    let (grants, _) = registry();
    grants.give("b", Access::to("p").on("s").until(clock_at(0)), "ops").unwrap();
    grants.give("a", Access::to("q").on_any_server(), "ops").unwrap();
    grants.give("b", Access::to("r").on("s").until(clock_at(1)), "ops").unwrap();
    assert_eq!(
        serde_json::to_value(grants.grants()).unwrap(),
        json!([
            { "id": "a", "revoked": false, "access": [{ "server": null, "policy": "q", "expires_at": null }] },
            { "id": "b", "revoked": false, "access": [{ "server": "s", "policy": "r",
                "expires_at": "2026-01-15T10:30:01Z" }] },
        ])
    );
    assert_eq!(grants.get("c"), None);
}

#[test]
fn an_invalid_document_changes_nothing() {
    let (grants, _) = registry();
    assert_eq!(grants.put_policy("p", &counting(2)), Ok(None));
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    assert_eq!(used(&grants.check(&call("g"))), 1);
    let error = grants.put_policy("p", &counting(5).replace("deny", "dney")).unwrap_err();
    assert_eq!(error.issues()[0].code(), IssueCode::UnknownValue);
    assert_eq!(grants.policy("p").map(|policy| policy.digest()), Some(digest(&counting(2))));
    assert_eq!(used(&grants.check(&call("g"))), 2);
    assert_eq!(grants.check(&call("g")).as_str(), "rate_limited");
    assert!(grants.put_policy("p", &counting(3)).unwrap().is_some());
    assert_eq!(used(&grants.check(&call("g"))), 3, "the counter of the former policy continues");
    // Also after a time without a policy.
    grants.remove_policy("p");
    grants.put_policy("p", &counting(3)).unwrap();
    assert_eq!(grants.check(&call("g")).as_str(), "rate_limited");
}

#[test]
fn policies_of_one_store_do_not_share_counters() {
    let (grants, _) = registry();
    for name in ["p", "q"] {
        grants.put_policy(name, &counting(1)).unwrap();
        grants.give("g", Access::to(name).on(name), "ops").unwrap();
    }
    let check = |server: &str| grants.check(&call("g").server(server)).as_str();
    assert_eq!([check("p"), check("q"), check("p"), check("q")], ["allow", "allow", "rate_limited", "rate_limited"]);
}

/// Moving a grant to another plan is a raise or a cut, and no second budget.
#[test]
fn policies_of_one_namespace_share_their_counters() {
    let (grants, _) = registry();
    for (name, max) in [("basic", 2), ("large", 3)] {
        assert!(grants.put_policy_in(name, "plans", &counting(max)).unwrap().is_none());
        assert_eq!(grants.policy(name).unwrap().namespace(), "plans");
    }
    grants.put_policy("other", &counting(3)).unwrap();
    let move_to = |name| grants.give("g", Access::to(name).on_any_server(), "ops").unwrap();
    move_to("basic");
    assert_eq!([(); 3].map(|()| grants.check(&call("g")).is_allowed()), [true, true, false]);
    move_to("large");
    assert_eq!([(); 2].map(|()| grants.check(&call("g")).is_allowed()), [true, false]);
    move_to("basic");
    assert!(!grants.check(&call("g")).is_allowed(), "three of two are used");
    // A policy of its own name counts on its own, and a replaced one keeps its namespace only if
    // that is said again.
    move_to("other");
    assert_eq!(used(&grants.check(&call("g"))), 1);
    move_to("large");
    grants.replace_policy_in("large", "plans", counting(4).parse().unwrap());
    assert_eq!(used(&grants.check(&call("g"))), 4);
    grants.put_policy("large", &counting(4)).unwrap();
    assert_eq!(used(&grants.check(&call("g"))), 1);
}

#[test]
fn a_permit_releases_counters_of_its_own_policy() {
    let (grants, _) = registry();
    grants.put_policy("p", &counting(1)).unwrap();
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    let Decision::Allow(permit) = grants.check(&call("g")) else { panic!("the first call passes") };
    grants.put_policy("p", r#"{ "version": "1", "default": "deny" }"#).unwrap();
    grants.revoke("g", "ops");
    assert_eq!(permit.limits()[0].counter(), "c");
    permit.release();
    grants.put_policy("p", &counting(1)).unwrap();
    grants.forget("g", "ops");
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    assert!(grants.check(&call("g")).is_allowed(), "the released unit is available again");
}

/// Calls run while the policy is replaced and other grants are added.
#[test]
fn every_decision_is_by_one_policy_as_a_whole() {
    let by = |text: &str| {
        json!({
            "version": "1", "default": "deny",
            "tools": { "t": {
                "require": [{ "conditions": [{ "path": "args.v", "op": "eq", "value": text }], "on_deny": text }],
                "limits": [{ "counter": "c", "window": "day", "max": 1_000_000, "scope": "grant" }],
            } }
        })
        .to_string()
    };
    let (one, two) = (by("one"), by("two"));
    let (grants, _) = registry();
    grants.put_policy("p", &one).unwrap();
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    let (stop, allowed, denied) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let arguments = json!({ "v": "one" });
                let call = ToolCall::new("t", &arguments).grant("g");
                while !stop.load(Ordering::Relaxed) {
                    match grants.check(&call) {
                        Decision::Allow(_) => allowed.fetch_add(1, Ordering::Relaxed),
                        Decision::Deny(denial) => {
                            assert_eq!((denial.message(), denial.policy()), ("two", Some(digest(&two))));
                            denied.fetch_add(1, Ordering::Relaxed)
                        }
                        other => panic!("{other:?}"),
                    };
                }
            });
        }
        for round in 0..300 {
            grants.put_policy("p", if round % 2 == 0 { &two } else { &one }).unwrap();
            grants.give(&format!("h{round}"), Access::to("p").on_any_server(), "ops").unwrap();
            thread::sleep(Duration::from_micros(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    grants.put_policy("p", &one).unwrap();
    let arguments = json!({ "v": "one" });
    let total = used(&grants.check(&ToolCall::new("t", &arguments).grant("g")));
    assert_eq!(total, allowed.into_inner() as u128 + 1);
    assert!(denied.into_inner() > 0, "no call was decided by the other policy: the test shows nothing");
    assert_eq!(grants.grants().len(), 301);
}

/// A call that begins after a revocation has returned is denied, on every thread.
#[test]
fn a_revocation_holds_once_it_has_returned() {
    const ROUNDS: usize = 200;
    let (grants, _) = registry();
    grants.put_policy("p", &counting(1_000_000_000)).unwrap();
    let ids: Vec<_> = (0..ROUNDS).map(|round| format!("g{round}")).collect();
    ids.iter().for_each(|id| grants.give(id, Access::to("p").on_any_server(), "ops").unwrap());
    let (revoked, before) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (round, id) in ids.iter().enumerate() {
                    loop {
                        let late = revoked.load(Ordering::SeqCst) > round;
                        let decision = grants.check(&call(id));
                        if late {
                            assert_eq!(answer(&decision), REVOKED);
                            break;
                        }
                        before.fetch_add(usize::from(decision.is_allowed()), Ordering::SeqCst);
                    }
                }
            });
        }
        for id in &ids {
            thread::sleep(Duration::from_micros(50));
            assert!(grants.revoke(id, "ops"));
            revoked.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert!(before.into_inner() > 0, "no call began before a revocation: the test shows nothing");
}

#[test]
fn ten_thousand_grants_share_one_policy() {
    const GRANTS: usize = 10_000;
    let (grants, _) = registry();
    let ids: Vec<_> = (0..GRANTS).map(|number| format!("g-{number}")).collect();
    let many = json!({
        "version": "1", "default": "deny",
        "tools": (0..2000).map(|n| (format!("tool_{n}"), json!({}))).collect::<serde_json::Map<_, _>>()
    })
    .to_string();
    let spent = allocation_counter::measure(|| {
        grants.put_policy("p", &many).unwrap();
        ids.iter().for_each(|id| grants.give(id, Access::to("p").on_any_server(), "ops").unwrap());
    });
    // A compiled copy for each grant would take gigabytes.
    assert!(spent.bytes_current < 20_000_000, "{spent:?}");
    grants.put_policy("p", &counting(1)).unwrap();
    for id in &ids {
        let decision = grants.check(&call(id));
        assert!(decision.is_allowed(), "the policy was replaced for all grants at once");
        assert_eq!(used(&decision), 1, "each grant has its own counter");
    }
    assert_eq!(grants.grants().len(), GRANTS);
}

#[test]
fn a_check_of_a_grant_allocates_nothing() {
    let (grants, _) = registry();
    grants.put_policy("p", &counting(1000)).unwrap();
    (0..1000).for_each(|n| {
        grants.give(&format!("g{n}"), Access::to("p").on_any_server().until(clock_at(9)), "ops").unwrap()
    });
    assert!(grants.check(&call("g7")).is_allowed());
    let spent = allocation_counter::measure(|| assert!(grants.check(&call("g7")).is_allowed()));
    assert_eq!(spent.count_total, 0);
}

#[tokio::test]
async fn grants_work_with_an_async_store() {
    let clock = ManualClock::new(START.parse().unwrap());
    let gate = Gate::builder().store_async(InProcess(MemoryStore::new())).clock(clock).build();
    let grants = Grants::over(&gate);
    grants.put_policy("p", &counting(1)).unwrap();
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    assert_eq!(answer(&grants.check(&call("g")).await), ALLOWED);
    assert_eq!(grants.check(&call("g")).await.as_str(), "rate_limited");
    grants.revoke("g", "ops");
    assert_eq!(answer(&grants.check(&call("g")).await), REVOKED);
}

#[test]
fn replacing_all_grants_is_one_step() {
    let (grants, clock) = registry();
    grants.put_policy("p", &counting(9)).unwrap();
    grants.put_policy("q", &counting(1)).unwrap();
    let anywhere = |policy: &str| Access::to(policy).on_any_server();
    grants.give("gone", anywhere("p"), "ops").unwrap();
    grants.give("kept", anywhere("p"), "ops").unwrap();
    grants.give("revoked", anywhere("p"), "ops").unwrap();
    grants.revoke("revoked", "ops");
    assert_eq!(used(&grants.check(&call("kept"))), 1);

    let before = grants.grants();
    for wrong in [("", anywhere("p")), ("new", Access::to("p").on(""))] {
        assert_eq!(grants.replace_all([("kept", anywhere("q")), wrong], "ops"), Err(GrantError::Unnamed));
        assert_eq!(grants.grants(), before, "nothing has changed");
    }

    let soon = clock_at(9);
    grants
        .replace_all(
            [
                ("kept", anywhere("p").until(soon)),
                ("new", Access::to("q").on("a")),
                ("new", Access::to("q").on("b")),
                ("new", Access::to("p").on("a")),
                ("revoked", anywhere("p")),
            ],
            "ops",
        )
        .unwrap();
    assert_eq!(answer(&grants.check(&call("gone"))), NO_POLICY);
    assert_eq!(answer(&grants.check(&call("revoked"))), REVOKED, "listing does not restore it");
    assert_eq!(used(&grants.check(&call("kept"))), 2, "its usage stays counted");
    let access = |id: &str| -> Vec<_> {
        let grant = grants.get(id).unwrap();
        let access = grant.access().iter();
        access.map(|a| (a.policy().to_owned(), a.server().map(str::to_owned), a.expires_at())).collect()
    };
    assert_eq!(access("kept"), [("p".to_owned(), None, Some(soon))]);
    let on = |policy: &str, server: &str| (policy.to_owned(), Some(server.to_owned()), None);
    assert_eq!(access("new"), [on("q", "b"), on("p", "a")], "the last one counts on a server");
    clock.set(soon);
    assert_eq!(answer(&grants.check(&call("kept"))), EXPIRED);
    grants.forget("revoked", "ops");
    grants.replace_all([("revoked", anywhere("p"))], "ops").unwrap();
    assert_eq!(answer(&grants.check(&call("revoked"))), ALLOWED);
    grants.replace_all([], "ops").unwrap();
    assert!(grants.grants().is_empty());
}

/// Returns the changes of grants that were recorded since the last look, in short.
fn recorded(kept: &RecordingSink) -> Vec<String> {
    let line = |record: &AuditRecord| {
        let parts = [
            Some(record.event().as_str()),
            record.identity(Identity::Grant),
            record.identity(Identity::Server),
            record.namespace(),
            record.by(),
            record.failure(),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<_> = kept.take().iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn changes_of_grants_are_recorded() {
    let kept = RecordingSink::default();
    let grants = Grants::over(&Gate::builder().audit(kept.clone()).build());
    grants.give("g", Access::to("p").on("a"), "ann").unwrap();
    assert_eq!(grants.give("", Access::to("p").on("a"), "ann"), Err(GrantError::Unnamed));
    assert!(grants.revoke("g", "ben") && !grants.revoke("g", "carl"));
    assert_eq!(grants.give("g", Access::to("p").on("a"), "ann"), Err(GrantError::Revoked));
    grants.revoke("unknown", "ben");
    assert!(grants.forget("g", "dora") && !grants.forget("g", "dora"));
    let revoked = "the grant has been revoked: forget it first to reuse its name";
    assert_eq!(
        recorded(&kept),
        ["forget g dora", "give g a p ann", &format!("give g a p ann {revoked}"), "revoke g ben", "revoke unknown ben"]
    );
}

#[test]
fn replacing_all_grants_records_the_differences() {
    let kept = RecordingSink::default();
    let grants = Grants::over(&Gate::builder().audit(kept.clone()).build());
    let all = || [("g", Access::to("p").on("a")), ("g", Access::to("p").on("b")), ("h", Access::to("q").on("a"))];
    grants.replace_all(all(), "file").unwrap();
    assert_eq!(recorded(&kept), ["give g a p file", "give g b p file", "give h a q file"]);
    grants.replace_all(all(), "file").unwrap();
    assert!(recorded(&kept).is_empty());
    grants.replace_all([("g", Access::to("x").on("a")), ("i", Access::to("p").on("a"))], "file").unwrap();
    assert_eq!(recorded(&kept), ["forget g b p file", "forget h file", "give g a x file", "give i a p file"]);
    grants.revoke("g", "ann");
    grants.replace_all([("g", Access::to("p").on("a"))], "file").unwrap();
    assert_eq!(recorded(&kept), ["forget i file", "revoke g ann"]);
}

/// Where records are required, access that cannot be recorded is not given, and a revocation holds.
#[test]
fn access_without_a_required_record_is_not_given() {
    let kept = RecordingSink::default();
    let grants = Grants::over(&Gate::builder().audit(kept.clone()).require_audit().build());
    grants.give("g", Access::to("p").on("a"), "ann").unwrap();
    kept.set_down(true);
    assert_eq!(grants.give("h", Access::to("p").on("a"), "ann"), Err(GrantError::Unrecorded));
    assert!(grants.get("h").is_none() && grants.get("g").is_some());
    assert!(grants.revoke("g", "ann") && grants.get("g").unwrap().is_revoked());
    grants.replace_all([("h", Access::to("p").on("a"))], "file").unwrap();
    grants.replace_all([], "file").unwrap();
    assert!(grants.get("h").is_none(), "access is taken away in any case");
}
