//! The keys and values in the server, and values that are not counters.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use toolgate::approval::redis::RedisApprovals;
use toolgate::charge::{Asker, Charge, Meter, Span, Subject};
use toolgate::store::redis::{BuildError, RedisStore};
use toolgate::store::{
    AsyncCounterStore, ChargeChange, ChargedAt, Generation, Outcome, ReserveRequest, SettleRequest, StoreError,
};
use toolgate::{Amount, Caller, Decision, Gate, Identity, Policy, Timestamp, ToolCall};

use super::server::Server;
use super::{ANY_CLOCK, Ids, builder, charges, gate, run};

fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_unix_micros(micros.try_into().unwrap())
}

/// Returns a charge for each kind of meter.
fn one_of_each(now: Timestamp) -> Vec<Charge> {
    let mut charges = charges(4, "g");
    let start = now.unix_micros().div_euclid(3_600_000_000) * 3_600_000_000;
    let [start, end] = [start, start + 3_600_000_000].map(Timestamp::from_unix_micros);
    let meters = [
        Meter::Fixed(Span { start, end }),
        Meter::Sliding { seconds: 60 },
        Meter::TokenBucket { refill: Amount::ONE, seconds: 3_600 },
        Meter::InFlight { lease: 60 },
    ];
    charges.iter_mut().zip(meters).for_each(|(charge, meter)| charge.meter = meter);
    charges
}

#[test]
fn stores_with_different_prefixes_share_no_counter() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let of = |prefix: &str| gate(builder(&server.url()).prefix(prefix).build().unwrap(), 1);
        for prefix in ["a", "b", "a:c:"] {
            assert!(super::decide(&of(prefix)).await.is_allowed(), "{prefix}");
            assert_eq!(super::code(&of(prefix)).await, "rate_limited", "{prefix}");
        }
    });
    assert_eq!(server.counters().len(), 6);
    server.assert_every_key_expires();
}

#[test]
fn debug_output_of_a_builder_hides_the_password() {
    let url = "redis://user:secret@host";
    let counters = format!("{:?}", RedisStore::builder(url).prefix("eu"));
    let approvals = format!("{:?}", RedisApprovals::builder(url).prefix("eu"));
    for shown in [counters, approvals] {
        assert!(shown.contains("\"eu\"") && !shown.contains("secret") && !shown.contains("user"), "{shown}");
    }
}

#[test]
fn a_builder_reports_invalid_settings() {
    let message = |url: &str| RedisStore::builder(url).build().unwrap_err().to_string();
    for url in ["localhost:6379", "", "http://localhost", "redis//localhost", "user:secret@host"] {
        let message = message(url);
        assert!(message.contains("redis://") && !message.contains("secret"), "{url}: {message}");
    }
    if cfg!(not(feature = "redis-tls")) {
        assert!(message("rediss://localhost").contains("redis-tls"));
    }
    let url = "redis://localhost";
    for prefix in ["", "a{b", "a}b", "with space", "tab\t", &"x".repeat(65)] {
        assert!(matches!(RedisStore::builder(url).prefix(prefix).build(), Err(BuildError::Prefix)), "{prefix}");
    }
    let zero = RedisStore::builder(url).response_timeout(Duration::ZERO).build();
    assert!(zero.unwrap_err().to_string().contains("response_timeout"));
    let forgetful = RedisStore::builder(url).remember(Duration::from_secs(1)).build();
    assert!(matches!(forgetful, Err(BuildError::Remember)));
    // No server is needed until the first request.
    assert!(RedisStore::builder("redis://127.0.0.1:1").build().is_ok());
}

#[test]
fn a_store_outside_of_a_runtime_is_unavailable() {
    let store = RedisStore::builder("redis://127.0.0.1:1").build().unwrap();
    let charges = charges(1, "g");
    let request = ReserveRequest::new(Ids::default().next(), now(), &charges);
    let mut answer = pin!(AsyncCounterStore::reserve(&store, &request));
    let answer = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(answer, Poll::Ready(Err(StoreError::Unavailable { .. }))), "{answer:?}");
}

