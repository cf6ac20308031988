//! The cases that every store of approvals must pass, and the store in memory passing them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde_json::json;
use toolgate::approval::{ApprovalError, ApprovalId, ApprovalState, DecideError};
use toolgate::{Code, Decision, Gate, Identity, ManualClock, Policy, ToolCall};

use super::{Bounds, MakeStore, START, allowed, asked, builder, call, gate};

pub(crate) use super::signed::{a_refusal_is_final_for_signed_approvals, racing_calls_use_a_signed_approval_once};

/// Makes a test for each case. The function at the path runs a case over a new store.
macro_rules! approval_suite {
    ($with:path) => {
        $crate::approvals::suite::approval_suite! {
            $with;
            a_request_has_what_a_person_needs_to_decide,
            pending_requests_are_listed_oldest_first,
            racing_calls_use_an_approval_once,
            a_restored_approval_is_used_by_one_call_at_a_time,
            a_full_store_refuses_requests_and_evicts_none,
            an_overlong_tool_name_is_not_stored,
            an_approval_among_many_covers_smaller_amounts,
            a_clock_that_ran_ahead_leaves_no_long_lived_approval,
            gates_that_share_a_store_share_approvals,
            a_call_that_names_an_approval_uses_no_other,
            a_settled_call_does_not_restore_its_approval,
            a_preview_creates_no_request,
            pending_requests_are_bounded_for_each_caller,
            details_show_the_bound_arguments,
            a_request_that_is_not_shown_whole_cannot_be_approved,
            the_shown_part_of_a_request_is_bounded,
            a_refusal_is_in_force_until_its_ttl_ends_or_it_is_lifted,
            a_refusal_is_final_for_signed_approvals,
            an_approval_given_elsewhere_is_used_once,
            an_approval_serves_as_many_calls_as_it_has_uses,
            signed_texts_and_the_store_share_the_uses_of_a_request,
            racing_calls_share_the_uses_of_an_approval,
            racing_calls_use_a_signed_approval_once,
        }
    };
    ($with:path; $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $with(&$crate::approvals::suite::$case);
            }
        )*
    };
}
pub(crate) use approval_suite;

mod memory {
    fn with(case: &dyn Fn(super::MakeStore<'_>)) {
        case(&crate::approvals::in_memory);
    }

    super::approval_suite!(with);
}

pub(crate) fn a_request_has_what_a_person_needs_to_decide(make: MakeStore<'_>) {
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
    assert_ne!(again.id(), request.id(), "a new request has another number");
    assert_eq!(again.id().digest(), request.id().digest());
}

pub(crate) fn pending_requests_are_listed_oldest_first(make: MakeStore<'_>) {
    let (gate, clock) = gate(make, &json!({}));
    let mut made = Vec::new();
    for amount in 0..20 {
        made.push(*asked(gate.check(&call(&json!({ "amount": amount })))).id());
        clock.advance(Duration::from_secs(1));
    }
    let listed: Vec<_> = gate.pending().unwrap().iter().map(|approval| *approval.id()).collect();
    assert_eq!(listed, made);
    clock.set(START.saturating_add(Duration::from_secs(610)));
    assert_eq!(gate.pending().unwrap().len(), 9, "eleven have expired, the last one right now");
    gate.refuse(&made[15], "ann").unwrap();
    assert_eq!(gate.pending().unwrap().len(), 8);
}

pub(crate) fn racing_calls_use_an_approval_once(make: MakeStore<'_>) {
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
        // All losers released their charge.
        let used = gate.usage(call(&arguments)).unwrap()[0].used().to_string();
        assert_eq!(used, round.to_string());
        let pending = gate.pending().unwrap();
        assert_eq!(pending.len(), 1, "the losers share one new request");
        gate.refuse(pending[0].id(), "ann").unwrap();
        gate.lift_refusal(pending[0].id(), "ann").unwrap();
    }
    assert_eq!(collided, 100 * (THREADS - 1));
}

