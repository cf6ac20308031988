//! Signed approvals: each allows the call that it was signed for, once.

mod accepted;
mod refused;

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use toolgate::approval::signed::{ApprovalKey, ApprovalKeys, SignedError};
use toolgate::approval::{Approval, ApprovalId, Verdict};
use toolgate::{Decision, Gate, GateBuilder, ManualClock, Permit, Policy, Timestamp, ToolCall};

pub(crate) use self::accepted::racing_calls_use_a_signed_approval_once;
pub(crate) use self::refused::a_refusal_is_final_for_signed_approvals;

/// A Thursday morning.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);
const SECRET: [u8; 32] = [7; 32];

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(START.unix_micros() + micros)
}

fn keys() -> ApprovalKeys {
    ApprovalKeys::new(ApprovalKey::new("k1", &SECRET).unwrap())
}

/// One counter, two of three approvers, a `ttl` of 30 s, and an upper bound for `args.n`.
fn rules() -> Value {
    json!({
        "action": "require_approval",
        "approval": {
            "ttl": "30s",
            "approvers": ["ann", "bob", "robot"],
            "min_approvers": 2,
            "bind": ["args.to", "args.n<="],
        },
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
    ToolCall::new("pay", arguments).grant("g").agent("bot").session("s").user("robot")
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

/// Returns why the signed approval does not allow the call.
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

/// Returns the approval for a call with this amount, signed at the start.
fn signed(gate: &Gate, n: u64) -> String {
    let arguments = arguments(n);
    let request = asked(gate.check(&call(&arguments)));
    service(&keys().write_request(&request).unwrap(), START)
}

/// An independent implementation of the service, written from the documentation of the format.
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
