//! Counters in Redis: compares toolgate with direct calls of the same scripts and with `limitador`,
//! which takes two round trips.

use std::future::Future;
use std::path::PathBuf;
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
use toolgate::store::redis::RedisStore;
use toolgate::store::{AsyncCounterStore, ChargeChange, Outcome, ReservationId, ReserveRequest, SettleRequest};
use toolgate::{Amount, Identity};

use crate::counters::{Request, RequestRecorder};
use crate::race::{Contender, Ratio, race, ratio, ratio_at_most};
use crate::workload::{Caller, Limits};
use crate::{Options, peer};

const LIMBS: &str = include_str!("../../../src/store/redis/limbs.lua");
const RESERVE: &str = include_str!("../../../src/store/redis/reserve.lua");
const SETTLE: &str = include_str!("../../../src/store/redis/settle.lua");
const CALLERS: usize = 1_000;
/// All calls have the time of the first, however long the run takes.
const UNLIMITED_SKEW: Duration = Duration::from_secs(1_000 * 86_400);
/// The number of the next reservation. All contenders and rounds share it.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn next_id() -> ReservationId {
    ReservationId::new(NEXT_ID.fetch_add(1, Ordering::Relaxed).into())
}

/// Compares reservations, by one task and by many, and reservations that are settled.
pub(crate) fn redis(options: &Options) {
    let titles = [
        ("redis, one task", 1, false),
        ("redis, 64 tasks at once", 64, false),
        ("redis, reserve and settle, 64 tasks at once", 64, true),
    ];
    if !titles.iter().any(|(title, ..)| options.selects(title)) {
        return;
    }
    let Some(server) = Server::start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let runtime = &runtime;
    let [one, three] = [Limits::One, Limits::ThreeOfOneScope].map(|limits| Setup::new(&server, runtime, limits));
    for (title, tasks, settles) in titles {
        if !options.selects(title) {
            continue;
        }
        let contender = |name: &str, work: Work| {
            Contender::timed(name, move |units| runtime.block_on(run_tasks(tasks, units, &work)))
        };
        let (mut contenders, ratios): (Vec<_>, Vec<Ratio>) = if settles {
            let contenders = vec![
                contender("three limits: direct calls of both scripts", three.direct(true)),
                contender("three limits: toolgate", three.toolgate(true)),
                contender("three limits: limitador", three.limitador(true)),
            ];
            (contenders, vec![ratio_at_most(1, 0, 1.0 / 0.85), ratio(1, 2)])
        } else {
            let contenders = vec![
                contender("one limit: direct call of the script", one.direct(false)),
                contender("one limit: toolgate", one.toolgate(false)),
                contender("one limit: limitador", one.limitador(false)),
                contender("three limits: direct call of the script", three.direct(false)),
                contender("three limits: toolgate", three.toolgate(false)),
                contender("three limits: limitador", three.limitador(false)),
            ];
            let ratios = match tasks {
                1 => vec![ratio_at_most(1, 0, 1.2), ratio(1, 2), ratio_at_most(4, 3, 1.2), ratio(4, 5)],
                _ => vec![
                    ratio_at_most(1, 0, 1.0 / 0.85),
                    ratio_at_most(1, 2, 0.5),
                    ratio_at_most(4, 3, 1.0 / 0.85),
                    ratio_at_most(4, 5, 0.5),
                ],
            };
            (contenders, ratios)
        };
        race(title, options.pace.of_large(), &mut contenders, &ratios);
    }
}

/// Measures a cluster of one, two and three masters over which the counters of one policy are
/// spread by grant. All masters share the processors of this machine, so the processor time of each
/// counts: on a machine of its own, the busiest sets the limit.
pub(crate) fn cluster(options: &Options) {
    const TITLE: &str = "redis cluster, 64 tasks at once";
    if !options.selects(TITLE) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let decisions = if options.pace.measures() { 40_000 } else { 100 };
    println!("\n{TITLE}: microseconds of the servers' processors a decision, and the share of the busiest master");
    let mut single = None;
    for (masters, limits, partitioned) in [
        (1, Limits::ThreeOfOneScope, false),
        (1, Limits::ThreeOfOneScope, true),
        (2, Limits::ThreeOfOneScope, true),
        (3, Limits::ThreeOfOneScope, true),
        (3, Limits::ThreeOfThreeScopes, false),
        (3, Limits::ThreeOfThreeScopes, true),
    ] {
        let Some(nodes) = start_cluster(masters) else { return };
        let builder = RedisStore::builder(format!("redis+cluster://127.0.0.1:{}", nodes[0].port));
        let builder = builder.max_skew(UNLIMITED_SKEW).deadline(Duration::from_secs(5));
        let builder = if partitioned { builder.partition_by(Identity::Grant) } else { builder };
        let store = Arc::new(builder.build().unwrap());
        let recorder = RequestRecorder::new(limits);
        let requests: Vec<_> = (0..CALLERS).map(|index| recorder.request_of(&Caller::new(index))).collect();
        let work = reserve_with(store, Arc::new(requests));
        // Connects, loads the scripts and begins the counters.
        runtime.block_on(run_tasks(64, 2_000, &work));
        let before: Vec<_> = nodes.iter().map(Server::processor_time).collect();
        let took = runtime.block_on(run_tasks(64, decisions, &work));
        let spent: Vec<_> = nodes.iter().zip(before).map(|(node, before)| node.processor_time() - before).collect();
        let (all, busiest) = (spent.iter().sum::<f64>(), spent.iter().copied().fold(0.0, f64::max));
        let of_busiest = busiest / decisions as f64 * 1e6;
        let single = *single.get_or_insert(of_busiest);
        println!(
            "{masters} masters, {}, {}: {:6.1} us in all, {of_busiest:6.1} us on the busiest ({:4.1} % of all, \
             {:4.2} of the first row), {:6.0} decisions a second with all on this machine",
            limits.name(),
            if partitioned { "by grant" } else { "one slot" },
            all / decisions as f64 * 1e6,
            100.0 * busiest / all,
            of_busiest / single,
            decisions as f64 / took.as_secs_f64(),
        );
    }
}

