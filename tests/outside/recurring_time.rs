//! Recurring grants and the calendar: where periods begin, in every unit and every time zone (SPEC 6).

use pgrx_tests::{Session, assert_ledger_is_sound, shared_cluster};

use crate::recurring::settle;

/// Zones that put their clocks forward and back, at various hours, by one hour, half an hour or two, and some that never do. The
/// years 2021 to 2024 are history, which every edition of the IANA database tells alike.
const ZONES: [&str; 24] = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "America/New_York",
    "America/Nuuk",
    "America/Phoenix",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Etc/GMT-14",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "UTC",
];

/// A new database in which nobody has a wallet yet.
fn no_books(rule: &str) -> Session {
    shared_cluster().new_database(rule)
}

/// When the periods of a new customer with this recurring grant begin, as UTC, from its start until a later time.
fn starts(session: &mut Session, (start, terms, until): (&str, &str, &str)) -> Vec<String> {
    session.set_clock(start);
    let customer = format!("{start} {terms}").replace('\'', "");
    session.exec(&format!(
        "select credits.create_wallet('{customer}'), credits.create_recurring_grant('{customer}', 'plan', 1, {terms})"
    ));
    session.set_clock(until);
    session.exec(&format!("select * from credits.deduct_usage('{customer}', 0)")); // settles this one only
    let begin = "select to_char(effective_at, 'YYYY-MM-DD HH24:MI') from credits.grants";
    session.lines(&format!("{begin} where customer_id = '{customer}' order by effective_at"))
}

