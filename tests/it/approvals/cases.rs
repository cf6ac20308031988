//! Approvals through the gate: given once, used once, whoever meets whom.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::approval::{self, ApprovalError, Ask, AsyncApprovalStore, Claim, Verdict};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{
    CounterStore, InProcess, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
};
use toolgate::{
    Approval, ApprovalId, ApprovalState, ApprovalStore, Code, DecideError, Decision, Gate, GateBuilder, Identity,
    ManualClock, MemoryApprovals, Permit, Policy, Timestamp, ToolCall,
};

use crate::stores::leased::block_on;

/// A Thursday morning.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(rules: &Value) -> Policy {
    let mut rules = rules.clone();
    rules["action"] = json!("require_approval");
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": { "pay": rules } })).unwrap()
}

fn builder(rules: &Value) -> (GateBuilder, ManualClock) {
    let clock = ManualClock::new(START);
    (Gate::builder().policy(policy(rules)).clock(clock.clone()), clock)
}

/// How much a store has to keep.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) capacity: usize,
    pub(crate) pending: usize,
    pub(crate) details: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { capacity: 10_000, pending: 100, details: 4096 }
    }
}

/// Makes a store that is empty.
pub(crate) type Make<'m> = &'m dyn Fn(Room) -> Arc<dyn ApprovalStore>;

pub(crate) fn in_memory(room: Room) -> Arc<dyn ApprovalStore> {
    let store = MemoryApprovals::with_capacity(room.capacity);
    Arc::new(store.pending_per_asker(room.pending).details_up_to(room.details))
}

fn gate(make: Make<'_>, rules: &Value) -> (Gate, ManualClock) {
    let (builder, clock) = builder(rules);
    (builder.approvals(make(Room::default())).build(), clock)
}

/// A test for each case, over the stores that a function makes. It is given what to do with one.
macro_rules! suite {
    ($with:path) => {
        $crate::approvals::cases::suite! {
            $with;
            a_request_says_what_a_person_has_to_know,
            requests_are_listed_with_the_oldest_first,
            of_many_threads_one_uses_an_approval,
            an_approval_that_is_handed_back_and_taken_again_is_used_once_at_a_time,
            a_full_store_takes_no_new_request_and_keeps_those_that_it_has,
            a_name_without_end_is_not_kept,
            an_agent_that_asks_with_many_numbers_hinders_no_other,
            a_clock_that_ran_ahead_leaves_no_approval_that_lives_for_years,
            gates_that_share_a_store_share_approvals,
            a_named_approval_is_the_only_one_that_counts,
            a_settled_call_was_made_and_hands_no_approval_back,
            looking_ahead_asks_nobody,
            so_many_requests_of_one_asker_wait,
            a_person_reads_what_is_bound,
            what_was_approved_elsewhere_is_used_once,
            a_signed_approval_is_used_once,
        }
    };
    ($with:path; $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $with(&$crate::approvals::cases::$case);
            }
        )*
    };
}
pub(crate) use suite;

mod memory {
    fn with(case: &dyn Fn(super::Make<'_>)) {
        case(&super::in_memory);
    }

    super::suite!(with);
}

fn call(arguments: &Value) -> ToolCall<'_> {
    ToolCall::new("pay", arguments).grant("g").agent("robot").user("ben").session("s").server("bank")
}

/// The request that a call makes.
fn asked(decision: Decision) -> Approval {
    match decision {
        Decision::RequireApproval(request) => request.approval().expect("a request").clone(),
        other => panic!("{other:?}"),
    }
}

