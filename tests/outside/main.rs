//! Tests from outside: real servers, real connections, the extension as its users meet it.
//!
//! One module for each kind of thing that can only be seen from there. `scripts/test.sh outside` runs them all;
//! `FILTER=name` some. The harness is the crate `pgrx-tests` of this workspace.

mod access;
mod books;
mod catalog;
mod concurrency;
mod contracts;
mod contracts_calls;
mod crash;
mod cron;
mod dump_restore;
mod grants;
mod holds;
mod holds_calls;
mod holds_races;
mod holds_time;
mod idempotency;
mod inputs;
mod late_usage;
mod maintenance;
mod minimum_spend;
mod overage;
mod recurring;
mod recurring_books;
mod recurring_calls;
mod recurring_time;
mod refunds;
mod riding;
mod rollover;
mod sessions;
mod settling;
mod standby;
mod time;
mod two_years;
mod usage;
mod wallets;
mod workload;
