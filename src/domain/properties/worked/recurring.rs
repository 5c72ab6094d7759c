//! Worked cases of recurring grants and rollover.

use super::rules::{APRIL, FEBRUARY, MARCH, day, monthly};
use super::{GIVE, Give, PLAIN, books, charged};
use crate::domain::properties::requests::rules::{Every, NewRecurring, Rule, Terms};
use crate::domain::properties::requests::{CREDIT, Credits, DAY, Outcome, Request, START, Status};

/// The same with other rollover terms: percent, cap, periods.
fn rolling(new: NewRecurring, percent: Credits, cap: Option<Credits>, periods: Option<u32>) -> NewRecurring {
    let cap = cap.map(|cap| cap * CREDIT);
    NewRecurring { terms: Terms { percent: percent * CREDIT, cap, periods, ..new.terms }, ..new }
}

#[test]
fn what_rolls_over_is_cut_by_the_cap_and_spent_first() {
    let mut books = books([PLAIN]);
    books.renew(&rolling(monthly(500), 100, Some(200), Some(1)));
    assert_eq!(books.balance_at(day(FEBRUARY) - 1), 500);
    assert_eq!(books.balance_at(day(FEBRUARY)), 700);
    let renewal =
        [("rollover_out", 200, Some(0)), ("expiration", 300, Some(0)), ("rollover_in", 200, Some(1)), ("grant", 500, Some(2))];
    assert_eq!(books.entries_after(1), renewal);
    assert_eq!(books.days_after(1), [FEBRUARY; 4]);
    let transactions: Vec<_> = books.store.entries[1..].iter().map(|entry| (&entry.transaction_id, entry.line)).collect();
    let first = transactions[0].0;
    assert_eq!(transactions, [(first, 1), (first, 2), (first, 3), (first, 4)], "one transaction");
    assert_eq!(books.spend(50), charged(50, 650));
    assert_eq!(books.spend(200), charged(200, 450));
    assert_eq!(books.entries_after(5), [("usage", 50, Some(1)), ("usage", 150, Some(1)), ("usage", 50, Some(2))]);
    assert!(books.is_sound());
}

#[test]
fn a_percentage_of_what_is_unused_rolls_over() {
    let mut books = books([PLAIN]);
    books.renew(&rolling(monthly(200), 50, None, Some(1)));
    assert_eq!(books.spend(50), charged(50, 150));
    assert_eq!(books.balance_at(day(FEBRUARY)), 275);
}

#[test]
fn without_percent_or_room_under_the_cap_nothing_rolls_over() {
    for (percent, cap) in [(0, None), (0, Some(100)), (100, Some(0))] {
        let mut books = books([PLAIN]);
        books.renew(&rolling(monthly(500), percent, cap, Some(1)));
        assert_eq!(books.balance_at(day(FEBRUARY)), 500, "{percent} percent, cap {cap:?}");
        assert_eq!(books.entries_after(1), [("expiration", 500, Some(0)), ("grant", 500, Some(1))]);
    }
}

#[test]
fn what_rolled_over_lives_so_many_periods_and_never_rolls_over_again() {
    for (periods, balances) in [(Some(1), [200, 200, 200]), (Some(2), [200, 300, 300]), (None, [200, 300, 400])] {
        let mut books = books([PLAIN]);
        books.renew(&rolling(monthly(100), 100, None, periods));
        let renewals = [FEBRUARY, MARCH, APRIL].map(|days| books.balance_at(day(days)));
        assert_eq!(renewals, balances, "{periods:?} periods");
    }
}

#[test]
fn old_rollover_expires_first_and_makes_room_under_the_cap() {
    let mut books = books([PLAIN]);
    books.renew(&rolling(monthly(500), 100, Some(200), Some(1)));
    assert_eq!([FEBRUARY, MARCH, APRIL].map(|days| books.balance_at(day(days))), [700; 3]);
}

#[test]
fn the_cap_counts_what_is_unspent_in_every_wallet() {
    let mut books = books([PLAIN, PLAIN]);
    books.renew(&rolling(monthly(500), 100, Some(200), None));
    assert_eq!(books.balance_at(day(FEBRUARY)), 700);
    // The period's grant, which expires first, and half of what rolled over.
    let moved = books.ask(&Request::Transfer { from: 0, to: 1, amount: 600 * CREDIT }, None);
    assert!(matches!(moved, Outcome::Transferred { .. }));
    books.give(Give { credits: 1, ..GIVE });
    assert_eq!(books.spend(1), charged(1, 700), "wallet \"default\" pays");
    assert_eq!(books.balance_at(day(MARCH)), 700, "200 rolled over and 500 new ones: what moved of the period expired");
}

#[test]
fn what_holds_have_of_what_rolled_over_is_unspent() {
    let mut books = books([PLAIN]);
    books.renew(&rolling(monthly(500), 100, Some(200), Some(1)));
    books.wait(day(FEBRUARY), true);
    assert!(matches!(books.hold(150, 300 * DAY), Outcome::Held { .. }));
    assert_eq!(books.balance_at(day(MARCH)), 550, "the cap leaves room for 50");
    assert_eq!(books.release(0), Outcome::Released { released: 150 * CREDIT, balance: 550 * CREDIT });
    assert_eq!(books.balance_at(day(APRIL)), 700);
    assert!(books.is_sound());
}

