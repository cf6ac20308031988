//! A conformance suite for counter stores. Feature `conformance`.
//!
//! [`check`] runs it against an in-process store, with several threads too. [`Suite`] runs it
//! against a store across a network, on whatever executor the store needs. [`compare`] sends random
//! histories to two stores, which must give equal answers: yours and
//! [`MemoryStore`](super::MemoryStore), for example.
//!
//! Each case uses counters of its own, so one store serves all cases, and a persistent store can be
//! tested again. All cases are run. Each failure is reported with the request, the expected answer,
//! the actual answer, and the reason why it matters.
//!
//! ```
//! use toolgate::store::{MemoryStore, conformance};
//!
//! let passed = conformance::check(MemoryStore::new()).unwrap_or_else(|failures| panic!("{failures}"));
//! assert!(passed.contains(&"refuses_above_max"));
//! ```

mod case;
mod counting;
mod history;
mod threads;
mod time;
mod together;

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::{AsyncCounterStore, CounterStore, InProcess, Outcome};
use crate::time::Timestamp;

use case::{Case, Mismatch};

/// The suite and its settings.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    start: Timestamp,
    years: bool,
    resends: bool,
    flood: u32,
}

impl Suite {
    /// Makes a suite of all cases. It supplies the time itself: it begins at the first full hour
    /// from `start`, and goes back by a day and ahead by a few days. If the store has a clock of
    /// its own, that should not be past `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { start, years: true, resends: false, flood: 2000 }
    }

    /// Sets whether to run the cases in which the clock is a year ahead: by default, they are run.
    /// A store that compares the host's clock with another may have to skip them.
    #[must_use = "a suite is changed by value"]
    pub fn years(self, years: bool) -> Self {
        Self { years, ..self }
    }

    /// Sets whether to run the cases that send a request twice, as after a lost answer: the second
    /// must change nothing and get an equal answer. By default, they are not run, since a gate
    /// sends each request once.
    #[must_use = "a suite is changed by value"]
    pub fn resends(self, resends: bool) -> Self {
        Self { resends, ..self }
    }

    /// Sets how many new subjects are counted while a live counter must stay: 2,000 by default. It
    /// must be less than the capacity of the store.
    #[must_use = "a suite is changed by value"]
    pub fn flood(self, subjects: u32) -> Self {
        Self { flood: subjects, ..self }
    }

    /// Returns the names of the cases, in the order in which they are run.
    pub fn cases(&self) -> Vec<&'static str> {
        self.entries().map(|entry| entry.name).collect()
    }

    /// Runs all cases, one after another, and returns their names.
    ///
    /// # Errors
    /// Fails if a case failed.
    pub async fn run(&self, store: &dyn AsyncCounterStore) -> Result<Vec<&'static str>, Failures> {
        let run = run_number();
        let mut report = Report::default();
        for entry in self.entries() {
            let case = Case::new(store, self, run, entry.name);
            report.add(entry.name, entry.reason, (entry.body)(&case).await);
        }
        report.end()
    }

    /// Sends one random history of `steps` requests to two stores, and compares the answers. The
    /// same seed gives the same history.
    ///
    /// # Errors
    /// Fails at the first answers that differ.
    pub async fn compare(
        &self,
        one: &dyn AsyncCounterStore,
        other: &dyn AsyncCounterStore,
        seed: u64,
        steps: usize,
    ) -> Result<(), Failure> {
        let found = history::compare([one, other], self.start, run_number(), seed, steps).await;
        found.map_err(|mismatch| {
            let reason = "the decisions of a gate must not depend on its store";
            Failure { case: "equal_histories_give_equal_answers", reason, mismatch }
        })
    }

    fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        let kinds = [(true, counting::CASES), (true, time::CASES), (self.years, time::YEARS), (true, together::CASES)];
        let resends = (self.resends, together::RESENDS);
        kinds.into_iter().chain([resends]).filter(|(wanted, _)| *wanted).flat_map(|(_, entries)| entries)
    }
}

