//! Cases about amounts, for every algorithm. Time does not pass.

use std::slice::from_ref;

use super::case::{Case, Mismatch, subject, units};
use super::cases;
use crate::amount::Amount;
use crate::store::Outcome;

cases! { CASES:
    refuses_above_max: "more calls would pass than the policy allows, or fewer",
    weighs_every_charge: "a store that counts calls instead of amounts lets one expensive call exceed the limit",
    max_of_zero_refuses_all: "a maximum of zero switches a tool off, and calls that cost zero must not pass either",
    without_max_counts_and_never_refuses: "a limit that is only observed must count every call and refuse none",
    extreme_amounts_are_exact: "a caller can exploit rounding by splitting calls into small amounts",
    sums_do_not_wrap: "a sum that wraps starts again at zero, and the limit no longer holds",
    peek_charges_nothing: "peeking would use up the budget, and no two answers would agree",
    release_makes_room_again: "calls that failed would use up the budget of others",
    settle_to_more_is_recorded_whole: "the difference would go unpaid if a call costs more than its estimate",
    settle_to_less_frees_the_rest: "estimates would be charged instead of real amounts",
    settling_down_stops_at_zero: "a counter below zero admits more than the maximum",
    ending_one_unit_leaves_the_others: "an end that is reported twice would free the units of other calls",
    askers_share_the_counters_of_a_subject: "each of several callers could spend a budget that they share",
    grants_a_call_without_charges: "a call without limits must pass",
}

async fn refuses_above_max(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(3);
        for _ in 0..3 {
            case.grant(0, from_ref(&charge)).await?;
        }
        case.refuse(0, from_ref(&charge)).await?;
        case.holds(0, &charge, 3_000_000).await?;
        // The maximum belongs to the charge, not to the counter.
        case.grant(0, &[charge.up_to(4)]).await?;
        case.refuse(0, &[charge.up_to(2)]).await?;
    }
    Ok(())
}

async fn askers_share_the_counters_of_a_subject(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(4);
        let mut passed = 0;
        // The requests are by two askers in turn.
        for _ in 0..8 {
            let outcome = case.reserve_as(case.id(), 0, from_ref(&charge)).await?;
            passed += u64::from(matches!(outcome, Outcome::Granted(_)));
        }
        case.holds(0, &charge, passed * 1_000_000).await?;
        case.holds(0, &charge, 4_000_000).await?;
    }
    Ok(())
}

async fn weighs_every_charge(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(5);
        case.grant(0, &[charge.of(units(3))]).await?;
        case.refuse(0, &[charge.of(units(3))]).await?;
        case.grant(0, &[charge.of(units(2))]).await?;
        case.refuse(0, from_ref(&charge)).await?;
        case.grant(0, &[charge.of(Amount::ZERO)]).await?;
        case.refuse(0, &[charge.of(units(6))]).await?;
        case.holds(0, &charge, 5_000_000).await?;
    }
    Ok(())
}

async fn max_of_zero_refuses_all(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(0);
        case.refuse(0, from_ref(&charge)).await?;
        case.refuse(0, &[charge.of(Amount::ZERO)]).await?;
        case.holds(0, &charge, 0).await?;
    }
    Ok(())
}

async fn without_max_counts_and_never_refuses(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let trial = case.charge(meter).of(units(7));
        case.grant(0, from_ref(&trial)).await?;
        case.grant(0, &[trial.of(Amount::MAX)]).await?;
        case.holds(0, &trial, 7_000_000 + Amount::MAX.micros()).await?;
        case.refuse(0, &[trial.of(Amount::ZERO).up_to(9)]).await?;
    }
    Ok(())
}

async fn extreme_amounts_are_exact(case: &Case<'_>) -> Result<(), Mismatch> {
    let millionth = Amount::from_micros(1).unwrap_or(Amount::ONE);
    let all_but_one = Amount::from_micros(Amount::MAX.micros() - 1).unwrap_or(Amount::MAX);
    for meter in case.meters() {
        let largest = case.charge(meter).up_to(u64::MAX);
        case.grant(0, &[largest.of(Amount::ZERO)]).await?;
        case.holds(0, &largest, 0).await?;
        case.grant(0, &[largest.of(all_but_one)]).await?;
        case.refuse(0, &[largest.of(Amount::MAX)]).await?;
        case.grant(0, &[largest.of(millionth)]).await?;
        case.refuse(0, &[largest.of(millionth)]).await?;
        case.holds(0, &largest, Amount::MAX.micros()).await?;
        // Ten tenths are one unit.
        let tenths = case.charge(meter).of(Amount::from_micros(100_000).unwrap_or(Amount::ONE)).up_to(1);
        for _ in 0..10 {
            case.grant(0, from_ref(&tenths)).await?;
        }
        case.refuse(0, &[tenths.of(millionth)]).await?;
    }
    Ok(())
}

