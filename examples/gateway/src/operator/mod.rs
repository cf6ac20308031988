//! The address for the people who run the gateway: approvals, usage, decisions, policies, metrics.
//!
//! Whoever may use it may approve in any name. It is guarded by a bearer token on a TCP address,
//! and by the permissions of the file on a Unix socket.

mod api;
mod guard;

use std::sync::Arc;

use axum::Router;

use crate::host::Host;

/// The state of the operator's address.
#[derive(Clone)]
pub struct OperatorState(Arc<Inner>);

struct Inner {
    host: Arc<Host>,
    /// The SHA-256 digests of the tokens that may use the address. `None` on a Unix socket.
    tokens: Option<Vec<[u8; 32]>>,
    reload: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
}

impl OperatorState {
    /// Makes the state of a gateway. `reload` reads its files again and returns a line about it.
    pub fn new(
        host: Arc<Host>,
        tokens: Option<Vec<[u8; 32]>>,
        reload: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { host, tokens, reload: Box::new(reload) }))
    }

    /// The gateway: pending approvals, usage, callers and records of its journal, policies, tools.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Reads the files of the gateway again.
    ///
    /// # Errors
    /// The issues of the files. Everything stays as it was.
    pub fn reload(&self) -> Result<String, String> {
        (self.0.reload)()
    }
}

/// Returns all routes of the operator's address.
pub fn router(state: OperatorState) -> Router {
    let guarded = api::router().layer(axum::middleware::from_fn_with_state(state.clone(), guard::check));
    guarded.with_state(state)
}