fn allowed(decision: Decision) -> Permit {
    match decision {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_request_says_what_a_person_has_to_know(make: Make<'_>) {
    let (gate, clock) = gate(make, &json!({ "reason": "Money.", "approval": { "ttl": "30s", "min_approvers": 2 } }));
    let arguments = json!({ "amount": 5 });
    let request = asked(gate.check(&call(&arguments)));
    assert_eq!((request.tool(), request.reason(), request.min_approvers()), ("pay", "Money.", 2));
    assert_eq!(request.state(), ApprovalState::Pending);
    assert_eq!((request.made_at(), request.expires_at()), (START, START.saturating_add(Duration::from_secs(30))));
    let all = [Identity::Grant, Identity::Session, Identity::Agent, Identity::User, Identity::Server];
    let identities = all.map(|identity| request.identity(identity).unwrap_or_default().to_owned());
    assert_eq!(identities, ["g", "s", "robot", "ben", "bank"]);
    assert_eq!(request.id().to_string().parse(), Ok(*request.id()));

    clock.advance(Duration::from_secs(20));
    let half = gate.approve(request.id(), "ann").unwrap();
    assert_eq!((half.state(), half.approved_by().collect::<Vec<_>>()), (ApprovalState::Pending, vec!["ann"]));
    assert!(matches!(gate.approve(request.id(), "ann"), Err(DecideError::AlreadyApproved)));
    assert_eq!(gate.pending().unwrap().len(), 1);
    let whole = gate.approve(request.id(), "eve").unwrap();
    assert_eq!(
        (whole.state(), whole.expires_at()),
        (ApprovalState::Approved, START.saturating_add(Duration::from_secs(50)))
    );
    assert!(gate.pending().unwrap().is_empty());
    let permit = allowed(gate.check(&call(&arguments)));
    assert!(matches!(gate.approve(request.id(), "joe"), Err(DecideError::NotPending)));
    permit.end();
    let again = asked(gate.check(&call(&arguments)));
    assert_ne!(again.id(), request.id(), "a new question has another number");
    assert_eq!(again.id().digest(), request.id().digest());
}

pub(crate) fn requests_are_listed_with_the_oldest_first(make: Make<'_>) {
    let (gate, clock) = gate(make, &json!({}));
    let mut made = Vec::new();
    for amount in 0..20 {
        made.push(*asked(gate.check(&call(&json!({ "amount": amount })))).id());
        clock.advance(Duration::from_secs(1));
    }
    let listed: Vec<_> = gate.pending().unwrap().iter().map(|approval| *approval.id()).collect();
    assert_eq!(listed, made);
    clock.set(START.saturating_add(Duration::from_secs(610)));
    assert_eq!(gate.pending().unwrap().len(), 9, "eleven have expired, the last at this very instant");
    gate.refuse(&made[15], "ann").unwrap();
    assert_eq!(gate.pending().unwrap().len(), 8);
}

pub(crate) fn of_many_threads_one_uses_an_approval(make: Make<'_>) {
    const THREADS: usize = 8;
    let (gate, _) = gate(
        make,
        &json!({
            "limits": [{ "counter": "n", "window": "day", "max": 1000, "scope": "grant" }],
        }),
    );
    let arguments = json!({ "amount": 5 });
    let mut collided = 0;
    for round in 1..=100 {
        let request = asked(gate.check(&call(&arguments)));
        gate.approve(request.id(), "ann").unwrap();
        let (barrier, passed, lost) = (Barrier::new(THREADS), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    match gate.check(&call(&arguments)) {
                        Decision::Allow(permit) => {
                            passed.fetch_add(1, Ordering::Relaxed);
                            permit.end();
                        }
                        Decision::RequireApproval(_) => {
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                        other => panic!("{other:?}"),
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 1);
        collided += lost.into_inner();
        // All losers gave their charge back.
        let used = gate.usage(&call(&arguments)).unwrap()[0].used().to_string();
        assert_eq!(used, round.to_string());
        let left = gate.pending().unwrap();
        assert_eq!(left.len(), 1, "they share one new request");
        gate.refuse(left[0].id(), "ann").unwrap();
    }
    assert_eq!(collided, 100 * (THREADS - 1));
}

pub(crate) fn an_approval_that_is_handed_back_and_taken_again_is_used_once_at_a_time(make: Make<'_>) {
    let (gate, _) = gate(make, &json!({}));
    let arguments = json!({});
    gate.approve(asked(gate.check(&call(&arguments))).id(), "ann").unwrap();
    let running = AtomicUsize::new(0);
    let passed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    if let Decision::Allow(permit) = gate.check(&call(&arguments)) {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                        passed.fetch_add(1, Ordering::Relaxed);
                        running.fetch_sub(1, Ordering::SeqCst);
                        permit.release();
                    }
                }
            });
        }
    });
    assert!(passed.into_inner() > 0);
    allowed(gate.check(&call(&arguments))).end();
}

