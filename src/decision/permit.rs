//! Leave to make one call, and what becomes of its quota.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::amount::Amount;
use crate::approval::{Answer as ApprovalAnswer, ApprovalError, ApprovalId, Claim};
use crate::charge::Meter;
use crate::decision::limit_state::LimitState;
use crate::policy::{Plan, Policy};
use crate::store::{Answer, ChargeChange, ReservationId, SettleRequest, StoreError, Tallies};
use crate::time::Timestamp;

/// Leave to make one call, whose quota is already spent.
///
/// Keep it until the call has ended. Dropping it leaves the quota spent, which errs on the safe side: a call that failed
/// half-way may have done its work. [`release`](Self::release) it when it certainly did not; [`settle`](Self::settle) it when
/// the call turned out to cost more or less. What limits `in_flight` hold is free when the permit is dropped or released.
#[must_use = "keep the permit until the call has ended; dropping it leaves its quota spent"]
pub struct Permit {
    /// None for a call that nothing counts.
    held: Option<Reservation<dyn PermitBackend>>,
    settled: bool,
    watch: Option<Box<PermitObservers>>,
}

/// Leave to make one call, whose quota is already spent, in a store across a network.
///
/// As a [`Permit`], but its verbs are answered later. Dropping it does no I/O: what limits `in_flight` hold in a store across
/// a network stays held until the lease ends, so [`end`](Self::end) it. (A store [in the
/// process](crate::store::InProcess) gives it free at once.)
#[must_use = "keep the permit until the call has ended, then end it; dropping it leaves its quota spent"]
pub struct AsyncPermit {
    /// None for a call that nothing counts. Boxed: a permit goes through many hands, and each of them would copy it.
    held: Option<Box<Reservation<dyn AsyncPermitBackend>>>,
    settled: bool,
    watch: Option<Box<PermitObservers>>,
}

/// A permit could not be settled. It stays as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// It was settled before: a call has one real amount.
    #[error("the permit has been settled already")]
    AlreadySettled,
    /// The store cannot tell. Settle it again, at the same amount and soon: a store that had heard of it counts it once, as long
    /// as it remembers.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a permit has charged.
pub(crate) struct Reservation<G: ?Sized> {
    pub(crate) backend: Arc<G>,
    pub(crate) id: ReservationId,
    pub(crate) plan: Plan,
    pub(crate) tallies: Tallies,
    /// The use that it makes of an approval. Boxed, as it is rare.
    pub(crate) claim: Option<Box<Claim>>,
}

/// Which of a reservation's settlements a request is. Giving back and settling share one number, as only one of them may be
/// done: a store that has settled, though its reply was lost, gives nothing back after that. The end of a call has its own, so
/// that it is done whatever became of a settlement.
#[derive(Clone, Copy)]
enum Step {
    Settle = 1,
    End = 2,
}

/// What every backend knows: the policy that was in force, and the time.
pub(crate) trait IssuedUnder {
    fn policy(&self) -> Option<&Policy>;
    fn now(&self) -> Timestamp;
}

/// What granted a permit, as far as the permit knows it.
pub(crate) trait PermitBackend: IssuedUnder + Send + Sync {
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError>;
    fn restore(&self, claim: &Claim) -> Result<(), ApprovalError>;
}

pub(crate) trait AsyncPermitBackend: IssuedUnder + Send + Sync {
    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> Answer<'a, ()>;
    fn restore<'a>(&'a self, claim: &'a Claim) -> ApprovalAnswer<'a, bool>;
    fn abandon(&self, request: &SettleRequest<'_>);
}

/// What becomes of an allowed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// Its quota is given back.
    Release,
    /// It is settled at this amount.
    Settle(Amount),
    /// It has ended.
    End,
}

