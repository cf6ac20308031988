//! The memory store and a server give the same answers to the same history, for amounts of every
//! size.

use toolgate::charge::{Charge, Meter, Span};
use toolgate::store::{
    AsyncCounterStore, ChargeChange, ChargedAt, CounterStore, MemoryStore, Outcome, ReservationId, ReserveRequest,
    SettleRequest, Tallies, Tally,
};
use toolgate::{Amount, Timestamp, Total};

use super::server::Server;
use super::{ANY_CLOCK, Ids, builder, charges, run};

/// A deterministic random number generator (SplitMix64).
struct Random(u64);

impl Random {
    fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    fn of<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.any() as usize % among.len()]
    }

    /// Returns an amount below 2 to the power of `size`, often one at a boundary.
    fn amount(&mut self, size: u32) -> Amount {
        let largest = Amount::MAX.micros();
        let micros = match self.below(12) {
            0 => 0,
            1 => 1,
            2 if size > 40 => largest,
            3 if size > 40 => largest - self.below(3),
            4 => 999_999 + self.below(3),
            5 => 1_000_000,
            _ => self.any() >> (64 - size),
        };
        Amount::from_micros(micros.min(largest)).unwrap()
    }
}

/// A meter without its window, which is that of the current time.
#[derive(Clone, Copy)]
enum Kind {
    Fixed(u32),
    Sliding(u32),
    Bucket(u64, u32),
    InFlight(u32),
}

impl Kind {
    fn random(random: &mut Random, size: u32) -> Self {
        let seconds = random.of(&[1, 7, 60, 3_600, 86_400, 30 * 86_400, 400 * 86_400]);
        match random.below(4) {
            0 => Self::Fixed(seconds),
            1 => Self::Sliding(seconds),
            2 => Self::Bucket(random.amount(size).micros(), seconds),
            _ => Self::InFlight(seconds),
        }
    }

    fn meter(self, now: i64) -> Meter {
        match self {
            Self::Fixed(seconds) => {
                let long = i64::from(seconds) * 1_000_000;
                let start = now.div_euclid(long) * long;
                let [start, end] = [start, start + long].map(Timestamp::from_unix_micros);
                Meter::Fixed(Span { start, end })
            }
            Self::Sliding(seconds) => Meter::Sliding { seconds },
            Self::Bucket(refill, seconds) => {
                Meter::TokenBucket { refill: Amount::from_micros(refill).unwrap(), seconds }
            }
            Self::InFlight(lease) => Meter::InFlight { lease },
        }
    }
}

/// A granted reservation, with the current amount and the place of each charge.
struct Made {
    id: ReservationId,
    step: u32,
    charges: Vec<(Charge, [ChargedAt; 2])>,
}

