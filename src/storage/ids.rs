//! Ids that are unique without coordination: UUIDv7 of the call's now.

use pgrx::pg_sys;
use uuid::{Builder, Uuid};

use crate::domain::reader::Ids;
use crate::domain::time::Timestamp;

/// Takes its random bits from PostgreSQL's own strong source, which is safe across forks.
pub struct RandomIds;

impl Ids for RandomIds {
    /// Every transaction and every grant takes one, so that a long catch-up can be cancelled here.
    fn uuid(&self, at: Timestamp) -> Uuid {
        pgrx::check_for_interrupts!();
        let mut random = [0_u8; 10];
        // SAFETY: fills exactly the buffer.
        let filled = unsafe { pg_sys::pg_strong_random(random.as_mut_ptr().cast(), random.len()) };
        assert!(filled, "no random bytes");
        Builder::from_unix_timestamp_millis(at.to_unix_milliseconds().unsigned_abs(), &random).into_uuid()
    }
}