/// A value under the key of a counter that is not the state of one.
#[test]
fn corrupt_states_refuse_calls_and_are_not_changed() {
    let Some(server) = Server::start(&[]) else { return };
    let store = builder(&server.url()).build().unwrap();
    let mut ids = Ids::default();
    let mut corrupt = 0;
    for index in 0..4 {
        server.command::<()>(&[b"FLUSHALL"]);
        let charge = one_of_each(now())[index].clone();
        let charges = [charge.clone()];
        let mut ask = || {
            let (id, now) = (ids.next(), now());
            let request = ReserveRequest::new(id, now, &charges);
            run(async {
                let peek = AsyncCounterStore::peek(&store, &request).await;
                let reserve = AsyncCounterStore::reserve(&store, &request).await;
                let unknown = ChargedAt { instant: now, generation: Generation::new(0) };
                let at = reserve.as_ref().map_or(unknown, |outcome| outcome.tallies()[0].charged_at);
                let settled = [ChargeChange::new(&charge, at, Amount::ZERO)];
                let settle = AsyncCounterStore::settle(&store, &SettleRequest::new(id, 1, now, &settled)).await;
                (peek, reserve, settle)
            })
        };
        assert!(matches!(ask(), (Ok(_), Ok(Outcome::Granted(_)), Ok(()))));
        let key = if index == 3 {
            // Nothing is in flight any more. Only the generation is kept.
            assert_eq!(server.command::<Vec<u8>>(&[b"GET", &server.counters().remove(0)]).len(), 25);
            let request = ReserveRequest::new(ids.next(), now(), &charges);
            run(async { AsyncCounterStore::reserve(&store, &request).await }).unwrap();
            server.counters().remove(0)
        } else {
            server.counters().remove(0)
        };
        let mut ask = || {
            let (id, now) = (ids.next(), now());
            let request = ReserveRequest::new(id, now, &charges);
            run(async {
                (AsyncCounterStore::peek(&store, &request).await, AsyncCounterStore::reserve(&store, &request).await)
            })
        };
        let good: Vec<u8> = server.command(&[b"GET", &key]);
        let with = |at: usize, number: f64| {
            let mut state = good.clone();
            state[at..at + 8].copy_from_slice(&number.to_le_bytes());
            state
        };
        let mut states =
            vec![vec![], b"x".to_vec(), b"17".to_vec(), good[1..].to_vec(), good[..good.len() - 1].to_vec()];
        states.push([&*good, b"x"].concat());
        for at in (9..good.len()).step_by(8) {
            states.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5, 1e300].map(|number| with(at, number)));
        }
        for letter in b"FSBI" {
            if *letter != good[0] {
                states.push([&[*letter], &good[1..]].concat());
            }
        }
        for state in states {
            server.command::<()>(&[b"SET", &key, &state, b"EX", b"100"]);
            let (peek, reserve) = ask();
            let refused = |answer: &Result<Outcome, StoreError>| matches!(answer, Err(StoreError::Corrupt));
            assert!(refused(&reserve), "{index}: {} gives {reserve:?}", state.escape_ascii());
            assert!(refused(&peek), "{index}: {} gives {peek:?}", state.escape_ascii());
            assert_eq!(server.command::<Vec<u8>>(&[b"GET", &key]), state);
            corrupt += 1;
        }
        for command in [vec![&b"HSET"[..], &key, b"a", b"b"], vec![b"RPUSH", &key, b"a"], vec![b"SADD", &key, b"a"]] {
            server.command::<()>(&[b"DEL", &key]);
            server.command::<()>(&command);
            assert!(matches!(ask(), (Err(StoreError::Corrupt), Err(StoreError::Corrupt))));
        }
    }
    assert!(corrupt > 60, "{corrupt}");
}

/// If one counter is corrupt, none of the others is charged.
#[test]
fn a_corrupt_counter_leaves_the_others_uncharged() {
    let Some(server) = Server::start(&[]) else { return };
    let store = builder(&server.url()).build().unwrap();
    let mut ids = Ids::default();
    let charges = charges(3, "g");
    let mut ask = |charges: &[Charge]| {
        let request = ReserveRequest::new(ids.next(), now(), charges);
        run(async { AsyncCounterStore::reserve(&store, &request).await })
    };
    ask(&charges[2..]).unwrap();
    let key = server.counters().remove(0);
    server.command::<()>(&[b"SET", &key, b"odd", b"EX", b"100"]);
    assert!(matches!(ask(&charges), Err(StoreError::Corrupt)));
    assert_eq!(server.counters(), [key]);
}

