//! Every setting of the extension.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

use crate::domain::time::Interval;

/// `credits.test_clock`: the ledger's time for tests; empty for the real one.
pub static TEST_CLOCK: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// `credits.pull_events`: whether events of every type are written for claim_events.
pub static PULL_EVENTS: GucSetting<bool> = GucSetting::<bool>::new(false);

/// `credits.expiring_notice`: how long before its expiry a grant is told of.
pub static EXPIRING_NOTICE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"7 days"));

/// How long before its expiry a grant is told of.
pub fn expiring_notice() -> Interval {
    // Checked when it was set.
    EXPIRING_NOTICE.get().as_deref().and_then(interval).unwrap_or_default()
}

fn interval(text: &CStr) -> Option<Interval> {
    let interval = text.to_str().ok().and_then(Interval::parse)?;
    interval.in_range("credits.expiring_notice").ok()
}

/// # Safety
/// PostgreSQL passes a pointer to a C string or to null.
#[pg_guard]
unsafe extern "C-unwind" fn check_interval(
    text: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above.
    unsafe { (*text).is_null() || interval(CStr::from_ptr(*text)).is_some() }
}

pub fn define() {
    GucRegistry::define_bool_guc(
        c"credits.pull_events",
        c"Whether events of every type are written for credits.claim_events.",
        c"Off, only those of alerts and top-ups are, and those that a webhook endpoint subscribes to.",
        &PULL_EVENTS,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: the hook is guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"credits.expiring_notice",
            c"How long before the expiry of a grant event grant.expiring is written, such as 7 days or 12h.",
            c"Maintenance writes it, once for each grant, if somebody subscribes to it.",
            &EXPIRING_NOTICE,
            GucContext::Suset,
            GucFlags::default(),
            Some(check_interval),
            None,
            None,
        );
    }
    GucRegistry::define_string_guc(
        c"credits.test_clock",
        c"Time of the credit ledger for tests, as a timestamptz; empty for the real time.",
        c"Only a superuser, or a role it was granted to with GRANT SET ON PARAMETER, may set it. What is recorded under a clock that \
          runs ahead keeps the customer's time there until the real time has caught up.",
        &TEST_CLOCK,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: a constant C string; a misspelt setting of this prefix is refused from now on.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"credits".as_ptr()) };
}