pub(crate) fn a_restored_approval_is_used_by_one_call_at_a_time(make: MakeStore<'_>) {
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

pub(crate) fn a_full_store_refuses_requests_and_evicts_none(make: MakeStore<'_>) {
    let approvals = make(Bounds { capacity: 2, ..Bounds::default() });
    let (builder, clock) = builder(&json!({ "approval": { "ttl": "10s" } }));
    let gate = builder.approvals(Arc::clone(&approvals)).build();
    let arguments: Vec<_> = (0..3).map(|amount| json!({ "amount": amount })).collect();
    let first = asked(gate.check(&call(&arguments[0])));
    let second = asked(gate.check(&call(&arguments[1])));
    let Decision::Deny(denial) = gate.check(&call(&arguments[2])) else { panic!("the store is full") };
    assert_eq!((denial.code(), denial.rule()), (Code::StoreUnavailable, Some("/tools/pay/action")));
    assert_eq!(denial.message(), "The approvals of `pay` cannot be checked right now.");
    let cause = std::error::Error::source(denial.store_error().unwrap()).unwrap();
    assert_eq!(cause.to_string(), "the approval store is full: it has 2 live approvals");
    assert_eq!(asked(gate.check(&call(&arguments[0]))).id(), first.id());
    // Neither a refusal nor an approval in use makes room.
    gate.refuse(second.id(), "ann").unwrap();
    gate.approve(first.id(), "ann").unwrap();
    let permit = allowed(gate.check(&call(&arguments[0])));
    assert_eq!(gate.check(&call(&arguments[1])).code(), Some(Code::ApprovalRefused));
    assert_eq!(gate.check(&call(&arguments[2])).code(), Some(Code::StoreUnavailable));
    permit.release();
    allowed(gate.check(&call(&arguments[0]))).end();
    // Both are remembered for as long as a signed approval for them can be valid.
    clock.advance(Duration::from_secs(10));
    assert_eq!(gate.check(&call(&arguments[1])).code(), Some(Code::StoreUnavailable));
    // An expired request makes room.
    let (builder, clock) = self::builder(&json!({ "approval": { "ttl": "10s" } }));
    let gate = builder.approvals(make(Bounds { capacity: 1, ..Bounds::default() })).build();
    asked(gate.check(&call(&arguments[0])));
    assert_eq!(gate.check(&call(&arguments[1])).code(), Some(Code::StoreUnavailable));
    clock.advance(Duration::from_secs(10));
    asked(gate.check(&call(&arguments[1])));
    assert_eq!(gate.pending().unwrap().len(), 1);
}

pub(crate) fn an_overlong_tool_name_is_not_stored(make: MakeStore<'_>) {
    let policy = r#"{ "version": "1", "default": "deny", "tools": { "pay*": { "action": "require_approval" } } }"#;
    let builder = Gate::builder().policy(policy.parse::<Policy>().unwrap()).clock(ManualClock::new(START));
    let gate = builder.approvals(make(Bounds::default())).build();
    let arguments = json!({});
    let name = format!("pay{}", "x".repeat(4093));
    asked(gate.check(&ToolCall::new(&name, &arguments)));
    assert_eq!(gate.check(&ToolCall::new(&name, &arguments).user("u")).code(), Some(Code::StoreUnavailable));
}

pub(crate) fn an_approval_among_many_covers_smaller_amounts(make: MakeStore<'_>) {
    let (builder, _) = builder(&json!({ "approval": { "bind": ["args.amount<="] } }));
    let gate = builder.approvals(make(Bounds { pending: 300, ..Bounds::default() })).build();
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

pub(crate) fn a_clock_that_ran_ahead_leaves_no_long_lived_approval(make: MakeStore<'_>) {
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
    assert_eq!(again.state(), ApprovalState::Pending, "its ttl ran from the time when it was seen");
    clock.set(START);
    assert_eq!(asked(gate.check(&call(&arguments))).state(), ApprovalState::Pending, "and it is not restored");
}

pub(crate) fn gates_that_share_a_store_share_approvals(make: MakeStore<'_>) {
    let approvals = make(Bounds::default());
    let gates: Vec<_> = (0..2).map(|_| builder(&json!({})).0.approvals(Arc::clone(&approvals)).build()).collect();
    let arguments = json!({});
    let request = asked(gates[0].check(&call(&arguments)));
    gates[1].approve(request.id(), "ann").unwrap();
    allowed(gates[1].check(&call(&arguments))).end();
    assert_eq!(gates[0].check(&call(&arguments)).code(), Some(Code::Approval));
}

pub(crate) fn a_call_that_names_an_approval_uses_no_other(make: MakeStore<'_>) {
    let (gate, _) = gate(make, &json!({ "approval": { "bind": ["args.amount<="] } }));
    let (large, small) = (json!({ "amount": 100 }), json!({ "amount": 50 }));
    let for_large = *asked(gate.check(&call(&large))).id();
    let for_small = *asked(gate.check(&call(&small))).id();
    assert_ne!(for_large, for_small, "a person who sees 50 must not approve 100");
    gate.approve(&for_large, "ann").unwrap();
    assert_eq!(gate.check(&call(&small).approval(&for_small)).as_str(), "approval_required");
    gate.approve(&for_small, "ann").unwrap();
    assert_eq!(gate.check(&call(&large).approval(&for_small)).as_str(), "approval_required");
    // The approval with the nearest bound is used first; the other one is kept for a larger call.
    allowed(gate.check(&call(&small))).end();
    allowed(gate.check(&call(&large).approval(&for_large))).end();
    assert_eq!(gate.check(&call(&small)).as_str(), "approval_required");
}

pub(crate) fn pending_requests_are_bounded_for_each_caller(make: MakeStore<'_>) {
    let (builder, clock) = builder(&json!({ "approval": { "ttl": "10s" } }));
    let gate = builder.approvals(make(Bounds { pending: 3, ..Bounds::default() })).build();
    let arguments: Vec<_> = (0..5).map(|amount| json!({ "amount": amount })).collect();
    let of = |grant, amount: usize| ToolCall::new("pay", &arguments[amount]).grant(grant).agent("robot");
    let made: Vec<_> = (0..3).map(|amount| *asked(gate.check(&of("g", amount))).id()).collect();
    let Decision::Deny(denial) = gate.check(&of("g", 3)) else { panic!("three requests are pending") };
    assert_eq!(denial.code(), Code::StoreUnavailable);
    let cause = std::error::Error::source(denial.store_error().unwrap()).unwrap();
    assert_eq!(cause.to_string(), "this caller already has 3 pending requests");
    // Pending requests can be asked for again, and other callers are not limited: neither another
    // grant, nor callers without one.
    asked(gate.check(&of("g", 2)));
    for other in
        [of("h", 0), of("", 0), ToolCall::new("pay", &arguments[0]), ToolCall::new("pay", &arguments[0]).user("g")]
    {
        asked(gate.check(&other));
    }
    // Decided and expired requests are no longer pending.
    gate.approve(&made[0], "ann").unwrap();
    clock.advance(Duration::from_secs(5));
    asked(gate.check(&of("g", 3)));
    gate.refuse(&made[1], "ann").unwrap();
    asked(gate.check(&of("g", 4)));
    assert_eq!(gate.check(&of("g", 1)).code(), Some(Code::ApprovalRefused));
    clock.advance(Duration::from_secs(5));
    asked(gate.check(&of("g", 2)));
    assert_eq!(gate.check(&of("g", 0)).code(), Some(Code::StoreUnavailable), "only one of them has expired");
}

pub(crate) fn details_show_the_bound_arguments(make: MakeStore<'_>) {
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
    let long = json!({ "to": "x".repeat(16_384 - 9) });
    assert_eq!(asked(all.check(&call(&long))).details().map(str::len), Some(16_384));
}

pub(crate) fn a_request_that_is_not_shown_whole_cannot_be_approved(make: MakeStore<'_>) {
    let padding = "p".repeat(20_000);
    let arguments = json!({ "amount": 999_999, "to": "eve\u{200b}\u{202e}", "zpad": padding });
    let (gate, _) = gate(make, &json!({}));
    let request = asked(gate.check(&call(&arguments)));
    assert_eq!((request.details(), request.is_shown(), request.details_bytes()), (None, false, 20_044));
    // The padding hides no other argument.
    let lines: Vec<_> = request.shown().lines().map(str::to_owned).collect();
    assert_eq!(lines[..2], [r#""amount": 999999"#, r#""to": "eve\u{200b}\u{202e}""#]);
    assert!(lines[2].starts_with(r#""zpad": "ppp"#) && lines[2].ends_with("p [3635 more bytes are not shown]"));
    let [amount, _, zpad] = request.arguments() else { panic!("{:?}", request.arguments()) };
    assert_eq!((&*amount.name(), &*amount.value(), amount.hidden_bytes()), ("\"amount\"", "999999", 0));
    assert_eq!((zpad.value().len(), zpad.hidden_bytes(), request.arguments_left_out()), (16_367, 3_635, 0));
    let pending = &gate.pending().unwrap()[0];
    assert_eq!((pending.arguments(), pending.to_json()), (request.arguments(), request.to_json()));
    assert!(matches!(gate.approve(request.id(), "ann"), Err(DecideError::NotShown)));
    gate.refuse(request.id(), "ann").unwrap();
    assert_eq!(gate.check(&call(&arguments)).code(), Some(Code::ApprovalRefused));

    // The host can let people approve it. Then the store may keep the names alone.
    let builder = builder(&json!({})).0.approvals(make(Bounds { details: 0, ..Bounds::default() }));
    let gate = builder.approve_unseen().build();
    let request = asked(gate.check(&call(&arguments)));
    assert_eq!(request.shown().lines().next(), Some("\"amount\":  [6 more bytes are not shown]"));
    gate.approve(request.id(), "ann").unwrap();
    allowed(gate.check(&call(&arguments))).end();
}

pub(crate) fn the_shown_part_of_a_request_is_bounded(make: MakeStore<'_>) {
    let (all, _) = gate(make, &json!({}));
    // Many long values have equal shares, at whole characters.
    let many: serde_json::Value = (0..20).map(|n| (format!("a{n:02}"), json!("é".repeat(1_000)))).collect();
    let request = asked(all.check(&call(&many)));
    let lengths: Vec<_> = request.arguments().iter().map(|argument| argument.value().len()).collect();
    assert_eq!(lengths, vec![819; 20], "an odd number, because of the quotation mark");
    // Long names leave out themselves, and short ones stay.
    let named: serde_json::Value = (0..100)
        .map(|n| (format!("{n:0100}"), json!("x".repeat(200))))
        .chain([("to".to_owned(), json!("eve"))])
        .collect();
    let request = asked(all.check(&call(&named)));
    assert_eq!((request.arguments().len(), request.arguments_left_out()), (41, 60));
    assert!(
        request.shown().contains("\"to\": \"eve\"\n")
            && request.shown().ends_with("[60 more arguments are not shown]\n")
    );
    assert!(matches!(all.approve(request.id(), "ann"), Err(DecideError::NotShown)));
    // Of a list of bound paths only these are shown, whatever else the call has.
    let (some, _) = gate(make, &json!({ "approval": { "bind": ["args.to", "args.n<=", "args.none"] } }));
    let padded = json!({ "to": "ann", "n": 5, "zpad": "p".repeat(100_000) });
    let request = asked(some.check(&call(&padded)));
    assert_eq!(request.details(), Some(r#"[["args.to","ann"],["args.n<=",5],["args.none"]]"#));
    some.approve(request.id(), "ann").unwrap();
    let long = json!({ "to": "x".repeat(20_000), "n": 5 });
    let shown = asked(some.check(&call(&long))).shown();
    assert!(shown.contains("\"args.n<=\": 5\n") && shown.contains("\"args.none\": \n"), "{shown}");
}

pub(crate) fn a_refusal_is_in_force_until_its_ttl_ends_or_it_is_lifted(make: MakeStore<'_>) {
    let (gate, clock) = gate(make, &json!({ "approval": { "ttl": "10s", "approvers": ["ann", "ben"] } }));
    let arguments = json!({ "amount": 5 });
    let id = *asked(gate.check(&call(&arguments))).id();
    assert!(matches!(gate.lift_refusal(&id, "ann"), Err(DecideError::NotRefused)), "it is pending");
    clock.advance(Duration::from_secs(9));
    let refused = gate.refuse(&id, "ann").unwrap();
    assert_eq!(
        (refused.state(), refused.expires_at()),
        (ApprovalState::Denied, START.saturating_add(Duration::from_secs(19)))
    );
    let denied = |seconds| {
        clock.set(START.saturating_add(Duration::from_secs(seconds)));
        let Decision::Deny(denial) = gate.check(&call(&arguments)) else { return None };
        assert_eq!((denial.code(), denial.rule()), (Code::ApprovalRefused, Some("/tools/pay/action")));
        denial.refused_request().copied()
    };
    assert_eq!((denied(9), denied(18)), (Some(id), Some(id)));
    assert!(gate.pending().unwrap().is_empty(), "nobody is asked");
    assert_eq!(denied(19), None);
    // Another request, refused and lifted. Somebody else than the asker lifts it.
    let id = *asked(gate.check(&call(&arguments))).id();
    gate.refuse(&id, "ben").unwrap();
    for by in ["ben", "BEN", "", "\u{200b}"] {
        assert!(matches!(gate.lift_refusal(&id, by), Err(DecideError::NotAnApprover)), "{by}");
    }
    assert_eq!(denied(19), Some(id));
    gate.lift_refusal(&id, "the operator").unwrap();
    assert!(matches!(gate.lift_refusal(&id, "the operator"), Err(DecideError::NotRefused)));
    assert!(matches!(gate.approve(&id, "ann"), Err(DecideError::NotPending)), "it does not come back");
    let again = asked(gate.check(&call(&arguments)));
    assert_ne!(again.id(), &id);
    gate.approve(again.id(), "ann").unwrap();
    allowed(gate.check(&call(&arguments))).end();
}

pub(crate) fn an_approval_given_elsewhere_is_used_once(make: MakeStore<'_>) {
    let at = |seconds| START.saturating_add(Duration::from_secs(seconds));
    let store = make(Bounds { capacity: 3, ..Bounds::default() });
    let gate = builder(&json!({})).0.approvals(Arc::clone(&store)).build();
    let arguments = json!({});
    let id = *asked(gate.check(&call(&arguments))).id();
    assert!(store.redeem(&id, 1, at(0), at(0)).unwrap().claim().is_none(), "its time has ended");
    let claim = store.redeem(&id, 1, at(10), at(0)).unwrap().claim().unwrap();
    assert!(gate.pending().unwrap().is_empty(), "the request is decided");
    assert!(store.redeem(&id, 1, at(10), at(1)).unwrap().claim().is_none());
    assert!(store.claim(&id, at(1)).unwrap().is_none());
    assert!(store.restore(&claim, at(1)).unwrap());
    assert!(!store.restore(&claim, at(1)).unwrap());
    let second = store.redeem(&id, 1, at(10), at(1)).unwrap().claim().unwrap();
    assert_ne!(claim, second);
    assert!(!store.restore(&claim, at(1)).unwrap(), "that claim is of an earlier turn");
    // Another number with the same digest is another request, until the store is full.
    let other = |number| ApprovalId::new(id.digest(), number);
    for number in [7, u64::MAX] {
        assert!(store.redeem(&other(number), 1, at(20), at(2)).unwrap().claim().is_some());
        assert!(store.redeem(&other(number), 1, at(20), at(2)).unwrap().claim().is_none());
    }
    assert!(matches!(store.redeem(&other(8), 1, at(20), at(3)), Err(ApprovalError::Full { capacity: 3 })));
    // A person has approved the request here too: it still has one use.
    let (first, request) = (other(8), json!({ "amount": 1 }));
    let store = make(Bounds::default());
    let gate = builder(&json!({})).0.approvals(Arc::clone(&store)).build();
    let id = *asked(gate.check(&call(&request))).id();
    gate.approve(&id, "ann").unwrap();
    let permit = allowed(gate.check(&call(&request)));
    assert!(store.redeem(&id, 1, at(10), at(0)).unwrap().claim().is_none());
    permit.release();
    assert!(store.redeem(&id, 1, at(10), at(0)).unwrap().claim().is_some());
    assert_eq!(gate.check(&call(&request)).as_str(), "approval_required");
    // After the clock stepped back, an approval that was spent and forgotten is not used again.
    assert!(store.redeem(&first, 1, at(10), at(0)).unwrap().claim().is_some());
    assert!(store.redeem(&other(9), 1, at(1_000_000), at(999_999)).unwrap().claim().is_some());
    assert!(store.redeem(&first, 1, at(10), at(0)).unwrap().claim().is_none());
}

pub(crate) fn an_approval_serves_as_many_calls_as_it_has_uses(make: MakeStore<'_>) {
    let (gate, clock) = gate(make, &json!({ "approval": { "ttl": "30s", "uses": 3, "bind": [] } }));
    let amount = |amount: u32| gate.check(&call(&json!({ "amount": amount })));
    let request = asked(amount(1));
    assert_eq!((request.uses(), request.details(), &*request.shown()), (3, Some("[]"), "any arguments"));
    assert_eq!(gate.approve(request.id(), "ann").unwrap().uses_left(), 3);
    let first = allowed(amount(1));
    let second = allowed(amount(2));
    // Each release gives back one use, also while others are left and after the last was taken.
    second.release();
    let third = allowed(amount(3));
    let fourth = allowed(amount(4));
    assert_ne!(asked(amount(5)).id(), request.id(), "three calls are out");
    first.release();
    assert!(gate.check(&call(&json!({}))).is_allowed());
    assert!(!amount(1).is_allowed());
    third.end();
    // The uses end with the time of the approval.
    clock.advance(Duration::from_secs(30));
    fourth.release();
    let again = asked(amount(1));
    gate.approve(again.id(), "ann").unwrap();
    assert!(amount(1).is_allowed());
    clock.advance(Duration::from_secs(30));
    assert_ne!(asked(amount(1)).id(), again.id());
}

pub(crate) fn racing_calls_share_the_uses_of_an_approval(make: MakeStore<'_>) {
    const THREADS: usize = 8;
    let (gate, _) = gate(make, &json!({ "approval": { "uses": 5 } }));
    let arguments = json!({});
    for _ in 0..10 {
        gate.approve(asked(gate.check(&call(&arguments))).id(), "ann").unwrap();
        let (start, passed) = (Barrier::new(THREADS), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    if gate.check(&call(&arguments)).is_allowed() {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 5);
        for request in gate.pending().unwrap() {
            gate.refuse(request.id(), "ann").unwrap();
            gate.lift_refusal(request.id(), "ann").unwrap();
        }
    }
}

pub(crate) fn signed_texts_and_the_store_share_the_uses_of_a_request(make: MakeStore<'_>) {
    let at = |seconds| START.saturating_add(Duration::from_secs(seconds));
    let store = make(Bounds::default());
    let gate = builder(&json!({ "approval": { "uses": 3 } })).0.approvals(Arc::clone(&store)).build();
    let arguments = json!({});
    let id = *asked(gate.check(&call(&arguments))).id();
    gate.approve(&id, "ann").unwrap();
    allowed(gate.check(&call(&arguments))).end();
    // One use is taken here, so two are left to texts that were signed for the same request.
    let claims = [(); 2].map(|()| store.redeem(&id, 3, at(10), at(0)).unwrap().claim().unwrap());
    assert!(store.redeem(&id, 3, at(10), at(0)).unwrap().claim().is_none());
    assert_ne!(asked(gate.check(&call(&arguments))).id(), &id, "only texts use what is left");
    for claim in claims {
        assert!(store.restore(&claim, at(1)).unwrap());
        assert!(!store.restore(&claim, at(1)).unwrap(), "a claim gives back one use");
    }
    assert!(store.redeem(&id, 3, at(10), at(1)).unwrap().claim().is_some());
    assert!(store.redeem(&id, 3, at(10), at(1)).unwrap().claim().is_some());
    assert!(store.redeem(&id, 3, at(10), at(1)).unwrap().claim().is_none());

    // An approval that was used in part and then expired leaves the rest to texts that still live.
    let (gate, clock) = builder(&json!({ "approval": { "uses": 2, "ttl": "60s" } }));
    let store = make(Bounds::default());
    let gate = gate.approvals(Arc::clone(&store)).build();
    let id = *asked(gate.check(&call(&arguments))).id();
    gate.approve(&id, "ann").unwrap();
    allowed(gate.check(&call(&arguments))).end();
    clock.advance(Duration::from_secs(60));
    assert_ne!(asked(gate.check(&call(&arguments))).id(), &id);
    assert!(store.redeem(&id, 2, at(130), at(61)).unwrap().claim().is_some());
    assert!(store.redeem(&id, 2, at(130), at(61)).unwrap().claim().is_none());
}

pub(crate) fn a_settled_call_does_not_restore_its_approval(make: MakeStore<'_>) {
    let (gate, _) = gate(make, &json!({}));
    let arguments = json!({});
    gate.approve(asked(gate.check(&call(&arguments))).id(), "ann").unwrap();
    let mut permit = allowed(gate.check(&call(&arguments)));
    permit.settle("3".parse().unwrap()).unwrap();
    permit.release();
    assert_eq!(gate.check(&call(&arguments)).as_str(), "approval_required");
}

pub(crate) fn a_preview_creates_no_request(make: MakeStore<'_>) {
    let (gate, _) = gate(make, &json!({}));
    let arguments = json!({});
    let obstacle = gate.would_allow(&[call(&arguments)]).unwrap_err();
    let Decision::RequireApproval(request) = obstacle.decision() else { panic!("{obstacle:?}") };
    assert!(request.approval().is_none());
    assert!(gate.pending().unwrap().is_empty());
}
