//! What time does by itself: settling, lazily and from outside, always dated at the instant it was due (SPEC 2 and 6).

use pgrx_tests::{assert_ledger_is_sound, shared_cluster};

use crate::books::{deduct, everything, grant, ledger, new_books};

const BALANCE: &str = "select balance, scheduled, debt, next_expiry_at, next_expiry_credits from credits.balance('acme')";

#[test]
fn a_grant_is_live_until_just_before_its_expiry() {
    let mut session = new_books("live_until_just_before_its_expiry");
    grant(&mut session, "short", "10", "expires_at => '2026-01-02 00:00+00'");
    session.set_clock("2026-01-01 23:59:59.999999+00");
    assert_eq!(session.lines(BALANCE), ["10|0|0|2026-01-02 00:00:00+00|10"]);
    assert_eq!(deduct(&mut session, "4"), "charged|4|4|0|6|f");
    session.set_clock("2026-01-02 00:00+00");
    assert_eq!(session.lines(BALANCE), ["0|0|0||"]);
    assert_eq!(deduct(&mut session, "1, on_insufficient => 'report'"), "insufficient|1|0|0|0|f");
    assert_eq!(
        ledger(&mut session),
        ["default 1 grant 10 10 01-01 00:00", "default 2 usage -4 6 01-01 23:59", "default 3 expiration -6 0 01-02 00:00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_scheduled_grant_is_spendable_from_its_instant_on() {
    let mut session = new_books("spendable_from_its_instant_on");
    grant(&mut session, "later", "10", "effective_at => '2026-01-02 00:00+00'");
    session.set_clock("2026-01-01 23:59:59.999999+00");
    assert_eq!(session.lines(BALANCE), ["0|10|0||"]);
    assert_eq!(session.error("select * from credits.deduct_usage('acme', 1)").symbol(), "insufficient_credits");
    session.set_clock("2026-01-02 00:00+00");
    assert_eq!(session.lines(BALANCE), ["10|0|0||"]);
    assert_eq!(deduct(&mut session, "1"), "charged|1|1|0|9|f");
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant_scheduled 0 0 01-01 00:00",
            "default 2 grant_activated 10 10 01-02 00:00",
            "default 3 usage -1 9 01-02 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn reading_before_anything_is_settled_equals_reading_after() {
    let mut session = new_books("reading_before_equals_reading_after");
    session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
    grant(&mut session, "first", "10", "expires_at => '2026-01-05 00:00+00'");
    session.set_clock("2026-01-03 00:00+00");
    assert_eq!(deduct(&mut session, "25, 'big'"), "overage|25|10|15|0|f");
    grant(&mut session, "pays", "12", "effective_at => '2026-01-04 00:00+00'");
    grant(&mut session, "in and out", "40", "effective_at => '2026-01-06 00:00+00', expires_at => '2026-01-07 00:00+00'");
    grant(&mut session, "limited", "5", "effective_at => '2026-01-06 00:00+00', applies_to => array['x']");
    grant(&mut session, "far", "7", "effective_at => '2026-03-01 00:00+00'");
    let before = everything(&mut session);
    session.set_clock("2026-02-01 00:00+00");
    let reads = [
        BALANCE,
        "select at, credits.balance_at('acme', 'default', at)
         from generate_series('2025-12-31 00:00+00'::timestamptz, '2026-01-08 00:00+00', '12 hours') at",
        "select occurred_at, kind, amount, balance from credits.statement('acme', 'default', '2026-01-01 00:00+00', '2026-02-01 00:00+00')",
        "select credits from credits.preview_deduction('acme', 99, event_name => 'x')",
        "select metadata ->> 'name', status, remaining from credits.grants where metadata ->> 'name' <> 'pays' order by 1",
    ];
    let unsettled = reads.map(|sql| session.lines(sql));
    assert_eq!(everything(&mut session), before, "reading writes nothing");
    assert_eq!(unsettled[0], ["5|7|0||"]);
    assert_eq!(
        unsettled[2][2..],
        [
            "2026-01-03 00:00:00+00|usage|-10|0",
            "2026-01-03 00:00:00+00|overdraft|0|0",
            "2026-01-03 00:00:00+00|grant_scheduled|0|0",
            "2026-01-03 00:00:00+00|grant_scheduled|0|0",
            "2026-01-03 00:00:00+00|grant_scheduled|0|0",
            "2026-01-03 00:00:00+00|grant_scheduled|0|0",
            "2026-01-04 00:00:00+00|grant_activated|12|12",
            "2026-01-04 00:00:00+00|overdraft_repaid|-12|0",
            "2026-01-06 00:00:00+00|grant_activated|40|40",
            "2026-01-06 00:00:00+00|grant_activated|5|45",
            "2026-01-06 00:00:00+00|overdraft_repaid|-3|42",
            "2026-01-07 00:00:00+00|expiration|-37|5",
            "2026-02-01 00:00:00+00|closing||5"
        ]
    );
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(reads.map(|sql| session.lines(sql)), unsettled);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_long_absence_settles_like_daily_work() {
    let books = |rule: &str, days: &[u32]| {
        let mut session = new_books(rule);
        session.exec("select credits.update_wallet('acme', 'default', overage_policy => 'overdraft')");
        for day in 2..20 {
            let terms =
                format!("effective_at => '2026-01-{day:02} 00:00+00', expires_at => '2026-01-{:02} 12:00+00'", day + day % 4);
            grant(&mut session, &day.to_string(), &day.to_string(), &terms);
        }
        deduct(&mut session, "30");
        for day in days {
            session.set_clock(&format!("2026-01-{day:02} 18:00+00"));
            session.exec("select * from credits.run_maintenance()");
        }
        assert_ledger_is_sound(&mut session);
        ledger(&mut session)
    };
    let at_once = books("settled_once", &[31]);
    assert_eq!(at_once, books("settled_daily", &(1..32).collect::<Vec<_>>()));
    assert_eq!(
        at_once.last().map(String::as_str),
        Some("default 56 expiration -19 0 01-22 12:00"),
        "nothing expires that was used up"
    );
}

#[test]
fn maintenance_works_in_bounded_batches_until_nothing_is_due() {
    let mut session = new_books("maintenance_in_batches");
    session.exec(
        "select credits.create_wallet('c' || n), credits.grant_credits('c' || n, n, expires_at => '2026-01-02 00:00+00')
         from generate_series(1, 5) n",
    );
    session.set_clock("2026-01-03 00:00+00");
    let expire = "select * from credits.expire_grants(2)";
    let batches: Vec<String> = (0..4).map(|_| session.lines(expire).concat()).collect();
    let customers_and_more =
        |row: &String| row.split('|').enumerate().filter(|(i, _)| i % 3 == 0).map(|(_, v)| v.to_owned()).collect::<Vec<_>>();
    assert_eq!(batches.iter().map(customers_and_more).collect::<Vec<_>>(), [["2", "t"], ["2", "t"], ["1", "f"], ["0", "f"]]);
    assert_eq!(session.one("select sum(amount) from credits.ledger where kind = 'expiration'"), "-15");
    assert_eq!(
        session.lines("select * from credits.run_maintenance() order by task"),
        [
            "activate_grants|0|0|f",
            "expire_grants|0|0|f",
            "lapse_holds|0|0|f",
            "notice_expiring|0|0|f",
            "process_inbox|0|0|f",
            "purge_events|0|0|f",
            "queue_top_ups|0|0|f",
            "renew_grants|0|0|f",
            "repay_debt|0|0|f",
            "run_contracts|0|0|f"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn maintenance_skips_customers_that_others_have_locked() {
    let mut session = new_books("maintenance_skips_locked");
    grant(&mut session, "short", "10", "expires_at => '2026-01-02 00:00+00'");
    session.exec(
        "select credits.create_wallet('other'); select credits.grant_credits('other', 7, expires_at => '2026-01-02 00:00+00')",
    );
    let mut holder = shared_cluster().session("maintenance_skips_locked");
    holder.set_clock("2026-01-01 12:00+00");
    holder.exec("begin; select * from credits.deduct_usage('acme', 1)");
    session.set_clock("2026-01-03 00:00+00");
    assert_eq!(session.lines("select * from credits.expire_grants()"), ["1|1|7|t"]);
    holder.exec("commit");
    assert_eq!(session.lines("select * from credits.expire_grants()"), ["1|1|9|f"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn time_never_runs_backwards_for_a_customer() {
    let mut session = new_books("time_never_runs_backwards");
    grant(&mut session, "bought", "10", "");
    session.set_clock("2026-01-10 00:00+00");
    deduct(&mut session, "1, 'ahead'");
    session.set_clock("2026-01-05 00:00+00");
    deduct(&mut session, "1, 'back'");
    grant(&mut session, "general", "1", "");
    assert_eq!(
        ledger(&mut session)[1..],
        ["default 2 usage -1 9 01-10 00:00", "default 3 usage -1 8 01-10 00:00", "default 4 grant 1 9 01-10 00:00"]
    );
    let error = session.error("select credits.grant_credits('acme', 1, expires_at => '2026-01-09 00:00+00')");
    assert_eq!(error.symbol(), "invalid_argument", "already past by the customer's time: {error}");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_call_that_records_nothing_does_not_move_the_customers_time() {
    let mut session = new_books("recording_nothing_moves_no_time");
    grant(&mut session, "limited", "10", "applies_to => array['x']");
    deduct(&mut session, "1, 'key', event_name => 'x'");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(deduct(&mut session, "1, on_insufficient => 'report'"), "insufficient|1|0|0|9|f");
    assert_eq!(deduct(&mut session, "1, 'key', event_name => 'x'"), "charged|1|1|0|9|t");
    session.set_clock("2026-01-05 00:00+00");
    deduct(&mut session, "1, 'next', event_name => 'x'");
    assert_eq!(
        ledger(&mut session)[2],
        "default 3 usage -1 8 01-05 00:00",
        "now is the later of the clock and the last recorded_at"
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn one_wallet_that_cannot_be_settled_stops_nobody_else() {
    let mut session = new_books("one_wallet_that_cannot_be_settled");
    session
        .exec("select credits.create_wallet('zoe'); select credits.grant_credits('zoe', 5, expires_at => '2026-01-03 00:00+00')");
    grant(&mut session, "most there can be", "9e15", "");
    // Either this is refused, since it could never be activated, or settling finds a way.
    let refused = session.try_exec("select credits.grant_credits('acme', 9e15, effective_at => '2026-01-02 00:00+00')");
    if let Err(error) = refused {
        assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22003", "out_of_range"), "{error}");
    }
    session.set_clock("2026-01-04 00:00+00");
    session.exec("select * from credits.run_maintenance()");
    assert_eq!(session.lines("select amount from credits.ledger where customer_id = 'zoe'"), ["5", "-5"]);
    assert_eq!(session.lines("select status from credits.deduct_usage('acme', 1)"), ["charged"], "nor the wallet itself");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_test_clock_that_is_no_time_is_a_clean_error() {
    let mut session = new_books("a_test_clock_that_is_no_time");
    for rubbish in ["rubbish", "infinity", "1969-12-31 23:59+00", "10000-01-01 00:00+00"] {
        let set = session.try_exec(&format!("set credits.test_clock = '{rubbish}'"));
        let error = set.err().unwrap_or_else(|| session.error("select * from credits.balance('acme')"));
        assert!(["22003", "22023"].contains(&error.sqlstate.as_str()) && !error.symbol().is_empty(), "{rubbish}: {error}");
    }
}

#[test]
fn a_schedule_that_is_null_is_a_null_argument() {
    let mut session = new_books("a_schedule_that_is_null");
    let error = session.error("select * from credits.schedule_jobs(null)");
    assert_eq!((error.sqlstate.as_str(), error.symbol()), ("22004", "null_argument"), "{error}");
}
