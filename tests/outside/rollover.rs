//! Rollover: what of a period outlives it, for how long, and under which cap (SPEC 6).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{deduct, end_of, grant, hold, ledger, new_books, release};
use crate::recurring::{periods, recurring, settle};

/// The balance of `acme`, and how much of it rolled over.
fn standing(session: &mut Session) -> String {
    let unsettled = session.one("select balance from credits.balance('acme', 'default')");
    settle(session);
    let settled = session.lines(
        "select balance, (select coalesce(sum(remaining), 0) from credits.grants where wallet = 'default' and rolled_over)
         from credits.balance('acme', 'default')",
    );
    assert_eq!(settled[0].split('|').next(), Some(unsettled.as_str()), "read before it is settled");
    settled.concat()
}

/// [`standing`] on each of these days, of a wallet that nobody uses.
fn standings(session: &mut Session, days: &[&str]) -> Vec<String> {
    days.iter()
        .map(|day| {
            session.set_clock(&format!("2026-{day} 00:00+00"));
            standing(session)
        })
        .collect()
}

/// What rolled over, as written: amount, what is left of it, status, from when until when.
fn rolled_over(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', recurring_grant, amount, remaining, status, to_char(effective_at, 'MM-DD'), 'to',
             coalesce(to_char(expires_at, 'YYYY-MM-DD'), 'never'))
         from credits.grants where rolled_over order by effective_at, recurring_grant",
    )
}

