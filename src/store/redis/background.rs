//! Requests that nobody waits for: the end of a call whose permit was dropped, and a reservation
//! whose caller has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{Cmd, Value};

use super::Counters;
use crate::amount::Amount;
use crate::charge::Charge;
use crate::redis::Retry;
use crate::store::{ChargeChange, ChargedAt, Outcome, ReservationId, ReserveRequest, SettleRequest};
use crate::time::Timestamp;

/// At most this many requests are on their way. Past it what they would free is held until its
/// lease ends.
const MOST: usize = 1_024;

impl Counters {
    /// Runs a request that nobody waits for, if there is a runtime.
    fn run_in_background<F>(self: &Arc<Self>, request: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(runtime) = self.connection.runtime() else { return };
        let Some(place) = Place::take(self) else { return };
        let request = request(Arc::clone(self));
        runtime.spawn(async move {
            request.await;
            drop(place);
        });
    }

    /// Frees units in flight.
    pub(super) fn abandon(self: &Arc<Self>, request: &SettleRequest<'_>) {
        let made: Vec<(Charge, ChargedAt)> =
            request.charges.iter().map(|change| (change.charge.clone(), change.at)).collect();
        let (id, step, now) = (request.id, request.step, request.now);
        self.run_in_background(|counters| async move {
            let changes: Vec<_> =
                made.iter().map(|(charge, at)| ChargeChange::new(charge, *at, Amount::ZERO)).collect();
            // If it fails, their leases end.
            let _ = counters.change(&SettleRequest::new(id, step, now, &changes)).await;
        });
    }

    /// Takes back the charges of a reservation, if it was made.
    async fn take_back(&self, id: ReservationId, now: Timestamp, charges: &[Charge]) {
        for part in self.parts(charges) {
            let mut look = Cmd::new();
            look.arg("MGET").arg(self.keys.record(part.tag, id, 0));
            // If it fails, what was charged stays charged.
            let Ok(Value::Array(mut found)) = self.connection.send(Retry::Idempotent, &look).await else { continue };
            let Some(record @ Value::BulkString(_)) = found.pop() else { continue };
            let Ok(Outcome::Granted(tallies)) = self.bound.reserved(record, &part.charges, now) else { continue };
            self.give_back(&part, &tallies, id, 1, now).await;
        }
    }
}

/// A place among the requests that are on their way.
struct Place(Arc<Counters>);

impl Place {
    fn take(counters: &Arc<Counters>) -> Option<Self> {
        let place = Self(Arc::clone(counters));
        // One that is dropped gives back what was added here.
        (counters.in_background.fetch_add(1, Ordering::Relaxed) < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_background.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A counter of requests on their way.
pub(super) type InBackground = AtomicUsize;

/// A reservation that is waiting for its answer. If it is dropped before, nobody makes the call,
/// and what was charged is taken back.
pub(super) struct Waiting<'r> {
    counters: &'r Arc<Counters>,
    request: &'r ReserveRequest<'r>,
    is_answered: bool,
}

impl<'r> Waiting<'r> {
    pub(super) fn new(counters: &'r Arc<Counters>, request: &'r ReserveRequest<'r>) -> Self {
        Self { counters, request, is_answered: false }
    }

    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_answered || self.request.charges.is_empty() {
            return;
        }
        let (id, now, charges) = (self.request.id, self.request.now, self.request.charges.to_vec());
        self.counters.run_in_background(|counters| async move { counters.take_back(id, now, &charges).await });
    }
}
