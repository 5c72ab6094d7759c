//! Worked cases of contracts.

use super::rules::{APRIL, FEBRUARY, MARCH, day, quarterly};
use super::{PLAIN, books, charged, deducted, hour, refunded};
use crate::domain::grant::GrantStatus;
use crate::domain::names::ContractCode;
use crate::domain::properties::history::Subject;
use crate::domain::properties::requests::rules::{Every, NewContract, Rule};
use crate::domain::properties::requests::{CREDIT, Credits, HOUR, Mode, Outcome, Policy, Request, START, Setup};

const INVOICE: Setup = Setup { policy: Policy::Invoice, ..PLAIN };

fn minimum_spend(credits: Credits) -> NewContract {
    NewContract { minimum_spend: true, ..quarterly(credits) }
}

fn cancel(books: &mut Subject, code: usize) {
    assert_eq!(books.agree(Rule::CancelContract { code, at: None }), Outcome::Done);
}

/// Contract, quantity in credits and amount in cents of each true-up.
fn true_ups(books: &Subject) -> Vec<(&str, Credits, Credits)> {
    let lines = books.store.lines.iter();
    lines
        .map(|line| {
            (
                line.contract.as_ref().map_or("", ContractCode::as_str),
                line.quantity.units() / CREDIT,
                line.amount.units() * 100 / CREDIT,
            )
        })
        .collect()
}

#[test]
fn the_last_instalment_takes_the_remainder() {
    let mut books = books([PLAIN]);
    books.contract(&NewContract { installments: 3, ..quarterly(100) });
    books.wait(day(MARCH), true);
    assert_eq!(books.left(), [33_333_333_333_333, 33_333_333_333_333, 33_333_333_333_334]);
    assert_eq!(books.days_after(0), [0, FEBRUARY, MARCH], "whole months, since they divide the term");
    assert_eq!(books.balance_at(day(APRIL)), 0);
    let ended: Vec<_> = books.entries_after(3).into_iter().map(|(kind, _, grant)| (kind, grant)).collect();
    assert_eq!(ended, [("expiration", Some(0)), ("expiration", Some(1)), ("expiration", Some(2))]);
}

#[test]
fn a_term_that_months_do_not_divide_is_divided_by_time() {
    let mut books = books([PLAIN]);
    books.contract(&NewContract { installments: 4, ends: day(10), ..quarterly(100) });
    books.wait(day(10) - 1, true);
    let due: Vec<_> = books.store.entries.iter().map(|entry| (entry.movement.occurred_at.to_postgres() - START) / HOUR).collect();
    assert_eq!(due, [0, 60, 120, 180]);
}

#[test]
fn what_was_due_before_the_call_is_granted_now() {
    let mut books = books([PLAIN]);
    books.wait(day(MARCH + 1), true);
    books.contract(&NewContract { installments: 3, ..quarterly(30) });
    assert_eq!(books.entries_after(0), [("grant", 10, Some(0)), ("grant", 10, Some(1)), ("grant", 10, Some(2))]);
    assert_eq!(books.days_after(0), [MARCH + 1; 3]);
    let begun = books.store.grants.iter().map(|grant| grant.terms.effective_at.to_postgres());
    assert_eq!(begun.collect::<Vec<_>>(), [0, FEBRUARY, MARCH].map(day));
}

#[test]
fn every_instalment_must_be_due_in_the_term_and_above_zero() {
    let mut books = books([PLAIN]);
    let refused = |books: &mut Subject, new: NewContract| books.agree(Rule::CreateContract(new));
    let too_late = NewContract { installments: 4, every: Some(Every::months(1)), ..quarterly(100) };
    assert_eq!(refused(&mut books, too_late), Outcome::Refused("invalid_argument"));
    let too_small = NewContract { installments: 3, committed: 1, ..quarterly(0) };
    assert_eq!(refused(&mut books, too_small), Outcome::Refused("invalid_argument"));
    books.wait(day(APRIL), true);
    assert_eq!(refused(&mut books, quarterly(100)), Outcome::Refused("invalid_argument"), "it is over");
}

