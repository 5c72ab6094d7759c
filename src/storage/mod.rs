//! The only place with SQL text. Every statement is prepared once in a session and kept.

pub mod books;
pub mod clock;
pub mod codec;
mod columns;
pub mod contracts;
pub mod grants;
mod holds;
pub mod ids;
pub mod jobs;
pub mod ledger;
pub mod plain;
mod recurring;
pub mod statement;
pub mod verification;
pub mod wallets;