pub(crate) fn a_full_store_takes_no_new_request_and_keeps_those_that_it_has(make: Make<'_>) {
    let approvals = make(Room { capacity: 2, ..Room::default() });
    let (builder, clock) = builder(&json!({ "approval": { "ttl": "10s" } }));
    let gate = builder.approvals(Arc::clone(&approvals)).build();
    let arguments: Vec<_> = (0..3).map(|amount| json!({ "amount": amount })).collect();
    let first = asked(gate.check(&call(&arguments[0])));
    let second = asked(gate.check(&call(&arguments[1])));
    let Decision::Deny(denial) = gate.check(&call(&arguments[2])) else { panic!("there is no room") };
    assert_eq!((denial.code(), denial.rule()), (Code::StoreUnavailable, Some("/tools/pay/action")));
    assert_eq!(denial.message(), "The approvals of `pay` cannot be checked right now.");
    let cause = std::error::Error::source(denial.store_error().unwrap()).unwrap();
    assert_eq!(cause.to_string(), "the store of approvals is full: 2 are live");
    assert_eq!(asked(gate.check(&call(&arguments[0]))).id(), first.id());
    // What was refused is gone; what is in use is not.
    gate.refuse(second.id(), "ann").unwrap();
    gate.approve(first.id(), "ann").unwrap();
    let permit = allowed(gate.check(&call(&arguments[0])));
    asked(gate.check(&call(&arguments[2])));
    assert_eq!(gate.check(&call(&arguments[1])).code(), Some(Code::StoreUnavailable));
    permit.release();
    allowed(gate.check(&call(&arguments[0]))).end();
    clock.advance(Duration::from_secs(10));
    asked(gate.check(&call(&arguments[1])));
    assert_eq!(gate.pending().unwrap().len(), 1, "the expired made room");
    // What was used is remembered as long as a text may hold that was signed for it.
    assert_eq!(gate.check(&call(&arguments[0])).code(), Some(Code::StoreUnavailable));
}

pub(crate) fn a_name_without_end_is_not_kept(make: Make<'_>) {
    let policy = r#"{ "version": "1", "default": "deny", "tools": { "pay*": { "action": "require_approval" } } }"#;
    let builder = Gate::builder().policy(policy.parse::<Policy>().unwrap()).clock(ManualClock::new(START));
    let gate = builder.approvals(make(Room::default())).build();
    let arguments = json!({});
    let name = format!("pay{}", "x".repeat(4093));
    asked(gate.check(&ToolCall::new(&name, &arguments)));
    assert_eq!(gate.check(&ToolCall::new(&name, &arguments).user("u")).code(), Some(Code::StoreUnavailable));
}

pub(crate) fn an_agent_that_asks_with_many_numbers_hinders_no_other(make: Make<'_>) {
    let (builder, _) = builder(&json!({ "approval": { "bind": ["args.amount<="] } }));
    let gate = builder.approvals(make(Room { pending: 300, ..Room::default() })).build();
    for amount in 0..300 {
        asked(gate.check(&call(&json!({ "amount": amount }))));
    }
    let pending = gate.pending().unwrap();
    assert_eq!(pending.len(), 300);
    gate.approve(pending[200].id(), "ann").unwrap();
    let (above, below) = (json!({ "amount": 201 }), json!({ "amount": 13 }));
    assert_eq!(gate.check(&call(&above)).as_str(), "approval_required");
    allowed(gate.check(&call(&below))).end();
    assert_eq!(gate.check(&call(&below)).as_str(), "approval_required");
}