async fn sums_do_not_wrap(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let trial = case.charge(meter).of(Amount::MAX);
        let mut held = case.grant(0, from_ref(&trial)).await?;
        for _ in 0..4 {
            case.grant(0, from_ref(&trial)).await?;
            case.refuse(0, &[trial.up_to(u64::MAX)]).await?;
        }
        case.holds(0, &trial, u64::MAX).await?;
        // One is released. The rest is unknown, but it is large.
        case.settle(0, &mut held, &[Amount::ZERO]).await?;
        case.refuse(0, &[trial.of(Amount::ZERO).up_to(u64::MAX)]).await?;
    }
    Ok(())
}

async fn peek_charges_nothing(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(1);
        for _ in 0..3 {
            let outcome = case.peek(0, from_ref(&charge)).await?;
            if !matches!(outcome, Outcome::Granted(_)) {
                let request = case.describe("peek", 0, &[charge]);
                return Err(Mismatch::new(
                    request,
                    "granted, however often it is requested",
                    super::case::shown(&outcome),
                ));
            }
        }
        case.holds(0, &charge, 0).await?;
        case.grant(0, from_ref(&charge)).await?;
        case.refuse(0, from_ref(&charge)).await?;
        case.holds(0, &charge, 1_000_000).await?;
    }
    Ok(())
}

async fn release_makes_room_again(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(2);
        let mut first = case.grant(0, from_ref(&charge)).await?;
        case.grant(0, from_ref(&charge)).await?;
        case.refuse(0, from_ref(&charge)).await?;
        case.settle(0, &mut first, &[Amount::ZERO]).await?;
        case.holds(0, &charge, 1_000_000).await?;
        case.grant(0, from_ref(&charge)).await?;
        case.refuse(0, from_ref(&charge)).await?;
    }
    Ok(())
}

async fn settle_to_more_is_recorded_whole(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(5);
        let mut held = case.grant(0, from_ref(&charge)).await?;
        case.settle(0, &mut held, &[units(9)]).await?;
        case.holds(0, &charge, 9_000_000).await?;
        case.refuse(0, &[charge.of(Amount::ZERO)]).await?;
        case.settle(0, &mut held, &[units(4)]).await?;
        case.holds(0, &charge, 4_000_000).await?;
        case.grant(0, from_ref(&charge)).await?;
        case.refuse(0, from_ref(&charge)).await?;
    }
    Ok(())
}

async fn settle_to_less_frees_the_rest(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(5);
        let mut held = case.grant(0, &[charge.of(units(5))]).await?;
        case.refuse(0, from_ref(&charge)).await?;
        let real = Amount::from_micros(1_500_001).unwrap_or(Amount::ONE);
        case.settle(0, &mut held, &[real]).await?;
        case.holds(0, &charge, 1_500_001).await?;
        case.refuse(0, &[charge.of(Amount::from_micros(3_500_000).unwrap_or(Amount::ONE))]).await?;
        case.grant(0, &[charge.of(Amount::from_micros(3_499_999).unwrap_or(Amount::ONE))]).await?;
        case.refuse(0, &[charge.of(Amount::from_micros(1).unwrap_or(Amount::ONE))]).await?;
    }
    Ok(())
}

/// The second settlement names the amount of the charge before the first one.
async fn settling_down_stops_at_zero(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(5);
        let mut held = case.grant(0, &[charge.of(units(4))]).await?;
        case.settle(0, &mut held, &[Amount::ZERO]).await?;
        held.charges = case.aimed(0, &[charge.of(units(4))]);
        case.settle(0, &mut held, &[Amount::ZERO]).await?;
        case.holds(0, &charge, 0).await?;
        case.grant(0, &[charge.of(units(5))]).await?;
        case.refuse(0, from_ref(&charge)).await?;
    }
    Ok(())
}

async fn ending_one_unit_leaves_the_others(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(9).by(subject(b"one of three"));
        // Three at the same instant: in flight, their leases end at the same instant.
        let mut one = case.grant(0, &[charge.of(units(2))]).await?;
        let mut two = case.grant(0, &[charge.of(units(3))]).await?;
        case.grant(0, &[charge.of(units(4))]).await?;
        case.settle(0, &mut two, &[Amount::ZERO]).await?;
        case.holds(0, &charge, 6_000_000).await?;
        case.settle(0, &mut one, &[Amount::ZERO]).await?;
        case.holds(0, &charge, 4_000_000).await?;
        case.refuse(0, &[charge.of(units(6))]).await?;
        case.grant(0, &[charge.of(units(5))]).await?;
    }
    Ok(())
}

async fn grants_a_call_without_charges(case: &Case<'_>) -> Result<(), Mismatch> {
    case.grant(0, &[]).await.map(drop)
}