/// Somebody who wants to know what becomes of an allowed call. When it is dropped without having heard of a release or an end, the
/// permit was dropped.
pub(crate) trait PermitObserver: Send + Sync {
    /// The store is being asked.
    fn begin(&mut self, fate: Completion);
    /// The store has answered what began last.
    fn done(&mut self, failure: Option<&(dyn Error + 'static)>);
}

/// All who want to know what becomes of one call.
pub(crate) struct PermitObservers(pub(crate) Vec<Box<dyn PermitObserver>>);

fn begin(watch: &mut Option<Box<PermitObservers>>, fate: Completion) {
    if let Some(watch) = watch {
        watch.0.iter_mut().for_each(|witness| witness.begin(fate));
    }
}

fn done<E: Error + 'static>(watch: &mut Option<Box<PermitObservers>>, outcome: &Result<(), E>) {
    if let Some(watch) = watch {
        let failure = outcome.as_ref().err().map(|error| error as _);
        watch.0.iter_mut().for_each(|witness| witness.done(failure));
    }
}

/// Leave of either kind, to ask how its limits stand.
pub trait Leave: sealed::Sealed {
    /// How the limits that apply to the call stood after it was charged, in document order. Allocates.
    fn limits(&self) -> Vec<LimitState>;
}

mod sealed {
    use crate::approval::ApprovalId;

    pub trait Sealed {
        /// The approval that the call uses.
        fn approval_id(&self) -> Option<ApprovalId>;
    }

    impl Sealed for super::Permit {
        fn approval_id(&self) -> Option<ApprovalId> {
            self.held.as_ref()?.approval_id()
        }
    }

    impl Sealed for super::AsyncPermit {
        fn approval_id(&self) -> Option<ApprovalId> {
            self.held.as_ref()?.approval_id()
        }
    }
}

type Changes<'h> = SmallVec<[ChargeChange<'h>; 4]>;

impl<G: IssuedUnder + ?Sized> Reservation<G> {
    fn approval_id(&self) -> Option<ApprovalId> {
        self.claim.as_ref().map(|claim| *claim.approval())
    }

    fn limits(&self) -> Vec<LimitState> {
        let policy = self.backend.policy();
        policy.map_or_else(Vec::new, |policy| LimitState::all(policy, &self.plan.limits, &self.tallies))
    }

    /// The charges that change, with what they become.
    fn changes(&self, to: impl Fn(usize) -> Option<Amount>) -> Changes<'_> {
        let charges = self.plan.charges.iter().zip(&self.tallies).enumerate();
        charges
            .filter_map(|(index, (charge, tally))| Some(ChargeChange::new(charge, tally.charged_at, to(index)?)))
            .collect()
    }

    /// Gives everything back, or after a settlement what is in flight.
    fn given_back(&self, settled: bool) -> (Step, Changes<'_>) {
        if settled { (Step::End, self.ended()) } else { (Step::Settle, self.changes(|_| Some(Amount::ZERO))) }
    }

    /// The use of an approval that is to be handed back, because the call was certainly not made. One that was settled was made.
    fn unused(&self, settled: bool) -> Option<&Claim> {
        self.claim.as_deref().filter(|_| !settled)
    }

    /// Gives back what is in flight.
    fn ended(&self) -> Changes<'_> {
        let in_flight =
            |index: usize| matches!(self.plan.charges.get(index)?.meter, Meter::InFlight { .. }).then_some(());
        self.changes(|index| in_flight(index).map(|()| Amount::ZERO))
    }

    fn has_in_flight(&self) -> bool {
        self.plan.charges.iter().any(|charge| matches!(charge.meter, Meter::InFlight { .. }))
    }

    /// What each charge is at the real amount.
    fn settled(&self, real: Amount) -> SmallVec<[Amount; 4]> {
        self.backend.policy().map_or_else(SmallVec::new, |policy| self.plan.settled(policy, real))
    }

    fn at_amounts(&self, amounts: &[Amount]) -> Changes<'_> {
        let before = |index: usize| self.plan.charges.get(index).map(|charge| charge.amount);
        self.changes(|index| amounts.get(index).copied().filter(|amount| before(index) != Some(*amount)))
    }

    fn request<'c>(&self, step: Step, charges: &'c [ChargeChange<'c>]) -> SettleRequest<'c> {
        SettleRequest::new(self.id, step as u32, self.backend.now(), charges)
    }

    /// Notes that the store has settled the charges.
    fn note(&mut self, amounts: &[Amount]) {
        for (charge, amount) in self.plan.charges.iter_mut().zip(amounts) {
            charge.amount = *amount;
        }
    }
}