pub(crate) fn a_clock_that_ran_ahead_leaves_no_approval_that_lives_for_years(make: Make<'_>) {
    let (gate, clock) = gate(make, &json!({ "approval": { "ttl": "10s" } }));
    let arguments = json!({});
    clock.advance(Duration::from_secs(100_000_000));
    let request = asked(gate.check(&call(&arguments)));
    gate.approve(request.id(), "ann").unwrap();
    clock.set(START);
    let permit = allowed(gate.check(&call(&arguments)));
    clock.set(START.saturating_add(Duration::from_secs(10)));
    permit.release();
    let again = asked(gate.check(&call(&arguments)));
    assert_eq!(again.state(), ApprovalState::Pending, "its ttl ran from when it was seen");
    clock.set(START);
    assert_eq!(asked(gate.check(&call(&arguments))).state(), ApprovalState::Pending, "and it does not come back");
}

pub(crate) fn gates_that_share_a_store_share_approvals(make: Make<'_>) {
    let approvals = make(Room::default());
    let gates: Vec<_> = (0..2).map(|_| builder(&json!({})).0.approvals(Arc::clone(&approvals)).build()).collect();
    let arguments = json!({});
    let request = asked(gates[0].check(&call(&arguments)));
    gates[1].approve(request.id(), "ann").unwrap();
    allowed(gates[1].check(&call(&arguments))).end();
    assert_eq!(gates[0].check(&call(&arguments)).code(), Some(Code::Approval));
}

pub(crate) fn a_named_approval_is_the_only_one_that_counts(make: Make<'_>) {
    let (gate, _) = gate(make, &json!({ "approval": { "bind": ["args.amount<="] } }));
    let (large, small) = (json!({ "amount": 100 }), json!({ "amount": 50 }));
    let for_large = *asked(gate.check(&call(&large))).id();
    let for_small = *asked(gate.check(&call(&small))).id();
    assert_ne!(for_large, for_small, "a person who is shown 50 must not approve 100");
    gate.approve(&for_large, "ann").unwrap();
    assert_eq!(gate.check_approved(&call(&small), &for_small).as_str(), "approval_required");
    gate.approve(&for_small, "ann").unwrap();
    assert_eq!(gate.check_approved(&call(&large), &for_small).as_str(), "approval_required");
    // The nearest is used first, and the other is left for a larger call.
    allowed(gate.check(&call(&small))).end();
    allowed(gate.check_approved(&call(&large), &for_large)).end();
    assert_eq!(gate.check(&call(&small)).as_str(), "approval_required");
}

pub(crate) fn so_many_requests_of_one_asker_wait(make: Make<'_>) {
    let (builder, clock) = builder(&json!({ "approval": { "ttl": "10s" } }));
    let gate = builder.approvals(make(Room { pending: 3, ..Room::default() })).build();
    let arguments: Vec<_> = (0..5).map(|amount| json!({ "amount": amount })).collect();
    let of = |grant, amount: usize| ToolCall::new("pay", &arguments[amount]).grant(grant).agent("robot");
    let made: Vec<_> = (0..3).map(|amount| *asked(gate.check(&of("g", amount))).id()).collect();
    let Decision::Deny(denial) = gate.check(&of("g", 3)) else { panic!("three wait") };
    assert_eq!(denial.code(), Code::StoreUnavailable);
    let cause = std::error::Error::source(denial.store_error().unwrap()).unwrap();
    assert_eq!(cause.to_string(), "3 requests of this caller wait already");
    // Those that wait can be asked for again, and others are not hindered: not a grant, and not who
    // has none.
    asked(gate.check(&of("g", 2)));
    for other in
        [of("h", 0), of("", 0), ToolCall::new("pay", &arguments[0]), ToolCall::new("pay", &arguments[0]).user("g")]
    {
        asked(gate.check(&other));
    }
    // What was decided waits no more, and neither does what has expired.
    gate.approve(&made[0], "ann").unwrap();
    clock.advance(Duration::from_secs(5));
    asked(gate.check(&of("g", 3)));
    gate.refuse(&made[1], "ann").unwrap();
    asked(gate.check(&of("g", 4)));
    assert_eq!(gate.check(&of("g", 1)).as_str(), "deny");
    clock.advance(Duration::from_secs(5));
    asked(gate.check(&of("g", 1)));
    assert_eq!(gate.check(&of("g", 2)).as_str(), "deny", "one of them has expired");
}

