//! Periods anchored in a calendar: number n starts at `anchor` plus n times `every`, in a time zone (SPEC 6).
//!
//! Never from the start of the period before, so that a subscription of January 31 renews on February 28 and on March 31 again.

use chrono::{Datelike, NaiveDateTime};

use super::time::{Interval, TimeZone, Timestamp};
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calendar {
    /// Start of period 0; there are periods before it.
    pub anchor: Timestamp,
    /// Months, days or microseconds; one of them, above zero.
    pub every: Interval,
    pub zone: TimeZone,
}

const HOUR_MICROSECONDS: i64 = 3_600_000_000;

impl Calendar {
    /// Refuses an interval that is not one positive unit sum between an hour and 100 years (22023).
    pub fn checked_every(argument: &'static str, every: Interval) -> Result<Interval> {
        let units = [every.months != 0, every.days != 0, every.microseconds != 0];
        let mixes_units = units.into_iter().filter(|is_used| *is_used).count() > 1;
        let is_short = every.months == 0 && every.days == 0 && every.microseconds < HOUR_MICROSECONDS;
        if !mixes_units && !is_short {
            return every.in_range(argument);
        }
        Err(Error::invalid(
            argument,
            if mixes_units { "it mixes units" } else { "it is shorter than an hour" },
            "Pass months or years, or days or weeks, or hours and minutes, from '1 hour' to '100 years'.",
        ))
    }

    /// Start of period `number`; none beyond what a calendar can tell.
    fn start(&self, number: i64) -> Option<Timestamp> {
        self.anchor.moved(self.zone, self.every, number)
    }

    /// The number of the last period that starts at or before an instant.
    fn number_at(&self, at: Timestamp) -> i64 {
        let mut number = self.estimate_at(at);
        // A clock that was put forward or back, and the length of months, move a start by less than a period or two.
        while self.start(number).is_none_or(|start| start > at) {
            number -= 1;
        }
        while self.start(number + 1).is_some_and(|start| start <= at) {
            number += 1;
        }
        number
    }

    fn estimate_at(&self, at: Timestamp) -> i64 {
        if self.every.microseconds > 0 {
            return (at.to_postgres() - self.anchor.to_postgres()).div_euclid(self.every.microseconds);
        }
        let (Some(from), Some(to)) = (self.anchor.local(self.zone), at.local(self.zone)) else {
            return 0;
        };
        let months = |local: NaiveDateTime| i64::from(local.year()) * 12 + i64::from(local.month0());
        if self.every.months > 0 {
            (months(to) - months(from)).div_euclid(self.every.months.into())
        } else {
            (to.date() - from.date()).num_days().div_euclid(self.every.days.into())
        }
    }

    /// Start of the period that contains an instant.
    pub fn start_of_period_at(&self, at: Timestamp) -> Timestamp {
        match self.start(self.number_at(at)) {
            Some(start) => start,
            None => panic!("no period of {self:?} contains {at}"),
        }
    }

