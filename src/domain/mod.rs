//! What the ledger decides, and nothing else: no PostgreSQL, no clock, no input or output.
//!
//! Time comes in as an argument, stored grants through [`reader::Reader`], generated ids through [`reader::Ids`].

pub mod address;
pub mod amount;
pub mod book;
pub mod calendar;
pub mod chart;
pub mod contract;
pub mod entitlement;
pub mod entry;
pub mod event;
pub mod fefo;
pub mod grant;
pub mod granting;
pub mod hold;
pub mod invoice;
pub mod json;
pub mod meter;
pub mod metering;
pub mod names;
pub mod overage;
pub mod pricing;
pub mod reader;
pub mod recurring;
pub mod refund;
pub mod request;
pub mod rows;
pub mod settle;
pub mod time;
pub mod top_up;
pub mod transfer;
pub mod usage;
pub mod verify;
pub mod wallet;
pub mod watch;
pub mod webhook;

#[cfg(test)]
mod properties;