pub(crate) fn a_person_reads_what_is_bound(make: Make<'_>) {
    let arguments = json!({ "to": "x", "amount": 1e2, "note": "\u{e9}" });
    let (all, _) = gate(make, &json!({}));
    let request = asked(all.check(&call(&arguments)));
    assert_eq!(request.details(), Some("{\"amount\":100,\"note\":\"\u{e9}\",\"to\":\"x\"}"));
    let (some, _) = gate(make, &json!({ "approval": { "bind": ["args.amount<=", "args.to", "args.none"] } }));
    assert_eq!(
        asked(some.check(&call(&arguments))).details(),
        Some(r#"[["args.amount<=",100],["args.to","x"],["args.none"]]"#)
    );
    assert_eq!(some.pending().unwrap()[0].details_bytes(), 53);
    // A long text is not kept, nor is any where the store keeps none.
    let long = json!({ "to": "x".repeat(4096 - 9) });
    assert_eq!(asked(all.check(&call(&long))).details().map(str::len), Some(4096));
    let longer = json!({ "to": "x".repeat(4096 - 8) });
    let request = asked(all.check(&call(&longer)));
    assert_eq!((request.details(), request.details_bytes()), (None, 4097));
    let none = builder(&json!({})).0.approvals(make(Room { details: 0, ..Room::default() })).build();
    let request = asked(none.check(&call(&arguments)));
    assert_eq!((request.details(), request.details_bytes()), (None, 35));
}

pub(crate) fn what_was_approved_elsewhere_is_used_once(make: Make<'_>) {
    let at = |seconds| START.saturating_add(Duration::from_secs(seconds));
    let store = make(Room { capacity: 3, ..Room::default() });
    let gate = builder(&json!({})).0.approvals(Arc::clone(&store)).build();
    let arguments = json!({});
    let id = *asked(gate.check(&call(&arguments))).id();
    assert!(store.redeem(&id, at(0), at(0)).unwrap().is_none(), "it has ended");
    let claim = store.redeem(&id, at(10), at(0)).unwrap().unwrap();
    assert!(gate.pending().unwrap().is_empty(), "the request has its answer");
    assert!(store.redeem(&id, at(10), at(1)).unwrap().is_none());
    assert!(store.claim(&id, at(1)).unwrap().is_none());
    assert!(store.restore(&claim, at(1)).unwrap());
    assert!(!store.restore(&claim, at(1)).unwrap());
    let second = store.redeem(&id, at(10), at(1)).unwrap().unwrap();
    assert_ne!(claim, second);
    assert!(!store.restore(&claim, at(1)).unwrap(), "that was another turn");
    // Another number of the same digest is another request, until there is no room.
    let other = |number| ApprovalId::new(id.digest(), number);
    for number in [7, u64::MAX] {
        assert!(store.redeem(&other(number), at(20), at(2)).unwrap().is_some());
        assert!(store.redeem(&other(number), at(20), at(2)).unwrap().is_none());
    }
    assert!(matches!(store.redeem(&other(8), at(20), at(3)), Err(ApprovalError::Full { capacity: 3 })));
    // A person has approved it here too: one request has one use.
    let (first, request) = (other(8), json!({ "amount": 1 }));
    let store = make(Room::default());
    let gate = builder(&json!({})).0.approvals(Arc::clone(&store)).build();
    let id = *asked(gate.check(&call(&request))).id();
    gate.approve(&id, "ann").unwrap();
    let permit = allowed(gate.check(&call(&request)));
    assert!(store.redeem(&id, at(10), at(0)).unwrap().is_none());
    permit.release();
    assert!(store.redeem(&id, at(10), at(0)).unwrap().is_some());
    assert_eq!(gate.check(&call(&request)).as_str(), "approval_required");
    // After a clock that stepped back, what was spent and forgotten is not taken again.
    assert!(store.redeem(&first, at(10), at(0)).unwrap().is_some());
    assert!(store.redeem(&other(9), at(1_000_000), at(999_999)).unwrap().is_some());
    assert!(store.redeem(&first, at(10), at(0)).unwrap().is_none());
}

pub(crate) use crate::approvals::signed::a_signed_approval_is_used_once;

/// Approvals that can be made to fail, or to lose a race, or to take nothing back.
#[derive(Default)]
struct Failing {
    approvals: MemoryApprovals,
    claims_fail: AtomicBool,
    claims_lose: AtomicBool,
    keeps_claims: AtomicBool,
}

impl ApprovalStore for Failing {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.approvals.request(ask, now)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.approvals.decide(id, verdict, by, now)
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        if self.claims_fail.load(Ordering::Relaxed) {
            return Err(ApprovalError::Unavailable(None));
        }
        if self.claims_lose.load(Ordering::Relaxed) { Ok(None) } else { self.approvals.claim(id, now) }
    }

    fn redeem(&self, id: &ApprovalId, until: Timestamp, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.approvals.redeem(id, until, now)
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        if self.keeps_claims.load(Ordering::Relaxed) {
            return Err(ApprovalError::Unavailable(None));
        }
        self.approvals.restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.approvals.pending(now)
    }
}

