//! Texts that are refused, and stores that cannot redeem.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use toolgate::approval::signed::{SignError, SignedError};
use toolgate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalState, ApprovalStore, Ask, Claim, DecideError, MemoryApprovals,
    Redemption, Verdict,
};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Code, Decision, Timestamp, ToolCall};

use super::{
    START, Statement, allowed, arguments, asked, at, builder, call, gate, keys, policy, rules, seal, service, signed,
    why,
};
use crate::approvals::{Bounds, MakeStore};
use crate::polling::ready;

#[test]
fn an_invalid_statement_creates_a_new_request() {
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
        (NotAnApprover, Statement { by: by(&["ann", "bob", "Ann"]), ..base() }),
        // Listed, but the user of the call itself; and an empty name.
        (NotAnApprover, Statement { by: by(&["ann", "robot"]), ..base() }),
        (NotAnApprover, Statement { by: by(&["ann", ""]), ..base() }),
    ] {
        let decision = gate.check(&call(&arguments(10)).signed(&statement.sign()));
        assert_eq!(why(&decision), Some(want));
        assert_eq!(decision.message(), gate.check(&call(&arguments(10))).message(), "the message does not say why");
        assert_eq!(asked(decision).id(), &good.id);
    }
    // A small clock difference is tolerated.
    let ahead = Statement { issued_at: at(5_000_000), expires_at: at(35_000_000), ..base() };
    allowed(gate.check(&call(&arguments(10)).signed(&ahead.sign()))).end();
}

#[test]
fn text_that_is_not_a_signed_approval_creates_a_request() {
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
        assert_eq!(why(&gate.check(&call(&arguments(10)).signed(&wrong))), Some(want), "{wrong}");
    }
    // Upper-case digits are refused, although signed with the key: there is one canonical text.
    let upper = seal(&format!("approval1.k1.{}", digits.to_uppercase()));
    assert_eq!(why(&gate.check(&call(&arguments(10)).signed(&upper))), Some(SignedError::Malformed));
    allowed(gate.check(&call(&arguments(10)).signed(&good))).end();
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
            assert!(why(&gate.check(&call(&ten).signed(&changed))).is_some(), "{changed}");
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
    allowed(gate.check(&call(&ten).signed(&good))).end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Only the signed text is accepted, whatever is made of its parts.
    #[test]
    fn recombined_signed_text_is_refused(
        pieces in prop::collection::vec((any::<Index>(), any::<Index>(), "[.0-9a-fk1]{0,3}"), 1..4),
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
                prop_assert!(why(&gate.check(&call(&ten).signed(text))).is_some());
            }
        }
        prop_assert!(gate.check(&call(&ten).signed(&good)).is_allowed());
    }
}

#[test]
fn a_signed_approval_is_for_one_call() {
    let (gate, _) = gate(&rules());
    let text = signed(&gate, 10);
    let ten = arguments(10);
    let (other_to, elsewhere) = (json!({ "to": "y", "n": 10 }), json!({ "to": "x", "n": "10" }));
    for other in [
        call(&ten).session("t"),
        call(&ten).session(None::<&str>),
        call(&ten).grant("h"),
        call(&ten).user("u"),
        call(&ten).server("v"),
        call(&ten).agent("other"),
        call(&other_to),
        call(&elsewhere),
    ] {
        assert_eq!(why(&gate.check(&other.signed(&text))), Some(SignedError::OtherCall), "{other:?}");
    }
    assert_eq!(why(&gate.check(&call(&arguments(11)).signed(&text))), Some(SignedError::AboveBound));
    // Another policy, even if only a text differs.
    let former = gate.policy().unwrap();
    let mut others = rules();
    others["reason"] = json!("Money.");
    gate.replace_policy(policy(&others));
    assert_eq!(why(&gate.check(&call(&ten).signed(&text))), Some(SignedError::OtherCall));
    gate.replace_policy(former);
    // A smaller amount is covered.
    allowed(gate.check(&call(&arguments(9)).signed(&text))).end();
}

/// The same as with an in-process counter store.
#[test]
fn an_async_gate_refuses_invalid_signed_approvals() {
    let gate = builder(&rules()).0.store_async(InProcess(MemoryStore::new())).build();
    let ten = arguments(10);
    let check = |text: &str| ready(gate.check(&call(&ten).signed(text)));
    let why = |text: &str| match check(text) {
        Decision::RequireApproval(request) => (request.approval().is_some(), request.signed_error()),
        other => panic!("{other:?}"),
    };
    assert_eq!(why("nonsense"), (true, Some(SignedError::Malformed)));
    let request = ready(gate.pending()).unwrap().remove(0);
    let text = service(&keys().write_request(&request).unwrap(), START);
    let forged = format!("{}{}", &text[..text.len() - 1], if text.ends_with('0') { '1' } else { '0' });
    assert!(why(&forged).1.is_some());
    let Decision::Allow(permit) = check(&text) else { panic!("the text is valid") };
    assert_eq!(permit.limits()[0].used().to_string(), "1", "refused calls have spent nothing");
    assert_eq!(why(&text), (true, Some(SignedError::Spent)));
}

#[test]
fn a_call_that_needs_no_approval_ignores_the_text() {
    let (gate, _) = gate(&rules());
    let text = signed(&gate, 10);
    let ten = arguments(10);
    let other = |tool| ToolCall::new(tool, &ten).grant("g").agent("robot").session("s");
    for text in [&text[..], "", "nonsense"] {
        assert!(gate.check(&other("free").signed(text)).is_allowed());
        assert_eq!(gate.check(&other("no").signed(text)).as_str(), "deny");
        assert_eq!(gate.check(&other("unknown").signed(text)).as_str(), "deny");
    }
    allowed(gate.check(&call(&ten).signed(&text))).end();
}

