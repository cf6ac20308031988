//! The HTTP gateway in front of a test server, with well-behaved and faulty clients and servers.

mod bad_clients;
mod bad_servers;
mod calls;
mod client;
mod files;
mod identity;
mod operating;
mod programs;
#[path = "../../../../../tests/it/stores/redis/server.rs"]
#[expect(dead_code, reason = "the tests of stores use more of it")]
mod redis_server;
mod shared;
mod streams;
