//! Permission to make one call, and what its host reports of it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::amount::Amount;
use crate::approval::{ApprovalError, ApprovalId, Claim};
use crate::charge::{Charge, Meter};
use crate::decision::limit_state::LimitState;
use crate::decision::reservation::{
    AsyncPermitBackend, IssuedUnder, PermitBackend, Reservation, Step, settle, settle_async,
};
use crate::store::StoreError;
use crate::time::Timestamp;

/// Permission to make one call, whose quota is already spent.
///
/// Keep it until the call has ended. Dropping it leaves the quota spent, which is the safe side: a
/// call that failed halfway may have done its work. [`release`](Self::release) it if the call was
/// certainly not made; [`settle`](Self::settle) it if the call cost more or less than expected.
/// Dropping or releasing it frees what `in_flight` limits hold.
#[must_use = "keep the permit until the call has ended; dropping it leaves its quota spent"]
pub struct Permit {
    /// `None` for a call that no limit counts.
    reservation: Option<Reservation<dyn PermitBackend>>,
    settled: bool,
    observers: Option<Box<PermitObservers>>,
}

/// Permission to make one call, whose quota is already spent in a store across a network.
///
/// Works as [`Permit`] does, with asynchronous methods. Dropping it waits for nothing: what
/// `in_flight` limits hold is [freed in the background](crate::store::AsyncCounterStore::abandon),
/// or by a store that cannot do that when its lease ends. [`end`](Self::end) reports a failure.
#[must_use = "keep the permit until the call has ended, then end it; dropping it leaves its quota spent"]
pub struct AsyncPermit {
    /// `None` for a call that no limit counts. Boxed because a permit is moved often, and each move
    /// would copy it.
    reservation: Option<Box<Reservation<dyn AsyncPermitBackend>>>,
    settled: bool,
    observers: Option<Box<PermitObservers>>,
}

/// The permit could not be settled. It is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// It is already settled: a call has one real amount.
    #[error("the permit is already settled")]
    AlreadySettled,
    /// The store failed. Settle again soon with the same amount: a store that did receive the first
    /// request counts it once, as long as it remembers the request.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The leases of what a permit holds in flight could not be renewed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// A lease has ended, and other calls may have taken its room. The call counts no more among
    /// those in flight.
    #[error("the lease of the call has ended, so it is not counted in flight any more")]
    LeaseEnded,
    /// The store failed. Renew again before the lease ends.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A permit of either kind, for code that serves both.
pub(crate) trait AnyPermit: Sized {
    type Backend: IssuedUnder + ?Sized;

    fn counted(reservation: Reservation<Self::Backend>) -> Self;
    fn reservation(&self) -> Option<&Reservation<Self::Backend>>;
    fn reservation_mut(&mut self) -> Option<&mut Reservation<Self::Backend>>;

    /// Releases the quota. If the store fails, the quota stays spent, which is the safe side.
    fn give_back(self) -> impl Future<Output = ()> + Send;

    /// Drops the permit without freeing what is in flight, because the call goes on: that is held
    /// until its lease ends.
    fn leave(self);

    /// Returns the longest lease of what is in flight.
    fn lease(&self) -> Option<Duration> {
        let lease = |charge: &Charge| match charge.meter {
            Meter::InFlight { lease } => Some(Duration::from_secs(lease.into())),
            _ => None,
        };
        self.reservation()?.plan.charges.iter().filter_map(lease).max()
    }

    /// Returns the digest of the policy under which the call was approved.
    fn approved_under(&self) -> Option<[u8; 32]> {
        let reservation = self.reservation()?;
        reservation.claim.as_ref()?;
        reservation.backend.policy().map(|policy| *policy.digest().as_bytes())
    }

    /// Notes the approval that the call uses.
    fn set_claim(&mut self, claim: Claim) {
        if let Some(reservation) = self.reservation_mut() {
            reservation.claim = Some(Box::new(claim));
        }
    }

    /// Returns the approval that the call uses.
    fn approval_id(&self) -> Option<ApprovalId> {
        self.reservation()?.claim.as_ref().map(|claim| *claim.approval())
    }