#[test]
fn the_31st_is_cut_to_a_shorter_month_and_comes_back() {
    let mut session = no_books("the_31st_is_cut");
    for (case, expected) in [
        (
            ("2026-01-31 00:00+00", "'1 month'", "2026-07-01 00:00+00"),
            vec![
                "2026-01-31 00:00",
                "2026-02-28 00:00",
                "2026-03-31 00:00",
                "2026-04-30 00:00",
                "2026-05-31 00:00",
                "2026-06-30 00:00",
            ],
        ),
        (
            ("2028-01-31 00:00+00", "'1 month'", "2028-03-31 00:00+00"),
            vec!["2028-01-31 00:00", "2028-02-29 00:00", "2028-03-31 00:00"],
        ),
        (
            ("2024-02-29 12:00+00", "'1 year'", "2028-03-01 00:00+00"),
            vec!["2024-02-29 12:00", "2025-02-28 12:00", "2026-02-28 12:00", "2027-02-28 12:00", "2028-02-29 12:00"],
        ),
        (
            ("2025-08-31 00:00+00", "'3 months'", "2026-08-30 23:59+00"),
            vec!["2025-08-31 00:00", "2025-11-30 00:00", "2026-02-28 00:00", "2026-05-31 00:00"],
        ),
        (
            // The month ends where the customer is: of January in New York, seen from Greenwich on the 1st.
            ("2026-02-01 04:59+00", "'1 month', time_zone => 'America/New_York'", "2026-05-01 00:00+00"),
            vec!["2026-02-01 04:59", "2026-03-01 04:59", "2026-04-01 03:59"],
        ),
    ] {
        assert_eq!(starts(&mut session, case), expected, "{case:?}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_period_is_as_long_as_asked_in_every_unit() {
    let mut session = no_books("a_period_in_every_unit");
    for (case, expected) in [
        (
            ("2026-01-01 00:30+00", "'1 hour'", "2026-01-01 03:30+00"),
            vec!["2026-01-01 00:30", "2026-01-01 01:30", "2026-01-01 02:30", "2026-01-01 03:30"],
        ),
        (
            ("2026-01-01 00:00+00", "'90 minutes'", "2026-01-01 04:00+00"),
            vec!["2026-01-01 00:00", "2026-01-01 01:30", "2026-01-01 03:00"],
        ),
        (
            ("2026-01-01 00:00+00", "'36 hours'", "2026-01-05 00:00+00"),
            vec!["2026-01-01 00:00", "2026-01-02 12:00", "2026-01-04 00:00"],
        ),
        (
            ("2028-02-28 00:00+00", "'1 day'", "2028-03-01 00:00+00"),
            vec!["2028-02-28 00:00", "2028-02-29 00:00", "2028-03-01 00:00"],
        ),
        (
            ("2026-12-20 00:00+00", "'1 week'", "2027-01-04 00:00+00"),
            vec!["2026-12-20 00:00", "2026-12-27 00:00", "2027-01-03 00:00"],
        ),
        (("2026-01-01 00:00+00", "'36500 days'", "2125-12-08 00:00+00"), vec!["2026-01-01 00:00", "2125-12-08 00:00"]),
        (("2026-01-01 00:00+00", "'876000 hours'", "2125-12-08 00:00+00"), vec!["2026-01-01 00:00", "2125-12-08 00:00"]),
        (("2026-01-01 00:00+00", "'100 years'", "2126-01-01 00:00+00"), vec!["2026-01-01 00:00", "2126-01-01 00:00"]),
    ] {
        assert_eq!(starts(&mut session, case), expected, "{case:?}");
    }
    assert_ledger_is_sound(&mut session);
}

#[test]
fn a_day_that_skips_or_repeats_an_hour_begins_as_postgresql_says() {
    let mut session = no_books("a_day_that_skips_or_repeats");
    let in_berlin = "'1 day', time_zone => 'Europe/Berlin'";
    for (start, expected) in [
        // half past two at night, which the 29th does not have: three, as if the clocks had not been put forward yet
        (
            "2026-03-27 02:30+01",
            vec!["2026-03-27 01:30", "2026-03-28 01:30", "2026-03-29 01:30", "2026-03-30 00:30", "2026-03-31 00:30"],
        ),
        // half past two at night, which October 25th has twice: the second
        (
            "2026-10-24 02:30+02",
            vec!["2026-10-24 00:30", "2026-10-25 01:30", "2026-10-26 01:30", "2026-10-27 01:30", "2026-10-28 01:30"],
        ),
        // a start in the repeated hour is when it is, the first time or the second
        (
            "2026-10-25 02:30+02",
            vec!["2026-10-25 00:30", "2026-10-26 01:30", "2026-10-27 01:30", "2026-10-28 01:30", "2026-10-29 01:30"],
        ),
        (
            "2026-10-25 02:30+01",
            vec!["2026-10-25 01:30", "2026-10-26 01:30", "2026-10-27 01:30", "2026-10-28 01:30", "2026-10-29 01:30"],
        ),
    ] {
        let until = session.one(&format!("select '{start}'::timestamptz + interval '4 days 1 hour'"));
        assert_eq!(starts(&mut session, (start, in_berlin, &until)), expected, "{start}");
    }
    // From an anchor behind the change back to before it.
    let terms = format!("{in_berlin}, anchor => '2026-03-31 02:30+02'");
    assert_eq!(
        starts(&mut session, ("2026-03-27 12:00+00", &terms, "2026-03-30 12:00+00")),
        ["2026-03-27 12:00", "2026-03-28 01:30", "2026-03-29 01:30", "2026-03-30 00:30"]
    );
    assert_ledger_is_sound(&mut session);
}

/// PostgreSQL goes on with the last rules of a zone for ever, and so does a contract of a hundred years.
#[test]
fn the_clocks_are_put_forward_and_back_after_2100_too() {
    let mut session = no_books("the_clocks_after_2100");
    assert_eq!(
        starts(&mut session, ("2099-12-15 13:00+00", "'3 months', time_zone => 'Europe/Berlin'", "2101-03-01 00:00+00")),
        ["2099-12-15 13:00", "2100-03-15 13:00", "2100-06-15 12:00", "2100-09-15 12:00", "2100-12-15 13:00"]
    );
    assert_eq!(
        starts(&mut session, ("2999-06-15 12:00+00", "'6 months', time_zone => 'America/New_York'", "3000-07-01 00:00+00")),
        ["2999-06-15 12:00", "2999-12-15 13:00", "3000-06-15 12:00"]
    );
    assert_ledger_is_sound(&mut session);
}

#[test]
fn hours_are_hours_whatever_the_clocks_do() {
    let mut session = no_books("hours_are_hours");
    assert_eq!(
        starts(&mut session, ("2026-03-28 12:00+00", "'12 hours', time_zone => 'Europe/Berlin'", "2026-03-30 12:00+00")),
        ["2026-03-28 12:00", "2026-03-29 00:00", "2026-03-29 12:00", "2026-03-30 00:00", "2026-03-30 12:00"]
    );
    assert_eq!(
        starts(&mut session, ("2026-10-25 00:00+00", "'1 hour', time_zone => 'Europe/Berlin'", "2026-10-25 03:00+00")),
        ["2026-10-25 00:00", "2026-10-25 01:00", "2026-10-25 02:00", "2026-10-25 03:00"]
    );
    assert_ledger_is_sound(&mut session);
}

/// Gives one customer in each zone a recurring grant from each of these local times on, and returns the periods that are not as
/// PostgreSQL reckons them: their zone, from which time on, and begin.
fn differences(session: &mut Session, every: &str, times: &[&str], until: &str) -> Vec<String> {
    session.set_clock("2021-01-01 00:00+00");
    session.exec("create table asked (zone text, local timestamp, anchor timestamptz)");
    for (zone, time) in ZONES.iter().flat_map(|zone| times.iter().map(move |time| (zone, time))) {
        session.exec(&format!("insert into asked values ('{zone}', '{time}', '{time}'::timestamp at time zone '{zone}')"));
    }
    session.exec(&format!(
        "select credits.create_wallet(zone) from asked group by zone;
         select credits.create_recurring_grant(zone, local::text, 1, '{every}', starts_at => anchor, time_zone => zone) from asked"
    ));
    session.set_clock(until);
    settle(session);
    assert_eq!(session.one("select count(*) > 12 * (select count(*) from asked) from credits.grants"), "t");
    session.lines(&format!(
        "with given as (
             select customer_id as zone, recurring_grant::timestamp as local, effective_at as starts_at, expires_at as ends_at
             from credits.grants
         ),
         reckoned as (
             select zone, local, starts_at, lead(starts_at) over (partition by zone, local order by n) as ends_at
             from asked,
                  generate_series(0, 1000) n,
                  lateral (select (anchor at time zone zone + n * interval '{every}') at time zone zone) p (starts_at)
         )
         select zone, local, starts_at, given.ends_at, reckoned.ends_at
         from given full join (select * from reckoned where starts_at <= '{until}') reckoned using (zone, local, starts_at)
         where given.ends_at is distinct from reckoned.ends_at
         limit 20"
    ))
}

#[test]
fn the_days_of_every_zone_begin_as_postgresql_says() {
    let mut session = no_books("the_days_of_every_zone");
    let times = ["2023-03-01 00:15", "2023-03-01 01:45", "2023-03-01 02:15", "2023-03-01 03:30"];
    assert_eq!(differences(&mut session, "1 day", &times, "2023-11-20 00:00+00"), [""; 0]);
    assert_ledger_is_sound(&mut session);
}

#[test]
fn the_months_of_every_zone_begin_as_postgresql_says() {
    let mut session = no_books("the_months_of_every_zone");
    let times = ["2021-01-31 00:00", "2021-01-31 02:30", "2021-03-28 02:30", "2021-10-31 01:30", "2021-12-31 23:59:59.999999"];
    assert_eq!(differences(&mut session, "1 month", &times, "2024-06-30 12:00+00"), [""; 0]);
    assert_ledger_is_sound(&mut session);
}
