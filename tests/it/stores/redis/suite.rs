//! The suite that every store must pass, over a real server.

use toolgate::store::conformance::Suite;
use toolgate::store::redis::RedisStore;
use toolgate::store::{AsyncCounterStore, InProcess, LeasedStore, MemoryStore};
use toolgate::{Clock, SystemClock};

use super::server::Server;
use super::{ANY_CLOCK, builder, run};

/// Requests sent twice are answered as at first. A flood of keys is a matter of memory for the
/// server.
fn suite() -> Suite {
    Suite::new(SystemClock.now()).resends(true).flood(300)
}

fn passes(store: &dyn AsyncCounterStore, suite: &Suite) {
    let passed = run(suite.run(store)).unwrap_or_else(|failures| panic!("{failures}"));
    assert_eq!(passed, suite.cases());
}

/// One that bears that the suite tells the time.
fn store(server: &Server) -> RedisStore {
    builder(&server.url()).max_skew(ANY_CLOCK).build().unwrap()
}

#[test]
fn the_redis_store_passes_the_suite() {
    let Some(server) = Server::start(&[]) else { return };
    // Twice: the second time over what the first has left.
    passes(&store(&server), &suite());
    let boxed: Box<dyn AsyncCounterStore> = Box::new(store(&server));
    passes(&boxed, &suite());
    server.everything_expires();
}

/// A node asks the server once for each slice, and knows of no request that was sent twice.
#[test]
fn slices_of_a_servers_counters_pass_the_suite() {
    let Some(server) = Server::start(&[]) else { return };
    passes(&LeasedStore::new(store(&server)), &suite().resends(false));
}

#[test]
fn a_server_answers_random_histories_as_the_process_does() {
    let Some(server) = Server::start(&[]) else { return };
    let store = store(&server);
    run(async {
        for seed in 0..8 {
            let memory = InProcess(MemoryStore::new());
            suite().compare(&store, &memory, seed, 400).await.unwrap_or_else(|failure| panic!("{failure}"));
        }
    });
}