    /// Returns the states of the limits after the charge, in document order.
    fn limit_states(&self) -> Vec<LimitState> {
        self.reservation().map_or_else(Vec::new, Reservation::limits)
    }
}

/// How an allowed call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// Its quota is given back.
    Release,
    /// It is settled at this amount.
    Settle(Amount),
    /// It has ended.
    End,
}

/// Observes how an allowed call ends. An observer that is dropped without a release or an end
/// learns that the permit was dropped.
pub(crate) trait PermitObserver: Send + Sync {
    /// The store is about to be asked.
    fn begin(&mut self, completion: Completion);
    /// The store has answered the request that began last.
    fn done(&mut self, failure: Option<&(dyn Error + 'static)>);
}

/// All observers of one call.
pub(crate) struct PermitObservers(pub(crate) Vec<Box<dyn PermitObserver>>);

fn begin(observers: &mut Option<Box<PermitObservers>>, completion: Completion) {
    if let Some(observers) = observers {
        observers.0.iter_mut().for_each(|observer| observer.begin(completion));
    }
}

fn done<E: Error + 'static>(observers: &mut Option<Box<PermitObservers>>, outcome: &Result<(), E>) {
    if let Some(observers) = observers {
        let failure = outcome.as_ref().err().map(|error| error as _);
        observers.0.iter_mut().for_each(|observer| observer.done(failure));
    }
}

impl Permit {
    pub(crate) fn uncounted() -> Self {
        Self { reservation: None, settled: false, observers: None }
    }

    pub(crate) fn observe(&mut self, observers: PermitObservers) {
        self.observers = Some(Box::new(observers));
    }

    /// Gives the quota back, once and in the windows that were charged, because the call was
    /// certainly not made. If the store fails, the quota stays spent;
    /// [`try_release`](Self::try_release) reports that.
    pub fn release(self) {
        // Spent is the safe side.
        let _ = self.try_release();
    }

    /// Gives the quota back, and reports a failure of the store. A settled permit keeps its real
    /// amount: only what is in flight is freed. An approval that the call has used can be used
    /// again, unless it has expired.
    ///
    /// # Errors
    /// The store failed: the quota stays spent until its windows end, or the approval stays used.
    pub fn try_release(mut self) -> Result<(), StoreError> {
        begin(&mut self.observers, Completion::Release);
        let released = self.reservation.take().map_or(Ok(()), |reservation| {
            let (step, changes) = reservation.given_back(self.settled);
            let given_back = settle(&reservation, step, &changes);
            // Also if the quota could not be given back: the call was not made.
            let claim = reservation.unused(self.settled);
            let restored = claim.map_or(Ok(()), |claim| reservation.backend.restore(claim));
            given_back.and(restored.map_err(unavailable))
        });
        done(&mut self.observers, &released);
        released
    }

    /// Replaces what limits with `amount_from` charged by the real amount, in the windows that were
    /// charged. An amount above what was left is recorded in full, and stops later calls. Other
    /// limits keep their charge, and so does what is in flight. For a cost with more than six
    /// decimals, [`Amount::from_f64_up`] and [`Amount::from_number_up`] round up.
    ///
    /// # Errors
    /// The permit is already settled, or the store failed; nothing has changed.
    pub fn settle(&mut self, real: Amount) -> Result<(), SettleError> {
        if self.settled {
            return Err(SettleError::AlreadySettled);
        }
        begin(&mut self.observers, Completion::Settle(real));
        let settled = self.reservation.as_mut().map_or(Ok(()), |reservation| -> Result<(), StoreError> {
            let amounts = reservation.settled(real);
            settle(reservation, Step::Settle, &reservation.at_amounts(&amounts))?;
            reservation.note(&amounts);
            Ok(())
        });
        self.settled = settled.is_ok();
        done(&mut self.observers, &settled);
        Ok(settled?)
    }

