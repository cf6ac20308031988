//! A server that dies, stalls, loses its scripts, is full or sends nonsense: no extra call is
//! allowed, none hangs, and service resumes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use toolgate::store::redis::RedisStore;
use toolgate::store::{
    AsyncCounterStore, ChargeChange, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
};
use toolgate::{Amount, Decision, Timestamp};

use super::server::Server;
use super::{ANY_CLOCK, builder, charges, code, decide, gate, impatient, resumes, run};

const UNAVAILABLE: &str = "store_unavailable";
/// No call takes this long on the slowest machine, with a deadline of 1 s.
const HANGS: Duration = Duration::from_secs(20);

/// Returns the code of a decision, which must not hang.
async fn prompt(gate: &toolgate::AsyncGate<RedisStore>) -> String {
    tokio::time::timeout(HANGS, code(gate)).await.expect("a decision hangs")
}

#[test]
fn a_dead_server_denies_until_it_is_back() {
    let Some(mut server) = Server::start(&[]) else { return };
    server.kill();
    run(async {
        // The gate starts before the server does.
        let gate = gate(impatient(&server.url()).build().unwrap(), 3);
        assert_eq!(prompt(&gate).await, UNAVAILABLE);
        server.revive();
        resumes(&gate).await;
        server.kill();
        for _ in 0..10 {
            assert_eq!(prompt(&gate).await, UNAVAILABLE);
        }
        // The server is empty and has lost the scripts.
        server.revive();
        resumes(&gate).await;
        assert_eq!([code(&gate).await, code(&gate).await, code(&gate).await], ["allow", "allow", "rate_limited"]);
    });
}

#[test]
fn a_stalled_server_denies_in_time_and_allows_no_extra_call() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(impatient(&server.url()).build().unwrap(), 8);
        let mut allowed = 0;
        allowed += usize::from(decide(&gate).await.is_allowed());
        server.pause();
        for _ in 0..3 {
            assert_eq!(prompt(&gate).await, UNAVAILABLE);
        }
        // After these failures the server is not asked: each request would wait for its deadline.
        let began = Instant::now();
        let mut at_once = 0;
        while began.elapsed() < Duration::from_millis(150) {
            assert_eq!(prompt(&gate).await, UNAVAILABLE);
            at_once += 1;
        }
        assert!(at_once > 3, "{at_once}");
        server.resume();
        resumes(&gate).await;
        allowed += 1;
        for _ in 0..20 {
            match decide(&gate).await {
                Decision::Allow(_) => allowed += 1,
                Decision::RateLimit(_) => {}
                other => panic!("{}", other.as_str()),
            }
        }
        assert!(allowed <= 8, "{allowed}");
    });
    server.assert_every_key_expires();
}

#[test]
fn tasks_never_exceed_the_limit_while_a_server_stalls() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(impatient(&server.url()).build().unwrap(), 300);
        let tasks = (0..16).map(|_| {
            let gate = gate.clone();
            tokio::spawn(async move {
                let (mut allowed, mut denied) = (0, 0);
                for _ in 0..60 {
                    match decide(&gate).await {
                        Decision::Allow(_) => allowed += 1,
                        Decision::RateLimit(_) => {}
                        other => {
                            assert_eq!(other.as_str(), "deny");
                            denied += 1;
                            tokio::time::sleep(Duration::from_millis(40)).await;
                        }
                    }
                }
                (allowed, denied)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for _ in 0..2 {
            server.pause();
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            server.resume();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (mut allowed, mut denied) = (0, 0);
        for task in tasks {
            let (a, d) = task.await.unwrap();
            (allowed, denied) = (allowed + a, denied + d);
        }
        assert!(allowed <= 300, "{allowed}");
        assert!(denied > 0, "no call was made during a stall");
    });
}

#[test]
fn lost_scripts_are_loaded_again() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap(), 2);
        for _ in 0..2 {
            server.command::<()>(&[b"SCRIPT", b"FLUSH"]);
            let Decision::Allow(permit) = decide(&gate).await else { panic!("there is room") };
            server.command::<()>(&[b"SCRIPT", b"FLUSH"]);
            permit.release().await.unwrap();
        }
        assert_eq!([code(&gate).await, code(&gate).await, code(&gate).await], ["allow", "allow", "rate_limited"]);
        // One load for each missing script: three reservations, two settlements.
        let calls: String = server.command(&[b"INFO", b"commandstats"]);
        let loads = calls.lines().find(|line| line.starts_with("cmdstat_script|load:")).unwrap();
        assert!(loads.contains("calls=5,"), "{loads}");
    });
}

#[test]
fn a_decision_takes_one_command() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap(), 100);
        assert!(decide(&gate).await.is_allowed());
        server.command::<()>(&[b"CONFIG", b"RESETSTAT"]);
        for _ in 0..10 {
            assert!(decide(&gate).await.is_allowed());
        }
        let calls: String = server.command(&[b"INFO", b"commandstats"]);
        let scripts = calls.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
        assert!(scripts.contains("calls=10,"), "{scripts}");
        assert!(!calls.contains("cmdstat_script"), "{calls}");
    });
}

