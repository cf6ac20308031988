//! Gates and stores with live counters, and calls that they count.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use smallvec::SmallVec;
use toolgate::charge::{Charge, CounterId, Subject};
use toolgate::store::{
    ChargeChange, CounterStore, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError, Tally,
};
use toolgate::{Amount, Gate, Policy, Timestamp};

use crate::workload::{self, Caller, ENTRIES, Limits, Random, Ring};

/// A gate with W1 and limits, whose counters already exist for a number of callers.
pub(crate) struct GateWorkload {
    pub(crate) gate: Gate,
    pub(crate) tools: Ring<&'static str>,
    pub(crate) callers: Ring<Caller>,
    pub(crate) arguments: Value,
}

impl GateWorkload {
    pub(crate) fn new(limits: Limits, callers: usize) -> Self {
        let policy = Policy::from_json(&limits.document()).unwrap();
        let store = MemoryStore::with_capacity(limits.counters() * callers + 1);
        let gate = Gate::builder().policy(policy).store(store).build();
        let tools = workload::names(ENTRIES, workload::tool_name);
        let arguments = workload::arguments();
        each_caller(callers, |caller| {
            assert!(gate.check(&caller.call(tools.items()[0], &arguments)).is_allowed());
        });
        assert_eq!(gate.store().len(), limits.counters() * callers);
        Self { gate, tools, callers: workload::callers(callers), arguments }
    }

    /// Decides the next call and drops the permit. The charge stays.
    pub(crate) fn decide(&mut self) {
        let call = self.callers.next().call(self.tools.next(), &self.arguments);
        assert!(self.gate.check(&call).is_allowed());
    }
}

/// A [`GateWorkload`] with callers that are prepared with `Gate::caller`.
pub(crate) struct PreparedCallers {
    workload: GateWorkload,
    callers: Ring<toolgate::Caller>,
}

impl PreparedCallers {
    pub(crate) fn new(limits: Limits, callers: usize) -> Self {
        let workload = GateWorkload::new(limits, callers);
        let prepare = |caller: &Caller| {
            let caller = toolgate::Caller::new().grant(&*caller.grant).session(&*caller.session).user(&*caller.user);
            workload.gate.caller(caller)
        };
        let callers = Ring::new(workload.callers.items().iter().map(prepare).collect());
        Self { workload, callers }
    }

    /// Decides the next call, as [`GateWorkload::decide`] does.
    pub(crate) fn decide(&mut self) {
        let call = self.callers.next().call(self.workload.tools.next(), &self.workload.arguments);
        assert!(self.workload.gate.check(&call).is_allowed());
    }
}

/// A store whose counters already exist for a number of callers, and requests of some of them.
pub(crate) struct StoreWorkload {
    pub(crate) store: MemoryStore,
    pub(crate) requests: Ring<Request>,
}

/// A request that is sent repeatedly.
pub(crate) struct Request {
    id: ReservationId,
    now: Timestamp,
    charges: Vec<Charge>,
}

impl Request {
    pub(crate) fn borrow(&self) -> ReserveRequest<'_> {
        ReserveRequest::new(self.id, self.now, &self.charges)
    }

    /// Sends the request, and returns `true` if it is granted.
    #[inline]
    pub(crate) fn reserve(&self, store: &MemoryStore) -> bool {
        matches!(store.reserve(&self.borrow()), Ok(Outcome::Granted(_)))
    }
}

impl StoreWorkload {
    pub(crate) fn new(limits: Limits, callers: usize) -> Self {
        let store = MemoryStore::with_capacity(limits.counters() * callers + 1);
        let recorder = RequestRecorder::new(limits);
        each_caller(callers, |caller| {
            assert!(recorder.request_of(caller).reserve(&store));
        });
        let requests = workload::callers(callers).items().iter().map(|caller| recorder.request_of(caller)).collect();
        Self { store, requests: Ring::new(requests) }
    }

    pub(crate) fn reserve(&mut self) {
        assert!(self.requests.next().reserve(&self.store));
    }

    /// Reserves, and settles with a charge of zero, so that the counters never fill up.
    pub(crate) fn reserve_and_settle(&mut self) {
        let request = self.requests.next();
        let Ok(Outcome::Granted(tallies)) = self.store.reserve(&request.borrow()) else { panic!("there is room") };
        let charges = request.charges.iter().zip(&tallies);
        let settled: SmallVec<[_; 4]> =
            charges.map(|(charge, tally)| ChargeChange::new(charge, tally.charged_at, Amount::ZERO)).collect();
        self.store.settle(&SettleRequest::new(request.id, 1, request.now, &settled)).unwrap();
    }
}

/// Visits callers in an order that differs from the order of their later calls.
fn each_caller(callers: usize, mut visit: impl FnMut(&Caller)) {
    let mut indices: Vec<_> = (0..callers).collect();
    let mut random = Random::new();
    random.shuffle(&mut indices);
    random.shuffle(&mut indices);
    indices.into_iter().for_each(|index| visit(&Caller::new(index)));
}

/// Records the requests of a gate. Only policies create charges, so a gate decides a call, and its
/// store records the request.
pub(crate) struct RequestRecorder {
    gate: Gate<RecordingStore>,
    arguments: Value,
}

impl RequestRecorder {
    pub(crate) fn new(limits: Limits) -> Self {
        let policy = Policy::from_json(&limits.document()).unwrap();
        let gate = Gate::builder().policy(policy).store(RecordingStore::default()).build();
        Self { gate, arguments: workload::arguments() }
    }

    pub(crate) fn request_of(&self, caller: &Caller) -> Request {
        assert!(self.gate.check(&caller.call(&workload::tool_name(0), &self.arguments)).is_allowed());
        self.gate.store().0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap()
    }
}

/// A store that keeps the last request and counts nothing.
#[derive(Default)]
struct RecordingStore(Mutex<Option<Request>>);

impl CounterStore for RecordingStore {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let kept = Request { id: request.id, now: request.now, charges: request.charges.into() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(Outcome::Granted(request.charges.iter().map(|c| Tally::unused(&c.meter, request.now)).collect()))
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.reserve(request)
    }

    fn settle(&self, _: &SettleRequest<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn reset(&self, _: CounterId, _: &Subject) -> Result<(), StoreError> {
        Ok(())
    }
}