impl Permit {
    pub(crate) fn counted(held: Reservation<dyn PermitBackend>) -> Self {
        Self { held: Some(held), settled: false, watch: None }
    }

    pub(crate) fn uncounted() -> Self {
        Self { held: None, settled: false, watch: None }
    }

    pub(crate) fn watch(&mut self, watch: PermitObservers) {
        self.watch = Some(Box::new(watch));
    }

    /// Gives the quota back, because the call was certainly not made: in the very windows that were charged, and once. If the
    /// store cannot be reached the quota stays spent; [`try_release`](Self::try_release) says so.
    pub fn release(self) {
        // Spent is the safe side.
        let _ = self.try_release();
    }

    /// Gives the quota back, and says whether the store could do it. A permit that was settled keeps its real amount; only
    /// what is in flight is given free. An approval that the call has used may be used again, if it has not expired.
    ///
    /// # Errors
    /// The store failed; the quota stays spent until its windows end, or the approval used.
    pub fn try_release(mut self) -> Result<(), StoreError> {
        begin(&mut self.watch, Completion::Release);
        let released = self.held.take().map_or(Ok(()), |held| {
            let (step, changes) = held.given_back(self.settled);
            let given_back = settle(&held, step, &changes);
            // The one does not wait for the other: the call was not made, whether its quota can be given back or not.
            let handed_back = held.unused(self.settled).map_or(Ok(()), |claim| held.backend.restore(claim));
            given_back.and(handed_back.map_err(unavailable))
        });
        done(&mut self.watch, &released);
        released
    }

    /// Puts the real amount, now that it is known, in place of what limits with `amount_from` charged, in the very windows
    /// that were charged. More than was left is recorded whole, and refuses later calls. Other limits stay, and so does what
    /// is in flight.
    ///
    /// # Errors
    /// It was settled before, or the store failed; nothing is changed then.
    pub fn settle(&mut self, real: Amount) -> Result<(), SettleError> {
        if self.settled {
            return Err(SettleError::AlreadySettled);
        }
        begin(&mut self.watch, Completion::Settle(real));
        let settled = self.held.as_mut().map_or(Ok(()), |held| -> Result<(), StoreError> {
            let amounts = held.settled(real);
            settle(held, Step::Settle, &held.at_amounts(&amounts))?;
            held.note(&amounts);
            Ok(())
        });
        self.settled = settled.is_ok();
        done(&mut self.watch, &settled);
        Ok(settled?)
    }

    /// Whether it was settled.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The call has ended, and its quota stays spent; what limits `in_flight` hold is free. The same as dropping the permit.
    pub fn end(self) {
        drop(self);
    }

    /// Notes the approval that the call uses.
    pub(crate) fn claim(&mut self, claim: Claim) {
        if let Some(held) = &mut self.held {
            held.claim = Some(Box::new(claim));
        }
    }

    /// Whether anything counts the call.
    #[cfg(feature = "replay")]
    pub(crate) fn is_counted(&self) -> bool {
        self.held.is_some()
    }

    /// How the limits that apply to the call stood after it was charged, in document order. Allocates.
    pub fn limits(&self) -> Vec<LimitState> {
        self.held.as_ref().map_or_else(Vec::new, Reservation::limits)
    }
}

/// The approvals cannot tell.
fn unavailable(error: ApprovalError) -> StoreError {
    StoreError::Unavailable(Some(Box::new(error)))
}

fn settle(held: &Reservation<dyn PermitBackend>, step: Step, changes: &[ChargeChange<'_>]) -> Result<(), StoreError> {
    if changes.is_empty() { Ok(()) } else { held.backend.settle(&held.request(step, changes)) }
}

/// Gives free what is in flight.
impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(held) = self.held.as_ref().filter(|held| held.has_in_flight()) {
            // A lease frees what this cannot.
            let _ = settle(held, Step::End, &held.ended());
        }
    }
}

