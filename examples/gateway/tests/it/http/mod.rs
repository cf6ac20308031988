//! The HTTP gateway in front of a test server, with well-behaved and faulty clients and servers.

mod bad_clients;
mod bad_servers;
mod calls;
mod client;
mod files;
mod programs;
#[cfg(feature = "redis")]
mod shared;
mod streams;
