//! Every setting of the extension.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

use crate::domain::time::Interval;

/// `credits.test_clock`: the ledger's time for tests; empty for the real one.
pub static TEST_CLOCK: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// `credits.webhook_database`: where the webhook worker delivers; empty for nowhere.
pub static WEBHOOK_DATABASE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// `credits.webhook_concurrency`: how many endpoints are sent to at once.
pub static WEBHOOK_CONCURRENCY: GucSetting<i32> = GucSetting::<i32>::new(8);

/// `credits.webhook_timeout`: of one attempt, in milliseconds.
pub static WEBHOOK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(15_000);

/// `credits.webhook_allowed_hosts`: hosts that may be private and spoken to over plain http.
pub static WEBHOOK_ALLOWED_HOSTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// `credits.webhook_ca_file`: authorities trusted besides the public ones, as a PEM file; empty for none.
pub static WEBHOOK_CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// `credits.event_retention`: how long events are kept, in days.
pub static EVENT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30);

/// The text of a setting; empty if it is not valid UTF-8.
pub fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().and_then(|text| text.into_string().ok()).unwrap_or_default()
}

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
    define_webhooks();
    // SAFETY: a constant C string; a misspelt setting of this prefix is refused from now on.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"credits".as_ptr()) };
}

fn define_webhooks() {
    let text = |name, short: &'static CStr, long, setting| {
        GucRegistry::define_string_guc(name, short, long, setting, GucContext::Sighup, GucFlags::default());
    };
    let number = |name, short: &'static CStr, long, setting, min, max, flags| {
        GucRegistry::define_int_guc(name, short, long, setting, min, max, GucContext::Sighup, flags);
    };
    text(
        c"credits.webhook_database",
        c"Database whose webhook events are delivered; empty for none.",
        c"The worker runs if pg_credits is in shared_preload_libraries. Without a database it is connected to nothing.",
        &WEBHOOK_DATABASE,
    );
    number(
        c"credits.webhook_concurrency",
        c"How many webhook endpoints are sent to at once.",
        c"Each takes a thread of the webhook worker while its deliveries are sent.",
        &WEBHOOK_CONCURRENCY,
        1,
        100,
        GucFlags::default(),
    );
    number(
        c"credits.webhook_timeout",
        c"Longest time of one webhook attempt, from looking up the name to the end of the answer.",
        c"",
        &WEBHOOK_TIMEOUT,
        100,
        600_000,
        GucFlags::UNIT_MS,
    );
    text(
        c"credits.webhook_allowed_hosts",
        c"Hosts that webhooks may be sent to at private addresses and over plain http: host or host:port, with commas between them.",
        c"All other hosts must be public and are spoken to over https.",
        &WEBHOOK_ALLOWED_HOSTS,
    );
    text(
        c"credits.webhook_ca_file",
        c"PEM file of certificate authorities that webhook receivers are trusted by, besides the public ones; empty for none.",
        c"",
        &WEBHOOK_CA_FILE,
    );
    number(
        c"credits.event_retention",
        c"Days after which events and their deliveries are purged.",
        c"Events that are still to be delivered to an endpoint in use are kept.",
        &EVENT_RETENTION,
        1,
        36_500,
        GucFlags::default(),
    );
}
