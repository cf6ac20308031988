//! Approvals against a ledger. Requested, approved, refused, signed, used, restored and expired in
//! any order, nothing passes twice, nothing passes that people have not approved or have refused,
//! and what they have approved passes.
#![no_main]

use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use toolgate::approval::signed::{ApprovalKey, ApprovalKeys};
use toolgate::approval::{Approval, ApprovalId, DecideError, Verdict};
use toolgate::audit::{AuditError, AuditRecord, AuditSink};
use toolgate::{Code, Decision, Gate, ManualClock, Permit, Policy, Timestamp, ToolCall};
use toolgate_fuzz::tape::Tape;

const START: i64 = 1_768_473_000_000_000;
const PEOPLE: [&str; 9] = ["ann", "bob", "robot", "g1", "cat", "", " ", "Robot", "ro\u{200b}bot "];

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    let mut world = World::new();
    while !tape.is_over() && world.steps < 96 {
        world.step(&mut tape);
    }
});

/// The approval by which the last call was allowed.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<Option<ApprovalId>>>);

impl AuditSink for Last {
    fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
        if record.decision().is_some() {
            *self.0.lock().expect("no panic") = record.approval();
        }
        Ok(())
    }
}

/// A call: everything that an approval may be bound to.
#[derive(Clone, Debug)]
struct Call {
    policy: usize,
    tool: &'static str,
    grant: &'static str,
    to: &'static str,
    n: u64,
    note: &'static str,
}

