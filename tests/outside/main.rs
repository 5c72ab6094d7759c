//! Tests from outside: real servers, real connections, the extension as its users meet it.
//!
//! One module for each kind of thing that can only be seen from there. `scripts/test.sh outside` runs them all;
//! `FILTER=name` some. The harness is the crate `pgrx-tests` of this workspace.

mod access;
mod books;
mod catalog;
mod concurrency;
mod crash;
mod cron;
mod dump_restore;
mod grants;
mod idempotency;
mod inputs;
mod late_usage;
mod overage;
mod refunds;
mod riding;
mod sessions;
mod standby;
mod time;
mod usage;
mod wallets;
mod workload;
