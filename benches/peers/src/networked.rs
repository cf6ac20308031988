//! Counters in a server: toolgate beside the same scripts called bare, and beside `limitador`, which takes two round trips.

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use limitador::AsyncRateLimiter;
use limitador::storage::redis::AsyncRedisStorage;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, IntoConnectionInfo, Script, Value};
use tokio::runtime::Runtime;
use toolgate::Amount;
use toolgate::store::redis::RedisStore;
use toolgate::store::{AsyncCounterStore, ChargeChange, Outcome, ReservationId, ReserveRequest, SettleRequest};

use crate::counters::{Request, Requests};
use crate::race::{Claim, Contender, claim, race, shown};
use crate::workload::{Caller, Limits};
use crate::{Asked, peer};

const LIMBS: &str = include_str!("../../../src/store/redis/limbs.lua");
const RESERVE: &str = include_str!("../../../src/store/redis/reserve.lua");
const SETTLE: &str = include_str!("../../../src/store/redis/settle.lua");
const CALLERS: usize = 1_000;
/// The windows are those of the calls' first instant, however long the run takes.
const ANY_CLOCK: Duration = Duration::from_secs(1_000 * 86_400);
/// Reservations of all contenders and rounds are numbered through.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn next_id() -> ReservationId {
    ReservationId::new(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

/// One decision, with one task and with many at once; and a decision that is settled.
pub(crate) fn redis(asked: &Asked) {
    let titles = [
        ("redis, one task", 1, false),
        ("redis, 64 tasks at once", 64, false),
        ("redis, reserve and settle, 64 tasks at once", 64, true),
    ];
    if !titles.iter().any(|(title, ..)| asked.wants(title)) {
        return;
    }
    let Some(server) = Server::start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let runtime = &runtime;
    let [one, three] = [Limits::One, Limits::ThreeOfOneScope].map(|limits| Setup::new(&server, runtime, limits));
    for (title, tasks, settles) in titles {
        if !asked.wants(title) {
            continue;
        }
        let contender = |name: &str, work: Work| {
            Contender::timed(name, move |units| runtime.block_on(at_once(tasks, units, &work)))
        };
        let (mut contenders, claims): (Vec<_>, Vec<Claim>) = if settles {
            let contenders = vec![
                contender("three limits: bare pair of scripts", three.bare(true)),
                contender("three limits: toolgate", three.toolgate(true)),
                contender("three limits: limitador", three.limitador(true)),
            ];
            (contenders, vec![claim(1, 0, 1.0 / 0.85), shown(1, 2)])
        } else {
            let contenders = vec![
                contender("one limit: bare script", one.bare(false)),
                contender("one limit: toolgate", one.toolgate(false)),
                contender("one limit: limitador", one.limitador(false)),
                contender("three limits: bare script", three.bare(false)),
                contender("three limits: toolgate", three.toolgate(false)),
                contender("three limits: limitador", three.limitador(false)),
            ];
            let claims = match tasks {
                1 => vec![claim(1, 0, 1.2), shown(1, 2), claim(4, 3, 1.2), shown(4, 5)],
                _ => vec![claim(1, 0, 1.0 / 0.85), claim(1, 2, 0.5), claim(4, 3, 1.0 / 0.85), claim(4, 5, 0.5)],
            };
            (contenders, claims)
        };
        race(title, asked.pace.of_large(), &mut contenders, &claims);
    }
}

/// The `index`th unit of work, as a future that is not tied to anything.
type Work = Arc<dyn Fn(usize) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn work<F: Future<Output = ()> + Send + 'static>(make: impl Fn(usize) -> F + Send + Sync + 'static) -> Work {
    Arc::new(move |index| Box::pin(make(index)))
}

