//! Signed approvals that are accepted, each for one call.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use toolgate::approval::signed::{ApprovalKey, ApprovalKeys, KeyError, SignedError};
use toolgate::approval::{ApprovalId, Verdict};
use toolgate::{Access, Gate, Grants};

use super::{
    SECRET, START, Statement, allowed, arguments, asked, at, builder, call, gate, keys, policy, rules, service, signed,
    why,
};
use crate::approvals::{Bounds, MakeStore};

#[test]
fn a_signed_approval_allows_one_call() {
    let (gate, clock) = gate(&rules());
    let ten = arguments(10);
    let request = asked(gate.check(&call(&ten)));
    let text = keys().write_request(&request).unwrap();
    let shown = keys().read_request(&text).unwrap();
    assert_eq!((shown.id(), shown.tool(), shown.reason()), (request.id(), "pay", request.reason()));
    assert_eq!(shown.details(), Some(r#"[["args.to","x"],["args.n<=",10]]"#));
    assert_eq!(shown.identity(toolgate::Identity::Session), Some("s"));
    assert_eq!((shown.made_at(), shown.expires_at()), (request.made_at(), request.expires_at()));

    clock.advance(Duration::from_secs(5));
    let signed = service(&text, at(5_000_000));
    assert!(signed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) && signed.len() < 400);
    let permit = allowed(gate.check(&call(&ten).signed(&signed)));
    assert!(gate.pending().unwrap().is_empty(), "the request is decided");
    let again = gate.check(&call(&ten).signed(&signed));
    assert_eq!(why(&again), Some(SignedError::Spent));
    assert_ne!(asked(again).id(), request.id());
    // The released call can be made again, up to the last microsecond.
    permit.release();
    clock.set(at(34_999_999));
    allowed(gate.check(&call(&ten).signed(&signed))).end();
    assert_eq!(why(&gate.check(&call(&ten).signed(&signed))), Some(SignedError::Spent));
    assert_eq!(gate.usage(call(&ten)).unwrap()[0].used().to_string(), "1");
}

#[test]
fn a_signed_approval_serves_as_many_calls_as_it_has_uses() {
    let mut policy_rules = rules();
    policy_rules["approval"]["uses"] = json!(3);
    policy_rules["limits"][0]["max"] = json!(1000);
    let (gate, _) = gate(&policy_rules);
    let text = signed(&gate, 10);
    let permits = [10, 7, 3].map(|n| allowed(gate.check(&call(&arguments(n)).signed(&text))));
    assert_eq!(why(&gate.check(&call(&arguments(1)).signed(&text))), Some(SignedError::Spent));
    let [first, ..] = permits;
    first.release();
    allowed(gate.check(&call(&arguments(9)).signed(&text))).end();
    assert_eq!(why(&gate.check(&call(&arguments(1)).signed(&text))), Some(SignedError::Spent));
}

/// A later signature is valid for longer than the one that was used, or than the approval here.
#[test]
fn a_request_that_is_signed_again_still_has_one_use() {
    let ten = arguments(10);
    for is_approved_here in [false, true] {
        let (gate, clock) = gate(&rules());
        let request = asked(gate.check(&call(&ten)));
        let text = keys().write_request(&request).unwrap();
        let later = service(&text, at(25_000_000));
        if is_approved_here {
            for by in ["ann", "bob"] {
                gate.approve(request.id(), by).unwrap();
            }
            allowed(gate.check(&call(&ten))).end();
        } else {
            allowed(gate.check(&call(&ten).signed(&service(&text, START)))).end();
        }
        for second in [26, 30, 31, 54] {
            clock.set(at(second * 1_000_000));
            let again = gate.check(&call(&ten).signed(&later));
            assert_eq!(why(&again), Some(SignedError::Spent), "{is_approved_here} {second}");
        }
        clock.set(at(55_000_000));
        assert_eq!(why(&gate.check(&call(&ten).signed(&later))), Some(SignedError::Expired));
    }
}

/// A service whose clock is slow signs before the request was made.
#[test]
fn a_request_signed_twice_by_a_slow_clock_has_one_use() {
    let (gate, clock) = gate(&rules());
    let ten = arguments(10);
    let text = keys().write_request(&asked(gate.check(&call(&ten)))).unwrap();
    allowed(gate.check(&call(&ten).signed(&service(&text, at(-20_000_000))))).end();
    let later = service(&text, at(29_999_999));
    for second in [30, 44, 45, 50, 59] {
        clock.set(at(second * 1_000_000));
        assert_eq!(why(&gate.check(&call(&ten).signed(&later))), Some(SignedError::Spent), "{second}");
    }
}

#[test]
fn an_independent_implementation_is_accepted() {
    let (gate, _) = gate(&rules());
    let statement = Statement::of(&gate, 10);
    let ten = arguments(10);
    allowed(gate.check(&call(&ten).signed(&statement.sign()))).end();
    // A second signature of the same request is spent too.
    let other = Statement { expires_at: at(29_000_000), by: vec!["bob".into(), "ann".into()], ..statement };
    assert_eq!(why(&gate.check(&call(&ten).signed(&other.sign()))), Some(SignedError::Spent));
}

#[test]
fn keys_can_be_rotated() {
    let (old, new) = (ApprovalKey::new("old", &SECRET).unwrap(), ApprovalKey::new("new", &[8; 40]).unwrap());
    let both = ApprovalKeys::new(new.clone()).and(old.clone());
    let with = |keys: ApprovalKeys| builder(&rules()).0.approval_keys(keys).build();
    let ten = arguments(10);
    let sign = |gate: &Gate, key: &ApprovalKey| {
        let mut approval = asked(gate.check(&call(&ten)));
        ["ann", "bob"].iter().for_each(|by| approval.decide(Verdict::Approve, by, START).unwrap());
        key.sign(&approval, START).unwrap()
    };
    let gate = with(both.clone());
    for key in [&old, &new] {
        allowed(gate.check(&call(&ten).signed(&sign(&gate, key)))).end();
    }
    let gate = with(ApprovalKeys::new(new.clone()));
    assert_eq!(why(&gate.check(&call(&ten).signed(&sign(&gate, &old)))), Some(SignedError::UnknownKey));
    // A key with the same name is not the same key; and two keys can have one name.
    let impostor = ApprovalKey::new("new", &[9; 32]).unwrap();
    assert_eq!(why(&gate.check(&call(&ten).signed(&sign(&gate, &impostor)))), Some(SignedError::Forged));
    let gate = with(ApprovalKeys::new(new.clone()).and(impostor.clone()));
    allowed(gate.check(&call(&ten).signed(&sign(&gate, &impostor)))).end();
    // Without a key no text is accepted.
    let gate = builder(&rules()).0.approval_keys(None).build();
    assert_eq!(why(&gate.check(&call(&ten).signed(&sign(&gate, &old)))), Some(SignedError::UnknownKey));

    assert_eq!(both.write_request(&asked(gate.check(&call(&ten)))).unwrap().split('.').nth(1), Some("new"));
    assert_eq!(format!("{new:?}"), "ApprovalKey { id: \"new\", .. }");
    assert!(matches!(ApprovalKey::new("k", &[1; 31]), Err(KeyError::Short { bytes: 31 })));
    for id in ["", "a.b", "a b", "é", &"k".repeat(33)] {
        assert!(matches!(ApprovalKey::new(id, &SECRET), Err(KeyError::Id)), "{id}");
    }
}

#[test]
fn a_rate_limited_call_spends_no_signed_approval() {
    let (gate, clock) = gate(&rules());
    let ten = arguments(10);
    let texts: Vec<_> = (0..2)
        .map(|_| {
            let text = signed(&gate, 10);
            allowed(gate.check(&call(&ten).signed(&text))).end();
            text
        })
        .collect();
    assert_ne!(texts[0], texts[1]);
    // The limit is reached: neither a valid text nor an invalid one is read.
    let good = Statement::of(&builder(&rules()).0.build(), 10);
    let good = Statement { id: ApprovalId::new(good.id.digest(), 5), ..good };
    for text in [&good.sign()[..], "nonsense"] {
        assert_eq!(gate.check(&call(&ten).signed(text)).as_str(), "rate_limited");
    }
    assert!(gate.pending().unwrap().is_empty());
    clock.set(at(86_400_000_000));
    let later = Statement { issued_at: at(86_400_000_000), expires_at: at(86_410_000_000), ..good };
    allowed(gate.check(&call(&ten).signed(&later.sign()))).end();
}

#[test]
fn grants_accept_signed_approvals() {
    let (gate, _) = gate(&rules());
    let grants = Grants::over(&gate);
    grants.put_policy("p", policy(&rules()).to_json()).unwrap();
    grants.give("g", Access::to("p").on_any_server(), "ops").unwrap();
    let ten = arguments(10);
    let request = asked(grants.check(&call(&ten)));
    assert_eq!(grants.pending().unwrap().len(), 1);
    let text = service(&keys().write_request(&request).unwrap(), START);
    allowed(grants.check(&call(&ten).signed(&text))).end();
    assert_eq!(why(&grants.check(&call(&ten).signed(&text))), Some(SignedError::Spent));
    assert_eq!(grants.check(&call(&ten).grant("h").signed(&text)).as_str(), "deny");
    let request = grants.pending().unwrap()[0].clone();
    for by in ["ann", "bob"] {
        grants.approve(request.id(), by).unwrap();
    }
    allowed(grants.check(&call(&ten).approval(request.id()))).end();
}

/// Threads at two gates with one store race for a signed approval, and one of them uses it.
pub(crate) fn racing_calls_use_a_signed_approval_once(make: MakeStore<'_>) {
    let mut policy_rules = rules();
    policy_rules["limits"][0]["max"] = json!(1000);
    let store = make(Bounds::default());
    let gates: Vec<_> = (0..2).map(|_| builder(&policy_rules).0.approvals(Arc::clone(&store)).build()).collect();
    let ten = arguments(10);
    for _ in 0..30 {
        let text = signed(&gates[0], 10);
        let passed: usize = std::thread::scope(|scope| {
            let (ten, text) = (&ten, &text);
            let race = |gate: &Gate| {
                let gate = gate.clone();
                scope.spawn(move || usize::from(gate.check(&call(ten).signed(text)).is_allowed()))
            };
            let threads: Vec<_> = gates.iter().cycle().take(6).map(race).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1);
        for request in gates[1].pending().unwrap() {
            gates[1].refuse(request.id(), "ann").unwrap();
            gates[1].lift_refusal(request.id(), "ann").unwrap();
        }
    }
}