impl Call {
    fn of(tape: &mut Tape<'_>, policy: usize) -> Self {
        let choice = tape.byte();
        let pick = |shift: u8, of: [&'static str; 2]| of[usize::from(choice >> shift & 1)];
        Self {
            policy,
            tool: pick(0, ["pay", "send"]),
            grant: pick(1, ["g1", "g2"]),
            to: pick(2, ["x", "y"]),
            note: pick(3, ["", "z"]),
            n: u64::from(choice >> 4 & 3),
        }
    }

    fn arguments(&self) -> Value {
        // Two notations of equal values are one call.
        let n = if self.note.is_empty() { json!(self.n) } else { json!(self.n as f64) };
        json!({ "to": self.to, "n": n, "note": self.note })
    }

    /// Returns true if an approval of this call covers another one. For `pay`, the note is not
    /// bound, and the number is an upper bound.
    fn is_for(&self, other: &Self) -> bool {
        let same = (self.policy, self.tool, self.grant, self.to) == (other.policy, other.tool, other.grant, other.to);
        same && if self.tool == "pay" { other.n <= self.n } else { (self.n, self.note) == (other.n, other.note) }
    }

    fn fits(&self, other: &Self) -> bool {
        self.is_for(other) && self.n == other.n
    }

    fn ttl(&self) -> i64 {
        if self.tool == "pay" { 30_000_000 } else { 10_000_000 }
    }

    fn needs(&self) -> usize {
        if self.tool == "pay" { 2 } else { 1 }
    }

    fn uses(&self) -> usize {
        if self.tool == "pay" { 1 } else { 3 }
    }

    fn may_approve(&self, by: &str) -> bool {
        self.is_listed(by) && !self.asked(by)
    }

    /// The user of every call, in each spelling.
    fn asked(&self, by: &str) -> bool {
        ["robot", "Robot", "ro\u{200b}bot "].contains(&by)
    }

    fn is_listed(&self, by: &str) -> bool {
        !by.trim().is_empty() && (self.tool == "send" || ["ann", "bob", "robot"].contains(&by))
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Pending,
    Approved,
    /// Used up here.
    Spent,
    Refused,
    Gone,
}

struct Entry {
    approval: Approval,
    call: Call,
    state: State,
    by: Vec<&'static str>,
    ends_at: i64,
    /// The uses that calls hold, or have spent.
    held: usize,
    /// A person has refused it: no signed answer is ever used.
    was_refused: bool,
}

struct Token {
    of: usize,
    text: String,
    ends_at: i64,
}

struct World {
    gate: Gate,
    clock: ManualClock,
    now: i64,
    policies: [Policy; 2],
    in_force: usize,
    last: Last,
    keys: ApprovalKeys,
    entries: Vec<Entry>,
    tokens: Vec<Token>,
    /// A permit, its approval, and whether a token allowed it.
    permits: Vec<(Permit, usize, bool)>,
    steps: usize,
}

/// The approval that a call presents.
enum Brought {
    Nothing,
    Name(usize),
    Token(usize),
}

impl World {
    fn new() -> Self {
        let bind = ["args.to", "args.n<="];
        let pay = json!({ "ttl": "30s", "approvers": ["ann", "bob", "robot"], "min_approvers": 2, "bind": bind });
        let policies = ["one", "two"].map(|description| {
            let tools = json!({
                "pay": { "action": "require_approval", "approval": pay },
                "send": { "action": "require_approval", "approval": { "ttl": "10s", "uses": 3 } },
            });
            let document = json!({ "version": "1", "description": description, "default": "deny", "tools": tools });
            Policy::try_from(&document).expect("a policy")
        });
        let (clock, last) = (ManualClock::new(Timestamp::from_unix_micros(START)), Last::default());
        let keys = ApprovalKeys::new(ApprovalKey::new("k", &[7; 32]).expect("a key"));
        let builder = Gate::builder().policy(policies[0].clone()).clock(clock.clone()).audit(last.clone());
        Self {
            gate: builder.approval_keys(keys.clone()).build(),
            clock,
            now: START,
            policies,
            in_force: 0,
            last,
            keys,
            entries: Vec::new(),
            tokens: Vec::new(),
            permits: Vec::new(),
            steps: 0,
        }
    }

    fn present(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.now)
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        self.steps += 1;
        for entry in &mut self.entries {
            if self.now >= entry.ends_at {
                entry.state = State::Gone;
            }
        }
        match tape.below(16) {
            0..=3 => {
                let call = Call::of(tape, self.in_force);
                self.check(&call, &Brought::Nothing);
            }
            4 => {
                let call = Call::of(tape, self.in_force);
                if let Some(of) = some(&self.entries, tape) {
                    self.check(&call, &Brought::Name(of));
                }
            }
            5 => {
                let call = Call::of(tape, self.in_force);
                if let Some(of) = some(&self.tokens, tape) {
                    self.check(&call, &Brought::Token(of));
                }
            }
            6 => {
                if let Some(of) = some(&self.tokens, tape) {
                    let call = Call { policy: self.in_force, ..self.entries[self.tokens[of].of].call.clone() };
                    self.check(&call, &Brought::Token(of));
                }
            }
            7..=9 => {
                if let Some(of) = some(&self.entries, tape) {
                    self.decide(of, Verdict::Approve, tape.pick(&PEOPLE));
                }
            }
            10 => {
                if let Some(of) = some(&self.entries, tape) {
                    let verdict = tape.pick(&[Verdict::Refuse, Verdict::Refuse, Verdict::Lift]);
                    self.decide(of, verdict, tape.pick(&PEOPLE));
                }
            }
            11 => {
                if let Some(of) = some(&self.permits, tape) {
                    self.release(of);
                }
            }
            12 => {
                if let Some(of) = some(&self.permits, tape) {
                    self.permits.swap_remove(of).0.end();
                }
            }
            13 => {
                self.now += tape.pick(&[1, 1_000_000, 4_999_999, 9_999_999, 10_000_000, 29_999_999, 30_000_000]);
                self.clock.set(self.present());
            }
            14 => {
                if let Some(of) = some(&self.entries, tape) {
                    self.sign(of);
                }
            }
            _ => match tape.below(3) {
                0 => {
                    self.in_force = 1 - self.in_force;
                    self.gate.replace_policy(self.policies[self.in_force].clone());
                }
                1 => {
                    if let Some(of) = some(&self.tokens, tape) {
                        self.alter(of, tape);
                    }
                }
                _ => {
                    let waiting = self.gate.pending().expect("a store in memory");
                    let mut found: Vec<_> = waiting.iter().map(|approval| *approval.id()).collect();
                    let waits = |entry: &&Entry| entry.state == State::Pending;
                    let mut want: Vec<_> =
                        self.entries.iter().filter(waits).map(|entry| *entry.approval.id()).collect();
                    found.sort();
                    want.sort();
                    assert_eq!(found, want);
                }
            },
        }
    }

    fn check(&mut self, call: &Call, brought: &Brought) {
        let arguments = call.arguments();
        let tool_call = ToolCall::new(call.tool, &arguments).grant(call.grant).user("robot");
        let decision = match brought {
            Brought::Nothing => self.gate.check(&tool_call),
            Brought::Name(of) => self.gate.check(&tool_call.approval(self.entries[*of].approval.id())),
            Brought::Token(of) => self.gate.check(&tool_call.signed(&self.tokens[*of].text)),
        };
        // The approvals by which the call may pass.
        let usable = |(of, entry): (usize, &Entry)| {
            let is_meant = !matches!(brought, Brought::Name(named) if *named != of);
            (is_meant && entry.state == State::Approved && entry.call.is_for(call)).then_some(of)
        };
        let usable: Vec<usize> = match brought {
            Brought::Token(of) => {
                let Token { of, ends_at, .. } = self.tokens[*of];
                let entry = &self.entries[of];
                let is_free = entry.held < entry.call.uses() && !entry.was_refused;
                (is_free && self.now < ends_at && entry.call.is_for(call)).then_some(of).into_iter().collect()
            }
            _ => self.entries.iter().enumerate().filter_map(usable).collect(),
        };
        let refused = self.refused(call);
        match decision {
            Decision::Deny(denial) => {
                assert_eq!(denial.code(), Code::ApprovalRefused);
                let by = *denial.refused_request().expect("a request");
                assert!(refused.contains(&by), "{call:?} is denied by {by}");
            }
            _ if !refused.is_empty() => panic!("{call:?} was refused"),
            Decision::Allow(permit) => {
                let by = self.last.0.lock().expect("no panic").expect("an approval");
                let of = usable.iter().find(|of| *self.entries[**of].approval.id() == by);
                let of = *of.unwrap_or_else(|| panic!("{call:?} passes by {by}, which is not its own"));
                let is_signed = matches!(brought, Brought::Token(_));
                let entry = &mut self.entries[of];
                entry.held += 1;
                entry.state = match is_signed {
                    true => State::Gone,
                    false if entry.held == entry.call.uses() => State::Spent,
                    false => State::Approved,
                };
                self.permits.push((permit, of, is_signed));
            }
            Decision::RequireApproval(request) => {
                assert!(usable.is_empty(), "{call:?} is approved");
                let approval = request.approval().expect("a store in memory").clone();
                assert_eq!(matches!(brought, Brought::Token(_)), request.signed_error().is_some());
                self.asked(call, approval);
            }
            other => panic!("{call:?}: {other:?}"),
        }
    }

    /// The refusals that are in force for a call.
    fn refused(&self, call: &Call) -> Vec<ApprovalId> {
        let is_its = |entry: &&Entry| entry.state == State::Refused && entry.call.fits(call);
        self.entries.iter().filter(is_its).map(|entry| *entry.approval.id()).collect()
    }

    /// A call waits for a known request that fits, or for a new one.
    fn asked(&mut self, call: &Call, approval: Approval) {
        match self.entries.iter().find(|entry| entry.approval.id() == approval.id()) {
            Some(entry) => match entry.state {
                State::Pending => assert!(entry.call.fits(call)),
                // The call would pass by this one if it had not named another.
                state => assert!(state == State::Approved && entry.call.is_for(call), "{state:?} {call:?}"),
            },
            None => {
                let shared = self.entries.iter().find(|entry| entry.state == State::Pending && entry.call.fits(call));
                assert!(shared.is_none(), "two requests for {call:?}");
                let ends_at = self.now + call.ttl();
                assert_eq!(approval.expires_at().unix_micros(), ends_at);
                let (state, by) = (State::Pending, Vec::new());
                let (held, was_refused, call) = (0, false, call.clone());
                self.entries.push(Entry { approval, call, state, by, ends_at, held, was_refused });
            }
        }
    }

    fn decide(&mut self, of: usize, verdict: Verdict, by: &'static str) {
        let entry = &mut self.entries[of];
        let id = *entry.approval.id();
        let answer = match verdict {
            Verdict::Approve => self.gate.approve(&id, by),
            Verdict::Refuse => self.gate.refuse(&id, by),
            Verdict::Lift => self.gate.lift_refusal(&id, by),
        };
        let approves = matches!(verdict, Verdict::Approve);
        let want = match () {
            () if verdict == Verdict::Lift && entry.state != State::Refused => Err("NotRefused"),
            () if verdict == Verdict::Lift && (by.trim().is_empty() || entry.call.asked(by)) => Err("NotAnApprover"),
            () if verdict == Verdict::Lift => Ok(()),
            () if !approves && entry.state == State::Pending && entry.call.asked(by) => Ok(()),
            () if entry.state != State::Pending => Err("NotPending"),
            () if !entry.call.is_listed(by) => Err("NotAnApprover"),
            () if approves && !entry.call.may_approve(by) => Err("NotAnApprover"),
            () if approves && entry.by.contains(&by) => Err("AlreadyApproved"),
            () => Ok(()),
        };
        let found = answer.as_ref().map(|_| ()).map_err(|error| match error {
            DecideError::NotPending => "NotPending",
            DecideError::NotAnApprover => "NotAnApprover",
            DecideError::AlreadyApproved => "AlreadyApproved",
            DecideError::NotRefused => "NotRefused",
            other => panic!("{other:?}"),
        });
        assert_eq!(found, want, "{by} of {:?}", entry.call);
        if found.is_err() {
            return;
        }
        match verdict {
            Verdict::Approve => {}
            Verdict::Refuse => {
                (entry.state, entry.was_refused, entry.ends_at) = (State::Refused, true, self.now + entry.call.ttl());
                return;
            }
            Verdict::Lift => {
                entry.state = State::Gone;
                return;
            }
        }
        entry.by.push(by);
        if entry.by.len() == entry.call.needs() {
            (entry.state, entry.ends_at) = (State::Approved, self.now + entry.call.ttl());
        }
    }

    fn release(&mut self, of: usize) {
        let (permit, of, is_signed) = self.permits.swap_remove(of);
        permit.release();
        let entry = &mut self.entries[of];
        match is_signed {
            true => entry.held -= 1,
            false if matches!(entry.state, State::Approved | State::Spent) => {
                entry.held -= 1;
                entry.state = State::Approved;
            }
            false => {}
        }
    }

    /// Reads the request as it was first made, has people approve it, and signs, as a service does.
    fn sign(&mut self, of: usize) {
        let Entry { approval, call, .. } = &self.entries[of];
        let text = self.keys.write_request(approval).expect("it was pending");
        let mut shown = self.keys.read_request(&text).expect("its own text");
        assert_eq!(shown.to_json(), approval.to_json());
        let has_ended = self.now >= approval.expires_at().unix_micros();
        let people = if call.grant == "ann" { ["bob", "cat"] } else { ["ann", "bob"] };
        for by in people.into_iter().take(call.needs()) {
            assert_eq!(shown.decide(Verdict::Approve, by, self.present()).is_err(), has_ended);
        }
        match self.keys.sign(&shown, self.present()) {
            Ok(text) => {
                assert!(!has_ended);
                self.tokens.push(Token { of, text, ends_at: self.now + call.ttl() });
            }
            Err(error) => assert!(has_ended, "{error}"),
        }
    }

    /// Only the signed text lets the call pass.
    fn alter(&mut self, of: usize, tape: &mut Tape<'_>) {
        let Token { of, text, .. } = &self.tokens[of];
        let (call, approval) = (self.entries[*of].call.clone(), self.entries[*of].approval.clone());
        let altered = altered(text, tape);
        if altered == *text {
            return;
        }
        let arguments = call.arguments();
        let tool_call = ToolCall::new(call.tool, &arguments).grant(call.grant).user("robot");
        let asked = Call { policy: self.in_force, ..call.clone() };
        match self.gate.check(&tool_call.signed(&altered)) {
            Decision::Deny(denial) => {
                assert!(denial.code() == Code::ApprovalRefused && !self.refused(&asked).is_empty());
            }
            Decision::RequireApproval(request) => {
                let why = request.signed_error().expect("a reason").as_str();
                assert!(["malformed", "unknown_key", "forged"].contains(&why), "{why}: {altered}");
                self.asked(&asked, request.approval().expect("a store in memory").clone());
            }
            other => panic!("{altered} for {text}: {other:?}"),
        }
        let request = self.keys.write_request(&approval).expect("it was pending");
        let text = self::altered(&request, tape);
        assert!(text == request || self.keys.read_request(&text).is_err(), "{text} for {request}");
    }
}

fn some<T>(of: &[T], tape: &mut Tape<'_>) -> Option<usize> {
    let choice = tape.byte();
    // The latest are the most likely to be of interest.
    (!of.is_empty()).then(|| of.len() - 1 - usize::from(choice) % of.len())
}

fn altered(text: &str, tape: &mut Tape<'_>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = tape.word() as usize % bytes.len();
    match tape.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, b'0'),
        2 => {
            bytes.remove(at);
        }
        3 => bytes[at] = bytes[at].to_ascii_uppercase(),
        4 => bytes.push(b' '),
        _ => bytes[at] = tape.byte(),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