#[test]
fn a_clock_away_from_the_server_refuses() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let (strict, lenient) = (builder(&server.url()), builder(&server.url()).max_skew(ANY_CLOCK));
        let (strict, lenient) = (strict.build().unwrap(), lenient.build().unwrap());
        let charges = charges(1, "g");
        let mut ids = Ids::default();
        for away in [-3_000_000, -10_000_000_000, 3_000_000, 10_000_000_000] {
            let then = Timestamp::from_unix_micros(now().unix_micros() + away);
            let request = ReserveRequest::new(ids.next(), then, &charges);
            let refused = AsyncCounterStore::reserve(&strict, &request).await;
            let Err(StoreError::ClockSkew { skew_millis, bound_millis: 2_000 }) = refused else {
                panic!("{refused:?}")
            };
            assert!((skew_millis - away / 1_000).abs() < 1_500, "{skew_millis}");
            let at = ChargedAt { instant: then, generation: Generation::new(0) };
            let settled = [ChargeChange::new(&charges[0], at, Amount::ZERO)];
            let refused = AsyncCounterStore::settle(&strict, &SettleRequest::new(request.id, 1, then, &settled)).await;
            assert!(matches!(refused, Err(StoreError::ClockSkew { .. })));
            assert!(AsyncCounterStore::reserve(&lenient, &request).await.is_ok());
        }
        let at = Timestamp::from_unix_micros(now().unix_micros() - 1_000_000);
        assert!(AsyncCounterStore::reserve(&strict, &ReserveRequest::new(ids.next(), at, &charges)).await.is_ok());
        for outside in
            [Timestamp::MIN, Timestamp::from_unix_micros(-1), Timestamp::from_unix_micros(1 << 53), Timestamp::MAX]
        {
            let refused =
                AsyncCounterStore::reserve(&lenient, &ReserveRequest::new(ids.next(), outside, &charges)).await;
            assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        }
    });
}

#[test]
fn calls_in_flight_above_the_capacity_are_refused() {
    let Some(server) = Server::start(&[]) else { return };
    let store = builder(&server.url()).build().unwrap();
    let mut charge = charges(1, "g").remove(0);
    (charge.meter, charge.max) = (Meter::InFlight { lease: 86_400 }, None);
    let charges = [charge];
    let mut ids = Ids::default();
    let mut ask = || {
        let request = ReserveRequest::new(ids.next(), now(), &charges);
        run(async { AsyncCounterStore::reserve(&store, &request).await })
    };
    ask().unwrap();
    let key = server.counters().remove(0);
    let state = |units: u32| {
        let soon = now().unix_micros() as f64 + 1e9;
        let units = (0..units).flat_map(|index| [soon + f64::from(index), 1.0, 0.0]).collect::<Vec<_>>();
        let numbers = [f64::from(u32::try_from(units.len() / 3).unwrap()), 0.0].into_iter().chain(units);
        [b"I".to_vec(), vec![0; 8], numbers.flat_map(f64::to_le_bytes).collect()].concat()
    };
    server.command::<()>(&[b"SET", &key, &state(65_535), b"EX", b"100"]);
    assert_eq!(ask().unwrap().tallies()[0].used.micros(), 65_536_000_000);
    assert!(matches!(ask(), Err(StoreError::Full { capacity: 65_536 })));
}

