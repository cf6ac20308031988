//! The charges of a permit, and the requests that change them.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::limit_state::LimitState;
use crate::amount::Amount;
use crate::approval::{ApprovalError, Claim};
use crate::charge::Meter;
use crate::policy::{Plan, Policy};
use crate::store::{ChargeChange, ReservationId, SettleRequest, StoreError, StoreFuture, Tallies};
use crate::time::Timestamp;

/// The charges of a permit.
pub(crate) struct Reservation<B: ?Sized> {
    pub(crate) backend: Arc<B>,
    pub(crate) id: ReservationId,
    pub(crate) plan: Plan,
    pub(crate) tallies: Tallies,
    /// The approval that the call uses. Boxed because it is rare.
    pub(crate) claim: Option<Box<Claim>>,
    /// The state of a call that was settled or renewed while it ran. Boxed because it is rare.
    pub(crate) progress: Option<Box<Progress>>,
}

/// The requests of a call while it runs.
#[derive(Default)]
pub(crate) struct Progress {
    /// Their number.
    steps: u32,
    /// A renewal that the store has not confirmed, with its time. It may have been carried out, so
    /// it is repeated before another one.
    renewing: Option<(Step, Timestamp)>,
}

/// The number of a settlement of a reservation. Release and settlement share one number because
/// only one of them may happen: a store that has settled, even if its reply was lost, must not give
/// anything back afterwards. The end of a call has its own number, so that it happens in any case;
/// and so has each request while it runs.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Settle,
    End,
    Running(u32),
}

impl Step {
    fn number(self) -> u32 {
        match self {
            Self::Settle => 1,
            Self::End => 2,
            Self::Running(number) => number.saturating_add(3),
        }
    }
}

/// The policy under which a permit was issued, and the time.
pub(crate) trait IssuedUnder {
    fn policy(&self) -> Option<&Policy>;
    fn now(&self) -> Timestamp;
}

/// The stores behind a [`Permit`].
pub(crate) trait PermitBackend: IssuedUnder + Send + Sync {
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError>;
    fn restore(&self, claim: &Claim) -> Result<(), ApprovalError>;
}

/// The stores behind an [`AsyncPermit`].
pub(crate) trait AsyncPermitBackend: IssuedUnder + Send + Sync {
    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()>;
    fn restore<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, bool, ApprovalError>;
    fn abandon(&self, request: &SettleRequest<'_>);
}

type Changes<'r> = SmallVec<[ChargeChange<'r>; 4]>;

impl<B: ?Sized> Reservation<B> {
    #[inline]
    pub(crate) fn new(backend: Arc<B>, id: ReservationId, plan: Plan, tallies: Tallies) -> Self {
        Self { backend, id, plan, tallies, claim: None, progress: None }
    }
}

impl<B: IssuedUnder + ?Sized> Reservation<B> {
    pub(super) fn limits(&self) -> Vec<LimitState> {
        let policy = self.backend.policy();
        policy.map_or_else(Vec::new, |policy| LimitState::all(policy, &self.plan, &self.tallies))
    }

