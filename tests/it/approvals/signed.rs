//! Approvals that travel: what passes is what was signed, for that very call, once.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;
use toolgate::approval::signed::{ApprovalKey, ApprovalKeys, KeyError, SignError, SignedError};
use toolgate::approval::{ApprovalError, Ask, Claim, Verdict};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{
    Approval, ApprovalId, ApprovalState, ApprovalStore, Code, DecideError, Decision, Gate, GateBuilder, Grants,
    ManualClock, MemoryApprovals, Permit, Policy, Timestamp, ToolCall,
};

use crate::approvals::cases::{Make, Room};
use crate::stores::leased::block_on;

/// A Thursday morning.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);
const SECRET: [u8; 32] = [7; 32];

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(START.unix_micros() + micros)
}

fn keys() -> ApprovalKeys {
    ApprovalKeys::new(ApprovalKey::new("k1", &SECRET).unwrap())
}

/// One counter, two approvers of three, half a minute, and a bound for the amount.
fn rules() -> Value {
    json!({
        "action": "require_approval",
        "approval": { "ttl": "30s", "approvers": ["ann", "bob", "robot"], "min_approvers": 2, "bind": ["args.to", "args.n<="] },
        "limits": [{ "counter": "n", "window": "day", "max": 2, "scope": "grant" }],
    })
}

fn policy(rules: &Value) -> Policy {
    let tools = json!({ "pay": rules, "free": {}, "no": { "action": "deny" } });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
}

fn builder(rules: &Value) -> (GateBuilder, ManualClock) {
    let clock = ManualClock::new(START);
    (Gate::builder().policy(policy(rules)).approval_keys(keys()).clock(clock.clone()), clock)
}

fn gate(rules: &Value) -> (Gate, ManualClock) {
    let (builder, clock) = builder(rules);
    (builder.build(), clock)
}

fn arguments(n: u64) -> Value {
    json!({ "to": "x", "n": n })
}

fn call(arguments: &Value) -> ToolCall<'_> {
    ToolCall::new("pay", arguments).grant("g").agent("robot").session("s")
}

