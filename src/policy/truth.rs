//! The three truth values of conditions.

/// The truth value of a condition. An undecidable one never helps the caller: it does not satisfy
/// `require`, but it matches in `deny_if` and `require_approval_if`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "analysis", expect(clippy::exhaustive_enums, reason = "these are all truth values"))]
#[cfg_attr(not(feature = "analysis"), expect(unreachable_pub, reason = "explanations make it public"))]
pub enum Truth {
    /// The condition does not hold.
    False,
    /// The value has a type that the operator cannot compare: a server might read it in any way.
    Undecidable,
    /// The condition holds.
    True,
}

impl Truth {
    pub(super) fn of(truth: bool) -> Self {
        if truth { Self::True } else { Self::False }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Undecidable => Self::Undecidable,
            Self::True => Self::False,
        }
    }

    /// The `or` of many: true if any is, else undecidable if any is.
    #[inline]
    pub(crate) fn any(truths: impl Iterator<Item = Self>) -> Self {
        Self::join(truths, Self::True)
    }

    /// The `and` of many: false if any is, else undecidable if any is.
    #[inline]
    pub(crate) fn all(truths: impl Iterator<Item = Self>) -> Self {
        Self::join(truths, Self::False)
    }

    /// Joins many values, where one `enough` decides. Returns its opposite if there are none.
    #[inline]
    fn join(truths: impl Iterator<Item = Self>, enough: Self) -> Self {
        let mut sum = enough.not();
        for truth in truths {
            sum = sum.with(truth, enough);
            if sum == enough {
                break;
            }
        }
        sum
    }

    /// Joins two values, where one `enough` decides.
    #[inline]
    pub(super) fn with(self, other: Self, enough: Self) -> Self {
        if self != enough && (other == enough || other == Self::Undecidable) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn and_and_or_have_three_values() {
        use Truth::{False, True, Undecidable};
        for a in [False, Undecidable, True] {
            for b in [False, Undecidable, True] {
                let rank = |truth| [False, Undecidable, True].iter().position(|t| *t == truth).unwrap();
                assert_eq!(rank(Truth::any([a, b].into_iter())), rank(a).max(rank(b)));
                assert_eq!(rank(Truth::all([a, b].into_iter())), rank(a).min(rank(b)));
            }
        }
    }
}