#[test]
fn a_full_server_denies_and_charges_nothing() {
    let Some(server) = Server::start(&["--maxmemory-policy", "noeviction"]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap(), 3);
        let Decision::Allow(permit) = decide(&gate).await else { panic!("there is room") };
        server.command::<()>(&[b"CONFIG", b"SET", b"maxmemory", b"1mb"]);
        let mut filler = vec![b'x'; 1 << 20];
        let mut connection = ::redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        while ::redis::cmd("SET").arg("filler").arg(&filler).exec(&mut connection).is_ok() {
            filler.extend_from_within(..);
        }
        for _ in 0..10 {
            assert_eq!(prompt(&gate).await, UNAVAILABLE);
        }
        assert!(matches!(permit.release().await, Err(StoreError::Unavailable { .. })));
        server.command::<()>(&[b"CONFIG", b"SET", b"maxmemory", b"0"]);
        assert_eq!([code(&gate).await, code(&gate).await, code(&gate).await], ["allow", "allow", "rate_limited"]);
    });
}

#[test]
fn a_replica_denies() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap(), 3);
        assert!(decide(&gate).await.is_allowed());
        server.command::<()>(&[b"REPLICAOF", b"127.0.0.1", b"1"]);
        assert_eq!(prompt(&gate).await, UNAVAILABLE);
        server.command::<()>(&[b"REPLICAOF", b"NO", b"ONE"]);
        resumes(&gate).await;
    });
}

/// A node of a cluster refuses a script whose keys are in several slots.
#[test]
fn all_keys_of_a_call_are_in_one_slot() {
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let options = ["--cluster-enabled", "yes", "--port", &port(), "--cluster-port", &port(), "--bind", "127.0.0.1"];
    let Some(server) = Server::start(&options) else { return };
    run(async {
        let gate = gate(builder(&server.url()).prefix("a:b").build().unwrap(), 2);
        // No node serves the slots yet.
        assert_eq!(prompt(&gate).await, UNAVAILABLE);
        server.command::<()>(&[b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383"]);
        resumes(&gate).await;
        let Decision::Allow(permit) = decide(&gate).await else { panic!("there is room") };
        permit.release().await.unwrap();
        assert_eq!([code(&gate).await, code(&gate).await], ["allow", "rate_limited"]);
    });
}

/// A proxy that can cut connections before they return the answer of a script.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    pub(super) async fn start(server: &Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cuts) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (socket, left) = (server.socket(), Arc::clone(&cuts));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (socket, left) = (socket.clone(), Arc::clone(&left));
                tokio::spawn(async move {
                    let server = tokio::net::UnixStream::connect(socket).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let (mut asked, mut answered) = ([0; 1 << 16], [0; 1 << 16]);
                    let mut script = false;
                    loop {
                        tokio::select! {
                            count = from_client.read(&mut asked) => match count {
                                Ok(count) if count > 0 => {
                                    script |= asked[..count].windows(7).any(|word| word == b"EVALSHA");
                                    to_server.write_all(&asked[..count]).await.unwrap();
                                }
                                _ => return,
                            },
                            count = from_server.read(&mut answered) => match count {
                                Ok(count) if count > 0 => {
                                    let one_less = |cuts: usize| cuts.checked_sub(1);
                                    let ordering = Ordering::SeqCst;
                                    if script && left.fetch_update(ordering, ordering, one_less).is_ok() {
                                        return;
                                    }
                                    to_client.write_all(&answered[..count]).await.unwrap();
                                }
                                _ => return,
                            },
                        }
                    }
                });
            }
        });
        Self { address, cuts }
    }

    pub(super) fn cut(&self, times: usize) {
        self.cuts.store(times, Ordering::SeqCst);
    }

    /// Returns how many connections are still to be cut.
    pub(super) fn left(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

#[test]
fn a_repeated_request_counts_once() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let proxy = Proxy::start(&server).await;
        let store = builder(&format!("redis://{}", proxy.address)).max_skew(ANY_CLOCK).build().unwrap();
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let charges = charges(3, "g");
        let request = |id| ReserveRequest::new(ReservationId::new(id), now, &charges);
        let used = async || {
            let outcome = AsyncCounterStore::peek(&store, &request(0)).await.unwrap();
            outcome.tallies().iter().map(|tally| tally.used.micros() / 1_000_000).collect::<Vec<_>>()
        };
        let reserve = async |id| AsyncCounterStore::reserve(&store, &request(id)).await;
        let Outcome::Granted(tallies) = reserve(1).await.unwrap() else { panic!("there is room") };
        let settled: Vec<_> =
            charges.iter().zip(&tallies).map(|(c, t)| ChargeChange::new(c, t.charged_at, Amount::ZERO)).collect();
        let settle = async |id, step| {
            let request = SettleRequest::new(ReservationId::new(id), step, now, &settled);
            AsyncCounterStore::settle(&store, &request).await
        };
        settle(1, 1).await.unwrap();
        assert_eq!(used().await, [0; 3]);

        proxy.cut(1);
        let outcome = reserve(2).await.unwrap();
        assert_eq!(proxy.cuts.load(Ordering::SeqCst), 0, "the answer was lost");
        assert!(matches!(&outcome, Outcome::Granted(tallies) if tallies[2].used.micros() == 1_000_000), "{outcome:?}");
        assert_eq!(used().await, [1; 3]);

        // Both answers are lost: the outcome is unknown, so the call is denied, and the charge
        // stays, once.
        proxy.cut(2);
        assert!(matches!(reserve(3).await, Err(StoreError::Unavailable { .. })));
        assert_eq!(proxy.cuts.load(Ordering::SeqCst), 0, "both answers were lost");
        assert_eq!(used().await, [2; 3]);
        assert!(matches!(reserve(3).await.unwrap(), Outcome::Granted(_)), "a repeated request is the same reservation");
        assert_eq!(used().await, [2; 3]);

        proxy.cut(1);
        settle(2, 1).await.unwrap();
        assert_eq!(used().await, [1; 3]);
        proxy.cut(2);
        assert!(settle(3, 1).await.is_err());
        assert_eq!(used().await, [0; 3]);
        settle(3, 1).await.unwrap();
        assert_eq!(used().await, [0; 3]);

        // Up to the maximum.
        for id in 10..20 {
            proxy.cut(1);
            assert!(matches!(reserve(id).await.unwrap(), Outcome::Granted(_)), "{id}");
        }
        proxy.cut(1);
        assert!(matches!(reserve(20).await.unwrap(), Outcome::Refused(_)));
        // An earlier grant is repeated, though the budget is spent.
        assert!(matches!(reserve(19).await.unwrap(), Outcome::Granted(_)));
    });
    server.assert_every_key_expires();
}

