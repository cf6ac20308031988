//! Calls whose counters are in several partitions: they are charged one partition after another.

use std::error::Error;
use std::fmt;

use redis::Cmd;

use super::Counters;
use super::answers::unexpected;
use super::arguments::Tag;
use crate::amount::Amount;
use crate::charge::Charge;
use crate::redis::Retry;
use crate::store::{ChargeChange, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError, Tallies, Tally};
use crate::time::Timestamp;

/// The charges of one partition, and their places in the request.
pub(super) struct Part {
    pub(super) tag: Tag,
    places: Vec<usize>,
    pub(super) charges: Vec<Charge>,
}

impl Counters {
    /// Charges partitions in the order of their tags, or looks at them. If one refuses, the charges
    /// before it are settled to zero.
    pub(super) async fn run_apart(&self, request: &ReserveRequest<'_>, charging: bool) -> Result<Outcome, StoreError> {
        let parts = self.parts(request.charges);
        let mut states = States(vec![None; request.charges.len()]);
        let mut granted: Vec<Tallies> = Vec::with_capacity(parts.len());
        let mut refused = None;
        for (index, part) in parts.iter().enumerate() {
            let own = ReserveRequest { charges: &part.charges, ..*request };
            match self.run_in(part.tag, &own, charging).await {
                Ok(Outcome::Granted(tallies)) => {
                    states.put(part, &tallies);
                    granted.push(tallies);
                }
                Ok(Outcome::Refused(tallies)) => {
                    states.put(part, &tallies);
                    refused = Some(index);
                    if charging {
                        break;
                    }
                }
                Err(error) => {
                    if charging {
                        self.undo(request, &parts, &granted).await;
                    }
                    return Err(error);
                }
            }
        }
        let Some(refused) = refused else { return states.all().map(Outcome::Granted) };
        if charging {
            self.undo(request, &parts, &granted).await;
            // The states of the others without the charges of this call.
            for part in parts.iter().enumerate().filter(|(index, _)| *index != refused).map(|(_, part)| part) {
                let own = ReserveRequest { charges: &part.charges, ..*request };
                let outcome = self.run_in(part.tag, &own, false).await?;
                states.put(part, outcome.tallies());
            }
        }
        states.all().map(Outcome::Refused)
    }

    /// Settles charges that were granted to zero. If that fails, they stay until their windows end.
    async fn undo(&self, request: &ReserveRequest<'_>, parts: &[Part], granted: &[Tallies]) {
        for (part, tallies) in parts.iter().zip(granted) {
            // Forgotten first: the same reservation, sent again, would be granted by its record
            // without a charge.
            let mut forget = Cmd::new();
            forget.arg("DEL").arg(self.keys.record(part.tag, request.id, 0));
            forget.arg(self.keys.record(part.tag, request.id, u32::MAX));
            if self.connection.send(Retry::Idempotent, &forget).await.is_err() {
                continue;
            }
            self.give_back(part, tallies, request.id, u32::MAX, request.now).await;
        }
    }

    /// Settles the charges of one partition to zero. An error leaves too much charged, never too
    /// little.
    pub(super) async fn give_back(&self, part: &Part, tallies: &Tallies, id: ReservationId, step: u32, now: Timestamp) {
        let zero = |(charge, tally): (_, &Tally)| ChargeChange::new(charge, tally.charged_at, Amount::ZERO);
        let changes: Vec<_> = part.charges.iter().zip(tallies).map(zero).collect();
        let _ = self.change_in(part.tag, &SettleRequest::new(id, step, now, &changes)).await;
    }

    /// Changes charges of several partitions: of all, even if one fails.
    pub(super) async fn change_apart(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let mut changes: Vec<_> =
            request.charges.iter().map(|change| (self.keys.tag(&change.charge.subject), *change)).collect();
        changes.sort_by_key(|(tag, _)| *tag);
        let mut result = Ok(());
        for group in changes.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((tag, _)) = group.first() else { continue };
            let own: Vec<_> = group.iter().map(|(_, change)| *change).collect();
            let changed = self.change_in(*tag, &SettleRequest { charges: &own, ..*request }).await;
            result = result.and(changed);
        }
        result
    }

    pub(super) fn parts(&self, charges: &[Charge]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (place, charge) in charges.iter().enumerate() {
            let tag = self.keys.tag(&charge.subject);
            match parts.iter_mut().find(|part| part.tag == tag) {
                Some(part) => {
                    part.places.push(place);
                    part.charges.push(charge.clone());
                }
                None => parts.push(Part { tag, places: vec![place], charges: vec![charge.clone()] }),
            }
        }
        parts.sort_by_key(|part| part.tag);
        parts
    }
}

/// The states of a request's counters, in its order.
struct States(Vec<Option<Tally>>);

impl States {
    fn put(&mut self, part: &Part, tallies: &[Tally]) {
        for (place, tally) in part.places.iter().zip(tallies) {
            if let Some(state) = self.0.get_mut(*place) {
                *state = Some(*tally);
            }
        }
    }

    fn all(self) -> Result<Tallies, StoreError> {
        self.0.into_iter().collect::<Option<_>>().ok_or_else(unexpected)
    }
}

/// A call cannot be charged in one step, which the host requires.
#[derive(Debug)]
pub(super) struct Apart;

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the counters of this call are in several partitions; give its limits scopes with the identity of the \
             partitions, or do not build the store with `in_one_partition`",
        )
    }
}

impl Error for Apart {}
