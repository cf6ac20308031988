//! Cases about windows, rates and leases, and about clocks that jump.

use std::slice::from_ref;

use super::case::{Case, DAY, Mismatch, SECOND, WINDOW, shown, units};
use super::cases;
use crate::amount::Amount;
use crate::charge::{Charge, Meter};
use crate::store::Outcome;

cases! { CASES:
    retry_is_the_first_instant_with_room: "a caller that waits would be refused again, or wait too long",
    no_retry_if_there_is_never_room: "a caller would wait for a call that can never pass",
    windows_end_to_the_microsecond: "a call at a boundary would be charged to two windows, or to none",
    clocks_that_differ_share_the_later_window: "a host whose clock is behind would open a window again that is used up",
    a_release_credits_its_own_window_alone: "releasing a call of the last minute would raise the limit of this minute",
    late_settlements_change_nothing_else: "the cost of a past window would change the present one",
    counters_are_empty_long_after_their_end: "a counter that never expires refuses for ever, or fills the store",
    sliding_holds_in_every_interval: "twice the maximum would pass around a boundary",
    sliding_weighs_every_charge: "a sliding window that counts calls ignores what they cost",
    a_bucket_refills_at_its_exact_rate: "a rounded rate admits too much or too little, and the error grows with time",
    a_bucket_holds_no_more_than_its_burst: "after an idle time or a release, a burst above the maximum would pass",
    late_settlements_drain_a_bucket: "the excess of a call that ends after the bucket is full would be free",
    a_lease_ends_on_time: "a crashed caller would hold its unit for ever, or lose it too early",
    a_prolonged_lease_ends_at_its_new_end: "a long call would lose its unit, or a crashed one would keep it",
    late_ends_free_no_other_unit: "a call that outlives its lease would free the unit of another call",
    a_clock_a_day_back_opens_no_window: "setting the clock back would restore the budget",
}

cases! { YEARS:
    a_clock_a_year_ahead_and_back: "the budget would be restored when the clock is corrected",
    windows_may_be_a_year_long: "an end that is far ahead would be truncated, and the counter lost too early",
}

/// Expects refusals until `retry_at`, and a grant at that instant.
async fn waits_exactly(case: &Case<'_>, at: i64, charge: &Charge) -> Result<(), Mismatch> {
    let charges = [charge.clone()];
    let tallies = case.refuse(at, &charges).await?;
    let request = || case.describe("reserve", at, &case.aimed(at, &charges));
    let Some(retry) = tallies.first().and_then(|tally| tally.retry_at) else {
        return Err(Mismatch::new(request(), "an instant at which it has room", "none"));
    };
    let wait = retry.unix_micros().saturating_sub(case.at(0).unix_micros());
    for (at, room) in [(wait.saturating_sub(1), false), (wait, true)] {
        let outcome = case.peek(at, &charges).await?;
        if matches!(outcome, Outcome::Granted(_)) != room {
            let request = format!("{} (`retry_at` was {retry})", case.describe("peek", at, &case.aimed(at, &charges)));
            let expected = if room { "granted at this instant" } else { "refused: it is a microsecond too early" };
            return Err(Mismatch::new(request, expected, shown(&outcome)));
        }
    }
    Ok(())
}

async fn retry_is_the_first_instant_with_room(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(5);
        for (at, amount) in [(0, 2), (SECOND + 1, 1), (20 * SECOND, 2)] {
            case.grant(at, &[charge.of(units(amount))]).await?;
        }
        for at in [20 * SECOND, 21 * SECOND + 7, 30 * SECOND] {
            for amount in [2, 3, 5] {
                waits_exactly(case, at, &charge.of(units(amount))).await?;
            }
        }
        // A maximum that was lowered below what the counter holds.
        waits_exactly(case, 31 * SECOND, &charge.up_to(2)).await?;
        waits_exactly(case, 31 * SECOND, &charge.up_to(1).of(Amount::ZERO)).await?;
    }
    Ok(())
}