impl AsyncPermit {
    pub(crate) fn counted(held: Reservation<dyn AsyncPermitBackend>) -> Self {
        Self { held: Some(Box::new(held)), settled: false, watch: None }
    }

    /// Notes the approval that the call uses.
    pub(crate) fn claim(&mut self, claim: Claim) {
        if let Some(held) = &mut self.held {
            held.claim = Some(Box::new(claim));
        }
    }

    pub(crate) fn uncounted() -> Self {
        Self { held: None, settled: false, watch: None }
    }

    pub(crate) fn watch(&mut self, watch: PermitObservers) {
        self.watch = Some(Box::new(watch));
    }

    /// Gives the quota back, because the call was certainly not made: in the very windows that were charged, and once. A permit
    /// that was settled keeps its real amount; only what is in flight is given free. An approval that the call has used may be
    /// used again, if it has not expired.
    ///
    /// # Errors
    /// The store failed; the quota stays spent until its windows end, or the approval used.
    pub async fn release(mut self) -> Result<(), StoreError> {
        begin(&mut self.watch, Completion::Release);
        let mut released = Ok(());
        if let Some(held) = self.held.take() {
            let (step, changes) = held.given_back(self.settled);
            let given_back = settle_async(&held, step, &changes).await;
            let handed_back = match held.unused(self.settled) {
                Some(claim) => held.backend.restore(claim).await.map(drop),
                None => Ok(()),
            };
            released = given_back.and(handed_back.map_err(unavailable));
        }
        done(&mut self.watch, &released);
        released
    }

    /// Puts the real amount in place of what was charged, as [`Permit::settle`] does.
    ///
    /// # Errors
    /// It was settled before, or the store failed; nothing is changed then, as far as the store knows.
    pub async fn settle(&mut self, real: Amount) -> Result<(), SettleError> {
        if self.settled {
            return Err(SettleError::AlreadySettled);
        }
        begin(&mut self.watch, Completion::Settle(real));
        let mut settled = Ok(());
        if let Some(held) = &mut self.held {
            let amounts = held.settled(real);
            settled = settle_async(held, Step::Settle, &held.at_amounts(&amounts)).await;
            if settled.is_ok() {
                held.note(&amounts);
            }
        }
        self.settled = settled.is_ok();
        done(&mut self.watch, &settled);
        Ok(settled?)
    }

    /// Whether it was settled.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The call has ended, and its quota stays spent; what limits `in_flight` hold is free.
    ///
    /// # Errors
    /// The store failed; what is in flight is free when its lease ends.
    pub async fn end(mut self) -> Result<(), StoreError> {
        begin(&mut self.watch, Completion::End);
        let mut ended = Ok(());
        if let Some(held) = self.held.take() {
            ended = settle_async(&held, Step::End, &held.ended()).await;
        }
        done(&mut self.watch, &ended);
        ended
    }

    /// How the limits that apply to the call stood after it was charged, in document order. Allocates.
    pub fn limits(&self) -> Vec<LimitState> {
        self.held.as_ref().map_or_else(Vec::new, |held| held.limits())
    }
}

async fn settle_async(
    held: &Reservation<dyn AsyncPermitBackend>,
    step: Step,
    changes: &[ChargeChange<'_>],
) -> Result<(), StoreError> {
    if changes.is_empty() { Ok(()) } else { held.backend.settle(&held.request(step, changes)).await }
}

/// Gives free what is in flight, if the store is in the process.
impl Drop for AsyncPermit {
    fn drop(&mut self) {
        if let Some(held) = self.held.as_ref().filter(|held| held.has_in_flight()) {
            let ended = held.ended();
            held.backend.abandon(&held.request(Step::End, &ended));
        }
    }
}

impl Leave for Permit {
    fn limits(&self) -> Vec<LimitState> {
        Self::limits(self)
    }
}

impl Leave for AsyncPermit {
    fn limits(&self) -> Vec<LimitState> {
        Self::limits(self)
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
