//! `credits.clock()`, the one clock of the ledger.

use std::cell::RefCell;
use std::ffi::CString;

use pgrx::pg_sys;

use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::settings::TEST_CLOCK;

thread_local! {
    /// The last test clock parsed, since parsing depends on nothing but its text and the session's time zone.
    static PARSED: RefCell<Option<(CString, Timestamp)>> = const { RefCell::new(None) };
}

/// The time of day, or `credits.test_clock` if it is not empty; 22003 outside the years 1970 to 9999.
pub fn now() -> Result<Timestamp> {
    let Some(text) = TEST_CLOCK.get().filter(|text| !text.is_empty()) else {
        // SAFETY: reads the system clock.
        return Timestamp::from_postgres(unsafe { pg_sys::GetCurrentTimestamp() }).in_range("the system clock");
    };
    let known = PARSED.with_borrow(|parsed| parsed.as_ref().filter(|(known, _)| *known == text).map(|(_, at)| *at));
    if let Some(at) = known {
        return Ok(at);
    }
    let at = parse(&text)?;
    PARSED.set(Some((text, at)));
    Ok(at)
}

fn parse(text: &CString) -> Result<Timestamp> {
    // SAFETY: timestamptz_in takes a C string, an unused oid and a type modifier, and raises what it cannot read.
    let datum = unsafe {
        pgrx::direct_function_call_as_datum(
            pg_sys::timestamptz_in,
            &[
                Some(pg_sys::Datum::from(text.as_ptr())),
                Some(pg_sys::Datum::from(pg_sys::InvalidOid)),
                Some(pg_sys::Datum::from(-1_i32)),
            ],
        )
    };
    match datum {
        Some(datum) => Timestamp::from_postgres(datum.value() as i64).in_range("credits.test_clock"),
        None => Err(Error::invalid("credits.test_clock", "it is not a time", "Set it to a timestamptz or to ''.")),
    }
}