#[test]
fn an_approval_reads_back_and_nothing_else_does() {
    let (gate, _) =
        gate(&in_memory, &json!({ "approval": { "bind": ["args.n<=", "args.to"], "approvers": ["ann", "bob"] } }));
    for n in [json!(0), json!(-1.5), json!(u64::MAX), json!(1e300), json!(5e-324), json!(9_007_199_254_740_993u64)] {
        let arguments = json!({ "n": n, "to": "\u{e9}\"" });
        let mut approval = asked(gate.check(&call(&arguments)));
        for verdict in [None, Some(Verdict::Approve)] {
            if let Some(verdict) = verdict {
                approval.decide(verdict, "ann", START).unwrap();
            }
            let json = approval.to_json();
            let again = Approval::from_json(&json).unwrap();
            assert_eq!(again.to_json(), json);
            assert_eq!(
                (again.id(), again.state(), again.details()),
                (approval.id(), approval.state(), approval.details())
            );
        }
        let json = approval.to_json();
        for (part, other) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1,\"version\":1"),
            ("\"version\":1", "\"version\":1,\"more\":1"),
            ("\"approved_by\":[\"ann\"]", "\"approved_by\":[]"),
            ("\"min_approvers\":1", "\"min_approvers\":0"),
            ("\"number\":", "\"number\":1"),
            ("\"state\":\"approved\"", "\"state\":\"pending\""),
            ("\"bounds\":[\"", "\"bounds\":[\"x"),
            ("\"turn\":0", "\"turn\":-1"),
        ] {
            assert!(json.contains(part), "{part}");
            assert!(Approval::from_json(&json.replace(part, other)).is_err(), "{other}");
        }
        assert!(Approval::from_json(&format!("{json} 1")).is_err());
        // Lists are not read as objects, by position.
        let all = json.replace("{\"version\":1,\"id\":", "[1,").replace(",\"approval\":", ",");
        let all = format!("{}]", all.strip_suffix('}').unwrap());
        let (before, caller) = json.split_once("\"caller\":{").unwrap();
        let (caller, behind) = caller.split_once('}').unwrap();
        let names = ["grant", "session", "agent", "user", "server"];
        let caller = names.iter().fold(caller.to_owned(), |text, name| text.replace(&format!("\"{name}\":"), ""));
        for listed in [all, format!("{before}\"caller\":[{caller}]{behind}")] {
            assert!(serde_json::from_str::<Value>(&listed).is_ok(), "{listed}");
            assert!(Approval::from_json(&listed).is_err(), "{listed}");
        }
    }
    assert!(Approval::from_json("").is_err());
}

