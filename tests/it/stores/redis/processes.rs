//! Many tasks of two processes share a counter, and exactly `max` calls are allowed.

use std::process::{Command, Stdio};

use toolgate::{AsyncGate, Decision};

use super::server::Server;
use super::{builder, call, decide, gate, run};

const MAX: u64 = 700;
const CALLS: usize = 600;

/// The environment variable that gives the second process the address of the server.
const URL: &str = "TOOLGATE_TEST_REDIS_URL";

/// Makes calls from several tasks at once, and returns how many are allowed.
async fn hammer(gate: &AsyncGate<toolgate::store::redis::RedisStore>) -> usize {
    let tasks = (0..20).map(|_| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let mut allowed = 0;
            for _ in 0..CALLS / 20 {
                match gate.check(&call()).await {
                    Decision::Allow(_) => allowed += 1,
                    Decision::RateLimit(_) => {}
                    other => panic!("{}", other.as_str()),
                }
            }
            allowed
        })
    });
    let mut allowed = 0;
    for task in tasks.collect::<Vec<_>>() {
        allowed += task.await.unwrap();
    }
    allowed
}

#[test]
fn two_processes_share_one_budget() {
    let Some(server) = Server::start(&[]) else { return };
    let me = std::env::current_exe().unwrap();
    let mut second = Command::new(me);
    second.args(["--exact", "stores::redis::processes::a_second_process", "--nocapture"]).env(URL, server.url());
    let second = second.stdout(Stdio::piped()).spawn().unwrap();
    let (first, refused) = run(async {
        let gate = gate(builder(&server.url()).build().unwrap(), MAX);
        let first = hammer(&gate).await;
        let output = tokio::task::spawn_blocking(|| second.wait_with_output().unwrap()).await.unwrap();
        assert!(output.status.success());
        let output = String::from_utf8(output.stdout).unwrap();
        let second: usize = output.split("allowed ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
        (first + second, !decide(&gate).await.is_allowed())
    });
    assert_eq!(first, usize::try_from(MAX).unwrap());
    assert!(refused, "the budget is spent");
    server.assert_every_key_expires();
}

/// The part of the second process. Run as a test, it does nothing.
#[test]
fn a_second_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let allowed = run(async { hammer(&gate(builder(&url).build().unwrap(), MAX)).await });
    println!("allowed {allowed};");
}
