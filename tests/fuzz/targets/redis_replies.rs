//! Any reply of a Redis server: nothing is granted that it does not say, and no approval is found
//! that it does not hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis::Value;
use toolgate::approval::redis::fuzzing as approvals;
use toolgate::approval::{ApprovalState, CallDigest};
use toolgate::charge::{Charge, CounterId, Meter, Span, Subject};
use toolgate::store::redis::fuzzing as counters;
use toolgate::store::{Outcome, StoreError};
use toolgate::{Amount, Timestamp};
use toolgate_fuzz::tape::Tape;

const NOW: i64 = 1_768_473_000_000_000;
/// The length of a reply for each charged counter: a letter and five doubles.
const PART: usize = 49;

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    let charges: Vec<Charge> = (0..=tape.below(3)).map(|_| charge(&mut tape)).collect();
    let answer = match tape.below(4) {
        // As the reply arrives over the wire.
        0 => match redis::parse_redis_value(tape.0) {
            Ok(value) => value,
            Err(_) => return,
        },
        1 => made(&mut tape, &charges),
        2 => looked(&mut tape, &charges),
        _ => Value::BulkString(tape.0.to_vec()),
    };
    let now = Timestamp::from_unix_micros(NOW);
    match counters::reserved(answer.clone(), &charges, now) {
        Ok(Outcome::Granted(tallies)) => {
            let Value::BulkString(said) = &answer else { panic!("nothing says so: {answer:?}") };
            assert_eq!((said.len(), tallies.len()), (PART * charges.len(), charges.len()));
            for ((charge, part), tally) in charges.iter().zip(said.chunks(PART)).zip(&tallies) {
                let kind = [Some(b'F'), Some(b'S'), Some(b'B'), Some(b'I')];
                assert!(kind[kind_of(&charge.meter)] == part.first().copied());
                let used = tally.used.micros();
                assert!(used >= charge.amount.micros(), "less than was charged: {charge:?} {tally:?}");
                assert!(
                    charge.max.is_none_or(|max| max > Amount::ZERO && used <= max.micros()),
                    "{charge:?} {tally:?}"
                );
                if !matches!(charge.meter, Meter::TokenBucket { .. }) {
                    assert_eq!(u128::from(used), sum(&part[25..41]).expect("a sum"), "{charge:?} {tally:?}");
                }
            }
        }
        Ok(Outcome::Refused(tallies)) => {
            is_list_of(&answer, charges.len());
            assert!(tallies.iter().zip(&charges).any(|(tally, charge)| !tally.has_room(charge)));
        }
        Err(error) => is_named(&answer, &error),
    }
    match counters::peeked(answer.clone(), &charges, now) {
        Ok(outcome) => {
            is_list_of(&answer, charges.len());
            let room = outcome.tallies().iter().zip(&charges).all(|(tally, charge)| tally.has_room(charge));
            assert_eq!((outcome.tallies().len(), room), (charges.len(), matches!(outcome, Outcome::Granted(_))));
        }
        Err(error) => is_named(&answer, &error),
    }
    let settled = matches!(&answer, Value::Array(parts) if matches!(**parts, [Value::Int(0)]));
    assert_eq!(counters::settled(answer.clone()).is_ok(), settled, "{answer:?}");
    shelf(answer);
});

/// The approvals that a key might hold.
fn shelf(value: Value) {
    let digest = CallDigest::new([7; 32]);
    if let Some(id) = approvals::listed(value.clone()) {
        let Value::BulkString(name) = &value else { panic!("no name: {value:?}") };
        assert_eq!(**name, [&id.digest().as_bytes()[..], &id.number().to_be_bytes()].concat());
    }
    let is_nothing = value == Value::Nil;
    let Ok((found, text)) = approvals::kept(value, digest) else { return };
    assert!(!is_nothing || (found.is_empty() && text.is_empty()));
    for approval in &found {
        assert_eq!(approval.id().digest(), digest);
        let (has, needs) = (approval.approved_by().len(), approval.min_approvers() as usize);
        let is_so = match approval.state() {
            ApprovalState::Pending => has < needs,
            ApprovalState::Approved | ApprovalState::Consumed => needs > 0 && has >= needs,
            other => panic!("nothing that has ended is kept: {other:?}"),
        };
        assert!(is_so, "{approval:?}");
    }
    if !is_nothing {
        // Written and read again, it is the same.
        let written = [&[b'0'; 32][..], text.as_bytes()].concat();
        let (again, text_again) = approvals::kept(Value::BulkString(written), digest).expect("its own text");
        assert_eq!((format!("{again:?}"), text_again), (format!("{found:?}"), text));
    }
}

fn charge(tape: &mut Tape<'_>) -> Charge {
    let amounts = [0, 1, 500_000, 1_000_000, 2_500_000, 9_000_000_000_000_000_000];
    let amount = |micros| Amount::from_micros(micros).expect("an amount");
    let seconds = tape.pick(&[1, 60, 86_400, 34_560_000]);
    let start = NOW - NOW.rem_euclid(i64::from(seconds) * 1_000_000);
    let span = Span {
        start: Timestamp::from_unix_micros(start),
        end: Timestamp::from_unix_micros(start + i64::from(seconds) * 1_000_000),
    };
    let meter = match tape.below(4) {
        0 => Meter::Fixed(span),
        1 => Meter::Sliding { seconds },
        2 => Meter::TokenBucket { refill: amount(tape.pick(&amounts)), seconds },
        _ => Meter::InFlight { lease: seconds },
    };
    let max =
        tape.pick(&[None, Some(0), Some(1_000_000), Some(3_000_000), Some(9_000_000_000_000_000_000)]).map(amount);
    Charge::new(CounterId::named("c"), Subject::from_bytes(b"s"), amount(tape.pick(&amounts)), max, meter)
}