/// Starts a server that answers every command with the same bytes.
pub(super) fn constant_server(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut asked = [0; 1 << 16];
                while let Ok(count @ 1..) = stream.read(&mut asked) {
                    let commands = 1 + asked[..count].windows(3).filter(|word| word == b"\r\n*").count();
                    if answer.is_empty() || stream.write_all(&answer.repeat(commands)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_nonsense_answer_denies() {
    let bulk = |body: &[u8]| [format!("${}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat();
    let granted = |numbers: [f64; 8]| {
        let numbers = numbers.map(f64::to_le_bytes).concat();
        bulk(&[b"F", &numbers[..32], &[0; 8], b"S", &numbers[32..], &[0; 8]].concat())
    };
    let large = 8e15;
    let answers: Vec<Vec<u8>> = vec![
        // Closes the connection at once.
        vec![],
        b"garbage\r\n".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n".to_vec(),
        b"+OK\r\n".to_vec(),
        b"$-1\r\n".to_vec(),
        b"*-1\r\n".to_vec(),
        b":1\r\n".to_vec(),
        b"*0\r\n".to_vec(),
        b"*1\r\n:0\r\n".to_vec(),
        b"*1\r\n:2\r\n".to_vec(),
        b"*2\r\n:1\r\n:9\r\n".to_vec(),
        b"*2\r\n:3\r\n:-9\r\n".to_vec(),
        b"*2\r\n:0\r\n$0\r\n\r\n".to_vec(),
        // A refusal, although there is room.
        b"*3\r\n:0\r\n$0\r\n\r\n$0\r\n\r\n".to_vec(),
        b"*3\r\n:0\r\n:0\r\n:0\r\n".to_vec(),
        b"-ERR unknown command\r\n".to_vec(),
        b"-NOSCRIPT No matching script\r\n".to_vec(),
        b"-LOADING Redis is loading the dataset in memory\r\n".to_vec(),
        b"-NOAUTH Authentication required.\r\n".to_vec(),
        b"-MOVED 1 127.0.0.1:1\r\n".to_vec(),
        bulk(b""),
        bulk(b"hello"),
        bulk(&[0; 82]),
        bulk(&[0xff; 82]),
        // Grants of other calls: of no amount, of too much, of the past.
        granted([large, 86_400.0, 0.0, 0.0, large, 0.0, 0.0, 0.0]),
        granted([large, 86_400.0, 4.0, 0.0, large, 0.0, 1.0, 0.0]),
        granted([0.0, 86_400.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
    ];
    run(async {
        for answer in answers {
            let shown = answer.escape_ascii().to_string();
            let gate = gate(impatient(&format!("redis://{}", constant_server(answer))).build().unwrap(), 3);
            for _ in 0..2 {
                assert_eq!(prompt(&gate).await, UNAVAILABLE, "{shown}");
            }
        }
    });
}

#[cfg(feature = "redis-tls")]
#[test]
fn a_server_without_tls_denies_tls_clients() {
    run(async {
        let gate =
            gate(impatient(&format!("rediss://{}", constant_server(b"garbage\r\n".to_vec()))).build().unwrap(), 3);
        assert_eq!(prompt(&gate).await, UNAVAILABLE);
    });
}

/// The server accepts connections and never answers.
#[test]
fn a_silent_server_denies_without_hanging() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    run(async {
        let gate = gate(impatient(&format!("redis://{}", listener.local_addr().unwrap())).build().unwrap(), 3);
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { prompt(&gate).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), UNAVAILABLE);
        }
    });
}
