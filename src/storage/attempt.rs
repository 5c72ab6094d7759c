//! A subtransaction around statements that may find a key used.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

/// Runs `work`; if it raises a unique violation, everything it did in the database is undone and the answer is none. Any other error
/// goes on.
pub fn unless_duplicate<T>(work: impl FnOnce() -> T) -> Option<T> {
    // SAFETY: what PL/pgSQL does for a block with an exception clause; both globals are put back after the subtransaction.
    let (context, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(before.0);
        before
    };
    let end = move |is_kept: bool| {
        // SAFETY: as above; the subtransaction that is open is the one begun here.
        unsafe {
            if is_kept {
                pg_sys::ReleaseCurrentSubTransaction();
            } else {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    let go_on = move |error: CaughtError| {
        end(false);
        error.rethrow()
    };
    let done = PgTryBuilder::new(AssertUnwindSafe(|| Some(work())))
        .catch_when(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, move |_| {
            end(false);
            None
        })
        .catch_others(go_on)
        .catch_rust_panic(go_on)
        .execute();
    if done.is_some() {
        end(true);
    }
    done
}
