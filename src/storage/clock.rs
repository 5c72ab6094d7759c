//! `credits.clock()`, the one clock of the ledger.

use std::cell::RefCell;
use std::ffi::{CStr, CString};

use pgrx::{PgTryBuilder, pg_sys};

use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::settings::TEST_CLOCK;

/// A text with the time zone it was read in, and what it means there.
type Parsed = (CString, *mut pg_sys::pg_tz, Timestamp);

thread_local! {
    /// The last test clock parsed. PostgreSQL keeps its time zones for ever, so a pointer names one.
    static PARSED: RefCell<Option<Parsed>> = const { RefCell::new(None) };
}

/// The time of day, or `credits.test_clock` if it is not empty; 22003 outside the years 1970 to 9999.
pub fn now() -> Result<Timestamp> {
    let Some(text) = TEST_CLOCK.get().filter(|text| !text.is_empty()) else {
        return real().in_range("the system clock");
    };
    // SAFETY: a pointer that is always set, copied.
    let zone = unsafe { pg_sys::session_timezone };
    let is_known = |(known, known_zone, _): &&Parsed| *known == text && *known_zone == zone;
    if let Some(at) = PARSED.with_borrow(|parsed| parsed.as_ref().filter(is_known).map(|(_, _, at)| *at)) {
        return Ok(at);
    }
    let at = parse(&text)?;
    PARSED.set(Some((text, zone, at)));
    Ok(at)
}

/// The time of day, whatever clock the ledger is on: for leases, attempts and signatures.
pub fn real() -> Timestamp {
    // SAFETY: reads the system clock.
    Timestamp::from_postgres(unsafe { pg_sys::GetCurrentTimestamp() })
}

fn parse(text: &CStr) -> Result<Timestamp> {
    match read(text) {
        Some(at) => at.in_range("credits.test_clock"),
        None => Err(Error::invalid(
            "credits.test_clock",
            format!("\"{}\" is not a time", text.to_string_lossy()),
            "Set it to a timestamptz such as '2026-01-01 00:00+00', or to '' for the real time.",
        )),
    }
}

/// A timestamptz as PostgreSQL reads it in this session; none if it cannot.
pub fn read(text: &CStr) -> Option<Timestamp> {
    let arguments = [
        Some(pg_sys::Datum::from(text.as_ptr())),
        Some(pg_sys::Datum::from(pg_sys::InvalidOid)),
        Some(pg_sys::Datum::from(-1_i32)),
    ];
    // SAFETY: timestamptz_in takes a C string, an unused oid and a type modifier, and raises what it cannot read.
    let read = || unsafe { pgrx::direct_function_call_as_datum(pg_sys::timestamptz_in, &arguments) };
    let datum = PgTryBuilder::new(read).catch_others(|_| None).execute()?;
    Some(Timestamp::from_postgres(datum.value() as i64))
}
