//! Cases with several charges in a call, several subjects, and concurrent calls.

use std::slice::from_ref;

use super::case::{Case, DAY, Mismatch, SECOND, WINDOW, shown, subject, units};
use super::{Answered, cases, join};
use crate::amount::Amount;
use crate::charge::Charge;
use crate::store::Outcome;

cases! { CASES:
    all_or_none_in_any_order: "a refused call would use up the budget of another limit",
    tallies_have_the_order_of_charges: "a refusal would name the wrong limit, with the numbers of another",
    many_charges_in_one_call: "a store that checks only the first few charges leaves the others unlimited",
    settling_some_leaves_the_rest: "settling the price of a call would change limits that count calls",
    subjects_are_distinct: "two callers would share a budget, or one caller would have several",
    counters_are_distinct: "charges of a minute's limit would use up a day's budget",
    reset_forgets_one_counter_of_one_subject: "resetting one counter would restore the budget of others",
    settling_what_was_reset_makes_no_room: "an amount that is given back twice raises the limit",
    charges_before_a_reset_change_nothing_after_it: "what others charged since would be given back",
    a_flood_of_subjects_evicts_nobody: "a caller could evict counters by inventing names",
    expired_counters_change_no_answer: "reclaiming expired counters must not remove live ones or restore spent budgets",
    concurrent_calls_are_admitted_exactly_max_times: "with a separate check and update, two calls take the same room",
    concurrent_calls_charge_all_or_none: "calls that lock counters one by one can deadlock, or charge in part",
    concurrent_releases_all_count: "a lost update leaves an amount charged, or gives it back twice",
}

cases! { RESENDS:
    a_reservation_sent_twice_counts_once: "every request that is repeated after a lost reply would be charged twice",
    a_settlement_sent_twice_counts_once: "every settlement that is repeated after a lost reply would be counted twice",
}

async fn all_or_none_in_any_order(case: &Case<'_>) -> Result<(), Mismatch> {
    for full in 0..4 {
        let mut charges = case.meters().map(|meter| case.charge(meter).up_to(2)).to_vec();
        if let Some(charge) = charges.get(full) {
            case.grant(0, &[charge.of(units(2))]).await?;
        }
        for _ in 0..4 {
            charges.rotate_left(1);
            case.refuse(0, &charges).await?;
        }
        charges.reverse();
        case.refuse(0, &charges).await?;
        let mut held = 0;
        for charge in &charges {
            let outcome = case.peek(0, &[charge.of(Amount::ZERO)]).await?;
            held += outcome.tallies().iter().map(|tally| tally.used.micros()).sum::<u64>();
        }
        if held != 2_000_000 {
            let request = case.describe("reserve (refused five times)", 0, &charges);
            return Err(Mismatch::new(request, "2 units in total", format!("{held} millionths")));
        }
    }
    // Four subjects, and all have room.
    let mut charges = case.meters().map(|meter| case.charge(meter).up_to(2)).to_vec();
    for (index, charge) in charges.iter_mut().enumerate().skip(1) {
        *charge = charge.by(subject(&[b'a', u8::try_from(index).unwrap_or(0)]));
    }
    let mut first = case.grant(0, &charges).await?;
    charges.reverse();
    case.grant(0, &charges).await?;
    case.refuse(0, &charges).await?;
    case.settle(0, &mut first, &[Amount::ZERO; 4]).await?;
    for charge in &charges {
        case.holds(0, charge, 1_000_000).await?;
    }
    case.grant(0, &charges).await.map(drop)
}

