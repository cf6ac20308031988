//! The readable parts of a limit, which may have issues, and the parts that limits of one counter
//! must agree in.

use crate::amount::Amount;
use crate::policy::compiled::Counter;
use crate::policy::limit::{Algorithm, Cost, Limit, Scope, Window};

/// The parts of a limit that could be read.
#[derive(Clone)]
pub(super) struct PartialLimit {
    pub(super) counter: Box<str>,
    pub(super) window: Option<Window>,
    pub(super) utc_offset: Option<i32>,
    pub(super) scope: Option<Scope>,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) max: Option<Amount>,
}

impl PartialLimit {
    /// Returns a limit of calls if all parts could be read, or else the parts.
    pub(super) fn limit(self) -> Result<Limit, Self> {
        match self {
            Self {
                counter,
                window: Some(window),
                utc_offset: Some(utc_offset),
                scope: Some(scope),
                algorithm: Some(algorithm),
                max: Some(max),
            } => Ok(Limit {
                counter,
                window,
                max,
                max_from: None,
                scope,
                cost: Cost::Constant(Amount::ONE),
                algorithm,
                utc_offset,
                shadow: false,
                on_exceed: None,
                slot: 0,
                buckets: Box::default(),
                is_rate_limit: false,
            }),
            partial => Err(partial),
        }
    }
}

/// The parts that limits of one counter must agree in, as far as they could be read.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    window: Option<Window>,
    utc_offset: Option<i32>,
    scope: Option<&'a Scope>,
    algorithm: Option<Algorithm>,
    max: Option<Amount>,
}

impl PartialLimit {
    pub(super) fn parts(&self) -> Parts<'_> {
        let Self { window, utc_offset, algorithm, max, .. } = *self;
        Parts { window, utc_offset, scope: self.scope.as_ref(), algorithm, max }
    }
}

impl<'a> Parts<'a> {
    pub(super) fn of(counter: &'a Counter) -> Self {
        let Counter { window, utc_offset, ref scope, algorithm, max, .. } = *counter;
        Self::whole(window, utc_offset, scope, algorithm, max)
    }

    fn whole(window: Window, utc_offset: i32, scope: &'a Scope, algorithm: Algorithm, max: Amount) -> Self {
        let (window, utc_offset) = (Some(window), Some(utc_offset));
        Self { window, utc_offset, scope: Some(scope), algorithm: Some(algorithm), max: Some(max) }
    }

    /// Returns the key in which `other` disagrees.
    pub(super) fn disagreement(self, other: Self) -> Option<&'static str> {
        fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        if differ(self.window, other.window) {
            return Some("window");
        }
        if differ(self.utc_offset, other.utc_offset) {
            return Some("utc_offset");
        }
        if differ(self.scope, other.scope) {
            return Some("scope");
        }
        match self.algorithm.zip(other.algorithm)? {
            // A missing `burst` is `max`.
            (Algorithm::TokenBucket { burst: one }, Algorithm::TokenBucket { burst: two }) => {
                let is_other = one != two && differ(one.or(self.max), two.or(other.max));
                is_other.then_some("burst")
            }
            (one, other) if one == other => None,
            (Algorithm::InFlight { .. }, Algorithm::InFlight { .. }) => Some("lease"),
            _ => Some("algorithm"),
        }
    }
}

impl<'a> From<&'a Limit> for Parts<'a> {
    fn from(limit: &'a Limit) -> Self {
        let Limit { window, utc_offset, ref scope, algorithm, max, .. } = *limit;
        Self::whole(window, utc_offset, scope, algorithm, max)
    }
}
