//! Worked cases of holds.

use super::rules::monthly;
use super::{GIVE, Give, PLAIN, books, charged, deducted, hour};
use crate::domain::grant::GrantStatus;
use crate::domain::properties::history::Subject;
use crate::domain::properties::requests::rules::{Every, NewRecurring, Terms};
use crate::domain::properties::requests::{CREDIT, Credits, DAY, HOUR, Mode, Outcome, Policy, Request, START, Setup, Status};

fn released(released: Credits, balance: Credits) -> Outcome {
    Outcome::Released { released: released * CREDIT, balance: balance * CREDIT }
}

fn held(held: Credits, balance: Credits, lapses: i64) -> Outcome {
    Outcome::Held { held: held * CREDIT, balance: balance * CREDIT, lapses, replayed: false }
}

/// 5 credits an hour and 20 for life, of which 8 are held.
fn five_hourly_and_twenty_for_life() -> Subject {
    let mut books = books([PLAIN]);
    let terms = Terms { percent: 0, ..monthly(5).terms };
    books.renew(&NewRecurring { every: Every::hours(1), terms, ..monthly(5) });
    books.give(Give { credits: 20, ..GIVE });
    assert_eq!(books.hold(8, HOUR / 2), held(8, 17, START + HOUR / 2));
    assert_eq!(books.entries_after(2), [("hold", 5, Some(0)), ("hold", 3, Some(1))]);
    books
}

#[test]
fn a_capture_takes_what_was_held_first_and_gives_the_rest_back_to_its_grants() {
    for (captured, hourly, for_life) in [(5, 0, 20), (0, 5, 20), (8, 0, 17)] {
        let mut books = five_hourly_and_twenty_for_life();
        assert_eq!(books.capture(0, Some(captured), Mode::Partial), charged(captured, hourly + for_life));
        assert_eq!(books.left(), [hourly, for_life].map(|credits| credits * CREDIT), "captured {captured}");
        assert!(books.store.wallets[0].held.is_zero() && books.is_sound());
    }
}

#[test]
fn a_capture_of_nothing_is_recorded_as_usage_of_nothing() {
    let mut books = five_hourly_and_twenty_for_life();
    books.capture(0, Some(0), Mode::Partial);
    let mut kinds: Vec<_> = books.entries_after(4).into_iter().map(|(kind, credits, _)| (kind, credits)).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [("hold_released", 3), ("hold_released", 5), ("usage", 0)]);
}

#[test]
fn a_capture_beyond_the_hold_takes_what_more_there_is() {
    for (mode, answer, left) in [
        (Mode::Partial, deducted("partial", 30, 25, 0, 0), 0),
        (Mode::Error, Outcome::Refused("insufficient_credits"), 17),
        (Mode::Report, deducted("insufficient", 30, 0, 0, 17), 17),
    ] {
        let mut books = five_hourly_and_twenty_for_life();
        assert_eq!(books.capture(0, Some(30), mode), answer);
        assert_eq!(books.balance(), left);
        let is_open = matches!(mode, Mode::Error | Mode::Report);
        let again = if is_open { charged(20, 5) } else { Outcome::Refused("wrong_state") };
        assert_eq!(books.capture(0, Some(20), Mode::Error), again, "{mode:?}");
        assert!(books.is_sound());
    }
}

#[test]
fn a_hold_takes_grants_only() {
    let mut books = books([Setup { policy: Policy::Invoice, ..PLAIN }]);
    books.give(GIVE);
    assert_eq!(books.hold(11, HOUR), Outcome::Refused("insufficient_credits"));
    assert_eq!(books.hold(10, HOUR), held(10, 0, hour(1)));
    assert_eq!(books.capture(0, Some(14), Mode::Error), deducted("overage", 14, 10, 4, 0));
}

