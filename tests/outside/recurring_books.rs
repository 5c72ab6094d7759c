//! Recurring grants and the books: late runs, races, the status of the wallet, debt, and what is shown of them (SPEC 6 and 10).

use pgrx_tests::assert_ledger_is_sound;

use crate::books::{deduct, everything, grant, ledger, new_books};
use crate::concurrency::{at_once, sessions};
use crate::recurring::{periods, recurring, settle};

#[test]
fn a_year_of_missed_periods_is_applied_before_a_deduction_is_charged() {
    let mut session = new_books("a_year_of_missed_periods");
    recurring(&mut session, "plan", "10, '1 month'");
    deduct(&mut session, "4, 'first'");
    session.set_clock("2027-01-15 00:00+00");
    assert_eq!(session.error("select * from credits.deduct_usage('acme', 10.000000000001)").symbol(), "insufficient_credits");
    assert_eq!(deduct(&mut session, "3, 'late'"), "charged|3|3|0|7|f");
    let month = |number: usize| format!("{:02}-01 00:00", number % 12 + 1);
    let mut expected = vec!["default 1 grant 10 10 01-01 00:00".to_owned(), "default 2 usage -4 6 01-01 00:00".to_owned()];
    for number in 1..13 {
        let unused = if number == 1 { 6 } else { 10 };
        expected.push(format!("default {} expiration -{unused} 0 {}", 2 * number + 1, month(number)));
        expected.push(format!("default {} grant 10 10 {}", 2 * number + 2, month(number)));
    }
    expected.push("default 27 usage -3 7 01-15 00:00".to_owned());
    assert_eq!(ledger(&mut session), expected);
    assert_eq!(
        session.lines("select distinct occurred_at from credits.ledger where occurred_at >= '2026-12-01 00:00+00' order by 1"),
        ["2026-12-01 00:00:00+00", "2027-01-01 00:00:00+00", "2027-01-15 00:00:00+00"]
    );
    assert_eq!(
        session.lines("select distinct recorded_at from credits.ledger order by 1"),
        ["2026-01-01 00:00:00+00", "2027-01-15 00:00:00+00"]
    );
    assert_eq!(
        session.one("select count(distinct transaction_id) from credits.ledger where occurred_at = '2026-07-01 00:00+00'"),
        "1",
        "each instant is one transaction"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn reading_before_a_renewal_is_settled_equals_reading_after() {
    let mut session = new_books("reading_before_a_renewal_is_settled");
    recurring(&mut session, "daily", "3, '1 day', rollover_percent => 50, rollover_cap => 4, rollover_periods => 2");
    recurring(&mut session, "monthly", "10, '1 month', anchor => '2026-01-20 00:00+00', expires_after => '20 days'");
    deduct(&mut session, "11, 'used'");
    let before = everything(&mut session);
    session.set_clock("2026-02-25 07:00+00");
    let reads = [
        "select wallet, balance, held, scheduled, debt, next_expiry_at, next_expiry_credits from credits.balance('acme')",
        "select at, credits.balance_at('acme', 'default', at)
         from generate_series('2025-12-31 00:00+00'::timestamptz, '2026-02-25 07:00+00', '8 hours') at",
        "select seq, occurred_at, kind, amount, balance from credits.statement('acme', 'default', '2026-01-01 00:00+00', '2026-02-25 07:00+00')",
        "select credits from credits.preview_deduction('acme', 99)",
    ];
    let unsettled = reads.map(|sql| session.lines(sql));
    assert_eq!(everything(&mut session), before, "reading writes nothing");
    assert!(unsettled[2].len() > 150, "{}", unsettled[2].len());
    settle(&mut session);
    assert_eq!(reads.map(|sql| session.lines(sql)), unsettled);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn no_two_sessions_renew_one_period() {
    let mut session = new_books("no_two_sessions_renew_one_period");
    recurring(&mut session, "plan", "1000, '1 month', rollover_percent => 100");
    recurring(&mut session, "daily", "10, '1 day'");
    let mut workers = sessions("no_two_sessions_renew_one_period", 8);
    let calls = [
        "select * from credits.deduct_usage('acme', 1)",
        "select * from credits.renew_grants()",
        "select * from credits.run_maintenance()",
        "select credits.grant_credits('acme', 1)",
    ];
    for day in [1, 2, 31, 32, 62] {
        let now = session.one(&format!("select '2026-01-01 00:00+00'::timestamptz + interval '{day} days'"));
        at_once(&mut workers, |number, worker| {
            worker.set_clock(&now);
            worker.exec(calls[number % calls.len()]);
        });
        session.set_clock(&now);
        assert_eq!(
            session.lines(
                "select recurring_grant, count(*), count(distinct effective_at) from credits.grants
                 where recurring_grant is not null and not rolled_over group by 1 order by 1"
            ),
            [format!("daily|{0}|{0}", day + 1), format!("plan|{0}|{0}", 1 + day / 31)],
            "day {day}"
        );
        assert_ledger_is_sound(&mut session);
    }
    assert_eq!(session.one("select count(*) from credits.grants where rolled_over"), "2");
    assert_eq!(session.one("select sum(credits) from credits.ledger where kind = 'usage'"), "10", "5 days, 2 sessions");
}

#[test]
fn late_usage_revives_what_expired_of_a_period_and_not_what_rolled_over() {
    let mut session = new_books("late_usage_revives_what_expired");
    session.exec("select credits.update_wallet('acme', 'default', late_usage_grace => '1 day')");
    recurring(&mut session, "plan", "500, '1 month', rollover_percent => 100, rollover_cap => 200");
    session.set_clock("2026-02-01 12:00+00");
    assert_eq!(deduct(&mut session, "350, occurred_at => '2026-01-31 12:00+00'"), "charged|350|350|0|650|f");
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant 500 500 01-01 00:00",
            "default 2 rollover_out -200 300 02-01 00:00",
            "default 3 expiration -300 0 02-01 00:00",
            "default 4 rollover_in 200 200 02-01 00:00",
            "default 5 grant 500 700 02-01 00:00",
            "default 6 expiration_reversed 300 1000 02-01 12:00",
            "default 7 usage -300 700 02-01 12:00",
            "default 8 usage -50 650 02-01 12:00"
        ]
    );
    assert_eq!(session.one("select remaining from credits.grants where rolled_over"), "150");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_hold_of_all_the_credits_of_a_period_that_lapses_gives_them_back_to_it() {
    let mut session = new_books("a_hold_of_all_that_lapses");
    recurring(&mut session, "plan", "100, '1 month', rollover_percent => 50");
    session.exec("select * from credits.hold_credits('acme', 100, '31 days')");
    session.set_clock("2026-03-10 00:00+00");
    settle(&mut session);
    assert_eq!(
        ledger(&mut session)[2..],
        [
            "default 3 hold_released 100 100 02-01 00:00",
            "default 4 rollover_out -50 50 02-01 00:00",
            "default 5 expiration -50 0 02-01 00:00",
            "default 6 rollover_in 50 50 02-01 00:00",
            "default 7 grant 100 150 02-01 00:00",
            "default 8 expiration -50 100 03-01 00:00",
            "default 9 rollover_out -50 50 03-01 00:00",
            "default 10 expiration -50 0 03-01 00:00",
            "default 11 rollover_in 50 50 03-01 00:00",
            "default 12 grant 100 150 03-01 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_frozen_wallet_is_renewed() {
    let mut session = new_books("a_frozen_wallet_is_renewed");
    recurring(&mut session, "plan", "10, '1 month', rollover_percent => 50");
    session.exec("select credits.set_wallet_status('acme', 'default', 'frozen')");
    recurring(&mut session, "made while frozen", "1, '1 year'");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "16");
    assert_eq!(session.error("select * from credits.deduct_usage('acme', 1)").symbol(), "wrong_state");
    session.exec("select credits.set_wallet_status('acme', 'default', 'active')");
    assert_eq!(deduct(&mut session, "6"), "charged|6|6|0|10|f");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn closing_a_wallet_cancels_its_recurring_grants() {
    let mut session = new_books("closing_cancels_recurring_grants");
    session.exec("select credits.create_wallet('acme', 'other')");
    recurring(&mut session, "running", "10, '1 month', rollover_percent => 100, rollover_periods => null");
    recurring(&mut session, "not begun", "20, '1 month', starts_at => '2026-06-01 00:00+00'");
    recurring(&mut session, "elsewhere", "30, '1 month', wallet => 'other'");
    session.set_clock("2026-02-10 00:00+00");
    assert_eq!(session.one("select credits.set_wallet_status('acme', 'default', 'closed')"), "closed");
    let next = "select recurring_grant, ends_at, next_period_at from credits.recurring_grants order by 1";
    assert_eq!(
        session.lines(next),
        ["elsewhere||2026-03-01 00:00:00+00", "not begun|2026-02-10 00:00:00+00|", "running|2026-02-10 00:00:00+00|"]
    );
    session.set_clock("2026-09-01 00:00+00");
    settle(&mut session);
    assert_eq!(session.lines("select wallet, balance from credits.balance('acme') order by 1"), ["default|0", "other|30"]);
    assert_eq!(
        session.lines("select recurring_grant, status from credits.recurring_grants order by 1"),
        ["elsewhere|active", "not begun|ended", "running|ended"]
    );
    assert_eq!(
        session.lines(
            "select kind, credits, to_char(occurred_at, 'MM-DD') from credits.ledger where wallet = 'default' order by seq"
        ),
        ["grant|10|01-01", "rollover_out|10|02-01", "rollover_in|10|02-01", "grant|10|02-01", "void|10|02-10", "void|10|02-10"]
    );
    let error = session.error("select credits.create_recurring_grant('acme', 'new', 1, '1 month')");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("55000", "wrong_state"), "{error}");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_renewal_repays_debt_at_its_instant() {
    let mut session = new_books("a_renewal_repays_debt");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    recurring(&mut session, "limited", "5, '1 month', applies_to => array['chat']");
    recurring(&mut session, "plan", "10, '1 month'");
    assert_eq!(deduct(&mut session, "27, 'big'"), "overage|27|10|17|5|f");
    session.set_clock("2026-03-10 00:00+00");
    assert_eq!(session.lines("select balance, debt from credits.balance('acme')"), ["8|0"], "3 of the plan, 5 limited");
    recurring(&mut session, "next", "4, '1 month'");
    assert_eq!(
        ledger(&mut session)[2..],
        [
            "default 3 usage -10 5 01-01 00:00",
            "default 4 overdraft 0 5 01-01 00:00",
            "default 5 expiration -5 0 02-01 00:00",
            "default 6 grant 5 5 02-01 00:00",
            "default 7 grant 10 15 02-01 00:00",
            "default 8 overdraft_repaid -10 5 02-01 00:00",
            "default 9 expiration -5 0 03-01 00:00",
            "default 10 grant 5 5 03-01 00:00",
            "default 11 grant 10 15 03-01 00:00",
            "default 12 overdraft_repaid -7 8 03-01 00:00",
            "default 13 grant 4 12 03-10 00:00"
        ]
    );
    // The first grant repays too, at once.
    deduct(&mut session, "10, 'more'");
    recurring(&mut session, "pays", "6, '1 month'");
    assert_eq!(session.lines("select balance, debt from credits.balance('acme')"), ["8|0"], "5 limited, 3 left of the 6");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_recurring_grant_is_shown_with_its_terms_and_where_it_stands() {
    let mut session = new_books("a_recurring_grant_is_shown");
    session.exec("select credits.create_wallet('acme', 'team')");
    recurring(&mut session, "plain", "10.50, '1 month'");
    recurring(
        &mut session,
        "full",
        "500, '7 days', 'team', 'committed', '2026-01-10 00:00+00', '2026-01-20 00:00+00', '2026-01-08 00:00+00', 'Europe/Berlin',
         null, 50.0, 200.00, null, true, -3, 0.0200, 'EUR', array['chat', 'image'], '{\"plan\": \"pro\"}'",
    );
    let all =
        "select customer_id, recurring_grant, wallet, status, amount, grant_type, every, anchor, time_zone, starts_at, ends_at,
                   period_starts_at, next_period_at, expires_after, rollover_percent, rollover_cap, rollover_periods, prorate,
                   priority, unit_price, currency, applies_to, metadata, created_at from credits.recurring_grants order by 2";
    let plain = "acme|plain|default|active|10.5|prepaid|1 mon|2026-01-01 00:00:00+00|UTC|2026-01-01 00:00:00+00||\
                 2026-01-01 00:00:00+00|2026-02-01 00:00:00+00||0||1|f|100||||{}|2026-01-01 00:00:00+00";
    let full = |status: &str, period: &str| {
        format!(
            "acme|full|team|{status}|500|committed|7 days|2026-01-08 00:00:00+00|Europe/Berlin|2026-01-10 00:00:00+00|\
             2026-01-20 00:00:00+00|{period}||50|200||t|-3|0.02|EUR|{{chat,image}}|{{\"plan\": \"pro\"}}|2026-01-01 00:00:00+00"
        )
    };
    assert_eq!(session.lines(all), [full("scheduled", "|2026-01-10 00:00:00+00"), plain.to_owned()]);
    session.set_clock("2026-01-16 00:00+00");
    settle(&mut session);
    assert_eq!(session.lines(all)[0], full("active", "2026-01-15 00:00:00+00|"), "no period starts after the 20th");
    assert_eq!(
        session.lines(
            "select wallet, grant_type, amount, remaining, priority, effective_at, expires_at, unit_price, currency, applies_to,
                 metadata, contract, rolled_over from credits.grants where recurring_grant = 'full' order by effective_at, amount"
        ),
        [
            // 5 of 7 days of 500
            "team|committed|357.142857142857|0|-3|2026-01-10 00:00:00+00|2026-01-15 00:00:00+00|0.02|EUR|{chat,image}|{\"plan\": \"pro\"}||f",
            "team|committed|178.571428571428|178.571428571428|-3|2026-01-15 00:00:00+00||0.02|EUR|{chat,image}|{\"plan\": \"pro\"}||t",
            "team|committed|500|500|-3|2026-01-15 00:00:00+00|2026-01-22 00:00:00+00|0.02|EUR|{chat,image}|{\"plan\": \"pro\"}||f"
        ]
    );
    session.set_clock("2026-01-22 00:00+00");
    settle(&mut session);
    assert!(session.lines(all)[0].starts_with("acme|full|team|ended|500|"), "{}", session.lines(all)[0]);
    assert_eq!(
        session.one("select balance from credits.balance('acme', 'team')"),
        "178.571428571428",
        "the last does not roll over"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_customers_recurring_grants_are_its_own() {
    let mut session = new_books("recurring_grants_are_its_own");
    session.exec("select credits.create_wallet('zoe')");
    recurring(&mut session, "plan", "10, '1 month'");
    session.exec("select credits.create_recurring_grant('zoe', 'plan', 7, '1 month')");
    session.exec("select credits.cancel_recurring_grant('zoe', 'plan')");
    session.set_clock("2026-03-01 00:00+00");
    grant(&mut session, "bought", "1", "");
    settle(&mut session);
    assert_eq!(periods(&mut session).len(), 3);
    assert_eq!(session.lines("select customer_id, balance from credits.wallets order by 1"), ["acme|11", "zoe|0"]);
    assert_ledger_is_sound(&mut session);
}