async fn no_retry_if_there_is_never_room(case: &Case<'_>) -> Result<(), Mismatch> {
    let dry = Meter::TokenBucket { refill: Amount::ZERO, seconds: 1 };
    for meter in case.meters().into_iter().chain([dry]) {
        // Every refusal is checked for a `retry_at`.
        let charge = case.charge(meter).up_to(5);
        case.refuse(0, &[charge.of(units(6))]).await?;
        case.refuse(0, &[charge.up_to(0)]).await?;
        case.grant(0, &[charge.of(units(5))]).await?;
        case.refuse(0, &[charge.of(units(6))]).await?;
        case.refuse(0, from_ref(&charge)).await?;
    }
    Ok(())
}

async fn windows_end_to_the_microsecond(case: &Case<'_>) -> Result<(), Mismatch> {
    let charge = case.charge(case.fixed(WINDOW)).up_to(1);
    case.grant(WINDOW - 1, from_ref(&charge)).await?;
    waits_exactly(case, WINDOW - 1, &charge).await?;
    case.grant(WINDOW, from_ref(&charge)).await?;
    case.refuse(WINDOW, from_ref(&charge)).await?;
    case.refuse(2 * WINDOW - 1, from_ref(&charge)).await?;
    case.grant(2 * WINDOW, from_ref(&charge)).await.map(drop)
}

async fn clocks_that_differ_share_the_later_window(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(2);
        case.grant(WINDOW, from_ref(&charge)).await?;
        // The other host is behind by a microsecond, and then by a window.
        case.grant(WINDOW - 1, from_ref(&charge)).await?;
        case.refuse(WINDOW - 1, from_ref(&charge)).await?;
        case.refuse(SECOND, from_ref(&charge)).await?;
        case.refuse(WINDOW, from_ref(&charge)).await?;
    }
    Ok(())
}

async fn a_release_credits_its_own_window_alone(case: &Case<'_>) -> Result<(), Mismatch> {
    let charge = case.charge(case.fixed(WINDOW)).up_to(2);
    let mut first = case.grant(WINDOW - 1, from_ref(&charge)).await?;
    case.grant(WINDOW, from_ref(&charge)).await?;
    case.settle(WINDOW, &mut first, &[Amount::ZERO]).await?;
    case.holds(WINDOW, &charge, 1_000_000).await?;
    case.grant(WINDOW, from_ref(&charge)).await?;
    case.refuse(WINDOW, from_ref(&charge)).await.map(drop)
}

async fn late_settlements_change_nothing_else(case: &Case<'_>) -> Result<(), Mismatch> {
    let [fixed, sliding, _, in_flight] = case.meters();
    for meter in [fixed, sliding, in_flight] {
        for to in [Amount::ZERO, units(9)] {
            let charge = case.charge(meter).up_to(3);
            let mut old = case.grant(0, &[charge.of(units(2))]).await?;
            let later = 3 * WINDOW;
            case.grant(later, from_ref(&charge)).await?;
            case.settle(later, &mut old, &[to]).await?;
            case.holds(later, &charge, 1_000_000).await?;
            case.grant(later, &[charge.of(units(2))]).await?;
            case.refuse(later, from_ref(&charge)).await?;
        }
    }
    Ok(())
}

async fn counters_are_empty_long_after_their_end(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(2);
        case.grant(0, &[charge.of(units(2))]).await?;
        case.refuse(0, from_ref(&charge)).await?;
        let later = 3 * DAY;
        case.holds(later, &charge, 0).await?;
        case.grant(later, &[charge.of(units(2))]).await?;
        case.refuse(later, from_ref(&charge)).await?;
    }
    Ok(())
}

