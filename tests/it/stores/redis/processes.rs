//! Many tasks of two processes and one counter: exactly `max` calls pass.

use std::process::{Command, Stdio};

use toolgate::{Decision, Gate};

use super::server::Server;
use super::{builder, call, decide, gate, run};

const MAX: u64 = 700;
const CALLS: usize = 600;

/// Says to the test's second process where the server is.
const URL: &str = "TOOLGATE_TEST_REDIS_URL";

/// How many calls pass, of a few tasks that make many at once.
async fn hammer(gate: &Gate<toolgate::store::redis::RedisStore>) -> usize {
    let tasks = (0..20).map(|_| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let mut allowed = 0;
            for _ in 0..CALLS / 20 {
                match gate.check_async(&call()).await {
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
    assert!(refused, "nothing is left");
    server.everything_expires();
}

/// What the second process does; as a test of its own it has nothing to do.
#[test]
fn a_second_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let allowed = run(async { hammer(&gate(builder(&url).build().unwrap(), MAX)).await });
    println!("allowed {allowed};");
}
