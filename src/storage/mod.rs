//! The only place with SQL text. Every statement is prepared once in a session and kept.

mod ahead;
pub mod alerts;
mod attempt;
pub mod books;
pub mod clock;
pub mod codec;
mod columns;
pub mod contracts;
mod due;
pub mod grants;
mod holds;
pub mod ids;
pub mod inbox;
pub mod invoice_lines;
pub mod jobs;
pub mod ledger;
mod meter_periods;
mod metered;
pub mod meters;
pub mod outbox;
pub mod plain;
mod recurring;
pub mod statement;
mod stored;
pub mod top_ups;
pub mod verification;
pub mod wallets;
