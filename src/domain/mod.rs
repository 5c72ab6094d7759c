//! What the ledger decides, and nothing else: no PostgreSQL, no clock, no input or output.
//!
//! Time comes in as an argument, stored grants through [`book::Reader`], generated ids through [`book::Ids`].

pub mod amount;
pub mod book;
pub mod chart;
pub mod entry;
pub mod fefo;
pub mod grant;
pub mod granting;
pub mod names;
pub mod overage;
pub mod refund;
pub mod request;
pub mod settle;
pub mod time;
pub mod transfer;
pub mod usage;
pub mod verify;
pub mod wallet;

#[cfg(test)]
mod properties;
