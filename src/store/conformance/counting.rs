//! What is counted, in every way to count: nothing here waits.

use std::slice::from_ref;

use super::case::{Case, Mismatch, subject, units};
use super::cases;
use crate::amount::Amount;
use crate::store::Outcome;

cases! { CASES:
    refuses_what_passes_max: "more would be admitted than the policy allows, or less",
    weighs_every_charge: "a check that counts calls lets one expensive call spend what many cheap ones may not",
    max_of_zero_refuses_all: "zero is how a tool is switched off; a free call would still pass",
    without_max_counts_and_never_refuses: "a limit on trial must show what it would do, and do nothing",
    amounts_at_their_ends_are_exact: "money lost in rounding is found by whoever splits their calls",
    sums_do_not_wrap: "a sum that wraps begins again at zero: the limit is open",
    peek_charges_nothing: "asking would spend budget, and each answer would be another",
    release_makes_room_again: "calls that failed would spend what others may still use",
    settle_to_more_is_recorded_whole: "a call that cost more than was estimated would leave the difference unpaid",
    settle_to_less_gives_back_the_rest: "estimates would be spent as if they were real",
    settling_down_stops_at_zero: "a counter below zero is a limit above its max",
    ending_one_leaves_the_others: "ends that are told twice would give free what other calls hold",
    nothing_is_asked_nothing_is_refused: "a call without limits would be refused",
}

async fn refuses_what_passes_max(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(3);
        for _ in 0..3 {
            case.grant(0, from_ref(&charge)).await?;
        }
        case.refuse(0, from_ref(&charge)).await?;
        case.holds(0, &charge, 3_000_000).await?;
        // The max is the charge's, not the counter's.
        case.grant(0, &[charge.up_to(4)]).await?;
        case.refuse(0, &[charge.up_to(2)]).await?;
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

async fn amounts_at_their_ends_are_exact(case: &Case<'_>) -> Result<(), Mismatch> {
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
        // Ten tenths are one.
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
        // One goes; nobody knows any more what is left, but it is not little.
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
                let asked = case.asking("peek", 0, &[charge]);
                return Err(Mismatch::new(asked, "granted, as often as it is asked", super::case::shown(&outcome)));
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

async fn settle_to_less_gives_back_the_rest(case: &Case<'_>) -> Result<(), Mismatch> {
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

/// The second settlement says that the charge stands as it was made, which is not so any more.
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

async fn ending_one_leaves_the_others(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(9).by(subject(b"one of three"));
        // Three at one instant: in flight they are leased until one instant.
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

async fn nothing_is_asked_nothing_is_refused(case: &Case<'_>) -> Result<(), Mismatch> {
    case.grant(0, &[]).await.map(drop)
}