    /// Returns the charges that change, each with its new amount.
    fn changes(&self, to: impl Fn(usize) -> Option<Amount>) -> Changes<'_> {
        let charges = self.plan.charges.iter().zip(&self.tallies).enumerate();
        charges
            .filter_map(|(index, (charge, tally))| Some(ChargeChange::new(charge, tally.charged_at, to(index)?)))
            .collect()
    }

    /// Returns the changes of a release: all charges become zero; after a settlement, only those in
    /// flight do.
    pub(super) fn given_back(&self, settled: bool) -> (Step, Changes<'_>) {
        if settled { (Step::End, self.ended()) } else { (Step::Settle, self.changes(|_| Some(Amount::ZERO))) }
    }

    /// Returns the claim to restore because the call was not made. A settled call was made.
    pub(super) fn unused(&self, settled: bool) -> Option<&Claim> {
        self.claim.as_deref().filter(|_| !settled)
    }

    /// Returns the changes that free what is in flight.
    pub(super) fn ended(&self) -> Changes<'_> {
        let in_flight =
            |index: usize| matches!(self.plan.charges.get(index)?.meter, Meter::InFlight { .. }).then_some(());
        self.changes(|index| in_flight(index).map(|()| Amount::ZERO))
    }

    pub(super) fn has_in_flight(&self) -> bool {
        self.plan.charges.iter().any(|charge| matches!(charge.meter, Meter::InFlight { .. }))
    }

    /// Returns the amount of each charge, given the real amount.
    pub(super) fn settled(&self, real: Amount) -> SmallVec<[Amount; 4]> {
        self.backend.policy().map_or_else(SmallVec::new, |policy| self.plan.settled(policy, real))
    }

    pub(super) fn at_amounts(&self, amounts: &[Amount]) -> Changes<'_> {
        let before = |index: usize| self.plan.charges.get(index).map(|charge| charge.amount);
        self.changes(|index| amounts.get(index).copied().filter(|amount| before(index) != Some(*amount)))
    }

    pub(super) fn request<'c>(&self, step: Step, charges: &'c [ChargeChange<'c>]) -> SettleRequest<'c> {
        SettleRequest::new(self.id, step.number(), self.backend.now(), charges)
    }

    /// Returns the amounts after the real amount so far: no charge becomes less.
    pub(super) fn raised(&self, real: Amount) -> SmallVec<[Amount; 4]> {
        let charged = self.plan.charges.iter().map(|charge| charge.amount);
        self.settled(real).into_iter().zip(charged).map(|(to, before)| to.max(before)).collect()
    }

    fn progress(&mut self) -> &mut Progress {
        self.progress.get_or_insert_default()
    }

    /// Returns the number of the next request while the call runs.
    pub(super) fn next_step(&mut self) -> Step {
        let progress = self.progress();
        progress.steps = progress.steps.saturating_add(1);
        Step::Running(progress.steps)
    }

    /// Returns the renewal to send, and whether it was sent before and not confirmed.
    pub(super) fn renewal(&mut self) -> (Step, Timestamp, bool) {
        if let Some((step, began)) = self.progress().renewing {
            return (step, began, true);
        }
        let (step, began) = (self.next_step(), self.backend.now());
        self.progress().renewing = Some((step, began));
        (step, began, false)
    }

    /// Returns the changes that renew the leases at an instant, or `None` if one has ended.
    pub(super) fn renewed(&self, began: Timestamp) -> Option<Changes<'_>> {
        let mut changes = Changes::new();
        for (charge, tally) in self.plan.charges.iter().zip(&self.tallies) {
            let Meter::InFlight { lease } = charge.meter else { continue };
            if tally.charged_at.instant <= self.backend.now() {
                return None;
            }
            let end = began.saturating_add(Duration::from_secs(lease.into()));
            if end > tally.charged_at.instant {
                changes.push(ChargeChange::prolonged(charge, tally.charged_at, end));
            }
        }
        Some(changes)
    }

    /// Notes that the leases were renewed, and returns the first end of one.
    pub(super) fn note_renewed(&mut self, began: Timestamp) -> Option<Timestamp> {
        self.progress().renewing = None;
        let mut first: Option<Timestamp> = None;
        for (charge, tally) in self.plan.charges.iter().zip(&mut self.tallies) {
            let Meter::InFlight { lease } = charge.meter else { continue };
            let end = began.saturating_add(Duration::from_secs(lease.into())).max(tally.charged_at.instant);
            tally.charged_at.instant = end;
            first = Some(first.map_or(end, |first| first.min(end)));
        }
        first
    }

    /// Notes the amounts at which the store has settled the charges.
    pub(super) fn note(&mut self, amounts: &[Amount]) {
        for (charge, amount) in self.plan.charges.iter_mut().zip(amounts) {
            charge.amount = *amount;
        }
    }
}

pub(super) fn settle(
    reservation: &Reservation<dyn PermitBackend>,
    step: Step,
    changes: &[ChargeChange<'_>],
) -> Result<(), StoreError> {
    if changes.is_empty() { Ok(()) } else { reservation.backend.settle(&reservation.request(step, changes)) }
}

pub(super) async fn settle_async(
    reservation: &Reservation<dyn AsyncPermitBackend>,
    step: Step,
    changes: &[ChargeChange<'_>],
) -> Result<(), StoreError> {
    if changes.is_empty() { Ok(()) } else { reservation.backend.settle(&reservation.request(step, changes)).await }
}