#[test]
fn five_hundred_a_month_with_a_cap_of_two_hundred() {
    let mut session = new_books("five_hundred_a_month");
    recurring(&mut session, "plan", "500, '1 month', rollover_percent => 100, rollover_cap => 200");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(standing(&mut session), "700|200");
    session.set_clock("2026-02-10 00:00+00");
    assert_eq!(deduct(&mut session, "50"), "charged|50|50|0|650|f");
    assert_eq!(deduct(&mut session, "200"), "charged|200|200|0|450|f");
    assert_eq!(standing(&mut session), "450|0", "what rolled over was spent first");
    session.set_clock("2026-03-01 00:00+00");
    assert_eq!(standing(&mut session), "700|200");
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant 500 500 01-01 00:00",
            "default 2 rollover_out -200 300 02-01 00:00",
            "default 3 expiration -300 0 02-01 00:00",
            "default 4 rollover_in 200 200 02-01 00:00",
            "default 5 grant 500 700 02-01 00:00",
            "default 6 usage -50 650 02-10 00:00",
            "default 7 usage -150 500 02-10 00:00",
            "default 8 usage -50 450 02-10 00:00",
            "default 9 rollover_out -200 250 03-01 00:00",
            "default 10 expiration -250 0 03-01 00:00",
            "default 11 rollover_in 200 200 03-01 00:00",
            "default 12 grant 500 700 03-01 00:00"
        ]
    );
    assert_eq!(session.one("select count(distinct transaction_id) from credits.ledger where seq between 2 and 5"), "1");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn half_of_what_is_unused_rolls_over() {
    let mut session = new_books("half_of_what_is_unused");
    recurring(&mut session, "plan", "200, '1 month', rollover_percent => 50");
    deduct(&mut session, "50");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(standing(&mut session), "275|75");
    assert_eq!(
        ledger(&mut session)[2..],
        [
            "default 3 rollover_out -75 75 02-01 00:00",
            "default 4 expiration -75 0 02-01 00:00",
            "default 5 rollover_in 75 75 02-01 00:00",
            "default 6 grant 200 275 02-01 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_percent_is_rounded_half_even_to_twelve_decimals() {
    for (unused, percent, rolled) in [
        ("0.000000000001", "50", "0"),
        ("0.000000000003", "50", "0.000000000002"),
        ("0.000000000005", "50", "0.000000000002"),
        ("1", "33.333333333333", "0.333333333333"),
        ("1000", "0.000000000001", "0.00000000001"),
        ("7", "12.5", "0.875"),
    ] {
        let mut session = new_books(&format!("a_percent_of_{unused}"));
        recurring(&mut session, "plan", &format!("{unused}, '1 month', rollover_percent => {percent}"));
        session.set_clock("2026-02-01 00:00+00");
        let all = session.one(&format!("select trim_scale({unused} + {rolled})"));
        assert_eq!(standing(&mut session), format!("{all}|{rolled}"), "{percent} % of {unused}");
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_cap_or_a_percent_of_nothing_expires_everything() {
    for (number, terms) in ["100, rollover_cap => 0", "0, rollover_cap => 200", "0"].into_iter().enumerate() {
        let mut session = new_books(&format!("expires_everything_{number}"));
        recurring(&mut session, "plan", &format!("500, '1 month', rollover_percent => {terms}"));
        deduct(&mut session, "1");
        assert_eq!(standings(&mut session, &["02-01", "03-01"]), ["500|0", "500|0"], "{terms}");
        assert_eq!(
            ledger(&mut session)[2..],
            [
                "default 3 expiration -499 0 02-01 00:00",
                "default 4 grant 500 500 02-01 00:00",
                "default 5 expiration -500 0 03-01 00:00",
                "default 6 grant 500 500 03-01 00:00"
            ]
        );
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn without_a_number_of_periods_it_is_kept_for_ever_up_to_the_cap() {
    let mut session = new_books("kept_for_ever_up_to_the_cap");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 100, rollover_cap => 250, rollover_periods => null");
    assert_eq!(
        standings(&mut session, &["01-31", "02-01", "03-01", "04-01", "05-01"]),
        ["100|0", "200|100", "300|200", "350|250", "350|250"]
    );
    assert_eq!(
        rolled_over(&mut session),
        ["plan 100 100 active 02-01 to never", "plan 100 100 active 03-01 to never", "plan 50 50 active 04-01 to never"]
    );
    // Spending of it makes room: the period's own credits, which expire, are spent first.
    deduct(&mut session, "160");
    assert_eq!(standing(&mut session), "190|190");
    session.set_clock("2026-06-01 00:00+00");
    assert_eq!(standing(&mut session), "290|190", "nothing was left of May");
    session.set_clock("2026-07-01 00:00+00");
    assert_eq!(standing(&mut session), "350|250");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn it_lives_for_the_number_of_periods_and_does_not_roll_over_again() {
    let mut session = new_books("lives_for_the_number_of_periods");
    recurring(
        &mut session,
        "plan",
        "100, '1 month', rollover_percent => 100, rollover_periods => 2, starts_at => '2026-01-31 00:00+00'",
    );
    session.set_clock("2026-01-31 00:00+00");
    deduct(&mut session, "60");
    assert_eq!(standings(&mut session, &["02-28", "03-31", "04-30"]), ["140|40", "240|140", "300|200"]);
    assert_eq!(
        rolled_over(&mut session),
        [
            "plan 40 0 expired 02-28 to 2026-04-30",
            "plan 100 100 active 03-31 to 2026-05-31",
            "plan 100 100 active 04-30 to 2026-06-30"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn periods_beyond_the_calendar_are_for_ever() {
    let mut session = new_books("periods_beyond_the_calendar");
    recurring(&mut session, "plan", "100, '100 years', rollover_percent => 100, rollover_periods => 2147483647");
    session.set_clock("2126-01-01 00:00+00");
    settle(&mut session);
    assert_eq!(rolled_over(&mut session), ["plan 100 100 active 01-01 to never"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn old_rollover_expires_first_and_makes_room_under_the_cap() {
    let mut session = new_books("old_rollover_makes_room");
    recurring(&mut session, "plan", "500, '1 month', rollover_percent => 100, rollover_cap => 200");
    assert_eq!(standings(&mut session, &["02-01", "03-01"]), ["700|200", "700|200"]);
    assert_eq!(
        ledger(&mut session)[5..],
        [
            "default 6 expiration -200 500 03-01 00:00",
            "default 7 rollover_out -200 300 03-01 00:00",
            "default 8 expiration -300 0 03-01 00:00",
            "default 9 rollover_in 200 200 03-01 00:00",
            "default 10 grant 500 700 03-01 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_cap_counts_what_is_rolled_over_and_held() {
    let mut session = new_books("the_cap_counts_what_is_held");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 100, rollover_cap => 100, rollover_periods => null");
    assert_eq!(standings(&mut session, &["02-10"]), ["200|100"]);
    deduct(&mut session, "100");
    assert_eq!(hold(&mut session, "60, '80 days', idempotency_key => 'held'"), "60|40|f");
    assert_eq!(standings(&mut session, &["03-01", "04-01"]), ["140|40", "140|40"], "60 held and 40 are 100: no room");
    assert_eq!(session.one("select held from credits.balance('acme')"), "60");
    session.exec("select * from credits.capture_hold('acme', 'held')");
    assert_eq!(standings(&mut session, &["05-01"]), ["200|100"], "room for 60 of April's 100");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_was_voided_or_spent_of_it_makes_room() {
    let mut session = new_books("what_was_voided_makes_room");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 100, rollover_cap => 100, rollover_periods => null");
    assert_eq!(standings(&mut session, &["02-01", "03-01"]), ["200|100", "200|100"]);
    session.exec("select credits.void_grant('acme', grant_id, amount => 30) from credits.grants where rolled_over");
    assert_eq!(standings(&mut session, &["04-01"]), ["200|100"]);
    assert_eq!(rolled_over(&mut session), ["plan 100 70 active 02-01 to never", "plan 30 30 active 04-01 to never"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_held_at_the_end_of_a_period_is_not_unused() {
    let mut session = new_books("what_is_held_at_the_end");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 100");
    hold(&mut session, "30, '31 days', idempotency_key => 'lapses at the end'");
    hold(&mut session, "20, '60 days', idempotency_key => 'released later'");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(standing(&mut session), "180|80", "50 and the 30 that came back at the last moment");
    session.set_clock("2026-02-02 00:00+00");
    assert_eq!(release(&mut session, "released later"), "released later|20|180");
    assert_eq!(
        end_of(&mut session, "released later"),
        ["default hold_released 20 02-02 00:00", "default expiration 20 02-02 00:00"]
    );
    assert_eq!(
        ledger(&mut session)[3..8],
        [
            "default 4 hold_released 30 80 02-01 00:00",
            "default 5 rollover_out -80 0 02-01 00:00",
            "default 6 rollover_in 80 80 02-01 00:00",
            "default 7 grant 100 180 02-01 00:00",
            "default 8 hold_released 20 200 02-02 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn two_recurring_grants_of_a_wallet_roll_over_each_for_itself() {
    let mut session = new_books("two_recurring_grants_of_a_wallet");
    recurring(&mut session, "b", "50, '1 month', rollover_percent => 50");
    recurring(&mut session, "a", "100, '1 month', rollover_percent => 100, rollover_cap => 60");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(standing(&mut session), "235|85");
    assert_eq!(
        ledger(&mut session)[2..],
        [
            "default 3 rollover_out -60 90 02-01 00:00",
            "default 4 expiration -40 50 02-01 00:00",
            "default 5 rollover_in 60 110 02-01 00:00",
            "default 6 rollover_out -25 85 02-01 00:00",
            "default 7 expiration -25 60 02-01 00:00",
            "default 8 rollover_in 25 85 02-01 00:00",
            "default 9 grant 100 185 02-01 00:00",
            "default 10 grant 50 235 02-01 00:00"
        ],
        "in the order of their codes"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn nothing_rolls_over_at_the_end_of_the_last_period() {
    let mut session = new_books("nothing_rolls_over_at_the_last_end");
    for (code, ends_at) in
        [("edge", "'2026-02-01 00:00+00'"), ("mid", "'2026-01-15 00:00+00'"), ("second", "'2026-02-15 00:00+00'")]
    {
        recurring(&mut session, code, &format!("10, '1 month', rollover_percent => 100, ends_at => {ends_at}"));
    }
    recurring(&mut session, "cancelled", "10, '1 month', rollover_percent => 100");
    session.set_clock("2026-01-20 00:00+00");
    session.exec("select credits.cancel_recurring_grant('acme', 'cancelled', '2026-02-01 00:00+00')");
    assert_eq!(standings(&mut session, &["02-01", "03-01"]), ["20|10", "0|0"]);
    assert_eq!(rolled_over(&mut session), ["second 10 0 expired 02-01 to 2026-03-01"]);
    assert_eq!(periods(&mut session).len(), 5);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_refund_to_a_period_that_rolled_over_ends_with_it() {
    let mut session = new_books("a_refund_to_a_period_that_rolled");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 100");
    deduct(&mut session, "40, 'january'");
    session.set_clock("2026-02-10 00:00+00");
    deduct(&mut session, "70, 'february'");
    session.exec("select * from credits.refund_usage('acme', 'january')");
    assert_eq!(standing(&mut session), "90|0");
    assert_eq!(
        ledger(&mut session)[7..],
        ["default 8 usage_refunded 40 130 02-10 00:00", "default 9 expiration -40 90 02-10 00:00"],
        "70 took the 60 that rolled over and 10 more"
    );
    session.exec("select * from credits.refund_usage('acme', 'february')");
    assert_eq!(standing(&mut session), "160|60", "what rolled over is not over");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn other_terms_hold_from_the_next_period_on() {
    let mut session = new_books("other_terms_of_rollover");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 100");
    session.set_clock("2026-01-10 00:00+00");
    session.exec("select credits.update_recurring_grant('acme', 'plan', rollover_percent => 50, rollover_cap => 30, rollover_periods => 3)");
    assert_eq!(standings(&mut session, &["02-01"]), ["200|100"], "January ends as it began");
    deduct(&mut session, "150");
    assert_eq!(standings(&mut session, &["03-01"]), ["125|25"]);
    assert_eq!(rolled_over(&mut session), ["plan 100 0 exhausted 02-01 to 2026-03-01", "plan 25 25 active 03-01 to 2026-06-01"]);
    session.exec("select credits.update_recurring_grant('acme', 'plan', reset => array['rollover_percent', 'rollover_cap'])");
    assert_eq!(
        standings(&mut session, &["04-01", "05-01"]),
        ["130|30", "130|30"],
        "50 % of March up to the cap, and of April nothing"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_was_moved_away_or_given_another_expiry_does_not_roll_over() {
    let mut session = new_books("what_was_moved_away");
    session.exec("select credits.create_wallet('acme', 'team', priority => 200)");
    recurring(&mut session, "moved", "100, '1 month', rollover_percent => 100");
    session.exec("select * from credits.transfer_credits('acme', 70, 'default', 'team')");
    session.exec("select * from credits.transfer_credits('acme', 20, 'team', 'default')");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(standing(&mut session), "150|50", "30 and the 20 that came back; the other 50 expired where they were");
    assert_eq!(session.one("select balance from credits.balance('acme', 'team')"), "0");
    assert_eq!(rolled_over(&mut session), ["moved 50 50 active 02-01 to 2026-03-01"], "one grant of both");
    assert_ledger_is_sound(&mut session);

    let mut session = new_books("what_was_given_another_expiry");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 100");
    session.exec("select credits.change_expiry('acme', grant_id, '2026-02-15 00:00+00') from credits.grants");
    grant(&mut session, "bought", "5", "");
    assert_eq!(standings(&mut session, &["02-01", "02-15"]), ["205|0", "105|0"]);
    assert_ledger_is_sound(&mut session);
}