#[test]
fn after_a_cancel_the_running_period_ends_normally_and_nothing_rolls_over() {
    let mut books = books([PLAIN]);
    books.renew(&monthly(100));
    books.wait(day(FEBRUARY + 1), true);
    assert_eq!(books.agree(Rule::CancelRecurring { code: 0, at: None }), Outcome::Done);
    assert_eq!(books.balance_at(day(MARCH) - 1), 200);
    let written = books.store.entries.len();
    assert_eq!(books.balance_at(day(MARCH)), 0);
    assert_eq!(books.entries_after(written), [("expiration", 100, Some(1)), ("expiration", 100, Some(2))]);
    assert_eq!(books.balance_at(day(APRIL)), 0);
}

#[test]
fn a_period_that_would_start_at_its_end_does_not() {
    let mut books = books([PLAIN]);
    books.renew(&NewRecurring { ends: Some(day(FEBRUARY)), ..monthly(100) });
    assert_eq!(books.balance_at(day(FEBRUARY)), 0);
    assert_eq!(books.entries_after(1), [("expiration", 100, Some(0))]);
}

#[test]
fn periods_are_counted_from_the_anchor() {
    let mut books = books([PLAIN]);
    books.renew(&NewRecurring { anchor: Some(day(30)), starts: Some(day(30)), ..rolling(monthly(100), 0, None, Some(1)) });
    books.wait(day(APRIL), true);
    let given = books.store.grants.iter().map(|grant| (grant.terms.effective_at.to_postgres() - START) / DAY);
    assert_eq!(given.collect::<Vec<_>>(), [30, 58, 89], "January 31, February 28, March 31");
}

#[test]
fn a_past_start_begins_with_the_period_that_contains_now() {
    let mut books = books([PLAIN]);
    books.renew(&NewRecurring { starts: Some(day(-47)), ..monthly(100) });
    let grant = &books.store.grants[0];
    let times = [grant.terms.effective_at, grant.terms.expires_at].map(|at| (at.to_postgres() - START) / DAY);
    assert_eq!(times, [-17, 14], "from December 15 until January 15; it began in November");
    assert_eq!(books.days_after(0), [0], "but its entry is dated now");
}

#[test]
fn a_first_period_entered_late_gives_its_share_by_time() {
    let mut books = books([PLAIN]);
    books.wait(day(10), true);
    let late = NewRecurring { anchor: Some(START), prorate: true, ..rolling(monthly(100), 0, None, Some(1)) };
    books.renew(&late);
    assert_eq!(books.left(), [67_741_935_483_871], "21 of 31 days, to 12 decimals");
    assert_eq!(books.balance_at(day(FEBRUARY)), 100);
    let whole = NewRecurring { code: 1, starts: Some(day(FEBRUARY)), ..late };
    books.renew(&whole);
    assert_eq!(books.left()[2], 100 * CREDIT, "a period entered at its start is whole");
}

#[test]
fn a_life_of_its_own_outlasts_the_period() {
    let mut books = books([PLAIN]);
    let terms = Terms { life: Some(Every::days(40)), percent: 0, ..monthly(100).terms };
    books.renew(&NewRecurring { terms: terms.clone(), ..monthly(0) });
    assert_eq!(books.balance_at(day(FEBRUARY)), 200);
    assert_eq!(books.balance_at(day(40)), 100);
    let both = NewRecurring { code: 1, terms: Terms { percent: 1, ..terms }, ..monthly(0) };
    assert_eq!(books.agree(Rule::CreateRecurring(both)), Outcome::Refused("invalid_argument"));
}

/// Two days, two periods of a day: the first grant ends when the second period does.
#[test]
fn only_the_grant_of_the_period_that_ends_rolls_over() {
    let mut books = books([PLAIN]);
    let daily = NewRecurring { every: Every::days(1), ..monthly(10) };
    let with_life = Terms { life: Some(Every::days(2)), percent: 0, ..daily.terms.clone() };
    books.renew(&NewRecurring { terms: with_life, ..daily.clone() });
    let update = Rule::UpdateRecurring { code: 0, terms: daily.terms, ends: None };
    assert_eq!(books.agree(update), Outcome::Done);
    assert_eq!(books.balance_at(day(1)), 20);
    assert_eq!(books.balance_at(day(2)), 20);
    let renewal =
        [("expiration", 10, Some(0)), ("rollover_out", 10, Some(1)), ("rollover_in", 10, Some(2)), ("grant", 10, Some(3))];
    assert_eq!(books.entries_after(2), renewal);
}

#[test]
fn an_update_holds_from_the_next_period_on() {
    let mut books = books([PLAIN]);
    books.renew(&monthly(100));
    let terms = Terms { amount: 30 * CREDIT, percent: 0, ..monthly(0).terms };
    assert_eq!(books.agree(Rule::UpdateRecurring { code: 0, terms, ends: None }), Outcome::Done);
    assert_eq!(books.balance_at(day(FEBRUARY)), 130, "the running period rolls over as agreed when it began");
    assert_eq!(books.balance_at(day(MARCH)), 30);
}

#[test]
fn closing_its_wallet_ends_a_recurring_grant() {
    let mut books = books([PLAIN]);
    books.renew(&monthly(100));
    books.wait(day(1), true);
    assert_eq!(books.ask(&Request::SetStatus { wallet: 0, status: Status::Closed }, None), Outcome::Done);
    books.wait(day(APRIL), true);
    assert_eq!(books.entries_after(1), [("void", 100, Some(0))]);
}

#[test]
fn in_a_frozen_wallet_renewals_go_on() {
    let mut books = books([PLAIN]);
    books.renew(&monthly(100));
    assert_eq!(books.ask(&Request::SetStatus { wallet: 0, status: Status::Frozen }, None), Outcome::Done);
    assert_eq!(books.balance_at(day(FEBRUARY)), 200);
}
