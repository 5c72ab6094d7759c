//! When metered events count: periods by anchor, calendar and zone, late events, grants that expire (SPEC 2, 4, 6 and 8).

use pgrx_tests::{Session, assert_ledger_is_sound};

use crate::books::{assert_refused, entries, grant, ledger, new_books};
use crate::metering_prices::{GRADUATED, charges, counted, meter, record, rich_books};

/// The starts of the periods, as UTC, in which events of these times are counted by the meter of event `e`.
fn starts(session: &mut Session, times: &[&str]) -> Vec<String> {
    let mut starts = Vec::new();
    for at in times {
        session.exec("begin");
        session.exec(&format!("select * from credits.record_usage('acme', 'e', occurred_at => '{at}')"));
        starts.push(session.one("select to_char(period_start, 'YYYY-MM-DD HH24:MI') from credits.meter_usage"));
        session.exec("rollback");
    }
    starts
}

/// A meter of event `e` with this period, anchor and zone; it is June 2027.
fn counting_books(rule: &str, calendar: &str) -> Session {
    let mut session = rich_books(rule);
    session.set_clock("2027-06-01 00:00+00");
    meter(&mut session, &format!("'m', 'e', 'count', {calendar}"));
    session
}

#[test]
fn an_event_on_the_border_belongs_to_the_new_period() {
    let mut session = counting_books("an_event_on_the_border", "anchor => '2000-01-01 00:00+00'");
    assert_eq!(
        starts(
            &mut session,
            &["2026-01-31 23:59:59.999999+00", "2026-02-01 00:00+00", "2026-02-01 00:00:00.000001+00", "2026-03-01 01:00+01"]
        ),
        ["2026-01-01 00:00", "2026-02-01 00:00", "2026-02-01 00:00", "2026-03-01 00:00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_month_begins_on_the_day_of_the_anchor_or_the_last_before_it() {
    let mut session = counting_books("a_month_begins_on_the_day_of_the_anchor", "anchor => '2024-01-31 12:30+00'");
    assert_eq!(
        starts(
            &mut session,
            &[
                "2026-02-28 12:29:59.999999+00",
                "2026-02-28 12:30+00",
                "2026-03-31 12:00+00",
                "2026-03-31 12:30+00",
                "2026-04-30 12:30+00",
                "2024-02-29 12:30+00",
                // before the anchor
                "2023-02-28 12:30+00",
                "1970-01-01 00:00+00",
                "1970-01-31 12:30+00",
            ]
        ),
        [
            "2026-01-31 12:30",
            "2026-02-28 12:30",
            "2026-02-28 12:30",
            "2026-03-31 12:30",
            "2026-04-30 12:30",
            "2024-02-29 12:30",
            "2023-02-28 12:30",
            "1969-12-31 12:30",
            "1970-01-31 12:30",
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_month_of_berlin_begins_at_its_midnight_in_summer_and_winter() {
    let mut session = counting_books("a_month_of_berlin", "anchor => '2026-01-01 00:00+01', time_zone => 'Europe/Berlin'");
    assert_eq!(
        starts(
            &mut session,
            &[
                "2026-03-31 21:59:59.999999+00",
                "2026-03-31 22:00+00",
                "2026-10-31 22:59:59.999999+00",
                "2026-10-31 23:00+00",
                "2025-06-30 22:00+00",
            ]
        ),
        ["2026-02-28 23:00", "2026-03-31 22:00", "2026-09-30 22:00", "2026-10-31 23:00", "2025-06-30 22:00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_day_of_berlin_has_23_to_25_hours() {
    let mut session =
        counting_books("a_day_of_berlin", "period => '1 day', anchor => '2026-01-01 00:00+01', time_zone => 'Europe/Berlin'");
    assert_eq!(
        starts(
            &mut session,
            &[
                "2026-03-28 23:00+00",
                "2026-03-29 21:59:59.999999+00",
                "2026-03-29 22:00+00",
                "2026-10-24 22:00+00",
                "2026-10-25 00:30+00",
                "2026-10-25 01:30+00",
                "2026-10-25 22:59:59.999999+00",
                "2026-10-25 23:00+00",
            ]
        ),
        [
            "2026-03-28 23:00",
            "2026-03-28 23:00",
            "2026-03-29 22:00",
            "2026-10-24 22:00",
            "2026-10-24 22:00",
            "2026-10-24 22:00",
            "2026-10-24 22:00",
            "2026-10-25 23:00",
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn hours_and_weeks_are_periods_too() {
    let zone = "time_zone => 'Europe/Berlin'";
    for (period, anchor, times, expected) in [
        (
            "1 hour",
            "2026-10-25 00:00+02",
            ["2026-10-25 00:59:59+00", "2026-10-25 01:00+00"],
            ["2026-10-25 00:00", "2026-10-25 01:00"],
        ),
        (
            "90 minutes",
            "2026-01-01 00:00+00",
            ["2026-01-01 02:59+00", "2025-12-31 22:29+00"],
            ["2026-01-01 01:30", "2025-12-31 21:00"],
        ),
        (
            "1 week",
            "2026-01-05 00:00+01",
            ["2026-03-29 21:59+00", "2026-03-29 22:00+00"],
            ["2026-03-22 23:00", "2026-03-29 22:00"],
        ),
        (
            "1 year",
            "2024-02-29 00:00+01",
            ["2026-02-27 22:59+00", "2026-02-27 23:00+00"],
            ["2025-02-27 23:00", "2026-02-27 23:00"],
        ),
        (
            "100 years",
            "2026-01-01 00:00+01",
            ["2025-12-31 22:59+00", "2026-12-31 23:00+00"],
            ["1925-12-31 23:00", "2025-12-31 23:00"],
        ),
    ] {
        let name = period.replace(' ', "_");
        let mut session =
            counting_books(&format!("hours_and_weeks_{name}"), &format!("period => '{period}', anchor => '{anchor}', {zone}"));
        assert_eq!(starts(&mut session, &times), expected, "{period}");
        assert_ledger_is_sound(&mut session);
    }
}

/// One event, counted by a meter of every zone, at many instants around the changes of the clocks of a year.
#[test]
fn the_periods_of_every_zone_begin_as_postgresql_says() {
    let mut session = rich_books("the_periods_of_every_zone");
    session.exec(
        "create table zones as select zone from unnest(array['America/New_York', 'America/Sao_Paulo', 'Australia/Lord_Howe',
             'Europe/Berlin', 'Africa/Cairo', 'Pacific/Chatham', 'Asia/Kathmandu', 'UTC']) zone;
         create table periods as select * from unnest(array['1 day', '1 month', '5 hours']::interval[]) period;
         select credits.create_meter(zone || ' ' || period, 'e', 'count', period => period, time_zone => zone,
             anchor => '2023-03-31 00:30'::timestamp at time zone zone, pricing => '{\"model\": \"per_unit\", \"credits\": 0}')
         from zones, periods;
         create table instants as select at, row_number() over (order by at) as n
         from generate_series('2023-01-01 00:00+00'::timestamptz, '2023-12-31 00:00+00', '61 hours 30 minutes') at",
    );
    session.exec("select * from instants, lateral credits.record_usage('acme', 'e', occurred_at => at)");
    let differences = session.lines(
        "with reckoned as (
             select zone || ' ' || period as meter, start, count(*) as events
             from zones, periods, instants, lateral (
                 select max(case when period = '5 hours' then anchor + n * period
                                 else (anchor at time zone zone + n * period) at time zone zone end)
                 from (select '2023-03-31 00:30'::timestamp at time zone zone as anchor) a,
                      generate_series(-500, 1400) n
                 where case when period = '5 hours' then anchor + n * period
                            else (anchor at time zone zone + n * period) at time zone zone end <= at
             ) p (start)
             group by 1, 2
         )
         select meter, start, r.events, u.events
         from reckoned r full join (select meter, period_start as start, events from credits.meter_usage) u using (meter, start)
         where r.events is distinct from u.events limit 20",
    );
    assert_eq!(differences, [""; 0]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn tiers_and_different_values_begin_anew_with_each_period() {
    let mut session = rich_books("begin_anew_with_each_period");
    meter(&mut session, &format!("'sum', 'e', 'sum', 'n', pricing => '{GRADUATED}'"));
    meter(&mut session, "'who', 'e', 'unique', 'who'");
    meter(&mut session, "'max', 'e', 'max', 'n'");
    let event = r#"'e', '{"n": 6, "who": "ann"}'"#;
    assert_eq!(charges(&mut session, &[event, event]), ["48.5", "38"], "41.5 + 1 + 6, then 26 + 12");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(charges(&mut session, &[event, event]), ["48.5", "38"]);
    assert_eq!(
        counted(&mut session),
        [
            "max 2026-01-01 00:00 6 2",
            "max 2026-02-01 00:00 6 2",
            "sum 2026-01-01 00:00 12 2",
            "sum 2026-02-01 00:00 12 2",
            "who 2026-01-01 00:00 1 2",
            "who 2026-02-01 00:00 1 2"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_late_event_counts_in_its_own_period() {
    let mut session = rich_books("a_late_event_counts_in_its_own_period");
    meter(&mut session, &format!("'m', 'e', 'sum', 'n', pricing => '{GRADUATED}'"));
    assert_eq!(charges(&mut session, &[r#"'e', '{"n": 8}'"#]), ["54.5"]);
    session.set_clock("2026-02-10 00:00+00");
    assert_eq!(
        charges(
            &mut session,
            &[r#"'e', '{"n": 1}'"#, r#"'e', '{"n": 4}', 'late', '2026-01-31 23:59:59.999999+00'"#, r#"'e', '{"n": 1}'"#]
        ),
        ["7", "25", "7"]
    );
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 12 2", "m 2026-02-01 00:00 2 2"]);
    assert_eq!(
        session.lines("select occurred_at, usage_at from credits.ledger where transaction_id = 'late'"),
        ["2026-02-10 00:00:00+00|2026-01-31 23:59:59.999999+00"]
    );
    session.set_clock("2026-03-10 00:00+00");
    session.exec("select * from credits.refund_usage('acme', 'late')");
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 8 1", "m 2026-02-01 00:00 2 2"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_latest_value_goes_by_when_it_happened_then_by_arrival() {
    let mut session = rich_books("the_latest_value_goes_by");
    session.set_clock("2026-01-20 00:00+00");
    meter(&mut session, "'m', 'e', 'latest', 'n'");
    assert_eq!(
        charges(
            &mut session,
            &[
                r#"'e', '{"n": 5}', occurred_at => '2026-01-10 00:00+00'"#,
                r#"'e', '{"n": 9}', occurred_at => '2026-01-09 23:59:59.999999+00'"#,
                r#"'e', '{"n": 7}', occurred_at => '2026-01-10 00:00+00'"#,
                r#"'e', '{"n": 2}'"#,
                r#"'e', '{"n": 3}', occurred_at => '2026-01-20 00:05+00'"#,
                r#"'e', '{"n": 4}', occurred_at => '2026-01-20 00:04+00'"#,
            ]
        ),
        ["5", "0", "2", "-5", "1", "0"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn an_event_more_than_five_minutes_ahead_is_refused() {
    let mut session = rich_books("more_than_five_minutes_ahead");
    meter(&mut session, "'m', 'e', 'count'");
    session.set_clock("2026-01-31 23:57+00");
    for mode in ["error", "report"] {
        let call =
            format!("record_usage('acme', 'e', occurred_at => '2026-02-01 00:02:00.000001+00', on_insufficient => '{mode}')");
        assert_refused(&mut session, &[(&call, "22023", "invalid_argument")]);
    }
    let ahead = ["2026-02-01 00:02+00", "2026-01-31 23:59+00"].map(|at| format!("'e', occurred_at => '{at}'"));
    assert_eq!(charges(&mut session, &ahead.each_ref().map(String::as_str)), ["1", "1"]);
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 1 1", "m 2026-02-01 00:00 1 1"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_clock_that_goes_back_does_not_lead_into_the_period_before() {
    let mut session = rich_books("a_clock_that_goes_back");
    meter(&mut session, "'m', 'e', 'count'");
    session.set_clock("2026-02-01 00:00+00");
    charges(&mut session, &["'e'"]);
    session.set_clock("2026-01-31 00:00+00");
    charges(&mut session, &["'e'", "'e', occurred_at => '2026-01-31 00:00+00'"]);
    assert_eq!(counted(&mut session), ["m 2026-01-01 00:00 1 1", "m 2026-02-01 00:00 2 2"]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn what_is_due_happens_before_the_event_is_paid() {
    let mut session = new_books("what_is_due_happens_before");
    session.exec("select credits.create_recurring_grant('acme', 'plan', 10, '1 month')");
    meter(&mut session, "'m', 'e', 'sum', 'n'");
    assert_eq!(record(&mut session, r#"'e', '{"n": 4}'"#), "charged|4|4|0|6|f");
    session.set_clock("2026-02-01 00:00+00");
    assert_eq!(record(&mut session, r#"'e', '{"n": 9}'"#), "charged|9|9|0|1|f");
    assert_eq!(
        ledger(&mut session),
        [
            "default 1 grant 10 10 01-01 00:00",
            "default 2 usage -4 6 01-01 00:00",
            "default 3 expiration -6 0 02-01 00:00",
            "default 4 grant 10 10 02-01 00:00",
            "default 5 usage -9 1 02-01 00:00"
        ]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn under_grace_a_late_event_is_paid_by_what_was_live_when_it_happened() {
    let mut session = new_books("under_grace_a_late_event");
    session.exec("select credits.update_wallet('acme', 'default', late_usage_grace => '2 days')");
    meter(&mut session, "'m', 'e', 'latest', 'n', period => '1 day'");
    grant(&mut session, "expired", "10", "expires_at => '2026-01-10 00:00+00'");
    grant(&mut session, "lives", "100", "");
    session.set_clock("2026-01-11 00:00+00");
    let late = |n: &str, key: &str, at: &str| format!("'e', '{{\"n\": {n}}}', '{key}', '2026-01-{at}+00'");
    assert_eq!(record(&mut session, &late("4", "a", "09 12:00")), "charged|4|4|0|100|f");
    assert_eq!(entries(&mut session, "a"), ["default expiration_reversed 4 expired", "default usage 4 expired"]);
    assert_eq!(record(&mut session, &late("4", "b", "10 00:00")), "charged|4|4|0|96|f");
    assert_eq!(entries(&mut session, "b"), ["default usage 4 lives"], "it had expired already");
    // A late fall goes back to what expired, and ends with it; a late rise reverses the expiry again.
    assert_eq!(record(&mut session, &late("1", "c", "09 13:00")), "charged|-3|-3|0|96|f");
    assert_eq!(entries(&mut session, "c"), ["default usage_refunded 3 expired", "default expiration 3 expired"]);
    assert_eq!(record(&mut session, &late("12", "d", "09 14:00")), "charged|11|11|0|94|f");
    assert_eq!(
        entries(&mut session, "d"),
        ["default expiration_reversed 9 expired", "default usage 9 expired", "default usage 2 lives"]
    );
    session.set_clock("2026-01-12 00:00+00");
    assert_eq!(record(&mut session, &late("13", "e", "09 15:00")), "charged|1|1|0|93|f");
    assert_eq!(entries(&mut session, "e"), ["default usage 1 lives"], "the grace is over");
    assert_ledger_is_sound(&mut session);
}