    /// Raises what limits with `amount_from` charged to the real amount so far, while the call
    /// runs: a stream that outgrows its estimate holds what it has used. An amount below what is
    /// charged changes nothing. [`settle`](Self::settle) has the last word;
    /// the audit log has that alone.
    ///
    /// # Errors
    /// The permit is already settled, or the store failed. If the store had raised the charge
    /// before it failed, it counts too much until the permit is released or its windows end.
    pub fn settle_so_far(&mut self, real: Amount) -> Result<(), SettleError> {
        if self.settled {
            return Err(SettleError::AlreadySettled);
        }
        let Some(reservation) = &mut self.reservation else { return Ok(()) };
        let (amounts, step) = (reservation.raised(real), reservation.next_step());
        settle(reservation, step, &reservation.at_amounts(&amounts))?;
        reservation.note(&amounts);
        Ok(())
    }

    /// Renews the leases of what the call holds in flight: each ends its whole length after now.
    /// Returns the first end, or `None` if the call holds nothing in flight. A call that may take
    /// longer than its lease renews it in time, for example at half of it.
    ///
    /// # Errors
    /// A lease has ended, or the store failed.
    pub fn renew(&mut self) -> Result<Option<Timestamp>, RenewError> {
        let Some(reservation) = self.reservation.as_mut().filter(|reservation| reservation.has_in_flight()) else {
            return Ok(None);
        };
        loop {
            let (step, began, is_repeated) = reservation.renewal();
            settle(reservation, step, &reservation.renewed(began).ok_or(RenewError::LeaseEnded)?)?;
            let end = reservation.note_renewed(began);
            if !is_repeated {
                return Ok(end);
            }
        }
    }

    /// Returns `true` if the permit is settled.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Ends the call, as dropping the permit does: its quota stays spent, and what `in_flight`
    /// limits hold is freed.
    pub fn end(self) {
        drop(self);
    }

    /// Returns `true` if any limit counts the call.
    #[cfg(feature = "replay")]
    pub(crate) fn is_counted(&self) -> bool {
        self.reservation.is_some()
    }

    /// Returns the states of the limits that apply to the call, as they were after its charge, in
    /// document order. Allocates.
    pub fn limits(&self) -> Vec<LimitState> {
        self.limit_states()
    }
}

/// Turns a failure of the store of approvals into one of the counters' store.
fn unavailable(error: ApprovalError) -> StoreError {
    StoreError::unavailable(error)
}

impl AnyPermit for Permit {
    type Backend = dyn PermitBackend;

    fn counted(reservation: Reservation<dyn PermitBackend>) -> Self {
        Self { reservation: Some(reservation), settled: false, observers: None }
    }

    fn reservation(&self) -> Option<&Reservation<dyn PermitBackend>> {
        self.reservation.as_ref()
    }

    fn reservation_mut(&mut self) -> Option<&mut Reservation<dyn PermitBackend>> {
        self.reservation.as_mut()
    }

    async fn give_back(self) {
        self.release();
    }

    fn leave(mut self) {
        self.reservation = None;
    }
}

/// Frees what is in flight.
impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.as_ref().filter(|reservation| reservation.has_in_flight()) {
            // If this fails, the lease of the units ends.
            let _ = settle(reservation, Step::End, &reservation.ended());
        }
    }
}

impl AsyncPermit {
    pub(crate) fn uncounted() -> Self {
        Self { reservation: None, settled: false, observers: None }
    }

    pub(crate) fn observe(&mut self, observers: PermitObservers) {
        self.observers = Some(Box::new(observers));
    }

    /// Gives the quota back, once and in the windows that were charged, because the call was
    /// certainly not made. A settled permit keeps its real amount: only what is in flight is freed.
    /// An approval that the call has used can be used again, unless it has expired.
    ///
    /// # Errors
    /// The store failed: the quota stays spent until its windows end, or the approval stays used.
    pub async fn release(mut self) -> Result<(), StoreError> {
        begin(&mut self.observers, Completion::Release);
        let mut released = Ok(());
        if let Some(reservation) = self.reservation.take() {
            let (step, changes) = reservation.given_back(self.settled);
            let given_back = settle_async(&reservation, step, &changes).await;
            let restored = match reservation.unused(self.settled) {
                Some(claim) => reservation.backend.restore(claim).await.map(drop),
                None => Ok(()),
            };
            released = given_back.and(restored.map_err(unavailable));
        }
        done(&mut self.observers, &released);
        released
    }