#[test]
fn a_claim_that_fails_lets_nothing_pass_and_counts_nothing() {
    let approvals = Arc::new(Failing::default());
    let limits = json!([
        { "counter": "n", "window": "day", "max": 1, "scope": "grant" },
        { "counter": "runs", "window": "in_flight", "max": 1, "scope": "grant" },
    ]);
    let gate = builder(&json!({ "limits": limits })).0.approvals(Arc::clone(&approvals)).build();
    let arguments = json!({});
    gate.approve(asked(gate.check(&call(&arguments))).id(), "ann").unwrap();
    approvals.claims_fail.store(true, Ordering::Relaxed);
    assert_eq!(gate.check(&call(&arguments)).code(), Some(Code::StoreUnavailable));
    approvals.claims_fail.store(false, Ordering::Relaxed);
    approvals.claims_lose.store(true, Ordering::Relaxed);
    assert_eq!(asked(gate.check(&call(&arguments))).state(), ApprovalState::Approved);
    approvals.claims_lose.store(false, Ordering::Relaxed);
    for state in gate.usage(&call(&arguments)).unwrap() {
        assert_eq!(state.used().to_string(), "0", "{}", state.counter());
    }
    allowed(gate.check(&call(&arguments))).end();
}

/// The host is told; the quota is back all the same, and the approval is used.
#[test]
fn an_approval_that_cannot_be_handed_back_stays_used() {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let approvals = Arc::new(Failing::default());
    let gate = builder(&json!({ "limits": limits })).0.approvals(Arc::clone(&approvals));
    let gate = gate.store(InProcess(MemoryStore::new())).build();
    let arguments = json!({});
    let check = || block_on(gate.check_async(&call(&arguments)));
    let pass = || {
        let Decision::RequireApproval(request) = check() else { panic!("it asks") };
        block_on(gate.approve_async(request.approval().unwrap().id(), "ann")).unwrap();
        match check() {
            Decision::Allow(permit) => permit,
            other => panic!("{other:?}"),
        }
    };
    let permit = pass();
    approvals.keeps_claims.store(true, Ordering::Relaxed);
    assert!(matches!(block_on(permit.release()), Err(StoreError::Unavailable(Some(_)))));
    approvals.keeps_claims.store(false, Ordering::Relaxed);
    let permit = pass();
    assert_eq!(permit.limits()[0].used().to_string(), "1", "the first call's unit was given back");
    block_on(permit.release()).unwrap();
    assert!(check().is_allowed(), "it was handed back");
}

pub(crate) fn a_settled_call_was_made_and_hands_no_approval_back(make: Make<'_>) {
    let (gate, _) = gate(make, &json!({}));
    let arguments = json!({});
    gate.approve(asked(gate.check(&call(&arguments))).id(), "ann").unwrap();
    let mut permit = allowed(gate.check(&call(&arguments)));
    permit.settle("3".parse().unwrap()).unwrap();
    permit.release();
    assert_eq!(gate.check(&call(&arguments)).as_str(), "approval_required");
}

pub(crate) fn looking_ahead_asks_nobody(make: Make<'_>) {
    let (gate, _) = gate(make, &json!({}));
    let arguments = json!({});
    let obstacle = gate.would_allow(&[call(&arguments)]).unwrap_err();
    let Decision::RequireApproval(request) = obstacle.decision() else { panic!("{obstacle:?}") };
    assert!(request.approval().is_none());
    assert!(gate.pending().unwrap().is_empty());
}

#[tokio::test]
async fn approvals_work_with_counters_across_a_network() {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let clock = ManualClock::new(START);
    let store = InProcess(MemoryStore::new());
    let gate = Gate::builder().policy(policy(&json!({ "limits": limits }))).store(store).clock(clock.clone()).build();
    let arguments = json!({});
    fn spawnable<F: Future + Send>(future: F) -> F {
        future
    }
    let Decision::RequireApproval(request) = spawnable(gate.check_async(&call(&arguments))).await else {
        panic!("asks")
    };
    let id = *request.approval().unwrap().id();
    gate.approve(&id, "ann").unwrap();
    let Decision::Allow(permit) = gate.check_async(&call(&arguments)).await else { panic!("approved") };
    permit.release().await.unwrap();
    let Decision::Allow(permit) = gate.check_approved_async(&call(&arguments), &id).await else { panic!("given back") };
    permit.end().await.unwrap();
    assert_eq!(gate.check_async(&call(&arguments)).await.as_str(), "rate_limited");
}