async fn tallies_have_the_order_of_charges(case: &Case<'_>) -> Result<(), Mismatch> {
    let amounts = [4, 1, 3, 2];
    let charges: Vec<Charge> = case
        .meters()
        .iter()
        .zip(amounts)
        .map(|(meter, amount)| case.charge(*meter).of(units(amount)).up_to(7))
        .collect();
    case.grant(0, &charges).await?;
    let outcome = case.peek(0, &charges).await?;
    let used: Vec<_> = outcome.tallies().iter().map(|tally| tally.used.micros() / 1_000_000).collect();
    if used == amounts {
        return Ok(());
    }
    Err(Mismatch::new(case.describe("peek", 0, &charges), format!("used {amounts:?}"), shown(&outcome)))
}

async fn many_charges_in_one_call(case: &Case<'_>) -> Result<(), Mismatch> {
    let charges: Vec<Charge> = (0..5u8)
        .flat_map(|number| case.meters().map(|meter| case.charge(meter).by(subject(&[b'm', number % 3])).up_to(2)))
        .collect();
    case.grant(0, &charges).await?;
    let Some(last) = charges.last() else { return Ok(()) };
    case.grant(0, from_ref(last)).await?;
    case.refuse(0, &charges).await?;
    let (_, others) = charges.split_last().unwrap_or((last, &[]));
    for charge in others {
        case.holds(0, charge, 1_000_000).await?;
    }
    case.grant(0, others).await.map(drop)
}

async fn settling_some_leaves_the_rest(case: &Case<'_>) -> Result<(), Mismatch> {
    let charges = case.meters().map(|meter| case.charge(meter).up_to(9));
    let mut held = case.grant(0, &charges).await?;
    held.charges.truncate(2);
    case.settle(0, &mut held, &[units(5), units(3)]).await?;
    for (charge, units) in charges.iter().zip([5, 3, 1, 1]) {
        case.holds(0, charge, units * 1_000_000).await?;
    }
    Ok(())
}

async fn subjects_are_distinct(case: &Case<'_>) -> Result<(), Mismatch> {
    let long = [b'x'; 128];
    let (longer, _) = long.split_at(127);
    let names: [&[u8]; 16] = [
        b"", b"\0", b"\0\0", b"a", b"a\0", b"ab", b"a:b", b"a b", b"{a}", b"a{}", b"{a}{a}", b"*", b"a\nb", b"a\r\nb",
        longer, &long,
    ];
    for meter in case.meters() {
        let charge = case.charge(meter);
        for (number, name) in (1..).zip(names) {
            case.grant(0, &[charge.by(subject(name)).of(units(number)).up_to(number)]).await?;
        }
        for (number, name) in (1..).zip(names) {
            let of = charge.by(subject(name));
            case.holds(0, &of, number * 1_000_000).await?;
            case.refuse(0, &[of.up_to(number)]).await?;
        }
        case.reset(&charge.by(subject(b"*"))).await?;
        case.holds(0, &charge.by(subject(b"a")), 4_000_000).await?;
    }
    Ok(())
}

async fn counters_are_distinct(case: &Case<'_>) -> Result<(), Mismatch> {
    let charges: Vec<Charge> =
        case.meters().into_iter().chain(case.meters()).map(|meter| case.charge(meter).up_to(1)).collect();
    for charge in &charges {
        case.grant(0, from_ref(charge)).await?;
    }
    for charge in &charges {
        case.refuse(0, from_ref(charge)).await?;
    }
    Ok(())
}

async fn reset_forgets_one_counter_of_one_subject(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let mine = case.charge(meter).up_to(2);
        let (other, theirs) = (case.charge(meter).up_to(2), mine.by(subject(b"somebody else")));
        case.reset(&mine).await?;
        case.grant(0, &[mine.of(units(2)), other.of(units(2)), theirs.of(units(2))]).await?;
        case.reset(&mine).await?;
        case.holds(0, &mine, 0).await?;
        case.refuse(0, &[other]).await?;
        case.refuse(0, &[theirs]).await?;
        case.grant(0, &[mine.of(units(2))]).await?;
        case.refuse(0, &[mine]).await?;
    }
    Ok(())
}