/// Starts masters that share the slots evenly.
fn start_cluster(masters: usize) -> Option<Vec<Server>> {
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let buses: Vec<_> = (0..masters).map(|_| port().to_string()).collect();
    let start = |bus: &String| Server::start_with(&["--cluster-enabled", "yes", "--cluster-port", bus]);
    let nodes = buses.iter().map(start).collect::<Option<Vec<_>>>()?;
    for (index, node) in nodes.iter().enumerate() {
        let (first, end) = (16_384 * index / masters, 16_384 * (index + 1) / masters);
        node.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
        node.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
        node.ask(&format!("CLUSTER MEET 127.0.0.1 {} {}", nodes[0].port, buses[0]));
    }
    let began = Instant::now();
    let known = format!("cluster_known_nodes:{masters}\r");
    while !nodes.iter().all(|node| {
        let info = node.ask("CLUSTER INFO");
        info.contains("cluster_state:ok") && info.contains(&known) && info.contains("cluster_slots_ok:16384")
    }) {
        assert!(began.elapsed() < Duration::from_secs(30), "the cluster does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(nodes)
}

/// The work of reserving.
fn reserve_with(store: Arc<RedisStore>, requests: Arc<Vec<Request>>) -> Work {
    work(move |index| {
        let (store, requests) = (Arc::clone(&store), Arc::clone(&requests));
        async move {
            let ReserveRequest { now, charges, .. } = requests[index].borrow();
            let outcome = store.reserve(&ReserveRequest::new(next_id(), now, charges)).await.unwrap();
            assert!(matches!(outcome, Outcome::Granted(_)), "there is room");
        }
    })
}

/// Creates the future of the unit of work with an index.
type Work = Arc<dyn Fn(usize) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn work<F: Future<Output = ()> + Send + 'static>(make: impl Fn(usize) -> F + Send + Sync + 'static) -> Work {
    Arc::new(move |index| Box::pin(make(index)))
}

/// Does `units` units of work in `count` concurrent tasks, and returns how long they took.
async fn run_tasks(count: u64, units: u64, work: &Work) -> Duration {
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
    // If the units do not divide evenly, the tasks do a few more. Their share of the time does not
    // count.
    began.elapsed().mul_f64(units as f64 / (share * count) as f64)
}

/// The data of the contenders with the same limits.
struct Setup {
    store: Arc<RedisStore>,
    scripts: Arc<DirectScripts>,
    limiter: Arc<AsyncRateLimiter>,
    requests: Arc<Vec<Request>>,
    grants: Arc<Vec<String>>,
}

impl Setup {
    fn new(server: &Server, runtime: &Runtime, limits: Limits) -> Self {
        let store = Arc::new(RedisStore::builder(server.url()).max_skew(UNLIMITED_SKEW).build().unwrap());
        let callers: Vec<_> = (0..CALLERS).map(Caller::new).collect();
        let recorder = RequestRecorder::new(limits);
        let requests: Vec<_> = callers.iter().map(|caller| recorder.request_of(caller)).collect();
        let grants = callers.into_iter().map(|caller| caller.grant).collect();
        let limiter = runtime.block_on(async {
            let storage = AsyncRedisStorage::new(&server.url()).await.unwrap();
            let limiter = AsyncRateLimiter::new_with_storage(Box::new(storage));
            for limit in peer::limits(limits.counters()) {
                limiter.add_limit(limit);
            }
            limiter
        });
        let scripts = runtime.block_on(DirectScripts::new(server, &requests));
        Self {
            store,
            scripts: Arc::new(scripts),
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
                let ReserveRequest { now, charges, .. } = requests[index].borrow();
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

    fn direct(&self, settles: bool) -> Work {
        let scripts = Arc::clone(&self.scripts);
        work(move |index| {
            let scripts = Arc::clone(&scripts);
            async move {
                let id = next_id().get().to_be_bytes();
                let calls = &scripts.calls[index];
                assert!(matches!(scripts.send(&calls.reserve, &id).await, Value::BulkString(_)));
                if settles {
                    assert!(matches!(scripts.send(&calls.settle, &id).await, Value::Array(_)));
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

/// Direct calls of the store's scripts, with prepared arguments.
struct DirectScripts {
    connection: MultiplexedConnection,
    calls: Vec<ScriptCalls>,
}

struct ScriptCalls {
    reserve: ScriptCall,
    settle: ScriptCall,
}

/// A call of a script, without the key of its record.
struct ScriptCall {
    hash: String,
    keys: Vec<Vec<u8>>,
    step: [u8; 4],
    arguments: Vec<Vec<u8>>,
}

impl DirectScripts {
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
        let calls = requests.iter().map(|request| ScriptCalls::new(&hashes, &request.borrow())).collect();
        Self { connection, calls }
    }

    async fn send(&self, call: &ScriptCall, id: &[u8]) -> Value {
        let mut cmd = Cmd::with_capacity(8, 512);
        cmd.arg("EVALSHA").arg(&call.hash).arg(call.keys.len() + 1).arg(&call.keys);
        cmd.arg([b"{bare}:r:", id, &call.step].concat());
        cmd.arg(&call.arguments);
        self.connection.clone().send_packed_command(&cmd).await.unwrap()
    }
}

impl ScriptCalls {
    fn new(hashes: &[String], request: &ReserveRequest<'_>) -> Self {
        let ReserveRequest { now, charges, .. } = *request;
        let numbers = |numbers: &[f64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let text = |doubles: &[f64], millis: u64| [numbers(doubles), millis.to_string().into_bytes()].concat();
        let generation = [1; 8];
        let head = |doubles: &[f64]| [&*numbers(doubles), &generation, b"60000"].concat();
        let (now, day) = (now.unix_micros() as f64, 86_400e6);
        let keys: Vec<_> = charges
            .iter()
            .map(|charge| [b"{bare}:c:", &charge.counter.as_bytes()[..], charge.subject.as_bytes()].concat())
            .collect();
        let (mut reserve, mut settle) =
            (vec![head(&[1.0, now, 1e3 * day, 1e3 * day, 0.0])], vec![head(&[now, 1e3 * day, 1e3 * day])]);
        for charge in charges {
            let toolgate::charge::Meter::Fixed(window) = charge.meter else { panic!("a fixed window") };
            let (start, seconds) =
                (window.start.unix_micros() as f64, (window.end.unix_seconds() - window.start.unix_seconds()) as f64);
            let max = charge.max.unwrap().micros() as f64 / 1e6;
            let expires = ((start + 1e3 * day) / 1e3 + seconds * 1e3) as u64;
            reserve.push(text(&[0.0, 1.0, 0.0, max, 0.0, start, seconds, 0.0, 0.0], expires));
            settle.push([&*numbers(&[0.0, start, seconds, 0.0, 1.0, 0.0, 0.0, 0.0]), &generation].concat());
        }
        let call = |hash: &String, step: u32, arguments| {
            let (hash, keys) = (hash.clone(), keys.clone());
            ScriptCall { hash, keys, step: step.to_be_bytes(), arguments }
        };
        Self { reserve: call(&hashes[0], 0, reserve), settle: call(&hashes[1], 1, settle) }
    }
}

/// A Redis server on a free port of the loopback interface, killed on drop.
struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    fn start_with(options: &[&str]) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // A node of a cluster writes what it knows of the others.
        let folder = std::env::temp_dir().join(format!("toolgate-bench-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let mut command = Command::new("redis-server");
        let child = command.args(arguments).arg("--dir").arg(&folder).args(options).stdout(Stdio::null()).spawn();
        let Ok(child) = child else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "redis-server must be on the PATH");
            println!("\nredis: skipped, because redis-server is not on the PATH");
            return None;
        };
        let server = Self { child, port, folder };
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

    /// Sends a command of words.
    fn ask(&self, command: &str) -> String {
        let mut connection = Client::open(self.url()).unwrap().get_connection().unwrap();
        let mut cmd = Cmd::new();
        cmd.arg(command.split(' ').collect::<Vec<_>>());
        cmd.query(&mut connection).unwrap()
    }

    /// Returns the seconds of a processor that the server has used to serve commands.
    fn processor_time(&self) -> f64 {
        let info = self.ask("INFO cpu");
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse::<f64>();
        field("used_cpu_user_main_thread:").unwrap() + field("used_cpu_sys_main_thread:").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
