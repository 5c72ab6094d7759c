//! Every setting of the extension.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};

/// `credits.test_clock`: the ledger's time for tests; empty for the real one.
pub static TEST_CLOCK: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

pub fn define() {
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