/// It may refuse calls for a 64th of the interval too long.
async fn sliding_holds_in_every_interval(case: &Case<'_>) -> Result<(), Mismatch> {
    const MAX: u64 = 5;
    let [_, sliding, ..] = case.meters();
    let charge = case.charge(sliding).up_to(MAX);
    let mut granted: Vec<(i64, u64)> = Vec::new();
    for step in 0..300u32 {
        let at = i64::from(step) * 700_001 + if step % 3 == 0 { 0 } else { SECOND / 3 };
        let weight = u64::from(step * step % 3 + 1);
        let charges = [charge.of(units(weight))];
        let outcome = case.reserve_as(case.id(), at, &charges).await?;
        let within = |length: i64| -> u64 {
            granted.iter().filter(|(then, _)| at - then < length).map(|(_, weight)| weight).sum::<u64>() + weight
        };
        let request = || case.describe("reserve", at, &charges);
        match outcome {
            Outcome::Granted(_) if within(WINDOW) > MAX => {
                let actual = format!("{} units in the 64 s that end at this instant", within(WINDOW));
                return Err(Mismatch::new(request(), "at most 5 units in any 64 s", actual));
            }
            Outcome::Granted(_) => granted.push((at, weight)),
            Outcome::Refused(_) if within(WINDOW + WINDOW / 64) <= MAX => {
                let expected = "granted: there is room even if every charge is counted for 65 s";
                return Err(Mismatch::new(request(), expected, shown(&outcome)));
            }
            Outcome::Refused(_) => {}
        }
    }
    Ok(())
}

async fn sliding_weighs_every_charge(case: &Case<'_>) -> Result<(), Mismatch> {
    let [_, sliding, ..] = case.meters();
    let charge = case.charge(sliding).up_to(10);
    case.grant(0, &[charge.of(units(6))]).await?;
    case.grant(10 * SECOND, &[charge.of(units(4))]).await?;
    case.refuse(WINDOW - 1, from_ref(&charge)).await?;
    // Charges that left the interval more than a step ago are gone; those in it stay.
    let later = WINDOW + SECOND;
    case.holds(later, &charge, 4_000_000).await?;
    case.refuse(later, &[charge.of(units(7))]).await?;
    case.grant(later, &[charge.of(units(6))]).await?;
    case.refuse(later, from_ref(&charge)).await?;
    // Two charges in one step: the later one is counted until its own end.
    let close = case.charge(sliding).up_to(2);
    case.grant(0, from_ref(&close)).await?;
    case.grant(SECOND - 1, from_ref(&close)).await?;
    case.refuse(WINDOW + SECOND - 2, &[close.of(units(2))]).await?;
    case.grant(WINDOW + SECOND - 1, &[close.of(units(2))]).await.map(drop)
}

async fn a_bucket_refills_at_its_exact_rate(case: &Case<'_>) -> Result<(), Mismatch> {
    let bucket = |refill: u64, seconds: u32| {
        let refill = units(refill);
        Meter::TokenBucket { refill, seconds }
    };
    // Seven units in three seconds: one in 428,571 3/7 microseconds.
    let charge = case.charge(bucket(7, 3)).up_to(5);
    case.grant(0, &[charge.of(units(5))]).await?;
    case.refuse(428_571, from_ref(&charge)).await?;
    case.grant(428_572, from_ref(&charge)).await?;
    // Fractions are not lost: seven units after three seconds, to the microsecond.
    for (early, exact) in [(857_142, 857_143), (1_285_714, 1_285_715), (1_714_285, 1_714_286), (2_142_857, 2_142_858)] {
        case.refuse(early, from_ref(&charge)).await?;
        case.grant(exact, from_ref(&charge)).await?;
    }
    case.refuse(2_999_999, &[charge.of(units(2))]).await?;
    case.grant(3 * SECOND, &[charge.of(units(2))]).await?;
    // A slow rate: one unit in a day.
    let slow = case.charge(bucket(1, 86_400)).up_to(1);
    case.grant(0, from_ref(&slow)).await?;
    waits_exactly(case, 0, &slow).await?;
    case.refuse(DAY - 1, from_ref(&slow)).await?;
    case.grant(DAY, from_ref(&slow)).await.map(drop)
}