#[test]
fn an_invalid_text_does_not_fall_back_to_a_stored_approval() {
    let (gate, _) = gate(&rules());
    let ten = arguments(10);
    let request = asked(gate.check(&call(&ten)));
    for by in ["ann", "bob"] {
        gate.approve(request.id(), by).unwrap();
    }
    let decision = gate.check(&call(&ten).signed("nonsense"));
    assert_eq!(why(&decision), Some(SignedError::Malformed));
    assert_eq!(asked(decision).state(), ApprovalState::Approved);
    // An approval given here can be signed too; it keeps its one use.
    let kept = asked(gate.check(&call(&ten).signed("")));
    let text = keys().sign(&kept, START).unwrap();
    allowed(gate.check(&call(&ten).signed(&text))).end();
    assert_eq!(gate.check(&call(&ten)).as_str(), "approval_required");
}

#[test]
fn only_approved_requests_are_signed() {
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
    // A second service continues with the verdicts of the first.
    let mut whole = keys.read_request(&keys.write_request(&half).unwrap()).unwrap();
    whole.decide(Verdict::Approve, "bob", at(1)).unwrap();
    assert_eq!(keys.sign(&whole, at(30_000_001)), Err(SignError::NotApproved), "it has expired");
    assert!(keys.sign(&whole, at(30_000_000)).is_ok());
    let mut refused = half.clone();
    refused.decide(Verdict::Refuse, "bob", START).unwrap();
    assert_eq!(keys.write_request(&refused), Err(SignError::Ended));
    let mut late = half.clone();
    assert!(late.decide(Verdict::Approve, "bob", at(30_000_000)).is_err());
    // The names of approvers are bounded in length.
    let rules = json!({ "action": "require_approval" });
    let gate = builder(&rules).0.build();
    let mut approval = asked(gate.check(&call(&arguments(10))));
    approval.decide(Verdict::Approve, &"x".repeat(2_000), START).unwrap();
    assert_eq!(keys.sign(&approval, START), Err(SignError::TooLong));
}

/// A store that cannot say whether an approval was used.
#[derive(Default)]
struct Forgetful(MemoryApprovals);

impl ApprovalStore for Forgetful {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.0.request(ask, now)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.0.decide(id, verdict, by, now)
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.0.claim(id, now)
    }

    fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError> {
        self.0.refusal(ask, now)
    }

    fn redeem(&self, _: &ApprovalId, _: u32, _: Timestamp, _: Timestamp) -> Result<Redemption, ApprovalError> {
        Err(ApprovalError::unavailable("down"))
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        self.0.restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.0.pending(now)
    }
}

#[test]
fn a_store_that_cannot_redeem_denies_and_counts_nothing() {
    let gate = builder(&rules()).0.approvals(Forgetful::default()).build();
    let text = signed(&gate, 10);
    let ten = arguments(10);
    for _ in 0..3 {
        assert_eq!(gate.check(&call(&ten).signed(&text)).code(), Some(Code::StoreUnavailable));
    }
    assert_eq!(gate.usage(call(&ten)).unwrap()[0].used().to_string(), "0");
    // A full store cannot record the use.
    let (builder, clock) = builder(&rules());
    let full = builder.approvals(MemoryApprovals::with_capacity(1)).build();
    let request = asked(full.check(&call(&arguments(10))));
    clock.set(at(29_999_999));
    let text = service(&keys().write_request(&request).unwrap(), at(29_999_999));
    clock.set(at(30_000_000));
    asked(full.check(&call(&arguments(1))));
    assert_eq!(full.check(&call(&ten).signed(&text)).code(), Some(Code::StoreUnavailable));
}

pub(crate) fn a_refusal_is_final_for_signed_approvals(make: MakeStore<'_>) {
    let (builder, clock) = builder(&rules());
    let gate = builder.approvals(make(Bounds::default())).build();
    let (ten, nine) = (arguments(10), arguments(9));
    let code = |arguments, text: &str| gate.check(&call(arguments).signed(text)).code();
    let request = asked(gate.check(&call(&ten)));
    let written = keys().write_request(&request).unwrap();
    let text = service(&written, START);
    gate.refuse(request.id(), "ann").unwrap();
    // Whether it was signed before or after, and for each number that it covers.
    clock.set(at(20_000_000));
    let later = service(&written, at(20_000_000));
    for text in [&text, &later] {
        assert_eq!(code(&ten, text), Some(Code::ApprovalRefused));
        assert_eq!(why(&gate.check(&call(&nine).signed(text))), Some(SignedError::Refused));
    }
    // Also after the refusal has ended, while such a text can be valid.
    clock.set(at(30_000_000));
    assert_eq!(why(&gate.check(&call(&ten).signed(&later))), Some(SignedError::Refused));
    assert_eq!(SignedError::Refused.as_str(), "refused");
    assert_eq!(gate.usage(call(&ten)).unwrap()[0].used().to_string(), "0");

    // A refusal goes before a text that was signed for another request of the same call.
    let other = asked(gate.check(&call(&ten)));
    let elsewhere = service(&keys().write_request(&other).unwrap(), at(30_000_000));
    let ours = asked(gate.check(&call(&nine)));
    gate.refuse(ours.id(), "bob").unwrap();
    assert_eq!(code(&nine, &elsewhere), Some(Code::ApprovalRefused));
    // Lifting lets the call ask again. The text stays refused.
    gate.lift_refusal(ours.id(), "the operator").unwrap();
    let refused = service(&keys().write_request(&ours).unwrap(), at(30_000_000));
    assert_eq!(why(&gate.check(&call(&nine).signed(&refused))), Some(SignedError::Refused));
}