#[test]
fn a_hold_is_ended_once() {
    let mut books = five_hourly_and_twenty_for_life();
    assert_eq!(books.release(0), released(8, 25));
    assert_eq!(books.release(0), released(8, 25), "the first result");
    assert_eq!(books.capture(0, None, Mode::Partial), Outcome::Refused("wrong_state"));
    assert_eq!(books.hold(2, HOUR), held(2, 23, hour(1)));
    assert_eq!(books.capture(1, None, Mode::Partial), charged(2, 23));
    assert_eq!(books.release(1), Outcome::Refused("wrong_state"));
    assert_eq!(books.capture(1, None, Mode::Partial), Outcome::Refused("wrong_state"));
    assert_eq!(books.ask(&Request::Release { hold: None }, None), Outcome::Refused("not_found"));
}

#[test]
fn a_hold_lapses_at_its_instant() {
    let mut books = five_hourly_and_twenty_for_life();
    assert_eq!(books.balance_at(START + HOUR / 2 - 1), 17);
    assert_eq!(books.balance_at(START + HOUR / 2), 25);
    assert_eq!(books.entries_after(4), [("hold_released", 5, Some(0)), ("hold_released", 3, Some(1))]);
    assert_eq!(books.capture(0, None, Mode::Partial), Outcome::Refused("wrong_state"));
    assert_eq!(books.release(0), released(8, 25));
}

/// 10 a day, all unused rolls over; 4 of them are held until the end of the day, or a moment longer.
#[test]
fn what_lapses_as_its_period_ends_rolls_over_and_what_lapses_later_expires() {
    for (moment, rolled) in [(0, 10), (1, 6)] {
        let mut books = books([PLAIN]);
        books.renew(&NewRecurring { every: Every::days(1), ..monthly(10) });
        books.hold(4, DAY + moment);
        assert_eq!(books.balance_at(START + DAY + moment), 10 + rolled);
        assert_eq!(books.grant(1), (rolled, 0, GrantStatus::Active));
        assert_eq!(books.grant(0), (0, 10 - rolled, GrantStatus::Expired));
        assert!(books.is_sound());
    }
}

#[test]
fn what_is_released_after_its_grant_ended_ends_at_the_release() {
    let mut books = five_hourly_and_twenty_for_life();
    books.release(0);
    books.hold(8, DAY);
    books.wait(hour(2), true);
    let written = books.store.entries.len();
    assert_eq!(books.release(1), released(8, 25));
    let back = [("hold_released", 5, Some(0)), ("expiration", 5, Some(0)), ("hold_released", 3, Some(1))];
    assert_eq!(books.entries_after(written), back);
    assert!(books.store.entries[written..].iter().all(|entry| entry.movement.occurred_at.to_postgres() == hour(2)));
}

#[test]
fn a_capture_succeeds_in_a_frozen_wallet_and_after_the_grant_expired() {
    let mut books = five_hourly_and_twenty_for_life();
    books.release(0);
    books.hold(8, DAY);
    books.wait(hour(2), true);
    assert_eq!(books.ask(&Request::SetStatus { wallet: 0, status: Status::Frozen }, None), Outcome::Done);
    assert_eq!(books.hold(1, HOUR), Outcome::Refused("wrong_state"));
    let balance = books.balance();
    let answer = Outcome::Deducted {
        status: "partial",
        requested: 9 * CREDIT,
        deducted: 8 * CREDIT,
        overage: 0,
        balance: 0,
        replayed: false,
    };
    assert_eq!(books.capture(1, Some(9), Mode::Partial), answer, "no more than was held, of {balance} frozen credits");
    assert!(books.is_sound());
}

#[test]
fn a_wallet_with_an_open_hold_is_not_closed() {
    let mut books = five_hourly_and_twenty_for_life();
    let close = Request::SetStatus { wallet: 0, status: Status::Closed };
    assert_eq!(books.ask(&close, None), Outcome::Refused("wrong_state"));
    books.release(0);
    assert_eq!(books.ask(&close, None), Outcome::Done);
}

#[test]
fn a_capture_is_refunded_last_taken_first() {
    let mut books = five_hourly_and_twenty_for_life();
    assert_eq!(books.capture(0, Some(10), Mode::Error), charged(10, 15));
    let written = books.store.entries.len();
    books.refund(0, Some(6));
    let back = [("usage_refunded", 2, Some(1)), ("usage_refunded", 3, Some(1)), ("usage_refunded", 1, Some(0))];
    assert_eq!(books.entries_after(written), back);
    assert!(books.is_sound());
}