/// Runs all cases against an in-process store, first on one thread and then on several, and returns
/// their names.
///
/// # Errors
/// Fails if a case failed.
pub fn check<S: CounterStore>(store: S) -> Result<Vec<&'static str>, Failures> {
    let store = InProcess(store);
    let suite = Suite::new(START);
    let mut report = Report::default();
    match block_on(suite.run(&store)) {
        Ok(passed) => report.passed = passed,
        Err(failures) => report = failures.0,
    }
    let run = run_number();
    for entry in threads::CASES {
        let case = Case::new(&store, &suite, run, entry.name);
        report.add(entry.name, entry.reason, (entry.body)(&case, &store.0));
    }
    report.end()
}

/// Compares two in-process stores as [`Suite::compare`] does.
///
/// # Errors
/// Fails at the first answers that differ.
pub fn compare(one: impl CounterStore, other: impl CounterStore, seed: u64, steps: usize) -> Result<(), Failure> {
    block_on(Suite::new(START).compare(&InProcess(one), &InProcess(other), seed, steps))
}

/// 2026-01-15T11:00:00Z.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_474_800);

/// The cases that failed.
#[derive(Debug)]
pub struct Failures(Report);

impl Failures {
    /// Returns the cases that failed, at least one.
    pub fn failed(&self) -> &[Failure] {
        &self.0.failed
    }

    /// Returns the names of the cases that passed.
    pub fn passed(&self) -> &[&'static str] {
        &self.0.passed
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, passed) = (self.0.failed.len(), self.0.passed.len());
        writeln!(f, "{failed} of {} cases failed", failed + passed)?;
        self.0.failed.iter().try_for_each(|failure| write!(f, "\n{failure}"))
    }
}

impl std::error::Error for Failures {}

/// A case that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    case: &'static str,
    reason: &'static str,
    mismatch: Mismatch,
}

impl Failure {
    /// Returns the name of the case.
    pub fn case(&self) -> &'static str {
        self.case
    }

    /// Returns why the case matters: what can go wrong with this store.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Returns the request.
    pub fn request(&self) -> &str {
        &self.mismatch.request
    }

    /// Returns the expected answer.
    pub fn expected(&self) -> &str {
        &self.mismatch.expected
    }

    /// Returns the actual answer.
    pub fn actual(&self) -> &str {
        &self.mismatch.actual
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.case)?;
        writeln!(f, "    request:  {}", self.request())?;
        writeln!(f, "    expected: {}", self.expected())?;
        writeln!(f, "    actual:   {}", self.actual())?;
        writeln!(f, "    reason:   {}", self.reason)
    }
}

impl std::error::Error for Failure {}

#[derive(Debug, Default)]
struct Report {
    passed: Vec<&'static str>,
    failed: Vec<Failure>,
}

impl Report {
    fn add(&mut self, case: &'static str, reason: &'static str, result: Result<(), Mismatch>) {
        match result {
            Ok(()) => self.passed.push(case),
            Err(mismatch) => self.failed.push(Failure { case, reason, mismatch }),
        }
    }

    fn end(self) -> Result<Vec<&'static str>, Failures> {
        if self.failed.is_empty() { Ok(self.passed) } else { Err(Failures(self)) }
    }
}

/// A case in a list.
struct Entry {
    name: &'static str,
    reason: &'static str,
    body: for<'c> fn(&'c Case<'c>) -> Body<'c>,
}

/// The future of one reservation among others.
type Answered<'c> = Pin<Box<dyn Future<Output = Result<Outcome, Mismatch>> + Send + 'c>>;

type Body<'c> = Pin<Box<dyn Future<Output = Result<(), Mismatch>> + Send + 'c>>;

/// Declares a list of cases: the name of a function, and the reason why it matters.
macro_rules! cases {
    ($list:ident: $($name:ident: $reason:literal,)*) => {
        pub(super) const $list: &[super::Entry] = &[$(super::Entry {
            name: stringify!($name),
            reason: $reason,
            body: |case| Box::pin($name(case)),
        }),*];
    };
}
use cases;

/// Returns a random number, to distinguish runs that share a store. The standard library draws its
/// hash keys at random.
fn run_number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Drives the future of an in-process store, which waits for nothing except locks.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::yield_now();
    }
}

/// Drives futures concurrently, and returns their outputs in order.
async fn join<'f, T: Send>(futures: Vec<Pin<Box<dyn Future<Output = T> + Send + 'f>>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (future, None)).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(ready) => *output = Some(ready),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
