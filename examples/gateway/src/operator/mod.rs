//! The address for the people who run the gateway: approvals, usage, decisions, policies, metrics.
//!
//! Whoever may use it may approve in any name. It is guarded by a bearer token on a TCP address,
//! and by the permissions of the file on a Unix socket.

mod api;
mod guard;

use std::sync::Arc;

use axum::Router;
use sha2::{Digest, Sha256};

use crate::callers::parse_digest;
use crate::host::Host;
use crate::serve::Address;

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
    /// Makes the state of a gateway, for an address and the digests of its tokens. A TCP address
    /// without tokens gets a new one, which is logged. `reload` reads the files of the gateway again
    /// and returns a line about it.
    ///
    /// # Errors
    /// A digest is not valid.
    pub fn open(
        host: Arc<Host>,
        address: &Address,
        tokens: &[String],
        reload: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let digest = |text: &String| parse_digest(text).ok_or("operator: a digest has 64 hexadecimal digits");
        let mut digests = tokens.iter().map(digest).collect::<Result<Vec<_>, _>>()?;
        let tokens = match address {
            Address::Unix(_) => None,
            Address::Tcp(listener) => {
                let address = listener.local_addr().map_err(|error| error.to_string())?;
                if digests.is_empty() {
                    let token = new_token()?;
                    tracing::info!("operator page on http://{address}/#{token}");
                    digests.push(Sha256::digest(token).into());
                } else {
                    tracing::info!("operator page on http://{address}/");
                }
                Some(digests)
            }
        };
        Ok(Self(Arc::new(Inner { host, tokens, reload: Box::new(reload) })))
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

/// Returns a token that nobody can guess.
fn new_token() -> Result<String, String> {
    let mut bytes = [0; 24];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| "the system has no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