#[test]
fn at_its_end_a_contract_rolls_over_under_percent_and_cap() {
    for (percent, cap, rolled) in [(100, None, 80), (50, None, 40), (50, Some(30), 30), (100, Some(0), 0)] {
        let mut books = books([PLAIN]);
        let (percent, cap) = (percent * CREDIT, cap.map(|cap| cap * CREDIT));
        books.contract(&NewContract { rolls_over: true, percent, cap, life: Some(Every::months(1)), ..quarterly(100) });
        assert_eq!(books.spend(20), charged(20, 80));
        assert_eq!(books.balance_at(day(APRIL)), rolled);
        assert_eq!(books.balance_at(day(APRIL + 29)), rolled);
        assert_eq!(books.balance_at(day(APRIL + 30)), 0, "a month later");
        assert!(books.is_sound());
    }
}

#[test]
fn several_instalments_roll_over_into_one_grant() {
    let mut books = books([PLAIN]);
    books.contract(&NewContract { rolls_over: true, installments: 3, ..quarterly(90) });
    books.wait(day(MARCH), true);
    assert_eq!(books.spend(50), charged(50, 40));
    books.wait(day(APRIL), true);
    let end = [("rollover_out", 10, Some(1)), ("rollover_out", 30, Some(2)), ("rollover_in", 40, Some(3))];
    assert_eq!(books.entries_after(5), end);
}

#[test]
fn a_contract_that_ends_in_a_downtime_ends_at_its_instant() {
    let mut books = books([PLAIN]);
    books.contract(&NewContract { rolls_over: true, installments: 3, life: Some(Every::days(5)), ..quarterly(90) });
    assert_eq!(books.spend(10), charged(10, 20));
    assert_eq!(books.balance_at(day(300)), 0);
    let settled = [
        ("grant", 30, Some(1)),
        ("grant", 30, Some(2)),
        ("rollover_out", 20, Some(0)),
        ("rollover_out", 30, Some(1)),
        ("rollover_out", 30, Some(2)),
        ("rollover_in", 80, Some(3)),
        ("expiration", 80, Some(3)),
    ];
    assert_eq!(books.entries_after(2), settled);
    assert_eq!(books.days_after(2), [FEBRUARY, MARCH, APRIL, APRIL, APRIL, APRIL, APRIL + 5]);
    assert!(books.is_sound());
}

#[test]
fn a_cancelled_contract_ends_at_once_and_gives_no_further_instalment() {
    let mut books = books([PLAIN]);
    books.contract(&NewContract { installments: 3, ..quarterly(90) });
    assert!(matches!(books.hold(10, 300 * 24 * HOUR), Outcome::Held { .. }));
    books.wait(day(1), true);
    cancel(&mut books, 0);
    assert_eq!(books.entries_after(2), [("expiration", 20, Some(0))]);
    assert_eq!(books.release(0), Outcome::Released { released: 10 * CREDIT, balance: 0 }, "what was held ended with it");
    assert_eq!(books.entries_after(3), [("hold_released", 10, Some(0)), ("expiration", 10, Some(0))]);
    assert_eq!(books.grant(0), (0, 30, GrantStatus::Expired));
    cancel(&mut books, 0);
    books.wait(day(APRIL), true);
    assert_eq!(books.store.entries.len(), 5);
    assert!(books.is_sound());
}

#[test]
fn what_was_given_another_life_outlives_its_contract() {
    for (cancelled, settles) in [(false, false), (false, true), (true, true)] {
        let mut books = books([PLAIN]);
        books.contract(&NewContract { rolls_over: true, ..quarterly(100) });
        let longer = Request::ChangeExpiry { grant: Some(0), expires: day(APRIL + 10) };
        assert_eq!(books.ask(&longer, None), Outcome::Granted(1));
        if cancelled {
            cancel(&mut books, 0);
        }
        books.wait(day(APRIL), settles);
        assert_eq!(books.balance_at(day(APRIL + 10) - 1), 100);
        assert_eq!(books.balance_at(day(APRIL + 10)), 0);
        assert_eq!(books.entries_after(3), [("expiration", 100, Some(1))]);
    }
}

#[test]
fn what_was_given_a_life_until_an_early_end_expires_then() {
    let mut books = books([PLAIN]);
    books.contract(&NewContract { rolls_over: true, ..quarterly(100) });
    assert_eq!(books.agree(Rule::CancelContract { code: 0, at: Some(day(10)) }), Outcome::Done);
    let shorter = Request::ChangeExpiry { grant: Some(0), expires: day(10) };
    assert_eq!(books.ask(&shorter, None), Outcome::Granted(1));
    assert_eq!(books.balance_at(day(10)), 0);
    assert_eq!(books.entries_after(3), [("expiration", 100, Some(1))]);
    assert_eq!(books.spend(1), Outcome::Refused("insufficient_credits"));
}