/// The key of a bucket expires when the bucket is full again. A late settlement still counts.
#[test]
fn a_forgotten_bucket_owes_a_late_settlement() {
    let Some(server) = Server::start(&[]) else { return };
    let store = builder(&server.url()).build().unwrap();
    let charge = one_of_each(now()).remove(2);
    let mut ids = Ids::default();
    for (to, used) in [(Amount::from_micros(5_000_000).unwrap(), 4_000_000), (Amount::ZERO, 0)] {
        let id = ids.next();
        let charges = [charge.clone()];
        let made =
            run(async { AsyncCounterStore::reserve(&store, &ReserveRequest::new(id, now(), &charges)).await }).unwrap();
        server.command::<()>(&[b"DEL", &server.counters().remove(0)]);
        let settled = [ChargeChange::new(&charge, made.tallies()[0].charged_at, to)];
        for _ in 0..2 {
            run(async { AsyncCounterStore::settle(&store, &SettleRequest::new(id, 1, now(), &settled)).await })
                .unwrap();
        }
        let request = ReserveRequest::new(ids.next(), now(), &charges);
        let seen = run(async { AsyncCounterStore::peek(&store, &request).await }).unwrap();
        // A little was refilled since.
        let seen = seen.tallies()[0].used.micros();
        assert!((used - used / 100..=used).contains(&seen), "{seen}");
        server.assert_every_key_expires();
        server.command::<()>(&[b"FLUSHALL"]);
    }
}

#[test]
fn one_asker_gets_its_share_of_counters() {
    let Some(server) = Server::start(&[]) else { return };
    let store = builder(&server.url()).counters_per_asker(4).build().unwrap();
    let [eve, ann] = ["eve", "ann"].map(|name| Asker::new((Identity::Grant, name)));
    let mut ids = Ids::default();
    let mut ask = |asker: Asker<'_>, subjects: &[&str], kind: usize| {
        let make = |subject: &&str| {
            let mut charge = one_of_each(now())[kind].clone();
            charge.subject = Subject::from_bytes(subject.as_bytes());
            charge
        };
        let charges: Vec<_> = subjects.iter().map(make).collect();
        let request = ReserveRequest::new(ids.next(), now(), &charges).by(asker);
        let (peek, reserve) = run(async {
            let peek = AsyncCounterStore::peek(&store, &request).await;
            (peek, AsyncCounterStore::reserve(&store, &request).await)
        });
        assert_eq!(peek.is_ok(), reserve.is_ok(), "{peek:?} {reserve:?}");
        match reserve {
            Ok(outcome) => matches!(outcome, Outcome::Granted(_)),
            Err(StoreError::ShareFull { share: 4 }) => false,
            Err(error) => panic!("{error}"),
        }
    };
    for kind in 0..4 {
        server.command::<()>(&[b"FLUSHALL"]);
        assert!(ask(eve, &["a", "b"], kind) && ask(eve, &["c"], kind));
        assert!(!ask(eve, &["d", "e"], kind), "two more would be five");
        assert!(ask(eve, &["d"], kind) && !ask(eve, &["e"], kind), "{kind}");
        // Known counters go on, and others are served, of the same subjects too.
        assert!(ask(eve, &["a", "d"], kind) && ask(ann, &["a", "e", "f"], kind));
        assert!(ask(eve, &["e"], kind), "ann began it");
        server.assert_every_key_expires();
        // A counter is in the set until its key is gone, whatever its first end was.
        let own = server.command::<Vec<Vec<u8>>>(&[b"KEYS", b"*:k:*eve"]).remove(0);
        for member in server.command::<Vec<Vec<u8>>>(&[b"ZRANGE", &own, b"0", b"-1"]) {
            server.command::<i64>(&[b"ZADD", &own, b"1", &member]);
        }
        assert!(!ask(eve, &["g"], kind), "all are live");
        let counter = server.command::<Vec<Vec<u8>>>(&[b"KEYS", b"*:c:*a"]).remove(0);
        server.command::<i64>(&[b"DEL", &counter]);
        for member in server.command::<Vec<Vec<u8>>>(&[b"ZRANGE", &own, b"0", b"-1"]) {
            server.command::<i64>(&[b"ZADD", &own, b"1", &member]);
        }
        assert!(ask(eve, &["g"], kind) && !ask(eve, &["h"], kind), "one has ended: {kind}");
        server.assert_every_key_expires();
    }
}

