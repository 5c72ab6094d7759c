//! Instants and intervals as PostgreSQL counts them (SPEC 2).

use chrono::{DateTime, Months, TimeDelta, Utc};

use crate::error::{Error, Result};

/// An instant: microseconds since 2000-01-01 00:00 UTC, as in PostgreSQL's `timestamptz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Microseconds from 1970-01-01 to 2000-01-01.
const UNIX_TO_2000_MICROSECONDS: i64 = 946_684_800_000_000;
/// 10000-01-01 00:00 UTC, the first instant that is too late.
const LIMIT_MICROSECONDS: i64 = 252_455_616_000_000_000;

impl Timestamp {
    /// Never: PostgreSQL's `infinity`. Only an expiry or a due instant may be it.
    pub const NEVER: Timestamp = Timestamp(i64::MAX);

    pub const fn from_postgres(microseconds: i64) -> Self {
        Self(microseconds)
    }

    /// Microseconds since 2000-01-01 00:00 UTC.
    pub const fn to_postgres(self) -> i64 {
        self.0
    }

    pub const fn to_unix_milliseconds(self) -> i64 {
        (self.0 + UNIX_TO_2000_MICROSECONDS).div_euclid(1000)
    }

    pub const fn is_never(self) -> bool {
        self.0 == i64::MAX
    }

    /// This instant, if it lies in the years 1970 to 9999; `what` names it in the error (22003).
    pub fn in_range(self, what: &str) -> Result<Self> {
        if (-UNIX_TO_2000_MICROSECONDS..LIMIT_MICROSECONDS).contains(&self.0) {
            Ok(self)
        } else {
            Err(Error::out_of_range(
                what,
                "it must lie in the years 1970 to 9999",
                "Pass a timestamptz of the years 1970 to 9999; an expiry may also be 'infinity'.",
            ))
        }
    }

    /// This instant plus an interval: months first (the day cut to the length of the month), then days and microseconds, in UTC,
    /// as PostgreSQL adds them. The result must lie before the year 10000.
    pub fn plus(self, interval: Interval, what: &str) -> Result<Self> {
        let moved = DateTime::<Utc>::from_timestamp_micros(self.0 + UNIX_TO_2000_MICROSECONDS)
            .and_then(|start| {
                let months = Months::new(interval.months.unsigned_abs());
                if interval.months < 0 { start.checked_sub_months(months) } else { start.checked_add_months(months) }
            })
            .and_then(|moved| moved.checked_add_signed(TimeDelta::days(interval.days.into())))
            .and_then(|moved| moved.checked_add_signed(TimeDelta::microseconds(interval.microseconds)));
        match moved {
            Some(moved) => Timestamp(moved.timestamp_micros() - UNIX_TO_2000_MICROSECONDS).in_range(what),
            None => Timestamp(i64::MIN).in_range(what),
        }
    }

    /// This instant moved by microseconds, for tolerances.
    pub const fn plus_microseconds(self, microseconds: i64) -> Self {
        Self(self.0.saturating_add(microseconds))
    }
}

/// ISO 8601 in UTC, for messages.
impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_never() {
            return f.write_str("never");
        }
        match DateTime::<Utc>::from_timestamp_micros(self.0.saturating_add(UNIX_TO_2000_MICROSECONDS)) {
            Some(instant) => write!(f, "{}", instant.format("%Y-%m-%d %H:%M:%S%.f+00")),
            None => write!(f, "{} microseconds after 2000", self.0),
        }
    }
}

/// A span of calendar time, as PostgreSQL keeps it: the three parts are added one after the other and never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

impl Interval {
    pub const ZERO: Interval = Interval { months: 0, days: 0, microseconds: 0 };

    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// This interval, if none of its parts is negative and it is not longer than 100 years (SPEC 2).
    pub fn in_range(self, argument: &'static str) -> Result<Self> {
        if self.months < 0 || self.days < 0 || self.microseconds < 0 {
            return Err(Error::invalid(
                argument,
                "an interval must not be negative",
                "Pass a positive interval, such as '30 days'.",
            ));
        }
        let epoch = Timestamp::from_postgres(0);
        let limit = Interval { months: 100 * 12, ..Interval::ZERO };
        if epoch.plus(self, argument)? > epoch.plus(limit, argument)? {
            return Err(Error::out_of_range(argument, "it is longer than 100 years", "Intervals go up to 100 years."));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    fn day(year: i32, month: u32, day: u32) -> Timestamp {
        let instant = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc();
        Timestamp(instant.timestamp_micros() - UNIX_TO_2000_MICROSECONDS)
    }

    fn months(months: i32) -> Interval {
        Interval { months, ..Interval::ZERO }
    }

    #[test]
    fn a_month_after_the_31st_is_the_last_day_of_a_shorter_month() {
        assert_eq!(day(2026, 1, 31).plus(months(1), "x"), Ok(day(2026, 2, 28)));
        assert_eq!(day(2028, 1, 31).plus(months(1), "x"), Ok(day(2028, 2, 29)));
    }

    #[test]
    fn instants_outside_1970_to_9999_are_refused() {
        assert!(day(1970, 1, 1).in_range("x").is_ok());
        assert!(day(1970, 1, 1).plus_microseconds(-1).in_range("x").is_err());
        assert!(day(9999, 12, 31).in_range("x").is_ok());
        assert!(day(9999, 12, 31).plus(months(1), "x").is_err());
        assert!(Timestamp::NEVER.in_range("x").is_err());
    }

    #[test]
    fn intervals_reach_100_years_and_no_further() {
        assert!(months(1200).in_range("x").is_ok());
        assert_eq!(months(1201).in_range("x").unwrap_err().symbol(), "out_of_range");
        assert_eq!(months(-1).in_range("x").unwrap_err().symbol(), "invalid_argument");
        let hundred_years_and_a_microsecond = Interval { microseconds: 1, ..months(1200) };
        assert_eq!(hundred_years_and_a_microsecond.in_range("x").unwrap_err().symbol(), "out_of_range");
    }
}
