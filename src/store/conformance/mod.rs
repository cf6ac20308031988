//! What every counter store must do, as cases that any store can be run through. Feature `conformance`.
//!
//! One suite serves both traits: [`check`] takes a store in the process, and sends threads at it as well; [`Suite`] takes one
//! across a network, and its future runs on whatever executor the store needs. [`compare`] puts random histories to two stores, which
//! must answer both alike: next to [`MemoryStore`](super::MemoryStore), say.
//!
//! Every case draws counters of its own, so one store serves all of them, and one that keeps what it holds can be run through again.
//! All cases are run, and all that fail are told, each with what was asked, what was expected and what came, and why it matters.
//!
//! ```
//! use toolgate::store::{MemoryStore, conformance};
//!
//! let passed = conformance::check(MemoryStore::new()).unwrap_or_else(|failures| panic!("{failures}"));
//! assert!(passed.contains(&"refuses_what_passes_max"));
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

/// The suite, and how it is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    start: Timestamp,
    years: bool,
    resends: bool,
    flood: u32,
}

impl Suite {
    /// All cases. Their time is told by hand: it begins at `start`, up to an hour later to be exact, steps back by a day and runs
    /// ahead by a few. The store's own clock, if it has one, should not be past `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { start, years: true, resends: false, flood: 2000 }
    }

    /// Whether there are cases in which the clock runs a year ahead of the start. By default there are; a store that compares the
    /// host's clock with another may have to do without.
    #[must_use = "a suite is changed by value"]
    pub fn years(self, years: bool) -> Self {
        Self { years, ..self }
    }

    /// Whether requests are sent twice, as by a store that lost the first answer: the second must change nothing and be
    /// answered alike. By default they are not: a gate asks once.
    #[must_use = "a suite is changed by value"]
    pub fn resends(self, resends: bool) -> Self {
        Self { resends, ..self }
    }

    /// How many new subjects come while a live counter must stay: 2000 by default. For a store that holds fewer, less than it holds.
    #[must_use = "a suite is changed by value"]
    pub fn flood(self, subjects: u32) -> Self {
        Self { flood: subjects, ..self }
    }

    /// The names of the cases, in the order in which they are run.
    pub fn cases(&self) -> Vec<&'static str> {
        self.entries().map(|entry| entry.name).collect()
    }

    /// Runs all cases, one after the other, and gives the names of those that passed.
    ///
    /// # Errors
    /// Some failed.
    pub async fn run(&self, store: &dyn AsyncCounterStore) -> Result<Vec<&'static str>, Failures> {
        let run = run_number();
        let mut report = Report::default();
        for entry in self.entries() {
            let case = Case::new(store, self, run, entry.name);
            report.add(entry.name, entry.why, (entry.body)(&case).await);
        }
        report.end()
    }

    /// Puts one random history of `steps` requests, drawn from `seed`, to two stores, and demands equal answers. The same seed draws
    /// the same history.
    ///
    /// # Errors
    /// The first answers that differ.
    pub async fn compare(
        &self,
        one: &dyn AsyncCounterStore,
        other: &dyn AsyncCounterStore,
        seed: u64,
        steps: usize,
    ) -> Result<(), Failure> {
        let found = history::compare([one, other], self.start, run_number(), seed, steps).await;
        found.map_err(|mismatch| {
            let why = "what a gate decides may not hang on the store that it was given";
            Failure { case: "equal_histories_give_equal_answers", why, mismatch }
        })
    }

    fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        let kinds = [(true, counting::CASES), (true, time::CASES), (self.years, time::YEARS), (true, together::CASES)];
        let resends = (self.resends, together::RESENDS);
        kinds.into_iter().chain([resends]).filter(|(wanted, _)| *wanted).flat_map(|(_, entries)| entries)
    }
}

/// Runs all cases over a store in the process, first from one thread and then from several at once. Gives the names of the
/// cases that passed. A store without a clock has nothing to do with the year that it happens in.
///
/// # Errors
/// Some failed.
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
        report.add(entry.name, entry.why, (entry.body)(&case, &store.0));
    }
    report.end()
}

/// [`Suite::compare`] for stores in the process.
///
/// # Errors
/// The first answers that differ.
pub fn compare(one: impl CounterStore, other: impl CounterStore, seed: u64, steps: usize) -> Result<(), Failure> {
    block_on(Suite::new(START).compare(&InProcess(one), &InProcess(other), seed, steps))
}

/// 2026-01-15T11:00:00Z.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_474_800);

/// All cases that failed.
#[derive(Debug)]
pub struct Failures(Report);

impl Failures {
    /// The cases that failed; never none.
    pub fn failed(&self) -> &[Failure] {
        &self.0.failed
    }

    /// The names of the cases that passed.
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
    why: &'static str,
    mismatch: Mismatch,
}

impl Failure {
    /// The name of the case.
    pub fn case(&self) -> &'static str {
        self.case
    }

    /// What goes wrong in the world where a store does this.
    pub fn why(&self) -> &'static str {
        self.why
    }

    /// What the store was asked.
    pub fn asked(&self) -> &str {
        &self.mismatch.asked
    }

    /// What it should have answered.
    pub fn expected(&self) -> &str {
        &self.mismatch.expected
    }

    /// What it answered.
    pub fn came(&self) -> &str {
        &self.mismatch.came
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.case)?;
        writeln!(f, "    asked:    {}", self.asked())?;
        writeln!(f, "    expected: {}", self.expected())?;
        writeln!(f, "    came:     {}", self.came())?;
        writeln!(f, "    matters:  {}", self.why)
    }
}

impl std::error::Error for Failure {}

#[derive(Debug, Default)]
struct Report {
    passed: Vec<&'static str>,
    failed: Vec<Failure>,
}

impl Report {
    fn add(&mut self, case: &'static str, why: &'static str, result: Result<(), Mismatch>) {
        match result {
            Ok(()) => self.passed.push(case),
            Err(mismatch) => self.failed.push(Failure { case, why, mismatch }),
        }
    }

    fn end(self) -> Result<Vec<&'static str>, Failures> {
        if self.failed.is_empty() { Ok(self.passed) } else { Err(Failures(self)) }
    }
}

/// A case as it stands in a list.
struct Entry {
    name: &'static str,
    why: &'static str,
    body: for<'c> fn(&'c Case<'c>) -> Body<'c>,
}

/// A reservation among others.
type Answered<'c> = Pin<Box<dyn Future<Output = Result<Outcome, Mismatch>> + Send + 'c>>;

type Body<'c> = Pin<Box<dyn Future<Output = Result<(), Mismatch>> + Send + 'c>>;

/// A list of cases: each the name of a function, and why it matters.
macro_rules! cases {
    ($list:ident: $($name:ident: $why:literal,)*) => {
        pub(super) const $list: &[super::Entry] = &[$(super::Entry {
            name: stringify!($name),
            why: $why,
            body: |case| Box::pin($name(case)),
        }),*];
    };
}
use cases;

/// Tells runs apart that share a store. The standard library draws its hash keys at random.
fn run_number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Drives a future of a store in the process, which waits for nothing but locks.
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

/// Drives futures at once, and gives what they gave, in order.
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