#[test]
fn late_usage_takes_nothing_of_a_contract_that_had_been_cancelled_before() {
    let mut books = books([Setup { grace: 10 * HOUR, ..PLAIN }]);
    books.contract(&NewContract { ends: hour(8), ..quarterly(100) });
    books.wait(hour(1), true);
    cancel(&mut books, 0);
    books.wait(hour(9), true);
    let late = books.use_late(1, None, Some(hour(7)), Mode::Error);
    assert_eq!(late, Outcome::Refused("insufficient_credits"), "its grant ended at hour 1, before the usage");
}

#[test]
fn a_minimum_spend_charges_what_was_not_used_of_it() {
    let mut books = books([INVOICE]);
    books.contract(&minimum_spend(100));
    assert_eq!(books.store.entries.len(), 0, "nothing is granted");
    assert_eq!(books.spend(31), deducted("overage", 31, 0, 31, 0));
    assert_eq!(books.refund(0, Some(10)), refunded(10, 0));
    books.wait(day(300), true);
    assert_eq!(true_ups(&books), [("alpha", 79, 988)], "79 at 0.125 are 9.875, half to even 9.88");
    let line = &books.store.lines[0];
    assert_eq!([line.period_start, line.period_end].map(|at| at.to_postgres()), [START, day(APRIL)]);
}

#[test]
fn a_minimum_spend_that_was_reached_or_never_began_charges_nothing() {
    let mut books = books([INVOICE]);
    books.contract(&NewContract { ends: day(1), ..minimum_spend(10) });
    assert_eq!(books.spend(10), deducted("overage", 10, 0, 10, 0));
    books.contract(&NewContract { code: 1, starts: day(2), ..minimum_spend(10) });
    books.wait(day(1), true);
    cancel(&mut books, 1);
    books.wait(day(APRIL), true);
    assert_eq!(true_ups(&books), []);
}

#[test]
fn a_cancelled_minimum_spend_charges_at_once() {
    let mut books = books([INVOICE]);
    books.contract(&minimum_spend(100));
    books.wait(day(1), true);
    cancel(&mut books, 0);
    assert_eq!(true_ups(&books), [("alpha", 100, 1250)]);
    cancel(&mut books, 0);
    books.wait(day(APRIL), true);
    assert_eq!(true_ups(&books).len(), 1);
}

#[test]
fn terms_of_two_minimum_spends_in_a_wallet_do_not_overlap() {
    let mut books = books([INVOICE, PLAIN]);
    let create = |books: &mut Subject, new: NewContract| books.agree(Rule::CreateContract(new));
    let refused = Outcome::Refused("invalid_argument");
    books.contract(&NewContract { ends: day(10), ..minimum_spend(100) });
    assert_eq!(create(&mut books, NewContract { code: 1, starts: day(10) - 1, ..minimum_spend(100) }), refused);
    assert_eq!(create(&mut books, NewContract { code: 1, wallet: 1, ..minimum_spend(100) }), refused, "it does not invoice");
    assert_eq!(create(&mut books, NewContract { code: 1, price: None, starts: day(10), ..minimum_spend(100) }), refused);
    assert_eq!(create(&mut books, NewContract { code: 1, starts: day(10), ..minimum_spend(100) }), Outcome::Done);
}

#[test]
fn a_minimum_spend_cancelled_before_it_starts_leaves_its_term_to_another() {
    let mut books = books([INVOICE]);
    books.contract(&NewContract { starts: day(10), ..minimum_spend(100) });
    books.wait(day(1), true);
    cancel(&mut books, 0);
    books.contract(&NewContract { code: 1, starts: START, ..minimum_spend(100) });
}

#[test]
fn late_usage_is_paid_by_what_had_expired_before_its_contract_was_cancelled() {
    let mut books = books([Setup { grace: 10 * HOUR, ..PLAIN }]);
    books.contract(&quarterly(100));
    let shorter = Request::ChangeExpiry { grant: Some(0), expires: hour(2) };
    assert_eq!(books.ask(&shorter, None), Outcome::Granted(1));
    books.wait(hour(3), true);
    cancel(&mut books, 0);
    assert_eq!(books.use_late(1, None, Some(hour(1)), Mode::Error), charged(1, 0));
    assert!(books.is_sound());
}