    /// Replaces what was charged by the real amount, as [`Permit::settle`] does.
    ///
    /// # Errors
    /// The permit is already settled, or the store failed; as far as the store knows, nothing has
    /// changed.
    pub async fn settle(&mut self, real: Amount) -> Result<(), SettleError> {
        if self.settled {
            return Err(SettleError::AlreadySettled);
        }
        begin(&mut self.observers, Completion::Settle(real));
        let mut settled = Ok(());
        if let Some(reservation) = &mut self.reservation {
            let amounts = reservation.settled(real);
            settled = settle_async(reservation, Step::Settle, &reservation.at_amounts(&amounts)).await;
            if settled.is_ok() {
                reservation.note(&amounts);
            }
        }
        self.settled = settled.is_ok();
        done(&mut self.observers, &settled);
        Ok(settled?)
    }

    /// Raises what was charged to the real amount so far, as [`Permit::settle_so_far`] does.
    ///
    /// # Errors
    /// As for [`Permit::settle_so_far`].
    pub async fn settle_so_far(&mut self, real: Amount) -> Result<(), SettleError> {
        if self.settled {
            return Err(SettleError::AlreadySettled);
        }
        let Some(reservation) = &mut self.reservation else { return Ok(()) };
        let (amounts, step) = (reservation.raised(real), reservation.next_step());
        settle_async(reservation, step, &reservation.at_amounts(&amounts)).await?;
        reservation.note(&amounts);
        Ok(())
    }

    /// Renews the leases of what the call holds in flight, as [`Permit::renew`] does.
    ///
    /// # Errors
    /// As for [`Permit::renew`].
    pub async fn renew(&mut self) -> Result<Option<Timestamp>, RenewError> {
        let Some(reservation) = self.reservation.as_mut().filter(|reservation| reservation.has_in_flight()) else {
            return Ok(None);
        };
        loop {
            let (step, began, is_repeated) = reservation.renewal();
            settle_async(reservation, step, &reservation.renewed(began).ok_or(RenewError::LeaseEnded)?).await?;
            let end = reservation.note_renewed(began);
            if !is_repeated {
                return Ok(end);
            }
        }
    }

    /// Returns `true` if the permit is settled.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Ends the call: its quota stays spent, and what `in_flight` limits hold is freed.
    ///
    /// # Errors
    /// The store failed: what is in flight is freed when its lease ends.
    pub async fn end(mut self) -> Result<(), StoreError> {
        begin(&mut self.observers, Completion::End);
        let mut ended = Ok(());
        if let Some(reservation) = self.reservation.take() {
            ended = settle_async(&reservation, Step::End, &reservation.ended()).await;
        }
        done(&mut self.observers, &ended);
        ended
    }

    /// Returns the states of the limits that apply to the call, as they were after its charge, in
    /// document order. Allocates.
    pub fn limits(&self) -> Vec<LimitState> {
        self.limit_states()
    }
}

impl AnyPermit for AsyncPermit {
    type Backend = dyn AsyncPermitBackend;

    fn counted(reservation: Reservation<dyn AsyncPermitBackend>) -> Self {
        Self { reservation: Some(Box::new(reservation)), settled: false, observers: None }
    }

    fn reservation(&self) -> Option<&Reservation<dyn AsyncPermitBackend>> {
        self.reservation.as_deref()
    }

    fn reservation_mut(&mut self) -> Option<&mut Reservation<dyn AsyncPermitBackend>> {
        self.reservation.as_deref_mut()
    }

    async fn give_back(self) {
        let _ = self.release().await;
    }

    fn leave(mut self) {
        self.reservation = None;
    }
}

/// Frees what is in flight, if the store is in the process.
impl Drop for AsyncPermit {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.as_ref().filter(|reservation| reservation.has_in_flight()) {
            let ended = reservation.ended();
            reservation.backend.abandon(&reservation.request(Step::End, &ended));
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

impl fmt::Debug for AsyncPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncPermit").field("limits", &self.limits()).finish_non_exhaustive()
    }
}