fn asked(decision: Decision) -> Approval {
    match decision {
        Decision::RequireApproval(request) => request.approval().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

fn allowed(decision: Decision) -> Permit {
    match decision {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// Why the signed approval did not let the call pass.
fn why(decision: &Decision) -> Option<SignedError> {
    match decision {
        Decision::RequireApproval(request) => request.signed_error(),
        other => panic!("{other:?}"),
    }
}

/// The service: it reads a request, two people approve it, and it signs.
fn service(request: &str, now: Timestamp) -> String {
    let mut request = keys().read_request(request).unwrap();
    for by in ["ann", "bob"] {
        request.decide(Verdict::Approve, by, now).unwrap();
    }
    keys().sign(&request, now).unwrap()
}

/// What a call of so much asks for, signed at the start.
fn signed(gate: &Gate, n: u64) -> String {
    let arguments = arguments(n);
    let request = asked(gate.check(&call(&arguments)));
    service(&keys().write_request(&request).unwrap(), START)
}

/// A service written by another hand, from what the documentation says of the text.
#[derive(Clone)]
struct Statement {
    id: ApprovalId,
    issued_at: Timestamp,
    expires_at: Timestamp,
    bounds: Vec<&'static str>,
    by: Vec<String>,
}

impl Statement {
    fn of(gate: &Gate, n: u64) -> Self {
        let arguments = arguments(n);
        let id = *asked(gate.check(&call(&arguments))).id();
        let by = ["ann", "bob"].map(str::to_owned).to_vec();
        Self { id, issued_at: at(0), expires_at: at(30_000_000), bounds: vec!["10"], by }
    }

    fn sign(&self) -> String {
        let mut bytes = self.id.digest().as_bytes().to_vec();
        bytes.extend(self.id.number().to_be_bytes());
        bytes.extend(self.issued_at.unix_micros().to_be_bytes());
        bytes.extend(self.expires_at.unix_micros().to_be_bytes());
        bytes.extend([0, u8::try_from(self.bounds.len()).unwrap()]);
        for bound in &self.bounds {
            bytes.push(u8::try_from(bound.len()).unwrap());
            bytes.extend(bound.bytes());
        }
        bytes.extend([0, u8::try_from(self.by.len()).unwrap()]);
        for by in &self.by {
            bytes.extend([0, u8::try_from(by.len()).unwrap()]);
            bytes.extend(by.bytes());
        }
        seal(&format!("approval1.k1.{}", hex(&bytes)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seal(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&SECRET).unwrap();
    mac.update(text.as_bytes());
    format!("{text}.{}", hex(&mac.finalize().into_bytes()))
}

#[test]
fn what_the_service_signs_passes_once() {
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
    let permit = allowed(gate.check_signed(&call(&ten), &signed));
    assert!(gate.pending().unwrap().is_empty(), "the question has its answer");
    let again = gate.check_signed(&call(&ten), &signed);
    assert_eq!(why(&again), Some(SignedError::Spent));
    assert_ne!(asked(again).id(), request.id());
    // The call was not made: it may be made again, up to the last microsecond.
    permit.release();
    clock.set(at(34_999_999));
    allowed(gate.check_signed(&call(&ten), &signed)).end();
    assert_eq!(why(&gate.check_signed(&call(&ten), &signed)), Some(SignedError::Spent));
    assert_eq!(gate.usage(&call(&ten)).unwrap()[0].used().to_string(), "1");
}

/// A text that was signed later holds longer than the one that was used, and than what was approved
/// and used here.
#[test]
fn a_request_that_is_signed_again_later_still_has_one_use() {
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
            allowed(gate.check_signed(&call(&ten), &service(&text, START))).end();
        }
        for second in [26, 30, 31, 54] {
            clock.set(at(second * 1_000_000));
            let again = gate.check_signed(&call(&ten), &later);
            assert_eq!(why(&again), Some(SignedError::Spent), "{is_approved_here} {second}");
        }
        clock.set(at(55_000_000));
        assert_eq!(why(&gate.check_signed(&call(&ten), &later)), Some(SignedError::Expired));
    }
}

/// A service whose clock is behind signs what seems older than the request.
#[test]
fn a_request_that_is_signed_twice_by_a_slow_clock_has_one_use() {
    let (gate, clock) = gate(&rules());
    let ten = arguments(10);
    let text = keys().write_request(&asked(gate.check(&call(&ten)))).unwrap();
    allowed(gate.check_signed(&call(&ten), &service(&text, at(-20_000_000)))).end();
    let later = service(&text, at(29_999_999));
    for second in [30, 44, 45, 50, 59] {
        clock.set(at(second * 1_000_000));
        assert_eq!(why(&gate.check_signed(&call(&ten), &later)), Some(SignedError::Spent), "{second}");
    }
}

#[test]
fn a_service_by_another_hand_is_believed() {
    let (gate, _) = gate(&rules());
    let statement = Statement::of(&gate, 10);
    let ten = arguments(10);
    allowed(gate.check_signed(&call(&ten), &statement.sign())).end();
    // Signed twice, it is one answer to one question.
    let other = Statement { expires_at: at(29_000_000), by: vec!["bob".into(), "ann".into()], ..statement };
    assert_eq!(why(&gate.check_signed(&call(&ten), &other.sign())), Some(SignedError::Spent));
}

#[test]
fn whatever_does_not_hold_asks_again() {
    let (gate, _) = gate(&rules());
    let good = Statement::of(&gate, 10);
    let by = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let digest = toolgate::approval::CallDigest::new([0; 32]);
    let (id, base) = (ApprovalId::new(digest, good.id.number()), || good.clone());
    use SignedError::*;
    for (want, statement) in [
        (OtherCall, Statement { id, ..base() }),
        (AboveBound, Statement { bounds: vec!["9.9"], ..base() }),
        (AboveBound, Statement { bounds: vec![], ..base() }),
        (AboveBound, Statement { bounds: vec!["10", "10"], ..base() }),
        (Malformed, Statement { bounds: vec!["10.0"], ..base() }),
        (Malformed, Statement { bounds: vec!["x"], ..base() }),
        (NotYet, Statement { issued_at: at(5_000_001), ..base() }),
        (NotYet, Statement { issued_at: Timestamp::MAX, expires_at: Timestamp::MAX, ..base() }),
        (Expired, Statement { expires_at: at(0), ..base() }),
        (Expired, Statement { issued_at: Timestamp::MIN, expires_at: Timestamp::MIN, ..base() }),
        (TooLongLived, Statement { expires_at: at(30_000_001), ..base() }),
        (TooLongLived, Statement { issued_at: at(-1), ..base() }),
        (TooLongLived, Statement { issued_at: Timestamp::MIN, ..base() }),
        (TooFewApprovers, Statement { by: by(&["ann"]), ..base() }),
        (TooFewApprovers, Statement { by: by(&[]), ..base() }),
        (NotAnApprover, Statement { by: by(&["ann", "ann"]), ..base() }),
        (NotAnApprover, Statement { by: by(&["ann", "eve"]), ..base() }),
        (NotAnApprover, Statement { by: by(&["ann", "bob", "eve"]), ..base() }),
        // Listed, but the one who asked; and nobody.
        (NotAnApprover, Statement { by: by(&["ann", "robot"]), ..base() }),
        (NotAnApprover, Statement { by: by(&["ann", ""]), ..base() }),
    ] {
        let decision = gate.check_signed(&call(&arguments(10)), &statement.sign());
        assert_eq!(why(&decision), Some(want));
        assert_eq!(decision.message(), gate.check(&call(&arguments(10))).message(), "the agent is told nothing of it");
        assert_eq!(asked(decision).id(), &good.id);
    }
    // A little ahead is borne.
    let ahead = Statement { issued_at: at(5_000_000), expires_at: at(35_000_000), ..base() };
    allowed(gate.check_signed(&call(&arguments(10)), &ahead.sign())).end();
}

#[test]
fn what_is_no_signed_approval_asks_again() {
    let (gate, _) = gate(&rules());
    let good = Statement::of(&gate, 10).sign();
    let (text, mac) = good.rsplit_once('.').unwrap();
    let digits = text.rsplit_once('.').unwrap().1;
    let request = keys().write_request(&gate.pending().unwrap()[0]).unwrap();
    for (want, wrong) in [
        (SignedError::Malformed, String::new()),
        (SignedError::Malformed, "approval1".into()),
        (SignedError::Malformed, "approval1.k1".into()),
        (SignedError::Malformed, text.into()),
        (SignedError::Malformed, format!(" {good}")),
        (SignedError::Malformed, good.replace("approval1", "approval2")),
        (SignedError::Malformed, format!("{good}{}", "0".repeat(4096))),
        (SignedError::Malformed, seal(&format!("approval1.k1.{digits}00"))),
        (SignedError::Malformed, seal("approval1.k1.")),
        (SignedError::Malformed, request.clone()),
        (SignedError::UnknownKey, good.replace(".k1.", ".k2.")),
        (SignedError::UnknownKey, good.replace(".k1.", "..")),
        (SignedError::Forged, format!("{good}.")),
        (SignedError::Forged, format!("{good}0")),
        (SignedError::Forged, format!("{good} ")),
        (SignedError::Forged, format!("{text}.{}", mac.to_uppercase())),
        (SignedError::Forged, format!("{text}.")),
        (SignedError::Forged, format!("{text}.{}", &mac[..62])),
        (SignedError::Forged, request.replace("request1", "approval1")),
    ] {
        assert_eq!(why(&gate.check_signed(&call(&arguments(10)), &wrong)), Some(want), "{wrong}");
    }
    // With the digits written otherwise, by somebody who has the key: one spelling only.
    let upper = seal(&format!("approval1.k1.{}", digits.to_uppercase()));
    assert_eq!(why(&gate.check_signed(&call(&arguments(10)), &upper)), Some(SignedError::Malformed));
    allowed(gate.check_signed(&call(&arguments(10)), &good)).end();
}

#[test]
fn every_changed_bit_is_refused() {
    let (gate, _) = gate(&rules());
    let good = signed(&gate, 10);
    let ten = arguments(10);
    let mut tried = 0;
    for index in 0..good.len() * 8 {
        let mut bytes = good.clone().into_bytes();
        bytes[index / 8] ^= 1 << (index % 8);
        if let Ok(changed) = String::from_utf8(bytes) {
            assert!(why(&gate.check_signed(&call(&ten), &changed)).is_some(), "{changed}");
            tried += 1;
        }
    }
    assert!(tried > 1_000, "{tried}");
    let request = keys().write_request(&asked(gate.check(&call(&ten)))).unwrap();
    for index in 0..request.len() * 8 {
        let mut bytes = request.clone().into_bytes();
        bytes[index / 8] ^= 1 << (index % 8);
        if let Ok(changed) = String::from_utf8(bytes) {
            assert!(keys().read_request(&changed).is_err(), "{changed}");
        }
    }
    allowed(gate.check_signed(&call(&ten), &good)).end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing but what was signed passes, however it is put together from it.
    #[test]
    fn nothing_else_passes(
        pieces in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[.0-9a-fk1]{0,3}"), 1..4),
        noise in ".{0,80}",
    ) {
        let (gate, _) = gate(&rules());
        let good = signed(&gate, 10);
        let ten = arguments(10);
        let mut changed = good.clone();
        for (from, to, put) in pieces {
            let (from, to) = (from.index(changed.len() + 1), to.index(changed.len() + 1));
            if changed.is_ascii() {
                changed.replace_range(from.min(to)..from.max(to), &put);
            }
        }
        for text in [&changed, &noise, &format!("{good}{noise}x"), &format!("approval1.k1.{noise}")] {
            if *text != good {
                prop_assert!(why(&gate.check_signed(&call(&ten), text)).is_some());
            }
        }
        prop_assert!(gate.check_signed(&call(&ten), &good).is_allowed());
    }
}

#[test]
fn it_is_for_that_very_call() {
    let (gate, _) = gate(&rules());
    let text = signed(&gate, 10);
    let ten = arguments(10);
    let (other_to, elsewhere) = (json!({ "to": "y", "n": 10 }), json!({ "to": "x", "n": "10" }));
    for other in [
        call(&ten).session("t"),
        call(&ten).session(None),
        call(&ten).grant("h"),
        call(&ten).user("u"),
        call(&ten).server("v"),
        call(&ten).agent("other"),
        call(&other_to),
        call(&elsewhere),
    ] {
        assert_eq!(why(&gate.check_signed(&other, &text)), Some(SignedError::OtherCall), "{other:?}");
    }
    assert_eq!(why(&gate.check_signed(&call(&arguments(11)), &text)), Some(SignedError::AboveBound));
    // Another policy, be it by a word.
    let former = gate.policy().unwrap();
    let mut others = rules();
    others["reason"] = json!("Money.");
    gate.replace_policy(policy(&others));
    assert_eq!(why(&gate.check_signed(&call(&ten), &text)), Some(SignedError::OtherCall));
    gate.replace_policy(former);
    // A smaller number will do.
    allowed(gate.check_signed(&call(&arguments(9)), &text)).end();
}

/// As in the process, whatever the store of counters is.
#[test]
fn one_that_does_not_hold_asks_again_where_the_gate_waits() {
    let gate = builder(&rules()).0.store(InProcess(MemoryStore::new())).build();
    let ten = arguments(10);
    let check = |text: &str| block_on(gate.check_signed_async(&call(&ten), text));
    let why = |text: &str| match check(text) {
        Decision::RequireApproval(request) => (request.approval().is_some(), request.signed_error()),
        other => panic!("{other:?}"),
    };
    assert_eq!(why("nonsense"), (true, Some(SignedError::Malformed)));
    let request = block_on(gate.pending_async()).unwrap().remove(0);
    let text = service(&keys().write_request(&request).unwrap(), START);
    let forged = format!("{}{}", &text[..text.len() - 1], if text.ends_with('0') { '1' } else { '0' });
    assert!(why(&forged).1.is_some());
    let Decision::Allow(permit) = check(&text) else { panic!("it holds") };
    assert_eq!(permit.limits()[0].used().to_string(), "1", "what was refused has spent nothing");
    assert_eq!(why(&text), (true, Some(SignedError::Spent)));
}

#[test]
fn keys_are_changed_one_after_the_other() {
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
        allowed(gate.check_signed(&call(&ten), &sign(&gate, key))).end();
    }
    let gate = with(ApprovalKeys::new(new.clone()));
    assert_eq!(why(&gate.check_signed(&call(&ten), &sign(&gate, &old))), Some(SignedError::UnknownKey));
    // The same name is not the same key; and two keys may have one name.
    let impostor = ApprovalKey::new("new", &[9; 32]).unwrap();
    assert_eq!(why(&gate.check_signed(&call(&ten), &sign(&gate, &impostor))), Some(SignedError::Forged));
    let gate = with(ApprovalKeys::new(new.clone()).and(impostor.clone()));
    allowed(gate.check_signed(&call(&ten), &sign(&gate, &impostor))).end();
    // Without any key nothing is believed.
    let gate = builder(&rules()).0.approval_keys(None).build();
    assert_eq!(why(&gate.check_signed(&call(&ten), &sign(&gate, &old))), Some(SignedError::UnknownKey));

    assert_eq!(both.write_request(&asked(gate.check(&call(&ten)))).unwrap().split('.').nth(1), Some("new"));
    assert_eq!(format!("{new:?}"), "ApprovalKey { id: \"new\", .. }");
    assert!(matches!(ApprovalKey::new("k", &[1; 31]), Err(KeyError::Short { bytes: 31 })));
    for id in ["", "a.b", "a b", "é", &"k".repeat(33)] {
        assert!(matches!(ApprovalKey::new(id, &SECRET), Err(KeyError::Id)), "{id}");
    }
}

#[test]
fn a_call_that_needs_none_does_not_look_at_it() {
    let (gate, _) = gate(&rules());
    let text = signed(&gate, 10);
    let ten = arguments(10);
    let other = |tool| ToolCall::new(tool, &ten).grant("g").agent("robot").session("s");
    for text in [&text[..], "", "nonsense"] {
        assert!(gate.check_signed(&other("free"), text).is_allowed());
        assert_eq!(gate.check_signed(&other("no"), text).as_str(), "deny");
        assert_eq!(gate.check_signed(&other("unknown"), text).as_str(), "deny");
    }
    allowed(gate.check_signed(&call(&ten), &text)).end();
}

#[test]
fn limits_are_looked_at_first_and_what_is_stopped_uses_nothing() {
    let (gate, clock) = gate(&rules());
    let ten = arguments(10);
    let texts: Vec<_> = (0..2)
        .map(|_| {
            let text = signed(&gate, 10);
            allowed(gate.check_signed(&call(&ten), &text)).end();
            text
        })
        .collect();
    assert_ne!(texts[0], texts[1]);
    // The limit is full: neither a good one nor a bad one is looked at.
    let good = Statement::of(&builder(&rules()).0.build(), 10);
    let good = Statement { id: ApprovalId::new(good.id.digest(), 5), ..good };
    for text in [&good.sign()[..], "nonsense"] {
        assert_eq!(gate.check_signed(&call(&ten), text).as_str(), "rate_limited");
    }
    assert!(gate.pending().unwrap().is_empty());
    clock.set(at(86_400_000_000));
    let later = Statement { issued_at: at(86_400_000_000), expires_at: at(86_410_000_000), ..good };
    allowed(gate.check_signed(&call(&ten), &later.sign())).end();
}

#[test]
fn a_bad_one_is_not_helped_by_an_approval_that_is_kept() {
    let (gate, _) = gate(&rules());
    let ten = arguments(10);
    let request = asked(gate.check(&call(&ten)));
    for by in ["ann", "bob"] {
        gate.approve(request.id(), by).unwrap();
    }
    let decision = gate.check_signed(&call(&ten), "nonsense");
    assert_eq!(why(&decision), Some(SignedError::Malformed));
    assert_eq!(asked(decision).state(), ApprovalState::Approved);
    // What was approved here can travel too; it stays one answer.
    let kept = asked(gate.check_signed(&call(&ten), ""));
    let text = keys().sign(&kept, START).unwrap();
    allowed(gate.check_signed(&call(&ten), &text)).end();
    assert_eq!(gate.check(&call(&ten)).as_str(), "approval_required");
}

#[test]
fn nothing_is_signed_that_people_have_not_approved() {
    let (gate, _) = gate(&rules());
    let request = asked(gate.check(&call(&arguments(10))));
    let keys = keys();
    assert_eq!(keys.sign(&request, START), Err(SignError::NotApproved));
    let mut half = keys.read_request(&keys.write_request(&request).unwrap()).unwrap();
    half.decide(Verdict::Approve, "ann", START).unwrap();
    assert_eq!(keys.sign(&half, START), Err(SignError::NotApproved));
    for (by, wrong) in [("ann", "AlreadyApproved"), ("robot", "NotAnApprover"), ("eve", "NotAnApprover")] {
        let error: DecideError = half.decide(Verdict::Approve, by, START).unwrap_err();
        assert_eq!(format!("{error:?}"), wrong);
    }
    // What one service has heard of goes on at the next.
    let mut whole = keys.read_request(&keys.write_request(&half).unwrap()).unwrap();
    whole.decide(Verdict::Approve, "bob", at(1)).unwrap();
    assert_eq!(keys.sign(&whole, at(30_000_001)), Err(SignError::NotApproved), "it has expired");
    assert!(keys.sign(&whole, at(30_000_000)).is_ok());
    let mut refused = half.clone();
    refused.decide(Verdict::Refuse, "bob", START).unwrap();
    assert_eq!(keys.write_request(&refused), Err(SignError::Ended));
    let mut late = half.clone();
    assert!(late.decide(Verdict::Approve, "bob", at(30_000_000)).is_err());
    // Names without end do not fit.
    let rules = json!({ "action": "require_approval" });
    let gate = builder(&rules).0.build();
    let mut approval = asked(gate.check(&call(&arguments(10))));
    approval.decide(Verdict::Approve, &"x".repeat(2_000), START).unwrap();
    assert_eq!(keys.sign(&approval, START), Err(SignError::TooLong));
}

/// A store that cannot tell whether something was used.
#[derive(Default)]
struct Blind(MemoryApprovals);

impl ApprovalStore for Blind {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.0.request(ask, now)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.0.decide(id, verdict, by, now)
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.0.claim(id, now)
    }

    fn redeem(&self, _: &ApprovalId, _: Timestamp, _: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        Err(ApprovalError::Unavailable(None))
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        self.0.restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.0.pending(now)
    }
}

#[test]
fn a_store_that_cannot_tell_denies_and_counts_nothing() {
    let gate = builder(&rules()).0.approvals(Blind::default()).build();
    let text = signed(&gate, 10);
    let ten = arguments(10);
    for _ in 0..3 {
        assert_eq!(gate.check_signed(&call(&ten), &text).code(), Some(Code::StoreUnavailable));
    }
    assert_eq!(gate.usage(&call(&ten)).unwrap()[0].used().to_string(), "0");
    // One that is full cannot note that it was used.
    let full = builder(&rules()).0.approvals(MemoryApprovals::with_capacity(1)).build();
    let text = signed(&full, 10);
    let request = full.pending().unwrap()[0].id().to_owned();
    full.refuse(&request, "ann").unwrap();
    asked(full.check(&call(&arguments(1))));
    assert_eq!(full.check_signed(&call(&ten), &text).code(), Some(Code::StoreUnavailable));
}

#[test]
fn grants_take_signed_approvals_too() {
    let (gate, _) = gate(&rules());
    let grants = Grants::over(&gate);
    grants.put_policy("p", policy(&rules()).to_json()).unwrap();
    grants.grant("g", None, "p", None).unwrap();
    let ten = arguments(10);
    let request = asked(grants.check(&call(&ten)));
    assert_eq!(grants.pending().unwrap().len(), 1);
    let text = service(&keys().write_request(&request).unwrap(), START);
    allowed(grants.check_signed(&call(&ten), &text)).end();
    assert_eq!(why(&grants.check_signed(&call(&ten), &text)), Some(SignedError::Spent));
    assert_eq!(grants.check_signed(&call(&ten).grant("h"), &text).as_str(), "deny");
    let request = grants.pending().unwrap()[0].clone();
    for by in ["ann", "bob"] {
        grants.approve(request.id(), by).unwrap();
    }
    allowed(grants.check_approved(&call(&ten), request.id())).end();
}

/// Whatever keeps what was used: of many threads at two gates one uses a signed approval.
pub(crate) fn a_signed_approval_is_used_once(make: Make<'_>) {
    let mut policy_rules = rules();
    policy_rules["limits"][0]["max"] = json!(1000);
    let store = make(Room::default());
    let gates: Vec<_> = (0..2).map(|_| builder(&policy_rules).0.approvals(Arc::clone(&store)).build()).collect();
    let ten = arguments(10);
    for _ in 0..30 {
        let text = signed(&gates[0], 10);
        let passed: usize = std::thread::scope(|scope| {
            let (ten, text) = (&ten, &text);
            let race = |gate: &'_ _| {
                let gate = Gate::clone(gate);
                scope.spawn(move || usize::from(gate.check_signed(&call(ten), text).is_allowed()))
            };
            let threads: Vec<_> = gates.iter().cycle().take(6).map(race).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1);
        for request in gates[1].pending().unwrap() {
            gates[1].refuse(request.id(), "ann").unwrap();
        }
    }
}
