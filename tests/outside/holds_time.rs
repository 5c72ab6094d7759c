//! What time does to holds and to the grants below them: lapses, ended grants, renewals, refunds of what was captured (SPEC 4, 6, 7).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{capture, deduct, end_of, entries, everything, grant, hold, holds, ledger, new_books, release};

const BALANCE: &str = "select balance, held from credits.balance('acme')";

/// Name, status and remaining of every grant, by name and age.
fn grants(session: &mut Session) -> Vec<String> {
    session.lines("select concat_ws(' ', metadata ->> 'name', status, remaining) from credits.grants order by metadata ->> 'name', effective_at")
}

/// `short` has 10 credits until January 10th; hold `h` took 8 of them for thirty days.
fn books_on_a_short_grant(rule: &str) -> Session {
    let mut session = new_books(rule);
    grant(&mut session, "short", "10", "expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "life", "20", "");
    assert_eq!(hold(&mut session, "8, '30 days', idempotency_key => 'h'"), "8|22|f");
    session
}

#[test]
fn a_hold_is_open_until_just_before_its_expiry() {
    let mut session = new_books("open_until_just_before_its_expiry");
    grant(&mut session, "bought", "10", "");
    hold(&mut session, "3, '1 hour', idempotency_key => 'early'");
    hold(&mut session, "4, '1 hour', idempotency_key => 'late'");
    session.set_clock("2026-01-01 00:59:59.999999+00");
    assert_eq!(session.lines(BALANCE), ["3|7"]);
    assert_eq!(capture(&mut session, "'early'"), "charged|3|3|0|3|f");
    session.set_clock("2026-01-01 01:00+00");
    assert_eq!(session.lines(BALANCE), ["7|0"], "nothing is settled yet");
    assert_eq!(holds(&mut session), ["early captured", "late lapsed"]);
    let error = session.error("select * from credits.capture_hold('acme', 'late')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("55000", "wrong_state"), "{error}");
    assert!(error.message.contains("late") && error.message.contains("lapsed"), "{error}");
    assert_eq!(deduct(&mut session, "7"), "charged|7|7|0|0|f", "what lapsed can be spent");
    assert_eq!(end_of(&mut session, "late"), ["default hold_released 4 bought 01-01 01:00"]);
    assert_eq!(release(&mut session, "late"), "late|4|0", "what lapsed, and the balance of now");
    assert_eq!(session.error("select * from credits.capture_hold('acme', 'late')").symbol(), "wrong_state");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn holds_lapse_one_by_one_each_dated_at_its_instant() {
    let mut session = new_books("holds_lapse_one_by_one");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 1)");
    grant(&mut session, "free", "5", "wallet => 'promo'");
    grant(&mut session, "bought", "20", "");
    for (key, amount, expires_in) in [("two hours", "3", "2 hours"), ("one hour", "4", "1 hour"), ("two too", "2", "2 hours")] {
        hold(&mut session, &format!("{amount}, '{expires_in}', idempotency_key => '{key}'"));
    }
    let before = everything(&mut session);
    session.set_clock("2026-01-02 00:00+00");
    assert_eq!(
        session.lines("select wallet, balance, held from credits.balance('acme') order by 1"),
        ["default|20|0", "promo|5|0"]
    );
    assert_eq!(holds(&mut session), ["one hour lapsed", "two hours lapsed", "two too lapsed"]);
    assert_eq!(everything(&mut session), before, "reading writes nothing");
    assert_eq!(
        session.lines("select * from credits.run_maintenance() where task = 'lapse_holds'"),
        ["lapse_holds|4|9|f"],
        "four entries of three holds"
    );
    assert_eq!(end_of(&mut session, "two hours"), ["promo hold_released 3 free 01-01 02:00"]);
    assert_eq!(
        end_of(&mut session, "one hour"),
        ["default hold_released 2 bought 01-01 01:00", "promo hold_released 2 free 01-01 01:00"]
    );
    assert_eq!(end_of(&mut session, "two too"), ["default hold_released 2 bought 01-01 02:00"]);
    assert_eq!(session.one("select count(distinct transaction_id) from credits.ledger where kind = 'hold_released'"), "3");
    assert_eq!(session.lines("select balance, held from credits.wallets order by wallet"), ["20|0", "5|0"]);
    assert_eq!(session.lines("select items from credits.run_maintenance() where items > 0"), [""; 0], "once");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_capture_succeeds_after_the_grant_below_it_expired() {
    for status in ["active", "frozen"] {
        let mut session = books_on_a_short_grant(&format!("captured_after_expiry_{status}"));
        session.exec(&format!("select credits.set_wallet_status('acme', 'default', '{status}')"));
        session.set_clock("2026-01-20 00:00+00");
        assert_eq!(session.lines(BALANCE), ["20|8"], "what is held has not expired");
        let captured = "select status, requested, deducted, overage from credits.capture_hold('acme', 'h', 5, 'error', 'c')";
        assert_eq!(session.lines(captured), ["charged|5|5|0"]);
        assert_eq!(
            ledger(&mut session)[3..],
            [
                "default 4 expiration -2 20 01-10 00:00",
                "default 5 hold_captured 0 20 01-20 00:00",
                "default 6 hold_released 3 23 01-20 00:00",
                "default 7 expiration -3 20 01-20 00:00"
            ],
            "what is not captured ends with its grant, dated now"
        );
        assert_eq!(entries(&mut session, "c")[0], "default hold_captured 5 short");
        assert_eq!(grants(&mut session), ["life active 20", "short expired 0"]);
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn a_capture_succeeds_after_the_grant_below_it_was_voided() {
    let mut session = new_books("captured_after_void");
    let part = grant(&mut session, "part", "10", "");
    let all = grant(&mut session, "all", "6", "");
    hold(&mut session, "8, idempotency_key => 'first'");
    hold(&mut session, "8, idempotency_key => 'second'");
    assert_eq!(session.one(&format!("select credits.void_grant('acme', '{part}')")), "0");
    assert_eq!(session.one(&format!("select credits.void_grant('acme', '{all}')")), "0");
    assert_eq!(session.lines(BALANCE), ["0|16"]);
    assert_eq!(capture(&mut session, "'first', 5, idempotency_key => 'c1'"), "charged|5|5|0|0|f");
    assert_eq!(
        entries(&mut session, "c1"),
        ["default hold_captured 5 part", "default hold_released 3 part", "default void 3 part"]
    );
    assert_eq!(release(&mut session, "second"), "second|8|0");
    let mut moved = end_of(&mut session, "second");
    moved.sort();
    assert_eq!(
        moved,
        [
            "default hold_released 2 part 01-01 00:00",
            "default hold_released 6 all 01-01 00:00",
            "default void 2 part 01-01 00:00",
            "default void 6 all 01-01 00:00"
        ]
    );
    assert_eq!(grants(&mut session), ["all voided 0", "part voided 0"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_given_back_to_an_ended_grant_ends_at_once() {
    let mut session = books_on_a_short_grant("given_back_to_an_ended_grant");
    hold(&mut session, "2, '25 days', idempotency_key => 'lapses'");
    session.set_clock("2026-01-20 00:00+00");
    assert_eq!(release(&mut session, "h"), "h|8|20");
    session.set_clock("2026-01-31 00:00+00");
    assert_eq!(session.lines(BALANCE), ["20|0"]);
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(
        ledger(&mut session)[4..],
        [
            "default 5 hold_released 8 28 01-20 00:00",
            "default 6 expiration -8 20 01-20 00:00",
            "default 7 hold_released 2 22 01-26 00:00",
            "default 8 expiration -2 20 01-26 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn at_one_instant_holds_lapse_before_grants_expire() {
    let mut session = new_books("holds_lapse_before_grants_expire");
    grant(&mut session, "short", "10", "expires_at => '2026-01-01 01:00+00'");
    grant(&mut session, "later", "3", "effective_at => '2026-01-01 01:00+00'");
    hold(&mut session, "4, '1 hour', idempotency_key => 'h'");
    session.set_clock("2026-01-01 02:00+00");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(
        ledger(&mut session)[3..],
        [
            "default 4 hold_released 4 10 01-01 01:00",
            "default 5 expiration -10 0 01-01 01:00",
            "default 6 grant_activated 3 3 01-01 01:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

/// A recurring grant `monthly` of 10 that rolls over whole for `rollover_periods` months; 4 of January's are held.
fn rolling_books(rule: &str, terms: &str, expires_in: &str) -> Session {
    let mut session = new_books(rule);
    session.exec(&format!(
        "select credits.create_recurring_grant('acme', 'monthly', 10, '1 month', rollover_percent => 100, {terms},
             metadata => '{{\"name\": \"monthly\"}}')"
    ));
    session.set_clock("2026-01-31 23:45+00");
    assert_eq!(hold(&mut session, &format!("4, '{expires_in}', idempotency_key => 'h'")), "4|6|f");
    session
}

#[test]
fn what_lapses_at_the_very_end_of_a_period_rolls_over() {
    let mut session = rolling_books("lapses_at_the_very_end", "rollover_periods => 1", "15 minutes");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(session.lines(BALANCE), ["20|0"]);
    assert_eq!(deduct(&mut session, "0"), "charged|0|0|0|20|f");
    assert_eq!(
        ledger(&mut session)[2..6],
        [
            "default 3 hold_released 4 10 02-01 00:00",
            "default 4 rollover_out -10 0 02-01 00:00",
            "default 5 rollover_in 10 10 02-01 00:00",
            "default 6 grant 10 20 02-01 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_comes_back_after_the_end_of_a_period_expires() {
    for (name, expires_in, at) in [("lapse", "15 minutes 1 microsecond", "02-01 00:00"), ("release", "10 days", "02-03 00:00")] {
        let mut session = rolling_books(&format!("comes_back_after_the_end_{name}"), "rollover_periods => 1", expires_in);
        session.set_clock("2026-02-03 00:00+00");
        assert_eq!(release(&mut session, "h"), "h|4|16", "6 rolled over and February's 10");
        assert_eq!(
            ledger(&mut session)[2..],
            [
                "default 3 rollover_out -6 0 02-01 00:00".to_owned(),
                "default 4 rollover_in 6 6 02-01 00:00".to_owned(),
                "default 5 grant 10 16 02-01 00:00".to_owned(),
                format!("default 6 hold_released 4 20 {at}"),
                format!("default 7 expiration -4 16 {at}")
            ]
        );
        assert_ledger_is_sound(&mut session);
    }
}

#[test]
fn what_is_held_counts_as_unspent_under_a_rollover_cap() {
    let mut session = rolling_books("held_counts_under_a_cap", "rollover_periods => 3, rollover_cap => 12", "1 minute");
    session.set_clock("2026-02-10 00:00+00");
    // January's 10 have rolled over; 7 of them are held over the end of February, whose 10 find room for 2.
    assert_eq!(hold(&mut session, "10, idempotency_key => 'february'"), "10|10|f");
    assert_eq!(hold(&mut session, "7, '2 months', idempotency_key => 'rolled'"), "7|3|f");
    assert_eq!(release(&mut session, "february"), "february|10|13");
    session.set_clock("2026-03-01 00:00+00");
    assert_eq!(session.lines(BALANCE), ["15|7"], "3 and 2 rolled over, March's 10");
    session.exec("select * from credits.renew_grants()");
    assert_eq!(
        session.lines("select kind, credits from credits.ledger where occurred_at = '2026-03-01 00:00+00' order by seq"),
        ["rollover_out|2", "expiration|8", "rollover_in|2", "grant|10"]
    );
    assert_eq!(release(&mut session, "rolled"), "rolled|7|22", "back to a grant that lives");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn reading_the_past_of_holds_before_and_after_settling() {
    let mut session = books_on_a_short_grant("reading_the_past_of_holds");
    session.set_clock("2026-01-05 00:00+00");
    hold(&mut session, "6, '1 day', idempotency_key => 'lapses'");
    session.set_clock("2026-01-07 00:00+00");
    let before = everything(&mut session);
    let reads = [
        "select at, credits.balance_at('acme', 'default', at)
         from generate_series('2026-01-04 00:00+00'::timestamptz, '2026-01-07 00:00+00', '12 hours') at",
        "select occurred_at, kind, amount, balance
         from credits.statement('acme', 'default', '2026-01-04 00:00+00', '2026-01-07 00:00+00')",
        "select balance, held, next_expiry_at, next_expiry_credits from credits.balance('acme')",
        "select credits from credits.preview_deduction('acme', 100)",
    ];
    let unsettled = reads.map(|sql| session.lines(sql));
    assert_eq!(everything(&mut session), before, "reading writes nothing");
    assert_eq!(
        unsettled[0],
        [
            "2026-01-04 00:00:00+00|22",
            "2026-01-04 12:00:00+00|22",
            "2026-01-05 00:00:00+00|16",
            "2026-01-05 12:00:00+00|16",
            "2026-01-06 00:00:00+00|22",
            "2026-01-06 12:00:00+00|22",
            "2026-01-07 00:00:00+00|22"
        ]
    );
    assert_eq!(
        unsettled[1],
        [
            "2026-01-04 00:00:00+00|opening||22",
            "2026-01-05 00:00:00+00|hold|-2|20",
            "2026-01-05 00:00:00+00|hold|-4|16",
            "2026-01-06 00:00:00+00|hold_released|2|18",
            "2026-01-06 00:00:00+00|hold_released|4|22",
            "2026-01-07 00:00:00+00|closing||22"
        ]
    );
    assert_eq!(unsettled[2], ["22|8|2026-01-10 00:00:00+00|2"]);
    assert_eq!(unsettled[3], ["2", "20"]);
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(reads.map(|sql| session.lines(sql)), unsettled);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn captured_usage_is_refunded_to_the_grants_that_paid() {
    let mut session = books_on_a_short_grant("captured_usage_is_refunded");
    hold(&mut session, "7, '20 days', idempotency_key => 'both'");
    assert_eq!(capture(&mut session, "'both', 9, idempotency_key => 'used'"), "charged|9|9|0|13|f");
    assert_eq!(
        entries(&mut session, "used"),
        ["default hold_captured 2 short", "default hold_captured 5 life", "default usage 2 life"]
    );
    let refund = |session: &mut Session, arguments: &str| {
        session.lines(&format!("select refunded, balance from credits.refund_usage('acme', {arguments})")).concat()
    };
    assert_eq!(refund(&mut session, "'used', 3, idempotency_key => 'r1'"), "3|16");
    assert_eq!(entries(&mut session, "r1"), ["default usage_refunded 2 life", "default usage_refunded 1 life"]);
    assert_eq!(session.error("select * from credits.refund_usage('acme', 'used', 7)").symbol(), "out_of_range");
    session.set_clock("2026-01-12 00:00+00");
    assert_eq!(refund(&mut session, "'used', idempotency_key => 'r2'"), "6|20");
    assert_eq!(
        entries(&mut session, "r2"),
        ["default usage_refunded 4 life", "default usage_refunded 2 short", "default expiration 2 short"]
    );
    assert_eq!(refund(&mut session, "'used', idempotency_key => 'r3'"), "0|20");
    for id in ["h", "both"] {
        let error = session.error(&format!("select * from credits.refund_usage('acme', '{id}')"));
        assert_eq!(error.symbol(), "not_found", "a hold is no usage: {error}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn held_credits_stay_with_their_grant_when_the_rest_of_it_moves() {
    let mut session = new_books("held_credits_stay_with_their_grant");
    session.exec("select credits.create_wallet('acme', 'promo', priority => 200)");
    let moved = grant(&mut session, "moved", "10", "expires_at => '2026-01-10 00:00+00'");
    hold(&mut session, "4, '60 days', idempotency_key => 'h'");
    session.exec(&format!("select credits.change_expiry('acme', '{moved}', '2026-03-01 00:00+00')"));
    session.exec("select * from credits.transfer_credits('acme', 5, 'default', 'promo')");
    assert_eq!(
        session.lines("select wallet, balance, held from credits.balance('acme') order by 1"),
        ["default|1|4", "promo|5|0"]
    );
    session.set_clock("2026-01-05 00:00+00");
    assert_eq!(capture(&mut session, "'h', 1, idempotency_key => 'c'"), "charged|1|1|0|9|f");
    assert_eq!(entries(&mut session, "c"), ["default hold_captured 1 moved", "default hold_released 3 moved"]);
    session.set_clock("2026-01-10 00:00+00");
    session.exec("select * from credits.expire_grants()");
    assert_eq!(ledger(&mut session).concat().matches("expiration -3 1 01-10 00:00").count(), 1, "the 3 kept their expiry");
    assert_ledger_is_sound(&mut session);
}