    /// End of the `periods`-th period from the one that contains an instant, which is the first; never after the year 9999.
    pub fn end_of_period_at(&self, at: Timestamp, periods: u32) -> Timestamp {
        let end = self.start(self.number_at(at).saturating_add(periods.into()));
        end.filter(|end| !end.is_too_late()).unwrap_or(Timestamp::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn at(text: &str) -> Timestamp {
        let utc = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc();
        let epoch = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc();
        Timestamp::from_postgres((utc - epoch).num_microseconds().unwrap())
    }

    fn calendar(anchor: &str, every: Interval, zone: &str) -> Calendar {
        Calendar { anchor: at(anchor), every, zone: TimeZone::from_name(zone).unwrap() }
    }

    const MONTH: Interval = Interval { months: 1, ..Interval::ZERO };
    const DAY: Interval = Interval { days: 1, ..Interval::ZERO };

    /// The ends of the periods one after the other.
    fn ends(calendar: &Calendar, from: &str, count: usize) -> Vec<Timestamp> {
        let next = |at: &Timestamp| Some(calendar.end_of_period_at(*at, 1));
        std::iter::successors(Some(at(from)), next).skip(1).take(count).collect()
    }

    #[test]
    fn a_month_from_the_31st_is_the_last_day_of_a_shorter_month_and_the_31st_again() {
        let calendar = calendar("2027-01-31 00:00", MONTH, "UTC");
        let expected = ["2027-02-28 00:00", "2027-03-31 00:00", "2027-04-30 00:00", "2027-05-31 00:00"].map(at);
        assert_eq!(ends(&calendar, "2027-01-31 00:00", 4), expected);
        assert_eq!(calendar.end_of_period_at(at("2028-01-31 00:00"), 1), at("2028-02-29 00:00"));
        assert_eq!(calendar.start_of_period_at(at("2026-12-30 23:59")), at("2026-11-30 00:00"));
    }

    #[test]
    fn a_day_in_berlin_has_23_25_or_24_hours() {
        let calendar = calendar("2026-03-27 23:00", DAY, "Europe/Berlin");
        assert_eq!(ends(&calendar, "2026-03-28 23:00", 2), ["2026-03-29 22:00", "2026-03-30 22:00"].map(at));
        assert_eq!(ends(&calendar, "2026-10-24 22:00", 2), ["2026-10-25 23:00", "2026-10-26 23:00"].map(at));
    }

    /// Half past two in the morning: skipped in March, shown twice in October.
    #[test]
    fn a_skipped_time_is_read_before_the_change_and_a_repeated_one_after_it() {
        let calendar = calendar("2026-03-28 01:30", DAY, "Europe/Berlin");
        assert_eq!(ends(&calendar, "2026-03-28 01:30", 2), ["2026-03-29 01:30", "2026-03-30 00:30"].map(at));
        assert_eq!(ends(&calendar, "2026-10-24 00:30", 2), ["2026-10-25 01:30", "2026-10-26 01:30"].map(at));
    }

    /// Samoa went over the date line: its 30th of December 2011 does not exist, and no period is empty.
    #[test]
    fn a_day_that_does_not_exist_makes_no_period() {
        let calendar = calendar("2011-12-28 20:00", DAY, "Pacific/Apia");
        let expected = ["2011-12-29 20:00", "2011-12-30 20:00", "2011-12-31 20:00"].map(at);
        assert_eq!(ends(&calendar, "2011-12-28 20:00", 3), expected);
    }

    #[test]
    fn periods_end_with_the_year_9999() {
        let calendar = calendar("2026-01-01 00:00", Interval { months: 1200, ..Interval::ZERO }, "UTC");
        assert_eq!(calendar.end_of_period_at(at("9970-01-01 00:00"), 1), Timestamp::NEVER);
        assert_eq!(calendar.end_of_period_at(at("2026-01-01 00:00"), u32::MAX), Timestamp::NEVER);
    }

    #[test]
    fn every_is_one_unit_from_an_hour_to_100_years() {
        let every = |months, days, microseconds| Calendar::checked_every("every", Interval { months, days, microseconds });
        for good in [every(1, 0, 0), every(1200, 0, 0), every(0, 7, 0), every(0, 0, HOUR_MICROSECONDS)] {
            assert!(good.is_ok());
        }
        for bad in [every(0, 0, 0), every(1, 1, 0), every(0, 1, 1), every(0, 0, HOUR_MICROSECONDS - 1), every(-1, 0, 0)] {
            assert_eq!(bad.unwrap_err().symbol(), "invalid_argument");
        }
        assert_eq!(every(1201, 0, 0).unwrap_err().symbol(), "out_of_range");
    }

    mod agrees_with_counting {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn one_period_after_the_other(
                anchor in 0..800_000_000_000_000_i64,
                offset in -40_000_000_000_000_i64..40_000_000_000_000,
                every in prop_oneof![
                    (1..30_i32).prop_map(|months| Interval { months, ..Interval::ZERO }),
                    (1..70_i32).prop_map(|days| Interval { days, ..Interval::ZERO }),
                    (HOUR_MICROSECONDS..HOUR_MICROSECONDS * 100).prop_map(|microseconds| Interval { microseconds, ..Interval::ZERO }),
                ],
                zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe"]),
            ) {
                let calendar = Calendar { anchor: Timestamp::from_postgres(anchor), every, zone: TimeZone::from_name(zone).unwrap() };
                let at = Timestamp::from_postgres(anchor + offset);
                let start = calendar.start_of_period_at(at);
                let end = calendar.end_of_period_at(at, 1);
                prop_assert!(start <= at && at < end);
                prop_assert_eq!(calendar.start_of_period_at(start), start);
                prop_assert_eq!(calendar.start_of_period_at(end), end);
                prop_assert_eq!(calendar.start_of_period_at(end.plus_microseconds(-1)), start);
            }
        }
    }
}