/// A counter that the server has lost is begun again by other calls.
#[test]
fn charges_before_a_loss_of_data_give_nothing_back() {
    let Some(server) = Server::start(&[]) else { return };
    let store = builder(&server.url()).build().unwrap();
    let mut ids = Ids::default();
    for charge in one_of_each(now()) {
        for to in [0, 500_000, 9_000_000] {
            let charges = [charge.clone()];
            let mut make = || {
                let id = ids.next();
                let request = ReserveRequest::new(id, now(), &charges);
                let made = run(async { AsyncCounterStore::reserve(&store, &request).await }).unwrap();
                (id, made.tallies()[0])
            };
            let (id, lost) = make();
            server.command::<()>(&[b"FLUSHALL"]);
            let (_, present) = make();
            let settled = [ChargeChange::new(&charge, lost.charged_at, Amount::from_micros(to).unwrap())];
            run(async { AsyncCounterStore::settle(&store, &SettleRequest::new(id, 1, now(), &settled)).await })
                .unwrap();
            let (_, after) = make();
            let added = after.used.micros() - present.used.micros();
            // A bucket was refilled a little since.
            assert!((990_000..=1_000_000).contains(&added), "{:?} to {to}: {added}", charge.meter);
            server.command::<()>(&[b"FLUSHALL"]);
        }
    }
}

/// A client has gone, and the handler of its call was cancelled.
#[test]
fn cancelled_handlers_free_their_units_in_flight() {
    let Some(server) = Server::start(&[]) else { return };
    let store = builder(&server.url()).build().unwrap();
    let document = json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": [
        { "counter": "flight", "window": "in_flight", "max": 2, "scope": "grant" },
        { "counter": "day", "window": "day", "max": 100, "scope": "grant" }] } } });
    let policy: Policy = document.to_string().parse().unwrap();
    let gate = Gate::builder().policy(policy).store_async(store).build();
    let call = ToolCall::new("t", None::<&Value>).grant("g");
    run(async {
        let used = async || {
            let states = gate.usage(&call).await.unwrap();
            [0, 1].map(|at| states[at].used().micros() / 1_000_000)
        };
        let settles_at = async |wanted: [u64; 2]| {
            let began = Instant::now();
            while used().await != wanted {
                assert!(began.elapsed() < Duration::from_secs(10), "{:?}, not {wanted:?}", used().await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        for spent in 1..=4 {
            drop(gate.check(&call).await);
            settles_at([0, spent]).await;
        }
        // Nobody has seen the answer, so the call was not made: all of it comes back.
        let mut spent = 4;
        for wait in 0..40 {
            let answered = tokio::time::timeout(Duration::from_micros(10 * wait), gate.check(&call)).await;
            spent += u64::from(answered.is_ok_and(|decision| decision.is_allowed()));
        }
        settles_at([0, spent]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(used().await, [0, spent]);
    });
}

#[test]
fn usage_of_several_callers_is_that_of_each() {
    let Some(server) = Server::start(&[]) else { return };
    let stores = [builder(&server.url()), builder(&server.url()).prefix("parts").partition_by(Identity::Grant)];
    let document = json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": [
        { "counter": "all", "window": "lifetime", "max": 900, "scope": "global" },
        { "counter": "flight", "window": "in_flight", "max": 2, "scope": "grant" },
        { "counter": "day", "window": "lifetime", "max": 100, "scope": "grant" }] } } });
    for store in stores {
        let policy: Policy = document.to_string().parse().unwrap();
        let gate = Gate::builder().policy(policy).store_async(store.build().unwrap()).build();
        // More counters than one request has.
        let callers: Vec<Caller> = (0..200).map(|number| Caller::new().grant(&format!("g{number}"))).collect();
        run(async {
            for caller in callers.iter().step_by(9) {
                let Decision::Allow(permit) = gate.check(&caller.call("t", None::<&Value>)).await else { panic!() };
                permit.end().await.unwrap();
            }
            let usages = gate.usage_of(&callers).await.unwrap();
            assert_eq!(usages.len(), callers.len());
            for (index, states) in usages.iter().enumerate() {
                let used = states.iter().map(|state| state.used().micros() / 1_000_000);
                assert!(used.eq([23, 0, u64::from(index % 9 == 0)]), "{states:?}");
            }
        });
    }
}