/// Does so many units of work in so many tasks, and tells how long it took.
async fn at_once(count: u64, units: u64, work: &Work) -> Duration {
    let began = Instant::now();
    let share = units.div_ceil(count);
    let tasks = (0..count).map(|task| {
        let work = Arc::clone(work);
        tokio::spawn(async move {
            for unit in 0..share {
                work(usize::try_from(task * 131 + unit).unwrap() % CALLERS).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    // What each has done more, where units do not divide, is no unit of anybody's.
    began.elapsed().mul_f64(units as f64 / (share * count) as f64)
}

/// All that the contenders of so many limits need.
struct Setup {
    store: Arc<RedisStore>,
    bare: Arc<Bare>,
    limiter: Arc<AsyncRateLimiter>,
    requests: Arc<Vec<Request>>,
    grants: Arc<Vec<String>>,
}

impl Setup {
    fn new(server: &Server, runtime: &Runtime, limits: Limits) -> Self {
        let store = Arc::new(RedisStore::builder(server.url()).max_skew(ANY_CLOCK).build().unwrap());
        let callers: Vec<_> = (0..CALLERS).map(Caller::new).collect();
        let of = Requests::new(limits);
        let requests: Vec<_> = callers.iter().map(|caller| of.of(caller)).collect();
        let grants = callers.into_iter().map(|caller| caller.grant).collect();
        let limiter = runtime.block_on(async {
            let storage = AsyncRedisStorage::new(&server.url()).await.unwrap();
            let limiter = AsyncRateLimiter::new_with_storage(Box::new(storage));
            for limit in peer::limits(limits.counters()) {
                limiter.add_limit(limit);
            }
            limiter
        });
        let bare = runtime.block_on(Bare::new(server, &requests));
        Self {
            store,
            bare: Arc::new(bare),
            limiter: Arc::new(limiter),
            requests: Arc::new(requests),
            grants: Arc::new(grants),
        }
    }

    fn toolgate(&self, settles: bool) -> Work {
        let (store, requests) = (Arc::clone(&self.store), Arc::clone(&self.requests));
        work(move |index| {
            let (store, requests) = (Arc::clone(&store), Arc::clone(&requests));
            async move {
                let ReserveRequest { now, charges, .. } = requests[index].ask();
                let id = next_id();
                let outcome = store.reserve(&ReserveRequest::new(id, now, charges)).await.unwrap();
                let Outcome::Granted(tallies) = outcome else { panic!("there is room") };
                if settles {
                    let settled: Vec<_> = charges
                        .iter()
                        .zip(&tallies)
                        .map(|(c, t)| ChargeChange::new(c, t.charged_at, Amount::ZERO))
                        .collect();
                    store.settle(&SettleRequest::new(id, 1, now, &settled)).await.unwrap();
                }
            }
        })
    }

    fn bare(&self, settles: bool) -> Work {
        let bare = Arc::clone(&self.bare);
        work(move |index| {
            let bare = Arc::clone(&bare);
            async move {
                let id = next_id().get().to_be_bytes();
                let calls = &bare.calls[index];
                assert!(matches!(bare.send(&calls.reserve, &id).await, Value::BulkString(_)));
                if settles {
                    assert!(matches!(bare.send(&calls.settle, &id).await, Value::Array(_)));
                }
            }
        })
    }

    fn limitador(&self, settles: bool) -> Work {
        let (limiter, grants) = (Arc::clone(&self.limiter), Arc::clone(&self.grants));
        let namespace = peer::namespace();
        work(move |index| {
            let (limiter, grants, namespace) = (Arc::clone(&limiter), Arc::clone(&grants), namespace.clone());
            async move {
                let context = peer::context(&grants[index]);
                if settles {
                    let reserved = limiter.reserve(&namespace, &context, 1, None).await.unwrap();
                    assert!(!reserved.limited);
                    let id = reserved.reservation_id.as_ref();
                    limiter.commit_reservation(&namespace, &context, id, 1).await.unwrap();
                } else {
                    let answer = limiter.check_rate_limited_and_update(&namespace, &context, 1).await.unwrap();
                    assert!(!answer.limited);
                }
            }
        })
    }
}

/// The store's own scripts, called by hand with arguments that are ready.
struct Bare {
    connection: MultiplexedConnection,
    calls: Vec<Calls>,
}

struct Calls {
    reserve: Call,
    settle: Call,
}

/// A call of a script, but for the key of its record.
struct Call {
    hash: String,
    keys: Vec<Vec<u8>>,
    step: [u8; 4],
    arguments: Vec<Vec<u8>>,
}

impl Bare {
    async fn new(server: &Server, requests: &[Request]) -> Self {
        let info = server.url().into_connection_info().unwrap();
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let mut connection = Client::open(info).unwrap().get_multiplexed_async_connection().await.unwrap();
        let mut hashes = Vec::new();
        for text in [RESERVE, SETTLE] {
            let script = Script::new(&[LIMBS, text].concat());
            script.prepare_invoke().load_async(&mut connection).await.unwrap();
            hashes.push(script.get_hash().to_owned());
        }
        let calls = requests.iter().map(|request| Calls::new(&hashes, &request.ask())).collect();
        Self { connection, calls }
    }

    async fn send(&self, call: &Call, id: &[u8]) -> Value {
        let mut cmd = Cmd::with_capacity(8, 512);
        cmd.arg("EVALSHA").arg(&call.hash).arg(call.keys.len() + 1).arg(&call.keys);
        cmd.arg([b"{bare}:r:", id, &call.step].concat());
        cmd.arg(&call.arguments);
        self.connection.clone().send_packed_command(&cmd).await.unwrap()
    }
}

impl Calls {
    fn new(hashes: &[String], request: &ReserveRequest<'_>) -> Self {
        let ReserveRequest { now, charges, .. } = *request;
        let numbers = |numbers: &[f64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let text = |these: &[f64], more: u64| [numbers(these), more.to_string().into_bytes()].concat();
        let (now, day) = (now.unix_micros() as f64, 86_400e6);
        let keys: Vec<_> = charges
            .iter()
            .map(|charge| [b"{bare}:c:", &charge.counter.as_bytes()[..], charge.subject.as_bytes()].concat())
            .collect();
        let (mut reserve, mut settle) =
            (vec![text(&[1.0, now, 1e3 * day, 1e3 * day], 60_000)], vec![text(&[now, 1e3 * day, 1e3 * day], 60_000)]);
        for charge in charges {
            let toolgate::charge::Meter::Fixed(window) = charge.meter else { panic!("a fixed window") };
            let (start, seconds) =
                (window.start.unix_micros() as f64, (window.end.unix_seconds() - window.start.unix_seconds()) as f64);
            let max = charge.max.unwrap().micros() as f64 / 1e6;
            let expires = ((start + 1e3 * day) / 1e3 + seconds * 1e3) as u64;
            reserve.push(text(&[0.0, 1.0, 0.0, max, 0.0, start, seconds, 0.0, 0.0], expires));
            settle.push(numbers(&[0.0, start, seconds, 0.0, 1.0, 0.0, 0.0, 0.0]));
        }
        let call = |hash: &String, step: u32, arguments| {
            let (hash, keys) = (hash.clone(), keys.clone());
            Call { hash, keys, step: step.to_be_bytes(), arguments }
        };
        Self { reserve: call(&hashes[0], 0, reserve), settle: call(&hashes[1], 1, settle) }
    }
}

/// A server of the run's own, on a free port of the loopback.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn();
        let Ok(child) = child else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "redis-server must be on the PATH");
            println!("\nredis: left out, there is no redis-server on the PATH");
            return None;
        };
        let server = Self { child, port };
        let began = Instant::now();
        while Client::open(server.url()).unwrap().get_connection().is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