fn compare_histories(seed: u64, steps: usize, size: u32) {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let redis = builder(&server.url()).max_skew(ANY_CLOCK).build().unwrap();
        let memory = MemoryStore::new();
        let mut random = Random(seed);
        let mut ids = Ids::default();
        let templates = [charges(8, "a"), charges(8, "b\0}{")];
        let kinds: Vec<_> = (0..8).map(|_| Kind::random(&mut random, size)).collect();
        let mut now: i64 = 1_790_000_000_000_000;
        let (mut made, mut granted, mut refused): (Vec<Made>, _, _) = (Vec::new(), 0, 0);
        // Refused calls, to be repeated at their retry time and a microsecond before it.
        let mut again: Vec<(usize, Vec<Charge>, i64)> = Vec::new();
        for step in 0..steps {
            let retried = again.pop();
            now = retried.as_ref().map_or(now, |(.., at)| *at);
            now += match random.below(20) {
                _ if retried.is_some() => 0,
                0 => -(random.below(1 << 37) as i64),
                1 => -(random.below(1 << 21) as i64),
                2 => random.below(1 << 42) as i64,
                3..=6 => 0,
                7..=10 => random.below(1 << 30) as i64,
                11 => random.of(&[1, 999_999, 1_000_000, 60_000_000]),
                _ => random.below(1 << 20) as i64,
            };
            let present = Timestamp::from_unix_micros(now);
            if retried.is_none() && random.below(4) == 0 && !made.is_empty() {
                let at = random.below(made.len() as u64) as usize;
                let from = &mut made[at];
                from.step += 1;
                let changes: Vec<_> = from.charges.iter().filter(|_| random.below(3) > 0).cloned().collect();
                let amounts: Vec<_> = changes
                    .iter()
                    .map(|_| if random.below(3) == 0 { Amount::ZERO } else { random.amount(size) })
                    .collect();
                let settled = |store: usize| -> Vec<_> {
                    let changes = changes.iter().zip(&amounts);
                    changes.map(|((charge, at), to)| ChargeChange::new(charge, at[store], *to)).collect()
                };
                let [in_memory, in_redis] = [0, 1].map(settled);
                memory.settle(&SettleRequest::new(from.id, from.step, present, &in_memory)).unwrap();
                let request = SettleRequest::new(from.id, from.step, present, &in_redis);
                AsyncCounterStore::settle(&redis, &request).await.unwrap();
                if random.below(4) == 0 {
                    // Repeated, as after a lost reply.
                    AsyncCounterStore::settle(&redis, &request).await.unwrap();
                }
                for ((charge, _), to) in changes.iter().zip(amounts) {
                    let own = from.charges.iter_mut().find(|(c, _)| c.counter == charge.counter).unwrap();
                    own.0.amount = to;
                }
                continue;
            }
            let mut asked: Vec<Charge> = templates[random.below(2) as usize].clone();
            let skip = random.below(6) as usize;
            let kept = 1 + random.below(3) as usize;
            let mut index = 0;
            asked.retain(|_| {
                index += 1;
                index > skip && index <= skip + kept
            });
            for (charge, kind) in asked.iter_mut().zip(&kinds[skip..]) {
                charge.meter = kind.meter(now);
                charge.amount = random.amount(size);
                charge.max = (random.below(5) > 0).then(|| random.amount(size + 2));
            }
            let skip = match retried {
                Some((skip, charges, _)) => {
                    asked = charges;
                    asked.iter_mut().zip(&kinds[skip..]).for_each(|(charge, kind)| charge.meter = kind.meter(now));
                    skip
                }
                None => skip,
            };
            if random.below(60) == 0 {
                memory.reset(asked[0].counter, &asked[0].subject).unwrap();
                AsyncCounterStore::reset(&redis, asked[0].counter, &asked[0].subject).await.unwrap();
            }
            let request = ReserveRequest::new(ids.next(), present, &asked);
            let context = |what: &str| format!("seed {seed}, step {step}: {what} {asked:#?} at {present}");
            let peeked =
                AsyncCounterStore::peek(&redis, &request).await.unwrap_or_else(|e| panic!("{e:?} {}", context("peek")));
            let expected = memory.peek(&request).unwrap();
            assert_eq!(comparable(&peeked, &asked), comparable(&expected, &asked), "{}", context("peek"));
            let outcome = AsyncCounterStore::reserve(&redis, &request)
                .await
                .unwrap_or_else(|e| panic!("{e:?} {}", context("reserve")));
            let reserved = memory.reserve(&request).unwrap();
            assert_eq!(comparable(&outcome, &asked), comparable(&reserved, &asked), "{}", context("reserve"));
            if let Outcome::Granted(tallies) = &reserved {
                let charged =
                    |tallies: &Tallies| tallies.iter().map(|tally| tally.charged_at.instant).collect::<Vec<_>>();
                assert_eq!(charged(outcome.tallies()), charged(tallies), "{}", context("reserve"));
            }
            if let (Outcome::Granted(tallies), Outcome::Granted(own)) = (&outcome, &reserved) {
                granted += 1;
                if random.below(4) == 0 {
                    let again = AsyncCounterStore::reserve(&redis, &request).await.unwrap();
                    assert_eq!(again, outcome, "{}", context("reserve again"));
                }
                let at = own.iter().zip(tallies).map(|(memory, redis)| [memory.charged_at, redis.charged_at]);
                let charges = asked.iter().cloned().zip(at).collect();
                made.push(Made { id: request.id, step: 0, charges });
                if made.len() > 50 {
                    made.remove(0);
                }
            } else {
                refused += 1;
                // The latest retry time of the charges without room.
                let instant = outcome.tallies().iter().zip(&asked).filter(|(tally, charge)| !tally.has_room(charge));
                let instant = instant.map(|(tally, _)| tally.retry_at).collect::<Option<Vec<_>>>();
                let instant = instant.and_then(|instants| instants.into_iter().max()).map(Timestamp::unix_micros);
                if let Some(at) = instant.filter(|at| *at > now + 1 && *at - now < 1 << 42 && random.below(3) == 0) {
                    again = vec![(skip, asked.clone(), at), (skip, asked.clone(), at - 1)];
                }
            }
        }
        assert!(granted > steps / 10 && refused > steps / 10, "{granted} granted, {refused} refused");
        server.assert_every_key_expires();
    });
}

/// Returns whether the request is granted, and the parts of each tally that have a meaning: a retry
/// time has one only where there is no room.
fn comparable(outcome: &Outcome, charges: &[Charge]) -> (bool, Vec<(Total, Timestamp, Option<Timestamp>)>) {
    let tallies = outcome.tallies().iter().zip(charges);
    let plain = |(tally, charge): (&Tally, &Charge)| {
        let waits = tally.retry_at.filter(|_| !tally.has_room(charge));
        (tally.used, tally.resets_at, waits)
    };
    let granted = matches!(outcome, Outcome::Granted(_));
    // The retry time of a granted charge has no meaning.
    let made = |(used, resets_at, _)| (used, resets_at, None);
    (granted, tallies.map(plain).map(|plain| if granted { made(plain) } else { plain }).collect())
}

#[test]
fn histories_agree_on_small_amounts() {
    for seed in 0..6 {
        compare_histories(seed, 700, 24);
    }
}

#[test]
fn histories_agree_on_amounts_of_any_size() {
    for seed in 100..106 {
        compare_histories(seed, 700, 44);
    }
}

#[test]
fn histories_agree_on_amounts_near_the_maximum() {
    for seed in 200..212 {
        compare_histories(seed, 700, 62);
    }
}