async fn settling_what_was_reset_makes_no_room(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(2);
        let mut held = case.grant(0, &[charge.of(units(2))]).await?;
        case.reset(&charge).await?;
        case.settle(0, &mut held, &[Amount::ZERO]).await?;
        case.holds(0, &charge, 0).await?;
        case.grant(0, &[charge.of(units(2))]).await?;
        case.refuse(0, from_ref(&charge)).await?;
    }
    Ok(())
}

async fn charges_before_a_reset_change_nothing_after_it(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        for to in [Amount::ZERO, units(1), units(5)] {
            let charge = case.charge(meter).up_to(3);
            let mut before = case.grant(0, &[charge.of(units(2))]).await?;
            case.reset(&charge).await?;
            let mut after = case.grant(0, &[charge.of(units(3))]).await?;
            case.settle(0, &mut before, &[to]).await?;
            case.holds(0, &charge, 3_000_000).await?;
            case.refuse(0, from_ref(&charge)).await?;
            // Charges since are given back as ever.
            case.settle(0, &mut after, &[units(1)]).await?;
            case.holds(0, &charge, 1_000_000).await?;
            case.settle(0, &mut before, &[Amount::ZERO]).await?;
            case.holds(0, &charge, 1_000_000).await?;
        }
    }
    Ok(())
}

async fn a_flood_of_subjects_evicts_nobody(case: &Case<'_>) -> Result<(), Mismatch> {
    let live = case.meters().map(|meter| case.charge(meter).up_to(1));
    case.grant(0, &live).await?;
    let flood = case.charge(case.fixed(WINDOW)).up_to(1);
    let names: Vec<u32> = (0..case.flood).collect();
    for names in names.chunks(100) {
        let calls: Vec<Answered<'_>> =
            names.iter().map(|name| one(case, flood.by(subject(&name.to_le_bytes())))).collect();
        for outcome in join(calls).await {
            outcome?;
        }
    }
    for charge in live {
        case.refuse(0, &[charge]).await?;
    }
    Ok(())
}

async fn expired_counters_change_no_answer(case: &Case<'_>) -> Result<(), Mismatch> {
    let live = case.charge(case.fixed(DAY)).up_to(1);
    case.grant(0, from_ref(&live)).await?;
    let short = case.charge(case.fixed(SECOND)).up_to(1);
    let names: Vec<u32> = (0..case.flood / 2).collect();
    let count_all = async |at: i64| {
        for name in &names {
            let charge = short.by(subject(&name.to_le_bytes()));
            match case.reserve_as(case.id(), at, from_ref(&charge)).await? {
                Outcome::Granted(_) => {}
                refused => {
                    let request = case.describe("reserve", at, &case.aimed(at, &[charge]));
                    return Err(Mismatch::new(request, "granted: it is a new window", shown(&refused)));
                }
            }
        }
        Ok(())
    };
    count_all(0).await?;
    count_all(DAY / 2).await?;
    case.refuse(DAY / 2, from_ref(&live)).await?;
    for name in names.iter().step_by(97) {
        case.refuse(DAY / 2, &[short.by(subject(&name.to_le_bytes()))]).await?;
    }
    case.grant(DAY, from_ref(&live)).await.map(drop)
}

/// Makes a call with one charge, to run concurrently with others.
fn one<'c>(case: &'c Case<'_>, charge: Charge) -> Answered<'c> {
    some(case, vec![charge])
}

fn some<'c>(case: &'c Case<'_>, charges: Vec<Charge>) -> Answered<'c> {
    Box::pin(async move { case.reserve_as(case.id(), 0, &charges).await })
}

fn granted(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Granted(_))).count()
}

async fn concurrent_calls_are_admitted_exactly_max_times(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(10);
        let calls = join((0..64).map(|_| one(case, charge.clone())).collect()).await;
        let outcomes = calls.into_iter().collect::<Result<Vec<_>, _>>()?;
        if granted(&outcomes) != 10 {
            let request = format!("64 concurrent calls, each: {}", case.describe("reserve", 0, &[charge]));
            return Err(Mismatch::new(request, "10 granted", format!("{} granted", granted(&outcomes))));
        }
        case.holds(0, &charge, 10_000_000).await?;
    }
    Ok(())
}

