//! Instants and intervals as PostgreSQL counts them (SPEC 2).

use chrono::{
    DateTime, Datelike, MappedLocalTime, Months, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, TimeZone as _, Utc,
};
use chrono_tz::{GapInfo, Tz};

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

    /// Before every instant: PostgreSQL's `-infinity`.
    pub const BEFORE_ALL: Timestamp = Timestamp(i64::MIN);

    pub const fn from_postgres(microseconds: i64) -> Self {
        Self(microseconds)
    }

    pub const fn from_unix_microseconds(microseconds: i64) -> Self {
        Self(microseconds - UNIX_TO_2000_MICROSECONDS)
    }

    /// Microseconds since 2000-01-01 00:00 UTC.
    pub const fn to_postgres(self) -> i64 {
        self.0
    }

    /// From text as JSON writes times: `2026-01-01T00:00:00+00:00`. None for any other text, and for more than microseconds.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let at = DateTime::parse_from_rfc3339(text).ok()?;
        if at.timestamp_subsec_nanos() % 1000 != 0 {
            return None;
        }
        at.timestamp_micros().checked_sub(UNIX_TO_2000_MICROSECONDS).map(Self)
    }

    /// As JSON writes times, to the microsecond; the end of time for what a calendar cannot tell.
    pub fn to_rfc3339(self) -> String {
        let at = DateTime::<Utc>::from_timestamp_micros(self.0.saturating_add(UNIX_TO_2000_MICROSECONDS));
        at.unwrap_or(DateTime::<Utc>::MAX_UTC).to_rfc3339_opts(SecondsFormat::AutoSi, true)
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

    /// This instant plus an interval in UTC: [`Timestamp::plus_in`].
    pub fn plus(self, interval: Interval, what: &str) -> Result<Self> {
        self.plus_in(TimeZone::UTC, interval, what)
    }

    /// This instant plus an interval, as PostgreSQL adds them in a session of this time zone: months first (the day cut to the
    /// length of the month), then days, then microseconds. The result must lie before the year 10000.
    pub fn plus_in(self, zone: TimeZone, interval: Interval, what: &str) -> Result<Self> {
        self.moved(zone, interval, 1).unwrap_or(Timestamp(i64::MIN)).in_range(what)
    }

    /// This instant plus `times` an interval, which may be negative; none beyond what a calendar can tell.
    pub fn moved(self, zone: TimeZone, interval: Interval, times: i64) -> Option<Self> {
        let months = i64::from(interval.months).checked_mul(times)?;
        let days = i64::from(interval.days).checked_mul(times)?;
        let mut moved = self;
        if months != 0 {
            let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
            let local = moved.local(zone)?;
            moved = Self::from_local(
                zone,
                if months < 0 { local.checked_sub_months(count)? } else { local.checked_add_months(count)? },
            )?;
        }
        if days != 0 {
            moved = Self::from_local(zone, moved.local(zone)?.checked_add_signed(TimeDelta::try_days(days)?)?)?;
        }
        moved.0.checked_add(interval.microseconds.checked_mul(times)?).map(Self)
    }

    /// What a clock in this zone shows; none for never.
    pub fn local(self, zone: TimeZone) -> Option<NaiveDateTime> {
        let utc = DateTime::<Utc>::from_timestamp_micros(self.0.checked_add(UNIX_TO_2000_MICROSECONDS)?)?;
        let (known, later) = known_to_zones(utc.naive_utc());
        zone.0.from_utc_datetime(&known).naive_local().checked_add_signed(later)
    }

    /// When a clock in this zone shows this: what it shows twice is the second time, what it skips is read as if it had not been
    /// put forward yet. So does PostgreSQL's `at time zone`.
    fn from_local(zone: TimeZone, local: NaiveDateTime) -> Option<Self> {
        let (known, later) = known_to_zones(local);
        let utc = match zone.0.from_local_datetime(&known) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(_, at) => at.naive_utc(),
            MappedLocalTime::None => {
                let (_, before) = GapInfo::new(&known, &zone.0)?.begin?;
                known.checked_sub_offset(chrono::Offset::fix(&before))?
            }
        };
        utc.checked_add_signed(later)?.and_utc().timestamp_micros().checked_sub(UNIX_TO_2000_MICROSECONDS).map(Self)
    }

    /// Whether [`Timestamp::in_range`] would refuse it for being too late.
    pub const fn is_too_late(self) -> bool {
        self.0 >= LIMIT_MICROSECONDS
    }

    /// Refuses (22023) an end that lies not after both now and the start it belongs to; the arguments are named in the error.
    pub fn check_end(
        self,
        argument: &'static str,
        (start_argument, start): (&str, Timestamp),
        now: Timestamp,
        hint: &str,
    ) -> Result<()> {
        if self <= now {
            return Err(Error::invalid(argument, format!("{self} is already past, it is {now}"), hint));
        }
        if self <= start {
            return Err(Error::invalid(argument, format!("{self} is not after {start_argument}, {start}"), hint));
        }
        Ok(())
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

/// The first year that the tables of time zones do not reach.
const ZONES_END_YEAR: i32 = 2100;

/// The same time of a year that the tables of time zones know, and how much later the time asked for is. The last rules go on for
/// ever, and they are rules of the calendar ("the last Sunday of March"): a year with the same calendar has the same ones.
fn known_to_zones(at: NaiveDateTime) -> (NaiveDateTime, TimeDelta) {
    if at.year() < ZONES_END_YEAR {
        return (at, TimeDelta::zero());
    }
    let new_year = |year| NaiveDate::from_ymd_opt(year, 1, 1);
    let calendar = |year| new_year(year).map(|day| (day.weekday(), day.leap_year()));
    // Within 28 years each of the 14 calendars comes up.
    let same = (ZONES_END_YEAR - 28..ZONES_END_YEAR).rev().find(|year| calendar(*year) == calendar(at.year()));
    let later = same.and_then(|year| Some(new_year(at.year())? - new_year(year)?)).unwrap_or_default();
    (at - later, later)
}

/// A time zone of the IANA database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeZone(Tz);

impl TimeZone {
    pub const UTC: TimeZone = TimeZone(Tz::UTC);

    /// By its name; anything else is 22023, naming the argument.
    pub fn checked(argument: &'static str, name: &str) -> Result<Self> {
        Self::from_name(name).ok_or_else(|| {
            let shown: String = name.chars().take(60).collect();
            Error::invalid(
                argument,
                format!("\"{shown}\" is not known"),
                "Pass a name of the IANA database, such as 'UTC' or 'Europe/Berlin'.",
            )
        })
    }

    /// In any case, as PostgreSQL reads names.
    pub fn from_name(name: &str) -> Option<Self> {
        Tz::from_str_insensitive(name).ok().map(Self)
    }

    pub fn name(self) -> &'static str {
        self.0.name()
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

    /// From numbers with units, such as `7 days`, `12h` or `1 month 15 days`, as a setting is written.
    pub fn parse(text: &str) -> Option<Self> {
        let mut interval = Self::ZERO;
        let mut rest = text.trim_start();
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let unit_at = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let number: i32 = rest[..unit_at].parse().ok()?;
            let unit = rest[unit_at..].trim_start();
            let end = unit.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(unit.len());
            let seconds = |factor: i64| i64::from(number) * factor * 1_000_000;
            match &unit[..end] {
                "s" | "sec" | "secs" | "second" | "seconds" => interval.microseconds += seconds(1),
                "min" | "mins" | "minute" | "minutes" => interval.microseconds += seconds(60),
                "h" | "hour" | "hours" => interval.microseconds += seconds(3600),
                "d" | "day" | "days" => interval.days = interval.days.checked_add(number)?,
                "w" | "week" | "weeks" => interval.days = interval.days.checked_add(number.checked_mul(7)?)?,
                "mon" | "month" | "months" => interval.months = interval.months.checked_add(number)?,
                _ => return None,
            }
            rest = unit[end..].trim_start();
        }
        Some(interval)
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
    fn settings_write_intervals_as_numbers_with_units() {
        let interval = |months, days, microseconds| Some(Interval { months, days, microseconds });
        for (text, expected) in [
            ("7 days", interval(0, 7, 0)),
            ("7d", interval(0, 7, 0)),
            (" 1 month 2 weeks 12h ", interval(1, 14, 43_200_000_000)),
            ("90min", interval(0, 0, 5_400_000_000)),
            ("", None),
            ("7", None),
            ("days", None),
            ("-1 day", None),
            ("1 fortnight", None),
            ("99999999999 days", None),
            ("2147483647 weeks", None),
        ] {
            assert_eq!(Interval::parse(text), expected, "{text}");
        }
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