async fn a_bucket_holds_no_more_than_its_burst(case: &Case<'_>) -> Result<(), Mismatch> {
    let meter = Meter::TokenBucket { refill: units(10), seconds: 10 };
    let charge = case.charge(meter).up_to(5);
    let mut held = case.grant(0, &[charge.of(units(3))]).await?;
    // The bucket is full again before the release.
    case.settle(10 * SECOND, &mut held, &[Amount::ZERO]).await?;
    case.holds(10 * SECOND, &charge, 0).await?;
    case.grant(10 * SECOND, &[charge.of(units(5))]).await?;
    case.refuse(10 * SECOND, from_ref(&charge)).await?;
    // Both what was refilled meanwhile and what is released.
    let part = case.charge(meter).up_to(5);
    let mut held = case.grant(0, &[part.of(units(5))]).await?;
    case.settle(2 * SECOND, &mut held, &[units(3)]).await?;
    case.holds(2 * SECOND, &part, 1_000_000).await?;
    let quiet = 2 * DAY;
    case.refuse(quiet, &[charge.of(units(6))]).await?;
    case.grant(quiet, &[charge.of(units(5))]).await?;
    case.refuse(quiet, from_ref(&charge)).await.map(drop)
}

/// The bucket is full again, and perhaps forgotten, before the real amount is known.
async fn late_settlements_drain_a_bucket(case: &Case<'_>) -> Result<(), Mismatch> {
    let meter = Meter::TokenBucket { refill: units(10), seconds: 10 };
    for estimate in [Amount::ZERO, units(1)] {
        let charge = case.charge(meter).up_to(5);
        let mut late = case.grant(0, &[charge.of(estimate)]).await?;
        case.settle(DAY, &mut late, &[units(9)]).await?;
        let owed = units(9).micros() - estimate.micros();
        case.holds(DAY, &charge, owed).await?;
        case.refuse(DAY, from_ref(&charge)).await?;
        case.holds(DAY + 2 * SECOND, &charge, owed - 2_000_000).await?;
    }
    Ok(())
}

async fn a_lease_ends_on_time(case: &Case<'_>) -> Result<(), Mismatch> {
    let [.., in_flight] = case.meters();
    let charge = case.charge(in_flight).up_to(2);
    case.grant(0, from_ref(&charge)).await?;
    let mut ended = case.grant(SECOND, from_ref(&charge)).await?;
    waits_exactly(case, 2 * SECOND, &charge).await?;
    case.refuse(WINDOW - 1, from_ref(&charge)).await?;
    case.settle(WINDOW - 1, &mut ended, &[Amount::ZERO]).await?;
    case.holds(WINDOW - 1, &charge, 1_000_000).await?;
    case.holds(WINDOW, &charge, 0).await?;
    case.grant(WINDOW, &[charge.of(units(2))]).await?;
    case.refuse(2 * WINDOW - 1, from_ref(&charge)).await?;
    case.grant(2 * WINDOW, from_ref(&charge)).await?;
    // The smallest amounts, one after another: two leases have to end.
    let [one, two, three] = [1, 2, 3].map(|micros| Amount::from_micros(micros).unwrap_or(Amount::ONE));
    let small = Charge { max: Some(three), ..case.charge(in_flight).of(one) };
    for second in 0..3 {
        case.grant(second * SECOND, from_ref(&small)).await?;
    }
    waits_exactly(case, 3 * SECOND, &small.of(two)).await
}

