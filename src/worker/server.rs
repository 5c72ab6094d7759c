//! The worker as a process of the server: signals, waiting, transactions. For the main thread only.

use std::ffi::{CStr, CString, c_int};
use std::os::fd::RawFd;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::storage::statement::connected;

// Declared here because pgrx's own declarations wrap a function in a guard, which a signal handler must not enter.
unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
}

/// SIGTERM ends the process at the next chance, in the middle of a statement too; SIGHUP makes it read the settings.
pub fn take_signals() {
    #[cfg(not(feature = "pg18"))]
    use pg_sys::pqsignal;
    #[cfg(feature = "pg18")]
    use pg_sys::pqsignal_be as pqsignal;
    // SAFETY: the server's own handlers, in the process's main thread, which has no other yet.
    unsafe {
        pqsignal(libc::SIGTERM, Some(die));
        pqsignal(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Waits for the latch, the descriptor to become readable, or the time; then does what signals have asked for. Returns whether the
/// settings were read again.
pub fn wait(fd: Option<RawFd>, pause: Option<Duration>) -> bool {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH;
    if fd.is_some() {
        events |= pg_sys::WL_SOCKET_READABLE;
    }
    if pause.is_some() {
        events |= pg_sys::WL_TIMEOUT;
    }
    let milliseconds = pause.map_or(-1, |pause| i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
    // SAFETY: this process's own latch, and a descriptor that is open.
    unsafe {
        pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events as i32, fd.unwrap_or(-1), milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        pgrx::check_for_interrupts!();
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}

/// Settings that no database or role may change for this process. What is lost with an asynchronous commit is sent once more.
const SESSION: [(&CStr, &CStr); 5] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"synchronous_commit", c"off"),
    // Nobody's lock stops all deliveries.
    (c"lock_timeout", c"2s"),
];

/// Connects to a database; if there is none of that name, the process ends with an error that says so.
pub fn connect(database: &str) {
    let name = match CString::new(database) {
        Ok(name) => name,
        Err(error) => pgrx::error!("credits.webhook_database: {error}"),
    };
    // SAFETY: C strings that outlive the calls, once in the life of the process.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(name.as_ptr(), std::ptr::null(), 0);
        for (setting, value) in SESSION {
            let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
            pg_sys::SetConfigOption(setting.as_ptr(), value.as_ptr(), context, source);
        }
    }
}

/// Ends the process with the code at which the server starts it again.
pub fn exit_to_restart() -> ! {
    // SAFETY: no transaction is open. Helper threads do not touch what this cleans up.
    unsafe { pg_sys::proc_exit(1) }
}

/// Runs `work` in a transaction with SPI connected; an error aborts the transaction and is returned as its message.
pub fn in_transaction<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let run = AssertUnwindSafe(|| {
        // SAFETY: no transaction is open before, and none after.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, c"delivering webhooks".as_ptr());
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let value = connected(work);
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            Ok(value)
        }
    });
    let result =
        PgTryBuilder::new(run).catch_others(|error| Err(abort(&error))).catch_rust_panic(|error| Err(abort(&error))).execute();
    // SAFETY: outside of a transaction. Without the report autovacuum would not know what there is to do.
    unsafe {
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    result
}

fn abort(error: &CaughtError) -> String {
    // SAFETY: pgrx has taken the error off PostgreSQL's stack.
    unsafe { pg_sys::AbortCurrentTransaction() };
    match error {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => report.message().to_owned(),
    }
}

/// Whether the extension is installed, of a version with the tables of webhooks; if so it stays until the transaction ends. A
/// DROP EXTENSION takes the same lock first, so that the two wait for each other in one order.
pub fn lock_extension() -> bool {
    // SAFETY: look-ups in the catalogue, in a transaction.
    unsafe {
        let find = || pg_sys::get_extension_oid(c"pg_credits".as_ptr(), true);
        let extension = find();
        if extension == pg_sys::InvalidOid {
            return false;
        }
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, 0, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let schema = pg_sys::get_namespace_oid(c"credits_data".as_ptr(), true);
        find() == extension && pg_sys::get_relname_relid(c"webhook_deliveries".as_ptr(), schema) != pg_sys::InvalidOid
    }
}
