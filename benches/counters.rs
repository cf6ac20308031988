//! A gate or a store with live counters, and calls that are counted in them.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use smallvec::SmallVec;
use toolgate::charge::{Charge, CounterId, Subject};
use toolgate::store::{
    ChargeChange, CounterStore, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError, Tally,
};
use toolgate::{Amount, Gate, Policy, Timestamp};

use crate::workload::{self, Caller, ENTRIES, Limits, Order, Ring};

/// A gate with W1 and limits, in which so many callers are counted already.
pub(crate) struct Counted {
    pub(crate) gate: Gate,
    pub(crate) tools: Ring<&'static str>,
    pub(crate) callers: Ring<Caller>,
    pub(crate) arguments: Value,
}

impl Counted {
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

    /// Decides the next call. The permit is dropped: the call stays counted.
    pub(crate) fn decide(&mut self) {
        let call = self.callers.next().call(self.tools.next(), &self.arguments);
        assert!(self.gate.check(&call).is_allowed());
    }
}

/// The same with callers that were made ready.
pub(crate) struct Ready {
    counted: Counted,
    callers: Ring<toolgate::Caller>,
}

impl Ready {
    pub(crate) fn new(limits: Limits, callers: usize) -> Self {
        let counted = Counted::new(limits, callers);
        let ready = |caller: &Caller| {
            let caller = toolgate::Caller::new().grant(&*caller.grant).session(&*caller.session).user(&*caller.user);
            counted.gate.caller(caller)
        };
        let callers = Ring::new(counted.callers.items().iter().map(ready).collect());
        Self { counted, callers }
    }

    /// As [`Counted::decide`].
    pub(crate) fn decide(&mut self) {
        let call = self.callers.next().call(self.counted.tools.next(), &self.counted.arguments);
        assert!(self.counted.gate.check(&call).is_allowed());
    }
}

/// A store in which so many callers are counted already, and the requests of some of them, ready to be made.
pub(crate) struct Stored {
    pub(crate) store: MemoryStore,
    pub(crate) requests: Ring<Request>,
}

/// A request that is made again and again.
pub(crate) struct Request {
    id: ReservationId,
    now: Timestamp,
    charges: Vec<Charge>,
}

impl Request {
    pub(crate) fn ask(&self) -> ReserveRequest<'_> {
        ReserveRequest::new(self.id, self.now, &self.charges)
    }

    /// Whether there was room.
    #[inline]
    pub(crate) fn reserve(&self, store: &MemoryStore) -> bool {
        matches!(store.reserve(&self.ask()), Ok(Outcome::Granted(_)))
    }
}

impl Stored {
    pub(crate) fn new(limits: Limits, callers: usize) -> Self {
        let store = MemoryStore::with_capacity(limits.counters() * callers + 1);
        let requests = Requests::new(limits);
        each_caller(callers, |caller| {
            assert!(requests.of(caller).reserve(&store));
        });
        let requests = workload::callers(callers).items().iter().map(|caller| requests.of(caller)).collect();
        Self { store, requests: Ring::new(requests) }
    }

    pub(crate) fn reserve(&mut self) {
        assert!(self.requests.next().reserve(&self.store));
    }

    /// Reserves, and settles at nothing, so that the counters never fill.
    pub(crate) fn reserve_and_settle(&mut self) {
        let request = self.requests.next();
        let Ok(Outcome::Granted(tallies)) = self.store.reserve(&request.ask()) else { panic!("there is room") };
        let charges = request.charges.iter().zip(&tallies);
        let settled: SmallVec<[_; 4]> =
            charges.map(|(charge, tally)| ChargeChange::new(charge, tally.charged_at, Amount::ZERO)).collect();
        self.store.settle(&SettleRequest::new(request.id, 1, request.now, &settled)).unwrap();
    }
}

/// Counts callers in an order that is not the one in which they call later.
fn each_caller(callers: usize, mut count: impl FnMut(&Caller)) {
    let mut indices: Vec<_> = (0..callers).collect();
    let mut order = Order::new();
    order.shuffle(&mut indices);
    order.shuffle(&mut indices);
    indices.into_iter().for_each(|index| count(&Caller::new(index)));
}

/// Makes the requests that a gate would make. Charges come from policies alone, so a gate writes them down.
pub(crate) struct Requests {
    gate: Gate<Recorder>,
    arguments: Value,
}

impl Requests {
    pub(crate) fn new(limits: Limits) -> Self {
        let policy = Policy::from_json(&limits.document()).unwrap();
        let gate = Gate::builder().policy(policy).store(Recorder::default()).build();
        Self { gate, arguments: workload::arguments() }
    }

    pub(crate) fn of(&self, caller: &Caller) -> Request {
        assert!(self.gate.check(&caller.call(&workload::tool_name(0), &self.arguments)).is_allowed());
        self.gate.store().0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap()
    }
}

/// A store that counts nothing and keeps the last request.
#[derive(Default)]
struct Recorder(Mutex<Option<Request>>);

impl CounterStore for Recorder {
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