async fn concurrent_calls_charge_all_or_none(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let a = case.charge(meter).by(subject(b"a")).up_to(9);
        let b = case.charge(meter).by(subject(b"b")).up_to(7);
        let lists = [vec![a.clone(), b.clone()], vec![b.clone(), a.clone()], vec![a.clone()], vec![b.clone()]];
        let calls = (0..15).flat_map(|_| lists.clone()).map(|charges| some(case, charges)).collect();
        let outcomes = join(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let of = |lists: [usize; 3]| {
            let picked = outcomes.iter().enumerate().filter(|(index, _)| lists.contains(&(index % 4)));
            granted(&picked.map(|(_, outcome)| outcome.clone()).collect::<Vec<_>>()) as u64
        };
        case.holds(0, &a, of([0, 1, 2]) * 1_000_000).await?;
        case.holds(0, &b, of([0, 1, 3]) * 1_000_000).await?;
        if of([0, 1, 2]) != 9 || of([0, 1, 3]) != 7 {
            let request =
                format!("60 concurrent calls over two counters, among them: {}", case.describe("reserve", 0, &[a, b]));
            let actual = format!("{} and {}", of([0, 1, 2]), of([0, 1, 3]));
            return Err(Mismatch::new(request, "9 granted for the first counter and 7 for the second", actual));
        }
    }
    Ok(())
}

async fn concurrent_releases_all_count(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(20);
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(case.grant(0, from_ref(&charge)).await?);
        }
        let ends = held.iter_mut().take(19).map(|held| {
            let end = async move { case.settle(0, held, &[Amount::ZERO]).await };
            Box::pin(end) as super::Body<'_>
        });
        let ends = ends.collect();
        join(ends).await.into_iter().collect::<Result<(), _>>()?;
        case.holds(0, &charge, 1_000_000).await?;
    }
    Ok(())
}

async fn a_reservation_sent_twice_counts_once(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(3);
        let charges = [charge.clone()];
        let id = case.id();
        let first = case.reserve_as(id, 0, &charges).await?;
        let second = case.reserve_as(id, 0, &charges).await?;
        if first != second {
            let request = format!("{}, sent twice", case.describe("reserve", 0, &charges));
            return Err(Mismatch::new(request, shown(&first), shown(&second)));
        }
        case.holds(0, &charge, 1_000_000).await?;
        case.grant(0, &[charge.of(units(2))]).await?;
        // The counter is full now, but the reservation was granted before.
        let third = case.reserve_as(id, 0, &charges).await?;
        if !matches!(third, Outcome::Granted(_)) {
            let request = format!("{}, sent again after the counter is full", case.describe("reserve", 0, &charges));
            return Err(Mismatch::new(request, "granted, as before", shown(&third)));
        }
        case.holds(0, &charge, 3_000_000).await?;
    }
    Ok(())
}

async fn a_settlement_sent_twice_counts_once(case: &Case<'_>) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(9);
        let mut held = case.grant(0, &[charge.of(units(4))]).await?;
        case.grant(0, &[charge.of(units(5))]).await?;
        case.settle(0, &mut held, &[Amount::ONE]).await?;
        let now = held.charges.clone();
        // As it was sent at first.
        held.charges = case.aimed(0, &[charge.of(units(4))]);
        case.settle_again(0, &held, &[Amount::ONE]).await?;
        case.holds(0, &charge, 6_000_000).await?;
        // The next step is a new settlement.
        held.charges = now;
        case.settle(0, &mut held, &[Amount::ZERO]).await?;
        case.holds(0, &charge, 5_000_000).await?;
    }
    Ok(())
}
