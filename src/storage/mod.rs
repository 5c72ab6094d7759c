//! The only place with SQL text. Every statement is prepared once in a session and kept.

pub mod books;
pub mod clock;
pub mod codec;
pub mod grants;
pub mod ids;
pub mod ledger;
pub mod plain;
pub mod statement;
pub mod verification;
pub mod wallets;
