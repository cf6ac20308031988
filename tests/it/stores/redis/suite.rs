//! The conformance suite over a real server.

use toolgate::store::conformance::Suite;
use toolgate::store::redis::RedisStore;
use toolgate::store::{AsyncCounterStore, InProcess, LeasedStore, MemoryStore};
use toolgate::{Clock, Identity, SystemClock};

use super::server::Server;
use super::{ANY_CLOCK, builder, run};

/// A repeated request gets the first answer. Few subjects are enough: how many fit depends on the
/// memory of the server.
fn suite() -> Suite {
    Suite::new(SystemClock.now()).resends(true).flood(300)
}

fn passes(store: &dyn AsyncCounterStore, suite: &Suite) {
    let passed = run(suite.run(store)).unwrap_or_else(|failures| panic!("{failures}"));
    assert_eq!(passed, suite.cases());
}

/// A store that accepts the clock of the suite.
fn store(server: &Server) -> RedisStore {
    builder(&server.url()).max_skew(ANY_CLOCK).build().unwrap()
}

#[test]
fn the_redis_store_passes_the_suite() {
    let Some(server) = Server::start(&[]) else { return };
    // The second run is over the counters that the first has left.
    passes(&store(&server), &suite());
    let partitioned = builder(&server.url()).max_skew(ANY_CLOCK).prefix("apart").partition_by(Identity::Grant);
    passes(&partitioned.build().unwrap(), &suite());
    let boxed: Box<dyn AsyncCounterStore> = Box::new(store(&server));
    passes(&boxed, &suite());
    server.assert_every_key_expires();
}

/// A node does not recognise a repeated request, since slices serve most calls.
#[test]
fn a_leased_redis_store_passes_the_suite() {
    let Some(server) = Server::start(&[]) else { return };
    passes(&LeasedStore::new(store(&server)), &suite().resends(false));
}

#[test]
fn redis_and_memory_store_agree_on_random_histories() {
    let Some(server) = Server::start(&[]) else { return };
    let store = store(&server);
    run(async {
        for seed in 0..8 {
            let memory = InProcess(MemoryStore::new());
            suite().compare(&store, &memory, seed, 400).await.unwrap_or_else(|failure| panic!("{failure}"));
        }
    });
}