fn kind_of(meter: &Meter) -> usize {
    match meter {
        Meter::Fixed(_) => 0,
        Meter::Sliding { .. } => 1,
        Meter::TokenBucket { .. } => 2,
        _ => 3,
    }
}

fn letter(tape: &mut Tape<'_>, charge: Option<&Charge>) -> u8 {
    let right = charge.map_or(b'X', |charge| b"FSBI"[kind_of(&charge.meter)]);
    tape.pick(&[right, right, right, right, right, right, b'F', b'S', b'B', b'I', 0])
}

/// A double: mostly one that a script might have written.
fn double(tape: &mut Tape<'_>) -> f64 {
    let now = NOW as f64;
    let common = [0.0, 1.0, 2.0, 3.0, 60.0, 86_400.0, 500_000.0, 999_999.0, now, now + 1e6, now - 1e6, -1.0, 9e12];
    match tape.below(8) {
        0 => f64::from_bits(tape.word()),
        1 => tape.pick(&[0.5, f64::NAN, f64::INFINITY, -0.0, 1e300, 9_007_199_254_740_992.0, 1e6, -9e15]),
        _ => tape.pick(&common),
    }
}

fn doubles(tape: &mut Tape<'_>, letter: u8, count: usize) -> Vec<u8> {
    let mut bytes = vec![letter];
    // The generation.
    bytes.extend(tape.word().to_le_bytes());
    for _ in 0..count {
        bytes.extend(double(tape).to_le_bytes());
    }
    bytes
}

/// The reply of `reserve.lua` with its charges.
fn made(tape: &mut Tape<'_>, charges: &[Charge]) -> Value {
    let count = tape.pick(&[charges.len(), charges.len(), charges.len(), charges.len(), 0, 1, 5]);
    let part = |at: usize, tape: &mut Tape<'_>| {
        let letter = letter(tape, charges.get(at));
        doubles(tape, letter, 5)
    };
    let mut parts: Vec<u8> = (0..count).flat_map(|at| part(at, tape)).collect();
    parts.truncate(parts.len() - tape.pick(&[0, 0, 0, 0, 0, 0, 0, 1]).min(parts.len()));
    Value::BulkString(parts)
}

/// The reply of `reserve.lua` with the values of counters, or with a reason for none.
fn looked(tape: &mut Tape<'_>, charges: &[Charge]) -> Value {
    let code = tape.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, -1]);
    let mut parts = vec![Value::Int(code)];
    if code != 0 {
        parts.extend((0..tape.below(3)).map(|_| Value::Int(tape.word() as i64)));
        return Value::Array(parts);
    }
    let count = tape.pick(&[charges.len(), charges.len(), charges.len(), charges.len(), 0, 1, 5]);
    for at in 0..count {
        parts.push(match tape.below(8) {
            0 => Value::BulkString(Vec::new()),
            1 => tape.pick(&[
                Value::Nil,
                Value::Int(0),
                Value::Okay,
                Value::Array(Vec::new()),
                Value::SimpleString("F".into()),
            ]),
            _ => {
                let (letter, count) = (letter(tape, charges.get(at)), tape.pick(&[5, 3, 6, 9, 12, 2, 0, 4]));
                Value::BulkString(doubles(tape, letter, count))
            }
        });
    }
    Value::Array(parts)
}

/// A sum of whole units and millionths.
fn sum(bytes: &[u8]) -> Option<u128> {
    let [units, millionths] = [0, 8].map(|at| f64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")));
    let fits = units.fract() == 0.0 && units >= 0.0 && millionths.fract() == 0.0 && (0.0..1e6).contains(&millionths);
    fits.then_some(units as u128 * 1_000_000 + millionths as u128)
}

/// A list of `count` states after a zero.
fn is_list_of(answer: &Value, count: usize) {
    let Value::Array(parts) = answer else { panic!("nothing says so: {answer:?}") };
    assert_eq!((parts.first(), parts.len()), (Some(&Value::Int(0)), count + 1), "{answer:?}");
    assert!(parts[1..].iter().all(|part| matches!(part, Value::BulkString(_))), "{answer:?}");
}

/// A named refusal comes from the server.
fn is_named(answer: &Value, error: &StoreError) {
    let code = match answer {
        Value::Array(parts) => parts.first(),
        _ => None,
    };
    match error {
        StoreError::ClockSkew { .. } => assert_eq!(code, Some(&Value::Int(1))),
        StoreError::Full { .. } => assert_eq!(code, Some(&Value::Int(3))),
        StoreError::ShareFull { .. } => assert_eq!(code, Some(&Value::Int(4))),
        StoreError::Corrupt | StoreError::Unavailable { .. } => {}
        other => panic!("{other:?} is not an answer of a server"),
    }
}
