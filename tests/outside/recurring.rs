//! Recurring grants: when their periods begin and end, what a period gives, and how they stop (SPEC 6).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{ledger, new_books};

/// Creates a recurring grant of `acme`; `arguments` begin with the amount and `every`.
pub fn recurring(session: &mut Session, code: &str, arguments: &str) {
    let created = session.one(&format!("select credits.create_recurring_grant('acme', '{code}', {arguments})"));
    assert_eq!(created, code);
}

pub fn settle(session: &mut Session) {
    session.exec("select * from credits.run_maintenance()");
}

/// What the periods of `acme` gave, as written: code, amount, from when until when.
pub fn periods(session: &mut Session) -> Vec<String> {
    session.lines(
        "select concat_ws(' ', recurring_grant, amount, to_char(effective_at, 'YYYY-MM-DD HH24:MI'), 'to',
             to_char(expires_at, 'YYYY-MM-DD HH24:MI'))
         from credits.grants where customer_id = 'acme' and recurring_grant is not null and not rolled_over
         order by recurring_grant, effective_at",
    )
}

fn cancel(session: &mut Session, code: &str, at: &str) {
    let cancelled = session.one(&format!("select credits.cancel_recurring_grant('acme', '{code}', {at})"));
    assert_eq!(cancelled, code);
}

fn update(session: &mut Session, code: &str, changes: &str) {
    let updated = session.one(&format!("select credits.update_recurring_grant('acme', '{code}', {changes})"));
    assert_eq!(updated, code);
}