/// Another call takes the room between the look and the first charge.
#[derive(Default)]
struct Outrun {
    store: MemoryStore,
    is_over: AtomicBool,
}

impl CounterStore for Outrun {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.store.reserve(&ReserveRequest::new(ReservationId::new(1), request.now, request.charges))?;
        }
        self.store.reserve(request)
    }
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.store.peek(request)
    }
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.store.settle(request)
    }
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.store.reset(counter, subject)
    }
}

#[tokio::test]
async fn an_approved_call_that_is_outrun_keeps_its_approval() {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let arguments = json!({});
    let call = call(&arguments);
    let gate = builder(&json!({ "limits": limits })).0.store(Outrun::default()).build();
    gate.approve(asked(gate.check(&call)).id(), "ann").unwrap();
    assert_eq!(gate.check(&call).as_str(), "rate_limited");
    assert!(gate.reset_counter("n", &call).unwrap());
    assert!(gate.check(&call).is_allowed());

    let gate = builder(&json!({ "limits": limits })).0.store(InProcess(Outrun::default())).build();
    let Decision::RequireApproval(request) = gate.check_async(&call).await else { panic!("asks") };
    gate.approve(request.approval().unwrap().id(), "ann").unwrap();
    assert_eq!(gate.check_async(&call).await.as_str(), "rate_limited");
    assert!(gate.reset_counter_async("n", &call).await.unwrap());
    assert!(gate.check_async(&call).await.is_allowed());
}

/// Approvals that are never claimed: the answer does not come.
#[derive(Default)]
struct Mute(approval::InProcess<MemoryApprovals>);

impl AsyncApprovalStore for Mute {
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> approval::Answer<'a, Approval> {
        self.0.request(ask, now)
    }
    fn decide<'a>(
        &'a self,
        id: &'a ApprovalId,
        verdict: Verdict,
        by: &'a str,
        now: Timestamp,
    ) -> approval::Answer<'a, Approval, DecideError> {
        self.0.decide(id, verdict, by, now)
    }
    fn claim<'a>(&'a self, _: &'a ApprovalId, _: Timestamp) -> approval::Answer<'a, Option<Claim>> {
        Box::pin(pending())
    }
    fn redeem<'a>(&'a self, _: &'a ApprovalId, _: Timestamp, _: Timestamp) -> approval::Answer<'a, Option<Claim>> {
        Box::pin(pending())
    }
    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> approval::Answer<'a, bool> {
        self.0.restore(claim, now)
    }
    fn pending(&self, now: Timestamp) -> approval::Answer<'_, Vec<Approval>> {
        self.0.pending(now)
    }
}

/// Whoever hangs up while an approval is claimed makes no call, and holds no place of those that
/// may run at once.
#[tokio::test]
async fn a_decision_that_nobody_waits_for_leaves_nothing_in_flight() {
    let limits = json!([
        { "counter": "flight", "window": "in_flight", "max": 1, "scope": "grant" },
        { "counter": "day", "window": "day", "max": 9, "scope": "grant" },
    ]);
    let builder = builder(&json!({ "limits": limits })).0.store(InProcess(MemoryStore::new()));
    let gate = builder.approvals_async(Mute::default()).build();
    let arguments = json!({});
    let call = call(&arguments);
    let Decision::RequireApproval(request) = gate.check_async(&call).await else { panic!("asks") };
    gate.approve_async(request.approval().unwrap().id(), "ann").await.unwrap();
    {
        let mut decision = pin!(gate.check_async(&call));
        assert!(decision.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let used: Vec<_> = gate.usage_async(&call).await.unwrap().iter().map(|limit| limit.used().to_string()).collect();
    assert_eq!(used, ["0", "1"]);
}
