//! Two processes share one budget, counted in Redis: together they make exactly as many calls as it
//! allows.
//!
//! ```sh
//! cargo run --features redis --example shared_budget                       # starts a redis-server
//! cargo run --features redis --example shared_budget -- redis://127.0.0.1  # uses one that runs
//! ```

use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use toolgate::store::redis::RedisStore;
use toolgate::{Decision, Gate, Policy, ToolCall};

const BUDGET: u64 = 1_000;
const TASKS: usize = 8;
/// The first argument of the second process, before the URL and the namespace.
const SECOND: &str = "--second-process";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [SECOND, url, namespace] = *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        println!("{}", spend(url, namespace).await?);
        return Ok(());
    }
    let server = if arguments.is_empty() { Some(Server::start()?) } else { None };
    let url = server.as_ref().map(|server| &server.url).or(arguments.first()).ok_or("no URL")?;
    // This run has counters of its own, also on a server that others use.
    let namespace = format!("run-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    println!("a budget of {BUDGET} calls a day, two processes of {TASKS} tasks each");

    let second = Command::new(std::env::current_exe()?)
        .args([SECOND, url, &namespace])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let first = spend(url, &namespace).await?;
    let output = tokio::task::spawn_blocking(move || second.wait_with_output()).await??;
    let second: u64 = String::from_utf8(output.stdout)?.trim().parse().map_err(|_| "the second process failed")?;

    println!("the first process made  {first:>5}");
    println!("the second process made {second:>5}");
    println!("together                {:>5}", first + second);
    if first + second == BUDGET { Ok(()) } else { Err("this is not the budget".into()) }
}

/// Makes calls until the budget is spent, and returns their number.
async fn spend(url: &str, namespace: &str) -> Result<u64, Box<dyn Error>> {
    let policy: Policy = json!({
        "version": "1",
        "default": "deny",
        "tools": {
            "send_email": { "limits": [{ "counter": "emails", "window": "day", "max": BUDGET, "scope": "grant" }] }
        }
    })
    .to_string()
    .parse()?;
    let store = RedisStore::builder(url).build()?;
    let gate = Gate::builder().policy(policy.with_namespace(namespace)).store_async(store).build();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let gate = gate.clone();
            tokio::spawn(async move {
                let arguments = json!({ "to": "someone@example.com" });
                let call = ToolCall::new("send_email", &arguments).grant("g-42");
                let mut made = 0;
                loop {
                    match gate.check(&call).await {
                        // The host makes the call here, and then ends the permit.
                        Decision::Allow(_permit) => made += 1,
                        Decision::RateLimit(_) => return Ok(made),
                        refused => return Err(refused.message().unwrap_or_default().to_owned()),
                    }
                }
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += task.await??;
    }
    Ok(made)
}

/// A Redis server that ends with this run.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Result<Self, Box<dyn Error>> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|_| "redis-server is not on the PATH: install it, or pass the URL of a server")?;
        let server = Self { child, url: format!("redis://{address}") };
        for _ in 0..500 {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("redis-server does not start".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