#[test]
fn the_first_grant_is_made_when_it_starts_now_or_later() {
    let mut session = new_books("the_first_grant_is_made");
    recurring(&mut session, "now", "10, '1 month'");
    recurring(&mut session, "later", "7, '1 month', starts_at => '2026-01-10 12:00+00'");
    assert_eq!(periods(&mut session), ["now 10 2026-01-01 00:00 to 2026-02-01 00:00"]);
    assert_eq!(session.lines("select balance, scheduled from credits.balance('acme')"), ["10|0"]);
    session.set_clock("2026-01-10 11:59:59.999999+00");
    assert_eq!(session.lines("select balance, scheduled from credits.balance('acme')"), ["10|0"]);
    session.set_clock("2026-01-10 12:00+00");
    assert_eq!(session.lines("select balance, scheduled from credits.balance('acme')"), ["17|0"]);
    session.set_clock("2026-02-10 12:00+00");
    settle(&mut session);
    assert_eq!(
        periods(&mut session),
        [
            "later 7 2026-01-10 12:00 to 2026-02-10 12:00",
            "later 7 2026-02-10 12:00 to 2026-03-10 12:00",
            "now 10 2026-01-01 00:00 to 2026-02-01 00:00",
            "now 10 2026-02-01 00:00 to 2026-03-01 00:00"
        ]
    );
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant 10 10 01-01 00:00",
            "default 2 grant 7 17 01-10 12:00",
            "default 3 expiration -10 7 02-01 00:00",
            "default 4 grant 10 17 02-01 00:00",
            "default 5 expiration -7 10 02-10 12:00",
            "default 6 grant 7 17 02-10 12:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_past_start_begins_with_the_period_that_contains_now() {
    let mut session = new_books("a_past_start");
    session.set_clock("2026-03-15 06:00+00");
    recurring(&mut session, "a long ago", "10, '1 month', starts_at => '2024-12-10 00:00+00'");
    recurring(
        &mut session,
        "b in this period",
        "20, '1 month', starts_at => '2026-03-12 00:00+00', anchor => '2026-01-01 00:00+00'",
    );
    recurring(&mut session, "c ends now", "30, '1 month', starts_at => '2026-02-15 06:00+00'");
    recurring(&mut session, "d already over", "40, '1 month', starts_at => '2026-03-01 00:00+00', expires_after => '5 days'");
    assert_eq!(
        periods(&mut session)[..3],
        [
            "a long ago 10 2026-03-10 00:00 to 2026-04-10 00:00",
            "b in this period 20 2026-03-12 00:00 to 2026-04-01 00:00",
            "c ends now 30 2026-03-15 06:00 to 2026-04-15 06:00"
        ]
    );
    assert_eq!(session.one("select balance from credits.balance('acme')"), "60");
    assert_eq!(session.one("select credits.balance_at('acme', 'default', '2026-03-15 05:59+00')"), "0", "the past is as it was");
    session.set_clock("2026-04-02 00:00+00");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "100");
    settle(&mut session);
    assert_eq!(
        session.lines(
            "select recurring_grant, expires_at from credits.grants where effective_at = '2026-04-01 00:00+00' order by 1"
        ),
        ["b in this period|2026-05-01 00:00:00+00", "d already over|2026-04-06 00:00:00+00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_anchor_before_or_after_the_start_sets_the_grid() {
    let mut session = new_books("an_anchor_sets_the_grid");
    recurring(&mut session, "before", "10, '1 month', anchor => '2020-02-15 00:00+00'");
    recurring(&mut session, "after", "7, '1 month', anchor => '2026-05-31 00:00+00'");
    recurring(&mut session, "later", "5, '7 days', starts_at => '2026-01-20 00:00+00', anchor => '2026-03-02 00:00+00'");
    session.set_clock("2026-03-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        periods(&mut session),
        [
            "after 7 2026-01-01 00:00 to 2026-01-31 00:00",
            "after 7 2026-01-31 00:00 to 2026-02-28 00:00",
            "after 7 2026-02-28 00:00 to 2026-03-31 00:00",
            "before 10 2026-01-01 00:00 to 2026-01-15 00:00",
            "before 10 2026-01-15 00:00 to 2026-02-15 00:00",
            "before 10 2026-02-15 00:00 to 2026-03-15 00:00",
            "later 5 2026-01-20 00:00 to 2026-01-26 00:00",
            "later 5 2026-01-26 00:00 to 2026-02-02 00:00",
            "later 5 2026-02-02 00:00 to 2026-02-09 00:00",
            "later 5 2026-02-09 00:00 to 2026-02-16 00:00",
            "later 5 2026-02-16 00:00 to 2026-02-23 00:00",
            "later 5 2026-02-23 00:00 to 2026-03-02 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_prorated_first_period_gives_the_share_that_is_left() {
    let mut session = new_books("a_prorated_first_period");
    let monthly = "'1 month', prorate => true, anchor => '2026-01-16 00:00+00'"; // the period: Dec 16 to Jan 16, 15 of 31 days
    let two_days = "'2 days', prorate => true, anchor => '2026-01-02 00:00+00'"; // half of it is left
    for (code, arguments, first) in [
        ("15 of 31 days", format!("31, {monthly}"), Some("15")),
        ("cut", format!("1000, {monthly}"), Some("483.870967741935")),
        ("from its start", format!("31, {monthly}, starts_at => '2025-12-20 00:00+00'"), Some("27")),
        ("a whole one", format!("31, {monthly}, starts_at => '2025-11-20 00:00+00'"), Some("31")),
        ("on the anchor", "31, '1 month', prorate => true".into(), Some("31")),
        ("not asked for", "31, '1 month', anchor => '2026-01-16 00:00+00'".into(), Some("31")),
        ("half of 1", format!("0.000000000001, {two_days}"), None),
        ("half of 3", format!("0.000000000003, {two_days}"), Some("0.000000000002")),
        ("half of 5", format!("0.000000000005, {two_days}"), Some("0.000000000002")),
        ("half of 7", format!("0.000000000007, {two_days}"), Some("0.000000000004")),
    ] {
        recurring(&mut session, code, &arguments);
        let given = session.lines(&format!("select amount from credits.grants where recurring_grant = '{code}'"));
        assert_eq!(given, first.into_iter().collect::<Vec<_>>(), "{code}");
    }
    // By time: of the 743 hours of this March in Berlin 71 are left on the 29th, at whose end the clocks are ahead.
    recurring(
        &mut session,
        "hours",
        "743, '1 month', prorate => true, time_zone => 'Europe/Berlin', anchor => '2026-03-01 00:00+01',
         starts_at => '2026-03-29 00:00+01'",
    );
    session.set_clock("2026-04-30 00:00+00");
    settle(&mut session);
    let second_of =
        |code: &str| format!("select amount from credits.grants where recurring_grant = '{code}' order by effective_at");
    assert_eq!(session.lines(&second_of("15 of 31 days")), ["15", "31", "31", "31", "31"], "then whole periods");
    assert_eq!(session.lines(&second_of("half of 1"))[0], "0.000000000001", "its first share came to nothing");
    assert_eq!(session.lines(&second_of("hours")), ["71", "743"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn no_period_starts_at_or_after_the_end_and_the_running_one_ends_normally() {
    let mut session = new_books("no_period_starts_after_the_end");
    recurring(&mut session, "edge", "1, '1 month', ends_at => '2026-02-01 00:00+00'");
    recurring(&mut session, "just after", "2, '1 month', ends_at => '2026-02-01 00:00:00.000001+00'");
    recurring(&mut session, "mid", "3, '1 month', ends_at => '2026-02-15 00:00+00'");
    recurring(&mut session, "brief", "4, '1 month', ends_at => '2026-01-02 00:00+00'");
    recurring(&mut session, "later", "5, '1 month', starts_at => '2026-03-01 00:00+00', ends_at => '2026-03-01 00:00:01+00'");
    session.set_clock("2026-06-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        periods(&mut session),
        [
            "brief 4 2026-01-01 00:00 to 2026-02-01 00:00",
            "edge 1 2026-01-01 00:00 to 2026-02-01 00:00",
            "just after 2 2026-01-01 00:00 to 2026-02-01 00:00",
            "just after 2 2026-02-01 00:00 to 2026-03-01 00:00",
            "later 5 2026-03-01 00:00 to 2026-04-01 00:00",
            "mid 3 2026-01-01 00:00 to 2026-02-01 00:00",
            "mid 3 2026-02-01 00:00 to 2026-03-01 00:00"
        ]
    );
    assert_eq!(session.lines("select distinct status, next_period_at from credits.recurring_grants"), ["ended|"]);
    assert_eq!(session.one("select balance from credits.balance('acme')"), "0");
    assert_ledger_is_sound(&mut session);
}

#[test]
fn after_a_cancel_no_period_starts() {
    let mut session = new_books("after_a_cancel_no_period_starts");
    for (code, start) in [
        ("now", ""),
        ("past", ""),
        ("edge", ""),
        ("mid", ""),
        ("twice", ""),
        ("sooner", ""),
        ("not begun", ", starts_at => '2026-02-01 00:00+00'"),
        ("at its start", ", starts_at => '2026-02-01 00:00+00'"),
        ("after its start", ", starts_at => '2026-02-01 00:00+00'"),
    ] {
        recurring(&mut session, code, &format!("10, '1 month'{start}"));
    }
    session.set_clock("2026-01-10 00:00+00");
    let before = ledger(&mut session);
    for (code, at) in [
        ("now", "null"),
        ("past", "'2025-01-01 00:00+00'"),
        ("edge", "'2026-02-01 00:00+00'"),
        ("mid", "'2026-02-15 00:00+00'"),
        ("twice", "'2026-02-15 00:00+00'"),
        ("twice", "'2026-05-01 00:00+00'"),
        ("sooner", "'2026-05-01 00:00+00'"),
        ("sooner", "'2026-01-20 00:00+00'"),
        ("not begun", "null"),
        ("at its start", "'2026-02-01 00:00+00'"),
        ("after its start", "'2026-02-01 00:00:00.000001+00'"),
    ] {
        cancel(&mut session, code, at);
    }
    assert_eq!(ledger(&mut session), before, "the running period goes on");
    assert_eq!(session.one("select balance from credits.balance('acme')"), "60");
    session.set_clock("2026-04-10 00:00+00");
    cancel(&mut session, "now", "null");
    settle(&mut session);
    assert_eq!(
        session.lines(
            "select recurring_grant, count(grant_id) from credits.recurring_grants left join credits.grants using (recurring_grant)
             group by 1 order by 1"
        ),
        ["after its start|1", "at its start|0", "edge|1", "mid|2", "not begun|0", "now|1", "past|1", "sooner|1", "twice|2"]
    );
    assert_eq!(session.lines("select distinct status, next_period_at from credits.recurring_grants"), ["ended|"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_cancel_in_the_past_takes_nothing_back_that_was_due_since() {
    let mut session = new_books("a_cancel_in_the_past");
    recurring(&mut session, "plan", "10, '1 month'");
    session.set_clock("2026-03-01 00:00+00");
    cancel(&mut session, "plan", "'2026-01-15 00:00+00'");
    session.set_clock("2026-05-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant 10 10 01-01 00:00",
            "default 2 expiration -10 0 02-01 00:00",
            "default 3 grant 10 10 02-01 00:00",
            "default 4 expiration -10 0 03-01 00:00",
            "default 5 grant 10 10 03-01 00:00",
            "default 6 expiration -10 0 04-01 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_change_holds_from_the_next_period_on() {
    let mut session = new_books("a_change_holds_from_the_next_period");
    recurring(&mut session, "plan", "10, '1 month', unit_price => 0.02, currency => 'USD'");
    session.set_clock("2026-02-10 00:00+00");
    update(
        &mut session,
        "plan",
        "amount => 25.5, grant_type => 'promotional', expires_after => '10 days', priority => 7, unit_price => 0.5,
         currency => 'EUR', applies_to => array['chat'], metadata => '{\"offer\": 2}'",
    );
    session.set_clock("2026-03-05 00:00+00");
    update(
        &mut session,
        "plan",
        "reset => array['expires_after', 'grant_type', 'priority', 'unit_price', 'currency', 'applies_to', 'metadata']",
    );
    update(&mut session, "plan", "amount => 30");
    update(&mut session, "plan", "amount => null");
    session.set_clock("2026-04-01 00:00+00");
    settle(&mut session);
    assert_eq!(
        session.lines(
            "select amount, grant_type, to_char(effective_at, 'MM-DD'), to_char(expires_at, 'MM-DD'), priority, unit_price, currency,
                 applies_to, metadata from credits.grants order by effective_at"
        ),
        [
            "10|prepaid|01-01|02-01|100|0.02|USD||{}",
            "10|prepaid|02-01|03-01|100|0.02|USD||{}",
            "25.5|promotional|03-01|03-11|7|0.5|EUR|{chat}|{\"offer\": 2}",
            "30|prepaid|04-01|05-01|100||||{}"
        ]
    );
    // The end is no matter of a period: it can be set, moved and taken away until it has come.
    update(&mut session, "plan", "ends_at => '2026-04-20 00:00+00'");
    update(&mut session, "plan", "reset => array['ends_at']");
    session.set_clock("2026-05-01 00:00+00");
    update(&mut session, "plan", "ends_at => '2026-06-01 00:00+00'");
    session.set_clock("2026-08-01 00:00+00");
    settle(&mut session);
    assert_eq!(periods(&mut session).last().map(String::as_str), Some("plan 30 2026-05-01 00:00 to 2026-06-01 00:00"));
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_expires_after_a_time_lives_that_long_whatever_the_period() {
    let mut session = new_books("expires_after_whatever_the_period");
    session.exec("select credits.update_wallet('acme', 'default', expires_after => '3 days')"); // is for grants made by hand
    recurring(&mut session, "long", "10, '1 month', expires_after => '45 days'");
    recurring(&mut session, "short", "7, '1 month', expires_after => '10 days'");
    recurring(&mut session, "the period", "1, '14 days', ends_at => '2026-01-10 00:00+00'");
    recurring(
        &mut session,
        "zone",
        "5, '1 month', starts_at => '2026-03-28 12:00+01', time_zone => 'Europe/Berlin', expires_after => '1 day'",
    );
    session.set_clock("2026-03-29 09:59:59+00");
    settle(&mut session);
    assert_eq!(
        periods(&mut session),
        [
            "long 10 2026-01-01 00:00 to 2026-02-15 00:00",
            "long 10 2026-02-01 00:00 to 2026-03-18 00:00",
            "long 10 2026-03-01 00:00 to 2026-04-15 00:00",
            "short 7 2026-01-01 00:00 to 2026-01-11 00:00",
            "short 7 2026-02-01 00:00 to 2026-02-11 00:00",
            "short 7 2026-03-01 00:00 to 2026-03-11 00:00",
            "the period 1 2026-01-01 00:00 to 2026-01-15 00:00",
            "zone 5 2026-03-28 11:00 to 2026-03-29 10:00"
        ]
    );
    assert_eq!(session.one("select balance from credits.balance('acme')"), "15");
    assert_eq!(
        session.lines(
            "select credits.balance_at('acme', 'default', at)
             from unnest(array['2026-01-11 00:00+00', '2026-02-10 23:59+00', '2026-02-15 00:00+00', '2026-03-29 10:00+00']::timestamptz[]) at"
        ),
        ["11", "27", "10", "10"]
    );
    assert_ledger_is_sound(&mut session);
}