async fn a_prolonged_lease_ends_at_its_new_end(case: &Case<'_>) -> Result<(), Mismatch> {
    let [.., in_flight] = case.meters();
    let charge = case.charge(in_flight).up_to(3);
    let mut long = case.grant(0, from_ref(&charge)).await?;
    let mut other = case.grant(0, from_ref(&charge)).await?;
    case.prolong(WINDOW - 1, &mut long, 2 * WINDOW).await?;
    case.holds(WINDOW - 1, &charge, 2_000_000).await?;
    case.holds(WINDOW, &charge, 1_000_000).await?;
    waits_exactly(case, WINDOW, &charge.of(units(3))).await?;
    // Its lease has ended, and so it stays.
    case.prolong(WINDOW, &mut other, 3 * WINDOW).await?;
    case.holds(WINDOW, &charge, 1_000_000).await?;
    case.prolong(WINDOW + 1, &mut long, 3 * WINDOW).await?;
    case.holds(3 * WINDOW - 1, &charge, 1_000_000).await?;
    case.settle(3 * WINDOW - 1, &mut long, &[Amount::ZERO]).await?;
    case.holds(3 * WINDOW - 1, &charge, 0).await?;
    // Not after a reset.
    let mut before = case.grant(3 * WINDOW, from_ref(&charge)).await?;
    case.reset(&charge).await?;
    case.grant(3 * WINDOW, &[charge.of(units(2))]).await?;
    case.prolong(3 * WINDOW + 1, &mut before, 5 * WINDOW).await?;
    case.holds(3 * WINDOW + 1, &charge, 2_000_000).await?;
    case.holds(4 * WINDOW, &charge, 0).await
}

async fn late_ends_free_no_other_unit(case: &Case<'_>) -> Result<(), Mismatch> {
    let [.., in_flight] = case.meters();
    let charge = case.charge(in_flight).up_to(1);
    let mut old = case.grant(0, from_ref(&charge)).await?;
    case.grant(WINDOW, from_ref(&charge)).await?;
    case.settle(WINDOW, &mut old, &[Amount::ZERO]).await?;
    case.holds(WINDOW, &charge, 1_000_000).await?;
    case.refuse(WINDOW, from_ref(&charge)).await.map(drop)
}

async fn a_clock_a_day_back_opens_no_window(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(3);
        case.grant(SECOND, &[charge.of(units(2))]).await?;
        case.refuse(SECOND - DAY, &[charge.of(units(2))]).await?;
        case.holds(SECOND - DAY, &charge, 2_000_000).await?;
        case.grant(SECOND - 1, from_ref(&charge)).await?;
        case.refuse(SECOND - DAY, from_ref(&charge)).await?;
        case.refuse(SECOND, from_ref(&charge)).await?;
    }
    // A charge a day back counts with the latest charge. (In flight, its lease begins a day back.)
    let [fixed, sliding, bucket, _] = case.meters();
    for meter in [fixed, sliding, bucket] {
        let charge = case.charge(meter).up_to(3);
        case.grant(SECOND, &[charge.of(units(2))]).await?;
        case.grant(SECOND - DAY, from_ref(&charge)).await?;
        case.refuse(SECOND, from_ref(&charge)).await?;
        case.holds(SECOND, &charge, 3_000_000).await?;
    }
    Ok(())
}

async fn a_clock_a_year_ahead_and_back(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(2);
        case.grant(0, &[charge.of(units(2))]).await?;
        let year = 365 * DAY;
        case.holds(year, &charge, 0).await?;
        case.grant(year, from_ref(&charge)).await?;
        case.holds(SECOND, &charge, 1_000_000).await?;
        case.grant(SECOND, from_ref(&charge)).await?;
        case.refuse(SECOND, from_ref(&charge)).await?;
    }
    Ok(())
}

async fn windows_may_be_a_year_long(case: &Case<'_>) -> Result<(), Mismatch> {
    let year = 365 * DAY;
    let seconds = 365 * 86_400;
    let refill = Amount::ONE;
    let long = [Meter::Sliding { seconds }, Meter::TokenBucket { refill, seconds }, Meter::InFlight { lease: seconds }];
    for meter in long.into_iter().chain([case.fixed(year)]) {
        let charge = case.charge(meter).up_to(1);
        case.grant(0, from_ref(&charge)).await?;
        waits_exactly(case, DAY, &charge).await?;
        case.refuse(year - 1, from_ref(&charge)).await?;
        case.grant(year, from_ref(&charge)).await?;
    }
    Ok(())
}
